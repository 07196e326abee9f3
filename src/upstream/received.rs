//! [`ReceivedBytes`]: how many bytes of bodies came from each upstream.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::origin::Origin;

/// Upstreams that are counted one by one. A registry may name another download address every day, so all further
/// upstreams are counted together as [`OTHERS`].
const MAX_ORIGINS: usize = 32;
/// The name of all further upstreams.
const OTHERS: &str = "others";

/// Bytes since the start, as they came over the network: compressed bodies count before they are decoded.
#[derive(Debug, Default)]
pub(super) struct ReceivedBytes {
    origins: Mutex<HashMap<Origin, Arc<AtomicU64>>>,
    others: Arc<AtomicU64>,
}

impl ReceivedBytes {
    /// The counter of one upstream.
    pub(super) fn counter(&self, origin: Origin) -> Arc<AtomicU64> {
        let mut origins = self.origins.lock();
        if let Some(counter) = origins.get(&origin) {
            return counter.clone();
        }
        if origins.len() >= MAX_ORIGINS {
            return self.others.clone();
        }
        origins.entry(origin).or_default().clone()
    }

    /// Bytes by upstream. http and https of one host count together, since people write them alike.
    pub(super) fn totals(&self) -> BTreeMap<String, u64> {
        let mut totals = BTreeMap::new();
        for (origin, bytes) in &*self.origins.lock() {
            *totals.entry(origin.to_string()).or_default() += bytes.load(Ordering::Relaxed);
        }
        let others = self.others.load(Ordering::Relaxed);
        if others > 0 {
            totals.insert(OTHERS.to_owned(), others);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn bytes_count_by_host_and_the_number_of_hosts_is_bounded() {
        let received = ReceivedBytes::default();
        let add = |url: &str, bytes| {
            let origin = Origin::from(&Url::parse(url).unwrap());
            received.counter(origin).fetch_add(bytes, Ordering::Relaxed);
        };
        add("http://a.example/one", 1);
        add("https://a.example/two", 2);
        for n in 0..MAX_ORIGINS {
            add(&format!("https://h{n}.example/"), 10);
        }
        let totals = received.totals();
        assert_eq!(totals["a.example"], 3);
        assert_eq!(totals[OTHERS], 20);
        assert_eq!(totals.len(), MAX_ORIGINS);
    }
}
