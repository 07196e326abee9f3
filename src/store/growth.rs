//! Growth of the store: tells the evictor that something was stored, and lets writes wait while there is no space.
//!
//! ```text
//!  evictor ── allow(bytes) ──> put, put, put ... the allowance is used up ──> puts wait ── allow(bytes) ──> ...
//!     ^                         └─ each reports its bytes                      └─ a second at most
//!     └───────── wait ──────────┘
//! ```

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Longest time that a write waits for space.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Space that files are allotted in, on most file systems.
const BLOCK_BYTES: u64 = 4096;

/// The space that a new file of this size probably takes, with its first line if it is an entry.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES
}

/// Growth by this process.
#[derive(Debug)]
pub(super) struct Growth {
    stored: Notify,
    /// Bytes that may still be stored; `u64::MAX` without a limit.
    allowed: AtomicU64,
    /// True while nothing is allowed.
    is_full: watch::Sender<bool>,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            stored: Notify::new(),
            allowed: AtomicU64::new(u64::MAX),
            is_full: watch::Sender::new(false),
        }
    }
}

impl Growth {
    /// Reports that a file was stored.
    pub(super) fn report(&self, bytes: u64) {
        let less = |allowed: u64| match allowed {
            u64::MAX => None,
            allowed => Some(allowed.saturating_sub(bytes)),
        };
        let order = Ordering::AcqRel;
        let before = self.allowed.fetch_update(order, Ordering::Acquire, less);
        if before.is_ok_and(|before| before <= bytes) {
            self.set_full(true);
        }
        self.stored.notify_one();
    }

    /// Waits until [`Growth::report`] was called since the last wait.
    pub(super) async fn wait(&self) {
        self.stored.notified().await;
    }

    /// Lets this process store so many bytes until the next call. `u64::MAX` stands for no limit.
    pub(super) fn allow(&self, bytes: u64) {
        self.allowed.store(bytes, Ordering::Release);
        self.set_full(bytes == 0);
    }

    fn set_full(&self, is_full: bool) {
        self.is_full.send_if_modified(|known| {
            let was_full = std::mem::replace(known, is_full);
            was_full != is_full
        });
    }

    /// Waits while nothing is allowed, but not for long: the limit is no reason to serve nothing.
    pub(super) async fn wait_for_space(&self) {
        if *self.is_full.borrow() {
            let mut is_full = self.is_full.subscribe();
            let _ = timeout(MAX_WAIT, is_full.wait_for(|is_full| !is_full)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_wait_while_the_store_is_full_but_not_for_long() {
        let growth = Growth::default();
        let waited = async || {
            let started = tokio::time::Instant::now();
            growth.wait_for_space().await;
            started.elapsed()
        };
        assert_eq!(waited().await, Duration::ZERO);
        growth.allow(100);
        growth.report(60);
        assert_eq!(waited().await, Duration::ZERO);
        growth.report(60);
        assert_eq!(waited().await, MAX_WAIT);
        let freed = async {
            tokio::time::sleep(MAX_WAIT / 4).await;
            growth.allow(u64::MAX);
        };
        let (waited, ()) = tokio::join!(waited(), freed);
        assert!(waited < MAX_WAIT / 2, "{waited:?}");
        growth.report(u64::MAX);
        growth.wait_for_space().await;
        assert!(!*growth.is_full.borrow());
    }
}
