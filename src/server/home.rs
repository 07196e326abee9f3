//! The data of the start page: gathered from the cache and the store when a browser asks for it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use http::header;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{background::Background, request::RequestHead};
use crate::{
    cache::{Cache, Counter, DownloadProgress},
    eviction::missing_owners,
    hash::Sha256,
    page::{
        AnsweredRequests, CrateSearch, DownloadLine, History, Now, OutageLine, Overview, Page,
        ProjectLine, Stored, StoredVersion,
    },
    resource::{IndexEntry, Registry, Upstreams, registry::listed_checksums},
    store::{Pin, RecallKind, Statistics, Store, locking_owners},
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
    /// Browsers that may get the changes of the page.
    pub(super) viewers: Arc<Semaphore>,
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
            store,
            history: History::default(),
            counted: Mutex::default(),
            viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
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
        base: &str,
        query: Option<&str>,
    ) -> Page {
        let pins = self.pins().await;
        Page {
            base: base.to_owned(),
            now: self.now(cache, background).await,
            search: self.search(cache, upstreams, query, &pins).await,
            overview: self.overview(cache, background, pins).await,
        }
    }

    /// The parts of the page that change each second.
    pub(super) async fn now(&self, cache: &Cache, background: &Background) -> Now {
        let outages = cache.outages().into_iter();
        let max_bytes = background.eviction.and_then(|status| status.max_bytes);
        Now {
            is_offline: cache.is_offline(),
            outages: outages
                .map(|(origin, outage)| OutageLine {
                    upstream: origin.to_string(),
                    is_down: outage.is_open,
                    since: outage.since,
                    cause: outage.failure.to_string(),
                })
                .collect(),
            total: answers(cache),
            downloads: cache.downloads().into_iter().map(download_line).collect(),
            fetching: cache.in_flight(),
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
        Overview {
            minutes: self.history.minutes(answers(cache)),
            trouble: trouble(cache, background, &pins),
            projects: projects(&self.store, pins).await,
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
        let mut versions = Vec::new();
        for registry in upstreams.registries.iter() {
            let Some(entry) = IndexEntry::of(registry, &name) else {
                continue;
            };
            if let Some(body) = cache.peek(&entry).await {
                versions.extend(stored_versions(&self.store, registry, &body, pins).await);
            }
        }
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

/// Matters that need attention: entries and versions that upstream has taken back and a project needs, damaged files,
/// projects that could not be kept ready, and a limit that pins exceed.
fn trouble(cache: &Cache, background: &Background, pins: &[Pin]) -> Vec<String> {
    let mut lines = Vec::new();
    for (resource, _) in cache.withdrawn() {
        lines.push(format!(
            "Upstream no longer has the {resource}. A warmed project needs it, so it is still served."
        ));
    }
    lines.extend(recall_lines(cache, pins));
    if let Some(scrub) = &background.scrub {
        let last = scrub.last_pass.as_ref();
        let damaged = last.map_or(0, |pass| pass.damaged) + scrub.current.damaged;
        if damaged > 0 {
            lines.push(format!(
                "{damaged} damaged files were found on the disk and moved to the quarantine."
            ));
        }
    }
    let not_ready = background.keep_warm.map_or(0, |status| status.not_ready);
    if not_ready > 0 {
        lines.push(format!(
            "{not_ready} warmed projects or toolchains could not be made ready. `larder warm` says why."
        ));
    }
    if background
        .eviction
        .is_some_and(|status| status.pins_exceed.is_some())
    {
        lines.push("What warmed projects need exceeds `max-size`, and is kept.".to_owned());
    }
    lines
}

/// A line for each version that upstream has taken back and a project locks, or whose checksum has changed.
fn recall_lines(cache: &Cache, pins: &[Pin]) -> Vec<String> {
    let recalls = cache.recalls();
    let owners = locking_owners(&recalls, pins);
    let lines = recalls.iter().zip(owners).filter_map(|(recall, owners)| {
        let is_locked = !owners.is_empty();
        let what = match recall.kind {
            RecallKind::Checksum { .. } => "has another checksum upstream, which is refused",
            RecallKind::Removed if is_locked => {
                "was removed upstream, and a warmed project locks it"
            }
            RecallKind::Yanked if is_locked => "was yanked upstream, and a warmed project locks it",
            RecallKind::Removed | RecallKind::Yanked => return None,
        };
        Some(format!("{} {} {what}.", recall.name, recall.version))
    });
    lines.collect()
}

/// The versions that the index entry `body` lists and the store has, the newest first.
async fn stored_versions(
    store: &Store,
    registry: &Registry,
    body: &[u8],
    pins: &[Pin],
) -> Vec<StoredVersion> {
    let listed = listed_checksums(body);
    let hashes = listed.iter().map(|(_, sha256)| *sha256).collect();
    let sizes = store.sizes(hashes).await.unwrap_or_default();
    let newest_first = listed.into_iter().zip(sizes).rev();
    let stored = newest_first.filter_map(|((version, sha256), bytes)| {
        let owners = pins.iter().filter(|pin| {
            let mut packages = pin.packages.iter();
            packages.any(|package| package.checksum == Some(sha256))
        });
        Some(StoredVersion {
            registry: registry.name().to_owned(),
            version,
            bytes: bytes?,
            needed_by: owners.map(|pin| pin.owner.to_string()).collect(),
        })
    });
    stored.collect()
}

/// The files that each pin needs, and those of them that are not stored.
async fn projects(store: &Store, pins: Vec<Pin>) -> Vec<ProjectLine> {
    let gone = missing_owners(&pins).await;
    let needed = pins.iter().flat_map(Pin::needed_files);
    let hashes: BTreeSet<_> = needed.map(|file| file.sha256).collect();
    let hashes = Vec::from_iter(hashes);
    let Ok(stored) = store.contains(hashes.clone()).await else {
        return Vec::new();
    };
    let stored: HashMap<_, _> = hashes.into_iter().zip(stored).collect();
    let is_stored = |sha256: &Sha256| stored.get(sha256).copied().unwrap_or_default();
    let projects = pins.into_iter().map(|pin| {
        let files = pin.needed_files();
        let missing = files.filter(|file| !is_stored(&file.sha256));
        ProjectLine {
            needed: pin.needed_packages().count() + pin.archives.len(),
            missing: missing.map(|file| file.to_string()).collect(),
            is_gone: gone.contains(&pin.owner),
            owner: pin.owner.to_string(),
        }
    });
    projects.collect()
}

fn download_line(download: DownloadProgress) -> DownloadLine {
    DownloadLine {
        what: download.what,
        received: download.received,
        total: download.total,
    }
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
