//! What was read from files lately, kept for as long as the same file is in its place: several processes may write to one
//! store, and the next request must see what any of them put. A look at the file's status costs a microsecond. Bounded;
//! knows nothing of what is in the files.

use std::{
    ffi::OsString,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use quick_cache::{Weighter, sync::Cache};

/// A file as it was when it was read. Every way to change what is in its place, or when it was last checked, changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self {
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Values read from files, by path.
pub(super) struct Hot<T> {
    /// By paths as strings, since to hash a path part by part takes longer than all else.
    held: Cache<OsString, (Stamp, T), Weigh<T>>,
    weight: fn(&T) -> u64,
    largest: u64,
}

struct Weigh<T>(fn(&T) -> u64);

impl<T> Clone for Weigh<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T> fmt::Debug for Hot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").finish_non_exhaustive()
    }
}

impl<T> Weighter<OsString, (Stamp, T)> for Weigh<T> {
    fn weight(&self, _: &OsString, (_, value): &(Stamp, T)) -> u64 {
        self.0(value).max(1)
    }
}

impl<T: Clone> Hot<T> {
    /// Room for values that weigh `capacity` together, of which none weighs more than an eighth of it. `usual` many are
    /// expected.
    pub(super) fn new(usual: usize, capacity: u64, weight: fn(&T) -> u64) -> Self {
        Self {
            held: Cache::with_weighter(usual, capacity, Weigh(weight)),
            weight,
            largest: capacity / 8,
        }
    }

    /// What was read from `path`, if the same file is still there. Asks the file system, but waits for no disk if anybody
    /// asked lately.
    pub(super) fn get(&self, path: &Path) -> Option<(Stamp, T)> {
        let (stamp, value) = self.held.get(path.as_os_str())?;
        match fs::symlink_metadata(path) {
            Ok(found) if Stamp::of(&found) == stamp => Some((stamp, value)),
            Ok(_) | Err(_) => {
                self.held.remove(path.as_os_str());
                None
            }
        }
    }

    /// Keeps what was read from the file whose stamp was `before`, now that it is `after`, with what `change` does to it.
    pub(super) fn restamp(
        &self,
        path: &Path,
        before: Stamp,
        after: Stamp,
        change: impl FnOnce(&mut T),
    ) {
        if let Some((stamp, mut value)) = self.held.get(path.as_os_str())
            && stamp == before
        {
            change(&mut value);
            self.held
                .insert(path.as_os_str().to_owned(), (after, value));
        }
    }

    /// Keeps what was read from the file of this stamp.
    pub(super) fn put(&self, path: PathBuf, stamp: Stamp, value: T) {
        if (self.weight)(&value) <= self.largest {
            self.held.insert(path.into_os_string(), (stamp, value));
        }
    }
}
