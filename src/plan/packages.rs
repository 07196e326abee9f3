//! From a lock file to the crates of configured registries that it names.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    path::Path,
    sync::Arc,
};

use super::{PlanError, Problem};
use crate::{
    cargo_config::{CargoConfig, LocalSources},
    files::{self, MAX_LOCK_FILE_BYTES},
    lockfile::{self, LockedPackage, PackageSource, canonical_index},
    resource::{Registries, Registry},
    store::PinnedCrate,
};

/// The packages that one lock file names.
#[derive(Clone, Debug, Default)]
pub struct PackageSet {
    /// Crates of configured registries, sorted and distinct.
    pub packages: Vec<PinnedCrate>,
    /// Packages that larder does not cover: from git or from a registry that is not configured.
    pub skipped: Vec<Problem>,
    /// Entries that cannot be right, or the whole file.
    pub failed: Vec<Problem>,
}

impl PackageSet {
    /// Reads the lock file of a project with these settings from disk.
    ///
    /// # Errors
    /// If the file as a whole cannot be used.
    pub(super) fn read(
        lock: &Path,
        config: CargoConfig,
        registries: &Registries,
    ) -> Result<Self, PlanError> {
        let text = files::read(lock, MAX_LOCK_FILE_BYTES).map_err(PlanError::Read)?;
        let mut local = LocalSources::of(config);
        Self::parse(&lock.display().to_string(), &text, registries, &mut local)
    }

    /// Parses the text of a lock file; `name` stands for the file in problems. What `local` has needs nothing else.
    ///
    /// # Errors
    /// If the file as a whole cannot be used. A single bad entry is listed in [`PackageSet::failed`].
    pub(super) fn parse(
        name: &str,
        text: &[u8],
        registries: &Registries,
        local: &mut LocalSources,
    ) -> Result<Self, PlanError> {
        let text = std::str::from_utf8(text).map_err(|_| PlanError::NotUtf8)?;
        let lockfile = lockfile::parse(text)?;
        let mut set = Self::default();
        for invalid in &lockfile.invalid {
            set.fail(name, invalid);
        }
        for package in lockfile.packages {
            match local.state(&package) {
                None => set.add(package, registries),
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    set.fail(format_args!("{} {}", package.name, package.version), error);
                }
            }
        }
        Ok(set)
    }

    fn add(&mut self, package: LockedPackage, registries: &Registries) {
        let title = format!("{} {}", package.name, package.version);
        let registry = match &package.source {
            PackageSource::Local => return,
            PackageSource::CratesIo => registries.crates_io(),
            PackageSource::Registry(index) => match configured(index, registries) {
                Some(registry) => registry,
                None => {
                    let more = "which is not configured here; add it as `[registry.NAME]`";
                    let why = format!("comes from {index}, {more}");
                    let cause = format!("they come from {index}, {more}");
                    return self
                        .skipped
                        .push(Problem::new(title, why).with_cause(cause));
                }
            },
            PackageSource::Git(url) => {
                let more = "which larder does not hold; `cargo fetch` stores it in cargo's home";
                let problem = Problem::new(title, format!("comes from git ({url}), {more}"));
                return self
                    .skipped
                    .push(problem.with_cause(format!("they come from git, {more}")));
            }
        };
        self.packages.push(PinnedCrate {
            registry: registry.name().to_owned(),
            name: package.name,
            version: package.version.to_string(),
            checksum: package.checksum,
            is_excluded: package.is_unused,
        });
    }

    /// Adds what another set has beyond this one.
    pub(super) fn merge(&mut self, other: Self) {
        let id = |package: &PinnedCrate| {
            let (registry, name) = (package.registry.clone(), package.name.clone());
            (registry, name, package.version.clone())
        };
        let known: HashSet<_> = self.packages.iter().map(id).collect();
        let new = other.packages.into_iter();
        self.packages
            .extend(new.filter(|package| !known.contains(&id(package))));
        for (own, others) in [
            (&mut self.skipped, other.skipped),
            (&mut self.failed, other.failed),
        ] {
            for problem in others {
                if !own.contains(&problem) {
                    own.push(problem);
                }
            }
        }
    }

    /// Records a failure.
    pub(super) fn fail(&mut self, what: impl fmt::Display, why: impl fmt::Display) {
        self.failed.push(Problem::new(what, why));
    }

    /// Name and version of every package.
    pub(super) fn ids(&self) -> impl Iterator<Item = (String, String)> {
        let packages = self.packages.iter();
        packages.map(|package| (package.name.clone(), package.version.clone()))
    }

    /// Excludes the crates of all packages but `needed`, given as (name, version). Their index entries stay in the
    /// plan, since cargo reads them whatever the target.
    pub(super) fn exclude_all_but(&mut self, needed: &BTreeSet<(String, String)>) {
        for package in &mut self.packages {
            let id = (package.name.clone(), package.version.clone());
            package.is_excluded |= !needed.contains(&id);
        }
    }

    /// Excludes the crates that an earlier plan excluded in the same version.
    pub(super) fn exclude_as_in(&mut self, earlier: &[PinnedCrate]) {
        let id = |package: &PinnedCrate| {
            let (registry, name) = (package.registry.clone(), package.name.clone());
            (registry, name, package.version.clone())
        };
        let earlier = earlier.iter().filter(|package| package.is_excluded);
        let excluded: HashSet<_> = earlier.map(id).collect();
        for package in &mut self.packages {
            package.is_excluded |= excluded.contains(&id(package));
        }
    }
}

/// The registry with the index that an index line or a manifest names, if it is configured.
pub(super) fn registry_at<'a>(
    index: &str,
    registries: &'a Registries,
) -> Option<&'a Arc<Registry>> {
    let source = if index.starts_with("sparse+") {
        index.to_owned()
    } else {
        format!("registry+{index}")
    };
    match lockfile::parse_source(&source).ok()? {
        PackageSource::CratesIo => Some(registries.crates_io()),
        PackageSource::Registry(index) => configured(&index, registries),
        PackageSource::Local | PackageSource::Git(_) => None,
    }
}

/// The configured registry with this canonical index.
fn configured<'a>(index: &str, registries: &'a Registries) -> Option<&'a Arc<Registry>> {
    let mut registries = registries.iter();
    registries.find(|registry| {
        let own = canonical_index(&format!("sparse+{}", registry.index()));
        own.as_deref() == Some(index)
    })
}
