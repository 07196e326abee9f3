//! The benchmark `instructions`: instructions and system calls per hit. Counts do not depend on the machine's load,
//! unlike times.
//!
//! valgrind counts instructions, in user space only. strace counts system calls. Both observe one client with one
//! connection.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fake_upstream::FakeUpstream;
use serde_json::json;
use tempfile::TempDir;

use crate::benchmark::Context;
use crate::fixture::site_with_log;
use crate::load;
use crate::payload::{self, Payload};
use crate::row::{Row, UNCLAIMED, Unit, rounded};
use testkit::larder::{Larder, Site};
use testkit::process::signal;

/// Hits in a counted run.
const HITS: usize = 400;
/// Hits of each kind before counting starts, so that caches and buffers are filled.
const WARM_UP_HITS: usize = 40;
/// Most rounds: valgrind's figures hardly vary.
const MAX_ROUNDS: u32 = 3;
/// Functions in the record, the most expensive first.
const TOP_FUNCTIONS: usize = 25;

/// A kind of hit: a payload, requested with or without its validator.
struct Kind {
    label: &'static str,
    payload: Payload,
    is_conditional: bool,
}

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let upstream = payload::upstream();
    let small = payload::small_entry(&upstream);
    let kind = |label, payload: &Payload, is_conditional| Kind {
        label,
        payload: payload.clone(),
        is_conditional,
    };
    let slim = payload::small_crate(&upstream);
    let kinds = [
        kind(small.label, &small, false),
        kind("304 of an index entry of 3 kB", &small, true),
        kind(slim.label, &slim, false),
    ];
    let mut rows = instructions(context, &upstream, &kinds);
    rows.extend(system_calls(context, &upstream, &kinds));
    rows
}

fn instructions(context: &Context<'_>, upstream: &FakeUpstream, kinds: &[Kind]) -> Vec<Row> {
    let missing = load::missing_programs(&[("valgrind", "valgrind")]);
    let mut rows: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let what = format!("instructions per hit, hashing left out, {}", kind.label);
            observed(&what, missing.clone())
        })
        .collect();
    if missing.is_some() {
        return rows;
    }
    let folder = TempDir::new().expect("the temporary folder is writable");
    let counts = folder.path().join("callgrind");
    let log = folder.path().join("larder.log");
    // The shell replaces itself with valgrind, which writes the counts when larder exits.
    let watch = format!(
        "exec 2>>'{}'; exec valgrind --tool=callgrind --callgrind-out-file='{}' --log-file=/dev/null \"$0\" \"$@\"",
        log.display(),
        counts.display()
    );
    let site = Site::new(context.larder, &upstream.url()).shell_prelude(&watch);
    let count = |kind: Option<&Kind>| {
        let larder = site.serve(&["--max-age", "1h"]);
        for kind in kinds {
            request(&larder, kind, WARM_UP_HITS);
        }
        if let Some(kind) = kind {
            request(&larder, kind, HITS);
        }
        larder.stop();
        by_function(&counts)
    };
    // The first run fills the store; its requests are misses.
    count(None);
    for _ in 0..context.rounds.min(MAX_ROUNDS) {
        let start = count(None);
        for (kind, row) in kinds.iter().zip(&mut rows) {
            let mut functions: Vec<(String, f64)> = count(Some(kind))
                .into_iter()
                .map(|(name, cost)| {
                    let before = start.get(&name).copied().unwrap_or_default();
                    (name, (cost as f64 - before as f64) / HITS as f64)
                })
                .collect();
            functions.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            let all: f64 = functions.iter().map(|(_, cost)| cost).sum();
            // Valgrind's virtual processor has no SHA-256 instructions. On real ones hashing costs a tenth.
            let hashing: f64 = functions
                .iter()
                .filter(|(name, _)| name.contains("sha256") || name.contains("sha2::"))
                .map(|(_, cost)| cost)
                .sum();
            let top: Vec<_> = functions
                .iter()
                .take(TOP_FUNCTIONS)
                .map(|(name, cost)| json!([name, cost.round()]))
                .collect();
            row.push(
                (all - hashing).round(),
                json!({"all": all.round(), "hashing": hashing.round(), "functions": top}),
            );
        }
    }
    rows
}

