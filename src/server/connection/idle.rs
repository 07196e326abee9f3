//! Decides whether a client still makes progress.
//!
//! hyper bounds none of this. In particular, a client that grants no HTTP/2 flow-control window never blocks a write,
//! so the timeout in [`super::stream`] does not notice it.
//!
//! ```text
//!   state of the client                                         verdict
//!   HTTP/2 not opened within `first_bytes`                      RequestTimeout
//!   chunks wait for it, too little progress for `write_stall`   WriteTimeout
//!   no request in flight, nothing blocked, for `request_head`   Idle
//!   the same while draining, for the drain time                 Drained
//!   anything else: waiting for larder, reading, or active       Alive
//! ```
//!
//! The detector is pure: it sees samples and the time of each. Its limits are as exact as the distance of two samples.

use std::time::Duration;

use tokio::time::Instant;

use super::activity::Sample;
use super::limits::Limits;

/// Bytes written that count as progress, for each answer that waits for the client. More than the acknowledgements of a
/// stalled client's pings within a minute, less than any transfer. Without the factor, a client that reads a little of
/// one answer could hold hundreds of others.
const PROGRESS_BYTES: u64 = 1024;

/// Compares consecutive samples of a connection.
#[derive(Debug)]
pub(super) struct IdleDetector {
    first_bytes: Duration,
    request_head: Duration,
    write_stall: Duration,
    /// Set when the client has been told that the connection ends: how long it may then be idle.
    draining: Option<Duration>,
    opened_at: Instant,
    /// Requests in the last sample, and when one was last in flight.
    started: u64,
    last_request_at: Instant,
    /// Bytes written at the last progress, and its time.
    bytes_written: u64,
    last_progress_at: Instant,
    /// The last time at which no chunk waited for the client.
    last_unbuffered_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// No request for [`Limits::request_head`].
    Idle,
    /// Draining, and nothing is left to send.
    Drained,
    /// The client did not open the protocol in time.
    RequestTimeout,
    /// Answers are pending and the client reads nothing.
    WriteTimeout,
}

impl IdleDetector {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            first_bytes: limits.first_bytes,
            request_head: limits.request_head,
            write_stall: limits.write_stall,
            draining: None,
            opened_at: now,
            started: 0,
            last_request_at: now,
            bytes_written: 0,
            last_progress_at: now,
            last_unbuffered_at: now,
        }
    }

    /// Begins the drain: the client was told that the connection ends, and may be idle for `limit` from `now` on.
    pub(super) fn start_drain(&mut self, now: Instant, limit: Duration) {
        self.draining = Some(limit);
        self.first_bytes = self.first_bytes.min(now - self.opened_at + limit);
        self.last_request_at = now;
    }

    pub(super) fn check(&mut self, now: Instant, sample: &Sample) -> Verdict {
        if sample.open > 0 || sample.started > self.started {
            self.started = sample.started;
            self.last_request_at = now;
        }
        let waiting = sample.chunks_buffered.max(1) as u64;
        if sample.bytes_written >= self.bytes_written + PROGRESS_BYTES * waiting {
            self.bytes_written = sample.bytes_written;
            self.last_progress_at = now;
        }
        if sample.chunks_buffered == 0 {
            self.last_unbuffered_at = now;
        }

        if !sample.opened {
            return if now - self.opened_at >= self.first_bytes {
                Verdict::RequestTimeout
            } else {
                Verdict::Alive
            };
        }
        // A chunk may be the first after a long pause of its source, so count from when it began to wait.
        if now - self.last_progress_at.max(self.last_unbuffered_at) >= self.write_stall {
            return Verdict::WriteTimeout;
        }
        // The end of the last answer may still be buffered: that shows as progress, or as a blocked write, which has
        // its own timeout.
        let quiet = now - self.last_progress_at.max(self.last_request_at);
        if sample.open > 0 || sample.write_blocked {
            return Verdict::Alive;
        }
        match self.draining {
            Some(limit) if quiet >= limit => Verdict::Drained,
            None if quiet >= self.request_head => Verdict::Idle,
            Some(_) | None => Verdict::Alive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Sample = Sample {
        opened: true,
        bytes_written: 0,
        write_blocked: false,
        started: 0,
        open: 0,
        chunks_buffered: 0,
    };

    /// Looks once a second, at what `seen` says for that second, until the verdict is not `Alive`.
    fn verdict(draining: Option<Duration>, sample: impl Fn(u64) -> Sample) -> (u64, Verdict) {
        let limits = Limits::default();
        let start = Instant::now();
        let mut detector = IdleDetector::new(&limits, start);
        detector.draining = draining;
        (1..1000)
            .map(|second| {
                let now = start + Duration::from_secs(second);
                (second, detector.check(now, &sample(second)))
            })
            .find(|(_, verdict)| *verdict != Verdict::Alive)
            .unwrap_or((1000, Verdict::Alive))
    }

    #[test]
    fn only_clients_without_progress_time_out() {
        #[track_caller]
        fn check(case: &str, sample: impl Fn(u64) -> Sample, expected: (u64, Verdict)) {
            assert_eq!(verdict(None, sample), expected, "{case}");
        }
        let alive = (1000, Verdict::Alive);
        let closed = Sample {
            opened: false,
            ..OPEN
        };
        let busy = Sample {
            started: 1,
            open: 1,
            ..OPEN
        };
        let unread = Sample {
            chunks_buffered: 1,
            ..busy
        };

        check("never opened", |_| closed, (10, Verdict::RequestTimeout));
        check("never asked", |_| OPEN, (60, Verdict::Idle));
        check("waits for us", |_| busy, alive);
        check("takes nothing", |_| unread, (60, Verdict::WriteTimeout));
        let pings = |second| Sample {
            bytes_written: second,
            ..unread
        };
        check(
            "answers pings, takes nothing",
            pings,
            (60, Verdict::WriteTimeout),
        );
        let slow = |second| Sample {
            bytes_written: second * 50,
            ..unread
        };
        check("takes a little", slow, alive);
        let slow_of_many = |second| Sample {
            chunks_buffered: 100,
            ..slow(second)
        };
        check(
            "takes a little of many",
            slow_of_many,
            (60, Verdict::WriteTimeout),
        );
        let late = |second| if second < 100 { busy } else { unread };
        check(
            "takes nothing of a late answer",
            late,
            (159, Verdict::WriteTimeout),
        );
        let asks = |second| Sample {
            started: second / 50,
            ..OPEN
        };
        check("asks between looks", asks, alive);
        let asked = |second: u64| Sample {
            started: second.min(30),
            ..OPEN
        };
        check("asked until then", asked, (90, Verdict::Idle));
        let blocked = Sample {
            write_blocked: true,
            ..OPEN
        };
        check("blocked writes have their own bound", |_| blocked, alive);
    }

    #[test]
    fn draining_connections_stay_until_their_answers_are_sent() {
        let second = Some(Duration::from_secs(1));
        let ends_at = |end: u64| {
            move |at| Sample {
                started: 1,
                open: u64::from(at < end),
                ..OPEN
            }
        };
        assert_eq!(verdict(second, |_| OPEN), (1, Verdict::Drained));
        assert_eq!(verdict(second, ends_at(100)), (100, Verdict::Drained));
        let drains = |at: u64| Sample {
            bytes_written: at.min(30) * 2000,
            ..OPEN
        };
        assert_eq!(verdict(second, drains), (31, Verdict::Drained));
    }
}
