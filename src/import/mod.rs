//! `larder import`: takes over crates and index entries from this machine, without a download.
//!
//! ```text
//!  ~/.cargo/registry/index/HOST-HASH/.cache/se/rd/serde ── lines ──> entry, unless one is stored
//!                                                            └─ hashes
//!                                                                  │ equal?
//!  ~/.cargo/registry/cache/HOST-HASH/serde-1.0.0.crate ── hash ────┴──> blob
//! ```
//!
//! - A crate is taken if an index entry states its hash for its name and version. That may be a stored entry, cargo's
//!   copy of the entry in the same home, or the index of a local registry. A false index does no harm: clients ask for
//!   blobs by the hashes in upstream's index, so they never ask for a blob that only the false index lists.
//! - An entry is taken only from a home whose folder name belongs to an index in larder's settings. Cargo leaves out
//!   lines that it cannot read, so such an entry is no exact copy. It is stored without validators, as of the time when
//!   cargo wrote it: the next answer from upstream replaces it.
//! - `cargo vendor` unpacks crates, and their archives cannot be made again byte for byte. Those folders are skipped.
//!
//! Nothing is asked from upstream. Files are read, never changed.

mod cargo_home;
mod found;
mod search;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::{sync::watch, task::spawn_blocking};

pub use cargo_home::importable_crates;
pub use found::SkippedFile;
use found::{CachedEntry, CrateArchive, Found};

use crate::{
    cache::Cache,
    hash::Sha256,
    resource::{IndexEntry, Registries, registry::listed_checksums},
    store::{Store, TakenOver},
};

/// Files that are copied and hashed at a time.
const FILES_AT_A_TIME: usize = 8;

/// The result of an import.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImportReport {
    /// True if nothing was stored.
    pub dry_run: bool,
    /// Crates that were taken over; in a dry run, that would be if their hashes are right.
    pub crates: usize,
    /// Those of them that share their blocks on disk with the file they came from.
    pub reflinks: usize,
    /// Bytes of these crates.
    pub bytes: u64,
    /// Crates that were stored already.
    pub stored_crates: usize,
    /// Index entries that were taken over.
    pub entries: usize,
    /// Index entries that were stored already.
    pub stored_entries: usize,
    /// Files that were left out.
    pub skipped: Vec<SkippedFile>,
    /// Files that could not be read or stored.
    pub failed: Vec<SkippedFile>,
}

/// Progress of an import.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportProgress {
    /// Files to look at; 0 while they are searched.
    pub total: usize,
    /// Files that were looked at.
    pub done: usize,
    /// Bytes that were taken over.
    pub bytes: u64,
}

/// The stores that an import works on.
#[derive(Clone, Copy, Debug)]
pub struct Importer<'a> {
    /// The cache over the store.
    pub cache: &'a Cache,
    /// The store.
    pub store: &'a Arc<Store>,
    /// The configured registries.
    pub registries: &'a Registries,
    /// Store nothing.
    pub is_dry_run: bool,
}

/// The result for one crate.
enum CrateResult {
    Taken { bytes: u64, is_reflink: bool },
    Stored,
    Skipped(SkippedFile),
    Failed(SkippedFile),
}

