//! Rehashing stored files: finds bytes that a disk has lost or altered since they were written.
//!
//! ```text
//!  blobs/ab/cdef...                  its SHA-256 is its name?
//!  entries/NAME-HASH/index/se/serde  its first line and its body have the hashes that the line gives, and it lies in
//!                                    the place that the line names?
//! ```
//!
//! Hashing is work for the processor, so rayon spreads the files over its threads. Each thread reads one file at a
//! time in chunks, which bounds the memory.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use walkdir::WalkDir;

use super::{
    buffers::CHUNK_BYTES,
    entry::{Checked, DamagedEntry, Entry},
    identity::FileIdentity,
    layout::{MAX_ENTRY_FILE_BYTES, StoreLayout},
};
use crate::{
    files::{self, is_no_file, open_nofollow},
    hash::Sha256,
    resource::Key,
};

/// Bytes that a file counts for at least when reading is slowed down: opening many small ones costs time, too.
const MIN_FILE_BYTES: u64 = 16 << 10;

/// A file of the store. `Display` is its path below the folder of the format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredFile {
    /// A blob.
    Blob(Sha256),
    /// An entry.
    Entry(Key),
}

impl StoredFile {
    /// The hash of a blob.
    pub fn blob(&self) -> Option<Sha256> {
        match self {
            Self::Blob(sha256) => Some(*sha256),
            Self::Entry(_) => None,
        }
    }

    /// The key of an entry.
    pub fn entry(&self) -> Option<&Key> {
        match self {
            Self::Blob(_) => None,
            Self::Entry(key) => Some(key),
        }
    }
}

impl fmt::Display for StoredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(sha256) => {
                let digits = sha256.to_string();
                let (first, rest) = digits.split_at(2);
                write!(f, "blobs/{first}/{rest}")
            }
            Self::Entry(key) => write!(f, "entries/{key}"),
        }
    }
}

/// The result for one file.
#[derive(Debug)]
pub struct Verified {
    /// The file.
    pub file: StoredFile,
    /// Bytes that were read.
    pub bytes: u64,
    /// The damage, if there is any.
    pub damage: Option<FileDamage>,
}

/// Why a file is damaged, and which file it was.
#[derive(Debug)]
pub struct FileDamage {
    /// The reason, as a sentence without its subject.
    pub why: String,
    /// The damaged file; `None` if it could not be opened.
    pub identity: Option<FileIdentity>,
    /// False if the file could not be read for a reason that says nothing about its bytes, such as missing permission.
    pub is_certain: bool,
}

/// The folders that hold stored files, sorted. Each holds up to some hundreds.
pub(super) fn folders(layout: &StoreLayout) -> Vec<PathBuf> {
    let folders = [layout.blobs(), layout.entries()];
    let found = folders.iter().flat_map(|folder| {
        let walk = WalkDir::new(folder).sort_by_file_name();
        // A folder in the place of a blob is damage.
        let depth = if *folder == layout.blobs() {
            1
        } else {
            usize::MAX
        };
        walk.max_depth(depth)
    });
    found
        .flatten()
        .filter(|found| found.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// The stored files right in one of [`folders`], sorted. Leaves out files that no store has: nothing reads them.
pub(super) fn files_in(layout: &StoreLayout, folder: &Path) -> Vec<StoredFile> {
    let found = WalkDir::new(folder).min_depth(1).max_depth(1);
    let found = found.into_iter().flatten();
    let mut files: Vec<_> = found
        .filter_map(|found| {
            if let Ok(path) = found.path().strip_prefix(layout.blobs()) {
                let digits = path.to_str()?.replace('/', "");
                return Sha256::parse(&digits).map(StoredFile::Blob);
            }
            if found.file_type().is_dir() {
                return None;
            }
            let path = found.path().strip_prefix(layout.entries()).ok()?;
            Key::of_path(path.to_str()?).map(StoredFile::Entry)
        })
        .collect();
    files.sort_unstable();
    files
}

/// Verifies these files in parallel, and reports the bytes of each to `done`. Leaves out files that are gone.
pub(super) fn verify_all(
    layout: &StoreLayout,
    files: Vec<StoredFile>,
    done: impl Fn(u64) + Sync,
) -> Vec<Verified> {
    let files = files.into_par_iter();
    // One buffer for each thread: allocating one for each file takes longer than hashing a small one.
    let buffer = || vec![0; CHUNK_BYTES];
    let verified = files.map_init(buffer, |chunk, file| {
        let verified = verify(layout, file, chunk, |_| {});
        done(verified.as_ref().map_or(0, |verified| verified.bytes));
        verified
    });
    verified.flatten().collect()
}

/// Verifies these files one after the other, and calls `charge` with the bytes of each read. Leaves out files that are
/// gone.
pub(super) fn verify_slowly(
    layout: &StoreLayout,
    files: Vec<StoredFile>,
    mut charge: impl FnMut(u64),
) -> Vec<Verified> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut all = Vec::new();
    for file in files {
        let verified = verify(layout, file, &mut chunk, &mut charge);
        let bytes = verified.as_ref().map_or(0, |verified| verified.bytes);
        charge(MIN_FILE_BYTES.saturating_sub(bytes));
        all.extend(verified);
    }
    all
}

/// Verifies one file, and reports the bytes of each read to `on_read`. `None` if it is gone.
pub(super) fn verify(
    layout: &StoreLayout,
    file: StoredFile,
    chunk: &mut [u8],
    mut on_read: impl FnMut(u64),
) -> Option<Verified> {
    let mut bytes = 0;
    let mut identity = None;
    let count = |read: u64| {
        bytes += read;
        on_read(read);
    };
    let found = match &file {
        StoredFile::Blob(sha256) => {
            let path = layout.blob(*sha256);
            blob(&path, *sha256, chunk, &mut identity, count)
        }
        StoredFile::Entry(key) => entry(&layout.entry(key), key, &mut identity, count),
    };
    let (why, is_certain) = match found {
        Ok(None) => return None,
        Ok(Some(why)) => (why, true),
        Err(error) => (Some(error.to_string()), is_damage(&error)),
    };
    let damage = why.map(|why| FileDamage {
        why,
        identity,
        is_certain,
    });
    Some(Verified {
        file,
        bytes,
        damage,
    })
}

/// Returns whether the error shows that the file itself is damaged. A missing permission, too many open files or a
/// server that does not answer say nothing about it.
fn is_damage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of_the_disk = [Errno::IO, Errno::BADMSG, Errno::UCLEAN];
    is_no_file(error)
        || matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        )
        || of_the_disk
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The damage of a blob, if there is any; `None` if the file is gone.
fn blob(
    path: &Path,
    expected: Sha256,
    chunk: &mut [u8],
    identity: &mut Option<FileIdentity>,
    count: impl FnMut(u64),
) -> io::Result<Option<Option<String>>> {
    let Some(mut file) = open_nofollow(path)? else {
        return Ok(None);
    };
    *identity = Some(FileIdentity::of(&file.metadata()?));
    let is_right = Sha256::of_reader(&mut file, chunk, count)? == expected;
    let why = "its bytes do not have the hash that is its name";
    Ok(Some((!is_right).then(|| why.to_owned())))
}

