//! Removing stored files: what eviction needs to know of them, and removing one without harm.
//!
//! A file is removed only if it is still the file that the decision was about, and only while no client reads it. An
//! open file that is removed stays readable, so a small blob needs no care: its client has it in a moment. A large one,
//! which a client may ask for again by ranges, is locked (shared) while it is read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use walkdir::WalkDir;

use super::{
    MAX_CACHED_BLOB_BYTES, Owner, Store, StoreError,
    announce::ANNOUNCEMENT_FILE,
    blocking::blocking,
    error::is_full,
    identity::FileIdentity,
    last_use,
    layout::{MAX_ENTRY_FILE_BYTES, StoreLayout},
    pace::Pace,
    space::disk_bytes,
    staging::{is_process_alive, lock_folder, remove_dead_processes},
    verify::{self, StoredFile},
};
use crate::{
    clock::{milliseconds, now, seconds},
    files::{self, open_nofollow, open_to_lock},
    hash::Sha256,
    resource::Key,
};

/// Size limit in bytes of the file of gone projects.
const MAX_GONE_BYTES: u64 = 16 << 20;

/// A stored file with what eviction judges it by. Times are in milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct FileRecord {
    /// The file.
    pub file: StoredFile,
    /// The space it takes on disk.
    pub bytes: u64,
    /// When it was stored or, for an entry, last checked.
    pub stored: u64,
    /// When it was last used, as far as is known: not before `stored`.
    pub used: u64,
    /// The file on disk, to tell whether it is still the same when it is removed.
    pub identity: FileIdentity,
}

/// The result of removing one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is removed.
    Removed,
    /// It was gone already, or another file has taken its place, or it was checked or used meanwhile.
    Changed,
    /// A client reads it.
    InUse,
}

