//! Planning: which packages and toolchains do projects need, and which file asks for each?
//!
//! `larder warm` works in two acts. The first act, this module, reads the user's files and ends in a [`Plan`]. The
//! second act, `warm`, turns the plan into `Cache::ensure` calls, pins and a report. `check` needs the first act
//! alone.
//!
//! ```text
//!  act one: plan                                                 act two
//!
//!  paths ── projects::find ─┬─ lock files ────── lockfile ──┐
//!                           └─ toolchain files ─ toolchain ─┤          ┌─ warm   ensures each resource
//!  `--toolchain NAME` ──────────────────────────────────────┼── Plan ──┤
//!  `--crate NAME` ── crates (the lock file in an archive) ──┤          │
//!  no lock file, script, `--target` ─ scratch (cargo) ──────┤          └─ check  looks each up in the store
//!  a pin of an earlier `warm` ── of_pin ────────────────────┘
//! ```
//!
//! A plan names crates by registry, name and version, and toolchains by [`Install`]. Every name has an [`Owner`]: the
//! lock file, the toolchain file or the toolchain name that asks for it. The archives of a toolchain are not part of
//! the plan, because only its manifest lists them. [`release::resolve`] reads that manifest, from upstream for `warm`
//! and from the store for `check`. In the same way [`library`] reads the lock file inside the `rust-src` archive.
//!
//! A lock file that no longer fits its `Cargo.toml` makes a plan that does not help. [`agreement`] compares both, once
//! the index entries are stored; [`manifest`] reads the manifests for it.
//!
//! The functions here read the user's disk and the store. They never ask upstream and never write. Files are read and
//! parsed by rayon inside one blocking task; a file that cannot be read becomes a [`Problem`] and does not stop the
//! others.

mod active_toolchain;
mod agreement;
mod build_std;
mod cargo;
mod client_settings;
mod crates;
mod error;
mod includes;
mod inventory;
pub(crate) mod library;
mod locks;
mod manifest;
mod named_crate;
mod needs;
mod packages;
mod reach;
pub(crate) mod release;
mod rustup_home;
mod toolchains;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

use rayon::prelude::*;
use tokio::task::spawn_blocking;

pub(crate) use active_toolchain::ActiveToolchain;
pub use agreement::Agreement;
pub(crate) use client_settings::ClientCargo;
pub(crate) use crates::CrateSource;
pub use error::{PlanError, Problem};
pub(crate) use inventory::{BlobState, Inventory};
pub use named_crate::NamedCrate;
pub use packages::PackageSet;
pub(crate) use reach::{Choice, CrateName, Question, ResolverReach};
pub use toolchains::{NamedToolchain, ToolchainOptions, ToolchainPlan};

use crate::{
    cargo_config::{CargoConfig, Includes},
    projects::{self, Project},
    resource::{Dist, Registries, Resource, dist},
    scratch::CargoProject,
    script::{self, Script},
    store::{Owner, Pin},
    toolchain::{HomeState, Install},
};
use release::Homes;
use toolchains::InstallDefaults;

/// Packages and toolchains to have in the store, with their owners.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// One for each project, sorted by folder, then one for each crate that the user names.
    pub projects: Vec<ProjectPlan>,
    /// One for each toolchain file and each toolchain that the user named.
    pub toolchains: Vec<ToolchainPlan>,
    /// Host triples of rustup itself: those that the user named, or this machine's.
    pub rustup_hosts: Vec<String>,
    /// True if the files that install rustup itself are needed too.
    pub bootstrap: bool,
    /// The manifests inside these projects that their lock files do not cover.
    pub not_covered: Vec<PathBuf>,
    /// Failures that concern no single project or toolchain.
    pub failed: Vec<Problem>,
    /// Packages that were missing before cargo listed what targets need, as (name, version). Cargo downloads crates for
    /// that, through larder; a report counts them as fetched.
    pub(crate) missing_before_cargo: BTreeSet<(String, String)>,
}

