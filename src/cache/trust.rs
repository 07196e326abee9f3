//! Refuses versions that clients must not get, although upstream or the store has them.
//!
//! ```text
//!  rule                           index entry             download by a client   fetch by `warm`
//!  checksum changed upstream      has the first one       refused                refused
//!  `deny`                         marked as yanked        refused                refused
//!  called malicious by RustSec     marked as yanked        refused                refused
//!  `min-age`, unless a pin locks  marked as yanked        refused                fetched: a lock file names it
//! ```
//!
//! An edited entry is made for each request. Its hash is its `ETag`, so that a client gets a new body as soon as a
//! version is old enough or a pin locks it. The stored entry stays as it is.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{
    decide::{Demand, Outcome},
    entries::Entries,
    flight::Until,
};
use crate::{
    clock::now,
    error::Error,
    hash::Sha256,
    resource::{Audience, CrateVersion, Location, Resource, registry::CRATES_IO},
    store::{Entry, RecallKind},
    trust::{AdvisoryDatabase, Objection, TrustPolicy},
};

/// Applies the rules. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    policy: Arc<TrustPolicy>,
    entries: Entries,
    /// The advisories that were read last.
    advisories: Arc<RwLock<Option<LoadedAdvisories>>>,
}

/// Advisories, with the hash of the stored archive that has them.
#[derive(Clone, Debug)]
struct LoadedAdvisories {
    archive: Sha256,
    database: Arc<AdvisoryDatabase>,
}

/// The rules that may apply to versions of one index entry.
struct EntryRules<'a> {
    registry: &'a str,
    name: &'a str,
    has_min_age: bool,
    /// The advisories, if one is about the crate.
    database: Option<Arc<AdvisoryDatabase>>,
}

impl Trust {
    /// The rules of `policy`. No advisories are known yet.
    pub(super) fn new(policy: Arc<TrustPolicy>, entries: Entries) -> Self {
        Self {
            policy,
            entries,
            advisories: Arc::default(),
        }
    }

    /// Returns whether a client may get this from upstream itself: no rule can be about it.
    pub(super) fn permits_bypass(&self, resource: &Resource) -> bool {
        if resource.policy().audience == Audience::Rustup {
            return self.policy.signing_keys.is_none();
        }
        let recalls = self.entries.lookup.store.recalls();
        let is_recalled = match resource.crate_version() {
            Some(version) => recalls.iter().any(|recall| {
                recall.registry == version.registry()
                    && recall.name == version.name()
                    && recall.version == version.version()
            }),
            // An entry with the new checksum would be believed.
            None => recalls
                .iter()
                .any(|recall| matches!(recall.kind, RecallKind::Checksum { .. })),
        };
        !is_recalled && !self.policy.has_rules() && self.advisories.read().is_none()
    }

    /// Returns whether a client may download this only if it is old enough.
    pub(super) fn has_min_age(&self, resource: &Resource) -> bool {
        let version = resource.crate_version();
        version.is_some_and(|version| self.policy.min_age(version.registry()).is_some())
    }

