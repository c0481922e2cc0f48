//! What a module's return codes mean: an outage, a denial, or something that does not verify.

use cryptoki::error::{Error as ModuleError, RvError};

use crate::error::{Code, Error};
use crate::kms::said::{Cause, Meaning, chain};

/// What stopped a call: the module, or what we make of its answer.
#[derive(Debug)]
pub(super) enum Fault {
    Module(ModuleError),
    Ours(Error),
}

impl From<ModuleError> for Fault {
    fn from(error: ModuleError) -> Self {
        Fault::Module(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Ours(error)
    }
}

impl Fault {
    fn code(&self) -> Option<RvError> {
        match self {
            Fault::Module(ModuleError::Pkcs11(code, _)) => Some(*code),
            _ => None,
        }
    }

    /// Whether the session, the login or the handles are gone, and new ones may be had.
    pub(super) fn is_lost(&self) -> bool {
        use RvError::*;
        matches!(
            self.code(),
            Some(
                DeviceRemoved
                    | DeviceError
                    | SessionClosed
                    | SessionHandleInvalid
                    | TokenNotPresent
                    | TokenNotRecognized
                    | UserNotLoggedIn
                    | KeyHandleInvalid
                    | ObjectHandleInvalid
                    | OperationActive
                    | OperationNotInitialized
            )
        )
    }

    /// Whether a module says so of a ciphertext that does not verify, and also when it is ill.
    pub(super) fn is_vague(&self) -> bool {
        matches!(self.code(), Some(RvError::GeneralError | RvError::FunctionFailed | RvError::DataInvalid))
    }

    pub(super) fn meaning(&self) -> Option<Meaning> {
        match self {
            Fault::Module(error) => Some(meaning(error)),
            Fault::Ours(_) => None,
        }
    }

    /// An error of ours. `what` was being done.
    pub(super) fn error(self, what: &str) -> Error {
        let error = match self {
            Fault::Ours(error) => return error,
            Fault::Module(error) => error,
        };
        let meaning = meaning(&error);
        let advice = match meaning {
            Meaning::Outage => "see that the token is there, and that its module reaches it from here",
            Meaning::Denial => "see the PIN, and what the token lets its user do with the key",
            Meaning::Unverified => "restore the key store, and see which token this is",
        };
        Error::new(meaning.code(), format!("the module did not {what}"))
            .advise(advice)
            .because(Cause::new(&chain(&error)))
    }
}

/// The code of an error, where the module gave none of PKCS#11's.
pub(super) fn meaning(error: &ModuleError) -> Meaning {
    use RvError::*;
    let code = match error {
        ModuleError::Pkcs11(code, _) => code,
        // The library is not there, or not one.
        ModuleError::LibraryLoading(_) | ModuleError::MissingSymbol(_) => return Meaning::Outage,
        ModuleError::NullFunctionPointer | ModuleError::NotSupported => return Meaning::Denial,
        // An answer that cannot be read.
        _ => return Meaning::Unverified,
    };
    match code {
        EncryptedDataInvalid | EncryptedDataLenRange | SignatureInvalid | SignatureLenRange => {
            Meaning::Unverified
        }
        Cancel | HostMemory | SlotIdInvalid | GeneralError | FunctionFailed | CantLock
        | NeedToCreateThreads | DeviceError | DeviceMemory | DeviceRemoved | FunctionCanceled
        | KeyHandleInvalid | ObjectHandleInvalid | OperationActive | OperationNotInitialized
        | SessionClosed | SessionCount | SessionHandleInvalid | TokenNotPresent | TokenNotRecognized
        | CryptokiNotInitialized | MutexBad | MutexNotLocked | FipsSelfTestFailed | LibraryLoadFailed
        // What a maker added is mostly about the way to its device.
        | VendorDefined(_) => Meaning::Outage,
        // PINs, rights, kinds of keys, mechanisms and all that is new.
        _ => Meaning::Denial,
    }
}

/// A key that its operator makes, because this user may not.
pub(super) fn for_its_operator(fault: Fault, what: &str) -> Error {
    if fault.meaning() != Some(Meaning::Denial) {
        return fault.error(what);
    }
    Error::new(Code::ArgumentInvalid, "this user may not change root keys of the token")
        .advise("let its operator make or destroy the key, under the label of the root and an id of its own")
        .because(fault.error(what))
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn module(code: RvError) -> Fault {
        Fault::Module(ModuleError::Pkcs11(code, Function::Decrypt))
    }

    #[test]
    fn every_return_code_has_one_meaning() {
        use RvError::*;
        let table: [(Code, &[RvError]); 3] = [
            (
                Code::KmsUnavailable,
                &[
                    DeviceRemoved,
                    TokenNotPresent,
                    TokenNotRecognized,
                    SessionClosed,
                    SessionHandleInvalid,
                    SessionCount,
                    DeviceError,
                    DeviceMemory,
                    GeneralError,
                    FunctionFailed,
                    HostMemory,
                    CryptokiNotInitialized,
                    VendorDefined(0x8000_0001),
                ],
            ),
            (
                Code::KmsDenied,
                &[
                    UserNotLoggedIn,
                    PinIncorrect,
                    PinLocked,
                    PinExpired,
                    PinInvalid,
                    PinLenRange,
                    KeyFunctionNotPermitted,
                    ActionProhibited,
                    MechanismInvalid,
                    KeyTypeInconsistent,
                    FunctionNotSupported,
                    TokenWriteProtected,
                    FunctionRejected,
                ],
            ),
            (Code::KmsUnverified, &[EncryptedDataInvalid, EncryptedDataLenRange]),
        ];
        for (expected, codes) in table {
            for code in codes {
                assert_eq!(module(*code).error("unwrap a key").code(), expected, "{code:?}");
            }
        }
    }

    #[test]
    fn a_wrong_pin_is_not_tried_again_and_a_lost_session_is() {
        for code in [RvError::PinIncorrect, RvError::PinLocked, RvError::KeyFunctionNotPermitted] {
            assert!(!module(code).is_lost(), "{code:?}");
        }
        for code in [RvError::SessionHandleInvalid, RvError::UserNotLoggedIn, RvError::DeviceRemoved] {
            assert!(module(code).is_lost(), "{code:?}");
        }
    }

    #[test]
    fn keys_that_a_user_may_not_make_are_made_by_the_operator() {
        let error = for_its_operator(module(RvError::ActionProhibited), "make a root key");
        assert_eq!(error.code(), Code::ArgumentInvalid);
        let error = for_its_operator(module(RvError::DeviceRemoved), "make a root key");
        assert_eq!(error.code(), Code::KmsUnavailable);
    }
}
