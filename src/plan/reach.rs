//! The index entries that cargo's resolver may ask for, beyond those of the lock files.
//!
//! A lock file names what one project needs. When a user runs `cargo add` or `cargo update` offline, cargo resolves the
//! stored versions anew, for all platforms and perhaps with other features. So it asks for entries that no lock file
//! led to.
//!
//! ```text
//!  planned `web 0.12.0` ── optional `dep:sysconf ^0.6` ──> no planned version fits: a question
//!                                                                │
//!            `sysconf 0.6.1`, the newest, is offered offline <── answer, from the entry of `sysconf`
//!                  └── needs `corefoundation ^0.9` ──> the next question
//! ```
//!
//! A question asks which version of a crate cargo would choose for a requirement. The caller answers it by the crate's
//! index entry, which it stores for that: a stored version if one fits, else the newest. What the chosen version needs
//! gives further questions, as in cargo's resolver (docs/client-behaviour.md C-21). No crate is fetched.
//!
//! The index entry offers only stored versions offline. A chosen version that is not stored must be offered too, or
//! cargo could not resolve; see [`Reached::offered`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use semver::{Version, VersionReq};

use super::{manifest::Dependency, needs::Needs, packages::registry_at};
use crate::{
    hash::Sha256,
    resource::{EnabledFeatures, Registries, VersionNeeds},
    store::PinnedCrate,
};

/// A crate's registry and name.
pub(crate) type CrateName = (String, String);
/// A crate's registry, name and version.
type VersionId = (String, String, String);

/// A dependency that no planned version satisfies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    /// The crate.
    pub(crate) name: CrateName,
    requirement: String,
    /// Features that the dependency switches on.
    features: BTreeSet<String>,
    /// False if only features that are off by default lead here, on all platforms. To build with these features, the
    /// missing crate would be needed at once.
    is_firm: bool,
}

/// The version that cargo would choose.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) version: String,
    pub(crate) checksum: Sha256,
    pub(crate) needs: VersionNeeds,
    /// True if its crate is stored.
    pub(crate) is_stored: bool,
    /// True if any version of the crate is stored.
    pub(crate) has_stored: bool,
}

/// The part of a [`ResolverReach`] that concerns some packages.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Checksums of those versions that are not stored and that cargo must be offered nevertheless.
    pub(crate) offered: BTreeSet<Sha256>,
    /// The crates that questions were about.
    pub(crate) crates: BTreeSet<CrateName>,
}

/// Questions and answers of one run.
#[derive(Debug)]
pub(crate) struct ResolverReach {
    registries: Registries,
    planned: BTreeMap<CrateName, BTreeSet<Version>>,
    chosen: BTreeMap<VersionId, ChosenVersion>,
    /// The entries that each version led to.
    questions: BTreeMap<VersionId, BTreeSet<Question>>,
    asked: BTreeSet<Question>,
    answers: BTreeMap<Question, VersionId>,
    /// Chosen versions that are not stored, and must be offered nevertheless.
    offered: BTreeMap<VersionId, Sha256>,
}

/// A version that answers a question.
#[derive(Debug)]
struct ChosenVersion {
    /// `None` if its line cannot be used.
    needs: Option<Needs>,
    enabled: EnabledFeatures,
    is_firm: bool,
}

impl Question {
    /// The requirement. `None` if cargo could not read it either.
    pub(crate) fn requirement(&self) -> Option<VersionReq> {
        VersionReq::parse(&self.requirement).ok()
    }
}

impl ResolverReach {
    pub(crate) fn new(registries: &Registries) -> Self {
        Self {
            registries: registries.clone(),
            planned: BTreeMap::new(),
            chosen: BTreeMap::new(),
            questions: BTreeMap::new(),
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            offered: BTreeMap::new(),
        }
    }

    /// Adds a package of a lock file. Add all of them before the first [`ResolverReach::follow`].
    pub(crate) fn plan(&mut self, package: &PinnedCrate) {
        if let Ok(version) = Version::parse(&package.version) {
            let name = crate_name(&package.registry, &package.name);
            self.planned.entry(name).or_default().insert(version);
        }
    }

    /// The questions to which a planned package leads: any of its features may be switched on.
    pub(crate) fn follow(&mut self, package: &PinnedCrate, needs: VersionNeeds) -> Vec<Question> {
        let Some(needs) = Needs::of_crate(needs) else {
            return Vec::new();
        };
        let mut by_default = EnabledFeatures::default();
        needs.enable(&mut by_default, "default");
        let mut all = EnabledFeatures::default();
        for feature in needs.features.keys() {
            needs.enable(&mut all, feature);
        }
        let dependencies = needs.dependencies.iter().filter(|one| !one.is_dev);
        let questions = dependencies.flat_map(|dependency| {
            let asked =
                |enabled: &EnabledFeatures| enabled.dependencies.get(&dependency.name).cloned();
            let is_firm = !dependency.is_optional
                || dependency.is_for_target
                || by_default.dependencies.contains_key(&dependency.name);
            let likely = is_firm.then(|| (asked(&by_default).unwrap_or_default(), true));
            [likely, Some((asked(&all).unwrap_or_default(), false))]
                .into_iter()
                .flatten()
                .filter_map(|(asked, is_firm)| {
                    self.question(&package.registry, dependency, asked, is_firm)
                })
        });
        let mut questions: BTreeSet<_> = questions.collect();
        let firm: Vec<_> = questions
            .iter()
            .filter(|question| question.is_firm)
            .cloned()
            .collect();
        for mut question in firm {
            question.is_firm = false;
            questions.remove(&question);
        }
        self.ask(id_of(package), questions)
    }

