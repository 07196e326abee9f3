//! Pins: the crates and toolchain archives that a project or a toolchain needs for working offline.
//!
//! `larder warm` writes one pin for each lock file, toolchain file, named toolchain or named crate, each in a JSON
//! file. Warming the same thing again replaces its pin. `larder status` counts pins, `larder check` compares sizes with
//! theirs, and the daemon keeps the projects of pins with a file ready (`prefetch/pins.rs`).

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::{files, hash::Sha256};

/// Size limit of a pin in bytes: one of 20,000 packages has 3 MB.
const MAX_PIN_BYTES: u64 = 64 << 20;

/// The needs of one project or toolchain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pin {
    /// The project or toolchain.
    pub owner: Owner,
    /// The crates it needs.
    pub packages: Vec<PinnedCrate>,
    /// Hashes of the toolchain archives it needs.
    pub archives: Vec<Sha256>,
    /// Sizes in bytes of these crates and archives, as far as `warm` has seen them. Pins of older releases have none.
    #[serde(default)]
    pub sizes: BTreeMap<Sha256, u64>,
    /// Hashes of crates that are not needed, and that index entries must offer offline nevertheless: cargo resolves for
    /// all platforms. Pins of older releases have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offered: Vec<Sha256>,
    /// Registry and name of the crates whose index entries were stored for resolving these packages anew, besides their
    /// own. `None` if one of them could not be stored, or in a pin of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<(String, String)>>,
}

impl Pin {
    /// The crates that index entries must offer offline although they may not be stored.
    pub(super) fn offered(&self) -> impl Iterator<Item = Sha256> {
        let excluded = self.packages.iter().filter(|package| package.is_excluded);
        let excluded = excluded.filter_map(|package| package.checksum);
        excluded.chain(self.offered.iter().copied())
    }

    /// The crates that it needs.
    pub fn needed_packages(&self) -> impl Iterator<Item = &PinnedCrate> {
        self.packages.iter().filter(|package| !package.is_excluded)
    }

    /// The files that it needs: crates with a known hash, then archives. Two of them may be one file.
    pub fn needed_files(&self) -> impl Iterator<Item = NeededFile<'_>> {
        let crates = self.needed_packages().filter_map(|package| {
            Some(NeededFile {
                sha256: package.checksum?,
                package: Some(package),
            })
        });
        let archives = self.archives.iter().map(|sha256| NeededFile {
            sha256: *sha256,
            package: None,
        });
        crates.chain(archives)
    }
}

/// A file that a pin needs. `Display` names it for people.
#[derive(Clone, Copy, Debug)]
pub struct NeededFile<'a> {
    /// Its hash.
    pub sha256: Sha256,
    /// The crate that it is; `None` for an archive.
    package: Option<&'a PinnedCrate>,
}

impl fmt::Display for NeededFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.package {
            Some(package) => write!(f, "{} {}", package.name, package.version),
            None => write!(f, "archive {}", self.sha256),
        }
    }
}

/// The project, toolchain or crate that a pin belongs to.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The absolute path of a lock file or toolchain file.
    File(PathBuf),
    /// The name of a toolchain that was warmed without a project.
    Toolchain(String),
    /// A crate to install, as `NAME[@VERSION]`.
    Crate(String),
    /// A crate to depend on, as `NAME[@REQUIREMENT]`.
    Dependency(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Toolchain(name) => write!(f, "toolchain {name}"),
            Self::Crate(spec) => write!(f, "crate {spec}"),
            Self::Dependency(spec) => write!(f, "dependency {spec}"),
        }
    }
}

/// A crate that a project needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PinnedCrate {
    /// The registry's name in larder's settings.
    pub registry: String,
    /// The crate's name.
    pub name: String,
    /// The version, as the lock file has it.
    pub version: String,
    /// SHA-256 of the crate file, if the lock file has it.
    pub checksum: Option<Sha256>,
    /// True if the crate file was not fetched, because none of the targets that `warm` was told needs it. Older
    /// stores have the field under its alias.
    #[serde(
        default,
        alias = "is_left_out",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_excluded: bool,
}

/// All pins in `folder`, sorted by owner. Skips files that are no pins or must not be read: their owners count as never
/// warmed.
pub(super) fn read_all(folder: &Path) -> io::Result<Vec<Pin>> {
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut pins = Vec::new();
    for file in files {
        let path = file?.path();
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            continue;
        }
        match files::read(&path, MAX_PIN_BYTES) {
            Ok(text) => pins.extend(serde_json::from_slice::<Pin>(&text)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidData
                ) => {}
            // Too many open files, or a failing disk. To skip the pin would report its project as gone.
            Err(error) => return Err(error),
        }
    }
    pins.sort_by(|a, b| a.owner.cmp(&b.owner));
    Ok(pins)
}
