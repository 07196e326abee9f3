//! The scrub: the daemon reads every stored file from time to time, slowly, so that silent rot is found before a
//! client asks for the file.
//!
//! ```text
//!  start ── a minute ──> pass: folder by folder, file by file, at most `rate` bytes/s ──> a week ──> next pass
//!                           │                        └─ damaged: log, quarantine, fetch if a pin needs it
//!                           └─ position in `scrub.json`, every ten seconds
//! ```
//!
//! A pass that a restart interrupts goes on where it was. Several daemons on one store each run passes; their results
//! are the same, and the last writer of the position wins.

use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{BadFile, Repairer};
use crate::{
    clock::now,
    error::chain,
    store::{ScrubState, ScrubTotals, Store, StoreError, StoredFile, Verified},
};

/// Time between the start of the daemon and its first read.
const START_DELAY: Duration = Duration::from_secs(60);
/// Time between two writes of the position.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Reading time after which the scrub pauses: 1 MB at the default rate. Pausing after each file would cost more than
/// reading it.
const PAUSE_AFTER: Duration = Duration::from_millis(250);

/// Settings of the scrub.
#[derive(Clone, Copy, Debug)]
pub struct ScrubOptions {
    /// Bytes a second, above zero.
    pub rate: u64,
    /// Time from the end of a pass to the start of the next one.
    pub interval: Duration,
}

/// Scrubs a store.
#[derive(Debug)]
pub struct Scrub {
    store: Arc<Store>,
    repairer: Repairer,
    options: ScrubOptions,
    state: watch::Sender<ScrubState>,
    saved: Instant,
    /// Damaged files that could not be moved, and were reported.
    reported: HashSet<String>,
}

impl Scrub {
    /// A scrub of `store` that goes on where the last daemon stopped.
    pub fn new(store: Arc<Store>, repairer: Repairer, options: ScrubOptions) -> Self {
        let state = store.scrub_state().unwrap_or_default();
        Self {
            store,
            repairer,
            options,
            state: watch::Sender::new(state),
            saved: Instant::now(),
            reported: HashSet::new(),
        }
    }

    /// The position and the last pass.
    pub fn state(&self) -> watch::Receiver<ScrubState> {
        self.state.subscribe()
    }

    /// Runs passes for ever.
    pub async fn run(mut self) {
        loop {
            let delay = next_pass(&self.state.borrow(), now(), self.options.interval);
            sleep(delay).await;
            if let Err(error) = self.pass().await {
                warn!(error = %chain(&error), "cannot check the stored files");
                sleep(self.options.interval).await;
            }
        }
    }

    async fn pass(&mut self) -> Result<(), StoreError> {
        for folder in self.store.folders().await? {
            let position = folder.display().to_string();
            let is_done = |state: &ScrubState| {
                let done = state.position.as_deref();
                done.is_some_and(|done| Path::new(done) >= folder.as_path())
            };
            if is_done(&self.state.borrow()) {
                continue;
            }
            let files = self.store.files_in(folder).await?;
            self.check(files).await?;
            self.state
                .send_modify(|state| state.position = Some(position));
            self.save(false).await;
        }
        self.state.send_modify(|state| {
            state.position = None;
            let mut totals = std::mem::take(&mut state.current);
            let since = now().duration_since(SystemTime::UNIX_EPOCH);
            totals.ended = since.ok().map(|since| since.as_secs());
            state.last_pass = Some(totals);
        });
        let last = self.state.borrow().last_pass.clone().unwrap_or_default();
        let ScrubTotals { files, damaged, .. } = last;
        info!(files, damaged, "checked all stored files");
        self.save(true).await;
        Ok(())
    }

    /// Reads files at the allowed rate.
    async fn check(&mut self, files: Vec<StoredFile>) -> Result<(), StoreError> {
        let mut pacer = Pacer {
            rate: self.options.rate,
            owed: Duration::ZERO,
        };
        // The closure waits on a thread for blocking work.
        let charge = move |bytes| {
            if let Some(pause) = pacer.charge(bytes) {
                std::thread::sleep(pause);
            }
        };
        let verified = self.store.verify_slowly(files, charge).await?;
        let is_damaged = |verified: &Verified| verified.damage.is_some();
        self.state.send_modify(|state| {
            for verified in &verified {
                state.current.files += 1;
                state.current.bytes += verified.bytes;
                state.current.damaged += u64::from(is_damaged(verified));
            }
        });
        let damaged = verified.into_iter().filter(is_damaged);
        let reported = &mut self.reported;
        let new: Vec<_> = damaged
            .filter(|verified| reported.insert(verified.file.to_string()))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        for bad in self.repairer.repair_pinned(new).await {
            report(&bad);
            if bad.quarantined.is_some() {
                self.reported.remove(&bad.file);
            }
            let fetched = u64::from(bad.repaired);
            self.state
                .send_modify(|state| state.current.fetched += fetched);
        }
        Ok(())
    }

