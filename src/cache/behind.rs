//! Entries whose news the disk does not have yet (write-behind), or would not take: clients and decisions see them here first.
//! What is in the store and what is here are one to whoever asks the cache. When to store is `pace`'s to say, how is the store's.

use std::{
    collections::{BTreeMap, HashMap},
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

/// What news take beside a body, in bytes of memory.
const NEWS: u64 = 1024;
/// The most that is kept of what could not be stored, in bytes of memory.
const UNKEPT: u64 = 16 << 20;

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

    /// About what they take, in bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.body.len() as u64 + NEWS,
            Self::Checked(..) => NEWS,
        }
    }

    /// Takes newer news in place of what was there.
    fn merge(&mut self, newer: Self) {
        match (&mut *self, newer) {
            (Self::Entry(entry), Self::Checked(sum, checked)) if entry.head.sha256 == sum => {
                entry.checked = checked;
            }
            (_, newer) => *self = newer,
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

/// What the disk does not have, by key.
#[derive(Debug, Default)]
pub(super) struct Behind {
    all: Mutex<All>,
    /// How many wait.
    waiting: AtomicUsize,
    /// How many there are in all, so that most requests need not look.
    count: AtomicUsize,
}

/// No key is in both.
#[derive(Debug, Default)]
struct All {
    waiting: HashMap<Key, Arc<Waiting>>,
    unkept: Unkept,
}

/// What could not be stored, and waits for nothing but that the store takes something again. Bounded: the oldest goes first.
#[derive(Debug, Default)]
struct Unkept {
    by_key: HashMap<Key, (u64, Resource, News)>,
    by_age: BTreeMap<u64, Key>,
    bytes: u64,
    last: u64,
}

impl Unkept {
    fn keep(&mut self, key: &Key, resource: Resource, news: News) {
        self.take(key);
        self.last += 1;
        self.bytes += news.bytes();
        self.by_age.insert(self.last, key.clone());
        self.by_key.insert(key.clone(), (self.last, resource, news));
        while self.bytes > UNKEPT
            && let Some(oldest) = self.oldest()
        {
            self.take(&oldest);
        }
    }

    fn take(&mut self, key: &Key) -> Option<(Resource, News)> {
        let (number, resource, news) = self.by_key.remove(key)?;
        self.by_age.remove(&number);
        self.bytes -= news.bytes();
        Some((resource, news))
    }

    fn oldest(&self) -> Option<Key> {
        self.by_age.first_key_value().map(|(_, key)| key.clone())
    }
}

impl Behind {
    /// Adds news of `resource`, kept under `key`, to what waits, and says whether nothing waited there: then the caller must see
    /// to it that they are stored, and take [`Behind::charge`] of them.
    pub(super) fn add(&self, resource: &Resource, key: &Key, news: News) -> bool {
        let mut all = self.lock();
        if let Some(waiting) = all.waiting.get(key) {
            waiting.merge(news);
            return false;
        }
        let news = match all.unkept.take(key) {
            Some((_, mut unkept)) => {
                unkept.merge(news);
                unkept
            }
            None => news,
        };
        self.wait(&mut all, resource.clone(), key, news);
        true
    }

    fn wait(&self, all: &mut All, resource: Resource, key: &Key, news: News) -> Arc<Waiting> {
        let waiting = Arc::new(Waiting {
            resource,
            turn: tokio::sync::Mutex::default(),
            news: Mutex::new((0, news)),
        });
        all.waiting.insert(key.clone(), waiting.clone());
        self.tally(all);
        waiting
    }

    /// Lets what could not be stored wait again: what is kept under `key`, or the oldest. The caller must see to it that it is
    /// stored.
    pub(super) fn again(self: &Arc<Self>, key: Option<&Key>) -> Option<Charge> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut all = self.lock();
        let key = key.cloned().or_else(|| all.unkept.oldest())?;
        let (resource, news) = all.unkept.take(&key)?;
        let waiting = self.wait(&mut all, resource, &key, news);
        Some(Charge {
            behind: self.clone(),
            key,
            waiting: Some(waiting),
        })
    }

    /// What waits under `key`.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Waiting>> {
        if self.len() == 0 {
            return None;
        }
        self.lock().waiting.get(key).cloned()
    }

    /// The news under `key`, and whether they wait to be stored.
    pub(super) fn news(&self, key: &Key) -> Option<(News, bool)> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let all = self.lock();
        match all.waiting.get(key) {
            Some(waiting) => Some((waiting.news().1.clone(), true)),
            None => {
                let unkept = all.unkept.by_key.get(key);
                unkept.map(|(.., news)| (news.clone(), false))
            }
        }
    }

    /// What is to be stored now of what waits, with its number; `None` if it no longer waits.
    pub(super) fn current(&self, key: &Key, waiting: &Arc<Waiting>) -> Option<(u64, News)> {
        let all = self.lock();
        let there = all.waiting.get(key)?;
        Arc::ptr_eq(there, waiting).then(|| waiting.news().clone())
    }

    /// Takes away what has been stored, unless there is newer news than `number`. What could not be stored waits no longer, but
    /// is still seen.
    pub(super) fn end(&self, key: &Key, waiting: &Arc<Waiting>, number: u64, is_stored: bool) {
        let mut all = self.lock();
        let is_last =
            |there: &Arc<Waiting>| Arc::ptr_eq(there, waiting) && waiting.news().0 == number;
        if !all.waiting.get(key).is_some_and(is_last) {
            return;
        }
        all.waiting.remove(key);
        if !is_stored {
            let news = waiting.news().1.clone();
            all.unkept.keep(key, waiting.resource.clone(), news);
        }
        self.tally(&all);
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
        self.waiting.load(Ordering::Acquire)
    }

    /// The keys under which something waits or could not be stored.
    pub(super) fn keys(&self) -> Vec<Key> {
        let all = self.lock();
        let unkept = all.unkept.by_age.values();
        all.waiting.keys().chain(unkept).cloned().collect()
    }

    fn tally(&self, all: &All) {
        let waiting = all.waiting.len();
        self.waiting.store(waiting, Ordering::Release);
        self.count
            .store(waiting + all.unkept.by_key.len(), Ordering::Release);
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to store what waits. When it is dropped without that, because storing died or was given up, it waits no longer, since
/// nobody else would ever store it, and is as what could not be stored.
#[derive(Debug)]
pub(super) struct Charge {
    behind: Arc<Behind>,
    key: Key,
    waiting: Option<Arc<Waiting>>,
}

impl Charge {
    /// Where it waits.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        let mut all = self.behind.lock();
        let there = all.waiting.get(&self.key);
        // What came after it was stored is another's charge.
        if there.is_some_and(|there| Arc::ptr_eq(there, waiting)) {
            all.waiting.remove(&self.key);
            let news = waiting.news().1.clone();
            all.unkept.keep(&self.key, waiting.resource.clone(), news);
            self.behind.tally(&all);
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
        news.1.merge(newer);
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
        resource::{IndexEntry, Location, Registries, RegistryConfig},
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
        match resource.location() {
            Location::Entry(key) => (resource, key),
            other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                panic!("{other:?}")
            }
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
        behind.end(&key, &waiting, number, true);
        let (number, news) = behind.current(&key, &waiting).unwrap();
        assert!(matches!(news, News::Entry(news) if news == entry("b", 2)));
        behind.end(&key, &waiting, number, true);
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
        let news = behind.news(&key).map(|(news, _)| news);
        let younger = Entry {
            checked: at(5),
            ..a
        };
        assert!(
            matches!(&news, Some(News::Entry(news)) if *news == younger),
            "{news:?}"
        );
        behind.add(&resource, &key, News::Checked(b.head.sha256, at(6)));
        let news = behind.news(&key).map(|(news, _)| news);
        assert!(matches!(news, Some(News::Checked(sum, _)) if sum == b.head.sha256));
    }

    #[test]
    fn what_could_not_be_stored_does_not_wait_but_is_seen_until_it_is_tried_again() {
        let (resource, key) = resource();
        let behind = Arc::new(Behind::default());
        let (a, b) = (entry("a", 1), entry("b", 2));
        let fail = || {
            let waiting = behind.find(&key).unwrap();
            let (number, _) = behind.current(&key, &waiting).unwrap();
            behind.end(&key, &waiting, number, false);
            assert!(behind.find(&key).is_none() && behind.len() == 0);
        };
        assert!(behind.again(None).is_none());
        behind.add(&resource, &key, News::Entry(a.clone()));
        fail();
        assert!(matches!(behind.news(&key), Some((News::Entry(news), false)) if news == a));
        assert_eq!(behind.keys(), std::slice::from_ref(&key));
        // News of it are news of what could not be stored.
        let checked = News::Checked(a.head.sha256, at(5));
        assert!(behind.add(&resource, &key, checked));
        fail();
        assert!(
            matches!(behind.news(&key), Some((News::Entry(news), false)) if news.body == a.body && news.checked == at(5))
        );
        behind.add(&resource, &key, News::Entry(b.clone()));
        fail();
        let charge = behind.again(None).unwrap();
        assert!(behind.again(None).is_none() && behind.len() == 1);
        let waiting = behind.find(&key).unwrap();
        let (number, news) = behind.current(&key, &waiting).unwrap();
        assert!(matches!(news, News::Entry(news) if news == b));
        behind.end(&key, &waiting, number, true);
        drop(charge);
        assert!(behind.news(&key).is_none() && behind.keys().is_empty());
    }

    #[test]
    fn of_what_could_not_be_stored_the_oldest_goes_first() {
        let registries = Registries::new(Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = RegistryConfig::of(registries.crates_io());
        let key = |at| {
            let entry = IndexEntry::of(registries.crates_io(), &format!("k{at}")).unwrap();
            match entry.location() {
                Location::Entry(key) => key,
                other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                    panic!("{other:?}")
                }
            }
        };
        let keys: Vec<_> = (0..20).map(key).collect();
        let mut unkept = Unkept::default();
        let news = |len: usize| {
            let body = vec![0; len].into();
            News::Entry(Entry::new(body, Validators::default(), None, at(1)))
        };
        for key in &keys {
            unkept.keep(key, resource.clone(), news(1 << 20));
        }
        let there = |unkept: &Unkept| {
            let is_there = |key: &&Key| unkept.by_key.contains_key(*key);
            keys.iter().filter(is_there).count()
        };
        assert_eq!(
            (there(&unkept), unkept.oldest()),
            (15, Some(keys[5].clone()))
        );
        assert!(unkept.bytes <= UNKEPT && unkept.by_age.len() == 15);
        // What is larger than all of the room is not kept at all.
        unkept.keep(&keys[0], resource, news(17 << 20));
        assert_eq!((there(&unkept), unkept.bytes), (0, 0));
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
