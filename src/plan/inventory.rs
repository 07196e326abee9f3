//! Looks a plan's packages and toolchains up in the store, without network.
//!
//! A blob counts as stored if it has the size that `warm` has recorded in a pin. A blob that no pin knows, because a
//! client fetched it, counts as stored with any size until [`Inventory::rehash`] reads its bytes. Later look-ups report
//! those that it found damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::{
    CrateSource, PackageSet, Problem,
    agreement::{Agreement, compare},
    library,
    manifest::LocalWorkspace,
    release::{self, Homes, ManifestSource, ReleaseArchive, ReleaseError},
};
use crate::{
    cache::Cache,
    cargo_config::CargoConfig,
    crate_spec::CrateSpec,
    files::{self, MAX_LOCK_FILE_BYTES},
    hash::Sha256,
    lockfile::{self, LockNode},
    resource::{CrateFile, IndexEntry, Registry, Resource, Upstreams, VersionNeeds},
    store::{Blob, Pin, PinnedCrate, Store, StoreError},
    toolchain::{DistFile, Install},
};

/// The stored part of what plans need. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    cache: Cache,
    store: Arc<Store>,
    upstreams: Upstreams,
    blobs: Arc<Mutex<KnownBlobs>>,
}

/// Knowledge about stored blobs beyond their names.
#[derive(Debug, Default)]
struct KnownBlobs {
    /// By the name of a registry of which nothing is stored: the indexes of that name whose entries are stored instead.
    foreign: BTreeMap<String, String>,
    /// Sizes in bytes, from pins.
    sizes: BTreeMap<Sha256, u64>,
    /// Blobs that were found stored.
    found: BTreeSet<Sha256>,
    /// Blobs with other bytes than their hash says.
    damaged: BTreeSet<Sha256>,
}

/// The state of one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobState {
    /// Stored, as far as is known.
    Stored,
    /// Not stored.
    Missing,
    /// Stored with another size than `warm` has seen.
    WrongSize,
    /// Stored with other bytes than its hash says.
    Damaged,
}

impl BlobState {
    /// The missing things, for reports; `None` if nothing is. `larder warm` replaces damaged blobs.
    pub(crate) fn missing(self, title: impl fmt::Display) -> Option<Problem> {
        match self {
            Self::Stored => None,
            Self::Missing => Some(Problem::not_stored(title)),
            Self::WrongSize => {
                let why = "the stored copy has another size than when it was fetched";
                Some(Problem::new(title, why).fetchable())
            }
            Self::Damaged => Some(Problem::new(title, "the stored copy is damaged").fetchable()),
        }
    }
}

impl Inventory {
    pub(crate) fn new(cache: &Cache, store: &Arc<Store>, upstreams: &Upstreams) -> Self {
        Self {
            cache: cache.clone(),
            store: store.clone(),
            upstreams: upstreams.clone(),
            blobs: Arc::default(),
        }
    }

    /// Learns which registries the store has entries of, but from another index.
    pub(crate) fn learn_foreign_indexes(&self) {
        let mut foreign = BTreeMap::new();
        for registry in self.upstreams.registries.iter() {
            let stored = self.store.indexes(registry.name());
            let own = registry.entry_folder();
            if stored.is_empty() || stored.iter().any(|(folder, _)| folder == own) {
                continue;
            }
            let address = |address: Option<String>| address.unwrap_or("another index".to_owned());
            let stored = stored.into_iter().map(|(_, stored)| address(stored));
            let stored = stored.collect::<Vec<_>>().join(" and ");
            foreign.insert(registry.name().to_owned(), stored);
        }
        self.blobs.lock().foreign = foreign;
    }

    /// Learns the sizes that pins record.
    pub(crate) fn learn_sizes(&self, pins: Vec<Pin>) {
        let sizes = pins.into_iter().flat_map(|pin| pin.sizes);
        self.blobs.lock().sizes.extend(sizes);
    }

