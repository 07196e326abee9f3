//! What cargo asks for: a registry's config, its index entries, its crate files. Pure; the facts about cargo cite its
//! functions so that the next reader can check whether they still hold.

mod config;
mod crate_file;
#[cfg(test)]
mod fixture;
mod index_entry;
mod index_line;

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use url::Url;

use crate::hash::Sha256;

pub use config::{RegistryConfig, config_for_client};
pub use crate_file::CrateFile;
pub use index_entry::IndexEntry;

/// The store's and the log's name for crates.io.
pub const CRATES_IO: &str = "crates-io";

/// The registries this larder serves, by name.
#[derive(Clone, Debug)]
pub struct Registries(HashMap<String, Arc<Registry>>);

/// One registry upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Registry {
    /// `crates-io`, or the name the user gave it: one harmless path segment.
    name: String,
    /// The base address of its sparse index, ending in `/`.
    index: Url,
    /// Where its entries are kept: what was fetched from one address never passes for another's.
    entry_folder: String,
}

impl Registries {
    /// crates.io's index is at `crates_io`; the others are what the settings name.
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

    /// crates.io.
    pub fn crates_io(&self) -> &Arc<Registry> {
        self.0
            .get(CRATES_IO)
            .expect("the constructor put crates.io in")
    }

    /// The registry of that name, if there is one.
    pub fn named(&self, name: &str) -> Option<&Arc<Registry>> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.0.values()
    }
}

impl Registry {
    /// `crates-io`, or the name the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The base address of its sparse index.
    pub fn index(&self) -> &Url {
        &self.index
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
        }
    }

    /// Whether `name` can name a registry: small letters, digits, `-` and `_`, so that no two names share a folder
    /// anywhere.
    pub fn is_valid_name(name: &str) -> bool {
        is_crate_name(name) && !name.contains(|c: char| c.is_ascii_uppercase())
    }

    /// How people are told of it.
    fn display_name(&self) -> Cow<'_, str> {
        if self.name == CRATES_IO {
            "crates.io".into()
        } else {
            format!("registry `{}`", self.name).into()
        }
    }

    fn url_of(&self, path: &str) -> Url {
        self.index
            .join(path)
            .expect("a validated path joins any base address")
    }
}

fn write_registry_suffix(f: &mut fmt::Formatter<'_>, registry: &Registry) -> fmt::Result {
    if registry.name == CRATES_IO {
        Ok(())
    } else {
        write!(f, " in {}", registry.display_name())
    }
}

/// The index folder of a crate (cargo, `make_dep_path` in `cargo-util/src/registry.rs`).
fn index_folder(name: &str) -> String {
    match name.len() {
        1 | 2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

/// Whether these segments, in any case, are the index folder of a crate: [`index_folder`] without its string.
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

/// Whether `name` may name a crate: what crates.io allows, and nothing that could be mistaken for a path. Names that
/// crates.io reserves pass: whether they exist is upstream's to say.
fn is_crate_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether `version` may be a version: the characters of semantic versioning, build metadata included.
fn is_version(version: &str) -> bool {
    (1..=128).contains(&version.len())
        && version.starts_with(|c: char| c.is_ascii_digit())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
}
