//! `larder gc`: what it removes, in which order, and what it never removes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault, Toolchain};
use serde_json::Value;

use crate::fixture::site;
use crate::warm_toolchains::{released, rustup, serve_offline};
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::lock_file::locked_project;
use testkit::paths::{download, entry};
use testkit::rustup::Rustup;
use testkit::store::{blob_path, blobs, entry_file, files};

/// The report of `larder gc --json` with these flags.
#[track_caller]
pub(crate) fn gc(site: &Site, flags: &[&str]) -> Value {
    let output = site.command(&[&["gc", "--json"], flags].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The names of what a report says was removed.
pub(crate) fn removed(report: &Value) -> Vec<String> {
    let removed = report["removed"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    removed
        .map(|one| text(&one["what"]).unwrap_or_else(|| text(&one["file"]).unwrap()))
        .collect()
}

/// Publishes crates of 100 kB.
pub(crate) fn publish(upstream: &FakeUpstream, names: &[&str]) {
    for name in names {
        upstream.publish(Crate::new(name, "1.0.0").padding(100_000));
    }
}

/// Gets crates one after the other, in this order of use.
pub(crate) fn fetch(site: &Site, names: &[&str]) {
    let larder = site.serve(&[]);
    for name in names {
        assert!(larder.get(&download(name, "1.0.0")).complete, "{name}");
        larder.wait_until_idle();
    }
    larder.stop();
}

#[test]
fn a_warmed_project_survives_gc_to_size_one_and_builds_offline() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["deep", "other"]);
    upstream.publish(Crate::new("near", "1.0.0").dep("deep", "1"));
    upstream.publish(Crate::new("near", "0.9.0"));
    let site = site(&upstream);
    let project = Project::empty().dep("near", "1");
    let larder = site.serve(&[]);
    let home = CargoHome::empty();
    let run = home.run(&project, &["generate-lockfile"], larder.url());
    run.assert_success();
    larder.wait_until_idle();
    larder.stop();
    fetch(&site, &["other", "deep"]);
    let warmed = site.command(&["warm", &project.folder().display().to_string()]);
    assert!(warmed.status.success(), "{warmed:?}");
    let report = gc(&site, &["--max-size", "1B"]);
    let names = removed(&report);
    assert_eq!(names, ["index entry of `other`", "crate `other 1.0.0`"]);
    assert!(report["pinned"].as_u64().unwrap() > 100_000, "{report}");
    assert!(!entry_file(&site, "other").exists());
    assert!(!blob_path(&site, &upstream.checksum("other", "1.0.0")).exists());
    assert_eq!(blobs(&site).len(), 2);

    let output = site.command(&["gc", "--max-size", "1B"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let line = "warmed projects and toolchains alone take ";
    assert!(
        said.contains(line) && said.contains("more than max-size 1 B"),
        "{said}"
    );
    let checked = site.command(&["check", &project.folder().display().to_string()]);
    assert!(checked.status.success(), "{checked:?}");
    upstream.stop();
    let larder = site.serve(&["--offline"]);
    let build = CargoHome::empty().run(&project, &["build", "--locked"], larder.url());
    build.assert_success();
    // A resolve without the lock file needs the index entries too.
    fs::remove_file(project.folder().join("Cargo.lock")).unwrap();
    let build = CargoHome::empty().run(&project, &["build"], larder.url());
    build.assert_success();
}

#[test]
fn unpinned_crates_go_the_longest_unused_first() {
    let upstream = FakeUpstream::start();
    let names = ["one", "two", "three", "four"];
    publish(&upstream, &names);
    let site = site(&upstream);
    fetch(&site, &names);
    // Used again, by a daemon that has stopped.
    fetch(&site, &["one", "three"]);
    let report = gc(&site, &["--dry-run", "--max-size", "1B"]);
    let order = removed(&report);
    let crates: Vec<_> = order
        .iter()
        .filter(|name| name.starts_with("crate"))
        .collect();
    let expected = ["two", "four", "one", "three"].map(|name| format!("crate `{name} 1.0.0`"));
    assert_eq!(crates, expected.iter().collect::<Vec<_>>());
    assert_eq!(blobs(&site).len(), 4, "a dry run removes nothing");
    let size = report["size_before"].as_u64().unwrap();
    let limit = format!("{}B", size - 150_000);
    let report = gc(&site, &["--max-size", &limit]);
    assert!(
        report["size_after"].as_u64().unwrap() <= size - 150_000,
        "{report}"
    );
    let left: BTreeSet<_> = blobs(&site).into_iter().collect();
    let expected = ["one", "three"].map(|name| blob_path(&site, &upstream.checksum(name, "1.0.0")));
    assert_eq!(left, BTreeSet::from(expected));
    // The index entry went before its crate.
    let order = removed(&report);
    let at = |text: &str| order.iter().position(|name| name == text);
    assert!(
        at("index entry of `two`") < at("crate `two 1.0.0`"),
        "{order:?}"
    );
    assert!(!entry_file(&site, "two").exists() && entry_file(&site, "one").exists());
}

#[test]
fn without_the_file_of_last_uses_the_longest_stored_go_first() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two"]);
    let site = site(&upstream);
    fetch(&site, &["one", "two"]);
    fetch(&site, &["one"]);
    fs::write(site.store().join("v1/last-use"), "rubbish").unwrap();
    let order = removed(&gc(&site, &["--dry-run", "--max-size", "1B"]));
    let at = |text: &str| order.iter().position(|name| name == text);
    assert!(
        at("crate `one 1.0.0`") < at("crate `two 1.0.0`"),
        "{order:?}"
    );
}

#[test]
fn older_than_removes_what_was_not_used_for_that_long() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["old", "new"]);
    let site = site(&upstream);
    fetch(&site, &["old"]);
    let used = Instant::now();
    // Longer than the last command needs to start, since it measures both ages then. The time of a last use cannot be
    // set back: a file's own time of change counts, too.
    std::thread::sleep(Duration::from_millis(1500));
    fetch(&site, &["new"]);
    assert!(removed(&gc(&site, &["--older-than", "1h"])).is_empty());
    let age = format!("{}ms", used.elapsed().as_millis());
    let report = gc(&site, &["--older-than", &age]);
    let names = removed(&report);
    assert!(names.contains(&"crate `old 1.0.0`".to_owned()), "{names:?}");
    assert!(
        !names.contains(&"crate `new 1.0.0`".to_owned()),
        "{names:?}"
    );
    assert_eq!(blobs(&site).len(), 1);
}

