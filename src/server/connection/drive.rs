//! Runs a hyper connection until it ends, is idle, or must stop.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::activity::Activity;
use super::idle::{IdleDetector, Verdict};
use super::limits::{ConnectionError, Limits};

/// Resolves when stopping is ordered.
pub(super) async fn stop_requested(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone can give no order any more, and means that the server is.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// What happens to an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtIdle {
    /// It is closed.
    Close,
    /// The client is told to go.
    Drain,
}

/// Runs a hyper connection to its end, and gives up on a client that stands still.
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
            // The connection first: an HTTP/1 one that has not read what was sniffed takes itself for idle.
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
