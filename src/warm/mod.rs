//! Fills the larder from lock files and toolchain files: projects to packages, packages to resources, resources through the
//! cache's one path, all in parallel; then a report. Has no fetching code; lock files are `lockfile`'s, finding them `projects`'.

mod toolchains;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

pub(crate) use toolchains::{Mode, ToolchainFetcher};

use crate::{
    cache::{Cache, Demand, Ensured, Outcome},
    error::{Error, chain},
    hash::Sha256,
    plan::{PackageSet, Plan, Problem, ProjectPlan, ToolchainRequest, plan},
    resource::{CrateFile, IndexEntry, Registry, RegistryConfig, Resource, Upstreams},
    scratch::Scratch,
    server::{self, H2c, Server, guard::Hosts},
    store::{Owner, Pin, PinnedCrate, Store},
    toolchain::DistFile,
};

/// How long an outage may last before what is missing counts as failed, and how often to look.
const OUTAGE_GRACE: Duration = Duration::from_secs(10);
const OUTAGE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What to warm, and how.
#[derive(Clone, Debug)]
pub struct WarmOptions {
    /// Folders, lock files or manifests.
    pub paths: Vec<PathBuf>,
    /// Fetches at a time.
    pub jobs: usize,
    /// Whether every index entry is asked about, stored or not.
    pub refresh: bool,
    /// Whether to stop before fetching.
    pub dry_run: bool,
    /// Only crates that builds for these need; all, if empty.
    pub targets: Vec<String>,
    /// The toolchains that are wanted beyond those of toolchain files.
    pub toolchains: ToolchainRequest,
    /// Cargo's program.
    pub cargo: PathBuf,
    /// Hosts that the user reaches without a proxy.
    pub no_proxy: OsString,
    /// A folder for scratch work.
    pub scratch: PathBuf,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WarmReport {
    /// Projects found.
    pub projects: usize,
    /// Distinct packages of known registries in their lock files.
    pub packages: usize,
    /// Crates that were fetched; in a dry run, that would be.
    pub fetched: usize,
    /// Crates that were there.
    pub cached: usize,
    /// Distinct toolchains.
    pub toolchains: usize,
    /// Their archives.
    pub components: usize,
    /// Archives that were fetched; in a dry run, that would be.
    pub components_fetched: usize,
    /// Archives that were there.
    pub components_cached: usize,
    /// Bytes fetched: crates, index entries and archives.
    pub bytes: u64,
    /// Time taken, in seconds.
    pub seconds: f64,
    /// What could not be had.
    pub failed: Vec<Problem>,
    /// What larder does not cover.
    pub skipped: Vec<Problem>,
}

/// How far the work has come, for whoever shows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct WarmProgress {
    /// Packages and archives in all, as far as they are known; 0 while lock files are read.
    pub total: usize,
    /// How many of them are done with.
    pub done: usize,
    /// Bytes fetched.
    pub bytes: u64,
}

/// One crate to have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WantedPackage {
    registry: String,
    name: String,
    version: String,
    /// The lock file's word on its hash.
    checksum: Option<Sha256>,
}

