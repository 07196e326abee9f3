//! The store's own care for what it holds: finding damaged files, and moving them to the quarantine.

use std::{path::PathBuf, sync::Arc};

use super::{
    Store, StoreError,
    blocking::blocking,
    identity::FileIdentity,
    quarantine::move_away,
    verify::{self, StoredFile, Verified},
};
use crate::{hash::Sha256, resource::Key};

impl Store {
    /// All blobs and entries.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn files(&self) -> Result<Vec<StoredFile>, StoreError> {
        let layout = self.layout.clone();
        let folders = blocking(move || {
            let folders = verify::folders(&layout);
            let files = folders
                .iter()
                .map(|folder| verify::files_in(&layout, folder));
            Ok(files.flatten().collect())
        });
        let failed = |source| StoreError::io(self.layout.top(), source);
        folders.await.map_err(failed)
    }

    /// The folders that hold blobs and entries, sorted, as paths below the folder of the format.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let layout = self.layout.clone();
        let relative = move || {
            let folders = verify::folders(&layout).into_iter();
            let relative = |path: PathBuf| Some(path.strip_prefix(layout.top()).ok()?.to_owned());
            Ok(folders.filter_map(relative).collect())
        };
        blocking(relative)
            .await
            .map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// The blobs and entries right in one of [`Store::folders`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn files_in(&self, folder: PathBuf) -> Result<Vec<StoredFile>, StoreError> {
        let folder = self.layout.top().join(folder);
        let (layout, at) = (self.layout.clone(), folder.clone());
        blocking(move || Ok(verify::files_in(&layout, &folder)))
            .await
            .map_err(|source| StoreError::io(at, source))
    }

    /// Rehashes files in parallel, and calls `done` with the bytes of each. Leaves out files that are gone. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn verify(
        &self,
        files: Vec<StoredFile>,
        done: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Vec<Verified>, StoreError> {
        let layout = self.layout.clone();
        blocking(move || Ok(verify::verify_all(&layout, files, |bytes| done(bytes))))
            .await
            .map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// Rehashes files one after the other on one thread. Calls `charge` with the bytes of each read, which may wait.
    /// Leaves out files that are gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn verify_slowly(
        &self,
        files: Vec<StoredFile>,
        charge: impl FnMut(u64) + Send + 'static,
    ) -> Result<Vec<Verified>, StoreError> {
        let layout = self.layout.clone();
        blocking(move || Ok(verify::verify_slowly(&layout, files, charge)))
            .await
            .map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// Rehashes blobs in parallel and returns those that are damaged or not stored. Changes nothing.
    pub async fn damaged(&self, hashes: Vec<Sha256>) -> Result<Vec<Sha256>, StoreError> {
        let files = hashes.iter().copied().map(StoredFile::Blob).collect();
        let verified = self.verify(files, Arc::new(|_| {})).await?;
        let good: std::collections::HashSet<_> = verified
            .into_iter()
            .filter(|verified| verified.damage.is_none())
            .map(|verified| verified.file)
            .collect();
        let is_bad = |sha256: &Sha256| !good.contains(&StoredFile::Blob(*sha256));
        Ok(hashes.into_iter().filter(is_bad).collect())
    }

    /// Moves a damaged file to the quarantine: see [`Store::quarantine_blob`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn quarantine_file(
        &self,
        file: &StoredFile,
        seen: Option<FileIdentity>,
    ) -> Result<Option<PathBuf>, StoreError> {
        match file {
            StoredFile::Blob(sha256) => self.quarantine_blob(*sha256, seen).await,
            StoredFile::Entry(key) => self.quarantine_entry(key, seen).await,
        }
    }
}

impl Store {
    /// Moves a damaged blob to the quarantine. `seen` is the file in which the damage was found: another file that has
    /// taken its place meanwhile stays. Returns the new path; `None` if there was nothing to move.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn quarantine_blob(
        &self,
        sha256: Sha256,
        seen: Option<FileIdentity>,
    ) -> Result<Option<PathBuf>, StoreError> {
        let moved = self.quarantine(self.layout.blob(sha256), seen).await;
        self.blobs.forget_stats();
        moved
    }

    /// [`Store::quarantine_blob`] for an entry.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn quarantine_entry(
        &self,
        key: &Key,
        seen: Option<FileIdentity>,
    ) -> Result<Option<PathBuf>, StoreError> {
        let moved = self.quarantine(self.layout.entry(key), seen).await;
        self.entries.forget_stats();
        moved
    }

    async fn quarantine(
        &self,
        path: PathBuf,
        seen: Option<FileIdentity>,
    ) -> Result<Option<PathBuf>, StoreError> {
        let (layout, at) = (self.layout.clone(), path.clone());
        blocking(move || move_away(&layout, &path, seen))
            .await
            .map_err(|source| StoreError::io(at, source))
    }
}
