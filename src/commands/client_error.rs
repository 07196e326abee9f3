//! [`ClientChangeError`]: why `larder client apply` and `undo` change nothing.

use std::{io, path::PathBuf};

use crate::client_config::edit::EditError;

/// Why a client's settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientChangeError {
    /// No folder for backups or settings.
    #[error("no home folder is known, so that larder has no place for a backup")]
    NoFolder,
    /// `--project` with rustup.
    #[error("rustup has no settings of a project; leave out `--project`")]
    NoProject,
    /// `--project` names no folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// The file or its backup cannot be read or written.
    #[error("cannot edit {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Cargo's settings cannot be edited.
    #[error("{} {source}", .path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: EditError,
    },
    /// The file has changed since `apply`, and has larder's lines.
    #[error("{0}")]
    Edited(String),
    /// The file has larder's settings, written by something else.
    #[error(
        "{} has larder's settings, but `larder client apply` did not write them; remove `[source.crates-io]`'s \
         `replace-with` and `[registries.larder]` by hand", .0.display()
    )]
    NotApplied(PathBuf),
}
