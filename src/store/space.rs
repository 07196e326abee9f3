//! [`SpaceCounter`]: the disk space that a store takes, counted again cheaply as often as need be.
//!
//! A folder's modification time changes when a file appears, vanishes or is replaced in it. So a count reads only the
//! folders that changed since the last one, whichever process changed them:
//!
//! ```text
//!  first count     reads every folder
//!  later counts    stat of every folder (256 of blobs, some hundreds of entries); read those that changed
//! ```
//!
//! The staging folder is always read: files grow there.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Store,
    blocking::blocking,
    layout::{StoreLayout, count_files},
};
use crate::{clock::now, store::StoreError};

/// Time after which another change of a folder certainly gives it another time, on file systems that count
/// nanoseconds. Kernels advance their clock every 10 ms at most.
const FINE_TICK: Duration = Duration::from_millis(50);
/// The same on file systems that count seconds.
const COARSE_TICK: Duration = Duration::from_secs(3);

/// The space of a store in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All files.
    pub total: u64,
    /// Those in the quarantine.
    pub quarantine: u64,
    /// Number of files in the quarantine.
    pub quarantine_files: u64,
    /// Those that are being written, with the space that is reserved for them.
    pub staging: u64,
}

/// Counts the space of one store.
#[derive(Clone, Debug)]
pub struct SpaceCounter {
    layout: StoreLayout,
    folders: HashMap<PathBuf, CountedFolder>,
}

#[derive(Clone, Debug)]
struct CountedFolder {
    changed: (i64, i64),
    files: u64,
    bytes: u64,
    folders: Vec<PathBuf>,
}

/// The space that a file takes on disk. Compressing file systems report less than the length, others whole blocks; the
/// larger number is certainly enough.
pub(super) fn disk_bytes(found: &fs::Metadata) -> u64 {
    found.len().max(found.blocks() * 512)
}

/// Number and size of what a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of all entries.
    pub entry_bytes: u64,
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Number of pins. The JSON output of `larder status` calls them projects.
    #[serde(rename = "projects")]
    pub pins: u64,
}

impl Store {
    /// Counts the files of the store. Takes time in proportion to their number.
    pub async fn statistics(&self) -> Result<Statistics, StoreError> {
        let (entries, blobs) = (self.layout.entries(), self.layout.blobs());
        let pins = self.layout.pins();
        blocking(move || {
            let (entries, entry_bytes) = count_files(&entries);
            let (blobs, blob_bytes) = count_files(&blobs);
            let (pins, _) = count_files(&pins);
            Ok(Statistics {
                entries,
                entry_bytes,
                blobs,
                blob_bytes,
                pins,
            })
        })
        .await
        .map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// A counter of this store's space that has counted nothing yet.
    pub fn space_counter(&self) -> SpaceCounter {
        SpaceCounter {
            layout: self.layout.clone(),
            folders: HashMap::new(),
        }
    }

    /// The space that the store takes now. Reads every folder.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn space(&self) -> Result<Space, StoreError> {
        Ok(self.space_counter().count().await?.1)
    }
}

impl SpaceCounter {
    /// Counts again, and returns the counter with the result.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the thread for it was refused.
    pub async fn count(mut self) -> Result<(Self, Space), StoreError> {
        let top = self.layout.top().to_owned();
        blocking(move || {
            let space = self.count_now();
            Ok((self, space))
        })
        .await
        .map_err(|source| StoreError::io(top, source))
    }

    pub(super) fn count_now(&mut self) -> Space {
        let top = self.layout.top().to_owned();
        let (_, total) = self.folder(&top);
        let quarantine = self.layout.quarantine();
        let (quarantine_files, quarantine) = self.folder(&quarantine);
        let (_, staging) = self.folder(&self.layout.staging());
        Space {
            total,
            quarantine,
            quarantine_files,
            staging,
        }
    }

    /// Files and bytes below a folder.
    fn folder(&mut self, path: &Path) -> (u64, u64) {
        let Ok(found) = fs::symlink_metadata(path) else {
            self.folders.remove(path);
            return (0, 0);
        };
        let changed = (found.mtime(), found.mtime_nsec());
        let known = self.folders.remove(path);
        let mut counted = match known.filter(|known| known.changed == changed) {
            Some(known) => known,
            None => read_folder(path, changed),
        };
        let (mut files, mut bytes) = (counted.files, counted.bytes);
        for inner in &counted.folders {
            let (inner_files, inner_bytes) = self.folder(inner);
            files += inner_files;
            bytes += inner_bytes;
        }
        let is_settled = found.modified().is_ok_and(|modified| {
            let tick = match changed.1 {
                0 => COARSE_TICK,
                _ => FINE_TICK,
            };
            let age = now().duration_since(modified);
            age.is_ok_and(|age| age > tick)
        });
        let is_growing = path == self.layout.top() || path.starts_with(self.layout.staging());
        if !is_settled || is_growing {
            // Reads it again next time.
            counted.changed = (i64::MIN, 0);
        }
        self.folders.insert(path.to_owned(), counted);
        (files, bytes)
    }
}

fn read_folder(path: &Path, changed: (i64, i64)) -> CountedFolder {
    let mut counted = CountedFolder {
        changed,
        files: 0,
        bytes: 0,
        folders: Vec::new(),
    };
    for found in fs::read_dir(path).into_iter().flatten().flatten() {
        // Like `lstat`. Files vanish meanwhile.
        let Ok(metadata) = found.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            counted.folders.push(found.path());
        } else {
            counted.files += 1;
            counted.bytes += disk_bytes(&metadata);
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_counts_see_every_change_and_read_only_changed_folders() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let file = |path: &str, bytes: usize| {
            let path = folder.path().join("v1").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, vec![b'x'; bytes]).unwrap();
            disk_bytes(&fs::metadata(path).unwrap())
        };
        let mut counter = store.space_counter();
        assert_eq!(counter.count_now(), Space::default());
        let mut expected = file("blobs/ab/one", 10_000)
            + file("blobs/cd/two", 1)
            + file("entries/r/index/se/serde", 300);
        assert_eq!(counter.count_now().total, expected);
        std::thread::sleep(2 * FINE_TICK);
        assert_eq!(counter.count_now().total, expected);
        // A change inside a file leaves the folder as it is; stored files never change so.
        file("blobs/cd/two", 900_000);
        assert_eq!(counter.count_now().total, expected);
        expected += file("quarantine/blobs/ab/one", 5_000);
        let quarantine = counter.count_now();
        assert_eq!(quarantine.total, expected);
        assert_eq!(quarantine.quarantine_files, 1);
        expected += file("blobs/ab/three", 70_000);
        assert_eq!(counter.count_now().total, expected);
        let before = counter.count_now().total;
        let removed = file("staging/p/grows", 10);
        assert_eq!(counter.count_now().total, before + removed);
        let grown = file("staging/p/grows", 1_000_000);
        assert_eq!(counter.count_now().total, before + grown);
        fs::remove_dir_all(folder.path().join("v1/staging")).unwrap();
        fs::remove_file(folder.path().join("v1/blobs/ab/three")).unwrap();
        assert_eq!(
            counter.count_now().total,
            expected - disk_bytes_of(70_000, folder.path())
        );
    }

    fn disk_bytes_of(bytes: usize, folder: &Path) -> u64 {
        let path = folder.join("sample");
        fs::write(&path, vec![b'x'; bytes]).unwrap();
        disk_bytes(&fs::metadata(path).unwrap())
    }
}