    /// Rehashes the blobs that lookups have found stored so far: all of them, or only the blobs whose size no pin
    /// records. Returns whether any is damaged.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn rehash(&self, all: bool) -> Result<bool, StoreError> {
        let found = {
            let blobs = self.blobs.lock();
            let found = blobs.found.iter().copied();
            found
                .filter(|sha256| all || !blobs.sizes.contains_key(sha256))
                .collect()
        };
        let damaged = self.store.damaged(found).await?;
        let is_any_damaged = !damaged.is_empty();
        self.blobs.lock().damaged.extend(damaged);
        Ok(is_any_damaged)
    }

    /// The part of a package that is missing, its index entry or its crate; `None` if both are stored. An excluded
    /// package needs its index entry alone.
    pub(crate) async fn missing_part(
        &self,
        registry: &Arc<Registry>,
        package: &PinnedCrate,
    ) -> Option<Problem> {
        let listed = match IndexEntry::of(registry, &package.name) {
            Some(entry) => {
                let body = self.cache.peek(&entry).await;
                body.and_then(|body| IndexEntry::checksum(&body, &package.version))
            }
            None => None,
        };
        let title = format!("{} {}", package.name, package.version);
        let Some(listed) = listed else {
            let what = format!("index entry of `{title}`");
            let foreign = self.blobs.lock().foreign.get(registry.name()).cloned();
            return Some(match foreign {
                None => Problem::not_stored(what),
                Some(stored) => {
                    let index = registry.public_index();
                    let why = format!("the store belongs to {stored}, not to the index {index}");
                    Problem::new(what, why).fetchable()
                }
            });
        };
        if package.checksum.is_some_and(|locked| locked != listed) {
            let what = format!("crate `{title}` with the hash that the lock file wants");
            return Some(Problem::new(
                what,
                "the stored index entry states another hash",
            ));
        }
        if package.is_excluded {
            return None;
        }
        let file = CrateFile::of(registry, &package.name, &package.version, Some(listed));
        if let Some(file) = file
            && let Err(error) = self.cache.check_locked(&file)
        {
            return Some(Problem::of_error(format_args!("crate `{title}`"), &error));
        }
        let crate_title = format!("crate `{title}`");
        self.blob(listed).await.missing(crate_title)
    }

    /// Name and version of those packages that are not stored completely.
    pub(crate) async fn missing_packages(&self, packages: &[PinnedCrate]) -> Vec<(String, String)> {
        let mut missing = Vec::new();
        for package in packages {
            if let Some(registry) = self.upstreams.registries.named(&package.registry)
                && self.missing_part(registry, package).await.is_some()
            {
                missing.push((package.name.clone(), package.version.clone()));
            }
        }
        missing
    }

    /// All missing parts of these packages.
    pub(crate) async fn missing_parts(&self, packages: &[PinnedCrate]) -> Vec<Problem> {
        let mut missing = Vec::new();
        for package in packages {
            if let Some(registry) = self.upstreams.registries.named(&package.registry) {
                missing.extend(self.missing_part(registry, package).await);
            }
        }
        missing
    }

    /// Compares a project's lock file with its manifests, as `cargo metadata --locked` would. `packages` are those of
    /// the lock file, all stored.
    pub(super) async fn agreement(
        &self,
        folder: &Path,
        lock: &Path,
        packages: &[PinnedCrate],
        config: CargoConfig,
    ) -> Agreement {
        if !folder.join("Cargo.toml").is_file() {
            // A lock file alone has nothing to disagree with.
            return Agreement::Fits;
        }
        let mut needs = BTreeMap::new();
        for package in packages {
            let registry = self.upstreams.registries.named(&package.registry);
            let entry = registry.and_then(|registry| IndexEntry::of(registry, &package.name));
            let Some(entry) = entry else {
                continue;
            };
            let body = self.cache.peek(&entry).await;
            let found = body.and_then(|body| VersionNeeds::of(&body, &package.version));
            needs.extend(
                found.map(|found| ((package.name.clone(), package.version.clone()), found)),
            );
        }
        let (folder, lock) = (folder.to_owned(), lock.to_owned());
        let comparing = spawn_blocking(move || {
            let text = files::read_text(&lock, MAX_LOCK_FILE_BYTES).unwrap_or_default();
            let graph = match lockfile::graph(&text) {
                Ok(Some(graph)) => graph,
                Ok(None) => return Agreement::Unclear("the lock file is unusual".to_owned()),
                Err(error) => return Agreement::Unclear(error.to_string()),
            };
            let workspace = match LocalWorkspace::read(&folder, &config) {
                Ok(workspace) => workspace,
                Err(error) => return Agreement::Unclear(error.to_string()),
            };
            let needs_of = |node: &LockNode| {
                let id = (node.name.clone(), node.version.to_string());
                needs.get(&id).cloned()
            };
            compare(&graph, &workspace, needs_of)
        });
        let agreement = comparing.await;
        agreement.unwrap_or_else(|panic| Agreement::Unclear(panic.to_string()))
    }

    /// The archives that this user's rustup would download, by stored manifests.
    ///
    /// # Errors
    /// If a manifest is not stored, or see [`ReleaseError`].
    pub(crate) async fn release(&self, install: &Install) -> Result<Vec<DistFile>, ReleaseError> {
        release::resolve(self, &self.upstreams.dist, install, Homes::Own).await
    }

    /// The state of an archive.
    ///
    /// # Errors
    /// If larder cannot serve this archive at all.
    pub(crate) async fn archive(&self, file: &DistFile) -> Result<BlobState, Problem> {
        match release::archive(&self.upstreams.dist, file) {
            Ok(ReleaseArchive { sha256, .. }) => Ok(self.blob(sha256).await),
            Err(error) => Err(Problem::new(release::archive_title(file), error)),
        }
    }

    /// The crates that the standard library is built from, by its stored sources.
    ///
    /// # Errors
    /// If these are not stored or have no lock file.
    pub(crate) async fn library_packages(&self, file: &DistFile) -> Result<PackageSet, Problem> {
        library::packages(&self.store, file, &self.upstreams.registries).await
    }

    /// The state of a resource. Unlike [`Cache::ensure`] it changes nothing: a damaged copy stays where it is.
    pub(crate) async fn resource(&self, resource: &Resource) -> BlobState {
        match self.cache.peek_hash(resource).await {
            Some(sha256) => self.blob(sha256).await,
            None if self.cache.peek(resource).await.is_some() => BlobState::Stored,
            None => BlobState::Missing,
        }
    }

    /// The size of a blob in bytes, if a pin records it.
    pub(crate) fn recorded_size(&self, sha256: Sha256) -> Option<u64> {
        self.blobs.lock().sizes.get(&sha256).copied()
    }

    async fn blob(&self, sha256: Sha256) -> BlobState {
        let sizes = self.store.sizes(vec![sha256]).await;
        let Ok([Some(size)]) = sizes.as_deref() else {
            return BlobState::Missing;
        };
        let mut blobs = self.blobs.lock();
        if blobs.damaged.contains(&sha256) {
            return BlobState::Damaged;
        }
        if blobs.sizes.get(&sha256).is_some_and(|known| known != size) {
            return BlobState::WrongSize;
        }
        blobs.found.insert(sha256);
        BlobState::Stored
    }
}

