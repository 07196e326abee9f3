//! Errors of planning: [`PlanError`] for one file, [`Problem`] as the line of a report.

use std::{fmt, io};

use serde::Serialize;
use tokio::task::JoinError;

use crate::{lockfile::LockfileError, toolchain::ToolchainFileError};

/// The reason why one lock file or toolchain file could not be planned. The text follows the file's name.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The file is not text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// The text is no lock file.
    #[error("{0}")]
    Lockfile(#[from] LockfileError),
    /// The text is no toolchain file.
    #[error("{0}")]
    ToolchainFile(#[from] ToolchainFileError),
    /// The task that read the file panicked or was cancelled.
    #[error("was not read to its end: {0}")]
    Task(#[from] JoinError),
}

impl PlanError {
    /// Tells if the file does not exist.
    pub fn is_missing_file(&self) -> bool {
        matches!(self, Self::Read(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// One thing that failed, was skipped or is missing, as reports print it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Its name: a file, `NAME VERSION` of a package, a toolchain.
    pub what: String,
    /// The reason.
    pub why: String,
}

impl Problem {
    /// Describes a problem with `what`. An error's text must include its cause; otherwise pass `error::chain`.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            what: what.to_string(),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
