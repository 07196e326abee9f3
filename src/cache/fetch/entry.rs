//! Fetches or revalidates one entry: attempts, stale copies, and the effects of a change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tracing::{debug, warn};
use url::Url;

use super::{
    super::{
        absence::AbsenceJudgement,
        admission::Admission,
        counters::Counter,
        decide::{Decision, Demand, Outcome, Settlement, StaleReason, settle},
        events::{CacheEvent, Events, RequestClass},
        flight::{FetchResult, FetchedBody, FlightKey, Progress},
        lookup::Lookup,
        options::{CLIENT_TIMEOUT, CacheOptions, HEAD_TIMEOUT},
        write_behind::Update,
    },
    measure,
    request::{EntryReply, EntryRequest},
    retry::wait_for_retry,
};
use crate::{
    clock::now,
    error::{Error, chain},
    memory_budget::Reservation,
    resource::{Key, Resource, Source},
    store::{Checked, Entry, StoreError},
    trust::TrustPolicy,
    upstream::{Failure, FailureKind},
    validators::Validators,
};

/// Number of concurrent entry requests: enough to revalidate a large project in one round trip.
const MAX_ENTRY_REQUESTS: usize = 300;

/// Fetches entries.
#[derive(Debug)]
pub(in super::super) struct EntryFetcher {
    pub(super) lookup: Arc<Lookup>,
    admission: Arc<Admission>,
    events: Arc<Events>,
    /// Entries have permits of their own, so that large downloads do not delay them.
    permits: Semaphore,
    /// A client has waited for an entry since the start.
    has_clients: AtomicBool,
    options: CacheOptions,
    policy: Arc<TrustPolicy>,
}

/// One fetch of an entry.
pub(super) struct Fetch<'a> {
    pub(super) resource: &'a Resource,
    key: &'a Key,
    flight_key: FlightKey,
    demand: Demand,
    class: RequestClass,
    pub(super) stored: Option<Entry>,
    /// Its share of the memory for arriving bodies.
    memory: Reservation,
    /// That share has been reserved for the largest possible body.
    has_reserved: bool,
}

/// The effect of a finished fetch on the store.
enum WritePlan {
    /// The entry is stored or buffered already.
    Nothing,
    /// Store the new entry in place of this one.
    Put(Option<Entry>),
}

type Fetched = (FetchResult, WritePlan);

impl EntryFetcher {
    pub(in super::super) fn new(
        lookup: Arc<Lookup>,
        admission: Arc<Admission>,
        events: Arc<Events>,
        options: CacheOptions,
        policy: Arc<TrustPolicy>,
    ) -> Self {
        Self {
            lookup,
            admission,
            events,
            permits: Semaphore::new(MAX_ENTRY_REQUESTS),
            has_clients: AtomicBool::new(false),
            options,
            policy,
        }
    }

    /// Returns whether a client has waited for an entry since the start.
    pub(in super::super) fn has_clients(&self) -> bool {
        self.has_clients.load(Ordering::Acquire)
    }

    /// Records that a request of this class is about to wait for an entry.
    pub(in super::super) fn record_waiter(&self, class: RequestClass) {
        if class == RequestClass::Client {
            self.has_clients.store(true, Ordering::Release);
        }
    }

    /// Runs a flight: fetches the entry and publishes the result on `progress`.
    pub(in super::super) async fn run(
        &self,
        resource: Resource,
        key: Key,
        demand: Demand,
        class: RequestClass,
        progress: watch::Sender<Progress>,
    ) {
        let mut changed = None;
        let result = match self.fetch(&resource, &key, demand, class).await {
            Ok((result, WritePlan::Put(old))) => {
                if let FetchedBody::Entry(entry) = &result.body {
                    // Before the changed entry can be seen.
                    if let Some(old) = &old
                        && old.head.sha256 != entry.head.sha256
                    {
                        self.lookup.keep_older_release(&resource, old).await;
                    }
                    self.invalidate_dependencies(&resource, old.as_ref(), entry)
                        .await;
                    let update = Update::Entry(entry.clone());
                    self.lookup
                        .write_behind
                        .write_later(&resource, &key, update);
                    // The stored body was reported when the fetch began.
                    let is_changed = old.is_none_or(|old| old.head.sha256 != entry.head.sha256);
                    changed = is_changed.then(|| entry.body.clone());
                }
                Ok(result)
            }
            Ok((result, WritePlan::Nothing)) => Ok(result),
            Err(error) => Err(error),
        };
        progress.send_replace(Progress::Done(result));
        if let Some(body) = changed {
            self.report(&resource, body, class);
        }
    }

