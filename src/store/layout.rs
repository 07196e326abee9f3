//! Paths of a store, and safe ways to open, create and inspect the files and folders below it.
//!
//! The drawing in the head of `store` shows the layout.
//!
//! Only the user has access: folders have mode 0700 and files 0600. Builds run the code in the store, so another user
//! who could write to it would choose what runs. And other users must not read a private registry's crates.
//! [`StoreLayout::check_ownership`] refuses a folder that others may write to.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::geteuid;
use walkdir::WalkDir;

use super::{error::UnusableFolder, root::Root};
use crate::{hash::Sha256, resource::Key};

/// The folder of the current format. A change of format takes another name and never converts existing files.
const FORMAT_VERSION: &str = "v1";

/// Size limit of an entry's file in bytes: the largest body that a kind allows, its sidecar and its first line.
pub(super) const MAX_ENTRY_FILE_BYTES: u64 = 65 << 20;
/// Size limit in bytes of files that hold a line or two.
pub(super) const MAX_NOTE_BYTES: u64 = 64 << 10;

/// Contents of `CACHEDIR.TAG`. Backup tools skip folders with this file (bford.info/cachedir), and so does `warm`
/// when it looks for projects.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This folder is a store of larder. Deleting it costs time and downloads, nothing else.\n";

/// Paths of one store.
#[derive(Clone, Debug)]
pub(super) struct StoreLayout {
    /// The folder the user chose.
    folder: PathBuf,
    /// The folder of the current format below it.
    top: PathBuf,
    root: Arc<Root>,
}

impl StoreLayout {
    pub(super) fn new(folder: &Path) -> Self {
        let top = folder.join(FORMAT_VERSION);
        Self {
            root: Arc::new(Root::new(folder, &top)),
            folder: folder.to_owned(),
            top,
        }
    }

    /// Checks that the store may be written to, because its folder is the one that was opened or one made anew.
    ///
    /// # Errors
    /// `ReadOnlyFilesystem` if the folder was replaced by one that is not trusted.
    pub(super) fn check_root(&self) -> io::Result<()> {
        self.root.check(|| self.check_ownership())
    }

    /// The reason why [`StoreLayout::check_root`] last refused the folder.
    pub(super) fn problem(&self) -> Option<String> {
        self.root.problem()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    pub(super) fn entries(&self) -> PathBuf {
        self.join(&["entries"])
    }

    pub(super) fn entry(&self, key: &Key) -> PathBuf {
        self.join(&["entries", key.as_str()])
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.join(&["blobs"])
    }

    /// The first two digits are a folder, because some file systems are slow with a million files in one.
    pub(super) fn blob(&self, sha256: Sha256) -> PathBuf {
        let digits = sha256.digits();
        let digits = std::str::from_utf8(&digits).unwrap_or_default();
        let (first, rest) = digits.split_at(2);
        self.join(&["blobs", first, rest])
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.join(&["staging"])
    }

    /// The file with the state of the scrub.
    pub(super) fn scrub(&self) -> PathBuf {
        self.join(&["scrub.json"])
    }

    /// The file with the last uses of blobs.
    pub(super) fn last_use(&self) -> PathBuf {
        self.join(&["last-use"])
    }

    /// The file that says since when the files of pins have been gone.
    pub(super) fn gone(&self) -> PathBuf {
        self.join(&["gone.json"])
    }

    /// The file with what upstream has taken back.
    pub(super) fn recalls(&self) -> PathBuf {
        self.join(&["recalls.json"])
    }

    /// The file that the process locks which removes files.
    pub(super) fn eviction_lock(&self) -> PathBuf {
        self.join(&["eviction-lock"])
    }

    /// The folder of damaged files.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.join(&["quarantine"])
    }

    /// The place in the quarantine of a file of the store.
    pub(super) fn quarantine_of(&self, path: &Path) -> PathBuf {
        let relative = path.strip_prefix(&self.top).unwrap_or(path);
        self.quarantine().join(relative)
    }

    /// The folder of pins. On disk it is called `projects`; another name would lose the pins of existing stores.
    pub(super) fn pins(&self) -> PathBuf {
        self.join(&["projects"])
    }

