//! Randomness: the operating system's, through one door.

use crate::error::{Code, Error, Result};

/// Where keys, salts and nonces come from.
///
/// Everything uses [`OsRandom`]; vectors and simulations pass
/// [`danger::SeededRandom`](crate::danger::SeededRandom), which makes the same bytes again and therefore
/// protects nothing.
pub trait Randomness: Send + Sync + std::fmt::Debug {
    /// Fills `bytes` with unpredictable octets.
    ///
    /// # Errors
    /// [`RandomUnavailable`](crate::Code::RandomUnavailable): nothing in `bytes` may be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The operating system's generator. A fork or a resumed snapshot does not repeat it.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Randomness for OsRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|source| {
            Error::new(Code::RandomUnavailable, "the operating system gave no random bytes")
                .advise("check that getrandom(2) is not blocked by a sandbox")
                .because(source)
        })
    }
}
