//! [`stored_versions`]: the stored versions of a crate, their sizes, and the projects that need them.

use serde::Serialize;

use crate::{
    cache::Cache,
    resource::{IndexEntry, Registry, Upstreams, registry::listed_checksums},
    store::{Pin, Store},
};

/// A stored version of a crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredVersion {
    /// Name of the registry in larder's settings.
    pub registry: String,
    /// The crate's name, as its index entry spells it.
    pub name: String,
    /// The version.
    pub version: String,
    /// Size of the crate file in bytes.
    pub bytes: u64,
    /// Owners of the pins that need it.
    pub needed_by: Vec<String>,
}

/// The stored versions of the crate `name` of every registry, the newest first. Never asks upstream.
pub async fn stored_versions(
    cache: &Cache,
    store: &Store,
    upstreams: &Upstreams,
    name: &str,
    pins: &[Pin],
) -> Vec<StoredVersion> {
    let mut versions = Vec::new();
    for registry in upstreams.registries.iter() {
        let Some(entry) = IndexEntry::of(registry, name) else {
            continue;
        };
        if let Some(body) = cache.peek(&entry).await {
            versions.extend(listed_versions(store, registry, name, &body, pins).await);
        }
    }
    versions
}

/// The versions that the index entry `body` lists and the store has, the newest first.
async fn listed_versions(
    store: &Store,
    registry: &Registry,
    name: &str,
    body: &[u8],
    pins: &[Pin],
) -> Vec<StoredVersion> {
    let listed = listed_checksums(body);
    let hashes = listed.iter().map(|(_, sha256)| *sha256).collect();
    let sizes = store.sizes(hashes).await.unwrap_or_default();
    let newest_first = listed.into_iter().zip(sizes).rev();
    let stored = newest_first.filter_map(|((version, sha256), bytes)| {
        let owners = pins.iter().filter(|pin| {
            let mut packages = pin.packages.iter();
            packages.any(|package| package.checksum == Some(sha256))
        });
        Some(StoredVersion {
            registry: registry.name().to_owned(),
            name: name.to_owned(),
            version,
            bytes: bytes?,
            needed_by: owners.map(|pin| pin.owner.to_string()).collect(),
        })
    });
    stored.collect()
}
