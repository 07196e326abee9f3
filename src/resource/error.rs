//! Errors of kinds: a body that is not the resource, an address that cannot be used, a listing without the resource.

use std::str::Utf8Error;

use crate::trust::DatabaseError;

/// A body that cannot be the resource. `Display` is a phrase that fits after "the answer".
#[derive(Debug, thiserror::Error)]
pub enum InvalidBody {
    /// No bytes, or no lines.
    #[error("is empty")]
    Empty,
    /// Not the JSON of a registry's `config.json`.
    #[error("is not a registry's config.json")]
    NotConfig(#[source] serde_json::Error),
    /// A `config.json` with a download template that larder refuses.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// No line of the index entry describes the crate.
    #[error("does not describe the crate `{0}`; a login page or a wrong server?")]
    OtherCrate(String),
    /// A line of the index entry that cargo would misread.
    #[error("is not a whole index entry: line {number} {problem}")]
    Line {
        /// The number of the line, from 1, without empty lines.
        number: usize,
        /// The problem.
        problem: LineProblem,
    },
    /// The last line of the index entry is incomplete.
    #[error("ends in the middle of a line")]
    CutLine,
    /// A sidecar without a hash.
    #[error("does not begin with a sha256; a login page or a wrong server?")]
    NoSha256,
    /// `release-stable.toml` is not UTF-8.
    #[error("names no version of rustup; a login page or a wrong server?")]
    ReleaseNotUtf8(#[source] Utf8Error),
    /// `release-stable.toml` is not TOML.
    #[error("names no version of rustup; a login page or a wrong server?")]
    ReleaseNotToml(#[source] toml::de::Error),
    /// `release-stable.toml` without the fields that rustup reads.
    #[error("names no version of rustup; a login page or a wrong server?")]
    ReleaseWithoutVersion,
    /// A page for people in place of a file.
    #[error("is a web page")]
    WebPage,
    /// Not the archive of an advisory database.
    #[error("is no advisory database: {0}")]
    Advisories(#[source] DatabaseError),
    /// The bootstrap script does not begin with an interpreter.
    #[error("is not a shell script")]
    NotScript,
    /// The bootstrap script cannot be made to work over http.
    #[error("cannot be made to work over http: {0}")]
    UneditableScript(String),
}

impl InvalidBody {
    /// Tells if the body is what upstream means to send. Then another try gets the same.
    pub fn is_genuine(&self) -> bool {
        matches!(self, Self::UneditableScript(_))
    }
}

/// A line of an index entry that shows that the body is broken or is another entry's.
#[derive(Debug, thiserror::Error)]
pub enum LineProblem {
    /// Zero bytes, as a disk leaves where data is missing.
    #[error("has NUL bytes")]
    Nul,
    /// HTML or XML: another server has answered in the middle of the body.
    #[error("is markup")]
    Markup,
    /// A version of another crate.
    #[error("describes the crate `{}`", .0.escape_debug())]
    OtherCrate(String),
    /// The checksum cannot be one.
    #[error("has a checksum that is no sha256")]
    Checksum,
}

/// A download template of a `config.json` that larder refuses. `Display` is a phrase that fits after the file's name.
#[derive(Debug, thiserror::Error)]
#[error("names the unusable download address `{}`: {reason}", .template.escape_debug())]
pub struct TemplateError {
    /// The template as upstream wrote it.
    pub template: String,
    /// Why it is refused.
    #[source]
    pub reason: TemplateProblem,
}

/// Why a download template is refused.
#[derive(Debug, thiserror::Error)]
pub enum TemplateProblem {
    /// The filled template is no URL.
    #[error("it is no address")]
    NotUrl(#[source] url::ParseError),
    /// A crate's name or version would choose the host.
    #[error("a marker stands before the path, where the host is")]
    MarkerBeforePath,
    /// A scheme that larder does not speak.
    #[error("it is neither http nor https")]
    NotHttp,
    /// Downloads less secure than the index.
    #[error("it is http although the index is https")]
    Downgrade,
}

/// A body that names no usable address for a resource.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The stored `config.json` is not JSON of the expected form.
    #[error("config.json cannot be read: {0}")]
    Config(#[source] serde_json::Error),
    /// The download template is refused.
    #[error("config.json {0}")]
    Template(#[source] TemplateError),
    /// The filled template is no URL.
    #[error("`{address}` is no address: {source}")]
    NotUrl {
        /// The filled template.
        address: String,
        /// Why it does not parse.
        source: url::ParseError,
    },
}

/// The listing does not mention the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the listing does not mention it")]
pub struct Unlisted;