fn system_calls(context: &Context<'_>, upstream: &FakeUpstream, kinds: &[Kind]) -> Vec<Row> {
    let missing = load::missing_programs(&[("strace", "strace")]);
    let mut rows: Vec<_> = kinds
        .iter()
        .map(|kind| {
            observed(
                &format!("system calls per hit, {}", kind.label),
                missing.clone(),
            )
        })
        .collect();
    if missing.is_some() {
        return rows;
    }
    let folder = TempDir::new().expect("the temporary folder is writable");
    let counts = folder.path().join("strace");
    let site = site_with_log(
        &folder.path().join("larder.log"),
        context.larder,
        &upstream.url(),
    );
    let larder = site.serve(&["--max-age", "1h"]);
    for _ in 0..context.rounds.min(MAX_ROUNDS) {
        for (kind, row) in kinds.iter().zip(&mut rows) {
            request(&larder, kind, WARM_UP_HITS);
            larder.wait_until_idle();
            let mut watcher = Command::new("strace")
                .args(["-f", "-c", "-p", &larder.process_id().to_string(), "-o"])
                .arg(&counts)
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("strace can be started");
            let said = watcher.stderr.take().expect("stderr is a pipe");
            let mut said = BufReader::new(said);
            let mut line = String::new();
            said.read_line(&mut line)
                .expect("strace reports that it is attached");
            if !line.contains("attached") {
                for row in &mut rows {
                    row.missing = Some(format!("strace cannot attach: {}", line.trim()));
                }
                let _ = watcher.wait();
                return rows;
            }
            request(&larder, kind, HITS);
            signal(watcher.id(), "INT");
            let _ = watcher.wait();
            let calls = by_call(&counts);
            let all: f64 = calls.values().sum();
            row.push(rounded(all), json!(calls));
        }
    }
    rows
}

/// A row with a figure per hit and without claims.
fn observed(what: &str, missing: Option<String>) -> Row {
    Row {
        unit: Unit::PerHit,
        missing,
        ..Row::ratio(what, UNCLAIMED, UNCLAIMED)
    }
}

/// Sends `count` requests on one connection, one after the other.
fn request(larder: &Larder<'_>, kind: &Kind, count: usize) {
    let mut connection = larder.http().connect().expect("larder accepts connections");
    let mut get = |headers: &[(&str, &str)]| {
        let reply = connection.get(&kind.payload.path, headers);
        reply.expect("larder answers")
    };
    let reply = get(&[]);
    let tag = reply.header("etag").expect("an ETag").to_owned();
    let (status, headers) = if kind.is_conditional {
        (304, vec![("if-none-match", tag.as_str())])
    } else {
        (200, Vec::new())
    };
    for _ in 0..count {
        let reply = get(&headers);
        assert!(
            reply.status == status && reply.complete,
            "{} was answered with {}",
            kind.payload.path,
            reply.status
        );
    }
}

/// Instructions by function, without its callees: the sums of the lines of callgrind's file.
fn by_function(counts: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(counts).expect("valgrind wrote its counts");
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut costs: BTreeMap<String, u64> = BTreeMap::new();
    let mut function = String::new();
    let mut is_of_call = false;
    for line in text.lines() {
        if let Some(known) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            // The file gives a name and a number first, and only the number afterwards.
            let (number, name) = known.split_once(' ').unwrap_or((known, ""));
            if !name.is_empty() {
                names.insert(number.to_owned(), name.to_owned());
            }
            if line.starts_with("fn=") {
                function = names.get(number).cloned().unwrap_or_default();
            }
        } else if line.starts_with("calls=") {
            is_of_call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || ['+', '-', '*'].contains(&c)) {
            let cost = line
                .split(' ')
                .nth(1)
                .and_then(|cost| cost.parse::<u64>().ok());
            // The line after a call is the cost of the callee.
            if let (Some(cost), false) = (cost, is_of_call) {
                *costs.entry(function.clone()).or_insert(0_u64) += cost;
            }
            is_of_call = false;
        }
    }
    assert!(!costs.is_empty(), "valgrind counted nothing");
    costs
}

/// System calls per hit by name, from strace's table.
fn by_call(counts: &Path) -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(counts).expect("strace wrote its counts");
    text.lines()
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            // Columns: share, seconds, microseconds per call, calls, errors (optional), name.
            let calls: f64 = words.get(3)?.parse().ok()?;
            let name = words.last().filter(|name| **name != "total")?;
            Some(((*name).to_owned(), rounded(calls / HITS as f64)))
        })
        .collect()
}
