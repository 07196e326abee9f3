//! Facts of the cache in the types that status and page share.

use crate::{
    cache::Cache,
    overview::{DownloadStatus, OutageState, Timestamp, UpstreamOutage, WithdrawnEntry},
};

/// The upstreams that are down or slow.
pub(super) fn outages(cache: &Cache) -> Vec<UpstreamOutage> {
    let outages = cache.outages().into_iter();
    let outages = outages.map(|(origin, outage)| UpstreamOutage {
        upstream: origin.to_string(),
        state: match outage.is_open {
            true => OutageState::Down,
            false => OutageState::Slow,
        },
        since: Timestamp(outage.since),
        cause: outage.failure.to_string(),
    });
    outages.collect()
}

/// The entries that upstream no longer has and pins need.
pub(super) fn withdrawn(cache: &Cache) -> Vec<WithdrawnEntry> {
    let withdrawn = cache.withdrawn().into_iter();
    let withdrawn = withdrawn.map(|(resource, since)| WithdrawnEntry {
        resource,
        since: Timestamp(since),
    });
    withdrawn.collect()
}

/// Crates and archives that are arriving.
pub(super) fn downloads(cache: &Cache) -> Vec<DownloadStatus> {
    let downloads = cache.downloads().into_iter();
    let downloads = downloads.map(|download| DownloadStatus {
        what: download.what,
        received: download.received,
        total: download.total,
    });
    downloads.collect()
}
