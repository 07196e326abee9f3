//! Reads stored entries and blobs, from the write-behind buffer and the store.
//!
//! An entry may be in the write-behind buffer and on disk, in different versions. [`Lookup::entry`] merges them:
//!
//! ```text
//!  write-behind buffer ──┐  newer wins
//!  store on disk ────────┴──> entry ──> invalidated since its check? ──> effective check time
//! ```
//!
//! A blob is hashed before this process serves it, once for each state of its file; see [`super::verified`]. A damaged
//! copy, entry or blob, counts as missing, so the request fetches and replaces it. A damaged blob is also moved to the
//! store's quarantine.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::warn;

use super::{
    body::Body,
    invalidation::Invalidations,
    verified::VerifiedBlobs,
    write_behind::{Update, WriteBehind},
};
use crate::{
    clock::now,
    error::{Error, chain},
    hash::{Hasher, Sha256},
    resource::{Half, Key, Location, Resource},
    store::{Blob, CHUNK_BYTES, Checked, Entry, Store, StoreError},
    validators::Validators,
};

/// Blobs up to this size are read into memory before the response starts, and then sent as one chunk.
const MAX_WHOLE_BLOB_BYTES: u64 = CHUNK_BYTES as u64;

/// The body of the entry that stands for an absence.
const ABSENCE_BODY: &str = "upstream has no such file\n";

/// Where the store keeps a resource whose full name is known.
#[derive(Debug)]
pub(super) enum StoreLocation {
    Entry(Key),
    /// One file of a pair: a manifest or its sidecar, which share an entry.
    Half(Key, Half),
    Blob(Sha256),
}

impl StoreLocation {
    /// The store location, or the listing that must be read first to learn it.
    pub(super) fn of(location: Location) -> Result<Self, Resource> {
        match location {
            Location::Entry(key) => Ok(Self::Entry(key)),
            Location::Pair(key, half) => Ok(Self::Half(key, half)),
            Location::Blob(sha256) => Ok(Self::Blob(sha256)),
            Location::ListedIn(listing) => Err(listing),
        }
    }
}

/// The stored side of the cache: store, write-behind buffer, invalidations and verified blobs.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) store: Arc<Store>,
    pub(super) write_behind: WriteBehind,
    pub(super) invalidations: Arc<Invalidations>,
    pub(super) verified: VerifiedBlobs,
    /// True if nothing can be fetched in place of a stored copy that cannot be read.
    pub(super) is_offline: bool,
}

impl Lookup {
    /// The entry under `key`; `None` if there is none, the stored one is damaged, or the disk fails to read it.
    ///
    /// # Errors
    /// The disk fails and nothing can be fetched instead, or this process may not read the store. These are not the
    /// same as a missing entry: clients offline would be told that it was never stored, and a store with wrong
    /// permissions would send every request upstream.
    pub(super) async fn entry(
        &self,
        resource: &Resource,
        key: &Key,
    ) -> Result<Option<Entry>, Error> {
        // The buffer first: an update written meanwhile is then found in the store.
        let update = self.write_behind.update(key);
        let newest = match update {
            // Usually there is no file yet, or an older one, and one `stat` tells.
            Some(Update::Entry(entry)) if self.store.last_check(key) <= Some(entry.checked) => {
                Some(entry)
            }
            update => match self.store.entry(key).await {
                Ok(stored) => {
                    let stored = stored.filter(|entry| is_plausible(resource, entry));
                    newest(stored, update, now())
                }
                Err(error @ StoreError::Damaged { .. }) => {
                    warn!(%resource, error = %chain(&error), "the stored copy is damaged and counts as missing");
                    None
                }
                Err(error) => {
                    warn!(%resource, error = %chain(&error), "cannot read the stored copy");
                    if self.is_offline || error.is_read_only() {
                        return Err(Error::store("read", resource, &error));
                    }
                    None
                }
            },
        };
        Ok(newest.map(|mut entry| {
            entry.checked = self.effective_checked(key, entry.checked);
            entry
        }))
    }

    /// The check time that counts for an entry that was checked at `checked`.
    pub(super) fn effective_checked(&self, key: &Key, checked: Checked) -> Checked {
        self.invalidations.effective_checked(key, checked)
    }