    async fn fetch(
        &self,
        resource: &Resource,
        key: &Key,
        demand: Demand,
        class: RequestClass,
    ) -> Result<Fetched, Error> {
        let fetch = Fetch {
            resource,
            key,
            flight_key: FlightKey::Entry(key.clone()),
            demand,
            class,
            // Read again: another flight may have ended just before this one began.
            stored: self.lookup.entry(resource, key).await?,
            memory: self.admission.health.memory.reservation(),
            has_reserved: false,
        };
        let decision = self.decide(&fetch);
        if let Some(entry) = &fetch.stored
            && !matches!(decision, Decision::Refuse(_))
        {
            // Its dependencies are as stale as the entry, and need not wait for its revalidation.
            self.report(resource, entry.body.clone(), class);
        }
        let validators = match decision {
            Decision::Serve(outcome) => return fetch.stored_result(outcome),
            Decision::ServeAndRevalidate => {
                return fetch.stored_result(Outcome::Stale(StaleReason::Revalidating));
            }
            Decision::Refuse(refusal) => {
                return Err(self.admission.refusal_error(resource, refusal));
            }
            Decision::Revalidate(validators) => validators,
            Decision::Fetch => Validators::default(),
        };
        // Only blobs have an address that another resource names.
        let Source::At(url) = resource.source() else {
            return Err(Error::abandoned(resource));
        };
        self.run_attempts(fetch, &url, validators).await
    }

    /// Tells the prefetcher that a client's request asks upstream about an entry.
    fn report(&self, resource: &Resource, body: Bytes, class: RequestClass) {
        if class == RequestClass::Client {
            self.events.send(|| CacheEvent::EntryRequested {
                resource: resource.clone(),
                body,
            });
        }
    }

    fn decide(&self, fetch: &Fetch<'_>) -> Decision {
        let stored = fetch.stored.as_ref();
        self.admission
            .decide(fetch.resource, &fetch.flight_key, stored, fetch.demand)
    }

