//! [`FileIdentity`]: which file lies at a path, and in which state.

use std::{fs, os::unix::fs::MetadataExt as _};

/// Identity of a file's contents and times. Replacing, writing or touching the file changes it, and so does restoring
/// its modification time afterwards: no program can choose the time of the last status change (`ctime`).
///
/// Bytes that change below the file system, on a failing disk, leave it as it is. Two changes within one tick of the
/// file system's clock (up to 10 ms) may share an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Size of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether both are the same file, in whatever state.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}
