//! The daemon's metrics: names, help texts and values.
//!
//! The cache counts; this module only formats a [`Snapshot`]. Names are public: dashboards depend on them. So prefetch
//! still has its former name, `read_ahead`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use super::{
    background::Background,
    census::Census,
    latency::{AnswerTotals, BOUNDS},
    prometheus::{counter, family, gauge, preamble},
};
use crate::{
    cache::Counter, eviction::EvictionStatus, overview::AdvisoryCounts, prefetch::KeepWarmStatus,
    verify::ScrubState,
};

/// Counters that are not outcomes of client requests, each with its family and label value.
const SAMPLES: [(Counter, Family, &str); 8] = [
    (Counter::UpstreamAnswers, Family::Upstream, "answered"),
    (Counter::UpstreamFailures, Family::Upstream, "failed"),
    (Counter::ProbesFailed, Family::Upstream, "probe-failed"),
    (Counter::EntriesRecalled, Family::Recalls, "index"),
    (Counter::EntriesPrefetched, Family::Fetched, "index"),
    (Counter::BlobsPrefetched, Family::Fetched, "blob"),
    (Counter::PrefetchedEntriesAsked, Family::Asked, "index"),
    (Counter::PrefetchedBlobsAsked, Family::Asked, "blob"),
];

/// A metric with one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Upstream,
    Recalls,
    Fetched,
    Asked,
}

/// The numbers at one moment.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) version: &'a str,
    pub(super) is_offline: bool,
    /// All counters of the cache.
    pub(super) counters: &'a BTreeMap<Counter, u64>,
    /// Fetches in flight.
    pub(super) in_flight: usize,
    /// Entries that are not written yet.
    pub(super) pending_writes: usize,
    /// Upstreams whose circuit breaker is open, and those whose breaker is slow.
    pub(super) down: &'a BTreeSet<String>,
    pub(super) slow: &'a BTreeSet<String>,
    /// Stored index entries that upstream no longer has and pins need.
    pub(super) withdrawn: usize,
    /// Versions that upstream has taken back, by kind.
    pub(super) recalled: &'a BTreeMap<&'static str, u64>,
    /// Bytes of bodies from each upstream.
    pub(super) received: &'a BTreeMap<String, u64>,
    /// Open connections, and how many there may be.
    pub(super) connections: usize,
    pub(super) max_connections: usize,
    /// Answers by kind.
    pub(super) answers: Vec<AnswerTotals>,
    /// Lines of the access log that were lost; `None` without one.
    pub(super) access_log_lost: Option<u64>,
    /// How often each limit towards clients took effect.
    pub(super) limited: Vec<(&'static str, u64)>,
    /// Numbers of the background tasks.
    pub(super) background: &'a Background,
    /// Numbers that take time to count; `None` before the first count.
    pub(super) census: Option<&'a Census>,
}

