//! From an install to the archives of one release, as rustup would choose it.
//!
//! ```text
//!  Install (nightly, host, profile, components, targets)
//!     │  channel manifest, from a ManifestSource
//!     ├─ lists all that is asked for ──────────────> Vec<DistFile>
//!     └─ lacks something, and the nightly has no date
//!           └─ the manifest of the day before, at most 21 incomplete ones
//! ```
//!
//! [`resolve`] follows rustup's `install_into` in `dist/mod.rs`, also for an installed toolchain. It needs manifests,
//! and a [`ManifestSource`] says where they come from: upstream for `warm`, the store alone for `check`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tokio::task::{JoinError, spawn_blocking};

use super::Problem;
use crate::{
    error::Error,
    hash::Sha256,
    resource::{Dist, Resource, dist},
    toolchain::{self, DistFile, HomeState, Install, InstalledToolchain, ManifestError},
};

/// Incomplete nightlies that rustup passes over before it gives up (`BACKTRACK_LIMIT_DEFAULT` in `dist/mod.rs`). Days
/// without a nightly do not count.
const MAX_INCOMPLETE_NIGHTLIES: usize = 21;
/// Days whose manifests are asked for in all, so that a server without nightlies ends the search.
const MAX_DAYS_BACK: usize = 60;

/// The reason why no release can be chosen. The text includes its cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    /// The dist server's address space has no such path.
    #[error("`{path}` cannot be a manifest")]
    BadPath {
        /// Path of the manifest below the dist server.
        path: String,
    },
    /// Only the store was searched, and it has no copy.
    #[error("{0} is not stored")]
    NotStored(Resource),
    /// The manifest could not be fetched.
    #[error("{}", .0.for_command())]
    Fetch(#[source] Error),
    /// Upstream has no such channel, version or day.
    #[error("there is no such release: no `{path}`")]
    NoSuchRelease {
        /// Path of the manifest below the dist server.
        path: String,
    },
    /// The manifest cannot be used, or lacks something that was asked for.
    #[error("manifest `{path}`: {source}")]
    Manifest {
        /// Path of the manifest below the dist server.
        path: String,
        /// The reader's error.
        source: ManifestError,
    },
    /// No nightly of the last weeks has all that was asked for.
    #[error("{newest}, nor in the nightlies before it")]
    NoCompleteNightly {
        /// The error of the newest nightly.
        #[source]
        newest: ManifestError,
    },
    /// The task that parsed the manifest panicked or was cancelled.
    #[error("a manifest was not read to its end: {0}")]
    Task(#[from] JoinError),
}

impl ReleaseError {
    /// True if no release has all that is asked for.
    fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::NoCompleteNightly { .. }
                | Self::Manifest {
                    source: ManifestError::Unavailable(_),
                    ..
                }
        )
    }

    /// This error as a missing part of a toolchain.
    pub(crate) fn missing(&self) -> Problem {
        match self {
            Self::NotStored(manifest) => Problem::not_stored(manifest),
            Self::BadPath { .. }
            | Self::Fetch(_)
            | Self::NoSuchRelease { .. }
            | Self::Manifest { .. }
            | Self::NoCompleteNightly { .. }
            | Self::Task(_) => Problem::new(self, ""),
        }
    }

    /// This error of `what`, as reports print it.
    pub(crate) fn problem(&self, what: impl fmt::Display) -> Problem {
        let problem = Problem::new(what, self);
        match self {
            Self::NotStored(_) => problem
                .with_cause("their manifests are not stored")
                .fetchable(),
            Self::Fetch(error) => problem.with_cause(error.cause()),
            Self::BadPath { .. }
            | Self::NoSuchRelease { .. }
            | Self::Manifest { .. }
            | Self::NoCompleteNightly { .. }
            | Self::Task(_) => problem,
        }
    }
}

/// A place that channel manifests come from.
pub(crate) trait ManifestSource: Sync {
    /// The stored body of a channel manifest; `None` if upstream has none.
    fn manifest(
        &self,
        manifest: &Resource,
    ) -> impl Future<Output = Result<Option<Bytes>, ReleaseError>> + Send;
}

/// The homes in which rustup must be able to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Homes {
    /// That of this user, in which a toolchain file may ask for what is there already.
    Own,
    /// Also those without this toolchain.
    All,
}

/// The rules by which rustup reads a manifest.
#[derive(Clone, Debug)]
enum Rules {
    /// All components of the profile and those asked for.
    Fresh,
    /// The user's command, for an installed toolchain: rustup goes back to its date at most.
    Update(InstalledToolchain),
    /// A toolchain file, for an installed toolchain: rustup leaves out what the release lacks.
    Addition(InstalledToolchain),
}

/// The archives of the release that rustup would install. That is the release in the channel's manifest. If a nightly
/// without a date lacks a component, it is the newest complete nightly before. None if nothing has to be downloaded.
///
/// A toolchain that the user names must be installable both in this home and in an empty one.
///
/// # Errors
/// See [`ReleaseError`].
pub(crate) async fn resolve(
    source: &impl ManifestSource,
    dist: &Arc<Dist>,
    install: &Install,
    homes: Homes,
) -> Result<Vec<DistFile>, ReleaseError> {
    let by = |rules| search(source, dist, install, rules);
    match (&install.home, homes) {
        (HomeState::Absent, _) | (HomeState::Complete, Homes::All) => by(Rules::Fresh).await,
        (HomeState::Complete, Homes::Own) => Ok(Vec::new()),
        (HomeState::Incomplete(installed), Homes::Own) => {
            by(Rules::Addition(installed.clone())).await
        }
        (HomeState::Incomplete(installed), Homes::All) => {
            let added = by(Rules::Addition(installed.clone())).await?;
            match by(Rules::Fresh).await {
                Ok(files) => Ok(joined(files, added)),
                // No home can have it, but this one does without.
                Err(error) if error.is_unavailable() => Ok(added),
                Err(error) => Err(error),
            }
        }
        (HomeState::Updated(installed), _) => {
            let files = by(Rules::Fresh).await?;
            let updated = by(Rules::Update(installed.clone())).await?;
            Ok(joined(files, updated))
        }
    }
}

