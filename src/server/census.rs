//! [`Census`]: numbers about store and pins that take time to count.
//!
//! No request waits for them. A request for the metrics starts a count in the background if the last one is old, and
//! gets the last one. So a store that no one watches is not read for it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    cache::Cache,
    overview::{AdvisoryCounts, project_states, recall_reports},
    store::{Space, SpaceCounter, Store, StoreError},
};

/// Time after which a request starts another count.
const LIFETIME: Duration = Duration::from_secs(60);

/// The numbers as of the last count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Disk space of the store.
    pub(super) space: Space,
    /// Pins all of whose files are stored, and the others.
    pub(super) complete: u64,
    pub(super) incomplete: u64,
    /// Advisories about packages of pins; `None` without a database.
    pub(super) advisories: Option<AdvisoryCounts>,
    /// Versions that upstream has taken back and pins lock, by kind.
    pub(super) locked_recalls: BTreeMap<&'static str, u64>,
}

/// Counts in the background, one count at a time.
#[derive(Debug)]
pub(super) struct CensusTaker {
    store: Arc<Store>,
    state: Mutex<CensusState>,
}

#[derive(Debug, Default)]
struct CensusState {
    last: Option<Arc<Census>>,
    /// End of the last count, also of one that failed.
    ended: Option<Instant>,
    /// Reads only what has changed since it counted last.
    counter: Option<SpaceCounter>,
    is_counting: bool,
}

/// Ends a count once it is dropped, also if the count panics.
struct RunningCensus<'a>(&'a Mutex<CensusState>);

impl Drop for RunningCensus<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_counting = false;
        state.ended = Some(Instant::now());
    }
}

impl CensusTaker {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            state: Mutex::default(),
        }
    }

    /// The numbers of the last count; `None` before the end of the first one. Starts another one if that is due.
    pub(super) fn latest(self: &Arc<Self>, cache: &Cache) -> Option<Arc<Census>> {
        let mut state = self.state.lock();
        let is_recent = state.ended.is_some_and(|at| at.elapsed() < LIFETIME);
        if !is_recent && !state.is_counting {
            state.is_counting = true;
            let counter = state.counter.take();
            let counter = counter.unwrap_or_else(|| self.store.space_counter());
            let (taker, cache) = (self.clone(), cache.clone());
            tokio::spawn(async move {
                let _running = RunningCensus(&taker.state);
                if let Ok((counter, census)) = taker.count(counter, &cache).await {
                    let mut state = taker.state.lock();
                    state.counter = Some(counter);
                    state.last = Some(Arc::new(census));
                }
            });
        }
        state.last.clone()
    }

    async fn count(
        &self,
        counter: SpaceCounter,
        cache: &Cache,
    ) -> Result<(SpaceCounter, Census), StoreError> {
        let (counter, space) = counter.count().await?;
        let pins = self.store.pins().await?;
        let projects = project_states(&self.store, &pins).await?;
        let complete = projects.iter().filter(|project| project.missing.is_empty());
        let complete = complete.count() as u64;
        let mut locked_recalls = BTreeMap::from([("removed", 0), ("yanked", 0), ("checksum", 0)]);
        for report in recall_reports(&cache.recalls(), &pins) {
            if !report.locked_by.is_empty() {
                *locked_recalls
                    .entry(report.recall.kind.as_str())
                    .or_default() += 1;
            }
        }
        let advisories = cache.advisories();
        let census = Census {
            space,
            complete,
            incomplete: projects.len() as u64 - complete,
            advisories: advisories
                .map(|(database, allowed)| AdvisoryCounts::of(&database, allowed, &pins)),
            locked_recalls,
        };
        Ok((counter, census))
    }
}