impl Snapshot<'_> {
    fn samples(&self, family: Family) -> impl Iterator<Item = (&'static str, u64)> {
        SAMPLES
            .iter()
            .filter(move |(_, of, _)| *of == family)
            .map(|(name, _, label)| (*label, self.counters.get(name).copied().unwrap_or_default()))
    }

    /// Client requests by outcome.
    fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counters
            .iter()
            .filter(|(counter, _)| counter.is_outcome())
            .map(|(counter, count)| (counter.as_str(), *count))
    }

    /// Prefetches that no client has requested so far. The value can fall, so it is a gauge.
    fn unused_prefetches(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let asked = self.samples(Family::Asked);
        self.samples(Family::Fetched)
            .zip(asked)
            .map(|((kind, fetched), (_, asked))| (kind, fetched.saturating_sub(asked)))
    }

    fn write_counters(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        family(
            out,
            "requests_total",
            "counter",
            "Requests for resources, by outcome.",
            "outcome",
            self.outcomes(),
        )?;
        family(
            out,
            "upstream_requests_total",
            "counter",
            "Requests to upstream, by result.",
            "result",
            self.samples(Family::Upstream),
        )?;
        family(
            out,
            "recalls_total",
            "counter",
            "Stored entries from which upstream removed versions.",
            "kind",
            self.samples(Family::Recalls),
        )?;
        family(
            out,
            "read_ahead_fetched_total",
            "counter",
            "Resources prefetched or revalidated before a client requested them.",
            "kind",
            self.samples(Family::Fetched),
        )?;
        family(
            out,
            "read_ahead_asked_total",
            "counter",
            "Prefetched resources that a client requested afterwards.",
            "kind",
            self.samples(Family::Asked),
        )
    }

    /// Bytes and durations of answers.
    fn write_answers(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        family(
            out,
            "sent_bytes_total",
            "counter",
            "Bytes of bodies that were sent to clients, by the kind of answer.",
            "answer",
            self.answers
                .iter()
                .map(|answer| (answer.kind, answer.bytes)),
        )?;
        let received = self.received.iter();
        family(
            out,
            "received_bytes_total",
            "counter",
            "Bytes of bodies that came from upstream, by upstream, compressed as upstream sent them.",
            "upstream",
            received.map(|(upstream, bytes)| (upstream.as_str(), *bytes)),
        )?;
        let name = "request_duration_seconds";
        let help = "Time from a request for a resource to the end of the answer.";
        preamble(out, name, "histogram", help)?;
        for answer in &self.answers {
            let AnswerTotals {
                kind, count, took, ..
            } = answer;
            for ((bound, _), within) in BOUNDS.iter().zip(&answer.within) {
                writeln!(
                    out,
                    "larder_{name}_bucket{{answer=\"{kind}\",le=\"{bound}\"}} {within}"
                )?;
            }
            writeln!(
                out,
                "larder_{name}_bucket{{answer=\"{kind}\",le=\"+Inf\"}} {count}"
            )?;
            let seconds = took.as_secs_f64();
            writeln!(out, "larder_{name}_sum{{answer=\"{kind}\"}} {seconds}")?;
            writeln!(out, "larder_{name}_count{{answer=\"{kind}\"}} {count}")?;
        }
        Ok(())
    }

    /// The space of the store: as eviction counted it for its limit, else as of the last count for the metrics.
    fn write_space(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limited = self.background.eviction.and_then(|status| status.space);
        let Some(space) = limited.or(self.census.map(|census| census.space)) else {
            return Ok(());
        };
        let help = "Disk space of the store when it was last counted.";
        gauge(out, "store_bytes", help, space.total)?;
        let help = "Disk space of damaged files that were moved to the quarantine.";
        gauge(out, "quarantine_bytes", help, space.quarantine)
    }

    fn write_connections(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let help = "Open connections of clients.";
        gauge(out, "connections", help, self.connections as u64)?;
        let help = "Connections of clients that there may be.";
        gauge(out, "max_connections", help, self.max_connections as u64)?;
        let help = "Connections and requests that a limit ended or refused.";
        let limited = self.limited.iter().copied();
        family(out, "limited_total", "counter", help, "limit", limited)?;
        if let Some(lost) = self.access_log_lost {
            let help = "Lines that the access log lacks.";
            counter(out, "access_log_lost_lines_total", help, lost)?;
        }
        Ok(())
    }

    fn write_gauges(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = [(self.version, 1)];
        family(
            out,
            "build_info",
            "gauge",
            "Version of the running larder.",
            "version",
            build,
        )?;
        gauge(
            out,
            "offline",
            "1 if larder was started with --offline.",
            u64::from(self.is_offline),
        )?;
        family(
            out,
            "read_ahead_unused",
            "gauge",
            "Prefetched resources that no client has requested so far.",
            "kind",
            self.unused_prefetches(),
        )?;
        gauge(
            out,
            "fetches_in_flight",
            "Fetches in flight.",
            self.in_flight as u64,
        )?;
        gauge(
            out,
            "entries_waiting",
            "Entries served to clients and not yet written to the store.",
            self.pending_writes as u64,
        )?;
        gauge(
            out,
            "outages",
            "Unreachable upstream hosts.",
            self.down.len() as u64,
        )?;
        let each = |hosts: &'_ BTreeSet<String>| Vec::from_iter(hosts.iter().cloned());
        for (name, help, hosts) in [
            (
                "upstream_down",
                "Each unreachable upstream host.",
                each(self.down),
            ),
            (
                "upstream_slow",
                "Each upstream host that does not answer in time; stored copies are served without asking it.",
                each(self.slow),
            ),
        ] {
            let hosts = hosts.iter().map(|host| (host.as_str(), 1));
            family(out, name, "gauge", help, "upstream", hosts)?;
        }
        gauge(
            out,
            "withdrawn_entries",
            "Index entries that warmed projects need and upstream no longer has.",
            self.withdrawn as u64,
        )?;
        family(
            out,
            "recalled_versions",
            "gauge",
            "Versions that upstream has removed, yanked, or changed the checksum of, as far as larder saw it.",
            "kind",
            self.recalled.iter().map(|(kind, count)| (*kind, *count)),
        )?;
        match &self.background.keep_warm {
            Some(status) => write_keep_warm(out, status),
            None => Ok(()),
        }
    }
}

