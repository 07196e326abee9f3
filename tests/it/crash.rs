//! SIGKILL at random moments of cold fetches: whatever is served afterwards is right, and nothing stays behind.
//!
//! The store's own promises about single writes are tested beside it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, index_path};

use crate::support::cargo::{CargoHome, Project};
use crate::support::larder::{Larder, Site};

const CRATES: usize = 50;
/// Killed larders with raw clients, which are quick.
const ROUNDS: u64 = 50;
/// Killed larders with real cargo.
const CARGO_ROUNDS: u64 = 2;

fn name(number: usize) -> String {
    format!("crash-{number:02}")
}

fn upstream() -> FakeUpstream {
    // Slow enough that a transfer has a middle.
    let upstream = FakeUpstream::builder().bandwidth(20_000_000).start();
    for number in 0..CRATES {
        upstream.publish(Crate::new(&name(number), "1.0.0").padding(1_000 + 997 * number));
    }
    upstream
}

fn site(upstream: &FakeUpstream) -> Site {
    Site::new(env!("CARGO_BIN_EXE_larder"), &upstream.url())
}

/// A number below `limit`, another one in every round and run.
#[expect(
    clippy::print_stderr,
    reason = "shown only if the test fails, to those who look for the cause"
)]
fn random(round: u64, limit: usize) -> usize {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| u64::from(now.subsec_nanos()));
    let mixed = (nanos ^ round.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let number = usize::try_from(mixed).unwrap_or(0) % limit;
    eprintln!("round {round}: killed at moment {number}");
    number
}

/// Waits until upstream has been asked this often since the record began, or for long enough that it never will be.
fn wait_for_requests(upstream: &FakeUpstream, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while upstream.requests_for("") < count && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The paths of everything there is, with the body of each.
fn everything(upstream: &FakeUpstream) -> Vec<(String, Vec<u8>)> {
    let bodies = (0..CRATES).flat_map(|number| {
        let name = name(number);
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

/// Only the living process has a folder in staging.
#[track_caller]
fn assert_nothing_staged_by_the_dead(store: &Path) {
    let staging = fs::read_dir(store.join("v1/staging")).expect("there is a staging folder");
    let folders: Vec<_> = staging.flatten().map(|entry| entry.path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
}

/// Fetches everything, several at a time, until larder is killed; what came completely must be right.
fn fetch_until_killed(larder: Larder<'_>, everything: &[(String, Vec<u8>)], kill: impl FnOnce()) {
    let http = larder.http().patience(Duration::from_secs(10));
    std::thread::scope(|scope| {
        for part in everything.chunks(everything.len().div_ceil(8)) {
            let http = &http;
            scope.spawn(move || {
                for (path, body) in part {
                    // No answer, and half an answer, are what a client of a killed server gets.
                    let Ok(reply) = http.try_get(path, &[]) else {
                        return;
                    };
                    if reply.complete {
                        assert_eq!((reply.status, &reply.body), (200, body), "{path}");
                    } else {
                        assert!(body.starts_with(&reply.body), "{path}: wrong beginning");
                    }
                }
            });
        }
        kill();
        larder.kill();
    });
}

#[test]
fn after_sigkill_every_byte_served_is_right_and_staging_is_swept() {
    let upstream = upstream();
    let everything = everything(&upstream);
    let mut kept = 0;
    for round in 0..ROUNDS {
        let site = site(&upstream);
        upstream.forget_requests();
        fetch_until_killed(site.serve(&[]), &everything, || {
            // After all requests there are, moments in which the last of it is being stored.
            let moment = random(round, 3 * CRATES);
            wait_for_requests(&upstream, moment.min(2 * CRATES));
            let beyond = moment.saturating_sub(2 * CRATES);
            std::thread::sleep(Duration::from_millis(10 * beyond as u64));
        });

        // In half of the rounds nothing can be fetched anew: what is served then is what the dead one left.
        let is_offline = round % 2 == 0;
        let larder = site.serve(if is_offline { &["--offline"] } else { &[] });
        assert_nothing_staged_by_the_dead(site.store());
        let mut served = 0;
        let mut connection = larder.http().connect().expect("larder accepts connections");
        for (path, body) in &everything {
            let reply = connection.get(path, &[]).expect("there is an answer");
            assert!(reply.complete, "round {round}: {path}");
            if is_offline && reply.status == 424 {
                continue;
            }
            assert_eq!(
                (reply.status, &reply.body),
                (200, body),
                "round {round}: {path}"
            );
            served += 1;
        }
        if is_offline {
            kept += served;
        } else {
            assert_eq!(served, everything.len());
        }
        let log = larder.stop();
        assert!(!log.contains("damaged"), "round {round}: {log}");
    }
    assert!(kept > 0, "nothing survived any kill: they came too early");
}

#[test]
fn cargo_rides_out_a_killed_larder_that_is_started_again() {
    let upstream = upstream();
    for round in 0..CARGO_ROUNDS {
        let site = site(&upstream);
        let mut project = Project::new();
        for number in 0..CRATES {
            project = project.dep(&name(number), "1");
        }
        let larder = site.serve(&[]);
        let url = larder.url().to_owned();
        upstream.forget_requests();
        std::thread::scope(|scope| {
            let cargo = scope.spawn(|| {
                let home = CargoHome::new().variable("CARGO_NET_RETRY", "10");
                let run = home.run(&project, &["fetch"], &url);
                run.assert_success();
            });
            wait_for_requests(&upstream, 1 + random(round, 2 * CRATES));
            larder.kill();
            let authority = url.trim_start_matches("http://").trim_end_matches('/');
            let larder = site.serve_at(authority, &[]);
            assert_nothing_staged_by_the_dead(site.store());
            cargo.join().expect("cargo succeeds in the end");
            let log = larder.stop();
            assert!(!log.contains("damaged"), "round {round}: {log}");
        });
    }
}
