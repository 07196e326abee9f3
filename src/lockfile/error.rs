//! Errors of a lock file as a whole, and of single entries.

use std::fmt;

use thiserror::Error;

/// The reason why a whole lock file cannot be read. Lines count from 1. Each text is one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LockfileError {
    /// The file has conflict markers of an unresolved merge.
    #[error("line {line} is a merge conflict mark: resolve the merge, then run again")]
    MergeConflict {
        /// Line of the first marker.
        line: usize,
    },
    /// A newer cargo than larder knows wrote the file.
    #[error(
        "lock file format version {version} is newer than larder knows (1 to 4): look for a newer larder"
    )]
    NewerVersion {
        /// The version that the file states.
        version: i64,
    },
    /// No cargo ever wrote this `version`.
    #[error(
        "line {line} does not state a lock file format version (1 to 4): let cargo write the file anew"
    )]
    BadVersion {
        /// Line of the version.
        line: usize,
    },
    /// The text is not TOML, or TOML of another shape.
    #[error("not a lock file: {}{cause}; `cargo generate-lockfile` writes a new one", at(*.line))]
    NotALockfile {
        /// Line at which reading ended, if known.
        line: Option<usize>,
        /// First line of the TOML reader's message, which has several.
        cause: String,
    },
    /// A checksum is not a sha256 in hex. Nothing could be verified by it, so the file counts as damaged.
    #[error(
        "line {line} has a bad checksum for package `{package}`: expected 64 hex digits; restore the file from version control"
    )]
    BadChecksum {
        /// Line of the checksum.
        line: usize,
        /// Name and version, escaped for display.
        package: String,
    },
}

/// An entry of a lock file that was excluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEntry {
    /// Line of the entry, counted from 1.
    pub line: usize,
    /// The package, escaped and shortened for display.
    pub package: String,
    /// The reason.
    pub reason: EntryError,
}

impl fmt::Display for InvalidEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "left out package `{}` (line {}): {}",
            self.package, self.line, self.reason
        )
    }
}

/// The reason why one entry was excluded.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// Name missing or empty.
    #[error("it has no name")]
    NoName,
    /// Name of a registry package too long.
    #[error("its name is longer than 64 characters")]
    LongRegistryName,
    /// Name of a registry package with other characters than crates.io allows.
    #[error("its name has characters other than ASCII letters, digits, `-` and `_`")]
    BadRegistryName,
    /// Name of a local or git package too long.
    #[error("its name is longer than 255 bytes")]
    LongName,
    /// Name of a local or git package with other characters than cargo allows.
    #[error("its name has characters other than letters, digits, `-` and `_`")]
    BadName,
    /// Version missing or empty.
    #[error("it has no version")]
    NoVersion,
    /// Version too long.
    #[error("its version is longer than 128 characters")]
    LongVersion,
    /// Version not SemVer.
    #[error("its version is not a SemVer version")]
    BadVersion,
    /// Source neither registry, git nor path.
    #[error("its source is of no known kind")]
    UnknownSource,
    /// Source without a URL that could be a base.
    #[error("its source is no usable URL")]
    BadSourceUrl,
    /// Package id of `replace` or `[metadata]` with a malformed source.
    #[error("its source is not in parentheses")]
    SourceNotInParentheses,
    /// Two entries for one package contradict each other.
    #[error("it is listed twice with different checksums")]
    TwoChecksums,
}

/// Escapes characters that could harm a terminal, and shortens the text to 100 characters.
pub(super) fn shown(text: &str) -> String {
    let mut escaped: String = text
        .trim()
        .chars()
        .flat_map(char::escape_debug)
        .take(100)
        .collect();
    if escaped.is_empty() {
        escaped.push('?');
    }
    escaped
}

/// Line of a byte offset, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn at(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!("line {line}: "))
}
