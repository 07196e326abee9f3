//! Growth of the store: tells the evictor that something was stored, and lets writes wait while the store is too large.

use std::time::Duration;

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Longest time that a write waits for space.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Growth by this process.
#[derive(Debug, Default)]
pub(super) struct Growth {
    stored: Notify,
    /// True while the store is larger than allowed and files are being removed.
    is_full: watch::Sender<bool>,
}

impl Growth {
    /// Reports that a file was stored.
    pub(super) fn report(&self) {
        self.stored.notify_one();
    }

    /// Waits until [`Growth::report`] was called since the last wait.
    pub(super) async fn wait(&self) {
        self.stored.notified().await;
    }

    /// Makes writes of blobs wait for a moment, or lets them go on.
    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.send_if_modified(|known| {
            let was_full = std::mem::replace(known, is_full);
            was_full != is_full
        });
    }

    /// Waits while the store is too large, but not for long: the limit is no reason to serve nothing.
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
        growth.set_full(true);
        assert_eq!(waited().await, MAX_WAIT);
        let freed = async {
            tokio::time::sleep(MAX_WAIT / 4).await;
            growth.set_full(false);
        };
        let (waited, ()) = tokio::join!(waited(), freed);
        assert!(waited < MAX_WAIT / 2, "{waited:?}");
    }
}
