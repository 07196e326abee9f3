//! The one path from a request to a body: look up, decide, fetch if need be, answer. Daemon and `warm` both go through
//! here. Tells the decisions the time, and is the only place that heals. Never knows which kind it holds; statuses and the disk's
//! layout are for others.

mod body;
mod bounded;
mod breaker;
mod counters;
pub mod decide;
mod events;
mod fetch;
mod flight;
mod generations;
mod invalidation;
mod negative;
mod prefetched;
mod ranges;
mod verified;
mod write_behind;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tracing::warn;
use url::Url;

pub use body::{Arriving, Body};
pub use breaker::Outage;
pub use counters::Counter;
pub use decide::{Demand, Outcome, PREFETCH_LIFETIME, Reach, StaleReason};
pub use events::CacheEvent;
pub use prefetched::{BURST_WINDOW, PrefetchedEntry};

use crate::{
    clock::now,
    error::{Error, chain},
    hash::{Hasher, Sha256},
    resource::{Freshness, Half, Key, Location, Resource, Source, Unlisted},
    store::{Blob, CHUNK_BYTES, Checked, Entry, Store, StoreError},
    upstream::{Origin, Upstream},
};
use breaker::CircuitBreakers;
use counters::Counters;
use decide::{Decision, Held, Refusal, decide};
use events::Events;
use flight::{FlightKey, Flights, Progress, Role};
use generations::Generations;
use invalidation::Invalidations;
use negative::NegativeCache;
use prefetched::{Prefetched, RequestClass};
use ranges::RangeLimits;
use verified::VerifiedBlobs;
use write_behind::{Update, WriteBehind};

/// Blobs up to this size are read before they are answered with, in one piece.
const WHOLE_BLOB_BYTES: u64 = CHUNK_BYTES as u64;

/// Requests to upstream at a time, for entries and for blobs. What answers a volley of questions about a whole project in one
/// round trip; and no more bodies than one connection carries, but for what is fetched ahead, which has room beside them.
const ENTRIES_IN_FLIGHT: usize = 300;
const IN_FLIGHT: usize = 100;

/// Requests for prefetched blobs at a time, beside those of clients.
pub(crate) const PREFETCHED_BLOBS_IN_FLIGHT: usize = 4;

/// Pause of all clients after which their next request counts as the start of new work.
const CLIENTS_RESUMED_AFTER: Duration = Duration::from_secs(1);

/// How the cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// Whether upstream must never be asked.
    pub is_offline: bool,
    /// Bounds the freshness lifetime that upstream claims.
    pub max_age: Duration,
    /// Time limit for upstream when a stale copy is at hand.
    pub upstream_timeout: Duration,
    /// Whether, offline, entries offer only what is held.
    pub offline_view: bool,
    /// Bodies stored at a time. Where nobody waits for it, few: to make files is work for the system, and clients need the
    /// processor while it goes on.
    pub writers: usize,
    /// Whether clients wait for answers: then writes are delayed until they are idle.
    pub has_clients: bool,
}

/// The cache. Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    upstream: Upstream,
    options: CacheOptions,
    breakers: CircuitBreakers,
    flights: Flights,
    /// Room for requests to upstream; large downloads must not hold up the small ones.
    entry_permits: Semaphore,
    blob_permits: Semaphore,
    parts: RangeLimits,
    write_behind: WriteBehind,
    negative: NegativeCache,
    invalidations: Arc<Invalidations>,
    generations: Generations,
    events: Events,
    prefetched: Prefetched,
    verified: VerifiedBlobs,
    counters: Counters,
}

/// An answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// How it came about.
    pub outcome: Outcome,
    /// Hash of the body: a strong validator.
    pub sum: Sha256,
    /// The body.
    pub body: Body,
}

/// What [`Cache::ensure`] did.
#[derive(Clone, Debug)]
pub struct Ensured {
    /// How it came about.
    pub outcome: Outcome,
    /// Size of the body in bytes.
    pub bytes: u64,
    /// The body, if it is kept in an entry.
    pub entry: Option<Bytes>,
}

/// Where a flight ended.
#[derive(Clone, Debug)]
struct FetchResult {
    outcome: Outcome,
    body: FetchedBody,
    /// Why it could be served but not kept.
    write_error: Option<Error>,
}

#[derive(Clone, Debug)]
enum FetchedBody {
    Entry(Entry),
    Blob(Blob),
}

