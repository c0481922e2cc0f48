//! How long keys may be used without asking anybody again.

use std::time::Duration;

/// The ages of keys in memory.
///
/// A branch key needs its key services' consent, renewed by unwrapping it again: behind the soft age one caller asks
/// for all while the others go on, behind the hard age nobody uses it. A tenant key is as good as its branch key, and
/// as the poll of the store's changes, which is made when a key is asked for and the last one is older than `poll`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "settings, written out by whoever changes one")]
pub struct Ages {
    /// When a branch key's consent is renewed, if its key services answer; up to a fifth earlier, by chance, so that
    /// processes that began together do not ask together.
    pub soft: Duration,
    /// When a branch key, and whatever was opened with it, is no longer used.
    pub hard: Duration,
    /// How old the knowledge of the store's changes may be.
    pub poll: Duration,
}

impl Default for Ages {
    /// 10 minutes, 15 minutes, 2 seconds.
    fn default() -> Self {
        Self {
            soft: Duration::from_secs(10 * 60),
            hard: Duration::from_secs(15 * 60),
            poll: Duration::from_secs(2),
        }
    }
}
