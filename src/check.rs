//! `larder check`: which projects could be built, and which toolchains and crates installed, from the store alone.
//!
//! ```text
//!  Plan ─> Inventory: is each index entry, crate, manifest and archive stored? ─> Readiness
//! ```
//!
//! A check asks no network and writes nothing. It reads names and sizes of crates and archives. It rehashes, in
//! parallel, those whose size no `warm` has recorded, and with `--verify` all of them. A project is ready only if its
//! lock file fits its manifests too, which the plan knows already. `warm` judges its own plan with the same function,
//! so that both commands agree.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use crate::{
    cache::Cache,
    crate_spec::CrateUse,
    plan::{
        Agreement, BlobState, Inventory, NamedCrate, PackageSet, Plan, Problem, ProjectPlan,
        ToolchainPlan,
        release::{self, Homes},
        self_updates,
    },
    resource::{Upstreams, dist},
    store::{Owner, Store, StoreError},
    toolchain::Install,
};

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// True if all projects, crates and toolchains are ready, and nothing failed.
    pub ready: bool,
    /// One for each project.
    pub projects: Vec<ProjectReadiness>,
    /// One for each crate that the user named.
    pub crates: Vec<CrateReadiness>,
    /// One for each toolchain file and each toolchain that the user named.
    pub toolchains: Vec<ToolchainReadiness>,
    /// The manifests of packages inside these projects that have a lock file of their own to make. They were not
    /// checked.
    #[serde(serialize_with = "as_path_texts")]
    pub not_covered: Vec<PathBuf>,
    /// Paths that cannot be read, and missing files that belong to no single project.
    pub failed: Vec<Problem>,
}

/// The result for one project.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectReadiness {
    /// Its folder.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// True if it could be built offline.
    pub ready: bool,
    /// Number of packages of configured registries in its lock file.
    pub packages: usize,
    /// The missing parts.
    #[serde(serialize_with = "as_texts")]
    pub missing: Vec<Problem>,
    /// Reasons why it cannot be told whether the project is ready. Then it counts as not ready.
    pub unknown: Vec<String>,
}

/// The result for one crate that the user named.
#[derive(Clone, Debug, Serialize)]
pub struct CrateReadiness {
    /// The crate, as `NAME[@VERSION]`.
    pub name: String,
    /// The version that `cargo install` would choose; `None` if there is none, or for a dependency.
    pub version: Option<String>,
    /// True if it was checked as a dependency, not for `cargo install --locked`.
    pub with_dependencies: bool,
    /// True if its archive has a lock file. Without one, `cargo install` resolves.
    pub has_lock: bool,
    /// True if it could be installed or added offline.
    pub ready: bool,
    /// Number of packages of configured registries that it needs, itself included.
    pub packages: usize,
    /// The missing parts.
    #[serde(serialize_with = "as_texts")]
    pub missing: Vec<Problem>,
    /// Reasons why it cannot be told whether the crate is ready. Then it counts as not ready.
    pub unknown: Vec<String>,
}

/// The result for the toolchains that one file, or the user, asks for.
#[derive(Clone, Debug, Serialize)]
pub struct ToolchainReadiness {
    /// The toolchain file; `None` if the user named the toolchain.
    #[serde(serialize_with = "as_optional_text")]
    pub path: Option<PathBuf>,
    /// The toolchains, as rustup names them.
    pub names: Vec<String>,
    /// The reason for a toolchain that neither a file nor the user names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True if they could be installed offline.
    pub ready: bool,
    /// Number of archives, as far as manifests are stored.
    pub components: usize,
    /// The missing parts.
    #[serde(serialize_with = "as_texts")]
    pub missing: Vec<Problem>,
}

/// Checks every project and toolchain of a plan whose lock files were compared ([`Plan::compare_locks`]). `cache`
/// must be offline. With `verify`, every crate and archive that the answer depends on is rehashed.
///
/// # Errors
/// If the store cannot be read.
pub async fn check(
    cache: &Cache,
    store: &Arc<Store>,
    upstreams: &Upstreams,
    mut plan: Plan,
    verify: bool,
) -> Result<Readiness, StoreError> {
    let mut failed = std::mem::take(&mut plan.failed);
    let inventory = Inventory::new(cache, store, upstreams);
    inventory.learn_sizes(store.pins().await?);
    inventory.learn_foreign_indexes();
    let mut found = look_up(&inventory, &plan).await;
    let mut missing = missing_rustup_files(cache, &inventory, &plan, upstreams).await;
    // The first look-up finds out which files to rehash, the second one reports the damaged ones where they are needed.
    if inventory.rehash(verify).await? {
        found = look_up(&inventory, &plan).await;
        missing = missing_rustup_files(cache, &inventory, &plan, upstreams).await;
    }
    failed.extend(missing);
    let (toolchains, projects, crates) = found;
    let ready = failed.is_empty()
        && crates.iter().all(|one| one.ready)
        && projects.iter().all(|project| project.ready)
        && toolchains.iter().all(|toolchain| toolchain.ready);
    Ok(Readiness {
        ready,
        projects,
        crates,
        toolchains,
        not_covered: plan.not_covered,
        failed,
    })
}

