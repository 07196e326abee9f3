//! Looks a plan's packages and toolchains up in the store, without network.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    PackageSet, Problem, library,
    release::{self, ManifestSource, ReleaseArchive, ReleaseError},
};
use crate::{
    cache::Cache,
    hash::Sha256,
    resource::{IndexEntry, Registry, Resource, Upstreams},
    store::{PinnedCrate, Store},
    toolchain::{DistFile, Install},
};

/// The stored part of what plans need. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inventory {
    cache: Cache,
    store: Arc<Store>,
    upstreams: Upstreams,
}

impl Inventory {
    pub(crate) fn new(cache: &Cache, store: &Arc<Store>, upstreams: &Upstreams) -> Self {
        Self {
            cache: cache.clone(),
            store: store.clone(),
            upstreams: upstreams.clone(),
        }
    }

    /// The name of the part of a package that is missing, its index entry or its crate; `None` if both are stored.
    pub(crate) async fn missing_part(
        &self,
        registry: &Arc<Registry>,
        package: &PinnedCrate,
    ) -> Option<String> {
        let listed = match IndexEntry::of(registry, &package.name) {
            Some(entry) => {
                let body = self.cache.peek(&entry).await;
                body.and_then(|body| IndexEntry::checksum(&body, &package.version))
            }
            None => None,
        };
        let title = format!("{} {}", package.name, package.version);
        let Some(listed) = listed else {
            return Some(format!("index entry of `{title}`"));
        };
        if package.checksum.is_some_and(|locked| locked != listed) {
            return Some(format!(
                "crate `{title}` with the hash that the lock file wants"
            ));
        }
        (!self.has_blob(listed).await).then(|| format!("crate `{title}`"))
    }

    /// The names of all missing parts of these packages.
    pub(crate) async fn missing_parts(&self, packages: &[PinnedCrate]) -> Vec<String> {
        let mut missing = Vec::new();
        for package in packages {
            if let Some(registry) = self.upstreams.registries.named(&package.registry) {
                missing.extend(self.missing_part(registry, package).await);
            }
        }
        missing
    }

    /// The archives of the release that rustup would install, by stored manifests.
    ///
    /// # Errors
    /// If a manifest is not stored, or see [`ReleaseError`].
    pub(crate) async fn release(&self, install: &Install) -> Result<Vec<DistFile>, ReleaseError> {
        release::resolve(self, &self.upstreams.dist, install).await
    }

    /// Tells if an archive is stored.
    ///
    /// # Errors
    /// If larder cannot serve this archive at all.
    pub(crate) async fn has_archive(&self, file: &DistFile) -> Result<bool, Problem> {
        match release::archive(&self.upstreams.dist, file) {
            Ok(ReleaseArchive { sha256, .. }) => Ok(self.has_blob(sha256).await),
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

    async fn has_blob(&self, sha256: Sha256) -> bool {
        let stored = self.store.contains(vec![sha256]).await;
        matches!(stored.as_deref(), Ok([true]))
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
