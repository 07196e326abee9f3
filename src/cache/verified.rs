//! Blobs whose hash this process has checked.
//!
//! A blob's name is its hash, but a disk can lose bytes after they were written. So the cache hashes each stored blob
//! the first time this process serves it, and remembers the result here with the blob's size. A blob of another size
//! than the remembered one is hashed again.

use parking_lot::Mutex;

use super::bounded::BoundedMap;
use crate::hash::Sha256;

/// The verified blobs, with their sizes in bytes.
#[derive(Debug, Default)]
pub(super) struct VerifiedBlobs(Mutex<BoundedMap<Sha256, u64>>);

impl VerifiedBlobs {
    /// Records that a blob of `len` bytes has the hash `sha256`.
    pub(super) fn insert(&self, sha256: Sha256, len: u64) {
        self.0.lock().insert(sha256, len);
    }

    /// Forgets a blob that turned out damaged.
    pub(super) fn remove(&self, sha256: Sha256) {
        self.0.lock().remove(&sha256);
    }

    /// Returns whether a blob of `len` bytes was verified under this hash.
    pub(super) fn contains(&self, sha256: Sha256, len: u64) -> bool {
        self.0.lock().get(&sha256) == Some(&len)
    }
}
