//! Entries whose update the disk does not have yet (write-behind), or would not take: clients and decisions see them here first.
//! What is in the store and what is here are one to whoever asks the cache. When to store is `schedule`'s to say, how is the store's.

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

/// What update take beside a body, in bytes of memory.
const UPDATE_OVERHEAD_BYTES: u64 = 1024;
/// The most that is kept of what could not be stored, in bytes of memory.
const FAILED_WRITES_MAX_BYTES: u64 = 16 << 20;

/// What is new about an entry.
#[derive(Clone, Debug)]
pub(super) enum Update {
    /// All of it.
    Entry(Entry),
    /// The stored one, whose body has this hash, was still right at this moment.
    Checked(Sha256, SystemTime),
}

impl Update {
    /// Whether it tells more than what is stored: another process may have stored what is newer. What was checked in the future was
    /// checked by a clock that has been set back since, or another's, and says nothing.
    pub(super) fn supersedes(&self, stored: &Entry, now: SystemTime) -> bool {
        let is_newer = |checked| checked > stored.checked || stored.checked > now;
        match self {
            Self::Entry(entry) => entry.checked == stored.checked || is_newer(entry.checked),
            Self::Checked(sum, checked) => stored.head.sha256 == *sum && is_newer(*checked),
        }
    }

    /// About what they take, in bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.body.len() as u64 + UPDATE_OVERHEAD_BYTES,
            Self::Checked(..) => UPDATE_OVERHEAD_BYTES,
        }
    }

    /// Takes newer update in place of what was there.
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
pub(super) struct PendingWrite {
    /// What is to be stored.
    pub(super) resource: Resource,
    /// Held while it is stored: what is older must not be stored last, and whoever wants it kept waits for its end. What came of
    /// it; nothing, as long as it is not stored or if storing died.
    pub(super) write_lock: tokio::sync::Mutex<Option<Result<(), Error>>>,
    /// The update, with a number that grows with each change.
    update: Mutex<(u64, Update)>,
}

/// What the disk does not have, by key.
#[derive(Debug, Default)]
pub(super) struct WriteBehind {
    all: Mutex<All>,
    /// How many wait.
    waiting: AtomicUsize,
    /// How many there are in all, so that most requests need not look.
    count: AtomicUsize,
}

/// No key is in both.
#[derive(Debug, Default)]
struct All {
    waiting: HashMap<Key, Arc<PendingWrite>>,
    failed: FailedWrites,
}

/// What could not be stored, and waits for nothing but that the store takes something again. Bounded: the oldest goes first.
#[derive(Debug, Default)]
struct FailedWrites {
    by_key: HashMap<Key, (u64, Resource, Update)>,
    by_age: BTreeMap<u64, Key>,
    bytes: u64,
    last: u64,
}

impl FailedWrites {
    fn keep(&mut self, key: &Key, resource: Resource, update: Update) {
        self.take(key);
        self.last += 1;
        self.bytes += update.bytes();
        self.by_age.insert(self.last, key.clone());
        self.by_key
            .insert(key.clone(), (self.last, resource, update));
        while self.bytes > FAILED_WRITES_MAX_BYTES
            && let Some(oldest) = self.oldest()
        {
            self.take(&oldest);
        }
    }

    fn take(&mut self, key: &Key) -> Option<(Resource, Update)> {
        let (number, resource, update) = self.by_key.remove(key)?;
        self.by_age.remove(&number);
        self.bytes -= update.bytes();
        Some((resource, update))
    }

    fn oldest(&self) -> Option<Key> {
        self.by_age.first_key_value().map(|(_, key)| key.clone())
    }
}

impl WriteBehind {
    /// Adds update of `resource`, kept under `key`, to what waits, and says whether nothing waited there: then the caller must see
    /// to it that they are stored, and take [`WriteBehind::flush_guard`] of them.
    pub(super) fn buffer(&self, resource: &Resource, key: &Key, update: Update) -> bool {
        let mut all = self.lock();
        if let Some(waiting) = all.waiting.get(key) {
            waiting.merge(update);
            return false;
        }
        let update = match all.failed.take(key) {
            Some((_, mut failed)) => {
                failed.merge(update);
                failed
            }
            None => update,
        };
        self.wait(&mut all, resource.clone(), key, update);
        true
    }

    fn wait(
        &self,
        all: &mut All,
        resource: Resource,
        key: &Key,
        update: Update,
    ) -> Arc<PendingWrite> {
        let waiting = Arc::new(PendingWrite {
            resource,
            write_lock: tokio::sync::Mutex::default(),
            update: Mutex::new((0, update)),
        });
        all.waiting.insert(key.clone(), waiting.clone());
        self.update_counts(all);
        waiting
    }

