//! Logs the changes of the circuit breakers, with [`Hysteresis`]: one line when an outage begins, and one with the
//! number of requests that it touched when it ends.
//!
//! A report that is due later, because a state must last first, is made by a background task: one for each origin, and
//! only while something is due.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::{
    breaker::Outage,
    counters::{Counter, Counters},
    hysteresis::{Hysteresis, Report},
};
use crate::{clock::now, upstream::Origin};

/// The logged states of all origins. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct StateLog {
    origins: Arc<Mutex<HashMap<Origin, OriginLog>>>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct OriginLog {
    hysteresis: Hysteresis<UpstreamState>,
    /// Text of the failure that led to the present state.
    cause: String,
    /// True while a task waits for a report that is due later.
    is_watched: bool,
    /// The outage that was reported last.
    outage: Option<LoggedOutage>,
}

/// When a reported outage began, and the numbers of requests until then.
#[derive(Clone, Copy, Debug)]
struct LoggedOutage {
    since: SystemTime,
    before: AffectedRequests,
}

/// Requests that an outage touches.
#[derive(Clone, Copy, Debug)]
struct AffectedRequests {
    stale: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamState {
    Reachable,
    Slow,
    OutOfReach,
}

impl AffectedRequests {
    fn until_now(counters: &Counters) -> Self {
        let stale = [Counter::StaleDown, Counter::StaleFailed];
        Self {
            stale: stale.map(|counter| counters.get(counter)).iter().sum(),
            failed: counters.get(Counter::Failed),
        }
    }
}

impl StateLog {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            origins: Arc::default(),
            counters,
        }
    }

    /// Takes over the state of `origin` after a change. `outage` reads it while this log is locked, so that of two
    /// concurrent changes the later one counts.
    pub(super) fn update(&self, origin: &Origin, outage: impl FnOnce() -> Option<Outage>) {
        let mut logs = self.origins.lock();
        let log = logs.entry(origin.clone()).or_insert_with(|| OriginLog {
            hysteresis: Hysteresis::new(UpstreamState::Reachable),
            cause: String::new(),
            is_watched: false,
            outage: None,
        });
        let state = match outage() {
            None => UpstreamState::Reachable,
            Some(outage) => {
                log.cause = outage.failure.to_string();
                let counters = &self.counters;
                log.outage.get_or_insert_with(|| LoggedOutage {
                    since: outage.since,
                    before: AffectedRequests::until_now(counters),
                });
                if outage.is_open {
                    UpstreamState::OutOfReach
                } else {
                    UpstreamState::Slow
                }
            }
        };
        let report = log.hysteresis.enter(state, Instant::now());
        log.write(origin, report, &self.counters);
        if !log.is_watched && log.hysteresis.next_poll().is_some() {
            log.is_watched = true;
            tokio::spawn(self.clone().watch(origin.clone()));
        }
    }

    /// Makes the reports that become due, until none is left.
    async fn watch(self, origin: Origin) {
        while let Some(next) = self.poll(&origin) {
            tokio::time::sleep_until(next.into()).await;
        }
    }

    /// Makes a report that is due, and tells when the next one may be. `None` ends the watch.
    fn poll(&self, origin: &Origin) -> Option<Instant> {
        let mut logs = self.origins.lock();
        let log = logs.get_mut(origin)?;
        let report = log.hysteresis.poll(Instant::now());
        log.write(origin, report, &self.counters);
        let next = log.hysteresis.next_poll();
        log.is_watched = next.is_some();
        next
    }
}

impl OriginLog {
    fn write(
        &mut self,
        upstream: &Origin,
        report: Option<Report<UpstreamState>>,
        counters: &Counters,
    ) {
        let cause = &self.cause;
        match report {
            None => {}
            Some(Report::Unsteady(changes)) => {
                warn!(%upstream, changes, %cause, "upstream is unsteady: it fails and recovers again and again");
            }
            Some(Report::State(UpstreamState::Reachable, _)) => {
                let Some(LoggedOutage { since, before }) = self.outage.take() else {
                    return;
                };
                let after = AffectedRequests::until_now(counters);
                let stale = after.stale.saturating_sub(before.stale);
                let failed = after.failed.saturating_sub(before.failed);
                let lasted = now().duration_since(since).unwrap_or_default().as_secs();
                let lasted = humantime::format_duration(Duration::from_secs(lasted));
                info!(%upstream, served_stale = stale, failed, "upstream is back after {lasted}");
            }
            Some(Report::State(UpstreamState::Slow, _)) => {
                warn!(%upstream, %cause, "upstream is slow; serving what is stored, asking only for what is not");
            }
            Some(Report::State(UpstreamState::OutOfReach, _)) => {
                warn!(%upstream, %cause, "upstream is out of reach; serving what is stored");
            }
        }
    }
}
