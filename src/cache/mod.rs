//! The cache: the only way from a request to a body, for clients of the daemon and for `larder warm`.
//!
//! # A tour of one request
//!
//! ```text
//!  Cache::get (clients)            Cache::ensure (warm)
//!        │                               │
//!        v                               v
//!     resolve      no hash known? read the listing that names it
//!        │
//!        v
//!     answer ──> entries, blobs
//!                  │
//!                  ├── lookup      write-behind buffer, then store: the stored copy
//!                  ├── admission   decide: serve it, revalidate, fetch or refuse?   <── breaker, negative, clock
//!                  │
//!                  └── flight      one fetch per resource; later requests join it
//!                        │
//!                        v
//!                     fetch        attempts, download, hash ──> write_behind ──> store
//!                        │
//!                        ├── probe        health of the upstream; probes it after a failure
//!                        └── events ──> the prefetcher, which calls Cache::prefetch_entry and prefetch_blob
//! ```
//!
//! 1. A request names a [`Resource`]: a kind of thing with a policy and an address. The cache never asks which kind it
//!    is.
//! 2. [`mod@resolve`] finds out where the store keeps it. That is known for an index entry. A crate without a
//!    checksum in its request is looked up in its index entry first.
//! 3. [`mod@lookup`] reads the stored copy, and [`decide`] applies the rules of HTTP caching (RFC 9111) to it. A fresh
//!    copy is a hit. A stale copy is revalidated with its `ETag`, or served as it is while upstream is unreachable
//!    (`stale-if-error`, RFC 5861). A missing copy is fetched.
//! 4. A fetch is a [`flight`]: a detached task that every request for the same resource joins. [`fetch`] makes the
//!    attempts, verifies the body, and buffers it for the disk ([`write_behind`]).
//! 5. The answer goes out as soon as the body is verified. A blob goes out while it arrives, except for its last chunk.
//!
//! Small modules remember facts between requests:
//!
//! | module | remembers |
//! |---|---|
//! | [`breaker`] | upstreams that are slow or down |
//! | [`state_log`] | log lines about them |
//! | [`negative`] | resources that do not exist or are refused |
//! | [`absence`] | stored resources that do not exist upstream any more |
//! | [`invalidation`] | entries that must be revalidated |
//! | [`verified`] | blobs whose hash was checked |
//! | [`generations`] | manifests that clients have seen |
//! | [`prefetched`] | prefetches that no client has requested yet |
//!
//! [`older`] stores the manifests of older releases that a newer one replaces.
//!
//! The modules form layers, and each uses only those after it in this list: mod with parts and facts, prefetch, answer,
//! resolve, blobs, `fetch/blob`, entries, `fetch/entry`, admission, absence, probe, `fetch/request`, older, lookup, and
//! then the small ones.

mod absence;
mod admission;
mod answer;
mod blobs;
mod body;
mod bounded;
mod breaker;
mod bypass;
mod counters;
pub mod decide;
mod entries;
mod events;
mod facts;
mod fetch;
mod flight;
mod generations;
mod hysteresis;
mod invalidation;
mod lookup;
mod negative;
mod older;
mod options;
mod parts;
mod prefetch;
mod prefetched;
mod probe;
mod readiness;
mod resolve;
mod state_log;
mod trust;
mod verified;
mod write_behind;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

pub use answer::Answer;
pub use body::{Arriving, Body};
pub use breaker::{OFFLINE_VIEW_AFTER, Outage};
pub use counters::Counter;
pub use decide::{Demand, Outcome, PREFETCH_LIFETIME, Reach, StaleReason};
pub use events::CacheEvent;
pub use flight::DownloadProgress;
pub use options::CacheOptions;
pub(crate) use prefetch::PREFETCHED_BLOBS_IN_FLIGHT;
pub use prefetch::{BURST_WINDOW, PrefetchedEntry};