#[test]
fn gc_without_a_limit_removes_nothing_and_names_the_flags() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one"]);
    let site = site(&upstream);
    fetch(&site, &["one"]);
    let output = site.command(&["gc"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("removed 0 files") && said.contains("--older-than"),
        "{said}"
    );
    assert_eq!(blobs(&site).len(), 1);
}

#[test]
fn removed_files_are_misses_for_a_running_daemon_and_never_errors() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("small", "1.0.0"));
    publish(&upstream, &["one"]);
    upstream.publish(Crate::new("large", "1.0.0").padding(3_000_000));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let names = ["small", "one", "large"];
    let get = |name: &str| {
        let reply = larder.get(&download(name, "1.0.0"));
        assert_eq!((reply.status, reply.complete), (200, true), "{name}");
        assert!(reply.body == upstream.body(name, "1.0.0"), "{name}");
        let reply = larder.get(&entry(name));
        assert_eq!(reply.body, upstream.index_body(name), "{name}");
    };
    for _ in 0..3 {
        for name in names {
            get(name);
        }
        larder.wait_until_idle();
    }
    for round in 1..3 {
        let report = gc(&site, &["--max-size", "1B"]);
        assert_eq!(blobs(&site).len(), 0, "{report}");
        upstream.forget_requests();
        for name in names {
            get(name);
        }
        larder.wait_until_idle();
        assert_eq!(upstream.requests_for("/dl/"), 3, "{round}");
        assert_eq!(blobs(&site).len(), 3);
    }
    let log = larder.stop();
    assert!(!log.contains("damaged") && !log.contains("ERROR"), "{log}");
}

#[test]
fn gc_while_a_client_downloads_cuts_nothing() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["idle"]);
    upstream.publish(Crate::new("large", "1.0.0").padding(9_000_000));
    upstream.publish(Crate::new("slow", "1.0.0").padding(800_000));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for name in ["idle", "large"] {
        assert!(larder.get(&download(name, "1.0.0")).complete);
    }
    larder.wait_until_idle();
    // One client reads a stored crate slowly, another one waits for a download.
    let mut reading = larder.http().connect().unwrap();
    reading
        .send("GET", &download("large", "1.0.0"), &[])
        .unwrap();
    reading.wait_for_answer().unwrap();
    upstream.fault(
        "/dl/slow",
        Fault::Drip {
            bytes_per_second: 400_000,
        },
    );
    let mut arriving = larder.http().connect().unwrap();
    arriving
        .send("GET", &download("slow", "1.0.0"), &[])
        .unwrap();
    arriving.wait_for_answer().unwrap();
    let report = gc(&site, &["--max-size", "1B"]);
    let names = removed(&report);
    assert!(
        names.contains(&"crate `idle 1.0.0`".to_owned()),
        "{names:?}"
    );
    assert!(
        blob_path(&site, &upstream.checksum("large", "1.0.0")).exists(),
        "{report}"
    );
    assert!(report["in_use"].as_u64().unwrap() >= 1, "{report}");
    for (mut client, name) in [(reading, "large"), (arriving, "slow")] {
        let reply = client.receive().unwrap();
        assert!(
            reply.complete && reply.body == upstream.body(name, "1.0.0"),
            "{name}"
        );
    }
    larder.wait_until_idle();
    assert!(blob_path(&site, &upstream.checksum("slow", "1.0.0")).exists());
}

