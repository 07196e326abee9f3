//! [`NamedCrate`]: a crate that the user names, as part of a plan.

use std::sync::Arc;

use tempfile::TempDir;

use crate::{
    crate_spec::{CrateSpec, CrateUse},
    store::{Owner, PinnedCrate},
};

/// The crate that a plan is about.
#[derive(Clone, Debug)]
pub struct NamedCrate {
    /// The crate, as the user names it.
    pub spec: CrateSpec,
    /// The way in which the user will use it.
    pub usage: CrateUse,
    /// The crate that was chosen. No lock file names it. `None` for a dependency, or if none can be had.
    pub package: Option<PinnedCrate>,
    /// Deletes the unpacked crate.
    pub(super) folder: Option<Arc<TempDir>>,
}

impl NamedCrate {
    pub(super) fn new(spec: CrateSpec, usage: CrateUse) -> Self {
        Self {
            spec,
            usage,
            package: None,
            folder: None,
        }
    }

    /// The owner of the packages.
    pub(super) fn owner(&self) -> Owner {
        match self.usage {
            CrateUse::Install => Owner::Crate(self.spec.to_string()),
            CrateUse::Dependency => Owner::Dependency(self.spec.to_string()),
        }
    }

    /// The reason why a dry run, which starts no cargo, does not know the packages.
    pub(super) fn why_unlocked(&self) -> &'static str {
        match self.usage {
            CrateUse::Install => {
                "has no Cargo.lock in its archive; without --dry-run, one is made in a scratch folder"
            }
            CrateUse::Dependency => "is resolved by cargo, without --dry-run",
        }
    }
}