use crate::{
    clock::now,
    error::Error,
    hash::Sha256,
    resource::{Location, Resource},
    store::{Entry, StoreError},
    trust::AdvisoryDatabase,
    validators::Validators,
};
use answer::Responder;
use blobs::Blobs;
use counters::Counters;
use entries::Entries;
use events::{Events, RequestClass};
use flight::{Flights, Until};
use generations::Generations;
use lookup::StoreLocation;
use prefetch::Prefetches;
use resolve::{Resolved, resolve};
use trust::Trust;
use write_behind::Update;

/// Idle time of all clients after which the next request sends [`CacheEvent::ClientsResumed`].
const CLIENTS_RESUMED_AFTER: Duration = Duration::from_secs(1);

/// The cache. Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct Cache(Arc<CacheParts>);

#[derive(Debug)]
struct CacheParts {
    entries: Entries,
    blobs: Blobs,
    flights: Flights,
    generations: Arc<Generations>,
    responder: Responder,
    trust: Trust,
    prefetches: Prefetches,
    events: Arc<Events>,
    counters: Arc<Counters>,
}

/// The result of [`Cache::ensure`].
#[derive(Clone, Debug)]
pub struct Ensured {
    /// How the cache obtained the resource.
    pub outcome: Outcome,
    /// Size of the body in bytes.
    pub bytes: u64,
    /// The body, if the store keeps it in an entry.
    pub entry: Option<Bytes>,
}

impl Cache {
    /// Answers a client. The body may still be arriving. If it turns out bad, reading it fails before its end.
    ///
    /// # Errors
    /// The resource cannot be had.
    pub async fn get(&self, resource: &Resource) -> Result<Answer, Error> {
        let write_behind = &self.0.entries.lookup.write_behind;
        if write_behind.client_idle_time() > CLIENTS_RESUMED_AFTER {
            self.0.events.send(|| CacheEvent::ClientsResumed);
        }
        write_behind.client_active();
        let answer = self.answer(resource).await;
        self.0.counters.add(match &answer {
            Ok(answer) => answer.outcome.into(),
            Err(Error::Absent { .. }) => Counter::Absent,
            Err(Error::Refused { .. }) => Counter::Refused,
            Err(_) => Counter::Failed,
        });
        write_behind.client_active();
        answer
    }

    async fn answer(&self, resource: &Resource) -> Result<Answer, Error> {
        let CacheParts {
            entries,
            generations,
            responder,
            trust,
            ..
        } = &*self.0;
        let Resolved {
            resource,
            location,
            generation,
            unproven,
        } = resolve(resource, entries, generations).await?;
        match location {
            StoreLocation::Entry(key) => responder.entry(&resource, key).await,
            // Boxed: a hit would otherwise carry the size of this future.
            StoreLocation::Half(key, half) => Box::pin(responder.half(&resource, key, half)).await,
            StoreLocation::Blob(sha256) => {
                trust.check_locked(&resource, sha256)?;
                if trust.has_min_age(&resource) {
                    Box::pin(trust.check_age(&resource)).await?;
                }
                if let Some(generation) = generation {
                    self.0
                        .events
                        .send(|| CacheEvent::BlobRequested { generation, sha256 });
                }
                let answer = responder.blob(&resource, sha256).await?;
                Ok(match unproven {
                    None => answer,
                    Some(measured) => answer.unproven(measured),
                })
            }
        }
    }

    /// Makes sure that a copy is stored, safe from a crash.
    ///
    /// # Errors
    /// The resource cannot be had or cannot be stored.
    pub async fn ensure(&self, resource: &Resource, demand: Demand) -> Result<Ensured, Error> {
        let CacheParts {
            entries,
            blobs,
            generations,
            trust,
            ..
        } = &*self.0;
        let Resolved {
            resource, location, ..
        } = resolve(resource, entries, generations).await?;
        match location {
            StoreLocation::Entry(key) | StoreLocation::Half(key, _) => {
                let got = entries.get(&resource, key.clone(), demand, Until::Stored);
                let (outcome, entry) = got.await?;
                let write_behind = &entries.lookup.write_behind;
                if !write_behind.flush(&key).await? && outcome != Outcome::Hit {
                    // No update is pending: it was written, or its write failed before this call. A second write shows
                    // which, because it does nothing or fails again.
                    let update = Update::Entry(entry.clone());
                    write_behind.write(&resource, &key, update).await?;
                }
                Ok(Ensured {
                    outcome,
                    bytes: entry.body.len() as u64,
                    entry: Some(entry.body),
                })
            }
            StoreLocation::Blob(sha256) => {
                trust.check_locked(&resource, sha256)?;
                let (outcome, blob) = blobs.ensure(&resource, sha256, demand).await?;
                Ok(Ensured {
                    outcome,
                    bytes: blob.len,
                    entry: None,
                })
            }
        }
    }

