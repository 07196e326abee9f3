//! The cache's side of prefetch: starting a fetch that no client waits for, and the ledger of what was prefetched.
//!
//! The ledger serves two purposes. The counters "prefetched" and "prefetched, then asked for" show how much traffic
//! prefetch wastes. And a prefetched entry answers the first client that asks for it even if its freshness lifetime is
//! zero: the entry was fetched for exactly that request. So the ledger belongs to the cache, which answers that client;
//! what to prefetch, and how much at a time, is up to the prefetcher.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};

use super::{
    Cache, Outcome, Until, blob_flight_key,
    bounded::BoundedMap,
    counters::Counter,
    decide::{Decision, Demand},
    flight::{FlightKey, Role},
};
use crate::{
    clock::now,
    hash::Sha256,
    resource::{Key, Location, Resource},
    store::Checked,
};

/// Time within which requests belong to one burst. An entry that was checked within it is not asked about again by a
/// prefetch, however short its freshness lifetime.
pub const BURST_WINDOW: Duration = Duration::from_secs(2);

/// Makes a request visible to the prefetcher, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// A client, or `warm`: the fetch reports events.
    Client,
    /// The prefetcher, which needs no events about its own requests.
    Prefetch,
}

/// An entry that a prefetch asked for.
pub enum PrefetchedEntry {
    /// The stored copy is fresh, or all there is while upstream cannot be asked.
    Fresh {
        /// Its body.
        body: Bytes,
        /// Time since upstream confirmed it last.
        age: Duration,
    },
    /// Upstream is being asked.
    Pending {
        /// The stale copy, if one is stored.
        stored: Option<Bytes>,
        /// The body once upstream has answered; `None` if the fetch failed. The fetch goes on if this is dropped.
        fetch: BoxFuture<'static, Option<Bytes>>,
    },
    /// The entry is not stored, and is not fetched.
    Unavailable,
}

/// Prefetched, not asked for yet.
#[derive(Debug, Default)]
pub(super) struct Prefetched {
    /// The moment each entry's prefetch began.
    entries: Mutex<BoundedMap<Key, SystemTime>>,
    blobs: Mutex<BoundedMap<Sha256, ()>>,
}

impl Prefetched {
    /// Removes an entry that a client asks for, and returns the moment its prefetch began.
    pub(super) fn take_entry(&self, key: &Key) -> Option<SystemTime> {
        self.entries.lock().remove(key)
    }

    /// The blobs. Hold the lock while joining a flight, so that a client that joins the same flight finds its blob here.
    fn blobs(&self) -> MutexGuard<'_, BoundedMap<Sha256, ()>> {
        self.blobs.lock()
    }

    /// Removes a blob that a client asks for. Returns whether it was prefetched.
    pub(super) fn take_blob(&self, sha256: Sha256) -> bool {
        self.blobs.lock().remove(&sha256).is_some()
    }
}

impl Cache {
    /// Fetches or revalidates an entry that a client will ask for. An entry that is not stored is fetched only if
    /// `fetch_absent`.
    pub async fn prefetch_entry(&self, resource: &Resource, fetch_absent: bool) -> PrefetchedEntry {
        let Location::Entry(key) = resource.location() else {
            return PrefetchedEntry::Unavailable;
        };
        let Ok(stored) = self.stored(resource, &key).await else {
            return PrefetchedEntry::Unavailable;
        };
        let started = now();
        let demand = Demand::FreshSince(started - BURST_WINDOW);
        let flight_key = FlightKey::Entry(key.clone());
        let decision = self.decide(resource, &flight_key, stored.as_ref(), demand);
        match (decision, &stored) {
            (Decision::Serve(_), Some(entry)) => {
                let age = match entry.checked {
                    Checked::At(checked) => started.duration_since(checked).unwrap_or_default(),
                    Checked::Invalidated => Duration::MAX,
                };
                let body = entry.body.clone();
                return PrefetchedEntry::Fresh { body, age };
            }
            (Decision::Revalidate(_), _) => {}
            (Decision::Fetch, _) if fetch_absent => {}
            (Decision::Fetch | Decision::Refuse(_) | Decision::Serve(_), _) => {
                return PrefetchedEntry::Unavailable;
            }
        }
        let (role, progress) =
            self.join_flight(resource, flight_key, demand, RequestClass::Prefetch);
        if role == Role::Leader {
            self.count(Counter::EntriesPrefetched);
            self.0.prefetched.entries.lock().insert(key, started);
        }
        let (cache, resource) = (self.clone(), resource.clone());
        PrefetchedEntry::Pending {
            stored: stored.map(|entry| entry.body),
            fetch: Box::pin(async move { cache.flight_entry(&resource, progress).await }),
        }
    }

    /// Fetches a blob that a client will ask for, unless it is stored or being fetched. Returns when its bytes are verified.
    pub async fn prefetch_blob(&self, resource: &Resource) {
        let Location::Blob(sha256) = resource.location() else {
            return;
        };
        // A damaged blob is found when a client asks for it.
        if self.stored_blob(resource, sha256).await.is_some() {
            return;
        }
        let flight_key = blob_flight_key(resource, sha256);
        if self.decide(resource, &flight_key, None, Demand::Fresh) != Decision::Fetch {
            return;
        }
        let progress = {
            let mut blobs = self.0.prefetched.blobs();
            let (role, progress) =
                self.join_flight(resource, flight_key, Demand::Fresh, RequestClass::Prefetch);
            if role == Role::Joined {
                return;
            }
            blobs.insert(sha256, ());
            progress
        };
        let result = self
            .flight_result(resource, progress, Until::Verified)
            .await;
        let is_hit = matches!(&result, Ok(result) if result.outcome == Outcome::Hit);
        // Nothing was transferred: another fetch had stored the blob just before, or this one failed.
        if (is_hit || result.is_err()) && self.0.prefetched.take_blob(sha256) {
            return;
        }
        // A client that asked for it meanwhile was counted, so the prefetch counts even if it failed.
        if !is_hit {
            self.count(Counter::BlobsPrefetched);
        }
    }

    /// Counts the first request for a prefetched blob.
    pub(super) fn count_prefetched_blob(&self, sha256: Sha256) {
        if self.0.prefetched.take_blob(sha256) {
            self.count(Counter::PrefetchedBlobsAsked);
        }
    }
}
