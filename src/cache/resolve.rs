//! Resolves a resource whose hash is not known yet: reads the listing that names it.
//!
//! A client may ask for a crate by name and version, or for a toolchain archive by its path. The store keeps both under
//! their hash, which a listing holds: the index entry of the crate, or the manifest of a channel. The listings are
//! tried in this order:
//!
//! 1. manifests that clients were served lately ([`super::generations`]): an install uses the generation it began with;
//! 2. stored manifests whose names follow from the archive's path ([`Listed::listings`]), of any age, because such a
//!    path fixes the archive's bytes;
//! 3. the listing that [`Location::ListedIn`] names: the index entry or the sidecar. For a resource that never changes,
//!    a stored listing of any age will do, unless it lacks the resource;
//! 4. if upstream has no such listing, the last manifest of step 2, which is fetched now;
//! 5. if that manifest does not list the resource either, the hash of the body that upstream sends
//!    ([`Listed::unproven`]).
//!
//! [`Listed::listings`]: crate::resource::Listed::listings
//! [`Listed::unproven`]: crate::resource::Listed::unproven

use super::{
    decide::{Demand, Outcome, StaleReason},
    entries::Entries,
    flight::Until,
    generations::Generations,
    lookup::StoreLocation,
};
use crate::{
    error::Error,
    hash::Sha256,
    resource::{Freshness, Location, Resource, Unlisted},
};

/// A resource with its full name and its place in the store.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) resource: Resource,
    pub(super) location: StoreLocation,
    /// Hash of the manifest that a client was served and that lists the resource.
    pub(super) generation: Option<Sha256>,
    /// How the cache obtained the hash that it computed itself; `None` if the hash comes from upstream.
    pub(super) unproven: Option<Outcome>,
}

/// Resolves `resource`.
///
/// # Errors
/// No listing can be had, or none of them has the resource.
pub(super) async fn resolve(
    resource: &Resource,
    entries: &Entries,
    generations: &Generations,
) -> Result<Resolved, Error> {
    match StoreLocation::of(resource.location()) {
        Ok(location) => Ok(Resolved {
            resource: resource.clone(),
            location,
            generation: None,
            unproven: None,
        }),
        // Boxed: a hit would otherwise carry the size of these futures.
        Err(listing) => {
            if let Some(resolved) =
                Box::pin(by_known_manifest(resource, entries, generations)).await
            {
                return Ok(resolved);
            }
            Box::pin(by_listing(resource, &listing, entries)).await
        }
    }
}

/// Resolves by served and stored manifests: steps 1 and 2.
async fn by_known_manifest(
    resource: &Resource,
    entries: &Entries,
    generations: &Generations,
) -> Option<Resolved> {
    let manifests = resource.listed()?.listings();
    if manifests.is_empty() {
        return None;
    }
    for entry in generations.listings() {
        if let Some(resolved) = by_manifest(resource, &entry.body) {
            return Some(Resolved {
                generation: Some(entry.head.sha256),
                ..resolved
            });
        }
    }
    for manifest in manifests {
        if let Some(body) = entries.lookup.peek(&manifest).await
            && let Some(resolved) = by_manifest(resource, &body)
        {
            return Some(resolved);
        }
    }
    None
}

/// Resolves by a manifest's body.
fn by_manifest(resource: &Resource, body: &[u8]) -> Option<Resolved> {
    let resource = resource.listed()?.resolve(body).ok()?;
    let sha256 = resource.location().blob_hash()?;
    Some(Resolved {
        resource,
        location: StoreLocation::Blob(sha256),
        generation: None,
        unproven: None,
    })
}

/// Resolves by the listing that the resource points at: step 3.
async fn by_listing(
    resource: &Resource,
    listing: &Resource,
    entries: &Entries,
) -> Result<Resolved, Error> {
    let Location::Entry(key) = listing.location() else {
        return Err(Error::abandoned(resource));
    };
    // A stale listing is good enough for a resource that never changes.
    let mut demand = match resource.policy().freshness {
        Freshness::Forever => Demand::Stored,
        Freshness::For(_) | Freshness::AsUpstreamSays => Demand::Fresh,
    };
    loop {
        let listed = entries.get(listing, key.clone(), demand, Until::Verified);
        let (outcome, entry) = match listed.await {
            Err(error) => return Box::pin(without_listing(resource, entries, error)).await,
            Ok(listed) => listed,
        };
        let listed = resource.listed().ok_or(Unlisted);
        match listed.and_then(|listed| listed.resolve(&entry.body)) {
            Ok(resource) => {
                let location = StoreLocation::of(resource.location())
                    .map_err(|_| Error::abandoned(&resource))?;
                return Ok(Resolved {
                    resource,
                    location,
                    generation: None,
                    unproven: None,
                });
            }
            Err(_) if demand == Demand::Stored && outcome == Outcome::Hit => {
                demand = Demand::Refresh;
            }
            Err(_) => return Err(unlisted_error(resource, outcome)),
        }
    }
}

/// Resolves a resource whose listing cannot be had because of `error`: steps 4 and 5. Only upstream's statement that
/// there is no listing makes a resource unproven. One that is stored as such is served in an outage too.
async fn without_listing(
    resource: &Resource,
    entries: &Entries,
    error: Error,
) -> Result<Resolved, Error> {
    let is_absent = matches!(error, Error::Absent { .. });
    if is_absent && let Some(resolved) = by_last_manifest(resource, entries).await {
        return Ok(resolved);
    }
    let listed = resource.listed();
    let Some((listed, record)) = listed.and_then(|listed| Some((listed, listed.unproven()?)))
    else {
        return Err(error);
    };
    let Location::Entry(key) = record.location() else {
        return Err(error);
    };
    if !is_absent && entries.lookup.stored(&record).await.is_none() {
        return Err(error);
    }
    let measured = entries.get(&record, key, Demand::Fresh, Until::Stored);
    let (outcome, entry) = measured.await?;
    let resource = listed.resolve(&entry.body);
    let resource = resource.map_err(|_| Error::abandoned(&record))?;
    let sha256 = resource.location().blob_hash();
    let sha256 = sha256.ok_or_else(|| Error::abandoned(&record))?;
    Ok(Resolved {
        resource,
        location: StoreLocation::Blob(sha256),
        generation: None,
        unproven: Some(outcome),
    })
}

/// The error for a resource that its listing lacks. If the listing is stale, upstream may have a newer one that has it.
fn unlisted_error(resource: &Resource, outcome: Outcome) -> Error {
    let resource = resource.to_string();
    match outcome {
        Outcome::Stale(StaleReason::Offline) => Error::Offline { resource },
        Outcome::Stale(StaleReason::Down | StaleReason::Failed) => Error::Outdated { resource },
        Outcome::Hit
        | Outcome::Miss
        | Outcome::Revalidated
        | Outcome::Collapsed
        | Outcome::Prefetched
        | Outcome::Stale(StaleReason::Revalidating | StaleReason::Withdrawn) => {
            Error::Unlisted { resource }
        }
    }
}

/// Resolves by the last manifest that may list the resource, and fetches it if necessary: step 4.
async fn by_last_manifest(resource: &Resource, entries: &Entries) -> Option<Resolved> {
    let manifest = resource.listed()?.listings().pop()?;
    let Location::Pair(key, _) = manifest.location() else {
        return None;
    };
    let fetched = entries.get(&manifest, key, Demand::Stored, Until::Verified);
    let (_, entry) = fetched.await.ok()?;
    by_manifest(resource, &entry.body)
}
