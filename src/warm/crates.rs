//! The crates that the user names, fetched so that their lock files can be read.

use std::sync::Arc;

use bytes::Bytes;

use super::fetch::ensure_with_retry;
use crate::{
    cache::{Cache, Demand, Outcome},
    crate_spec::CrateSpec,
    error::Error,
    plan::{CrateSource, Problem},
    resource::Resource,
    store::{Blob, Store},
};

/// Fetches index entries and archives of named crates.
#[derive(Clone, Debug)]
pub struct CrateFetcher {
    /// The cache.
    pub cache: Cache,
    /// Its store.
    pub store: Arc<Store>,
    /// True to revalidate index entries however fresh they are.
    pub refresh: bool,
}

impl CrateSource for CrateFetcher {
    async fn entry(&self, entry: &Resource) -> Result<Bytes, Problem> {
        let demand = if self.refresh {
            Demand::Refresh
        } else {
            Demand::Fresh
        };
        let failed = |error: Error| Problem::of_error(entry, &error);
        let ensured = ensure_with_retry(&self.cache, entry, demand).await;
        ensured.map_err(failed)?;
        self.cache.client_view(entry).await.map_err(failed)
    }

    async fn archive(&self, file: &Resource) -> Result<(Blob, bool), Problem> {
        let ensured = ensure_with_retry(&self.cache, file, Demand::Stored).await;
        let ensured = ensured.map_err(|error| Problem::of_error(file, &error))?;
        let blob = match self.cache.peek_hash(file).await {
            Some(sha256) => self.store.blob(sha256).await,
            None => Ok(None),
        };
        let blob = blob.map_err(|error| Problem::new(file, error))?;
        let blob =
            blob.ok_or_else(|| Problem::new(file, "was removed from the store meanwhile"))?;
        Ok((blob, ensured.outcome != Outcome::Hit))
    }

    fn no_version(&self, spec: &CrateSpec) -> Problem {
        let why = "its index entry lists no such version that cargo may choose";
        Problem::new(format_args!("crate `{spec}`"), why)
    }
}
