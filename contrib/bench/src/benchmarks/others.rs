//! The benchmark `others`: larder beside other caches of crates.io, as far as they are installed. The rows have no
//! claims.
//!
//! [`OTHERS`] describes how each cache is started and its paths, as its own guide says.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fake_upstream::{FakeUpstream, from_lock, index_path};
use serde_json::json;
use tempfile::TempDir;

use crate::benchmark::{Context, NEAR};
use crate::fixture::{DIAL_ROUND_TRIPS, Task, Took};
use crate::load;
use crate::payload;
use crate::process;
use crate::row::{Row, UNCLAIMED, rounded};
use crate::server::Ask;
use testkit::http::Http;
use testkit::larder::Site;
use testkit::process::free_address;

/// Most rounds: the rows have no claims, and some caches are slow.
const MAX_ROUNDS: u32 = 2;
/// Duration of one measurement of hits.
const DURATION: Duration = Duration::from_secs(1);
/// Seconds of processor time below which ticks of 10 ms are too coarse.
const MIN_PROCESSOR_SECONDS: f64 = 0.2;

/// A cache that cargo can use. Its strings contain placeholders in braces.
#[derive(Debug)]
struct Other {
    program: &'static str,
    arguments: &'static [&'static str],
    /// The path of a crate file. All of them serve the index below `/index/`.
    archive: &'static str,
    /// Set for a mirror, which must be filled before use. Other caches fetch on demand.
    mirror: Option<Mirror>,
}

/// The layout of a mirror's folder after a synchronization.
#[derive(Debug)]
struct Mirror {
    index: &'static str,
    archive: &'static str,
}

const OTHERS: &[Other] = &[
    // It trusts only built-in certificate authorities, so its upstream cannot have TLS.
    Other {
        program: "crates-io-proxy",
        // It silently ignores arguments of the form `--name=value`.
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

/// The names and versions that an upstream has, as a mirror would store them.
struct Catalogue<'a> {
    upstream: &'a FakeUpstream,
    entries: Vec<&'a str>,
    archives: Vec<(&'a str, &'a str)>,
}

/// A running cache. Killed on drop, since none of them has an orderly shutdown.
#[derive(Debug)]
struct Running {
    process: Child,
    address: SocketAddr,
}

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let others: Vec<_> = OTHERS.iter().filter(|other| other.is_installed()).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let rounds = context.rounds.min(MAX_ROUNDS);
    let mut rows = Vec::new();
    compare_cargo(context, &others, rounds, &mut rows);
    compare_hits(context, &others, rounds, &mut rows);
    rows
}

/// A line that names the caches that are not installed.
pub(crate) fn not_installed() -> Option<String> {
    let absent: Vec<_> = OTHERS
        .iter()
        .filter(|other| !other.is_installed())
        .map(|other| other.program)
        .collect();
    let names = absent.join(" and ");
    (!absent.is_empty()).then(|| format!("not compared with {names}: not installed"))
}

/// Real cargo through each cache, empty and filled by an earlier run. Mirrors are never empty.
fn compare_cargo(context: &Context<'_>, others: &[&Other], rounds: u32, rows: &mut Vec<Row>) {
    let fixture = context.fixture(NEAR, None);
    // An upstream without TLS at the same distance. A dial takes as long as one with TLS.
    let plain = FakeUpstream::builder()
        .delay(fixture.round_trip)
        .connect_delay(fixture.round_trip * DIAL_ROUND_TRIPS)
        .max_age(Some(600))
        .start();
    let project = from_lock(context.lock, &plain);
    let mut known = Catalogue {
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

    // Deleted at the end: recently deleted files may slow down the creation of new ones.
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
            let direct = fixture.direct(task);
            let site = fixture.site();
            let larder = site.serve(&[]);
            for row in &mut own {
                push_run(row, direct, fixture.run(task, larder.url()));
                larder.wait_until_idle();
            }
            larder.stop();
            sites.push(site);
            for (running, empty, filled) in &mut theirs {
                let index = format!("{}/index/", running.url());
                let run = || {
                    let before = plain.requests_for("");
                    let mut took = fixture.run(task, &index);
                    took.requests += plain.requests_for("") - before;
                    took
                };
                // One round only: each of its requests waits for the one before.
                if let (Some(empty), 0) = (empty, round) {
                    push_run(empty, direct, run());
                }
                push_run(filled, direct, run());
            }
        }
        rows.extend(own);
        for (_, empty, filled) in theirs {
            rows.extend(empty.into_iter().chain([filled]));
        }
    }
}

