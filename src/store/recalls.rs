//! Recalls, in `recalls.json`: versions that upstream removed or yanked, and checksums that it changed.
//!
//! ```text
//!  changed entry ── a version is gone, yanked, or has another checksum ──> recorded once
//!                └─ a recorded version is as it was ─────────────────────> dropped
//! ```
//!
//! Without the file, index entries still state the first checksum, but a download by the new hash is no longer refused.
//! So changed checksums have a limit of their own, [`MAX_CHECKSUMS`]: yanks are frequent and must not push them out.
//! A process changes the file under a lock of its folder, and leaves one alone that it cannot read.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    identity::FileIdentity,
    memory::STAT_TTL,
    pins::{Pin, PinnedCrate},
    staging::{Staging, lock_folder},
};
use crate::{files, hash::Sha256};

/// Number of removed and yanked versions that are kept.
const MAX_RECALLS: usize = 1_000;
/// Number of changed checksums that are kept.
const MAX_CHECKSUMS: usize = 1_000;
/// Size limit of the file in bytes: a recall has 500, unless its version is unusually long.
const MAX_RECALLS_BYTES: u64 = 16 << 20;

/// One thing that upstream has taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// The registry's name in larder's settings.
    pub registry: String,
    /// The crate's name in lower case.
    pub name: String,
    /// The version.
    pub version: String,
    /// The change.
    #[serde(flatten)]
    pub kind: RecallKind,
    /// When larder saw it, in seconds since 1970.
    pub since: u64,
}

/// A change of upstream to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RecallKind {
    /// Its index entry no longer lists it.
    Removed,
    /// It is yanked.
    Yanked,
    /// Its index entry states another checksum.
    Checksum {
        /// The first checksum, which clients get.
        was: Sha256,
        /// The checksum that upstream states now, which is refused.
        now: Sha256,
    },
}

impl RecallKind {
    /// The stable name in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Yanked => "yanked",
            Self::Checksum { .. } => "checksum",
        }
    }
}

impl Recall {
    /// Returns whether both are about the same version and have the same kind.
    fn is_same_event(&self, other: &Self) -> bool {
        self.is_about(&other.registry, &other.name)
            && self.version == other.version
            && match (self.kind, other.kind) {
                (RecallKind::Checksum { now: a, .. }, RecallKind::Checksum { now: b, .. }) => {
                    a == b
                }
                (a, b) => a == b,
            }
    }

    /// Returns whether this is about the crate `name` of `registry`.
    pub fn is_about(&self, registry: &str, name: &str) -> bool {
        self.registry == registry && self.name == name
    }
}

/// For each of `recalls`, in the same order, the owners of the pins that lock its version.
pub fn locking_owners(recalls: &[Recall], pins: &[Pin]) -> Vec<BTreeSet<String>> {
    let pins = pins.iter();
    locking_projects(
        recalls,
        pins.map(|pin| (pin.owner.to_string(), pin.packages.as_slice())),
    )
}

/// For each of `recalls`, in the same order, the names of the projects whose packages include its version.
pub fn locking_projects<'a>(
    recalls: &[Recall],
    projects: impl IntoIterator<Item = (String, &'a [PinnedCrate])>,
) -> Vec<BTreeSet<String>> {
    if recalls.is_empty() {
        return Vec::new();
    }
    let mut names: HashMap<_, BTreeSet<String>> = HashMap::new();
    for (project, packages) in projects {
        for package in packages {
            let name = package.name.to_ascii_lowercase();
            let id = (package.registry.as_str(), name, package.version.as_str());
            names.entry(id).or_default().insert(project.clone());
        }
    }
    let locking = recalls.iter().map(|recall| {
        let name = recall.name.clone();
        let id = (recall.registry.as_str(), name, recall.version.as_str());
        names.get(&id).cloned().unwrap_or_default()
    });
    locking.collect()
}

/// The recalls as of the last look at the file. Its state is reused for [`STAT_TTL`], because each hit of a crate asks.
#[derive(Debug, Default)]
pub(super) struct KnownRecalls(Mutex<Option<RecallsFile>>);

#[derive(Debug)]
struct RecallsFile {
    /// When its state was read.
    stat_taken: Instant,
    /// Its state; `None` if there was no file.
    identity: Option<FileIdentity>,
    /// False if it could not be read. Then `recalls` are older.
    is_read: bool,
    recalls: Arc<Vec<Recall>>,
}