    /// The body of a stored entry or pair, whatever its age.
    pub(super) async fn peek(&self, resource: &Resource) -> Option<bytes::Bytes> {
        Some(self.stored(resource).await?.body)
    }

    /// A stored entry or pair, whatever its age.
    pub(super) async fn stored(&self, resource: &Resource) -> Option<Entry> {
        match resource.location() {
            Location::Entry(key) | Location::Pair(key, _) => {
                self.entry(resource, &key).await.ok().flatten()
            }
            Location::Blob(_) | Location::ListedIn(_) => None,
        }
    }

    /// The hash of a blob, as its stored listing states it.
    pub(super) async fn listed_hash(&self, resource: &Resource) -> Option<Sha256> {
        let Location::ListedIn(listing) = resource.location() else {
            return None;
        };
        let body = self.peek(&listing).await?;
        let resolved = resource.listed()?.resolve(&body).ok()?;
        resolved.location().blob_hash()
    }

    /// Stores that upstream does not have `resource`, if that may be final.
    pub(super) async fn remember_absence(&self, resource: &Resource) {
        let Some(absence) = resource.absence() else {
            return;
        };
        let entry = Entry::new(ABSENCE_BODY.into(), Validators::default(), None, now());
        if let Err(error) = self.store.put_entry(&absence.key, &entry).await {
            warn!(%resource, error = %chain(&error), "cannot store that upstream does not have it");
        }
    }

    /// Returns whether upstream is known not to have `resource`, now and later.
    pub(super) async fn is_absent_for_ever(&self, resource: &Resource) -> bool {
        let Some(absence) = resource.absence() else {
            return false;
        };
        let stored = self.store.entry(&absence.key).await.ok().flatten();
        stored.is_some_and(|entry| {
            let confirmed = Duration::from_secs(entry.head.fetched);
            entry.body == ABSENCE_BODY && SystemTime::UNIX_EPOCH + confirmed >= absence.final_from
        })
    }

    /// The stored blob, unverified; `None` if there is none or it cannot be read.
    pub(super) async fn blob(&self, resource: &Resource, sha256: Sha256) -> Option<Blob> {
        match self.store.blob(sha256).await {
            Ok(blob) => blob,
            Err(error) => {
                warn!(%resource, error = %chain(&error), "cannot read the stored copy, which counts as missing");
                None
            }
        }
    }

    /// The stored blob with its verified body.
    pub(super) async fn verified_blob(
        &self,
        resource: &Resource,
        sha256: Sha256,
    ) -> Option<(Blob, Body)> {
        let blob = self.blob(resource, sha256).await?;
        let body = self.verified_body(sha256, &blob).await?;
        Some((blob, body))
    }

    /// The versions of a crate that pins lock. `name` is in lower case. A failure is logged and counts as none.
    pub(super) async fn locked(&self, registry: &str, name: &str) -> Vec<String> {
        let locked = self.store.locked(registry, name).await;
        locked.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "cannot read which crates the warmed projects need");
            Vec::new()
        })
    }

    /// The body of a stored blob, after its hash has been checked if [`VerifiedBlobs`] wants that. Moves a damaged blob
    /// to the quarantine. One that the disk fails to read stays: the next read may succeed.
    async fn verified_body(&self, sha256: Sha256, blob: &Blob) -> Option<Body> {
        let now = Instant::now();
        let may_serve = blob
            .identity
            .is_some_and(|identity| self.verified.may_serve(sha256, identity, now));
        if may_serve && let Some(body) = blob_body(blob.clone()).await {
            return Some(body);
        }
        let hashed = Box::pin(hashed_body(sha256, blob)).await;
        if let Err(error) = &hashed
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            warn!(blob = %sha256, %error, "cannot read the stored copy, which counts as missing");
            return None;
        }
        if let Ok(Some(body)) = hashed {
            if let Some(identity) = blob.identity {
                self.verified.insert(sha256, identity, Instant::now());
                self.verified.mark_served(sha256, now);
            }
            return Some(body);
        }
        self.verified.remove(sha256);
        match self.store.quarantine_blob(sha256, blob.identity).await {
            Ok(Some(path)) => {
                let path = path.display();
                warn!(blob = %sha256, %path, "a stored blob is damaged and counts as missing; it is in the quarantine now");
            }
            Ok(None) => warn!(blob = %sha256, "a stored blob is damaged and counts as missing"),
            Err(error) => {
                warn!(blob = %sha256, error = %chain(&error), "a stored blob is damaged and cannot be moved away");
            }
        }
        None
    }
}

