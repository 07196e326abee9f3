//! [`Evictor`]: keeps the daemon's store within its limit.
//!
//! ```text
//!  93 % of the limit ──> pass ──> 90 %
//!  ^ counted when this process has stored something, every second while the store changes, every five otherwise
//!
//!  bodies that arrive claim their space first, up to 95 %: what waits for it lowers the marks by its size
//!  while nothing is free: this process stores no small blobs, but waits a second at most
//! ```
//!
//! A pass is slow ([`Pace`](crate::store::Pace)) until something waits for space. Space is granted as it becomes free.
//!
//! The margin is for what other processes store meanwhile. If pinned and held files alone exceed 90 % of the limit, the
//! evictor removes nothing more and lifts the limit for claims.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{KeepReleases, PassOptions, PassReport, pass};
use crate::{
    clock::{milliseconds, now},
    error::chain,
    resource::Upstreams,
    store::{Space, SpaceCounter, SpaceLimit, SpaceNeed, Store, StoreError},
};

/// Part of the limit, in percent, that files and claims may take before others wait.
const USABLE_PERCENT: u64 = 95;
/// Part of the limit, in percent, from which a pass runs. It has time until [`USABLE_PERCENT`] is reached.
const START_PERCENT: u64 = 93;
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
/// Time between two counts while bodies or writes wait for space.
const WAITING_INTERVAL: Duration = Duration::from_millis(50);
/// Time after which a pass that freed nothing is repeated, because unfinished bodies take the space.
const FUTILE_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the limit is lifted, because what cannot be removed takes all of it.
const LIFTED_INTERVAL: Duration = Duration::from_secs(10);
/// A body of more than one part in this many of the limit is not stored: it would displace too much.
const LARGEST_PARTS: u64 = 2;

/// Settings of the evictor.
#[derive(Clone, Copy, Debug)]
pub struct EvictorOptions {
    /// Space for the whole store, in bytes; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Time after which the pin of a project that is gone is dropped.
    pub forget_after: Duration,
    /// True for a command that registers its pins at its end: what it stores stays, above the limit if need be.
    pub is_command: bool,
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
    /// For a command, when it started, in milliseconds since 1970.
    own_since: Option<u64>,
    flushed: Instant,
    kept_house: Option<Instant>,
    /// When the next pass may run, after one that freed nothing.
    not_before: Option<Instant>,
    /// The end of the time for which the limit is lifted.
    lifted_until: Option<Instant>,
    /// Space of what pins need, in bytes, as of the last pass.
    pinned: u64,
    /// True while something waits for space, and the next count is due soon.
    is_waiting: bool,
}