impl KnownRecalls {
    /// The recalls in the file at `path`, the oldest first.
    pub(super) fn get(&self, path: &Path) -> Arc<Vec<Recall>> {
        let mut known = self.0.lock();
        if let Some(known) = &*known
            && known.stat_taken.elapsed() < STAT_TTL
        {
            return known.recalls.clone();
        }
        // Before `stat`, so that a change during it is later.
        let stat_taken = Instant::now();
        let found = std::fs::symlink_metadata(path).ok();
        let identity = found.as_ref().map(FileIdentity::of);
        let (recalls, is_read) = match &*known {
            Some(known) if known.is_read && known.identity == identity => {
                (known.recalls.clone(), true)
            }
            known => match read(path) {
                Ok(recalls) => (Arc::new(recalls), true),
                Err(_) => {
                    let last = known.as_ref().map(|known| known.recalls.clone());
                    (last.unwrap_or_default(), false)
                }
            },
        };
        *known = Some(RecallsFile {
            stat_taken,
            identity,
            is_read,
            recalls: recalls.clone(),
        });
        recalls
    }

    /// Makes the next [`Self::get`] look at the file. Called after each change by this process.
    pub(super) fn forget_stat(&self) {
        *self.0.lock() = None;
    }
}

/// The recalls in the file at `path`, none if there is no file.
fn read(path: &Path) -> io::Result<Vec<Recall>> {
    match files::read(path, MAX_RECALLS_BYTES) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Records `new` recalls in the file at `path` and drops those that are `over`. Above the limits it drops the oldest,
/// those first whose version is not locked by a pin. Returns those of `new` that were not recorded before.
///
/// Fails if the file cannot be read: it may have recalls of a kind that only a later larder knows.
pub(super) fn change(
    staging: &Staging,
    path: &Path,
    new: Vec<Recall>,
    over: &[Recall],
    is_locked: impl Fn(&Recall) -> bool,
) -> io::Result<Vec<Recall>> {
    if new.is_empty() && over.is_empty() {
        return Ok(new);
    }
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let _lock = lock_folder(folder);
    let mut recalls = read(path)?;
    let before = recalls.len();
    recalls.retain(|known| !over.iter().any(|over| over.is_same_event(known)));
    let is_unknown = |recall: &Recall| !recalls.iter().any(|it| it.is_same_event(recall));
    let unknown: Vec<_> = new.into_iter().filter(is_unknown).collect();
    if unknown.is_empty() && recalls.len() == before {
        return Ok(unknown);
    }
    recalls.extend(unknown.iter().cloned());
    drop_excess(&mut recalls, is_locked);
    let text = serde_json::to_vec(&recalls).map_err(io::Error::from)?;
    if text.len() as u64 > MAX_RECALLS_BYTES {
        let limit = MAX_RECALLS_BYTES;
        return Err(files::UnfitFile::TooLarge { limit }.into());
    }
    staging.write(path, &[Bytes::from(text)], None)?;
    Ok(unknown)
}

/// Drops recalls above the limits: yanked versions first, then removed ones, then those that a pin locks. Changed
/// checksums have their own limit.
fn drop_excess(recalls: &mut Vec<Recall>, is_locked: impl Fn(&Recall) -> bool) {
    let (checksums, others): (Vec<usize>, Vec<usize>) =
        (0..recalls.len()).partition(|&at| matches!(recalls[at].kind, RecallKind::Checksum { .. }));
    let mut dropped = HashSet::new();
    for (mut group, limit) in [(checksums, MAX_CHECKSUMS), (others, MAX_RECALLS)] {
        let excess = group.len().saturating_sub(limit);
        if excess > 0 {
            // Stable: of the same rank, the oldest goes first.
            group.sort_by_cached_key(|&at| {
                (
                    is_locked(&recalls[at]),
                    recalls[at].kind == RecallKind::Removed,
                )
            });
            dropped.extend(group.into_iter().take(excess));
        }
    }
    let mut at = 0..;
    recalls.retain(|_| at.next().is_none_or(|at| !dropped.contains(&at)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Owner, Store};

    fn recall(version: usize, kind: RecallKind) -> Recall {
        Recall {
            registry: "crates-io".to_owned(),
            name: "left".to_owned(),
            version: version.to_string(),
            kind,
            since: 1,
        }
    }

    fn checksum(now: &[u8]) -> RecallKind {
        RecallKind::Checksum {
            was: Sha256::of(b"was"),
            now: Sha256::of(now),
        }
    }

    #[tokio::test]
    async fn a_recall_is_new_once_and_gone_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let all = [
            recall(1, RecallKind::Removed),
            recall(1, RecallKind::Yanked),
            recall(1, checksum(b"a")),
            recall(1, checksum(b"b")),
        ];
        let change = |new: &[Recall], over: &[Recall]| {
            let changed = store.change_recalls(new.to_vec(), over.to_vec());
            async move { changed.await.unwrap() }
        };
        assert_eq!(change(&all, &[]).await, all);
        assert_eq!(change(&all, &[]).await, []);
        assert_eq!(*store.recalls(), all);
        assert_eq!(change(&[], &all[..2]).await, []);
        assert_eq!(*store.recalls(), all[2..]);
        assert_eq!(*Store::open(folder.path()).unwrap().recalls(), all[2..]);
    }

    #[tokio::test]
    async fn yanks_displace_no_changed_checksum_and_no_yank_of_a_locked_version() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let pin = Pin {
            owner: Owner::Toolchain("a".to_owned()),
            packages: vec![PinnedCrate {
                registry: "crates-io".to_owned(),
                name: "Left".to_owned(),
                version: "1".to_owned(),
                checksum: None,
                is_excluded: false,
            }],
            archives: Vec::new(),
            sizes: Default::default(),
            offered: Vec::new(),
            entries: None,
        };
        store.put_pin(&pin).await.unwrap();
        let first = vec![
            recall(0, checksum(b"new")),
            recall(1, RecallKind::Yanked),
            recall(2, RecallKind::Yanked),
            recall(3, RecallKind::Removed),
        ];
        store.change_recalls(first.clone(), vec![]).await.unwrap();
        let yanks = |from: usize, to: usize| -> Vec<_> {
            let recalls = (from..to).map(|version| recall(version, RecallKind::Yanked));
            recalls.collect()
        };
        let many = yanks(10, 10 + MAX_RECALLS);
        store.change_recalls(many, vec![]).await.unwrap();
        let recalls = store.recalls();
        assert_eq!(recalls.len(), 1 + MAX_RECALLS);
        assert_eq!(
            recalls[..3],
            [first[0].clone(), first[1].clone(), first[3].clone()]
        );
        assert_eq!(recalls[3..], yanks(12, 10 + MAX_RECALLS));
        let many: Vec<_> = (10..MAX_CHECKSUMS + 13)
            .map(|version| recall(version, checksum(b"a")))
            .collect();
        store.change_recalls(many.clone(), vec![]).await.unwrap();
        let recalls = store.recalls();
        let kept = recalls
            .iter()
            .filter(|recall| matches!(recall.kind, RecallKind::Checksum { .. }));
        assert_eq!(kept.cloned().collect::<Vec<_>>(), many[3..]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_left_alone_and_the_known_recalls_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let one = vec![recall(1, checksum(b"a"))];
        store.change_recalls(one.clone(), vec![]).await.unwrap();
        assert_eq!(*store.recalls(), one);
        let file = folder.path().join("v1/recalls.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let later = text.replace("checksum", "a-later-kind");
        std::fs::write(&file, &later).unwrap();
        std::thread::sleep(STAT_TTL);
        assert_eq!(*store.recalls(), one);
        let new = vec![recall(2, RecallKind::Yanked)];
        store.change_recalls(new, vec![]).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), later);
        assert!(
            store
                .change_recalls(vec![], vec![])
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_stat_is_reused_for_its_lifetime_or_until_the_next_own_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let one = vec![recall(1, RecallKind::Yanked)];
        store.change_recalls(one, vec![]).await.unwrap();
        let all: Vec<_> = (0..20)
            .map(|version| recall(version, RecallKind::Removed))
            .collect();
        let mut are_seen_at_once = Vec::new();
        for count in 2..20 {
            std::thread::sleep(STAT_TTL);
            store.recalls();
            let text = serde_json::to_vec(&all[..count]).unwrap();
            std::fs::write(folder.path().join("v1/recalls.json"), text).unwrap();
            are_seen_at_once.push(store.recalls().len() == count);
            std::thread::sleep(STAT_TTL);
            assert_eq!(*store.recalls(), all[..count]);
        }
        // At least one of the writes takes less than the lifetime.
        assert!(are_seen_at_once.contains(&false));
        let own = vec![recall(99, RecallKind::Yanked)];
        store.change_recalls(own.clone(), vec![]).await.unwrap();
        assert!(store.recalls().ends_with(&own));
    }
}
