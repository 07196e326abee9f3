//! Fills the larder from lock files: projects to packages, packages to resources, resources through the cache's one path,
//! all in parallel; then a report. Has no fetching code; lock files are `lockfile`'s, finding them `projects`'.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    cache::{Cache, Demand, Ensured, Outcome},
    error::Error,
    hash::Sha256,
    lockfile::{self, Source},
    projects,
    resource::{CrateFile, IndexEntry, Registry, Resource, Upstreams},
    scratch::Scratch,
    server::{self, H2c, Server, guard::Hosts},
    store::{Pin, Pinned, Store},
};

/// How long an outage may last before what is missing counts as failed, and how often to look.
const BLIP: Duration = Duration::from_secs(10);
const BLIP_PAUSE: Duration = Duration::from_millis(500);

/// What to warm, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folders, lock files or manifests.
    pub paths: Vec<PathBuf>,
    /// Fetches at a time.
    pub jobs: usize,
    /// Whether every index entry is asked about, stored or not.
    pub refresh: bool,
    /// Whether to stop before fetching.
    pub dry_run: bool,
    /// Only what builds for these need; all, if empty.
    pub targets: Vec<String>,
    /// Cargo's program.
    pub cargo: PathBuf,
    /// Hosts that the user reaches without a proxy.
    pub no_proxy: OsString,
    /// A folder for scratch work.
    pub scratch: PathBuf,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Projects found.
    pub projects: usize,
    /// Distinct packages of known registries in their lock files.
    pub packages: usize,
    /// Crates that were fetched; in a dry run, that would be.
    pub fetched: usize,
    /// Crates that were there.
    pub cached: usize,
    /// Bytes fetched: crates and index entries.
    pub bytes: u64,
    /// Time taken, in seconds.
    pub seconds: f64,
    /// What could not be had.
    pub failed: Vec<Problem>,
    /// What larder does not cover.
    pub skipped: Vec<Problem>,
}

/// One thing that is not in the larder now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Which thing.
    pub what: String,
    /// Why.
    pub why: String,
}

/// How far the work has come, for whoever shows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Packages in all; 0 while lock files are read.
    pub total: usize,
    /// Packages done with.
    pub done: usize,
    /// Bytes fetched.
    pub bytes: u64,
}

/// One crate to have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    registry: String,
    name: String,
    version: String,
    /// The lock file's word on its hash.
    checksum: Option<Sha256>,
}

/// A project with what its lock file asks for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) folder: PathBuf,
    pub(crate) lock: Option<PathBuf>,
    pub(crate) packages: Vec<Pinned>,
    /// What larder does not cover.
    pub(crate) skipped: Vec<Problem>,
    /// What cannot be read.
    pub(crate) failed: Vec<Problem>,
}

/// Reads the lock files of all projects below `paths`, in parallel.
pub(crate) async fn plan(paths: Vec<PathBuf>, upstreams: &Upstreams) -> (Vec<Plan>, Vec<Problem>) {
    let found = tokio::task::spawn_blocking(move || projects::find(&paths))
        .await
        .unwrap_or_default();
    let problems = found.problems.into_iter().map(|problem| Problem {
        what: problem.path.display().to_string(),
        why: problem.text,
    });
    let mut reads = JoinSet::new();
    for project in found.projects {
        let upstreams = upstreams.clone();
        reads.spawn_blocking(move || {
            let mut plan = Plan {
                folder: project.folder,
                lock: project.lock.clone(),
                packages: Vec::new(),
                skipped: Vec::new(),
                failed: Vec::new(),
            };
            if let Some(lock) = project.lock {
                match std::fs::read(&lock) {
                    Ok(text) => plan.read(&lock, &text, &upstreams),
                    Err(cause) => plan.fail(&lock, format!("cannot be read: {cause}")),
                }
            }
            plan
        });
    }
    let mut plans = reads.join_all().await;
    plans.sort_by(|a, b| a.folder.cmp(&b.folder));
    (plans, problems.collect())
}

impl Plan {
    fn fail(&mut self, lock: &Path, why: String) {
        self.failed.push(Problem {
            what: lock.display().to_string(),
            why,
        });
    }

