//! The tasks of one run, and what their results add up to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    fetch::{Obtained, WarmMode, WouldFetch},
    packages::{ObtainedPackage, PackageTask},
    report::{WarmProgress, WarmReport},
    resolvable::{EntryTask, ObtainedAnswers, SettledPins},
    toolchains::ToolchainFetcher,
};
use crate::{
    cache::Demand,
    error::Error,
    hash::Sha256,
    plan::{CrateName, PackageSet, Plan, Problem, Question, ResolverReach, release::Homes},
    store::{Owner, Pin, PinnedCrate},
    toolchain::DistFile,
};

/// Running tasks and the results so far.
pub(super) struct Tasks {
    fetcher: ToolchainFetcher,
    /// Limits the number of tasks that run at a time.
    permits: Arc<Semaphore>,
    /// The same for entries that no lock file leads to: they need not wait for crates.
    entry_permits: Arc<Semaphore>,
    running: JoinSet<TaskResult>,
    /// Packages with a task, without their `is_excluded`; the value says whether the task fetches the crate.
    packages: BTreeMap<CrateId, bool>,
    /// See [`Plan::missing_before_cargo`].
    missing_before_cargo: BTreeSet<(String, String)>,
    /// Hashes of archives with a task.
    archives: BTreeSet<String>,
    settled: SettledPins,
    reach: ResolverReach,
    /// Packages whose dependencies are followed.
    followed: BTreeSet<CrateId>,
    /// Crates whose entry was stored for a question.
    entries: BTreeSet<CrateName>,
    /// Those of them that could not be stored.
    failed_entries: BTreeSet<CrateName>,
    /// Sizes of the blobs that are stored now.
    sizes: BTreeMap<Sha256, u64>,
    pins: BTreeMap<Owner, Pin>,
    report: WarmReport,
    progress: watch::Sender<WarmProgress>,
}

/// Registry, name, version and locked checksum.
type CrateId = (String, String, String, Option<Sha256>);

/// The result of one task.
enum TaskResult {
    /// A package.
    Package(Result<ObtainedPackage, Problem>),
    /// An index entry that no lock file leads to.
    Entry(CrateName, Result<ObtainedAnswers, Error>),
    /// An archive of a toolchain.
    Archive(Result<Obtained, Problem>),
    /// The archives that a toolchain consists of.
    Release(Vec<Owner>, Result<Vec<DistFile>, Problem>),
    /// The archive of the standard library's sources, and the packages that its lock file names.
    Library(Vec<Owner>, Obtained, Result<PackageSet, Problem>),
    /// The failures among other files that rustup asks for.
    RustupFiles(Vec<Problem>),
    /// Those of these files that a dry run would fetch.
    MissingRustupFiles(Vec<WouldFetch>),
}

impl Tasks {
    pub(super) fn new(
        fetcher: ToolchainFetcher,
        settled: SettledPins,
        jobs: usize,
        progress: watch::Sender<WarmProgress>,
    ) -> Self {
        Self {
            reach: ResolverReach::new(&fetcher.upstreams.registries),
            fetcher,
            permits: Arc::new(Semaphore::new(jobs)),
            entry_permits: Arc::new(Semaphore::new(jobs)),
            running: JoinSet::new(),
            packages: BTreeMap::new(),
            missing_before_cargo: BTreeSet::new(),
            archives: BTreeSet::new(),
            settled,
            followed: BTreeSet::new(),
            entries: BTreeSet::new(),
            failed_entries: BTreeSet::new(),
            sizes: BTreeMap::new(),
            pins: BTreeMap::new(),
            report: WarmReport::default(),
            progress,
        }
    }

    /// Starts the tasks of a plan: toolchains first, since their archives are the largest files.
    pub(super) fn start(&mut self, mut plan: Plan) {
        let crates = plan
            .projects
            .iter()
            .filter(|project| project.named.is_some());
        self.report.crates = crates.count();
        self.report.projects = plan.projects.len() - self.report.crates;
        self.report.failed.append(&mut plan.failed);
        self.missing_before_cargo = std::mem::take(&mut plan.missing_before_cargo);
        self.start_toolchains(&mut plan);
        // Before the first task starts: projects share packages.
        for project in &plan.projects {
            let owners = [project.owner()];
            self.plan_entries(&owners, &project.packages);
            self.plan_entries(&owners, &project.library);
        }
        for project in plan.projects {
            let owners = [project.owner()];
            self.start_packages(&owners, project.packages);
            self.start_packages(&owners, project.library);
        }
    }

