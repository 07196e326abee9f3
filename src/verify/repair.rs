//! [`Repairer`]: moves damaged files to the quarantine, finds out what they were, and fetches them again.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    cache::{Cache, Demand},
    error::chain,
    eviction::PinNeeds,
    resource::{CrateFile, Resource, Upstreams, registry::package_of_key},
    store::{Store, StoredFile, Verified},
};

/// A damaged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadFile {
    /// Its path in the store.
    pub file: String,
    /// The resource, as people write it; `None` if no stored file names it.
    pub what: Option<String>,
    /// The damage.
    pub why: String,
    /// Its place in the quarantine, if it was moved there.
    pub quarantined: Option<PathBuf>,
    /// True if a good copy is stored now.
    pub repaired: bool,
    /// The reason why it could not be moved or fetched.
    pub failure: Option<String>,
}

/// Repairs damaged files.
#[derive(Clone, Debug)]
pub struct Repairer {
    cache: Cache,
    store: Arc<Store>,
    upstreams: Upstreams,
}

/// The damaged files to fetch again.
enum Wanted {
    All,
    /// Those that a pin needs.
    Pinned(PinNeeds),
}

impl Repairer {
    /// A repairer that fetches through `cache`.
    pub fn new(cache: Cache, store: Arc<Store>, upstreams: Upstreams) -> Self {
        Self {
            cache,
            store,
            upstreams,
        }
    }

    /// Says what the damaged files are, and changes nothing.
    pub async fn describe(&self, damaged: Vec<Verified>) -> Vec<BadFile> {
        let names = self.resources(&damaged).await;
        let describe = |verified: &Verified| bad_file(verified, names.get(&verified.file));
        damaged.iter().map(describe).collect()
    }

    /// Moves damaged files to the quarantine and fetches them again.
    pub async fn repair(&self, damaged: Vec<Verified>) -> Vec<BadFile> {
        self.repair_wanted(damaged, &Wanted::All).await
    }

    /// Moves damaged files to the quarantine, and fetches those again that a pin needs.
    pub(super) async fn repair_pinned(&self, damaged: Vec<Verified>) -> Vec<BadFile> {
        let pins = self.store.pins().await.unwrap_or_default();
        let wanted = Wanted::Pinned(PinNeeds::of(&pins));
        self.repair_wanted(damaged, &wanted).await
    }

    async fn repair_wanted(&self, mut damaged: Vec<Verified>, wanted: &Wanted) -> Vec<BadFile> {
        // Entries name the blobs, so they are fetched first.
        damaged.sort_by_key(|verified| matches!(verified.file, StoredFile::Blob(_)));
        let mut names = HashMap::new();
        let mut bad_files = Vec::new();
        let mut are_blobs_named = false;
        for verified in &damaged {
            if !are_blobs_named && matches!(verified.file, StoredFile::Blob(_)) {
                names = self.resources(&damaged).await;
                are_blobs_named = true;
            } else if let StoredFile::Entry(key) = &verified.file {
                let entry = self.upstreams.entry_of(key);
                names.extend(entry.map(|entry| (verified.file.clone(), entry)));
            }
            let resource = names.get(&verified.file);
            let mut bad = bad_file(verified, resource);
            self.repair_one(verified, resource, wanted, &mut bad).await;
            bad_files.push(bad);
        }
        bad_files
    }

    async fn repair_one(
        &self,
        verified: &Verified,
        resource: Option<&Resource>,
        wanted: &Wanted,
        bad: &mut BadFile,
    ) {
        let Some(damage) = verified.damage.as_ref().filter(|damage| damage.is_certain) else {
            bad.failure = Some("it cannot be read now, so it stays where it is".to_owned());
            return;
        };
        let moved = self
            .store
            .quarantine_file(&verified.file, damage.identity)
            .await;
        match moved {
            Ok(moved) => bad.quarantined = moved,
            Err(error) => {
                bad.failure = Some(format!("cannot move it away: {}", chain(&error)));
                return;
            }
        }
        let Some(resource) = resource else {
            let why = "no stored index entry or manifest names it; `larder warm` fetches what projects need";
            bad.failure = Some(why.to_owned());
            return;
        };
        if !wanted.contains(&verified.file) {
            bad.failure =
                Some("no warmed project needs it, so it is fetched when a client asks".to_owned());
            return;
        }
        match self.cache.ensure(resource, Demand::Fresh).await {
            Ok(_) => bad.repaired = true,
            Err(error) => bad.failure = Some(error.for_command()),
        }
    }

