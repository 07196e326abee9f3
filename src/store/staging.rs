//! The staging folder, where files lie until they are whole.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tempfile::NamedTempFile;

use super::layout::make_folder;

/// Renames a synced file into place, making the folder if need be, and syncs the folder.
pub(super) fn publish(staged: tempfile::TempPath, path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if let Err(failed) = staged.persist(path) {
        if failed.error.kind() != io::ErrorKind::NotFound {
            return Err(failed.error);
        }
        make_folder(folder)?;
        failed.path.persist(path).map_err(|failed| failed.error)?;
        // The folders that were just made must survive as well; they are few and soon all there.
        for parent in folder.ancestors().skip(1).take(3) {
            File::open(parent)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Where bodies lie that nobody may see yet.
#[derive(Debug)]
pub(super) struct Staging {
    /// The staging folder of all processes.
    pub(super) folder: PathBuf,
    /// This process's part of it, made at the first need.
    pub(super) process_dir: Mutex<Option<Arc<ProcessDir>>>,
}

/// One process's part of the staging folder. Whoever can lock its `lock` file knows that the process is dead.
#[derive(Debug)]
pub(super) struct ProcessDir {
    pub(super) folder: PathBuf,
    _lock: File,
}

impl Staging {
    /// A new file in this process's part.
    pub(super) fn file(&self) -> io::Result<NamedTempFile> {
        match NamedTempFile::new_in(&self.process_dir()?.folder) {
            // Somebody deleted the store, as they may: it begins anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.process_dir.lock().take();
                NamedTempFile::new_in(&self.process_dir()?.folder)
            }
            made => made,
        }
    }

    pub(super) fn process_dir(&self) -> io::Result<Arc<ProcessDir>> {
        let mut process_dir = self.process_dir.lock();
        if let Some(process_dir) = &*process_dir {
            return Ok(process_dir.clone());
        }
        make_folder(&self.folder)?;
        let made = Arc::new(ProcessDir::new(&self.folder)?);
        *process_dir = Some(made.clone());
        Ok(made)
    }
}

impl ProcessDir {
    fn new(all: &Path) -> io::Result<Self> {
        loop {
            let folder = tempfile::Builder::new()
                .prefix("")
                .rand_bytes(12)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(all)?
                .keep();
            let lock = folder.join("lock");
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&lock);
            let file = match made {
                // A sweep came between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                made => made?,
            };
            file.lock()?;
            // A sweep that came between may have removed the folder: then this lock guards nothing.
            if lock.exists() {
                return Ok(Self {
                    folder,
                    _lock: file,
                });
            }
        }
    }
}

impl Drop for ProcessDir {
    fn drop(&mut self) {
        // The process may end in the middle of this. As long as the lock is there, the next one knows that this one is dead.
        for found in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let is_folder = found.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = match found.file_name() {
                name if name == "lock" => Ok(()),
                _ if is_folder => fs::remove_dir_all(found.path()),
                _ => fs::remove_file(found.path()),
            };
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether the process lives whose part of staging this is. To look takes its lock for a moment if not, shared, so that nobody else
/// who looks is misled.
pub(super) fn is_process_alive(folder: &Path) -> bool {
    let lock = File::open(folder.join("lock")).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// Takes away what dead processes left in staging. What cannot be removed now is tried again at the next start.
pub(super) fn remove_dead_processes(staging: &Path) {
    for folder in fs::read_dir(staging).into_iter().flatten().flatten() {
        let lock = folder.path().join("lock");
        match OpenOptions::new().write(true).open(&lock) {
            // Locked until it is gone, so that a process which is just making it sees that it has lost it.
            Ok(file) => {
                if file.try_lock().is_ok() {
                    let _ = fs::remove_dir_all(folder.path());
                }
            }
            // Empty: just made, and then it is made again, or all but removed.
            Err(_) if fs::remove_dir(folder.path()).is_ok() => {}
            // Half removed by hand: leave the young alone.
            Err(_) => {
                let made = folder.metadata().and_then(|found| found.modified());
                if made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > 60)) {
                    let _ = fs::remove_dir_all(folder.path());
                }
            }
        }
    }
}
