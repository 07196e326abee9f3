//! Judges upstream's "not found" about an entry that is stored.
//!
//! ```text
//!  404, 410 or 451 for a stored entry
//!    │
//!    ├─ third such answer in a row ──────────┐
//!    ├─ the registry's config.json fails ────┴──> Doubted: a bad answer of a broken upstream; serve the stored copy
//!    ├─ a pin needs the crate ──────────────────> Overruled: serve the stored copy, and report it
//!    └─ otherwise ──────────────────────────────> Accepted: clients get 404
//! ```
//!
//! A mirror that lost its files and a captive portal answer 404 to everything. Cargo takes a 404 for the truth and
//! deletes its own copy (docs/client-behaviour.md C-11), so one such answer ends a build that has all it needs.
//!
//! No answer removes anything from the store. What upstream says about a resource that is not stored is never doubted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tracing::{info, warn};
use url::Url;

use super::probe::UpstreamHealth;
use crate::{
    clock::now,
    resource::{Key, Resource, Retention},
    store::Store,
    upstream::{Failure, FailureKind, Origin},
};

/// "Not found" answers about different stored entries, without a good answer between, that make the last one doubtful.
/// Registries delete single crates.
const MAX_ABSENCES_IN_A_ROW: usize = 3;
/// Time for which the pins that were read and the answers about `config.json` count. A burst of answers needs both
/// once.
const FACT_LIFETIME: Duration = Duration::from_secs(2);

/// The consequence of a "not found" answer.
#[derive(Debug)]
pub(super) enum AbsenceJudgement {
    /// The resource does not exist.
    Accepted,
    /// A pin needs the stored copy.
    Overruled,
    /// The upstream is broken: the failure to record instead.
    Doubted(Failure),
}

/// Judges absences and remembers those that it overruled.
#[derive(Debug)]
pub(super) struct Absences {
    health: Arc<UpstreamHealth>,
    store: Arc<Store>,
    /// One task at a time reads pins and asks for `config.json`; the others find the result.
    turns: Semaphore,
    facts: Mutex<Facts>,
}

/// Registry and name of crates.
type PinnedNames = HashSet<(String, String)>;

#[derive(Debug, Default)]
struct Facts {
    /// Stored entries that each upstream disclaimed since its last good answer about an entry.
    in_a_row: HashMap<Origin, HashSet<Key>>,
    /// By the address of each witness: true if it answered.
    witnesses: HashMap<Url, (Instant, bool)>,
    /// Registry and name of every pinned crate.
    pinned: Option<(Instant, Arc<PinnedNames>)>,
    /// Overruled absences that upstream has not taken back.
    withdrawn: BTreeMap<String, SystemTime>,
}

impl Absences {
    pub(super) fn new(health: Arc<UpstreamHealth>, store: Arc<Store>) -> Self {
        Self {
            health,
            store,
            turns: Semaphore::new(1),
            facts: Mutex::default(),
        }
    }

    /// Judges the answer of `url` that `resource`, which is stored under `key`, does not exist.
    pub(super) async fn judge(
        &self,
        resource: &Resource,
        key: &Key,
        url: &Url,
    ) -> AbsenceJudgement {
        let Some(retention) = resource.retention() else {
            return AbsenceJudgement::Accepted;
        };
        let doubted = |why: &str| {
            let why = format!("is 404 for a stored entry, {why}");
            AbsenceJudgement::Doubted(FailureKind::Unrecognised { why }.at(url))
        };
        if self.count(url, key) >= MAX_ABSENCES_IN_A_ROW {
            return doubted("as for others before");
        }
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        if !self.witness_answers(&retention.witness()).await {
            return doubted("and its config.json cannot be had");
        }
        if self.is_pinned(retention).await {
            self.report_withdrawn(resource);
            return AbsenceJudgement::Overruled;
        }
        self.forget_withdrawn(resource);
        AbsenceJudgement::Accepted
    }

    /// Records that upstream has `resource`.
    pub(super) fn record_answer(&self, resource: &Resource, url: &Url) {
        if resource.retention().is_none() {
            return;
        }
        self.facts.lock().in_a_row.remove(&Origin::from(url));
        if self.forget_withdrawn(resource) {
            info!(%resource, "upstream has this again");
        }
    }

    /// The stored entries that upstream disclaims and pins need, each with the time it was first disclaimed.
    pub(super) fn withdrawn(&self) -> Vec<(String, SystemTime)> {
        self.facts.lock().withdrawn.clone().into_iter().collect()
    }

    /// Counts an absence. Returns the number of those in a row.
    fn count(&self, url: &Url, key: &Key) -> usize {
        let mut facts = self.facts.lock();
        let in_a_row = facts.in_a_row.entry(Origin::from(url)).or_default();
        if in_a_row.len() < MAX_ABSENCES_IN_A_ROW {
            in_a_row.insert(key.clone());
        }
        in_a_row.len()
    }

    /// Returns whether upstream has the resource that every working upstream has.
    async fn witness_answers(&self, witness: &Resource) -> bool {
        let crate::resource::Source::At(url) = witness.source() else {
            return true;
        };
        let known = self.facts.lock().witnesses.get(&url).copied();
        if let Some((since, answers)) = known
            && since.elapsed() < FACT_LIFETIME
        {
            return answers;
        }
        let answers = self.health.send_probe(witness, &url).await.is_ok();
        let fact = (Instant::now(), answers);
        self.facts.lock().witnesses.insert(url, fact);
        answers
    }

    /// Returns whether a pin needs the crate. If the pins cannot be read, none does.
    async fn is_pinned(&self, retention: &dyn Retention) -> bool {
        let Some((registry, name)) = retention.package() else {
            return false;
        };
        let known = self.facts.lock().pinned.clone();
        let pinned = match known {
            Some((since, pinned)) if since.elapsed() < FACT_LIFETIME => pinned,
            Some(_) | None => {
                let pinned = Arc::new(self.read_pins().await);
                self.facts.lock().pinned = Some((Instant::now(), pinned.clone()));
                pinned
            }
        };
        pinned.contains(&(registry.to_owned(), name.to_owned()))
    }

    async fn read_pins(&self) -> PinnedNames {
        let pins = self.store.pins().await.unwrap_or_else(|error| {
            warn!(%error, "cannot read which crates the warmed projects need");
            Vec::new()
        });
        let packages = pins.into_iter().flat_map(|pin| pin.packages);
        packages
            .map(|package| (package.registry, package.name.to_ascii_lowercase()))
            .collect()
    }

    fn report_withdrawn(&self, resource: &Resource) {
        let name = resource.to_string();
        let mut facts = self.facts.lock();
        if let std::collections::btree_map::Entry::Vacant(new) = facts.withdrawn.entry(name) {
            new.insert(now());
            warn!(%resource, "upstream no longer has this, and a warmed project needs it; serving the stored copy");
        }
    }

    /// Returns whether the absence of `resource` was overruled before.
    fn forget_withdrawn(&self, resource: &Resource) -> bool {
        let mut facts = self.facts.lock();
        !facts.withdrawn.is_empty() && facts.withdrawn.remove(&resource.to_string()).is_some()
    }
}
