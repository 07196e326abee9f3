//! The store: everything larder has fetched, as files below one folder. The only module that writes there.
//!
//! It stores two kinds of things. An **entry** is a small file that upstream changes over time, such as an index entry
//! or a manifest. It is stored under a [`Key`] with its validators and the time of its last check. A **blob** is a file
//! that never changes, such as a crate or a toolchain archive. Its name is its SHA-256. Freshness, HTTP and upstream
//! are the cache's business.
//!
//! # Guarantees
//!
//! - Atomic: a reader sees the old contents or the new, never a mixture, and never a part of a file.
//! - Durable: when a `put` returns, what it wrote survives a crash and a power cut.
//! - Verified: entries are checked against their hash and their place when they are read from disk. Blobs are not: the
//!   cache verifies a blob before it serves it, once for each [`FileIdentity`].
//! - Bounded: only regular files are opened, never waiting, and each is compared with a size limit before it is read.
//! - Shared: any number of processes may read and write one store. Every entry ever put is a valid state, and a blob
//!   has the same bytes in every process, so the last writer may win. A writer that must not replace a newer entry
//!   compares and renames under a lock of the entry's folder.
//! - Disposable: deleting the folder costs time and downloads, nothing else, also while larder runs.
//! - Guarded: if the folder is replaced by a link, or by one that others may write to, nothing is written there.
//! - Constant start: opening a store scans nothing but `staging`.
//!
//! # Layout on disk
//!
//! ```text
//! STORE/CACHEDIR.TAG                              tells backup tools to skip the folder
//! STORE/v1/entries/NAME-HASH/config.json          an entry: one line of JSON, then the body;
//! STORE/v1/entries/NAME-HASH/index/se/serde         its mtime is the time of the last check
//! STORE/v1/blobs/ab/cdef...                       a blob
//! STORE/v1/staging/PROCESS/lock                   locked while that process lives
//! STORE/v1/staging/PROCESS/...                    files that are being written
//! STORE/v1/staging/PROCESS/reserved               its length is the space that arriving bodies will take
//! STORE/v1/staging/PROCESS/daemon.json            addresses of that process, if it is a daemon
//! STORE/v1/indexes/NAME-HASH                      the address of the index that these entries come from
//! STORE/v1/projects/HASH.json                     a pin: what a project or toolchain needs
//! STORE/v1/scrub.json                             what the scrub has read
//! STORE/v1/last-use                               when blobs were last used
//! STORE/v1/recalls.json                           what upstream has taken back
//! STORE/v1/toolchain-format                       the archive format of toolchain manifests
//! STORE/v1/gone.json                              since when the files of pins have been gone
//! STORE/v1/eviction-lock                          locked by the process that removes files
//! STORE/v1/quarantine/...                         damaged files, by their former paths
//! ```
//!
//! `NAME-HASH` is a registry's name and a hash of its address, so that a change of settings mixes no two registries.
//!
//! # Where to read on
//!
//! | modules | job |
//! |---|---|
//! | `entries`, `entry` | find and replace entries; their format |
//! | `blobs`, `blob`, `buffers` | find and replace blobs; read them in chunks |
//! | `spool` | stores a body during its download |
//! | `memory`, `identity` | cache what was read; notice that a file has changed |
//! | `layout`, `root`, `readable` | paths and permissions; notice a replaced folder, or one that cannot be read |
//! | `staging`, `blocking` | write files safely, on threads that may wait for the disk |
//! | `pins`, `pinned_crates`, `recalls`, `announce`, `notes` | the JSON and text files besides entries and blobs |
//! | `integrity`, `verify`, `quarantine`, `scrub_state` | find damaged files, move them away |
//! | `last_use`, `space`, `growth`, `limit`, `removal`, `pace` | serve eviction |
//! | `take_over` | makes blobs of another program's files |
//!
//! [`Key`]: crate::resource::Key

mod announce;
mod blob;
mod blobs;
mod blocking;
mod buffers;
mod entries;
mod entry;
mod error;
mod growth;
mod identity;
mod integrity;
mod last_use;
mod layout;
mod limit;
mod memory;
mod notes;
mod pace;
mod pinned_crates;
mod pins;
mod quarantine;
mod readable;
mod recalls;
mod removal;
mod root;
mod scrub_state;
mod space;
mod spool;
mod staging;
mod take_over;
mod verify;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

