//! Faults of the `[source]` tables, each of which alone is valid: cargo's rules, `SourceConfigMap::add` and `add_config`
//! in `src/cargo/sources/config.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::files::{ConfigFault, ConfigFile, text_with_file};
use crate::lockfile::{PackageSource, parse_source};

/// The keys of a table that describe a source.
const LOCATIONS: [&str; 4] = ["registry", "local-registry", "directory", "git"];

/// The identity of a source. Two tables must not describe the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SourceId {
    Registry(PackageSource),
    Folder(PathBuf),
}

/// The first reason why cargo refuses the merged `[source]` tables, and with them every command that needs packages.
pub(super) fn source_fault(files: &[ConfigFile]) -> Option<ConfigFault> {
    let mut known = BTreeMap::from([(SourceId::Registry(PackageSource::CratesIo), "crates-io")]);
    for name in source_names(files) {
        let fault = |why: String| {
            let file = files.iter().find(|file| {
                let source = file.settings.get("source");
                source.is_some_and(|source| source.get(name).is_some())
            })?;
            let path = file.path.clone();
            Some(ConfigFault { path, why })
        };
        let has = |key: &&&str| text_with_file(files, &["source", name, key]).is_some();
        let locations: Vec<_> = LOCATIONS.iter().filter(has).collect();
        match locations.as_slice() {
            // Cargo knows its address.
            [] | [_] if name == "crates-io" => {}
            [] => {
                return fault(format!(
                    "has `[source.{name}]` without `registry`, `local-registry`, `directory` or `git`"
                ));
            }
            [key] => {
                let Some(id) = source_id(files, name, key) else {
                    continue;
                };
                if let Some(other) = known.insert(id, name) {
                    return fault(format!(
                        "has `[source.{name}]`, which is the source of `{other}` again; cargo refuses two names for one"
                    ));
                }
            }
            [first, second, ..] => {
                return fault(format!(
                    "has `[source.{name}]` with `{first}` and `{second}`"
                ));
            }
        }
    }
    None
}

/// The names of all sources that these files describe.
pub(super) fn source_names(files: &[ConfigFile]) -> BTreeSet<&str> {
    let tables = files.iter();
    let tables = tables.filter_map(|file| file.settings.get("source")?.as_table());
    tables
        .flat_map(|table| table.keys().map(String::as_str))
        .collect()
}

/// The registry that the settings describe by this address.
pub fn parse_registry(url: &str) -> Option<PackageSource> {
    let source = match url.starts_with("sparse+") {
        true => url.to_owned(),
        false => format!("registry+{url}"),
    };
    parse_source(&source).ok()
}

/// `None` for a kind of source that is not compared.
fn source_id(files: &[ConfigFile], name: &str, key: &str) -> Option<SourceId> {
    let (value, file) = text_with_file(files, &["source", name, key])?;
    match key {
        "registry" => Some(SourceId::Registry(parse_registry(value)?)),
        "directory" | "local-registry" => Some(SourceId::Folder(file.base.join(value))),
        _ => None,
    }
}
