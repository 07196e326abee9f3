//! [`ProjectState`]: which files of a warmed project, toolchain or crate are stored.

use std::collections::{BTreeSet, HashMap};

use crate::{
    eviction::missing_owners,
    hash::Sha256,
    store::{Owner, Pin, Store, StoreError},
};

/// A warmed project, toolchain or crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectState {
    /// The owner of its pin: a path or a name.
    pub owner: Owner,
    /// Number of crates that it needs.
    pub packages: usize,
    /// Number of archives of toolchains that it needs.
    pub components: usize,
    /// Those crates and archives that are not stored, in words.
    pub missing: Vec<String>,
    /// True if its file no longer exists.
    pub is_gone: bool,
}

/// The state of each of `pins`, in their order.
///
/// # Errors
/// The store cannot be read.
pub async fn project_states(store: &Store, pins: &[Pin]) -> Result<Vec<ProjectState>, StoreError> {
    let gone = missing_owners(pins).await;
    let needed = pins.iter().flat_map(Pin::needed_files);
    let hashes: BTreeSet<_> = needed.map(|file| file.sha256).collect();
    let hashes = Vec::from_iter(hashes);
    let stored = store.contains(hashes.clone()).await?;
    let stored: HashMap<_, _> = hashes.into_iter().zip(stored).collect();
    let is_stored = |sha256: &Sha256| stored.get(sha256).copied().unwrap_or_default();
    let states = pins.iter().map(|pin| {
        let mut seen = BTreeSet::new();
        let files = pin.needed_files().filter(|file| seen.insert(file.sha256));
        let missing = files.filter(|file| !is_stored(&file.sha256));
        ProjectState {
            missing: missing.map(|file| file.to_string()).collect(),
            packages: pin.needed_packages().count(),
            components: pin.archives.iter().collect::<BTreeSet<_>>().len(),
            is_gone: gone.contains(&pin.owner),
            owner: pin.owner.clone(),
        }
    });
    Ok(states.collect())
}