    /// Takes the packages from a lock file's text.
    fn read(&mut self, lock: &Path, text: &[u8], upstreams: &Upstreams) {
        let parsed = std::str::from_utf8(text)
            .map_err(|_| "is not UTF-8".to_owned())
            .and_then(|text| lockfile::parse(text).map_err(|error| error.to_string()));
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(why) => return self.fail(lock, why),
        };
        for invalid in parsed.invalid {
            self.fail(lock, invalid.to_string());
        }
        for package in parsed.packages {
            let what = format!("{} {}", package.name, package.version);
            let registry = match &package.source {
                Source::Local => continue,
                Source::CratesIo => Some(upstreams.registries.crates_io()),
                Source::Registry(index) => upstreams.registries.iter().find(|registry| {
                    lockfile::canonical_index(&format!("sparse+{}", registry.index())).as_ref()
                        == Some(index)
                }),
                Source::Git(url) => {
                    let why = format!("comes from git ({url}), which larder does not hold");
                    self.skipped.push(Problem { what, why });
                    continue;
                }
            };
            match (registry, &package.source) {
                (Some(registry), _) => self.packages.push(Pinned {
                    registry: registry.name().to_owned(),
                    name: package.name,
                    version: package.version,
                    checksum: package.checksum.as_deref().and_then(Sha256::parse),
                }),
                (None, Source::Registry(index)) => {
                    let why = format!(
                        "comes from {index}, which is not configured here; add it as `[registry.NAME]`"
                    );
                    self.skipped.push(Problem { what, why });
                }
                (None, Source::Local | Source::CratesIo | Source::Git(_)) => {}
            }
        }
    }
}

/// Warms. `progress` is told how far it has come.
pub async fn warm(
    cache: &Cache,
    store: &Arc<dyn Store>,
    upstreams: &Upstreams,
    options: Options,
    progress: watch::Sender<Progress>,
) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    let (mut plans, problems) = plan(options.paths.clone(), upstreams).await;
    report.projects = plans.len();
    report.failed.extend(problems);

    let mut needed: Option<BTreeSet<(String, String)>> = None;
    if plans.iter().any(|plan| plan.lock.is_none()) || !options.targets.is_empty() {
        if options.dry_run {
            let unlocked = plans.iter().filter(|plan| plan.lock.is_none());
            report.skipped.extend(unlocked.map(|plan| {
                Problem {
                    what: plan.folder.display().to_string(),
                    why: "has no Cargo.lock; without --dry-run, one is made in a scratch folder"
                        .to_owned(),
                }
            }));
        } else {
            let with_cargo = WithCargo {
                cache,
                upstreams,
                options: &options,
            };
            match with_cargo.run(&mut plans).await {
                Ok(narrowed) => needed = narrowed,
                Err(problem) => report.failed.push(problem),
            }
        }
    }

    let mut packages = BTreeSet::new();
    for plan in &mut plans {
        report.failed.append(&mut plan.failed);
        report.skipped.append(&mut plan.skipped);
        packages.extend(plan.packages.iter().cloned().map(Package::from));
    }
    report.packages = packages.len();
    progress.send_modify(|progress| progress.total = packages.len());

    let room = Arc::new(Semaphore::new(options.jobs));
    let mut work = JoinSet::new();
    for package in packages {
        let Some(registry) = upstreams.registries.named(&package.registry).cloned() else {
            continue;
        };
        let wants_crate = needed
            .as_ref()
            .is_none_or(|needed| needed.contains(&(package.name.clone(), package.version.clone())));
        let one = One {
            cache: cache.clone(),
            registry,
            package,
            wants_crate,
            refresh: options.refresh,
        };
        let (store, room, dry_run) = (store.clone(), room.clone(), options.dry_run);
        work.spawn(async move {
            let _permit = room.acquire_owned().await;
            if dry_run {
                one.look(&*store).await
            } else {
                one.have().await
            }
        });
    }
    while let Some(done) = work.join_next().await {
        match done {
            Ok(Ok(had)) => {
                report.bytes += had.bytes;
                match had.fetched {
                    Some(true) => report.fetched += 1,
                    Some(false) => report.cached += 1,
                    None => {}
                }
            }
            Ok(Err(problem)) => report.failed.push(problem),
            Err(died) => report.failed.push(Problem {
                what: "a fetch".to_owned(),
                why: died.to_string(),
            }),
        }
        progress.send_modify(|progress| {
            progress.done += 1;
            progress.bytes = report.bytes;
        });
    }

    if !options.dry_run {
        for plan in plans.into_iter().filter(|plan| !plan.packages.is_empty()) {
            let lock = plan.lock.unwrap_or_else(|| plan.folder.join("Cargo.lock"));
            let lock = std::path::absolute(&lock).unwrap_or(lock);
            let pin = Pin {
                lock,
                packages: plan.packages,
            };
            if let Err(error) = store.put_pin(&pin).await {
                let what = pin.lock.display().to_string();
                report.failed.push(Problem {
                    what,
                    why: format!("cannot be registered: {error}"),
                });
            }
        }
    }
    report.failed.sort();
    report.skipped.sort();
    report.skipped.dedup();
    report.seconds = began.elapsed().as_secs_f64();
    report
}

