//! `larder status` as text. Pure: the most important first, for people who are tired.

use std::{cmp::Reverse, time::SystemTime};

use indicatif::{HumanBytes, HumanCount};

use super::{
    document::{DaemonReport, StatusDocument},
    layout::{LabelledLines, progress_bar, sparkline},
};
use crate::{
    commands::{
        advisories::counts_line,
        gc::kept_until,
        local_time::local_minute_today,
        readiness::{PinReadiness, ReadinessState},
        render::{Screen, counted},
    },
    duration::two_units,
    overview::{AnsweredRequests, DaemonStatus, DownloadStatus, PeriodAnswers, UpstreamOutage},
    store::{ScrubState, ScrubTotals},
};

/// Downloads that are listed, the largest first.
const SHOWN_DOWNLOADS: usize = 5;

/// The document for people. Times are local, and short if they are of the day of `now`.
pub(super) fn text(document: &StatusDocument, screen: Screen, now: SystemTime) -> String {
    let mut lines = LabelledLines::new(screen);
    let daemon = document.daemon.as_ref();
    match daemon {
        None => lines.add("daemon", "not running; start it with `larder serve`"),
        Some(daemon) => add_daemon(&mut lines, daemon, now),
    }
    add_projects(&mut lines, document);
    add_trouble(&mut lines, document, now);
    if let Some(daemon) = daemon {
        add_answers(&mut lines, &daemon.facts, screen);
        add_downloads(&mut lines, &daemon.facts);
    }
    add_store(&mut lines, document);
    if let Some(daemon) = daemon {
        add_tasks(&mut lines, &daemon.facts, now);
    }
    add_scrub(&mut lines, document.scrub.as_ref(), now);
    if let Some(counts) = &document.advisories {
        lines.add("advisories", &counts_line(counts));
    }
    add_other_recalls(&mut lines, document);
    lines.add(
        "clients",
        "settings to copy: `larder client print`; or `larder run -- CMD`",
    );
    lines.into_text()
}

/// The daemon, and the state of upstream in words.
fn add_daemon(lines: &mut LabelledLines, daemon: &DaemonReport, now: SystemTime) {
    let DaemonReport { address, facts, .. } = daemon;
    let since = facts.started.map_or(String::new(), |started| {
        format!(", since {}", local_minute_today(started.0, now))
    });
    let value = format!("running at {address}, process {}{since}", facts.pid);
    lines.add("daemon", &value);
    if facts.offline {
        lines.add(
            "upstream",
            "offline, as `--offline` says: what is stored is served, and nothing is fetched",
        );
        return;
    }
    let mut outages = facts.outages.iter();
    match outages.next() {
        None => lines.add("upstream", "no upstream is known to be down"),
        Some(first) => lines.add("upstream", &outage_text(first, now)),
    }
    for outage in outages {
        lines.more(&outage_text(outage, now));
    }
}

fn outage_text(outage: &UpstreamOutage, now: SystemTime) -> String {
    let UpstreamOutage {
        upstream,
        state,
        since,
        cause,
    } = outage;
    let lasted = now.duration_since(since.0).unwrap_or_default();
    let lasted = two_units(std::time::Duration::from_secs(lasted.as_secs()));
    format!(
        "{upstream} is {} since {} ({lasted}): {cause}; larder serves what is stored, and tries again",
        state.as_str(),
        local_minute_today(since.0, now)
    )
}

/// The number of projects in each state, then those that are not ready, then the others.
fn add_projects(lines: &mut LabelledLines, document: &StatusDocument) {
    let projects = &document.readiness;
    if projects.is_empty() {
        lines.add(
            "projects",
            "none yet; `larder warm PATH` fetches what the projects below PATH need",
        );
        return;
    }
    let states = [
        ReadinessState::NotReady,
        ReadinessState::Ready,
        ReadinessState::Complete,
    ];
    let of_state = |state| {
        projects
            .iter()
            .filter(move |project| project.state == state)
    };
    let counts = states.map(|state| (of_state(state).count(), state.as_str()));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    lines.add("projects", &counts.join(", "));
    for project in states.into_iter().flat_map(of_state) {
        add_project(lines, project, document);
    }
    if projects
        .iter()
        .any(|project| project.unstored().next().is_some())
    {
        lines.more("`larder warm PATH` fetches what is missing");
    }
    if of_state(ReadinessState::Complete).next().is_some() {
        lines.more(
            "complete: all files are stored; `larder check` tells whether builds work offline",
        );
    }
}

