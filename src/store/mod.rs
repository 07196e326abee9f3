//! The store's home on plain files. Only this file knows the layout, and only it writes to disk:
//!
//! ```text
//! STORE/CACHEDIR.TAG
//! STORE/v1/entries/NAME-HASH/config.json          one line of description, then the body; mtime = last checked
//! STORE/v1/entries/NAME-HASH/index/se/rd/serde
//! STORE/v1/blobs/ab/cdef...                      a body, named by its sha256
//! STORE/v1/staging/PROCESS/...                   bodies on their way in; PROCESS/lock is held while it lives
//! STORE/v1/staging/PROCESS/daemon.json           where a daemon listens
//! STORE/v1/projects/HASH.json                    warmed projects
//! ```
//!
//! Write, sync, rename, sync the folder: a crash leaves the old state or the new one. Several processes may share a
//! store; nothing is scanned at start but the staging folder.

mod announce;
mod blob;
mod blocking;
mod buffers;
mod entry;
mod error;
mod layout;
mod memory;
mod pins;
mod spool;
mod staging;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

pub use announce::Announcement;
pub use blob::{Blob, ReadAt};
pub use buffers::CHUNK_BYTES;
pub use entry::{Checked, Entry, Head};
pub use error::StoreError;
pub use pins::{Owner, Pin, PinnedCrate};
pub use spool::Spool;

use crate::{hash::Sha256, resource::Key};
use announce::ANNOUNCEMENT_FILE;
use blob::FileReader;
use blocking::blocking;
use buffers::BufferPool;
use error::unusable;
use layout::{
    CACHEDIR_TAG, FORMAT_VERSION, check_ownership, count_files, is_nonempty_file, make_folder,
    open_nofollow, write_new,
};
use memory::{Capacity, Fingerprint, MemoryCache};
use staging::{Staging, is_process_alive, publish, remove_dead_processes};

/// A home for what larder holds. Right with several writers at once, the last one winning: any entry that was put is a
/// valid state, and a blob is the same whoever puts it.
#[derive(Debug)]
pub struct Store {
    top: PathBuf,
    staging: Arc<Staging>,
    entries: MemoryCache<Entry>,
    blobs: MemoryCache<Blob>,
    buffers: Arc<BufferPool>,
}

/// Capacity for entries in memory, in bytes. In a burst it holds all of a large project (860 packages have 34 MB of entries): when they are
/// revalidated, each is looked at several times, and to read and to hash it anew each time took longer than all else.
const ENTRY_CAPACITY: Capacity = Capacity {
    idle: 4 << 20,
    burst: 48 << 20,
};
/// Capacity for blobs in memory, in bytes, and what an open file counts for in it.
const BLOB_CAPACITY: Capacity = Capacity {
    idle: 4 << 20,
    burst: 8 << 20,
};
const OPEN_FILE_WEIGHT: u64 = 32 << 10;
/// The largest blob kept open or in memory. Those that are larger are opened and read anew each time.
const MAX_CACHED_BLOB_BYTES: u64 = 512 << 10;

