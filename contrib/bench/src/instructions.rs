//! The scene `instructions`: what one hit costs larder in instructions and system calls, counted and not timed, so that a busy
//! machine gives the same figures as an idle one.
//!
//! Instructions are counted by valgrind, in user space only; system calls by strace. Both watch one client with one connection.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use fake_upstream::FakeUpstream;
use serde_json::json;
use tempfile::TempDir;

use crate::goods::{self, Good};
use crate::hits;
use crate::load;
use crate::row::{Row, UNCLAIMED, Unit, rounded};
use crate::scene::Play;
use testkit::larder::{Larder, Site};

/// Hits that are counted.
const HITS: usize = 400;
/// Hits of each kind before, after which all is in its usual state.
const FIRST_HITS: usize = 40;
/// Valgrind gives nearly the same figure each time, so more rounds would teach nothing.
const ROUNDS: u32 = 3;
/// Functions that the record names.
const TOP: usize = 25;

/// What is asked for, with or without the validator.
struct Kind {
    what: &'static str,
    good: Good,
    is_conditional: bool,
}

pub(crate) fn play(play: &Play<'_>) -> Vec<Row> {
    let upstream = goods::upstream();
    let small = goods::entry(&upstream, "index entry 3 kB", "small", 3_000);
    let kind = |what, good: &Good, is_conditional| Kind {
        what,
        good: good.clone(),
        is_conditional,
    };
    let slim = goods::archive(&upstream, "crate 11 kB", "slim", 11_000);
    let kinds = [
        kind(small.what, &small, false),
        kind("304 of an index entry of 3 kB", &small, true),
        kind(slim.what, &slim, false),
    ];
    let mut rows = instructions(play, &upstream, &kinds);
    rows.extend(system_calls(play, &upstream, &kinds));
    rows
}

fn instructions(play: &Play<'_>, upstream: &FakeUpstream, kinds: &[Kind]) -> Vec<Row> {
    let lacks = load::lacks(&[("valgrind", "valgrind")]);
    let mut rows: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let what = format!("instructions per hit, hashing left out, {}", kind.what);
            watched(&what, lacks.clone())
        })
        .collect();
    if lacks.is_some() {
        return rows;
    }
    let folder = TempDir::new().expect("the temporary folder is writable");
    let counts = folder.path().join("callgrind");
    let log = folder.path().join("larder.log");
    // The program becomes valgrind, whose last word is the count.
    let watch = format!(
        "exec 2>>'{}'; exec valgrind --tool=callgrind --callgrind-out-file='{}' --log-file=/dev/null \"$0\" \"$@\"",
        log.display(),
        counts.display()
    );
    let site = Site::new(play.larder, &upstream.url()).shell_prelude(&watch);
    let count = |kind: Option<&Kind>| {
        let larder = site.serve(&["--max-age", "1h"]);
        for kind in kinds {
            ask(&larder, kind, FIRST_HITS);
        }
        if let Some(kind) = kind {
            ask(&larder, kind, HITS);
        }
        larder.stop();
        by_function(&counts)
    };
    // Once to fill the store, which is no hit.
    count(None);
    for _ in 0..play.rounds.min(ROUNDS) {
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
            // Valgrind's processor has no instructions for it, others have: there it costs a tenth.
            let hashing: f64 = functions
                .iter()
                .filter(|(name, _)| name.contains("sha256") || name.contains("sha2::"))
                .map(|(_, cost)| cost)
                .sum();
            let top: Vec<_> = functions
                .iter()
                .take(TOP)
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

fn system_calls(play: &Play<'_>, upstream: &FakeUpstream, kinds: &[Kind]) -> Vec<Row> {
    let lacks = load::lacks(&[("strace", "strace")]);
    let mut rows: Vec<_> = kinds
        .iter()
        .map(|kind| {
            watched(
                &format!("system calls per hit, {}", kind.what),
                lacks.clone(),
            )
        })
        .collect();
    if lacks.is_some() {
        return rows;
    }
    let folder = TempDir::new().expect("the temporary folder is writable");
    let counts = folder.path().join("strace");
    let site = hits::logging_to(
        &folder.path().join("larder.log"),
        play.larder,
        &upstream.url(),
    );
    let larder = site.serve(&["--max-age", "1h"]);
    for _ in 0..play.rounds.min(ROUNDS) {
        for (kind, row) in kinds.iter().zip(&mut rows) {
            ask(&larder, kind, FIRST_HITS);
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
            said.read_line(&mut line).expect("strace says something");
            if !line.contains("attached") {
                for row in &mut rows {
                    row.lacks = Some(format!("strace may not watch: {}", line.trim()));
                }
                let _ = watcher.wait();
                return rows;
            }
            ask(&larder, kind, HITS);
            let interrupt = format!("kill -INT {}", watcher.id());
            let sent = Command::new("/bin/sh").args(["-c", &interrupt]).status();
            assert!(
                sent.is_ok_and(|sent| sent.success()),
                "strace was still there"
            );
            let _ = watcher.wait();
            let calls = by_call(&counts);
            let all: f64 = calls.values().sum();
            row.push(rounded(all), json!(calls));
        }
    }
    rows
}

/// A figure per hit that nothing is claimed of.
fn watched(what: &str, lacks: Option<String>) -> Row {
    Row {
        unit: Unit::PerHit,
        lacks,
        ..Row::ratio(what, UNCLAIMED, UNCLAIMED)
    }
}

/// So many hits on one connection, one after the other.
fn ask(larder: &Larder<'_>, kind: &Kind, count: usize) {
    let mut connection = larder.http().connect().expect("larder accepts connections");
    let mut get = |headers: &[(&str, &str)]| {
        let reply = connection.get(&kind.good.path, headers);
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
            kind.good.path,
            reply.status
        );
    }
}

/// Instructions by function, without those of the functions it calls: what the lines of callgrind's file add up to.
fn by_function(counts: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(counts).expect("valgrind wrote its counts");
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut costs: BTreeMap<String, u64> = BTreeMap::new();
    let mut function = String::new();
    let mut is_of_call = false;
    for line in text.lines() {
        if let Some(known) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            // A name is written out the first time and called by its number afterwards.
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
            // The line after a call tells what the called function cost.
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
            // Share, seconds, microseconds per call, calls, perhaps errors, name.
            let calls: f64 = words.get(3)?.parse().ok()?;
            let name = words.last().filter(|name| **name != "total")?;
            Some(((*name).to_owned(), rounded(calls / HITS as f64)))
        })
        .collect()
}
