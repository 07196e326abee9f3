//! Fetches one blob: attempts, a possible move of its address, and storing.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tracing::warn;
use url::Url;

use super::{
    super::{
        admission::Admission,
        bounded::BoundedMap,
        decide::{Decision, Demand, Outcome},
        entries::Entries,
        flight::{FetchResult, FetchedBody, FlightKey, Progress},
        lookup::Lookup,
    },
    ranges::RangeDownloader,
    retry::wait_for_retry,
    transfer::{Transfer, TransferError},
};
use crate::{
    error::Error,
    hash::Sha256,
    resource::Resource,
    store::{Blob, Spool},
    upstream::{Failure, FailureKind},
};

/// Number of concurrent blob downloads for clients: as many as one cargo asks for at a time, over two connections with
/// 100 requests each.
const MAX_CLIENT_DOWNLOADS: usize = 200;

/// Fetches blobs.
#[derive(Debug)]
pub(in super::super) struct BlobFetcher {
    entries: Entries,
    lookup: Arc<Lookup>,
    admission: Arc<Admission>,
    permits: Semaphore,
    ranges: RangeDownloader,
    /// Blobs whose last transfer failed while clients were reading it. The client of the next one gets an error status
    /// instead of another aborted transfer, which it would repeat.
    aborted: Mutex<BoundedMap<FlightKey, ()>>,
}

/// A blob that a fetch has obtained.
enum FetchedBlob {
    /// It was stored already.
    Stored(Blob),
    /// It is in the spool, verified. The size is in bytes.
    Spooled(Arc<Spool>, u64),
}

impl BlobFetcher {
    /// A fetcher with `prefetch_permits` permits beyond those for clients.
    pub(in super::super) fn new(entries: Entries, prefetch_permits: usize) -> Self {
        Self {
            lookup: entries.lookup.clone(),
            admission: entries.admission.clone(),
            permits: Semaphore::new(MAX_CLIENT_DOWNLOADS + prefetch_permits),
            ranges: RangeDownloader::new(entries.admission.health.upstream.clone()),
            aborted: Mutex::default(),
            entries,
        }
    }

    /// Runs a flight: fetches and stores the blob, and publishes the state on `progress` for clients that read
    /// meanwhile.
    pub(in super::super) async fn run(
        &self,
        resource: Resource,
        sha256: Sha256,
        demand: Demand,
        progress: watch::Sender<Progress>,
    ) {
        let result = match self.fetch(&resource, sha256, demand, &progress).await {
            Ok(FetchedBlob::Stored(blob)) => Ok(result(Outcome::Hit, blob)),
            Ok(FetchedBlob::Spooled(spool, len)) => {
                let bytes = spool.clone();
                let mut result = result(
                    Outcome::Miss,
                    Blob {
                        len,
                        bytes,
                        identity: None,
                    },
                );
                progress.send_replace(Progress::Verified(result.clone()));
                let write_behind = &self.lookup.write_behind;
                match write_behind.write_blob(&resource, spool, sha256).await {
                    Ok(file) => self.lookup.verified.insert(sha256, file, Instant::now()),
                    Err(error) => result.write_error = Some(error),
                }
                Ok(result)
            }
            Err(error) => Err(error),
        };
        progress.send_replace(Progress::Done(result));
    }

    async fn fetch(
        &self,
        resource: &Resource,
        sha256: Sha256,
        demand: Demand,
        progress: &watch::Sender<Progress>,
    ) -> Result<FetchedBlob, Error> {
        // Look again: another flight may have ended just before this one began.
        if let Some((blob, _)) = self.lookup.verified_blob(resource, sha256).await {
            return Ok(FetchedBlob::Stored(blob));
        }
        let flight_key = FlightKey::blob(resource, sha256);
        if let Decision::Refuse(refusal) =
            self.admission.decide(resource, &flight_key, None, demand)
        {
            return Err(self.admission.refusal_error(resource, refusal));
        }
        let url = self.entries.locate(resource, Demand::Fresh).await?;
        let spool = Arc::new(self.lookup.store.spool());
        let was_aborted = self.aborted.lock().remove(&flight_key).is_some();
        let mut transfer = Transfer::new(resource, spool, was_aborted);
        let fetched = self
            .run_attempts(resource, sha256, url, &mut transfer, progress)
            .await;
        if fetched.is_err() && (transfer.is_visible || was_aborted) {
            self.aborted.lock().insert(flight_key, ());
        }
        fetched
    }

