//! Where cargo keeps the lock file of an unusual project.
//!
//! | project | lock file |
//! |---|---|
//! | settings with `resolver.lockfile-path` | there, from cargo 1.97 on; before, if `[unstable]` allows it |
//! | a cargo script | below cargo's home, or below `build.build-dir`, in a folder named by a hash |
//!
//! The user's cargo is asked instead of its version: it decides, and its answer stays true when its rules change.

use std::{collections::BTreeSet, path::PathBuf};

use tokio::task::spawn_blocking;

use super::{PackageSet, Plan, ProjectPlan};
use crate::{resource::Registries, scratch::Scratch};

impl Plan {
    /// Finds the lock files that only cargo knows, and reads them.
    pub(super) async fn find_locks(&mut self, scratch: &Scratch, registries: &Registries) {
        let mut found = BTreeSet::new();
        for project in &mut self.projects {
            if let Some(lock) = project.unusual_lock(scratch).await {
                found.insert(lock.canonicalize().unwrap_or_else(|_| lock.clone()));
                project.use_lock(lock, registries).await;
            }
        }
        // The walk takes every `Cargo.lock` for a project.
        self.projects.retain(|project| {
            let is_used_elsewhere = |lock: &PathBuf| {
                let real = lock.canonicalize();
                let has_manifest =
                    project.script.is_some() || project.folder.join("Cargo.toml").is_file();
                !has_manifest && real.is_ok_and(|real| found.contains(&real))
            };
            !project.lock.as_ref().is_some_and(is_used_elsewhere)
        });
    }
}

impl ProjectPlan {
    /// The place of the lock file, if cargo keeps it elsewhere than beside the manifest.
    async fn unusual_lock(&mut self, scratch: &Scratch) -> Option<PathBuf> {
        if let Some(requested) = self.requested_lock.take() {
            match scratch.follows_lockfile_path(self.for_cargo()).await {
                Ok(true) => return Some(requested),
                Ok(false) => {}
                Err(error) => {
                    self.no_answer(&error);
                    return None;
                }
            }
        }
        scratch.script_lock(self.script.as_ref()?).await
    }

    /// Takes this lock file in place of the one beside the manifest. If it does not exist, cargo makes one.
    pub(super) async fn use_lock(&mut self, lock: PathBuf, registries: &Registries) {
        let mut plan = self.clone();
        plan.packages = PackageSet::default();
        plan.lock = lock.exists().then_some(lock);
        let registries = registries.clone();
        let reading = spawn_blocking(move || {
            plan.read_lock(&registries);
            plan
        });
        match reading.await {
            Ok(plan) => *self = plan,
            Err(panic) => self.packages.fail(self.folder.display(), panic),
        }
    }
}
