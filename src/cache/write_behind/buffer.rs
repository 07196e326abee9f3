//! The buffer of the write-behind: updates of entries that are not on disk yet, by key.
//!
//! Lookups read the buffer before the store, so a buffered update takes effect at once. This module holds state only:
//! it neither reads the clock nor writes files.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use tracing::warn;

use crate::{
    error::Error,
    hash::Sha256,
    resource::{Key, Resource},
    store::{Checked, Entry},
};

/// Memory of a buffered update beside its body, in bytes: head, key and map slots.
const UPDATE_OVERHEAD_BYTES: u64 = 1024;

/// A change of one entry.
#[derive(Clone, Debug)]
pub(in super::super) enum Update {
    /// A new body.
    Entry(Entry),
    /// The stored body with this hash was revalidated at this time.
    Checked(Sha256, Checked),
}

impl Update {
    /// Returns whether this update is newer than the stored entry. Another process may have stored a newer one
    /// meanwhile. A stored check time in the future comes from a clock that was set back, so it does not count as
    /// newer.
    pub(in super::super) fn supersedes(&self, stored: &Entry, now: SystemTime) -> bool {
        let is_newer = |checked| checked > stored.checked || stored.checked > Checked::At(now);
        match self {
            Self::Entry(entry) => entry.checked == stored.checked || is_newer(entry.checked),
            Self::Checked(sha256, checked) => stored.head.sha256 == *sha256 && is_newer(*checked),
        }
    }

    /// Approximate memory use in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.body.len() as u64 + UPDATE_OVERHEAD_BYTES,
            Self::Checked(..) => UPDATE_OVERHEAD_BYTES,
        }
    }

    /// Applies a newer update.
    fn merge(&mut self, newer: Self) {
        match (&mut *self, newer) {
            (Self::Entry(entry), Self::Checked(sha256, checked)) if entry.head.sha256 == sha256 => {
                entry.checked = checked;
            }
            (_, newer) => *self = newer,
        }
    }
}

/// One key's pending write.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) resource: Resource,
    /// Serialises writes of one entry, so that an older body never overwrites a newer one. Holds the result of the last
    /// finished write; `None` before the first, and after a panic.
    pub(super) write_lock: tokio::sync::Mutex<Option<Result<(), Error>>>,
    /// The update, with a version that grows with each merge.
    update: Mutex<(u64, Update)>,
}

/// All pending writes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pending: Mutex<HashMap<Key, Arc<PendingWrite>>>,
    /// Number of pending writes. Zero lets a hit skip the lock.
    len: AtomicUsize,
}

impl Buffer {
    /// Buffers an update of `key`. Returns a [`FlushGuard`] if no write was pending; the caller must then schedule it.
    pub(super) fn add(
        self: &Arc<Self>,
        resource: &Resource,
        key: &Key,
        update: Update,
    ) -> Option<FlushGuard> {
        let mut pending = self.pending.lock();
        if let Some(write) = pending.get(key) {
            let mut merged = write.update.lock();
            merged.0 += 1;
            merged.1.merge(update);
            return None;
        }
        let write = Arc::new(PendingWrite {
            resource: resource.clone(),
            write_lock: tokio::sync::Mutex::default(),
            update: Mutex::new((0, update)),
        });
        pending.insert(key.clone(), write.clone());
        self.len.store(pending.len(), Ordering::Release);
        Some(FlushGuard {
            buffer: self.clone(),
            key: key.clone(),
            write,
        })
    }

    /// The pending write of `key`.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<PendingWrite>> {
        if self.len() == 0 {
            return None;
        }
        self.pending.lock().get(key).cloned()
    }

    /// The buffered update of `key`.
    pub(super) fn update(&self, key: &Key) -> Option<Update> {
        self.get(key).map(|write| write.update.lock().1.clone())
    }

    /// The update that `write` must write next, with its version; `None` if nothing is left to write.
    pub(super) fn next_update(
        &self,
        key: &Key,
        write: &Arc<PendingWrite>,
    ) -> Option<(u64, Update)> {
        let pending = self.pending.lock();
        let current = pending.get(key)?;
        Arc::ptr_eq(current, write).then(|| write.update.lock().clone())
    }

    /// Removes a write after its update of `version` was tried, unless a newer update was merged meanwhile.
    pub(super) fn finish(&self, key: &Key, write: &Arc<PendingWrite>, version: u64) {
        self.remove_if(key, |current| {
            Arc::ptr_eq(current, write) && current.update.lock().0 == version
        });
    }

    /// Number of pending writes.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Keys of all pending writes.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.pending.lock().keys().cloned().collect()
    }

    fn remove_if(&self, key: &Key, condition: impl Fn(&Arc<PendingWrite>) -> bool) -> bool {
        let mut pending = self.pending.lock();
        let is_match = pending.get(key).is_some_and(condition);
        if is_match {
            pending.remove(key);
            self.len.store(pending.len(), Ordering::Release);
        }
        is_match
    }
}