    /// Writes the state, unless it was written a moment ago.
    async fn save(&mut self, is_due: bool) {
        if !is_due && self.saved.elapsed() < SAVE_INTERVAL {
            return;
        }
        self.saved = Instant::now();
        let state = self.state.borrow().clone();
        if let Err(error) = self.store.put_scrub_state(&state).await {
            warn!(error = %chain(&error), "cannot write the position of the check of stored files");
        }
    }
}

fn report(bad: &BadFile) {
    let BadFile {
        file,
        what,
        why,
        quarantined,
        repaired,
        failure,
    } = bad;
    let what = what.as_deref().unwrap_or("unknown");
    let moved = quarantined.as_ref().map(|path| path.display().to_string());
    let moved = moved.as_deref().unwrap_or("nowhere");
    if *repaired {
        warn!(%file, %what, %why, quarantine = %moved, "a stored file was damaged; it was fetched again");
    } else {
        let failure = failure.as_deref().unwrap_or_default();
        warn!(%file, %what, %why, quarantine = %moved, %failure, "a stored file is damaged");
    }
}

/// Spreads reads over time.
#[derive(Debug)]
struct Pacer {
    /// Bytes a second.
    rate: u64,
    /// The time that reads since the last pause were allowed to take.
    owed: Duration,
}

impl Pacer {
    /// Counts a read. Returns the time to wait, if it is time for a pause.
    fn charge(&mut self, bytes: u64) -> Option<Duration> {
        self.owed += Duration::from_secs_f64(bytes as f64 / self.rate.max(1) as f64);
        (self.owed >= PAUSE_AFTER).then(|| std::mem::take(&mut self.owed))
    }
}

/// The time until the next pass starts or goes on.
fn next_pass(state: &ScrubState, now: SystemTime, interval: Duration) -> Duration {
    let soon = START_DELAY.min(interval);
    let ended = state.last_pass.as_ref().and_then(|pass| pass.ended);
    let ended = ended.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    match (&state.position, ended) {
        (Some(_), _) | (None, None) => soon,
        (None, Some(ended)) => match now.duration_since(ended) {
            Ok(age) => interval.saturating_sub(age).max(soon),
            // The clock was set back.
            Err(_) => interval,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_starts_an_interval_after_the_last_one_and_an_interrupted_one_goes_on_soon() {
        let week = Duration::from_secs(7 * 86_400);
        let ended = SystemTime::UNIX_EPOCH + week * 2_000;
        let last_pass = Some(ScrubTotals {
            ended: Some(week.as_secs() * 2_000),
            ..ScrubTotals::default()
        });
        let finished = ScrubState {
            last_pass,
            ..ScrubState::default()
        };
        let interrupted = ScrubState {
            position: Some("blobs/7f".to_owned()),
            ..finished.clone()
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(next_pass(&ScrubState::default(), ended, week), START_DELAY);
        assert_eq!(next_pass(&finished, ended + hour, week), week - hour);
        assert_eq!(next_pass(&finished, ended + week * 3, week), START_DELAY);
        assert_eq!(next_pass(&finished, ended - hour, week), week);
        assert_eq!(next_pass(&interrupted, ended + hour, week), START_DELAY);
        let second = Duration::from_secs(1);
        assert_eq!(next_pass(&interrupted, ended + hour, second), second);
    }

    #[test]
    fn reads_are_spread_over_time_with_few_pauses() {
        let mut pacer = Pacer {
            rate: 4 << 20,
            owed: Duration::ZERO,
        };
        let pauses: Vec<_> = (0..400).filter_map(|_| pacer.charge(20 << 10)).collect();
        let total: Duration = pauses.iter().sum();
        // 8 MB in two seconds.
        assert!((1_700..2_000).contains(&total.as_millis()), "{total:?}");
        assert!(pauses.len() < 8, "{pauses:?}");
    }
}
