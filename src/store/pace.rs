//! [`Pace`]: the share of a core and of the disk that eviction takes.
//!
//! ```text
//!  nothing waits for space   work ── pause, 39 times as long ── work ── pause ── ...
//!  something waits           work ── work ── work ── ... until it has its space
//! ```
//!
//! Bodies and writes of this process wait in [`Growth`]. Another process in which something waits tries to lock
//! `eviction-lock`, and sets its modification time when it cannot.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::{Store, growth::Growth};
use crate::clock::now;

/// Work after which a pause is due. Shorter pauses would cost more than they give to others.
const WORK: Duration = Duration::from_millis(1);
/// Length of a pause, in multiples of the work before it. Eviction then takes a fortieth of a core, which costs 2 % of
/// the hits where they keep two cores busy.
const PAUSE_FACTOR: u32 = 39;
/// Longest pause. Work that took long has mostly waited for a core or for the disk, and left them to others.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// Time after which a pause looks whether something waits for space.
const DEMAND_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which work hurries after another process tried to lock `eviction-lock`. That one tries again earlier.
const HURRY: Duration = Duration::from_secs(1);

/// Spreads work on threads for blocking work over time.
#[derive(Debug)]
pub struct Pace {
    /// Tells whether something waits; `None` to work without pauses.
    demand: Option<SpaceDemand>,
    /// End of the last pause.
    resumed: Mutex<Instant>,
}

/// The need for space in all processes.
#[derive(Debug)]
struct SpaceDemand {
    growth: Arc<Growth>,
    lock: PathBuf,
    /// Modification time of `lock` at the start.
    untouched: Option<SystemTime>,
}

impl SpaceDemand {
    fn is_urgent(&self) -> bool {
        let touched = modified(&self.lock);
        let age = touched.and_then(|touched| now().duration_since(touched).ok());
        let is_wanted = touched != self.untouched && age.is_some_and(|age| age < HURRY);
        is_wanted || self.growth.is_awaited()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

impl Store {
    /// A pace that leaves most of a core and of the disk to clients, unless something waits for space.
    pub fn background_pace(&self) -> Arc<Pace> {
        let lock = self.layout.eviction_lock();
        let demand = SpaceDemand {
            growth: self.growth.clone(),
            untouched: modified(&lock),
            lock,
        };
        Arc::new(Pace::new(Some(demand)))
    }
}

impl Pace {
    /// A pace without pauses.
    pub fn full_speed() -> Arc<Self> {
        Arc::new(Self::new(None))
    }

    fn new(demand: Option<SpaceDemand>) -> Self {
        Self {
            demand,
            resumed: Mutex::new(Instant::now()),
        }
    }

    /// Pauses if it is time. Called after each small piece of work, and blocks the thread.
    pub(super) fn step(&self) {
        let Some(demand) = &self.demand else {
            return;
        };
        let mut resumed = self.resumed.lock();
        let Some(pause) = pause_after(resumed.elapsed()) else {
            return;
        };
        let end = Instant::now() + pause;
        while !demand.is_urgent()
            && let Some(left) = end.checked_duration_since(Instant::now())
        {
            thread::sleep(left.min(DEMAND_INTERVAL));
        }
        *resumed = Instant::now();
    }
}

/// The pause that is due after this much work, if one is.
fn pause_after(worked: Duration) -> Option<Duration> {
    (worked >= WORK).then(|| (worked * PAUSE_FACTOR).min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SpaceLimit;

    #[test]
    fn a_pause_is_39_times_as_long_as_the_work_before_it() {
        let milliseconds = Duration::from_millis;
        assert_eq!(pause_after(Duration::from_micros(999)), None);
        assert_eq!(pause_after(milliseconds(1)), Some(milliseconds(39)));
        assert_eq!(pause_after(Duration::from_secs(600)), Some(MAX_PAUSE));
    }

    #[tokio::test]
    async fn work_pauses_unless_something_waits_for_space_in_any_process() {
        let folder = tempfile::tempdir().unwrap();
        let [store, other] = [1, 2].map(|_| Store::open(folder.path()).unwrap());
        let lock = store.lock_for_eviction(false).unwrap();
        let pace = store.background_pace();
        let is_urgent = || pace.demand.as_ref().is_some_and(SpaceDemand::is_urgent);
        let full = SpaceLimit {
            max: 10,
            usable: 0,
            largest: 10,
            is_soft: false,
        };
        store.growth.allow(Some(full), 0, 0);
        // The store is full, but nothing waits.
        assert!(!is_urgent());
        *pace.resumed.lock() -= MAX_PAUSE;
        let started = Instant::now();
        pace.step();
        assert!(started.elapsed() >= MAX_PAUSE);
        let ((), hurries) = tokio::join!(store.growth.wait_for_space(), async { is_urgent() });
        assert!(hurries && !is_urgent());
        let claim = store.growth.claim();
        let waiting = claim.reserve(1, MAX_PAUSE);
        let (refused, hurries) = tokio::join!(waiting, async { is_urgent() });
        assert!(refused.is_err() && hurries && !is_urgent());
        assert!(other.lock_for_eviction(false).unwrap().is_none());
        assert!(!is_urgent());
        assert!(other.lock_for_eviction(true).unwrap().is_none());
        assert!(is_urgent());
        drop(lock);
    }
}
