//! The report and the progress of a run.

use serde::Serialize;

use super::fetch::{Obtained, WouldFetch};
use crate::plan::Problem;

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WarmReport {
    /// Projects in the plan.
    pub projects: usize,
    /// Crates in the plan that the user named.
    pub crates: usize,
    /// Distinct packages of configured registries.
    pub packages: usize,
    /// Crates that were fetched; in a dry run, that would be.
    pub fetched: usize,
    /// Crates that were stored already.
    pub cached: usize,
    /// Distinct toolchains.
    pub toolchains: usize,
    /// Archives of these toolchains.
    pub components: usize,
    /// Archives that were fetched; in a dry run, that would be.
    pub components_fetched: usize,
    /// Archives that were stored already.
    pub components_cached: usize,
    /// Index entries that no lock file leads to, and that `cargo add` and `cargo update` may need.
    pub index_entries: usize,
    /// Those of them that could not be stored. No build needs them.
    pub index_entries_failed: Vec<Problem>,
    /// Bytes fetched: crates, index entries and archives. In a dry run, the known part of what would be.
    pub bytes: u64,
    /// Duration of the run in seconds.
    pub seconds: f64,
    /// Resources that could not be stored, and files that could not be read.
    pub failed: Vec<Problem>,
    /// Packages and toolchains that larder does not cover.
    pub skipped: Vec<Problem>,
    /// Files that a dry run would fetch; `None` in other runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_fetch: Option<Vec<WouldFetch>>,
    /// Projects and toolchains that `check` would not call ready after this run.
    pub not_ready: Vec<Problem>,
}

/// Progress of a run, for display.
#[derive(Clone, Copy, Debug, Default)]
pub struct WarmProgress {
    /// Tasks known so far; 0 during planning.
    pub total: usize,
    /// Tasks that ended.
    pub done: usize,
    /// Bytes fetched.
    pub bytes: u64,
}

impl WarmReport {
    /// Lists what a dry run would fetch.
    pub(super) fn add_would_fetch(&mut self, things: impl IntoIterator<Item = WouldFetch>) {
        for thing in things {
            self.bytes += thing.bytes.unwrap_or_default();
            self.would_fetch.get_or_insert_default().push(thing);
        }
    }

    /// Counts a package.
    pub(super) fn count_package(&mut self, package: Obtained) {
        self.bytes += package.bytes;
        self.add_would_fetch(package.would_fetch);
        match package.fetched {
            Some(true) => self.fetched += 1,
            Some(false) => self.cached += 1,
            None => {}
        }
    }

    /// Counts an archive of a toolchain.
    pub(super) fn count_archive(&mut self, archive: Obtained) {
        self.bytes += archive.bytes;
        self.add_would_fetch(archive.would_fetch);
        match archive.fetched {
            Some(true) => self.components_fetched += 1,
            Some(false) | None => self.components_cached += 1,
        }
    }
}
