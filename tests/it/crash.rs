//! SIGKILL at random moments of cold fetches. Entries and crates reported as stored are still there, served bytes
//! are right, and no staged file remains.
//!
//! Unit tests of the store cover single writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, index_path, sha256};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::http::Http;
use testkit::larder::{Larder, Site};
use testkit::lock_file::locked_project;
use testkit::store::blobs;

const CRATES: usize = 50;
/// Crates that `warm` stores.
const WARMED: usize = 5;
/// Stores in the test with raw clients, which are fast. Two larders are killed on each.
const STORES: u64 = 25;
/// Killed larders in the test with real cargo.
const CARGO_ROUNDS: u64 = 2;

fn name(number: usize) -> String {
    format!("crash-{number:02}")
}

fn upstream() -> FakeUpstream {
    // Slow enough that a kill can interrupt a transfer.
    let upstream = FakeUpstream::builder().bandwidth(20_000_000).start();
    for number in 0..CRATES {
        upstream.publish(Crate::new(&name(number), "1.0.0").padding(1_000 + 997 * number));
    }
    for number in 0..WARMED {
        upstream.publish(Crate::new(&format!("warmed-{number}"), "1.0.0").padding(1_000));
    }
    upstream
}

/// A number below `limit`, different in each round and run.
#[expect(
    clippy::print_stderr,
    reason = "shown only if the test fails, to those who look for the cause"
)]
fn random_below(round: u64, limit: usize) -> usize {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| u64::from(now.subsec_nanos()));
    let mixed = (nanos ^ round.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let number = usize::try_from(mixed).unwrap_or(0) % limit;
    eprintln!("round {round}: {number} of {limit}");
    number
}