fn add_project(lines: &mut LabelledLines, project: &PinReadiness, document: &StatusDocument) {
    let packages = (project.packages > 0 || project.components == 0)
        .then(|| counted(project.packages, "package"));
    let components = (project.components > 0).then(|| counted(project.components, "component"));
    let mut parts: Vec<_> = packages.into_iter().chain(components).collect();
    if project.gone {
        let gone = document.forgotten_soon.iter();
        let mut gone = gone.filter(|gone| gone.owner == project.owner);
        let kept = gone.next().map_or(String::new(), kept_until);
        parts.push(format!("its file is gone; {kept}"));
    }
    let PinReadiness { owner, state, .. } = project;
    let word = format!("{:9}  ", state.as_str());
    lines.column(&word, &format!("{owner}  ({})", parts.join(", ")));
    for problem in project.problems() {
        lines.column(PROBLEM_INDENT, &problem);
    }
}

/// Indents what belongs to a project below its path.
const PROBLEM_INDENT: &str = "           ";

fn add_trouble(lines: &mut LabelledLines, document: &StatusDocument, now: SystemTime) {
    let mut label = "trouble";
    for trouble in &document.trouble {
        let since = trouble.since.map_or(String::new(), |since| {
            format!(" (since {})", local_minute_today(since.0, now))
        });
        lines.add(
            std::mem::take(&mut label),
            &format!("{}{since}", trouble.what),
        );
    }
}

/// How requests were answered in the last hour and day, and where their bytes came from.
fn add_answers(lines: &mut LabelledLines, facts: &DaemonStatus, screen: Screen) {
    let answers = &facts.answers;
    if answers.total == AnsweredRequests::default() {
        lines.add("requests", "none since the daemon started");
        return;
    }
    let periods = [
        ("last hour  ", &answers.last_hour),
        ("last day   ", &answers.last_day),
    ];
    let mut label = "requests";
    for (name, PeriodAnswers { sum, bars }) in periods {
        lines.add(
            std::mem::take(&mut label),
            &format!("{name}{}", answers_text(sum)),
        );
        if screen.is_terminal() && sum.sum() > 0 {
            lines.column("           ", &format!("|{}|", sparkline(bars)));
        }
    }
    let sent: u64 = facts.sent_bytes.values().sum();
    let of_kind = |kind: &str| facts.sent_bytes.get(kind).copied().unwrap_or_default();
    let saved = of_kind("hit") + of_kind("stale");
    let received: u64 = facts.received_bytes.values().sum();
    lines.add(
        "saved",
        &format!(
            "{} of {} needed no download; {} fetched",
            HumanBytes(saved),
            HumanBytes(sent),
            HumanBytes(received)
        ),
    );
}

fn answers_text(sum: &AnsweredRequests) -> String {
    let AnsweredRequests {
        hits,
        misses,
        stale,
        failed,
    } = *sum;
    if sum.sum() == 0 {
        return "none".to_owned();
    }
    let [hits, misses, stale, failed] = [hits, misses, stale, failed].map(HumanCount);
    format!("{hits} from the store, {misses} fetched, {stale} stale, {failed} failed")
}

fn add_downloads(lines: &mut LabelledLines, facts: &DaemonStatus) {
    if facts.fetching == 0 {
        return;
    }
    let files = counted(facts.fetching, "file");
    lines.add("fetching", &format!("{files} from upstream"));
    let mut downloads: Vec<_> = facts.downloads.iter().collect();
    downloads.sort_by_key(|download| Reverse(download.total.max(Some(download.received))));
    for DownloadStatus {
        what,
        received,
        total,
    } in downloads.into_iter().take(SHOWN_DOWNLOADS)
    {
        let progress = match total {
            Some(total) => format!(
                "{}  {} of {}  ",
                progress_bar(*received, *total),
                HumanBytes(*received),
                HumanBytes(*total)
            ),
            None => format!("{}  ", HumanBytes(*received)),
        };
        lines.column(&progress, what);
    }
}

