//! [`RustupRelease`]: `release-stable.toml`, which names the newest version of rustup.
//!
//! `toolchain install`, `update` and `check` end with a request for it. Without an answer the command fails although
//! the toolchain is installed (docs/client-behaviour.md R-08). If it names another version than the running rustup, the
//! first two also download that version's program, so an install needs both files.

use std::{fmt, sync::Arc};

use super::path::{Dist, DistPath, rustup_policy};
use crate::resource::{Freshness, InvalidBody, Kind, Location, Policy, Resource, Source};

/// The resource at `rustup/release-stable.toml`.
pub fn release(dist: &Arc<Dist>) -> Resource {
    Arc::new(RustupRelease {
        file: DistPath {
            dist: dist.clone(),
            path: "rustup/release-stable.toml".to_owned(),
        },
    })
}

/// The version of rustup that a stored `release-stable.toml` names. `None` if the text is not such a file.
pub fn released_version(body: &[u8]) -> Option<String> {
    let table: toml::Table = toml::from_str(std::str::from_utf8(body).ok()?).ok()?;
    Some(table.get("version")?.as_str()?.to_owned())
}

/// The file that names the newest version of rustup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RustupRelease {
    pub(super) file: DistPath,
}

impl fmt::Display for RustupRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rustup's `release-stable.toml`")
    }
}

impl Kind for RustupRelease {
    fn location(&self) -> Location {
        Location::Entry(self.file.key())
    }

    fn policy(&self) -> Policy {
        rustup_policy(Freshness::AsUpstreamSays, 1 << 16, "text/plain")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        let text = std::str::from_utf8(body).map_err(InvalidBody::ReleaseNotUtf8)?;
        let table: toml::Table = toml::from_str(text).map_err(InvalidBody::ReleaseNotToml)?;
        if table.contains_key("schema-version") && table.contains_key("version") {
            Ok(())
        } else {
            Err(InvalidBody::ReleaseWithoutVersion)
        }
    }
}