pub use announce::Announcement;
pub use blob::{Blob, ReadAt};
pub use buffers::CHUNK_BYTES;
pub use entry::{Checked, DamagedEntry, Entry, EntryHead};
pub use error::{StoreError, UnusableFolder};
pub use growth::{NoSpace, SpaceLimit, SpaceNeed};
pub use identity::FileIdentity;
pub use pace::Pace;
pub use pins::{NeededFile, Owner, Pin, PinnedCrate};
pub use recalls::{Recall, RecallKind, locking_owners, locking_projects};
pub use removal::{EvictionLock, FileRecord, Removal};
pub use scrub_state::{ScrubState, ScrubTotals};
pub use space::{Space, SpaceCounter, Statistics};
pub use spool::Spool;
pub use take_over::TakenOver;
pub use verify::{FileDamage, StoredFile, Verified};

use crate::memory_budget::MemoryBudget;
use blocking::blocking;
use buffers::BufferPool;
use growth::Growth;
use last_use::LastUses;
use layout::{StoreLayout, make_folder};
use memory::{Capacity, MemoryCache};
use pinned_crates::PinnedCrates;
use recalls::KnownRecalls;
use staging::{Staging, remove_dead_processes};

/// Memory for entries, in bytes. The burst capacity holds all entries of a large project (34 MB for 860 packages). A
/// resolve with revalidation reads each entry several times; reading and hashing them from disk took longer than
/// everything else.
const ENTRY_CAPACITY: Capacity = Capacity {
    idle: 4 << 20,
    burst: 48 << 20,
};
/// Memory for blobs, in bytes.
const BLOB_CAPACITY: Capacity = Capacity {
    idle: 4 << 20,
    burst: 8 << 20,
};
/// Memory for arriving bodies, in bytes, unless the caller chooses.
const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;
/// Memory that an entry takes besides its body, in bytes: head, path and table slots.
const ENTRY_OVERHEAD_BYTES: u64 = 512;
/// Weight of an open file in the memory cache, in bytes. It bounds the number of open files.
const OPEN_FILE_BYTES: u64 = 32 << 10;
/// Largest blob in bytes that stays open or in memory. Larger blobs are opened for each request, because a deleted file
/// takes disk space for as long as it is open.
const MAX_CACHED_BLOB_BYTES: u64 = 512 << 10;

/// A store in a folder. The head of this module lists its guarantees.
#[derive(Debug)]
pub struct Store {
    layout: StoreLayout,
    staging: Arc<Staging>,
    entries: MemoryCache<Entry>,
    blobs: MemoryCache<Blob>,
    buffers: Arc<BufferPool>,
    pinned: Arc<PinnedCrates>,
    recalls: KnownRecalls,
    memory: MemoryBudget,
    uses: Arc<LastUses>,
    growth: Arc<Growth>,
}