/// Guard for one pending write. If it is dropped before the write finishes (panic or cancellation), the buffered
/// update is discarded: clients have been served, and the next request fetches the entry again.
#[derive(Debug)]
pub(super) struct FlushGuard {
    buffer: Arc<Buffer>,
    key: Key,
    write: Arc<PendingWrite>,
}

impl FlushGuard {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        // A later update of the same key has a guard of its own.
        let is_unfinished = |current: &Arc<PendingWrite>| Arc::ptr_eq(current, &self.write);
        if self.buffer.remove_if(&self.key, is_unfinished) {
            warn!(key = %self.key, "entry served but not written: the writer stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;

    use super::*;
    use crate::{
        resource::{Location, Registries, RegistryConfig},
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
    fn an_update_during_a_write_is_written_after_it_by_the_same_writer() {
        let (resource, key) = resource();
        let buffer = Arc::new(Buffer::default());
        assert!(buffer.update(&key).is_none());
        let guard = buffer.add(&resource, &key, Update::Entry(entry("a", 1)));
        assert!(guard.is_some());
        let write = buffer.get(&key).unwrap();
        let (version, _) = buffer.next_update(&key, &write).unwrap();
        let second = buffer.add(&resource, &key, Update::Entry(entry("b", 2)));
        assert!(second.is_none());
        buffer.finish(&key, &write, version);
        let (version, update) = buffer.next_update(&key, &write).unwrap();
        assert!(matches!(update, Update::Entry(update) if update == entry("b", 2)));
        buffer.finish(&key, &write, version);
        assert!(buffer.update(&key).is_none() && buffer.next_update(&key, &write).is_none());
        assert_eq!((buffer.len(), buffer.keys()), (0, Vec::new()));
    }

    #[test]
    fn a_revalidation_updates_the_check_time_of_its_own_body_and_replaces_any_other() {
        let (resource, key) = resource();
        let buffer = Arc::new(Buffer::default());
        let (a, b) = (entry("a", 1), entry("b", 1));
        let _guard = buffer.add(&resource, &key, Update::Entry(a.clone()));
        buffer.add(
            &resource,
            &key,
            Update::Checked(a.head.sha256, Checked::At(at(5))),
        );
        let revalidated = Entry {
            checked: Checked::At(at(5)),
            ..a
        };
        let update = buffer.update(&key);
        assert!(
            matches!(&update, Some(Update::Entry(update)) if *update == revalidated),
            "{update:?}"
        );
        buffer.add(
            &resource,
            &key,
            Update::Checked(b.head.sha256, Checked::At(at(6))),
        );
        let update = buffer.update(&key);
        assert!(matches!(update, Some(Update::Checked(sha256, _)) if sha256 == b.head.sha256));
    }

    #[test]
    fn a_writer_that_stops_discards_its_update_and_the_next_one_needs_a_new_writer() {
        let (resource, key) = resource();
        let buffer = Arc::new(Buffer::default());
        let guard = buffer.add(&resource, &key, Update::Entry(entry("a", 1)));
        drop(guard.unwrap());
        assert!(buffer.update(&key).is_none() && buffer.len() == 0);
        let next = buffer.add(&resource, &key, Update::Entry(entry("b", 2)));
        assert!(next.is_some());
        // The first guard's end must not remove the second write.
        let write = buffer.get(&key).unwrap();
        let (version, _) = buffer.next_update(&key, &write).unwrap();
        buffer.finish(&key, &write, version);
        drop(next);
        assert_eq!(buffer.len(), 0);
    }

    #[test]
    fn an_update_supersedes_an_older_entry_and_one_from_a_clock_set_back() {
        let now = at(100);
        let update = |checked| Update::Checked(entry("a", 0).head.sha256, Checked::At(at(checked)));
        assert!(update(50).supersedes(&entry("a", 40), now));
        assert!(!update(50).supersedes(&entry("a", 60), now));
        assert!(update(50).supersedes(&entry("a", 200), now));
        assert!(!update(50).supersedes(&entry("b", 40), now));
        assert!(Update::Entry(entry("b", 50)).supersedes(&entry("a", 50), now));
        assert!(!Update::Entry(entry("b", 50)).supersedes(&entry("a", 60), now));
    }
}
