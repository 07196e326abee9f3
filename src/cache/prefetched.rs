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
    entries: Mutex<BoundedMap<Key, EntryPrefetch>>,
    blobs: Mutex<BoundedMap<Sha256, ()>>,
    /// The moment the last cargo command began.
    command_began: Mutex<Option<SystemTime>>,
}

/// The prefetch of one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryPrefetch {
    /// The moment it began.
    pub(super) started: SystemTime,
    /// True if no copy was stored before, so that the answer to the client costs a download.
    pub(super) is_new: bool,
}

impl Prefetched {
    /// Records the prefetch of `key`.
    pub(super) fn insert_entry(&self, key: Key, prefetch: EntryPrefetch) {
        self.entries.lock().insert(key, prefetch);
    }

    /// Records that a cargo command began at `now`.
    pub(super) fn begin_command(&self, now: SystemTime) {
        *self.command_began.lock() = Some(now);
    }

    /// Removes an entry that a client asks for. A check makes it fresh for this request if it is not older than
    /// `started`, which becomes the beginning of the client's command if that is later.
    pub(super) fn take_entry(&self, key: &Key) -> Option<EntryPrefetch> {
        let mut prefetch = self.entries.lock().remove(key)?;
        if let Some(began) = *self.command_began.lock() {
            prefetch.started = prefetch.started.max(began);
        }
        Some(prefetch)
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