impl Store {
    /// The store in `folder`. Makes and changes nothing: a command that only looks works on a store it may not write to.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder belongs to another user or others may write to it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        check_ownership(folder)?;
        let top = folder.join(FORMAT_VERSION);
        let staging = Arc::new(Staging {
            folder: top.join("staging"),
            process_dir: parking_lot::Mutex::default(),
        });
        Ok(Self {
            top,
            staging,
            entries: MemoryCache::new(512, ENTRY_CAPACITY, |entry| {
                // What it takes beside its body: head, path, and their places in tables.
                entry.body.len() as u64 + 512
            }),
            blobs: MemoryCache::new(128, BLOB_CAPACITY, |blob| match blob.bytes.in_memory() {
                Some(bytes) => bytes.len() as u64,
                None => OPEN_FILE_WEIGHT,
            }),
            buffers: Arc::default(),
        })
    }

    /// Makes the store ready for writing, and takes away what dead processes left in staging. Without it, what is missing
    /// is made when it is needed.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder cannot be written to.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let folder = self.top.parent().unwrap_or(&self.top);
        let prepare = || {
            make_folder(&self.staging.folder)?;
            check_ownership(folder).map_err(io::Error::other)?;
            write_new(&folder.join("CACHEDIR.TAG"), CACHEDIR_TAG)?;
            remove_dead_processes(&self.staging.folder);
            self.staging.process_dir().map(drop)
        };
        prepare().map_err(|source| unusable(folder, source))
    }

    fn entry_path(&self, key: &Key) -> PathBuf {
        self.path(&["entries", key.as_str()])
    }

    fn blob_path(&self, sha256: Sha256) -> PathBuf {
        let digits = sha256.digits();
        let digits = std::str::from_utf8(&digits).unwrap_or_default();
        let (first, rest) = digits.split_at(2);
        self.path(&["blobs", first, rest])
    }

    /// A path below the top. Each hit needs one: it allocates once.
    fn path(&self, parts: &[&str]) -> PathBuf {
        let len = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut path = PathBuf::with_capacity(self.top.as_os_str().len() + len);
        path.push(&self.top);
        path.extend(parts);
        path
    }

    /// Writes a small file so that it is there whole or not at all.
    async fn write_file(
        &self,
        path: PathBuf,
        parts: [Bytes; 2],
        modified: Option<SystemTime>,
    ) -> Result<(), StoreError> {
        let staging = self.staging.clone();
        let at = path.clone();
        blocking(move || {
            let mut staged = staging.file()?;
            for part in parts {
                staged.write_all(&part)?;
            }
            if let Some(modified) = modified {
                staged.as_file().set_modified(modified)?;
            }
            staged.as_file().sync_all()?;
            publish(staged.into_temp_path(), &path)
        })
        .await
        .map_err(|source| StoreError::io(at, source))
    }
}

impl Store {
    /// The entry under `key`, proven whole; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if what is there is not what was put; the caller heals by putting a new one.
    pub async fn entry(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let path = self.entry_path(key);
        if let Some((_, entry)) = self.entries.get(&path) {
            return Ok(Some(entry));
        }
        let at = path.clone();
        let read = blocking(move || {
            let Some(mut file) = open_nofollow(&path)? else {
                return Ok(None);
            };
            let found = file.metadata()?;
            let mut record = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
            file.read_to_end(&mut record)?;
            let entry = Entry::parse(Bytes::from(record), Checked::from_mtime(found.modified()?));
            Ok(Some((Fingerprint::of(&found), entry)))
        });
        match read.await {
            Ok(None) => Ok(None),
            Ok(Some((fingerprint, Ok(entry)))) => {
                self.entries.put(at, fingerprint, entry.clone());
                Ok(Some(entry))
            }
            Ok(Some((_, Err(why)))) => Err(StoreError::Damaged {
                at: key.to_string(),
                why,
            }),
            // Somebody put a link or a folder in an entry's place.
            Err(source)
                if source.kind() == io::ErrorKind::IsADirectory
                    || source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
            {
                Err(StoreError::Damaged {
                    at: key.to_string(),
                    why: "it is not a file".to_owned(),
                })
            }
            Err(source) => Err(StoreError::io(at, source)),
        }
    }

    /// Puts `entry` under `key`, in place of what was there. Until this returns, lookups see the previous entry or none;
    /// afterwards it survives a crash.
    pub async fn put_entry(&self, key: &Key, entry: &Entry) -> Result<(), StoreError> {
        let parts = [Bytes::from(entry.head_line()), entry.body.clone()];
        let put = self
            .write_file(self.entry_path(key), parts, Some(entry.checked.to_mtime()))
            .await;
        self.entries.forget_stats();
        put
    }

    /// Notes that the entry under `key` was still right at `checked`. No entry, no effect.
    pub async fn mark_checked(&self, key: &Key, checked: Checked) -> Result<(), StoreError> {
        let path = self.entry_path(key);
        let at = path.clone();
        let touched = blocking(move || change_mtime(&path, |_| Some(checked))).await;
        if let Some((before, after, checked)) =
            touched.map_err(|source| StoreError::io(at.clone(), source))?
        {
            self.entries
                .update(&at, before, after, |entry| entry.checked = checked);
        }
        Ok(())
    }

    /// Makes each of these entries stale if it was last checked before the moment beside it. No entry, no effect.
    pub async fn invalidate(&self, due: Vec<(Key, SystemTime)>) -> Result<(), StoreError> {
        let due: Vec<_> = due
            .into_iter()
            .map(|(key, since)| (self.entry_path(&key), since))
            .collect();
        let touched = blocking(move || {
            due.iter().try_for_each(|(path, since)| {
                change_mtime(path, |checked| {
                    let invalidated = checked.invalidated_before(*since);
                    (invalidated != checked).then_some(invalidated)
                })
                .map(drop)
            })
        })
        .await;
        self.entries.forget_stats();
        touched.map_err(|source| StoreError::io(self.top.join("entries"), source))
    }

