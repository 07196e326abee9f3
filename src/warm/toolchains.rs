//! ToolchainRequest: from what rustup would be told to install to the archives of one release, and the standard library's lock file
//! within them. Everything is had through the cache's one path; reading manifests is `toolchain`'s.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;

use super::{Obtained, ensure_with_retry};
use crate::{
    cache::{Cache, Demand, Outcome},
    error::Error,
    hash::Sha256,
    plan::Problem,
    resource::{Dist, Resource, dist},
    store::Store,
    toolchain::{self, DistFile, Install, ManifestError},
};

/// So many nightlies that lack something does rustup pass over before it gives up (rustup, `BACKTRACK_LIMIT_DEFAULT` in
/// `dist/mod.rs`). Days without a nightly do not count.
const MAX_INCOMPLETE_NIGHTLIES: usize = 21;
/// So many days back are looked at in all.
const MAX_DAYS_BACK: usize = 60;
/// The largest archive of sources that is looked into, packed and unpacked, in bytes.
const MAX_SOURCES_PACKED_BYTES: u64 = 256 << 20;
const MAX_SOURCES_UNPACKED_BYTES: u64 = 4 << 30;

/// Whether what is missing shall be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Yes. Whether even what is there shall be asked about.
    Fetch {
        /// Ask in any case.
        refresh: bool,
    },
    /// No: only what is stored counts.
    Check,
}

/// The ways to toolchains.
#[derive(Clone, Debug)]
pub(crate) struct ToolchainFetcher {
    pub(crate) cache: Cache,
    pub(crate) store: Arc<Store>,
    pub(crate) dist: Arc<Dist>,
    pub(crate) mode: Mode,
}

impl ToolchainFetcher {
    /// The archives of the release that rustup would install: the one the manifest tells of or, for a nightly without a day
    /// that lacks something, the nearest one before it that does not (rustup, `update_from_dist` in `dist/mod.rs`).
    ///
    /// # Errors
    /// What is missing, or why nothing can be installed.
    pub(crate) async fn release(&self, install: &Install) -> Result<Vec<DistFile>, Problem> {
        let problem = |why: String| Problem {
            what: format!("toolchain {install}"),
            why,
        };
        let mut channel = install.channel.clone();
        let mut lacking = 0;
        let mut first = None;
        for _ in 0..MAX_DAYS_BACK {
            let path = channel.manifest_path();
            let manifest = self.manifest(&path).await.map_err(&problem)?;
            let day = match (manifest, &first) {
                (None, None) => {
                    return Err(problem(format!("there is no such release: no `{path}`")));
                }
                (None, Some(_)) => channel.date().map(str::to_owned),
                (Some(manifest), _) => {
                    let (files, date) = files(manifest, install).await;
                    match files {
                        Ok(files) => return Ok(files),
                        Err(ManifestError::Unavailable(names))
                            if install.channel.is_undated_nightly() =>
                        {
                            first.get_or_insert(ManifestError::Unavailable(names));
                            lacking += 1;
                            date
                        }
                        Err(error) => return Err(problem(format!("manifest `{path}`: {error}"))),
                    }
                }
            };
            match day.as_deref().and_then(toolchain::day_before) {
                Some(before) if lacking < MAX_INCOMPLETE_NIGHTLIES => {
                    channel = channel.on_date(&before)
                }
                Some(_) | None => break,
            }
        }
        let why = first.map_or_else(String::new, |error| error.to_string());
        Err(problem(format!("{why}, nor in the nightlies before it")))
    }

    /// A manifest as clients get it; `None` if upstream has none.
    async fn manifest(&self, path: &str) -> Result<Option<Bytes>, String> {
        let Some(resource) = dist::manifest(&self.dist, path) else {
            return Err(format!("`{path}` cannot be a manifest"));
        };
        let body = match self.mode {
            Mode::Check => match self.cache.peek(&resource).await {
                Some(body) => body,
                None => return Err(format!("{resource} is not stored")),
            },
            Mode::Fetch { refresh } => {
                let demand = if refresh {
                    Demand::Refresh
                } else {
                    Demand::Fresh
                };
                match ensure_with_retry(&self.cache, &resource, demand).await {
                    Ok(had) => had.entry.unwrap_or_default(),
                    Err(Error::Absent { .. }) => return Ok(None),
                    Err(error) => return Err(error.with_hint()),
                }
            }
        };
        Ok(Some(resource.client_view(&body).unwrap_or(body)))
    }