impl Cache {
    /// A cache over `store` and `upstream`.
    pub fn new(store: Arc<Store>, upstream: Upstream, options: CacheOptions) -> Self {
        let invalidations = Arc::<Invalidations>::default();
        Self(Arc::new(Inner {
            store: store.clone(),
            upstream,
            options,
            breakers: CircuitBreakers::new(options.is_offline),
            flights: Flights::default(),
            entry_permits: Semaphore::new(ENTRIES_IN_FLIGHT),
            parts: RangeLimits::new(),
            // Prefetched blobs take none of the clients' permits.
            blob_permits: Semaphore::new(IN_FLIGHT + PREFETCHED_BLOBS_IN_FLIGHT),
            write_behind: WriteBehind::new(
                store,
                invalidations.clone(),
                options.writers,
                options.has_clients,
            ),
            negative: NegativeCache::default(),
            prefetched: Prefetched::default(),
            invalidations,
            generations: Generations::default(),
            events: Events::default(),
            verified: VerifiedBlobs::default(),
            counters: Counters::default(),
        }))
    }

    /// An answer for a client. Its body may still be on its way in; if it turns out bad, it never ends cleanly.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn get(&self, resource: &Resource) -> Result<Answer, Error> {
        if self.0.write_behind.client_idle_time() > CLIENTS_RESUMED_AFTER {
            self.0.events.send(|| CacheEvent::ClientsResumed);
        }
        self.0.write_behind.client_active();
        let answer = match self.resolve(resource).await {
            Ok((resource, StoreLocation::Entry(key), _)) => self.get_entry(&resource, key).await,
            // Boxed like all that is not for hits, which would carry its room otherwise.
            Ok((resource, StoreLocation::Half(key, half), _)) => {
                Box::pin(self.get_half(&resource, key, half)).await
            }
            Ok((resource, StoreLocation::Blob(sum), generation)) => {
                if let Some(generation) = generation {
                    self.0.events.send(|| CacheEvent::BlobRequested {
                        generation,
                        sha256: sum,
                    });
                }
                self.get_blob(&resource, sum).await
            }
            Err(error) => Err(error),
        };
        self.count(match &answer {
            Ok(answer) => answer.outcome.into(),
            Err(Error::Absent { .. }) => Counter::Absent,
            Err(_) => Counter::Failed,
        });
        self.0.write_behind.client_active();
        answer
    }

    /// Makes sure that a copy is stored, safe from a crash, and says how it got there.
    ///
    /// # Errors
    /// Why it cannot be had or kept.
    pub async fn ensure(&self, resource: &Resource, demand: Demand) -> Result<Ensured, Error> {
        let (resource, location, _) = self.resolve(resource).await?;
        match location {
            StoreLocation::Entry(key) | StoreLocation::Half(key, _) => {
                let kept = self.entry(&resource, key.clone(), demand, Until::Stored);
                let (outcome, entry) = kept.await?;
                if !self.0.write_behind.flush(&key).await? && outcome != Outcome::Hit {
                    // No update is pending: it was written, or its write failed before this call. A second write tells.
                    let update = Update::Entry(entry.clone());
                    self.0.write_behind.write(&resource, &key, update).await?;
                }
                Ok(Ensured {
                    outcome,
                    bytes: entry.body.len() as u64,
                    entry: Some(entry.body),
                })
            }
            StoreLocation::Blob(sum) => {
                let stored = match self.stored_blob(&resource, sum).await {
                    Some(blob) if self.prove(sum, &blob).await.is_some() => Some(blob),
                    Some(_) | None => None,
                };
                if let Some(blob) = stored {
                    return Ok(Ensured {
                        outcome: Outcome::Hit,
                        bytes: blob.len,
                        entry: None,
                    });
                }
                let (role, progress) = self.join_flight(
                    &resource,
                    blob_flight_key(&resource, sum),
                    demand,
                    RequestClass::Client,
                );
                let result = self
                    .flight_result(&resource, progress, Until::Stored)
                    .await?;
                let FetchedBody::Blob(blob) = result.body else {
                    return Err(self.abandoned(&resource));
                };
                Ok(Ensured {
                    outcome: collapse(role, result.outcome),
                    bytes: blob.len,
                    entry: None,
                })
            }
        }
    }

    /// The stored entry's body as it is, whatever its age. Never asks upstream.
    pub async fn peek(&self, resource: &Resource) -> Option<Bytes> {
        match resource.location() {
            Location::Entry(key) | Location::Pair(key, _) => {
                let stored = self.stored(resource, &key).await.ok().flatten();
                stored.map(|entry| entry.body)
            }
            Location::Blob(_) | Location::ListedIn(_) => None,
        }
    }

    /// Starts to fetch a resource without waiting for it.
    pub fn fetch_in_background(&self, resource: Resource) {
        let cache = self.clone();
        tokio::spawn(async move {
            // A client that needs the resource will be told about a failure.
            let _ = cache.ensure(&resource, Demand::Fresh).await;
        });
    }

    /// What clients do, for the prefetcher; `None` if there is a reader already.
    pub fn events(&self) -> Option<mpsc::Receiver<CacheEvent>> {
        self.0.events.subscribe()
    }

    async fn flight_entry(
        &self,
        resource: &Resource,
        progress: watch::Receiver<Progress>,
    ) -> Option<Bytes> {
        let result = self
            .flight_result(resource, progress, Until::Verified)
            .await;
        match result.ok()?.body {
            FetchedBody::Entry(entry) => Some(entry.body),
            FetchedBody::Blob(_) => None,
        }
    }

    /// The outages known of, by origin.
    pub fn outages(&self) -> Vec<(Origin, Outage)> {
        self.0.breakers.outages()
    }

    /// Whether upstream must never be asked.
    pub fn is_offline(&self) -> bool {
        self.0.breakers.is_offline()
    }

    /// The counters above zero.
    pub fn counters(&self) -> BTreeMap<Counter, u64> {
        self.0.counters.snapshot()
    }

    /// Fetches under way.
    pub fn in_flight(&self) -> usize {
        self.0.flights.len()
    }

    /// Entries that clients have been given and the store does not have yet.
    pub fn pending_writes(&self) -> usize {
        self.0.write_behind.pending()
    }

    /// Writes everything that clients have been served to the store. To be called when no client is left.
    pub async fn flush(&self) {
        self.0.write_behind.flush_all().await;
        self.0.flights.wait_stored().await;
    }

    fn count(&self, counter: Counter) {
        self.0.counters.add(counter);
    }

    /// The resource named in full, where it is kept, and the session of which it is a part. A listing that does not mention
    /// it is asked for anew once.
    async fn resolve(
        &self,
        resource: &Resource,
    ) -> Result<(Resource, StoreLocation, Option<Sha256>), Error> {
        match StoreLocation::of(resource.location()) {
            Ok(location) => Ok((resource.clone(), location, None)),
            Err(listing) => Box::pin(self.complete_by_listing(resource, listing)).await,
        }
    }

    async fn complete_by_listing(
        &self,
        resource: &Resource,
        listing: Resource,
    ) -> Result<(Resource, StoreLocation, Option<Sha256>), Error> {
        if let Some((complete, sum, generation)) = self.complete_by_pair(resource).await {
            return Ok((complete, StoreLocation::Blob(sum), generation));
        }
        let Location::Entry(key) = listing.location() else {
            return Err(self.abandoned(resource));
        };
        // A listing of what never changes may be old; one of what moves may not.
        let mut demand = match resource.policy().freshness {
            Freshness::Forever => Demand::Stored,
            Freshness::For(_) | Freshness::AsUpstreamSays => Demand::Fresh,
        };
        loop {
            let listed = self.entry(&listing, key.clone(), demand, Until::Verified);
            let (outcome, entry) = match listed.await {
                Err(absent @ Error::Absent { .. }) => {
                    return self.complete_by_last_pair(resource).await.ok_or(absent);
                }
                listed => listed?,
            };
            match resource
                .listed()
                .ok_or(Unlisted)
                .and_then(|listed| listed.resolve(&entry.body))
            {
                Ok(complete) => {
                    let location = StoreLocation::of(complete.location())
                        .map_err(|_| self.abandoned(resource))?;
                    return Ok((complete, location, None));
                }
                Err(_) if demand == Demand::Stored && outcome == Outcome::Hit => {
                    demand = Demand::Refresh
                }
                // The stored listing may be older than what is asked for: that upstream has it not, only upstream can say.
                Err(_) => {
                    let resource = resource.to_string();
                    return Err(match outcome {
                        Outcome::Stale(StaleReason::Offline) => Error::Offline { resource },
                        Outcome::Stale(_) => Error::Outdated { resource },
                        Outcome::Hit
                        | Outcome::Miss
                        | Outcome::Revalidated
                        | Outcome::Collapsed => Error::Unlisted { resource },
                    });
                }
            }
        }
    }

    /// The resource as the pairs at hand list it, for which upstream need not be asked: those that clients were generations, who
    /// ask by them, and stored ones of any age, since the name that they list fixes its bytes.
    async fn complete_by_pair(
        &self,
        resource: &Resource,
    ) -> Option<(Resource, Sha256, Option<Sha256>)> {
        let listed = resource.listed()?;
        let pairs = listed.listings();
        if pairs.is_empty() {
            return None;
        }
        let complete = |body: &[u8]| {
            let complete = listed.resolve(body).ok()?;
            match complete.location() {
                Location::Blob(sum) => Some((complete, sum)),
                Location::Entry(_) | Location::Pair(..) | Location::ListedIn(_) => None,
            }
        };
        for entry in self.0.generations.listings() {
            if let Some((complete, sum)) = complete(&entry.body) {
                return Some((complete, sum, Some(entry.head.sha256)));
            }
        }
        for pair in pairs {
            if let Some(body) = self.peek(&pair).await
                && let Some((complete, sum)) = complete(&body)
            {
                return Some((complete, sum, None));
            }
        }
        None
    }

    /// The resource as the last of its pairs lists it, which is fetched for that: where upstream has no listing.
    async fn complete_by_last_pair(
        &self,
        resource: &Resource,
    ) -> Option<(Resource, StoreLocation, Option<Sha256>)> {
        let listed = resource.listed()?;
        let pair = listed.listings().pop()?;
        let Location::Pair(key, _) = pair.location() else {
            return None;
        };
        let fetched = self
            .entry(&pair, key, Demand::Stored, Until::Verified)
            .await;
        let complete = listed.resolve(&fetched.ok()?.1.body).ok()?;
        match complete.location() {
            Location::Blob(sum) => Some((complete, StoreLocation::Blob(sum), None)),
            Location::Entry(_) | Location::Pair(..) | Location::ListedIn(_) => None,
        }
    }

    async fn get_entry(&self, resource: &Resource, key: Key) -> Result<Answer, Error> {
        let demand = match self.0.prefetched.take_entry(&key) {
            Some(since) => {
                self.count(Counter::PrefetchedEntriesAsked);
                Demand::FreshSince(since)
            }
            None => Demand::Fresh,
        };
        let (outcome, entry) = self.entry(resource, key, demand, Until::Verified).await?;
        // It may have been noted between the question above and the joining: then it must not answer the next request as well.
        if outcome == Outcome::Collapsed
            && let Location::Entry(key) = resource.location()
            && self.0.prefetched.take_entry(&key).is_some()
        {
            self.count(Counter::PrefetchedEntriesAsked);
        }
        let mut sum = entry.head.sha256;
        let mut body = entry.body;
        if self.0.options.offline_view
            && !self.0.breakers.is_all_well()
            && let Some(views) = resource.views()
            && let Source::At(url) = resource.source()
            && self.0.breakers.is_settled_in(&url, now())
        {
            let offered = views.checksums(&body);
            match self.0.store.contains(offered.clone()).await {
                Ok(held) => {
                    let held = offered
                        .into_iter()
                        .zip(held)
                        .filter_map(|(sum, is_held)| is_held.then_some(sum));
                    body = views.offline_view(body, &held.collect());
                    sum = Sha256::of(&body);
                }
                Err(error) => {
                    warn!(%resource, %error, "cannot tell what is held; serving the entry as it is")
                }
            }
        }
        Ok(Answer {
            outcome,
            sum,
            body: Body::Whole(body),
        })
    }

    /// One half of a pair. Clients ask for the sidecar first and then for a body that must match it, so what was handed out
    /// last decides: the body that belongs to it is served, and a new generation's sidecar is held back until whoever has the
    /// old one has had time to ask for its body. This holds whichever process brought the new generation.
    async fn get_half(&self, resource: &Resource, key: Key, half: Half) -> Result<Answer, Error> {
        let (outcome, entry) = match half {
            Half::Body => match self.0.generations.serve_manifest(&key) {
                Some(entry) => {
                    self.0.events.send(|| CacheEvent::ManifestServed {
                        manifest: resource.clone(),
                        entry: entry.clone(),
                    });
                    (Outcome::Hit, entry)
                }
                None => {
                    self.entry(resource, key, Demand::Fresh, Until::Verified)
                        .await?
                }
            },
            Half::Sidecar => {
                let (outcome, entry) = self
                    .entry(resource, key.clone(), Demand::Fresh, Until::Verified)
                    .await?;
                (outcome, self.serve_checksum(key, entry).await)
            }
        };
        let views = resource.views();
        let body = views.and_then(|views| views.client_view(&entry.body));
        let body = match half {
            Half::Body => body.unwrap_or(entry.body),
            Half::Sidecar => {
                let sidecar = entry
                    .head
                    .sidecar
                    .unwrap_or_else(|| entry.head.sha256.to_string());
                match body {
                    None => Bytes::from(sidecar),
                    Some(body) => {
                        let rest = sidecar.get(64..).unwrap_or_default();
                        Bytes::from(format!("{}{rest}", Sha256::of(&body)))
                    }
                }
            }
        };
        Ok(Answer {
            outcome,
            sum: Sha256::of(&body),
            body: Body::Whole(body),
        })
    }

    /// Hands out the sidecar of `entry`, or of a newer one that was handed out already; waits while the clients of an older
    /// one may still be asking for its body.
    async fn serve_checksum(&self, key: Key, entry: Entry) -> Entry {
        loop {
            match self.0.generations.serve_checksum(&key, &entry, now()) {
                Ok(entry) => return entry,
                Err(pause) => tokio::time::sleep(pause).await,
            }
        }
    }

    async fn get_blob(&self, resource: &Resource, sum: Sha256) -> Result<Answer, Error> {
        if let Some(blob) = self.stored_blob(resource, sum).await
            && let Some(body) = self.prove(sum, &blob).await
        {
            self.count_prefetched_blob(sum);
            return Ok(Answer {
                outcome: Outcome::Hit,
                sum,
                body,
            });
        }
        Box::pin(self.fetched_blob(resource, sum)).await
    }

    /// A blob, by a flight.
    async fn fetched_blob(&self, resource: &Resource, sum: Sha256) -> Result<Answer, Error> {
        let flight_key = blob_flight_key(resource, sum);
        let (role, mut progress) =
            self.join_flight(resource, flight_key, Demand::Fresh, RequestClass::Client);
        self.count_prefetched_blob(sum);
        let begun = progress.wait_for(|state| !matches!(state, Progress::Asking));
        let Ok(state) = timeout(fetch::CLIENT_TIMEOUT, begun).await else {
            return Err(self.too_slow(resource, fetch::CLIENT_TIMEOUT));
        };
        let state = state.map(|state| state.clone());
        let (outcome, body) = match state {
            Ok(Progress::Arriving { spool, total, .. }) => (
                Outcome::Miss,
                Body::Arriving(Arriving {
                    spool,
                    total,
                    progress,
                }),
            ),
            Ok(Progress::Verified(result) | Progress::Done(Ok(result))) => match result.body {
                FetchedBody::Blob(blob) => (
                    result.outcome,
                    self.whole_or_blob(blob)
                        .await
                        .ok_or(self.abandoned(resource))?,
                ),
                FetchedBody::Entry(_) => return Err(self.abandoned(resource)),
            },
            Ok(Progress::Done(Err(error))) => return Err(error),
            Ok(Progress::Asking) | Err(_) => return Err(self.abandoned(resource)),
        };
        Ok(Answer {
            outcome: collapse(role, outcome),
            sum,
            body,
        })
    }

    /// An entry, from the store or by a flight.
    async fn entry(
        &self,
        resource: &Resource,
        key: Key,
        demand: Demand,
        until: Until,
    ) -> Result<(Outcome, Entry), Error> {
        let stored = self.stored(resource, &key).await?;
        let flight_key = FlightKey::Entry(key.clone());
        match self.decide(resource, &flight_key, stored.as_ref(), demand) {
            Decision::Serve(outcome) => {
                let entry = stored.ok_or_else(|| self.abandoned(resource))?;
                Ok((outcome, entry))
            }
            Decision::Refuse(refusal) => Err(self.refused(resource, refusal)),
            Decision::Revalidate(_) | Decision::Fetch => {
                Box::pin(self.fetched_entry(resource, key, demand, until, stored)).await
            }
        }
    }

    /// An entry, by a flight.
    async fn fetched_entry(
        &self,
        resource: &Resource,
        key: Key,
        demand: Demand,
        until: Until,
        stored: Option<Entry>,
    ) -> Result<(Outcome, Entry), Error> {
        let flight_key = FlightKey::Entry(key.clone());
        // One for both flights: clients wait no longer than for one.
        let deadline = tokio::time::Instant::now() + fetch::CLIENT_TIMEOUT;
        let (role, result) = self
            .join_until(
                resource,
                flight_key.clone(),
                demand,
                until,
                stored.as_ref(),
                deadline,
            )
            .await?;
        let Some(result) = result else {
            let entry = stored.ok_or_else(|| self.abandoned(resource))?;
            return Ok((Outcome::Stale(StaleReason::Failed), entry));
        };
        let mut landed = (role, result);
        // A fetch that began before this entry was made due has brought what may be too old: the next one has not.
        if matches!(&landed.1.body, FetchedBody::Entry(entry) if self.effective_checked(&key, entry.checked).is_invalidated())
            && !matches!(landed.1.outcome, Outcome::Stale(_))
        {
            let again = self.join_until(resource, flight_key, demand, until, None, deadline);
            match again.await {
                Ok((role, Some(again))) => landed = (role, again),
                Err(error @ Error::Absent { .. }) => return Err(error),
                // What came first may be too old, but it is at hand.
                Ok((_, None)) => landed.1.outcome = Outcome::Stale(StaleReason::Failed),
                Err(error) => {
                    warn!(%resource, %error, "serving what may be older than what needs it");
                    landed.1.outcome = Outcome::Stale(StaleReason::Failed);
                }
            }
        }
        let (role, result) = landed;
        match result.body {
            FetchedBody::Entry(entry) => Ok((collapse(role, result.outcome), entry)),
            FetchedBody::Blob(_) => Err(self.abandoned(resource)),
        }
    }

    /// Joins or starts a flight and waits for it, for clients until the deadline; `None` if a client that has a stored copy at
    /// hand has waited enough.
    async fn join_until(
        &self,
        resource: &Resource,
        flight_key: FlightKey,
        demand: Demand,
        until: Until,
        stored: Option<&Entry>,
        deadline: tokio::time::Instant,
    ) -> Result<(Role, Option<FetchResult>), Error> {
        let (role, progress) = self.join_flight(resource, flight_key, demand, RequestClass::Client);
        let result = self.flight_result(resource, progress, until);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let wait = match stored {
            // Once for the head and once for the body. What was made due is too old to be served lightly.
            Some(entry) if !entry.checked.is_invalidated() => {
                left.min(self.0.options.upstream_timeout * 2)
            }
            Some(_) | None => left,
        };
        if until == Until::Stored {
            return Ok((role, Some(result.await?)));
        }
        // The flight goes on, so that the next asker may find it landed.
        match (timeout(wait, result).await, stored) {
            (Ok(result), _) => Ok((role, Some(result?))),
            (Err(_), Some(_)) => {
                warn!(%resource, "upstream is slow; serving a stale copy");
                Ok((role, None))
            }
            (Err(_), None) => Err(self.too_slow(resource, wait)),
        }
    }

    /// What a client is told that has waited as long as it can.
    fn too_slow(&self, resource: &Resource, after: Duration) -> Error {
        let upstream = match resource.source() {
            Source::At(url) => Origin::from(&url).to_string(),
            Source::NamedBy(naming) => format!("the upstream that the {naming} names"),
        };
        Error::Timeout {
            resource: resource.to_string(),
            upstream,
            after,
        }
    }

    fn decide(
        &self,
        resource: &Resource,
        flight_key: &FlightKey,
        stored: Option<&Entry>,
        demand: Demand,
    ) -> Decision {
        let now = now();
        let reach = self.reach(resource);
        let held = stored.map(|entry| Held {
            checked: entry.checked,
            max_age: entry.head.max_age.map(Duration::from_secs),
            validators: &entry.head.validators,
        });
        let is_absent = self.0.negative.contains(flight_key, now);
        decide(
            &resource.policy(),
            held,
            is_absent,
            demand,
            now,
            reach,
            self.0.options.max_age,
        )
    }

    fn reach(&self, resource: &Resource) -> Reach {
        if self.0.breakers.is_all_well() {
            return Reach::Online;
        }
        match resource.source() {
            Source::At(url) => self.0.breakers.reach(&url),
            // Which upstream that is, the fetch will find out.
            Source::NamedBy(_) if self.is_offline() => Reach::Offline,
            Source::NamedBy(_) => Reach::Online,
        }
    }

    fn effective_checked(&self, key: &Key, checked: Checked) -> Checked {
        self.0.invalidations.effective_checked(key, checked)
    }

    fn refused(&self, resource: &Resource, refusal: Refusal) -> Error {
        let name = resource.to_string();
        match (refusal, resource.source()) {
            (Refusal::Absent, _) => Error::Absent { resource: name },
            (Refusal::Down, Source::At(url)) => {
                self.down(resource, &url).unwrap_or_else(|| Error::Down {
                    resource: name,
                    origin: Origin::from(&url),
                    since: Duration::ZERO,
                    cause: "it was, a moment ago".to_owned(),
                })
            }
            (Refusal::Offline | Refusal::Down, _) => Error::Offline { resource: name },
        }
    }

    /// The error for an upstream that is out of reach; `None` if it is not.
    fn down(&self, resource: &Resource, url: &Url) -> Option<Error> {
        let outage = self
            .0
            .breakers
            .outage(url)
            .filter(|outage| outage.is_certain)?;
        let since = now().duration_since(outage.since).unwrap_or_default();
        Some(Error::Down {
            resource: resource.to_string(),
            origin: Origin::from(url),
            since,
            cause: outage.cause,
        })
    }

    fn abandoned(&self, resource: &Resource) -> Error {
        Error::Abandoned {
            resource: resource.to_string(),
        }
    }

    /// Joins or starts the flight of `flight_key`.
    fn join_flight(
        &self,
        resource: &Resource,
        flight_key: FlightKey,
        demand: Demand,
        class: RequestClass,
    ) -> (Role, watch::Receiver<Progress>) {
        let (cache, resource, place) = (self.clone(), resource.clone(), flight_key.clone());
        self.0.flights.join(flight_key, move |progress| async move {
            match place {
                FlightKey::Entry(key) => {
                    Box::pin(cache.fetch_entry(resource, key, demand, class, progress)).await
                }
                FlightKey::Blob(sum, _) => {
                    Box::pin(cache.fetch_blob(resource, sum, demand, progress)).await
                }
            }
        })
    }

    /// Waits for a flight.
    async fn flight_result(
        &self,
        resource: &Resource,
        mut progress: watch::Receiver<Progress>,
        until: Until,
    ) -> Result<FetchResult, Error> {
        let is_over = |state: &Progress| match state {
            Progress::Asking | Progress::Arriving { .. } => false,
            Progress::Verified(_) => until == Until::Verified,
            Progress::Done(_) => true,
        };
        let state = progress.wait_for(is_over).await.map(|state| state.clone());
        match state {
            Ok(Progress::Done(Ok(FetchResult {
                write_error: Some(error),
                ..
            }))) if until == Until::Stored => Err(error),
            Ok(Progress::Verified(result)) => Ok(result),
            Ok(Progress::Done(result)) => result,
            Ok(Progress::Asking | Progress::Arriving { .. }) | Err(_) => {
                Err(self.abandoned(resource))
            }
        }
    }

    /// The stored entry; a damaged one counts as none, to be fetched again.
    async fn stored(&self, resource: &Resource, key: &Key) -> Result<Option<Entry>, Error> {
        let count = |newest: Option<Entry>| {
            newest.map(|mut entry| {
                entry.checked = self.effective_checked(key, entry.checked);
                entry
            })
        };
        // The buffer first: an update written meanwhile is then found in the store.
        let update = self.0.write_behind.update(key);
        if let Some(Update::Entry(entry)) = update {
            // The writer finds out whether another process has stored a newer one.
            return Ok(count(Some(entry)));
        }
        match self.0.store.entry(key).await {
            Ok(stored) => Ok(count(newest(stored, update, now()))),
            Err(error @ StoreError::Damaged { .. }) => {
                warn!(%resource, error = %chain(&error), "the stored copy is damaged; fetching it again");
                Ok(None)
            }
            // To take it for missing would send every request upstream, or tell clients offline that it is not there.
            Err(error) => Err(Error::store("read", resource, &error)),
        }
    }

    async fn stored_blob(&self, resource: &Resource, sum: Sha256) -> Option<Blob> {
        match self.0.store.blob(sum).await {
            Ok(blob) => blob,
            Err(error) => {
                warn!(%resource, error = %chain(&error), "the stored copy is of no use; fetching it again");
                None
            }
        }
    }

    /// The body of a stored blob, which is hashed the first time this process serves it. A damaged or unreadable one is
    /// taken away, to be fetched again.
    async fn prove(&self, sum: Sha256, blob: &Blob) -> Option<Body> {
        let is_verified = self.0.verified.contains(sum, blob.len);
        let body = if is_verified {
            self.whole_or_blob(blob.clone()).await
        } else {
            Box::pin(self.hash(sum, blob)).await
        };
        if body.is_some() {
            if !is_verified {
                self.0.verified.insert(sum, blob.len);
            }
            return body;
        }
        self.0.verified.remove(sum);
        warn!(blob = %sum, "a stored blob is damaged; fetching it again");
        if let Err(error) = self.0.store.remove_blob(sum).await {
            warn!(blob = %sum, error = %chain(&error), "cannot remove the damaged blob");
        }
        None
    }

    /// The body of a stored blob, if its hash is `sum`.
    async fn hash(&self, sum: Sha256, blob: &Blob) -> Option<Body> {
        let mut hasher = Hasher::default();
        let mut whole = None;
        let mut at = 0;
        while at < blob.len {
            let len = (blob.len - at).min(WHOLE_BLOB_BYTES);
            let part = blob
                .bytes
                .read_at(at, usize::try_from(len).ok()?)
                .await
                .ok()?;
            hasher.update(&part);
            at += len;
            whole = (len == blob.len).then_some(part);
        }
        let is_right = hasher.finish() == sum;
        is_right.then(|| whole.map_or_else(|| Body::Blob(blob.clone()), Body::Whole))
    }

    async fn whole_or_blob(&self, blob: Blob) -> Option<Body> {
        if let Some(bytes) = blob.bytes.in_memory() {
            return Some(Body::Whole(bytes));
        }
        if blob.len > WHOLE_BLOB_BYTES {
            return Some(Body::Blob(blob));
        }
        blob.bytes
            .read_at(0, usize::try_from(blob.len).ok()?)
            .await
            .ok()
            .map(Body::Whole)
    }
}

