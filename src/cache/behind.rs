//! Entries whose news the disk does not have yet (write-behind): clients and decisions see them here first. What is in the
//! store and what waits here are one to whoever asks the cache. When to store is `pace`'s to say, how is the store's.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tracing::warn;

use crate::{
    error::Error,
    hash::Sha256,
    resource::{Key, Resource},
    store::Entry,
};

/// What is new about an entry.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// All of it.
    Entry(Entry),
    /// The stored one, whose body has this hash, was still right at this moment.
    Checked(Sha256, SystemTime),
}

impl News {
    /// Whether it tells more than what is stored: another process may have stored what is newer. What was checked in the future was
    /// checked by a clock that has been set back since, or another's, and says nothing.
    pub(super) fn is_news_to(&self, stored: &Entry, now: SystemTime) -> bool {
        let is_newer = |checked| checked > stored.checked || stored.checked > now;
        match self {
            Self::Entry(entry) => entry.checked == stored.checked || is_newer(entry.checked),
            Self::Checked(sum, checked) => stored.head.sha256 == *sum && is_newer(*checked),
        }
    }
}

/// What waits under one key.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What is to be stored.
    pub(super) resource: Resource,
    /// Held while it is stored: what is older must not be stored last, and whoever wants it kept waits for its end. What came of
    /// it; nothing, as long as it is not stored or if storing died.
    pub(super) turn: tokio::sync::Mutex<Option<Result<(), Error>>>,
    /// The news, with a number that grows with each change.
    news: Mutex<(u64, News)>,
}

/// What waits, by key.
#[derive(Debug, Default)]
pub(super) struct Behind {
    waiting: Mutex<HashMap<Key, Arc<Waiting>>>,
    /// How many wait, so that most requests need not look.
    count: AtomicUsize,
}

impl Behind {
    /// Adds news of `resource`, kept under `key`, to what waits, and says whether nothing waited there: then the caller must see
    /// to it that they are stored, and take [`Behind::charge`] of them.
    pub(super) fn add(&self, resource: &Resource, key: &Key, news: News) -> bool {
        let mut all = self.lock();
        if let Some(waiting) = all.get(key) {
            waiting.merge(news);
            return false;
        }
        let waiting = Waiting {
            resource: resource.clone(),
            turn: tokio::sync::Mutex::default(),
            news: Mutex::new((0, news)),
        };
        all.insert(key.clone(), Arc::new(waiting));
        self.count.store(all.len(), Ordering::Release);
        true
    }

