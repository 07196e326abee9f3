//! The store's own care for what it holds: finding damaged files, and moving them to the quarantine.

use std::path::PathBuf;

use super::{Store, StoreError, blocking::blocking, identity::FileIdentity, quarantine::move_away};
use crate::{hash::Sha256, resource::Key};

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
