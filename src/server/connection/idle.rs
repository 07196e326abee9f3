//! Tells whether a connection goes on.

use std::time::Duration;

use tokio::time::Instant;

use super::activity::Sample;
use super::limits::Limits;

/// Bytes that count as progress of an HTTP/2 connection. More than all acknowledgements of a silent client's pings
/// within a limit of a minute, less than any transfer moves.
const PROGRESS_BYTES: u64 = 1024;

/// Judges from looks at its activity whether a connection goes on.
///
/// hyper bounds none of this. In particular, a client that grants no flow-control window never lets a write wait, so
/// the bound of [`BoundedStream`] does not see it. Limits are kept to about the distance between two ticks.
#[derive(Debug)]
pub(super) struct IdleDetector {
    first_bytes: Duration,
    request_head: Duration,
    write_stall: Duration,
    /// Set once the client was told that the connection ends: how long it may then stand still.
    draining: Option<Duration>,
    opened_at: Instant,
    /// Requests at the last look, and when there last was one under way.
    started: u64,
    last_request_at: Instant,
    /// Bytes written when there last was progress, and when that was.
    bytes_written: u64,
    last_progress_at: Instant,
    /// When last no body waited for the client.
    last_unbuffered_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// No request for so long that the client is to be told to go.
    Idle,
    /// It was told and has nothing to wait for any more.
    Drained,
    /// HTTP/2 was not opened in time.
    RequestTimeout,
    /// Answers wait for the client, which takes nothing.
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

    /// The client is told to go, and may stand still for so long.
    pub(super) fn start_drain(&mut self, now: Instant, patience: Duration) {
        self.draining = Some(patience);
        self.first_bytes = self.first_bytes.min(now - self.opened_at + patience);
        self.last_request_at = now;
    }

    pub(super) fn check(&mut self, now: Instant, sample: &Sample) -> Verdict {
        if sample.open > 0 || sample.started > self.started {
            self.started = sample.started;
            self.last_request_at = now;
        }
        if sample.bytes_written >= self.bytes_written + PROGRESS_BYTES {
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
        // A body that waits only now may wait for the first bytes after a long pause of its source.
        if now - self.last_progress_at.max(self.last_unbuffered_at) >= self.write_stall {
            return Verdict::WriteTimeout;
        }
        // Without a request under way, ends of answers may still be buffered, which is progress or a blocked write. The
        // latter has its own bound.
        let quiet = now - self.last_progress_at.max(self.last_request_at);
        if sample.open > 0 || sample.write_blocked {
            return Verdict::Alive;
        }
        match self.draining {
            Some(patience) if quiet >= patience => Verdict::Drained,
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
    fn connections_are_given_up_only_when_their_client_stands_still() {
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
    fn closing_connections_are_kept_for_their_answers_only() {
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
