//! What the files below the user's paths ask for: lock files to packages, toolchain files to installs. Reads the user's disk;
//! fetches nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    hash::Sha256,
    lockfile::{self, PackageSource},
    projects,
    resource::Upstreams,
    store::{Owner, PinnedCrate},
    toolchain::{self, Install, ToolchainFile, UserSettings},
};

/// The toolchains that are wanted beyond those of toolchain files, and what completes both.
#[derive(Clone, Debug, Default)]
pub struct ToolchainRequest {
    /// Their names, as rustup takes them.
    pub names: Vec<String>,
    /// Their profile; without it, the user's own.
    pub profile: Option<String>,
    /// Their components beyond the profile.
    pub components: Vec<String>,
    /// Their targets beyond the host.
    pub targets: Vec<String>,
    /// The triples that all toolchains run on; without any, the one of this machine.
    pub hosts: Vec<String>,
    /// Whether what installs rustup itself is wanted, too.
    pub bootstrap: bool,
    /// rustup's settings file.
    pub rustup_settings: Option<PathBuf>,
}

/// One thing that is not in the larder now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Which thing.
    pub what: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// All that is wanted.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By folder.
    pub(crate) projects: Vec<ProjectPlan>,
    /// By owner.
    pub(crate) toolchains: Vec<ToolchainPlan>,
    /// The triples that toolchains are for.
    pub(crate) hosts: Vec<String>,
    /// What could not be looked at.
    pub(crate) failed: Vec<Problem>,
}

/// A project with what its lock file asks for.
#[derive(Debug)]
pub(crate) struct ProjectPlan {
    pub(crate) folder: PathBuf,
    pub(crate) lock: Option<PathBuf>,
    pub(crate) toolchain_file: Option<PathBuf>,
    pub(crate) wanted: PackageSet,
}

/// The toolchains that one owner asks for.
#[derive(Debug)]
pub(crate) struct ToolchainPlan {
    pub(crate) owner: Owner,
    /// One for each host.
    pub(crate) installs: Vec<Install>,
    /// What larder does not cover.
    pub(crate) skipped: Vec<Problem>,
    /// What cannot be read.
    pub(crate) failed: Vec<Problem>,
}

/// What a lock file asks for.
#[derive(Debug, Default)]
pub(crate) struct PackageSet {
    pub(crate) packages: Vec<PinnedCrate>,
    /// What larder does not cover.
    pub(crate) skipped: Vec<Problem>,
    /// What cannot be read.
    pub(crate) failed: Vec<Problem>,
}

/// Reads the lock files and toolchain files of all projects below `paths`, in parallel.
pub(crate) async fn plan(
    paths: Vec<PathBuf>,
    toolchains: ToolchainRequest,
    upstreams: &Upstreams,
) -> Plan {
    let found = tokio::task::spawn_blocking(move || projects::find(&paths))
        .await
        .unwrap_or_default();
    let mut plan = Plan::default();
    plan.failed
        .extend(found.problems.into_iter().map(|problem| Problem {
            what: problem.path.display().to_string(),
            why: problem.text,
        }));
    let mut reads = JoinSet::new();
    for project in found.projects {
        let upstreams = upstreams.clone();
        reads.spawn_blocking(move || {
            let mut wanted = PackageSet::default();
            if let Some(lock) = &project.lock {
                match std::fs::read(lock) {
                    Ok(text) => wanted.read(&lock.display().to_string(), &text, &upstreams),
                    Err(cause) => wanted.fail(lock, format!("cannot be read: {cause}")),
                }
            }
            ProjectPlan {
                folder: project.folder,
                lock: project.lock,
                toolchain_file: project.toolchain_file,
                wanted,
            }
        });
    }
    let files = found.toolchain_files;
    let installs = tokio::task::spawn_blocking(move || read_toolchains(&files, &toolchains));
    plan.projects = reads.join_all().await;
    plan.projects.sort_by(|a, b| a.folder.cmp(&b.folder));
    match installs.await {
        Ok((toolchains, hosts)) => (plan.toolchains, plan.hosts) = (toolchains, hosts),
        Err(died) => plan.failed.push(Problem {
            what: "toolchain files".to_owned(),
            why: died.to_string(),
        }),
    }
    plan
}

