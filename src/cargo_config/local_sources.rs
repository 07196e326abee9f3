//! [`LocalSources`]: the packages in folders that replace a registry, as `cargo vendor` makes them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{CargoConfig, LocalSource};
use crate::{
    files::{MAX_MANIFEST_BYTES, read, read_text},
    hash::Sha256,
    lockfile::LockedPackage,
};

/// A package of thousands of files has a long list of checksums.
const MAX_CHECKSUMS_BYTES: u64 = 64 << 20;
/// A crate, or a file of one.
const MAX_CRATE_BYTES: u64 = 1 << 30;

/// The packages in the local sources of one project.
#[derive(Debug, Default)]
pub struct LocalSources {
    config: CargoConfig,
    directories: BTreeMap<PathBuf, Result<VendoredPackages, LocalSourceError>>,
}

/// The packages of one folder by name and version.
type VendoredPackages = BTreeMap<(String, String), VendoredCopy>;

/// One unpacked package.
#[derive(Debug)]
struct VendoredCopy {
    folder: PathBuf,
    /// The hash of its crate; packages from git have none.
    checksum: Option<Sha256>,
    /// The hash of each of its files.
    files: BTreeMap<String, String>,
}

/// The reason why a package of a replaced source cannot be built. The text follows the package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalSourceError {
    /// A package of the folder lacks the list of its files, so that cargo refuses the whole folder.
    #[error("is in {}, which has no `.cargo-checksum.json`; `cargo vendor` writes that file", .0.display())]
    NoChecksums(PathBuf),
    /// A file is not what the list says.
    #[error("in {} has a changed or missing file; `cargo vendor` restores it", .0.display())]
    ChangedFile(PathBuf),
    /// The folder lacks it.
    #[error("is not in {}, which replaces its source; `cargo vendor` updates that folder", .0.display())]
    Missing(PathBuf),
    /// The folder has other bytes than the lock file wants.
    #[error("in {} has another checksum than in the lock file; `cargo vendor` updates that folder", .0.display())]
    OtherChecksum(PathBuf),
}

#[derive(Deserialize)]
struct VendoredManifest {
    package: VendoredPackage,
}

#[derive(Deserialize)]
struct VendoredPackage {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct VendoredChecksums {
    /// SHA-256 of the crate; packages from git have none.
    package: Option<String>,
    files: BTreeMap<String, String>,
}

impl LocalSources {
    /// The local sources by these settings.
    pub fn of(config: CargoConfig) -> Self {
        Self {
            config,
            directories: BTreeMap::new(),
        }
    }

    /// Tells if a local source has the package; `None` if its source is not replaced by one. Blocking.
    pub fn state(&mut self, package: &LockedPackage) -> Option<Result<(), LocalSourceError>> {
        Some(match self.config.replacement(&package.source)? {
            LocalSource::Directory(folder) => self.vendored(folder, package),
            LocalSource::Registry(folder) => {
                let file = format!("{}-{}.crate", package.name, package.version);
                match read(&folder.join(file), MAX_CRATE_BYTES) {
                    Err(_) => Err(LocalSourceError::Missing(folder)),
                    Ok(body) => match package.checksum {
                        Some(locked) if Sha256::of(&body) != locked => {
                            Err(LocalSourceError::OtherChecksum(folder))
                        }
                        Some(_) | None => Ok(()),
                    },
                }
            }
        })
    }

    fn vendored(
        &mut self,
        folder: PathBuf,
        package: &LockedPackage,
    ) -> Result<(), LocalSourceError> {
        let packages = self
            .directories
            .entry(folder.clone())
            .or_insert_with(|| vendored_packages(&folder));
        let packages = packages.as_ref().map_err(Clone::clone)?;
        let id = (package.name.clone(), package.version.to_string());
        match packages.get(&id) {
            None => Err(LocalSourceError::Missing(folder)),
            Some(copy) if package.checksum.is_some() && copy.checksum != package.checksum => {
                Err(LocalSourceError::OtherChecksum(folder))
            }
            Some(copy) if !copy.is_intact() => {
                Err(LocalSourceError::ChangedFile(copy.folder.clone()))
            }
            Some(_) => Ok(()),
        }
    }
}

impl VendoredCopy {
    /// Compares each file with its hash, as cargo does before it builds the package (`DirectorySource::verify` in
    /// `src/cargo/sources/directory.rs`).
    fn is_intact(&self) -> bool {
        let mut files = self.files.iter();
        files.all(|(name, sum)| {
            let body = read(&self.folder.join(name), MAX_CRATE_BYTES);
            body.is_ok_and(|body| Sha256::parse(sum) == Some(Sha256::of(&body)))
        })
    }
}

/// The packages in a folder that `cargo vendor` made.
fn vendored_packages(folder: &Path) -> Result<VendoredPackages, LocalSourceError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut packages = BTreeMap::new();
    for entry in entries {
        let folder = entry.path();
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let manifest = read_text(&folder.join("Cargo.toml"), MAX_MANIFEST_BYTES);
        let (false, Ok(manifest)) = (is_hidden, manifest) else {
            continue;
        };
        let checksums = read(&folder.join(".cargo-checksum.json"), MAX_CHECKSUMS_BYTES).ok();
        let checksums = checksums.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(VendoredChecksums { package, files }) = checksums else {
            return Err(LocalSourceError::NoChecksums(folder));
        };
        let Ok(VendoredManifest { package: id }) = toml::from_str(&manifest) else {
            continue;
        };
        let copy = VendoredCopy {
            folder,
            checksum: package.and_then(|text| Sha256::parse(&text)),
            files,
        };
        packages.insert((id.name, id.version), copy);
    }
    Ok(packages)
}
