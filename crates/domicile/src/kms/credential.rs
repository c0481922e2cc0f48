//! Secrets that open a way to keys: passphrases, tokens, PINs. They come from a file or the environment, and never from
//! an argument or a configuration: those show.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::private_file;

/// No credential is longer.
const BYTES_MAX: usize = 1024;

/// Where a credential is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A file that only its owner can read; one newline at its end is no part of it.
    File(&'a Path),
    /// An environment variable.
    Env(&'a str),
}

impl Place<'_> {
    /// Reads `what` (a passphrase, a token) from there: 1 to 1,024 octets, taken as they are.
    pub(super) fn read(self, what: &str) -> Result<Zeroizing<Vec<u8>>> {
        let mut octets = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 2));
        let place = match self {
            Place::File(path) => {
                let file = private_file::open(path)?;
                let read = file.take(BYTES_MAX as u64 + 2).read_to_end(&mut octets);
                let place = path.display().to_string();
                read.map_err(|source| {
                    Error::new(Code::KmsUnavailable, format!("a {what} cannot be read"))
                        .at(place.clone())
                        .because(source)
                })?;
                if octets.last() == Some(&b'\n') {
                    octets.pop();
                }
                place
            }
            Place::Env(name) => {
                let value = std::env::var_os(name).ok_or_else(|| {
                    Error::new(Code::KmsUnavailable, format!("there is no {what} in the environment"))
                        .at(name)
                })?;
                let value = Zeroizing::new(value.into_encoded_bytes());
                octets.extend_from_slice(&value);
                name.to_owned()
            }
        };
        if octets.is_empty() || octets.len() > BYTES_MAX {
            return Err(Error::new(Code::ConfigInvalid, format!("this is no {what}"))
                .at(place)
                .rule(format!("a {what} has 1 to 1,024 octets")));
        }
        Ok(octets)
    }
}
