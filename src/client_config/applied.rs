//! Writes clients' settings files, remembers what they were, and restores them.
//!
//! ```text
//!  FOLDER/HASH/record.json   the file, the folders that were made for it, hash and settings of what was written
//!  FOLDER/HASH/before        the file's bytes before the first edit; absent if there was no file
//!  FOLDER/HASH/written       the bytes that were written
//! ```
//!
//! `HASH` is that of the file's path. The backup is written before the file, so that a crash between the two leaves a
//! backup that equals the file. The file is replaced by a rename of a temporary file beside it. A symbolic link stays:
//! the file that it leads to is edited.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{self, MAX_SETTINGS_BYTES},
    hash::Sha256,
};

/// The backups of settings files that larder edited.
#[derive(Clone, Debug)]
pub struct Backups {
    folder: PathBuf,
}

/// One settings file, and its backup if there is one.
#[derive(Debug)]
pub struct ClientFile {
    /// The file, with symbolic links resolved.
    pub path: PathBuf,
    /// Its bytes; `None` if there is no file.
    pub now: Option<Vec<u8>>,
    /// The text that larder wrote, and the text that it found.
    pub backup: Option<Backup>,
    /// The folder of the backup.
    pub backup_folder: PathBuf,
}

/// The text that an edit replaced.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The bytes before; `None` if there was no file.
    pub before: Option<Vec<u8>>,
    /// The bytes that larder wrote.
    pub written: Vec<u8>,
    /// Folders that larder made for the file, the outermost first.
    pub folders: Vec<PathBuf>,
}

/// `record.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    file: PathBuf,
    existed: bool,
    folders: Vec<PathBuf>,
    sha256: String,
}

impl Backups {
    /// The backups in `folder`, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Reads a settings file and its backup. Blocking.
    ///
    /// # Errors
    /// Either cannot be read, or a symbolic link leads to nothing.
    pub fn open(&self, path: &Path) -> io::Result<ClientFile> {
        let path = resolve(path)?;
        let now = read_if_there(&path)?;
        let name = Sha256::of(path.as_os_str().as_encoded_bytes()).to_string();
        let backup_folder = self.folder.join(&name[..16]);
        let backup = Backup::read(&backup_folder)?;
        Ok(ClientFile {
            path,
            now,
            backup,
            backup_folder,
        })
    }
}

impl Backup {
    fn read(folder: &Path) -> io::Result<Option<Self>> {
        let Some(record) = read_if_there(&folder.join("record.json"))? else {
            return Ok(None);
        };
        let record: Record = serde_json::from_slice(&record)?;
        let written = files::read(&folder.join("written"), MAX_SETTINGS_BYTES)?;
        let before = if record.existed {
            Some(files::read(&folder.join("before"), MAX_SETTINGS_BYTES)?)
        } else {
            None
        };
        // The record is written last, so another hash means that two processes wrote at once.
        if Sha256::of(&written).to_string() != record.sha256 {
            return Err(io::Error::other("the backup does not match its record"));
        }
        Ok(Some(Self {
            before,
            written,
            folders: record.folders,
        }))
    }
}

impl ClientFile {
    /// True if the file has the bytes that larder wrote.
    pub fn is_as_written(&self) -> bool {
        let written = self.backup.as_ref().map(|backup| &backup.written);
        written.is_some() && written == self.now.as_ref()
    }

    /// True if there is a backup, and the file has the bytes of before.
    pub fn is_as_before(&self) -> bool {
        let backup = self.backup.as_ref();
        backup.is_some_and(|backup| backup.before == self.now)
    }

    /// Stores a backup with `before` as the bytes to restore, then writes `text`. Blocking.
    ///
    /// # Errors
    /// A file or folder cannot be written.
    pub fn write(&self, before: Option<&[u8]>, text: &[u8]) -> io::Result<()> {
        let parent = self.path.parent().unwrap_or_else(|| Path::new("/"));
        let missing = parent.ancestors().take_while(|folder| !folder.exists());
        let mut folders: Vec<_> = missing.map(Path::to_owned).collect();
        folders.reverse();
        if let Some(backup) = self.backup.as_ref().filter(|_| folders.is_empty()) {
            folders.clone_from(&backup.folders);
        }
        self.write_backup(before, text, folders)?;
        fs::create_dir_all(parent)?;
        replace(&self.path, text)
    }

    fn write_backup(
        &self,
        before: Option<&[u8]>,
        text: &[u8],
        folders: Vec<PathBuf>,
    ) -> io::Result<()> {
        let folder = &self.backup_folder;
        fs::create_dir_all(folder)?;
        // Settings may contain tokens.
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        match before {
            Some(before) => replace(&folder.join("before"), before)?,
            None => remove_if_there(&folder.join("before"))?,
        }
        replace(&folder.join("written"), text)?;
        let record = Record {
            file: self.path.clone(),
            existed: before.is_some(),
            folders,
            sha256: Sha256::of(text).to_string(),
        };
        replace(&folder.join("record.json"), &serde_json::to_vec(&record)?)
    }

