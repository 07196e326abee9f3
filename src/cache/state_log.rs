//! Logs the changes of the circuit breakers, with [`Hysteresis`].
//!
//! A report that is due later, because a state must last first, is made by a background task: one for each origin, and
//! only while something is due.

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::{
    breaker::Outage,
    hysteresis::{Hysteresis, Report},
};
use crate::upstream::Origin;

/// The logged states of all origins. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct StateLog(Arc<Mutex<HashMap<Origin, OriginLog>>>);

#[derive(Debug)]
struct OriginLog {
    hysteresis: Hysteresis<UpstreamState>,
    /// Text of the failure that led to the present state.
    cause: String,
    /// True while a task waits for a report that is due later.
    is_watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamState {
    Reachable,
    Slow,
    OutOfReach,
}

impl StateLog {
    /// Takes over the state of `origin` after a change. `outage` reads it while this log is locked, so that of two
    /// concurrent changes the later one counts.
    pub(super) fn update(&self, origin: &Origin, outage: impl FnOnce() -> Option<Outage>) {
        let mut logs = self.0.lock();
        let log = logs.entry(origin.clone()).or_insert_with(|| OriginLog {
            hysteresis: Hysteresis::new(UpstreamState::Reachable),
            cause: String::new(),
            is_watched: false,
        });
        let state = match outage() {
            None => UpstreamState::Reachable,
            Some(outage) => {
                log.cause = outage.failure.to_string();
                if outage.is_open {
                    UpstreamState::OutOfReach
                } else {
                    UpstreamState::Slow
                }
            }
        };
        let report = log.hysteresis.enter(state, Instant::now());
        log.write(origin, report);
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
        let mut logs = self.0.lock();
        let log = logs.get_mut(origin)?;
        let report = log.hysteresis.poll(Instant::now());
        log.write(origin, report);
        let next = log.hysteresis.next_poll();
        log.is_watched = next.is_some();
        next
    }
}

impl OriginLog {
    fn write(&self, upstream: &Origin, report: Option<Report<UpstreamState>>) {
        let cause = &self.cause;
        match report {
            None => {}
            Some(Report::Unsteady(changes)) => {
                warn!(%upstream, changes, %cause, "upstream is unsteady: it fails and recovers again and again");
            }
            Some(Report::State(UpstreamState::Reachable, _)) => {
                info!(%upstream, "upstream is back");
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
