//! Which engine: a short measurement on this machine, once in a process, or what was configured.

use std::fmt;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{ContentKey, Engine, Nonce, Suite};
use crate::secret::Secret;

/// The engines of a process: one for blocks, one for single records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engines {
    /// For blocks of tens of kilobytes.
    pub bulk: Engine,
    /// For single records of hundreds of octets.
    pub records: Engine,
    measured: bool,
}

impl Engines {
    /// The fastest here, by a measurement of a few milliseconds that is made once for each suite.
    #[must_use]
    pub fn measured(suite: Suite) -> Self {
        static AES: OnceLock<Engines> = OnceLock::new();
        static CHACHA: OnceLock<Engines> = OnceLock::new();
        let cell = match suite {
            Suite::Aes256Gcm => &AES,
            Suite::ChaCha20Poly1305 => &CHACHA,
        };
        *cell.get_or_init(|| Self {
            bulk: fastest(suite, 64 * 1024, 8),
            records: fastest(suite, 300, 200),
            measured: true,
        })
    }

    /// One engine for everything, because the configuration says so.
    #[must_use]
    pub fn forced(engine: Engine) -> Self {
        Self { bulk: engine, records: engine, measured: false }
    }
}

impl fmt::Display for Engines {
    /// Shows `aws-lc-rs (blocks), ring (records), measured here`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.measured { "measured here" } else { "as configured" };
        if self.bulk == self.records {
            write!(f, "{} ({why})", self.bulk)
        } else {
            write!(f, "{} for blocks, {} for records ({why})", self.bulk, self.records)
        }
    }
}

/// The engine with the best time of several rounds, all engines taking turns.
fn fastest(suite: Suite, payload_bytes: usize, calls: usize) -> Engine {
    const ROUNDS: usize = 5;
    // A key of its own that seals nothing but zeros, which are thrown away.
    let key = Secret::copied_from(&[0; 32]);
    let mut payload = vec![0; payload_bytes];
    let mut best: Vec<_> = Engine::available()
        .into_iter()
        .filter_map(|engine| Some((engine, ContentKey::new(suite, engine, &key).ok()?, Duration::MAX)))
        .collect();
    for _ in 0..ROUNDS {
        for (_, key, shortest) in &mut best {
            let start = Instant::now();
            for _ in 0..calls {
                let _ = black_box(key.seal(Nonce::fixed([0; 12]), &[0; 48], &mut payload));
            }
            *shortest = start.elapsed().min(*shortest);
        }
    }
    best.into_iter()
        .min_by_key(|(_, _, shortest)| *shortest)
        .map_or(Engine::RustCrypto, |(engine, _, _)| engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_one_that_is_available_and_says_where_it_comes_from() {
        for suite in Suite::ALL {
            let engines = Engines::measured(suite);
            assert!(Engine::available().contains(&engines.bulk));
            assert!(engines.to_string().contains("measured here"));
            assert_eq!(engines, Engines::measured(suite), "measured once");
        }
        assert_eq!(Engines::forced(Engine::RustCrypto).to_string(), "rustcrypto (as configured)");
    }

    #[test]
    fn an_engine_that_is_not_there_is_named_with_those_that_are() {
        let error = "openssl".parse::<Engine>().unwrap_err();
        assert_eq!(error.code(), crate::Code::EngineUnavailable);
        assert!(error.broken_rule().unwrap().contains("rustcrypto"));
    }
}
