//! [`UnprovenFile`]: a file of the dist server of which nobody publishes a hash.
//!
//! Mirrors have them, and old releases: signatures, dates of channels, archives without a sidecar. larder serves such a
//! file as upstream sends it, and marks the answer (docs/decisions/0040-unproven-files.md). The store keeps the body as
//! a blob, like that of other files. The entry of this kind is the sidecar that upstream lacks. larder writes it when
//! it receives the file:
//!
//! ```text
//!  rustup/unproven/dist/rust-0.9-x86_64-unknown-linux-gnu.tar.gz     7d86...  computed by larder; `ETag` of upstream
//! ```

use std::fmt;

use super::path::{DistPath, rustup_policy};
use crate::{
    hash::Sha256,
    resource::{Freshness, InvalidBody, Key, Kind, Location, Measured, Policy, Source},
};

/// The facts that larder knows of a file that upstream does not prove.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnprovenFile {
    pub(super) file: DistPath,
    /// The name of the file in messages.
    pub(super) title: String,
}

impl fmt::Display for UnprovenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

impl Kind for UnprovenFile {
    fn location(&self) -> Location {
        Location::Entry(Key::new(&["rustup", "unproven", &self.file.path]))
    }

    /// Without a proof, a name does not fix the bytes: upstream is asked again.
    fn policy(&self) -> Policy {
        rustup_policy(
            Freshness::AsUpstreamSays,
            8 << 30,
            "application/octet-stream",
        )
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn measured(&self) -> Option<&dyn Measured> {
        Some(self)
    }
}

impl Measured for UnprovenFile {
    /// A login page is the likeliest answer of a server that is not upstream.
    fn validate_start(&self, start: &[u8]) -> Result<(), InvalidBody> {
        let text = start.trim_ascii_start().to_ascii_lowercase();
        let is_page = [&b"<!doctype html"[..], b"<html"]
            .iter()
            .any(|page| text.starts_with(page));
        if is_page {
            Err(InvalidBody::WebPage)
        } else {
            Ok(())
        }
    }

    fn record(&self, sha256: Sha256) -> String {
        format!("{sha256}  {}\n", self.file.name())
    }
}