fn add_store(lines: &mut LabelledLines, document: &StatusDocument) {
    let statistics = &document.statistics;
    lines.add("store", &document.store.display().to_string());
    let limit = document
        .max_size
        .map_or(String::new(), |max| format!(" of {}", HumanBytes(max)));
    lines.add("size", &format!("{}{limit}", HumanBytes(document.size)));
    for (label, count, bytes, what) in [
        (
            "files",
            statistics.blobs,
            statistics.blob_bytes,
            "crates and archives of toolchains",
        ),
        (
            "entries",
            statistics.entries,
            statistics.entry_bytes,
            "index entries and manifests",
        ),
    ] {
        let (count, bytes) = (HumanCount(count), HumanBytes(bytes));
        lines.add(label, &format!("{count}, {bytes}: {what}"));
    }
    if document.quarantine.files > 0 {
        let files = usize::try_from(document.quarantine.files).unwrap_or(usize::MAX);
        let bytes = HumanBytes(document.quarantine.bytes);
        let files = counted(files, "damaged file");
        lines.add("quarantine", &format!("{files}, {bytes}"));
    }
}

/// Limits towards clients that took effect, and the daemon's tasks.
fn add_tasks(lines: &mut LabelledLines, facts: &DaemonStatus, now: SystemTime) {
    let connections = &facts.connections;
    let limited = connections.limited.iter().filter(|(_, count)| **count > 0);
    let limited: Vec<_> = limited
        .map(|(limit, count)| format!("{limit} {count}"))
        .collect();
    if !limited.is_empty() {
        let value = format!(
            "{} of {} connections open; since the start: {}",
            connections.open,
            connections.max,
            limited.join(", ")
        );
        lines.add("limits", &value);
    }
    if let Some(keep_warm) = &facts.keep_warm
        && let Some(last_pass) = keep_warm.last_pass
    {
        let value = format!(
            "last look at {}; fetched {} for changed projects since the start",
            local_minute_today(last_pass.0, now),
            counted(
                usize::try_from(keep_warm.fetched).unwrap_or(usize::MAX),
                "file"
            ),
        );
        lines.add("keep-warm", &value);
    }
    if let Some(eviction) = &facts.eviction
        && let Some(last_pass) = eviction.last_pass
    {
        let value = format!(
            "removed {}, {}, since the start; last pass at {}",
            counted(
                usize::try_from(eviction.files).unwrap_or(usize::MAX),
                "file"
            ),
            HumanBytes(eviction.bytes),
            local_minute_today(last_pass.0, now)
        );
        lines.add("eviction", &value);
    }
}

/// The daemon's check of all stored files.
fn add_scrub(lines: &mut LabelledLines, state: Option<&ScrubState>, now: SystemTime) {
    let Some(state) = state else {
        return;
    };
    let totals = |totals: &ScrubTotals| {
        let files = counted(usize::try_from(totals.files).unwrap_or(usize::MAX), "file");
        let damaged = match totals.damaged {
            0 => "none damaged".to_owned(),
            damaged => format!("{damaged} damaged, {} fetched again", totals.fetched),
        };
        format!("{files}, {}, {damaged}", HumanBytes(totals.bytes))
    };
    let last = state.last_pass.as_ref().and_then(|last| {
        let ended = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(last.ended?);
        let ended = local_minute_today(ended, now);
        Some(format!("checked all files until {ended}: {}", totals(last)))
    });
    let current = state.position.is_some();
    let current = current.then(|| format!("checking all files: {} so far", totals(&state.current)));
    let parts: Vec<_> = last.into_iter().chain(current).collect();
    if !parts.is_empty() {
        lines.add("scrub", &parts.join("; "));
    }
}