    /// Opens the blob of that hash; `None` if there is none. Its bytes are not proven by this.
    pub async fn blob(&self, sha256: Sha256) -> Result<Option<Blob>, StoreError> {
        let path = self.blob_path(sha256);
        if let Some((fingerprint, blob)) = self.blobs.get(&path) {
            // Asked for again, and soon: it is worth its memory.
            if blob.bytes.in_memory().is_some() {
                return Ok(Some(blob));
            }
            let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
            let Ok(bytes) = blob.bytes.read_at(0, len).await else {
                return Ok(Some(blob));
            };
            let bytes = Arc::new(Bytes::copy_from_slice(&bytes));
            let blob = Blob { bytes, ..blob };
            self.blobs.put(path, fingerprint, blob.clone());
            return Ok(Some(blob));
        }
        let (at, buffers) = (path.clone(), self.buffers.clone());
        let opened = blocking(move || {
            let Some(file) = open_nofollow(&path)? else {
                return Ok(None);
            };
            let found = file.metadata()?;
            let blob = Blob {
                len: found.len(),
                bytes: Arc::new(FileReader {
                    file: Arc::new(file),
                    buffers,
                }),
            };
            Ok(Some((Fingerprint::of(&found), blob)))
        });
        match opened.await {
            Ok(None) => Ok(None),
            Ok(Some((fingerprint, blob))) => {
                // A deleted file takes disk space for as long as it is open.
                if blob.len <= MAX_CACHED_BLOB_BYTES {
                    self.blobs.put(at, fingerprint, blob.clone());
                }
                Ok(Some(blob))
            }
            Err(source) => Err(StoreError::io(at, source)),
        }
    }

    /// Which of `hashes` are held, in the same order.
    pub async fn contains(&self, hashes: Vec<Sha256>) -> Result<Vec<bool>, StoreError> {
        let paths: Vec<_> = hashes
            .into_iter()
            .map(|sha256| self.blob_path(sha256))
            .collect();
        blocking(move || Ok(paths.iter().map(|path| is_nonempty_file(path)).collect()))
            .await
            .map_err(|source| StoreError::io(&self.top, source))
    }

    /// A place for a body on its way in. Dropping it leaves nothing behind.
    pub async fn spool(&self) -> Result<Spool, StoreError> {
        let staging = self.staging.clone();
        Ok(Spool::new(
            Box::new(move || staging.file()),
            self.buffers.clone(),
        ))
    }

    /// Makes a spooled body the blob of its hash, which the caller has proven. A blob that is there already is as good.
    pub async fn put_blob(&self, spool: Arc<Spool>, sha256: Sha256) -> Result<(), StoreError> {
        let path = self.blob_path(sha256);
        let at = path.clone();
        let put = blocking(move || {
            let (file, staged) = spool.take_file()?;
            file.sync_all()?;
            publish(staged, &path)
        })
        .await;
        self.blobs.forget_stats();
        put.map_err(|source| StoreError::io(at, source))
    }

    /// Takes away a blob that was found damaged. None there, no effect.
    pub async fn remove_blob(&self, sha256: Sha256) -> Result<(), StoreError> {
        let path = self.blob_path(sha256);
        let at = path.clone();
        let removed = blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
        .await;
        self.blobs.forget_stats();
        removed.map_err(|source| StoreError::io(at, source))
    }

