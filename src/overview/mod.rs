//! The facts that larder shows of itself, for the start page, `larder status`, `larder list` and `/-/status.json`.
//!
//! ```text
//!  cache, background ──── server::status ──> DaemonStatus ── /-/status.json ──> `larder status`
//!                            └─ the same parts ──────────────────────────────> page
//!  store, pins ── project_states, stored_versions, trouble ──────────────────> both, and `larder list`
//! ```
//!
//! The daemon's own facts are in its memory: [`DaemonStatus`] carries them, as JSON, to commands. The rest is in the
//! store, where a command finds it without a daemon. Each fact is computed in one place, and each renderer (HTML, text,
//! JSON) only formats it.

mod advisories;
mod answers;
mod daemon;
mod projects;
mod recalls;
mod search;
mod trouble;

pub use advisories::{AdvisoryCounts, TouchedPackage, touched_packages};
pub use answers::{AnsweredRequests, History, MINUTES_PER_DAY_BAR, Minutes};
pub use daemon::{
    AnswersStatus, ConnectionsStatus, DaemonStatus, DownloadStatus, EvictionNumbers,
    KeepWarmNumbers, OutageState, PeriodAnswers, ProxyAddress, ScrubNumbers, ScrubPass, Timestamp,
    UpstreamOutage, WithdrawnEntry,
};
pub use projects::{ProjectState, project_states};
pub use recalls::{RecallReport, recall_reports};
pub use search::{StoredVersion, stored_versions};
pub use trouble::{Trouble, TroubleFacts, troubles};
