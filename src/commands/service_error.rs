//! [`ServiceError`]: why `larder service` does nothing.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a service was not installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No folder for the files.
    #[error("no home folder is known, so that there is no place for the files of a service")]
    NoFolder,
    /// The service manager does not answer.
    #[error(
        "this user has no service manager ({command}: {why}); start `larder serve` from whatever starts programs here, \
         such as the entry point of a container; `larder service install --dry-run` prints the files"
    )]
    NoManager {
        /// The command that failed.
        command: String,
        /// Why.
        why: String,
    },
    /// A command of the service manager failed.
    #[error("`{command}` failed: {why}")]
    Command {
        /// The command.
        command: String,
        /// Its first line on stderr, or its exit status.
        why: String,
    },
    /// A file is there that larder did not write.
    #[error(
        "{} exists, and `larder service install` did not write it; remove it, or replace it with `--force`", .0.display()
    )]
    Foreign(PathBuf),
    /// A file was edited.
    #[error(
        "{} was edited after `larder service install` ({what}); `--force` does it all the same", .path.display()
    )]
    Edited {
        /// The file.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// A file cannot be read, written or removed.
    #[error("cannot use {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A daemon that is no service has the address.
    #[error(
        "larder runs already at {address}, as process {pid} and not as this service; stop it first (`kill {pid}`)"
    )]
    Runs {
        /// Its address.
        address: String,
        /// Its process.
        pid: u64,
    },
    /// Clients cannot know a port that changes.
    #[error("cannot install a service at {0}: `listen` needs a fixed port")]
    NoPort(SocketAddr),
}
