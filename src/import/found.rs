//! The content of one folder: crates, index entries, and files that are left out.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use semver::Version;
use serde::Serialize;
use walkdir::WalkDir;

use crate::{clock::now, files, resource::Registry};

/// Size limit of an index entry, in bytes.
const MAX_ENTRY_FILE: u64 = 64 << 20;

/// A file or folder that was not imported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SkippedFile {
    /// The file or folder.
    pub path: PathBuf,
    /// The reason.
    pub why: String,
}

/// The content of one folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) crates: Vec<CrateArchive>,
    pub(super) entries: Vec<CachedEntry>,
    pub(super) skipped: Vec<SkippedFile>,
    pub(super) failed: Vec<SkippedFile>,
}

/// A `.crate` file.
#[derive(Debug)]
pub(super) struct CrateArchive {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) version: String,
    /// Size in bytes.
    pub(super) bytes: u64,
}

/// An index entry in a file.
#[derive(Debug)]
pub(super) struct CachedEntry {
    pub(super) path: PathBuf,
    /// The registry whose entry it is; `None` if it only states hashes.
    pub(super) registry: Option<Arc<Registry>>,
    /// The crate's name in lower case.
    pub(super) name: String,
    /// One line for each version.
    pub(super) body: Bytes,
    /// When it was written, not after now.
    pub(super) written: SystemTime,
}

impl SkippedFile {
    pub(super) fn new(path: &Path, why: impl std::fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

impl Found {
    /// Adds the `.crate` files of a folder.
    pub(super) fn add_crates(&mut self, folder: &Path) {
        let files = match fs::read_dir(folder) {
            Ok(files) => files,
            Err(error) => return self.failed.push(SkippedFile::new(folder, error)),
        };
        for file in files.flatten() {
            let path = file.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            // Cargo takes an empty file for none.
            if !metadata.is_file() || metadata.len() == 0 {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str());
            let stem = name.and_then(|name| name.strip_suffix(".crate"));
            if let Some((name, version)) = stem.and_then(name_and_version) {
                self.crates.push(CrateArchive {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    bytes: metadata.len(),
                    path,
                });
            }
        }
        self.crates.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// Adds the entries below a folder. `decode` reads a file, and returns `None` if it is no entry.
    pub(super) fn add_entries(
        &mut self,
        folder: &Path,
        registry: Option<&Arc<Registry>>,
        decode: impl Fn(Vec<u8>) -> Option<Bytes>,
    ) {
        let files = WalkDir::new(folder).sort_by_file_name().into_iter();
        for file in files.flatten().filter(|file| file.file_type().is_file()) {
            let path = file.into_path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.filter(|name| !name.contains('.')) else {
                continue;
            };
            let Ok(bytes) = files::read(&path, MAX_ENTRY_FILE) else {
                continue;
            };
            let Some(body) = decode(bytes) else {
                continue;
            };
            let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
            self.entries.push(CachedEntry {
                registry: registry.cloned(),
                name: name.to_ascii_lowercase(),
                body,
                written: written.map_or(SystemTime::UNIX_EPOCH, |written| written.min(now())),
                path,
            });
        }
    }
}

/// Splits `NAME-VERSION`. Both may contain hyphens; the version begins with a number that has two dots.
fn name_and_version(stem: &str) -> Option<(&str, &str)> {
    let mut hyphens = stem.match_indices('-');
    hyphens.find_map(|(at, _)| {
        let (name, version) = (&stem[..at], &stem[at + 1..]);
        Version::parse(version).ok().map(|_| (name, version))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_is_split_before_the_version() {
        for (stem, name, version) in [
            ("serde-1.0.2", "serde", "1.0.2"),
            ("a-1-2.0.0-rc.1", "a-1", "2.0.0-rc.1"),
            ("b-0.1.0+x-y", "b", "0.1.0+x-y"),
        ] {
            assert_eq!(name_and_version(stem), Some((name, version)));
        }
        assert_eq!(name_and_version("serde"), None);
    }
}