    /// The body that clients get of an entry: without versions that the user's settings forbid and, while upstream
    /// cannot be reached, with the stored versions alone to choose from.
    ///
    /// # Errors
    /// The entry cannot be had.
    pub async fn client_view(&self, resource: &Resource) -> Result<Bytes, Error> {
        let answer = self.answer(resource).await?;
        match answer.body {
            Body::Whole(body) => Ok(body),
            Body::Blob(_) | Body::Arriving(_) => Ok(Bytes::new()),
        }
    }

    /// The body of a stored entry, whatever its age. Never asks upstream.
    pub async fn peek(&self, resource: &Resource) -> Option<Bytes> {
        self.0.entries.lookup.peek(resource).await
    }

    /// The hash of a blob, if `resource` is one and a stored listing or its own name tells it. Never asks upstream.
    pub async fn peek_hash(&self, resource: &Resource) -> Option<Sha256> {
        match resource.location().blob_hash() {
            Some(sha256) => Some(sha256),
            None => self.0.entries.lookup.listed_hash(resource).await,
        }
    }

    /// The body that clients get of a stored entry while upstream cannot be reached: an older release if the newest one
    /// is not complete. Never asks upstream.
    pub async fn peek_complete(&self, resource: &Resource) -> Option<Bytes> {
        let lookup = &self.0.entries.lookup;
        let newest = lookup.stored(resource).await?;
        Some(lookup.newest_complete_release(resource, newest).await.body)
    }

    /// Returns whether upstream is known to lack `resource` for ever, and what clients would ask for in its place.
    /// Never asks upstream.
    pub async fn is_absent_for_ever(&self, resource: &Resource) -> bool {
        let lookup = &self.0.entries.lookup;
        let fallback = resource.absence().and_then(|absence| absence.fallback);
        lookup.is_absent_for_ever(resource).await
            && match fallback {
                Some(fallback) => lookup.is_absent_for_ever(&fallback).await,
                None => true,
            }
    }

    /// The events about what clients do, for the prefetcher; `None` if there is a reader already.
    pub fn events(&self) -> Option<mpsc::Receiver<CacheEvent>> {
        self.0.events.subscribe()
    }

    /// Fetches or revalidates an entry that a client will ask for. One that is not likely to be asked for is not
    /// fetched, and revalidated only if a crate that it lists is stored.
    pub async fn prefetch_entry(&self, resource: &Resource, is_likely: bool) -> PrefetchedEntry {
        let class = RequestClass::Prefetch;
        self.0.prefetches.entry(resource, is_likely, class).await
    }

    /// Starts to fetch or revalidate an entry that the first client will ask for. A failure has no effect while no
    /// client waits for an entry: upstream does not count as down, and nothing is logged.
    pub async fn prefetch_at_start(&self, resource: &Resource) {
        let class = RequestClass::Start;
        self.0.prefetches.entry(resource, true, class).await;
    }

    /// Counts an entry as asked for by a client, if it was prefetched. For answers that are made from it;
    /// [`Cache::get`] counts by itself.
    pub fn count_as_asked(&self, resource: &Resource) {
        if let Location::Entry(key) = resource.location() {
            self.0.responder.take_prefetched(&key);
        }
    }

