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
    packages::PackageTask,
    report::{WarmProgress, WarmReport},
    toolchains::ToolchainFetcher,
};
use crate::{
    hash::Sha256,
    plan::{PackageSet, Plan, Problem},
    store::{Owner, Pin, PinnedCrate},
    toolchain::DistFile,
};

/// Running tasks and the results so far.
pub(super) struct Tasks {
    fetcher: ToolchainFetcher,
    /// Limits the number of tasks that run at a time.
    permits: Arc<Semaphore>,
    running: JoinSet<TaskResult>,
    /// Packages with a task, without their `is_excluded`; the value says whether the task fetches the crate.
    packages: BTreeMap<CrateId, bool>,
    /// See [`Plan::missing_before_cargo`].
    missing_before_cargo: BTreeSet<(String, String)>,
    /// Hashes of archives with a task.
    archives: BTreeSet<String>,
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
    Package(Result<Obtained, Problem>),
    /// An archive of a toolchain.
    Archive(Result<Obtained, Problem>),
    /// The archives that a toolchain consists of.
    Release(Vec<Owner>, Result<Vec<DistFile>, Problem>),
    /// The archive of the standard library's sources, and the packages that its lock file names.
    Library(Vec<Owner>, Obtained, Result<PackageSet, Problem>),
    /// The failures among other files that rustup asks for.
    RustupFiles(Vec<Problem>),
    /// What a dry run would fetch of these files.
    MissingRustupFiles(Vec<WouldFetch>),
}

impl Tasks {
    pub(super) fn new(
        fetcher: ToolchainFetcher,
        jobs: usize,
        progress: watch::Sender<WarmProgress>,
    ) -> Self {
        Self {
            fetcher,
            permits: Arc::new(Semaphore::new(jobs)),
            running: JoinSet::new(),
            packages: BTreeMap::new(),
            missing_before_cargo: BTreeSet::new(),
            archives: BTreeSet::new(),
            sizes: BTreeMap::new(),
            pins: BTreeMap::new(),
            report: WarmReport::default(),
            progress,
        }
    }

    /// Starts the tasks of a plan: toolchains first, since their archives are the largest files.
    pub(super) fn start(&mut self, mut plan: Plan) {
        self.report.projects = plan.projects.len();
        self.report.failed.append(&mut plan.failed);
        self.missing_before_cargo = std::mem::take(&mut plan.missing_before_cargo);
        self.start_toolchains(&mut plan);
        for project in plan.projects {
            let owner = project.owner();
            self.start_packages(&[owner], project.packages);
        }
    }

    fn start_toolchains(&mut self, plan: &mut Plan) {
        for toolchain in &mut plan.toolchains {
            self.report.failed.append(&mut toolchain.failed);
            self.report.skipped.append(&mut toolchain.skipped);
        }
        let files = plan.rustup_files(&self.fetcher.upstreams.dist);
        if !files.is_empty() {
            let (fetcher, hosts) = (self.fetcher.clone(), plan.hosts.clone());
            self.spawn(async move {
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
            self.spawn(async move { TaskResult::Release(owners, fetcher.release(&install).await) });
        }
    }

    /// Starts a task for each package that has none yet.
    fn start_packages(&mut self, owners: &[Owner], mut set: PackageSet) {
        self.report.failed.append(&mut set.failed);
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
        let id = (
            package.registry.clone(),
            package.name.clone(),
            package.version.clone(),
            package.checksum,
        );
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
        };
        self.spawn(async move { TaskResult::Package(task.run().await) });
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
            self.spawn(async move {
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

    fn pin(&mut self, owner: &Owner) -> &mut Pin {
        self.pins.entry(owner.clone()).or_insert_with(|| Pin {
            owner: owner.clone(),
            packages: Vec::new(),
            archives: Vec::new(),
            sizes: BTreeMap::new(),
        })
    }

    /// Spawns a task that waits for a permit first.
    fn spawn(&mut self, task: impl Future<Output = TaskResult> + Send + 'static) {
        let permits = self.permits.clone();
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
            report,
            pins,
            sizes,
            ..
        } = self;
        let pins = pins.into_values().map(move |mut pin| {
            let packages = pin.packages.iter().filter_map(|package| package.checksum);
            let hashes = packages.chain(pin.archives.iter().copied());
            pin.sizes = hashes
                .filter_map(|sha256| Some((sha256, *sizes.get(&sha256)?)))
                .collect();
            pin
        });
        (report, pins)
    }

    /// Remembers the size of a blob that is stored now.
    fn record_size(&mut self, result: &TaskResult) {
        let (TaskResult::Package(Ok(obtained))
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
            TaskResult::Package(Ok(obtained)) => report.count_package(obtained),
            TaskResult::Archive(Ok(obtained)) => report.count_archive(obtained),
            TaskResult::Release(owners, Ok(files)) => self.start_archives(&owners, files),
            TaskResult::Library(owners, obtained, packages) => {
                report.count_archive(obtained);
                match packages {
                    Ok(packages) => self.start_packages(&owners, packages),
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
