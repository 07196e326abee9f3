//! The pages about the daemon itself: status as JSON, metrics for Prometheus, and the home page.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::json;

use super::{
    access_log_file::AccessLogFile, background::Background, connections::Connections, metrics,
    traffic::Traffic,
};
use crate::{cache::Cache, eviction::EvictionStatus, prefetch::KeepWarmStatus, verify::ScrubState};

/// `/-/status.json`: counters by name, outages, withdrawn entries, fetches in flight, pending writes, connections, and
/// the background tasks.
pub(super) fn json(cache: &Cache, connections: &Connections, background: Background) -> Bytes {
    let Background {
        keep_warm,
        scrub,
        eviction,
        proxy,
    } = background;
    let outages: Vec<_> = cache
        .outages()
        .into_iter()
        .map(|(origin, outage)| {
            let since = humantime::format_rfc3339_seconds(outage.since).to_string();
            json!({
                "upstream": origin.to_string(),
                "state": if outage.is_open { "down" } else { "slow" },
                "since": since,
                "cause": outage.failure.to_string(),
            })
        })
        .collect();
    let withdrawn: Vec<_> = cache
        .withdrawn()
        .into_iter()
        .map(|(resource, since)| {
            let since = humantime::format_rfc3339_seconds(since).to_string();
            json!({ "resource": resource, "since": since })
        })
        .collect();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "offline": cache.is_offline(),
        "store_problem": cache.store_problem(),
        "outages": outages,
        "withdrawn": withdrawn,
        "recalls": recalled_versions(cache),
        "requests": cache.counters(),
        "fetching": cache.in_flight(),
        "storing": cache.pending_writes(),
        "connections": connections_json(connections),
        "keep_warm": keep_warm.map(keep_warm_json),
        "scrub": scrub.map(|scrub| scrub_json(&scrub)),
        "eviction": eviction.map(eviction_json),
        "proxy": proxy.map(|proxy| json!({ "address": proxy.address, "roots": proxy.roots })),
    });
    Bytes::from(format!("{status}\n"))
}

/// Number of versions that upstream has taken back, by kind.
fn recalled_versions(cache: &Cache) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from([("removed", 0), ("yanked", 0), ("checksum", 0)]);
    for recall in cache.recalls().iter() {
        *counts.entry(recall.kind.as_str()).or_default() += 1;
    }
    counts
}

fn connections_json(connections: &Connections) -> serde_json::Value {
    json!({
        "open": connections.open(),
        "max": connections.limits().total,
        "limited": BTreeMap::from_iter(connections.counters.totals()),
    })
}

fn scrub_json(state: &ScrubState) -> serde_json::Value {
    let last = state.last_pass.clone().unwrap_or_default();
    json!({
        "last_pass": last.ended_at(),
        "files": last.files,
        "bytes": last.bytes,
        "damaged": last.damaged,
        "fetched": last.fetched,
        "position": state.position,
        "current": {
            "files": state.current.files,
            "bytes": state.current.bytes,
            "damaged": state.current.damaged,
            "fetched": state.current.fetched,
        },
    })
}

fn eviction_json(status: EvictionStatus) -> serde_json::Value {
    let last_pass = status.last_pass.map(humantime::format_rfc3339_seconds);
    json!({
        "size": status.space.map(|space| space.total),
        "quarantine": status.space.map(|space| space.quarantine),
        "max_size": status.max_bytes,
        "files": status.files,
        "bytes": status.bytes,
        "passes": status.passes,
        "last_pass": last_pass.map(|time| time.to_string()),
        "pins_exceed": status.pins_exceed,
    })
}

fn keep_warm_json(status: KeepWarmStatus) -> serde_json::Value {
    let last_pass = status.last_pass.map(humantime::format_rfc3339_seconds);
    json!({
        "last_pass": last_pass.map(|time| time.to_string()),
        "passes": status.passes,
        "pins": status.pins,
        "changed": status.changed,
        "fetched": status.fetched,
        "failed": status.failed,
        "not_ready": status.not_ready,
    })
}

/// `/-/metrics`: the same in Prometheus's text format.
pub(super) fn prometheus(
    cache: &Cache,
    connections: &Connections,
    background: Background,
    traffic: &Traffic,
) -> Bytes {
    let outages = cache.outages();
    // A set, because http and https of one host have the same text.
    let down: BTreeSet<_> = outages
        .into_iter()
        .filter_map(|(origin, outage)| outage.is_open.then(|| origin.to_string()))
        .collect();
    let down = Vec::from_iter(down);
    let snapshot = metrics::Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        is_offline: cache.is_offline(),
        counters: &cache.counters(),
        in_flight: cache.in_flight(),
        pending_writes: cache.pending_writes(),
        unreachable: &down,
        withdrawn: cache.withdrawn().len(),
        recalled: &recalled_versions(cache),
        connections: connections.open(),
        max_connections: connections.limits().total,
        answers: traffic.latencies.totals(),
        access_log_lost: traffic.access_log.as_ref().map(AccessLogFile::lost),
        limited: connections.counters.totals().collect(),
        background: &background,
    };
    Bytes::from(snapshot.to_string())
}
/// `/`: how to configure cargo for this server.
pub(super) fn home_page(base: &str) -> String {
    let settings = crate::client_config::cargo_settings(base);
    format!(
        "larder {} is running here.\n\nTo use it, put this into cargo's config.toml:\n\n{settings}\n\
         Status: /-/status.json, for Prometheus: /-/metrics",
        env!("CARGO_PKG_VERSION")
    )
}