#[test]
fn what_a_running_warm_has_stored_stays_until_it_is_pinned() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["other", "known", "last"]);
    let first = upstream.publish(Crate::new("first", "1.0.0").padding(100_000));
    let site = site(&upstream);
    fetch(&site, &["other"]);
    let project = locked_project(&upstream, &["first", "last"]);
    let gate = upstream.gate("/dl/last");
    let warm = site.spawn(&["warm", &project.path().display().to_string()]);
    gate.wait_for(1);
    testkit::process::wait_until("the first crate is stored", || {
        blob_path(&site, &first).exists()
    });
    let report = gc(&site, &["--max-size", "1B"]);
    let names = removed(&report);
    assert!(
        names.contains(&"crate `other 1.0.0`".to_owned()),
        "{names:?}"
    );
    assert!(blob_path(&site, &first).exists(), "{report}");
    gate.open();
    let output = warm.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(removed(&gc(&site, &["--max-size", "1B"])).is_empty());
}

/// Deletes the pin of this owner by hand.
fn delete_pin(site: &Site, owner: &str) {
    for (path, text) in files(&site.store().join("v1/projects")) {
        if String::from_utf8_lossy(&text).contains(owner) {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn keep_last_removes_older_releases_and_keeps_the_newest_and_pinned_ones() {
    let upstream = released(&[]);
    let site = site(&upstream);
    for day in ["2026-01-01", "2026-01-02", "2026-01-03"] {
        upstream.release(&Toolchain::new("nightly", "1.96.0-nightly").date(day));
        let name = format!("nightly-{day}");
        let flags = ["--profile", "minimal", "--dist-server", upstream.base_url()];
        let warmed = site.command(&[&["warm", "--toolchain", &name], &flags[..]].concat());
        assert!(warmed.status.success(), "{warmed:?}");
    }
    for day in ["2026-01-02", "2026-01-03"] {
        delete_pin(&site, &format!("nightly-{day}"));
    }
    let report = gc(&site, &["--keep-last-nightlies", "1"]);
    let names = removed(&report);
    assert!(!names.is_empty(), "{report}");
    assert!(
        names.iter().all(|name| name.contains("2026-01-02")),
        "{names:?}"
    );
    // A limit of size takes the newest one too, which no pin needs.
    let report = gc(&site, &["--max-size", "1B"]);
    assert!(
        removed(&report)
            .iter()
            .any(|name| name.contains("2026-01-03")),
        "{report}"
    );
    let checked = site.command(&[
        "check",
        "--toolchain",
        "nightly-2026-01-01",
        "--profile",
        "minimal",
    ]);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_warmed_toolchain_survives_gc_to_size_one_and_rustup_installs_it_offline() {
    let stable = Toolchain::new("stable", "1.95.0").date("2026-04-16");
    let upstream = released(&[&stable]);
    let site = site(&upstream);
    publish(&upstream, &["other"]);
    fetch(&site, &["other"]);
    let server = ["--dist-server", upstream.base_url()];
    let warm = ["warm", "--toolchain", "stable", "--profile", "minimal"];
    let warmed = site.command(&[&warm[..], &server].concat());
    assert!(warmed.status.success(), "{warmed:?}");
    let names = removed(&gc(&site, &["--max-size", "1B"]));
    assert_eq!(names, ["index entry of `other`", "crate `other 1.0.0`"]);
    let why = site.command(&["status", "--why", "rustc", "1.95.0"]);
    let text = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(
        text.contains("rustc-1.95.0") && text.contains("needed by toolchain stable"),
        "{text}"
    );
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup(&Rustup::without_toolchain(), &larder, &install);
    larder.stop();
    // Without its pin, all of it goes, the manifest first.
    let forgotten = site.command(&["forget", "stable"]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    let names = removed(&gc(&site, &["--max-size", "1B"]));
    let place = |part: &str| names.iter().position(|name| name.contains(part));
    assert!(place("manifest") < place("rustc-1.95.0"), "{names:?}");
    assert_eq!(blobs(&site).len(), 0, "{names:?}");
}

#[test]
fn a_quarantine_counts_in_the_size_and_gc_reports_what_it_removes() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one"]);
    let site = site(&upstream);
    fetch(&site, &["one"]);
    let size = |site: &Site| gc(site, &["--dry-run"])["size_before"].as_u64().unwrap();
    let before = size(&site);
    let quarantine = site.store().join("v1/quarantine/blobs/ab");
    fs::create_dir_all(&quarantine).unwrap();
    fs::write(quarantine.join("cd"), vec![1; 200_000]).unwrap();
    assert!(size(&site) >= before + 200_000);
    let status = site.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("quarantine 1 damaged file"), "{status}");
    assert!(Path::new(&quarantine.join("cd")).exists());
}