    /// Makes sure that one archive is there, or looks whether it would have to be fetched.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(crate) async fn archive(&self, file: &DistFile) -> Result<Obtained, Problem> {
        let problem = |why: String| Problem {
            what: format!("component `{}` for {}", file.package, file.target),
            why,
        };
        let Some(sum) = Sha256::parse(&file.sha256) else {
            return Err(problem("has no usable hash in the manifest".to_owned()));
        };
        let Some(archive) = dist::archive(&self.dist, &file.url, sum) else {
            return Err(problem(format!(
                "the manifest sends rustup past larder, to {}",
                file.url
            )));
        };
        match self.mode {
            Mode::Check => {
                let is_held = matches!(self.store.contains(vec![sum]).await.as_deref(), Ok([true]));
                Ok(Obtained {
                    fetched: Some(!is_held),
                    bytes: 0,
                })
            }
            Mode::Fetch { .. } => self.fetch(&archive).await.map_err(&problem),
        }
    }

    /// Whether an archive that was had so is stored now.
    pub(crate) fn has(&self, had: Obtained) -> bool {
        self.mode != Mode::Check || had.fetched == Some(false)
    }

    async fn fetch(&self, resource: &Resource) -> Result<Obtained, String> {
        match ensure_with_retry(&self.cache, resource, Demand::Stored).await {
            Ok(had) => {
                let is_new = had.outcome != Outcome::Hit;
                Ok(Obtained {
                    fetched: Some(is_new),
                    bytes: if is_new { had.bytes } else { 0 },
                })
            }
            Err(error) => Err(error.with_hint()),
        }
    }

    /// What rustup asks for beside archives: at the end of each install, and, if `bootstrap` is set, to install itself on these hosts.
    pub(crate) async fn extras(&self, hosts: &[String], bootstrap: bool) -> Vec<Problem> {
        let mut wanted = vec![dist::release(&self.dist)];
        if bootstrap {
            wanted.push(dist::script(&self.dist));
            wanted.extend(
                hosts
                    .iter()
                    .filter_map(|host| dist::installer(&self.dist, host)),
            );
        }
        let mut missing = Vec::new();
        for resource in wanted {
            let had = match self.mode {
                Mode::Check => self
                    .cache
                    .ensure(&resource, Demand::Stored)
                    .await
                    .map_err(|_| "is not stored".to_owned()),
                Mode::Fetch { .. } => ensure_with_retry(&self.cache, &resource, Demand::Fresh)
                    .await
                    .map_err(|error| error.with_hint()),
            };
            if let Err(why) = had {
                missing.push(Problem {
                    what: resource.to_string(),
                    why,
                });
            }
        }
        missing
    }

    /// The standard library's lock file, from the stored archive of its sources.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn library_lock(&self, file: &DistFile) -> Result<Vec<u8>, Problem> {
        let problem = |why: String| Problem {
            what: "the standard library's lock file in `rust-src`".to_owned(),
            why,
        };
        let sum = Sha256::parse(&file.sha256);
        let sum = sum.ok_or_else(|| problem("has no usable hash".to_owned()))?;
        let blob = self.store.blob(sum).await;
        let blob = blob
            .map_err(|error| problem(error.to_string()))?
            .filter(|blob| blob.len <= MAX_SOURCES_PACKED_BYTES)
            .ok_or_else(|| problem("is not stored, or far too large".to_owned()))?;
        let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
        let packed = blob.bytes.read_at(0, len).await;
        let packed = packed.map_err(|error| problem(error.to_string()))?;
        let lock = tokio::task::spawn_blocking(move || unpack_lock(&packed)).await;
        match lock {
            Ok(Ok(Some(lock))) => Ok(lock),
            Ok(Ok(None)) => Err(problem("is not in the archive".to_owned())),
            Ok(Err(error)) => Err(problem(format!("cannot be unpacked: {error}"))),
            Err(died) => Err(problem(died.to_string())),
        }
    }
}

/// The files of an install by this manifest, and the manifest's own day. A manifest is a megabyte: not for the async threads.
async fn files(
    manifest: Bytes,
    install: &Install,
) -> (Result<Vec<DistFile>, ManifestError>, Option<String>) {
    let install = install.clone();
    let read = tokio::task::spawn_blocking(move || {
        let text = String::from_utf8_lossy(&manifest);
        let files = toolchain::files(
            &text,
            &install.host,
            &install.profile,
            &install.components,
            &install.targets,
        );
        (files, toolchain::date(&text).ok())
    });
    read.await
        .unwrap_or_else(|_| (Err(ManifestError::Unavailable(Vec::new())), None))
}

/// Finds the standard library's lock file in an archive of its sources; it moved in 2024.
fn unpack_lock(packed: &[u8]) -> io::Result<Option<Vec<u8>>> {
    const ENDINGS: [&str; 2] = [
        "/lib/rustlib/src/rust/library/Cargo.lock",
        "/lib/rustlib/src/rust/Cargo.lock",
    ];
    let unpacked: Box<dyn Read> = match packed {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        [0xfd, b'7', b'z', ..] => Box::new(lzma_rust2::XzReader::new(packed, true)),
        _ => return Err(io::Error::other("it is neither gzip nor xz")),
    };
    let mut archive = tar::Archive::new(unpacked.take(MAX_SOURCES_UNPACKED_BYTES));
    for file in archive.entries()? {
        let mut file = file?;
        let path = file.path()?.to_string_lossy().into_owned();
        if ENDINGS.iter().any(|ending| path.ends_with(ending)) {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}
