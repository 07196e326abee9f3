//! A larder before a fake upstream, and a look into its store: what many tests begin and end with.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use fake_upstream::{FakeUpstream, index_path, sha256};

use crate::support::larder::{Larder, Site};

/// A larder with an empty store in front of this upstream.
#[track_caller]
pub(crate) fn site(upstream: &FakeUpstream) -> Site {
    Site::new(env!("CARGO_BIN_EXE_larder"), &upstream.url())
}

/// The path of a crate's index entry.
pub(crate) fn entry(name: &str) -> String {
    format!("/{}", index_path(name))
}

/// The path of a crate, without its checksum.
pub(crate) fn download(name: &str, version: &str) -> String {
    format!("/crates/{name}/{version}/download")
}

/// Every file below a folder with its bytes, and every link with its target, sorted by path. A file that vanishes while it
/// is looked at, as staged ones do, is not there.
#[track_caller]
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
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

/// Where the store keeps its blobs, and which there are.
#[track_caller]
pub(crate) fn blobs(site: &Site) -> Vec<PathBuf> {
    let folder = site.store().join("v1/blobs");
    files(&folder).into_iter().map(|(path, _)| path).collect()
}

/// Where the store keeps this blob.
pub(crate) fn blob_path(site: &Site, sum: &str) -> PathBuf {
    site.store()
        .join("v1/blobs")
        .join(&sum[..2])
        .join(&sum[2..])
}

/// Where the store keeps the entry of this crate of crates.io.
pub(crate) fn entry_file(site: &Site, name: &str) -> PathBuf {
    entries(site).join(name.get(..2).unwrap_or(name)).join(name)
}

/// Waits until no fetch is under way and all is stored: clients have their answers before.
#[track_caller]
pub(crate) fn settle(larder: &Larder<'_>) {
    until("all fetches have landed", || {
        let status = larder.get("/-/status.json").text();
        status.contains("\"fetching\":0") && status.contains("\"storing\":0")
    });
}

/// One of the daemon's totals.
#[track_caller]
pub(crate) fn total(larder: &Larder<'_>, name: &str) -> u64 {
    let status = larder.get("/-/status.json").text();
    let Some((_, rest)) = status.split_once(&format!("\"{name}\":")) else {
        return 0;
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
    rest[..end].parse().unwrap()
}

/// Waits for what must come true soon.
#[track_caller]
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the store keeps what it has of crates.io.
pub(crate) fn crates_io(site: &Site) -> PathBuf {
    let sum = sha256(site.index().as_bytes());
    let folder = format!("crates-io-{}", &sum[..8]);
    site.store().join("v1/entries").join(folder)
}

/// Where the store keeps its index entries of crates.io.
pub(crate) fn entries(site: &Site) -> PathBuf {
    crates_io(site).join("index")
}
