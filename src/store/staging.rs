//! Crash-safe writes: the staging folder, and the rename that publishes a file.
//!
//! ```text
//!  create in staging/PROCESS ── write ── sync the file ── rename to its place ── sync the folder
//!                                            │                   │                      │
//!                     a crash before the rename leaves        readers see          the rename survives
//!                     the old file in place                   all of it            a power cut
//! ```
//!
//! The file is synced before the rename, because a file system may otherwise write the new name before the contents:
//! after a power cut there would be an empty or partial file. The folder is synced after the rename and before the
//! caller hears that the file is stored.
//!
//! # Sharing between processes
//!
//! Any number of daemons and `warm`s use one store. Each has its own folder in `staging` and holds a lock on the file
//! `lock` in it for as long as it lives. The kernel releases the lock when the process ends, however it ends. So a
//! folder whose lock can be taken belongs to a dead process, and the next process that starts removes it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::{NamedTempFile, TempPath};

use super::{
    layout::{StoreLayout, make_folder},
    quarantine::move_away,
};
use crate::files::{open_nofollow, open_to_lock};

/// Age from which a folder without a lock file is removed. A younger one may belong to a process that is just starting.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// The file in a process's folder whose length is the space that arriving bodies will take.
const RESERVED_FILE: &str = "reserved";

/// The staging folder of a store, and this process's folder in it.
#[derive(Debug)]
pub(super) struct Staging {
    layout: StoreLayout,
    /// The folder that holds a folder for each process.
    folder: PathBuf,
    /// This process's folder, created by the first write.
    process_dir: Mutex<Option<Arc<ProcessDir>>>,
    /// True if nothing may be written: root could, in another user's store.
    is_read_only: bool,
}

/// One process's folder in the staging folder. Dropping it removes the folder.
#[derive(Debug)]
pub(super) struct ProcessDir {
    folder: PathBuf,
    /// Locked for as long as the file is open.
    _lock: File,
}

impl Staging {
    pub(super) fn new(layout: &StoreLayout, is_read_only: bool) -> Self {
        Self {
            is_read_only,
            layout: layout.clone(),
            folder: layout.staging(),
            process_dir: Mutex::default(),
        }
    }

    /// The folder that holds a folder for each process.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// This process's folder. Created if need be.
    ///
    /// # Errors
    /// `PermissionDenied` if the store was opened to read another user's; `ReadOnlyFilesystem` if its folder was
    /// replaced.
    pub(super) fn process_dir(&self) -> io::Result<Arc<ProcessDir>> {
        if self.is_read_only {
            let why = "the store belongs to another user, so it is only read";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.layout.check_root()?;
        let mut process_dir = self.process_dir.lock();
        if let Some(process_dir) = &*process_dir {
            return Ok(process_dir.clone());
        }
        make_folder(&self.folder)?;
        let created = Arc::new(ProcessDir::create_in(&self.folder)?);
        *process_dir = Some(created.clone());
        Ok(created)
    }

    /// Returns whether entries may be read. A store that was opened to read another user's is what that user made it.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_read_only || self.layout.check_root().is_ok()
    }

    /// This process's folder, if there is one.
    pub(super) fn own_folder(&self) -> Option<PathBuf> {
        let process_dir = self.process_dir.lock();
        process_dir.as_ref().map(|own| own.path().to_owned())
    }

    /// The length that [`Staging::set_reserved`] has set, in bytes.
    pub(super) fn reserved(&self) -> u64 {
        let file = self.own_folder().map(|own| own.join(RESERVED_FILE));
        file.and_then(|file| fs::symlink_metadata(file).ok())
            .map_or(0, |found| found.len())
    }