/// The number of versions that upstream has taken back and no project needs.
fn add_other_recalls(lines: &mut LabelledLines, document: &StatusDocument) {
    let others = document.recalls.iter();
    let others = others.filter(|report| !report.needs_attention()).count();
    if others > 0 {
        let versions = counted(others, "version");
        let value = format!("{versions} that no warmed project locks; `--json` lists them");
        lines.add("recalled", &value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        commands::status::document::{Quarantine, TroubleLine},
        eviction::GonePin,
        status_client::RunningDaemon,
        store::Statistics,
    };

    fn project(owner: &str, state: ReadinessState, missing: &[&str]) -> PinReadiness {
        PinReadiness {
            owner: owner.to_owned(),
            state,
            packages: 1,
            components: 0,
            missing: missing.iter().map(|what| (*what).to_owned()).collect(),
            unknown: Vec::new(),
            gone: false,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_store_without_a_daemon_tells_its_projects_and_its_size() {
        let document = StatusDocument {
            store: "/s".into(),
            size: 2048,
            max_size: Some(4096),
            quarantine: Quarantine {
                files: 1,
                bytes: 1024,
            },
            statistics: Statistics {
                entries: 3,
                entry_bytes: 1024,
                ..Statistics::default()
            },
            forgotten_soon: vec![GonePin {
                owner: "/gone/Cargo.lock".to_owned(),
                since: None,
                dropped_from: None,
            }],
            readiness: vec![
                project("/a/Cargo.lock", ReadinessState::Ready, &[]),
                PinReadiness {
                    gone: true,
                    ..project("/gone/Cargo.lock", ReadinessState::Complete, &[])
                },
                project(
                    "/b/Cargo.lock",
                    ReadinessState::NotReady,
                    &["one", "two", "three", "four"],
                ),
            ],
            ..StatusDocument::default()
        };
        assert_eq!(
            text(&document, Screen::default(), at(0)),
            "daemon    not running; start it with `larder serve`\n\
             projects  1 not ready, 1 ready, 1 complete\n\
             \x20         not ready  /b/Cargo.lock  (1 package)\n\
             \x20                    missing: one, two, three and 1 more\n\
             \x20         ready      /a/Cargo.lock  (1 package)\n\
             \x20         complete   /gone/Cargo.lock  (1 package, its file is gone; its files are still kept)\n\
             \x20         `larder warm PATH` fetches what is missing\n\
             \x20         complete: all files are stored; `larder check` tells whether builds work offline\n\
             store     /s\n\
             size      2.00 KiB of 4.00 KiB\n\
             files     0, 0 B: crates and archives of toolchains\n\
             entries   3, 1.00 KiB: index entries and manifests\n\
             quarantine 1 damaged file, 1.00 KiB\n\
             clients   settings to copy: `larder client print`; or `larder run -- CMD`\n"
        );
    }

    #[test]
    fn a_daemon_tells_of_upstream_requests_bytes_downloads_and_tasks() {
        let mut bars = vec![0; 60];
        bars[59] = 3;
        let period = json!({ "hits": 1200, "misses": 1, "stale": 2, "failed": 0, "bars": bars });
        let none = json!({ "bars": [] });
        let daemon = RunningDaemon {
            address: "http://127.0.0.1:3263/".to_owned(),
            status: json!({
                "pid": 7,
                "outages": [{ "state": "down", "upstream": "h:1", "since": "1970-01-02T00:00:00Z", "cause": "refused" }],
                "answers": { "total": period, "last_hour": none, "last_day": period },
                "sent_bytes": { "hit": 1024, "stale": 1024, "miss": 2048 },
                "received_bytes": { "a": 1024, "b": 2048 },
                "fetching": 2,
                "downloads": [{ "what": "crate `left 1.0.0`", "received": 512, "total": 1024 }],
                "connections": { "open": 2, "max": 9, "limited": { "a": 0, "b": 3 } },
                "keep_warm": { "last_pass": "1970-01-02T00:00:00Z", "pins": 2, "fetched": 5 },
            }),
        };
        let document = StatusDocument {
            daemon: Some(DaemonReport::new(daemon)),
            trouble: vec![TroubleLine {
                what: "it is gone".to_owned(),
                since: None,
            }],
            ..StatusDocument::default()
        };
        let written = text(&document, Screen::default(), at(86_400 + 61));
        for line in [
            "daemon    running at http://127.0.0.1:3263/, process 7",
            " (1m 1s): refused; larder serves what is stored, and tries again",
            "projects  none yet; `larder warm PATH` fetches what the projects below PATH need",
            "trouble   it is gone",
            "requests  last hour  none",
            "          last day   1,200 from the store, 1 fetched, 2 stale, 0 failed",
            "saved     2.00 KiB of 4.00 KiB needed no download; 3.00 KiB fetched",
            "fetching  2 files from upstream",
            "          [#####-----]  50 %  512 B of 1.00 KiB  crate `left 1.0.0`",
            "limits    2 of 9 connections open; since the start: b 3",
            "keep-warm last look at ",
        ] {
            assert!(written.contains(line), "{line}\n{written}");
        }
        assert!(!written.contains('█'), "{written}");
        let screen = Screen {
            columns: Some(80),
            rows: None,
        };
        let written = text(&document, screen, at(86_400 + 61));
        assert!(
            written.contains("                             █|\n"),
            "{written}"
        );
        let widest = written.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{written}");
    }
}
