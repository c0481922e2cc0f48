//! What a failed call of AWS KMS means: an outage, a denial, or something that does not verify.
//!
//! Errors are told apart by the text of their code: the SDK has no type for some of them, throttling first of all.

use std::error::Error as StdError;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;

use crate::error::Error;
use crate::kms::said::{Cause, Meaning, chain};

/// The codes of AWS KMS and of the services before it, each with its meaning. KEY-21 tells apart what does not verify.
const MEANINGS: &[(Meaning, &[&str])] = &[
    (
        Meaning::Denial,
        &[
            "AccessDeniedException",
            "AccessDenied",
            "DisabledException",
            // Pending deletion above all. A key that is being made or updated is denied too: its state is not known.
            "KMSInvalidStateException",
            "NotFoundException",
            "InvalidArnException",
            "InvalidKeyUsageException",
            "InvalidGrantTokenException",
            "UnsupportedOperationException",
            "ValidationException",
            "OptInRequired",
            // Credentials that the service does not know, or that do not fit.
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "NotAuthorized",
        ],
    ),
    (
        Meaning::Unverified,
        &["InvalidCiphertextException", "IncorrectKeyException", "IncorrectKeyMaterialException"],
    ),
    (
        Meaning::Outage,
        &[
            "ThrottlingException",
            "Throttling",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "LimitExceededException",
            "SlowDown",
            "KMSInternalException",
            "DependencyTimeoutException",
            "KeyUnavailableException",
            "InternalFailure",
            "InternalServerError",
            "InternalServerException",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
            // A custom key store that is not connected.
            "CloudHsmClusterNotActiveException",
            "CustomKeyStoreInvalidStateException",
            "XksProxyUriUnreachableException",
            // Credentials that ran out are renewed by whoever gives them, and until then nothing new is unwrapped. Where
            // consent was taken away, the answer is AccessDenied.
            "ExpiredToken",
            "ExpiredTokenException",
            "RequestExpired",
        ],
    ),
];

/// The meaning of a code; of one that is not known, by the status of the answer.
pub(super) fn meaning(code: Option<&str>, status: Option<u16>) -> Meaning {
    let of_code =
        |code| MEANINGS.iter().find(|(_, codes)| codes.contains(&code)).map(|(meaning, _)| *meaning);
    code.and_then(of_code).unwrap_or(match status {
        Some(429 | 500..) | None => Meaning::Outage,
        // An answer that says that it is well, and cannot be read.
        Some(..400) => Meaning::Unverified,
        Some(_) => Meaning::Denial,
    })
}

/// Turns what the SDK says into an error of ours. `what` was being done.
pub(super) fn failed<E>(what: &str, error: &SdkError<E>) -> Error
where
    E: StdError + ProvideErrorMetadata + RequestId + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let (code, cause) = match error {
        SdkError::ServiceError(context) => {
            let error = context.err();
            let request = RequestId::request_id(error).map(|id| format!("request {id}"));
            let text = [error.code().map(str::to_owned), error.message().map(str::to_owned), request];
            (error.code(), text.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        // Not its cause: what could not be read may have been a key.
        SdkError::ResponseError(_) => (None, "an answer that cannot be read".to_owned()),
        SdkError::TimeoutError(_) => (None, "no answer in time".to_owned()),
        other => (None, chain(other)),
    };
    let meaning = meaning(code, status);
    let advice = match meaning {
        Meaning::Denial => "see who may use the key: its policy, its state, this host's credentials",
        Meaning::Unverified => "restore the key store, and see what stands between this host and the service",
        Meaning::Outage => "see that the region's endpoint and credentials can be had from here",
    };
    Error::new(meaning.code(), format!("AWS KMS did not {what}")).advise(advice).because(Cause::new(&cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_meaning() {
        let mut codes: Vec<_> = MEANINGS.iter().flat_map(|(_, codes)| *codes).collect();
        let listed = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), listed);
        for (expected, codes) in MEANINGS {
            for code in *codes {
                // Whatever the status: some denials come with 500, some outages with 400.
                for status in [200, 400, 403, 500, 503] {
                    assert_eq!(meaning(Some(code), Some(status)), *expected, "{code} {status}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_known_code_is_told_by_its_status() {
        for code in [None, Some("NewException")] {
            assert_eq!(meaning(code, None), Meaning::Outage);
            assert_eq!(meaning(code, Some(200)), Meaning::Unverified);
            assert_eq!(meaning(code, Some(302)), Meaning::Unverified);
            assert_eq!(meaning(code, Some(400)), Meaning::Denial);
            assert_eq!(meaning(code, Some(403)), Meaning::Denial);
            assert_eq!(meaning(code, Some(429)), Meaning::Outage);
            assert_eq!(meaning(code, Some(500)), Meaning::Outage);
            assert_eq!(meaning(code, Some(503)), Meaning::Outage);
        }
    }
}
