//! [`TouchedPackage`]: packages of projects that advisories are about.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    resource::registry::CRATES_IO,
    store::{Pin, PinnedCrate},
    trust::{AdvisoryDatabase, AdvisoryKind},
};

/// A version that an advisory is about, with the projects that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TouchedPackage {
    /// The advisory's id.
    pub id: String,
    /// The crate.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The kind of the advisory.
    pub kind: AdvisoryKind,
    /// The advisory's title.
    pub title: String,
    /// Where to read more.
    pub url: Option<String>,
    /// Requirements that mended versions meet.
    pub patched: Vec<String>,
    /// The setting `allow-advisory` has the id.
    pub allowed: bool,
    /// The projects, by name.
    pub projects: BTreeSet<String>,
}

impl TouchedPackage {
    /// Returns whether a project with this package is not well.
    pub fn is_fault(&self) -> bool {
        self.kind.is_fault() && !self.allowed
    }
}

/// The statements of the advisories about the packages of these projects, sorted by kind, crate and version. `allowed`
/// are the ids of the setting `allow-advisory`.
pub fn touched_packages<'a>(
    database: &AdvisoryDatabase,
    allowed: &BTreeSet<String>,
    projects: impl IntoIterator<Item = (String, &'a [PinnedCrate])>,
) -> Vec<TouchedPackage> {
    let mut owners: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for (project, packages) in projects {
        for package in packages
            .iter()
            .filter(|package| package.registry == CRATES_IO)
        {
            let id = (package.name.as_str(), package.version.as_str());
            owners.entry(id).or_default().insert(project.clone());
        }
    }
    let mut touched = Vec::new();
    for ((name, version), projects) in owners {
        for advisory in database.touching(name, version) {
            touched.push(TouchedPackage {
                id: advisory.id.clone(),
                package: name.to_owned(),
                version: version.to_owned(),
                kind: advisory.kind,
                title: advisory.title.clone(),
                url: advisory.url.clone(),
                patched: advisory.patched.iter().map(ToString::to_string).collect(),
                allowed: allowed.contains(&advisory.id),
                projects: projects.clone(),
            });
        }
    }
    touched.sort_by_key(|touched| touched.kind);
    touched
}

/// Numbers of packages of warmed projects that advisories are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdvisoryCounts {
    /// Number of advisories in the stored database.
    pub known: usize,
    /// Packages that an advisory calls malicious.
    pub malicious: usize,
    /// Those with a vulnerability.
    pub vulnerable: usize,
    /// Those with another advisory.
    pub others: usize,
}

impl AdvisoryCounts {
    /// Counts the packages of pins, each once for each of its advisories. Leaves out those in `allowed`.
    pub fn of(database: &AdvisoryDatabase, allowed: &BTreeSet<String>, pins: &[Pin]) -> Self {
        let projects = pins
            .iter()
            .map(|pin| (pin.owner.to_string(), pin.packages.as_slice()));
        let touched = touched_packages(database, allowed, projects);
        let count = |is_meant: fn(AdvisoryKind) -> bool| {
            let counted = touched.iter().filter(|touched| !touched.allowed);
            counted.filter(|touched| is_meant(touched.kind)).count()
        };
        Self {
            known: database.len(),
            malicious: count(|kind| kind == AdvisoryKind::Malicious),
            vulnerable: count(|kind| kind == AdvisoryKind::Vulnerability),
            others: count(|kind| !kind.is_fault()),
        }
    }
}