    /// What waits under `key`.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Waiting>> {
        if self.len() == 0 {
            return None;
        }
        self.lock().get(key).cloned()
    }

    /// The news under `key`.
    pub(super) fn news(&self, key: &Key) -> Option<News> {
        self.find(key).map(|waiting| waiting.news().1.clone())
    }

    /// What is to be stored now of what waits, with its number; `None` if it no longer waits.
    pub(super) fn current(&self, key: &Key, waiting: &Arc<Waiting>) -> Option<(u64, News)> {
        let is_there = self
            .lock()
            .get(key)
            .is_some_and(|there| Arc::ptr_eq(there, waiting));
        is_there.then(|| waiting.news().clone())
    }

    /// Takes away what has been stored, or can't be, unless there is newer news than `number`.
    pub(super) fn end(&self, key: &Key, waiting: &Arc<Waiting>, number: u64) {
        let mut all = self.lock();
        if all
            .get(key)
            .is_some_and(|there| Arc::ptr_eq(there, waiting) && waiting.news().0 == number)
        {
            all.remove(key);
            self.count.store(all.len(), Ordering::Release);
        }
    }

    /// What waits under `key` now, to be held by whoever is to store it.
    pub(super) fn charge(self: &Arc<Self>, key: &Key) -> Charge {
        Charge {
            behind: self.clone(),
            key: key.clone(),
            waiting: self.find(key),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The keys under which something waits.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to store what waits. When it is dropped without that, because storing died or the runtime ends, it waits no longer:
/// nobody else would ever store it, and what is not stored is fetched again.
#[derive(Debug)]
pub(super) struct Charge {
    behind: Arc<Behind>,
    key: Key,
    waiting: Option<Arc<Waiting>>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        let mut all = self.behind.lock();
        let there = all.get(&self.key);
        // What came after it was stored is another's charge.
        if there.is_some_and(|there| Arc::ptr_eq(there, waiting)) {
            all.remove(&self.key);
            self.behind.count.store(all.len(), Ordering::Release);
            drop(all);
            warn!(key = %self.key, "served but not stored: storing ended without a result");
        }
    }
}

impl Waiting {
    /// Takes newer news in place of what was there.
    fn merge(&self, newer: News) {
        let mut news = self.news();
        news.0 += 1;
        match (&mut news.1, newer) {
            (News::Entry(entry), News::Checked(sum, checked)) if entry.head.sha256 == sum => {
                entry.checked = checked;
            }
            (news, newer) => *news = newer,
        }
    }

    /// Never held across an await.
    fn news(&self) -> MutexGuard<'_, (u64, News)> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;

    use super::*;
    use crate::{
        resource::{Place, Registries, RegistryConfig},
        validators::Validators,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn entry(body: &'static str, checked: u64) -> Entry {
        Entry::new(body.into(), Validators::default(), None, at(checked))
    }

    fn resource() -> (Resource, Key) {
        let registries = Registries::new(Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = RegistryConfig::of(registries.crates_io());
        match resource.place() {
            Place::Entry(key) => (resource, key),
            other @ (Place::Pair(..) | Place::Blob(_) | Place::ListedIn(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_news_are_seen_and_stored_and_only_the_first_need_somebody_who_stores_them() {
        let (resource, key) = resource();
        let behind = Behind::default();
        assert!(behind.news(&key).is_none());
        assert!(behind.add(&resource, &key, News::Entry(entry("a", 1))));
        let waiting = behind.find(&key).unwrap();
        let (number, _) = behind.current(&key, &waiting).unwrap();
        // While the first is being stored, there comes another.
        assert!(!behind.add(&resource, &key, News::Entry(entry("b", 2))));
        behind.end(&key, &waiting, number);
        let (number, news) = behind.current(&key, &waiting).unwrap();
        assert!(matches!(news, News::Entry(news) if news == entry("b", 2)));
        behind.end(&key, &waiting, number);
        assert!(behind.news(&key).is_none() && behind.current(&key, &waiting).is_none());
        assert_eq!((behind.len(), behind.keys()), (0, Vec::new()));
    }

    #[test]
    fn a_check_of_what_waits_makes_it_younger_and_one_of_something_else_replaces_it() {
        let (resource, key) = resource();
        let behind = Behind::default();
        let (a, b) = (entry("a", 1), entry("b", 1));
        behind.add(&resource, &key, News::Entry(a.clone()));
        behind.add(&resource, &key, News::Checked(a.head.sha256, at(5)));
        let news = behind.news(&key);
        let younger = Entry {
            checked: at(5),
            ..a
        };
        assert!(
            matches!(&news, Some(News::Entry(news)) if *news == younger),
            "{news:?}"
        );
        behind.add(&resource, &key, News::Checked(b.head.sha256, at(6)));
        let news = behind.news(&key);
        assert!(matches!(news, Some(News::Checked(sum, _)) if sum == b.head.sha256));
    }

    #[test]
    fn what_another_process_stored_later_is_no_news() {
        let (older, newer, now) = (entry("a", 1), entry("b", 2), at(9));
        assert!(News::Entry(newer.clone()).is_news_to(&older, now));
        assert!(!News::Entry(older.clone()).is_news_to(&newer, now));
        assert!(News::Checked(newer.head.sha256, at(3)).is_news_to(&newer, now));
        assert!(!News::Checked(newer.head.sha256, at(1)).is_news_to(&newer, now));
        assert!(!News::Checked(older.head.sha256, at(3)).is_news_to(&newer, now));
    }

    #[test]
    fn a_copy_from_the_future_is_healed_by_any_news() {
        let (stored, now) = (entry("a", 99), at(9));
        assert!(News::Entry(entry("b", 9)).is_news_to(&stored, now));
        assert!(News::Checked(stored.head.sha256, at(9)).is_news_to(&stored, now));
    }
}
