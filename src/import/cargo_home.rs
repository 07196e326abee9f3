//! Cargo's home: `registry/cache` has crates, `registry/index` has the index entries that cargo has read.
//!
//! Both have a folder for each registry, named `HOST-HASH`. The hash is that of the registry's address, so it cannot be
//! turned back: [`registries_by_folder`] computes the names of the registries that larder knows. An entry is a file in
//! cargo's own format, which `tame-index` reads.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tame_index::{index::cache::ValidCacheEntry, utils::url_to_local_dir};

use super::found::Found;
use crate::resource::{Registries, Registry};

/// Adds what a cargo home has.
pub(super) fn search(home: &Path, registries: &Registries, found: &mut Found) {
    let known = registries_by_folder(registries);
    for folder in folders_in(&home.join("registry/index")) {
        let registry = folder_name(&folder).and_then(|name| known.get(name));
        let cache = folder.join(".cache");
        if cache.is_dir() {
            found.add_entries(&cache, registry, |bytes| entry_body(&bytes));
        }
    }
    for folder in folders_in(&home.join("registry/cache")) {
        found.add_crates(&folder);
    }
}

/// The number of crates in a cargo home that come from registries which larder knows.
pub fn importable_crates(home: &Path, registries: &Registries) -> usize {
    let known = registries_by_folder(registries);
    let folders = folders_in(&home.join("registry/cache"));
    let folders = folders.iter().filter(|folder| {
        let name = folder_name(folder).filter(|name| known.contains_key(*name));
        name.is_some_and(|name| {
            home.join("registry/index")
                .join(name)
                .join(".cache")
                .is_dir()
        })
    });
    let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    files
        .filter(|file| file.path().extension().is_some_and(|end| end == "crate"))
        .count()
}

/// The registries in larder's settings, by the names that cargo gives to their folders. Versions before 1.85 compute
/// the hash in another way.
fn registries_by_folder(registries: &Registries) -> HashMap<String, Arc<Registry>> {
    let mut folders = HashMap::new();
    for registry in registries.iter() {
        let index = format!("sparse+{}", registry.public_index());
        for is_stable in [true, false] {
            if let Ok(folder) = url_to_local_dir(&index, is_stable) {
                folders.insert(folder.dir_name, registry.clone());
            }
        }
    }
    folders
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<_> = files.map(|file| file.path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn folder_name(folder: &Path) -> Option<&str> {
    folder.file_name()?.to_str()
}

/// The lines of an entry in cargo's format: after a head, version and line of each version, a zero byte after each.
fn entry_body(file: &[u8]) -> Option<Bytes> {
    let entry = ValidCacheEntry::read(file).ok()?;
    let mut parts = entry.version_entries.split(|byte| *byte == 0);
    let mut body = Vec::with_capacity(entry.version_entries.len());
    while let (Some(version), Some(line)) = (parts.next(), parts.next()) {
        if version.is_empty() {
            break;
        }
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    (!body.is_empty()).then(|| body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_has_the_lines_of_cargos_file() {
        let file = b"\x03\x02\0\0\0etag: \"x\"\x001.0.0\0{\"a\":1}\x001.1.0\0{\"a\":2}\0";
        assert_eq!(
            entry_body(file).as_deref(),
            Some(b"{\"a\":1}\n{\"a\":2}\n".as_slice())
        );
        assert_eq!(
            entry_body(b"\x01\x02\0\0\0etag: \"x\"\x001.0.0\0{}\0"),
            None
        );
        assert_eq!(entry_body(b""), None);
    }
}
