//! `larder status`: says what is stored, which projects are registered, and what the running daemon says of itself.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::{
    CommandError,
    advisories::AdvisoryStatus,
    gc::{gone_line, limit_line},
    recalls,
    render::{counted, json_line, note, print, print_json},
    watch::watch,
};
use crate::{
    app::{App, AppMode},
    cli,
    config::Settings,
    eviction::{self, GonePin, WhyFile},
    status_client::{self, RunningDaemon},
    store::{Pin, ScrubState, ScrubTotals, Space, Statistics, Store},
};

/// Runs the command.
///
/// # Errors
/// The store cannot be read.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Status,
) -> Result<ExitCode, CommandError> {
    let app = App::build(settings, AppMode::Local)?;
    if let Some([name, version]) = flags.why.as_deref() {
        return why(settings, shared, &app, name, version).await;
    }
    let report = async || report(settings, shared.json, &app).await;
    match flags.watch {
        true => watch(report).await?,
        false => print(&report().await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The status as text or as a JSON document.
async fn report(settings: &Settings, is_json: bool, app: &App) -> Result<String, CommandError> {
    let statistics = app.store.statistics().await?;
    let pins = app.store.pins().await?;
    let scrub = app.store.scrub_state();
    let daemon = find_daemon(settings, &app.store).await;
    let space = SpaceStatus {
        space: app.store.space().await?,
        max_size: max_size(settings, daemon.as_ref()),
        gone: eviction::gone_pins(&app.store, &pins, settings.forget_after).await,
    };
    let database = app.refresh_advisories().await;
    let advisories = database.map(|database| AdvisoryStatus::of(&database, settings, &pins));
    let recalls = app.store.recalls();
    let recalls = recalls::reports(&recalls, &pins);
    if is_json {
        let mut document = document(&settings.store, statistics, &pins, &space, daemon);
        document["recalls"] = serde_json::to_value(&recalls)?;
        document["advisories"] = serde_json::to_value(&advisories)?;
        json_line(&document)
    } else {
        let mut text = text(&settings.store, statistics, &pins, &space, daemon.as_ref());
        text += &recalls::lines(&recalls);
        text += &advisories.map_or(String::new(), |advisories| advisories.line());
        text += &scrub.map_or(String::new(), |scrub| scrub_line(&scrub));
        Ok(text)
    }
}

/// Disk space, and projects that will soon keep nothing.
#[derive(Debug, Default)]
struct SpaceStatus {
    space: Space,
    max_size: Option<u64>,
    gone: Vec<GonePin>,
}

impl SpaceStatus {
    /// Bytes of what pins need, as far as they say, if that exceeds the limit.
    fn pins_exceed(&self, pins: &[Pin]) -> Option<u64> {
        let sizes: BTreeMap<_, _> = pins.iter().flat_map(|pin| &pin.sizes).collect();
        let pinned = sizes.values().copied().sum();
        self.max_size.filter(|max| pinned > *max).map(|_| pinned)
    }
}

/// The limit of the running daemon, else that of the settings.
fn max_size(settings: &Settings, daemon: Option<&RunningDaemon>) -> Option<u64> {
    let running = daemon.and_then(|daemon| daemon.status["eviction"]["max_size"].as_u64());
    running.or(settings.max_size)
}

/// Says why a stored crate or archive stays. The exit code is 1 if none is stored.
async fn why(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    app: &App,
    name: &str,
    version: &str,
) -> Result<ExitCode, CommandError> {
    let daemon = find_daemon(settings, &app.store).await;
    let limits = (max_size(settings, daemon.as_ref()), settings.forget_after);
    let (store, upstreams) = (&app.store, &app.upstreams);
    let why = eviction::why(store, upstreams, name, version, limits.0, limits.1).await?;
    if shared.json {
        print_json(&why)?;
    } else {
        print(&why.files.iter().map(why_text).collect::<String>())?;
    }
    if why.files.is_empty() {
        note(&format!("`{name} {version}` is not stored"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn why_text(file: &WhyFile) -> String {
    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(file.last_used);
    let mut text = format!(
        "{}  ({}, last used {})\n",
        file.what,
        HumanBytes(file.bytes),
        humantime::format_rfc3339_seconds(used)
    );
    for owner in &file.pinned_by {
        let _ = writeln!(text, "  needed by {owner}");
    }
    if file.pinned_by.is_empty() {
        text += "  no warmed project or toolchain needs it\n";
    }
    if let Some(held) = file.held {
        let _ = writeln!(text, "  kept: {held}");
    }
    text += match file.gc_would_remove {
        true => "  `larder gc` would remove it now\n",
        false => "  `larder gc` would leave it\n",
    };
    text
}

/// The daemon on this store. Of several, one at a configured address comes first.
pub(super) async fn find_daemon(settings: &Settings, store: &Store) -> Option<RunningDaemon> {
    let configured = configured(settings);
    let announced = store.announced().into_iter();
    let mut addresses: Vec<_> = announced
        .flat_map(|one| one.addresses.into_iter().map(move |base| (base, one.pid)))
        .collect();
    addresses.sort_by_key(|(base, _)| !configured.contains(base));
    status_client::find_announced(addresses).await
}

/// The base addresses where `larder serve` would listen.
pub(super) fn configured(settings: &Settings) -> Vec<String> {
    let addresses = settings.listen.iter();
    addresses
        .map(|address| format!("http://{address}/"))
        .collect()
}

fn document(
    store: &Path,
    statistics: Statistics,
    pins: &[Pin],
    space: &SpaceStatus,
    daemon: Option<RunningDaemon>,
) -> Value {
    let projects: Vec<_> = pins.iter().map(|pin| pin.owner.to_string()).collect();
    let gone: Vec<_> = space.gone.iter().map(|gone| &gone.owner).collect();
    let daemon = daemon.map(|daemon| json!({ "address": daemon.address, "status": daemon.status }));
    json!({
        "store": store,
        "statistics": statistics,
        "projects": projects,
        "gone": gone,
        "forgotten_soon": space.gone,
        "size": space.space.total,
        "max_size": space.max_size,
        "pins_exceed": space.pins_exceed(pins),
        "quarantine": { "files": space.space.quarantine_files, "bytes": space.space.quarantine },
        "daemon": daemon,
    })
}

fn text(
    store: &Path,
    statistics: Statistics,
    pins: &[Pin],
    space: &SpaceStatus,
    daemon: Option<&RunningDaemon>,
) -> String {
    let Statistics {
        entries,
        entry_bytes,
        blobs,
        blob_bytes,
        ..
    } = statistics;
    let mut text = format!(
        "store     {}\nsize      {}{}\nentries   {entries}, {}\nfiles     {blobs}, {}\nprojects  {}\n",
        store.display(),
        HumanBytes(space.space.total),
        match space.max_size {
            Some(max) => format!(" of {}", HumanBytes(max)),
            None => String::new(),
        },
        HumanBytes(entry_bytes),
        HumanBytes(blob_bytes),
        pins.len()
    );
    for pin in pins {
        let owner = pin.owner.to_string();
        let _ = writeln!(
            text,
            "          {owner}  ({}{})",
            pin_size(pin),
            if space.gone.iter().any(|gone| gone.owner == owner) {
                "; its file is gone"
            } else {
                ""
            }
        );
    }
    push_space(&mut text, pins, space);
    match daemon {
        None => text += "daemon    not running; start it with `larder serve`\n",
        Some(daemon) => push_daemon(&mut text, daemon),
    }
    text
}

/// One line for the quarantine, for pins that exceed the limit, and for each project that is gone.
fn push_space(text: &mut String, pins: &[Pin], space: &SpaceStatus) {
    let Space {
        quarantine,
        quarantine_files,
        ..
    } = space.space;
    if quarantine_files > 0 {
        let files = usize::try_from(quarantine_files).unwrap_or(usize::MAX);
        let files = counted(files, "damaged file");
        let _ = writeln!(text, "quarantine {files}, {}", HumanBytes(quarantine));
    }
    for gone in &space.gone {
        let _ = writeln!(text, "gone      {}", gone_line(gone));
    }
    let line = limit_line(space.pins_exceed(pins).unwrap_or(0), space.max_size);
    let _ = line.map(|line| writeln!(text, "max-size  {line}"));
}

/// One line about the daemon's check of all stored files.
fn scrub_line(state: &ScrubState) -> String {
    let totals = |totals: &ScrubTotals| {
        let files = counted(usize::try_from(totals.files).unwrap_or(usize::MAX), "file");
        let damaged = match totals.damaged {
            0 => "none damaged".to_owned(),
            damaged => format!("{damaged} damaged, {} fetched again", totals.fetched),
        };
        format!("{files}, {}, {damaged}", HumanBytes(totals.bytes))
    };
    let last = state.last_pass.as_ref();
    let last = last.and_then(|last| Some((last.ended_at()?, totals(last))));
    let last = last.map_or(String::new(), |(ended, totals)| {
        format!("checked all files until {ended}: {totals}")
    });
    let current = match state.position {
        None => String::new(),
        Some(_) => format!("checking all files: {} so far", totals(&state.current)),
    };
    let separator = if last.is_empty() || current.is_empty() {
        ""
    } else {
        "; "
    };
    match last.len() + current.len() {
        0 => String::new(),
        _ => format!("scrub     {last}{separator}{current}\n"),
    }
}

fn pin_size(pin: &Pin) -> String {
    let packages = counted(pin.packages.len(), "package");
    let components = counted(pin.archives.len(), "component");
    match (pin.packages.len(), pin.archives.len()) {
        (_, 0) => packages,
        (0, _) => components,
        (_, _) => format!("{packages}, {components}"),
    }
}

/// The daemon's address, and one line for each upstream that is down or slow and for each entry that upstream no longer
/// has and a pin needs.
fn push_daemon(text: &mut String, daemon: &RunningDaemon) {
    let RunningDaemon { address, status } = daemon;
    let reach = if status["offline"] == true {
        ", offline"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "daemon    {address}, process {}{reach}",
        status["pid"]
    );
    push_requests(text, status);
    if let Some(problem) = status["store_problem"].as_str() {
        let _ = writeln!(text, "warning   the daemon writes nothing: {problem}");
    }
    for outage in status["outages"].as_array().into_iter().flatten() {
        let field = |name: &str| outage[name].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<9} {} since {}: {}",
            field("state"),
            field("upstream"),
            field("since"),
            field("cause")
        );
    }
    for withdrawn in status["withdrawn"].as_array().into_iter().flatten() {
        let field = |name: &str| withdrawn[name].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "withdrawn {} since {}: upstream no longer has it, the stored copy is served",
            field("resource"),
            field("since")
        );
    }
    push_limits(text, &status["connections"]);
    push_keep_warm(text, &status["keep_warm"]);
    push_eviction(text, &status["eviction"]);
}

/// How requests were answered since the daemon started, and what is on the way.
fn push_requests(text: &mut String, status: &Value) {
    let sum = |names: &[&str]| -> u64 {
        let counts = names.iter().map(|name| status["requests"][name].as_u64());
        counts.flatten().sum()
    };
    let hits = sum(&["hit", "revalidated", "stale-while-revalidate"]);
    let fetched = sum(&["miss", "collapsed", "prefetched"]);
    let stale = sum(&[
        "stale-offline",
        "stale-down",
        "stale-failed",
        "stale-absent",
    ]);
    let failed = sum(&["refused", "failed"]);
    if hits + fetched + stale + failed > 0 {
        let _ = writeln!(
            text,
            "requests  {hits} from the store, {fetched} fetched, {stale} stale, {failed} failed, since the start"
        );
    }
    if let Some(fetching @ 1..) = status["fetching"].as_u64() {
        let files = counted(usize::try_from(fetching).unwrap_or(usize::MAX), "file");
        let _ = writeln!(text, "fetching  {files} from upstream");
    }
}

/// One line about the limits that have ended or refused connections of clients.
fn push_limits(text: &mut String, connections: &Value) {
    let limited = connections["limited"].as_object().into_iter().flatten();
    let counts = limited.filter(|(_, count)| **count != 0);
    let counts: Vec<_> = counts
        .map(|(limit, count)| format!("{limit} {count}"))
        .collect();
    if !counts.is_empty() {
        let _ = writeln!(
            text,
            "limits    {} of {} connections open; since the start: {}",
            connections["open"],
            connections["max"],
            counts.join(", ")
        );
    }
}

/// One line about the last removal of unused files.
fn push_eviction(text: &mut String, eviction: &Value) {
    if let Some(last_pass) = eviction["last_pass"].as_str() {
        let bytes = eviction["bytes"].as_u64().unwrap_or_default();
        let _ = writeln!(
            text,
            "eviction  removed {} files, {}, since the start; last pass at {last_pass}",
            eviction["files"],
            HumanBytes(bytes)
        );
    }
}

/// One line about the last look at the files of warmed projects.
fn push_keep_warm(text: &mut String, keep_warm: &Value) {
    let Some(last_pass) = keep_warm["last_pass"].as_str() else {
        return;
    };
    let _ = write!(
        text,
        "keep-warm looked at {} projects and toolchains at {last_pass}; fetched {} since the start",
        keep_warm["pins"], keep_warm["fetched"],
    );
    if keep_warm["not_ready"] != 0 {
        let _ = write!(
            text,
            "; {} are not ready, see the log",
            keep_warm["not_ready"]
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hash::Sha256, store::Owner};

    #[test]
    fn text_names_store_pins_daemon_and_outages() {
        let pin = Pin {
            owner: Owner::Toolchain("stable".to_owned()),
            packages: Vec::new(),
            archives: vec![Sha256::of(b"")],
            sizes: BTreeMap::new(),
            offered: Vec::new(),
            entries: None,
        };
        let daemon = RunningDaemon {
            address: "http://127.0.0.1:3263/".to_owned(),
            status: json!({
                "pid": 7,
                "offline": false,
                "store_problem": "it is gone",
                "outages": [{ "state": "down", "upstream": "h:1", "since": "now", "cause": "refused" }],
                "connections": { "open": 2, "max": 9, "limited": { "a": 0, "b": 3, "c": 1 } },
                "keep_warm": { "last_pass": "today", "pins": 2, "fetched": 5, "not_ready": 1 },
            }),
        };
        let statistics = Statistics {
            entries: 3,
            entry_bytes: 1024,
            ..Statistics::default()
        };
        let space = SpaceStatus {
            space: Space {
                total: 2048,
                quarantine: 1024,
                quarantine_files: 1,
                staging: 0,
            },
            max_size: Some(4096),
            gone: vec![GonePin {
                owner: "/p/Cargo.lock".to_owned(),
                since: None,
                dropped_from: None,
            }],
        };
        assert_eq!(
            text(Path::new("/s"), statistics, &[pin], &space, Some(&daemon)),
            "store     /s\nsize      2.00 KiB of 4.00 KiB\nentries   3, 1.00 KiB\nfiles     0, 0 B\nprojects  1\n          toolchain stable  (1 component)\n\
             quarantine 1 damaged file, 1.00 KiB\n\
             gone      /p/Cargo.lock is gone; its files are still kept\n\
             daemon    http://127.0.0.1:3263/, process 7\n\
             warning   the daemon writes nothing: it is gone\ndown      h:1 since now: refused\n\
             limits    2 of 9 connections open; since the start: b 3, c 1\n\
             keep-warm looked at 2 projects and toolchains at today; fetched 5 since the start; 1 are not ready, see the log\n"
        );
        let text = text(Path::new("/s"), statistics, &[], &space, None);
        assert!(text.ends_with("daemon    not running; start it with `larder serve`\n"));
    }
}
