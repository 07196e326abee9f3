//! [`Evictor`]: keeps the daemon's store within its limit.
//!
//! ```text
//!  95 % of the limit ──> pass ──> 90 %
//!  ^ counted when this process has stored something, every second while the store changes, every five otherwise
//!
//!  while a pass runs: this process stores no blobs, but waits a second at most
//! ```
//!
//! The margin is for what arrives while a pass runs, also by other processes. If pins alone exceed the limit, nothing
//! pinned is removed and nothing waits.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{KeepReleases, PassOptions, PassReport, pass};
use crate::{
    clock::now,
    error::chain,
    resource::Upstreams,
    store::{Space, SpaceCounter, Store, StoreError},
};

/// Part of the limit, in percent, from which a pass runs.
const START_PERCENT: u64 = 95;
/// Part of the limit, in percent, that a pass leaves.
const TARGET_PERCENT: u64 = 90;
/// Time between two counts while the store changes.
const ACTIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two counts while it does not.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two counts.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Time between two passes that only drop pins of projects that are gone, and old files of the quarantine.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(3600);
/// Time between two writes of last uses.
const FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// Time after which a pass that freed nothing is repeated.
const FUTILE_INTERVAL: Duration = Duration::from_secs(10);

/// Settings of the evictor.
#[derive(Clone, Copy, Debug)]
pub struct EvictorOptions {
    /// Space for the whole store, in bytes; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Time after which the pin of a project that is gone is dropped.
    pub forget_after: Duration,
}

/// Numbers about eviction, for status and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvictionStatus {
    /// Space of the store when it was last counted; `None` if it was not, because there is no limit.
    pub space: Option<Space>,
    /// The limit in bytes.
    pub max_bytes: Option<u64>,
    /// Files removed since the start.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Passes since the start.
    pub passes: u64,
    /// When the last pass ended.
    pub last_pass: Option<SystemTime>,
    /// Space of what pins need, if that exceeds the limit.
    pub pins_exceed: Option<u64>,
}

/// Evicts from a store.
#[derive(Debug)]
pub struct Evictor {
    store: Arc<Store>,
    upstreams: Upstreams,
    options: EvictorOptions,
    status: watch::Sender<EvictionStatus>,
    flushed: Instant,
    kept_house: Option<Instant>,
    /// When the next pass may run, after one that freed nothing.
    not_before: Option<Instant>,
    /// True while there is no room, and the next count is due at once.
    is_waiting: bool,
}

impl Evictor {
    /// An evictor for `store`.
    pub fn new(store: Arc<Store>, upstreams: Upstreams, options: EvictorOptions) -> Self {
        let status = EvictionStatus {
            max_bytes: options.max_bytes,
            ..EvictionStatus::default()
        };
        Self {
            store,
            upstreams,
            options,
            status: watch::Sender::new(status),
            flushed: Instant::now(),
            kept_house: None,
            not_before: None,
            is_waiting: false,
        }
    }

    /// Numbers about eviction.
    pub fn status(&self) -> watch::Receiver<EvictionStatus> {
        self.status.subscribe()
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut counter = self.store.space_counter();
        let mut last = None;
        loop {
            if self.options.max_bytes.is_some() {
                match self.count(counter).await {
                    Ok(counted) => counter = counted,
                    Err(error) => {
                        warn!(error = %chain(&error), "cannot count the size of the store");
                        counter = self.store.space_counter();
                    }
                }
            }
            if self.flushed.elapsed() >= FLUSH_INTERVAL {
                self.flushed = Instant::now();
                self.store.flush_uses(false).await;
            }
            self.keep_house().await;
            let space = self.status.borrow().space;
            let is_unchanged = space == std::mem::replace(&mut last, space);
            let interval = match (self.is_waiting, is_unchanged) {
                (true, _) => MIN_INTERVAL,
                (false, true) => IDLE_INTERVAL,
                (false, false) => ACTIVE_INTERVAL,
            };
            sleep(MIN_INTERVAL).await;
            let _ = timeout(interval, self.store.stored_something()).await;
        }
    }

