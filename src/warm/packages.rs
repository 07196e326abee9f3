//! One package: its index entry, which must list the version, and its crate.

use std::sync::Arc;

use super::fetch::{Obtained, WarmMode, WouldFetch, ensure_with_retry};
use crate::{
    cache::{Cache, Demand, Outcome},
    error::Error,
    hash::Sha256,
    plan::{Inventory, Problem},
    resource::{CrateFile, IndexEntry, Registry, RegistryConfig, VersionNeeds},
    store::PinnedCrate,
};

/// The result of one package.
#[derive(Debug)]
pub(super) struct ObtainedPackage {
    pub(super) package: PinnedCrate,
    pub(super) obtained: Obtained,
    /// Its dependencies, if they were asked for.
    pub(super) needs: Option<VersionNeeds>,
}

/// The index entry of a package.
struct ObtainedEntry {
    /// The checksum that it lists for the version.
    listed: Sha256,
    needs: Option<VersionNeeds>,
    /// Bytes fetched.
    bytes: u64,
}

/// The work on one package.
pub(super) struct PackageTask {
    pub(super) cache: Cache,
    pub(super) inventory: Inventory,
    pub(super) registry: Arc<Registry>,
    pub(super) package: PinnedCrate,
    pub(super) mode: WarmMode,
    /// True if cargo may have fetched the crate already in this run, so that a stored one counts as fetched.
    pub(super) was_missing: bool,
    /// True if the result must have the dependencies.
    pub(super) reads_needs: bool,
}

impl PackageTask {
    /// Stores the package or, in a dry run, looks whether it is stored.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub(super) async fn run(self) -> Result<ObtainedPackage, Problem> {
        let (obtained, needs) = match self.mode {
            WarmMode::Check => (self.look_up().await?, None),
            WarmMode::Fetch { refresh } => {
                let entry = self.index_entry(refresh).await?;
                (self.fetch(&entry).await?, entry.needs)
            }
        };
        Ok(ObtainedPackage {
            package: self.package,
            obtained,
            needs,
        })
    }

    async fn look_up(&self) -> Result<Obtained, Problem> {
        let missing = self.inventory.missing_part(&self.registry, &self.package);
        let Some(missing) = missing.await else {
            return Ok(Obtained::checked(Vec::new()));
        };
        if !missing.is_fetchable {
            return Err(self.problem(missing));
        }
        let PinnedCrate {
            name,
            version,
            checksum,
            is_excluded,
            ..
        } = &self.package;
        let the_crate = WouldFetch {
            what: format!("crate `{name} {version}`"),
            bytes: checksum.and_then(|sha256| self.inventory.recorded_size(sha256)),
        };
        let mut would_fetch = Vec::new();
        if !missing.what.starts_with(&the_crate.what) {
            let what = missing.what;
            would_fetch.push(WouldFetch { what, bytes: None });
        }
        if !is_excluded {
            would_fetch.push(the_crate);
        }
        let mut obtained = Obtained::checked(would_fetch);
        obtained.fetched = obtained.fetched.filter(|_| !is_excluded);
        Ok(obtained)
    }

    async fn fetch(&self, entry: &ObtainedEntry) -> Result<Obtained, Problem> {
        let PinnedCrate {
            name,
            version,
            checksum,
            ..
        } = &self.package;
        let ObtainedEntry { listed, bytes, .. } = *entry;
        if let Some(locked) = checksum.filter(|locked| *locked != listed) {
            let problem = self.problem(format_args!(
                "the lock file says sha256 {locked}, the index says {listed}; one of them was tampered with"
            ));
            let cause = "lock file and index state different hashes; one of them was tampered with";
            return Err(problem.with_cause(cause));
        }
        if self.package.is_excluded {
            return Ok(Obtained {
                fetched: None,
                bytes,
                blob: None,
                would_fetch: Vec::new(),
            });
        }
        let Some(file) = CrateFile::of(&self.registry, name, version, Some(listed)) else {
            return Err(self.problem("has a version that no crate can have"));
        };
        let ensured = ensure_with_retry(&self.cache, &file, Demand::Stored).await;
        let ensured = ensured.map_err(|error| self.error(&error))?;
        let mut obtained = Obtained::ensured(listed, &ensured);
        if self.was_missing {
            obtained.fetched = Some(true);
            obtained.bytes = ensured.bytes;
        }
        obtained.bytes += bytes;
        Ok(obtained)
    }

    async fn index_entry(&self, refresh: bool) -> Result<ObtainedEntry, Problem> {
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
                ensured => ensured.map_err(|error| self.error(&error))?,
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
                Some(listed) => {
                    return Ok(ObtainedEntry {
                        listed,
                        needs: self
                            .reads_needs
                            .then(|| VersionNeeds::of(&body, version))
                            .flatten(),
                        bytes,
                    });
                }
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
        let index = self.registry.public_index();
        let config = RegistryConfig::of(&self.registry);
        let index = match ensure_with_retry(&self.cache, &config, Demand::Stored).await {
            Err(Error::Absent { .. }) => {
                format!("{index} is no cargo index, it has no config.json")
            }
            Ok(_) | Err(_) => format!("the index is {index}"),
        };
        let problem = self.problem(format_args!("{error}; {index}"));
        problem.with_cause(format_args!("upstream does not have them; {index}"))
    }

    fn error(&self, error: &Error) -> Problem {
        let PinnedCrate { name, version, .. } = &self.package;
        Problem::of_error(format_args!("{name} {version}"), error)
    }

    fn problem(&self, why: impl std::fmt::Display) -> Problem {
        let PinnedCrate { name, version, .. } = &self.package;
        Problem::new(format_args!("{name} {version}"), why)
    }
}
