//! The answers about the daemon itself: status as JSON, metrics for Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    access_log_file::AccessLogFile,
    background::Background,
    connections::Connections,
    facts::{downloads, outages, withdrawn},
    home::Home,
    metrics,
    traffic::Traffic,
};
use crate::{
    cache::Cache,
    eviction::EvictionStatus,
    overview::{
        AnswersStatus, ConnectionsStatus, DaemonStatus, EvictionNumbers, KeepWarmNumbers,
        ProxyAddress, ScrubNumbers, ScrubPass, Timestamp,
    },
    prefetch::KeepWarmStatus,
    store::{ScrubState, ScrubTotals},
};

/// Where the facts about the daemon are.
#[derive(Debug)]
pub(super) struct StatusSources<'a> {
    pub(super) cache: &'a Cache,
    pub(super) connections: &'a Connections,
    pub(super) traffic: &'a Traffic,
    pub(super) background: Background,
    /// `None` for a server without a page.
    pub(super) home: Option<&'a Home>,
}

/// The facts of `/-/status.json`. Never reads the store, so that the answer comes at once.
fn daemon_status(sources: StatusSources<'_>) -> DaemonStatus {
    let (cache, home, background) = (sources.cache, sources.home, sources.background);
    let answers = sources.traffic.latencies.totals().into_iter();
    DaemonStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: home.map(|home| Timestamp(home.started)),
        offline: cache.is_offline(),
        store_problem: cache.store_problem(),
        outages: outages(cache),
        withdrawn: withdrawn(cache),
        recalls: owned(recalled_versions(cache)),
        requests: owned(
            cache
                .counters()
                .into_iter()
                .map(|(counter, count)| (counter.as_str(), count)),
        ),
        answers: home.map_or_else(AnswersStatus::default, |home| home.answers(cache)),
        sent_bytes: owned(answers.map(|answer| (answer.kind, answer.bytes))),
        received_bytes: cache.received_bytes(),
        fetching: cache.in_flight(),
        downloads: downloads(cache),
        storing: cache.pending_writes(),
        connections: connections_status(sources.connections),
        keep_warm: background.keep_warm.map(keep_warm_numbers),
        scrub: background.scrub.map(scrub_numbers),
        eviction: background.eviction.map(eviction_numbers),
        proxy: background.proxy.map(|proxy| ProxyAddress {
            address: proxy.address,
            roots: proxy.roots,
        }),
    }
}

/// `/-/status.json`.
pub(super) fn json(sources: StatusSources<'_>) -> Bytes {
    let text = serde_json::to_string(&daemon_status(sources));
    // Only maps with other keys than texts cannot be written.
    Bytes::from(text.unwrap_or_default() + "\n")
}

/// A map with its own keys.
fn owned(counts: impl IntoIterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// Number of versions that upstream has taken back, by kind.
fn recalled_versions(cache: &Cache) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from([("removed", 0), ("yanked", 0), ("checksum", 0)]);
    for recall in cache.recalls().iter() {
        *counts.entry(recall.kind.as_str()).or_default() += 1;
    }
    counts
}

fn connections_status(connections: &Connections) -> ConnectionsStatus {
    ConnectionsStatus {
        open: connections.open(),
        max: connections.limits().total,
        limited: owned(connections.counters.totals()),
    }
}

fn scrub_numbers(state: ScrubState) -> ScrubNumbers {
    let pass = |totals: &ScrubTotals| ScrubPass {
        files: totals.files,
        bytes: totals.bytes,
        damaged: totals.damaged,
        fetched: totals.fetched,
    };
    let last = state.last_pass.unwrap_or_default();
    ScrubNumbers {
        last_pass: last.ended.map(Timestamp::from_seconds),
        last: pass(&last),
        current: pass(&state.current),
        position: state.position,
    }
}

fn eviction_numbers(status: EvictionStatus) -> EvictionNumbers {
    EvictionNumbers {
        size: status.space.map(|space| space.total),
        quarantine: status.space.map(|space| space.quarantine),
        max_size: status.max_bytes,
        files: status.files,
        bytes: status.bytes,
        passes: status.passes,
        last_pass: status.last_pass.map(Timestamp),
        pins_exceed: status.pins_exceed,
    }
}

fn keep_warm_numbers(status: KeepWarmStatus) -> KeepWarmNumbers {
    KeepWarmNumbers {
        last_pass: status.last_pass.map(Timestamp),
        passes: status.passes,
        pins: status.pins,
        changed: status.changed,
        fetched: status.fetched,
        failed: status.failed,
        not_ready: status.not_ready,
    }
}

/// `/-/metrics`: the same in Prometheus's text format.
pub(super) fn prometheus(sources: StatusSources<'_>) -> Bytes {
    let (cache, connections, traffic) = (sources.cache, sources.connections, sources.traffic);
    // Sets, because http and https of one host have the same text.
    let (mut down, mut slow) = (BTreeSet::new(), BTreeSet::new());
    for (origin, outage) in cache.outages() {
        match outage.is_open {
            true => down.insert(origin.to_string()),
            false => slow.insert(origin.to_string()),
        };
    }
    let census = sources.home.and_then(|home| home.census.latest(cache));
    let snapshot = metrics::Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        is_offline: cache.is_offline(),
        counters: &cache.counters(),
        in_flight: cache.in_flight(),
        pending_writes: cache.pending_writes(),
        down: &down,
        slow: &slow,
        withdrawn: cache.withdrawn().len(),
        recalled: &recalled_versions(cache),
        received: &cache.received_bytes(),
        connections: connections.open(),
        max_connections: connections.limits().total,
        answers: traffic.latencies.totals(),
        access_log_lost: traffic.access_log.as_ref().map(AccessLogFile::lost),
        limited: connections.counters.totals().collect(),
        background: &sources.background,
        census: census.as_deref(),
    };
    Bytes::from(snapshot.to_string())
}
