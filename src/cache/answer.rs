//! Answers for clients: the rules that apply to a client's request and not to `warm`.
//!
//! - A prefetched entry answers the first client that asks for it, even if its freshness lifetime is zero.
//! - While upstream is unreachable, an index entry offers only crates that are stored, so that a resolver chooses
//!   those.
//! - An index entry offers only versions that the user's settings allow.
//! - A manifest and its sidecar always belong together, though rustup asks for them one after the other.
//! - While upstream is unreachable, a manifest is the newest one whose archives are stored.
//! - A blob is served while it is still arriving.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tracing::warn;

use super::{
    blobs::Blobs,
    body::Body,
    counters::{Counter, Counters},
    decide::{Demand, Outcome, StaleReason},
    entries::Entries,
    events::{CacheEvent, Events},
    flight::Until,
    generations::{Generations, ServeOrder},
    prefetched::{EntryPrefetch, Prefetched},
    trust::Trust,
};
use crate::{
    clock::now,
    error::Error,
    hash::Sha256,
    resource::{Half, Key, Resource, Source, Views},
    store::{Checked, Entry, StoreError},
};

/// An answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// How the cache obtained it.
    pub outcome: Outcome,
    /// Hash of the body, which serves as a strong validator.
    pub sha256: Sha256,
    /// The body.
    pub body: Body,
    /// Time since upstream confirmed a stored entry that is served without asking upstream. `None` for what upstream
    /// has just sent or confirmed, and for blobs, which their hash confirms.
    pub age: Option<Duration>,
    /// True if the body has a hash that upstream publishes, or is recognised by its kind. Otherwise it is what upstream
    /// sent, whatever that is.
    pub is_proven: bool,
}

impl Answer {
    /// The same answer, with a hash that the cache obtained like this because upstream publishes none.
    pub(super) fn unproven(self, measured: Outcome) -> Self {
        let outcome = if self.outcome == Outcome::Hit {
            measured
        } else {
            self.outcome
        };
        Self {
            outcome,
            is_proven: false,
            ..self
        }
    }

    /// An answer made from an entry that was last checked at `checked`.
    fn of_entry(outcome: Outcome, checked: Checked, sha256: Sha256, body: Bytes) -> Self {
        Self {
            outcome,
            sha256,
            body: Body::Whole(body),
            age: match outcome {
                Outcome::Hit | Outcome::Prefetched | Outcome::Stale(_) => checked.age(now()),
                Outcome::Miss | Outcome::Revalidated | Outcome::Collapsed => None,
            },
            is_proven: true,
        }
    }
}

/// Makes answers.
#[derive(Debug)]
pub(super) struct Responder {
    pub(super) trust: Trust,
    pub(super) entries: Entries,
    pub(super) blobs: Blobs,
    pub(super) generations: Arc<Generations>,
    pub(super) prefetched: Arc<Prefetched>,
    pub(super) counters: Arc<Counters>,
    pub(super) events: Arc<Events>,
    /// True if index entries offer only stored crates while upstream is unreachable.
    pub(super) offline_view: bool,
    /// The start of this process.
    pub(super) started: SystemTime,
}

impl Responder {
    /// The answer for an entry.
    pub(super) async fn entry(&self, resource: &Resource, key: Key) -> Result<Answer, Error> {
        let prefetch = self.take_prefetched(&key);
        let demand = match prefetch {
            Some(EntryPrefetch { started, .. }) => Demand::FreshSince(started),
            None => Demand::Fresh,
        };
        let got = self
            .entries
            .get(resource, key.clone(), demand, Until::Verified);
        let (outcome, entry) = got.await?;
        // A prefetch may have begun after the check above, and this request joined it or found its result. It must not
        // answer a second request.
        let prefetch = match prefetch {
            None if matches!(outcome, Outcome::Hit | Outcome::Collapsed) => {
                self.take_prefetched(&key)
            }
            taken => taken,
        };
        let outcome = match (outcome, prefetch) {
            (Outcome::Hit, Some(EntryPrefetch { is_new: true, .. })) => Outcome::Prefetched,
            _ => outcome,
        };
        let (outcome, entry) = match self.is_upstream_untried(resource, outcome, &entry) {
            true => Box::pin(self.try_upstream(resource, key, outcome, entry)).await,
            false => (outcome, entry),
        };
        let entry = self.complete_release(resource, entry).await;
        let entry = self.trust.view(resource, entry).await;
        if self.must_offer_stored_only(resource)
            && let Some(views) = resource.views()
        {
            return Ok(self.offline_view(resource, views, outcome, entry).await);
        }
        let Entry {
            head,
            body,
            checked,
            ..
        } = entry;
        Ok(Answer::of_entry(outcome, checked, head.sha256, body))
    }

