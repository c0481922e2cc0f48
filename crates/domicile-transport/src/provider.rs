//! The cryptography under TLS: one library, chosen when this is built, and what it is used for.

use std::sync::Arc;

use domicile::Clock;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as library;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as library;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// What TLS stands on in this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// aws-lc: key exchange is post-quantum (X25519MLKEM768) with ends that can do it.
    AwsLc,
    /// ring, the fall-back: whoever records a connection today may read it once X25519 falls.
    Ring,
}

impl Provider {
    /// That of this build.
    #[must_use]
    pub const fn of_this_build() -> Self {
        if cfg!(feature = "aws-lc-rs") { Self::AwsLc } else { Self::Ring }
    }

    /// Its name, as reports show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc-rs",
            Self::Ring => "ring (no post-quantum key exchange)",
        }
    }
}

/// TLS 1.3 suites, and the hybrid key exchange first, where the library has it: a client sends its share of that and of X25519
/// at once.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use library::{cipher_suite, default_provider, kx_group};
    #[cfg_attr(not(feature = "aws-lc-rs"), expect(unused_mut, reason = "ring has no hybrid key exchange"))]
    let mut kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    #[cfg(feature = "aws-lc-rs")]
    kx_groups.insert(0, kx_group::X25519MLKEM768);
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups,
        ..default_provider()
    })
}

/// Certificates are judged by the clock that everything else goes by.
#[derive(Debug, Clone)]
pub(crate) struct ClockTime(pub(crate) Arc<dyn Clock>);

impl ClockTime {
    pub(crate) fn now(&self) -> UnixTime {
        let micros = u64::try_from(self.0.now().micros()).unwrap_or_default();
        UnixTime::since_unix_epoch(std::time::Duration::from_micros(micros))
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}
