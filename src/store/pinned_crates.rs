//! The statements of pins about single crates, in memory: those they offer to resolvers although they are not stored,
//! and the versions that their lock files lock.
//!
//! A client's request for an index entry or a crate needs that, and reading all pins for each request would take too
//! long. [`PinnedCrates`] reads them again when the folder of pins has changed: every new pin is renamed into it.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use super::pins::{self, Pin};
use crate::hash::Sha256;

/// Time after which another change of a folder certainly gives it another time.
const CLOCK_TICK: Duration = Duration::from_secs(2);
/// Time for which a read counts within [`CLOCK_TICK`].
const UNSETTLED_LIFETIME: Duration = Duration::from_millis(100);

/// The crates of all pins, as of the last read.
#[derive(Debug, Default)]
pub(super) struct PinnedCrates(Mutex<Option<KnownPins>>);

#[derive(Debug)]
struct KnownPins {
    /// The folder's time of change; `None` if there is no folder.
    changed: Option<SystemTime>,
    /// When that time was seen first.
    seen: Instant,
    read: Instant,
    offered: HashSet<Sha256>,
    /// Versions by the registry's name and the crate's in lower case.
    locked: HashMap<(String, String), Vec<String>>,
}

impl PinnedCrates {
    /// Tells for each hash if a pin in `folder` offers it. Blocking; other callers wait for a read.
    pub(super) fn offer(&self, folder: &Path, hashes: &[Sha256]) -> io::Result<Vec<bool>> {
        self.with(folder, |known| {
            let is_offered = |sha256| known.offered.contains(sha256);
            hashes.iter().map(is_offered).collect()
        })
    }

    /// The versions of a crate that pins in `folder` lock. Blocking; other callers wait for a read.
    pub(super) fn locked(
        &self,
        folder: &Path,
        registry: String,
        name: String,
    ) -> io::Result<Vec<String>> {
        let id = (registry, name);
        self.with(folder, |known| {
            known.locked.get(&id).cloned().unwrap_or_default()
        })
    }

    fn with<T>(&self, folder: &Path, ask: impl FnOnce(&KnownPins) -> T) -> io::Result<T> {
        let changed = fs::metadata(folder).and_then(|found| found.modified()).ok();
        let mut known = self.0.lock();
        let same = known.as_ref().filter(|known| known.changed == changed);
        let seen = same.map_or_else(Instant::now, |known| known.seen);
        if let Some(same) = same
            && (same.read - same.seen > CLOCK_TICK || same.read.elapsed() < UNSETTLED_LIFETIME)
        {
            return Ok(ask(same));
        }
        let pins = pins::read_all(folder)?;
        let new = KnownPins {
            changed,
            seen,
            read: Instant::now(),
            offered: pins.iter().flat_map(Pin::offered).collect(),
            locked: locked(pins),
        };
        let answer = ask(&new);
        *known = Some(new);
        Ok(answer)
    }
}

fn locked(pins: Vec<Pin>) -> HashMap<(String, String), Vec<String>> {
    let mut locked: HashMap<_, Vec<String>> = HashMap::new();
    for package in pins.into_iter().flat_map(|pin| pin.packages) {
        let id = (package.registry, package.name.to_ascii_lowercase());
        let versions = locked.entry(id).or_default();
        if !versions.contains(&package.version) {
            versions.push(package.version);
        }
    }
    locked
}
