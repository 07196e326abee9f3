//! Entries that must be revalidated before they are served as fresh, because an entry that needs them has changed.
//!
//! Cargo resolves over many entries. If a new version of `serde` needs a `serde_derive` published a second before, an
//! entry of `serde_derive` that is fresh but older than that makes the resolve fail. So when an entry changes, its
//! dependencies are invalidated as of the time the new version was published: a copy checked before that time counts
//! as never checked. The store keeps the same fact as a check time on disk; this map covers copies that are on their
//! way.

use std::time::SystemTime;

use parking_lot::Mutex;

use super::bounded::BoundedMap;
use crate::{resource::Key, store::Checked};

/// Keys with the time from which a check counts. Forgetting one costs a stale dependency for one freshness lifetime.
#[derive(Debug, Default)]
pub(super) struct Invalidations(Mutex<BoundedMap<Key, SystemTime>>);

impl Invalidations {
    /// Invalidates entries that were checked before the time beside them.
    pub(super) fn add(&self, entries: &[(Key, SystemTime)]) {
        let mut all = self.0.lock();
        for (key, since) in entries {
            let latest = all.get(key).map_or(*since, |known| (*known).max(*since));
            all.insert(key.clone(), latest);
        }
    }

    /// The check time that counts for `key`: `checked`, or invalidated if an entry that depends on it has changed
    /// since.
    pub(super) fn effective_checked(&self, key: &Key, checked: Checked) -> Checked {
        match self.0.lock().get(key) {
            Some(since) => checked.invalidated_before(*since),
            None => checked,
        }
    }
}
