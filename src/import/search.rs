//! Search for crates and index entries in a folder.
//!
//! | folder | known by | has |
//! |---|---|---|
//! | cargo home | `registry/cache`, `registry/index` | crates, entries in cargo's format |
//! | local registry | `index/` beside `.crate` files | crates, entries as an index has them |
//! | folder of crates | `.crate` files | crates |
//! | `cargo vendor` | `NAME/.cargo-checksum.json` | nothing that can be taken |

use std::{fs, path::Path};

use bytes::Bytes;

use super::{
    cargo_home,
    found::{Found, SkippedFile},
};
use crate::resource::Registries;

/// Searches a folder. Blocking.
pub(super) fn search(path: &Path, registries: &Registries) -> Found {
    let mut found = Found::default();
    if path.join("registry/cache").is_dir() || path.join("registry/index").is_dir() {
        cargo_home::search(path, registries, &mut found);
        return found;
    }
    if !path.is_dir() {
        let why = match path.exists() {
            true => "is no folder",
            false => "does not exist",
        };
        found.failed.push(SkippedFile::new(path, why));
        return found;
    }
    found.add_crates(path);
    let index = path.join("index");
    if index.is_dir() && !found.crates.is_empty() {
        found.add_entries(&index, None, |bytes| Some(Bytes::from(bytes)));
    }
    if found.crates.is_empty() {
        let why = if is_vendored(path) {
            "is made by `cargo vendor`: archives cannot be made again from unpacked crates; `larder warm` fetches them"
        } else {
            "is no cargo home and no local registry, and has no crates"
        };
        found.skipped.push(SkippedFile::new(path, why));
    }
    found
}

fn is_vendored(path: &Path) -> bool {
    let folders = fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders = folders.map(|folder| folder.path());
    folders.any(|folder| folder.join(".cargo-checksum.json").is_file())
}
