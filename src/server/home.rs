//! The data of the start page: gathered from the cache and the store when a browser asks for it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::header;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    background::Background, census::CensusTaker, facts, request::RequestHead, traffic::Traffic,
};
use crate::{
    cache::{Cache, Counter},
    client_config::cargo_settings,
    clock::now,
    overview::{
        AnsweredRequests, AnswersStatus, History, TroubleFacts, project_states, recall_reports,
        stored_versions, troubles,
    },
    page::{CrateSearch, Now, Overview, Page, Stored},
    resource::Upstreams,
    store::{Pin, Statistics, Store},
};

/// Time for which a count of the store's files is shown again: it reads every folder of the store.
const COUNT_LIFETIME: Duration = Duration::from_secs(60);

/// Browsers that get the changes of the page at a time.
const MAX_VIEWERS: usize = 32;

/// The data of the page besides the cache's.
#[derive(Debug)]
pub struct Home {
    store: Arc<Store>,
    history: History,
    counted: Mutex<Counted>,
    /// Numbers that take time to count, for the metrics.
    pub(super) census: Arc<CensusTaker>,
    /// Browsers that may get the changes of the page.
    pub(super) viewers: Arc<Semaphore>,
    /// When the daemon started.
    pub(super) started: SystemTime,
}

/// The last count of the store's files.
#[derive(Debug, Default)]
struct Counted {
    last: Option<(Instant, Statistics)>,
    /// True while a request counts them again.
    is_counting: bool,
}

impl Home {
    /// A page about `store` with an empty history.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            census: Arc::new(CensusTaker::new(store.clone())),
            store,
            history: History::default(),
            counted: Mutex::default(),
            viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
            started: now(),
        }
    }

    /// Records the numbers of each minute. Never ends.
    pub async fn record_minutes(&self, cache: &Cache) {
        let minute = Duration::from_secs(60);
        let mut ticks = interval(minute);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.history.end_minute(answers(cache));
        }
    }

    /// How requests were answered since the start, in the last hour and in the last day.
    pub(super) fn answers(&self, cache: &Cache) -> AnswersStatus {
        let total = answers(cache);
        AnswersStatus::new(total, &self.history.minutes(total))
    }

    /// The numbers of stored files, at most [`COUNT_LIFETIME`] old. While one request counts them again, others get the
    /// numbers of before.
    async fn statistics(&self) -> Option<Statistics> {
        {
            let mut counted = self.counted.lock();
            let last = counted.last;
            let is_recent = last.is_some_and(|(at, _)| at.elapsed() < COUNT_LIFETIME);
            if is_recent || counted.is_counting {
                return last.map(|(_, statistics)| statistics);
            }
            counted.is_counting = true;
        }
        // A browser that goes away ends this future at any await.
        let counting = Counting(&self.counted);
        let statistics = self.store.statistics().await.ok()?;
        counting.0.lock().last = Some((Instant::now(), statistics));
        Some(statistics)
    }

    /// The page, with a search if `query` has one. `base` is the address that the client used, ending in `/`.
    pub(super) async fn page(
        &self,
        cache: &Cache,
        upstreams: &Upstreams,
        background: &Background,
        traffic: &Traffic,
        (base, query): (&str, Option<&str>),
    ) -> Page {
        let pins = self.pins().await;
        Page {
            base: base.to_owned(),
            now: self.now(cache, background, traffic).await,
            search: self.search(cache, upstreams, query, &pins).await,
            overview: self.overview(cache, background, pins).await,
        }
    }

    /// The parts of the page that change each second.
    pub(super) async fn now(
        &self,
        cache: &Cache,
        background: &Background,
        traffic: &Traffic,
    ) -> Now {
        let max_bytes = background.eviction.and_then(|status| status.max_bytes);
        Now {
            is_offline: cache.is_offline(),
            outages: facts::outages(cache),
            total: answers(cache),
            downloads: facts::downloads(cache),
            fetching: cache.in_flight(),
            saved_bytes: traffic.latencies.saved_bytes(),
            stored: self.statistics().await.map(|found| Stored {
                blobs: found.blobs,
                entries: found.entries,
                bytes: found.entry_bytes + found.blob_bytes,
                max_bytes,
            }),
        }
    }

    /// The parts of the page that change slowly.
    pub(super) async fn overview(
        &self,
        cache: &Cache,
        background: &Background,
        pins: Vec<Pin>,
    ) -> Overview {
        let census = self.census.latest(cache);
        let (damaged, fetched_again) = damaged(background);
        Overview {
            minutes: self.history.minutes(answers(cache)),
            trouble: troubles(&TroubleFacts {
                store_problem: cache.store_problem().as_deref(),
                withdrawn: &facts::withdrawn(cache),
                recalls: &recall_reports(&cache.recalls(), &pins),
                advisories: census
                    .as_ref()
                    .and_then(|census| census.advisories.as_ref()),
                damaged,
                fetched_again,
                not_ready: background.keep_warm.map_or(0, |status| status.not_ready),
                pins_exceed: background
                    .eviction
                    .and_then(|status| status.pins_exceed.zip(status.max_bytes)),
            }),
            projects: project_states(&self.store, &pins).await.unwrap_or_default(),
        }
    }

    /// All pins of the store.
    pub(super) async fn pins(&self) -> Vec<Pin> {
        self.store.pins().await.unwrap_or_default()
    }

    /// The stored versions of the crate that `query` names.
    async fn search(
        &self,
        cache: &Cache,
        upstreams: &Upstreams,
        query: Option<&str>,
        pins: &[Pin],
    ) -> Option<CrateSearch> {
        let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
        let (_, name) = pairs.find(|(key, _)| key == "crate")?;
        let name = name.trim().to_owned();
        if name.is_empty() {
            return None;
        }
        let versions = stored_versions(cache, &self.store, upstreams, &name, pins).await;
        Some(CrateSearch {
            query: name,
            versions,
        })
    }
}

