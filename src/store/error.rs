//! Errors of the store.
//!
//! Callers react to three cases. [`StoreError::Damaged`]: fetch the entry again. [`StoreError::Full`] and
//! [`StoreError::Limit`]: go on without storing. Everything else: report it.

use std::{io, path::PathBuf};

use super::{entry::DamagedEntry, growth::NoSpace};

/// Error of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, the quota or the file size limit is exhausted.
    #[error("no space left in the store")]
    Full(#[source] io::Error),
    /// The limit of the store's size leaves no space for a body.
    #[error(transparent)]
    Limit(NoSpace),
    /// A stored entry differs from what was written.
    #[error("`{key}` is damaged: {source}")]
    Damaged {
        /// The entry's key.
        key: String,
        /// The first difference found.
        source: DamagedEntry,
    },
    /// The folder cannot serve as a store.
    #[error("cannot use {} as the store: {source}", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: UnusableFolder,
    },
    /// Any other error of the operating system.
    #[error("the store cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder of the failed operation.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Reason for refusing a folder as a store. Builds run the code in the store, so no other user may write to it.
#[derive(Debug, thiserror::Error)]
pub enum UnusableFolder {
    /// Another user owns the folder and can change what is in it.
    #[error(
        "it belongs to user {owner}, and this is user {user}; run larder as its owner (`sudo -u '#{owner}' larder ...`), \
         take it over with `chown -R {user} {}`, or choose another `--store`",
        folder.display()
    )]
    OtherOwner {
        /// The folder.
        folder: PathBuf,
        /// User id of the folder's owner.
        owner: u32,
        /// Effective user id of this process.
        user: u32,
    },
    /// The permissions let the group or all users write.
    #[error("other users may write to it (mode {mode:o})")]
    WritableByOthers {
        /// The folder's permission bits.
        mode: u32,
    },
    /// The folder cannot be created or written to.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StoreError {
    /// Classifies an operating system error about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let cause = source.get_ref().and_then(|cause| cause.downcast_ref());
        if let Some(no_space) = cause {
            Self::Limit(*no_space)
        } else if is_full(&source) {
            Self::Full(source)
        } else {
            Self::Io {
                path: path.into(),
                source,
            }
        }
    }

    /// Classifies the reason for refusing `folder`.
    pub(super) fn unusable(folder: impl Into<PathBuf>, source: UnusableFolder) -> Self {
        match source {
            UnusableFolder::Io(source) if is_full(&source) => Self::Full(source),
            source @ (UnusableFolder::OtherOwner { .. }
            | UnusableFolder::WritableByOthers { .. }
            | UnusableFolder::Io(_)) => Self::Unusable {
                folder: folder.into(),
                source,
            },
        }
    }

    /// Returns whether the store's folder is there and this process may not write to it: a read-only mount, an
    /// immutable folder, or permissions.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_read_only(source),
            Self::Unusable {
                folder,
                source: UnusableFolder::Io(source),
            } => is_read_only(source) && folder.is_dir(),
            Self::Full(_) | Self::Limit(_) | Self::Damaged { .. } | Self::Unusable { .. } => false,
        }
    }

    /// Returns whether disk space is missing.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Returns whether `error` reports that a folder does not exist, or that there is something else in its place.
pub(super) fn is_no_folder(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns whether `error` reports a place that takes no files from this process.
pub(super) fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

/// Returns whether `error` reports missing disk space: a full disk, an exhausted quota or a file size limit.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
