//! [`StatusDocument`]: everything that `larder status` tells, as its JSON has it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::{
    app::App,
    commands::{
        CommandError,
        readiness::{PinReadiness, readiness_of},
        running_daemon::{find_daemon, max_size},
    },
    config::Settings,
    eviction::{self, GonePin},
    overview::{
        AdvisoryCounts, DaemonStatus, RecallReport, Timestamp, TroubleFacts, recall_reports,
        troubles,
    },
    status_client::RunningDaemon,
    store::{Pin, ScrubState, ScrubTotals, Statistics},
};

/// The document. docs/json.md has its fields.
#[derive(Debug, Default, Serialize)]
pub(super) struct StatusDocument {
    pub(super) store: PathBuf,
    pub(super) statistics: Statistics,
    /// Owners of all pins.
    pub(super) projects: Vec<String>,
    /// Those whose file no longer exists.
    pub(super) gone: Vec<String>,
    pub(super) forgotten_soon: Vec<GonePin>,
    /// The same projects, and whether they work offline.
    pub(super) readiness: Vec<PinReadiness>,
    /// Disk space of the store in bytes, and its limit.
    pub(super) size: u64,
    pub(super) max_size: Option<u64>,
    /// Bytes of what pins need, if they exceed the limit.
    pub(super) pins_exceed: Option<u64>,
    pub(super) quarantine: Quarantine,
    pub(super) scrub: Option<ScrubState>,
    pub(super) recalls: Vec<RecallReport>,
    pub(super) advisories: Option<AdvisoryCounts>,
    pub(super) trouble: Vec<TroubleLine>,
    pub(super) daemon: Option<DaemonReport>,
}

/// Damaged files that were moved out of the way.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Quarantine {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// A matter that needs attention.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TroubleLine {
    pub(super) what: String,
    pub(super) since: Option<Timestamp>,
}

/// The running daemon.
#[derive(Debug, Serialize)]
pub(super) struct DaemonReport {
    pub(super) address: String,
    /// Its `/-/status.json`, with fields that only a newer larder knows.
    status: Value,
    /// The same for texts.
    #[serde(skip)]
    pub(super) facts: DaemonStatus,
}

impl DaemonReport {
    pub(super) fn new(daemon: RunningDaemon) -> Self {
        Self {
            facts: serde_json::from_value(daemon.status.clone()).unwrap_or_default(),
            address: daemon.address,
            status: daemon.status,
        }
    }
}

impl StatusDocument {
    /// Reads the store, and asks the running daemon.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn gather(settings: &Settings, app: &App) -> Result<Self, CommandError> {
        let statistics = app.store.statistics().await?;
        let pins = app.store.pins().await?;
        let daemon = find_daemon(settings, &app.store).await;
        let max_size = max_size(settings, daemon.as_ref());
        let space = app.store.space().await?;
        let database = app.refresh_advisories().await;
        let allowed = &settings.trust.allow_advisories;
        let gone = eviction::gone_pins(&app.store, &pins, settings.forget_after).await;
        let mut document = Self {
            store: settings.store.clone(),
            statistics,
            projects: pins.iter().map(|pin| pin.owner.to_string()).collect(),
            gone: gone.iter().map(|gone| gone.owner.clone()).collect(),
            forgotten_soon: gone,
            readiness: readiness_of(settings, app, &pins).await?,
            size: space.total,
            max_size,
            pins_exceed: pinned_above(max_size, &pins),
            quarantine: Quarantine {
                files: space.quarantine_files,
                bytes: space.quarantine,
            },
            scrub: app.store.scrub_state(),
            recalls: recall_reports(&app.store.recalls(), &pins),
            advisories: database.map(|database| AdvisoryCounts::of(&database, allowed, &pins)),
            trouble: Vec::new(),
            daemon: daemon.map(DaemonReport::new),
        };
        document.trouble = document.troubles();
        Ok(document)
    }

    fn troubles(&self) -> Vec<TroubleLine> {
        let daemon = self.daemon.as_ref().map(|daemon| &daemon.facts);
        let scrub = self.scrub.as_ref();
        let passes = scrub.map(|scrub| scrub.last_pass.iter().chain([&scrub.current]));
        let sum = |count: fn(&ScrubTotals) -> u64| passes.clone().into_iter().flatten().map(count);
        let facts = TroubleFacts {
            store_problem: daemon.and_then(|daemon| daemon.store_problem.as_deref()),
            withdrawn: daemon.map_or(&[], |daemon| &daemon.withdrawn),
            recalls: &self.recalls,
            advisories: self.advisories.as_ref(),
            damaged: sum(|pass| pass.damaged).sum(),
            fetched_again: sum(|pass| pass.fetched).sum(),
            not_ready: daemon
                .and_then(|daemon| daemon.keep_warm.as_ref())
                .map_or(0, |keep_warm| keep_warm.not_ready),
            pins_exceed: self.pins_exceed.zip(self.max_size),
        };
        let troubles = troubles(&facts).into_iter();
        let lines = troubles.map(|trouble| TroubleLine {
            what: trouble.text,
            since: trouble.since.map(Timestamp),
        });
        lines.collect()
    }
}

/// Bytes of what pins need, as far as they say, if that exceeds the limit.
fn pinned_above(max_size: Option<u64>, pins: &[Pin]) -> Option<u64> {
    let sizes: BTreeMap<_, _> = pins.iter().flat_map(|pin| &pin.sizes).collect();
    let pinned = sizes.values().copied().sum();
    max_size.filter(|max| pinned > *max).map(|_| pinned)
}
