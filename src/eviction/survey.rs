//! [`Survey`]: the inventory of a store, with what holds each file.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    needs::{PinNeeds, RustupFile},
    policy::{self, Hold, InventoryItem, RemovalLimits, RemovalPlan},
};
use crate::{
    clock::{milliseconds, now},
    hash::Sha256,
    resource::{IndexEntry, Key, registry::package_of_key},
    store::{FileRecord, Pace, Pin, Store, StoreError, StoredFile},
    toolchain,
};

/// The newest releases to keep. `None` keeps none, and makes none old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepReleases {
    /// Stable releases.
    pub stables: Option<usize>,
    /// Nightlies.
    pub nightlies: Option<usize>,
}

/// The inventory of a store. `items` has the order of `records`.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) records: Vec<FileRecord>,
    pub(super) items: Vec<InventoryItem>,
    pub(super) needs: PinNeeds,
    /// When it was made, in milliseconds since 1970. What is used later must stay.
    pub(super) taken: u64,
}

/// A kind of release and its day.
type ReleaseDay = (ReleaseKind, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ReleaseKind {
    Stable,
    Nightly,
    Other,
}

impl ReleaseKind {
    /// The kind of a manifest, by the name of its file.
    fn of(name: &str) -> Self {
        let release = name.trim_start_matches("channel-rust-");
        if release.starts_with("nightly") {
            Self::Nightly
        } else if release.contains("beta") {
            Self::Other
        } else {
            Self::Stable
        }
    }
}

/// Returns whether this process has stored or used this blob since `started`. The daemon's own
/// clients use blobs too. If those uses counted for a running command, one long command would hold everything that
/// clients request, and the limit would be lifted.
fn is_own(store: &Store, record: &FileRecord, started: u64) -> bool {
    match record.file {
        StoredFile::Blob(sha256) => store.has_used_since(sha256, started),
        StoredFile::Entry(_) => false,
    }
}

/// Returns whether an entry is small and needed by everything of its kind.
fn is_configuration(key: &Key) -> bool {
    key.as_str().ends_with("/config.json") || key.as_str().starts_with("advisories/")
}

impl Survey {
    /// [`Survey::read`] for a command about single files: at full speed, without a rule for releases or own files.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) async fn of_command(store: &Store, pins: &[Pin]) -> Result<Self, StoreError> {
        Self::read(
            store,
            pins,
            KeepReleases::default(),
            None,
            &Pace::full_speed(),
        )
        .await
    }

    /// Reads the names, sizes and times of all files, and the bodies of all entries. For a command that started at
    /// `own_since`, in milliseconds since 1970, all that it has stored or used is held.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) async fn read(
        store: &Store,
        pins: &[Pin],
        keep: KeepReleases,
        own_since: Option<u64>,
        pace: &Arc<Pace>,
    ) -> Result<Self, StoreError> {
        let taken = milliseconds(now());
        let records = store.file_records(pace).await?;
        let mut needs = PinNeeds::of(pins);
        resolve_checksums(store, &records, &mut needs).await?;
        let mut items = with_listed(store, &records, pace).await?;
        let running = store.oldest_running_command();
        for (item, record) in items.iter_mut().zip(&records) {
            // After a clock was set back, a start in the future tells nothing of what was used since.
            let is_since = |started| started > taken || record.used >= started;
            let is_of_running =
                running.is_some_and(|started| is_since(started) && !is_own(store, record, started));
            let is_of_this = own_since.is_some_and(|since| match record.file {
                StoredFile::Blob(sha256) => store.has_used(sha256),
                StoredFile::Entry(_) => is_since(since),
            });
            item.hold = match &record.file {
                StoredFile::Blob(sha256) if needs.has_blob(*sha256) => Some(Hold::Pinned),
                StoredFile::Entry(key) if needs.has_entry(key) => Some(Hold::Pinned),
                StoredFile::Entry(key) if is_configuration(key) => Some(Hold::Configuration),
                StoredFile::Blob(_) | StoredFile::Entry(_) if is_of_running || is_of_this => {
                    Some(Hold::Running)
                }
                StoredFile::Blob(_) | StoredFile::Entry(_) => None,
            };
        }
        let mut survey = Self {
            records,
            items,
            needs,
            taken,
        };
        let manifests = survey.manifests(store).await?;
        survey.share_last_use(&manifests);
        survey.hold_pinned_toolchains(&manifests);
        survey.apply(keep, &manifests);
        Ok(survey)
    }

    /// Chooses the files to remove from a store that takes `total` bytes.
    pub(super) fn decide(&self, total: u64, limits: RemovalLimits) -> RemovalPlan {
        let listed: u64 = self.items.iter().map(|item| item.bytes).sum();
        policy::decide(&self.items, total.saturating_sub(listed), limits)
    }

    /// The manifests with their releases, as positions.
    async fn manifests(&self, store: &Store) -> Result<Vec<(usize, ReleaseDay)>, StoreError> {
        let mut manifests = Vec::new();
        for (at, record) in self.records.iter().enumerate() {
            let Some(key) = record.file.entry() else {
                continue;
            };
            let Some(RustupFile::Manifest(name)) = RustupFile::of(key) else {
                continue;
            };
            let Some(entry) = read_entry(store, key).await? else {
                continue;
            };
            let date = std::str::from_utf8(&entry).ok().map(toolchain::date);
            if let Some(Ok(date)) = date {
                manifests.push((at, (ReleaseKind::of(&name), date)));
            }
        }
        Ok(manifests)
    }

    /// The parts of one toolchain count as used when any of them was: one that is missing makes the others useless.
    fn share_last_use(&mut self, manifests: &[(usize, ReleaseDay)]) {
        for (manifest, _) in manifests {
            let lists = self.items[*manifest].lists.clone();
            let used = lists.iter().map(|&at| self.items[at].used).max();
            for at in lists {
                self.items[at].used = used.unwrap_or(0);
            }
        }
    }

    /// Holds the manifests that pinned toolchains are found by, and the programs that rustup updates itself to.
    fn hold_pinned_toolchains(&mut self, manifests: &[(usize, ReleaseDay)]) {
        if !self.needs.has_toolchains() {
            return;
        }
        let hashes = |lists: &[usize]| -> Vec<Sha256> {
            let files = lists.iter().map(|&at| &self.records[at].file);
            files.filter_map(StoredFile::blob).collect()
        };
        let pinned = manifests
            .iter()
            .filter(|(at, _)| self.needs.has_archive_of(&hashes(&self.items[*at].lists)));
        let oldest = pinned.map(|(_, (_, date))| date.clone()).min();
        for (at, (_, date)) in manifests {
            if oldest.as_ref().is_some_and(|oldest| date >= oldest) {
                self.items[*at].hold = Some(Hold::Pinned);
            }
        }
        for at in 0..self.records.len() {
            // Few versions, 10 MB each. Which of them is served offline depends on what is stored of the others.
            let key = self.records[at].file.entry();
            if key.is_some_and(|key| key.as_str().starts_with("rustup/rustup/")) {
                self.hold_with_listed(at);
            }
        }
    }

    fn hold_with_listed(&mut self, at: usize) {
        self.items[at].hold = Some(Hold::Pinned);
        for listed in self.items[at].lists.clone() {
            self.items[listed].hold = Some(Hold::Pinned);
        }
    }

    /// Marks releases that are older than those to keep, and holds the latter.
    fn apply(&mut self, keep: KeepReleases, manifests: &[(usize, ReleaseDay)]) {
        let rules = [
            (ReleaseKind::Stable, keep.stables),
            (ReleaseKind::Nightly, keep.nightlies),
        ];
        let mut kept = HashSet::new();
        let mut old = HashSet::new();
        for (kind, count) in rules {
            let Some(count) = count else { continue };
            let of_kind = manifests.iter().filter(|(_, (of, _))| *of == kind);
            let stored = of_kind.filter(|(at, _)| !self.items[*at].lists.is_empty());
            let days: BTreeSet<_> = stored.clone().map(|(_, (_, date))| date).collect();
            let newest: BTreeSet<_> = days.into_iter().rev().take(count).collect();
            for (at, (_, date)) in stored {
                let files = self.items[*at].lists.iter().copied().chain([*at]);
                if newest.contains(date) {
                    kept.extend(files);
                } else {
                    old.extend(files);
                }
            }
        }
        for at in old {
            self.items[at].is_old_release = !kept.contains(&at);
        }
        for at in kept {
            self.items[at].hold.get_or_insert(Hold::KeptRelease);
        }
    }
}