    /// Removes and returns the record of a prefetch, and counts the prefetch as asked for.
    pub(super) fn take_prefetched(&self, key: &Key) -> Option<EntryPrefetch> {
        let prefetch = self.prefetched.take_entry(key)?;
        self.counters.add(Counter::PrefetchedEntriesAsked);
        Some(prefetch)
    }

    fn must_offer_stored_only(&self, resource: &Resource) -> bool {
        let breakers = &self.entries.admission.health.breakers;
        self.offline_view
            && !breakers.all_closed()
            && matches!(resource.source(), Source::At(url) if breakers.uses_offline_view(&url, now()))
    }

    /// Returns whether an index entry would be served without asking its upstream, of which nothing is known yet.
    fn is_upstream_untried(&self, resource: &Resource, outcome: Outcome, entry: &Entry) -> bool {
        let is_unasked = matches!(
            outcome,
            Outcome::Hit | Outcome::Stale(StaleReason::Revalidating)
        );
        // Another process that shares the store may have reached upstream.
        let is_unasked = is_unasked && entry.checked < Checked::At(self.started);
        let breakers = &self.entries.admission.health.breakers;
        is_unasked
            && self.offline_view
            && resource.views().is_some()
            && matches!(resource.source(), Source::At(url) if breakers.is_untried(&url))
    }

    /// Asks upstream about an entry of which clients would get another view offline. Without this, a command that
    /// begins offline soon after an online one would choose the newest versions by fresh entries, and learn of the
    /// outage by their crates.
    async fn try_upstream(
        &self,
        resource: &Resource,
        key: Key,
        outcome: Outcome,
        entry: Entry,
    ) -> (Outcome, Entry) {
        let Some(views) = resource.views() else {
            return (outcome, entry);
        };
        match self.offer_stored_only(views, &entry.body).await {
            Ok(view) if view != entry.body => {}
            Ok(_) | Err(_) => return (outcome, entry),
        }
        let asked = self
            .entries
            .get(resource, key, Demand::Refresh, Until::Verified);
        asked.await.unwrap_or((outcome, entry))
    }

    /// The entry in which versions whose crate is neither stored nor offered by a pin are marked as yanked.
    async fn offline_view(
        &self,
        resource: &Resource,
        views: &dyn Views,
        outcome: Outcome,
        entry: Entry,
    ) -> Answer {
        match self.offer_stored_only(views, &entry.body).await {
            Ok(body) => Answer::of_entry(outcome, entry.checked, Sha256::of(&body), body),
            Err(error) => {
                warn!(%resource, %error, "cannot tell which crates are stored; serving the entry as it is");
                Answer::of_entry(outcome, entry.checked, entry.head.sha256, entry.body)
            }
        }
    }

    async fn offer_stored_only(
        &self,
        views: &dyn Views,
        body: &Bytes,
    ) -> Result<Bytes, StoreError> {
        let listed = views.checksums(body);
        let store = &self.entries.lookup.store;
        let (stored, offered) = tokio::try_join!(
            store.contains(listed.clone()),
            store.offered(listed.clone())
        )?;
        let is_there = stored.into_iter().zip(offered);
        let is_there = is_there.map(|(is_stored, is_offered)| is_stored || is_offered);
        let there = listed.into_iter().zip(is_there);
        let there = there.filter_map(|(sha256, is_there)| is_there.then_some(sha256));
        Ok(views.offline_view(body.clone(), &there.collect()))
    }

