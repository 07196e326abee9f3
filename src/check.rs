//! Flight readiness: which projects could be built from the store alone, and what is missing. Asks no network and writes
//! nothing; reading lock files and toolchain files is shared with `warm`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::Serialize;

use crate::{
    cache::Cache,
    plan::{PackageSet, Problem, ToolchainPlan, ToolchainRequest, plan},
    resource::Upstreams,
    store::{Owner, Store},
    toolchain::Install,
    warm::{Mode, ToolchainFetcher, missing_packages},
};

/// The verdict on all projects and toolchains.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Whether all are ready.
    pub ready: bool,
    /// One verdict for each project.
    pub projects: Vec<ProjectReadiness>,
    /// One verdict for each toolchain file and each toolchain that was named.
    pub toolchains: Vec<ToolchainReadiness>,
    /// Paths that could not be looked at, and what is missing for no one project.
    pub failed: Vec<Problem>,
}

/// The verdict on one project.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectReadiness {
    /// Its folder.
    pub path: PathBuf,
    /// Whether it could be built offline.
    pub ready: bool,
    /// How many packages of registries its lock file names.
    pub packages: usize,
    /// What is missing, by name.
    pub missing: Vec<String>,
}

/// The verdict on the toolchains that one file, or the user, asks for.
#[derive(Clone, Debug, Serialize)]
pub struct ToolchainReadiness {
    /// The file; `None` if the user named the toolchain.
    pub path: Option<PathBuf>,
    /// The toolchains, as rustup names them.
    pub names: Vec<String>,
    /// Whether they could be installed offline.
    pub ready: bool,
    /// How many archives they consist of, as far as manifests are stored.
    pub components: usize,
    /// What is missing, by name.
    pub missing: Vec<String>,
}

/// Looks at every project and toolchain file below `paths`, and at the toolchains that were named.
pub async fn check(
    cache: &Cache,
    store: &Arc<Store>,
    upstreams: &Upstreams,
    paths: Vec<PathBuf>,
    toolchains: ToolchainRequest,
) -> Readiness {
    let look = StoreCheck {
        fetcher: ToolchainFetcher {
            cache: cache.clone(),
            store: store.clone(),
            dist: upstreams.dist.clone(),
            mode: Mode::Check,
        },
        upstreams,
    };
    let bootstrap = toolchains.bootstrap;
    let plan = plan(paths, toolchains, upstreams).await;
    let mut failed = plan.failed;
    let (mut projects, mut verdicts, mut known) = (Vec::new(), Vec::new(), BTreeMap::new());
    for toolchain in &plan.toolchains {
        verdicts.push(look.toolchain(toolchain, &mut known).await);
    }
    if !known.is_empty() || bootstrap {
        failed.extend(look.fetcher.extras(&plan.hosts, bootstrap).await);
    }
    for project in plan.projects {
        let mut missing = Vec::new();
        if project.lock.is_none() {
            missing.push("Cargo.lock: without one, versions are chosen anew; make one with `cargo generate-lockfile`".to_owned());
        }
        missing.extend(look.wanted(&project.wanted).await);
        let absolute = |path: &PathBuf| std::path::absolute(path).ok();
        let file = project.toolchain_file.as_ref().and_then(absolute);
        let toolchain = verdicts
            .iter()
            .find(|verdict| verdict.path.is_some() && verdict.path == file);
        if let Some(toolchain) = toolchain.filter(|verdict| !verdict.ready) {
            missing.push(toolchain.title());
        }
        projects.push(ProjectReadiness {
            path: project.folder,
            ready: missing.is_empty(),
            packages: project.wanted.packages.len(),
            missing,
        });
    }
    let ready = failed.is_empty()
        && projects.iter().all(|project| project.ready)
        && verdicts.iter().all(|verdict| verdict.ready);
    Readiness {
        ready,
        projects,
        toolchains: verdicts,
        failed,
    }
}

impl ToolchainReadiness {
    /// What it is about, for people.
    pub fn title(&self) -> String {
        let names = match self.names.as_slice() {
            [] => String::new(),
            names => format!("toolchain {}", names.join(", ")),
        };
        match &self.path {
            Some(path) if names.is_empty() => path.display().to_string(),
            Some(path) => format!("{names} of {}", path.display()),
            None => names,
        }
    }
}

struct StoreCheck<'a> {
    fetcher: ToolchainFetcher,
    upstreams: &'a Upstreams,
}

impl StoreCheck<'_> {
    async fn toolchain(
        &self,
        plan: &ToolchainPlan,
        known: &mut BTreeMap<Install, (usize, Vec<String>)>,
    ) -> ToolchainReadiness {
        let mut missing = texts(&plan.failed);
        missing.extend(texts(&plan.skipped));
        let mut components = 0;
        for install in &plan.installs {
            if !known.contains_key(install) {
                known.insert(install.clone(), self.install(install).await);
            }
            let (count, lacking) = &known[install];
            components += count;
            missing.extend_from_slice(lacking);
        }
        ToolchainReadiness {
            path: match &plan.owner {
                Owner::File(path) => Some(path.clone()),
                Owner::Toolchain(_) => None,
            },
            names: match &plan.owner {
                Owner::Toolchain(name) if plan.installs.is_empty() => vec![name.clone()],
                Owner::Toolchain(_) | Owner::File(_) => {
                    plan.installs.iter().map(ToString::to_string).collect()
                }
            },
            ready: missing.is_empty(),
            components,
            missing,
        }
    }

    /// How many archives a toolchain consists of, and what is missing.
    async fn install(&self, install: &Install) -> (usize, Vec<String>) {
        let files = match self.fetcher.release(install).await {
            Ok(files) => files,
            Err(problem) => return (0, vec![problem.why]),
        };
        let mut missing = Vec::new();
        for file in &files {
            match self.fetcher.archive(file).await {
                Ok(had) if !self.fetcher.has(had) => {
                    missing.push(format!("component `{}` for {}", file.package, file.target))
                }
                Ok(_) if file.is_rust_src() => missing.extend(self.library(file).await),
                Ok(_) => {}
                Err(problem) => missing.push(problem.to_string()),
            }
        }
        (files.len(), missing)
    }

    /// What of the packages is missing that the standard library is built from.
    async fn library(&self, file: &crate::toolchain::DistFile) -> Vec<String> {
        match self.fetcher.library_lock(file).await {
            Ok(lock) => {
                let mut wanted = PackageSet::default();
                wanted.read("the standard library's Cargo.lock", &lock, self.upstreams);
                self.wanted(&wanted).await
            }
            Err(problem) => vec![problem.to_string()],
        }
    }

    async fn wanted(&self, wanted: &PackageSet) -> Vec<String> {
        let mut missing = texts(&wanted.failed);
        let ToolchainFetcher { cache, store, .. } = &self.fetcher;
        missing.extend(missing_packages(cache, store, self.upstreams, &wanted.packages).await);
        missing.extend(texts(&wanted.skipped));
        missing
    }
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}
