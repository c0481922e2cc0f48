//! What the headers of an upload say: which octets come, of how many, and what the whole is.

use domicile::{Code, Error};
use headers::{ContentLength, ContentRange, HeaderMapExt as _};
use http::header::{CONTENT_RANGE, TRAILER, TRANSFER_ENCODING};
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
    /// Octets come in chunks, and behind them what the message said in `Trailer`.
    pub(super) trailers: Trailers,
}

/// What comes behind the octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailers {
    /// Nothing: the message says its length.
    None,
    /// The end of the chunks, and nothing that counts here.
    End,
    /// The digest of the whole.
    Digest,
}

impl Sent {
    /// Reads `Content-Length`, or `Transfer-Encoding: chunked` and `Trailer` (RFC 9112, section 7.1); `Content-Range` (RFC 9110,
    /// sections 14.4 and 14.5), which chunks need; and `Repr-Digest` (RFC 9530).
    pub(super) fn of(headers: &HeaderMap, limits: &Limits) -> Result<Self, Failure> {
        let said = headers.typed_try_get::<ContentLength>();
        let said =
            said.map_err(|_| invalid("this Content-Length is none"))?.map(|ContentLength(length)| length);
        let ranges = headers.get_all(CONTENT_RANGE).iter().count();
        if ranges > 1 {
            return Err(invalid("there are several Content-Range"));
        }
        let trailers = Trailers::of(headers).ok_or_else(no_length)?;
        let (first, length, total) = match (said, trailers, ranges) {
            (Some(length), Trailers::None, 0) => (0, length, length),
            (Some(_), Trailers::None, _) | (None, Trailers::End | Trailers::Digest, 1) => {
                range(headers, said)?
            }
            _ => return Err(no_length()),
        };
        if total > limits.segment_bytes_max {
            return Err(Failure::from(
                Error::new(Code::SegmentLimit, format!("the segment has {total} octets"))
                    .rule(format!("at most {} octets", limits.segment_bytes_max))
                    .advise("let segments roll over sooner, or let the home take larger ones"),
            ));
        }
        Ok(Self { first, length, total, digest: digest_of(headers)?, trailers })
    }
}

impl Trailers {
    /// None for an encoding of octets that is not chunks alone.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
        let Some(encoding) = encodings.next() else { return Some(Self::None) };
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return None;
        }
        let names = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
        let mut names = names.flat_map(|value| value.split(','));
        match names.any(|name| name.trim().eq_ignore_ascii_case(REPR_DIGEST.as_str())) {
            true => Some(Self::Digest),
            false => Some(Self::End),
        }
    }
}

/// The digest that `Repr-Digest` has, among headers or trailers.
pub(super) fn digest_of(headers: &HeaderMap) -> Result<Option<Digest>, Failure> {
    let mut digest = None;
    for value in headers.get_all(REPR_DIGEST) {
        let parsed = value.to_str().map_err(|_| ()).and_then(Digest::from_repr);
        digest = parsed
            .map_err(|()| invalid("this Repr-Digest is none").ruled("blake3=:<32 octets in Base64>:"))?
            .or(digest);
    }
    Ok(digest)
}

/// First octet, octets that come and length of the whole, of one range of as many octets as `said`, if that was said.
fn range(headers: &HeaderMap, said: Option<u64>) -> Result<(u64, u64, u64), Failure> {
    const FORM: &str = "Content-Range: bytes FIRST-LAST/LENGTH, with as many octets as Content-Length says";
    let unfit = || invalid("this Content-Range does not fit what comes").ruled(FORM);
    let range = headers.typed_try_get::<ContentRange>().ok().flatten();
    let known = range.and_then(|range| Some((range.bytes_range()?, range.bytes_len()?)));
    match known {
        Some(((first, last), total)) if first <= last && last < total => {
            let length = last - first + 1;
            if said.is_none_or(|said| said == length) { Ok((first, length, total)) } else { Err(unfit()) }
        }
        _ => Err(unfit()),
    }
}

fn no_length() -> Failure {
    let error = Error::new(Code::ShipmentInvalid, "an upload says how many octets it brings");
    Failure::new(StatusCode::LENGTH_REQUIRED, error.rule("Content-Length; or chunks, and Content-Range"))
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
        let chunks = |range| of(&[("transfer-encoding", "Chunked"), ("content-range", range)]);
        assert_eq!(chunks("bytes 0-9/10"), Ok((0, 10, 10)));
        assert_eq!(chunks("bytes 990-999/1000"), Ok((990, 10, 1000)));
    }

    #[test]
    fn a_digest_comes_behind_chunks_where_that_is_said() {
        let trailers = |headers: &[(&'static str, &'static str)]| {
            let headers =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            Trailers::of(&HeaderMap::from_iter(headers))
        };
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(trailers(&[("trailer", "repr-digest")]), Some(Trailers::None));
        assert_eq!(trailers(&[chunked]), Some(Trailers::End));
        assert_eq!(trailers(&[chunked, ("trailer", "expires")]), Some(Trailers::End));
        assert_eq!(trailers(&[chunked, ("trailer", "expires, Repr-Digest")]), Some(Trailers::Digest));
        assert_eq!(
            trailers(&[chunked, ("trailer", "expires"), ("trailer", "repr-digest")]),
            Some(Trailers::Digest)
        );
    }

    #[test]
    fn lengths_and_ranges_that_lie_are_refused() {
        assert_eq!(of(&[]), Err(411));
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(of(&[("content-length", "10"), chunked]), Err(411));
        assert_eq!(of(&[("content-length", "10"), chunked, ("content-range", "bytes 0-9/10")]), Err(411));
        assert_eq!(of(&[chunked]), Err(411));
        for encoding in ["gzip, chunked", "chunked, chunked", "identity", ""] {
            let range = ("content-range", "bytes 0-9/10");
            assert_eq!(of(&[("transfer-encoding", encoding), range]), Err(411), "{encoding}");
            assert_eq!(of(&[chunked, ("transfer-encoding", encoding), range]), Err(411), "{encoding}");
        }
        assert_eq!(of(&[chunked, ("content-range", "bytes 1-10/10")]), Err(400));
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
