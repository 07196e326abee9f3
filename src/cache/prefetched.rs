//! Record of prefetches that no client has requested yet.
//!
//! It serves two purposes. The counters "prefetched" and "prefetched, then asked for" show how much traffic prefetch
//! wastes. And a prefetched entry answers the first client that asks for it even if its freshness lifetime is zero: the
//! entry was fetched for exactly that request. So the record belongs to the cache, which answers that client.
//!
//! That holds within one cargo command. The next command may begin a moment later and must not combine entries that are
//! older than its start with newer ones (docs/client-behaviour.md C-29).

use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use super::bounded::BoundedMap;
use crate::{hash::Sha256, resource::Key};

/// Prefetched, not asked for yet.
#[derive(Debug, Default)]
pub(super) struct Prefetched {
    /// The moment each entry's prefetch began.
    entries: Mutex<BoundedMap<Key, SystemTime>>,
    blobs: Mutex<BoundedMap<Sha256, ()>>,
    /// The moment the last cargo command began.
    command_began: Mutex<Option<SystemTime>>,
}

impl Prefetched {
    /// Records that a prefetch of `key` began at `started`.
    pub(super) fn insert_entry(&self, key: Key, started: SystemTime) {
        self.entries.lock().insert(key, started);
    }

    /// Records that a cargo command began at `now`.
    pub(super) fn begin_command(&self, now: SystemTime) {
        *self.command_began.lock() = Some(now);
    }

    /// Removes an entry that a client asks for. Returns the time from which a check makes it fresh for this request:
    /// the moment its prefetch began, or the client's command if that is later.
    pub(super) fn take_entry(&self, key: &Key) -> Option<SystemTime> {
        let prefetched = self.entries.lock().remove(key)?;
        let command_began = *self.command_began.lock();
        Some(command_began.map_or(prefetched, |began| began.max(prefetched)))
    }

    /// The blobs. Hold the lock while joining a flight, so that a client that joins the same flight finds its blob
    /// here.
    pub(super) fn blobs(&self) -> MutexGuard<'_, BoundedMap<Sha256, ()>> {
        self.blobs.lock()
    }

    /// Removes a blob that a client asks for. Returns whether it was prefetched.
    pub(super) fn take_blob(&self, sha256: Sha256) -> bool {
        self.blobs.lock().remove(&sha256).is_some()
    }
}