impl Store {
    /// Opens the store in `folder`. Creates and changes nothing, so that commands that only read work on a store they
    /// may not write to.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder belongs to another user or others may write to it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let layout = StoreLayout::new(folder);
        let checked = layout.check_ownership();
        checked.map_err(|source| StoreError::unusable(folder, source))?;
        // Notes which folder it is. A fault is found again by the first write.
        drop(layout.check_root());
        Ok(Self::new(layout, false))
    }

    /// Opens the store in `folder` for a command that only reads. It may belong to another user; then nothing can be
    /// written.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder cannot be read, or others than its owner may write to it.
    pub fn open_to_read(folder: &Path) -> Result<Self, StoreError> {
        let layout = StoreLayout::new(folder);
        let checked = layout.check_readable();
        let is_foreign = checked.map_err(|source| StoreError::unusable(folder, source))?;
        Ok(Self::new(layout, is_foreign))
    }

    fn new(layout: StoreLayout, is_read_only: bool) -> Self {
        Self {
            staging: Arc::new(Staging::new(&layout, is_read_only)),
            entries: MemoryCache::new(512, ENTRY_CAPACITY, |entry| {
                entry.body.len() as u64 + ENTRY_OVERHEAD_BYTES
            }),
            blobs: blob_cache(BLOB_CAPACITY),
            buffers: Arc::default(),
            pinned: Arc::default(),
            recalls: KnownRecalls::default(),
            memory: MemoryBudget::new(DEFAULT_MEMORY_BYTES),
            uses: Arc::default(),
            growth: Arc::default(),
            layout,
        }
    }

    /// Creates the store's folders and removes what dead processes left in staging. Optional: a write creates the
    /// folders it needs. Calling it at the start reports an unusable folder before the first request.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder cannot be written to.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let prepare = || {
            make_folder(self.staging.folder())?;
            // `open` checked nothing if there was no folder yet.
            self.layout.check_ownership()?;
            // First of all: on a full disk this makes space for the rest.
            remove_dead_processes(self.staging.folder());
            self.layout.write_cachedir_tag()?;
            self.staging.process_dir()?;
            Ok(())
        };
        prepare().map_err(|source| StoreError::unusable(self.layout.folder(), source))
    }

    /// [`Store::prepare`] for a command that removes files. A full disk is no error, since the command makes space.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the folder cannot be written to for another reason.
    pub fn prepare_to_remove(&self) -> Result<(), StoreError> {
        match self.prepare() {
            Err(error) if error.is_full() => Ok(()),
            prepared => prepared,
        }
    }

    /// The reason why nothing is written any more, if the folder was replaced by one that is not trusted.
    pub fn problem(&self) -> Option<String> {
        // `Err` leaves the reason behind.
        drop(self.layout.check_root());
        self.layout.problem()
    }

    /// The same store, with this memory for arriving bodies.
    #[must_use]
    pub fn with_memory(self, memory: MemoryBudget) -> Self {
        Self { memory, ..self }
    }

    /// The same store, with at most `files` small blobs kept open between requests.
    #[must_use]
    pub fn with_open_files(self, files: usize) -> Self {
        let most = (files as u64).saturating_mul(OPEN_FILE_BYTES);
        let capacity = Capacity {
            idle: BLOB_CAPACITY.idle.min(most),
            burst: BLOB_CAPACITY.burst.min(most),
        };
        Self {
            blobs: blob_cache(capacity),
            ..self
        }
    }

    /// The memory for arriving bodies.
    pub fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// A folder for scratch work, which is removed at the end of this process.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Full`].
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        let make = || {
            let folder = self.staging.process_dir()?.path().join("scratch");
            make_folder(&folder).map(|()| folder)
        };
        make().map_err(|source| StoreError::io(self.staging.folder(), source))
    }

    /// Writes a small file, whole or not at all.
    async fn write(
        &self,
        path: PathBuf,
        parts: Vec<Bytes>,
        modified: Option<SystemTime>,
    ) -> Result<(), StoreError> {
        let (staging, at) = (self.staging.clone(), path.clone());
        blocking(move || staging.write(&path, &parts, modified))
            .await
            .map_err(|source| StoreError::io(at, source))
    }
}

