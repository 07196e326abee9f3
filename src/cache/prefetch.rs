//! The cache's side of prefetch: fetches that no client waits for. The prefetcher (`crate::prefetch`) decides what to
//! prefetch and when; `prefetched` records which prefetches a client has not requested yet.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{
    blobs::Blobs,
    counters::{Counter, Counters},
    decide::{Decision, Demand, Outcome},
    entries::Entries,
    events::RequestClass,
    flight::{self, FetchedBody, FlightKey, Role, Until},
    prefetched::{EntryPrefetch, Prefetched},
};
use crate::{
    clock::now,
    resource::{Location, Resource},
    store::{Checked, Entry},
};

/// Time within which requests belong to one burst. An entry that was checked within it is not asked about again by a
/// prefetch, however short its freshness lifetime.
pub const BURST_WINDOW: Duration = Duration::from_secs(2);

/// Concurrent downloads of prefetched blobs, beside those of clients. The prefetcher waits for a permit before it calls
/// [`Prefetches::blob`].
pub(crate) const PREFETCHED_BLOBS_IN_FLIGHT: usize = 4;

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

/// Starts prefetches and records them in [`Prefetched`].
#[derive(Debug)]
pub(super) struct Prefetches {
    pub(super) entries: Entries,
    pub(super) blobs: Blobs,
    pub(super) prefetched: Arc<Prefetched>,
    pub(super) counters: Arc<Counters>,
}

impl Prefetches {
    /// Fetches or revalidates an entry. An unlikely entry is never fetched, and is revalidated only if a crate that it
    /// lists is stored: `warm` stores many entries for resolving alone.
    pub(super) async fn entry(
        &self,
        resource: &Resource,
        is_likely: bool,
        class: RequestClass,
    ) -> PrefetchedEntry {
        let Location::Entry(key) = resource.location() else {
            return PrefetchedEntry::Unavailable;
        };
        let Ok(stored) = self.entries.lookup.entry(resource, &key).await else {
            return PrefetchedEntry::Unavailable;
        };
        let started = now();
        let demand = Demand::FreshSince(started - BURST_WINDOW);
        let flight_key = FlightKey::Entry(key.clone());
        let admission = &self.entries.admission;
        let decision = admission.decide(resource, &flight_key, stored.as_ref(), demand);
        match (decision, &stored) {
            (Decision::Serve(_) | Decision::ServeAndRevalidate, Some(entry)) => {
                let age = match entry.checked {
                    Checked::At(checked) => started.duration_since(checked).unwrap_or_default(),
                    Checked::Invalidated => Duration::MAX,
                };
                let body = entry.body.clone();
                return PrefetchedEntry::Fresh { body, age };
            }
            (Decision::Revalidate(_) | Decision::Fetch, _) if is_likely => {}
            (Decision::Revalidate(_), Some(entry)) if self.has_crate(resource, entry).await => {}
            (
                Decision::Fetch
                | Decision::Revalidate(_)
                | Decision::Refuse(_)
                | Decision::Serve(_)
                | Decision::ServeAndRevalidate,
                _,
            ) => {
                return PrefetchedEntry::Unavailable;
            }
        }
        let (role, progress) = self.entries.join(resource, &key, demand, class);
        if role == Role::Leader {
            self.counters.add(Counter::EntriesPrefetched);
            let is_new = stored.is_none();
            let prefetch = EntryPrefetch { started, is_new };
            self.prefetched.insert_entry(key, prefetch);
        }
        let resource = resource.clone();
        PrefetchedEntry::Pending {
            stored: stored.map(|entry| entry.body),
            fetch: Box::pin(async move {
                let result = flight::wait(&resource, progress, Until::Verified).await;
                match result.ok()?.body {
                    FetchedBody::Entry(entry) => Some(entry.body),
                    FetchedBody::Blob(_) => None,
                }
            }),
        }
    }

    /// Returns whether a crate that the entry lists is stored. True for a resource that lists no crates.
    async fn has_crate(&self, resource: &Resource, entry: &Entry) -> bool {
        let Some(views) = resource.views() else {
            return true;
        };
        // Entries list the newest version last, and a newer version is more likely to be stored.
        let mut listed = views.checksums(&entry.body);
        listed.reverse();
        let stored = self.entries.lookup.store.contains_any(listed).await;
        stored.unwrap_or(false)
    }

    /// Fetches a blob, unless it is stored or being fetched. Returns when its bytes are verified.
    pub(super) async fn blob(&self, resource: &Resource) {
        let Some(sha256) = resource.location().blob_hash() else {
            return;
        };
        // A damaged blob is found when a client asks for it.
        if self.blobs.lookup.blob(resource, sha256).await.is_some() {
            return;
        }
        let flight_key = FlightKey::blob(resource, sha256);
        let admission = &self.entries.admission;
        if admission.decide(resource, &flight_key, None, Demand::Fresh) != Decision::Fetch {
            return;
        }
        let progress = {
            let mut blobs = self.prefetched.blobs();
            let (role, progress) = self.blobs.join(resource, sha256, Demand::Fresh);
            if role == Role::Joined {
                return;
            }
            blobs.insert(sha256, ());
            progress
        };
        let result = flight::wait(resource, progress, Until::Verified).await;
        let is_hit = matches!(&result, Ok(result) if result.outcome == Outcome::Hit);
        // Nothing was transferred: another fetch had stored the blob just before, or this one failed.
        if (is_hit || result.is_err()) && self.prefetched.take_blob(sha256) {
            return;
        }
        // A client that asked for it meanwhile was counted, so the prefetch counts even if it failed.
        if !is_hit {
            self.counters.add(Counter::BlobsPrefetched);
        }
    }
}
