//! What a failed call of Vault means: an outage, a denial, or something that does not verify.

use serde::Deserialize;

use crate::error::Error;
use crate::kms::said::{Cause, Meaning};

/// What Transit says of a ciphertext that does not open under the key and the associated data. KEY-24 tells it apart from
/// one that it will not open.
const UNVERIFIED: [&str; 2] = ["message authentication failed", "invalid ciphertext"];
/// And of one whose version of the key is gone, or not there.
const GONE: [&str; 2] = ["disallowed by policy", "version is too new"];

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    errors: Vec<String>,
}

/// The meaning of a status, and of what was said with it.
pub(super) fn meaning(status: u16, said: &str) -> Meaning {
    match status {
        // Performance standbys that lag (412), quotas (429), faults, and a service that is sealed (503).
        408 | 412 | 429 => Meaning::Outage,
        400 | 500.. if GONE.iter().any(|text| said.contains(text)) => Meaning::Denial,
        400 | 500.. if UNVERIFIED.iter().any(|text| said.contains(text)) => Meaning::Unverified,
        500.. => Meaning::Outage,
        // A standby that names the active one. It is not followed: the token goes where it was told.
        300..=399 => Meaning::Outage,
        400..=499 => Meaning::Denial,
        _ => Meaning::Unverified,
    }
}

/// Turns a status that is no success into an error. `what` was being done; what was said is left out where it repeats one of
/// the `secrets`.
pub(super) fn failed(what: &str, status: u16, body: &[u8], secrets: &[Option<&[u8]>]) -> Error {
    let said = serde_json::from_slice::<Said>(body).map(|said| said.errors.join("; ")).unwrap_or_default();
    let meaning = meaning(status, &said);
    let advice = match (meaning, status) {
        (Meaning::Denial, 403) => "see that the token is alive, and that its policy allows this",
        (Meaning::Denial, _) => "see that the key is there, in this version, under this mount and namespace",
        (Meaning::Unverified, _) => {
            "restore the key store, and see what stands between this host and the service"
        }
        (Meaning::Outage, 300..=399) => "name the active node, or let standbys forward requests",
        (Meaning::Outage, _) => "see that the service is unsealed and can be reached from here",
    };
    let repeats = secrets.iter().flatten().any(|secret| {
        !secret.is_empty() && said.as_bytes().windows(secret.len()).any(|part| part == *secret)
    });
    let cause = match said.as_str() {
        "" => format!("status {status}"),
        _ if repeats => format!("status {status}, and a word that is not repeated"),
        said => format!("status {status}: {said}"),
    };
    Error::new(meaning.code(), format!("Vault did not {what}")).advise(advice).because(Cause::new(&cause))
}

/// No answer, or half of one.
pub(super) fn lost(what: &str, why: &str) -> Error {
    Error::new(Meaning::Outage.code(), format!("Vault did not {what}"))
        .advise(
            "see that its address can be reached from here, and that its certificate is one of those trusted",
        )
        .because(Cause::new(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_one_meaning() {
        let table = [
            (403, "permission denied", Meaning::Denial),
            (404, "", Meaning::Denial),
            (405, "unsupported operation", Meaning::Denial),
            (400, "encryption key not found", Meaning::Denial),
            (400, "ciphertext or signature version is disallowed by policy (too old)", Meaning::Denial),
            (400, "invalid ciphertext: version is too new", Meaning::Denial),
            (400, "something new", Meaning::Denial),
            (400, "cipher: message authentication failed", Meaning::Unverified),
            (500, "1 error occurred:\n\t* cipher: message authentication failed\n\n", Meaning::Unverified),
            (400, "invalid ciphertext: could not decode base64", Meaning::Unverified),
            (100, "", Meaning::Unverified),
            (307, "", Meaning::Outage),
            (412, "required index state not present", Meaning::Outage),
            (429, "request path quota exceeded", Meaning::Outage),
            (500, "internal error", Meaning::Outage),
            (502, "", Meaning::Outage),
            (503, "Vault is sealed", Meaning::Outage),
        ];
        for (status, said, expected) in table {
            assert_eq!(meaning(status, said), expected, "{status} {said}");
        }
    }

    #[test]
    fn what_was_said_is_kept_unless_it_repeats_the_token() {
        let error =
            failed("wrap a key", 403, br#"{"errors":["permission denied"]}"#, &[None, Some(b"hvs.1")]);
        assert!(format!("{error:?}").contains("permission denied"));
        let error = failed("wrap a key", 403, br#"{"errors":["bad token hvs.1"]}"#, &[None, Some(b"hvs.1")]);
        assert!(!format!("{error:?}").contains("hvs.1"));
        let error = failed("wrap a key", 502, b"<html>hvs.1</html>", &[None, Some(b"hvs.1")]);
        assert!(!format!("{error:?}").contains("html"));
    }
}