    /// Lets what could not be stored wait again: what is kept under `key`, or the oldest. The caller must see to it that it is
    /// stored.
    pub(super) fn retry(self: &Arc<Self>, key: Option<&Key>) -> Option<FlushGuard> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut all = self.lock();
        let key = key.cloned().or_else(|| all.failed.oldest())?;
        let (resource, update) = all.failed.take(&key)?;
        let waiting = self.wait(&mut all, resource, &key, update);
        Some(FlushGuard {
            write_behind: self.clone(),
            key,
            waiting: Some(waiting),
        })
    }

    /// What waits under `key`.
    pub(super) fn pending(&self, key: &Key) -> Option<Arc<PendingWrite>> {
        if self.len() == 0 {
            return None;
        }
        self.lock().waiting.get(key).cloned()
    }

    /// The update under `key`, and whether they wait to be stored.
    pub(super) fn update(&self, key: &Key) -> Option<(Update, bool)> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let all = self.lock();
        match all.waiting.get(key) {
            Some(waiting) => Some((waiting.update().1.clone(), true)),
            None => {
                let failed = all.failed.by_key.get(key);
                failed.map(|(.., update)| (update.clone(), false))
            }
        }
    }

    /// What is to be stored now of what waits, with its number; `None` if it no longer waits.
    pub(super) fn next_update(
        &self,
        key: &Key,
        waiting: &Arc<PendingWrite>,
    ) -> Option<(u64, Update)> {
        let all = self.lock();
        let there = all.waiting.get(key)?;
        Arc::ptr_eq(there, waiting).then(|| waiting.update().clone())
    }

    /// Takes away what has been stored, unless there is newer update than `number`. What could not be stored waits no longer, but
    /// is still seen.
    pub(super) fn finish_write(
        &self,
        key: &Key,
        waiting: &Arc<PendingWrite>,
        number: u64,
        is_stored: bool,
    ) {
        let mut all = self.lock();
        let is_last =
            |there: &Arc<PendingWrite>| Arc::ptr_eq(there, waiting) && waiting.update().0 == number;
        if !all.waiting.get(key).is_some_and(is_last) {
            return;
        }
        all.waiting.remove(key);
        if !is_stored {
            let update = waiting.update().1.clone();
            all.failed.keep(key, waiting.resource.clone(), update);
        }
        self.update_counts(&all);
    }

    /// What waits under `key` now, to be held by whoever is to store it.
    pub(super) fn flush_guard(self: &Arc<Self>, key: &Key) -> FlushGuard {
        FlushGuard {
            write_behind: self.clone(),
            key: key.clone(),
            waiting: self.pending(key),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// The keys under which something waits or could not be stored.
    pub(super) fn keys(&self) -> Vec<Key> {
        let all = self.lock();
        let failed = all.failed.by_age.values();
        all.waiting.keys().chain(failed).cloned().collect()
    }

    fn update_counts(&self, all: &All) {
        let waiting = all.waiting.len();
        self.waiting.store(waiting, Ordering::Release);
        self.count
            .store(waiting + all.failed.by_key.len(), Ordering::Release);
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to store what waits. When it is dropped without that, because storing died or was given up, it waits no longer, since
/// nobody else would ever store it, and is as what could not be stored.
#[derive(Debug)]
pub(super) struct FlushGuard {
    write_behind: Arc<WriteBehind>,
    key: Key,
    waiting: Option<Arc<PendingWrite>>,
}

impl FlushGuard {
    /// Where it waits.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        let mut all = self.write_behind.lock();
        let there = all.waiting.get(&self.key);
        // What came after it was stored is another's charge.
        if there.is_some_and(|there| Arc::ptr_eq(there, waiting)) {
            all.waiting.remove(&self.key);
            let update = waiting.update().1.clone();
            all.failed.keep(&self.key, waiting.resource.clone(), update);
            self.write_behind.update_counts(&all);
            drop(all);
            warn!(key = %self.key, "served but not stored: storing ended without a result");
        }
    }
}

impl PendingWrite {
    /// Takes newer update in place of what was there.
    fn merge(&self, newer: Update) {
        let mut update = self.update();
        update.0 += 1;
        update.1.merge(newer);
    }

    /// Never held across an await.
    fn update(&self) -> MutexGuard<'_, (u64, Update)> {
        self.update.lock().unwrap_or_else(PoisonError::into_inner)
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
        let write_behind = WriteBehind::default();
        assert!(write_behind.update(&key).is_none());
        assert!(write_behind.buffer(&resource, &key, Update::Entry(entry("a", 1))));
        let waiting = write_behind.pending(&key).unwrap();
        let (number, _) = write_behind.next_update(&key, &waiting).unwrap();
        // While the first is being stored, there comes another.
        assert!(!write_behind.buffer(&resource, &key, Update::Entry(entry("b", 2))));
        write_behind.finish_write(&key, &waiting, number, true);
        let (number, update) = write_behind.next_update(&key, &waiting).unwrap();
        assert!(matches!(update, Update::Entry(update) if update == entry("b", 2)));
        write_behind.finish_write(&key, &waiting, number, true);
        assert!(
            write_behind.update(&key).is_none()
                && write_behind.next_update(&key, &waiting).is_none()
        );
        assert_eq!((write_behind.len(), write_behind.keys()), (0, Vec::new()));
    }

    #[test]
    fn a_check_of_what_waits_makes_it_younger_and_one_of_something_else_replaces_it() {
        let (resource, key) = resource();
        let write_behind = WriteBehind::default();
        let (a, b) = (entry("a", 1), entry("b", 1));
        write_behind.buffer(&resource, &key, Update::Entry(a.clone()));
        write_behind.buffer(&resource, &key, Update::Checked(a.head.sha256, at(5)));
        let update = write_behind.update(&key).map(|(update, _)| update);
        let younger = Entry {
            checked: at(5),
            ..a
        };
        assert!(
            matches!(&update, Some(Update::Entry(update)) if *update == younger),
            "{update:?}"
        );
        write_behind.buffer(&resource, &key, Update::Checked(b.head.sha256, at(6)));
        let update = write_behind.update(&key).map(|(update, _)| update);
        assert!(matches!(update, Some(Update::Checked(sum, _)) if sum == b.head.sha256));
    }

    #[test]
    fn what_could_not_be_stored_does_not_wait_but_is_seen_until_it_is_tried_again() {
        let (resource, key) = resource();
        let write_behind = Arc::new(WriteBehind::default());
        let (a, b) = (entry("a", 1), entry("b", 2));
        let fail = || {
            let waiting = write_behind.pending(&key).unwrap();
            let (number, _) = write_behind.next_update(&key, &waiting).unwrap();
            write_behind.finish_write(&key, &waiting, number, false);
            assert!(write_behind.pending(&key).is_none() && write_behind.len() == 0);
        };
        assert!(write_behind.retry(None).is_none());
        write_behind.buffer(&resource, &key, Update::Entry(a.clone()));
        fail();
        assert!(
            matches!(write_behind.update(&key), Some((Update::Entry(update), false)) if update == a)
        );
        assert_eq!(write_behind.keys(), std::slice::from_ref(&key));
        // Update of it are update of what could not be stored.
        let checked = Update::Checked(a.head.sha256, at(5));
        assert!(write_behind.buffer(&resource, &key, checked));
        fail();
        assert!(
            matches!(write_behind.update(&key), Some((Update::Entry(update), false)) if update.body == a.body && update.checked == at(5))
        );
        write_behind.buffer(&resource, &key, Update::Entry(b.clone()));
        fail();
        let charge = write_behind.retry(None).unwrap();
        assert!(write_behind.retry(None).is_none() && write_behind.len() == 1);
        let waiting = write_behind.pending(&key).unwrap();
        let (number, update) = write_behind.next_update(&key, &waiting).unwrap();
        assert!(matches!(update, Update::Entry(update) if update == b));
        write_behind.finish_write(&key, &waiting, number, true);
        drop(charge);
        assert!(write_behind.update(&key).is_none() && write_behind.keys().is_empty());
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
        let mut failed = FailedWrites::default();
        let update = |len: usize| {
            let body = vec![0; len].into();
            Update::Entry(Entry::new(body, Validators::default(), None, at(1)))
        };
        for key in &keys {
            failed.keep(key, resource.clone(), update(1 << 20));
        }
        let there = |failed: &FailedWrites| {
            let is_there = |key: &&Key| failed.by_key.contains_key(*key);
            keys.iter().filter(is_there).count()
        };
        assert_eq!(
            (there(&failed), failed.oldest()),
            (15, Some(keys[5].clone()))
        );
        assert!(failed.bytes <= FAILED_WRITES_MAX_BYTES && failed.by_age.len() == 15);
        // What is larger than all of the room is not kept at all.
        failed.keep(&keys[0], resource, update(17 << 20));
        assert_eq!((there(&failed), failed.bytes), (0, 0));
    }

    #[test]
    fn what_another_process_stored_later_is_no_news() {
        let (older, newer, now) = (entry("a", 1), entry("b", 2), at(9));
        assert!(Update::Entry(newer.clone()).supersedes(&older, now));
        assert!(!Update::Entry(older.clone()).supersedes(&newer, now));
        assert!(Update::Checked(newer.head.sha256, at(3)).supersedes(&newer, now));
        assert!(!Update::Checked(newer.head.sha256, at(1)).supersedes(&newer, now));
        assert!(!Update::Checked(older.head.sha256, at(3)).supersedes(&newer, now));
    }

    #[test]
    fn a_copy_from_the_future_is_healed_by_any_news() {
        let (stored, now) = (entry("a", 99), at(9));
        assert!(Update::Entry(entry("b", 9)).supersedes(&stored, now));
        assert!(Update::Checked(stored.head.sha256, at(9)).supersedes(&stored, now));
    }
}
