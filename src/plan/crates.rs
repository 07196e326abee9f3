//! Crates that the user names, for `cargo install` or `cargo add`.
//!
//! ```text
//!  ripgrep@^14 ── index entry: the newest version ──> its archive ── unpacked ──> Cargo.toml, Cargo.lock ──> packages
//!  serde, to depend on ──> a package with this one dependency ── cargo resolves ──> packages
//! ```
//!
//! `cargo install --locked` builds with the lock file inside the crate's archive. It completes one that does not fit
//! the manifest, and resolves without one. So an unpacked crate is a project like any other: [`super::cargo`] asks
//! cargo for a missing or completed lock file and for the needs of targets. Archives of crates come from a
//! [`CrateSource`]: upstream for `warm`, the store alone for `check`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::{NamedCrate, PackageSet, Plan, Problem, ProjectPlan};
use crate::{
    cargo_config::LocalSources,
    crate_spec::{CrateSpec, CrateUse},
    files::{self, MAX_LOCK_FILE_BYTES},
    resource::{CrateFile, IndexEntry, ListedVersion, Registries, Resource},
    store::{Blob, PinnedCrate},
};

/// Bytes after which unpacking a crate stops. Cargo stops there too, unless the archive itself is large.
const MAX_UNPACKED_CRATE: u64 = 512 << 20;
/// Name of the package that depends on a named crate.
const DEPENDENT: &str = "larder-dependent";

/// Where the crates that the user names come from.
pub(crate) trait CrateSource: Sync {
    /// The body of an index entry, as clients would get it.
    fn entry(&self, entry: &Resource) -> impl Future<Output = Result<Bytes, Problem>> + Send;

    /// The archive of a crate, and whether it had to be fetched.
    fn archive(
        &self,
        file: &Resource,
    ) -> impl Future<Output = Result<(Blob, bool), Problem>> + Send;

    /// Describes a crate of which no version can be chosen.
    fn no_version(&self, spec: &CrateSpec) -> Problem;
}

/// Why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    #[error("cannot be unpacked: {0}")]
    Archive(#[from] io::Error),
    #[error("has no folder `{0}` with a Cargo.toml")]
    NoManifest(String),
}

impl Plan {
    /// Adds the crates that the user names. Unpacks them in a new folder below `scratch`, which lives as long as the
    /// plan.
    pub(crate) async fn add_crates(
        &mut self,
        crates: Vec<(CrateSpec, CrateUse)>,
        source: &impl CrateSource,
        registries: &Registries,
        scratch: &Path,
    ) {
        for (spec, usage) in crates {
            let mut project = ProjectPlan {
                named: Some(NamedCrate::new(spec.clone(), usage)),
                ..ProjectPlan::new(Path::new(""))
            };
            let added = match usage {
                CrateUse::Install => project.install(&spec, source, registries, scratch).await,
                CrateUse::Dependency => project.depend(&spec, scratch).await,
            };
            match added {
                Ok(false) => {}
                Ok(true) => self.missing_before_cargo.extend(project.named_id()),
                Err(problem) => project.packages.failed.push(problem),
            }
            self.projects.push(project);
        }
    }
}

impl Plan {
    /// The crates to install whose archives have no lock file, as the user names them.
    pub(crate) fn unlocked_crates(&self) -> Vec<String> {
        let is_unlocked = |project: &&ProjectPlan| {
            let named = project.named.as_ref();
            project.lock.is_none() && named.is_some_and(|named| named.package.is_some())
        };
        let unlocked = self.projects.iter().filter(is_unlocked);
        unlocked.map(ProjectPlan::title).collect()
    }
}

impl ProjectPlan {
    /// Fills the plan of a crate to install. Returns whether its archive had to be fetched.
    async fn install(
        &mut self,
        spec: &CrateSpec,
        source: &impl CrateSource,
        registries: &Registries,
        scratch: &Path,
    ) -> Result<bool, Problem> {
        let title = self.title();
        let requirement = spec.requirement(CrateUse::Install);
        let requirement = requirement.map_err(|error| Problem::new(&title, error))?;
        let registry = registries.crates_io();
        let entry = IndexEntry::of(registry, spec.name());
        let entry = entry.ok_or_else(|| Problem::new(&title, "no crate can have this name"))?;
        let body = source.entry(&entry).await?;
        let listed = ListedVersion::all_of(&body);
        let chosen = listed.iter().find(|listed| {
            // Cargo chooses no yanked version.
            requirement.matches(&listed.version) && listed.needs().is_some()
        });
        let Some(chosen) = chosen else {
            return Err(source.no_version(spec));
        };
        let checksum = chosen.checksum;
        let (name, version) = IndexEntry::package_of(&body, checksum)
            .unwrap_or_else(|| (spec.name().to_owned(), chosen.version.to_string()));
        let file = CrateFile::of(registry, &name, &version, Some(checksum));
        let file = file.ok_or_else(|| Problem::new(&title, "no crate can have this version"))?;
        let (archive, is_new) = source.archive(&file).await?;
        let folder_name = format!("{name}-{version}");
        let named = self.named.as_mut();
        if let Some(named) = named {
            named.package = Some(PinnedCrate {
                registry: registry.name().to_owned(),
                name,
                version,
                checksum: Some(checksum),
                is_excluded: false,
            });
        }
        self.add_named_package();
        let unpacked = unpack(archive, scratch.to_owned(), folder_name).await;
        let unpacked = unpacked.map_err(|error| Problem::new(&file, error))?;
        self.use_folder(unpacked);
        if let Some(lock) = &self.lock {
            let text = files::read(lock, MAX_LOCK_FILE_BYTES);
            let text = text.map_err(|error| Problem::new(&file, error))?;
            let name = format!("{file}'s Cargo.lock");
            // The settings in an archive do not count, nor does a folder with vendored sources.
            let mut local = LocalSources::default();
            let read = PackageSet::parse(&name, &text, registries, &mut local);
            self.packages = read.map_err(|error| Problem::new(name, error))?;
            self.add_named_package();
        }
        Ok(is_new)
    }

