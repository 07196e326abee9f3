//! The scene `others`: larder beside other caches of crates.io, as far as these are installed. Watched, never claimed.
//!
//! Each is one description in [`ALL`] of how it is started and where it keeps and serves things; how is what its own guide says.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fake_upstream::{FakeUpstream, from_lock, index_path};
use serde_json::json;
use tempfile::TempDir;

use crate::goods;
use crate::hits;
use crate::load;
use crate::process;
use crate::row::{Better, Row, UNCLAIMED, rounded};
use crate::scene::{NEAR, Play};
use crate::stage::{DIAL, Task, Took};
use testkit::http::Http;
use testkit::process::free_address;

/// Its name.
pub(crate) const SCENE: &str = "others";
/// They are here to be seen beside larder, and some are slow.
const ROUNDS: u32 = 2;
/// How long hits are asked for.
const LASTING: Duration = Duration::from_secs(1);
/// Seconds of processor time below which hundredths of a second say nothing.
const COUNTABLE: f64 = 0.2;

/// A cache that cargo can be sent to. What stands in braces is filled in.
#[derive(Debug)]
struct Other {
    program: &'static str,
    arguments: &'static [&'static str],
    /// Where it tells cargo to ask for an archive. All of them have the index below `/index/`.
    archive: &'static str,
    /// Of one that has to be filled before it is used; others fetch what they are asked for.
    mirror: Option<Mirror>,
}

/// Where a mirror that was synchronized keeps things, below its folder.
#[derive(Debug)]
struct Mirror {
    index: &'static str,
    archive: &'static str,
}

const ALL: &[Other] = &[
    // It knows no authorities but those that were built in, so its upstream cannot have TLS.
    Other {
        program: "crates-io-proxy",
        // One beginning with `--name=` would be passed over without a word.
        arguments: &[
            "--listen",
            "{address}",
            "--proxy-url",
            "http://{address}/",
            "--index-url",
            "{upstream}index/",
            "--upstream-url",
            "{upstream}",
            "--cache-dir",
            "{folder}",
        ],
        archive: "/api/v1/crates/{crate}/{version}/download",
        mirror: None,
    },
    Other {
        program: "panamax",
        arguments: &["serve", "{folder}", "--listen={ip}", "--port={port}"],
        archive: "/crates/{prefix}/{crate}/{version}/{crate}-{version}.crate",
        mirror: Some(Mirror {
            index: "crates.io-index",
            archive: "crates/{prefix}/{crate}/{version}/{crate}-{version}.crate",
        }),
    },
];

/// What is known to an upstream, as a mirror would hold it.
struct Known<'a> {
    upstream: &'a FakeUpstream,
    entries: Vec<&'a str>,
    archives: Vec<(&'a str, &'a str)>,
}

/// A running cache. Killed when dropped, as none of them has a way to end in good order.
#[derive(Debug)]
struct Running {
    process: Child,
    address: SocketAddr,
}

pub(crate) fn play(play: &Play<'_>) -> Vec<Row> {
    let others: Vec<_> = ALL.iter().filter(|other| other.is_installed()).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let rounds = play.rounds.min(ROUNDS);
    let mut rows = Vec::new();
    compare_cargo(play, &others, rounds, &mut rows);
    compare_hits(play, &others, rounds, &mut rows);
    rows
}

/// Which of them have no rows, as a line for people.
pub(crate) fn absent() -> Option<String> {
    let absent: Vec<_> = ALL
        .iter()
        .filter(|other| !other.is_installed())
        .map(|other| other.program)
        .collect();
    let names = absent.join(" and ");
    (!absent.is_empty()).then(|| format!("not compared with {names}: not installed"))
}

