//! The layout of larder's store on disk, for tests that inspect or damage it.
//!
//! ```text
//!   STORE/v1/entries/crates-io-HASH/index/se/serde     one index entry
//!   STORE/v1/blobs/ab/cdef...                          one crate or archive, by its SHA-256
//! ```

use std::path::{Path, PathBuf};
use std::{fs, io};

use fake_upstream::sha256;
use serde_json::Value;

use crate::larder::Site;

/// Every file below a folder with its content, and every symbolic link with its target, sorted by path. A file that
/// vanishes during the listing is left out: larder's staged files do.
#[track_caller]
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut files = Vec::new();
    for found in walkdir::WalkDir::new(folder) {
        let found = match found {
            Ok(found) => found,
            Err(error) if error.io_error().is_some_and(is_gone) => continue,
            Err(error) => panic!("the folder cannot be listed: {error}"),
        };
        if found.file_type().is_dir() {
            continue;
        }
        let content = if found.path_is_symlink() {
            fs::read_link(found.path()).map(|target| target.into_os_string().into_encoded_bytes())
        } else {
            fs::read(found.path())
        };
        match content {
            Ok(content) => files.push((found.into_path(), content)),
            Err(error) if is_gone(&error) => {}
            Err(error) => panic!("{} cannot be read: {error}", found.path().display()),
        }
    }
    files.sort();
    files
}

/// The paths of all stored blobs.
#[track_caller]
pub fn blobs(site: &Site) -> Vec<PathBuf> {
    let folder = site.store().join("v1/blobs");
    files(&folder).into_iter().map(|(path, _)| path).collect()
}

/// The path of the blob with this SHA-256.
pub fn blob_path(site: &Site, sum: &str) -> PathBuf {
    site.store()
        .join("v1/blobs")
        .join(&sum[..2])
        .join(&sum[2..])
}

/// The path of a crate's index entry, of crates.io.
pub fn entry_file(site: &Site, name: &str) -> PathBuf {
    index_folder(site)
        .join(name.get(..2).unwrap_or(name))
        .join(name)
}

/// The folder of crates.io's entries.
pub fn crates_io_folder(site: &Site) -> PathBuf {
    let sum = sha256(site.index().as_bytes());
    let folder = format!("crates-io-{}", &sum[..8]);
    site.store().join("v1/entries").join(folder)
}

/// The folder of crates.io's index entries.
pub fn index_folder(site: &Site) -> PathBuf {
    crates_io_folder(site).join("index")
}

/// The record of an entry as the first releases wrote it: it does not name its place.
#[track_caller]
pub fn without_place(record: &[u8]) -> Vec<u8> {
    let end = record.iter().position(|&byte| byte == b'\n');
    let (line, body) = record.split_at(end.expect("a record has a first line"));
    let facts = line
        .strip_prefix(b"larder-entry ")
        .expect("a record begins so");
    let facts = serde_json::from_slice(facts);
    let mut facts: serde_json::Map<String, Value> = facts.expect("its facts are JSON");
    facts.remove("key");
    facts.remove("seal");
    [
        format!("larder-entry {}", Value::from(facts)).as_bytes(),
        body,
    ]
    .concat()
}