/// How long to wait for a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Until the body is known to be right.
    Verified,
    /// Until it is stored, safe from a crash.
    Stored,
}

/// What is stored and what waits to be, made one.
fn newest(stored: Option<Entry>, update: Option<Update>, now: SystemTime) -> Option<Entry> {
    match (stored, update) {
        (Some(mut stored), Some(update)) if update.supersedes(&stored, now) => match update {
            Update::Entry(waiting) => Some(waiting),
            Update::Checked(_, checked) => {
                stored.checked = checked;
                Some(stored)
            }
        },
        (None, Some(Update::Entry(waiting))) => Some(waiting),
        (stored, Some(_) | None) => stored,
    }
}

/// Where a resource that is named in full is kept.
#[derive(Debug)]
enum StoreLocation {
    Entry(Key),
    Half(Key, Half),
    Blob(Sha256),
}

impl StoreLocation {
    /// The listing to read first, if it is not named in full.
    fn of(place: Location) -> Result<Self, Resource> {
        match place {
            Location::Entry(key) => Ok(Self::Entry(key)),
            Location::Pair(key, half) => Ok(Self::Half(key, half)),
            Location::Blob(sum) => Ok(Self::Blob(sum)),
            Location::ListedIn(listing) => Err(listing),
        }
    }
}

