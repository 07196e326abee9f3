//! [`ClientBurst`]: the requests that a client sends within a short time, which the log reports in one line.
//!
//! ```text
//!   requests   | |||| ||  | |                        ||||||||||||||||||||||||||||||| ...
//!              └───────────┘ 2 s later: one line     └── 60 s: one line ──┴── ...
//! ```
//!
//! A build with cargo asks for its index entries and crates within seconds, and then for nothing until the next one.
//! It has no clock: callers pass the time.

use std::{
    fmt,
    time::{Duration, Instant},
};

use indicatif::HumanBytes;

/// Time without a request after which a burst is over. Cargo computes between its requests, for less than this.
const QUIET: Duration = Duration::from_secs(2);
/// Time after which a burst that goes on is reported, and another one begins.
const LONGEST: Duration = Duration::from_secs(60);

/// How a request for a resource was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerKind {
    /// From the store.
    Hit,
    /// With a download.
    Miss,
    /// With a stale copy, for want of upstream.
    Stale,
    /// Upstream does not have it.
    Absent,
    /// With an error.
    Failed,
}

impl AnswerKind {
    /// Every kind, in the order of declaration.
    pub(super) const ALL_KINDS: [Self; 5] = [
        Self::Hit,
        Self::Miss,
        Self::Stale,
        Self::Absent,
        Self::Failed,
    ];

    /// The name in the metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
}

/// The requests of one client since its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientBurst {
    /// When the first request began.
    pub(super) began: Instant,
    /// When the last answer ended.
    pub(super) ended: Instant,
    /// Number of requests by [`AnswerKind`].
    counts: [u64; AnswerKind::ALL_KINDS.len()],
    /// Bytes of bodies that were sent.
    pub(super) bytes: u64,
}

impl ClientBurst {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            ended: began,
            counts: [0; AnswerKind::ALL_KINDS.len()],
            bytes: 0,
        }
    }

    /// Adds a request.
    pub(super) fn add(&mut self, kind: AnswerKind, bytes: u64, began: Instant, ended: Instant) {
        self.began = self.began.min(began);
        self.ended = self.ended.max(ended);
        self.counts[kind as usize] += 1;
        self.bytes += bytes;
    }

    /// Number of requests that were answered so.
    pub(super) fn count(&self, kind: AnswerKind) -> u64 {
        self.counts[kind as usize]
    }

    /// When the burst is reported, if no request is added before.
    pub(super) fn due(&self) -> Instant {
        (self.ended + QUIET).min(self.began + LONGEST)
    }

    /// Time from the first request to the end of the last answer.
    pub(super) fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }
}

/// `110 hits, 0 misses in 0.8 s`, with other answers if there were any.
impl fmt::Display for ClientBurst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |kind, one: &str, many: &str| {
            let count = self.count(kind);
            format!("{count} {}", if count == 1 { one } else { many })
        };
        write!(
            f,
            "{}, {}",
            counted(AnswerKind::Hit, "hit", "hits"),
            counted(AnswerKind::Miss, "miss", "misses")
        )?;
        for (kind, what) in [
            (AnswerKind::Stale, "stale"),
            (AnswerKind::Absent, "not found"),
            (AnswerKind::Failed, "failed"),
        ] {
            if self.count(kind) > 0 {
                write!(f, ", {}", counted(kind, what, what))?;
            }
        }
        let seconds = self.took().as_secs_f64();
        write!(f, ", {} in {seconds:.1} s", HumanBytes(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends_two_seconds_after_its_last_answer_or_after_a_minute() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut burst = ClientBurst::new(at(0));
        burst.add(AnswerKind::Hit, 10, at(0), at(1));
        assert_eq!(burst.due(), at(2_001));
        burst.add(AnswerKind::Miss, 5, at(500), at(800));
        assert_eq!(burst.due(), at(2_800));
        for second in 1..59 {
            burst.add(AnswerKind::Hit, 0, at(second * 1000), at(second * 1000 + 1));
        }
        assert_eq!(burst.due(), at(60_000));
        assert_eq!(
            (burst.count(AnswerKind::Hit), burst.bytes, burst.took()),
            (59, 15, Duration::from_millis(58_001))
        );
    }

    #[test]
    fn text_names_other_answers_only_if_there_were_any() {
        let start = Instant::now();
        let mut burst = ClientBurst::new(start);
        for _ in 0..110 {
            let ended = start + Duration::from_millis(840);
            burst.add(AnswerKind::Hit, 1024, start, ended);
        }
        let text = "110 hits, 0 misses, 110.00 KiB in 0.8 s";
        assert_eq!(burst.to_string(), text);
        burst.add(AnswerKind::Miss, 0, start, start);
        burst.add(AnswerKind::Failed, 0, start, start);
        burst.add(AnswerKind::Absent, 0, start, start);
        let text = "110 hits, 1 miss, 1 not found, 1 failed, 110.00 KiB in 0.8 s";
        assert_eq!(burst.to_string(), text);
    }
}