fn blob_cache(capacity: Capacity) -> MemoryCache<Blob> {
    MemoryCache::new(128, capacity, |blob| match blob.bytes.in_memory() {
        Some(bytes) => bytes.len() as u64,
        None => OPEN_FILE_BYTES,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::{memory::STAT_TTL, *};
    use crate::{
        hash::Sha256,
        resource::{IndexEntry, Key, Location, Registries},
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
    async fn an_entry_reads_back_with_its_last_check_as_marked_or_invalidated() {
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
            .mark_checked(&key("left"), Checked::At(at(2_000)), |_| true)
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

    #[tokio::test(flavor = "multi_thread")]
    async fn the_newest_entry_stays_whatever_order_several_processes_write_in() {
        let folder = tempfile::tempdir().unwrap();
        let writers = (0..8).map(|writer| {
            // Each has its own memory and staging folder, as a process of its own has.
            let store = Store::open(folder.path()).unwrap();
            tokio::spawn(async move {
                for round in 0..20 {
                    let checked = at(1_000 + round * 8 + writer);
                    let keeps = move |stored: &Entry| stored.checked > Checked::At(checked);
                    let (key, written) = (key("left"), entry(b"one", checked));
                    let put = store.put_entry_unless(&key, &written, keeps);
                    put.await.unwrap();
                    let read = store.last_check(&key);
                    assert!(
                        read >= Some(Checked::At(checked)),
                        "{read:?} replaced {checked:?}"
                    );
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_changed_entry_file_is_reported_as_damaged() {
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
    async fn a_blob_is_visible_after_put_and_a_dropped_spool_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let sha256 = Sha256::of(b"body");
        let spool = store.spool();
        spool.write(0, b"bo").unwrap();
        spool.write(2, b"dy").unwrap();
        assert!(store.blob(sha256).await.unwrap().is_none());
        drop(spool);
        let spool = Arc::new(store.spool());
        spool.write(0, b"body").unwrap();
        store.put_blob(spool.clone(), sha256).await.unwrap();
        let blob = store.blob(sha256).await.unwrap().unwrap();
        assert_eq!(blob.bytes.read_at(1, 3).await.unwrap(), "ody");
        assert_eq!(
            spool.read_at(0, 4).await.unwrap(),
            "body",
            "readers of the spool go on after the put"
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
    async fn prepare_removes_the_folders_of_dead_processes_only() {
        let folder = tempfile::tempdir().unwrap();
        let living = Store::open(folder.path()).unwrap();
        living.prepare().unwrap();
        let spool = living.spool();
        let dead = folder.path().join("v1/staging/dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("half"), "body").unwrap();
        // A process that was killed while it removed its own folder.
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
    async fn announced_lists_every_living_daemon_and_no_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, reader] = [(); 3].map(|()| Store::open(folder.path()).unwrap());
        let announcement = |pid| Announcement {
            pid,
            addresses: vec![format!("http://127.0.0.1:{pid}/")],
            max_bytes: None,
        };
        let pids = || {
            let announced = reader.announced();
            announced.iter().map(|one| one.pid).collect::<Vec<_>>()
        };
        first.announce(&announcement(1)).await.unwrap();
        second.announce(&announcement(2)).await.unwrap();
        let mut both = pids();
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        drop(second);
        assert_eq!(pids(), [1]);
        // A killed daemon leaves its files, but no process holds the lock.
        let dead = folder.path().join("v1/staging/dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        let text = serde_json::to_vec(&announcement(3)).unwrap();
        fs::write(dead.join(announce::ANNOUNCEMENT_FILE), text).unwrap();
        assert_eq!(pids(), [1]);
        reader.prepare().unwrap();
        assert!(!dead.exists());
        assert_eq!(pids(), [1]);
    }

    #[tokio::test]
    async fn writes_go_on_after_the_store_was_deleted() {
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
        let spool = store.spool();
        spool.write(0, b"body").unwrap();
        store
            .put_blob(Arc::new(spool), Sha256::of(b"body"))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn reading_creates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.entry(&key("left")).await.unwrap(), None);
        assert_eq!(store.pins().await.unwrap(), []);
        assert_eq!(store.statistics().await.unwrap(), Statistics::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn unreadable_pins_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let pin = Pin {
            owner: Owner::File("/project/Cargo.lock".into()),
            packages: Vec::new(),
            archives: Vec::new(),
            sizes: BTreeMap::new(),
            offered: Vec::new(),
            entries: None,
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
    fn store_that_cannot_be_read_is_refused_instead_of_taken_for_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for store in [&file, &file.join("below")] {
            let refused = Store::open_to_read(store).unwrap_err().to_string();
            assert!(refused.contains("as the store"), "{refused}");
        }
        assert!(Store::open_to_read(&folder.path().join("none")).is_ok());
    }

    #[test]
    fn open_refuses_a_folder_that_others_may_write_to() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Store::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("other users may write to it"), "{refused}");
    }

    #[tokio::test]
    async fn symbolic_links_are_not_followed() {
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
    async fn changes_by_another_process_become_visible_within_the_stat_lifetime() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = [(); 2].map(|()| Store::open(folder.path()).unwrap());
        let key = key("left");
        ours.put_entry(&key, &entry(b"one", at(1))).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ours.entry(&key).await.unwrap(), Some(entry(b"one", at(1))));
        }
        let marked = other.mark_checked(&key, Checked::At(at(5)), |_| true);
        marked.await.unwrap();
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
        let spool = other.spool();
        spool.write(0, b"body").unwrap();
        other.put_blob(Arc::new(spool), sha256).await.unwrap();
        for _ in 0..2 {
            let blob = ours.blob(sha256).await.unwrap().unwrap();
            assert_eq!(blob.bytes.read_at(1, 2).await.unwrap(), "od");
        }
        other.quarantine_blob(sha256, None).await.unwrap();
        tokio::time::sleep(STAT_TTL).await;
        assert!(ours.blob(sha256).await.unwrap().is_none());
    }
}
