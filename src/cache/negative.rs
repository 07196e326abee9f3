//! The negative cache: resources that upstream has said it does not have.
//!
//! Cargo asks for index entries of crates that only exist in another registry, and rustup asks for channels that were
//! never released. Without a memory each such request would cost a round trip. The lifetime comes from the resource's
//! policy and is never longer than the user's `--max-age`. The memory does not outlive the process.

use std::time::SystemTime;

use parking_lot::Mutex;

use super::{bounded::BoundedMap, flight::FlightKey};

/// Expiry time of each absence.
#[derive(Debug, Default)]
pub(super) struct NegativeCache(Mutex<BoundedMap<FlightKey, SystemTime>>);

impl NegativeCache {
    /// Remembers until `expires` that upstream does not have `key`.
    pub(super) fn insert(&self, key: FlightKey, expires: SystemTime) {
        self.0.lock().insert(key, expires);
    }

    /// Forgets an absence: upstream has `key` after all.
    pub(super) fn remove(&self, key: &FlightKey) {
        self.0.lock().remove(key);
    }

    /// Returns whether upstream said a short while before `now` that it does not have `key`.
    pub(super) fn contains(&self, key: &FlightKey, now: SystemTime) -> bool {
        self.0.lock().get(key).is_some_and(|expires| now < *expires)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hash::Sha256;

    #[test]
    fn an_absence_lasts_until_it_expires_or_is_removed() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let key = FlightKey::Blob(Sha256::of(b"x"), "x".to_owned());
        let negative = NegativeCache::default();
        negative.insert(key.clone(), at(60));
        assert!(negative.contains(&key, at(59)) && !negative.contains(&key, at(60)));
        negative.remove(&key);
        assert!(!negative.contains(&key, at(59)));
    }
}