impl From<Pinned> for Package {
    fn from(pinned: Pinned) -> Self {
        Self {
            registry: pinned.registry,
            name: pinned.name,
            version: pinned.version,
            checksum: pinned.checksum,
        }
    }
}

/// One package on its way into the larder.
struct One {
    cache: Cache,
    registry: Arc<Registry>,
    package: Package,
    wants_crate: bool,
    refresh: bool,
}

/// How a package was had.
struct Had {
    /// Whether its crate was fetched; `None` if it is not wanted.
    fetched: Option<bool>,
    /// Bytes fetched.
    bytes: u64,
}

impl One {
    fn problem(&self, why: impl ToString) -> Problem {
        Problem {
            what: format!("{} {}", self.package.name, self.package.version),
            why: why.to_string(),
        }
    }

    /// Like [`Cache::ensure`], but outlasts an outage that may yet be a blip: nothing is gained by failing fast here.
    async fn ensure(&self, resource: &Resource, demand: Demand) -> Result<Ensured, Problem> {
        loop {
            match self.cache.ensure(resource, demand).await {
                Err(Error::Down { since, .. }) if since < BLIP => {
                    tokio::time::sleep(BLIP_PAUSE).await
                }
                Err(error) => return Err(self.problem(error.with_hint())),
                Ok(ensured) => return Ok(ensured),
            }
        }
    }

    /// Makes sure that the package is stored: its index entry, which must list it, and its crate.
    async fn have(&self) -> Result<Had, Problem> {
        let Some(entry) = IndexEntry::of(&self.registry, &self.package.name) else {
            return Err(self.problem("has a name that no crate can have"));
        };
        let mut bytes = 0;
        let mut demand = if self.refresh {
            Demand::Refresh
        } else {
            Demand::Stored
        };
        let checksum = loop {
            let had = self.ensure(&entry, demand).await?;
            if had.outcome == Outcome::Miss {
                bytes += had.bytes;
            }
            if self.refresh && matches!(had.outcome, Outcome::Stale(_)) {
                return Err(
                    self.problem("its index entry could not be refreshed; the stored one was kept")
                );
            }
            let body = had.entry.unwrap_or_default();
            match IndexEntry::checksum(&body, &self.package.version) {
                Some(checksum) => break checksum,
                // The stored entry is older than the lock file.
                None if demand == Demand::Stored && had.outcome == Outcome::Hit => {
                    demand = Demand::Refresh
                }
                None => return Err(self.problem("its index entry does not list that version")),
            }
        };
        if let Some(locked) = self.package.checksum.filter(|locked| *locked != checksum) {
            let why = format!(
                "the lock file says sha256 {locked}, the index says {checksum}; one of them was tampered with"
            );
            return Err(self.problem(why));
        }
        if !self.wants_crate {
            return Ok(Had {
                fetched: None,
                bytes,
            });
        }
        let Some(file) = CrateFile::of(
            &self.registry,
            &self.package.name,
            &self.package.version,
            Some(checksum),
        ) else {
            return Err(self.problem("has a version that no crate can have"));
        };
        let had = self.ensure(&file, Demand::Stored).await?;
        let fetched = had.outcome != Outcome::Hit;
        Ok(Had {
            fetched: Some(fetched),
            bytes: bytes + if fetched { had.bytes } else { 0 },
        })
    }

