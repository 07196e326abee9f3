//! Entries, from the store or by a flight.
//!
//! An entry within upstream's own lifetime is served at once and revalidated by a flight that no client waits for. The
//! next request gets what it brings.
//!
//! This module limits how long a client waits for a flight. If a stale copy is stored, the client waits for twice the
//! upstream timeout (response head and body) and then gets that copy; otherwise it waits for [`CLIENT_TIMEOUT`]. The
//! flight continues in both cases, so the next request may find its result.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::warn;
use url::Url;

use super::{
    admission::{Admission, timeout_error},
    decide::{Decision, Demand, Outcome, StaleReason},
    events::RequestClass,
    fetch::entry::EntryFetcher,
    flight::{self, FetchResult, FetchedBody, FlightKey, Flights, Progress, Role, Until},
    lookup::Lookup,
    options::CLIENT_TIMEOUT,
};
use crate::{
    error::Error,
    resource::{Key, Location, Resource, Source},
    store::Entry,
    upstream::FailureKind,
};

/// Gets entries. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    pub(super) lookup: Arc<Lookup>,
    pub(super) admission: Arc<Admission>,
    pub(super) fetcher: Arc<EntryFetcher>,
    pub(super) flights: Flights,
    /// Time limit of one request to upstream if a stale copy is stored.
    pub(super) upstream_timeout: Duration,
}

impl Entries {
    /// The entry under `key`, and how it was obtained.
    ///
    /// # Errors
    /// There is no copy that may be served, and upstream gave none in time. [`Error::Absent`] also if upstream cannot
    /// be asked, but its earlier answer was final.
    pub(super) async fn get(
        &self,
        resource: &Resource,
        key: Key,
        demand: Demand,
        until: Until,
    ) -> Result<(Outcome, Entry), Error> {
        match self.get_or_fetch(resource, key, demand, until).await {
            Err(Error::Offline { .. } | Error::Down { .. } | Error::Upstream { .. })
                if resource.absence().is_some()
                    && self.lookup.is_absent_for_ever(resource).await =>
            {
                Err(Error::Absent {
                    resource: resource.to_string(),
                })
            }
            got => got,
        }
    }

    async fn get_or_fetch(
        &self,
        resource: &Resource,
        key: Key,
        demand: Demand,
        until: Until,
    ) -> Result<(Outcome, Entry), Error> {
        let stored = self.lookup.entry(resource, &key).await?;
        let flight_key = FlightKey::Entry(key.clone());
        match self
            .admission
            .decide(resource, &flight_key, stored.as_ref(), demand)
        {
            Decision::Serve(outcome) => {
                let entry = stored.ok_or_else(|| Error::abandoned(resource))?;
                Ok((outcome, entry))
            }
            Decision::ServeAndRevalidate => {
                let entry = stored.ok_or_else(|| Error::abandoned(resource))?;
                self.revalidate_in_background(resource, &key);
                Ok((Outcome::Stale(StaleReason::Revalidating), entry))
            }
            Decision::Refuse(refusal) => Err(self.admission.refusal_error(resource, refusal)),
            // Boxed: a hit would otherwise carry the size of this future.
            Decision::Revalidate(_) | Decision::Fetch => {
                Box::pin(self.fetch(resource, key, demand, until, stored)).await
            }
        }
    }

    /// Starts a revalidation that no client waits for.
    ///
    /// It reports no events, as a hit does not: the prefetcher would otherwise revalidate entries that this client has
    /// been served already or is served without waiting.
    fn revalidate_in_background(&self, resource: &Resource, key: &Key) {
        self.join(resource, key, Demand::Refresh, RequestClass::Prefetch);
    }