    fn start_toolchains(&mut self, plan: &mut Plan) {
        for toolchain in &mut plan.toolchains {
            self.report.failed.append(&mut toolchain.failed);
            self.report.skipped.append(&mut toolchain.skipped);
        }
        let files = plan.rustup_files(&self.fetcher.upstreams.dist, Homes::All);
        if !files.is_empty() {
            let (fetcher, hosts) = (self.fetcher.clone(), plan.rustup_hosts.clone());
            self.spawn(self.permits.clone(), async move {
                if fetcher.mode == WarmMode::Check {
                    let missing = fetcher.missing_rustup_files(files, &hosts).await;
                    return TaskResult::MissingRustupFiles(missing);
                }
                TaskResult::RustupFiles(fetcher.rustup_files(files, &hosts).await)
            });
        }
        let installs = plan.installs();
        self.report.toolchains = installs.len();
        for (install, owners) in installs {
            let fetcher = self.fetcher.clone();
            self.spawn(self.permits.clone(), async move {
                TaskResult::Release(owners, fetcher.release(&install).await)
            });
        }
    }

    /// Decides whether the dependencies of packages are followed: not if an earlier run has done that.
    fn plan_entries(&mut self, owners: &[Owner], set: &PackageSet) {
        let is_settled = |owner| self.settled.covering(owner, &set.packages).is_some();
        let is_followed = self.fetcher.mode != WarmMode::Check && !owners.iter().all(is_settled);
        for package in &set.packages {
            self.reach.plan(package);
            if is_followed {
                self.followed.insert(id_of(package));
            }
        }
    }

    /// Starts a task for each package that has none yet.
    fn start_packages(&mut self, owners: &[Owner], mut set: PackageSet) {
        for problem in set.failed.drain(..) {
            // A dry run cannot say what a named crate needs before its archive is stored.
            if self.fetcher.mode == WarmMode::Check && problem.is_fetchable {
                let what = format!("{problem} (what it needs is not known yet)");
                self.report
                    .add_would_fetch([WouldFetch { what, bytes: None }]);
            } else {
                self.report.failed.push(problem);
            }
        }
        self.report.skipped.append(&mut set.skipped);
        if set.packages.is_empty() {
            return;
        }
        for package in &set.packages {
            self.start_package(package);
        }
        for owner in owners {
            let pin = self.pin(owner);
            pin.packages.extend(set.packages.iter().cloned());
        }
    }

    fn start_package(&mut self, package: &PinnedCrate) {
        let id = id_of(package);
        let reads_needs = self.followed.contains(&id);
        let needs_crate = !package.is_excluded;
        match self.packages.get(&id) {
            Some(has_crate) if *has_crate || !needs_crate => return,
            // An earlier project excludes the crate; this one needs it.
            Some(_) => {}
            None => self.report.packages += 1,
        }
        self.packages.insert(id, needs_crate);
        let registries = &self.fetcher.upstreams.registries;
        let Some(registry) = registries.named(&package.registry) else {
            return;
        };
        let task = PackageTask {
            cache: self.fetcher.cache.clone(),
            inventory: self.fetcher.inventory.clone(),
            registry: registry.clone(),
            package: package.clone(),
            mode: self.fetcher.mode,
            was_missing: self
                .missing_before_cargo
                .contains(&(package.name.clone(), package.version.clone())),
            reads_needs,
        };
        self.spawn(self.permits.clone(), async move {
            TaskResult::Package(task.run().await)
        });
    }

    /// Starts a task for each archive that has none yet; several toolchains may share archives.
    fn start_archives(&mut self, owners: &[Owner], files: Vec<DistFile>) {
        for owner in owners {
            let sums = files.iter().filter_map(|file| Sha256::parse(&file.sha256));
            self.pin(owner).archives.extend(sums);
        }
        for file in files {
            if !self.archives.insert(file.sha256.clone()) {
                continue;
            }
            self.report.components += 1;
            let (fetcher, owners) = (self.fetcher.clone(), owners.to_vec());
            self.spawn(self.permits.clone(), async move {
                match fetcher.archive(&file).await {
                    Ok(obtained) if file.is_rust_src() && fetcher.is_stored(&obtained) => {
                        let packages = fetcher.library_packages(&file).await;
                        TaskResult::Library(owners, obtained, packages)
                    }
                    obtained => TaskResult::Archive(obtained),
                }
            });
        }
    }

    /// Starts a task for each crate that the questions are about.
    fn start_questions(&mut self, questions: Vec<Question>) {
        let mut by_crate: BTreeMap<CrateName, Vec<Question>> = BTreeMap::new();
        for question in questions {
            let same = by_crate.entry(question.name.clone()).or_default();
            same.push(question);
        }
        for (name, questions) in by_crate {
            let Some(registry) = self.fetcher.upstreams.registries.named(&name.0) else {
                continue;
            };
            let is_new = self.entries.insert(name.clone());
            let demand = match self.fetcher.mode {
                WarmMode::Fetch { refresh: true } if is_new => Demand::Refresh,
                WarmMode::Fetch { .. } | WarmMode::Check => Demand::Stored,
            };
            let task = EntryTask {
                cache: self.fetcher.cache.clone(),
                store: self.fetcher.store.clone(),
                registry: registry.clone(),
                questions,
                demand,
            };
            let permits = self.entry_permits.clone();
            self.spawn(
                permits,
                async move { TaskResult::Entry(name, task.run().await) },
            );
        }
    }

