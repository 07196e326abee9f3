//! Paths and folders of the store.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use walkdir::WalkDir;

use super::error::StoreError;

/// The format of everything below it.
pub(super) const FORMAT_VERSION: &str = "v1";

/// Backup tools and `warm` itself skip folders that bear this (bford.info/cachedir).
pub(super) const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This folder is a store of larder. Deleting it costs time and downloads, nothing else.\n";

/// Makes a folder and its parents, for its owner only.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file for its owner only, unless there is one, or a link: nothing is written through it.
pub(super) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whoever can write to the store can choose what builds are made of, so it must be ours alone.
pub(super) fn check_ownership(folder: &Path) -> Result<(), StoreError> {
    let refuse = |why: String| {
        Err(StoreError::Unusable {
            folder: folder.to_owned(),
            why,
        })
    };
    for part in [folder.to_owned(), folder.join(FORMAT_VERSION)] {
        let Ok(found) = fs::metadata(&part) else {
            continue;
        };
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me {
            return refuse(format!(
                "it belongs to user {}, and this is user {me}",
                found.uid()
            ));
        }
        if found.mode() & 0o022 != 0 {
            return refuse(format!(
                "other users may write to it (mode {:o})",
                found.mode() & 0o7777
            ));
        }
    }
    Ok(())
}

/// Opens for reading, never through a symbolic link; `None` if there is nothing.
pub(super) fn open_nofollow(path: &Path) -> io::Result<Option<File>> {
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    match OpenOptions::new()
        .read(true)
        .custom_flags(nofollow)
        .open(path)
    {
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

/// Whether there is a file with something in it, and no link.
pub(super) fn is_nonempty_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// Files below a folder and their bytes.
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
