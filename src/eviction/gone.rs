//! Pins of projects that are gone: a deleted folder needs nothing, but one on a disk that is not mounted does.
//!
//! A project may be warmed without a lock file. It is there as long as its manifest is.
//!
//! ```text
//!  file missing ──> noted in `gone.json` ── there again: forgotten ── missing for `forget_after`: the pin is dropped
//! ```

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use serde::Serialize;
use tokio::{task::spawn_blocking, time::timeout};
use tracing::info;

use crate::{
    clock::{now, seconds},
    store::{Owner, Pin, Store, StoreError},
};

/// Longest wait for the file systems that projects lie on. If one does not answer, no project counts as gone.
const STAT_LIMIT: Duration = Duration::from_secs(10);

/// A pin whose file is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GonePin {
    /// The path of the file.
    pub owner: String,
    /// When that was noted first, in seconds since 1970; `None` if no pass has noted it yet.
    pub since: Option<u64>,
    /// When the pin will be dropped, in seconds since 1970: the next pass after that does it.
    pub dropped_from: Option<u64>,
}

/// Those of `pins` whose files are gone, with what passes have noted of them.
pub async fn gone_pins(store: &Store, pins: &[Pin], forget_after: Duration) -> Vec<GonePin> {
    let known = store.gone_since();
    let owners = missing_owners(pins).await;
    let gone = owners.into_iter().map(|owner| {
        let owner = owner.to_string();
        let since = known.get(&owner).copied();
        gone_pin(owner, since, forget_after)
    });
    gone.collect()
}

fn gone_pin(owner: String, since: Option<u64>, forget_after: Duration) -> GonePin {
    GonePin {
        owner,
        since,
        dropped_from: since.map(|since| since.saturating_add(forget_after.as_secs())),
    }
}

/// The pins that count, those whose files are gone but not for long enough, and the owners whose pins were dropped
/// now. Notes what is gone.
pub(super) async fn living_pins(
    store: &Store,
    forget_after: Duration,
    is_dry_run: bool,
) -> Result<(Vec<Pin>, Vec<GonePin>, Vec<String>), StoreError> {
    let mut pins = store.pins().await?;
    let known = store.gone_since();
    let now = seconds(now());
    let (mut gone, mut dropped) = (Vec::new(), Vec::new());
    let mut noted = BTreeMap::new();
    for owner in missing_owners(&pins).await {
        let name = owner.to_string();
        // A clock that was set back begins the time anew.
        let since = known.get(&name).copied().filter(|since| *since <= now);
        let since = since.unwrap_or(now);
        if now.saturating_sub(since) < forget_after.as_secs() {
            noted.insert(name.clone(), since);
            gone.push(gone_pin(name, Some(since), forget_after));
            continue;
        }
        if !is_dry_run {
            store.remove_pin(&owner).await?;
            info!(project = %name, "its file is gone; what it needs is no longer kept");
        }
        pins.retain(|pin| pin.owner != owner);
        dropped.push(name);
    }
    if !is_dry_run {
        store.put_gone_since(&noted).await?;
    }
    Ok((pins, gone, dropped))
}

/// The owners of pins whose file does not exist, nor the manifest of the project that might have this lock file. Any
/// other failure says nothing.
pub async fn missing_owners(pins: &[Pin]) -> Vec<Owner> {
    let owners: Vec<_> = pins.iter().map(|pin| pin.owner.clone()).collect();
    let is_missing = |owner: &Owner| match owner {
        Owner::File(path) if path.ends_with("Cargo.lock") => {
            is_absent(path) && is_absent(&path.with_file_name("Cargo.toml"))
        }
        Owner::File(path) => is_absent(path),
        Owner::Toolchain(_) | Owner::Crate(_) | Owner::Dependency(_) => false,
    };
    let looking = spawn_blocking(move || owners.into_iter().filter(is_missing).collect());
    match timeout(STAT_LIMIT, looking).await {
        Ok(Ok(missing)) => missing,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn is_absent(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