async fn look_up(
    inventory: &Inventory,
    plan: &Plan,
) -> (
    Vec<ToolchainReadiness>,
    Vec<ProjectReadiness>,
    Vec<CrateReadiness>,
) {
    let mut check = Checker {
        inventory: inventory.clone(),
        known: BTreeMap::new(),
    };
    let mut toolchains = Vec::new();
    for toolchain in &plan.toolchains {
        toolchains.push(check.toolchain(toolchain).await);
    }
    let owners = plan.toolchains.iter().map(|toolchain| &toolchain.owner);
    let by_owner = owners.zip(&toolchains).collect();
    let (mut projects, mut crates) = (Vec::new(), Vec::new());
    for project in &plan.projects {
        let found = check.project(project, &by_owner).await;
        match &project.named {
            Some(named) => crates.push(CrateReadiness::new(named, project.lock.is_some(), found)),
            None => projects.push(found),
        }
    }
    (toolchains, projects, crates)
}

/// The files that rustup asks for besides manifests and archives, as far as they are missing.
async fn missing_rustup_files(
    cache: &Cache,
    inventory: &Inventory,
    plan: &Plan,
    upstreams: &Upstreams,
) -> Vec<Problem> {
    let dist = &upstreams.dist;
    let mut missing = Vec::new();
    let mut files = plan.rustup_files(dist, Homes::Own);
    // Without its release, rustup asks for no program.
    if !files.is_empty()
        && let Some(release) = cache.peek_complete(&dist::release(dist)).await
    {
        match self_updates(dist, &plan.rustup_hosts, &release) {
            Ok(programs) => files.extend(programs),
            Err(problem) => missing.push(problem),
        }
    }
    for file in files {
        let state = inventory.resource(&file).await;
        // An older larder may have stored a script that cannot be edited.
        if state == BlobState::Stored
            && let Some(body) = cache.peek(&file).await
            && let Err(error) = file.validate(&body)
        {
            let why = format_args!("the stored copy cannot be used: {error}");
            missing.push(Problem::new(file, why));
            continue;
        }
        missing.extend(
            state
                .missing(file)
                .map(|problem| match problem.why.as_str() {
                    // `failed` has a reason for each thing.
                    "" => Problem::new(problem.what, "is not stored").fetchable(),
                    _ => problem,
                }),
        );
    }
    missing
}

fn as_texts<S: Serializer>(problems: &[Problem], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(problems.iter().map(ToString::to_string))
}

/// JSON has no place for names that are not UTF-8. Other paths must not suffer for one.
fn as_path_texts<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn as_optional_text<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let path = path.as_ref().map(|path| path.display().to_string());
    path.serialize(serializer)
}

impl Readiness {
    /// All that is missing, for whatever reason.
    pub fn missing(&self) -> impl Iterator<Item = &Problem> {
        let projects = self.projects.iter().flat_map(|project| &project.missing);
        let crates = self.crates.iter().flat_map(|one| &one.missing);
        let toolchains = self.toolchains.iter();
        let toolchains = toolchains.flat_map(|toolchain| &toolchain.missing);
        projects.chain(crates).chain(toolchains).chain(&self.failed)
    }
}

impl CrateReadiness {
    fn new(named: &NamedCrate, has_lock: bool, found: ProjectReadiness) -> Self {
        let version = named
            .package
            .as_ref()
            .map(|package| package.version.clone());
        Self {
            name: named.spec.to_string(),
            version,
            with_dependencies: named.usage == CrateUse::Dependency,
            has_lock,
            ready: found.ready,
            packages: found.packages,
            missing: found.missing,
            unknown: found.unknown,
        }
    }

    /// The crate, for people.
    pub fn title(&self) -> String {
        let Self { name, version, .. } = self;
        match (self.with_dependencies, version) {
            (true, _) => format!("dependency {name}"),
            (false, Some(version)) if !name.ends_with(version.as_str()) => {
                format!("crate {name}, version {version}")
            }
            (false, _) => format!("crate {name}"),
        }
    }
}

impl ToolchainReadiness {
    /// This toolchain as a missing part of a project.
    fn as_missing(&self) -> Problem {
        let mut problem = Problem::new(self.title(), "");
        problem.is_fetchable = self.missing.iter().all(|missing| missing.is_fetchable);
        problem
    }

    /// The toolchains and their file, for people.
    pub fn title(&self) -> String {
        let mut names = match self.names.as_slice() {
            [] => String::new(),
            names => format!("toolchain {}", names.join(", ")),
        };
        if let Some(reason) = &self.reason {
            names = format!("{names} ({reason})");
        }
        match &self.path {
            Some(path) if names.is_empty() => path.display().to_string(),
            Some(path) => format!("{names} of {}", path.display()),
            None => names,
        }
    }
}

/// Archives of one toolchain: how many there are, and what is missing.
type InstallCheck = (usize, Vec<Problem>);