impl Display for Snapshot<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_counters(out)?;
        self.write_answers(out)?;
        self.write_gauges(out)?;
        self.write_connections(out)?;
        if let Some(state) = &self.background.scrub {
            write_scrub(out, state)?;
        }
        if let Some(status) = &self.background.eviction {
            write_eviction(out, status)?;
        }
        self.write_space(out)?;
        match self.census {
            Some(census) => write_census(out, census),
            None => Ok(()),
        }
    }
}

fn write_keep_warm(out: &mut fmt::Formatter<'_>, status: &KeepWarmStatus) -> fmt::Result {
    let counters = [
        (
            "passes",
            "Looks at the files of warmed projects.",
            status.passes,
        ),
        (
            "changed",
            "Changed files that were planned again.",
            status.changed,
        ),
        (
            "fetched",
            "Crates and archives fetched for changed files.",
            status.fetched,
        ),
        (
            "failed",
            "Resources that could not be fetched for changed files.",
            status.failed,
        ),
    ];
    for (name, help, value) in counters {
        counter(out, &format!("keep_warm_{name}_total"), help, value)?;
    }
    gauge(
        out,
        "keep_warm_not_ready",
        "Warmed projects and toolchains that are not ready because of a failure.",
        status.not_ready,
    )
}

fn write_eviction(out: &mut fmt::Formatter<'_>, status: &EvictionStatus) -> fmt::Result {
    let counters = [
        (
            "evicted_files",
            "Unused files that were removed to stay below max-size.",
            status.files,
        ),
        ("evicted_bytes", "Their bytes.", status.bytes),
        ("eviction_passes", "Passes of eviction.", status.passes),
    ];
    for (name, help, value) in counters {
        counter(out, &format!("{name}_total"), help, value)?;
    }
    let last = status
        .last_pass
        .and_then(|time| time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    let last = last.map_or(0, |since| since.as_secs());
    let help = "When the last pass of eviction ended; 0 if none has.";
    gauge(out, "eviction_last_pass_timestamp_seconds", help, last)?;
    match status.max_bytes {
        Some(max) => gauge(out, "store_max_bytes", "The setting max-size.", max),
        None => Ok(()),
    }
}

/// Projects, advisories and recalls that need the pins to be counted.
fn write_census(out: &mut fmt::Formatter<'_>, census: &Census) -> fmt::Result {
    family(
        out,
        "projects",
        "gauge",
        "Warmed projects, toolchains and crates, by whether all their files are stored.",
        "state",
        [
            ("complete", census.complete),
            ("incomplete", census.incomplete),
        ],
    )?;
    family(
        out,
        "locked_recalled_versions",
        "gauge",
        "Versions that upstream has taken back and warmed projects lock; they stay served.",
        "kind",
        census
            .locked_recalls
            .iter()
            .map(|(kind, count)| (*kind, *count)),
    )?;
    let Some(counts) = census.advisories else {
        return Ok(());
    };
    let AdvisoryCounts {
        known,
        malicious,
        vulnerable,
        others,
    } = counts;
    let help = "Advisories in the stored database.";
    gauge(out, "advisories_known", help, known as u64)?;
    family(
        out,
        "advised_packages",
        "gauge",
        "Packages of warmed projects that an advisory is about, by its kind.",
        "kind",
        [
            ("malicious", malicious as u64),
            ("vulnerable", vulnerable as u64),
            ("other", others as u64),
        ],
    )
}

/// The numbers of the current check of stored files begin anew with each pass.
fn write_scrub(out: &mut fmt::Formatter<'_>, state: &ScrubState) -> fmt::Result {
    let current = &state.current;
    let last = state.last_pass.clone().unwrap_or_default();
    for (name, help, value) in [
        (
            "scrub_files",
            "Stored files that the current check has read.",
            current.files,
        ),
        (
            "scrub_bytes",
            "Bytes that the current check has read.",
            current.bytes,
        ),
        (
            "scrub_damaged",
            "Damaged files that the current check has found.",
            current.damaged,
        ),
        (
            "scrub_last_pass_damaged",
            "Damaged files that the last complete check found.",
            last.damaged,
        ),
        (
            "scrub_last_pass_timestamp_seconds",
            "When the last complete check ended; 0 if none has.",
            last.ended.unwrap_or_default(),
        ),
    ] {
        gauge(out, name, help, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(counters: &[(Counter, u64)], unreachable: &[&str], expected: &[&str]) {
        let counters = counters.iter().copied().collect();
        let down = unreachable.iter().map(|host| (*host).to_owned()).collect();
        let text = Snapshot {
            version: "1.2.3",
            is_offline: false,
            counters: &counters,
            in_flight: 3,
            pending_writes: 4,
            down: &down,
            slow: &BTreeSet::from(["slow.example".to_owned()]),
            withdrawn: 0,
            recalled: &BTreeMap::from([("yanked", 5)]),
            received: &BTreeMap::from([("a.example".to_owned(), 8)]),
            connections: 5,
            max_connections: 1024,
            answers: Vec::new(),
            access_log_lost: Some(7),
            limited: vec![("max-connections", 6)],
            background: &Background {
                keep_warm: None,
                scrub: None,
                eviction: None,
                proxy: None,
            },
            census: Some(&Census {
                complete: 9,
                advisories: Some(AdvisoryCounts {
                    vulnerable: 10,
                    ..AdvisoryCounts::default()
                }),
                ..Census::default()
            }),
        }
        .to_string();
        for line in expected {
            assert!(text.lines().any(|known| known == *line), "{line}\n{text}");
        }
    }

    #[test]
    fn unused_prefetches_are_fetched_less_requested_and_never_negative() {
        check(
            &[
                (Counter::EntriesPrefetched, 9),
                (Counter::PrefetchedEntriesAsked, 7),
                (Counter::PrefetchedBlobsAsked, 1),
            ],
            &[],
            &[
                "larder_read_ahead_fetched_total{kind=\"index\"} 9",
                "larder_read_ahead_asked_total{kind=\"index\"} 7",
                "larder_read_ahead_unused{kind=\"index\"} 2",
                "larder_read_ahead_unused{kind=\"blob\"} 0",
            ],
        );
    }

    #[test]
    fn every_counter_is_an_outcome_or_has_a_metric() {
        for counter in Counter::ALL {
            let is_listed = SAMPLES.iter().any(|(known, ..)| *known == counter);
            assert!(is_listed != counter.is_outcome(), "{counter:?}");
        }
    }

    #[test]
    fn outcomes_and_gauges_are_listed() {
        check(
            &[(Counter::Hit, 2), (Counter::Absent, 1)],
            &[],
            &[
                "larder_requests_total{outcome=\"hit\"} 2",
                "larder_requests_total{outcome=\"absent\"} 1",
                "larder_build_info{version=\"1.2.3\"} 1",
                "larder_fetches_in_flight 3",
                "larder_entries_waiting 4",
                "larder_outages 0",
                "larder_recalled_versions{kind=\"yanked\"} 5",
                "larder_connections 5",
                "larder_upstream_slow{upstream=\"slow.example\"} 1",
                "larder_received_bytes_total{upstream=\"a.example\"} 8",
                "larder_projects{state=\"complete\"} 9",
                "larder_advised_packages{kind=\"vulnerable\"} 10",
                "larder_store_bytes 0",
                "larder_access_log_lost_lines_total 7",
                "larder_limited_total{limit=\"max-connections\"} 6",
            ],
        );
    }

    #[test]
    fn label_values_are_escaped() {
        check(
            &[],
            &["a\"b\\c\nd"],
            &[
                r#"larder_upstream_down{upstream="a\"b\\c\nd"} 1"#,
                "larder_outages 1",
            ],
        );
    }
}
