//! The paths that cargo requests from larder.

use fake_upstream::index_path;

/// The path of a crate's index entry.
pub fn entry(name: &str) -> String {
    format!("/{}", index_path(name))
}

/// The path of a crate file, without its checksum.
pub fn download(name: &str, version: &str) -> String {
    format!("/crates/{name}/{version}/download")
}
