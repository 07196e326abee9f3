//! The RustSec advisory database: which versions of crates have known faults.
//!
//! The database is a repository of one file for each advisory. larder reads its archive, `tar.gz`, as forges offer it:
//!
//! ```text
//!  NAME/crates/left/RUSTSEC-2026-0001.md      ```toml ── package, ranges of versions ``` # title      advisory.rs
//!  NAME/rust/std/CVE-2026-0001.md             about the toolchain: not read
//! ```
//!
//! Advisories are about crates of crates.io.

mod advisory;
mod archive;

use std::collections::HashMap;

use semver::Version;

pub use advisory::{Advisory, AdvisoryKind};
pub use archive::{DatabaseError, pack};

/// All advisories of a database, by the name of their crate in lower case.
#[derive(Debug, Default)]
pub struct AdvisoryDatabase(HashMap<String, Vec<Advisory>>);

impl AdvisoryDatabase {
    /// Reads the archive of a database.
    ///
    /// # Errors
    /// It is no `tar.gz`, or has no advisory.
    pub fn read(archive: &[u8]) -> Result<Self, DatabaseError> {
        let mut database = Self::default();
        for advisory in archive::read(archive)? {
            let advisories = database
                .0
                .entry(advisory.package.to_ascii_lowercase())
                .or_default();
            advisories.push(advisory);
        }
        for advisories in database.0.values_mut() {
            advisories.sort_by(|a, b| a.id.cmp(&b.id));
        }
        Ok(database)
    }

    /// Number of advisories.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The advisories about a crate.
    pub fn about(&self, name: &str) -> &[Advisory] {
        self.0
            .get(&name.to_ascii_lowercase())
            .map_or(&[], Vec::as_slice)
    }

    /// The advisories that a version is touched by, sorted by id.
    pub fn touching(&self, name: &str, version: &str) -> Vec<&Advisory> {
        let about = self.about(name);
        if about.is_empty() {
            return Vec::new();
        }
        let version = Version::parse(version).ok();
        let touches = |advisory: &&Advisory| advisory.touches(version.as_ref());
        about.iter().filter(touches).collect()
    }
}
