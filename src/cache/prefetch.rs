//! What is asked for after a listing was handed out, and what of the rest to fetch before it is asked for. Decides and
//! remembers; the fetching is the cache's.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    cache::Counter,
    hash::Sha256,
    resource::{Key, Location, PrefetchHint, Resource},
};

/// What is fetched ahead for one reason: how much of it at a time, and what it is counted as.
#[derive(Debug)]
pub(super) struct PrefetchClass {
    pub(super) room: Semaphore,
    /// The counter of what has come.
    pub(super) fetched: Counter,
    /// The counter of what clients then asked for.
    pub(super) asked: Counter,
}

impl PrefetchClass {
    /// For so many blobs at a time.
    pub(super) fn new(room: usize, fetched: Counter, asked: Counter) -> Self {
        Self {
            room: Semaphore::new(room),
            fetched,
            asked,
        }
    }
}

/// How long ago something was asked about, or followed, that belongs to the same burst for certain.
pub(super) const BURST_WINDOW: Duration = Duration::from_secs(2);

/// The leads that were followed lately, with what sets apart those to the same thing: a burst has many to a few.
#[derive(Debug, Default)]
pub(super) struct RecentHints(Mutex<Followed>);

#[derive(Debug, Default)]
struct Followed {
    since: Option<Instant>,
    /// By lead, whether as a likely one.
    leads: HashMap<(Key, String), bool>,
}

impl RecentHints {
    /// Whether this lead to what is kept under `key` is yet to be followed, which it then counts as. One that was followed without
    /// being likely is, once it is.
    pub(super) fn follow(&self, key: &Key, lead: &PrefetchHint, now: Instant) -> bool {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_past = |since| now.duration_since(since) > BURST_WINDOW;
        if followed.since.is_none_or(is_past) {
            *followed = Followed {
                since: Some(now),
                leads: HashMap::new(),
            };
        }
        match followed.leads.entry((key.clone(), lead.choice.clone())) {
            Entry::Vacant(free) => {
                free.insert(lead.is_likely);
                true
            }
            Entry::Occupied(mut was_likely) => {
                lead.is_likely && !std::mem::replace(was_likely.get_mut(), true)
            }
        }
    }
}

/// One handed-out body, and what was asked of it since.
#[derive(Debug)]
pub(super) struct InstallSession {
    listing: Resource,
    body: Bytes,
    asked: Mutex<Asked>,
    /// Held while the body is read, so that it is read once.
    known: tokio::sync::Mutex<Known>,
}

/// What the last client that was given the body did with it.
#[derive(Debug, Default)]
struct Asked {
    /// Whether anybody has the body at all.
    is_given: bool,
    blobs: HashSet<Sha256>,
    /// What was begun ahead.
    begun: HashSet<Sha256>,
}

/// What is known of the body's runs.
#[derive(Debug, Default)]
struct Known {
    /// Runs that belong together, as [`crate::resource::Kind::profile_downloads`] gives them.
    groups: Vec<Vec<Vec<Resource>>>,
    /// Which group a blob is in, or that it is in none.
    group_of: HashMap<Sha256, Option<usize>>,
}

impl InstallSession {
    pub(super) fn new(listing: Resource, body: Bytes) -> Arc<Self> {
        Arc::new(Self {
            listing,
            body,
            asked: Mutex::default(),
            known: tokio::sync::Mutex::default(),
        })
    }

    /// Begins anew: a client was given the body.
    pub(super) fn begin(&self) {
        *self.asked() = Asked {
            is_given: true,
            ..Asked::default()
        };
    }

    /// Whether any client was given the body.
    pub(super) fn has_begun(&self) -> bool {
        self.asked().is_given
    }

    /// A client asks for this blob. Says whether that can lead to anything: who has a listing from another day, and asks
    /// without looking at it again, follows no session.
    pub(super) fn note(&self, sum: Sha256) -> bool {
        let mut asked = self.asked();
        asked.is_given && asked.blobs.insert(sum)
    }

    /// What to fetch ahead now that `sum` was asked for, in the order in which it will be asked for; each only once until
    /// [`InstallSession::begin`].
    pub(super) async fn next(self: &Arc<Self>, sum: Sha256) -> Vec<Resource> {
        let mut known = self.known.lock().await;
        let group = match known.group_of.get(&sum) {
            Some(group) => *group,
            None => {
                // Up to a megabyte of text: too long for a thread that answers others.
                let session = self.clone();
                let read = tokio::task::spawn_blocking(move || {
                    session.listing.profile_downloads(&session.body, sum)
                });
                known.add(sum, read.await.unwrap_or_default())
            }
        };
        let Some(group) = group.and_then(|group| known.groups.get(group)) else {
            return Vec::new();
        };
        let sums: Vec<Vec<_>> = group
            .iter()
            .map(|run| run.iter().filter_map(blob).collect())
            .collect();
        let mut asked = self.asked();
        let mut next = next_downloads(&sums, &asked.blobs);
        next.retain(|sum| asked.begun.insert(*sum));
        let resource = |sum: &Sha256| {
            let mut all = group.iter().flatten();
            all.find(|one| blob(one) == Some(*sum)).cloned()
        };
        next.iter().filter_map(resource).collect()
    }