/// One project and the packages that its lock file names.
#[derive(Clone, Debug)]
pub struct ProjectPlan {
    /// The project's folder, as the user would spell it.
    pub folder: PathBuf,
    /// Its lock file; `None` if cargo has not written one yet.
    pub lock: Option<PathBuf>,
    /// The lock file that its settings ask for instead. Only cargo knows if it does so.
    pub(crate) requested_lock: Option<PathBuf>,
    /// The treatment of `include` in its settings by the cargo that builds it.
    pub(crate) includes: Includes,
    /// The settings file with an `include` that matters, while that treatment is not known.
    pub(crate) deciding_include: Option<PathBuf>,
    /// The user's home of cargo, whose settings count as well.
    pub(crate) cargo_home: Option<PathBuf>,
    /// The cargo script in the folder that is the whole project.
    pub script: Option<Script>,
    /// The crate that the user names and that was unpacked as this project.
    pub named: Option<NamedCrate>,
    /// Folders of members whose settings of cargo may differ from those of the project's folder.
    pub(crate) members: Vec<PathBuf>,
    /// The owners of the plans for the toolchains that rustup would use in this folder and in those of members. There is
    /// no such plan for a toolchain that is installed.
    pub toolchains: BTreeSet<Owner>,
    /// The packages, empty without a lock file.
    pub packages: PackageSet,
    /// The packages of the standard library, if the project compiles that of an installed toolchain.
    pub(crate) library: PackageSet,
    /// The result of [`Plan::compare_locks`].
    pub agreement: Agreement,
    /// Questions about this project that only cargo can answer, and that it did not.
    pub unknown: Vec<String>,
}

/// The projects and toolchains to plan.
#[derive(Clone, Debug, Default)]
pub struct PlanRequest {
    /// Files, and folders to search.
    pub paths: Vec<PathBuf>,
    /// True if it is no problem that the current folder has no project.
    pub is_current_optional: bool,
    /// The user's home of cargo, whose settings count for every project.
    pub cargo_home: Option<PathBuf>,
    /// Toolchains that no file asks for.
    pub toolchains: ToolchainOptions,
}

/// Plans every project and toolchain file at or below the paths of `request`, and its toolchains.
pub async fn plan(request: PlanRequest, registries: &Registries) -> Plan {
    let registries = registries.clone();
    let planning = spawn_blocking(move || plan_blocking(&request, &registries));
    planning.await.unwrap_or_else(|panic| Plan {
        failed: vec![Problem::new("reading the projects", panic)],
        ..Plan::default()
    })
}

/// Plans one pin again, from its lock file or toolchain file as it is now.
///
/// Crates that the pin excludes, because no target of the earlier `warm` needed them, stay excluded. A pin does not
/// store the other options of that `warm`: toolchain files are planned for this machine's host, and `RUSTUP_TOOLCHAIN`
/// of the process that plans does not count. `None` for an owner without a file: the pin of a toolchain does not store
/// its profile and components, and a named crate does not change.
///
/// # Errors
/// [`PlanError`] if the file is gone or cannot be parsed as a whole. Problems with single packages are part of the
/// plan.
pub async fn of_pin(
    pin: Pin,
    rustup_settings: Option<PathBuf>,
    cargo_home: Option<PathBuf>,
    registries: &Registries,
) -> Result<Option<Plan>, PlanError> {
    let registries = registries.clone();
    let planning = spawn_blocking(move || match &pin.owner {
        Owner::Toolchain(_) | Owner::Crate(_) | Owner::Dependency(_) => Ok(None),
        // Only cargo could tell what it needs.
        Owner::File(path) if script::is_script(path) => Ok(None),
        Owner::File(path) if projects::is_toolchain_file(path) => {
            let defaults = InstallDefaults::read(rustup_settings.as_deref(), &[]);
            let toolchain = ToolchainPlan::read(path, &defaults)?;
            Ok(Some(Plan {
                toolchains: vec![toolchain],
                rustup_hosts: defaults.rustup_hosts,
                ..Plan::default()
            }))
        }
        Owner::File(lock) => {
            let folder = lock.parent().unwrap_or(Path::new("."));
            let defaults = InstallDefaults::read(rustup_settings.as_deref(), &[]);
            let home = cargo_home.as_deref();
            let includes = defaults.includes_of_lock(lock, folder, home);
            let config = CargoConfig::read(folder, home, includes);
            let toolchain = || {
                let found = projects::find(slice::from_ref(lock)).projects;
                defaults.unstable_toolchain(found.first()?)
            };
            let library = build_std::library_packages(
                toolchain,
                CargoConfig::read(folder, home, includes),
                &registries,
            );
            let mut packages = PackageSet::read(lock, config, &registries)?;
            packages.exclude_as_in(&pin.packages);
            Ok(Some(Plan {
                projects: vec![ProjectPlan {
                    lock: Some(lock.clone()),
                    packages,
                    library,
                    ..ProjectPlan::new(folder)
                }],
                ..Plan::default()
            }))
        }
    });
    planning.await?
}