    /// Tells other processes that the bodies that arrive here will take so many bytes. A failure is not reported: what
    /// it costs is the precision of their counts.
    pub(super) fn set_reserved(&self, bytes: u64) {
        let Some(file) = self.own_folder().map(|own| own.join(RESERVED_FILE)) else {
            return;
        };
        if bytes == 0 {
            let _ = fs::remove_file(file);
            return;
        }
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file);
        let _ = opened.and_then(|file| file.set_len(bytes));
    }

    /// A new file in this process's folder, with mode 0600. Removed when dropped.
    pub(super) fn file(&self) -> io::Result<NamedTempFile> {
        let created = self.create_file()?;
        // Deleted by hand, or with the whole store. It is of use to other programs only.
        drop(self.layout.write_cachedir_tag());
        Ok(created)
    }

    fn create_file(&self) -> io::Result<NamedTempFile> {
        match NamedTempFile::new_in(&self.process_dir()?.folder) {
            // The user may delete the store at any time, also while this process runs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.process_dir.lock().take();
                NamedTempFile::new_in(&self.process_dir()?.folder)
            }
            created => created,
        }
    }

    /// Writes a small file: afterwards there is either the whole new file or the old one.
    pub(super) fn write(
        &self,
        path: &Path,
        parts: &[Bytes],
        modified: Option<SystemTime>,
    ) -> io::Result<()> {
        self.publish(self.staged(parts, modified)?, path)
    }

    /// Writes a small file, unless `keeps` says that the present one must stay. `keeps` and the rename run under the
    /// lock of [`lock_folder`].
    pub(super) fn write_unless(
        &self,
        path: &Path,
        parts: &[Bytes],
        modified: Option<SystemTime>,
        keeps: impl FnOnce() -> io::Result<bool>,
    ) -> io::Result<()> {
        let staged = self.staged(parts, modified)?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.layout.check_root()?;
        if !folder.exists() {
            self.make_folder(folder)?;
        }
        {
            let _lock = lock_folder(folder);
            if keeps()? {
                return Ok(());
            }
            self.rename(staged, path)?;
        }
        // After the lock: the sync waits for the disk.
        File::open(folder)?.sync_all()
    }

    /// A synced file in this process's folder.
    fn staged(&self, parts: &[Bytes], modified: Option<SystemTime>) -> io::Result<TempPath> {
        let mut staged = self.file()?;
        for part in parts {
            staged.write_all(part)?;
        }
        if let Some(modified) = modified {
            staged.as_file().set_modified(modified)?;
        }
        staged.as_file().sync_all()?;
        Ok(staged.into_temp_path())
    }

    /// Renames a synced file to `path` and syncs its folder. Creates missing folders.
    pub(super) fn publish(&self, staged: TempPath, path: &Path) -> io::Result<()> {
        self.rename(staged, path)?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        File::open(folder)?.sync_all()
    }

    /// Renames a synced file to `path`. Creates missing folders.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that publishes files"
    )]
    fn rename(&self, staged: TempPath, path: &Path) -> io::Result<()> {
        self.layout.check_root()?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let published = match staged.persist(path) {
            // The file system or a user has made a folder of this name.
            Err(failed) if failed.error.kind() == io::ErrorKind::IsADirectory => {
                move_away(&self.layout, path, None)?;
                failed.path.persist(path)
            }
            published => published,
        };
        if let Err(failed) = published {
            if failed.error.kind() != io::ErrorKind::NotFound {
                return Err(failed.error);
            }
            self.make_folder(folder)?;
            failed.path.persist(path).map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    /// Creates a folder with those above it.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        make_folder(folder)?;
        // The names of the new folders are in the folders above, which must survive a power cut as well.
        let parents = folder.ancestors().skip(1);
        for parent in parents.take_while(|parent| parent.starts_with(self.layout.folder())) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

/// Locks `folder` against other writers that compare a file with their own before they replace it, in this process and
/// in others. The lock ends when the result is dropped. `None` if there is no folder, or if the file system has no
/// locks on folders: then the last writer wins.
pub(super) fn lock_folder(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

impl ProcessDir {
    /// Creates a folder with a random name in `all` and locks it.
    ///
    /// Another process may run [`remove_dead_processes`] at any moment between the steps. Each step notices that, and
    /// the loop begins again.
    fn create_in(all: &Path) -> io::Result<Self> {
        loop {
            let folder = tempfile::Builder::new()
                .prefix("")
                .rand_bytes(12)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(all)?
                .keep();
            let lock = folder.join("lock");
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&lock);
            let file = match created {
                // Another process removed the folder while it was empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                created => created?,
            };
            file.lock()?;
            // Another process may have taken the lock first and removed the folder: then this lock protects nothing.
            if lock.exists() {
                return Ok(Self {
                    folder,
                    _lock: file,
                });
            }
        }
    }

    /// The folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for ProcessDir {
    fn drop(&mut self) {
        remove_process_dir(&self.folder);
    }
}

/// Removes a process's folder, its lock file last: if this process is killed before that, the next one finds the lock
/// free and removes the rest.
fn remove_process_dir(folder: &Path) {
    for found in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = found.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = match found.file_name() {
            name if name == "lock" => Ok(()),
            _ if is_folder => fs::remove_dir_all(found.path()),
            _ => fs::remove_file(found.path()),
        };
    }
    let _ = fs::remove_dir_all(folder);
}

/// Returns whether the process that owns this folder lives. Tests the lock in shared mode, so that two processes that
/// test at the same time do not take each other for the owner.
pub(super) fn is_process_alive(folder: &Path) -> bool {
    let lock = open_nofollow(&folder.join("lock")).ok().flatten();
    let locked = lock.map(|file| file.try_lock_shared());
    matches!(locked, Some(Err(TryLockError::WouldBlock)))
}

/// Removes the folders of dead processes. Skips what cannot be removed; the next start tries again.
pub(super) fn remove_dead_processes(staging: &Path) {
    for folder in fs::read_dir(staging).into_iter().flatten().flatten() {
        let lock = folder.path().join("lock");
        match open_to_lock(&lock) {
            // Stays locked until the folder is gone: a process that is just creating it then sees that it has lost it.
            Ok(file) => {
                if file.try_lock().is_ok() {
                    remove_process_dir(&folder.path());
                }
            }
            // An empty folder has just been created, and its process creates another; or its removal is almost done.
            Err(_) if fs::remove_dir(folder.path()).is_ok() => {}
            // Files but no lock: the user removed the lock file.
            Err(_) => {
                let created = folder.metadata().and_then(|found| found.modified());
                let age = created.ok().and_then(|created| created.elapsed().ok());
                if age.is_some_and(|age| age > ABANDONED_AFTER) {
                    let _ = fs::remove_dir_all(folder.path());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn the_folder_of_a_dead_process_loses_its_lock_file_last() {
        use std::mem::MaybeUninit;

        use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

        use super::*;

        let staging = tempfile::tempdir().unwrap();
        let folder = staging.path().join("dead");
        make_folder(&folder).unwrap();
        for name in (0..100)
            .map(|number| number.to_string())
            .chain(["lock".to_owned()])
        {
            fs::write(folder.join(name), "").unwrap();
        }
        let events = inotify::init(CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&events, &folder, WatchFlags::DELETE).unwrap();
        remove_dead_processes(staging.path());
        assert!(!folder.exists());
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(events, &mut buffer);
        let mut removed = Vec::new();
        while let Ok(event) = events.next() {
            removed.extend(
                event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
        assert_eq!(
            (removed.len(), removed.last().map(String::as_str)),
            (101, Some("lock"))
        );
    }
}
