//! Flush scheduling for the write-behind buffer.
//!
//! The daemon answers a client first and writes to disk later. Creating files competes with cargo for the processor,
//! so the scheduler delays each write until clients have been idle for [`CLIENT_IDLE`], or until [`MAX_DELAY`] has
//! passed.
//!
//! ```text
//!   answer sent ──> buffered ── idle 40 ms, or 2 s, or buffer above 16 MB, or shutdown ──> written
//!                      └─ buffer above 32 MB: new fetches wait (backpressure), at most 10 s
//! ```
//!
//! This module knows the time and the sizes. It writes nothing: [`super::WriteBehind`] does.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use crate::store::StoreError;

/// Idle time after which a burst of requests counts as over.
const CLIENT_IDLE: Duration = Duration::from_millis(40);
/// Longest time a write is delayed, however busy clients are.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// Buffered bytes above which writes start at once.
const FLUSH_NOW_BYTES: u64 = 16 << 20;
/// Buffered bytes above which new fetches wait: the disk is slower than the network.
const BACKPRESSURE_BYTES: u64 = 32 << 20;
/// Longest wait under backpressure before fetches fail. A disk that is slower has hung, and the rest of the client's
/// timeout is needed for upstream.
const DISK_TIMEOUT: Duration = Duration::from_secs(10);

/// Records client activity and buffered bytes, and decides when a delayed write may start.
#[derive(Debug)]
pub(super) struct FlushScheduler {
    started: Instant,
    /// Time of the last client activity, in milliseconds since `started`.
    last_active_ms: AtomicU64,
    pending_bytes: AtomicU64,
    bytes_written: Notify,
    is_shutting_down: AtomicBool,
    shutdown: Notify,
}

impl FlushScheduler {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            last_active_ms: AtomicU64::new(0),
            pending_bytes: AtomicU64::new(0),
            bytes_written: Notify::new(),
            is_shutting_down: AtomicBool::new(false),
            shutdown: Notify::new(),
        }
    }

    /// Records client activity: a request arrived or was answered.
    pub(super) fn client_active(&self) {
        self.last_active_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Time since the last client activity.
    pub(super) fn idle_time(&self) -> Duration {
        let last = self.last_active_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.now_ms().saturating_sub(last))
    }

    /// Ends all delays, present and future.
    pub(super) fn shut_down(&self) {
        self.is_shutting_down.store(true, Ordering::Release);
        self.shutdown.notify_waiters();
    }

    /// Waits while more than [`BACKPRESSURE_BYTES`] are buffered.
    ///
    /// # Errors
    /// [`StoreError::Io`] with `TimedOut` after [`DISK_TIMEOUT`].
    pub(super) async fn wait_for_capacity(&self) -> Result<(), StoreError> {
        let has_capacity = async {
            loop {
                let written = self.bytes_written.notified();
                if self.pending_bytes.load(Ordering::Acquire) <= BACKPRESSURE_BYTES {
                    return;
                }
                written.await;
            }
        };
        timeout(DISK_TIMEOUT, has_capacity).await.map_err(|_| {
            let (limit, after) = (
                BACKPRESSURE_BYTES >> 20,
                humantime::format_duration(DISK_TIMEOUT),
            );
            let text = format!(
                "cannot buffer more: over {limit} MB have been waiting for the disk for {after}"
            );
            StoreError::io("staging", io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// Waits until a write of `bytes` buffered bytes may start. The bytes count as buffered until the result is
    /// dropped.
    pub(super) async fn wait_for_idle(&self, bytes: u64) -> PendingBytes<'_> {
        let pending = self.add_pending(bytes);
        if self.pending_bytes.load(Ordering::Acquire) > FLUSH_NOW_BYTES {
            return pending;
        }
        let deadline = Instant::now() + MAX_DELAY;
        loop {
            let shutdown = self.shutdown.notified();
            let last_active = Duration::from_millis(self.last_active_ms.load(Ordering::Relaxed));
            let start_at = (self.started + last_active + CLIENT_IDLE).min(deadline);
            if self.is_shutting_down.load(Ordering::Acquire) || Instant::now() >= start_at {
                return pending;
            }
            tokio::select! {
                () = sleep_until(start_at) => {}
                () = shutdown => {}
            }
        }
    }

    /// Counts bytes as buffered without a delay.
    pub(super) fn add_pending(&self, bytes: u64) -> PendingBytes<'_> {
        self.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        PendingBytes {
            scheduler: self,
            bytes,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Buffered bytes, counted until this is dropped.
pub(super) struct PendingBytes<'a> {
    scheduler: &'a FlushScheduler,
    bytes: u64,
}

impl Drop for PendingBytes<'_> {
    fn drop(&mut self) {
        let scheduler = self.scheduler;
        scheduler
            .pending_bytes
            .fetch_sub(self.bytes, Ordering::AcqRel);
        scheduler.bytes_written.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The delay of a write of `bytes` bytes after client activity just now.
    async fn delay(scheduler: &FlushScheduler, bytes: u64) -> Duration {
        scheduler.client_active();
        let started = Instant::now();
        drop(scheduler.wait_for_idle(bytes).await);
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn flushes_when_clients_are_idle() {
        let scheduler = FlushScheduler::new();
        let delay = delay(&scheduler, 1).await;
        assert!((CLIENT_IDLE..CLIENT_IDLE * 2).contains(&delay), "{delay:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn flushes_at_once_when_the_buffer_is_full() {
        let scheduler = FlushScheduler::new();
        assert_eq!(delay(&scheduler, FLUSH_NOW_BYTES + 1).await, Duration::ZERO);
    }

    /// A scheduler whose clients never pause.
    fn busy() -> (Arc<FlushScheduler>, tokio::task::JoinHandle<()>) {
        let scheduler = Arc::new(FlushScheduler::new());
        let busy = scheduler.clone();
        let clients = tokio::spawn(async move {
            loop {
                busy.client_active();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        (scheduler, clients)
    }

    #[tokio::test(start_paused = true)]
    async fn flushes_after_the_longest_delay_although_clients_are_busy() {
        let (scheduler, clients) = busy();
        let delay = delay(&scheduler, 1).await;
        assert!((MAX_DELAY..MAX_DELAY * 2).contains(&delay), "{delay:?}");
        clients.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn flushes_on_shutdown() {
        let (scheduler, clients) = busy();
        let stopper = scheduler.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stopper.shut_down();
        });
        assert_eq!(delay(&scheduler, 1).await, Duration::from_millis(200));
        assert_eq!(delay(&scheduler, 1).await, Duration::ZERO);
        clients.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_ends_when_bytes_are_written_and_fails_when_the_disk_hangs() {
        let scheduler = FlushScheduler::new();
        let pending = scheduler.wait_for_idle(BACKPRESSURE_BYTES + 1).await;
        let started = Instant::now();
        let write = async {
            tokio::time::sleep(DISK_TIMEOUT / 2).await;
            drop(pending);
        };
        let (capacity, ()) = tokio::join!(scheduler.wait_for_capacity(), write);
        capacity.unwrap();
        assert_eq!(started.elapsed(), DISK_TIMEOUT / 2);

        let _pending = scheduler.wait_for_idle(BACKPRESSURE_BYTES + 1).await;
        let error = scheduler.wait_for_capacity().await.unwrap_err();
        assert!(!error.is_full());
        assert_eq!(started.elapsed(), DISK_TIMEOUT / 2 + DISK_TIMEOUT);
    }
}