/// The command that brings the lock file of a project up to date.
fn fetch_command(project: &ProjectPlan) -> String {
    match &project.script {
        None => "`cargo fetch`".to_owned(),
        Some(script) => {
            let path = script.path.display();
            format!("`cargo -Zscript fetch --manifest-path {path}`")
        }
    }
}

/// A reason and the user's next step, which gets a line of its own after a text of several lines.
fn with_advice(why: &str, advice: &str) -> String {
    let separator = if why.contains('\n') { "\n" } else { "; " };
    format!("{why}{separator}{advice}")
}

struct Checker {
    inventory: Inventory,
    /// Several toolchain files may ask for one toolchain.
    known: BTreeMap<Install, InstallCheck>,
}

impl Checker {
    async fn project(
        &self,
        project: &ProjectPlan,
        toolchains: &BTreeMap<&Owner, &ToolchainReadiness>,
    ) -> ProjectReadiness {
        let mut missing = self.packages(&project.packages).await;
        missing.extend(self.packages(&project.library).await);
        let mut unknown = project.unknown.clone();
        match &project.agreement {
            Agreement::Fits => {}
            Agreement::Differs(why) if project.named.is_some() => missing.push(Problem::new(
                "the lock file in its archive does not fit its manifest",
                format_args!("{why}, and cargo could not complete it"),
            )),
            Agreement::Differs(why) => {
                let what = match &project.script {
                    None => "Cargo.lock does not fit Cargo.toml",
                    Some(_) => "the lock file does not fit the script",
                };
                let advice = format!("{} updates it, then `larder warm`", fetch_command(project));
                missing.push(Problem::new(what, with_advice(why, &advice)));
            }
            Agreement::OwnVersion(package) => {
                let fetch = fetch_command(project);
                let why = format!(
                    "it lacks {package}, so that `--locked` fails; {fetch} corrects it offline too"
                );
                let what = "Cargo.lock has another version of a package of yours";
                missing.push(Problem::new(what, why));
            }
            Agreement::Unresolved(why) => {
                let fetch = fetch_command(project);
                let advice = format!("{fetch} while online may help, then `larder warm`");
                let what = "cargo cannot resolve the project";
                missing.push(Problem::new(what, with_advice(why, &advice)));
            }
            Agreement::Unreadable(why) => {
                missing.push(Problem::new("cargo cannot read the project", why));
            }
            Agreement::Unclear(why) => unknown.push(format!(
                "whether Cargo.lock fits Cargo.toml cannot be told: {why}"
            )),
        }
        let owners = project.toolchains.iter();
        let owned = owners.filter_map(|owner| toolchains.get(owner));
        let unready = owned.filter(|toolchain| !toolchain.ready);
        missing.extend(unready.map(|toolchain| toolchain.as_missing()));
        ProjectReadiness {
            path: project.path().to_owned(),
            ready: missing.is_empty() && unknown.is_empty(),
            packages: project.packages.packages.len(),
            missing,
            unknown,
        }
    }

    async fn toolchain(&mut self, plan: &ToolchainPlan) -> ToolchainReadiness {
        let mut missing = [plan.failed.as_slice(), plan.skipped.as_slice()].concat();
        let mut components = 0;
        for install in &plan.installs {
            if !self.known.contains_key(install) {
                let checked = self.install(install).await;
                self.known.insert(install.clone(), checked);
            }
            let (count, install_missing) = &self.known[install];
            components += count;
            missing.extend_from_slice(install_missing);
        }
        ToolchainReadiness {
            path: match &plan.owner {
                Owner::File(path) => Some(path.clone()),
                Owner::Toolchain(_) | Owner::Crate(_) | Owner::Dependency(_) => None,
            },
            names: match &plan.owner {
                Owner::Toolchain(name) if plan.installs.is_empty() => vec![name.clone()],
                Owner::Toolchain(_) | Owner::File(_) | Owner::Crate(_) | Owner::Dependency(_) => {
                    plan.installs.iter().map(ToString::to_string).collect()
                }
            },
            reason: plan.reason.clone(),
            ready: missing.is_empty(),
            components,
            missing,
        }
    }

    async fn install(&self, install: &Install) -> InstallCheck {
        let files = match self.inventory.release(install).await {
            Ok(files) => files,
            Err(error) => return (0, vec![error.missing()]),
        };
        let mut missing = Vec::new();
        for file in &files {
            match self.inventory.archive(file).await {
                Ok(BlobState::Stored) if file.is_rust_src() => {
                    match self.inventory.library_packages(file).await {
                        Ok(packages) => missing.extend(self.packages(&packages).await),
                        Err(problem) => missing.push(problem),
                    }
                }
                Ok(state) => missing.extend(state.missing(release::archive_title(file))),
                Err(problem) => missing.push(problem),
            }
        }
        (files.len(), missing)
    }

    /// Everything that stands between these packages and an offline build.
    async fn packages(&self, set: &PackageSet) -> Vec<Problem> {
        let mut missing = set.failed.clone();
        missing.extend(self.inventory.missing_parts(&set.packages).await);
        missing.extend_from_slice(&set.skipped);
        missing
    }
}
