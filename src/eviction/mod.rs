//! Eviction: gives disk space back, the longest unused files first, and never what a warmed project needs.
//!
//! ```text
//!  Store: files, sizes, last uses ─┐
//!  pins: what projects need ───────┼─ Survey ──> decide (pure) ──> files to remove, in order ──> Store::remove_files
//!  running commands ───────────────┘                                  │
//!                                        index entry or manifest ─────┴─ before the last file that it lists
//! ```
//!
//! `larder gc` runs one [`pass`]. The daemon's [`Evictor`] runs one whenever the store has grown to its limit. One
//! process at a time evicts; the others see that a file is gone by its `stat`, which every hit needs, and count it as
//! missing.
//!
//! The daemon's passes take a fortieth of a core ([`Pace`]), unless something waits for space.
//!
//! Two things change while a pass runs. A pin that was registered, or a command that began to store files, ends the
//! pass, and a new one begins. A file that was used, checked or replaced since the survey is left alone.
//!
//! The pass also drops the pins of projects whose files have been gone for [`PassOptions::forget_after`], and bounds
//! the quarantine.

mod evictor;
mod forget;
mod gone;
mod names;
mod needs;
mod policy;
mod survey;
mod why;

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tracing::warn;

pub use evictor::{EvictionStatus, Evictor, EvictorOptions};
pub use forget::{Forgotten, forget_files, forget_pins};
pub use gone::{GonePin, gone_pins, missing_owners};
pub(crate) use needs::PinNeeds;
pub use policy::Reason;
pub use survey::KeepReleases;
pub use why::{Why, WhyFile, why};

use crate::{
    clock::{milliseconds, now},
    error::chain,
    resource::Upstreams,
    store::{FileRecord, Pace, Removal, SpaceCounter, Store, StoreError},
};
use policy::{RemovalLimits, RemovalPlan};
use survey::Survey;

/// Files that are removed before the pins are looked at again.
const BATCH: usize = 64;
/// Surveys of one pass at most: pins may change all the time.
const MAX_SURVEYS: usize = 4;
/// Age from which damaged files are removed from the quarantine.
const QUARANTINE_AGE: Duration = Duration::from_secs(30 * 86_400);
/// Size limit of the quarantine in bytes.
const QUARANTINE_BYTES: u64 = 1 << 30;

/// Limits and manner of one pass.
#[derive(Clone, Copy, Debug)]
pub struct PassOptions {
    /// Space for the whole store, in bytes.
    pub max_bytes: Option<u64>,
    /// Files that were not used for this long go.
    pub older_than: Option<Duration>,
    /// When this process started, in milliseconds since 1970, if it is a command that registers its pins at its end:
    /// all that it has stored or used stays.
    pub own_since: Option<u64>,
    /// Releases of toolchains to keep; older ones go.
    pub keep: KeepReleases,
    /// Time after which the pin of a project that is gone is dropped.
    pub forget_after: Duration,
    /// Only report.
    pub is_dry_run: bool,
    /// Find out what each file is, for reports.
    pub with_names: bool,
}

/// The result of a pass.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PassReport {
    /// True if nothing was changed.
    pub dry_run: bool,
    /// Space of the store before, in bytes.
    pub size_before: u64,
    /// Space of the store afterwards, in bytes.
    pub size_after: u64,
    /// Space that it may take; null for no limit.
    pub max_size: Option<u64>,
    /// Space of what pins need, in bytes.
    pub pinned: u64,
    /// Removed files.
    pub removed: Vec<RemovedFile>,
    /// Files that a client read, or that were used or replaced during the pass.
    pub in_use: u64,
    /// Projects whose pins were dropped, because their files are gone.
    pub forgotten: Vec<String>,
    /// Projects whose files are gone and whose pins will be dropped.
    pub gone: Vec<GonePin>,
    /// Number of files removed from the quarantine.
    pub quarantine_files: u64,
    /// Their bytes.
    pub quarantine_bytes: u64,
}

/// A removed file.
#[derive(Clone, Debug, Serialize)]
pub struct RemovedFile {
    /// Its path in the store.
    pub file: String,
    /// The resource, as people write it, if it is known.
    pub what: Option<String>,
    /// The space that it took, in bytes.
    pub bytes: u64,
    /// Its last use, in seconds since 1970.
    pub last_used: u64,
    /// Why it was removed.
    pub reason: Reason,
}