    async fn run_attempts(
        &self,
        resource: &Resource,
        sha256: Sha256,
        mut url: Url,
        transfer: &mut Transfer,
        progress: &watch::Sender<Progress>,
    ) -> Result<FetchedBlob, Error> {
        let store_error = |error| Error::store("store", resource, &error);
        let health = &self.admission.health;
        let mut has_located_again = false;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let capacity = self.lookup.write_behind.wait_for_capacity().await;
            capacity.map_err(store_error)?;
            let permit = self.permits.acquire().await;
            if attempts == 1
                && let Some(error) = self.admission.outage_error(resource, &url)
            {
                return Err(error);
            }
            transfer.last_byte = Instant::now();
            let attempt = transfer.attempt(&health.upstream, &self.ranges, &url, sha256, progress);
            let failure = match attempt.await {
                Ok(()) => {
                    health.record_answer(resource, &url);
                    return Ok(FetchedBlob::Spooled(
                        transfer.spool.clone(),
                        transfer.written,
                    ));
                }
                Err(TransferError::Store(error)) => return Err(store_error(error)),
                Err(TransferError::Failure(failure)) => failure,
            };
            drop(permit);
            health.record_failure(resource, &url, &failure);
            if may_have_moved(&failure) && !has_located_again {
                has_located_again = true;
                let current = self.entries.locate(resource, Demand::Refresh).await?;
                if current != url {
                    url = current;
                    continue;
                }
            }
            self.settle(resource, sha256, &failure, attempts, transfer)
                .await?;
            wait_for_retry(resource, failure, attempts, transfer.last_byte).await?;
        }
    }

    /// Prepares another attempt after `failure`, if one makes sense.
    async fn settle(
        &self,
        resource: &Resource,
        sha256: Sha256,
        failure: &Failure,
        attempts: usize,
        transfer: &mut Transfer,
    ) -> Result<(), Error> {
        match &failure.kind {
            FailureKind::Absent { .. } => {
                let flight_key = FlightKey::blob(resource, sha256);
                self.admission.remember_absence(resource, flight_key, false);
                Err(Error::Absent {
                    resource: resource.to_string(),
                })
            }
            // Clients have read some of these bytes, or of the wrong ones before, so the transfer does not start over.
            FailureKind::WrongHash { .. } | FailureKind::TooLarge { .. }
                if transfer.is_visible || transfer.was_aborted =>
            {
                warn!(%resource, error = %failure, "refused; nothing was stored");
                Err(Error::Upstream {
                    resource: resource.to_string(),
                    failure: failure.clone(),
                    tried: attempts,
                })
            }
            FailureKind::WrongHash { .. } => {
                let cleared = transfer.start_over().await;
                cleared.map_err(|error| Error::store("store", resource, &error))
            }
            FailureKind::Unreachable { .. }
            | FailureKind::Silent { .. }
            | FailureKind::Broken { .. }
            | FailureKind::Status { .. }
            | FailureKind::Denied { .. }
            | FailureKind::Redirected { .. }
            | FailureKind::TooLarge { .. }
            | FailureKind::NoMemory(_)
            | FailureKind::Unrecognised { .. }
            | FailureKind::Unsupported { .. } => Ok(()),
        }
    }
}

/// Returns whether the registry may name another download address by now.
fn may_have_moved(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::Unreachable { .. } | FailureKind::Absent { .. } | FailureKind::Denied { .. }
    )
}

fn result(outcome: Outcome, blob: Blob) -> FetchResult {
    FetchResult {
        outcome,
        body: FetchedBody::Blob(blob),
        write_error: None,
    }
}