    /// The resources of these files, as far as pins and entries tell.
    async fn resources(&self, damaged: &[Verified]) -> HashMap<StoredFile, Resource> {
        let mut resources = HashMap::new();
        let mut blobs = HashSet::new();
        for verified in damaged {
            match &verified.file {
                StoredFile::Entry(key) => {
                    let entry = self.upstreams.entry_of(key);
                    resources.extend(entry.map(|entry| (verified.file.clone(), entry)));
                }
                StoredFile::Blob(sha256) => drop(blobs.insert(*sha256)),
            }
        }
        if blobs.is_empty() {
            return resources;
        }
        for pin in self.store.pins().await.unwrap_or_default() {
            let packages = pin.packages.iter();
            let named = packages.filter_map(|package| {
                let sha256 = package.checksum.filter(|sha256| blobs.contains(sha256))?;
                let registry = self.upstreams.registries.named(&package.registry)?;
                let (name, version) = (&package.name, &package.version);
                let resource = CrateFile::of(registry, name, version, Some(sha256))?;
                Some((StoredFile::Blob(sha256), resource))
            });
            resources.extend(named);
        }
        blobs.retain(|sha256| !resources.contains_key(&StoredFile::Blob(*sha256)));
        let files = self.store.files().await.unwrap_or_default();
        for file in files {
            let StoredFile::Entry(key) = &file else {
                continue;
            };
            let Ok(Some(entry)) = self.store.entry(key).await else {
                continue;
            };
            for sha256 in &blobs {
                if memchr::memmem::find(&entry.body, &sha256.digits()).is_some() {
                    let blob = self.upstreams.blob_of(key, &entry.body, *sha256);
                    resources.extend(blob.map(|blob| (StoredFile::Blob(*sha256), blob)));
                }
            }
        }
        resources
    }
}

impl Wanted {
    fn contains(&self, file: &StoredFile) -> bool {
        let Self::Pinned(needs) = self else {
            return true;
        };
        match file {
            StoredFile::Blob(sha256) => needs.has_blob(*sha256),
            // A registry's configuration and manifests are needed by whatever is warmed.
            StoredFile::Entry(key) => match package_of_key(key) {
                Some(_) => needs.has_entry(key),
                None => !needs.is_empty(),
            },
        }
    }
}

fn bad_file(verified: &Verified, resource: Option<&Resource>) -> BadFile {
    BadFile {
        file: verified.file.to_string(),
        what: resource.map(ToString::to_string),
        why: verified
            .damage
            .as_ref()
            .map(|damage| damage.why.clone())
            .unwrap_or_default(),
        quarantined: None,
        repaired: false,
        failure: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hash::Sha256,
        resource::Key,
        store::{Owner, Pin, PinnedCrate},
    };

    #[test]
    fn entries_that_a_later_resolve_needs_are_wanted() {
        let package = PinnedCrate {
            registry: "corp".to_owned(),
            name: "Left".to_owned(),
            version: "1.0.0".to_owned(),
            checksum: Some(Sha256::of(b"left")),
            is_excluded: false,
        };
        let pin = Pin {
            owner: Owner::Toolchain("a".to_owned()),
            packages: vec![package],
            archives: Vec::new(),
            sizes: Default::default(),
            offered: Vec::new(),
            entries: Some(vec![("corp".to_owned(), "later".to_owned())]),
        };
        let wanted = Wanted::Pinned(PinNeeds::of(&[pin]));
        let is_wanted =
            |path: &str| wanted.contains(&StoredFile::Entry(Key::of_path(path).unwrap()));
        assert!(is_wanted("corp-01234567/index/la/later"));
        assert!(is_wanted("corp-01234567/index/le/left"));
        assert!(is_wanted("corp-01234567/config.json"));
        assert!(!is_wanted("corp-01234567/index/ot/other"));
        assert!(wanted.contains(&StoredFile::Blob(Sha256::of(b"left"))));
        assert!(!wanted.contains(&StoredFile::Blob(Sha256::of(b"other"))));
        let nothing = Wanted::Pinned(PinNeeds::of(&[]));
        let configuration = Key::of_path("corp-01234567/config.json").unwrap();
        assert!(!nothing.contains(&StoredFile::Entry(configuration)));
    }
}
