//! Opens and reads files that larder has not just written: whatever a user, another program or a broken disk has put
//! there.
//!
//! ```text
//!  open without waiting ──> a regular file? ──> small enough? ──> read, at most the limit
//!                                  │ no               │ no
//!                                  └──── an error ────┘
//! ```
//!
//! Opening a FIFO would wait for its other end, possibly for ever, so files are opened with `O_NONBLOCK` (which changes
//! nothing for regular files). A file's size is compared with a limit before it is read: a sparse file of terabytes
//! costs its owner nothing, and would take all memory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

/// Size limit of a `Cargo.lock` in bytes. Those of the largest workspaces have less than two megabytes.
pub const MAX_LOCK_FILE_BYTES: u64 = 32 << 20;
/// Size limit of a `Cargo.toml` or of cargo's settings in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;
/// Size limit of a toolchain file, of rustup's settings and of larder's own in bytes.
pub const MAX_SETTINGS_BYTES: u64 = 1 << 20;
/// Size limit of a file of root certificates in bytes. Those of distributions have 200 kB.
pub const MAX_CERTIFICATES_BYTES: u64 = 16 << 20;

/// A file that cannot be read although the operating system would try.
#[derive(Debug, thiserror::Error)]
pub enum UnfitFile {
    /// A folder, a FIFO, a socket or a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// Too many bytes.
    #[error("it is larger than {} MB, which no such file is", .limit.div_ceil(1 << 20))]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

impl From<UnfitFile> for io::Error {
    fn from(error: UnfitFile) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Reads the regular file at `path`, or the one that a symbolic link there leads to.
///
/// # Errors
/// [`UnfitFile`], or the operating system's error.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(&open(path, OFlags::empty())?, limit)
}

/// [`read`] for a file that the user named, which may be a pipe, as in `--config <(command)`.
///
/// # Errors
/// [`UnfitFile::TooLarge`], or the operating system's error.
pub fn read_named(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(&File::open(path)?, limit)
}

/// [`read`] for text.
///
/// # Errors
/// As [`read`], and `InvalidData` for bytes that are not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// The text in a file's bytes.
///
/// # Errors
/// `InvalidData` for bytes that are not UTF-8.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Checks that [`read`] would read the file.
///
/// # Errors
/// As [`read`].
pub fn check(path: &Path, limit: u64) -> io::Result<()> {
    check_len(&open(path, OFlags::empty())?, limit).map(drop)
}

/// Reads an open file from its current position to its end.
///
/// # Errors
/// [`UnfitFile::TooLarge`], or the operating system's error.
pub fn read_open(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let len = check_len(file, limit)?;
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    // It may grow meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(UnfitFile::TooLarge { limit }.into());
    }
    Ok(bytes)
}

/// Opens the regular file at `path` for reading, unless it is a symbolic link. `None` if there is nothing.
///
/// # Errors
/// An error that [`is_no_file`] recognises, or another of the operating system.
pub fn open_nofollow(path: &Path) -> io::Result<Option<File>> {
    match open(path, OFlags::NOFOLLOW) {
        Ok(file) => Ok(Some(file)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens a lock file for writing: some network file systems grant an exclusive lock only then.
///
/// # Errors
/// The operating system's error, `ENXIO` for a FIFO.
pub fn open_to_lock(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
}

/// Returns whether something else than a regular file lies in the file's place.
pub fn is_no_file(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unfit = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(unfit, Some(UnfitFile::NotRegular))
        || error.kind() == io::ErrorKind::IsADirectory
        || [Errno::LOOP, Errno::NXIO]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(UnfitFile::NotRegular.into())
    }
}

fn check_len(file: &File, limit: u64) -> io::Result<u64> {
    let len = file.metadata()?.len();
    if len > limit {
        return Err(UnfitFile::TooLarge { limit }.into());
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "four").unwrap();
        assert_eq!(read_text(&path("file"), 4).unwrap(), "four");
        let error = read(&path("file"), 3).unwrap_err();
        assert!(error.to_string().contains("larger than 1 MB"), "{error}");
        assert!(!is_no_file(&error));
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(read(&path("link"), 4).unwrap(), b"four");
        assert!(is_no_file(&open_nofollow(&path("link")).unwrap_err()));
        mknodat(
            CWD,
            path("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        for name in ["fifo", "socket", "folder"] {
            assert!(is_no_file(&read(&path(name), 4).unwrap_err()), "{name}");
        }
        assert!(open_nofollow(&path("absent")).unwrap().is_none());
        assert!(open_nofollow(&path("file/below")).unwrap().is_none());
    }
}
