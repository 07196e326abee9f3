//! Prefetch: the daemon fetches what a client will ask for next, before the client asks.
//!
//! The cache reports what clients ask for as [`CacheEvent`]s on a bounded channel, and drops events while the channel
//! is full. The prefetcher reads them, works out what follows, and asks the cache for it like any other caller.
//!
//! ```text
//!  client ──> cache ── CacheEvent ──> prefetch ──┬─ index    entries of the dependencies of an entry
//!               ^                                └─ install  archives of the rest of a toolchain profile
//!               └───────── prefetch_entry, prefetch_blob ─────────┘
//! ```
//!
//! Two parts work without events of single requests. [`prefetch_configs`] asks for `config.json` when a daemon starts.
//! [`pins`] fetches what a registered lock file or toolchain file needs after the file has changed.
//!
//! # Limits
//!
//! | part | limit |
//! |---|---|
//! | [`index`] | each hint once within [`BURST_WINDOW`] |
//! | | no hint later than [`PREFETCH_LIFETIME`] after the last client request |
//! | | 300 entry requests at a time, clients' included (`MAX_ENTRY_REQUESTS` in `cache/fetch/entry.rs`) |
//! | [`install`] | [`PREFETCHED_BLOBS_IN_FLIGHT`] archives at a time, beside the clients' permits |
//! | [`prefetch_configs`] | one request for each registry and start |
//! | [`pins`] | four tasks at a time; no pass while an upstream is slow or down |
//!
//! The cache counts what was prefetched and what clients then asked for.
//!
//! [`BURST_WINDOW`]: crate::cache::BURST_WINDOW
//! [`PREFETCH_LIFETIME`]: crate::cache::PREFETCH_LIFETIME
//! [`PREFETCHED_BLOBS_IN_FLIGHT`]: crate::cache::PREFETCHED_BLOBS_IN_FLIGHT

mod index;
mod install;
mod pins;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::{
    cache::{Cache, CacheEvent},
    resource::{Registries, RegistryConfig},
};
pub use pins::{KeepWarmStatus, PinKeeper};

use index::IndexPrefetch;
use install::InstallPrefetch;

/// Starts the prefetcher, which runs as long as the cache lives. It notifies `clients_resumed` when clients ask again
/// after a pause.
pub fn spawn(cache: Cache, mut events: mpsc::Receiver<CacheEvent>, clients_resumed: Arc<Notify>) {
    let index = IndexPrefetch::new(cache.clone());
    let install = InstallPrefetch::new(cache);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                CacheEvent::ClientsResumed => clients_resumed.notify_one(),
                CacheEvent::EntryRequested { resource, body } => {
                    index.client_active();
                    // In a task of its own: parsing a large entry takes longer than reading the next event.
                    let index = index.clone();
                    tokio::spawn(async move { index.follow_client(&resource, &body) });
                }
                CacheEvent::ManifestServed { manifest, entry } => {
                    install.manifest_served(manifest, entry);
                }
                CacheEvent::BlobRequested { generation, sha256 } => {
                    install.blob_requested(generation, sha256);
                }
            }
        }
    });
}

/// Asks for the `config.json` of each registry, unless a fresh one is stored. Every cargo command begins with it, so
/// the first client finds it stored, or on its way, and the connection open for the index entries that follow.
pub async fn prefetch_configs(cache: Cache, registries: Registries) {
    for registry in registries.iter() {
        cache.prefetch_at_start(&RegistryConfig::of(registry)).await;
    }
}