/// The body of a blob: in memory if it is small, otherwise as an open file.
pub(super) async fn blob_body(blob: Blob) -> Option<Body> {
    if let Some(bytes) = blob.bytes.in_memory() {
        return Some(Body::Whole(bytes));
    }
    if blob.len > MAX_WHOLE_BLOB_BYTES {
        return Some(Body::Blob(blob));
    }
    let len = usize::try_from(blob.len).ok()?;
    blob.bytes.read_at(0, len).await.ok().map(Body::Whole)
}

/// The body of a blob, if its hash is `sha256`.
///
/// # Errors
/// `UnexpectedEof` if the file has become shorter, or the operating system's error.
async fn hashed_body(sha256: Sha256, blob: &Blob) -> io::Result<Option<Body>> {
    let mut hasher = Hasher::default();
    let mut whole = None;
    let mut offset = 0;
    while offset < blob.len {
        let len = (blob.len - offset).min(MAX_WHOLE_BLOB_BYTES);
        let chunk_bytes = usize::try_from(len).map_err(io::Error::other)?;
        let chunk = blob.bytes.read_at(offset, chunk_bytes).await?;
        hasher.update(&chunk);
        offset += len;
        whole = (len == blob.len).then_some(chunk);
    }
    let is_right = hasher.finish() == sha256;
    Ok(is_right.then(|| whole.map_or_else(|| Body::Blob(blob.clone()), Body::Whole)))
}

/// Returns whether a stored entry can be the resource. Only a record of an older release leaves that open: it does not
/// name its place.
fn is_plausible(resource: &Resource, entry: &Entry) -> bool {
    let valid = match entry.is_sealed {
        true => Ok(()),
        false => resource.validate(&entry.body),
    };
    if let Err(why) = &valid {
        warn!(%resource, "the stored copy {why}; it is damaged and counts as missing");
    }
    valid.is_ok()
}

/// The stored entry with a buffered update applied, unless the stored one is newer.
fn newest(stored: Option<Entry>, update: Option<Update>, now: SystemTime) -> Option<Entry> {
    match (stored, update) {
        (Some(mut stored), Some(update)) if update.supersedes(&stored, now) => match update {
            Update::Entry(buffered) => Some(buffered),
            Update::Checked(_, checked) => {
                stored.checked = checked;
                Some(stored)
            }
        },
        (None, Some(Update::Entry(buffered))) => Some(buffered),
        (stored, Some(_) | None) => stored,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lookup(folder: &std::path::Path) -> Lookup {
        let store = Arc::new(Store::open(folder).unwrap());
        let invalidations = Arc::<Invalidations>::default();
        Lookup {
            write_behind: WriteBehind::new(store.clone(), invalidations.clone(), 1, true),
            store,
            invalidations,
            verified: VerifiedBlobs::default(),
            is_offline: false,
        }
    }

    /// Rot below the file system leaves the file's identity as it is.
    #[tokio::test(start_paused = true)]
    async fn rot_below_the_file_system_is_found_when_a_client_asks_again_within_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let lookup = lookup(folder.path());
        let sha256 = Sha256::of(b"good");
        let spool = lookup.store.spool();
        spool.write(0, b"good").unwrap();
        lookup.store.put_blob(spool.into(), sha256).await.unwrap();
        let text = sha256.to_string();
        let blobs = folder.path().join("v1/blobs");
        fs::write(blobs.join(&text[..2]).join(&text[2..]), "evil").unwrap();
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20)).await;
        tokio::time::pause();
        let blob = lookup.store.blob(sha256).await.unwrap().unwrap();
        lookup
            .verified
            .insert(sha256, blob.identity.unwrap(), Instant::now());
        tokio::time::advance(Duration::from_secs(3600)).await;
        let served = lookup.verified_body(sha256, &blob).await;
        assert!(matches!(served, Some(Body::Whole(body)) if body == "evil"));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(lookup.verified_body(sha256, &blob).await.is_none());
        assert!(lookup.store.blob(sha256).await.unwrap().is_none());
    }
}
