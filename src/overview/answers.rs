//! How requests were answered, minute by minute for a day. Disposable: a new daemon begins with nothing.

use std::{collections::VecDeque, ops::Sub};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Minutes that are kept.
const MINUTES: usize = 24 * 60;

/// Minutes in one bar of the day.
pub const MINUTES_PER_DAY_BAR: usize = 24;

/// Numbers of requests by how they were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnsweredRequests {
    /// From the store, also if upstream confirmed the copy.
    pub hits: u64,
    /// With a download.
    pub misses: u64,
    /// With a stored copy that upstream could not confirm in time.
    pub stale: u64,
    /// With an error.
    pub failed: u64,
}

impl AnsweredRequests {
    /// All of them.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.hits + self.misses + self.stale + self.failed
    }

    /// The sums of each kind.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            stale: self.stale + other.stale,
            failed: self.failed + other.failed,
        }
    }
}

impl Sub for AnsweredRequests {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            stale: self.stale.saturating_sub(earlier.stale),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }
}

/// The answers of the last day, in memory.
#[derive(Debug, Default)]
pub struct History(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    /// The totals at the end of the last full minute.
    totals: AnsweredRequests,
    /// The answers of each full minute, the newest last.
    minutes: VecDeque<AnsweredRequests>,
}

impl History {
    /// Ends a minute. `totals` are the numbers since the daemon started.
    pub fn end_minute(&self, totals: AnsweredRequests) {
        let mut recorded = self.0.lock();
        let minute = totals - recorded.totals;
        recorded.totals = totals;
        recorded.minutes.push_back(minute);
        if recorded.minutes.len() > MINUTES {
            recorded.minutes.pop_front();
        }
    }

    /// The minutes until now. `totals` are the numbers since the daemon started.
    pub fn minutes(&self, totals: AnsweredRequests) -> Minutes {
        let recorded = self.0.lock();
        let mut minutes: Vec<_> = recorded.minutes.iter().copied().collect();
        minutes.push(totals - recorded.totals);
        Minutes(minutes)
    }
}

/// The answers of each minute of the last day, the newest last.
#[derive(Debug, Default)]
pub struct Minutes(Vec<AnsweredRequests>);

impl Minutes {
    /// One bar for each of the last 60 minutes.
    pub fn last_hour(&self) -> Vec<AnsweredRequests> {
        self.bars(60, 1)
    }

    /// 60 bars for the last day.
    pub fn last_day(&self) -> Vec<AnsweredRequests> {
        self.bars(60, MINUTES_PER_DAY_BAR)
    }

    /// The newest `count` bars of `length` minutes each, the newest last. Minutes before the start of the daemon are
    /// empty.
    fn bars(&self, count: usize, length: usize) -> Vec<AnsweredRequests> {
        let mut bars = vec![AnsweredRequests::default(); count];
        for (age, minute) in self.0.iter().rev().take(count * length).enumerate() {
            let bar = &mut bars[count - 1 - age / length];
            *bar = bar.plus(*minute);
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(hits: u64) -> AnsweredRequests {
        AnsweredRequests {
            hits,
            ..AnsweredRequests::default()
        }
    }

    #[test]
    fn each_minute_has_the_difference_of_the_totals() {
        let history = History::default();
        history.end_minute(hits(5));
        history.end_minute(hits(5));
        let bars = history.minutes(hits(9)).last_hour();
        assert_eq!(bars.len(), 60);
        assert_eq!(&bars[57..], &[hits(5), hits(0), hits(4)]);
    }

    #[test]
    fn a_day_has_60_bars_and_no_more_minutes_are_kept() {
        let history = History::default();
        for minute in 1..=2 * MINUTES as u64 {
            history.end_minute(hits(minute));
        }
        let bars = history.minutes(hits(2 * MINUTES as u64)).last_day();
        assert_eq!(bars.len(), 60);
        // The newest bar has the current minute, which is still empty.
        assert_eq!(bars[59], hits(MINUTES_PER_DAY_BAR as u64 - 1));
        assert!(
            bars[..59]
                .iter()
                .all(|bar| *bar == hits(MINUTES_PER_DAY_BAR as u64))
        );
        assert_eq!(history.0.lock().minutes.len(), MINUTES);
    }
}
