//! Pins that stay ready by themselves (`keep-warm`): after `git pull`, the daemon fetches what the new lock file needs.
//!
//! `larder warm` registers a pin for each lock file and toolchain file, and for each toolchain named on the command
//! line. The latter has no file that could change, and no pass looks at it. When clients become active, and every
//! [`PASS_INTERVAL`], a pass looks at these files. A file whose state (inode, size, times) has changed is planned
//! again, and the missing part of its plan is fetched as `larder warm` would fetch it, with few tasks at a time.
//!
//! ```text
//!  clients resume, or 5 min ──> stat each file ── changed ──> plan::of_pin ── something missing ──> warm
//!                                    └─ unchanged: done         └─ all stored: done
//! ```
//!
//! No pass runs with `--offline` or while an upstream is slow or down. A file that cannot be made ready is tried again
//! when it changes, or after [`RETRY_INTERVAL`]. A pin whose file is gone is left alone.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    cache::Cache,
    clock::now,
    plan::{self, Plan},
    resource::Upstreams,
    store::{Owner, Pin, Store},
    warm::{WarmMode, WarmOptions, WarmReport, warm},
};

/// Time between passes while no client becomes active.
const PASS_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Delay of a pass after clients became active, and so the shortest time between two passes.
const MIN_PASS_INTERVAL: Duration = Duration::from_secs(2);
/// Time after which a file that could not be made ready is tried again although it has not changed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Longest wait for the file system: a project may lie on a mount whose server does not answer.
const STAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tasks at a time. Few, so that clients' requests go first.
const JOBS: usize = 4;

/// Totals of all passes and the result of the last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepWarmStatus {
    /// Passes that ended.
    pub passes: u64,
    /// Changed files that were planned again.
    pub changed: u64,
    /// Crates and archives fetched.
    pub fetched: u64,
    /// Resources that could not be fetched, and files that could not be read.
    pub failed: u64,
    /// When the last pass ended.
    pub last_pass: Option<SystemTime>,
    /// Pins that the last pass looked at.
    pub pins: u64,
    /// Pins of the last pass that are not ready because of a failure.
    pub not_ready: u64,
}

/// Keeps the pins of a store ready.
#[derive(Debug)]
pub struct PinKeeper {
    cache: Cache,
    store: Arc<Store>,
    upstreams: Upstreams,
    rustup_settings: Option<PathBuf>,
    cargo_home: Option<PathBuf>,
    /// By owner, as of the last pass.
    known: HashMap<Owner, KnownPin>,
    /// A file system call that has not returned.
    stuck: Option<JoinHandle<Vec<Option<FileState>>>>,
    status: watch::Sender<KeepWarmStatus>,
}

/// A file's identity and change marks. Equal states mean an unchanged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The state of a pin when it was last planned.
#[derive(Clone, Copy, Debug)]
struct KnownPin {
    state: FileState,
    /// When to try again; `None` if the pin is ready.
    retry_at: Option<Instant>,
}

impl PinKeeper {
    /// A keeper for the pins of `store`.
    pub fn new(
        cache: Cache,
        store: Arc<Store>,
        upstreams: Upstreams,
        rustup_settings: Option<PathBuf>,
        cargo_home: Option<PathBuf>,
    ) -> Self {
        Self {
            cache,
            store,
            upstreams,
            rustup_settings,
            cargo_home,
            known: HashMap::new(),
            stuck: None,
            status: watch::Sender::default(),
        }
    }

    /// Totals and the result of the last pass.
    pub fn status(&self) -> watch::Receiver<KeepWarmStatus> {
        self.status.subscribe()
    }

    /// Runs passes for ever: when `clients_resumed` is notified, and every [`PASS_INTERVAL`].
    pub async fn run(mut self, clients_resumed: Arc<Notify>) {
        loop {
            tokio::select! {
                () = clients_resumed.notified() => {}
                () = sleep(PASS_INTERVAL) => {}
            }
            // The clients' first requests go first.
            sleep(MIN_PASS_INTERVAL).await;
            let is_reachable = !self.cache.is_offline() && self.cache.outages().is_empty();
            if is_reachable {
                self.pass().await;
            }
        }
    }

