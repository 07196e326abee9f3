//! Prefetch of index entries: cargo resolves level by level, so the dependencies of an entry are asked for next.
//!
//! When a client's request revalidates or fetches an entry, each version that cargo may choose names dependencies
//! with requirements and features. Each of them is a [`PrefetchHint`]: the entry to fetch, the need for it, and whether
//! that need is likely. The prefetcher follows hints from entry to entry. So a whole stale dependency graph is
//! revalidated in one round trip instead of one per level, and a cold one is fetched as soon as each level is known.
//!
//! A hint that is not likely (an optional dependency that nothing enables, an older release series) is followed only if
//! its entry is stored with a crate of it, which shows that it was needed before. The hints that follow from such an
//! entry are not likely either. Without limits a cycle of dependencies would be followed
//! for ever: see [`RecentHints`] and [`PREFETCH_LIFETIME`].

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    cache::{BURST_WINDOW, Cache, PREFETCH_LIFETIME, PrefetchedEntry},
    resource::{Key, Location, PrefetchHint, Resource},
};

/// Follows hints from index entry to index entry.
#[derive(Clone, Debug)]
pub(super) struct IndexPrefetch {
    cache: Cache,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    recent: RecentHints,
    last_client: Mutex<Instant>,
}

impl IndexPrefetch {
    pub(super) fn new(cache: Cache) -> Self {
        Self {
            cache,
            shared: Arc::new(Shared {
                recent: RecentHints::default(),
                last_client: Mutex::new(Instant::now()),
            }),
        }
    }

    /// Records a client's request.
    pub(super) fn client_active(&self) {
        *self.shared.last_client.lock() = Instant::now();
    }

    /// Follows the hints in the body of an entry that a client asked for.
    pub(super) fn follow_client(&self, resource: &Resource, body: &[u8]) {
        self.follow(resource, body, true);
    }

    /// Follows the hints in `body`, each in a task of its own. None of them is likelier than `resource`.
    fn follow(&self, resource: &Resource, body: &[u8], is_likely: bool) {
        if self.shared.last_client.lock().elapsed() > PREFETCH_LIFETIME {
            return;
        }
        let Some(dependencies) = resource.dependencies() else {
            return;
        };
        for mut hint in dependencies.prefetch_hints(body) {
            hint.is_likely &= is_likely;
            let Location::Entry(key) = hint.resource.location() else {
                continue;
            };
            if self.shared.recent.insert(&key, &hint, Instant::now()) {
                let this = self.clone();
                tokio::spawn(async move { this.prefetch(hint).await });
            }
        }
    }

    /// Fetches or revalidates one entry and follows its hints. A failure is not reported here: the client that needs
    /// the entry gets an error of its own.
    async fn prefetch(&self, hint: PrefetchHint) {
        let (resource, is_likely) = (&hint.resource, hint.is_likely);
        match self.cache.prefetch_entry(resource, is_likely).await {
            PrefetchedEntry::Fresh { body, age } => {
                // An older one was checked in an earlier burst, and so were its dependencies.
                if age <= BURST_WINDOW {
                    self.follow(resource, &body, is_likely);
                }
            }
            PrefetchedEntry::Pending { stored, fetch } => {
                // The dependencies of a stale entry are stale as well, and need not wait for its answer.
                if let Some(stored) = &stored {
                    self.follow(resource, stored, is_likely);
                }
                if let Some(body) = fetch.await
                    && Some(&body) != stored.as_ref()
                {
                    self.follow(resource, &body, is_likely);
                }
            }
            PrefetchedEntry::Unavailable => {}
        }
    }
}

/// Hints followed in the current burst. Several parents lead to one entry, with the same need or with different ones,
/// which lead on to different entries.
#[derive(Debug, Default)]
struct RecentHints(Mutex<Burst>);

#[derive(Debug, Default)]
struct Burst {
    started: Option<Instant>,
    /// True if the hint was likely, by entry and need.
    followed: HashMap<(Key, String), bool>,
}

impl RecentHints {
    /// Records a hint to the entry `key`. Returns whether to follow it: if it is new in this burst, or has become
    /// likely.
    fn insert(&self, key: &Key, hint: &PrefetchHint, now: Instant) -> bool {
        let mut burst = self.0.lock();
        let is_over = |started| now.duration_since(started) > BURST_WINDOW;
        if burst.started.is_none_or(is_over) {
            *burst = Burst {
                started: Some(now),
                followed: HashMap::new(),
            };
        }
        match burst.followed.entry((key.clone(), hint.need.clone())) {
            Entry::Vacant(new) => {
                new.insert(hint.is_likely);
                true
            }
            Entry::Occupied(mut was_likely) => {
                hint.is_likely && !std::mem::replace(was_likely.get_mut(), true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resource::{IndexEntry, Registries};

    #[test]
    fn a_hint_is_followed_once_in_a_burst_and_once_more_when_it_becomes_likely() {
        let registries = Registries::new(url::Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = IndexEntry::of(registries.crates_io(), "left").unwrap();
        let Location::Entry(key) = resource.location() else {
            panic!("{:?}", resource.location())
        };
        let (recent, start) = (RecentHints::default(), Instant::now());
        let insert = |need: &str, is_likely, after| {
            let hint = PrefetchHint {
                resource: resource.clone(),
                need: need.to_owned(),
                is_likely,
            };
            recent.insert(&key, &hint, start + after)
        };
        assert!(insert("^1", false, Duration::ZERO));
        assert!(!insert("^1", false, Duration::ZERO));
        assert!(insert("^1", true, Duration::ZERO));
        assert!(!insert("^1", true, Duration::ZERO));
        assert!(!insert("^1", false, BURST_WINDOW));
        assert!(insert("^2", true, BURST_WINDOW));
        assert!(insert("^1", true, BURST_WINDOW * 2));
    }
}