    /// The entry under `key`, by a flight.
    async fn fetch(
        &self,
        resource: &Resource,
        key: Key,
        demand: Demand,
        until: Until,
        stored: Option<Entry>,
    ) -> Result<(Outcome, Entry), Error> {
        // One deadline for both flights below.
        let deadline = Instant::now() + CLIENT_TIMEOUT;
        let first = self
            .join_until(resource, &key, demand, until, stored.as_ref(), deadline)
            .await?;
        let Some((mut role, mut result)) = first else {
            let entry = stored.ok_or_else(|| Error::abandoned(resource))?;
            return Ok((Outcome::Stale(StaleReason::Failed), entry));
        };
        // A flight that began before this entry was invalidated may have fetched a body that is too old. A second
        // flight begins after the invalidation.
        if self.is_invalidated(&key, &result) && !matches!(result.outcome, Outcome::Stale(_)) {
            let again = self.join_until(resource, &key, demand, until, None, deadline);
            match again.await {
                Ok(Some(again)) => (role, result) = again,
                Err(error @ Error::Absent { .. }) => return Err(error),
                Ok(None) => result.outcome = Outcome::Stale(StaleReason::Failed),
                Err(error) => {
                    warn!(%resource, %error, "serving an entry that may be older than its dependents");
                    result.outcome = Outcome::Stale(StaleReason::Failed);
                }
            }
        }
        match result.body {
            FetchedBody::Entry(entry) => Ok((role.outcome(result.outcome), entry)),
            FetchedBody::Blob(_) => Err(Error::abandoned(resource)),
        }
    }

    fn is_invalidated(&self, key: &Key, result: &FetchResult) -> bool {
        match &result.body {
            FetchedBody::Entry(entry) => {
                let checked = self.lookup.effective_checked(key, entry.checked);
                checked.is_invalidated()
            }
            FetchedBody::Blob(_) => false,
        }
    }

    /// Joins or starts a flight and waits for it until `deadline`, or without limit for [`Until::Stored`]. Returns
    /// `None` if a client that has a stored copy has waited long enough.
    async fn join_until(
        &self,
        resource: &Resource,
        key: &Key,
        demand: Demand,
        until: Until,
        stored: Option<&Entry>,
        deadline: Instant,
    ) -> Result<Option<(Role, FetchResult)>, Error> {
        let (role, progress) = self.join(resource, key, demand, RequestClass::Client);
        let result = flight::wait(resource, progress, until);
        if until == Until::Stored {
            return Ok(Some((role, result.await?)));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = match stored {
            // One time limit for the response head and one for the body. An invalidated copy is served only as a last
            // resort.
            Some(entry) if !entry.checked.is_invalidated() => left.min(self.upstream_timeout * 2),
            Some(_) | None => left,
        };
        match (timeout(limit, result).await, stored) {
            (Ok(result), _) => Ok(Some((role, result?))),
            (Err(_), Some(_)) => {
                warn!(%resource, "upstream is slow; serving a stale copy");
                Ok(None)
            }
            (Err(_), None) => Err(timeout_error(resource, limit)),
        }
    }

    /// Joins or starts the flight of an entry.
    pub(super) fn join(
        &self,
        resource: &Resource,
        key: &Key,
        demand: Demand,
        class: RequestClass,
    ) -> (Role, watch::Receiver<Progress>) {
        self.fetcher.record_waiter(class);
        let (fetcher, resource) = (self.fetcher.clone(), resource.clone());
        let key = key.clone();
        self.flights
            .join(FlightKey::Entry(key.clone()), move |progress| {
                Box::pin(async move { fetcher.run(resource, key, demand, class, progress).await })
            })
    }

    /// The address of `resource`. It may be named by another resource, as the addresses of crates are by the registry's
    /// configuration.
    pub(super) async fn locate(&self, resource: &Resource, demand: Demand) -> Result<Url, Error> {
        let naming = match resource.source() {
            Source::At(url) => return Ok(url),
            Source::NamedBy(naming) => naming,
        };
        let Location::Entry(key) = naming.location() else {
            return Err(Error::abandoned(&naming));
        };
        let (_, entry) = Box::pin(self.get(&naming, key, demand, Until::Verified)).await?;
        let located = resource
            .located()
            .ok_or_else(|| Error::abandoned(resource))?;
        let url = located
            .locate(&entry.body)
            .map_err(|why| match naming.source() {
                Source::At(url) => {
                    let why = format!("is of no use: {why}");
                    Error::Upstream {
                        resource: resource.to_string(),
                        failure: FailureKind::Unrecognised { why }.at(&url),
                        tried: 1,
                    }
                }
                Source::NamedBy(_) => Error::abandoned(resource),
            })?;
        // A configured upstream names this host, so redirects may lead there.
        self.admission.health.upstream.allow_redirects_to(&url);
        Ok(url)
    }
}