    /// The answer for one file of a pair: a manifest, or the sidecar that holds its hash.
    ///
    /// Rustup asks for the sidecar first, and then for a manifest that must match it. So the sidecar that was served
    /// last decides which manifest is served. A new generation's sidecar waits until clients with the old one have had
    /// time to ask for their manifest. That holds no matter which process has fetched the new generation.
    pub(super) async fn half(
        &self,
        resource: &Resource,
        key: Key,
        half: Half,
    ) -> Result<Answer, Error> {
        if half == Half::Body
            && let Some(entry) = self.generations.serve_manifest(&key)
        {
            self.events.send(|| CacheEvent::ManifestServed {
                manifest: resource.clone(),
                entry: entry.clone(),
            });
            return Ok(manifest_answer(resource, Outcome::Hit, &entry));
        }
        let entry = self
            .entries
            .get(resource, key.clone(), Demand::Fresh, Until::Verified);
        let (outcome, newest) = entry.await?;
        let entry = self.complete_release(resource, newest.clone()).await;
        let order = if entry.head.sha256 == newest.head.sha256 {
            ServeOrder::NeverOlder
        } else {
            ServeOrder::Exactly
        };
        match half {
            Half::Body => Ok(manifest_answer(resource, outcome, &entry)),
            Half::Sidecar => {
                let entry = self.serve_sidecar(&key, &entry, order).await;
                Ok(sidecar_answer(resource, outcome, entry))
            }
        }
    }

    /// The release to serve: while upstream is out of reach, blobs that are not stored cannot be had.
    async fn complete_release(&self, resource: &Resource, newest: Entry) -> Entry {
        if resource.releases().is_none() || !self.entries.admission.is_out_of_reach(resource) {
            return newest;
        }
        let lookup = &self.entries.lookup;
        Box::pin(lookup.newest_complete_release(resource, newest)).await
    }

    /// Waits until the generation of `entry` may be served, and returns it, or a newer one that has been served
    /// meanwhile.
    async fn serve_sidecar(&self, key: &Key, entry: &Entry, order: ServeOrder) -> Entry {
        loop {
            match self.generations.serve_sidecar(key, entry, order, now()) {
                Ok(entry) => return entry,
                Err(delay) => tokio::time::sleep(delay).await,
            }
        }
    }

    /// The answer for a blob, whose body may still be arriving.
    pub(super) async fn blob(&self, resource: &Resource, sha256: Sha256) -> Result<Answer, Error> {
        let stored = self.blobs.lookup.verified_blob(resource, sha256).await;
        let (outcome, body) = match stored {
            Some((_, body)) => match self.take_prefetched_blob(sha256) {
                true => (Outcome::Prefetched, body),
                false => (Outcome::Hit, body),
            },
            None => {
                let (role, progress) = self.blobs.join(resource, sha256, Demand::Fresh);
                self.take_prefetched_blob(sha256);
                Box::pin(self.blobs.arriving_body(resource, role, progress)).await?
            }
        };
        Ok(Answer {
            outcome,
            sha256,
            body,
            age: None,
            is_proven: true,
        })
    }

    /// Removes the record of a prefetched blob, and counts the prefetch as asked for. Returns whether there was one.
    fn take_prefetched_blob(&self, sha256: Sha256) -> bool {
        let is_prefetched = self.prefetched.take_blob(sha256);
        if is_prefetched {
            self.counters.add(Counter::PrefetchedBlobsAsked);
        }
        is_prefetched
    }
}

fn manifest_answer(resource: &Resource, outcome: Outcome, entry: &Entry) -> Answer {
    let body = client_view(resource, entry).unwrap_or_else(|| entry.body.clone());
    Answer::of_entry(outcome, entry.checked, Sha256::of(&body), body)
}

/// The body for clients, if it is another one than upstream's.
fn client_view(resource: &Resource, entry: &Entry) -> Option<Bytes> {
    resource.views()?.client_view(&entry.body)
}

/// The sidecar's answer. If clients get another manifest than upstream's, its hash is replaced.
fn sidecar_answer(resource: &Resource, outcome: Outcome, entry: Entry) -> Answer {
    let client_view = client_view(resource, &entry);
    let sidecar = entry
        .head
        .sidecar
        .unwrap_or_else(|| entry.head.sha256.to_string());
    let text = match client_view {
        None => Bytes::from(sidecar),
        Some(body) => {
            let rest = sidecar.get(64..).unwrap_or_default();
            Bytes::from(format!("{}{rest}", Sha256::of(&body)))
        }
    };
    Answer::of_entry(outcome, entry.checked, Sha256::of(&text), text)
}
