//! Entries of a [`Store`]: reading, replacing, and the time of the last check.

use std::{fs, io, path::Path, time::SystemTime};

use bytes::Bytes;

use super::{
    Checked, DamagedEntry, Entry, FileIdentity, Store, StoreError,
    blocking::blocking,
    error::is_no_folder,
    growth::whole_blocks,
    layout::{is_absent, is_nonempty_file},
    staging::lock_folder,
    verify::read_entry,
};
use crate::{
    files::{is_no_file, open_nofollow},
    resource::Key,
};

impl Store {
    /// The entry of `key`, verified. `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file differs from the written one. A new [`Store::put_entry`] repairs it.
    pub async fn entry(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let path = self.layout.entry(key);
        if let Some((_, entry)) = self.entries.get(&path) {
            return Ok(Some(entry));
        }
        if is_absent(&path) {
            return Ok(None);
        }
        let damaged = |source| StoreError::Damaged {
            key: key.to_string(),
            source,
        };
        let (at, name, staging) = (path.clone(), key.clone(), self.staging.clone());
        // An entry of a folder that others may write to could name any crate.
        let read = blocking(move || match staging.is_trusted() {
            true => read_entry(&path, &name),
            false => Ok(None),
        });
        match read.await {
            Ok(None) => Ok(None),
            Ok(Some((fingerprint, Ok(entry)))) => {
                self.entries.put(at, fingerprint, entry.clone());
                Ok(Some(entry))
            }
            Ok(Some((_, Err(source)))) => Err(damaged(source)),
            Err(error) if is_no_file(&error) => Err(damaged(DamagedEntry::NoFile)),
            Err(source) => Err(StoreError::io(at, source)),
        }
    }

    /// Returns whether each of `keys` has an entry. Their bodies are not read.
    pub async fn has_entries(&self, keys: Vec<Key>) -> Result<bool, StoreError> {
        let paths: Vec<_> = keys.iter().map(|key| self.layout.entry(key)).collect();
        blocking(move || Ok(paths.iter().all(|path| is_nonempty_file(path))))
            .await
            .map_err(|source| StoreError::io(self.layout.entries(), source))
    }

    /// The names of the files and folders below `folder`, in no order. Empty if there is no such folder.
    pub async fn names_in(&self, folder: &Key) -> Result<Vec<String>, StoreError> {
        let path = self.layout.entry(folder);
        let at = path.clone();
        let listed = blocking(move || match fs::read_dir(&path) {
            Ok(found) => found
                .map(|found| Ok(found?.file_name().to_string_lossy().into_owned()))
                .collect(),
            Err(error) if is_no_folder(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        });
        listed.await.map_err(|source| StoreError::io(at, source))
    }

    /// Stores `entry` under `key`, in place of the previous one.
    pub async fn put_entry(&self, key: &Key, entry: &Entry) -> Result<(), StoreError> {
        let parts = vec![Bytes::from(entry.head_line(key)), entry.body.clone()];
        let checked = Some(entry.checked.to_mtime());
        let written = self.write(self.layout.entry(key), parts, checked).await;
        self.entries.forget_stats();
        self.growth.report(whole_blocks(entry.body.len() as u64));
        written
    }

    /// Stores `entry` under `key`, unless `keeps` returns true for the stored one. No other process can replace the
    /// stored one between this decision and the write.
    pub async fn put_entry_unless(
        &self,
        key: &Key,
        entry: &Entry,
        keeps: impl FnOnce(&Entry) -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let parts = [Bytes::from(entry.head_line(key)), entry.body.clone()];
        let checked = Some(entry.checked.to_mtime());
        let (path, name, staging) = (self.layout.entry(key), key.clone(), self.staging.clone());
        let at = path.clone();
        let written = blocking(move || {
            staging.write_unless(&path, &parts, checked, || {
                // A file that cannot be read must not keep its place.
                let stored = read_entry(&path, &name).ok().flatten();
                Ok(stored.is_some_and(|(_, entry)| entry.is_ok_and(|entry| keeps(&entry))))
            })
        })
        .await;
        self.entries.forget_stats();
        self.growth.report(whole_blocks(entry.body.len() as u64));
        written.map_err(|source| StoreError::io(at, source))
    }

    /// The last check of the entry of `key`, from one `stat`. `None` if there is no entry.
    pub fn last_check(&self, key: &Key) -> Option<Checked> {
        let found = fs::symlink_metadata(self.layout.entry(key)).ok()?;
        Some(Checked::from_mtime(found.modified().ok()?))
    }

    /// Sets the last check of the entry of `key`, if `applies` returns true for it. Does nothing if there is no entry.
    pub async fn mark_checked(
        &self,
        key: &Key,
        checked: Checked,
        applies: impl FnOnce(&Entry) -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let path = self.layout.entry(key);
        let (at, name) = (path.clone(), key.clone());
        let (cached, layout) = (self.entries.get(&path), self.layout.clone());
        let changed = blocking(move || {
            layout.check_root()?;
            let _lock = path.parent().and_then(lock_folder);
            let applies = match cached {
                // The usual case, which saves reading the file.
                Some((identity, entry)) if is_same_file(&path, identity) => applies(&entry),
                _ => {
                    let stored = read_entry(&path, &name)?;
                    stored.is_some_and(|(_, entry)| entry.is_ok_and(|entry| applies(&entry)))
                }
            };
            match applies {
                true => change_checked(&path, |_| Some(checked)),
                false => Ok(None),
            }
        })
        .await;
        if let Some(change) = changed.map_err(|source| StoreError::io(at.clone(), source))? {
            self.entries
                .update(&at, change.before, change.after, |entry| {
                    entry.checked = change.checked;
                });
        }
        Ok(())
    }

    /// Invalidates each entry that was last checked before the time beside its key. Does nothing where there is no
    /// entry.
    pub async fn invalidate(&self, entries: Vec<(Key, SystemTime)>) -> Result<(), StoreError> {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(key, since)| (self.layout.entry(&key), since))
            .collect();
        let layout = self.layout.clone();
        let changed = blocking(move || {
            layout.check_root()?;
            entries.iter().try_for_each(|(path, since)| {
                let change = change_checked(path, |checked| {
                    let invalidated = checked.invalidated_before(*since);
                    (invalidated != checked).then_some(invalidated)
                });
                change.map(drop)
            })
        })
        .await;
        self.entries.forget_stats();
        changed.map_err(|source| StoreError::io(self.layout.entries(), source))
    }
}

/// Returns whether the file at `path` is still the one with this identity.
fn is_same_file(path: &Path, identity: FileIdentity) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| FileIdentity::of(&found) == identity)
}

/// A change of an entry's last check.
struct CheckedChange {
    /// The file before the change.
    before: FileIdentity,
    /// The file after the change.
    after: FileIdentity,
    /// The last check as the file system has it, which may round times.
    checked: Checked,
}

/// Sets the last check of the entry at `path` to what `choose` makes of the present one. `None` if there is no entry or
/// `choose` wants no change.
fn change_checked(
    path: &Path,
    choose: impl FnOnce(Checked) -> Option<Checked>,
) -> io::Result<Option<CheckedChange>> {
    let Some(file) = open_nofollow(path)? else {
        return Ok(None);
    };
    let before = file.metadata()?;
    let Some(checked) = choose(Checked::from_mtime(before.modified()?)) else {
        return Ok(None);
    };
    file.set_modified(checked.to_mtime())?;
    let after = file.metadata()?;
    Ok(Some(CheckedChange {
        before: FileIdentity::of(&before),
        after: FileIdentity::of(&after),
        checked: Checked::from_mtime(after.modified()?),
    }))
}
