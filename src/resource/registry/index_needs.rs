//! [`VersionNeeds`]: all that one version of a crate says about its dependencies and features.
//!
//! The offline view and invalidations need less of a line, and read it with `index_line`. This reader is for what cargo
//! would resolve: prefetch hints, and the comparison with a lock file.

use std::collections::BTreeMap;

use semver::Version;
use serde::Deserialize;

use super::index_line::{
    LineVersion, checksum_of_line, index_lines, quick_checksum_of_line, resolved_name,
    version_of_line,
};
use crate::hash::Sha256;

/// The dependencies and features of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Line")]
pub struct VersionNeeds {
    /// Its dependencies of all kinds.
    pub deps: Vec<NeededCrate>,
    /// Its features, by name, with what each enables.
    pub features: BTreeMap<String, Vec<String>>,
}

/// The fields of a line.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    deps: Vec<NeededCrate>,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
    /// Features with newer syntax.
    #[serde(default)]
    features2: Option<BTreeMap<String, Vec<String>>>,
}

/// Cargo merges both kinds of features (`index_package_to_summary` in `src/cargo/sources/registry/index/mod.rs`).
impl From<Line> for VersionNeeds {
    fn from(line: Line) -> Self {
        let mut features = line.features;
        for (name, enabled) in line.features2.into_iter().flatten() {
            features.entry(name).or_default().extend(enabled);
        }
        Self {
            deps: line.deps,
            features,
        }
    }
}

/// One dependency, as an index line spells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NeededCrate {
    /// The name by which the version's features know it.
    pub name: String,
    /// The crate's own name, if it is another.
    #[serde(default)]
    pub package: Option<String>,
    /// The version requirement.
    #[serde(default)]
    pub req: String,
    /// Features that this dependency switches on.
    #[serde(default)]
    pub features: Vec<String>,
    /// True if only a feature makes it a dependency.
    #[serde(default)]
    pub optional: bool,
    /// True if it switches on `default`.
    #[serde(default = "yes")]
    pub default_features: bool,
    /// `normal`, `build` or `dev`.
    #[serde(default)]
    pub kind: Option<String>,
    /// The platform that needs it; `None` if all do.
    #[serde(default)]
    pub target: Option<String>,
    /// The index of its registry, if it is not the one that lists the line.
    #[serde(default)]
    pub registry: Option<String>,
}

fn yes() -> bool {
    true
}

impl NeededCrate {
    /// See [`resolved_name`].
    pub(super) fn crate_name(&self) -> Option<&str> {
        let (package, kind) = (self.package.as_deref(), self.kind.as_deref());
        resolved_name(&self.name, package, kind, self.registry.as_deref())
    }
}

impl VersionNeeds {
    /// Reads the line of `version` in an index entry. `None` if the entry does not list it.
    pub fn of(entry: &[u8], version: &str) -> Option<Self> {
        let is_wanted = |line: &&[u8]| version_of_line(line).is_some_and(|own| own == version);
        let mut lines = index_lines(entry).filter(is_wanted);
        lines.find_map(|line| serde_json::from_slice(line).ok())
    }
}

/// One version that an index entry lists.
#[derive(Clone, Debug)]
pub struct ListedVersion<'a> {
    /// Its number.
    pub version: Version,
    /// SHA-256 of its crate.
    pub checksum: Sha256,
    line: &'a [u8],
}

impl<'a> ListedVersion<'a> {
    /// All versions of an index entry, the newest first. Lines that cargo would skip are left out.
    pub fn all_of(entry: &'a [u8]) -> Vec<Self> {
        let listed = index_lines(entry).filter_map(|line| {
            Some(Self {
                version: Version::parse(&version_of_line(line)?).ok()?,
                checksum: quick_checksum_of_line(line).or_else(|| checksum_of_line(line))?,
                line,
            })
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|a, b| b.version.cmp(&a.version));
        listed
    }

    /// The dependencies. `None` if cargo chooses the version only for a lock file that names it: it is yanked.
    pub fn needs(&self) -> Option<VersionNeeds> {
        let LineVersion { yanked, .. } = serde_json::from_slice(self.line).ok()?;
        if yanked == Some(true) {
            return None;
        }
        serde_json::from_slice(self.line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_a_version_gives_its_dependencies_and_both_kinds_of_features() {
        let entry = br#"{"name":"a","vers":"1.0.0","cksum":"","deps":[]}
            {"name":"a","vers":"1.1.0","cksum":"","deps":[{"name":"b","req":"^1","optional":true,"kind":"build"}],
             "features":{"x":["b"],"z":["x"]},"features2":{"y":["dep:b"],"z":["y"]}}"#;
        let entry = String::from_utf8_lossy(entry).replace("\n             ", "");
        let needs = VersionNeeds::of(entry.as_bytes(), "1.1.0").unwrap();
        assert!(needs.deps[0].optional && needs.deps[0].default_features);
        let features = [
            ("x", vec!["b"]),
            ("y", vec!["dep:b"]),
            ("z", vec!["x", "y"]),
        ];
        let features = features.map(|(name, enabled)| {
            (
                name.to_owned(),
                enabled.into_iter().map(str::to_owned).collect(),
            )
        });
        assert_eq!(needs.features, BTreeMap::from(features));
        assert_eq!(VersionNeeds::of(entry.as_bytes(), "1.2.0"), None);
    }
}
