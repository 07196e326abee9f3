//! The scrub of the daemon: it finds rot before a client asks, and shows its last pass.

use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;

use crate::fixture::site;
use testkit::larder::Larder;
use testkit::lock_file::locked_project;
use testkit::paths::download;
use testkit::process::wait_until;
use testkit::store::{blob_path, entry_file};

/// A pass every second, as fast as the disk. Keep-warm would find the damage of a pinned crate, too.
const OFTEN: [&str; 6] = [
    "--scrub-interval",
    "1s",
    "--scrub-rate",
    "1000",
    "--keep-warm",
    "false",
];

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn scrub(larder: &Larder<'_>) -> Value {
    larder.status()["scrub"].clone()
}

#[test]
fn the_scrub_finds_rot_before_a_client_asks_and_fetches_what_a_pin_needs() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let pinned = upstream.publish(Crate::new("pinned", "1.0.0").padding(300_000));
    let other = upstream.publish(Crate::new("other", "1.0.0"));
    let project = locked_project(&upstream, &["pinned"]);
    let warmed = site.command(&["warm", &project.path().display().to_string()]);
    assert!(warmed.status.success(), "{warmed:?}");
    let larder = site.serve(&OFTEN);
    assert!(larder.get(&download("other", "1.0.0")).complete);
    larder.wait_until_idle();
    wait_until("a pass ends", || scrub(&larder)["last_pass"].is_string());
    assert_eq!(scrub(&larder)["damaged"], 0);

    flip_a_byte(&blob_path(&site, &pinned));
    flip_a_byte(&blob_path(&site, &other));
    flip_a_byte(&entry_file(&site, "pinned"));
    upstream.forget_requests();
    let body = upstream.body("pinned", "1.0.0");
    wait_until("the pinned crate is fetched again", || {
        fs::read(blob_path(&site, &pinned)).is_ok_and(|bytes| bytes == body)
    });
    let quarantine = site.store().join("v1/quarantine/blobs");
    wait_until("the other crate is in the quarantine", || {
        quarantine.join(&other[..2]).join(&other[2..]).exists()
    });
    wait_until("the index entry is fetched again", || {
        larder.log().matches("it was fetched again").count() == 2
    });
    let ended = scrub(&larder)["last_pass"].clone();
    wait_until("a later pass finds nothing", || {
        let scrub = scrub(&larder);
        scrub["damaged"] == 0 && scrub["last_pass"] != ended
    });
    assert_eq!(upstream.requests_for("/dl/other"), 0, "no pin needs it");
    assert!(!blob_path(&site, &other).exists());
    let log = larder.log();
    assert_eq!(log.matches("it was fetched again").count(), 2, "{log}");
    assert_eq!(log.matches("a stored file is damaged").count(), 1, "{log}");
    let metrics = larder.get("/-/metrics").text();
    assert!(
        metrics.contains("\nlarder_scrub_last_pass_timestamp_seconds 1"),
        "{metrics}"
    );
    let status = site.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("scrub     checked all files until "),
        "{status}"
    );
}

#[test]
fn an_interrupted_scrub_goes_on_after_a_restart_and_can_be_switched_off() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["--scrub-rate", "0"]);
    for number in 0..8 {
        let name = format!("left{number}");
        upstream.publish(Crate::new(&name, "1.0.0").padding(1_000_000));
        assert!(larder.get(&download(&name, "1.0.0")).complete);
    }
    larder.wait_until_idle();
    assert!(scrub(&larder).is_null());
    larder.stop();
    // As if a daemon had stopped between the blobs and the entries.
    let state = serde_json::json!({
        "position": "blobs/ff",
        "current": { "files": 100, "bytes": 1, "damaged": 0, "fetched": 0 },
    });
    let file = site.store().join("v1/scrub.json");
    fs::write(&file, state.to_string()).unwrap();
    let read = || fs::read_to_string(&file).unwrap_or_default();
    let larder = site.serve(&["--scrub-interval", "2s", "--scrub-rate", "1000"]);
    wait_until("the pass ends", || read().contains("\"last_pass\":{"));
    let state: Value = serde_json::from_str(&read()).unwrap();
    // The eight index entries and the registry's configuration.
    assert_eq!(state["last_pass"]["files"], 100 + 9, "{state}");
    assert!(state["position"].is_null(), "{state}");
    larder.stop();
}