/// The damage of an entry, if there is any; `None` if the file is gone.
fn entry(
    path: &Path,
    key: &Key,
    identity: &mut Option<FileIdentity>,
    mut count: impl FnMut(u64),
) -> io::Result<Option<Option<String>>> {
    let Some((found, entry)) = read_entry(path, key)? else {
        return Ok(None);
    };
    *identity = Some(found);
    Ok(Some(match entry {
        Ok(entry) => {
            count(entry.body.len() as u64);
            None
        }
        Err(damage) => Some(damage.to_string()),
    }))
}

/// An entry's file and what it holds.
type ReadEntry = (FileIdentity, Result<Entry, DamagedEntry>);

/// Reads and verifies the entry at `path`. `None` if there is none.
pub(super) fn read_entry(path: &Path, key: &Key) -> io::Result<Option<ReadEntry>> {
    let Some(file) = open_nofollow(path)? else {
        return Ok(None);
    };
    let found = file.metadata()?;
    let entry = if found.len() > MAX_ENTRY_FILE_BYTES {
        Err(DamagedEntry::TooLarge)
    } else {
        let record = files::read_open(&file, MAX_ENTRY_FILE_BYTES)?;
        let checked = Checked::from_mtime(found.modified()?);
        Entry::parse(record.into(), checked, key)
    };
    Ok(Some((FileIdentity::of(&found), entry)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_stored_file_is_listed_once_and_damage_is_told_from_missing_permission() {
        let folder = tempfile::tempdir().unwrap();
        let layout = StoreLayout::new(folder.path());
        let (good, bad, dir) = (Sha256::of(b"good"), Sha256::of(b"bad"), Sha256::of(b"dir"));
        for (sha256, body) in [(good, "good"), (bad, "rot")] {
            let path = layout.blob(sha256);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, body).unwrap();
        }
        fs::create_dir_all(layout.blob(dir)).unwrap();
        fs::write(layout.blobs().join("stray"), "").unwrap();
        let folders = folders(&layout);
        let files = folders.iter().flat_map(|folder| files_in(&layout, folder));
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        let mut expected = [good, bad, dir].map(StoredFile::Blob);
        expected.sort_unstable();
        assert_eq!(files, expected);

        let verified = verify_all(&layout, files, |_| {});
        for Verified { file, damage, .. } in verified {
            let is_bad = file != StoredFile::Blob(good);
            assert_eq!(damage.is_some(), is_bad, "{file}");
            assert!(damage.is_none_or(|damage| damage.is_certain), "{file}");
        }
        let gone = StoredFile::Blob(Sha256::of(b"gone"));
        assert!(verify_all(&layout, vec![gone], |_| {}).is_empty());
        for (kind, expected) in [
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::TimedOut, false),
            (io::ErrorKind::UnexpectedEof, true),
        ] {
            assert_eq!(is_damage(&kind.into()), expected, "{kind}");
        }
        assert!(is_damage(&io::Error::from_raw_os_error(5)));
        assert!(!is_damage(&io::Error::from_raw_os_error(24)));
    }
}
