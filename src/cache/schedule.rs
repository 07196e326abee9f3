//! When to store what clients have been given already: not while they are busy asking for more, since to make files is work for
//! the system, and they need the processor. Bounded, since what waits takes memory and a crash would cost it. Knows the time;
//! storing is the cache's, and entries that wait are seen through `behind`.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use crate::store::StoreError;

/// Clients that have asked for nothing for so long are done, or compute.
const CLIENT_IDLE: Duration = Duration::from_millis(40);
/// The longest that anything waits.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// The most that waits, in bytes of memory. What comes beyond it is stored at once.
const FLUSH_NOW_BYTES: u64 = 16 << 20;
/// Beyond this, nothing more is fetched until something is stored: the disk is slower than the network.
const BACKPRESSURE_BYTES: u64 = 32 << 20;
/// How long to wait for that: a disk that takes longer hangs, and clients have so much less time for upstream.
const DISK_TIMEOUT: Duration = Duration::from_secs(10);

/// When clients asked, and what waits for a pause of theirs.
#[derive(Debug)]
pub(super) struct FlushScheduler {
    began: Instant,
    /// When a client asked last, in milliseconds since the beginning.
    asked: AtomicU64,
    waiting: AtomicU64,
    freed: Notify,
    is_over: AtomicBool,
    over: Notify,
}

impl FlushScheduler {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            asked: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            freed: Notify::new(),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
        }
    }

    /// A client asks for something, or was just given it.
    pub(super) fn client_active(&self) {
        self.asked.store(self.now(), Ordering::Relaxed);
    }

    /// How long ago a client asked last.
    pub(super) fn idle_time(&self) -> Duration {
        let asked = self.asked.load(Ordering::Relaxed);
        Duration::from_millis(self.now().saturating_sub(asked))
    }

    /// From now on nothing waits.
    pub(super) fn shut_down(&self) {
        self.is_over.store(true, Ordering::Release);
        self.over.notify_waiters();
    }

    /// Waits while too much waits to be stored.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn wait_for_capacity(&self) -> Result<(), StoreError> {
        let admitted = timeout(DISK_TIMEOUT, async {
            loop {
                let freed = self.freed.notified();
                if self.waiting.load(Ordering::Acquire) <= BACKPRESSURE_BYTES {
                    return;
                }
                freed.await;
            }
        });
        admitted.await.map_err(|_| {
            let (limit, hangs) = (
                BACKPRESSURE_BYTES >> 20,
                humantime::format_duration(DISK_TIMEOUT),
            );
            let text = format!(
                "the disk is too slow: more than {limit} MB have waited for it for {hangs}"
            );
            StoreError::io("staging", io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// Waits until clients pause, for something that takes so many bytes of memory until it is stored, and is counted for as
    /// long as the result is held.
    pub(super) async fn wait_for_idle(&self, bytes: u64) -> PendingBytes<'_> {
        let waiting = self.waiting.fetch_add(bytes, Ordering::AcqRel);
        let counted = PendingBytes(self, bytes);
        if waiting + bytes > FLUSH_NOW_BYTES {
            return counted;
        }
        let deadline = Instant::now() + MAX_DELAY;
        loop {
            let over = self.over.notified();
            let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
            let calm_at = self.began + asked + CLIENT_IDLE;
            let now = Instant::now();
            if self.is_over.load(Ordering::Acquire) || now >= calm_at.min(deadline) {
                return counted;
            }
            tokio::select! {
                () = tokio::time::sleep_until(calm_at.min(deadline).into()) => {}
                () = over => {}
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Bytes that wait to be stored, counted while this lives.
pub(super) struct PendingBytes<'a>(&'a FlushScheduler, u64);

impl Drop for PendingBytes<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(self.1, Ordering::AcqRel);
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds(schedule: &FlushScheduler, bytes: u64) -> f64 {
        let began = Instant::now();
        drop(schedule.wait_for_idle(bytes).await);
        began.elapsed().as_secs_f64()
    }

    #[tokio::test]
    async fn what_waits_is_stored_when_clients_pause_or_memory_runs_short_or_the_end_comes() {
        let schedule = std::sync::Arc::new(FlushScheduler::new());
        schedule.client_active();
        let waited = seconds(&schedule, 1).await;
        assert!((0.02..2.0).contains(&waited), "{waited}");

        schedule.client_active();
        assert!(seconds(&schedule, FLUSH_NOW_BYTES + 1).await < 0.1);
        schedule.client_active();
        let began = Instant::now();
        let held = schedule.wait_for_idle(BACKPRESSURE_BYTES + 1).await;
        assert!(began.elapsed().as_secs_f64() < 0.1);
        let admitted = timeout(Duration::from_millis(30), schedule.wait_for_capacity()).await;
        assert!(admitted.is_err());
        drop(held);
        schedule.wait_for_capacity().await.unwrap();

        let busy = schedule.clone();
        let client = tokio::spawn(async move {
            loop {
                busy.client_active();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let ender = schedule.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            ender.shut_down();
        });
        let waited = seconds(&schedule, 1).await;
        assert!((0.1..3.0).contains(&waited), "{waited}");
        client.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_to_be_admitted_is_woken_by_what_was_stored_and_gives_up_on_a_disk_that_hangs()
     {
        let schedule = FlushScheduler::new();
        let held = schedule.wait_for_idle(BACKPRESSURE_BYTES + 1).await;
        let began = tokio::time::Instant::now();
        let stored = async {
            tokio::time::sleep(DISK_TIMEOUT / 2).await;
            drop(held);
        };
        let (admitted, ()) = tokio::join!(schedule.wait_for_capacity(), stored);
        admitted.unwrap();
        assert_eq!(began.elapsed(), DISK_TIMEOUT / 2);

        let _held = schedule.wait_for_idle(BACKPRESSURE_BYTES + 1).await;
        let error = schedule.wait_for_capacity().await.unwrap_err();
        assert!(!error.is_full());
        assert_eq!(began.elapsed(), DISK_TIMEOUT / 2 + DISK_TIMEOUT);
    }
}