/// The right to remove files of a store. One process has it at a time.
#[derive(Debug)]
pub struct EvictionLock(#[expect(dead_code, reason = "locked for as long as it is open")] File);

/// Last uses.
impl Store {
    /// Appends what this process has used to the file of last uses. With `is_last`, everything; otherwise blobs in
    /// constant use are appended every ten minutes.
    ///
    /// A failure is not reported: what it costs is the order of eviction.
    pub async fn flush_uses(&self, is_last: bool) {
        let lines = self.uses.take_new(is_last);
        if lines.is_empty() {
            return;
        }
        let (staging, path) = (self.staging.clone(), self.layout.last_use());
        let _ = blocking(move || last_use::append(&staging, &path, &lines)).await;
    }

    /// The last use of each blob, by all processes, in milliseconds since 1970. A blob without one has not been used
    /// since it was stored, as far as is known.
    pub(super) fn last_uses(&self) -> HashMap<Sha256, u64> {
        self.uses.merged_with(&self.layout.last_use())
    }

    /// Returns whether this process has stored or served the blob since `time`, in milliseconds since 1970.
    pub fn has_used_since(&self, sha256: Sha256, time: u64) -> bool {
        self.uses.is_used_since(sha256, time)
    }

    /// Returns whether this process has stored or served the blob, whatever its clock said then.
    pub fn has_used(&self, sha256: Sha256) -> bool {
        self.uses.is_used(sha256)
    }

    /// Removes what dead processes left in staging.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the thread for it was refused.
    pub async fn remove_leftovers(&self) -> Result<(), StoreError> {
        let staging = self.staging.clone();
        blocking(move || {
            remove_dead_processes(staging.folder());
            Ok(())
        })
        .await
        .map_err(|source| StoreError::io(self.layout.staging(), source))
    }
}

impl Store {
    /// All stored files, with their sizes and last uses.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn file_records(&self, pace: &Arc<Pace>) -> Result<Vec<FileRecord>, StoreError> {
        let (layout, pace) = (self.layout.clone(), pace.clone());
        let uses = self.last_uses();
        let read = move || {
            let latest = milliseconds(now());
            let folders = verify::folders(&layout);
            let files = folders
                .iter()
                .flat_map(|folder| verify::files_in(&layout, folder));
            let records = files.filter_map(|file| {
                pace.step();
                let found = fs::symlink_metadata(path_of(&layout, &file)).ok()?;
                if !found.is_file() {
                    return None;
                }
                let changed = found.ctime().saturating_mul(1000) + found.ctime_nsec() / 1_000_000;
                let modified = milliseconds(found.modified().ok()?);
                // A clock that was set back leaves times of the future.
                let stored = modified
                    .max(u64::try_from(changed).unwrap_or(0))
                    .min(latest);
                let used = match &file {
                    StoredFile::Blob(sha256) => uses.get(sha256).copied().unwrap_or(0),
                    StoredFile::Entry(_) => 0,
                };
                Some(FileRecord {
                    bytes: disk_bytes(&found),
                    stored,
                    used: used.min(latest).max(stored),
                    identity: FileIdentity::of(&found),
                    file,
                })
            });
            Ok(records.collect())
        };
        let read = blocking(read).await;
        read.map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// For each of these entries, which of the blobs it lists, in the order of `keys`. An entry that cannot be read
    /// lists none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn listed_blobs(
        &self,
        keys: Vec<Key>,
        blobs: HashSet<Sha256>,
        pace: &Arc<Pace>,
    ) -> Result<Vec<Vec<Sha256>>, StoreError> {
        let (layout, pace) = (self.layout.clone(), pace.clone());
        let read = move || {
            let listed = |key: &Key| {
                pace.step();
                let file = open_nofollow(&layout.entry(key)).ok().flatten();
                let record =
                    file.and_then(|file| files::read_open(&file, MAX_ENTRY_FILE_BYTES).ok());
                hashes_among(&record.unwrap_or_default(), &blobs)
            };
            Ok(keys.iter().map(listed).collect())
        };
        let read = blocking(read).await;
        read.map_err(|source| StoreError::io(self.layout.entries(), source))
    }

    /// Removes files that are still what `records` say and that no client uses. `since` is when the records were made,
    /// in milliseconds since 1970. The results have the order of `records`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn remove_files(
        &self,
        records: Vec<FileRecord>,
        since: u64,
        pace: &Arc<Pace>,
    ) -> Result<Vec<Removal>, StoreError> {
        let (layout, uses, pace) = (self.layout.clone(), self.uses.clone(), pace.clone());
        let removed = blocking(move || {
            layout.check_root()?;
            let remove = |record: &FileRecord| {
                pace.step();
                match record.file {
                    StoredFile::Blob(sha256) if uses.is_used_since(sha256, since) => {
                        Ok(Removal::Changed)
                    }
                    StoredFile::Blob(_) | StoredFile::Entry(_) => {
                        remove_file(&path_of(&layout, &record.file), record)
                    }
                }
            };
            records.iter().map(remove).collect()
        })
        .await;
        self.entries.forget_stats();
        self.blobs.forget_stats();
        removed.map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// The right to remove files; `None` while another process has it. If something waits for that (`is_urgent`), the
    /// other process makes no more pauses.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the store cannot be written to.
    pub fn lock_for_eviction(&self, is_urgent: bool) -> Result<Option<EvictionLock>, StoreError> {
        let path = self.layout.eviction_lock();
        let lock = || -> io::Result<Option<EvictionLock>> {
            match self.staging.process_dir() {
                // A full disk may have no block for a folder, and removals make space.
                Err(error) if is_full(&error) => {}
                made => drop(made?),
            }
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let file = match created {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_to_lock(&path)?,
                created => created?,
            };
            match file.try_lock() {
                Ok(()) => Ok(Some(EvictionLock(file))),
                Err(TryLockError::WouldBlock) => {
                    if is_urgent {
                        // A failure costs time only.
                        let _ = file.set_modified(now());
                    }
                    Ok(None)
                }
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        lock().map_err(|source| StoreError::io(&path, source))
    }

    /// When the first of the commands started that store files now, besides daemons and this process: `warm` registers
    /// its pins at its end. In milliseconds since 1970; `None` if there is no such command.
    pub fn oldest_running_command(&self) -> Option<u64> {
        let own = self.staging.own_folder();
        let folders = fs::read_dir(self.staging.folder()).into_iter().flatten();
        let started = folders.flatten().filter_map(|folder| {
            let path = folder.path();
            let is_command = own.as_deref() != Some(path.as_path())
                && !path.join(ANNOUNCEMENT_FILE).exists()
                && is_process_alive(&path);
            let lock = is_command.then(|| fs::symlink_metadata(path.join("lock")))?;
            Some(milliseconds(lock.ok()?.modified().ok()?))
        });
        started.min()
    }

    /// When the folder of pins last changed: another value means that a pin was added, replaced or removed.
    pub fn pins_changed(&self) -> Option<SystemTime> {
        fs::metadata(self.layout.pins()).ok()?.modified().ok()
    }

    /// Removes the pin of this owner. Returns whether there was one. What it needed stays stored.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn remove_pin(&self, owner: &Owner) -> Result<bool, StoreError> {
        let path = self.layout.pin(&owner.to_string());
        let (at, layout) = (path.clone(), self.layout.clone());
        let removed = blocking(move || {
            layout.check_root()?;
            match fs::remove_file(&path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        });
        removed.await.map_err(|source| StoreError::io(at, source))
    }

    /// Since when the files of pins have been gone, in seconds since 1970, by owner.
    pub fn gone_since(&self) -> BTreeMap<String, u64> {
        let text = files::read(&self.layout.gone(), MAX_GONE_BYTES).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Stores what [`Store::gone_since`] reads, unless it is stored.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Full`].
    pub async fn put_gone_since(&self, gone: &BTreeMap<String, u64>) -> Result<(), StoreError> {
        if self.gone_since() == *gone {
            return Ok(());
        }
        let path = self.layout.gone();
        let text = serde_json::to_vec(gone).map_err(|error| StoreError::io(&path, error.into()))?;
        self.write(path, vec![Bytes::from(text)], None).await
    }

    /// Removes damaged files from the quarantine: those moved there longer than `max_age` ago, and the oldest ones
    /// above `max_bytes` in all. Returns their number and bytes. With `is_dry_run`, only counts them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn prune_quarantine(
        &self,
        max_age: Duration,
        max_bytes: u64,
        is_dry_run: bool,
    ) -> Result<(u64, u64), StoreError> {
        let folder = self.layout.quarantine();
        let (at, layout) = (folder.clone(), self.layout.clone());
        let pruned = blocking(move || {
            layout.check_root()?;
            let files = WalkDir::new(&folder).into_iter().flatten();
            let files = files.filter(|found| !found.file_type().is_dir());
            let mut files: Vec<_> = files
                .filter_map(|found| {
                    let metadata = found.metadata().ok()?;
                    let moved = u64::try_from(metadata.ctime()).unwrap_or(0);
                    Some((moved, disk_bytes(&metadata), found.into_path()))
                })
                .collect();
            files.sort();
            let oldest = seconds(now()).saturating_sub(max_age.as_secs());
            let excess = &files[..excess(&files, oldest, max_bytes)];
            if !is_dry_run {
                remove_all(excess)?;
            }
            let bytes = excess.iter().map(|(_, bytes, _)| bytes).sum();
            Ok((excess.len() as u64, bytes))
        });
        pruned.await.map_err(|source| StoreError::io(at, source))
    }
}

/// Number of quarantined files to remove, each with the time when it was moved there, its bytes and its path, the
/// earliest first: those moved before `oldest`, and as many as exceed `max_bytes`.
fn excess(files: &[(u64, u64, PathBuf)], oldest: u64, max_bytes: u64) -> usize {
    let mut left: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    let is_excess = |(moved, bytes, _): &&(u64, u64, PathBuf)| {
        let is_excess = *moved < oldest || left > max_bytes;
        left -= bytes;
        is_excess
    };
    files.iter().take_while(is_excess).count()
}

/// Removes files. One that is gone already is no failure: users empty the quarantine, too.
fn remove_all(files: &[(u64, u64, PathBuf)]) -> io::Result<()> {
    for (_, _, path) in files {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn path_of(layout: &StoreLayout, file: &StoredFile) -> PathBuf {
    match file {
        StoredFile::Blob(sha256) => layout.blob(*sha256),
        StoredFile::Entry(key) => layout.entry(key),
    }
}

fn remove_file(path: &Path, record: &FileRecord) -> io::Result<Removal> {
    let is_large =
        matches!(record.file, StoredFile::Blob(_)) && record.bytes > MAX_CACHED_BLOB_BYTES;
    let open = if is_large {
        open_nofollow(path).ok().flatten()
    } else {
        None
    };
    if let Some(file) = &open
        && matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    {
        return Ok(Removal::InUse);
    }
    // Against a write of the same entry.
    let _lock = match record.file {
        StoredFile::Entry(_) => path.parent().and_then(lock_folder),
        StoredFile::Blob(_) => None,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if FileIdentity::of(&found) == record.identity => {}
        Ok(_) => return Ok(Removal::Changed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removal::Changed),
        Err(error) => return Err(error),
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(Removal::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removal::Changed),
        Err(error) => Err(error),
    }
}

/// The hashes among `known` that the text has, as runs of 64 hexadecimal digits: whatever its format, a listing names
/// blobs so.
fn hashes_among(text: &[u8], known: &HashSet<Sha256>) -> Vec<Sha256> {
    let mut found = Vec::new();
    let mut from = 0;
    // Each run of 64 covers one of every 64 bytes.
    let mut at = 63;
    while at < text.len() {
        if !text[at].is_ascii_hexdigit() {
            at += 64;
            continue;
        }
        let before = text[from..at].iter().rev();
        let start = at - before.take_while(|byte| byte.is_ascii_hexdigit()).count();
        let after = text[at..].iter();
        let end = at + after.take_while(|byte| byte.is_ascii_hexdigit()).count();
        if end - start == 64
            && let Ok(digits) = std::str::from_utf8(&text[start..end])
            && let Some(sha256) = Sha256::parse(digits)
            && known.contains(&sha256)
        {
            found.push(sha256);
        }
        from = end;
        at = end + 63;
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_found_at_every_offset_and_longer_runs_are_none() {
        let [one, two, other] = [b"1", b"2", b"3"].map(|text| Sha256::of(text));
        let known = HashSet::from([one, two]);
        let mut expected = vec![one, two];
        expected.sort_unstable();
        for pad in 0..140 {
            let pad = "-".repeat(pad);
            let text = format!("{pad}\"{one}\"{pad},{other} {two}\n");
            assert_eq!(hashes_among(text.as_bytes(), &known), expected, "{text}");
            let text = format!("{pad}{one}");
            assert_eq!(hashes_among(text.as_bytes(), &known), [one], "{text}");
            let text = format!("{pad}{one}0 {}", &two.to_string()[1..]);
            assert!(hashes_among(text.as_bytes(), &known).is_empty(), "{text}");
        }
    }

    async fn put(store: &Store, body: &[u8]) -> Sha256 {
        let spool = store.spool();
        spool.write(0, body).unwrap();
        let sha256 = Sha256::of(body);
        store.put_blob(Arc::new(spool), sha256).await.unwrap();
        sha256
    }

    #[tokio::test]
    async fn a_file_is_removed_unless_it_was_replaced_used_or_is_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let reader = Store::open(folder.path()).unwrap();
        let large = vec![7; 2 << 20];
        let bodies: [&[u8]; 4] = [b"idle", b"replaced", b"used", &large];
        for body in bodies {
            put(&store, body).await;
        }
        let pace = Pace::full_speed();
        let records = store.file_records(&pace).await.unwrap();
        let of = |body: &[u8]| {
            let file = StoredFile::Blob(Sha256::of(body));
            records.iter().find(|record| record.file == file).unwrap()
        };
        // Times have milliseconds: what was stored within the one of `since` counts as used.
        std::thread::sleep(Duration::from_millis(20));
        let since = milliseconds(now());
        std::thread::sleep(Duration::from_millis(20));
        put(&reader, b"replaced").await;
        store.blob(Sha256::of(b"used")).await.unwrap().unwrap();
        let open = reader.blob(Sha256::of(&large)).await.unwrap().unwrap();
        let wanted = bodies.map(|body| of(body).clone()).to_vec();
        let removed = store.remove_files(wanted, since, &pace).await.unwrap();
        let expected = [
            Removal::Removed,
            Removal::Changed,
            Removal::Changed,
            Removal::InUse,
        ];
        assert_eq!(removed, expected);
        drop(open);
        let again = store
            .remove_files(vec![of(&large).clone()], since, &pace)
            .await;
        assert_eq!(again.unwrap(), [Removal::Removed]);
        for (body, is_left) in bodies.iter().zip([false, true, true, false]) {
            let blob = reader.blob(Sha256::of(body)).await.unwrap();
            assert_eq!(blob.is_some(), is_left);
        }
    }

    #[tokio::test]
    async fn one_process_evicts_at_a_time_and_commands_are_told_from_daemons() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = [1, 2].map(|_| Store::open(folder.path()).unwrap());
        let lock = one.lock_for_eviction(false).unwrap();
        assert!(lock.is_some() && two.lock_for_eviction(false).unwrap().is_none());
        drop(lock);
        assert!(two.lock_for_eviction(false).unwrap().is_some());
        assert!(one.oldest_running_command().is_some());
        let announcement = super::super::Announcement {
            pid: 1,
            addresses: Vec::new(),
            max_bytes: None,
        };
        two.announce(&announcement).await.unwrap();
        assert_eq!(one.oldest_running_command(), None);
        drop(one);
        assert_eq!(two.oldest_running_command(), None);
    }

    #[tokio::test]
    async fn the_quarantine_is_bounded_by_size_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let damaged = folder.path().join("v1/quarantine/blobs/ab");
        fs::create_dir_all(&damaged).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(damaged.join(name), vec![1; 8192]).unwrap();
        }
        let month = Duration::from_secs(30 * 86_400);
        let prune = async |age, bytes, dry| store.prune_quarantine(age, bytes, dry).await.unwrap();
        assert_eq!(prune(month, 3 * 8192, false).await, (0, 0));
        assert_eq!(prune(month, 8192, true).await, (2, 2 * 8192));
        assert_eq!(prune(month, 8192, false).await, (2, 2 * 8192));
        assert_eq!(prune(month, u64::MAX, false).await, (0, 0));
    }

    #[test]
    fn a_quarantined_file_that_is_gone_does_not_keep_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| (1, 8192, folder.path().join(name));
        fs::write(folder.path().join("b"), "b").unwrap();
        remove_all(&[file("a"), file("b")]).unwrap();
        assert!(!folder.path().join("b").exists());
        fs::create_dir(folder.path().join("c")).unwrap();
        remove_all(&[file("c")]).unwrap_err();
    }

    #[test]
    fn a_quarantined_file_is_removed_by_age_and_else_by_size() {
        let files = [10, 20, 30].map(|moved| (moved, 8192, PathBuf::new()));
        for (oldest, max_bytes, expected) in [
            (10, u64::MAX, 0),
            (11, u64::MAX, 1),
            (31, u64::MAX, 3),
            (0, 3 * 8192, 0),
            (0, 2 * 8192, 1),
            (11, 8192, 2),
            (0, 0, 3),
        ] {
            assert_eq!(
                excess(&files, oldest, max_bytes),
                expected,
                "{oldest}, {max_bytes}"
            );
        }
    }
}
