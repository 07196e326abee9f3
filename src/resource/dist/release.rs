//! [`RustupRelease`]: `release-stable.toml`, which names the newest version of rustup.
//!
//! `toolchain install`, `update` and `check` end with a request for it. Without an answer the command fails although
//! the toolchain is installed (docs/client-behaviour.md R-08). If it names another version than the running rustup, the
//! first two also download that version's program (R-22), so an install needs both files.
//!
//! The file is therefore a release whose parts are the programs, one for each host. When a newer body arrives, the
//! older one is stored under its version if any of its programs is stored. It is served while upstream is unreachable
//! and the newer program is missing:
//!
//! ```text
//!  rustup/release-stable.toml                     1.30.0   no program stored
//!  rustup/releases/1.29.0                         1.29.0   the program for HOST is stored   <── served offline
//!  rustup/archive/1.29.0/HOST/rustup-init.sha256           its sidecar, which lists the program's hash
//! ```

use std::{cmp::Reverse, collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use semver::Version;

use super::{
    manifest::self_update,
    path::{Dist, DistPath, rustup_policy},
};
use crate::{
    hash::Sha256,
    resource::{Freshness, InvalidBody, Key, Kind, Location, Policy, Releases, Resource, Source},
};

/// The resource at `rustup/release-stable.toml`.
pub fn release(dist: &Arc<Dist>) -> Resource {
    Arc::new(RustupRelease {
        file: DistPath {
            dist: dist.clone(),
            path: "rustup/release-stable.toml".to_owned(),
        },
        version: None,
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
    /// The version of an older body that is stored under it; `None` for the newest.
    pub(super) version: Option<String>,
}

impl fmt::Display for RustupRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rustup's `release-stable.toml`")
    }
}

impl Kind for RustupRelease {
    fn location(&self) -> Location {
        Location::Entry(match &self.version {
            None => self.file.key(),
            Some(version) => Key::new(&["rustup", "releases", version]),
        })
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

    fn releases(&self) -> Option<&dyn Releases> {
        Some(self)
    }
}

impl Releases for RustupRelease {
    fn folder(&self) -> Key {
        Key::new(&["rustup", "releases"])
    }

    fn of_name(&self, name: &str) -> Option<Resource> {
        let version = Version::parse(name).ok()?;
        Some(Arc::new(Self {
            file: self.file.clone(),
            version: Some(version.to_string()),
        }))
    }

    fn of_body(&self, body: &[u8]) -> Option<Resource> {
        self.of_name(&released_version(body)?)
    }

    fn other_names(&self, _body: &[u8]) -> Vec<Resource> {
        Vec::new()
    }

    fn sort_newest_first(&self, names: &mut [String]) {
        names.sort_unstable_by_key(|name| Reverse(Version::parse(name).ok()));
    }

    /// The body names no part: there may be a program for any host.
    fn parts(&self, _body: &Bytes) -> BTreeMap<String, Sha256> {
        BTreeMap::new()
    }

    fn part_folder(&self, body: &[u8]) -> Option<Key> {
        let version = Version::parse(&released_version(body)?).ok()?;
        let folder = format!("rustup/archive/{version}");
        Some(Key::new(&["rustup", &folder]))
    }

    fn part(&self, body: &[u8], host: &str) -> Option<Resource> {
        self_update(&self.file.dist, &released_version(body)?, host)
    }
}