/// The body of an entry; `None` if there is none or it is damaged.
pub(super) async fn read_entry(
    store: &Store,
    key: &Key,
) -> Result<Option<bytes::Bytes>, StoreError> {
    match store.entry(key).await {
        Ok(entry) => Ok(entry.map(|entry| entry.body)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds the checksums of pinned crates whose lock file gives none.
async fn resolve_checksums(
    store: &Store,
    records: &[FileRecord],
    needs: &mut PinNeeds,
) -> Result<(), StoreError> {
    let wanted = needs.unresolved();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut bodies: BTreeMap<(String, String), Vec<bytes::Bytes>> = BTreeMap::new();
    for record in records {
        let Some(key) = record.file.entry() else {
            continue;
        };
        let name = package_of_key(key).map(|(of, name)| (of.to_owned(), name.to_owned()));
        let Some(name) = name.filter(|name| wanted.contains(name)) else {
            continue;
        };
        let body = read_entry(store, key).await?;
        bodies.entry(name).or_default().extend(body);
    }
    needs.resolve(|name, version| {
        let bodies = bodies.get(name).into_iter().flatten();
        let found = bodies.filter_map(|body| IndexEntry::checksum(body, version));
        found.collect()
    });
    Ok(())
}

/// The items of these records, without holds: each entry with the stored blobs that it lists.
async fn with_listed(
    store: &Store,
    records: &[FileRecord],
    pace: &Arc<Pace>,
) -> Result<Vec<InventoryItem>, StoreError> {
    let blobs = records.iter().enumerate();
    let blobs: HashMap<Sha256, usize> = blobs
        .filter_map(|(at, record)| Some((record.file.blob()?, at)))
        .collect();
    let keys = records
        .iter()
        .filter_map(|record| record.file.entry().cloned());
    let known = blobs.keys().copied().collect();
    let listed = store.listed_blobs(keys.collect(), known, pace).await?;
    let mut listed = listed.into_iter();
    let items = records.iter().map(|record| {
        let lists = match record.file {
            StoredFile::Blob(_) => Vec::new(),
            StoredFile::Entry(_) => listed.next().unwrap_or_default(),
        };
        InventoryItem {
            bytes: record.bytes,
            used: record.used,
            lists: lists.iter().map(|sha256| blobs[sha256]).collect(),
            hold: None,
            is_old_release: false,
        }
    });
    Ok(items.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{store::Entry, validators::Validators};

    async fn filled(folder: &std::path::Path) -> (Store, Sha256) {
        let store = Store::open(folder).unwrap();
        let body = b"crate";
        let spool = store.spool();
        spool.write(0, body).unwrap();
        let sha256 = Sha256::of(body);
        store.put_blob(Arc::new(spool), sha256).await.unwrap();
        let key = Key::of_path("corp-01234567/index/le/left").unwrap();
        let entry = Entry::new("body".into(), Validators::default(), None, now());
        store.put_entry(&key, &entry).await.unwrap();
        (store, sha256)
    }

    async fn holds(store: &Store, own_since: Option<u64>) -> Vec<Option<Hold>> {
        let pace = Pace::full_speed();
        let survey = Survey::read(store, &[], KeepReleases::default(), own_since, &pace).await;
        survey.unwrap().items.iter().map(|item| item.hold).collect()
    }

    #[tokio::test]
    async fn a_command_whose_clock_was_set_back_keeps_what_it_stored() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = filled(folder.path()).await;
        assert_eq!(holds(&store, None).await, [None, None]);
        let later = milliseconds(now() + Duration::from_secs(3600));
        let held = [Some(Hold::Running), Some(Hold::Running)];
        assert_eq!(holds(&store, Some(later)).await, held);
    }

    #[tokio::test]
    async fn what_a_command_stored_is_kept_after_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let (_command, _) = filled(folder.path()).await;
        let store = Store::open(folder.path()).unwrap();
        let staging = folder.path().join("v1/staging");
        let held = [Some(Hold::Running), Some(Hold::Running)];
        assert_eq!(holds(&store, None).await, held);
        for process in std::fs::read_dir(staging).unwrap() {
            let lock = std::fs::File::options()
                .write(true)
                .open(process.unwrap().path().join("lock"));
            lock.unwrap()
                .set_modified(now() + Duration::from_secs(3600))
                .unwrap();
        }
        assert_eq!(holds(&store, None).await, held);
    }
}