/// Lets another request count once it is dropped.
struct Counting<'a>(&'a Mutex<Counted>);

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.lock().is_counting = false;
    }
}

/// Damaged files that the last and the current pass of the scrub have found, and those of them that were fetched again.
fn damaged(background: &Background) -> (u64, u64) {
    let Some(scrub) = &background.scrub else {
        return (0, 0);
    };
    let passes = scrub.last_pass.iter().chain([&scrub.current]);
    passes.fold((0, 0), |(damaged, fetched), pass| {
        (damaged + pass.damaged, fetched + pass.fetched)
    })
}

/// How requests were answered since the daemon started.
fn answers(cache: &Cache) -> AnsweredRequests {
    let mut answers = AnsweredRequests::default();
    for (counter, count) in cache.counters() {
        match counter {
            Counter::Hit | Counter::Revalidated | Counter::StaleRevalidating => {
                answers.hits += count
            }
            Counter::Miss | Counter::Collapsed | Counter::Prefetched => answers.misses += count,
            Counter::StaleOffline
            | Counter::StaleDown
            | Counter::StaleFailed
            | Counter::StaleWithdrawn => {
                answers.stale += count;
            }
            Counter::Refused | Counter::Failed => answers.failed += count,
            // A crate that does not exist is no failure, and the other counters count no requests of clients.
            Counter::Absent
            | Counter::UpstreamAnswers
            | Counter::UpstreamFailures
            | Counter::ProbesFailed
            | Counter::EntriesRecalled
            | Counter::EntriesPrefetched
            | Counter::PrefetchedEntriesAsked
            | Counter::BlobsPrefetched
            | Counter::PrefetchedBlobsAsked => {}
        }
    }
    answers
}

/// Returns whether the client is a browser: programs get plain text.
pub(super) fn wants_html(head: &RequestHead) -> bool {
    let accepted = head.request.headers().get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split([',', ';'])
                .any(|part| part.trim() == "text/html")
        })
}

/// The start page for clients other than browsers: how to configure cargo for this server.
pub(super) fn plain_text(base: &str) -> String {
    let settings = cargo_settings(base);
    format!(
        "larder {} is running here.\n\nTo use it, put this into cargo's config.toml:\n\n{settings}\n\
         Status: /-/status.json, for Prometheus: /-/metrics\n",
        env!("CARGO_PKG_VERSION")
    )
}