    /// Checks that a version is old enough for a client, or that a pin locks it.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(super) async fn check_age(&self, resource: &Resource) -> Result<(), Error> {
        let Some(version) = resource.crate_version() else {
            return Ok(());
        };
        let Some(objection) = self.objection_to_age(version).await else {
            return Ok(());
        };
        if self.is_locked(version).await {
            info!(%resource, %objection, "served, because a warmed project locks it");
            return Ok(());
        }
        Err(refused(resource, &objection))
    }

    /// Checks that these bytes may be fetched for a lock file that names them. A client may download them if
    /// [`Trust::check_age`] allows it as well.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(super) fn check_locked(&self, resource: &Resource, sha256: Sha256) -> Result<(), Error> {
        let Some(version) = resource.crate_version() else {
            return Ok(());
        };
        self.refuse_rewritten(resource, version, sha256)?;
        let database = self.database(version.registry());
        if !self.policy.has_rules() && database.is_none() {
            return Ok(());
        }
        let objection = self.objection(database.as_deref(), &version.name(), version.version());
        match objection {
            None => Ok(()),
            Some(objection) => Err(refused(resource, &objection)),
        }
    }

    /// The advisories about crates of this registry.
    fn database(&self, registry: &str) -> Option<Arc<AdvisoryDatabase>> {
        let loaded = self.advisories.read();
        let loaded = loaded.as_ref().filter(|_| registry == CRATES_IO)?;
        Some(loaded.database.clone())
    }

    /// The objection to a version, whatever its age.
    fn objection(
        &self,
        database: Option<&AdvisoryDatabase>,
        name: &str,
        version: &str,
    ) -> Option<Objection> {
        let denied = self.policy.objection_to(name, version);
        denied.or_else(|| self.policy.objection_by_advisory(database?, name, version))
    }

    /// Reads the stored advisory database, unless it was read before. `None` if none is stored that can be read.
    pub(super) async fn load_advisories(
        &self,
        archive: &Resource,
    ) -> Option<Arc<AdvisoryDatabase>> {
        let stored = self.entries.lookup.stored(archive).await?;
        let sha256 = stored.head.sha256;
        if let Some(loaded) = &*self.advisories.read()
            && loaded.archive == sha256
        {
            return Some(loaded.database.clone());
        }
        let reading = spawn_blocking(move || AdvisoryDatabase::read(&stored.body));
        match reading.await.ok()? {
            Ok(database) => {
                let database = Arc::new(database);
                info!(
                    advisories = database.len(),
                    "the advisory database was read"
                );
                if database.unreadable() > 0 {
                    warn!(
                        advisories = database.unreadable(),
                        "some advisories could not be read; a newer larder may know their format"
                    );
                }
                *self.advisories.write() = Some(LoadedAdvisories {
                    archive: sha256,
                    database: database.clone(),
                });
                Some(database)
            }
            Err(error) => {
                warn!(%error, "the stored advisory database cannot be read");
                None
            }
        }
    }

    /// The advisories that were read last, and the ids of those that the settings allow.
    pub(super) fn advisories(&self) -> Option<(Arc<AdvisoryDatabase>, &BTreeSet<String>)> {
        let loaded = self.advisories.read();
        let database = loaded.as_ref()?.database.clone();
        Some((database, &self.policy.allow_advisories))
    }

    /// Refuses the bytes that upstream has put in the place of a version's first ones.
    fn refuse_rewritten(
        &self,
        resource: &Resource,
        version: &dyn CrateVersion,
        sha256: Sha256,
    ) -> Result<(), Error> {
        let recalls = self.entries.lookup.store.recalls();
        if recalls.is_empty() {
            return Ok(());
        }
        let (registry, name) = (version.registry(), version.name());
        let rewritten = recalls.iter().find_map(|recall| match recall.kind {
            RecallKind::Checksum { was, now }
                if now == sha256
                    && recall.version == version.version()
                    && recall.is_about(registry, &name) =>
            {
                Some(was)
            }
            RecallKind::Checksum { .. } | RecallKind::Removed | RecallKind::Yanked => None,
        });
        match rewritten {
            None => Ok(()),
            Some(was) => Err(Error::Refused {
                resource: resource.to_string(),
                why: format!(
                    "upstream has changed its checksum to {sha256}; larder serves the first one, {was}"
                ),
            }),
        }
    }

    /// The objection to the age of a version. An entry that cannot be had, or does not list it, tells no age.
    async fn objection_to_age(&self, version: &dyn CrateVersion) -> Option<Objection> {
        let entry = version.entry();
        let Location::Entry(key) = entry.location() else {
            return None;
        };
        for demand in [Demand::Stored, Demand::Refresh] {
            let got = self
                .entries
                .get(&entry, key.clone(), demand, Until::Verified);
            let (outcome, found) = got.await.ok()?;
            if version.is_listed(&found.body) {
                let published = version.published(&found.body);
                return self
                    .policy
                    .objection_to_age(version.registry(), published, now());
            }
            if outcome != Outcome::Hit {
                return None;
            }
        }
        None
    }

    async fn is_locked(&self, version: &dyn CrateVersion) -> bool {
        let lookup = &self.entries.lookup;
        let locked = lookup.locked(version.registry(), &version.name()).await;
        locked.iter().any(|locked| locked == version.version())
    }

    /// The entry in which versions that clients must not get are marked as yanked.
    pub(super) async fn view(&self, resource: &Resource, entry: Entry) -> Entry {
        let Some(rules) = self.rules_for(resource) else {
            return entry;
        };
        // Boxed: most requests find no rules, and a hit would otherwise carry the size of this future.
        match Box::pin(self.hiding_view(resource, &entry.body, rules)).await {
            None => entry,
            Some(body) => entry.with_body(body),
        }
    }

    /// The rules that may apply to versions of this entry; `None` if none does.
    fn rules_for<'a>(&self, resource: &'a Resource) -> Option<EntryRules<'a>> {
        let (registry, name) = resource.retention()?.package()?;
        let database = self.database(registry);
        let database = database.filter(|database| !database.about(name).is_empty());
        let has_min_age = self.policy.min_age(registry).is_some();
        let applies = has_min_age || database.is_some() || self.policy.may_object_to(name);
        applies.then_some(EntryRules {
            registry,
            name,
            has_min_age,
            database,
        })
    }

    async fn hiding_view(
        &self,
        resource: &Resource,
        body: &Bytes,
        rules: EntryRules<'_>,
    ) -> Option<Bytes> {
        let EntryRules {
            registry,
            name,
            has_min_age,
            database,
        } = rules;
        let locked = match has_min_age {
            true => self.entries.lookup.locked(registry, name).await,
            false => Vec::new(),
        };
        let now = now();
        resource.views()?.hiding_view(body, &|version, published| {
            self.objection(database.as_deref(), name, version).is_some()
                || self
                    .policy
                    .objection_to_age(registry, published, now)
                    .is_some()
                    && !locked.iter().any(|locked| locked == version)
        })
    }
}

fn refused(resource: &Resource, objection: &Objection) -> Error {
    Error::Refused {
        resource: resource.to_string(),
        why: objection.to_string(),
    }
}
