//! The memory that a recorder may take, over all its segments: blocks that are filled, lanes whether busy or idle, and the places
//! of blocks that were written.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The most that is taken unless somebody says otherwise.
const DEFAULT_MAX: u64 = 1 << 30;

/// An eighth of what this host, or the group that this process is in, may have; at most 1 GiB.
pub(super) fn default_bytes() -> u64 {
    host_bytes().map_or(DEFAULT_MAX / 4, |bytes| (bytes / 8).clamp(1 << 20, DEFAULT_MAX))
}

/// What this process may have, as far as the host says.
fn host_bytes() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    total.into_iter().chain(group).min()
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether callers wait for room. Only what is about to be given back is waited for, so that nobody waits for ever.
#[derive(Debug, Default)]
pub(super) struct Room {
    full: AtomicBool,
    freed: Notify,
    deciding: Mutex<()>,
}

impl Room {
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Looks at what is taken: callers wait from now on, or no longer. One looks at a time, so that nobody says that something
    /// is about to be given back when somebody else has just seen that it is not.
    pub(super) fn decide(&self, is_full: impl FnOnce() -> bool) {
        let _alone = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let full = is_full();
        if self.full.swap(full, Ordering::SeqCst) && !full {
            self.freed.notify_waiters();
        }
    }

    /// Returns once there is room.
    pub(super) async fn wait(&self) {
        loop {
            let freed = self.freed.notified();
            if !self.is_full() {
                return;
            }
            freed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_is_read_from_what_it_says() {
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:       24680 kB\n"), Some(24_680 * 1024));
        assert_eq!(total_of("MemTotal: much\n"), None);
        assert!((1 << 20..=DEFAULT_MAX).contains(&default_bytes()));
    }

    #[tokio::test]
    async fn whoever_waits_for_room_goes_on_once_there_is_some() {
        let room = std::sync::Arc::new(Room::default());
        room.wait().await;
        room.decide(|| true);
        let waiting = {
            let room = room.clone();
            tokio::spawn(async move { room.wait().await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        room.decide(|| false);
        waiting.await.unwrap();
    }
}
