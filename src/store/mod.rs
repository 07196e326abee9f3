//! What the store promises, whichever home it has: entries by key, blobs by hash, spools for bodies on their way in.
//! The homes keep the promises; policies, HTTP and freshness are for others.

pub mod entry;
pub mod files;
mod hot;
mod read;
pub mod spool;

use std::{fmt, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use entry::{Checked, Entry, Head};
pub use files::{Announcement, Store};
pub use read::CHUNK_BYTES;
pub use spool::Spool;

use crate::hash::Sha256;

/// An open blob.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its size in bytes.
    pub len: u64,
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
}

/// Bytes that can be read from any offset, by several readers at once.
#[async_trait]
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if there are fewer.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;

    /// All of them, if they are in memory.
    fn in_memory(&self) -> Option<Bytes> {
        None
    }
}

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

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Entries, and their size in bytes.
    pub entries: u64,
    /// Bytes of all entries.
    pub entry_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Registered projects.
    pub projects: u64,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room, or no quota left.
    #[error("no space left in the store")]
    Full(#[source] io::Error),
    /// What is stored is not what was put.
    #[error("`{at}` is damaged: {why}")]
    Damaged {
        /// The key or hash.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The folder cannot serve as a store.
    #[error("cannot use {} as the store: {why}", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else the system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Sorts what the system said about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        if is_full(&source) {
            Self::Full(source)
        } else {
            Self::Io {
                path: path.into(),
                source,
            }
        }
    }

    /// Whether room is what is missing.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Whether the system says that there is no room: a full disk, a spent quota, or a file size limit.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
