//! The reasons why cargo gave no answer, in words.

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

use crate::error::chain;

/// The task of comparing a lock file with its manifests.
pub(super) const COMPARE_LOCK: &str = "find the packages of `Cargo.toml` in the lock file of";
/// Lines of cargo's message in an error. Cargo takes some ten lines from the cause to the advice.
const MAX_CARGO_LINES: usize = 20;

/// The reason why cargo gave no answer.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// The overlay could not be created, filled or read.
    #[error("cannot set up a scratch copy of project `{}`", project.display())]
    Overlay {
        /// The user's project.
        project: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// Cargo did not start.
    #[error("cannot run `{}` for project `{}`", program.display(), project.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The user's project.
        project: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Cargo refused or failed.
    #[error("cannot {task} project `{}`: cargo ended with {status} and said:\n{said}", project.display())]
    Cargo {
        /// The task, to follow "cannot".
        task: &'static str,
        /// The user's project.
        project: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its stderr, with the user's own paths.
        said: String,
    },
    /// Cargo's answer could not be read.
    #[error("cannot read what cargo says about project `{}`", project.display())]
    Answer {
        /// The user's project.
        project: PathBuf,
        /// The reader's error.
        source: cargo_metadata::Error,
    },
}

/// Meaning of cargo's refusal to compare a lock file with a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CargoRefusal {
    /// The lock file does not fit.
    LockChanges,
    /// The lock file may fit or not: a version that cargo looks for cannot be had, for this reason.
    Unresolved(String),
    /// Cargo, or rustup before it, refuses the project for this reason. The lock file may fit.
    Unreadable(String),
}

/// Start of larder's own answer in cargo's message.
const LARDER_ANSWER: &str = "cannot serve ";
/// rustup's message in place of cargo's, around the name of a toolchain.
const NOT_INSTALLED: [&str; 2] = ["error: toolchain '", "' is not installed"];
/// Start of cargo's message about a dependency for which it finds no version.
const NO_VERSION: &str = "failed to select a version";
/// Start of the remedy in larder's own answer.
const LARDER_REMEDY: &str = "; run `larder warm`";
/// Part of cargo's message about a lock file that would change.
const LOCKED_MESSAGE: &str = "because --locked was passed";

impl ScratchError {
    /// The cause in one line if it is a usual one, else with cargo's message.
    pub fn cause(&self) -> String {
        if let Some(name) = self.missing_toolchain() {
            return format!(
                "the toolchain `{name}` is not installed; `rustup toolchain install` in the project installs it"
            );
        }
        if let Self::Cargo { task, said, .. } = self {
            if let Some(answer) = larder_answer(said) {
                return format!("cargo cannot resolve it: {answer}");
            }
            if said.contains(LOCKED_MESSAGE) {
                return match *task {
                    // The report names the lock file already.
                    COMPARE_LOCK => "cargo would change it".to_owned(),
                    task => format!("cannot {task} it: cargo would change its lock file"),
                };
            }
        }
        chain(self)
    }

    /// The meaning of a refusal by cargo. `None` if the project's toolchain is missing or cargo did not start.
    pub fn refusal(&self) -> Option<CargoRefusal> {
        let Self::Cargo { said, .. } = self else {
            return None;
        };
        if self.missing_toolchain().is_some() {
            return None;
        }
        if said.contains(LOCKED_MESSAGE) {
            return Some(CargoRefusal::LockChanges);
        }
        if let Some(answer) = larder_answer(said) {
            // `larder warm` fetches what the lock file names, and cargo looks for something else.
            let reason = answer.split(LARDER_REMEDY).next().unwrap_or(answer);
            return Some(CargoRefusal::Unresolved(reason.to_owned()));
        }
        let reason = said.strip_prefix("error: ").unwrap_or(said).to_owned();
        Some(match reason.starts_with(NO_VERSION) {
            true => CargoRefusal::Unresolved(reason),
            false => CargoRefusal::Unreadable(reason),
        })
    }

    /// The project's toolchain, if rustup runs no cargo because it is not installed.
    pub fn missing_toolchain(&self) -> Option<&str> {
        let Self::Cargo { said, .. } = self else {
            return None;
        };
        let [before, after] = NOT_INSTALLED;
        let mut lines = said.lines();
        lines.find_map(|line| line.strip_prefix(before)?.strip_suffix(after))
    }
}

/// larder's own answer in cargo's message.
fn larder_answer(said: &str) -> Option<&str> {
    let mut lines = said.lines().map(str::trim);
    lines.find(|line| line.starts_with(LARDER_ANSWER))
}

/// The lines from the last `error` on, without characters that could harm a terminal.
pub(super) fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let first = lines
        .iter()
        .rposition(|line| line.starts_with("error"))
        .unwrap_or_else(|| lines.len().saturating_sub(MAX_CARGO_LINES));
    let lines = lines[first..]
        .iter()
        .take(MAX_CARGO_LINES)
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    lines
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}
