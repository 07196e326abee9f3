//! Polls a connection of hyper until it ends, the client stands still for too long, or the server stops.
//!
//! ```text
//!            ┌─ connection ended ───────────────> result
//!   select ──┼─ shutdown ordered ───────────────> GOAWAY or no more keep-alive; limit = drain
//!            └─ tick: sample ──> detector ──────> alive | idle | drained | timeout
//! ```
//!
//! Both protocols share this loop. They differ in what an idle connection gets: see [`AtIdle`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::activity::Activity;
use super::idle::{IdleDetector, Verdict};
use super::limits::{ConnectionError, Limits};

/// Resolves when shutdown begins.
pub(super) async fn stop_requested(stopping: &mut watch::Receiver<bool>) {
    // A dropped sender means that the server is gone.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// The treatment of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtIdle {
    /// Close it at once. HTTP/1 clients expect it (RFC 9112, section 9.5).
    Close,
    /// Announce the end first, so that a request in transit is not lost (GOAWAY; RFC 9113, section 6.8).
    Drain,
}

/// Runs a connection to its end. `opened` becomes true when the client has opened the protocol completely.
///
/// # Errors
/// A time limit, or hyper's error.
pub(super) async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    at_idle: AtIdle,
    activity: &Activity,
    opened: &AtomicBool,
    limits: &Limits,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let mut detector = IdleDetector::new(limits, Instant::now());
    let mut ticks = ticker(
        limits
            .first_bytes
            .min(limits.request_head)
            .min(limits.write_stall)
            / 4,
    );
    let mut stop = false;
    loop {
        tokio::select! {
            // The connection comes first: before hyper has read the sniffed bytes, a graceful shutdown finds it idle
            // and closes it without an answer.
            biased;
            ended = connection.as_mut() => return ended.map_err(|cause| activity.explain(cause)),
            () = stop_requested(stopping), if !stop => {
                stop = true;
                graceful_shutdown(connection.as_mut());
                detector.start_drain(Instant::now(), limits.drain);
                ticks = ticker(limits.drain / 4);
            }
            now = ticks.tick() => {
                let sample = activity.sample(opened.load(Ordering::Relaxed));
                match detector.check(now, &sample) {
                    Verdict::Alive => {}
                    Verdict::Idle if at_idle == AtIdle::Close => return Err(ConnectionError::RequestTimeout),
                    Verdict::Idle => {
                        graceful_shutdown(connection.as_mut());
                        detector.start_drain(now, limits.first_bytes);
                    }
                    Verdict::Drained => return Ok(()),
                    Verdict::RequestTimeout => return Err(ConnectionError::RequestTimeout),
                    Verdict::WriteTimeout => return Err(ConnectionError::WriteTimeout),
                }
            }
        }
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let period = period.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