    /// All pins, sorted by owner. A file that is no pin, or cannot be read, counts as none: its project must be warmed again.
    pub async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let folder = self.top.join("projects");
        let at = folder.clone();
        let read = move || {
            let files = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                files => files?,
            };
            let mut pins = Vec::new();
            for file in files {
                let path = file?.path();
                if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                    continue;
                }
                match fs::read(&path) {
                    Ok(text) => pins.extend(serde_json::from_slice::<Pin>(&text)),
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                        ) => {}
                    // When descriptors run out, or the disk fails, the project must not be taken for gone.
                    Err(error) => return Err(error),
                }
            }
            pins.sort_by(|a, b| a.owner.cmp(&b.owner));
            Ok(pins)
        };
        blocking(read)
            .await
            .map_err(|source| StoreError::io(at, source))
    }

    /// Registers what an owner needs, in place of what was registered for it before.
    pub async fn put_pin(&self, pin: &Pin) -> Result<(), StoreError> {
        let name = Sha256::of(pin.owner.to_string().as_bytes()).to_string();
        let path = self
            .top
            .join("projects")
            .join(format!("{}.json", &name[..32]));
        let text = serde_json::to_vec(pin)
            .map_err(|cause| StoreError::io(&path, io::Error::other(cause)))?;
        self.write_file(path, [Bytes::from(text), Bytes::new()], None)
            .await
    }

    /// What the store holds, by counting. Takes a time that grows with it.
    pub async fn statistics(&self) -> Result<Statistics, StoreError> {
        let top = self.top.clone();
        blocking(move || {
            let (entries, entry_bytes) = count_files(&top.join("entries"));
            let (blobs, blob_bytes) = count_files(&top.join("blobs"));
            let (projects, _) = count_files(&top.join("projects"));
            Ok(Statistics {
                entries,
                entry_bytes,
                blobs,
                blob_bytes,
                projects,
            })
        })
        .await
        .map_err(|source| StoreError::io(&self.top, source))
    }
}

impl Store {
    /// Lets other commands on this store find this daemon, for as long as this process lives.
    ///
    /// # Errors
    /// What the system said.
    pub async fn announce(&self, announcement: &Announcement) -> Result<(), StoreError> {
        let process_dir = self
            .staging
            .process_dir()
            .map_err(|source| StoreError::io(&self.staging.folder, source))?;
        let path = process_dir.folder.join(ANNOUNCEMENT_FILE);
        let text = serde_json::to_vec(announcement)
            .map_err(|cause| StoreError::io(&path, io::Error::other(cause)))?;
        self.write_file(path, [Bytes::from(text), Bytes::new()], None)
            .await
    }

    /// The daemons on this store whose processes live, the latest first.
    pub fn announced(&self) -> Vec<Announcement> {
        let folders = fs::read_dir(&self.staging.folder).into_iter().flatten();
        let mut all: Vec<_> = folders
            .flatten()
            .filter(|folder| is_process_alive(&folder.path()))
            .filter_map(|folder| {
                let path = folder.path().join(ANNOUNCEMENT_FILE);
                let announcement = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
                Some((fs::metadata(&path).ok()?.modified().ok()?, announcement))
            })
            .collect();
        all.sort_by_key(|(announced, _)| std::cmp::Reverse(*announced));
        all.into_iter()
            .map(|(_, announcement)| announcement)
            .collect()
    }

    /// A folder for scratch work, which goes away with this process.
    ///
    /// # Errors
    /// What the system said.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        let make = || {
            let folder = self.staging.process_dir()?.folder.join("scratch");
            make_folder(&folder).map(|()| folder)
        };
        make().map_err(|source| StoreError::io(&self.staging.folder, source))
    }
}

