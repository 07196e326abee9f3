//! Blobs whose hash this process has checked.
//!
//! A blob's name is its hash, but a file can change after it was written. So the cache hashes each stored blob before
//! it serves it, and remembers here which file had the right hash. The hash counts for that file in that state
//! ([`FileIdentity`]): another file in its place, or the same one after a change, is hashed again.
//!
//! ```text
//!  never verified, or another file? ────────────── yes ──> hash it
//!  served less than 30 s ago, hashed more than 10 s ago? ─ yes ──> hash it
//!  otherwise ───────────────────────────────────────────────────> serve it
//! ```
//!
//! The second question is about bytes that change below the file system, on a failing disk. Cargo and rustup verify
//! what they get, fail, and are run again: a client that asks twice within seconds may have got rotten bytes. The
//! scrub finds those that no client asks for twice.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bounded::BoundedMap;
use crate::{hash::Sha256, store::FileIdentity};

/// Time after an answer within which another request for the blob looks like a client that could not use it.
const RETRY_WINDOW: Duration = Duration::from_secs(30);
/// Age of a hash from which such a request makes larder hash again. It bounds the cost of a blob that many clients ask
/// for at once: one hash within this time.
const HASH_LIFETIME: Duration = Duration::from_secs(10);

/// The verified blobs.
#[derive(Debug, Default)]
pub(super) struct VerifiedBlobs(Mutex<BoundedMap<Sha256, VerifiedBlob>>);

#[derive(Clone, Copy, Debug)]
struct VerifiedBlob {
    identity: FileIdentity,
    hashed: Instant,
    served: Option<Instant>,
}

impl VerifiedBlobs {
    /// Records that the file had the hash `sha256` at this time.
    pub(super) fn insert(&self, sha256: Sha256, identity: FileIdentity, hashed: Instant) {
        let verified = VerifiedBlob {
            identity,
            hashed,
            served: None,
        };
        self.0.lock().insert(sha256, verified);
    }

    /// Forgets a blob that turned out damaged.
    pub(super) fn remove(&self, sha256: Sha256) {
        self.0.lock().remove(&sha256);
    }

    /// Returns whether the file may be served as `sha256` without hashing it, and counts it as served.
    pub(super) fn may_serve(&self, sha256: Sha256, identity: FileIdentity, now: Instant) -> bool {
        let mut blobs = self.0.lock();
        let Some(blob) = blobs.get_mut(&sha256) else {
            return false;
        };
        let within = |time: Instant, limit| now.saturating_duration_since(time) < limit;
        let looks_rotten = blob
            .served
            .is_some_and(|served| within(served, RETRY_WINDOW))
            && !within(blob.hashed, HASH_LIFETIME);
        if blob.identity != identity {
            return false;
        }
        blob.served = Some(now);
        if looks_rotten {
            // This caller hashes; the others need not. If the hash is wrong, the caller removes the record.
            blob.hashed = now;
        }
        !looks_rotten
    }

    /// Records an answer whose body was hashed.
    pub(super) fn mark_served(&self, sha256: Sha256, now: Instant) {
        if let Some(blob) = self.0.lock().get_mut(&sha256) {
            blob.served = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_blob_is_hashed_again_when_its_file_changes_or_a_client_asks_again_soon() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(folder.path()).unwrap();
        let sha256 = Sha256::of(b"body");
        let put = async || {
            let spool = store.spool();
            spool.write(0, b"body").unwrap();
            store.put_blob(spool.into(), sha256).await.unwrap()
        };
        let (first, second) = (put().await, put().await);
        assert!(fs::read_dir(folder.path()).is_ok());
        let verified = VerifiedBlobs::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!verified.may_serve(sha256, first, start));
        verified.insert(sha256, first, start);
        assert!(!verified.may_serve(sha256, second, start));
        // The hash is recent.
        assert!(verified.may_serve(sha256, first, at(5)));
        assert!(verified.may_serve(sha256, first, at(9)));
        // Served 3 s ago, hashed 12 s ago. One of several requests hashes.
        assert!(!verified.may_serve(sha256, first, at(12)));
        assert!(verified.may_serve(sha256, first, at(12)));
        verified.insert(sha256, first, at(12));
        verified.mark_served(sha256, at(12));
        assert!(verified.may_serve(sha256, first, at(13)));
        // The next request comes much later.
        assert!(verified.may_serve(sha256, first, at(60)));
        assert!(!verified.may_serve(sha256, first, at(62)));
    }
}
