//! Blobs, from the store or by a flight.

use std::sync::Arc;

use tokio::{sync::watch, time::timeout};

use super::{
    admission::timeout_error,
    body::{Arriving, Body},
    decide::{Demand, Outcome},
    fetch::blob::BlobFetcher,
    flight::{self, FetchedBody, FlightKey, Flights, Progress, Role, Until},
    lookup::{Lookup, blob_body},
    options::CLIENT_TIMEOUT,
};
use crate::{error::Error, hash::Sha256, resource::Resource, store::Blob};

/// Gets blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    pub(super) lookup: Arc<Lookup>,
    pub(super) fetcher: Arc<BlobFetcher>,
    pub(super) flights: Flights,
}

impl Blobs {
    /// Waits until the blob is stored, and returns it with how it got there.
    pub(super) async fn ensure(
        &self,
        resource: &Resource,
        sha256: Sha256,
        demand: Demand,
    ) -> Result<(Outcome, Blob), Error> {
        if let Some((blob, _)) = self.lookup.verified_blob(resource, sha256).await {
            return Ok((Outcome::Hit, blob));
        }
        let (role, progress) = self.join(resource, sha256, demand);
        let result = flight::wait(resource, progress, Until::Stored).await?;
        match result.body {
            FetchedBody::Blob(blob) => Ok((role.outcome(result.outcome), blob)),
            FetchedBody::Entry(_) => Err(Error::abandoned(resource)),
        }
    }

    /// Joins or starts the flight of a blob.
    pub(super) fn join(
        &self,
        resource: &Resource,
        sha256: Sha256,
        demand: Demand,
    ) -> (Role, watch::Receiver<Progress>) {
        let (fetcher, resource) = (self.fetcher.clone(), resource.clone());
        self.flights
            .join(FlightKey::blob(&resource, sha256), move |progress| {
                Box::pin(async move { fetcher.run(resource, sha256, demand, progress).await })
            })
    }

    /// Waits until the body of a flight begins to arrive, and returns it.
    pub(super) async fn arriving_body(
        &self,
        resource: &Resource,
        role: Role,
        mut progress: watch::Receiver<Progress>,
    ) -> Result<(Outcome, Body), Error> {
        let has_begun = progress.wait_for(|state| !matches!(state, Progress::Asking));
        let Ok(state) = timeout(CLIENT_TIMEOUT, has_begun).await else {
            return Err(timeout_error(resource, CLIENT_TIMEOUT));
        };
        let state = state.map(|state| state.clone());
        let (outcome, body) = match state {
            Ok(Progress::Arriving { spool, total, .. }) => {
                let arriving = Arriving {
                    spool,
                    total,
                    progress,
                };
                (Outcome::Miss, Some(Body::Arriving(arriving)))
            }
            Ok(Progress::Verified(result) | Progress::Done(Ok(result))) => match result.body {
                FetchedBody::Blob(blob) => (result.outcome, blob_body(blob).await),
                FetchedBody::Entry(_) => return Err(Error::abandoned(resource)),
            },
            Ok(Progress::Done(Err(error))) => return Err(error),
            Ok(Progress::Asking) | Err(_) => return Err(Error::abandoned(resource)),
        };
        let body = body.ok_or_else(|| Error::abandoned(resource))?;
        Ok((role.outcome(outcome), body))
    }
}