impl CrateSource for Inventory {
    async fn entry(&self, entry: &Resource) -> Result<Bytes, Problem> {
        let body = if self.cache.is_offline() {
            self.cache.client_view(entry).await.ok()
        } else {
            // A dry run asks upstream nothing.
            self.cache.peek(entry).await
        };
        body.ok_or_else(|| Problem::not_stored(entry))
    }

    async fn archive(&self, file: &Resource) -> Result<(Blob, bool), Problem> {
        if let Err(error) = self.cache.check_locked(file) {
            return Err(Problem::of_error(file, &error));
        }
        let blob = match self.cache.peek_hash(file).await {
            Some(sha256) => self.store.blob(sha256).await.ok().flatten(),
            None => None,
        };
        let blob = blob.ok_or_else(|| Problem::not_stored(file))?;
        Ok((blob, false))
    }

    fn no_version(&self, spec: &CrateSpec) -> Problem {
        Problem::not_stored(format_args!("a version of crate `{spec}`"))
    }
}

impl ManifestSource for Inventory {
    async fn manifest(&self, manifest: &Resource) -> Result<Option<Bytes>, ReleaseError> {
        match self.cache.peek_complete(manifest).await {
            Some(body) => Ok(Some(body)),
            None if self.cache.is_absent_for_ever(manifest).await => Ok(None),
            None => Err(ReleaseError::NotStored(manifest.clone())),
        }
    }
}