    /// Restores the bytes of before, or removes the file and its folders if there was none; then removes the backup.
    /// Does nothing without a backup. Blocking.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn restore(&self) -> io::Result<()> {
        let Some(backup) = &self.backup else {
            return Ok(());
        };
        match &backup.before {
            Some(before) => replace(&self.path, before)?,
            None => remove_if_there(&self.path)?,
        }
        for folder in backup.folders.iter().rev() {
            // A folder that has other files by now stays.
            let _ = fs::remove_dir(folder);
        }
        self.drop_backup()
    }

    /// Removes the backup. Blocking.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn drop_backup(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.backup_folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The lines that larder added or changed and that the file still has.
    pub fn own_lines_left(&self) -> Vec<String> {
        let Some(backup) = &self.backup else {
            return Vec::new();
        };
        let before = lines(backup.before.as_deref());
        let now = lines(self.now.as_deref());
        let own = lines(Some(&backup.written)).into_iter();
        own.filter(|line| !line.is_empty() && !before.contains(line) && now.contains(line))
            .collect()
    }

    /// The numbers, from 1, of the lines that were added or changed since larder wrote the file.
    pub fn foreign_lines(&self) -> Vec<usize> {
        let mut written = lines(self.backup.as_ref().map(|backup| &*backup.written));
        let mut foreign = Vec::new();
        for (number, line) in lines(self.now.as_deref()).iter().enumerate() {
            match written.iter().position(|one| one == line) {
                Some(place) => drop(written.remove(place)),
                None => foreign.push(number + 1),
            }
        }
        foreign
    }
}

/// The lines of a file, without the spaces at their ends.
fn lines(bytes: Option<&[u8]>) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// The file itself, or the one that a symbolic link leads to.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if path.symlink_metadata().is_ok() {
        return path.canonicalize();
    }
    // The folder may be a link too.
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path);
    };
    Ok(match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(_) => path,
    })
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match files::read(path, MAX_SETTINGS_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Replaces a file by a temporary one beside it, with the mode and, as far as permitted, the owner of the file.
#[expect(
    clippy::disallowed_methods,
    reason = "clients' settings are not in the store"
)]
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".larder-").suffix(".tmp");
    // The umask applies to it.
    let builder = builder.permissions(Permissions::from_mode(0o666));
    let mut new = builder.tempfile_in(folder)?;
    if let Ok(old) = path.metadata() {
        let _ = std::os::unix::fs::chown(new.path(), Some(old.uid()), Some(old.gid()));
        new.as_file().set_permissions(old.permissions())?;
    }
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_returns_generated_bytes_and_no_file_to_what_they_were() {
        let top = tempfile::tempdir().unwrap();
        let backups = Backups::new(top.path().join("state"));
        let mut random = fastrand::Rng::with_seed(13);
        for round in 0..40 {
            let path = top.path().join(format!("home{round}/cargo/config.toml"));
            let len = random.usize(..200);
            let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let before = (round % 4 > 0).then_some(bytes);
            if let Some(before) = &before {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, before).unwrap();
            }
            let file = backups.open(&path).unwrap();
            file.write(before.as_deref(), b"new").unwrap();
            let file = backups.open(&path).unwrap();
            assert!(file.is_as_written() && !file.is_as_before());
            file.restore().unwrap();
            assert_eq!(fs::read(&path).ok(), before);
            let folder = top.path().join(format!("home{round}"));
            assert_eq!(folder.exists(), before.is_some());
            assert!(backups.open(&path).unwrap().backup.is_none());
        }
    }

    #[test]
    fn mode_and_symbolic_link_stay_and_edited_lines_are_told() {
        let top = tempfile::tempdir().unwrap();
        let backups = Backups::new(top.path().join("state"));
        let (real, link) = (top.path().join("real"), top.path().join("link"));
        fs::write(&real, "a\n").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let file = backups.open(&link).unwrap();
        file.write(Some(b"a\n"), b"a\nours\n").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"a\nours\n");
        let mode = real.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        fs::write(&real, "b\nours\n").unwrap();
        let file = backups.open(&link).unwrap();
        assert!(!file.is_as_written() && !file.is_as_before());
        assert_eq!(file.own_lines_left(), ["ours"]);
        assert_eq!(file.foreign_lines(), [1]);
        fs::remove_file(&real).unwrap();
        assert!(backups.open(&link).is_err(), "the link leads nowhere");
    }
}