/// Sets an entry's time of checking to what `choose` makes of the present one, and says how the file's fingerprint changed,
/// and what that time is now.
fn change_mtime(
    path: &Path,
    choose: impl FnOnce(Checked) -> Option<Checked>,
) -> io::Result<Option<(Fingerprint, Fingerprint, Checked)>> {
    let Some(file) = open_nofollow(path)? else {
        return Ok(None);
    };
    let found = file.metadata()?;
    let Some(checked) = choose(Checked::from_mtime(found.modified()?)) else {
        return Ok(None);
    };
    file.set_modified(checked.to_mtime())?;
    let now = file.metadata()?;
    Ok(Some((
        Fingerprint::of(&found),
        Fingerprint::of(&now),
        Checked::from_mtime(now.modified()?),
    )))
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Entries, and their size in bytes.
    pub entries: u64,
    /// Bytes of all entries.
    pub entry_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Registered projects.
    pub projects: u64,
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use super::{memory::STAT_TTL, *};
    use crate::{
        resource::{IndexEntry, Location, Registries},
        validators::Validators,
    };

    fn key(name: &str) -> Key {
        let registries = Registries::new(url::Url::parse("http://127.0.0.1:9/").unwrap(), []);
        match IndexEntry::of(registries.crates_io(), name)
            .unwrap()
            .location()
        {
            Location::Entry(key) => key,
            other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                panic!("{other:?}")
            }
        }
    }

    fn entry(body: &'static [u8], checked: SystemTime) -> Entry {
        Entry::new(
            Bytes::from_static(body),
            Validators::default(),
            None,
            checked,
        )
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn an_entry_comes_back_with_its_time_of_checking() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.entry(&key("left")).await.unwrap(), None);
        store
            .put_entry(&key("left"), &entry(b"one", at(1_000)))
            .await
            .unwrap();
        assert_eq!(
            store.entry(&key("left")).await.unwrap(),
            Some(entry(b"one", at(1_000)))
        );
        store
            .mark_checked(&key("left"), Checked::At(at(2_000)))
            .await
            .unwrap();
        assert_eq!(
            store.entry(&key("left")).await.unwrap().unwrap().checked,
            Checked::At(at(2_000))
        );
        store
            .invalidate(vec![(key("left"), at(1_999))])
            .await
            .unwrap();
        assert_eq!(
            store.entry(&key("left")).await.unwrap().unwrap().checked,
            Checked::At(at(2_000))
        );
        store
            .invalidate(vec![(key("left"), at(2_001))])
            .await
            .unwrap();
        assert_eq!(
            store.entry(&key("left")).await.unwrap().unwrap().checked,
            Checked::Invalidated
        );
    }

    #[tokio::test]
    async fn a_damaged_entry_is_said_to_be_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store
            .put_entry(&key("left"), &entry(b"one", at(1)))
            .await
            .unwrap();
        fs::write(
            folder.path().join("v1/entries").join(key("left").as_str()),
            "rubbish",
        )
        .unwrap();
        assert!(matches!(
            store.entry(&key("left")).await,
            Err(StoreError::Damaged { .. })
        ));
    }

    #[tokio::test]
    async fn a_blob_is_visible_only_after_it_was_put_and_a_dropped_spool_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let sha256 = Sha256::of(b"body");
        let spool = store.spool().await.unwrap();
        spool.write(0, b"bo").unwrap();
        spool.write(2, b"dy").unwrap();
        assert!(store.blob(sha256).await.unwrap().is_none());
        drop(spool);
        let spool = Arc::new(store.spool().await.unwrap());
        spool.write(0, b"body").unwrap();
        store.put_blob(spool.clone(), sha256).await.unwrap();
        let blob = store.blob(sha256).await.unwrap().unwrap();
        assert_eq!(blob.bytes.read_at(1, 3).await.unwrap(), "ody");
        assert_eq!(
            spool.read_at(0, 4).await.unwrap(),
            "body",
            "readers behind the writer go on after the commit"
        );
        assert_eq!(
            store
                .contains(vec![Sha256::of(b"x"), sha256])
                .await
                .unwrap(),
            [false, true]
        );
        drop(spool);
        drop(store);
        assert_eq!(
            fs::read_dir(folder.path().join("v1/staging"))
                .unwrap()
                .count(),
            0
        );
        let path = folder
            .path()
            .join("v1/blobs")
            .join(&sha256.to_string()[..2])
            .join(&sha256.to_string()[2..]);
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(
            fs::metadata(folder.path().join("v1"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o700
        );
    }

    #[tokio::test]
    async fn a_sweep_takes_what_the_dead_left_and_nothing_of_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let living = Store::open(folder.path()).unwrap();
        living.prepare().unwrap();
        let spool = living.spool().await.unwrap();
        let dead = folder.path().join("v1/staging/dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("half"), "body").unwrap();
        // It ended while it cleared up.
        let cleared = folder.path().join("v1/staging/cleared");
        fs::create_dir(&cleared).unwrap();
        let other = Store::open(folder.path()).unwrap();
        other.prepare().unwrap();
        assert!(!dead.exists() && !cleared.exists());
        spool.write(0, b"still there").unwrap();
        living
            .put_blob(Arc::new(spool), Sha256::of(b"still there"))
            .await
            .unwrap();
        drop(other);
    }

    #[tokio::test]
    async fn daemons_on_one_store_hide_none_and_the_dead_are_not_named() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, looks] = [(); 3].map(|()| Store::open(folder.path()).unwrap());
        let announcement = |pid| Announcement {
            pid,
            addresses: vec![format!("http://127.0.0.1:{pid}/")],
        };
        let pids = || {
            let announced = looks.announced();
            announced.iter().map(|one| one.pid).collect::<Vec<_>>()
        };
        first.announce(&announcement(1)).await.unwrap();
        second.announce(&announcement(2)).await.unwrap();
        let mut both = pids();
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        drop(second);
        assert_eq!(pids(), [1]);
        // Killed: all is there but the lock.
        let dead = folder.path().join("v1/staging/dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        let text = serde_json::to_vec(&announcement(3)).unwrap();
        fs::write(dead.join(ANNOUNCEMENT_FILE), text).unwrap();
        assert_eq!(pids(), [1]);
        looks.prepare().unwrap();
        assert!(!dead.exists());
        assert_eq!(pids(), [1]);
    }

    #[tokio::test]
    async fn a_store_that_is_deleted_underfoot_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store
            .put_entry(&key("left"), &entry(b"one", at(1)))
            .await
            .unwrap();
        fs::remove_dir_all(folder.path().join("v1")).unwrap();
        store
            .put_entry(&key("left"), &entry(b"two", at(2)))
            .await
            .unwrap();
        assert_eq!(
            store.entry(&key("left")).await.unwrap(),
            Some(entry(b"two", at(2)))
        );
        let spool = store.spool().await.unwrap();
        spool.write(0, b"body").unwrap();
        store
            .put_blob(Arc::new(spool), Sha256::of(b"body"))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn to_look_at_a_store_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.entry(&key("left")).await.unwrap(), None);
        assert_eq!(store.pins().await.unwrap(), []);
        assert_eq!(store.statistics().await.unwrap(), Statistics::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_no_readable_project_file_hides_no_project() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let pin = Pin {
            owner: Owner::File("/project/Cargo.lock".into()),
            packages: Vec::new(),
            archives: Vec::new(),
        };
        store.put_pin(&pin).await.unwrap();
        let projects = folder.path().join("v1/projects");
        fs::create_dir(projects.join("folder.json")).unwrap();
        fs::write(projects.join("rubbish.json"), "rubbish").unwrap();
        std::os::unix::fs::symlink("nowhere", projects.join("link.json")).unwrap();
        let closed = projects.join("closed.json");
        fs::write(&closed, "{}").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(store.pins().await.unwrap(), [pin]);
    }

    #[test]
    fn a_store_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Store::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("other users may write to it"), "{refused}");
    }

    #[tokio::test]
    async fn symbolic_links_in_the_store_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store
            .put_entry(&key("left"), &entry(b"one", at(1)))
            .await
            .unwrap();
        let path = folder.path().join("v1/entries").join(key("left").as_str());
        let elsewhere = folder.path().join("canary");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(store.entry(&key("left")).await.is_err());
    }

    #[tokio::test]
    async fn what_is_in_memory_is_given_up_a_moment_after_any_process_changes_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = [(); 2].map(|()| Store::open(folder.path()).unwrap());
        let key = key("left");
        ours.put_entry(&key, &entry(b"one", at(1))).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ours.entry(&key).await.unwrap(), Some(entry(b"one", at(1))));
        }
        other.mark_checked(&key, Checked::At(at(5))).await.unwrap();
        tokio::time::sleep(STAT_TTL).await;
        let renewed = ours.entry(&key).await.unwrap().unwrap();
        assert_eq!(renewed.checked, Checked::At(at(5)));
        other.invalidate(vec![(key.clone(), at(6))]).await.unwrap();
        tokio::time::sleep(STAT_TTL).await;
        let expired = ours.entry(&key).await.unwrap().unwrap();
        assert_eq!(expired.checked, Checked::Invalidated);
        other.put_entry(&key, &entry(b"two", at(5))).await.unwrap();
        tokio::time::sleep(STAT_TTL).await;
        assert_eq!(ours.entry(&key).await.unwrap(), Some(entry(b"two", at(5))));

        let sha256 = Sha256::of(b"body");
        let spool = other.spool().await.unwrap();
        spool.write(0, b"body").unwrap();
        other.put_blob(Arc::new(spool), sha256).await.unwrap();
        for _ in 0..2 {
            let blob = ours.blob(sha256).await.unwrap().unwrap();
            assert_eq!(blob.bytes.read_at(1, 2).await.unwrap(), "od");
        }
        other.remove_blob(sha256).await.unwrap();
        tokio::time::sleep(STAT_TTL).await;
        assert!(ours.blob(sha256).await.unwrap().is_none());
    }
}
