//! The log and the access log of the daemon: a build takes a line, an outage two, and the access log has each request.

use std::collections::BTreeSet;
use std::fs;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Larder;
use testkit::paths::{download, entry};
use testkit::process::wait_until;

use crate::fixture::{project_on_left, publish_pair, site};

/// Fetches a project on two crates with cargo in an empty home.
#[track_caller]
fn fetch(larder: &Larder<'_>, project: &Project) {
    let home = CargoHome::empty();
    home.run(project, &["fetch"], larder.url()).assert_success();
}

/// The messages of the log, without time and level.
fn lines(log: &str) -> Vec<&str> {
    let lines = log.lines();
    lines.filter_map(|line| line.get(34..)).collect()
}

#[test]
fn a_build_takes_one_line_of_the_log_with_its_hits_and_misses() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let project = project_on_left();
    fetch(&larder, &project);
    // Prefetched entries are hits.
    larder.wait_for_log("burst from 127.0.0.1: ");
    assert!(!larder.log().contains(" 4 hits"), "{}", larder.log());
    fetch(&larder, &project);
    larder.wait_for_log("burst from 127.0.0.1: 4 hits, 0 misses, ");
    // Pages about the daemon are no requests of a build.
    for _ in 0..3 {
        larder.get("/-/metrics");
    }
    let log = larder.stop();
    let expected = [
        "larder ",
        "burst from ",
        "burst from ",
        "stopping: ",
        "stopped",
    ];
    let lines = lines(&log);
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{log}");
    }
}

#[test]
fn an_outage_takes_a_line_when_it_begins_and_one_with_counts_when_it_ends() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "1s"]);
    let project = project_on_left();
    fetch(&larder, &project);
    upstream.stop();
    for _ in 0..2 {
        fetch(&larder, &project);
    }
    for name in ["missing-1", "missing-2", "missing-3"] {
        assert!(larder.get(&entry(name)).status >= 400);
    }
    upstream.restart();
    larder.wait_until_reachable();
    larder.wait_for_log("upstream is back after ");
    let log = larder.stop();
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("upstream is out of reach"), 1, "{log}");
    let back = log.lines().find(|line| line.contains("upstream is back"));
    assert!(back.unwrap().contains(" served_stale=4 failed=3"), "{log}");
    // One of the three is named, and the others are counted.
    assert_eq!(count("cannot fetch index entry of `missing-"), 2, "{log}");
    assert_eq!(count("repeated=2 within="), 1, "{log}");
    let warnings = log.lines().filter(|line| line.contains(" WARN "));
    assert!(warnings.count() <= 4, "{log}");
}

#[test]
fn requests_that_fail_offline_are_reported_once_with_their_number() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["--offline"]);
    for number in 0..20 {
        let reply = larder.get(&download(&format!("absent-{number}"), "1.0.0"));
        assert_eq!(reply.status, 424);
    }
    larder.wait_for_log("burst from 127.0.0.1: 0 hits, 0 misses, 20 failed, ");
    let log = larder.stop();
    let named = log.lines().filter(|line| line.contains("cannot serve "));
    let named: Vec<_> = named.collect();
    assert_eq!(named.len(), 2, "{log}");
    assert!(named[0].contains(" WARN cannot serve ") && named[0].contains("`absent-0"));
    assert!(named[1].contains(" repeated=19 "), "{log}");
}

#[test]
fn log_in_json_has_one_object_a_line_with_the_numbers_of_a_burst() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&["--log-format", "json", "--offline"]);
    assert_eq!(larder.get(&entry("left")).status, 424);
    larder.wait_for_log("burst from");
    let log = larder.stop();
    let objects = log.lines().map(serde_json::from_str::<Value>);
    let objects: Vec<_> = objects.map(Result::unwrap).collect();
    for object in &objects {
        assert!(
            object["time"].is_string() && object["level"].is_string(),
            "{object}"
        );
    }
    let find = |text| {
        objects
            .iter()
            .find(|it| it["message"].as_str().unwrap().contains(text))
    };
    let burst = find("burst from 127.0.0.1").unwrap();
    assert_eq!(
        (&burst["client"], &burst["failed"]),
        (&"127.0.0.1".into(), &1.into())
    );
    let failure = find("cannot serve").unwrap();
    assert_eq!(
        (&failure["level"], &failure["status"]),
        (&"WARN".into(), &424.into())
    );
}

#[test]
fn access_log_has_a_line_per_request_and_follows_a_moved_file() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (
        folder.path().join("access.log"),
        folder.path().join("moved"),
    );
    let shown = path.display().to_string();
    let larder = site.serve(&["--access-log", &shown]);
    fetch(&larder, &project_on_left());
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    wait_until("five requests are in the access log", || {
        read(&path).lines().count() == 5
    });
    for line in read(&path).lines() {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.contains("\"GET /") && line.contains(" 200 "), "{line}");
        assert!(
            line.ends_with('"') && line.contains("\"-\" \"cargo"),
            "{line}"
        );
    }
    fs::rename(&path, &moved).unwrap();
    wait_until("a new file is begun", || {
        larder.get(&entry("left"));
        read(&path).contains("/le/ft/left")
    });
    // The last lines are written at the end.
    larder.get(&entry("right"));
    larder.stop();
    assert!(read(&path).contains("/ri/gh/right"));
    assert!(read(&moved).lines().count() >= 5);
}

#[test]
fn access_log_in_json_tells_outcomes_of_hits_misses_and_failures() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let shown = site.store().with_extension("log").display().to_string();
    let arguments = ["--access-log", &shown, "--access-log-format", "json"];
    let larder = site.serve(&arguments);
    for path in [
        entry("left"),
        entry("left"),
        entry("absent"),
        "/nowhere".to_owned(),
    ] {
        larder.get(&path);
    }
    larder.stop();
    let log = fs::read_to_string(&shown).unwrap();
    let objects = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let outcomes = objects.map(|object| {
        assert_eq!(object["client"], "127.0.0.1");
        let outcome = object["outcome"].as_str().unwrap();
        (outcome.to_owned(), object["status"].as_u64().unwrap())
    });
    let outcomes: BTreeSet<_> = outcomes.collect();
    let expected = [("absent", 404), ("hit", 200), ("miss", 200), ("own", 404)];
    assert_eq!(
        outcomes,
        expected
            .map(|(text, status)| (text.to_owned(), status))
            .into()
    );
}

#[test]
fn access_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let output = site.command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--access-log",
        "/none/a",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("error: cannot open the access log /none/a: "),
        "{said}"
    );
}

#[test]
fn status_that_watches_repeats_itself_until_ctrl_c() {
    use std::io::{BufRead as _, BufReader};
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for path in [entry("left"), entry("left"), entry("right")] {
        assert_eq!(larder.get(&path).status, 200);
    }
    let mut status = site.spawn(&["status", "--watch"]);
    let mut lines = BufReader::new(status.stdout.take().unwrap()).lines();
    let mut stores = 0;
    let mut has_requests = false;
    while stores < 2 {
        let line = lines.next().unwrap().unwrap();
        assert!(!line.contains('\x1b'), "no terminal: {line:?}");
        stores += u32::from(line.starts_with("store     "));
        has_requests |=
            line.starts_with("requests  ") && line.contains(" fetched, 0 stale, 0 failed");
    }
    assert!(has_requests);
    testkit::process::signal(status.id(), "INT");
    assert!(status.wait().unwrap().success());
}
