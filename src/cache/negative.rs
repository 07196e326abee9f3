//! The negative cache: what upstream has said lately about resources that it does not give.
//!
//! Cargo asks for index entries of crates that only exist in another registry, and rustup asks for channels that were
//! never released. A registry that requires a token refuses everything. Without a memory each such request would cost a
//! round trip. The lifetime of an absence comes from the resource's policy and is never longer than the user's
//! `--max-age`. The memory does not outlive the process, so it goes by the monotonic clock: after a wall clock was set
//! back, an absence would last for as long.

use std::time::Instant;

use parking_lot::Mutex;

use super::{bounded::BoundedMap, decide::NegativeAnswer, flight::FlightKey};

/// Negative answers, each with the time until which it counts.
#[derive(Debug, Default)]
pub(super) struct NegativeCache(Mutex<BoundedMap<FlightKey, (NegativeAnswer, Instant)>>);

impl NegativeCache {
    /// Remembers until `expires` what upstream said about `key`.
    pub(super) fn insert(&self, key: FlightKey, answer: NegativeAnswer, expires: Instant) {
        self.0.lock().insert(key, (answer, expires));
    }

    /// Forgets an answer: upstream gives `key` after all.
    pub(super) fn remove(&self, key: &FlightKey) {
        self.0.lock().remove(key);
    }

    /// Upstream's answer about `key` shortly before `now`.
    pub(super) fn get(&self, key: &FlightKey, now: Instant) -> Option<NegativeAnswer> {
        let all = self.0.lock();
        let (answer, expires) = all.get(key)?;
        (now < *expires).then_some(*answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hash::Sha256;

    #[test]
    fn an_answer_lasts_until_it_expires_or_is_removed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let key = FlightKey::Blob(Sha256::of(b"x"), "x".to_owned());
        let negative = NegativeCache::default();
        negative.insert(key.clone(), NegativeAnswer::Absent, at(60));
        assert_eq!(negative.get(&key, at(59)), Some(NegativeAnswer::Absent));
        assert_eq!(negative.get(&key, at(60)), None);
        negative.remove(&key);
        assert_eq!(negative.get(&key, at(59)), None);
    }
}