    fn pin(&mut self, owner: &Owner) -> &mut Pin {
        self.pins.entry(owner.clone()).or_insert_with(|| Pin {
            owner: owner.clone(),
            packages: Vec::new(),
            archives: Vec::new(),
            sizes: BTreeMap::new(),
            offered: Vec::new(),
            entries: None,
        })
    }

    /// Spawns a task that waits for a permit first.
    fn spawn(
        &mut self,
        permits: Arc<Semaphore>,
        task: impl Future<Output = TaskResult> + Send + 'static,
    ) {
        self.progress.send_modify(|progress| progress.total += 1);
        self.running.spawn(async move {
            let _permit = permits.acquire_owned().await;
            task.await
        });
    }

    /// Waits until no task is left, including those that other tasks start.
    pub(super) async fn join_all(&mut self) {
        while let Some(result) = self.running.join_next().await {
            match result {
                Ok(result) => self.finish_task(result),
                Err(panic) => self.report.failed.push(Problem::new("a fetch", panic)),
            }
            let bytes = self.report.bytes;
            self.progress.send_modify(|progress| {
                progress.done += 1;
                progress.bytes = bytes;
            });
        }
    }

    /// The report and the pins. Call it after [`Tasks::join_all`].
    pub(super) fn finish(self) -> (WarmReport, impl Iterator<Item = Pin>) {
        let Self {
            mut report,
            pins,
            sizes,
            entries,
            reach,
            settled,
            failed_entries,
            ..
        } = self;
        report.index_entries = entries.len();
        let pins = pins.into_values().map(move |mut pin| {
            let packages = pin.packages.iter().filter_map(|package| package.checksum);
            let hashes = packages.chain(pin.archives.iter().copied());
            pin.sizes = hashes
                .filter_map(|sha256| Some((sha256, *sizes.get(&sha256)?)))
                .collect();
            if let Some(known) = settled.covering(&pin.owner, &pin.packages) {
                pin.offered.clone_from(&known.offered);
                pin.entries.clone_from(&known.entries);
            } else {
                let reached = reach.of(&pin.packages);
                pin.offered = reached.offered.into_iter().collect();
                let is_complete = reached.crates.is_disjoint(&failed_entries);
                pin.entries = is_complete.then(|| reached.crates.into_iter().collect());
            }
            pin
        });
        (report, pins)
    }

    /// Remembers the size of a blob that is stored now.
    fn record_size(&mut self, result: &TaskResult) {
        let (TaskResult::Package(Ok(ObtainedPackage { obtained, .. }))
        | TaskResult::Archive(Ok(obtained))
        | TaskResult::Library(_, obtained, _)) = result
        else {
            return;
        };
        self.sizes.extend(obtained.blob);
    }

    /// Counts one result and starts the tasks that follow from it.
    fn finish_task(&mut self, result: TaskResult) {
        self.record_size(&result);
        let report = &mut self.report;
        match result {
            TaskResult::Package(Ok(package)) => {
                report.count_package(package.obtained);
                if let Some(needs) = package.needs {
                    let questions = self.reach.follow(&package.package, needs);
                    self.start_questions(questions);
                }
            }
            TaskResult::Entry(_, Ok(found)) => {
                report.bytes += found.bytes;
                for (question, choice) in found.answers {
                    let questions = self.reach.answer(question, choice);
                    self.start_questions(questions);
                }
            }
            TaskResult::Entry(name, Err(error)) => {
                let what = format_args!("index entry of `{}`", name.1);
                let problem = Problem::of_error(what, &error);
                report.index_entries_failed.push(problem);
                self.failed_entries.insert(name);
            }
            TaskResult::Archive(Ok(obtained)) => report.count_archive(obtained),
            TaskResult::Release(owners, Ok(files)) => self.start_archives(&owners, files),
            TaskResult::Library(owners, obtained, packages) => {
                report.count_archive(obtained);
                match packages {
                    Ok(packages) => {
                        self.plan_entries(&owners, &packages);
                        self.start_packages(&owners, packages);
                    }
                    Err(problem) => report.failed.push(problem),
                }
            }
            // A dry run cannot say what a toolchain consists of before its manifest is stored.
            TaskResult::Release(_, Err(problem)) if problem.is_fetchable => {
                let Problem { what, why, .. } = problem;
                let what = format!("{what} ({why}, so its components are not known yet)");
                report.add_would_fetch([WouldFetch { what, bytes: None }]);
            }
            TaskResult::MissingRustupFiles(missing) => report.add_would_fetch(missing),
            TaskResult::RustupFiles(problems) => report.failed.extend(problems),
            TaskResult::Package(Err(problem))
            | TaskResult::Archive(Err(problem))
            | TaskResult::Release(_, Err(problem)) => report.failed.push(problem),
        }
    }
}

fn id_of(package: &PinnedCrate) -> CrateId {
    let (registry, name) = (package.registry.clone(), package.name.clone());
    (registry, name, package.version.clone(), package.checksum)
}
