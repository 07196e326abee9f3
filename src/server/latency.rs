//! [`Latencies`]: how long answers took and how many bytes they had, by the kind of answer, for the metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::bursts::AnswerKind;

/// Upper bounds of the buckets, in seconds as text: a hit takes less than a millisecond, and a toolchain's component
/// from a slow upstream a minute.
pub(super) const BOUNDS: [(&str, Duration); 8] = [
    ("0.001", Duration::from_millis(1)),
    ("0.005", Duration::from_millis(5)),
    ("0.025", Duration::from_millis(25)),
    ("0.1", Duration::from_millis(100)),
    ("0.5", Duration::from_millis(500)),
    ("2.5", Duration::from_millis(2_500)),
    ("10", Duration::from_secs(10)),
    ("60", Duration::from_secs(60)),
];

/// Answers to requests for resources since the start.
#[derive(Debug, Default)]
pub(super) struct Latencies([KindTotals; AnswerKind::ALL_KINDS.len()]);

#[derive(Debug, Default)]
struct KindTotals {
    /// Answers within each bound and above the one before; the last one is for those above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    bytes: AtomicU64,
}

/// The answers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerTotals {
    pub(super) kind: &'static str,
    /// Answers within each bound, those within smaller bounds included.
    pub(super) within: Vec<u64>,
    pub(super) count: u64,
    /// Time that they took together.
    pub(super) took: Duration,
    /// Bytes of bodies that were sent.
    pub(super) bytes: u64,
}

impl Latencies {
    /// Adds an answer.
    pub(super) fn add(&self, kind: AnswerKind, took: Duration, bytes: u64) {
        let totals = &self.0[kind as usize];
        let bucket = BOUNDS.partition_point(|(_, bound)| *bound < took);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        totals.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        totals.micros.fetch_add(micros, Ordering::Relaxed);
        totals.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of bodies that clients got from the store, without a download.
    pub(super) fn saved_bytes(&self) -> u64 {
        let kinds = [AnswerKind::Hit, AnswerKind::Stale].into_iter();
        let bytes = kinds.map(|kind| self.0[kind as usize].bytes.load(Ordering::Relaxed));
        bytes.sum()
    }

    /// The totals of each kind.
    pub(super) fn totals(&self) -> Vec<AnswerTotals> {
        let kinds = AnswerKind::ALL_KINDS.into_iter().zip(&self.0);
        let totals = kinds.map(|(kind, totals)| {
            let mut count = 0;
            let mut within = Vec::new();
            for bucket in &totals.buckets {
                count += bucket.load(Ordering::Relaxed);
                within.push(count);
            }
            within.pop();
            AnswerTotals {
                kind: kind.as_str(),
                within,
                count,
                took: Duration::from_micros(totals.micros.load(Ordering::Relaxed)),
                bytes: totals.bytes.load(Ordering::Relaxed),
            }
        });
        totals.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_include_their_bound_and_all_smaller_ones() {
        let latencies = Latencies::default();
        for ms in [1, 2, 25, 61_000] {
            latencies.add(AnswerKind::Miss, Duration::from_millis(ms), 10);
        }
        let totals = latencies.totals();
        let misses = &totals[AnswerKind::Miss as usize];
        assert_eq!(misses.within, [1, 2, 3, 3, 3, 3, 3, 3]);
        assert_eq!((misses.count, misses.bytes, misses.kind), (4, 40, "miss"));
        assert_eq!(misses.took, Duration::from_millis(61_028));
        assert_eq!(totals[AnswerKind::Hit as usize].count, 0);
    }
}
