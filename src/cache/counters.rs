//! Counts of what the cache has done since the process started.
//!
//! The names are part of `/-/status.json` and must not change. `/-/metrics` groups the same counters into families.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Serialize, Serializer};

use super::decide::{Outcome, StaleReason};

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Requests answered with a stored, fresh copy.
    Hit,
    /// Requests answered with a new download.
    Miss,
    /// Requests answered with a stored copy that upstream confirmed.
    Revalidated,
    /// Requests answered by another request's download.
    Collapsed,
    /// Requests answered by a prefetch's download, the first after it.
    Prefetched,
    /// Requests answered with a stale copy, since larder runs offline.
    StaleOffline,
    /// Requests answered with a stale copy, since upstream was known to be unreachable or slow.
    StaleDown,
    /// Requests answered with a stale copy, since the request to upstream failed.
    StaleFailed,
    /// Requests answered with a copy within upstream's own lifetime, which was then revalidated.
    StaleRevalidating,
    /// Requests answered with a stored copy that a pin needs and upstream no longer has.
    StaleWithdrawn,
    /// Requests for resources that upstream does not have.
    Absent,
    /// Requests for versions that the user's settings or an earlier answer of upstream forbid.
    Refused,
    /// Requests answered with any other error.
    Failed,
    /// Good answers from upstream.
    UpstreamAnswers,
    /// Failed requests to upstream, "not found" included.
    UpstreamFailures,
    /// Failed probes of an upstream that was unreachable or slow.
    ProbesFailed,
    /// Index entries from which upstream removed versions.
    EntriesRecalled,
    /// Index entries fetched or revalidated before a client asked for them.
    EntriesPrefetched,
    /// Prefetched index entries that a client then asked for.
    PrefetchedEntriesAsked,
    /// Blobs of an install fetched before a client asked for them.
    BlobsPrefetched,
    /// Prefetched blobs that a client then asked for.
    PrefetchedBlobsAsked,
}

impl Counter {
    /// Every counter, in the order of declaration.
    pub const ALL: [Self; 21] = [
        Self::Hit,
        Self::Miss,
        Self::Revalidated,
        Self::Collapsed,
        Self::Prefetched,
        Self::StaleOffline,
        Self::StaleDown,
        Self::StaleFailed,
        Self::StaleRevalidating,
        Self::StaleWithdrawn,
        Self::Absent,
        Self::Refused,
        Self::Failed,
        Self::UpstreamAnswers,
        Self::UpstreamFailures,
        Self::ProbesFailed,
        Self::EntriesRecalled,
        Self::EntriesPrefetched,
        Self::PrefetchedEntriesAsked,
        Self::BlobsPrefetched,
        Self::PrefetchedBlobsAsked,
    ];

    /// The stable name in `status.json` and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => Outcome::Hit.as_str(),
            Self::Miss => Outcome::Miss.as_str(),
            Self::Revalidated => Outcome::Revalidated.as_str(),
            Self::Collapsed => Outcome::Collapsed.as_str(),
            Self::Prefetched => Outcome::Prefetched.as_str(),
            Self::StaleOffline => Outcome::Stale(StaleReason::Offline).as_str(),
            Self::StaleDown => Outcome::Stale(StaleReason::Down).as_str(),
            Self::StaleFailed => Outcome::Stale(StaleReason::Failed).as_str(),
            Self::StaleRevalidating => Outcome::Stale(StaleReason::Revalidating).as_str(),
            Self::StaleWithdrawn => Outcome::Stale(StaleReason::Withdrawn).as_str(),
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::UpstreamAnswers => "upstream-answers",
            Self::UpstreamFailures => "upstream-failures",
            Self::ProbesFailed => "probes-failed",
            Self::EntriesRecalled => "entries-recalled",
            Self::EntriesPrefetched => "ahead-fetched",
            Self::PrefetchedEntriesAsked => "ahead-asked",
            Self::BlobsPrefetched => "blobs-ahead-fetched",
            Self::PrefetchedBlobsAsked => "blobs-ahead-asked",
        }
    }

    /// Returns whether this counts client requests by how they were answered.
    pub fn is_outcome(self) -> bool {
        self <= Self::Failed
    }
}

impl From<Outcome> for Counter {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Hit => Self::Hit,
            Outcome::Miss => Self::Miss,
            Outcome::Revalidated => Self::Revalidated,
            Outcome::Collapsed => Self::Collapsed,
            Outcome::Prefetched => Self::Prefetched,
            Outcome::Stale(StaleReason::Offline) => Self::StaleOffline,
            Outcome::Stale(StaleReason::Down) => Self::StaleDown,
            Outcome::Stale(StaleReason::Failed) => Self::StaleFailed,
            Outcome::Stale(StaleReason::Revalidating) => Self::StaleRevalidating,
            Outcome::Stale(StaleReason::Withdrawn) => Self::StaleWithdrawn,
        }
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// All counters of one cache.
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    /// Adds one.
    pub(super) fn add(&self, counter: Counter) {
        self.0[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One counter.
    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// The counters above zero.
    pub(super) fn snapshot(&self) -> BTreeMap<Counter, u64> {
        Counter::ALL
            .into_iter()
            .zip(&self.0)
            .map(|(counter, count)| (counter, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn counters_have_distinct_slots_and_names() {
        let counters = Counters::default();
        for (at, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, at, "{counter:?}");
            counters.add(counter);
        }
        let names: HashSet<_> = Counter::ALL.into_iter().map(Counter::as_str).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        assert!(counters.snapshot().values().all(|count| *count == 1));
    }

    #[test]
    fn a_snapshot_serialises_under_the_names_of_the_status_file() {
        let counters = Counters::default();
        counters.add(Outcome::Stale(StaleReason::Down).into());
        counters.add(Counter::EntriesPrefetched);
        let text = serde_json::to_string(&counters.snapshot()).unwrap();
        assert_eq!(text, r#"{"stale-down":1,"ahead-fetched":1}"#);
    }
}
