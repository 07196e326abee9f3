//! How often each limit towards clients took effect, and a log that a flood cannot fill.
//!
//! ```text
//!   first event ──> one line     further events within a minute ──> counted     next event ──> one line with the count
//! ```

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Shortest time between two log lines about the same limit.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A limit that ended or refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientLimit {
    /// An idle connection was closed for a new one.
    ClosedIdle,
    /// A connection was refused: all others are in use.
    MaxConnections,
    /// A connection was refused: its peer has too many, and all are in use.
    MaxConnectionsPerPeer,
    /// A request was refused: too many are in flight.
    MaxRequests,
    /// A connection could not be accepted for lack of file descriptors.
    OpenFiles,
    /// A connection was closed because no complete request arrived in time, or because it was idle for too long.
    RequestTimeout,
    /// A connection was closed because its client did not read an answer.
    WriteTimeout,
    /// A connection was closed because its client misused HTTP/2.
    Http2Abuse,
    /// A request was refused because its head is too large: in bytes, in header fields or in its address.
    RequestHead,
}

impl ClientLimit {
    /// All limits, in the order of the counters.
    pub(super) const EVERY: [Self; 9] = [
        Self::ClosedIdle,
        Self::MaxConnections,
        Self::MaxConnectionsPerPeer,
        Self::MaxRequests,
        Self::OpenFiles,
        Self::RequestTimeout,
        Self::WriteTimeout,
        Self::Http2Abuse,
        Self::RequestHead,
    ];

    /// The name in `/-/status.json` and in the metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClosedIdle => "closed-idle",
            Self::MaxConnections => "max-connections",
            Self::MaxConnectionsPerPeer => "max-connections-per-peer",
            Self::MaxRequests => "max-requests",
            Self::OpenFiles => "open-files",
            Self::RequestTimeout => "request-timeout",
            Self::WriteTimeout => "write-timeout",
            Self::Http2Abuse => "http2-abuse",
            Self::RequestHead => "request-head",
        }
    }
}

/// A counter and the state of a log for each limit.
#[derive(Debug, Default)]
pub(super) struct LimitCounters([LimitCounter; ClientLimit::EVERY.len()]);

#[derive(Debug, Default)]
struct LimitCounter {
    total: AtomicU64,
    log: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    last_line: Option<Instant>,
    unlogged: u64,
}

impl LimitCounters {
    /// Counts one event.
    pub(super) fn count(&self, limit: ClientLimit) {
        self.0[limit as usize].total.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one event that belongs into the log. Returns the number of events that a line should report, if one is
    /// due.
    pub(super) fn count_and_log(&self, limit: ClientLimit, now: Instant) -> Option<u64> {
        self.count(limit);
        let mut log = self.0[limit as usize].log.lock();
        log.unlogged += 1;
        if log.last_line.is_some_and(|last| now < last + LOG_INTERVAL) {
            return None;
        }
        log.last_line = Some(now);
        Some(std::mem::take(&mut log.unlogged))
    }

    /// Events since the start, by limit.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ClientLimit::EVERY.into_iter().map(|limit| {
            let total = self.0[limit as usize].total.load(Ordering::Relaxed);
            (limit.as_str(), total)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_in_the_order_of_the_limits() {
        for (position, limit) in ClientLimit::EVERY.into_iter().enumerate() {
            assert_eq!(limit as usize, position, "{limit:?}");
        }
    }

    #[test]
    fn log_gets_one_line_a_minute_with_the_number_of_events() {
        let counters = LimitCounters::default();
        let start = Instant::now();
        let note = |seconds| {
            let now = start + Duration::from_secs(seconds);
            counters.count_and_log(ClientLimit::MaxConnections, now)
        };
        assert_eq!(note(0), Some(1));
        assert_eq!((note(1), note(59)), (None, None));
        assert_eq!(note(60), Some(3));
        assert_eq!(note(61), None);
        let totals: Vec<_> = counters.totals().collect();
        assert!(totals.contains(&("max-connections", 5)), "{totals:?}");
    }
}
