//! The small files of a store besides entries and blobs: pins, recalls, announcements, and facts that the processes on
//! one store share.

use std::{fs, sync::Arc};

use bytes::Bytes;

use super::{
    Announcement, Pin, Recall, Store, StoreError, announce, blocking::blocking,
    layout::MAX_NOTE_BYTES, pins, recalls,
};
use crate::{files, hash::Sha256};

impl Store {
    /// All pins, sorted by owner. Leaves out files that are no pins or cannot be read.
    pub async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let folder = self.layout.pins();
        blocking(move || pins::read_all(&folder))
            .await
            .map_err(|source| StoreError::io(self.layout.pins(), source))
    }

    /// Tells for each of `hashes`, in the same order, if a pin offers this crate to resolvers without needing it.
    pub async fn offered(&self, hashes: Vec<Sha256>) -> Result<Vec<bool>, StoreError> {
        let (folder, pinned) = (self.layout.pins(), self.pinned.clone());
        blocking(move || pinned.offer(&folder, &hashes))
            .await
            .map_err(|source| StoreError::io(self.layout.pins(), source))
    }

    /// The versions of a crate that pins lock. `name` is in lower case.
    pub async fn locked(&self, registry: &str, name: &str) -> Result<Vec<String>, StoreError> {
        let (folder, pinned) = (self.layout.pins(), self.pinned.clone());
        let (registry, name) = (registry.to_owned(), name.to_owned());
        blocking(move || pinned.locked(&folder, registry, name))
            .await
            .map_err(|source| StoreError::io(self.layout.pins(), source))
    }

    /// Versions that upstream has taken back, the oldest first. While the file cannot be read, those read last. Changes
    /// by other processes are seen 10 ms later at most.
    pub fn recalls(&self) -> Arc<Vec<Recall>> {
        self.recalls.get(&self.layout.recalls())
    }

    /// Records `new` recalls and drops those that are `over`. Returns those of `new` that were not recorded before.
    pub async fn change_recalls(
        &self,
        new: Vec<Recall>,
        over: Vec<Recall>,
    ) -> Result<Vec<Recall>, StoreError> {
        let (path, staging) = (self.layout.recalls(), self.staging.clone());
        let (pinned, pins) = (self.pinned.clone(), self.layout.pins());
        let is_locked = move |recall: &Recall| {
            let (registry, name) = (recall.registry.clone(), recall.name.clone());
            let locked = pinned.locked(&pins, registry, name);
            locked.map_or(true, |versions| versions.contains(&recall.version))
        };
        let change = move || recalls::change(&staging, &path, new, &over, is_locked);
        let changed = blocking(change).await;
        self.recalls.forget_stat();
        changed.map_err(|source| StoreError::io(self.layout.recalls(), source))
    }

    /// Stores a pin, in place of the owner's previous one.
    pub async fn put_pin(&self, pin: &Pin) -> Result<(), StoreError> {
        let path = self.layout.pin(&pin.owner.to_string());
        let text = serde_json::to_vec(pin).map_err(|error| StoreError::io(&path, error.into()))?;
        self.write(path, vec![Bytes::from(text)], None).await
    }

    /// The archive format of toolchain manifests that was set last; `None` if none was. It decides which archives an
    /// install needs, so daemon, `warm` and `check` must agree on it.
    pub fn toolchain_format(&self) -> Option<String> {
        let text = files::read_text(&self.layout.toolchain_format(), MAX_NOTE_BYTES).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// Stores the archive format of toolchain manifests, unless it is stored.
    pub async fn put_toolchain_format(&self, name: &str) -> Result<(), StoreError> {
        if self.toolchain_format().as_deref() == Some(name) {
            return Ok(());
        }
        let text = Bytes::from(format!("{name}\n"));
        self.write(self.layout.toolchain_format(), vec![text], None)
            .await
    }

    /// Stores the address of the index whose entries are in the folder `entry_folder`, unless it is stored.
    pub async fn put_index(&self, entry_folder: &str, address: &str) -> Result<(), StoreError> {
        let path = self.layout.index(entry_folder);
        if path.exists() {
            return Ok(());
        }
        let text = Bytes::from(format!("{address}\n"));
        self.write(path, vec![text], None).await
    }

    /// The registries of this name that the store has entries of: the folder of each, and the address of its index if
    /// it is recorded.
    pub fn indexes(&self, name: &str) -> Vec<(String, Option<String>)> {
        let folders = fs::read_dir(self.layout.entries());
        let folders = folders.into_iter().flatten().flatten();
        let names = folders.map(|folder| folder.file_name().to_string_lossy().into_owned());
        let is_of_name =
            |folder: &String| folder.rsplit_once('-').is_some_and(|(of, _)| of == name);
        let folders = names.filter(is_of_name);
        folders
            .map(|folder| {
                let address = fs::read_to_string(self.layout.index(&folder)).ok();
                (folder, address.map(|address| address.trim_end().to_owned()))
            })
            .collect()
    }

    /// Announces this daemon to other commands on the store, for as long as this process lives.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Full`].
    pub async fn announce(&self, announcement: &Announcement) -> Result<(), StoreError> {
        let (staging, announcement) = (self.staging.clone(), announcement.clone());
        blocking(move || announce::write(&staging, &announcement))
            .await
            .map_err(|source| StoreError::io(self.staging.folder(), source))
    }

    /// The daemons that use this store now, the latest first.
    pub fn announced(&self) -> Vec<Announcement> {
        announce::read_all(self.staging.folder())
    }
}
