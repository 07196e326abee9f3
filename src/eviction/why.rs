//! `larder status --why`: why a stored crate or archive stays, or that it would go.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    gone, names,
    policy::{Hold, RemovalLimits},
    survey::Survey,
};
use crate::{
    hash::Sha256,
    resource::Upstreams,
    store::{Store, StoreError},
};

/// The stored files of one name and version.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// The files; empty if none is stored.
    pub files: Vec<WhyFile>,
}

/// One stored crate or archive.
#[derive(Clone, Debug, Serialize)]
pub struct WhyFile {
    /// The resource, as people write it.
    pub what: String,
    /// Its path in the store.
    pub file: String,
    /// The space that it takes, in bytes.
    pub bytes: u64,
    /// Its last use, in seconds since 1970.
    pub last_used: u64,
    /// The projects and toolchains that need it.
    pub pinned_by: Vec<String>,
    /// Why eviction leaves it alone besides pins, if it does.
    pub held: Option<&'static str>,
    /// True if `larder gc` would remove it now, by the limit in the settings.
    pub gc_would_remove: bool,
}

/// Explains the stored crate `name version`, or the archives of a toolchain's component. `version` of an archive is
/// any part of its path, such as its date or its host.
///
/// # Errors
/// The store cannot be read.
pub async fn why(
    store: &Store,
    upstreams: &Upstreams,
    name: &str,
    version: &str,
    max_bytes: Option<u64>,
    forget_after: Duration,
) -> Result<Why, StoreError> {
    let (pins, ..) = gone::living_pins(store, forget_after, true).await?;
    let survey = Survey::of_command(store, &pins).await?;
    let total = store.space().await?.total;
    let limits = RemovalLimits {
        max_bytes,
        used_since: None,
    };
    let decision = survey.decide(total, limits);
    let files = stored_files(store, upstreams, &survey, name, version).await?;
    let files = files.into_iter().map(|(sha256, (at, what))| {
        let (record, item) = (&survey.records[at], &survey.items[at]);
        let owners = survey.needs.owners_of(sha256).map(ToString::to_string);
        WhyFile {
            what,
            file: record.file.to_string(),
            bytes: record.bytes,
            last_used: record.used / 1000,
            pinned_by: owners.collect(),
            held: item.hold.and_then(held),
            gc_would_remove: decision.removals.iter().any(|(removed, _)| *removed == at),
        }
    });
    Ok(Why {
        files: files.collect(),
    })
}

/// The stored crates or archives of this name and version, with their positions and what people call them.
pub(super) async fn stored_files(
    store: &Store,
    upstreams: &Upstreams,
    survey: &Survey,
    name: &str,
    version: &str,
) -> Result<BTreeMap<Sha256, (usize, String)>, StoreError> {
    let mut files = BTreeMap::new();
    for (at, record) in survey.records.iter().enumerate() {
        let Some(key) = record.file.entry() else {
            continue;
        };
        let blobs = survey.items[at].lists.iter();
        let blobs = blobs.filter_map(|&at| Some((survey.records[at].file.blob()?, at)));
        let blobs: Vec<_> = blobs.collect();
        let is_candidate = key.as_str().starts_with("rustup/")
            || key.as_str().rsplit('/').next() == Some(&name.to_ascii_lowercase());
        if blobs.is_empty() || !is_candidate {
            continue;
        }
        let hashes = blobs.iter().map(|(sha256, _)| *sha256).collect();
        let named = names::of_blobs(store, upstreams, key, hashes).await?;
        for (sha256, at) in blobs {
            let what = named.get(&sha256).map(ToString::to_string);
            let what = what.filter(|what| is_meant(what, name, version));
            files.extend(what.map(|what| (sha256, (at, what))));
        }
    }
    Ok(files)
}

/// Returns true if a resource's text names this crate or archive: "crate `serde 1.0.0`", "`dist/2026-04-16/rustc-...`".
fn is_meant(what: &str, name: &str, version: &str) -> bool {
    let quoted = what.split('`').nth(1).unwrap_or(what);
    match quoted.split_once(' ') {
        Some((of, has)) => of.eq_ignore_ascii_case(name) && has == version,
        None => {
            let file = quoted.rsplit('/').next().unwrap_or(quoted);
            let rest = file.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['-', '.'])) && quoted.contains(version)
        }
    }
}

fn held(hold: Hold) -> Option<&'static str> {
    match hold {
        Hold::Pinned => None,
        Hold::Running => Some("a running command stored or used it"),
        Hold::KeptRelease => Some("it belongs to a release to keep"),
        Hold::Configuration => Some("it is the configuration of a registry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_named_exactly_and_archives_by_component_and_a_part_of_their_path() {
        assert!(is_meant("crate `Serde 1.0.0`", "serde", "1.0.0"));
        assert!(!is_meant("crate `serde_json 1.0.0`", "serde", "1.0.0"));
        assert!(!is_meant("crate `serde 1.0.1`", "serde", "1.0"));
        let archive = "`dist/2026-04-16/rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz`";
        assert!(is_meant(archive, "rustc", "1.95.0"));
        assert!(is_meant(archive, "rustc", "2026-04-16"));
        assert!(!is_meant(archive, "rust", "1.95.0"));
        assert!(!is_meant(archive, "rustc", "1.94.0"));
    }
}