/// Waits until upstream has received `count` requests since the record began, or for 5 s.
fn wait_for_requests(upstream: &FakeUpstream, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while upstream.requests_for("") < count && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A path and its correct body.
type Served = (String, Vec<u8>);

/// The index entries and archives of these crates.
fn files_of(upstream: &FakeUpstream, names: impl Iterator<Item = String>) -> Vec<Served> {
    let bodies = names.flat_map(|name| {
        let entry = (
            format!("/{}", index_path(&name)),
            upstream.index_body(&name).to_vec(),
        );
        let archive = (
            format!("/crates/{name}/1.0.0/download"),
            upstream.body(&name, "1.0.0").to_vec(),
        );
        [entry, archive]
    });
    bodies.collect()
}

/// Stores some crates with `warm`, which no other client requests, and returns them.
#[track_caller]
fn warm(site: &Site, upstream: &FakeUpstream) -> Vec<Served> {
    let names = || (0..WARMED).map(|number| format!("warmed-{number}"));
    let folder = locked_project(upstream, &names().collect::<Vec<_>>());
    let warmed = site.command(&["warm", &folder.path().display().to_string()]);
    assert!(warmed.status.success(), "{warmed:?}");
    files_of(upstream, names())
}

/// Fails unless only the running process has a folder in staging.
#[track_caller]
fn assert_only_live_process_stages(store: &Path) {
    let staging = fs::read_dir(store.join("v1/staging")).expect("there is a staging folder");
    let folders: Vec<_> = staging.flatten().map(|entry| entry.path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
}

/// Fails unless every stored blob is complete.
#[track_caller]
fn assert_blobs_are_whole(site: &Site, by_sum: &BTreeMap<String, &[u8]>) {
    for path in blobs(site) {
        let names = path.iter().rev().take(2).map(|part| part.to_string_lossy());
        let sum = names.fold(String::new(), |rest, part| format!("{part}{rest}"));
        let body = fs::read(&path).expect("a blob can be read");
        assert_eq!(Some(&&*body), by_sum.get(&sum), "{}", path.display());
    }
}

/// The paths of complete answers.
type Fetched = Mutex<BTreeSet<String>>;

/// Requests these files until larder is killed. Complete answers must be right.
fn fetch(http: &Http, files: &[Served], fetched: &Fetched) {
    for (path, body) in files {
        // Clients of a killed server get no answer, or half of one.
        let Ok(reply) = http.try_get(path, &[]) else {
            return;
        };
        if reply.complete {
            assert_eq!((reply.status, &reply.body), (200, body), "{path}");
            let mut fetched = fetched.lock().expect("no holder of this lock panics");
            fetched.insert(path.clone());
        } else {
            assert!(body.starts_with(&reply.body), "{path}: wrong beginning");
        }
    }
}

/// Polls until larder is killed. Returns the fetched paths that were stored according to larder's last status.
fn stored(http: &Http, fetched: &Fetched) -> BTreeSet<String> {
    let mut stored = BTreeSet::new();
    loop {
        // Files fetched during the status request may not be stored yet.
        let before = fetched.lock().expect("no holder of this lock panics");
        let before = before.clone();
        let Ok(reply) = http.try_get("/-/status.json", &[]) else {
            return stored;
        };
        let status = String::from_utf8_lossy(&reply.body);
        if reply.complete && status.contains("\"fetching\":0") && status.contains("\"storing\":0") {
            stored = before;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Requests all files, several at a time, until larder is killed. Returns the paths that were reported as stored.
fn fetch_until_killed(
    larder: Larder<'_>,
    files: &[Served],
    kill: impl FnOnce(),
) -> BTreeSet<String> {
    let http = &larder.http().timeout(Duration::from_secs(10));
    let fetched = &Fetched::default();
    std::thread::scope(|scope| {
        for part in files.chunks(files.len().div_ceil(8)) {
            scope.spawn(move || fetch(http, part, fetched));
        }
        let stored = scope.spawn(move || stored(http, fetched));
        kill();
        larder.kill();
        stored.join().expect("the polling thread does not panic")
    })
}

/// Larder's own rule: ARCHITECTURE.md, "Invariants".
#[test]
fn sigkill_loses_no_stored_file_and_leaves_no_wrong_byte_or_staged_file() {
    let upstream = upstream();
    let everything = files_of(&upstream, (0..CRATES).map(name));
    let (first, second) = everything.split_at(everything.len() / 2);
    let mut said_to_be_stored = 0;
    for number in 0..STORES {
        let site = site(&upstream);
        let warmed = match number % 5 {
            0 => warm(&site, &upstream),
            _ => Vec::new(),
        };
        let all = || everything.iter().chain(&warmed);
        let sums = all().map(|(_, body)| (sha256(body), &body[..]));
        let by_sum: BTreeMap<_, _> = sums.collect();
        let mut stored: BTreeSet<_> = warmed.iter().map(|(path, _)| path.clone()).collect();
        for (half, files) in [first, second].into_iter().enumerate() {
            let round = 2 * number + half as u64;
            let larder = site.serve(&[]);
            // Each larder stores a few files before the kill.
            let (begin, rest) = files.split_at(1 + random_below(round + 1000, 6));
            fetch(&larder.http(), begin, &Fetched::default());
            larder.wait_until_idle();
            stored.extend(begin.iter().map(|(path, _)| path.clone()));
            upstream.forget_requests();
            let said = fetch_until_killed(larder, rest, || {
                // Moments beyond the number of requests fall into the time in which larder writes the last files.
                let moment = random_below(round, rest.len() + CRATES / 2);
                wait_for_requests(&upstream, moment.min(rest.len()));
                let beyond = moment.saturating_sub(rest.len());
                std::thread::sleep(Duration::from_millis(10 * beyond as u64));
            });
            said_to_be_stored += said.len();
            stored.extend(said);
            assert_blobs_are_whole(&site, &by_sum);

            // Mostly offline, so that larder serves only files that the killed processes stored.
            let is_offline = half == 0 || number % 2 == 0;
            let larder = site.serve(if is_offline { &["--offline"] } else { &[] });
            assert_only_live_process_stages(site.store());
            let mut connection = larder.http().connect().expect("larder accepts connections");
            for (path, body) in all() {
                let reply = connection.get(path, &[]).expect("there is an answer");
                assert!(reply.complete, "round {round}: {path}");
                if is_offline && reply.status == 424 {
                    assert!(!stored.contains(path), "round {round}: {path} is lost");
                    continue;
                }
                assert_eq!(
                    (reply.status, &reply.body),
                    (200, body),
                    "round {round}: {path}"
                );
            }
            let log = larder.stop();
            assert!(!log.contains("damaged"), "round {round}: {log}");
        }
    }
    assert!(said_to_be_stored > 0, "all kills came too early");
}

#[test]
fn cargo_completes_across_a_kill_and_restart_of_larder() {
    let upstream = upstream();
    for round in 0..CARGO_ROUNDS {
        let site = site(&upstream);
        let mut project = Project::empty();
        for number in 0..CRATES {
            project = project.dep(&name(number), "1");
        }
        let larder = site.serve(&[]);
        let url = larder.url().to_owned();
        upstream.forget_requests();
        std::thread::scope(|scope| {
            let cargo = scope.spawn(|| {
                let home = CargoHome::empty().variable("CARGO_NET_RETRY", "10");
                let run = home.run(&project, &["fetch"], &url);
                run.assert_success();
            });
            wait_for_requests(&upstream, 1 + random_below(round, 2 * CRATES));
            larder.kill();
            let authority = url.trim_start_matches("http://").trim_end_matches('/');
            let larder = site.serve_at(authority, &[]);
            assert_only_live_process_stages(site.store());
            cargo.join().expect("cargo succeeds in the end");
            let log = larder.stop();
            assert!(!log.contains("damaged"), "round {round}: {log}");
        });
    }
}
