//! What object stores say, as errors of ours: no secrets, no bodies of answers.

use domicile::{Code, Error};

/// Octets of a cause that are shown.
const CAUSE_BYTES_MAX: usize = 200;

/// An error of a store, about an object. What it says of the cause is cut before anything that came in an answer's body, which
/// may repeat what was sent: of that the error's code alone is kept.
pub(super) fn failed(error: &object_store::Error, place: &str) -> Error {
    use object_store::Error as Store;
    let (code, what, advice) = match error {
        Store::NotFound { .. } => {
            (Code::ObjectMissing, "there is no such object, bucket or upload", "look at the URL")
        }
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => (
            Code::ObjectDenied,
            "the object store denies it",
            "see that the credentials are those meant, and may do it: `Object stores` in the book lists what is needed",
        ),
        Store::Precondition { .. } => (
            Code::ObjectChanged,
            "the object is no longer the one of which a part was read",
            "read it again from its beginning, and find out who replaces segments",
        ),
        _ => (
            Code::ObjectUnavailable,
            "the object store did not do what it was asked",
            "see that endpoint, region and bucket are those meant, and try again",
        ),
    };
    Error::new(code, what).at(place).because(cause(error)).advise(advice)
}

/// Whether nothing is there, or no longer.
pub(super) fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
}

fn cause(error: &object_store::Error) -> String {
    let text = error.to_string();
    let words = text.split(['<', '\n', '?']).next().unwrap_or_default();
    let mut end = words.len().min(CAUSE_BYTES_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    let words = words.get(..end).unwrap_or_default().trim_end_matches([' ', ':']);
    let code =
        text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    match code.filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric())) {
        Some(code) => format!("{words} ({code})"),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_a_body_stays_out_of_errors() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
                    <Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>";
        let error = object_store::Error::Generic { store: "S3", source: body.into() };
        let error = failed(&error, "a/b.dseg");
        assert_eq!(error.code(), Code::ObjectUnavailable);
        assert_eq!(error.place(), Some("a/b.dseg"));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.ends_with("403 Forbidden (SignatureDoesNotMatch)"), "{cause}");
        let all = format!("{error:?} {cause}");
        assert!(!all.contains("AKIASECRET"), "{all}");
    }

    #[test]
    fn long_causes_are_cut_between_characters() {
        let error = object_store::Error::Generic { store: "S3", source: "é".repeat(500).into() };
        assert!(cause(&error).len() <= CAUSE_BYTES_MAX);
    }
}
