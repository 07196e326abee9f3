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

/// All advisories of a database.
#[derive(Debug, Default)]
pub struct AdvisoryDatabase {
    /// By the name of their crate in lower case.
    by_crate: HashMap<String, Vec<Advisory>>,
    unreadable: usize,
}

impl AdvisoryDatabase {
    /// Reads the archive of a database.
    ///
    /// # Errors
    /// It is no `tar.gz`, or has no advisory.
    pub fn read(archive: &[u8]) -> Result<Self, DatabaseError> {
        let (advisories, unreadable) = archive::read(archive)?;
        let mut database = Self {
            unreadable,
            ..Self::default()
        };
        for advisory in advisories {
            let advisories = database
                .by_crate
                .entry(advisory.package.to_ascii_lowercase())
                .or_default();
            advisories.push(advisory);
        }
        for advisories in database.by_crate.values_mut() {
            advisories.sort_by(|a, b| a.id.cmp(&b.id));
        }
        Ok(database)
    }

    /// Number of advisories.
    pub fn len(&self) -> usize {
        self.by_crate.values().map(Vec::len).sum()
    }

    /// Number of advisories that were skipped, because they cannot be read.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_crate.is_empty()
    }

    /// The advisories about a crate.
    pub fn about(&self, name: &str) -> &[Advisory] {
        self.by_crate
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
