//! Errors of planning: [`PlanError`] for one file, [`Problem`] as the line of a report.

use std::{fmt, io};

use serde::Serialize;
use tokio::task::JoinError;

use crate::{
    error::Error,
    lockfile::LockfileError,
    toolchain::{ToolchainFileError, UserSettingsError},
};

/// The reason why one lock file, toolchain file or file of rustup's settings could not be planned. The text follows the
/// file's name.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The file is not text.
    #[error("is not UTF-8, so cargo refuses it")]
    NotUtf8,
    /// The text is no lock file.
    #[error("{0}")]
    Lockfile(#[from] LockfileError),
    /// The text is no toolchain file.
    #[error("{0}")]
    ToolchainFile(#[from] ToolchainFileError),
    /// rustup refuses its own settings.
    #[error("{0}")]
    UserSettings(#[from] UserSettingsError),
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
    /// The reason; empty if a thing is just not stored.
    pub why: String,
    /// The reason without what differs between things, so that reports can count the things that share it.
    #[serde(skip)]
    pub cause: String,
    /// True if `larder warm` would fetch the thing, as far as can be told without asking upstream.
    #[serde(skip)]
    pub is_fetchable: bool,
}

impl Problem {
    /// Describes a problem with `what`. An error's text must include its cause; otherwise pass `error::chain`.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self {
            what: what.to_string(),
            cause: why.clone(),
            why,
            is_fetchable: false,
        }
    }

    /// Describes a thing that is not stored, and that `larder warm` would fetch.
    pub fn not_stored(what: impl fmt::Display) -> Self {
        Self {
            is_fetchable: true,
            ..Self::new(what, "")
        }
    }

    /// Describes a thing that could not be fetched.
    pub fn of_error(what: impl fmt::Display, error: &Error) -> Self {
        Self::new(what, error.for_command()).with_cause(error.cause())
    }

    /// The same problem, counted with others that have this cause.
    #[must_use]
    pub fn with_cause(self, cause: impl fmt::Display) -> Self {
        Self {
            cause: cause.to_string(),
            ..self
        }
    }

    /// The same problem, which `larder warm` would solve.
    #[must_use]
    pub fn fetchable(self) -> Self {
        Self {
            is_fetchable: true,
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why.as_str() {
            "" => f.write_str(&self.what),
            why => write!(f, "{}: {why}", self.what),
        }
    }
}
