//! [`DaemonStatus`]: the facts that only a running daemon knows, as `/-/status.json` has them.
//!
//! The field names are public: docs/json.md has them. A command may ask an older or a newer daemon, so a missing field
//! has its default value and an unknown one is skipped.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::answers::{AnsweredRequests, Minutes};

/// The document at `/-/status.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonStatus {
    /// larder's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When the daemon started.
    pub started: Option<Timestamp>,
    /// True with `--offline`.
    pub offline: bool,
    /// Why the store is not written to any more; `None` if it is.
    pub store_problem: Option<String>,
    /// Upstreams that are down or slow.
    pub outages: Vec<UpstreamOutage>,
    /// Entries that upstream no longer has and pins need.
    pub withdrawn: Vec<WithdrawnEntry>,
    /// Number of versions that upstream has taken back, by kind.
    pub recalls: BTreeMap<String, u64>,
    /// Counters by name.
    pub requests: BTreeMap<String, u64>,
    /// How requests were answered.
    pub answers: AnswersStatus,
    /// Bytes of bodies that were sent to clients, by the kind of answer.
    pub sent_bytes: BTreeMap<String, u64>,
    /// Bytes of bodies that came from upstream, by upstream.
    pub received_bytes: BTreeMap<String, u64>,
    /// Fetches under way.
    pub fetching: usize,
    /// Crates and archives among them.
    pub downloads: Vec<DownloadStatus>,
    /// Entries that clients have been served and the disk does not have yet.
    pub storing: usize,
    /// Connections of clients.
    pub connections: ConnectionsStatus,
    /// Numbers of keep-warm; `None` if it is switched off.
    pub keep_warm: Option<KeepWarmNumbers>,
    /// Numbers of the scrub; `None` if it is switched off.
    pub scrub: Option<ScrubNumbers>,
    /// Numbers of eviction; `None` if the store cannot be written to.
    pub eviction: Option<EvictionNumbers>,
    /// The intercepting proxy.
    pub proxy: Option<ProxyAddress>,
}

/// A point in time; in JSON as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// The time that is so many seconds after the beginning of 1970.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_seconds(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// An upstream that is down or slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamOutage {
    /// Its host, with a port that is not the default.
    pub upstream: String,
    /// How it is.
    pub state: OutageState,
    /// When the first failure was seen.
    pub since: Timestamp,
    /// The failure that changed the state last.
    pub cause: String,
}

/// The state of an upstream's circuit breaker, unless it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutageState {
    /// Only what is not stored is asked for.
    Slow,
    /// Nothing is asked for, except by probes.
    Down,
}

impl OutageState {
    /// The word in JSON and in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Down => "down",
        }
    }
}

/// An entry that upstream no longer has and a pin needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnEntry {
    /// The resource, in words.
    pub resource: String,
    /// When that was found out.
    pub since: Timestamp,
}

/// How requests were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswersStatus {
    /// Since the daemon started.
    pub total: AnsweredRequests,
    /// In the last hour.
    pub last_hour: PeriodAnswers,
    /// In the last 24 hours.
    pub last_day: PeriodAnswers,
}

impl AnswersStatus {
    /// The sums of `minutes`, and those since the start.
    pub fn new(total: AnsweredRequests, minutes: &Minutes) -> Self {
        Self {
            total,
            last_hour: PeriodAnswers::of(&minutes.last_hour()),
            last_day: PeriodAnswers::of(&minutes.last_day()),
        }
    }
}

/// Answers of one period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeriodAnswers {
    /// All of them.
    #[serde(flatten)]
    pub sum: AnsweredRequests,
    /// Their number in each sixtieth of the period, the newest last.
    pub bars: Vec<u64>,
}

impl PeriodAnswers {
    fn of(bars: &[AnsweredRequests]) -> Self {
        let sum = bars.iter().copied().reduce(AnsweredRequests::plus);
        Self {
            sum: sum.unwrap_or_default(),
            bars: bars.iter().map(|bar| bar.sum()).collect(),
        }
    }
}

/// A crate or archive that is arriving from upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadStatus {
    /// The resource, in words.
    pub what: String,
    /// Number of bytes that have arrived.
    pub received: u64,
    /// Size in bytes, if upstream announced it.
    pub total: Option<u64>,
}

/// Connections of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionsStatus {
    /// Open ones.
    pub open: usize,
    /// Those that there may be.
    pub max: usize,
    /// How often each limit has ended or refused one, by name.
    pub limited: BTreeMap<String, u64>,
}

/// Numbers of keep-warm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeepWarmNumbers {
    /// When the last pass ended.
    pub last_pass: Option<Timestamp>,
    /// Passes that ended.
    pub passes: u64,
    /// Pins that the last pass looked at.
    pub pins: u64,
    /// Changed files that were planned again.
    pub changed: u64,
    /// Crates and archives fetched.
    pub fetched: u64,
    /// Resources that could not be fetched, and files that could not be read.
    pub failed: u64,
    /// Pins of the last pass that are not ready because of a failure.
    pub not_ready: u64,
}

/// Numbers of the scrub: of the last pass, and of the current one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubNumbers {
    /// When the last pass ended.
    pub last_pass: Option<Timestamp>,
    /// The last pass.
    #[serde(flatten)]
    pub last: ScrubPass,
    /// The last folder that the current pass has finished; `None` between passes.
    pub position: Option<String>,
    /// The current pass.
    pub current: ScrubPass,
}

/// Totals of one pass of the scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubPass {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were damaged.
    pub damaged: u64,
    /// Damaged files that were fetched again.
    pub fetched: u64,
}

/// Numbers of eviction. Files and bytes count since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvictionNumbers {
    /// Disk space of the store in bytes when it was last counted.
    pub size: Option<u64>,
    /// That of the quarantine.
    pub quarantine: Option<u64>,
    /// The limit in bytes.
    pub max_size: Option<u64>,
    /// Removed files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Passes that ended.
    pub passes: u64,
    /// When the last one ended.
    pub last_pass: Option<Timestamp>,
    /// Bytes of what pins need, if they exceed the limit.
    pub pins_exceed: Option<u64>,
}

/// The intercepting proxy of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyAddress {
    /// Its address, as clients take it.
    pub address: String,
    /// The file with the root certificates that clients need.
    pub roots: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_the_same_after_its_way_through_json() {
        let mut status = DaemonStatus {
            version: "1.2.3".to_owned(),
            pid: 7,
            started: Some(Timestamp::from_seconds(60)),
            scrub: Some(ScrubNumbers::default()),
            ..DaemonStatus::default()
        };
        status.outages.push(UpstreamOutage {
            upstream: "index.example".to_owned(),
            state: OutageState::Slow,
            since: Timestamp::from_seconds(1),
            cause: "no answer".to_owned(),
        });
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""state":"slow","since":"1970-01-01T00:00:01Z""#));
        assert_eq!(serde_json::from_str::<DaemonStatus>(&text).unwrap(), status);
    }

    #[test]
    fn a_status_of_another_version_is_read_as_far_as_it_goes() {
        let text = r#"{"pid":7,"news":[1],"keep_warm":{"passes":2}}"#;
        let status: DaemonStatus = serde_json::from_str(text).unwrap();
        assert_eq!((status.pid, status.offline), (7, false));
        assert_eq!(status.keep_warm.unwrap().passes, 2);
    }
}
