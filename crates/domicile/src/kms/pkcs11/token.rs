//! A token behind a module: loading the one, finding the other, sessions and the login that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as ModuleError, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::failure::Fault;
use crate::error::{Code, Error};
use crate::files;
use crate::kms::Pkcs11Options;
use crate::kms::credential::Place;
use crate::wire;

/// The modules of this process. One is loaded and initialized once, whoever uses it, and stays until the process ends: that
/// is how PKCS#11 has it.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
pub(super) struct Module {
    loaded: Mutex<Option<Pkcs11>>,
    /// The PINs that tokens refused, by a digest of both. Held while one is tried: of a wrong one, one try is one too many
    /// already.
    refused: Mutex<BTreeSet<[u8; 32]>>,
}

/// The token that is configured.
pub(super) struct Token {
    pub(super) options: Pkcs11Options,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Module {
    /// The module at this path, loaded if it is not yet.
    fn at(path: &Path) -> Result<(Arc<Self>, Pkcs11), Fault> {
        let unavailable = |source: std::io::Error| {
            Error::new(Code::KmsUnavailable, "the module of the token cannot be read")
                .at(path.display().to_string())
                .advise("install it, or name where it is as `module`")
                .because(source)
        };
        // The whole path: of a bare name, the loader would look for one elsewhere.
        let path = fs::canonicalize(path).map_err(unavailable)?;
        let module = lock(&MODULES).entry(path.clone()).or_default().clone();
        let mut loaded = lock(&module.loaded);
        if let Some(pkcs11) = &*loaded {
            let pkcs11 = pkcs11.clone();
            drop(loaded);
            return Ok((module, pkcs11));
        }
        // It will be part of this process, and has the keys that the token gives back.
        let metadata = fs::metadata(&path).map_err(unavailable)?;
        if metadata.mode() & 0o022 != 0 || !files::belongs_to_us(&metadata) {
            return Err(Error::new(Code::KmsExposed, "others can change the module of the token")
                .at(path.display().to_string())
                .rule("a module belongs to this user or to root, and nobody else may write it")
                .advise("chown it to root, chmod go-w it")
                .into());
        }
        let pkcs11 = Pkcs11::new(&path)?;
        match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Another part of this process did.
            Ok(()) | Err(ModuleError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error.into()),
        }
        *loaded = Some(pkcs11.clone());
        drop(loaded);
        Ok((module, pkcs11))
    }
}

impl Token {
    /// A session in which the user is logged in.
    pub(super) fn session(&self, writing: bool) -> Result<Session, Fault> {
        let (module, pkcs11) = Module::at(&self.options.module)?;
        let (slot, serial) = self.slot(&pkcs11)?;
        let session = if writing { pkcs11.open_rw_session(slot)? } else { pkcs11.open_ro_session(slot)? };
        if !is_logged_in(&session)? {
            let mut refused = lock(&module.refused);
            // Somebody may have, meanwhile: a login is the whole process's.
            if !is_logged_in(&session)? {
                self.log_in(&pkcs11, slot, &serial, &session, &mut refused)?;
            }
        }
        Ok(session)
    }

    /// The one token with this label or serial number.
    fn slot(&self, pkcs11: &Pkcs11) -> Result<(Slot, String), Fault> {
        let mut found = Vec::new();
        for slot in pkcs11.get_slots_with_token()? {
            let info = match pkcs11.get_token_info(slot) {
                Ok(info) => info,
                // Another token, or one that was taken out just now.
                Err(ModuleError::Pkcs11(..)) => continue,
                Err(error) => return Err(error.into()),
            };
            if info.token_initialized()
                && [info.label(), info.serial_number()].contains(&self.options.token.as_str())
            {
                found.push((slot, info.serial_number().to_owned()));
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(found), true) => Ok(found),
            (None, _) => Err(Error::new(Code::KmsUnavailable, "there is no such token")
                .at(self.options.token.clone())
                .advise("put it in, or name its label or serial number as `token`")
                .into()),
            _ => Err(Error::new(Code::ConfigInvalid, "there are several tokens of this name")
                .at(self.options.token.clone())
                .advise("name one by its serial number")
                .into()),
        }
    }

    fn log_in(
        &self,
        pkcs11: &Pkcs11,
        slot: Slot,
        serial: &str,
        session: &Session,
        refused: &mut BTreeSet<[u8; 32]>,
    ) -> Result<(), Fault> {
        let pin = self.pin()?;
        let of = wire::parts(&[b"domicile/v1/refused-pin", serial.as_bytes(), &pin]);
        let digest: [u8; 32] = Sha256::digest(&*Zeroizing::new(of)).into();
        let denied = |what: &str, advice: &str| {
            Fault::Ours(
                Error::new(Code::KmsDenied, what).at(self.options.token.clone()).advise(advice.to_owned()),
            )
        };
        if refused.contains(&digest) {
            return Err(denied(
                "the token refused this PIN before, and it is not tried again",
                "put the right one in its place",
            ));
        }
        let info = pkcs11.get_token_info(slot)?;
        if info.user_pin_locked() {
            return Err(denied("the user's PIN is locked", "let the security officer set a new one"));
        }
        if info.user_pin_final_try() {
            return Err(denied(
                "the token takes one more try at the PIN, and would then lock",
                "log in once by hand, with the right one",
            ));
        }
        match session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin.to_vec()))) {
            Ok(()) | Err(ModuleError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => {
                use RvError::{PinIncorrect, PinInvalid, PinLenRange, PinLocked};
                if let ModuleError::Pkcs11(PinIncorrect | PinInvalid | PinLenRange | PinLocked, _) = error {
                    refused.insert(digest);
                }
                Err(error.into())
            }
        }
    }

    fn pin(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let place = match (&self.options.pin_file, &self.options.pin_env) {
            (Some(path), None) => Place::File(path),
            (None, Some(name)) => Place::Env(name),
            _ => return Err(pin_of_one_place().into()),
        };
        Ok(place.read("PIN")?)
    }
}

/// Whether a session is there, and the user logged in.
pub(super) fn is_logged_in(session: &Session) -> Result<bool, Fault> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

/// A PIN comes from one place.
pub(super) fn pin_of_one_place() -> Error {
    Error::new(Code::ConfigInvalid, "the PIN comes from a file or from the environment, and one of them")
        .advise("name it: `pin_file` or `pin_env`")
}
