//! The part of a plan that only the user's own cargo can work out.
//!
//! Some questions need cargo: which lock file a project without one would get, which packages a target needs, and
//! whether an unusual lock file fits its manifests. [`super::locks`] asks where a lock file is. Cargo resolves against
//! a registry, so the caller starts a larder on a loopback port first; [`Scratch`] tells cargo its address. For `check`
//! that larder is offline, so cargo resolves from the store alone.

use std::{collections::BTreeSet, path::Path};

use tokio::task::spawn_blocking;

use super::{Agreement, Inventory, PackageSet, Plan, Problem, ProjectPlan};
use crate::{
    cargo_config::LocalSources,
    error::chain,
    files::{self, MAX_LOCK_FILE_BYTES},
    resource::Registries,
    scratch::{CargoRefusal, Scratch, ScratchError},
};

impl Plan {
    /// Compares each lock file with its manifests, as far as everything that it names is stored: a project that lacks
    /// packages is not ready anyway.
    pub(crate) async fn compare_locks(&mut self, inventory: &Inventory) {
        for project in &mut self.projects {
            let Some(lock) = project.lock.clone() else {
                continue;
            };
            let packages = &project.packages;
            let is_covered = packages.failed.is_empty() && packages.skipped.is_empty();
            if !is_covered || !inventory.missing_parts(&packages.packages).await.is_empty() {
                continue;
            }
            project.agreement = if project.script.is_some() {
                Agreement::Unclear("it belongs to a script".to_owned())
            } else {
                let packages = &packages.packages;
                let config = project.config();
                let folder = &project.folder;
                inventory.agreement(folder, &lock, packages, config).await
            };
        }
    }

    /// Lets cargo compare the lock files that [`Plan::compare_locks`] found unclear.
    pub(crate) async fn ask_about_unclear_locks(&mut self, scratch: &Scratch) {
        for project in &mut self.projects {
            let (Agreement::Unclear(_), Some(lock)) = (&project.agreement, &project.lock) else {
                continue;
            };
            let Some(text) = read_lock(lock).await else {
                continue;
            };
            let compared = scratch.compare_lock(project.for_cargo(), &text).await;
            project.agreement = match compared.map_err(|error| (error.refusal(), error)) {
                Ok(()) => Agreement::Fits,
                Err((Some(CargoRefusal::LockChanges), error)) => Agreement::Differs(error.cause()),
                Err((Some(CargoRefusal::Unresolved(why)), _)) => Agreement::Unresolved(why),
                Err((Some(CargoRefusal::Unreadable(why)), _)) => Agreement::Unreadable(why),
                Err((None, error)) => Agreement::Unclear(error.cause()),
            };
        }
    }

    /// Tells if [`Plan::compare_locks`] left a question to cargo.
    pub(crate) fn has_unclear_locks(&self) -> bool {
        let mut projects = self.projects.iter();
        projects.any(|project| matches!(project.agreement, Agreement::Unclear(_)))
    }

    /// Tells if cargo must complete this plan. That is so if a project has no lock file, if settings ask for another
    /// lock file, if the lock file is that of a named crate, or if `targets` select among the packages.
    pub fn needs_cargo(&self, targets: &[String]) -> bool {
        let has_targets = !targets.is_empty() && !self.projects.is_empty();
        has_targets || self.projects.iter().any(ProjectPlan::needs_cargo)
    }

    /// Makes lock files in a scratch folder for projects without one, then excludes the crates that none of `targets`
    /// needs. Without targets, nothing is excluded.
    ///
    /// Needs are united over all projects. A project of which cargo cannot say what it needs excludes nothing.
    pub(crate) async fn ask_cargo(
        &mut self,
        scratch: &Scratch,
        targets: &[String],
        registries: &Registries,
        inventory: &Inventory,
    ) {
        self.settle_includes(scratch, registries).await;
        self.find_locks(scratch, registries).await;
        let mut needed = BTreeSet::new();
        for project in &mut self.projects {
            if project.is_locked_crate() {
                project.complete_lock(scratch, registries, inventory).await;
            }
            let Some(lock_text) = project.lock_text(scratch, registries).await else {
                needed.extend(project.packages.ids());
                continue;
            };
            needed.extend(project.named_id());
            if !targets.is_empty() {
                let missing = inventory.missing_packages(&project.packages.packages).await;
                self.missing_before_cargo.extend(missing);
            }
            let found = project.needed(scratch, targets, &lock_text, inventory);
            match found.await {
                Some(packages) => needed.extend(packages),
                None => needed.extend(project.packages.ids()),
            }
        }
        if !targets.is_empty() {
            for project in &mut self.projects {
                project.packages.exclude_all_but(&needed);
            }
        }
    }

    /// Lists projects as skipped whose lock file is not known, for a dry run, which must not start cargo.
    pub fn skip_unlocked(&mut self) {
        for project in &mut self.projects {
            let why = if project.deciding_include.is_some() {
                "has settings that include others; without --dry-run, cargo tells if it reads those"
            } else if project.requested_lock.is_some() {
                "has `resolver.lockfile-path`; without --dry-run, cargo tells if it follows that setting"
            } else if project.script.is_some() {
                "is a script; without --dry-run, cargo tells where its lock file is"
            } else if let Some(named) = project.named.as_ref().filter(|_| project.is_unlocked()) {
                named.why_unlocked()
            } else if project.is_unlocked() {
                "has no Cargo.lock; without --dry-run, one is made in a scratch folder"
            } else {
                continue;
            };
            let skipped = Problem::new(project.title(), why);
            project.packages = PackageSet {
                skipped: vec![skipped],
                ..PackageSet::default()
            };
            project.add_named_package();
        }
    }
}

