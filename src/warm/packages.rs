//! One package: its index entry, which must list the version, and its crate.

use std::sync::Arc;

use super::fetch::{Obtained, WarmMode, ensure_with_retry};
use crate::{
    cache::{Cache, Demand, Outcome},
    error::Error,
    hash::Sha256,
    plan::{Inventory, Problem},
    resource::{CrateFile, IndexEntry, Registry, RegistryConfig},
    store::PinnedCrate,
};

/// The work on one package.
pub(super) struct PackageTask {
    pub(super) cache: Cache,
    pub(super) inventory: Inventory,
    pub(super) registry: Arc<Registry>,
    pub(super) package: PinnedCrate,
    pub(super) mode: WarmMode,
    /// True if cargo may have fetched the crate already in this run, so that a stored one counts as fetched.
    pub(super) was_missing: bool,
}

impl PackageTask {
    /// Stores the package or, in a dry run, looks whether it is stored.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub(super) async fn run(&self) -> Result<Obtained, Problem> {
        match self.mode {
            WarmMode::Check => {
                let missing = self.inventory.missing_part(&self.registry, &self.package);
                Ok(Obtained::checked(missing.await.is_none()))
            }
            WarmMode::Fetch { refresh } => self.fetch(refresh).await,
        }
    }

    async fn fetch(&self, refresh: bool) -> Result<Obtained, Problem> {
        let PinnedCrate {
            name,
            version,
            checksum,
            ..
        } = &self.package;
        let (listed, index_bytes) = self.index_entry(refresh).await?;
        if let Some(locked) = checksum.filter(|locked| *locked != listed) {
            return Err(self.problem(format!(
                "the lock file says sha256 {locked}, the index says {listed}; one of them was tampered with"
            )));
        }
        if self.package.is_excluded {
            return Ok(Obtained {
                fetched: None,
                bytes: index_bytes,
                blob: None,
            });
        }
        let Some(file) = CrateFile::of(&self.registry, name, version, Some(listed)) else {
            return Err(self.problem("has a version that no crate can have"));
        };
        let ensured = ensure_with_retry(&self.cache, &file, Demand::Stored).await;
        let ensured = ensured.map_err(|error| self.problem(error.with_hint()))?;
        let mut obtained = Obtained::ensured(listed, &ensured);
        if self.was_missing {
            obtained.fetched = Some(true);
            obtained.bytes = ensured.bytes;
        }
        obtained.bytes += index_bytes;
        Ok(obtained)
    }

    /// The checksum that the index lists for this version, and the bytes that were fetched to find it.
    async fn index_entry(&self, refresh: bool) -> Result<(Sha256, u64), Problem> {
        let PinnedCrate { name, version, .. } = &self.package;
        let Some(entry) = IndexEntry::of(&self.registry, name) else {
            return Err(self.problem("has a name that no crate can have"));
        };
        let mut bytes = 0;
        let mut demand = if refresh {
            Demand::Refresh
        } else {
            Demand::Stored
        };
        loop {
            let ensured = match ensure_with_retry(&self.cache, &entry, demand).await {
                Err(error @ Error::Absent { .. }) => return Err(self.absent(&error).await),
                ensured => ensured.map_err(|error| self.problem(error.with_hint()))?,
            };
            if ensured.outcome == Outcome::Miss {
                bytes += ensured.bytes;
            }
            if refresh && matches!(ensured.outcome, Outcome::Stale(_)) {
                return Err(
                    self.problem("its index entry could not be refreshed; the stored one was kept")
                );
            }
            let body = ensured.entry.unwrap_or_default();
            match IndexEntry::checksum(&body, version) {
                Some(listed) => return Ok((listed, bytes)),
                // The lock file names a version that was published after the entry was stored.
                None if demand == Demand::Stored && ensured.outcome == Outcome::Hit => {
                    demand = Demand::Refresh;
                }
                None => return Err(self.problem("its index entry does not list that version")),
            }
        }
    }

    /// Describes a package that the index lacks. Names the index, and says so if its address is no index at all.
    async fn absent(&self, error: &Error) -> Problem {
        let mut index = self.registry.index().clone();
        // Both fail only for addresses without a host, which cannot carry credentials.
        let _ = index.set_password(None);
        let _ = index.set_username("");
        let config = RegistryConfig::of(&self.registry);
        match ensure_with_retry(&self.cache, &config, Demand::Stored).await {
            Err(Error::Absent { .. }) => self.problem(format!(
                "{error}; {index} is no cargo index, it has no config.json"
            )),
            Ok(_) | Err(_) => self.problem(format!("{error}; the index is {index}")),
        }
    }

    fn problem(&self, why: impl std::fmt::Display) -> Problem {
        let PinnedCrate { name, version, .. } = &self.package;
        Problem::new(format_args!("{name} {version}"), why)
    }
}