    /// Fetches a blob that a client will ask for, unless it is stored or being fetched. Returns when its bytes are
    /// verified.
    pub async fn prefetch_blob(&self, resource: &Resource) {
        self.0.prefetches.blob(resource).await;
    }

    /// Starts to fetch a resource without waiting for it. A failure is not reported: the request that needs the
    /// resource gets an error of its own.
    pub fn fetch_in_background(&self, resource: Resource) {
        let cache = self.clone();
        tokio::spawn(async move { cache.ensure(&resource, Demand::Fresh).await.is_ok() });
    }

    /// Records that a cargo command begins. Entries prefetched for an earlier one are served as fresh only within their
    /// freshness lifetime.
    pub fn begin_command(&self) {
        self.0.responder.prefetched.begin_command(now());
    }

    /// The body of an entry that is not stored, if upstream sends it within [`CacheOptions::upstream_timeout`]. The
    /// fetch goes on after that.
    pub async fn fetch_in_time(&self, resource: &Resource) -> Option<Bytes> {
        let Location::Entry(key) = resource.location() else {
            return None;
        };
        let entries = &self.0.entries;
        let fetched = entries.get(resource, key, Demand::Fresh, Until::Verified);
        let fetched = timeout(entries.upstream_timeout, fetched).await.ok()?;
        fetched.ok().map(|(_, entry)| entry.body)
    }

