//! The crates that pins offer to resolvers although they are not stored, in memory.
//!
//! A client's offline request for an index entry needs them, and reading all pins for each request would take too long.
//! [`OfferedCrates`] reads them again when the folder of pins has changed: every new pin is renamed into it.

use std::{
    collections::HashSet,
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

/// The crates that pins offer, as of the last read.
#[derive(Debug, Default)]
pub(super) struct OfferedCrates(Mutex<Option<KnownOffers>>);

#[derive(Debug)]
struct KnownOffers {
    /// The folder's time of change; `None` if there is no folder.
    changed: Option<SystemTime>,
    /// When that time was seen first.
    seen: Instant,
    read: Instant,
    crates: HashSet<Sha256>,
}

impl OfferedCrates {
    /// Tells for each hash if a pin in `folder` offers it. Blocking; other callers wait for a read.
    pub(super) fn contain(&self, folder: &Path, hashes: &[Sha256]) -> io::Result<Vec<bool>> {
        let changed = fs::metadata(folder).and_then(|found| found.modified()).ok();
        let mut known = self.0.lock();
        let same = known.as_ref().filter(|known| known.changed == changed);
        let seen = same.map_or_else(Instant::now, |known| known.seen);
        let is_current = same.is_some_and(|known| {
            known.read - known.seen > CLOCK_TICK || known.read.elapsed() < UNSETTLED_LIFETIME
        });
        if !is_current {
            let pins = pins::read_all(folder)?;
            *known = Some(KnownOffers {
                changed,
                seen,
                read: Instant::now(),
                crates: pins.iter().flat_map(Pin::offered).collect(),
            });
        }
        let crates = known.as_ref().map(|known| &known.crates);
        let is_offered = |sha256| crates.is_some_and(|crates| crates.contains(sha256));
        Ok(hashes.iter().map(is_offered).collect())
    }
}