    /// The file with the archive format of toolchain manifests.
    pub(super) fn toolchain_format(&self) -> PathBuf {
        self.join(&["toolchain-format"])
    }

    /// The file with the address of the index whose entries are in the folder `entry_folder`.
    pub(super) fn index(&self, entry_folder: &str) -> PathBuf {
        self.join(&["indexes", entry_folder])
    }

    /// An owner is a path, or the name of a toolchain or crate. Its hash is a file name, whatever characters it has.
    pub(super) fn pin(&self, owner: &str) -> PathBuf {
        let hash = Sha256::of(owner.as_bytes()).to_string();
        self.join(&["projects", &format!("{}.json", &hash[..32])])
    }

    /// A path below `top`. Every hit builds one, so the buffer is allocated once and in full.
    fn join(&self, parts: &[&str]) -> PathBuf {
        let len = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut path = PathBuf::with_capacity(self.top.as_os_str().len() + len);
        path.push(&self.top);
        path.extend(parts);
        path
    }

    /// Checks that this user owns the store and no other user may write to it. A missing folder passes.
    pub(super) fn check_ownership(&self) -> Result<(), UnusableFolder> {
        for folder in [&self.folder, &self.top] {
            let Ok(found) = fs::metadata(folder) else {
                continue;
            };
            let (owner, user) = (found.uid(), geteuid().as_raw());
            if owner != user {
                return Err(UnusableFolder::OtherOwner {
                    folder: self.folder.clone(),
                    owner,
                    user,
                });
            }
            check_mode(&found)?;
        }
        Ok(())
    }

    /// Checks that the store may be read by a command that writes nothing. It may belong to another user, who then runs
    /// the builds from it. Returns whether it does.
    pub(super) fn check_readable(&self) -> Result<bool, UnusableFolder> {
        let other_owner = match self.check_ownership() {
            Err(error @ UnusableFolder::OtherOwner { .. }) => Some(error),
            checked => checked.map(|()| None)?,
        };
        for folder in [&self.folder, &self.top, &self.entries(), &self.blobs()] {
            match fs::read_dir(folder) {
                Ok(_) if other_owner.is_some() => check_mode(&fs::metadata(folder)?)?,
                Err(error) if UNREADABLE.contains(&error.kind()) => {
                    return Err(other_owner.unwrap_or(UnusableFolder::Io(error)));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(other_owner.is_some())
    }

    /// Writes `CACHEDIR.TAG`. Leaves a file or a link of that name alone, so that nothing is written through a link.
    pub(super) fn write_cachedir_tag(&self) -> io::Result<()> {
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.folder.join("CACHEDIR.TAG"));
        match created {
            Ok(mut file) => file.write_all(CACHEDIR_TAG.as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Errors of a store that is there and cannot be read. Without them, everything would seem to be missing.
const UNREADABLE: [io::ErrorKind; 2] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::NotADirectory,
];

/// Refuses a folder that its group or all users may write to.
fn check_mode(found: &fs::Metadata) -> Result<(), UnusableFolder> {
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(UnusableFolder::WritableByOthers { mode });
    }
    Ok(())
}

/// Creates a folder and its parents with mode 0700.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Returns whether nothing is at `path`, from one `stat` on the calling thread. Handing a read to a thread for blocking
/// work takes longer than that, and most requests on an empty store find nothing.
pub(super) fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Returns whether `path` is a file, not a link, with at least one byte.
pub(super) fn is_nonempty_file(path: &Path) -> bool {
    file_size(path).is_some()
}

/// Size of the file at `path` in bytes; `None` if there is none, or it is empty or a link.
pub(super) fn file_size(path: &Path) -> Option<u64> {
    let found = fs::symlink_metadata(path).ok()?;
    (found.is_file() && found.len() > 0).then_some(found.len())
}

/// Number of files below a folder, and their size in bytes.
pub(super) fn count_files(folder: &Path) -> (u64, u64) {
    WalkDir::new(folder)
        .into_iter()
        .flatten()
        .filter_map(|found| found.metadata().ok())
        .filter(fs::Metadata::is_file)
        .fold((0, 0), |(files, bytes), found| {
            (files + 1, bytes + found.len())
        })
}
