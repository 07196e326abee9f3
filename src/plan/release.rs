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
//! [`resolve`] follows rustup's `update_from_dist` in `dist/mod.rs`. It needs manifests, and a [`ManifestSource`]
//! says where they come from: upstream for `warm`, the store alone for `check`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tokio::task::{JoinError, spawn_blocking};

use super::Problem;
use crate::{
    error::Error,
    hash::Sha256,
    resource::{Dist, Resource, dist},
    toolchain::{self, DistFile, Install, ManifestError},
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

/// The archives of the release that rustup would install: the one in the channel's manifest or, for a nightly without
/// a date that lacks something, the newest nightly before it that is complete.
///
/// # Errors
/// See [`ReleaseError`].
pub(crate) async fn resolve(
    source: &impl ManifestSource,
    dist: &Arc<Dist>,
    install: &Install,
) -> Result<Vec<DistFile>, ReleaseError> {
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
                match read_manifest(body, install).await? {
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
        match date.as_deref().and_then(toolchain::day_before) {
            Some(before) if incomplete < MAX_INCOMPLETE_NIGHTLIES => {
                channel = channel.on_date(&before);
            }
            Some(_) | None => break,
        }
    }
    let newest = newest_error.unwrap_or(ManifestError::Unavailable(Vec::new()));
    Err(ReleaseError::NoCompleteNightly { newest })
}

/// The files that an install downloads by this manifest, with those of an installed toolchain that it updates, and the
/// manifest's own date. Parsing a manifest takes milliseconds.
async fn read_manifest(
    manifest: Bytes,
    install: &Install,
) -> Result<(Result<Vec<DistFile>, ManifestError>, Option<String>), JoinError> {
    let install = install.clone();
    spawn_blocking(move || {
        let text = String::from_utf8_lossy(&manifest);
        let files = toolchain::files(
            &text,
            &install.host,
            &install.profile,
            &install.components,
            &install.targets,
        );
        let files = files.and_then(|mut files| {
            if let Some(installed) = &install.updates {
                let mut updated = installed.updated_files(&text, &install.host)?;
                updated.retain(|file| !files.contains(file));
                files.append(&mut updated);
            }
            Ok(files)
        });
        (files, toolchain::date(&text).ok())
    })
    .await
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