fn read_toolchains(
    files: &[PathBuf],
    toolchains: &ToolchainRequest,
) -> (Vec<ToolchainPlan>, Vec<String>) {
    let settings = toolchains.rustup_settings.as_ref();
    let settings = settings.and_then(|path| std::fs::read_to_string(path).ok());
    let user = UserSettings::parse(&settings.unwrap_or_default());
    let mut hosts = toolchains.hosts.clone();
    if hosts.is_empty() {
        hosts.extend(user.host_triple(std::env::consts::ARCH, std::env::consts::OS));
    }
    let mut plans = Vec::new();
    for file in files {
        let owner = Owner::File(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
        let mut plan = ToolchainPlan::new(owner);
        match read_toolchain_file(file) {
            Ok(wanted) => plan.want(&file.display().to_string(), &wanted, &user, &hosts),
            Err(why) => plan.failed.push(Problem {
                what: file.display().to_string(),
                why,
            }),
        }
        plans.push(plan);
    }
    for name in &toolchains.names {
        let mut plan = ToolchainPlan::new(Owner::Toolchain(name.clone()));
        let wanted = toolchain::ToolchainSpec {
            channel: Some(name.clone()),
            profile: toolchains.profile.clone(),
            components: toolchains.components.clone(),
            targets: toolchains.targets.clone(),
            path: None,
        };
        plan.want(&format!("toolchain `{name}`"), &wanted, &user, &hosts);
        // Who names a toolchain wants it.
        plan.failed.append(&mut plan.skipped);
        plans.push(plan);
    }
    (plans, hosts)
}

fn read_toolchain_file(file: &Path) -> Result<toolchain::ToolchainSpec, String> {
    let text = std::fs::read_to_string(file).map_err(|cause| format!("cannot be read: {cause}"))?;
    let name = if file.extension().is_some() {
        ToolchainFile::Toml
    } else {
        ToolchainFile::Legacy
    };
    toolchain::parse_file(name, &text).map_err(|error| error.to_string())
}

impl ToolchainPlan {
    fn new(owner: Owner) -> Self {
        Self {
            owner,
            installs: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn want(
        &mut self,
        what: &str,
        wanted: &toolchain::ToolchainSpec,
        user: &UserSettings,
        hosts: &[String],
    ) {
        let what = what.to_owned();
        if hosts.is_empty() {
            let why = "which triple this machine is cannot be told; say `--host TRIPLE`".to_owned();
            return self.failed.push(Problem { what, why });
        }
        for host in hosts {
            match toolchain::install(wanted.clone(), user, host) {
                Ok(install) => self.installs.extend(install),
                Err(no) => self.skipped.push(Problem {
                    what: what.clone(),
                    why: no.to_string(),
                }),
            }
        }
        self.installs.sort();
        self.installs.dedup();
        self.skipped.dedup();
    }
}

impl PackageSet {
    pub(crate) fn fail(&mut self, what: &Path, why: String) {
        self.failed.push(Problem {
            what: what.display().to_string(),
            why,
        });
    }

    /// The names and versions of all packages.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (String, String)> {
        let packages = self.packages.iter();
        packages.map(|package| (package.name.clone(), package.version.clone()))
    }

    /// Leaves out the crates of all packages but these.
    pub(crate) fn exclude_all_but(&mut self, needed: &BTreeSet<(String, String)>) {
        for package in &mut self.packages {
            let id = (package.name.clone(), package.version.clone());
            package.is_excluded = !needed.contains(&id);
        }
    }

    /// Takes the packages from a lock file's text; `name` is for complaints about it.
    pub(crate) fn read(&mut self, name: &str, text: &[u8], upstreams: &Upstreams) {
        let parsed = std::str::from_utf8(text)
            .map_err(|_| "is not UTF-8".to_owned())
            .and_then(|text| lockfile::parse(text).map_err(|error| error.to_string()));
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(why) => return self.fail(Path::new(name), why),
        };
        for invalid in parsed.invalid {
            self.fail(Path::new(name), invalid.to_string());
        }
        for package in parsed.packages {
            let what = format!("{} {}", package.name, package.version);
            let registry = match &package.source {
                PackageSource::Local => continue,
                PackageSource::CratesIo | PackageSource::Registry(_) => {
                    package.source.registry(&upstreams.registries)
                }
                PackageSource::Git(url) => {
                    let why = format!("comes from git ({url}), which larder does not hold");
                    self.skipped.push(Problem { what, why });
                    continue;
                }
            };
            match (registry, &package.source) {
                (Some(registry), _) => self.packages.push(PinnedCrate {
                    registry: registry.name().to_owned(),
                    name: package.name,
                    version: package.version,
                    checksum: package.checksum.as_deref().and_then(Sha256::parse),
                    is_excluded: false,
                }),
                (None, PackageSource::Registry(index)) => {
                    let why = format!(
                        "comes from {index}, which is not configured here; add it as `[registry.NAME]`"
                    );
                    self.skipped.push(Problem { what, why });
                }
                (None, PackageSource::Local | PackageSource::CratesIo | PackageSource::Git(_)) => {}
            }
        }
    }
}

impl Plan {
    /// The distinct installs, each with those who want it.
    pub(crate) fn installs(&self) -> BTreeMap<Install, Vec<Owner>> {
        let mut installs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for plan in &self.toolchains {
            for install in &plan.installs {
                installs
                    .entry(install.clone())
                    .or_default()
                    .push(plan.owner.clone());
            }
        }
        installs
    }
}
