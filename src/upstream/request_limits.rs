//! Limits of the requests to upstream: how many over HTTP/1.1 at a time, and how many a second.
//!
//! Over HTTP/1.1 each request has a connection of its own until its body ends, so an origin that does not speak HTTP/2
//! gets a bounded number of them ([`RequestLimits::http1_permit`]). Index entries are small and clients wait for them:
//! a quarter of the permits is for compressible bodies alone, so that downloads do not hold all.
//!
//! The rate is a token bucket over all origins with the tokens of one second.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::{origin::Origin, request::Get};

/// Tokens of the bucket last this long.
const BURST: Duration = Duration::from_secs(1);

/// The limits, and what is in use.
#[derive(Debug)]
pub(super) struct RequestLimits {
    /// Requests over HTTP/1.1 to one origin.
    per_origin: usize,
    origins: Mutex<HashMap<Origin, OriginPermits>>,
    rate: Option<Rate>,
}

#[derive(Clone, Debug)]
struct OriginPermits {
    all: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

/// The right to one request over HTTP/1.1, until dropped.
#[derive(Debug)]
pub(super) struct Http1Permit {
    _any: Option<OwnedSemaphorePermit>,
    _download: Option<OwnedSemaphorePermit>,
}

/// A token bucket.
#[derive(Debug)]
struct Rate {
    interval: Duration,
    /// When the bucket will be full again.
    full_at: Mutex<Instant>,
}

impl RequestLimits {
    /// Limits of `per_origin` requests over HTTP/1.1 to one origin, and `rate` requests a second to all.
    pub(super) fn new(per_origin: usize, rate: Option<u32>) -> Self {
        let rate = rate.filter(|rate| *rate > 0).map(|rate| Rate {
            interval: Duration::from_secs(1) / rate,
            full_at: Mutex::new(Instant::now()),
        });
        Self {
            per_origin: per_origin.max(1),
            origins: Mutex::default(),
            rate,
        }
    }

    /// Waits until fewer requests over HTTP/1.1 than the limit are in flight to `origin`.
    pub(super) async fn http1_permit(&self, origin: &Origin, get: &Get) -> Http1Permit {
        let permits = self.permits(origin);
        // The semaphores are never closed, so every acquisition succeeds.
        let download = match get.compressible {
            true => None,
            false => permits.downloads.acquire_owned().await.ok(),
        };
        Http1Permit {
            _any: permits.all.acquire_owned().await.ok(),
            _download: download,
        }
    }

    fn permits(&self, origin: &Origin) -> OriginPermits {
        let mut origins = self.origins.lock();
        let permits = origins.entry(origin.clone()).or_insert_with(|| {
            let downloads = self.per_origin - self.per_origin / 4;
            OriginPermits {
                all: Arc::new(Semaphore::new(self.per_origin)),
                downloads: Arc::new(Semaphore::new(downloads)),
            }
        });
        permits.clone()
    }

    /// Waits until the rate permits one more request.
    pub(super) async fn wait_for_turn(&self) {
        if let Some(rate) = &self.rate {
            sleep_until(rate.take(Instant::now())).await;
        }
    }
}

impl Rate {
    /// Takes one token, and returns when it will be there.
    fn take(&self, now: Instant) -> Instant {
        let mut full_at = self.full_at.lock();
        *full_at = (*full_at).max(now) + self.interval;
        let in_bucket = BURST.max(self.interval);
        full_at.checked_sub(in_bucket).unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::validators::Validators;

    fn get(compressible: bool) -> Get {
        Get {
            url: Url::parse("http://a.example/").unwrap(),
            validators: Validators::default(),
            offset: 0,
            range: None,
            compressible,
            read_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rate_lets_a_burst_of_one_second_through_and_then_waits() {
        let limits = RequestLimits::new(1, Some(10));
        let start = Instant::now();
        for _ in 0..10 {
            limits.wait_for_turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            limits.wait_for_turn().await;
        }
        let took = start.elapsed().as_millis();
        assert!((2_000..2_050).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn entries_find_a_permit_while_downloads_hold_theirs() {
        let limits = RequestLimits::new(4, None);
        let origin = Origin::from(&get(true).url);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(limits.http1_permit(&origin, &get(false)).await);
        }
        let wait = Duration::from_millis(10);
        let (entry, download) = (get(true), get(false));
        let fourth = limits.http1_permit(&origin, &download);
        assert!(tokio::time::timeout(wait, fourth).await.is_err());
        held.push(limits.http1_permit(&origin, &entry).await);
        let fifth = limits.http1_permit(&origin, &entry);
        assert!(tokio::time::timeout(wait, fifth).await.is_err());
        let other = Origin::from(&Url::parse("http://b.example/").unwrap());
        held.push(limits.http1_permit(&other, &entry).await);
        held.remove(0);
        limits.http1_permit(&origin, &download).await;
    }
}
