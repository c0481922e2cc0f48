//! What the headers of an upload say: which octets come, of how many, and what the whole is.

use domicile::{Code, Error};
use headers::{ContentLength, ContentRange, HeaderMapExt as _};
use http::header::{CONTENT_RANGE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

use super::digest::Digest;
use super::failure::Failure;
use super::{REPR_DIGEST, landing::Limits};

/// The octets that an upload brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// The place of the first.
    pub(super) first: u64,
    /// How many.
    pub(super) length: u64,
    /// Of how many.
    pub(super) total: u64,
    /// Of the whole.
    pub(super) digest: Option<Digest>,
}

impl Sent {
    /// Reads `Content-Length`, `Content-Range` (RFC 9110, sections 14.4 and 14.5) and `Repr-Digest` (RFC 9530).
    pub(super) fn of(headers: &HeaderMap, limits: &Limits) -> Result<Self, Failure> {
        let length = match headers.typed_try_get::<ContentLength>() {
            Ok(Some(ContentLength(length))) if !headers.contains_key(TRANSFER_ENCODING) => length,
            Ok(_) => {
                let what = "an upload says how many octets it brings";
                let error =
                    Error::new(Code::ShipmentInvalid, what).rule("Content-Length, and no Transfer-Encoding");
                return Err(Failure::new(StatusCode::LENGTH_REQUIRED, error));
            }
            Err(_) => return Err(invalid("this Content-Length is none")),
        };
        let (first, total) = match headers.get_all(CONTENT_RANGE).iter().count() {
            0 => (0, length),
            1 => range(headers, length)?,
            _ => return Err(invalid("there are several Content-Range")),
        };
        if total > limits.segment_bytes_max {
            return Err(Failure::from(
                Error::new(Code::SegmentLimit, format!("the segment has {total} octets"))
                    .rule(format!("at most {} octets", limits.segment_bytes_max))
                    .advise("let segments roll over sooner, or let the home take larger ones"),
            ));
        }
        let mut digest = None;
        for value in headers.get_all(REPR_DIGEST) {
            let parsed = value.to_str().map_err(|_| ()).and_then(Digest::from_repr);
            digest = parsed
                .map_err(|()| invalid("this Repr-Digest is none").ruled("blake3=:<32 octets in Base64>:"))?
                .or(digest);
        }
        Ok(Self { first, length, total, digest })
    }
}

/// First octet and length of the whole, of one range of as many octets as come.
fn range(headers: &HeaderMap, length: u64) -> Result<(u64, u64), Failure> {
    const FORM: &str = "Content-Range: bytes FIRST-LAST/LENGTH, with as many octets as Content-Length says";
    let range = headers.typed_try_get::<ContentRange>().ok().flatten();
    let known = range.and_then(|range| Some((range.bytes_range()?, range.bytes_len()?)));
    match known {
        Some(((first, last), total))
            if first <= last && last < total && last.checked_sub(first) == length.checked_sub(1) =>
        {
            Ok((first, total))
        }
        _ => Err(invalid("this Content-Range does not fit what comes").ruled(FORM)),
    }
}

fn invalid(what: &str) -> Failure {
    Failure::from(Error::new(Code::ShipmentInvalid, what))
}

impl Failure {
    fn ruled(mut self, rule: &str) -> Self {
        self.error = self.error.rule(rule);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn of(headers: &[(&str, &str)]) -> Result<(u64, u64, u64), u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let limits = Limits { segment_bytes_max: 1000, ..Limits::default() };
        Sent::of(&map, &limits)
            .map(|sent| (sent.first, sent.length, sent.total))
            .map_err(|failure| failure.status.as_u16())
    }

    #[test]
    fn lengths_and_ranges_that_fit_one_another_are_taken() {
        assert_eq!(of(&[("content-length", "10")]), Ok((0, 10, 10)));
        assert_eq!(of(&[("content-length", "0")]), Ok((0, 0, 0)));
        let range = |range| of(&[("content-length", "10"), ("content-range", range)]);
        assert_eq!(range("bytes 0-9/10"), Ok((0, 10, 10)));
        assert_eq!(range("bytes 990-999/1000"), Ok((990, 10, 1000)));
    }

    #[test]
    fn lengths_and_ranges_that_lie_are_refused() {
        assert_eq!(of(&[]), Err(411));
        assert_eq!(of(&[("content-length", "10"), ("transfer-encoding", "chunked")]), Err(411));
        for length in ["ten", "-1", "1e3", "99999999999999999999999"] {
            assert_eq!(of(&[("content-length", length)]), Err(400), "{length}");
        }
        assert_eq!(of(&[("content-length", "1001")]), Err(413));
        let range = |range| of(&[("content-length", "10"), ("content-range", range)]);
        assert_eq!(range("bytes 991-1000/1001"), Err(413));
        for nonsense in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 0-9/*",
            "bytes */10",
            "bytes 0-8/10",
            "bytes 0-10/11",
            "bytes 1-10/10",
            "bytes 9-0/10",
            "bytes 0-9/9",
            "bytes -9/10",
            "bytes 0-/10",
            "bytes 0-9/10, bytes 0-9/10",
            "octets 0-9/10",
            "bytes 18446744073709551606-18446744073709551615/18446744073709551615",
            "bytes 0-18446744073709551616/10",
        ] {
            assert_eq!(range(nonsense), Err(400), "{nonsense}");
        }
        let twice =
            [("content-length", "10"), ("content-range", "bytes 0-9/10"), ("content-range", "bytes 0-9/10")];
        assert_eq!(of(&twice), Err(400));
        assert_eq!(of(&[("content-length", "0"), ("content-range", "bytes 0-0/10")]), Err(400));
        assert_eq!(of(&[("content-length", "1"), ("repr-digest", "blake3=abc")]), Err(400));
    }
}