/// The result of trying to run a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PassResult {
    /// It removed something, or there was nothing to remove.
    Done,
    /// It removed too little.
    Futile,
    /// Another process runs one.
    NotRun,
    /// The store cannot be read or changed.
    Failed,
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
            own_since: options.is_command.then(|| milliseconds(now())),
            flushed: Instant::now(),
            kept_house: None,
            not_before: None,
            lifted_until: None,
            pinned: 0,
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
                (true, _) => WAITING_INTERVAL,
                (false, true) => IDLE_INTERVAL,
                (false, false) => ACTIVE_INTERVAL,
            };
            sleep(MIN_INTERVAL).await;
            let _ = timeout(interval, self.store.size_changed()).await;
        }
    }

    /// Counts the store's size, grants space to what waits for it, and evicts if too little is left.
    async fn count(&mut self, counter: SpaceCounter) -> Result<SpaceCounter, StoreError> {
        let max = self.options.max_bytes.unwrap_or(u64::MAX);
        let (counter, need) = self.grant(counter).await?;
        self.is_waiting = is_missing(need);
        let total = self.status.borrow().space.map_or(0, |space| space.total);
        let is_due = is_missing(need) || total > percent(max, START_PERCENT);
        if !is_due || self.not_before.is_some_and(is_ahead) {
            return Ok(counter);
        }
        let target = percent(max, TARGET_PERCENT).saturating_sub(need.waiting);
        let (counter, result) = self.evict(counter, Some(target)).await?;
        let (counter, need) = self.grant(counter).await?;
        self.is_waiting = is_missing(need);
        let space = self.status.borrow().space.unwrap_or_default();
        let must_stay = space.total.saturating_sub(space.staging);
        let is_lifted = self.options.is_command || must_stay > percent(max, TARGET_PERCENT);
        let pause = match result {
            PassResult::Futile if is_lifted => Some(LIFTED_INTERVAL),
            PassResult::Failed => Some(LIFTED_INTERVAL),
            PassResult::Done | PassResult::Futile | PassResult::NotRun => None,
        };
        self.lifted_until = pause.map(|pause| Instant::now() + pause);
        self.not_before = match result {
            PassResult::Futile | PassResult::Failed => {
                Some(Instant::now() + pause.unwrap_or(FUTILE_INTERVAL))
            }
            PassResult::Done | PassResult::NotRun => None,
        };
        match self.lifted_until {
            Some(_) => Ok(self.grant(counter).await?.0),
            None => Ok(counter),
        }
    }

    /// Counts the store, and grants what the limit allows.
    async fn grant(&self, counter: SpaceCounter) -> Result<(SpaceCounter, SpaceNeed), StoreError> {
        let is_lifted = self.lifted_until.is_some_and(is_ahead);
        let limit = self.options.max_bytes.filter(|_| !is_lifted);
        let limit = limit.map(|max| {
            let usable = percent(max, USABLE_PERCENT);
            SpaceLimit {
                max,
                usable,
                largest: match self.options.is_command {
                    true => u64::MAX,
                    false => (max / LARGEST_PARTS).min(usable.saturating_sub(self.pinned)),
                },
                is_soft: self.options.is_command,
            }
        });
        let (counter, space, need) = self.store.grant_space(counter, limit).await?;
        self.status.send_modify(|status| status.space = Some(space));
        Ok((counter, need))
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
                let counter = self.store.space_counter();
                if let Err(error) = self.evict(counter, None).await {
                    warn!(error = %chain(&error), "cannot count the size of the store");
                }
            }
        }
    }

    /// Runs a pass, unless another process runs one, and grants space as it becomes free.
    async fn evict(
        &mut self,
        mut counter: SpaceCounter,
        max_bytes: Option<u64>,
    ) -> Result<(SpaceCounter, PassResult), StoreError> {
        let options = PassOptions {
            max_bytes,
            older_than: None,
            own_since: self.own_since,
            keep: KeepReleases::default(),
            forget_after: self.options.forget_after,
            is_dry_run: false,
            with_names: false,
        };
        let (store, upstreams) = (self.store.clone(), self.upstreams.clone());
        let mut pass = pin!(locked_pass(store, upstreams, options, counter.clone()));
        let passed = loop {
            select! {
                passed = &mut pass => break passed,
                () = sleep(WAITING_INTERVAL) => {}
            }
            if self.store.is_space_awaited() {
                counter = self.grant(counter).await?.0;
            }
        };
        let result = match passed {
            Ok(Some(report)) => self.record(&report),
            // Another process evicts; its result counts as much.
            Ok(None) => PassResult::NotRun,
            Err(error) => {
                warn!(error = %chain(&error), "cannot remove unused files");
                PassResult::Failed
            }
        };
        Ok((counter, result))
    }

    fn record(&mut self, report: &PassReport) -> PassResult {
        let (files, bytes) = (report.removed.len() as u64, report.removed_bytes());
        let max = self.options.max_bytes;
        if files > 0 || report.pinned > 0 {
            self.pinned = report.pinned;
        }
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
        match report.max_size {
            Some(max) if files == 0 && report.size_after > max => PassResult::Futile,
            Some(_) | None => PassResult::Done,
        }
    }
}

/// Runs a pass at the pace of background work. `None` if another process runs one.
async fn locked_pass(
    store: Arc<Store>,
    upstreams: Upstreams,
    options: PassOptions,
    counter: SpaceCounter,
) -> Result<Option<PassReport>, StoreError> {
    let Some(_lock) = store.lock_for_eviction(store.is_space_awaited())? else {
        return Ok(None);
    };
    // Unfinished files of killed processes count in the size.
    if let Err(error) = store.remove_leftovers().await {
        warn!(error = %chain(&error), "cannot remove what dead processes left");
    }
    let pace = store.background_pace();
    let report = pass(&store, &upstreams, options, counter, &pace).await?;
    Ok(Some(report))
}

/// Returns whether something waits for space.
fn is_missing(need: SpaceNeed) -> bool {
    need.is_full || need.waiting > 0
}

fn is_ahead(at: Instant) -> bool {
    at > Instant::now()
}

fn percent(of: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(of)
}
