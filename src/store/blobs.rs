//! Blobs of a [`Store`]: finding, opening and replacing them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Blob, DamagedEntry, FileIdentity, MAX_CACHED_BLOB_BYTES, Spool, Store, StoreError,
    blob::FileReader,
    blocking::blocking,
    growth::whole_blocks,
    layout::{file_size, is_absent, is_nonempty_file},
};
use crate::{
    files::{is_no_file, open_nofollow},
    hash::Sha256,
};

impl Store {
    /// Opens the blob of this hash. `None` if there is none. Does not verify its bytes.
    pub async fn blob(&self, sha256: Sha256) -> Result<Option<Blob>, StoreError> {
        let path = self.layout.blob(sha256);
        if let Some((identity, blob)) = self.blobs.get(&path)
            && let Some(blob) = self.blob_in_memory(&path, identity, blob).await
        {
            self.uses.record(sha256);
            return Ok(Some(blob));
        }
        if is_absent(&path) {
            return Ok(None);
        }
        let (at, buffers) = (path.clone(), self.buffers.clone());
        let opened = blocking(move || {
            let Some(file) = open_nofollow(&path)? else {
                return Ok(None);
            };
            let found = file.metadata()?;
            let identity = FileIdentity::of(&found);
            if found.len() > MAX_CACHED_BLOB_BYTES {
                // Eviction leaves a locked file alone. Where there are no locks, it is removed below its reader.
                let _ = file.try_lock_shared();
            }
            let blob = Blob {
                len: found.len(),
                bytes: Arc::new(FileReader {
                    file: Arc::new(file),
                    buffers,
                }),
                identity: Some(identity),
            };
            Ok(Some((identity, blob)))
        });
        match opened.await {
            Ok(None) => Ok(None),
            Ok(Some((identity, blob))) => {
                self.uses.record(sha256);
                if blob.len <= MAX_CACHED_BLOB_BYTES {
                    self.blobs.put(at, identity, blob.clone());
                }
                Ok(Some(blob))
            }
            Err(error) if is_no_file(&error) => Err(StoreError::Damaged {
                key: format!("blob {sha256}"),
                source: DamagedEntry::NoFile,
            }),
            Err(source) => Err(StoreError::io(at, source)),
        }
    }

    /// Moves a small blob to memory when it is requested again soon. The first request only opens the file, because
    /// reading all of it before the answer begins would delay the answer. `None` if the file has changed meanwhile.
    async fn blob_in_memory(
        &self,
        path: &Path,
        identity: FileIdentity,
        blob: Blob,
    ) -> Option<Blob> {
        if blob.bytes.in_memory().is_some() {
            return Some(blob);
        }
        let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
        let Ok(bytes) = blob.bytes.read_at(0, len).await else {
            return Some(blob);
        };
        let found = fs::symlink_metadata(path).ok()?;
        if FileIdentity::of(&found) != identity {
            return None;
        }
        let bytes = Arc::new(Bytes::copy_from_slice(&bytes));
        let blob = Blob { bytes, ..blob };
        self.blobs.put(path.to_owned(), identity, blob.clone());
        Some(blob)
    }

    /// Returns whether each of `hashes` is stored, in the same order.
    pub async fn contains(&self, hashes: Vec<Sha256>) -> Result<Vec<bool>, StoreError> {
        let look = |paths: Vec<PathBuf>| paths.iter().map(|path| is_nonempty_file(path)).collect();
        self.look_at_blobs(hashes, look).await
    }

    /// Returns whether at least one of `hashes` is stored. Looks them up in their order, and stops at the first that
    /// is.
    pub async fn contains_any(&self, hashes: Vec<Sha256>) -> Result<bool, StoreError> {
        let look = |paths: Vec<PathBuf>| paths.iter().any(|path| is_nonempty_file(path));
        self.look_at_blobs(hashes, look).await
    }

    /// The size of each of `hashes` in bytes, in the same order; `None` for a blob that is not stored. An empty file
    /// counts as not stored.
    pub async fn sizes(&self, hashes: Vec<Sha256>) -> Result<Vec<Option<u64>>, StoreError> {
        let look = |paths: Vec<PathBuf>| paths.iter().map(|path| file_size(path)).collect();
        self.look_at_blobs(hashes, look).await
    }

    /// Calls `look` with the paths of these blobs, on a thread that may wait for the disk.
    async fn look_at_blobs<T: Send + 'static>(
        &self,
        hashes: Vec<Sha256>,
        look: impl FnOnce(Vec<PathBuf>) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let hashes = hashes.into_iter();
        let paths = hashes.map(|sha256| self.layout.blob(sha256)).collect();
        let looked = blocking(move || Ok(look(paths))).await;
        looked.map_err(|source| StoreError::io(self.layout.blobs(), source))
    }

    /// A spool for a body that is about to be downloaded.
    pub fn spool(&self) -> Spool {
        Spool::new(
            self.staging.clone(),
            self.buffers.clone(),
            self.memory.reservation(),
            self.growth.claim(),
        )
    }

    /// Stores a spooled body, whose hash the caller has verified, and returns the file that has it now. Replaces a blob
    /// that is already there.
    pub async fn put_blob(
        &self,
        spool: Arc<Spool>,
        sha256: Sha256,
    ) -> Result<FileIdentity, StoreError> {
        if spool.claimed_bytes() == 0 {
            self.growth.wait_for_space().await;
        }
        let path = self.layout.blob(sha256);
        let (staging, at, spooled) = (self.staging.clone(), path.clone(), spool.clone());
        let put = blocking(move || {
            let (file, staged) = spooled.take_file()?;
            file.sync_all()?;
            staging.publish(staged, &path)?;
            Ok(FileIdentity::of(&file.metadata()?))
        })
        .await;
        self.blobs.forget_stats();
        if put.is_ok() {
            self.uses.record_stored(sha256);
        }
        let bytes = put
            .as_ref()
            .map_or(0, |file| whole_blocks(FileIdentity::len(file)));
        self.growth
            .report(bytes.saturating_sub(spool.claimed_bytes()));
        spool.end_claim();
        put.map_err(|source| StoreError::io(at, source))
    }
}
