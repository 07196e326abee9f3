//! Counts what an intercepting proxy has answered, from the answers themselves: the daemon's and this process's look
//! the same.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

/// Missing resources that are counted one by one.
const MAX_MISSING: usize = 10_000;

/// The counts of one proxy.
#[derive(Debug, Default)]
pub struct Tally {
    hits: AtomicU64,
    fetched: AtomicU64,
    saved_bytes: AtomicU64,
    /// Addresses, since cargo repeats a request that failed.
    missing: Mutex<BTreeSet<String>>,
}

/// Counts of an intercepting proxy's answers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests that were answered from the store, whether upstream confirmed the copy or not.
    pub hits: u64,
    /// Requests that needed a download, also one that a prefetch began before the request.
    pub fetched: u64,
    /// Resources that are not stored and that upstream did not send.
    pub missing: u64,
    /// Bytes of the hits' bodies.
    pub saved_bytes: u64,
}

impl Tally {
    /// Counts an answer for the resource at `address`, with a body of `bytes`, if that is known.
    pub fn count(
        &self,
        address: &str,
        status: StatusCode,
        headers: &HeaderMap,
        bytes: Option<u64>,
    ) {
        // "Does not exist" is an answer.
        if status == StatusCode::NOT_FOUND {
            return;
        }
        if status.is_client_error() || status.is_server_error() {
            let mut missing = self.missing.lock();
            if missing.len() < MAX_MISSING {
                missing.insert(address.to_owned());
            }
            return;
        }
        let cache_status = headers.get("cache-status");
        let cache_status = cache_status.and_then(|value| value.to_str().ok());
        let cache_status = cache_status.unwrap_or_default();
        if cache_status.contains("fwd=miss") || cache_status.contains("prefetched") {
            self.fetched.fetch_add(1, Ordering::Relaxed);
        } else {
            self.hits.fetch_add(1, Ordering::Relaxed);
            self.saved_bytes
                .fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
        }
        self.missing.lock().remove(address);
    }

    /// The counts so far.
    pub fn summary(&self) -> Summary {
        Summary {
            hits: self.hits.load(Ordering::Relaxed),
            fetched: self.fetched.load(Ordering::Relaxed),
            missing: self.missing.lock().len() as u64,
            saved_bytes: self.saved_bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_by_their_cache_status() {
        let tally = Tally::default();
        let count = |address: &str, status: u16, cache_status: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-status", cache_status.parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            tally.count(address, status, &headers, Some(10));
        };
        count("a", 200, "larder; hit");
        count("a", 200, "larder; fwd=stale");
        count("b", 200, "larder; hit; detail=stale-offline");
        count("c", 200, "larder; fwd=miss");
        count("c", 206, "larder; fwd=miss; collapsed");
        count("c", 200, "larder; hit; detail=prefetched");
        count("d", 404, "");
        for _ in 0..3 {
            count("e", 503, "");
        }
        count("f", 424, "");
        count("g", 503, "");
        count("g", 200, "larder; fwd=miss");
        let expected = Summary {
            hits: 3,
            fetched: 4,
            missing: 2,
            saved_bytes: 30,
        };
        assert_eq!(tally.summary(), expected);
    }
}