fn plan_blocking(request: &PlanRequest, registries: &Registries) -> Plan {
    let mut found = projects::find(&request.paths);
    let is_current_optional = request.is_current_optional || request.toolchains.bootstrap;
    let cargo_home = &request.cargo_home;
    let request = &request.toolchains;
    let mut defaults = InstallDefaults::read(request.rustup_settings.as_deref(), &request.hosts);
    defaults.set_variables(
        request.rustup_toolchain.as_deref(),
        request.cargo_in_path.as_deref(),
    );
    defaults.add_overridden_members(&mut found.projects);
    let (projects, toolchains) = rayon::join(
        || {
            let projects = found.projects.par_iter();
            let plans = projects.map(|project| {
                let home = cargo_home.clone();
                ProjectPlan::read(project.clone(), home, &defaults, registries)
            });
            plans.collect()
        },
        || toolchains::read(&found.toolchain_files, &found.projects, request, &defaults),
    );
    // The files of a bootstrap need no project, and the current folder is only the default.
    let is_optional = |problem: &&projects::SearchProblem| {
        let is_current = problem.path == Path::new(".");
        is_current_optional
            && is_current
            && matches!(problem.error, projects::SearchError::Empty { .. })
    };
    let problems = found.problems.iter();
    let problems = problems.filter(|problem| !is_optional(problem));
    Plan {
        projects,
        toolchains,
        rustup_hosts: defaults.rustup_hosts,
        bootstrap: request.bootstrap,
        not_covered: found.not_covered,
        failed: problems
            .map(|problem| Problem::new(problem.path.display(), &problem.error))
            .collect(),
        missing_before_cargo: BTreeSet::new(),
    }
}

impl Plan {
    /// The distinct toolchains, each with the owners that ask for it.
    pub fn installs(&self) -> BTreeMap<Install, Vec<Owner>> {
        let mut installs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for plan in &self.toolchains {
            for install in &plan.installs {
                let owners = installs.entry(install.clone()).or_default();
                owners.push(plan.owner.clone());
            }
        }
        installs
    }

    /// Excludes the crates that no target of the earlier `warm` needed, by the pins of these projects.
    pub fn exclude_as_in(&mut self, pins: &[Pin]) {
        for project in &mut self.projects {
            let owner = project.owner();
            if let Some(pin) = pins.iter().find(|pin| pin.owner == owner) {
                project.packages.exclude_as_in(&pin.packages);
            }
        }
    }

    /// The owners of projects of which only cargo could tell what they need: those that [`Plan::needs_cargo`] is about.
    pub fn unasked_projects(&self) -> impl Iterator<Item = Owner> {
        let projects = self.projects.iter();
        let unasked = projects.filter(|project| project.needs_cargo());
        unasked.map(ProjectPlan::owner)
    }

    /// The files with fixed names that rustup asks for besides manifests and archives: one at the end of each install
    /// and, with `bootstrap`, its script and its installer for each host. An install that one of `homes` has needs
    /// none of them there. See also [`self_updates`].
    pub(crate) fn rustup_files(&self, dist: &Arc<Dist>, homes: Homes) -> Vec<Resource> {
        let mut files = Vec::new();
        let mut installs = self.toolchains.iter().flat_map(|plan| &plan.installs);
        let is_any_due =
            installs.any(|install| homes == Homes::All || install.home != HomeState::Complete);
        if self.bootstrap || is_any_due {
            files.push(dist::release(dist));
        }
        if self.bootstrap {
            files.push(dist::script(dist));
            let installers = self.rustup_hosts.iter();
            files.extend(installers.filter_map(|host| dist::installer(dist, host)));
        }
        files
    }
}

/// The programs by which rustup replaces itself at the end of an install, one for each host. rustup downloads its
/// program if `release-stable.toml` names another version than its own, which larder does not know.
///
/// # Errors
/// The file names no version, so that the programs cannot be told.
pub(crate) fn self_updates(
    dist: &Arc<Dist>,
    hosts: &[String],
    release: &[u8],
) -> Result<Vec<Resource>, Problem> {
    let version = dist::released_version(release);
    let version = version.ok_or_else(|| Problem::new(dist::release(dist), "names no version"))?;
    let programs = hosts.iter();
    Ok(programs
        .filter_map(|host| dist::self_update(dist, &version, host))
        .collect())
}

/// The members of a project whose cargo reads other settings files than in the project's folder. Blocking.
fn members_with_settings(
    project: &Project,
    home: Option<&Path>,
    includes: Includes,
) -> Vec<PathBuf> {
    let root = CargoConfig::read(&project.folder, home, includes);
    let folders = project.members.iter().map(|member| member.folder.clone());
    let differs = |folder: &PathBuf| !CargoConfig::read(folder, home, includes).is_same(&root);
    folders.filter(differs).collect()
}

