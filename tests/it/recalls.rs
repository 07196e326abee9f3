//! Upstream removes versions, yanks them, or changes their checksums after larder has stored them.

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, entry_path};
use serde_json::Value;

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::paths::{download, entry};

/// Every request asks upstream.
const NEVER_FRESH: [&str; 2] = ["--max-age", "0s"];

/// A project whose lock file names the newest `left`, warmed.
fn warmed(upstream: &FakeUpstream, site: &Site) -> Project {
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    warm(site, &project, &[]);
    project
}

fn warm(site: &Site, project: &Project, more: &[&str]) {
    let folder = project.folder().display().to_string();
    let output = site.command(&[&["warm", &folder], more].concat());
    assert!(output.status.success(), "{output:?}");
}

fn status(site: &Site, arguments: &[&str]) -> String {
    let output = site.command(&[&["status"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Another archive of the same version, with its line in the index, as a compromised registry would publish it.
fn rewrite(upstream: &FakeUpstream, name: &str, version: &str) -> String {
    let first = upstream.checksum(name, version);
    let body = String::from_utf8(upstream.index_body(name).to_vec()).unwrap();
    let other = Crate::new(name, version).file("src/lib.rs", "pub fn evil() {}");
    let sum = upstream.publish_archive(&other);
    assert_ne!(sum, first);
    upstream.set_index(name, body.replace(&first, &sum));
    sum
}

#[test]
fn a_changed_checksum_is_refused_and_the_first_bytes_stay_served() {
    let upstream = FakeUpstream::start();
    let first = upstream.publish(Crate::new("left", "1.0.0"));
    let bytes = upstream.body("left", "1.0.0");
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    let second = rewrite(&upstream, "left", "1.0.0");
    upstream.publish(Crate::new("left", "1.1.0"));
    let larder = site.serve(&NEVER_FRESH);
    upstream.forget_requests();
    for _ in 0..2 {
        let body = larder.get(&entry("left")).text();
        assert!(body.contains(&first) && !body.contains(&second), "{body}");
        assert!(body.contains("1.1.0"), "new versions are listed: {body}");
        larder.wait_until_idle();
    }
    assert_eq!(
        upstream.requests_for(&entry_path("left")),
        3,
        "asked again once"
    );
    CargoHome::empty()
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
    assert_eq!(larder.get(&download("left", "1.0.0")).body, bytes);
    let refused = larder.get(&format!("/crates/left/1.0.0/{second}/download"));
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("changed its checksum"),
        "{}",
        refused.text()
    );
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 0);

    let log = larder.log();
    assert_eq!(
        log.matches("other checksums than before").count(),
        1,
        "{log}"
    );
    let metrics = larder.get("/-/metrics").text();
    assert!(
        metrics.contains("larder_recalled_versions{kind=\"checksum\"} 1"),
        "{metrics}"
    );
    assert_eq!(larder.status()["recalls"]["checksum"], 1);
    assert_eq!(larder.request_count("refused"), 1);
    larder.stop();
    let text = status(&site, &[]);
    assert!(
        text.contains(
            "trouble   left 1.0.0 has another checksum upstream, which is refused (since "
        ),
        "{text}"
    );
    let json: Value = serde_json::from_str(&status(&site, &["--json"])).unwrap();
    let recall = &json["recalls"][0];
    assert_eq!(
        (&recall["kind"], &recall["was"]),
        (&"checksum".into(), &Value::from(first))
    );
    assert_eq!(recall["now"], Value::from(second));
    let lock = project.folder().join("Cargo.lock").display().to_string();
    assert_eq!(recall["locked_by"][0], Value::from(lock));
    // `warm` and `check` believe the first checksum, too, as the lock file does.
    warm(&site, &project, &["--refresh"]);
    let folder = project.folder().display().to_string();
    let check = site.command(&["check", "--verify", &folder]);
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn a_checksum_that_was_wrong_in_one_answer_is_no_recall() {
    let upstream = FakeUpstream::start();
    let first = upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&NEVER_FRESH);
    larder.get(&entry("left"));
    larder.wait_until_idle();
    let body = String::from_utf8(upstream.index_body("left").to_vec()).unwrap();
    let wrong = body.replace(&first, &"e".repeat(64));
    let fault = Fault::StatusWithBody(200, wrong);
    upstream.fault_times(&entry_path("left"), 1, fault);
    assert_eq!(larder.get(&entry("left")).text(), body);
    larder.wait_for_log("it was asked again");
    assert_eq!(larder.status()["recalls"]["checksum"], 0);
}

#[test]
fn a_removed_version_that_a_pin_locks_stays_served_and_is_not_chosen_anew() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let shorter = upstream.index_body("left");
    upstream.publish(Crate::new("left", "1.1.0"));
    let longer = upstream.index_body("left");
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    assert!(project.lock().contains("1.1.0"));
    upstream.set_index("left", shorter.clone());
    let larder = site.serve(&NEVER_FRESH);
    for _ in 0..2 {
        CargoHome::empty()
            .run(&project, &["build", "--locked"], larder.url())
            .assert_success();
        larder.wait_until_idle();
    }
    let other = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&other, &["generate-lockfile"], larder.url())
        .assert_success();
    assert!(!other.lock().contains("1.1.0"), "{}", other.lock());
    let log = larder.log();
    assert_eq!(
        log.matches("upstream has recalled versions").count(),
        1,
        "{log}"
    );
    assert!(log.contains("locked=1.1.0"), "{log}");
    let text = status(&site, &[]);
    assert!(
        text.contains("trouble   left 1.1.0 was removed upstream, and is still served for /"),
        "{text}"
    );
    // The project is ready, and its user is told.
    let folder = project.folder().display().to_string();
    let check = site.command(&["check", &folder]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}");
    let line = said.lines().find(|line| line.starts_with("recalled"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("left 1.1.0 since") && line.contains("removed") && line.contains(&folder),
        "{line}"
    );
    let check = site.command(&["check", "--json", &folder]);
    let json: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(json["recalls"][0]["kind"], "removed", "{json:#}");
    let check = site.command(&["check", &other.folder().display().to_string()]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!said.contains("recalled"), "another version: {said}");
    // A later release of upstream keeps it, too.
    upstream.publish(Crate::new("left", "1.2.0"));
    CargoHome::empty()
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
    larder.wait_until_idle();
    upstream.set_index("left", longer);
    larder.get(&entry("left"));
    larder.wait_for_log("has taken back a recall");
}

#[test]
fn a_yank_is_recorded_once_and_over_when_upstream_takes_it_back() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let before = upstream.index_body("left");
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    upstream.yank("left", "1.0.0");
    let larder = site.serve(&NEVER_FRESH);
    for _ in 0..2 {
        CargoHome::empty()
            .run(&project, &["build", "--locked"], larder.url())
            .assert_success();
        larder.wait_until_idle();
    }
    let log = larder.log();
    assert_eq!(
        log.matches("upstream has yanked versions").count(),
        1,
        "{log}"
    );
    assert_eq!(larder.status()["recalls"]["yanked"], 1);
    let text = status(&site, &[]);
    assert!(
        text.contains("left 1.0.0 was yanked upstream, and is still served for /"),
        "{text}"
    );
    upstream.set_index("left", before);
    larder.get(&entry("left"));
    larder.wait_for_log("has taken back a recall");
    assert_eq!(larder.status()["recalls"]["yanked"], 0);
}

#[test]
fn forgetting_a_version_makes_larder_believe_upstream_again() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&NEVER_FRESH);
    larder.get(&entry("left"));
    larder.get(&download("left", "1.0.0"));
    larder.wait_until_idle();
    let second = rewrite(&upstream, "left", "1.0.0");
    larder.get(&entry("left"));
    larder.stop();
    assert!(status(&site, &[]).contains("another checksum"));
    let output = site.command(&["forget", "left", "1.0.0"]);
    assert!(output.status.success(), "{output:?}");
    let larder = site.serve(&NEVER_FRESH);
    assert!(larder.get(&entry("left")).text().contains(&second));
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    let text = status(&site, &[]);
    assert!(
        !text.contains("another checksum") && !text.contains("recalled"),
        "{text}"
    );
}
