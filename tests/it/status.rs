//! `larder status` and `larder list`: what the page for browsers shows, on a terminal and in files.

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::paths::{download, entry};
use testkit::store::blob_path;

use crate::fixture::site;
use crate::page::warmed;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let output = site.command(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The words before a project in `larder status`, and those in `larder list`.
fn states(site: &Site, owner: &str) -> (String, String) {
    let (status, list) = (
        text(&site.command(&["status"])),
        text(&site.command(&["list"])),
    );
    let state = |text: &str, end: &str| {
        let line = text.lines().find(|line| line.contains(owner));
        let line = line.unwrap_or_else(|| panic!("no {owner} in\n{text}"));
        let words = &line[..line.find(end).unwrap()];
        words.trim().to_owned()
    };
    (state(&status, owner), state(&list, "  project"))
}

#[test]
fn status_shows_the_daemon_upstream_projects_requests_and_bytes_of_a_running_daemon() {
    let upstream = FakeUpstream::start();
    let (site, project) = warmed(&upstream);
    let larder = site.serve(&[]);
    for path in [
        entry("left"),
        download("left", "1.1.0"),
        download("left", "1.0.0"),
    ] {
        assert_eq!(larder.get(&path).status, 200);
    }
    larder.wait_until_idle();
    let status = text(&site.command(&["status"]));
    let lock = project.folder().join("Cargo.lock").display().to_string();
    for line in [
        &format!(
            "daemon    running at {}, process {}, since ",
            larder.url(),
            larder.process_id()
        ),
        "upstream  no upstream is known to be down",
        "projects  1 ready\n",
        &format!("          ready      {lock}  (2 packages)\n"),
        "requests  last hour  2 from the store, 1 fetched, 0 stale, 0 failed",
        "          last day   2 from the store, 1 fetched, 0 stale, 0 failed",
        "saved     ",
        "clients   settings to copy: `larder client print`; ",
    ] {
        assert!(status.contains(line), "no `{line}` in\n{status}");
    }
    assert!(
        !status.contains('\x1b') && !status.contains('█'),
        "{status}"
    );
    let document = json(&site, &["status"]);
    assert_eq!(document["readiness"][0]["state"], "ready", "{document:#}");
    assert_eq!(document["trouble"], Value::Array(Vec::new()));
    let answers = &document["daemon"]["status"]["answers"];
    assert_eq!(answers["last_hour"]["hits"], 2, "{document:#}");
    assert_eq!(
        answers["last_day"]["bars"].as_array().map(Vec::len),
        Some(60)
    );
}

#[test]
fn times_are_in_the_users_time_zone_and_in_utc_for_programs() {
    let upstream = FakeUpstream::start();
    // Five and a half hours before UTC, on the other side of midnight for most of the day.
    let site = site(&upstream).variable("TZ", "XYZ5:30");
    let larder = site.serve(&[]);
    let started = larder.status()["started"].as_str().unwrap().to_owned();
    let minutes = |hours: &str, minutes: &str| -> u32 {
        hours.parse::<u32>().unwrap() * 60 + minutes.parse::<u32>().unwrap()
    };
    let utc = minutes(&started[11..13], &started[14..16]);
    let status = text(&site.command(&["status"]));
    let (_, since) = status.split_once(", since ").unwrap();
    // A test at midnight has the day in front.
    let time = since.lines().next().unwrap().rsplit(' ').next().unwrap();
    let local = minutes(&time[..2], &time[3..]);
    assert_eq!(
        (local + 5 * 60 + 30) % (24 * 60),
        utc,
        "{status}\n{started}"
    );
}

#[test]
fn nothing_is_called_ready_that_check_does_not_call_ready() {
    let upstream = FakeUpstream::start();
    let (site, project) = warmed(&upstream);
    let owner = project.folder().join("Cargo.lock").display().to_string();
    let folder = project.folder().display().to_string();
    let both = |word: &str| (word.to_owned(), word.to_owned());
    assert_eq!(states(&site, &owner), both("ready"));

    // All that was warmed is stored, but the lock file no longer fits the manifest.
    let manifest = project.folder().join("Cargo.toml");
    let fits = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, fits.replace("right = \"1\"", "right = \"2\"")).unwrap();
    assert_eq!(site.command(&["check", &folder]).status.code(), Some(1));
    assert_eq!(states(&site, &owner), both("not ready"));
    let item = &json(&site, &["list"])["items"][0];
    assert_eq!(
        (&item["complete"], &item["state"]),
        (&true.into(), &"not-ready".into())
    );
    fs::write(&manifest, fits).unwrap();
    assert_eq!(states(&site, &owner), both("ready"));

    // A crate is missing.
    let sum = upstream.checksum("left", "1.1.0");
    fs::remove_file(blob_path(&site, &sum)).unwrap();
    assert_eq!(states(&site, &owner), both("not ready"));
    let status = text(&site.command(&["status"]));
    assert!(status.contains("missing: crate `left 1.1.0`"), "{status}");
    assert!(status.contains("not running"), "{status}");

    // Only cargo could tell: the lock file is not there any more.
    let warmed = site.command(&["warm", &folder]);
    assert!(warmed.status.success(), "{warmed:?}");
    fs::remove_file(&owner).unwrap();
    assert_eq!(states(&site, &owner), both("complete"));
}