    /// Never held across an await.
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, sum: Sha256, runs: Vec<Vec<Resource>>) -> Option<usize> {
        let group = self.groups.len();
        let blobs: Vec<_> = runs.iter().flatten().filter_map(blob).collect();
        self.groups.push(runs);
        self.group_of.insert(sum, None);
        for blob in blobs {
            self.group_of.insert(blob, Some(group));
        }
        self.group_of.get(&sum).copied().flatten()
    }
}

fn blob(resource: &Resource) -> Option<Sha256> {
    match resource.location() {
        Location::Blob(sum) => Some(sum),
        Location::Entry(_) | Location::Pair(..) | Location::ListedIn(_) => None,
    }
}

/// How many blobs that only a larger run has must have been asked for before the rest of it is fetched ahead. One may be
/// an extra to the smaller run: clippy, for someone who wants no documentation.
const MIN_EVIDENCE: usize = 2;

/// What of these runs, each of which contains the one before it, will be asked for, if `asked` has been.
///
/// Clients ask in the order of the run, so a run is believed in if what they have asked of it is its beginning: someone
/// who adds a single thing to what he has does not begin with the first. What is asked for beside it says nothing, since
/// any run may come with extras.
fn next_downloads(runs: &[Vec<Sha256>], asked: &HashSet<Sha256>) -> Vec<Sha256> {
    let mut next = Vec::new();
    let mut smaller: &[Sha256] = &[];
    for run in runs {
        let begun = run.iter().take_while(|sum| asked.contains(sum)).count();
        let of_run = run.iter().filter(|sum| asked.contains(sum)).count();
        let signs = run[..begun].iter().filter(|sum| !smaller.contains(sum));
        let needed = if smaller.is_empty() { 1 } else { MIN_EVIDENCE };
        if begun == of_run && signs.count() >= needed {
            let rest = run[begun..].iter().filter(|sum| !next.contains(*sum));
            let rest: Vec<_> = rest.copied().collect();
            next.extend(rest);
        }
        smaller = run;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{IndexEntry, Registries};

    #[test]
    fn a_lead_is_followed_once_in_a_burst_and_once_more_when_it_becomes_likely() {
        let registries = Registries::new(url::Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = IndexEntry::of(registries.crates_io(), "left").unwrap();
        let Location::Entry(key) = resource.location() else {
            panic!("{:?}", resource.location())
        };
        let (recent_hints, start) = (RecentHints::default(), Instant::now());
        let follow = |choice: &str, is_likely, after| {
            let lead = PrefetchHint {
                resource: resource.clone(),
                choice: choice.to_owned(),
                is_likely,
            };
            recent_hints.follow(&key, &lead, start + after)
        };
        assert!(follow("^1", false, Duration::ZERO));
        assert!(!follow("^1", false, Duration::ZERO));
        assert!(follow("^1", true, Duration::ZERO));
        assert!(!follow("^1", true, Duration::ZERO));
        assert!(!follow("^1", false, BURST_WINDOW));
        assert!(follow("^2", true, BURST_WINDOW));
        assert!(follow("^1", true, BURST_WINDOW * 2));
    }

    const MINIMAL: &str = "cargo rust-std rustc";
    const DEFAULT: &str = "cargo clippy rust-docs rust-std rustc rustfmt";

    /// What is fetched ahead in the session of an install that asks for these, one after the other.
    #[track_caller]
    fn check(asked: &str, expected: &str) {
        let sum = |name: &str| Sha256::of(name.as_bytes());
        let runs = [MINIMAL, DEFAULT].map(|run| run.split(' ').map(sum).collect());
        let mut begun: Vec<String> = Vec::new();
        let mut so_far = HashSet::new();
        for name in asked.split(' ') {
            so_far.insert(sum(name));
            for next in next_downloads(&runs, &so_far) {
                let name = DEFAULT.split(' ').find(|name| sum(name) == next).unwrap();
                if !begun.iter().any(|begun| begun == name) {
                    begun.push(name.to_owned());
                }
            }
        }
        assert_eq!(begun.join(" "), expected, "after {asked}");
    }

    #[test]
    fn the_first_of_the_smallest_run_leads_to_its_rest() {
        check("cargo", "rust-std rustc");
        check(MINIMAL, "rust-std rustc");
        // Two are asked for at a time, and either may come first.
        check("rust-std", "");
        check("rust-std cargo", "rustc");
    }

    #[test]
    fn two_of_a_larger_run_lead_to_its_rest() {
        check("cargo clippy", "rust-std rustc");
        check("clippy cargo", "rust-std rustc");
        check("cargo clippy rust-docs", "rust-std rustc rustfmt");
        check("cargo rust-docs clippy", "rust-std rustc rustfmt");
        check(DEFAULT, "rust-std rustc rustfmt");
    }

    #[test]
    fn extras_lead_to_nothing() {
        check("cargo rust-src", "rust-std rustc");
        check("cargo clippy rust-std rustc rustfmt", "rust-std rustc");
        check("cargo rust-std rustc rust-docs", "rust-std rustc");
        for alone in ["rust-src", "clippy", "rustfmt", "clippy rustfmt", "rustc"] {
            check(alone, "");
        }
        // Later, to a minimal toolchain.
        check("cargo rust-std rustc clippy", "rust-std rustc");
        check("cargo rust-std rustc clippy rustfmt", "rust-std rustc");
    }

    #[test]
    fn without_runs_nothing_follows() {
        assert!(next_downloads(&[], &HashSet::from([Sha256::of(b"x")])).is_empty());
        assert!(next_downloads(&[Vec::new()], &HashSet::from([Sha256::of(b"x")])).is_empty());
    }
}