fn joined(mut files: Vec<DistFile>, mut more: Vec<DistFile>) -> Vec<DistFile> {
    more.retain(|file| !files.contains(file));
    files.append(&mut more);
    files
}

/// Searches the newest release that these rules accept, as `install_into` does in rustup's `src/dist/mod.rs`.
async fn search(
    source: &impl ManifestSource,
    dist: &Arc<Dist>,
    install: &Install,
    rules: Rules,
) -> Result<Vec<DistFile>, ReleaseError> {
    let oldest = match &rules {
        Rules::Update(installed) => installed.date().to_owned(),
        Rules::Fresh | Rules::Addition(_) => String::new(),
    };
    let mut channel = install.channel.clone();
    let mut incomplete = 0;
    let mut newest_error = None;
    for _ in 0..MAX_DAYS_BACK {
        let path = channel.manifest_path();
        let Some(manifest) = dist::manifest(dist, &path) else {
            return Err(ReleaseError::BadPath { path });
        };
        let date = match source.manifest(&manifest).await? {
            Some(body) => {
                let views = manifest.views();
                let view = views.and_then(|views| views.client_view(&body));
                let body = view.unwrap_or(body);
                match read_manifest(body, install, &rules).await? {
                    (Ok(files), _) => return Ok(files),
                    (Err(error @ ManifestError::Unavailable(_)), date)
                        if install.channel.is_undated_nightly() =>
                    {
                        newest_error.get_or_insert(error);
                        incomplete += 1;
                        date
                    }
                    (Err(source), _) => return Err(ReleaseError::Manifest { path, source }),
                }
            }
            None if newest_error.is_none() => return Err(ReleaseError::NoSuchRelease { path }),
            // A day without a nightly.
            None => channel.date().map(str::to_owned),
        };
        let before = date.as_deref().and_then(toolchain::day_before);
        match before.filter(|before| *before >= oldest) {
            Some(before) if incomplete < MAX_INCOMPLETE_NIGHTLIES => {
                channel = channel.on_date(&before);
            }
            Some(_) | None => break,
        }
    }
    let newest = newest_error.unwrap_or(ManifestError::Unavailable(Vec::new()));
    Err(ReleaseError::NoCompleteNightly { newest })
}

/// The files that rustup downloads by this manifest, and the manifest's own date. Parsing a manifest takes
/// milliseconds.
async fn read_manifest(
    manifest: Bytes,
    install: &Install,
    rules: &Rules,
) -> Result<(Result<Vec<DistFile>, ManifestError>, Option<String>), JoinError> {
    let (install, rules) = (install.clone(), rules.clone());
    spawn_blocking(move || {
        let text = String::from_utf8_lossy(&manifest);
        (
            files_by(&rules, &text, &install),
            toolchain::date(&text).ok(),
        )
    })
    .await
}

fn files_by(
    rules: &Rules,
    manifest: &str,
    install: &Install,
) -> Result<Vec<DistFile>, ManifestError> {
    let Install {
        host,
        profile,
        components,
        targets,
        ..
    } = install;
    match rules {
        Rules::Fresh => toolchain::files(manifest, host, profile, components, targets),
        Rules::Update(installed) => {
            let files = installed.updated_files(manifest, host, components, targets)?;
            if files.unavailable.is_empty() {
                Ok(files.available)
            } else {
                Err(ManifestError::Unavailable(files.unavailable))
            }
        }
        Rules::Addition(installed) => {
            let files = installed.updated_files(manifest, host, components, targets)?;
            Ok(files.available)
        }
    }
}

/// One archive of a release, as the cache knows it.
pub(crate) struct ReleaseArchive {
    /// The hash that the manifest states.
    pub(crate) sha256: Sha256,
    /// The archive behind larder's dist tree.
    pub(crate) resource: Resource,
}

/// The reason why an archive of a manifest cannot be served by larder. The text follows the component's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The manifest states no sha256.
    #[error("has no usable hash in the manifest")]
    NoHash,
    /// The manifest names a server other than the default one, which rustup does not replace by larder.
    #[error("the manifest sends rustup past larder, to {url}")]
    OtherServer {
        /// The address in the manifest.
        url: String,
    },
}

/// The archive that a manifest names.
///
/// # Errors
/// See [`ArchiveError`].
pub(crate) fn archive(dist: &Arc<Dist>, file: &DistFile) -> Result<ReleaseArchive, ArchiveError> {
    let sha256 = Sha256::parse(&file.sha256).ok_or(ArchiveError::NoHash)?;
    let resource = dist::archive(dist, &file.url, sha256);
    let resource = resource.ok_or_else(|| ArchiveError::OtherServer {
        url: file.url.clone(),
    })?;
    Ok(ReleaseArchive { sha256, resource })
}

/// The name of an archive in reports.
pub(crate) fn archive_title(file: &DistFile) -> String {
    format!("component `{}` for {}", file.package, file.target)
}
