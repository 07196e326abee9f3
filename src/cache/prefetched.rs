//! The ledger of prefetched entries and blobs that no client has asked for yet.
//!
//! It serves two purposes. The counters "prefetched" and "prefetched, then asked for" show how much traffic prefetch
//! wastes. And a prefetched entry answers the first client that asks for it even if its freshness lifetime is zero: the
//! entry was fetched for exactly that request.

use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use super::{bounded::BoundedMap, counters::Counter};
use crate::{hash::Sha256, resource::Key};

/// Prefetched, not asked for yet.
#[derive(Debug, Default)]
pub(super) struct Prefetched {
    /// The moment each entry's prefetch began.
    entries: Mutex<BoundedMap<Key, SystemTime>>,
    /// The counter to raise when a client asks for the blob.
    blobs: Mutex<BoundedMap<Sha256, Counter>>,
}

impl Prefetched {
    /// Records that a prefetch of `key` began at `since`.
    pub(super) fn insert_entry(&self, key: Key, since: SystemTime) {
        self.entries.lock().insert(key, since);
    }

    /// Removes an entry that a client asks for, and returns the moment its prefetch began.
    pub(super) fn take_entry(&self, key: &Key) -> Option<SystemTime> {
        self.entries.lock().remove(key)
    }

    /// The blobs. Hold the lock while joining a flight, so that a client that joins the same flight finds its blob here.
    pub(super) fn blobs(&self) -> MutexGuard<'_, BoundedMap<Sha256, Counter>> {
        self.blobs.lock()
    }

    /// Removes a blob that a client asks for, and returns the counter to raise.
    pub(super) fn take_blob(&self, sha256: Sha256) -> Option<Counter> {
        self.blobs.lock().remove(&sha256)
    }
}