    /// Takes the answer to a question. Returns the questions that follow from it.
    pub(crate) fn answer(&mut self, question: Question, choice: Choice) -> Vec<Question> {
        let (registry, name) = question.name.clone();
        let id = (registry, name, choice.version);
        // Crates of the plan may not have arrived yet.
        let has_stored = choice.has_stored || self.planned.contains_key(&question.name);
        let must_be_offered = question.is_firm || !has_stored;
        if !choice.is_stored && must_be_offered {
            self.offered.insert(id.clone(), choice.checksum);
        }
        self.answers.insert(question.clone(), id.clone());
        let chosen = self
            .chosen
            .entry(id.clone())
            .or_insert_with(|| ChosenVersion {
                needs: Needs::of_crate(choice.needs),
                enabled: EnabledFeatures::default(),
                is_firm: false,
            });
        let Some(needs) = &chosen.needs else {
            return Vec::new();
        };
        chosen.is_firm |= question.is_firm;
        for feature in &question.features {
            needs.enable(&mut chosen.enabled, feature);
        }
        let questions = self.questions_of(&id);
        self.ask(id, questions)
    }

    /// The dependencies of a chosen version that its enabled features need.
    fn questions_of(&self, id: &VersionId) -> BTreeSet<Question> {
        let Some(chosen) = self.chosen.get(id) else {
            return BTreeSet::new();
        };
        let dependencies = chosen.needs.iter().flat_map(|needs| &needs.dependencies);
        let dependencies = dependencies.filter(|one| !one.is_dev);
        let questions = dependencies.filter_map(|dependency| {
            let asked = chosen.enabled.dependencies.get(&dependency.name);
            if dependency.is_optional && asked.is_none() {
                return None;
            }
            let asked = asked.cloned().unwrap_or_default();
            self.question(&id.0, dependency, asked, chosen.is_firm)
        });
        questions.collect()
    }

    /// The part that resolving these packages anew leads to.
    pub(crate) fn of(&self, packages: &[PinnedCrate]) -> Reached {
        let mut queue: VecDeque<VersionId> = packages.iter().map(id_of).collect();
        let mut seen: BTreeSet<VersionId> = queue.iter().cloned().collect();
        let mut reached = Reached::default();
        while let Some(id) = queue.pop_front() {
            reached.offered.extend(self.offered.get(&id));
            for question in self.questions.get(&id).into_iter().flatten() {
                reached.crates.insert(question.name.clone());
                if let Some(chosen) = self.answers.get(question)
                    && seen.insert(chosen.clone())
                {
                    queue.push_back(chosen.clone());
                }
            }
        }
        reached
    }

    /// `None` if a planned version satisfies the dependency, or if larder does not cover its registry.
    fn question(
        &self,
        registry: &str,
        dependency: &Dependency,
        asked: BTreeSet<String>,
        is_firm: bool,
    ) -> Option<Question> {
        let registry = match &dependency.registry {
            None => registry,
            Some(index) => registry_at(index, &self.registries)?.name(),
        };
        let name = crate_name(registry, &dependency.package);
        let planned = self.planned.get(&name).into_iter().flatten();
        if planned
            .into_iter()
            .any(|version| dependency.requirement.matches(version))
        {
            return None;
        }
        let mut features = asked;
        features.extend(dependency.features.iter().cloned());
        if dependency.default_features {
            features.insert("default".to_owned());
        }
        Some(Question {
            name,
            requirement: dependency.requirement.to_string(),
            features,
            is_firm,
        })
    }

    /// Records the questions of a version. Returns those that are new in this run.
    fn ask(&mut self, from: VersionId, questions: BTreeSet<Question>) -> Vec<Question> {
        let new: Vec<_> = questions.difference(&self.asked).cloned().collect();
        self.asked.extend(new.iter().cloned());
        self.questions.entry(from).or_default().extend(questions);
        new
    }
}

fn crate_name(registry: &str, name: &str) -> CrateName {
    (registry.to_owned(), name.to_ascii_lowercase())
}

fn id_of(package: &PinnedCrate) -> VersionId {
    let (registry, name) = crate_name(&package.registry, &package.name);
    (registry, name, package.version.clone())
}
