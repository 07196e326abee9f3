//! Builds the parts of a cache and connects them.

use std::sync::Arc;

use super::{
    Cache, CacheOptions, CacheParts,
    absence::Absences,
    admission::Admission,
    answer::Responder,
    blobs::Blobs,
    breaker::CircuitBreakers,
    counters::Counters,
    entries::Entries,
    events::Events,
    fetch::{blob::BlobFetcher, entry::EntryFetcher},
    flight::Flights,
    generations::Generations,
    invalidation::Invalidations,
    lookup::Lookup,
    negative::NegativeCache,
    prefetch::{PREFETCHED_BLOBS_IN_FLIGHT, Prefetches},
    prefetched::Prefetched,
    probe::UpstreamHealth,
    state_log::StateLog,
    trust::Trust,
    verified::VerifiedBlobs,
    write_behind::WriteBehind,
};
use crate::{clock::now, store::Store, trust::TrustPolicy, upstream::Upstream};

impl Cache {
    /// A cache over `store` and `upstream`. Clients get what `policy` allows.
    pub fn new(
        store: Arc<Store>,
        upstream: Upstream,
        options: CacheOptions,
        policy: TrustPolicy,
    ) -> Self {
        let events = Arc::<Events>::default();
        let counters = Arc::<Counters>::default();
        let flights = Flights::default();
        let health = health(upstream, &store, options, counters.clone());
        let absences = Absences::new(health.clone(), store.clone());
        let lookup = lookup(store, options);
        let admission = Arc::new(Admission {
            health,
            negative: NegativeCache::default(),
            absences,
            max_age: options.max_age,
        });
        let policy = Arc::new(policy);
        let (of_fetcher, of_events) = (admission.clone(), events.clone());
        let fetcher = EntryFetcher::new(
            lookup.clone(),
            of_fetcher,
            of_events,
            options,
            policy.clone(),
        );
        let entries = Entries {
            lookup: lookup.clone(),
            admission,
            fetcher: Arc::new(fetcher),
            flights: flights.clone(),
            upstream_timeout: options.upstream_timeout,
        };
        let blobs = Blobs {
            lookup,
            fetcher: Arc::new(BlobFetcher::new(
                entries.clone(),
                PREFETCHED_BLOBS_IN_FLIGHT,
            )),
            flights: flights.clone(),
        };
        let generations = Arc::<Generations>::default();
        let prefetched = Arc::<Prefetched>::default();
        let prefetches = Prefetches {
            entries: entries.clone(),
            blobs: blobs.clone(),
            prefetched: prefetched.clone(),
            counters: counters.clone(),
        };
        let trust = Trust::new(policy, entries.clone());
        let responder = Responder {
            trust: trust.clone(),
            entries: entries.clone(),
            blobs: blobs.clone(),
            generations: generations.clone(),
            prefetched,
            counters: counters.clone(),
            events: events.clone(),
            offline_view: options.offline_view,
            started: now(),
        };
        Self(Arc::new(CacheParts {
            entries,
            blobs,
            flights,
            generations,
            responder,
            trust,
            prefetches,
            events,
            counters,
        }))
    }
}

fn lookup(store: Arc<Store>, options: CacheOptions) -> Arc<Lookup> {
    let invalidations = Arc::<Invalidations>::default();
    Arc::new(Lookup {
        store: store.clone(),
        write_behind: WriteBehind::new(
            store,
            invalidations.clone(),
            options.writers,
            options.has_clients,
        ),
        invalidations,
        verified: VerifiedBlobs::default(),
        is_offline: options.is_offline,
    })
}

fn health(
    upstream: Upstream,
    store: &Store,
    options: CacheOptions,
    counters: Arc<Counters>,
) -> Arc<UpstreamHealth> {
    Arc::new(UpstreamHealth {
        upstream: Arc::new(upstream),
        breakers: CircuitBreakers::new(options.is_offline),
        state_log: options.has_clients.then(|| StateLog::new(counters.clone())),
        counters,
        memory: store.memory().clone(),
        max_entry_bytes: options.max_entry_bytes,
    })
}
