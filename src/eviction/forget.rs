//! `larder forget`: drops the pins of a project, toolchain or crate, or one stored crate or archive.

use std::path::PathBuf;

use super::{gone, policy::RemovalLimits, survey::Survey, why::stored_files};
use crate::{
    resource::Upstreams,
    store::{Owner, Pace, Removal, Store, StoreError},
};

/// The result of removing the files of one name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// None is stored.
    NotStored,
    /// These projects and toolchains need them; nothing was removed.
    Pinned(Vec<String>),
    /// Each removed file, as people write it, with its bytes.
    Removed(Vec<(String, u64)>),
}

/// Drops the pins of the toolchain or crate of this name. If there is none, drops those of the file at this path, or of
/// all files below this folder. Returns their owners. What they needed stays stored until it is evicted.
///
/// # Errors
/// The store cannot be read or written to.
pub async fn forget_pins(store: &Store, what: &str) -> Result<Vec<Owner>, StoreError> {
    let mut paths: Vec<PathBuf> = std::path::absolute(what).into_iter().collect();
    paths.extend(std::fs::canonicalize(what));
    let pins = store.pins().await?;
    let owners = pins.into_iter().map(|pin| pin.owner).collect();
    let mut forgotten = Vec::new();
    for owner in meant_owners(owners, what, &paths) {
        if store.remove_pin(&owner).await? {
            forgotten.push(owner);
        }
    }
    Ok(forgotten)
}

/// The owners that have the name `what`; if there are none, the files at or below one of `paths`.
fn meant_owners(owners: Vec<Owner>, what: &str, paths: &[PathBuf]) -> Vec<Owner> {
    let is_named = |owner: &Owner| match owner {
        Owner::Toolchain(name) => what == name,
        Owner::Crate(spec) | Owner::Dependency(spec) => {
            let name = spec.split_once('@').map(|(name, _)| name);
            what == spec || Some(what) == name
        }
        Owner::File(_) => false,
    };
    let is_below = |owner: &Owner| match owner {
        Owner::File(file) => paths.iter().any(|path| file.starts_with(path)),
        Owner::Toolchain(_) | Owner::Crate(_) | Owner::Dependency(_) => false,
    };
    let (named, others): (Vec<_>, Vec<_>) = owners.into_iter().partition(is_named);
    if !named.is_empty() {
        return named;
    }
    others.into_iter().filter(is_below).collect()
}

/// Removes the stored crate `name version`, or the archives of a toolchain's component, and an index entry that would
/// then list nothing that is stored. The caller holds the store's eviction lock.
///
/// # Errors
/// The store cannot be read or written to.
pub async fn forget_files(
    store: &Store,
    upstreams: &Upstreams,
    name: &str,
    version: &str,
    is_forced: bool,
) -> Result<Forgotten, StoreError> {
    let (pins, ..) = gone::living_pins(store, std::time::Duration::MAX, true).await?;
    let mut survey = Survey::of_command(store, &pins).await?;
    let meant = stored_files(store, upstreams, &survey, name, version).await?;
    if meant.is_empty() {
        return Ok(Forgotten::NotStored);
    }
    let owners = meant
        .keys()
        .flat_map(|sha256| survey.needs.owners_of(*sha256));
    let mut owners: Vec<_> = owners.map(ToString::to_string).collect();
    owners.sort();
    owners.dedup();
    if !owners.is_empty() && !is_forced {
        return Ok(Forgotten::Pinned(owners));
    }
    for (at, _) in meant.values() {
        survey.items[*at].hold = None;
        survey.items[*at].is_old_release = true;
    }
    let decision = survey.decide(0, RemovalLimits::default());
    let positions = decision.removals.iter().map(|(at, _)| *at);
    let records: Vec<_> = positions.map(|at| survey.records[at].clone()).collect();
    let results = store
        .remove_files(records.clone(), survey.taken, &Pace::full_speed())
        .await?;
    let removed = records.iter().zip(results);
    let removed = removed.filter(|(_, result)| *result == Removal::Removed);
    let name_of = |record: &crate::store::FileRecord| {
        let mut meant = meant.values();
        let named = meant.find(|(at, _)| survey.records[*at].file == record.file);
        named.map_or_else(|| record.file.to_string(), |(_, what)| what.clone())
    };
    let removed: Vec<_> = removed
        .map(|(record, _)| (name_of(record), record.bytes))
        .collect();
    forget_recalls(store, name, version).await?;
    Ok(Forgotten::Removed(removed))
}

/// Drops what is recorded about upstream's changes to a version, so that upstream is believed again.
async fn forget_recalls(store: &Store, name: &str, version: &str) -> Result<(), StoreError> {
    let name = name.to_ascii_lowercase();
    let recalls = store.recalls();
    let meant = recalls
        .iter()
        .filter(|recall| recall.name == name && recall.version == version);
    let meant: Vec<_> = meant.cloned().collect();
    store.change_recalls(Vec::new(), meant).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_no_folder_of_that_name() {
        let file = |path: &str| Owner::File(path.into());
        let owners = [
            Owner::Crate("ripgrep@14".to_owned()),
            Owner::Toolchain("stable".to_owned()),
            file("/src/ripgrep/Cargo.lock"),
            file("/src/other/Cargo.lock"),
        ];
        let meant = |what: &str| {
            let paths = [PathBuf::from("/src").join(what)];
            meant_owners(owners.to_vec(), what, &paths)
        };
        assert_eq!(meant("ripgrep"), owners[..1]);
        assert_eq!(meant("stable"), owners[1..2]);
        assert_eq!(meant("other"), owners[3..]);
        assert_eq!(meant("/src"), owners[2..]);
        assert_eq!(meant("none"), []);
    }
}
