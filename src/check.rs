//! Flight readiness: which projects could be built from the store alone, and what is missing. Asks no network and writes
//! nothing; reading lock files is shared with `warm`.

use std::{path::PathBuf, sync::Arc};

use serde::Serialize;

use crate::{
    cache::Cache,
    resource::Upstreams,
    store::Store,
    warm::{Problem, all_missing, plan},
};

/// The verdict on all projects.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether all are ready.
    pub ready: bool,
    /// One verdict for each.
    pub projects: Vec<ProjectVerdict>,
    /// Paths that could not be looked at.
    pub failed: Vec<Problem>,
}

/// The verdict on one project.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectVerdict {
    /// Its folder.
    pub path: PathBuf,
    /// Whether it could be built offline.
    pub ready: bool,
    /// How many packages of registries its lock file names.
    pub packages: usize,
    /// What is missing, by name.
    pub missing: Vec<String>,
}

/// Looks at every project below `paths`.
pub async fn check(
    cache: &Cache,
    store: &Arc<dyn Store>,
    upstreams: &Upstreams,
    paths: Vec<PathBuf>,
) -> Verdict {
    let (plans, failed) = plan(paths, upstreams).await;
    let mut projects = Vec::new();
    for plan in plans {
        let mut missing = Vec::new();
        if plan.lock.is_none() {
            missing.push("Cargo.lock: without one, versions are chosen anew; make one with `cargo generate-lockfile`".to_owned());
        }
        missing.extend(
            plan.failed
                .iter()
                .map(|problem| format!("{} {}", problem.what, problem.why)),
        );
        missing.extend(all_missing(cache, &**store, upstreams, &plan).await);
        missing.extend(
            plan.skipped
                .iter()
                .map(|problem| format!("{}: {}", problem.what, problem.why)),
        );
        projects.push(ProjectVerdict {
            path: plan.folder,
            ready: missing.is_empty(),
            packages: plan.packages.len(),
            missing,
        });
    }
    let ready = failed.is_empty() && projects.iter().all(|project| project.ready);
    Verdict {
        ready,
        projects,
        failed,
    }
}
