//! Resources of a cargo registry: its `config.json`, its index entries and its crate files.
//!
//! A sparse registry is a tree of static files. Cargo reads the config first, then one index entry for each crate name
//! that the resolve mentions, then the crate files of the versions that it chose.
//!
//! ```text
//!  index/config.json           {"dl": "https://files.example/{crate}/{version}", "api": ...}     config.rs
//!  index/se/rd/serde           {"name":"serde","vers":"1.0.0","cksum":"9f86...","deps":[...]}    index_entry.rs
//!                              {"name":"serde","vers":"1.0.1","cksum":"6030...","deps":[...]}    a line: index_line.rs
//!  files.example/serde/1.0.1   a gzip archive whose SHA-256 is `cksum`                           crate_file.rs
//!
//!  folder of an entry:   a -> 1/a    cc -> 2/cc    log -> 3/l/log    serde -> se/rd/serde
//! ```
//!
//! So a crate file depends on two other resources: the index entry lists its hash, and the config names its address. A
//! request often carries the hash already, because larder's own config puts it into the download URL
//! ([`config_for_client`]).
//!
//! One process can serve several registries. [`Registries`] has crates.io, whose paths begin at larder's root, and the
//! registries of the settings, whose paths begin with `registry/NAME/`.
//!
//! Facts about cargo cite its source, or a fact of `docs/client-behaviour.md` by id.

mod config;
mod crate_file;
mod download;
mod features;
#[cfg(test)]
mod fixture;
mod index_changes;
mod index_entry;
mod index_hints;
mod index_line;
mod index_needs;

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use url::Url;

use super::Key;
use crate::hash::Sha256;

pub use config::{RegistryConfig, config_for_client};
pub use crate_file::CrateFile;
pub use download::{crate_at, download_address};
pub use features::EnabledFeatures;
pub use index_changes::{ListedState, RecalledVersions, RewrittenVersion};
pub use index_entry::IndexEntry;
pub use index_line::listed_checksums;
pub use index_needs::{ListedVersion, NeededCrate, VersionNeeds};

/// The name of crates.io in the store, in paths and in the log.
pub const CRATES_IO: &str = "crates-io";

/// Registry and crate of an index entry, by its key: the registry's name and the crate's in lower case. `None` for
/// another entry. Tells it for registries that are not configured, too.
pub(crate) fn package_of_key(key: &Key) -> Option<(&str, &str)> {
    let (entry_folder, path) = key.as_str().split_once("/index/")?;
    let (registry, _) = entry_folder.rsplit_once('-')?;
    let (_, name) = path.split_once('/')?;
    Some((registry, name))
}

/// The configured registries, by name.
#[derive(Clone, Debug)]
pub struct Registries(HashMap<String, Arc<Registry>>);

/// One upstream registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Registry {
    /// [`CRATES_IO`], or the name in the settings; see [`Registry::is_valid_name`].
    name: String,
    /// The base URL of its sparse index, ending in `/`.
    index: Url,
    /// The folder of its entries in the store. It contains a hash of the index URL, so that entries from two URLs never
    /// mix.
    entry_folder: String,
    /// The largest crate that is accepted from upstream, in bytes.
    max_crate_bytes: u64,
}

impl Registries {
    /// The index of crates.io is at `crates_io`; `others` are the names and index URLs in the settings.
    pub fn new(crates_io: Url, others: impl IntoIterator<Item = (String, Url)>) -> Self {
        let registries = others
            .into_iter()
            .chain([(CRATES_IO.to_owned(), crates_io)]);
        Self(
            registries
                .map(|(name, index)| (name.clone(), Arc::new(Registry::new(name, index))))
                .collect(),
        )
    }

    /// The same registries, whose crates may have up to `bytes` bytes.
    #[must_use]
    pub fn with_max_crate(self, bytes: u64) -> Self {
        let bounded = |registry: Arc<Registry>| Registry {
            name: registry.name.clone(),
            index: registry.index.clone(),
            entry_folder: registry.entry_folder.clone(),
            max_crate_bytes: bytes,
        };
        let registries = self.0.into_iter();
        Self(
            registries
                .map(|(name, registry)| (name, Arc::new(bounded(registry))))
                .collect(),
        )
    }

    /// crates.io.
    pub fn crates_io(&self) -> &Arc<Registry> {
        self.0
            .get(CRATES_IO)
            .expect("the constructor inserts crates.io")
    }

    /// The registry with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Registry>> {
        self.0.get(name)
    }

    /// All registries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.0.values()
    }
}

impl Registry {
    /// [`CRATES_IO`], or the name in the settings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its entries in the store.
    pub fn entry_folder(&self) -> &str {
        &self.entry_folder
    }

    /// The base URL of its sparse index.
    pub fn index(&self) -> &Url {
        &self.index
    }

    /// The base URL of its sparse index, without credentials.
    pub fn public_index(&self) -> Url {
        let mut index = self.index.clone();
        // Both fail only for addresses without a host, which cannot carry credentials.
        let _ = index.set_password(None);
        let _ = index.set_username("");
        index
    }

    fn new(name: String, index: Url) -> Self {
        let entry_folder = format!(
            "{name}-{:.8}",
            Sha256::of(index.as_str().as_bytes()).to_string()
        );
        Self {
            name,
            index,
            entry_folder,
            max_crate_bytes: u64::MAX,
        }
    }

    /// `true` if `name` consists of lower-case letters, digits, `-` and `_`. Without upper case no two names share a
    /// folder on any file system.
    pub fn is_valid_name(name: &str) -> bool {
        is_crate_name(name) && !name.contains(|c: char| c.is_ascii_uppercase())
    }

    /// The registry in messages.
    fn display_name(&self) -> Cow<'_, str> {
        if self.name == CRATES_IO {
            "crates.io".into()
        } else {
            format!("registry `{}`", self.name).into()
        }
    }

    /// The URL of `path` below the index.
    fn url_of(&self, path: &str) -> Url {
        self.index
            .join(path)
            .expect("a validated path joins any base address")
    }
}

/// Writes the registry's name after that of its resource, except for crates.io.
fn write_registry_suffix(f: &mut fmt::Formatter<'_>, registry: &Registry) -> fmt::Result {
    if registry.name == CRATES_IO {
        Ok(())
    } else {
        write!(f, " in {}", registry.display_name())
    }
}

/// The index folder of a crate (docs/client-behaviour.md C-01).
fn index_folder(name: &str) -> String {
    match name.len() {
        1 | 2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

/// `true` if these segments, in any case, are the [`index_folder`] of `name`. Runs on each request, so it builds no
/// string.
fn is_index_folder_of(folder: &[&str], name: &str) -> bool {
    match (name.len(), folder) {
        (1, ["1"]) | (2, ["2"]) => true,
        (3, ["3", first]) => first.eq_ignore_ascii_case(&name[..1]),
        (4.., [first, second]) => {
            first.eq_ignore_ascii_case(&name[..2]) && second.eq_ignore_ascii_case(&name[2..4])
        }
        _ => false,
    }
}

/// `true` if crates.io would allow the characters and the length of this crate name. That also makes it safe as a path
/// segment. Reserved names pass, because only upstream knows which names exist.
fn is_crate_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `true` if `version` consists of the characters of semantic versioning, build metadata included.
fn is_version(version: &str) -> bool {
    (1..=128).contains(&version.len())
        && version.starts_with(|c: char| c.is_ascii_digit())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
}
