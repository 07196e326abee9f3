//! Toolchains: manifests, archives, the standard library's lock file, and the few other files that rustup asks for.

use std::sync::Arc;

use bytes::Bytes;

use super::fetch::{Obtained, WarmMode, WouldFetch, ensure_with_retry};
use crate::{
    cache::{Cache, Demand},
    error::Error,
    hash::Sha256,
    plan::{
        self, BlobState, Inventory, PackageSet, Problem, library,
        release::{self, Homes, ManifestSource, ReleaseError},
    },
    resource::{Resource, Upstreams, dist},
    store::Store,
    toolchain::{DistFile, Install},
};

/// Fetches the parts of toolchains or, in a dry run, looks whether they are stored. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ToolchainFetcher {
    pub(super) cache: Cache,
    pub(super) store: Arc<Store>,
    pub(super) upstreams: Upstreams,
    pub(super) inventory: Inventory,
    pub(super) mode: WarmMode,
}

impl ToolchainFetcher {
    /// The archives that rustup would download, in this user's home and in those without the toolchain.
    ///
    /// # Errors
    /// If a manifest is missing, or no release has all that is asked for.
    pub(super) async fn release(&self, install: &Install) -> Result<Vec<DistFile>, Problem> {
        let files = release::resolve(self, &self.upstreams.dist, install, Homes::All).await;
        files.map_err(|error| error.problem(format_args!("toolchain {install}")))
    }

    /// Stores one archive or, in a dry run, looks whether it is stored.
    ///
    /// # Errors
    /// If larder cannot serve it.
    pub(super) async fn archive(&self, file: &DistFile) -> Result<Obtained, Problem> {
        if self.mode == WarmMode::Check {
            let missing = match self.inventory.archive(file).await? {
                BlobState::Stored => Vec::new(),
                BlobState::Missing | BlobState::WrongSize | BlobState::Damaged => {
                    let sha256 = Sha256::parse(&file.sha256);
                    vec![WouldFetch {
                        what: release::archive_title(file),
                        bytes: sha256.and_then(|sha256| self.inventory.recorded_size(sha256)),
                    }]
                }
            };
            return Ok(Obtained::checked(missing));
        }
        let title = release::archive_title(file);
        let archive = release::archive(&self.upstreams.dist, file);
        let archive = archive.map_err(|error| Problem::new(&title, error))?;
        let ensured = ensure_with_retry(&self.cache, &archive.resource, Demand::Stored).await;
        let ensured = ensured.map_err(|error| Problem::of_error(&title, &error))?;
        Ok(Obtained::ensured(archive.sha256, &ensured))
    }

    /// Tells if an archive with this result is stored now.
    pub(super) fn is_stored(&self, archive: &Obtained) -> bool {
        self.mode != WarmMode::Check || archive.fetched == Some(false)
    }

    /// Those that a dry run would fetch of the files that rustup asks for besides manifests and archives. The program
    /// that it updates itself to is known only if the newest release is stored.
    pub(super) async fn missing_rustup_files(
        &self,
        mut files: Vec<Resource>,
        hosts: &[String],
    ) -> Vec<WouldFetch> {
        let dist = &self.upstreams.dist;
        if let Some(release) = self.cache.peek(&dist::release(dist)).await {
            files.extend(plan::self_updates(dist, hosts, &release).unwrap_or_default());
        }
        let mut missing = Vec::new();
        for file in files {
            if self.inventory.resource(&file).await != BlobState::Stored {
                let what = file.to_string();
                missing.push(WouldFetch { what, bytes: None });
            }
        }
        missing
    }

    /// Stores the files that rustup requests besides manifests and archives, and the program by which it replaces
    /// itself at the end of an install. Returns the files that failed.
    pub(super) async fn rustup_files(
        &self,
        mut files: Vec<Resource>,
        hosts: &[String],
    ) -> Vec<Problem> {
        let mut failed = Vec::new();
        if !files.is_empty() {
            match self.self_updates(hosts).await {
                Ok(programs) => files.extend(programs),
                Err(problem) => failed.push(problem),
            }
        }
        for file in files {
            if let Err(error) = ensure_with_retry(&self.cache, &file, Demand::Fresh).await {
                failed.push(Problem::of_error(&file, &error));
            }
        }
        failed
    }

    /// The programs of the newest release of rustup, which is stored for that.
    async fn self_updates(&self, hosts: &[String]) -> Result<Vec<Resource>, Problem> {
        let dist = &self.upstreams.dist;
        let release = dist::release(dist);
        match ensure_with_retry(&self.cache, &release, Demand::Fresh).await {
            Ok(ensured) => plan::self_updates(dist, hosts, &ensured.entry.unwrap_or_default()),
            Err(error) => Err(Problem::of_error(&release, &error)),
        }
    }

    /// Stores the manifests that name the same release, so that `1.95.0` can be installed offline if `stable` can. They
    /// are small, and their archives are the same. A server that lacks them is no failure.
    async fn other_names(&self, manifest: &Resource, body: &[u8]) {
        let releases = manifest.releases();
        let others = releases.map(|releases| releases.other_names(body));
        let others = others.unwrap_or_default();
        let stored = others.iter();
        let stored = stored.map(|other| ensure_with_retry(&self.cache, other, Demand::Fresh));
        futures_util::future::join_all(stored).await;
    }

    /// The packages that the standard library is built from, by its stored sources.
    ///
    /// # Errors
    /// If these have no lock file.
    pub(super) async fn library_packages(&self, file: &DistFile) -> Result<PackageSet, Problem> {
        library::packages(&self.store, file, &self.upstreams.registries).await
    }
}

impl ManifestSource for ToolchainFetcher {
    async fn manifest(&self, manifest: &Resource) -> Result<Option<Bytes>, ReleaseError> {
        let demand = match self.mode {
            // The newest one: that is what `warm` would fetch the archives of.
            WarmMode::Check => {
                return match self.cache.peek(manifest).await {
                    Some(body) => Ok(Some(body)),
                    None => self.inventory.manifest(manifest).await,
                };
            }
            WarmMode::Fetch { refresh: true } => Demand::Refresh,
            WarmMode::Fetch { refresh: false } => Demand::Fresh,
        };
        match ensure_with_retry(&self.cache, manifest, demand).await {
            Ok(ensured) => {
                let body = ensured.entry.unwrap_or_default();
                self.other_names(manifest, &body).await;
                Ok(Some(body))
            }
            Err(Error::Absent { .. }) => {
                // rustup asks for it next, and a stored absence answers it.
                if let Some(fallback) = manifest.absence().and_then(|absence| absence.fallback) {
                    let _ = ensure_with_retry(&self.cache, &fallback, demand).await;
                }
                Ok(None)
            }
            Err(error) => Err(ReleaseError::Fetch(error)),
        }
    }
}