#[test]
fn list_with_a_name_finds_projects_and_stored_crates() {
    let upstream = FakeUpstream::start();
    let (site, project) = warmed(&upstream);
    upstream.publish(Crate::new("leftover", "0.1.0"));
    let larder = site.serve(&[]);
    for path in [entry("leftover"), download("leftover", "0.1.0")] {
        assert_eq!(larder.get(&path).status, 200);
    }
    larder.wait_until_idle();
    let listed = text(&site.command(&["list", "Left"]));
    let lock = project.folder().join("Cargo.lock").display().to_string();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(
        lines[0].starts_with("stored     crate       left 1.1.0  ("),
        "{listed}"
    );
    assert_eq!(lines[1], format!("           needed by {lock}"));
    assert!(
        lines[2].starts_with("stored     crate       leftover 0.1.0  ("),
        "{listed}"
    );
    assert!(
        lines[2].ends_with(", no warmed project needs it)"),
        "{listed}"
    );
    let document = json(&site, &["list", "left"]);
    assert_eq!(document["crates"][0]["needed_by"][0], lock);
    assert_eq!(document["crates"][1]["version"], "0.1.0");

    let folder = project
        .folder()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let listed = text(&site.command(&["list", &folder]));
    assert!(listed.starts_with("ready      project     "), "{listed}");
    let none = site.command(&["list", "nothing-like-it"]);
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("`nothing-like-it`"), "{said}");
}

#[test]
fn a_project_that_was_warmed_for_one_target_is_ready_for_it() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("other", "1.0.0"));
    let toolchain = Path::new(env!("CARGO")).parent().unwrap();
    let site = site(&upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &toolchain.display().to_string());
    let project = Project::empty().dep("left", "1");
    let manifest = fs::read_to_string(project.folder().join("Cargo.toml")).unwrap();
    let windows = "\n[target.'cfg(windows)'.dependencies]\nother = \"1\"\n";
    project.write("Cargo.toml", &(manifest + windows));
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let folder = project.folder().display().to_string();
    let target = ["--target", "x86_64-unknown-linux-gnu"];
    let warmed = site.command(&[&["warm", &folder], &target[..]].concat());
    assert!(warmed.status.success(), "{warmed:?}");
    assert!(!blob_path(&site, &upstream.checksum("other", "1.0.0")).exists());
    let check = site.command(&[&["check", &folder], &target[..]].concat());
    assert!(check.status.success(), "{check:?}");
    let owner = project.folder().join("Cargo.lock").display().to_string();
    assert_eq!(states(&site, &owner).0, "ready");
}