/// The text of a lock file, if it can be read.
async fn read_lock(lock: &Path) -> Option<String> {
    let lock = lock.to_owned();
    let reading = spawn_blocking(move || files::read_text(&lock, MAX_LOCK_FILE_BYTES));
    reading.await.ok()?.ok()
}

impl ProjectPlan {
    /// The text of the lock file. For a project without one cargo makes it, and its packages are filled in.
    async fn lock_text(&mut self, scratch: &Scratch, registries: &Registries) -> Option<String> {
        match &self.lock {
            // A file that cannot be read is a problem of the plan already.
            Some(lock) => read_lock(lock).await,
            None if !self.is_unlocked() => None,
            None => self.make_lock(scratch, registries).await,
        }
    }

    /// The packages that `targets` need, as (name, version); `None` if cargo cannot say.
    async fn needed(
        &mut self,
        scratch: &Scratch,
        targets: &[String],
        lock_text: &str,
        inventory: &Inventory,
    ) -> Option<BTreeSet<(String, String)>> {
        let mut needed = Some(BTreeSet::new());
        for target in targets {
            let listed = scratch
                .needed_for(self.for_cargo(), lock_text, target)
                .await;
            match listed {
                Ok(packages) => {
                    if let Some(needed) = &mut needed {
                        needed.extend(packages);
                    }
                }
                Err(error) => {
                    let stored = self.stored_if_enough(scratch, targets, lock_text, inventory);
                    if let Some(stored) = stored.await {
                        return Some(stored);
                    }
                    self.no_answer(&error);
                    needed = None;
                }
            }
        }
        needed
    }

    /// The stored packages, if they are all that builds for `targets` need. To list what they need, cargo also wants
    /// the crates for this machine's own platform, which may not be stored.
    async fn stored_if_enough(
        &self,
        scratch: &Scratch,
        targets: &[String],
        lock_text: &str,
        inventory: &Inventory,
    ) -> Option<BTreeSet<(String, String)>> {
        let packages = &self.packages.packages;
        if inventory.missing_packages(packages).await.is_empty() {
            return None;
        }
        let fetched = scratch.fetch(self.for_cargo(), lock_text, targets).await;
        fetched.ok()?;
        let missing = inventory.missing_packages(packages).await;
        Some(
            self.packages
                .ids()
                .filter(|id| !missing.contains(id))
                .collect(),
        )
    }

    /// Records that cargo did not answer. If it did not even start, nothing is known about the project.
    pub(super) fn no_answer(&mut self, error: &ScratchError) {
        if matches!(error, ScratchError::Start { .. }) {
            self.unknown.push(chain(error));
        } else {
            let title = self.title();
            self.packages.fail(title, error.cause());
        }
    }

    /// Tells if only cargo knows which packages the project needs.
    pub(super) fn needs_cargo(&self) -> bool {
        self.is_unlocked()
            || self.requested_lock.is_some()
            || self.deciding_include.is_some()
            || self.is_locked_crate()
    }

    /// Tells if cargo would complete the lock file without a word, because it is that of a crate to install.
    fn is_locked_crate(&self) -> bool {
        self.named.is_some() && self.lock.is_some()
    }

    /// Lets cargo complete the lock file of an unpacked crate.
    async fn complete_lock(
        &mut self,
        scratch: &Scratch,
        registries: &Registries,
        inventory: &Inventory,
    ) {
        let Some(lock) = self.lock.clone() else {
            return;
        };
        let Some(text) = read_lock(&lock).await else {
            return;
        };
        match scratch.complete_lock(self.for_cargo(), &text).await {
            Ok(completed) => {
                if let Err(error) = tokio::fs::write(&lock, &completed).await {
                    return self.packages.fail(lock.display(), error);
                }
                self.use_lock_text(self.title(), &completed, registries);
            }
            // Without cargo, `compare_locks` judges the lock file.
            Err(ScratchError::Start { .. }) => {}
            Err(error) => {
                let missing = inventory.missing_packages(&self.packages.packages).await;
                if missing.is_empty() {
                    self.no_answer(&error);
                }
            }
        }
    }

    /// Takes the packages of a lock file that cargo made; `name` stands for it in problems.
    fn use_lock_text(&mut self, name: String, text: &str, registries: &Registries) {
        let mut local = match &self.named {
            Some(_) => LocalSources::default(),
            None => LocalSources::of(self.config()),
        };
        match PackageSet::parse(&name, text.as_bytes(), registries, &mut local) {
            Ok(packages) => self.packages = packages,
            Err(error) => self.packages.fail(&name, error),
        }
        for config in self.member_configs() {
            let mut local = LocalSources::of(config);
            let parsed = PackageSet::parse(&name, text.as_bytes(), registries, &mut local);
            if let Ok(packages) = parsed {
                self.packages.merge(packages);
            }
        }
        self.add_named_package();
    }

    async fn make_lock(&mut self, scratch: &Scratch, registries: &Registries) -> Option<String> {
        let text = match scratch.make_lock(self.for_cargo()).await {
            Ok(text) => text,
            Err(error) => {
                self.no_answer(&error);
                return None;
            }
        };
        let name = match (&self.script, &self.named) {
            (_, Some(_)) => self.title(),
            (Some(script), None) => script.path.display().to_string(),
            (None, None) => self.folder.join("Cargo.lock").display().to_string(),
        };
        self.use_lock_text(name, &text, registries);
        Some(text)
    }
}