    /// Checks that a lock file may have this crate. Never asks upstream.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn check_locked(&self, resource: &Resource) -> Result<(), Error> {
        match resource.location().blob_hash() {
            Some(sha256) => self.0.trust.check_locked(resource, sha256),
            None => Ok(()),
        }
    }

    /// Reads the stored advisory database, which clients' requests are judged by from then on. Returns it, or `None` if
    /// none is stored that can be read. Never asks upstream.
    pub async fn load_advisories(&self, archive: &Resource) -> Option<Arc<AdvisoryDatabase>> {
        self.0.trust.load_advisories(archive).await
    }

    /// The advisory database that clients' requests are judged by, and the ids of advisories that the settings allow.
    pub fn advisories(&self) -> Option<(Arc<AdvisoryDatabase>, &BTreeSet<String>)> {
        self.0.trust.advisories()
    }

    /// Stores `body` as an entry that upstream has sent now, without asking upstream.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub async fn import(&self, resource: &Resource, body: Bytes) -> Result<(), StoreError> {
        let Location::Entry(key) = resource.location() else {
            return Ok(());
        };
        let entry = Entry::new(body, Validators::default(), None, now());
        self.0.entries.lookup.store.put_entry(&key, &entry).await
    }

    /// Stores `body` as an entry that upstream had at `checked`, unless one is stored. It has no validators, so the
    /// next check fetches it whole.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub async fn import_if_absent(
        &self,
        resource: &Resource,
        body: Bytes,
        checked: SystemTime,
    ) -> Result<(), StoreError> {
        let Location::Entry(key) = resource.location() else {
            return Ok(());
        };
        let entry = Entry::new(body, Validators::default(), None, checked);
        let store = &self.0.entries.lookup.store;
        store.put_entry_unless(&key, &entry, |_| true).await
    }

    /// Discards the downloads that are not complete, and writes everything that clients have been served to the store.
    /// Call it when no client is left: no fetch ends afterwards.
    pub async fn flush(&self) {
        // They would compete with the writes for the disk, and nothing of them would be kept.
        self.0.flights.abandon_unfinished().await;
        self.0.entries.lookup.write_behind.flush_all().await;
        self.0.flights.wait_stored().await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use url::Url;

    use super::{
        flight::{FetchResult, FetchedBody, FlightKey, Progress},
        options::CLIENT_TIMEOUT,
        *,
    };
    use crate::{
        resource::{IndexEntry, Key, Registries},
        store::Store,
        trust::TrustPolicy,
        upstream::{Upstream, UpstreamOptions},
    };

    /// A cache whose upstream refuses connections, and an index entry.
    fn setup(folder: &Path) -> (Cache, Resource, Key) {
        let upstream_options = UpstreamOptions::for_test(Duration::from_secs(1));
        let options = CacheOptions {
            is_offline: false,
            max_age: Duration::from_secs(600),
            upstream_timeout: Duration::from_secs(1),
            max_entry_bytes: 1 << 20,
            offline_view: false,
            writers: 2,
            has_clients: true,
        };
        let store = Arc::new(Store::open(folder).unwrap());
        let upstream = Upstream::new(upstream_options, []).unwrap();
        let registries = Registries::new(Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = IndexEntry::of(registries.crates_io(), "left").unwrap();
        let Location::Entry(key) = resource.location() else {
            panic!("an index entry is stored as an entry");
        };
        let cache = Cache::new(store, upstream, options, TrustPolicy::default());
        (cache, resource, key)
    }

    fn entry(body: &'static str, fetched: SystemTime) -> Entry {
        Entry::new(body.into(), Validators::default(), None, fetched)
    }

    /// Requests an entry whose flight takes 20 s and which is invalidated meanwhile. Returns the answer and how long it
    /// took.
    async fn get_invalidated(cache: &Cache, resource: &Resource, key: Key) -> (Answer, Duration) {
        let started = tokio::time::Instant::now();
        let fetched = entry("body", now() - Duration::from_secs(60));
        let lookup = &cache.0.entries.lookup;
        lookup.invalidations.add(&[(key.clone(), now())]);
        let flight_key = FlightKey::Entry(key);
        cache.0.flights.join(flight_key, |progress| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            progress.send_replace(Progress::Done(Ok(FetchResult {
                outcome: Outcome::Miss,
                body: FetchedBody::Entry(fetched),
                write_error: None,
            })));
        });
        let answer = cache.get(resource).await;
        (answer.unwrap(), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn serves_an_entry_invalidated_in_flight_if_the_second_fetch_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, key) = setup(folder.path());
        let (answer, _) = get_invalidated(&cache, &resource, key).await;
        assert_eq!(answer.outcome, Outcome::Stale(StaleReason::Failed));
        assert_eq!(answer.sha256, Sha256::of(b"body"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_fetch_has_only_the_time_that_the_first_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, key) = setup(folder.path());
        let _permits = cache.0.entries.fetcher.take_all_permits().await;
        let (answer, elapsed) = get_invalidated(&cache, &resource, key).await;
        assert_eq!(answer.outcome, Outcome::Stale(StaleReason::Failed));
        assert!(
            elapsed < CLIENT_TIMEOUT + Duration::from_secs(1),
            "{elapsed:?}"
        );
    }

    #[tokio::test]
    async fn a_failure_at_the_start_counts_once_a_client_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, _) = setup(folder.path());
        cache.prefetch_at_start(&resource).await;
        while cache.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(cache.outages().is_empty(), "{:?}", cache.outages());

        let permits = cache.0.entries.fetcher.take_all_permits().await;
        cache.prefetch_at_start(&resource).await;
        let (client, of_client) = (cache.clone(), resource.clone());
        let waiting = tokio::spawn(async move { client.get(&of_client).await });
        while !cache.0.entries.fetcher.has_clients() {
            tokio::task::yield_now().await;
        }
        drop(permits);
        assert!(waiting.await.unwrap().is_err());
        assert_eq!(cache.outages().len(), 1);
        let counters = cache.counters();
        assert_eq!(
            counters[&Counter::UpstreamFailures],
            2,
            "one flight, tried twice"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_disk_fails_a_miss_with_an_error_that_names_it_and_serves_a_stale_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, key) = setup(folder.path());
        let lookup = &cache.0.entries.lookup;
        let _hung = lookup.write_behind.fill().await;
        let error = cache.get(&resource).await.unwrap_err();
        assert!(matches!(error, Error::Store { .. }), "{error}");
        assert!(error.to_string().contains("disk"), "{error}");
        let old = entry("old", now() - Duration::from_secs(10_000));
        lookup.store.put_entry(&key, &old).await.unwrap();
        let answer = cache.get(&resource).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Stale(StaleReason::Failed));
    }
}
