//! Errors of the store.

use std::{
    io,
    path::{Path, PathBuf},
};

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

pub(super) fn unusable(folder: &Path, source: io::Error) -> StoreError {
    if is_full(&source) {
        return StoreError::Full(source);
    }
    StoreError::Unusable {
        folder: folder.to_owned(),
        why: source.to_string(),
    }
}