    async fn run_attempts(
        &self,
        mut fetch: Fetch<'_>,
        url: &Url,
        validators: Validators,
    ) -> Result<Fetched, Error> {
        let resource = fetch.resource;
        let mut first_attempt = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            if let Err(error) = self.lookup.write_behind.wait_for_capacity().await {
                return fetch.result_without_store(&error);
            }
            let permit = self.permits.acquire().await;
            if attempts == 1 {
                // Other requests may have found out about the upstream while this one waited for a permit.
                match self.decide(&fetch) {
                    Decision::Serve(outcome) => return fetch.stored_result(outcome),
                    Decision::Refuse(refusal) => {
                        return Err(self.admission.refusal_error(resource, refusal));
                    }
                    Decision::Revalidate(_) | Decision::ServeAndRevalidate | Decision::Fetch => {}
                }
            }
            // The client's time starts here: waiting for a permit says nothing about the upstream.
            let waiting_since = *first_attempt.get_or_insert_with(Instant::now);
            let started = now();
            let reply = self.attempt_confirmed(&fetch, url, &validators, started);
            let failure = match reply.await {
                Ok(reply) => {
                    self.record_answer(resource, url);
                    return self.accept(fetch, reply, started);
                }
                Err(failure) => self.awaited(&fetch, failure, attempts)?,
            };
            drop(permit);
            let reserved = self.reserve_memory(&mut fetch, &failure, waiting_since);
            if reserved.await {
                attempts -= 1;
                continue;
            }
            let (failure, is_overruled) = self.judge(&fetch, url, failure).await;
            self.admission
                .health
                .record_failure(resource, url, &failure);
            match settle(fetch.stored.is_some(), is_overruled, &failure) {
                Settlement::ServeStale => {
                    warn!(%resource, error = %failure, "serving a stale copy");
                    return fetch.stored_result(Outcome::Stale(StaleReason::Failed));
                }
                Settlement::RememberAbsence => {
                    let flight_key = fetch.flight_key;
                    self.admission.remember_absence(resource, flight_key, false);
                    self.lookup.remember_absence(resource).await;
                    return Err(Error::Absent {
                        resource: resource.to_string(),
                    });
                }
                Settlement::OverruleAbsence => {
                    let flight_key = fetch.flight_key.clone();
                    self.admission.remember_absence(resource, flight_key, true);
                    return fetch.stored_result(Outcome::Stale(StaleReason::Withdrawn));
                }
                Settlement::RememberRefusal(code) => {
                    let flight_key = fetch.flight_key;
                    self.admission.remember_refusal(resource, flight_key, code);
                    // With upstream's own words, which are not remembered.
                    return Err(Error::Upstream {
                        resource: resource.to_string(),
                        failure,
                        tried: attempts,
                    });
                }
                Settlement::Fail => {
                    wait_for_retry(resource, failure, attempts, waiting_since).await?;
                }
            }
        }
    }

    /// Returns a failure that counts.
    ///
    /// # Errors
    /// The daemon has just started, and no client waits: its network may come up before the first client asks.
    fn awaited(
        &self,
        fetch: &Fetch<'_>,
        failure: Failure,
        attempts: usize,
    ) -> Result<Failure, Error> {
        if fetch.class != RequestClass::Start || self.has_clients() {
            return Ok(failure);
        }
        let resource = fetch.resource;
        debug!(%resource, error = %failure, "not fetched at the start");
        Err(Error::Upstream {
            resource: resource.to_string(),
            failure,
            tried: attempts,
        })
    }

    /// After a failure for lack of memory, waits once until the largest possible body has its memory. Returns false if
    /// another attempt makes no sense.
    async fn reserve_memory(
        &self,
        fetch: &mut Fetch<'_>,
        failure: &Failure,
        waiting_since: Instant,
    ) -> bool {
        if fetch.has_reserved || !matches!(failure.kind, FailureKind::NoMemory(_)) {
            return false;
        }
        fetch.has_reserved = true;
        let limit = CLIENT_TIMEOUT.saturating_sub(waiting_since.elapsed());
        let budget = &self.admission.health.memory;
        // A body that waits must not keep memory from others.
        fetch.memory = budget.reservation();
        match timeout(limit, budget.reserve(self.options.max_entry_bytes)).await {
            Ok(whole) => {
                fetch.memory = whole;
                true
            }
            Err(_) => false,
        }
    }

    /// Judges upstream's statement that a stored resource does not exist. Returns the failure to settle, and whether a
    /// pin overrules it.
    async fn judge(&self, fetch: &Fetch<'_>, url: &Url, failure: Failure) -> (Failure, bool) {
        if fetch.stored.is_none() || !matches!(failure.kind, FailureKind::Absent { .. }) {
            return (failure, false);
        }
        let absences = &self.admission.absences;
        match absences.judge(fetch.resource, fetch.key, url).await {
            AbsenceJudgement::Accepted => (failure, false),
            AbsenceJudgement::Overruled => (failure, true),
            AbsenceJudgement::Doubted(failure) => (failure, false),
        }
    }

    pub(super) async fn attempt(
        &self,
        fetch: &Fetch<'_>,
        url: &Url,
        validators: &Validators,
        started: SystemTime,
    ) -> Result<EntryReply, Failure> {
        let request = EntryRequest {
            resource: fetch.resource,
            url,
            stored: fetch.stored.as_ref(),
            validators: validators.clone(),
            max_bytes: self.options.max_entry_bytes,
            memory: &fetch.memory,
            read_timeout: match &fetch.stored {
                Some(_) => self.options.upstream_timeout,
                None => HEAD_TIMEOUT,
            },
            keys: self.policy.signing_keys.as_ref(),
            started,
        };
        let upstream = &self.admission.health.upstream;
        if let Some(measured) = fetch.resource.measured() {
            // Files may be large. Each chunk has a time limit of its own.
            let reply = measure::send(&request, measured, &self.lookup, upstream);
            return Box::pin(reply).await;
        }
        let reply = request.send(upstream);
        timeout(CLIENT_TIMEOUT, reply).await.unwrap_or_else(|_| {
            let cause = "it came too slowly".to_owned();
            Err(FailureKind::Broken { cause }.at(url))
        })
    }

    /// Turns upstream's good answer into a result.
    fn accept(
        &self,
        fetch: Fetch<'_>,
        reply: EntryReply,
        started: SystemTime,
    ) -> Result<Fetched, Error> {
        self.admission.negative.remove(&fetch.flight_key);
        let checked = Checked::At(started);
        let (resource, key) = (fetch.resource, fetch.key);
        let renew = |entry: Entry| {
            let update = Update::Checked(entry.head.sha256, checked);
            self.lookup.write_behind.write_later(resource, key, update);
            Ok((result(Outcome::Revalidated, entry), WritePlan::Nothing))
        };
        match (reply, fetch.stored) {
            (EntryReply::NotModified(max_age), Some(mut entry)) => {
                entry.checked = checked;
                let max_age = max_age.map(|age| age.as_secs());
                let is_unchanged = max_age.is_none() || max_age == entry.head.max_age;
                if is_unchanged && entry.is_sealed {
                    return renew(entry);
                }
                entry.head.max_age = max_age.or(entry.head.max_age);
                // A record of an older release is written again.
                entry.is_sealed = true;
                let plan = WritePlan::Put(Some(entry.clone()));
                Ok((result(Outcome::Revalidated, entry), plan))
            }
            (EntryReply::NotModified(_), None) => Err(Error::abandoned(resource)),
            (EntryReply::Body(mut fresh), Some(old)) if fresh.head.sha256 == old.head.sha256 => {
                fresh.checked = checked;
                fresh.head.fetched = old.head.fetched;
                if fresh.head == old.head && old.is_sealed {
                    return renew(fresh);
                }
                let plan = WritePlan::Put(Some(old));
                Ok((result(Outcome::Revalidated, fresh), plan))
            }
            (EntryReply::Body(mut fresh), old) => {
                fresh.checked = checked;
                Ok((result(Outcome::Miss, fresh), WritePlan::Put(old)))
            }
        }
    }

    /// Invalidates the entries that have to be as new as `new`, which is about to replace `old`.
    async fn invalidate_dependencies(&self, resource: &Resource, old: Option<&Entry>, new: &Entry) {
        let Some(dependencies) = resource.dependencies() else {
            return;
        };
        let now = now();
        // All lines of an entry that was not stored are new, but most describe versions published long ago. They
        // invalidate nothing: a copy that was checked before this window is stale anyway. The window covers what a
        // request prefetches or joins.
        let window = self
            .options
            .max_age
            .clamp(CLIENT_TIMEOUT, Duration::from_secs(1 << 30));
        let after = match old {
            Some(_) => SystemTime::UNIX_EPOCH,
            None => now - window,
        };
        let invalidated =
            dependencies.invalidates(old.map(|old| &*old.body), &new.body, after, now);
        if invalidated.is_empty() {
            return;
        }
        self.lookup.invalidations.add(&invalidated);
        if let Err(error) = self.lookup.store.invalidate(invalidated).await {
            warn!(%resource, error = %chain(&error), "cannot write the invalidation of dependencies");
        }
    }

    fn record_answer(&self, resource: &Resource, url: &Url) {
        self.admission.health.record_answer(resource, url);
        self.admission.absences.record_answer(resource, url);
    }

    pub(super) fn count(&self, counter: Counter) {
        self.admission.health.counters.add(counter);
    }

    /// Takes all permits, as if that many requests were under way.
    #[cfg(test)]
    pub(in super::super) async fn take_all_permits(&self) -> impl Drop {
        let all = u32::try_from(MAX_ENTRY_REQUESTS).unwrap();
        self.permits.acquire_many(all).await.unwrap()
    }
}

impl Fetch<'_> {
    /// Ends the fetch when the store takes no more.
    fn result_without_store(self, error: &StoreError) -> Result<Fetched, Error> {
        let error = Error::store("store", self.resource, error);
        if self.stored.is_none() {
            return Err(error);
        }
        warn!(resource = %self.resource, %error, "serving a stale copy");
        self.stored_result(Outcome::Stale(StaleReason::Failed))
    }

    /// Ends the fetch with the stored entry.
    fn stored_result(self, outcome: Outcome) -> Result<Fetched, Error> {
        match self.stored {
            Some(entry) => Ok((result(outcome, entry), WritePlan::Nothing)),
            None => Err(Error::abandoned(self.resource)),
        }
    }
}

fn result(outcome: Outcome, entry: Entry) -> FetchResult {
    FetchResult {
        outcome,
        body: FetchedBody::Entry(entry),
        write_error: None,
    }
}
