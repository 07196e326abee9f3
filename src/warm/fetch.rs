//! The one way in which tasks fetch: `Cache::ensure`, with retries during an outage.

use std::time::Duration;

use serde::Serialize;

use crate::{
    cache::{Cache, Demand, Ensured, Outcome},
    error::Error,
    hash::Sha256,
    resource::Resource,
};

/// Length of an outage that is waited out before missing resources count as failed.
const OUTAGE_GRACE: Duration = Duration::from_secs(10);
/// Time between two tries during an outage.
const OUTAGE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Fetch, or only look at what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmMode {
    /// Fetches missing resources.
    Fetch {
        /// Also revalidates stored index entries and manifests, however fresh they are.
        refresh: bool,
    },
    /// Dry run: counts missing resources, fetches and writes nothing.
    Check,
}

/// The result of one package or archive.
#[derive(Clone, Debug)]
pub(super) struct Obtained {
    /// True if the file was fetched or, in a dry run, would be. `None` if only a package's index entry is needed.
    pub(super) fetched: Option<bool>,
    /// Bytes fetched.
    pub(super) bytes: u64,
    /// The stored file's hash, and its size in bytes.
    pub(super) blob: Option<(Sha256, u64)>,
    /// The fetches that a dry run leaves out.
    pub(super) would_fetch: Vec<WouldFetch>,
}

/// One thing that a dry run would fetch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WouldFetch {
    /// Its name.
    pub what: String,
    /// Its size, if an earlier run recorded it. Neither the index nor manifests state sizes.
    pub bytes: Option<u64>,
}

impl Obtained {
    /// The result of a dry run for a file of which this is missing.
    pub(super) fn checked(would_fetch: Vec<WouldFetch>) -> Self {
        Self {
            fetched: Some(!would_fetch.is_empty()),
            bytes: 0,
            blob: None,
            would_fetch,
        }
    }

    /// The result of a fetch of the blob `sha256`.
    pub(super) fn ensured(sha256: Sha256, ensured: &Ensured) -> Self {
        let is_new = ensured.outcome != Outcome::Hit;
        Self {
            fetched: Some(is_new),
            bytes: if is_new { ensured.bytes } else { 0 },
            blob: Some((sha256, ensured.bytes)),
            would_fetch: Vec::new(),
        }
    }
}

/// Like [`Cache::ensure`], but retries for [`OUTAGE_GRACE`] while upstream is down. The circuit breaker fails a
/// client's request at once; a warm run gains nothing from that.
pub(super) async fn ensure_with_retry(
    cache: &Cache,
    resource: &Resource,
    demand: Demand,
) -> Result<Ensured, Error> {
    loop {
        match cache.ensure(resource, demand).await {
            Err(Error::Down { since, .. }) if since < OUTAGE_GRACE => {
                tokio::time::sleep(OUTAGE_RETRY_INTERVAL).await;
            }
            ensured => return ensured,
        }
    }
}
