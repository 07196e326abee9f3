//! Verifying the store: finds damaged files, moves them to the quarantine and fetches them again.
//!
//! ```text
//!  larder verify           all files, in parallel ──┐
//!                                                   ├─ damaged? ── Repairer ──> quarantine ──> cache::ensure
//!  scrub (in the daemon)   all files, slowly ───────┘
//! ```
//!
//! A file of the store does not say what it was fetched as. `repair` finds that out: an entry's key leads back to its
//! resource, and the entries that list a blob's hash name the blob.

mod repair;
mod scrub;

use std::{sync::Arc, time::Instant};

use serde::Serialize;
use tokio::sync::watch;

pub use crate::store::ScrubState;
use crate::store::{Store, StoreError, Verified};
pub use repair::{BadFile, Repairer};
pub use scrub::{Scrub, ScrubOptions};

/// The result of verifying the whole store.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    /// Number of files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Duration in seconds.
    pub seconds: f64,
    /// The good files, by their paths in the store.
    pub good: Vec<String>,
    /// The damaged ones.
    pub bad: Vec<BadFile>,
}

impl VerifyReport {
    /// Returns whether the store holds no damaged file any more.
    pub fn is_good(&self) -> bool {
        self.bad.iter().all(|bad| bad.repaired)
    }
}

/// Progress of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyProgress {
    /// Number of files.
    pub total: usize,
    /// Number of files that were read.
    pub done: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Verifies every file of the store. With `is_repair`, damaged files are moved to the quarantine and fetched again.
///
/// # Errors
/// The store cannot be listed.
pub async fn verify(
    store: &Arc<Store>,
    repairer: &Repairer,
    is_repair: bool,
    progress: watch::Sender<VerifyProgress>,
) -> Result<VerifyReport, StoreError> {
    let started = Instant::now();
    let files = store.files().await?;
    progress.send_modify(|progress| progress.total = files.len());
    let progress = Arc::new(progress);
    let done = progress.clone();
    let count = move |bytes| {
        done.send_modify(|progress| {
            progress.done += 1;
            progress.bytes += bytes;
        });
    };
    let verified = store.verify(files, Arc::new(count)).await?;
    let files = verified.len();
    let bytes = verified.iter().map(|verified| verified.bytes).sum();
    let is_good = |verified: &Verified| verified.damage.is_none();
    let (good, damaged): (Vec<_>, Vec<_>) = verified.into_iter().partition(is_good);
    let seconds = started.elapsed().as_secs_f64();
    let bad = if is_repair {
        repairer.repair(damaged).await
    } else {
        repairer.describe(damaged).await
    };
    Ok(VerifyReport {
        files,
        bytes,
        seconds,
        good: good.into_iter().map(|good| good.file.to_string()).collect(),
        bad,
    })
}