/// A request that joined another's fetch says so.
fn collapse(role: Role, outcome: Outcome) -> Outcome {
    match (role, outcome) {
        (Role::Joined, Outcome::Miss | Outcome::Revalidated) => Outcome::Collapsed,
        (Role::Leader | Role::Joined, outcome) => outcome,
    }
}

fn blob_flight_key(resource: &Resource, sum: Sha256) -> FlightKey {
    FlightKey::Blob(sum, resource.to_string())
}

#[cfg(test)]
impl Cache {
    /// A cache on the store in `folder`, in front of nothing.
    fn on(folder: &std::path::Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let way_out = crate::upstream::UpstreamOptions {
            dial_timeout: Duration::from_secs(1),
            ca_file: None,
            redirect_hosts: Vec::new(),
        };
        let options = CacheOptions {
            is_offline: false,
            max_age: Duration::from_secs(600),
            upstream_timeout: Duration::from_secs(1),
            offline_view: false,
            writers: 2,
            has_clients: true,
        };
        let store = Store::open(folder).unwrap();
        Self::new(
            Arc::new(store),
            Upstream::new(way_out, []).unwrap(),
            options,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        resource::{IndexEntry, Registries},
        validators::Validators,
    };

    /// A cache, and an index entry whose upstream is not there.
    fn scene(folder: &std::path::Path) -> (Cache, Resource, Key) {
        let cache = Cache::on(folder);
        let registries = Registries::new(Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = IndexEntry::of(registries.crates_io(), "left").unwrap();
        let Location::Entry(key) = resource.location() else {
            panic!("an index entry is kept as an entry");
        };
        (cache, resource, key)
    }

    fn entry(body: &'static str, fetched: SystemTime) -> Entry {
        Entry::new(body.into(), Validators::default(), None, fetched)
    }

    /// What is answered, and after how long, when this took 20 s to come and was made due meanwhile.
    async fn answer_made_due(cache: &Cache, resource: &Resource, key: Key) -> (Answer, Duration) {
        let began = tokio::time::Instant::now();
        let made = entry("body", now() - Duration::from_secs(60));
        cache.0.invalidations.add(&[(key.clone(), now())]);
        cache
            .0
            .flights
            .join(FlightKey::Entry(key), |progress| async move {
                tokio::time::sleep(Duration::from_secs(20)).await;
                progress.send_replace(Progress::Done(Ok(FetchResult {
                    outcome: Outcome::Miss,
                    body: FetchedBody::Entry(made),
                    write_error: None,
                })));
            });
        let answer = cache.get(resource).await;
        (answer.unwrap(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_made_due_on_its_way_is_served_all_the_same_if_a_second_fetch_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, key) = scene(folder.path());
        let (answer, _) = answer_made_due(&cache, &resource, key).await;
        assert_eq!(answer.outcome, Outcome::Stale(StaleReason::Failed));
        assert_eq!(answer.sum, Sha256::of(b"body"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_fetch_has_the_time_that_the_first_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, key) = scene(folder.path());
        let all = u32::try_from(ENTRIES_IN_FLIGHT).unwrap();
        let _room = cache.0.entry_permits.acquire_many(all).await.unwrap();
        let (answer, took) = answer_made_due(&cache, &resource, key).await;
        assert_eq!(answer.outcome, Outcome::Stale(StaleReason::Failed));
        assert!(
            took < fetch::CLIENT_TIMEOUT + Duration::from_secs(1),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_named_and_what_is_at_hand_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, resource, key) = scene(folder.path());
        let _hung = cache.0.write_behind.fill().await;
        let error = cache.get(&resource).await.unwrap_err();
        assert!(matches!(error, Error::Store { .. }), "{error}");
        assert!(error.to_string().contains("disk"), "{error}");
        let old = entry("old", now() - Duration::from_secs(10_000));
        cache.0.store.put_entry(&key, &old).await.unwrap();
        let answer = cache.get(&resource).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Stale(StaleReason::Failed));
    }
}
