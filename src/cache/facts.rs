//! Facts about a cache and its work, for status, metrics and the start page.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{
    Cache,
    breaker::{CircuitBreakers, Outage},
    counters::Counter,
    flight::DownloadProgress,
};
use crate::{store::Recall, upstream::Origin};

impl Cache {
    /// The upstreams that are slow or down.
    pub fn outages(&self) -> Vec<(Origin, Outage)> {
        self.breakers().outages()
    }

    /// The stored index entries that upstream no longer has and pins need, each with the time that was found out.
    pub fn withdrawn(&self) -> Vec<(String, SystemTime)> {
        self.0.entries.admission.absences.withdrawn()
    }

    /// The recalls: versions that upstream has taken back, the oldest first.
    pub fn recalls(&self) -> Arc<Vec<Recall>> {
        self.0.entries.lookup.store.recalls()
    }

    /// Returns whether larder runs with `--offline`.
    pub fn is_offline(&self) -> bool {
        self.breakers().is_offline()
    }

    /// The reason why the store is not written to any more, if its folder was replaced.
    pub fn store_problem(&self) -> Option<String> {
        self.0.entries.lookup.store.problem()
    }

    fn breakers(&self) -> &CircuitBreakers {
        &self.0.entries.admission.health.breakers
    }

    /// The counters above zero.
    pub fn counters(&self) -> BTreeMap<Counter, u64> {
        self.0.counters.snapshot()
    }

    /// Bytes of bodies that have come from each upstream since the start.
    pub fn received_bytes(&self) -> BTreeMap<String, u64> {
        self.0.entries.admission.health.upstream.received_bytes()
    }

    /// Crates and archives that are arriving from upstream.
    pub fn downloads(&self) -> Vec<DownloadProgress> {
        self.0.flights.downloads()
    }

    /// Number of fetches under way.
    pub fn in_flight(&self) -> usize {
        self.0.flights.len()
    }

    /// Number of entries that clients have been served and the disk does not have yet.
    pub fn pending_writes(&self) -> usize {
        self.0.entries.lookup.write_behind.pending()
    }
}