/// Real cargo through each of them, empty and filled by an earlier run. Mirrors are never empty.
fn compare_cargo(play: &Play<'_>, others: &[&Other], rounds: u32, rows: &mut Vec<Row>) {
    let stage = play.stage(NEAR, None);
    // The same without TLS, as far away: a dial takes as long.
    let plain = FakeUpstream::builder()
        .delay(stage.round_trip)
        .connect_delay(stage.round_trip * DIAL)
        .max_age(Some(600))
        .start();
    let project = from_lock(play.lock, &plain);
    let mut known = Known {
        upstream: &plain,
        entries: Vec::new(),
        archives: Vec::new(),
    };
    for (name, version) in &project.packages {
        known.entries.push(name);
        known.archives.push((name, version));
    }
    known.entries.dedup();
    known.publish_as_crates_io();

    // Removed at the end: files that were just deleted may slow down new ones.
    let folders = TempDir::new().expect("the temporary folder is writable");
    let mut sites = Vec::new();
    for (task, what) in [
        (Task::Fetch, "cargo fetch --locked"),
        (Task::Resolve, "cargo generate-lockfile"),
    ] {
        let row = |program: &str, state: &str| {
            let what = format!("{what}, {program} {state} / direct");
            Row::ratio(&what, UNCLAIMED, UNCLAIMED)
        };
        let mut own = [row("larder", "empty"), row("larder", "filled")];
        let mut theirs: Vec<_> = others
            .iter()
            .map(|other| {
                let folder = folders.path().join(format!("{task:?}-{}", other.program));
                let running = other.start(&folder, &known);
                let empty = other.mirror.is_none().then(|| row(other.program, "empty"));
                (running, empty, row(other.program, "filled"))
            })
            .collect();
        for round in 0..rounds {
            let direct = stage.direct(task);
            let site = stage.site();
            let larder = site.serve(&[]);
            for row in &mut own {
                row.push_run(direct, stage.run(task, larder.url()));
                larder.wait_until_idle();
            }
            larder.stop();
            sites.push(site);
            for (running, empty, filled) in &mut theirs {
                let index = format!("{}/index/", running.url());
                let run = || {
                    let before = plain.requests_for("");
                    let mut took = stage.run(task, &index);
                    took.requests += plain.requests_for("") - before;
                    took
                };
                // Once: each of its requests waits for the one before it.
                if let (Some(empty), 0) = (empty, round) {
                    empty.push_run(direct, run());
                }
                filled.push_run(direct, run());
            }
        }
        rows.extend(own);
        for (_, empty, filled) in theirs {
            rows.extend(empty.into_iter().chain([filled]));
        }
    }
}

/// Hits, with the log that each writes when nothing is said about it: larder a line for each, the others none.
fn compare_hits(play: &Play<'_>, others: &[&Other], rounds: u32, rows: &mut Vec<Row>) {
    let lacks = load::lacks(&[("wrk", "wrk")]);
    let upstream = goods::upstream();
    let goods = [
        goods::entry(&upstream, "index entry 3 kB", "small", 3_000),
        goods::archive(&upstream, "crate 11 kB", "slim", 11_000),
    ];
    let known = Known {
        upstream: &upstream,
        entries: vec!["small", "slim"],
        archives: vec![("slim", "1.0.0")],
    };
    known.publish_as_crates_io();
    let pair = |other: &&Other, what: &str| {
        let row = |figure: &str, better| Row {
            better,
            lacks: lacks.clone(),
            ..Row::ratio(
                &format!("{figure} / {}, {what}", other.program),
                UNCLAIMED,
                UNCLAIMED,
            )
        };
        [
            row("hits per second", Better::More),
            row("processor time per hit", Better::Less),
        ]
    };
    if lacks.is_some() {
        for good in &goods {
            rows.extend(others.iter().flat_map(|other| pair(other, good.what)));
        }
        return;
    }

    let folder = TempDir::new().expect("the temporary folder is writable");
    let log = folder.path().join("larder.log");
    let site = hits::logging_to(&log, play.larder, &upstream.url());
    let larder = site.serve(&["--max-age", "1h"]);
    let larder_url = larder.url().trim_end_matches('/');
    let running: Vec<_> = others
        .iter()
        .map(|other| {
            let folder = folder.path().join(other.program);
            (other, other.start(&folder, &known))
        })
        .collect();
    for good in &goods {
        let path = |other: &Other| match good.upstream_path.starts_with("/index/") {
            true => good.upstream_path.clone(),
            false => fill_in(other.archive, &crate_words("slim", "1.0.0")),
        };
        hits::check(&larder.http(), &good.path, good);
        for (other, running) in &running {
            hits::check(&Http::to(&running.url()), &path(other), good);
        }
        larder.wait_until_idle();
        upstream.forget_requests();
        let mut compared: Vec<_> = others.iter().map(|other| pair(other, good.what)).collect();
        for _ in 0..rounds {
            load::truncate(&log);
            let own = measure(&format!("{larder_url}{}", good.path), larder.process_id());
            for ((other, running), [rate, cost]) in running.iter().zip(&mut compared) {
                let url = format!("{}{}", running.url(), path(other));
                let theirs = measure(&url, running.process.id());
                rate.push(
                    own.rate / theirs.rate,
                    json!({"larder": rounded(own.rate), "other": rounded(theirs.rate)}),
                );
                if let (Some(own), Some(theirs)) = (own.microseconds, theirs.microseconds) {
                    cost.push(
                        own / theirs,
                        json!({"larder_us": rounded(own), "other_us": rounded(theirs)}),
                    );
                } else {
                    let program = other.program;
                    cost.lacks = Some(format!("{program} waits more than it works"));
                }
            }
        }
        assert_eq!(
            upstream.requests_for(""),
            0,
            "what was measured were not hits"
        );
        rows.extend(compared.into_iter().flatten());
    }
}