/// Hits, with each cache's default log, which has no line per request.
fn compare_hits(context: &Context<'_>, others: &[&Other], rounds: u32, rows: &mut Vec<Row>) {
    let missing = load::missing_programs(&[("wrk", "wrk")]);
    let upstream = payload::upstream();
    let payloads = [
        payload::small_entry(&upstream),
        payload::small_crate(&upstream),
    ];
    let known = Catalogue {
        upstream: &upstream,
        entries: vec!["small", "slim"],
        archives: vec![("slim", "1.0.0")],
    };
    known.publish_as_crates_io();
    let pair = |other: &&Other, what: &str| {
        let label = |figure: &str| format!("{figure} / {}, {what}", other.program);
        let figure = Ask::Body.figure();
        Row::rate_and_cost(figure, label, UNCLAIMED, UNCLAIMED, missing.as_ref())
    };
    if missing.is_some() {
        for payload in &payloads {
            rows.extend(others.iter().flat_map(|other| pair(other, payload.label)));
        }
        return;
    }

    let folder = TempDir::new().expect("the temporary folder is writable");
    let site = Site::new(context.larder, &upstream.url());
    let larder = site.serve(&["--max-age", "1h"]);
    let larder_url = larder.url().trim_end_matches('/');
    let running: Vec<_> = others
        .iter()
        .map(|other| {
            let folder = folder.path().join(other.program);
            (other, other.start(&folder, &known))
        })
        .collect();
    for payload in &payloads {
        let path = |other: &Other| match payload.upstream_path.starts_with("/index/") {
            true => payload.upstream_path.clone(),
            false => fill_in(other.archive, &crate_words("slim", "1.0.0")),
        };
        payload.assert_served(&larder.http(), &payload.path);
        for (other, running) in &running {
            payload.assert_served(&Http::to(&running.url()), &path(other));
        }
        larder.wait_until_idle();
        upstream.forget_requests();
        let mut compared: Vec<_> = others
            .iter()
            .map(|other| pair(other, payload.label))
            .collect();
        for _ in 0..rounds {
            let own = measure(
                &format!("{larder_url}{}", payload.path),
                larder.process_id(),
            );
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
                    cost.missing = Some(format!(
                        "{program} used too little processor time to measure"
                    ));
                }
            }
        }
        payload::assert_only_hits(&upstream);
        rows.extend(compared.into_iter().flatten());
    }
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Answers per second.
    rate: f64,
    /// Processor time per answer, unless it was too little to measure.
    microseconds: Option<f64>,
}

fn measure(url: &str, process: u32) -> Measured {
    let before = load::processor_time(&[process]);
    let rate = load::wrk(url, &[], DURATION);
    let used = load::processor_time(&[process]) - before;
    Measured {
        rate,
        microseconds: (used >= MIN_PROCESSOR_SECONDS)
            .then(|| used / (rate * DURATION.as_secs_f64()) * 1e6),
    }
}

fn push_run(row: &mut Row, direct: Took, through: Took) {
    row.push(
        through.seconds / direct.seconds,
        json!({
            "direct": rounded(direct.seconds), "through": rounded(through.seconds),
            "direct_requests": direct.requests, "through_requests": through.requests,
        }),
    );
}

impl Other {
    fn is_installed(&self) -> bool {
        load::find(self.program).is_some()
    }

    /// Starts the cache on a folder of its own. A mirror's folder is filled first.
    ///
    /// # Panics
    /// If it does not start.
    fn start(&self, folder: &Path, known: &Catalogue<'_>) -> Running {
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
        process::wait_until_listening(&mut running.process, address, &log);
        running
    }
}

impl Catalogue<'_> {
    /// Also serves crate files below the paths of crates.io's web API.
    fn publish_as_crates_io(&self) {
        for (name, version) in &self.archives {
            let path = format!("/api/v1/crates/{name}/{version}/download");
            let body = self.upstream.body(name, version);
            self.upstream.serve_static(&path, body, "application/gzip");
        }
    }

    /// Writes the files of a synchronized mirror, with a `config.json` that names the mirror.
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
    /// The URL, without a slash at the end.
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

/// Cargo's placeholders in a download URL.
fn crate_words(name: &str, version: &str) -> [(&'static str, String); 3] {
    // With the upper-case letters of the name; only the index uses lower case.
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
