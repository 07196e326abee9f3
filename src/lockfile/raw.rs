//! The TOML of a lock file, with the offsets of its parts, and the checks that concern the file as a whole.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::error::{LockfileError, line_of};

/// Newest lock file format that larder reads. It is not taken from `cargo_lock::ResolveVersion`, so that an update of
/// that crate does not make larder accept a format that its reader was never checked against.
const NEWEST_FORMAT: i64 = 4;

/// The fields that larder reads. All other fields may have any shape.
#[derive(Deserialize)]
pub(super) struct RawLockfile {
    pub(super) version: Option<Spanned<toml::Value>>,
    pub(super) root: Option<Spanned<RawLockedPackage>>,
    #[serde(default)]
    pub(super) package: Vec<Spanned<RawLockedPackage>>,
    /// Checksums of format 1, and other things: values are checked later.
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, Spanned<toml::Value>>,
}

/// The table of patches.
#[derive(Deserialize)]
struct RawPatches {
    patch: RawPatch,
}

#[derive(Deserialize)]
struct RawPatch {
    unused: Vec<Spanned<RawLockedPackage>>,
}

/// One `[[package]]`, or `[root]`. Required fields are optional here, so that one without them does not fail the file.
#[derive(Deserialize)]
pub(super) struct RawLockedPackage {
    name: Option<Spanned<String>>,
    version: Option<Spanned<String>>,
    pub(super) source: Option<Spanned<String>>,
    pub(super) checksum: Option<Spanned<String>>,
    pub(super) replace: Option<Spanned<String>>,
    /// Ids of dependencies; only the graph reads them.
    dependencies: Option<toml::Value>,
}

impl RawLockedPackage {
    /// The name; empty if there is none.
    pub(super) fn name(&self) -> &str {
        self.name.as_ref().map_or("", |name| name.get_ref())
    }

    /// The version; empty if there is none.
    pub(super) fn version(&self) -> &str {
        self.version
            .as_ref()
            .map_or("", |version| version.get_ref())
    }

    /// The ids of its dependencies. `None` if the field has another shape.
    pub(super) fn dependencies(&self) -> Option<Vec<&str>> {
        let Some(field) = &self.dependencies else {
            return Some(Vec::new());
        };
        field.as_array()?.iter().map(toml::Value::as_str).collect()
    }

    /// Name and version for messages, not escaped.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.name(), self.version())
    }
}

/// The one field that every format has.
#[derive(Deserialize)]
struct RawVersion {
    version: Option<Spanned<toml::Value>>,
}

/// Reads the TOML and checks that it is a lock file of a known format.
pub(super) fn read(text: &str) -> Result<RawLockfile, LockfileError> {
    let raw: RawLockfile = toml::from_str(text).map_err(|error| diagnose(text, &error))?;
    check_version(text, raw.version.as_ref())?;
    let is_bare = raw.version.is_none()
        && raw.root.is_none()
        && raw.package.is_empty()
        && raw.metadata.is_empty();
    let mut lines = text.lines().map(str::trim);
    if is_bare && lines.any(|line| !line.is_empty() && !line.starts_with('#')) {
        return Err(LockfileError::NotALockfile {
            line: None,
            cause: "it names no package".to_owned(),
        });
    }
    Ok(raw)
}

/// The packages of `[patch]` that replace no other. A table of another shape counts as none.
pub(super) fn unused_patches(text: &str) -> Vec<Spanned<RawLockedPackage>> {
    // Few lock files have any, and reading the rest again takes as long as the first time.
    if !text.contains("patch") {
        return Vec::new();
    }
    let patches = toml::from_str(text).map(|patches: RawPatches| patches.patch.unused);
    patches.unwrap_or_default()
}

/// Finds the likeliest reason why the TOML did not fit: conflict markers are never TOML, and a newer format may have
/// changed fields.
fn diagnose(text: &str, error: &toml::de::Error) -> LockfileError {
    if let Some(line) = merge_conflict(text) {
        return LockfileError::MergeConflict { line };
    }
    if let Ok(RawVersion { version }) = toml::from_str(text)
        && let Err(error) = check_version(text, version.as_ref())
    {
        return error;
    }
    LockfileError::NotALockfile {
        line: error.span().map(|span| line_of(text, span.start)),
        cause: error
            .message()
            .lines()
            .next()
            .unwrap_or("unreadable")
            .to_owned(),
    }
}

fn check_version(text: &str, version: Option<&Spanned<toml::Value>>) -> Result<(), LockfileError> {
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

/// Line of the first conflict marker of git.
fn merge_conflict(text: &str) -> Option<usize> {
    let is_mark = |line: &str| {
        ["<<<<<<<", "=======", ">>>>>>>"]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    text.lines().position(is_mark).map(|index| index + 1)
}