/// What one server did.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Answers per second.
    rate: f64,
    /// Processor time for one answer, if that much was used that it can be told.
    microseconds: Option<f64>,
}

fn measure(url: &str, process: u32) -> Measured {
    let before = load::processor_time(&[process]);
    let rate = load::wrk(url, &[], LASTING);
    let used = load::processor_time(&[process]) - before;
    Measured {
        rate,
        microseconds: (used >= COUNTABLE).then(|| used / (rate * LASTING.as_secs_f64()) * 1e6),
    }
}

impl Row {
    fn push_run(&mut self, direct: Took, through: Took) {
        self.push(
            through.seconds / direct.seconds,
            json!({
                "direct": rounded(direct.seconds), "through": rounded(through.seconds),
                "direct_requests": direct.requests, "through_requests": through.requests,
            }),
        );
    }
}

impl Other {
    fn is_installed(&self) -> bool {
        load::find(self.program).is_some()
    }

    /// Starts it on a folder that is its own; a mirror's is filled first.
    ///
    /// # Panics
    /// If it does not start.
    fn start(&self, folder: &Path, known: &Known<'_>) -> Running {
        let address = free_address();
        std::fs::create_dir_all(folder).expect("the temporary folder is writable");
        if let Some(mirror) = &self.mirror {
            let archive = format!("http://{address}{}", self.archive);
            known.write(folder, mirror, &archive);
        }
        let log = folder.join("log");
        let output = File::create(&log).expect("the temporary folder is writable");
        let words = [
            ("address", address.to_string()),
            ("ip", address.ip().to_string()),
            ("port", address.port().to_string()),
            ("folder", folder.display().to_string()),
            ("upstream", known.upstream.base_url().to_owned()),
        ];
        let arguments = self.arguments.iter();
        let process = Command::new(load::find(self.program).expect("it is installed"))
            .args(arguments.map(|argument| fill_in(argument, &words)))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.program));
        let mut running = Running { process, address };
        process::wait_until_it_listens(&mut running.process, address, &log);
        running
    }
}

impl Known<'_> {
    /// Has archives where crates.io's own interface has them, too.
    fn publish_as_crates_io(&self) {
        for (name, version) in &self.archives {
            let path = format!("/api/v1/crates/{name}/{version}/download");
            let body = self.upstream.body(name, version);
            self.upstream.serve_static(&path, body, "application/gzip");
        }
    }

    /// What synchronizing leaves, with a `config.json` that names the mirror.
    fn write(&self, folder: &Path, mirror: &Mirror, archive_url: &str) {
        let write = |path: String, body: &[u8]| {
            let path = folder.join(path);
            let parent = path.parent().expect("it is below the folder");
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, body))
                .expect("the temporary folder is writable");
        };
        let config = json!({"dl": archive_url, "api": archive_url});
        write(
            format!("{}/config.json", mirror.index),
            config.to_string().as_bytes(),
        );
        for name in &self.entries {
            let path = format!("{}/{}", mirror.index, index_path(name));
            write(path, &self.upstream.index_body(name));
        }
        for (name, version) in &self.archives {
            let path = fill_in(mirror.archive, &crate_words(name, version));
            write(path, &self.upstream.body(name, version));
        }
    }
}

impl Running {
    /// Its address, without a slash at the end.
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cargo's words for the parts of an archive's address.
fn crate_words(name: &str, version: &str) -> [(&'static str, String); 3] {
    // The name's own letters, where the index has small ones.
    let prefix = match name.len() {
        len @ (1 | 2) => len.to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    };
    [
        ("prefix", prefix),
        ("crate", name.to_owned()),
        ("version", version.to_owned()),
    ]
}

fn fill_in(template: &str, words: &[(&str, String)]) -> String {
    let start = template.to_owned();
    words.iter().fold(start, |text, (word, meant)| {
        text.replace(&format!("{{{word}}}"), meant)
    })
}
