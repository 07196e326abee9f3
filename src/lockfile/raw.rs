//! The parts of a lock file that larder reads, as TOML.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{LockfileError, line_of};

/// The newest lock file format larder reads.
pub(super) const NEWEST_FORMAT: i64 = 4;

/// The fields larder reads. Everything else in the file may be as odd as it likes.
#[derive(Deserialize)]
pub(super) struct RawLockfile {
    pub(super) version: Option<Spanned<toml::Value>>,
    pub(super) root: Option<Spanned<RawLockedPackage>>,
    #[serde(default)]
    pub(super) package: Vec<Spanned<RawLockedPackage>>,
    /// Checksums of format 1. Holds other things too, so values are looked at later.
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, Spanned<toml::Value>>,
}

#[derive(Deserialize)]
pub(super) struct RawLockedPackage {
    pub(super) name: Option<Spanned<String>>,
    pub(super) version: Option<Spanned<String>>,
    pub(super) source: Option<Spanned<String>>,
    pub(super) checksum: Option<Spanned<String>>,
    pub(super) replace: Option<Spanned<String>>,
}

impl RawLockedPackage {
    pub(super) fn name(&self) -> &str {
        self.name.as_ref().map_or("", |name| name.get_ref())
    }

    pub(super) fn version(&self) -> &str {
        self.version
            .as_ref()
            .map_or("", |version| version.get_ref())
    }

    pub(super) fn label(&self) -> String {
        format!("{} {}", self.name(), self.version())
    }
}

/// The part of a newer format that is sure to be there.
#[derive(Deserialize)]
pub(super) struct RawVersion {
    pub(super) version: Option<Spanned<toml::Value>>,
}

pub(super) fn read(text: &str) -> Result<RawLockfile, LockfileError> {
    let raw: RawLockfile = match toml::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            // Why it failed is worth a second look: marks of a merge are never TOML, and a newer format may have
            // changed the fields that did not fit.
            if let Some(line) = merge_conflict(text) {
                return Err(LockfileError::MergeConflict { line });
            }
            if let Ok(RawVersion { version }) = toml::from_str(text) {
                check_version(text, version.as_ref())?;
            }
            return Err(LockfileError::NotALockfile {
                line: error.span().map(|span| line_of(text, span.start)),
                cause: error
                    .message()
                    .lines()
                    .next()
                    .unwrap_or("unreadable")
                    .to_owned(),
            });
        }
    };
    check_version(text, raw.version.as_ref())?;
    let says_nothing = raw.version.is_none()
        && raw.root.is_none()
        && raw.package.is_empty()
        && raw.metadata.is_empty();
    if says_nothing
        && text
            .lines()
            .map(str::trim)
            .any(|line| !line.is_empty() && !line.starts_with('#'))
    {
        return Err(LockfileError::NotALockfile {
            line: None,
            cause: "it names no package".to_owned(),
        });
    }
    Ok(raw)
}

pub(super) fn check_version(
    text: &str,
    version: Option<&Spanned<toml::Value>>,
) -> Result<(), LockfileError> {
    let Some(version) = version else {
        return Ok(());
    };
    match version.get_ref().as_integer() {
        Some(1..=NEWEST_FORMAT) => Ok(()),
        Some(version) if version > NEWEST_FORMAT => Err(LockfileError::NewerVersion { version }),
        Some(_) | None => Err(LockfileError::BadVersion {
            line: line_of(text, version.span().start),
        }),
    }
}

/// The first line that git writes around a conflict.
pub(super) fn merge_conflict(text: &str) -> Option<usize> {
    let is_mark = |line: &str| {
        ["<<<<<<<", "=======", ">>>>>>>"]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    text.lines().position(is_mark).map(|index| index + 1)
}