    /// Counts the store's size, and evicts if it is close to the limit. Blobs are not stored meanwhile.
    async fn count(&mut self, counter: SpaceCounter) -> Result<SpaceCounter, StoreError> {
        let (counter, space) = counter.count().await?;
        self.show(space);
        let max = self.options.max_bytes.unwrap_or(u64::MAX);
        let room = |space: Space| percent(max, START_PERCENT).saturating_sub(space.total);
        let is_futile = |at: Option<Instant>| at.is_some_and(|at| at > Instant::now());
        self.is_waiting = false;
        if room(space) > 0 || is_futile(self.not_before) {
            let is_limited = room(space) > 0;
            let allowed = if is_limited { room(space) } else { u64::MAX };
            self.store.allow_growth(allowed);
            return Ok(counter);
        }
        self.store.allow_growth(0);
        self.evict(Some(percent(max, TARGET_PERCENT))).await;
        let (counter, space) = counter.count().await?;
        self.show(space);
        if is_futile(self.not_before) {
            self.store.allow_growth(u64::MAX);
        } else {
            // Another process removes files, or stores some.
            self.is_waiting = room(space) == 0;
            self.store.allow_growth(room(space));
        }
        Ok(counter)
    }

    fn show(&self, space: Space) {
        self.status.send_modify(|status| status.space = Some(space));
    }

    /// Drops pins of projects that are gone, and old files of the quarantine.
    async fn keep_house(&mut self) {
        let is_due = self
            .kept_house
            .is_none_or(|at| at.elapsed() >= HOUSEKEEPING_INTERVAL);
        if is_due {
            let is_first = self.kept_house.is_none();
            self.kept_house = Some(Instant::now());
            if !is_first {
                self.evict(None).await;
            }
        }
    }

    /// Runs a pass, unless another process runs one.
    async fn evict(&mut self, max_bytes: Option<u64>) {
        // Another process evicts; its result counts as much.
        let _lock = match self.store.lock_for_eviction() {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                warn!(error = %chain(&error), "cannot remove unused files");
                self.not_before = Some(Instant::now() + FUTILE_INTERVAL);
                return;
            }
        };
        // Unfinished files of killed processes count in the size.
        if let Err(error) = self.store.remove_leftovers().await {
            warn!(error = %chain(&error), "cannot remove what dead processes left");
        }
        let options = PassOptions {
            max_bytes,
            older_than: None,
            keep: KeepReleases::default(),
            forget_after: self.options.forget_after,
            is_dry_run: false,
            with_names: false,
        };
        match pass(&self.store, &self.upstreams, options).await {
            Ok(report) => self.record(&report),
            Err(error) => {
                warn!(error = %chain(&error), "cannot remove unused files");
                self.not_before = Some(Instant::now() + FUTILE_INTERVAL);
            }
        }
    }

    fn record(&mut self, report: &PassReport) {
        let (files, bytes) = (report.removed.len() as u64, report.removed_bytes());
        let max = self.options.max_bytes;
        let pins_exceed = max
            .filter(|max| report.pinned > *max)
            .map(|_| report.pinned);
        let was_exceeding = self.status.borrow().pins_exceed.is_some();
        self.status.send_modify(|status| {
            status.files += files;
            status.bytes += bytes;
            status.passes += 1;
            status.last_pass = Some(now());
            status.pins_exceed = pins_exceed;
        });
        if files > 0 {
            let size = report.size_after;
            info!(files, bytes, size, "removed unused files");
        }
        if let (Some(pinned), false) = (pins_exceed, was_exceeding) {
            let max = max.unwrap_or_default();
            warn!(
                pinned,
                max_size = max,
                "warmed projects and toolchains alone need more than max-size; nothing of them is removed"
            );
        }
        // The next pass deals with files that other processes stored meanwhile.
        let is_futile = files == 0 && report.max_size.is_some_and(|max| report.size_after > max);
        self.not_before = is_futile.then(|| Instant::now() + FUTILE_INTERVAL);
    }
}

fn percent(of: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(of)
}