    async fn pass(&mut self) {
        let pins = match self.store.pins().await {
            Ok(pins) => pins,
            Err(error) => {
                warn!(%error, "cannot keep projects warm: the pins cannot be read");
                return;
            }
        };
        let Some(states) = self.states(&pins).await else {
            return;
        };
        self.known
            .retain(|owner, _| pins.iter().any(|pin| pin.owner == *owner));
        let mut status = *self.status.borrow();
        status.pins = pins.len() as u64;
        for (pin, state) in pins.into_iter().zip(states) {
            let Some(state) = state else {
                continue;
            };
            let known = self.known.get(&pin.owner);
            let is_due = known.is_none_or(|known| {
                known.state != state || known.retry_at.is_some_and(|at| at <= Instant::now())
            });
            if !is_due {
                continue;
            }
            if known.is_some_and(|known| known.state != state) {
                status.changed += 1;
            }
            let owner = pin.owner.clone();
            let failures = self.make_ready(pin, &mut status).await;
            let retry_at = (failures > 0).then(|| Instant::now() + RETRY_INTERVAL);
            let known = KnownPin { state, retry_at };
            self.known.insert(owner, known);
            status.failed += failures;
        }
        let is_failed = |known: &&KnownPin| known.retry_at.is_some();
        status.not_ready = self.known.values().filter(is_failed).count() as u64;
        status.passes += 1;
        status.last_pass = Some(now());
        self.status.send_replace(status);
    }

    /// Plans one pin and fetches what is missing. Returns the number of failures.
    async fn make_ready(&self, pin: Pin, status: &mut KeepWarmStatus) -> u64 {
        let owner = pin.owner.clone();
        let settings = self.rustup_settings.clone();
        let home = self.cargo_home.clone();
        let registries = &self.upstreams.registries;
        let planned = match plan::of_pin(pin, settings, home, registries).await {
            Ok(Some(planned)) => planned,
            Ok(None) => return 0,
            Err(error) if error.is_missing_file() => return 0,
            Err(error) => {
                warn!(%owner, %error, "cannot keep this project warm");
                return 1;
            }
        };
        if self.is_ready(planned.clone()).await {
            return 0;
        }
        let report = self
            .run_warm(planned, WarmMode::Fetch { refresh: false })
            .await;
        let fetched = report.fetched + report.components_fetched;
        status.fetched += fetched as u64;
        if report.failed.is_empty() {
            info!(%owner, fetched, bytes = report.bytes, "kept warm");
        } else {
            let first = &report.failed[0];
            let failed = report.failed.len();
            warn!(%owner, fetched, failed, first = %first, "not all that this project needs could be fetched");
        }
        report.failed.len() as u64
    }

    /// Returns whether everything in the plan is stored.
    async fn is_ready(&self, plan: Plan) -> bool {
        let report = self.run_warm(plan, WarmMode::Check).await;
        report.would_fetch.is_none_or(|missing| missing.is_empty()) && report.failed.is_empty()
    }

    async fn run_warm(&self, plan: Plan, mode: WarmMode) -> WarmReport {
        let options = WarmOptions {
            jobs: JOBS,
            mode,
            started: std::time::Instant::now(),
        };
        let (progress, _) = watch::channel(Default::default());
        let (cache, store) = (&self.cache, &self.store);
        warm(cache, store, &self.upstreams, plan, options, progress).await
    }

    /// The state of each pin's file; `None` for a file that is gone. `None` in all if the file system does not
    /// answer.
    async fn states(&mut self, pins: &[Pin]) -> Option<Vec<Option<FileState>>> {
        if let Some(stuck) = self.stuck.take_if(|stuck| !stuck.is_finished()) {
            debug!("a file system still does not answer; no pass");
            self.stuck = Some(stuck);
            return None;
        }
        let owners: Vec<_> = pins.iter().map(|pin| pin.owner.clone()).collect();
        let mut looking = spawn_blocking(move || owners.iter().map(FileState::of).collect());
        match timeout(STAT_TIMEOUT, &mut looking).await {
            Ok(states) => states.ok(),
            Err(_) => {
                warn!("cannot keep projects warm: a file system does not answer");
                self.stuck = Some(looking);
                None
            }
        }
    }
}

impl FileState {
    fn of(owner: &Owner) -> Option<Self> {
        let Owner::File(path) = owner else {
            return None;
        };
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}
