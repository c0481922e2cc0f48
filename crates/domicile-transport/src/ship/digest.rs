//! BLAKE3 of a whole file: how two ends know that they speak of the same one.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use base64ct::{Base64, Encoding as _};

use domicile::hex;

/// What is read of a file at once.
const READ_BYTES: usize = 2 << 20;

/// BLAKE3 of a file, 32 octets. In HTTP it stands in `Repr-Digest` (RFC 9530) as `blake3=:<base64>:` where it is sent, and in
/// `ETag` as `"blake3-<64 hexadecimal digits>"` where it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub(super) [u8; 32]);

impl Digest {
    /// Reads a file from its first octet to its last, through two buffers of 2 MiB: one is read while the other is hashed, on as many
    /// threads as there are cores.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(file: &File) -> io::Result<Self> {
        let (full, fulls) = mpsc::sync_channel::<Vec<u8>>(0);
        let (empty, empties) = mpsc::channel();
        for _ in 0..2 {
            // Its other end is below.
            let _ = empty.send(vec![0; READ_BYTES]);
        }
        thread::scope(|scope| {
            let reads =
                thread::Builder::new().spawn_scoped(scope, move || read_all(file, &empties, &full))?;
            let mut hasher = blake3::Hasher::new();
            for buffer in fulls {
                hasher.update_rayon(&buffer);
                // Whoever reads may be at the end.
                let _ = empty.send(buffer);
            }
            let read = reads.join();
            read.map_err(|_| io::Error::other("a thread ended before its work"))??;
            Ok(Self(*hasher.finalize().as_bytes()))
        })
    }

    /// As it stands in `ETag`.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"blake3-{self}\"")
    }

    /// Reads an `ETag`; none for one of another kind.
    #[must_use]
    pub fn from_etag(text: &str) -> Option<Self> {
        Self::from_hex(text.trim().strip_prefix("\"blake3-")?.strip_suffix('"')?)
    }

    /// As it stands in `Repr-Digest`.
    #[must_use]
    pub fn repr(&self) -> String {
        format!("blake3=:{}:", Base64::encode_string(&self.0))
    }

    /// Reads a `Repr-Digest`: none where there is none of this kind among them, and an error for one that is malformed.
    pub(super) fn from_repr(text: &str) -> Result<Option<Self>, ()> {
        let Some(member) = text.split(',').find_map(|member| member.trim().strip_prefix("blake3=")) else {
            return Ok(None);
        };
        let encoded = member.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or(())?;
        let mut octets = [0; 32];
        match Base64::decode(encoded, &mut octets).map(<[u8]>::len) {
            Ok(32) => Ok(Some(Self(octets))),
            _ => Err(()),
        }
    }

    /// Reads 64 hexadecimal digits in lower case.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

/// The digest of what comes piece by piece.
#[derive(Debug, Default)]
pub(super) struct Running(blake3::Hasher);

impl Running {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all that came.
    pub(super) fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// Fills one buffer after the other, until the file ends or nobody wants more.
fn read_all(file: &File, empties: &Receiver<Vec<u8>>, full: &SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut at = 0;
    for mut buffer in empties {
        buffer.resize(READ_BYTES, 0);
        let read = match file.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        buffer.truncate(read);
        at += read as u64;
        if full.send(buffer).is_err() {
            break;
        }
    }
    Ok(())
}

impl fmt::Display for Digest {
    /// Shows 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn digests_read_back_as_they_are_written() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let digest = Digest::of(&file).unwrap();
        // The test vector of everybody: BLAKE3 of "abc".
        let known = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(digest.to_string(), known);
        assert_eq!(Digest::from_etag(&digest.etag()), Some(digest));
        assert_eq!(Digest::from_repr(&digest.repr()), Ok(Some(digest)));
        assert_eq!(Digest::from_repr(&format!("sha-256=:AAAA:, {}", digest.repr())), Ok(Some(digest)));
        assert_eq!(Digest::from_repr("sha-256=:AAAA:"), Ok(None));
    }

    #[test]
    fn what_is_malformed_is_no_digest() {
        for text in ["blake3=", "blake3=::", "blake3=:AAAA:", "blake3=:!:", "blake3=abc", "blake3=:"] {
            assert_eq!(Digest::from_repr(text), Err(()), "{text}");
        }
        let upper = "\"blake3-6437B3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\"";
        for text in ["", "\"x\"", "W/\"blake3-\"", "\"blake3-00\"", upper] {
            assert_eq!(Digest::from_etag(text), None, "{text}");
        }
    }
}