    /// Tells whether it is stored, and fetches nothing.
    async fn look(&self, store: &dyn Store) -> Result<Had, Problem> {
        let is_held = missing(&self.cache, store, &self.registry, &self.package)
            .await
            .is_none();
        Ok(Had {
            fetched: Some(!is_held),
            bytes: 0,
        })
    }
}

/// What of a package is missing from the store; `None` if nothing is.
async fn missing(
    cache: &Cache,
    store: &dyn Store,
    registry: &Arc<Registry>,
    package: &Package,
) -> Option<String> {
    let listed = match IndexEntry::of(registry, &package.name) {
        Some(entry) => cache
            .peek(&entry)
            .await
            .and_then(|body| IndexEntry::checksum(&body, &package.version)),
        None => None,
    };
    let title = format!("{} {}", package.name, package.version);
    let Some(listed) = listed else {
        return Some(format!("index entry of `{title}`"));
    };
    if package.checksum.is_some_and(|locked| locked != listed) {
        return Some(format!(
            "crate `{title}` with the hash that the lock file wants"
        ));
    }
    match store.holds(vec![listed]).await.as_deref() {
        Ok([true]) => None,
        Ok(_) | Err(_) => Some(format!("crate `{title}`")),
    }
}

/// What of a project's packages is missing from the store, by name.
pub(crate) async fn all_missing(
    cache: &Cache,
    store: &dyn Store,
    upstreams: &Upstreams,
    plan: &Plan,
) -> Vec<String> {
    let mut names = Vec::new();
    for pinned in &plan.packages {
        let Some(registry) = upstreams.registries.named(&pinned.registry) else {
            continue;
        };
        names.extend(missing(cache, store, registry, &Package::from(pinned.clone())).await);
    }
    names
}

/// The part of warming that needs the user's own cargo: it talks to a larder of ours on a free port.
struct WithCargo<'a> {
    cache: &'a Cache,
    upstreams: &'a Upstreams,
    options: &'a Options,
}

impl WithCargo<'_> {
    /// Makes lock files where there are none, and returns what the targets need, if any were named.
    async fn run(&self, plans: &mut [Plan]) -> Result<Option<BTreeSet<(String, String)>>, Problem> {
        let problem = |why: String| Problem {
            what: "a larder for cargo".to_owned(),
            why,
        };
        let listener = server::listen(([127, 0, 0, 1], 0).into())
            .await
            .map_err(|cause| problem(cause.to_string()))?;
        let address = listener
            .local_addr()
            .map_err(|cause| problem(cause.to_string()))?;
        let server = Server {
            cache: self.cache.clone(),
            upstreams: self.upstreams.clone(),
            hosts: Hosts::new(&[address], &[]),
            h2c: H2c::On,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server::run(vec![listener], Arc::new(server), async {
            let _ = stopped.await;
        }));
        let scratch = Scratch {
            cargo: self.options.cargo.clone(),
            registry_address: format!("http://{address}/"),
            folder: self.options.scratch.clone(),
            no_proxy: self.options.no_proxy.clone(),
        };
        let mut needed = BTreeSet::new();
        for plan in plans.iter_mut() {
            let text = match &plan.lock {
                Some(lock) => tokio::fs::read_to_string(lock).await.ok(),
                None => match scratch.make_lock(&plan.folder).await {
                    Ok(text) => {
                        let lock = plan.folder.join("Cargo.lock");
                        plan.read(&lock, text.as_bytes(), self.upstreams);
                        Some(text)
                    }
                    Err(error) => {
                        plan.fail(&plan.folder.clone(), chain(&error));
                        None
                    }
                },
            };
            let Some(text) = text else { continue };
            for target in &self.options.targets {
                match scratch.needed_for(&plan.folder, &text, target).await {
                    Ok(packages) => needed.extend(packages),
                    Err(error) => plan.fail(&plan.folder.clone(), chain(&error)),
                }
            }
        }
        drop(stop);
        let _ = serving.await;
        Ok((!self.options.targets.is_empty()).then_some(needed))
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
