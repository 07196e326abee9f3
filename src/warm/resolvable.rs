//! The index entries that cargo's resolver may ask for and no lock file leads to: see [`ResolverReach`].
//!
//! [`ResolverReach`]: crate::plan::ResolverReach

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::fetch::ensure_with_retry;
use crate::{
    cache::{Cache, Demand, Outcome},
    error::Error,
    hash::Sha256,
    plan::{Choice, Question},
    resource::{IndexEntry, ListedVersion, Location, Registries, Registry},
    store::{Owner, Pin, PinnedCrate, Store},
};

/// The pins of earlier runs whose entries are all stored.
#[derive(Debug, Default)]
pub(super) struct SettledPins(BTreeMap<Owner, Pin>);

impl SettledPins {
    pub(super) async fn read(store: &Store, registries: &Registries) -> Self {
        let mut settled = BTreeMap::new();
        for pin in store.pins().await.unwrap_or_default() {
            let Some(entries) = &pin.entries else {
                continue;
            };
            let keys = entries.iter().filter_map(|(registry, name)| {
                match IndexEntry::of(registries.named(registry)?, name)?.location() {
                    Location::Entry(key) => Some(key),
                    Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_) => None,
                }
            });
            let keys: Vec<_> = keys.collect();
            if keys.len() == entries.len() && store.has_entries(keys).await.unwrap_or_default() {
                settled.insert(pin.owner.clone(), pin);
            }
        }
        Self(settled)
    }

    /// The owner's pin, if it covers these packages.
    pub(super) fn covering(&self, owner: &Owner, packages: &[PinnedCrate]) -> Option<&Pin> {
        let pin = self.0.get(owner)?;
        let known: BTreeSet<_> = pin.packages.iter().map(id_of).collect();
        let mut packages = packages.iter();
        packages
            .all(|package| known.contains(&id_of(package)))
            .then_some(pin)
    }
}

/// The parts of a package that decide what resolving it leads to.
fn id_of(package: &PinnedCrate) -> (&str, &str, &str, bool) {
    let PinnedCrate {
        registry,
        name,
        version,
        ..
    } = package;
    (registry, name, version, package.is_excluded)
}

/// The work on one entry: storing it, and choosing a version for each question.
pub(super) struct EntryTask {
    pub(super) cache: Cache,
    pub(super) store: Arc<Store>,
    pub(super) registry: Arc<Registry>,
    /// All about one crate, at least one.
    pub(super) questions: Vec<Question>,
    pub(super) demand: Demand,
}

/// The result of one entry.
#[derive(Debug, Default)]
pub(super) struct ObtainedAnswers {
    pub(super) answers: Vec<(Question, Choice)>,
    /// Bytes fetched.
    pub(super) bytes: u64,
}

impl EntryTask {
    /// Stores the entry. A crate that does not exist answers no question.
    ///
    /// # Errors
    /// If the entry cannot be stored.
    pub(super) async fn run(self) -> Result<ObtainedAnswers, Error> {
        let mut found = ObtainedAnswers::default();
        let name = self.questions.first().map(|question| &question.name.1);
        let Some(entry) = name.and_then(|name| IndexEntry::of(&self.registry, name)) else {
            return Ok(found);
        };
        let mut demand = self.demand;
        loop {
            let ensured = match ensure_with_retry(&self.cache, &entry, demand).await {
                Err(Error::Absent { .. }) => return Ok(found),
                ensured => ensured?,
            };
            if ensured.outcome == Outcome::Miss {
                found.bytes += ensured.bytes;
            }
            let body = ensured.entry.unwrap_or_default();
            found.answers = self.answers(&body).await;
            // The version that a dependency wants may have been published after the entry was stored.
            let is_too_old = found.answers.len() < self.questions.len()
                && demand == Demand::Stored
                && ensured.outcome == Outcome::Hit;
            if !is_too_old {
                return Ok(found);
            }
            demand = Demand::Fresh;
        }
    }

    async fn answers(&self, body: &[u8]) -> Vec<(Question, Choice)> {
        let listed = ListedVersion::all_of(body);
        let hashes: Vec<Sha256> = listed.iter().map(|version| version.checksum).collect();
        let stored = self.store.contains(hashes).await;
        let stored = stored.unwrap_or_else(|_| vec![false; listed.len()]);
        let questions = self.questions.iter();
        let answers = questions.filter_map(|question| {
            let choice = choose(question, &listed, &stored)?;
            Some((question.clone(), choice))
        });
        answers.collect()
    }
}

/// The stored version that satisfies the question, else the newest.
fn choose(question: &Question, listed: &[ListedVersion<'_>], stored: &[bool]) -> Option<Choice> {
    let requirement = question.requirement()?;
    let matching = listed.iter().zip(stored);
    let matching = matching.filter(|(listed, _)| requirement.matches(&listed.version));
    let (first, later): (Vec<_>, Vec<_>) = matching.partition(|(_, is_stored)| **is_stored);
    let mut in_order = first.into_iter().chain(later);
    in_order.find_map(|(listed, is_stored)| {
        Some(Choice {
            needs: listed.needs()?,
            version: listed.version.to_string(),
            checksum: listed.checksum,
            is_stored: *is_stored,
            has_stored: stored.contains(&true),
        })
    })
}