impl Importer<'_> {
    /// Takes over what is in these folders. Sends `progress` after each file.
    pub async fn import(
        &self,
        paths: Vec<PathBuf>,
        progress: &watch::Sender<ImportProgress>,
    ) -> ImportReport {
        let mut report = ImportReport {
            dry_run: self.is_dry_run,
            ..ImportReport::default()
        };
        let registries = self.registries.clone();
        let searching = spawn_blocking(move || {
            let found = paths.iter().map(|path| search::search(path, &registries));
            found.collect::<Vec<_>>()
        });
        let found = match searching.await {
            Ok(found) => found,
            Err(panic) => {
                let failed = SkippedFile::new(Path::new("."), panic);
                report.failed.push(failed);
                return report;
            }
        };
        let total = found.iter().map(|one| one.entries.len() + one.crates.len());
        let total = total.sum();
        progress.send_modify(|progress| progress.total = total);
        for one in found {
            self.import_found(one, progress, &mut report).await;
        }
        report.skipped.sort();
        report.failed.sort();
        report
    }

    async fn import_found(
        &self,
        found: Found,
        progress: &watch::Sender<ImportProgress>,
        report: &mut ImportReport,
    ) {
        report.skipped.extend(found.skipped);
        report.failed.extend(found.failed);
        let hashes = hashes(&found.entries);
        for entry in found.entries {
            let path = entry.path.clone();
            match self.import_entry(entry).await {
                Ok(Some(true)) => report.entries += 1,
                Ok(Some(false)) => report.stored_entries += 1,
                Ok(None) => {}
                Err(why) => report.failed.push(SkippedFile::new(&path, why)),
            }
            progress.send_modify(|progress| progress.done += 1);
        }
        let mut results = stream::iter(found.crates)
            .map(|archive| self.import_crate(archive, &hashes))
            .buffer_unordered(FILES_AT_A_TIME);
        while let Some(result) = results.next().await {
            match result {
                CrateResult::Taken { bytes, is_reflink } => {
                    report.crates += 1;
                    report.reflinks += usize::from(is_reflink);
                    report.bytes += bytes;
                }
                CrateResult::Stored => report.stored_crates += 1,
                CrateResult::Skipped(skipped) => report.skipped.push(skipped),
                CrateResult::Failed(failed) => report.failed.push(failed),
            }
            let bytes = report.bytes;
            progress.send_modify(|progress| {
                progress.done += 1;
                progress.bytes = bytes;
            });
        }
    }

    /// Stores an entry, unless one is stored. Returns whether it did; `None` for one whose registry is not known, which
    /// only states hashes.
    async fn import_entry(&self, entry: CachedEntry) -> Result<Option<bool>, String> {
        let CachedEntry {
            registry,
            name,
            body,
            written,
            ..
        } = entry;
        let Some(resource) = registry.and_then(|registry| IndexEntry::of(&registry, &name)) else {
            return Ok(None);
        };
        if self.cache.peek(&resource).await.is_some() {
            return Ok(Some(false));
        }
        let valid = resource.validate(&body);
        valid.map_err(|error| format!("is no index entry: {error}"))?;
        if !self.is_dry_run {
            let stored = self.cache.import_if_absent(&resource, body, written).await;
            stored.map_err(|error| error.to_string())?;
        }
        Ok(Some(true))
    }

    async fn import_crate(
        &self,
        archive: CrateArchive,
        hashes: &HashMap<(String, String), Vec<Sha256>>,
    ) -> CrateResult {
        let CrateArchive {
            path,
            name,
            version,
            bytes,
        } = archive;
        let id = (name.to_ascii_lowercase(), version);
        let mut expected = hashes.get(&id).cloned().unwrap_or_default();
        for registry in self.registries.iter() {
            if let Some(entry) = IndexEntry::of(registry, &id.0)
                && let Some(body) = self.cache.peek(&entry).await
            {
                expected.extend(IndexEntry::checksum(&body, &id.1));
            }
        }
        if expected.is_empty() {
            let why = "no index entry that is stored, or beside it, states its hash";
            return CrateResult::Skipped(SkippedFile::new(&path, why));
        }
        let stored = self.store.contains_any(expected.clone()).await;
        if stored.unwrap_or_default() {
            return CrateResult::Stored;
        }
        if self.is_dry_run {
            return CrateResult::Taken {
                bytes,
                is_reflink: false,
            };
        }
        match self.store.take_over(path.clone(), expected).await {
            Ok(TakenOver::Stored { bytes, is_reflink }) => CrateResult::Taken { bytes, is_reflink },
            Ok(TakenOver::OtherHash) => {
                let why = "has another hash than its index entry states: it is damaged, or of another registry";
                CrateResult::Skipped(SkippedFile::new(&path, why))
            }
            Err(error) => CrateResult::Failed(SkippedFile::new(&path, error)),
        }
    }
}

/// The hashes that entries state, by the crate's name in lower case and its version.
fn hashes(entries: &[CachedEntry]) -> HashMap<(String, String), Vec<Sha256>> {
    let mut hashes: HashMap<_, Vec<_>> = HashMap::new();
    for entry in entries {
        for (version, sha256) in listed_checksums(&entry.body) {
            let id = (entry.name.to_ascii_lowercase(), version);
            hashes.entry(id).or_default().push(sha256);
        }
    }
    hashes
}
