//! [`PinNeeds`]: what pins need of the store. Pure.
//!
//! Beyond crates and archives, an offline client needs the entries that lead to them:
//!
//! ```text
//!  pin ─┬─ packages ──> crates, their index entries, and those that a later resolve asks for (`entries`)
//!       └─ archives ──> the manifests that list them, and every manifest of a later day: a nightly without a date
//!                       that lacks a component is looked for day by day, from today back
//!                       rustup's own releases, its programs, and the known absences
//! ```
//!
//! A registry is known by its name alone, so that a command with other settings holds the same files.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    hash::Sha256,
    resource::{Key, registry::package_of_key},
    store::{Owner, Pin},
};

/// The needs of all pins.
#[derive(Debug, Default)]
pub(crate) struct PinNeeds {
    owners: Vec<Owner>,
    /// Owners, as positions, by blob.
    blobs: HashMap<Sha256, Vec<usize>>,
    /// Registry and name of crates whose index entry is needed.
    crates: HashSet<(String, String)>,
    /// Crates without a checksum in their lock file: by registry and name the versions, with the owner.
    unresolved: BTreeMap<(String, String), BTreeSet<(String, usize)>>,
    /// Archives of toolchains.
    archives: HashSet<Sha256>,
}

impl PinNeeds {
    /// The needs of these pins.
    pub(crate) fn of(pins: &[Pin]) -> Self {
        let mut needs = Self::default();
        for (owner, pin) in pins.iter().enumerate() {
            needs.owners.push(pin.owner.clone());
            for package in &pin.packages {
                let name = (package.registry.clone(), package.name.to_ascii_lowercase());
                match package.checksum {
                    Some(sha256) => needs.add(sha256, owner),
                    None if !package.is_excluded => {
                        let versions = needs.unresolved.entry(name.clone()).or_default();
                        versions.insert((package.version.clone(), owner));
                    }
                    None => {}
                }
                needs.crates.insert(name);
            }
            for (registry, name) in pin.entries.iter().flatten() {
                let name = (registry.clone(), name.to_ascii_lowercase());
                needs.crates.insert(name);
            }
            for sha256 in &pin.archives {
                needs.add(*sha256, owner);
                needs.archives.insert(*sha256);
            }
            for sha256 in pin.sizes.keys() {
                needs.add(*sha256, owner);
            }
        }
        needs
    }

    fn add(&mut self, sha256: Sha256, owner: usize) {
        let owners = self.blobs.entry(sha256).or_default();
        if owners.last() != Some(&owner) {
            owners.push(owner);
        }
    }

    /// Adds crates whose lock file gives no checksum: `checksum` finds it in the index entry of a registry and name.
    pub(super) fn resolve(&mut self, checksum: impl Fn(&(String, String), &str) -> Vec<Sha256>) {
        for (name, versions) in std::mem::take(&mut self.unresolved) {
            for (version, owner) in versions {
                for sha256 in checksum(&name, &version) {
                    self.add(sha256, owner);
                }
            }
        }
    }

    /// The crates that [`PinNeeds::resolve`] will ask for, by registry and name.
    pub(super) fn unresolved(&self) -> HashSet<(String, String)> {
        self.unresolved.keys().cloned().collect()
    }

    /// The projects and toolchains that need this blob.
    pub(super) fn owners_of(&self, sha256: Sha256) -> impl Iterator<Item = &Owner> {
        let owners = self.blobs.get(&sha256).into_iter().flatten();
        owners.map(|&owner| &self.owners[owner])
    }

    /// Returns true if there is no pin.
    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Returns true if any pin needs this blob.
    pub(crate) fn has_blob(&self, sha256: Sha256) -> bool {
        self.blobs.contains_key(&sha256)
    }

    /// Returns true if any pin has a toolchain.
    pub(super) fn has_toolchains(&self) -> bool {
        !self.archives.is_empty()
    }

    /// Returns true if a manifest that lists these blobs belongs to a pinned toolchain.
    pub(super) fn has_archive_of(&self, lists: &[Sha256]) -> bool {
        lists.iter().any(|sha256| self.archives.contains(sha256))
    }

    /// Returns true if any pin needs this entry, besides manifests.
    pub(crate) fn has_entry(&self, key: &Key) -> bool {
        match package_of_key(key) {
            Some((registry, name)) => {
                let name = (registry.to_owned(), name.to_owned());
                self.crates.contains(&name)
            }
            None => self.has_toolchains() && RustupFile::of(key) == Some(RustupFile::Other),
        }
    }
}

/// Kinds of entries of a rustup server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RustupFile {
    /// The manifest of a channel, with the name of its file.
    Manifest(String),
    /// The sidecar of a program or an archive, or the hash of an unproven file.
    Sidecar,
    /// Rustup's release, its script, an absence.
    Other,
}

impl RustupFile {
    /// The kind of the entry of this key; `None` for one of a registry.
    pub(super) fn of(key: &Key) -> Option<Self> {
        let path = key.as_str().strip_prefix("rustup/")?;
        let name = path.rsplit('/').next().unwrap_or(path);
        Some(
            if path.starts_with("dist/") && name.starts_with("channel-rust-") {
                Self::Manifest(name.to_owned())
            } else if name.ends_with(".sha256") || path.starts_with("unproven/") {
                Self::Sidecar
            } else {
                Self::Other
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PinnedCrate;

    fn key(path: &str) -> Key {
        Key::of_path(path).unwrap()
    }

    #[test]
    fn a_pin_holds_its_crates_their_entries_and_those_of_a_later_resolve() {
        let [one, two, archive] = [b"1", b"2", b"3"].map(|text| Sha256::of(text));
        let package = |name: &str, checksum| PinnedCrate {
            registry: "corp".to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            checksum,
            is_excluded: false,
        };
        let pin = Pin {
            owner: Owner::Toolchain("a".to_owned()),
            packages: vec![package("One", Some(one)), package("two", None)],
            archives: Vec::new(),
            sizes: Default::default(),
            offered: Vec::new(),
            entries: Some(vec![("corp".to_owned(), "later".to_owned())]),
        };
        let mut needs = PinNeeds::of(std::slice::from_ref(&pin));
        for name in ["one", "two", "later"] {
            let folder = &name[..2];
            for index in ["corp-01234567", "corp-89abcdef"] {
                assert!(needs.has_entry(&key(&format!("{index}/index/{folder}/{name}"))));
            }
            let other = key(&format!("crates-io-01234567/index/{folder}/{name}"));
            assert!(!needs.has_entry(&other), "{name}");
        }
        assert!(needs.has_blob(one) && !needs.has_blob(two));
        needs.resolve(|name, version| {
            assert_eq!((name.1.as_str(), version), ("two", "1.0.0"));
            vec![two]
        });
        assert_eq!(needs.owners_of(two).collect::<Vec<_>>(), [&pin.owner]);
        let release = key("rustup/rustup/release-stable.toml");
        assert!(!needs.has_entry(&release));
        let toolchain = Pin {
            archives: vec![archive],
            packages: Vec::new(),
            ..pin
        };
        let needs = PinNeeds::of(&[toolchain]);
        assert!(needs.has_blob(archive) && needs.has_archive_of(&[one, archive]));
        assert!(needs.has_entry(&release));
        let unproven = key("rustup/unproven/dist/channel-rust-stable-date.txt");
        assert!(!needs.has_entry(&unproven));
        let manifest = key("rustup/dist/channel-rust-stable.toml");
        assert!(!needs.has_entry(&manifest), "by its date");
    }
}