/// Warms. `progress` is told how far it has come.
pub async fn warm(
    cache: &Cache,
    store: &Arc<Store>,
    upstreams: &Upstreams,
    options: WarmOptions,
    progress: watch::Sender<WarmProgress>,
) -> WarmReport {
    let began = Instant::now();
    let mut report = WarmReport::default();
    let (paths, toolchains) = (options.paths.clone(), options.toolchains.clone());
    let mut plan = plan(paths, toolchains, upstreams).await;
    report.projects = plan.projects.len();
    report.failed.append(&mut plan.failed);

    let mut needed: Option<BTreeSet<(String, String)>> = None;
    let is_unlocked = |project: &ProjectPlan| project.lock.is_none();
    let has_targets = !options.targets.is_empty() && !plan.projects.is_empty();
    if plan.projects.iter().any(is_unlocked) || has_targets {
        if options.dry_run {
            let unlocked = plan.projects.iter().filter(|project| is_unlocked(project));
            report.skipped.extend(unlocked.map(|project| {
                Problem {
                    what: project.folder.display().to_string(),
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
            match with_cargo.run(&mut plan.projects).await {
                Ok(narrowed) => needed = narrowed,
                Err(problem) => report.failed.push(problem),
            }
        }
    }

    let mode = if options.dry_run {
        Mode::Check
    } else {
        Mode::Fetch {
            refresh: options.refresh,
        }
    };
    let mut work = Work {
        fetcher: ToolchainFetcher {
            cache: cache.clone(),
            store: store.clone(),
            dist: upstreams.dist.clone(),
            mode,
        },
        upstreams: upstreams.clone(),
        room: Arc::new(Semaphore::new(options.jobs)),
        begun: BTreeMap::new(),
        begun_archives: BTreeSet::new(),
        tasks: JoinSet::new(),
        pins: BTreeMap::new(),
        report,
        progress,
    };
    // First, since these files are the largest.
    work.toolchains(&plan, options.toolchains.bootstrap);
    for project in &mut plan.projects {
        if let Some(needed) = &needed {
            project.wanted.exclude_all_but(needed);
        }
        let lock = project.lock.clone();
        let lock = lock.unwrap_or_else(|| project.folder.join("Cargo.lock"));
        let owner = Owner::File(std::path::absolute(&lock).unwrap_or(lock));
        work.packages(&[owner], std::mem::take(&mut project.wanted));
    }
    work.run().await;
    let Work {
        pins, mut report, ..
    } = work;

    if !options.dry_run {
        for pin in pins.into_values() {
            if let Err(error) = store.put_pin(&pin).await {
                report.failed.push(Problem {
                    what: pin.owner.to_string(),
                    why: format!("cannot be registered: {error}"),
                });
            }
        }
    }
    report.failed.sort();
    report.failed.dedup();
    report.skipped.sort();
    report.skipped.dedup();
    report.seconds = began.elapsed().as_secs_f64();
    report
}

/// All that is under mode, and what has come of it so far.
struct Work {
    fetcher: ToolchainFetcher,
    upstreams: Upstreams,
    room: Arc<Semaphore>,
    /// The packages that were begun with, and whether their crates were wanted.
    begun: BTreeMap<WantedPackage, bool>,
    /// The hashes of the archives that were begun with.
    begun_archives: BTreeSet<String>,
    tasks: JoinSet<TaskResult>,
    pins: BTreeMap<Owner, Pin>,
    report: WarmReport,
    progress: watch::Sender<WarmProgress>,
}

/// What one task came to.
enum TaskResult {
    /// A package.
    Package(Result<Obtained, Problem>),
    /// One archive of a toolchain.
    Archive(Result<Obtained, Problem>),
    /// The archives of a toolchain.
    Release(Vec<Owner>, Result<Vec<DistFile>, Problem>),
    /// The standard library's lock file.
    Library(Vec<Owner>, Obtained, Result<Vec<u8>, Problem>),
    /// What else rustup asks for: what of it is missing.
    Extras(Vec<Problem>),
}

impl Work {
    /// Begins with all toolchains.
    fn toolchains(&mut self, plan: &Plan, bootstrap: bool) {
        for toolchain in &plan.toolchains {
            self.report.failed.extend_from_slice(&toolchain.failed);
            self.report.skipped.extend_from_slice(&toolchain.skipped);
        }
        let installs = plan.installs();
        self.report.toolchains = installs.len();
        if !installs.is_empty() || bootstrap {
            let (fetcher, hosts) = (self.fetcher.clone(), plan.hosts.clone());
            self.begin(async move { TaskResult::Extras(fetcher.extras(&hosts, bootstrap).await) });
        }
        for (install, owners) in installs {
            let fetcher = self.fetcher.clone();
            self.begin(async move { TaskResult::Release(owners, fetcher.release(&install).await) });
        }
    }

    /// Begins with the packages of one lock file that were not begun with yet.
    fn packages(&mut self, owners: &[Owner], mut wanted: PackageSet) {
        self.report.failed.append(&mut wanted.failed);
        self.report.skipped.append(&mut wanted.skipped);
        if wanted.packages.is_empty() {
            return;
        }
        for pinned in &wanted.packages {
            let package = WantedPackage::from(pinned.clone());
            let wants_crate = !pinned.is_excluded;
            match self.begun.get(&package) {
                Some(wanted_crate) if *wanted_crate || !wants_crate => continue,
                // What one leaves out, another needs.
                Some(_) => {}
                None => self.report.packages += 1,
            }
            self.begun.insert(package.clone(), wants_crate);
            let Some(registry) = self.upstreams.registries.named(&package.registry).cloned() else {
                continue;
            };
            let task = PackageTask {
                cache: self.fetcher.cache.clone(),
                registry,
                wants_crate,
                package,
                refresh: self.fetcher.mode == Mode::Fetch { refresh: true },
            };
            let fetcher = self.fetcher.clone();
            self.begin(async move {
                TaskResult::Package(match fetcher.mode {
                    Mode::Check => task.look(&fetcher.store).await,
                    Mode::Fetch { .. } => task.have().await,
                })
            });
        }
        for owner in owners {
            self.pin(owner)
                .packages
                .extend(wanted.packages.iter().cloned());
        }
    }

    /// Begins with the archives of one toolchain.
    fn archives(&mut self, owners: &[Owner], files: Vec<DistFile>) {
        for owner in owners {
            let sums = files.iter().filter_map(|file| Sha256::parse(&file.sha256));
            self.pin(owner).archives.extend(sums);
        }
        for file in files {
            // Several toolchain files may ask for parts of one toolchain.
            if !self.begun_archives.insert(file.sha256.clone()) {
                continue;
            }
            self.report.components += 1;
            let (fetcher, owners) = (self.fetcher.clone(), owners.to_vec());
            self.begin(async move {
                match fetcher.archive(&file).await {
                    Ok(had) if file.is_rust_src() && fetcher.has(had) => {
                        TaskResult::Library(owners, had, fetcher.library_lock(&file).await)
                    }
                    had => TaskResult::Archive(had),
                }
            });
        }
    }

    fn pin(&mut self, owner: &Owner) -> &mut Pin {
        self.pins.entry(owner.clone()).or_insert_with(|| Pin {
            owner: owner.clone(),
            packages: Vec::new(),
            archives: Vec::new(),
        })
    }

    /// Begins a task once there is room for it.
    fn begin(&mut self, task: impl Future<Output = TaskResult> + Send + 'static) {
        let room = self.room.clone();
        self.progress.send_modify(|progress| progress.total += 1);
        self.tasks.spawn(async move {
            let _permit = room.acquire_owned().await;
            task.await
        });
    }

    /// Goes on until nothing is under mode.
    async fn run(&mut self) {
        while let Some(result) = self.tasks.join_next().await {
            match result {
                Ok(result) => self.take(result),
                Err(died) => self.report.failed.push(Problem {
                    what: "a fetch".to_owned(),
                    why: died.to_string(),
                }),
            }
            let bytes = self.report.bytes;
            self.progress.send_modify(|progress| {
                progress.done += 1;
                progress.bytes = bytes;
            });
        }
    }

    fn take(&mut self, result: TaskResult) {
        let report = &mut self.report;
        let failed = match result {
            TaskResult::Package(Ok(had)) => {
                report.bytes += had.bytes;
                match had.fetched {
                    Some(true) => report.fetched += 1,
                    Some(false) => report.cached += 1,
                    None => {}
                }
                return;
            }
            TaskResult::Archive(Ok(had)) => return report.count_archive(&had),
            TaskResult::Release(owners, Ok(files)) => return self.archives(&owners, files),
            TaskResult::Library(owners, had, Ok(lock)) => {
                report.count_archive(&had);
                let mut wanted = PackageSet::default();
                wanted.read("the standard library's Cargo.lock", &lock, &self.upstreams);
                return self.packages(&owners, wanted);
            }
            TaskResult::Library(_, had, Err(problem)) => {
                report.count_archive(&had);
                problem
            }
            // Without its manifest, nobody can say what a toolchain would be.
            TaskResult::Release(_, Err(problem)) if self.fetcher.mode == Mode::Check => {
                return report.skipped.push(problem);
            }
            TaskResult::Extras(_) if self.fetcher.mode == Mode::Check => return,
            TaskResult::Extras(missing) => return report.failed.extend(missing),
            TaskResult::Package(Err(problem))
            | TaskResult::Archive(Err(problem))
            | TaskResult::Release(_, Err(problem)) => problem,
        };
        report.failed.push(failed);
    }
}

impl WarmReport {
    fn count_archive(&mut self, had: &Obtained) {
        self.bytes += had.bytes;
        match had.fetched {
            Some(true) => self.components_fetched += 1,
            Some(false) | None => self.components_cached += 1,
        }
    }
}

impl From<PinnedCrate> for WantedPackage {
    fn from(pinned: PinnedCrate) -> Self {
        Self {
            registry: pinned.registry,
            name: pinned.name,
            version: pinned.version,
            checksum: pinned.checksum,
        }
    }
}

/// One package on its way into the larder.
struct PackageTask {
    cache: Cache,
    registry: Arc<Registry>,
    package: WantedPackage,
    wants_crate: bool,
    refresh: bool,
}

/// How a package or an archive was had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Obtained {
    /// Whether its file was fetched, or in a dry run would be; `None` if it is not wanted.
    pub(crate) fetched: Option<bool>,
    /// Bytes fetched.
    pub(crate) bytes: u64,
}

impl PackageTask {
    fn problem(&self, why: impl ToString) -> Problem {
        Problem {
            what: format!("{} {}", self.package.name, self.package.version),
            why: why.to_string(),
        }
    }

    /// What to say if the index has nothing of the package: which index that is, and whether it is one at all.
    async fn absent(&self, error: &Error) -> Problem {
        let mut index = self.registry.index().clone();
        // Both fail only for addresses that have no room for credentials.
        let _ = index.set_password(None);
        let _ = index.set_username("");
        let config = RegistryConfig::of(&self.registry);
        match ensure_with_retry(&self.cache, &config, Demand::Stored).await {
            Err(Error::Absent { .. }) => self.problem(format!(
                "{error}; {index} is no cargo index, it has no config.json"
            )),
            Ok(_) | Err(_) => self.problem(format!("{error}; the index is {index}")),
        }
    }

    /// Makes sure that the package is stored: its index entry, which must list it, and its crate.
    async fn have(&self) -> Result<Obtained, Problem> {
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
            let had = match ensure_with_retry(&self.cache, &entry, demand).await {
                Err(error @ Error::Absent { .. }) => return Err(self.absent(&error).await),
                ensured => ensured.map_err(|error| self.problem(error.with_hint()))?,
            };
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
            return Ok(Obtained {
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
        let had = ensure_with_retry(&self.cache, &file, Demand::Stored).await;
        let had = had.map_err(|error| self.problem(error.with_hint()))?;
        let fetched = had.outcome != Outcome::Hit;
        Ok(Obtained {
            fetched: Some(fetched),
            bytes: bytes + if fetched { had.bytes } else { 0 },
        })
    }

    /// Tells whether it is stored, and fetches nothing.
    async fn look(&self, store: &Store) -> Result<Obtained, Problem> {
        let is_held = missing(&self.cache, store, &self.registry, &self.package)
            .await
            .is_none();
        Ok(Obtained {
            fetched: Some(!is_held),
            bytes: 0,
        })
    }
}

/// Like [`Cache::ensure`], but outlasts an outage that may yet be a blip: nothing is gained by failing fast here.
async fn ensure_with_retry(
    cache: &Cache,
    resource: &Resource,
    demand: Demand,
) -> Result<Ensured, Error> {
    loop {
        match cache.ensure(resource, demand).await {
            Err(Error::Down { since, .. }) if since < OUTAGE_GRACE => {
                tokio::time::sleep(OUTAGE_RETRY_INTERVAL).await
            }
            ensured => return ensured,
        }
    }
}

/// What of a package is missing from the store; `None` if nothing is.
async fn missing(
    cache: &Cache,
    store: &Store,
    registry: &Arc<Registry>,
    package: &WantedPackage,
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
    match store.contains(vec![listed]).await.as_deref() {
        Ok([true]) => None,
        Ok(_) | Err(_) => Some(format!("crate `{title}`")),
    }
}

/// What of the packages of a lock file is missing from the store, by name.
pub(crate) async fn missing_packages(
    cache: &Cache,
    store: &Store,
    upstreams: &Upstreams,
    packages: &[PinnedCrate],
) -> Vec<String> {
    let mut names = Vec::new();
    for pinned in packages {
        let Some(registry) = upstreams.registries.named(&pinned.registry) else {
            continue;
        };
        names.extend(missing(cache, store, registry, &WantedPackage::from(pinned.clone())).await);
    }
    names
}

/// The part of warming that needs the user's own cargo: it talks to a larder of ours on a free port.
struct WithCargo<'a> {
    cache: &'a Cache,
    upstreams: &'a Upstreams,
    options: &'a WarmOptions,
}

impl WithCargo<'_> {
    /// Makes lock files where there are none, and returns what the targets need, if any were named: all, of a project of which cargo
    /// cannot say it.
    async fn run(
        &self,
        plans: &mut [ProjectPlan],
    ) -> Result<Option<BTreeSet<(String, String)>>, Problem> {
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
                        let name = lock.display().to_string();
                        plan.wanted.read(&name, text.as_bytes(), self.upstreams);
                        Some(text)
                    }
                    Err(error) => {
                        plan.wanted.fail(&plan.folder, chain(&error));
                        None
                    }
                },
            };
            let mut is_known = text.is_some();
            for target in &self.options.targets {
                let Some(text) = &text else { break };
                match scratch.needed_for(&plan.folder, text, target).await {
                    Ok(packages) => needed.extend(packages),
                    Err(error) => {
                        plan.wanted.fail(&plan.folder, chain(&error));
                        is_known = false;
                    }
                }
            }
            if !is_known {
                // Rather too much than too little.
                needed.extend(plan.wanted.ids());
            }
        }
        drop(stop);
        let _ = serving.await;
        Ok((!self.options.targets.is_empty()).then_some(needed))
    }
}