impl PassReport {
    /// The space of the removed files, in bytes.
    pub fn removed_bytes(&self) -> u64 {
        self.removed.iter().map(|removed| removed.bytes).sum()
    }
}

/// Runs one pass. The caller holds the store's eviction lock, unless it is a dry run. `counter` counts the store; one
/// that has counted before is faster.
///
/// # Errors
/// The store cannot be read or written to.
pub async fn pass(
    store: &Arc<Store>,
    upstreams: &Upstreams,
    options: PassOptions,
    counter: SpaceCounter,
    pace: &Arc<Pace>,
) -> Result<PassReport, StoreError> {
    let (mut counter, space) = counter.count().await?;
    let mut report = PassReport {
        dry_run: options.is_dry_run,
        max_size: options.max_bytes,
        size_before: space.total,
        ..PassReport::default()
    };
    let pruned = store.prune_quarantine(QUARANTINE_AGE, QUARANTINE_BYTES, options.is_dry_run);
    match pruned.await {
        Ok(pruned) => (report.quarantine_files, report.quarantine_bytes) = pruned,
        // The limit of the store matters more.
        Err(error) => warn!(error = %chain(&error), "cannot remove old files of the quarantine"),
    }
    for _ in 0..MAX_SURVEYS {
        let (counted, space) = counter.count().await?;
        counter = counted;
        let is_complete =
            survey_and_remove(store, upstreams, options, space.total, pace, &mut report).await?;
        if is_complete {
            break;
        }
    }
    if !options.is_dry_run {
        report.size_after = counter.count().await?.1.total;
    }
    Ok(report)
}

/// Removes files from a store that takes `total` bytes. Returns false if the pins changed meanwhile.
async fn survey_and_remove(
    store: &Arc<Store>,
    upstreams: &Upstreams,
    options: PassOptions,
    total: u64,
    pace: &Arc<Pace>,
    report: &mut PassReport,
) -> Result<bool, StoreError> {
    let (pins, gone, forgotten) =
        gone::living_pins(store, options.forget_after, options.is_dry_run).await?;
    report.gone = gone;
    report.forgotten.extend(forgotten);
    if !is_survey_due(total, options) {
        return Ok(true);
    }
    let state = pin_state(store);
    let survey = Survey::read(store, &pins, options.keep, options.own_since, pace).await?;
    let used_since = options.older_than.and_then(|age| now().checked_sub(age));
    let limits = RemovalLimits {
        max_bytes: options.max_bytes,
        used_since: used_since.map(milliseconds),
    };
    let decision = survey.decide(total, limits);
    report.pinned = decision.pinned_bytes;
    let names = match options.with_names {
        true => names::of_removals(store, upstreams, &survey, &decision).await?,
        false => Default::default(),
    };
    let removed_file = |at: usize, reason| {
        let record = &survey.records[at];
        RemovedFile {
            file: record.file.to_string(),
            what: names.get(&at).cloned(),
            bytes: record.bytes,
            last_used: record.used / 1000,
            reason,
        }
    };
    let RemovalPlan { removals, .. } = decision;
    if options.is_dry_run {
        let removed = removals
            .into_iter()
            .map(|(at, reason)| removed_file(at, reason));
        report.removed = removed.collect();
        report.size_after = decision.bytes_after.saturating_sub(report.quarantine_bytes);
        return Ok(true);
    }
    for batch in removals.chunks(BATCH) {
        if pin_state(store) != state {
            return Ok(false);
        }
        let records: Vec<FileRecord> = batch
            .iter()
            .map(|(at, _)| survey.records[*at].clone())
            .collect();
        let results = store.remove_files(records, survey.taken, pace).await?;
        for ((at, reason), result) in batch.iter().zip(results) {
            match result {
                Removal::Removed => report.removed.push(removed_file(*at, *reason)),
                Removal::Changed | Removal::InUse => report.in_use += 1,
            }
        }
    }
    Ok(true)
}

/// Returns false if the limits of a pass whose report needs no names ask for nothing of a store that takes `total`
/// bytes: a survey reads all entries.
fn is_survey_due(total: u64, options: PassOptions) -> bool {
    let is_too_large = options.max_bytes.is_some_and(|max| total > max);
    let has_other_rule = options.older_than.is_some() || options.keep != KeepReleases::default();
    options.with_names || is_too_large || has_other_rule
}

/// Another state means that what must stay may have changed.
fn pin_state(store: &Store) -> (Option<std::time::SystemTime>, Option<u64>) {
    (store.pins_changed(), store.oldest_running_command())
}