    /// Fills the plan of a crate to depend on.
    async fn depend(&mut self, spec: &CrateSpec, scratch: &Path) -> Result<bool, Problem> {
        let title = self.title();
        let requirement = spec.requirement(CrateUse::Dependency);
        let requirement = requirement.map_err(|error| Problem::new(&title, error))?;
        let manifest = format!(
            "[package]\nname = '{DEPENDENT}'\nversion = '0.0.0'\nedition = '2021'\n\n[workspace]\n\n\
             [dependencies]\n{} = '{requirement}'\n",
            spec.name()
        );
        let scratch = scratch.to_owned();
        let writing = spawn_blocking(move || {
            let folder = scratch_folder(&scratch)?;
            let path = folder.path().join(DEPENDENT);
            fs::create_dir_all(path.join("src"))?;
            fs::write(path.join("Cargo.toml"), manifest)?;
            fs::write(path.join("src/lib.rs"), "")?;
            Ok::<_, io::Error>((folder, path))
        });
        let written = writing.await.unwrap_or_else(|panic| Err(panic.into()));
        self.use_folder(written.map_err(|error| Problem::new(title, error))?);
        Ok(false)
    }

    /// Plans the project at this path.
    fn use_folder(&mut self, (guard, path): (TempDir, PathBuf)) {
        let lock = path.join("Cargo.lock");
        self.lock = lock.is_file().then_some(lock);
        self.folder = path;
        if let Some(named) = &mut self.named {
            named.folder = Some(Arc::new(guard));
        }
    }

    /// Name and version of the named crate itself.
    pub(super) fn named_id(&self) -> Option<(String, String)> {
        let package = self.named.as_ref()?.package.as_ref()?;
        Some((package.name.clone(), package.version.clone()))
    }

    /// Adds the named crate itself to its packages.
    pub(super) fn add_named_package(&mut self) {
        let package = self.named.as_ref().and_then(|named| named.package.clone());
        self.packages.packages.extend(package);
    }
}

fn scratch_folder(scratch: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("crate-")
        .tempdir_in(scratch)
}

/// Unpacks an archive. Returns the folder to delete, and the crate's folder in it.
async fn unpack(
    archive: Blob,
    scratch: PathBuf,
    name: String,
) -> Result<(TempDir, PathBuf), UnpackError> {
    let len = usize::try_from(archive.len).map_err(io::Error::other)?;
    let packed = archive.bytes.read_at(0, len).await?;
    let unpacking = spawn_blocking(move || unpack_blocking(&packed, &scratch, &name));
    unpacking
        .await
        .unwrap_or_else(|panic| Err(io::Error::from(panic).into()))
}

fn unpack_blocking(
    packed: &[u8],
    scratch: &Path,
    name: &str,
) -> Result<(TempDir, PathBuf), UnpackError> {
    use io::Read as _;
    let folder = scratch_folder(scratch)?;
    let limit = MAX_UNPACKED_CRATE.max(20 * packed.len() as u64);
    let unpacked = flate2::read::MultiGzDecoder::new(packed).take(limit);
    let mut archive = tar::Archive::new(unpacked);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    for file in archive.entries()? {
        let mut file = file?;
        let path = file.path()?.into_owned();
        let kind = file.header().entry_type();
        // Cargo refuses other kinds of files, and `cargo install` reads no settings of the crate.
        let is_used = (kind.is_file() || kind.is_dir())
            && path.starts_with(name)
            && !path.components().any(|part| part.as_os_str() == ".cargo");
        if is_used {
            file.unpack_in(folder.path())?;
        }
    }
    let path = folder.path().join(name);
    if !path.join("Cargo.toml").is_file() {
        return Err(UnpackError::NoManifest(name.to_owned()));
    }
    Ok((folder, path))
}
