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
//! Prefetch is bounded and yields to clients: [`index`] follows each hint once in a burst of requests, and
//! [`install`] fetches a few archives at a time beside the clients' own permits. The cache counts what was prefetched
//! and what clients then asked for.

mod index;
mod install;
mod pins;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::cache::{Cache, CacheEvent};
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
                    tokio::spawn(async move { index.follow(&resource, &body) });
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
