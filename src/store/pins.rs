//! What projects and toolchains need.

use std::{fmt, path::PathBuf};

use crate::hash::Sha256;

/// What was warmed and must not be evicted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pin {
    /// On whose account.
    pub owner: Owner,
    /// The crates it needs.
    pub packages: Vec<PinnedCrate>,
    /// The hashes of the toolchain archives it needs.
    pub archives: Vec<Sha256>,
}

/// Who needs what is pinned.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A lock file or toolchain file, by its absolute path.
    File(PathBuf),
    /// A toolchain that was named by itself.
    Toolchain(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Toolchain(name) => write!(f, "toolchain {name}"),
        }
    }
}

/// One crate that a project needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PinnedCrate {
    /// The registry's name in larder's settings.
    pub registry: String,
    /// The crate's name.
    pub name: String,
    /// Its version, textual.
    pub version: String,
    /// Its archive's hash.
    pub checksum: Option<Sha256>,
    /// Whether its archive was left out, since none of the targets that were named needs it.
    #[serde(
        default,
        alias = "is_left_out",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_excluded: bool,
}