impl ProjectPlan {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            lock: None,
            requested_lock: None,
            includes: Includes::default(),
            deciding_include: None,
            cargo_home: None,
            script: None,
            named: None,
            members: Vec::new(),
            toolchains: BTreeSet::new(),
            packages: PackageSet::default(),
            library: PackageSet::default(),
            agreement: Agreement::default(),
            unknown: Vec::new(),
        }
    }

    /// Reads the project's lock file or script; a failure becomes a problem of its packages.
    fn read(
        project: Project,
        cargo_home: Option<PathBuf>,
        defaults: &InstallDefaults,
        registries: &Registries,
    ) -> Self {
        let home = cargo_home.as_deref();
        let (includes, mut deciding_include) = defaults.includes_of(&project, home);
        for member in project.in_members() {
            // Members are taken for built by the project's cargo.
            deciding_include = deciding_include.or(defaults.includes_of(&member, home).1);
        }
        let mut plan = Self {
            toolchains: toolchains::owners_of(&project, defaults),
            members: members_with_settings(&project, home, includes),
            lock: project.lock.clone(),
            includes,
            deciding_include,
            cargo_home,
            ..Self::new(&project.folder)
        };
        let unstable = || defaults.unstable_toolchain(&project);
        plan.library = build_std::library_packages(unstable, plan.config(), registries);
        if let Some(path) = project.script {
            match Script::read(&path) {
                Ok(script) => plan.script = Some(script),
                Err(error) => {
                    plan.packages.fail(path.display(), error);
                    return plan;
                }
            }
        } else {
            plan.read_lock(registries);
        }
        // A lock file that the user named is meant, whatever the settings say.
        let is_default = plan
            .lock
            .as_ref()
            .is_none_or(|lock| lock.ends_with("Cargo.lock"));
        if is_default {
            plan.requested_lock = plan.config().lockfile_path();
        }
        plan
    }

    /// Reads the packages of the lock file, if there is one. Blocking.
    fn read_lock(&mut self, registries: &Registries) {
        if let Some(lock) = &self.lock {
            match PackageSet::read(lock, self.config(), registries) {
                Ok(read) => self.packages = read,
                Err(error) => self.packages.fail(lock.display(), error),
            }
            for config in self.member_configs() {
                if let Ok(read) = PackageSet::read(lock, config, registries) {
                    self.packages.merge(read);
                }
            }
        }
    }

    /// The settings of a cargo that works in each of [`ProjectPlan::members`]. Blocking.
    fn member_configs(&self) -> Vec<CargoConfig> {
        let (home, members) = (self.cargo_home.as_deref(), self.members.iter());
        let configs = members.map(|folder| CargoConfig::read(folder, home, self.includes));
        configs.collect()
    }

    /// The settings of a cargo that works in the project's folder. Blocking.
    fn config(&self) -> CargoConfig {
        CargoConfig::read(&self.folder, self.cargo_home.as_deref(), self.includes)
    }

    /// The path by which the user knows the project: its folder or its script.
    pub fn path(&self) -> &Path {
        self.script
            .as_ref()
            .map_or(&self.folder, |script| &script.path)
    }

    /// The name by which the user knows the project or crate.
    pub fn title(&self) -> String {
        match &self.named {
            Some(named) => named.owner().to_string(),
            None => self.path().display().to_string(),
        }
    }

    /// The project, to ask cargo about it.
    fn for_cargo(&self) -> CargoProject<'_> {
        CargoProject {
            folder: &self.folder,
            script: self.script.as_ref(),
            includes: self.includes,
        }
    }

    /// Tells if cargo would have to make a lock file.
    fn is_unlocked(&self) -> bool {
        self.lock.is_none() && self.packages.failed.is_empty()
    }

    /// The crate or file that owns the packages: the lock file there is, the script, or the lock file that cargo would
    /// write.
    pub fn owner(&self) -> Owner {
        if let Some(named) = &self.named {
            return named.owner();
        }
        let script = self.script.as_ref().map(|script| script.path.clone());
        let file = self.lock.clone().or(script);
        let file = file.unwrap_or_else(|| self.folder.join("Cargo.lock"));
        Owner::File(std::path::absolute(&file).unwrap_or(file))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{hash::Sha256, store::PinnedCrate};

    const LOCK: &str = "version = 4\n\n\
        [[package]]\nname = 'left'\nversion = '1.0.0'\nsource = 'registry+https://corp.example/index'\n\n\
        [[package]]\nname = 'right'\nversion = '2.0.0'\nsource = 'sparse+https://corp.example/index/'\n";

    fn registries() -> Registries {
        let url = |text: &str| text.parse().expect("a URL");
        Registries::new(
            url("https://mirror.example/"),
            [("corp".to_owned(), url("https://corp.example/index/"))],
        )
    }

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(set: &PackageSet) -> Vec<(&str, bool)> {
        let packages = set.packages.iter();
        packages
            .map(|package| (package.name.as_str(), package.is_excluded))
            .collect()
    }

    fn pin(owner: PathBuf) -> Pin {
        Pin {
            owner: Owner::File(owner),
            packages: Vec::new(),
            archives: Vec::<Sha256>::new(),
            sizes: BTreeMap::new(),
            offered: Vec::new(),
            entries: None,
        }
    }

    #[tokio::test]
    async fn plans_projects_in_the_order_of_their_folders() {
        let top = folder(&[
            ("b/Cargo.lock", LOCK),
            ("a/Cargo.lock", "not a lock file"),
            ("c/Cargo.toml", "[package]\nname = 'c'\n"),
        ]);
        let paths = vec![top.path().to_owned()];
        let request = PlanRequest {
            paths,
            ..PlanRequest::default()
        };
        let plan = plan(request, &registries()).await;
        let found: Vec<_> = plan
            .projects
            .iter()
            .map(|project| {
                let folder = project.folder.file_name().unwrap().to_str().unwrap();
                let packages = &project.packages;
                (folder, packages.packages.len(), packages.failed.len())
            })
            .collect();
        assert_eq!(found, [("a", 0, 1), ("b", 1, 0), ("c", 0, 0)]);
        let skipped = &plan.projects[1].packages.skipped;
        assert_eq!(skipped.len(), 1, "a git index is another registry");
        assert!(plan.projects[2].lock.is_none());
        assert_eq!(plan.failed, []);
    }

    #[tokio::test]
    async fn a_pin_is_planned_from_its_lock_file_as_it_is_now() {
        let top = folder(&[("Cargo.lock", LOCK)]);
        let mut pin = pin(top.path().join("Cargo.lock"));
        pin.packages.push(PinnedCrate {
            registry: "corp".to_owned(),
            name: "right".to_owned(),
            version: "2.0.0".to_owned(),
            checksum: None,
            is_excluded: true,
        });
        let plan = of_pin(pin.clone(), None, None, &registries())
            .await
            .unwrap();
        let plan = plan.expect("a file owns the pin");
        assert_eq!(names(&plan.projects[0].packages), [("right", true)]);
        assert_eq!(plan.projects[0].owner(), pin.owner);

        pin.packages[0].version = "1.9.0".to_owned();
        let plan = of_pin(pin, None, None, &registries())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(names(&plan.projects[0].packages), [("right", false)]);
    }

    #[tokio::test]
    async fn a_pin_of_a_toolchain_file_is_planned_for_the_user_s_host() {
        let top = folder(&[
            ("rust-toolchain.toml", "[toolchain]\nchannel = '1.90.0'\n"),
            (
                "settings.toml",
                "version = '12'\ndefault_host_triple = 'aarch64-apple-darwin'\n",
            ),
        ]);
        let settings = Some(top.path().join("settings.toml"));
        let pin = pin(top.path().join("rust-toolchain.toml"));
        let owner = pin.owner.clone();
        let plan = of_pin(pin, settings, None, &registries())
            .await
            .unwrap()
            .unwrap();
        let installs: Vec<_> = plan.installs().into_iter().collect();
        assert_eq!(installs.len(), 1);
        assert_eq!(installs[0].0.to_string(), "1.90.0-aarch64-apple-darwin");
        assert_eq!(installs[0].1, [owner]);
    }

    #[tokio::test]
    async fn a_pin_without_its_file_or_without_a_file_has_no_plan() {
        let top = folder(&[("broken/Cargo.lock", "<html>")]);
        let gone = of_pin(
            pin(top.path().join("Cargo.lock")),
            None,
            None,
            &registries(),
        )
        .await;
        assert!(gone.is_err_and(|error| error.is_missing_file()));
        let broken = of_pin(
            pin(top.path().join("broken/Cargo.lock")),
            None,
            None,
            &registries(),
        )
        .await;
        assert!(broken.is_err_and(|error| !error.is_missing_file()));
        let named = Pin {
            owner: Owner::Toolchain("stable".to_owned()),
            ..pin(PathBuf::new())
        };
        assert!(
            of_pin(named, None, None, &registries())
                .await
                .unwrap()
                .is_none()
        );
    }
}
