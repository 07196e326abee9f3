//! `larder verify`, and `larder check` on a store whose files were damaged on the disk.

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::lock_file::locked_project;
use testkit::store::{blob_path, crates_io_folder, entry_file, files};

/// A warmed project that needs the crate `one 1.0.0`, and the crate's hash.
fn warmed(upstream: &FakeUpstream, site: &Site) -> (TempDir, String) {
    let sum = upstream.publish(Crate::new("one", "1.0.0"));
    let project = locked_project(upstream, &["one"]);
    let output = run(site, "warm", project.path(), &[]);
    assert!(output.status.success(), "{output:?}");
    (project, sum)
}

fn run(site: &Site, command: &str, project: &Path, flags: &[&str]) -> Output {
    let project = project.display().to_string();
    site.command(&[&[command, &project], flags].concat())
}

fn text(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|out| String::from_utf8_lossy(out));
    format!("{stdout}{stderr}")
}

/// Changes one byte near the end of a file: an entry begins with a description that its hash does not cover.
fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let near_the_end = bytes.len() - 5;
    bytes[near_the_end] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn verify_finds_a_flipped_byte_in_a_crate_and_warm_repairs_it() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let (project, sum) = warmed(&upstream, &site);
    let project = project.path();
    assert!(run(&site, "check", project, &["--verify"]).status.success());
    flip_a_byte(&blob_path(&site, &sum));

    let output = run(&site, "check", project, &["--verify"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output);
    assert!(
        said.contains("crate `one 1.0.0`: the stored copy is damaged"),
        "{said}"
    );
    assert!(said.contains("`larder warm`"), "{said}");
    // A check writes nothing, so the damaged file is still there.
    assert!(blob_path(&site, &sum).exists());

    assert!(run(&site, "warm", project, &[]).status.success());
    assert!(run(&site, "check", project, &["--verify"]).status.success());
}

#[test]
fn check_without_verify_sees_a_truncated_crate() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let (project, sum) = warmed(&upstream, &site);
    let blob = blob_path(&site, &sum);
    let bytes = fs::read(&blob).unwrap();
    fs::write(&blob, &bytes[..bytes.len() - 1]).unwrap();
    let output = run(&site, "check", project.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let readiness: Value = serde_json::from_slice(&output.stdout).unwrap();
    let missing = readiness["projects"][0]["missing"][0].as_str().unwrap();
    assert!(missing.contains("has another size"), "{missing}");
}

#[test]
fn check_without_verify_sees_a_truncated_crate_that_only_a_client_has_fetched() {
    let upstream = FakeUpstream::start();
    let sum = upstream.publish(Crate::new("one", "1.0.0"));
    let site = site(&upstream);
    let project = Project::empty().dep("one", "1");
    let larder = site.serve(&[]);
    let fetch = CargoHome::empty().run(&project, &["fetch"], larder.url());
    fetch.assert_success();
    larder.wait_until_idle();
    larder.stop();
    assert!(run(&site, "check", project.folder(), &[]).status.success());
    let blob = blob_path(&site, &sum);
    let bytes = fs::read(&blob).unwrap();
    fs::write(&blob, &bytes[..bytes.len() - 1]).unwrap();
    let output = run(&site, "check", project.folder(), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output);
    assert!(
        said.contains("crate `one 1.0.0`: the stored copy is damaged"),
        "{said}"
    );
}

#[test]
fn check_of_a_damaged_index_entry_does_not_claim_to_fetch_it() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let (project, _) = warmed(&upstream, &site);
    flip_a_byte(&entry_file(&site, "one"));
    let output = run(&site, "check", project.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output);
    assert!(said.contains("index entry of `one 1.0.0`"), "{said}");
    assert!(said.contains("damaged"), "{said}");
    assert!(!said.contains("fetching it again"), "{said}");
}

/// The document that `larder verify --json` prints.
fn verify(site: &Site, flags: &[&str]) -> (Option<i32>, Value) {
    let output = site.command(&[&["verify", "--json"], flags].concat());
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        report.unwrap_or_else(|_| panic!("{output:?}")),
    )
}

#[test]
fn verify_lists_good_and_damaged_files_and_changes_nothing() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let (_project, sum) = warmed(&upstream, &site);
    let (code, report) = verify(&site, &[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["bad"], serde_json::json!([]));
    let blob = format!("blobs/{}/{}", &sum[..2], &sum[2..]);
    let good = report["good"].as_array().unwrap();
    assert_eq!(report["files"], good.len());
    assert!(good.contains(&Value::from(blob.clone())), "{report}");

    flip_a_byte(&blob_path(&site, &sum));
    flip_a_byte(&entry_file(&site, "one"));
    let before = files(&site.store().join("v1"));
    upstream.forget_requests();
    let (code, report) = verify(&site, &[]);
    assert_eq!(code, Some(1), "{report}");
    let bad = report["bad"].as_array().unwrap();
    assert_eq!(bad.len(), 2, "{report}");
    assert!(bad.iter().any(|bad| bad["file"] == *blob), "{report}");
    let entry = bad.iter().find(|bad| bad["file"] != *blob).unwrap();
    assert_eq!(entry["what"], "index entry of `one`");
    assert_eq!(entry["repaired"], false);
    assert_eq!(files(&site.store().join("v1")), before);
    assert_eq!(upstream.requests().len(), 0);

    let output = site.command(&["verify"]);
    let said = text(&output);
    assert!(said.contains(&format!("damaged   {blob}")), "{said}");
    assert!(said.contains("larder verify --repair"), "{said}");
}

#[test]
fn verify_repair_moves_damaged_files_away_and_fetches_them_again() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let (project, sum) = warmed(&upstream, &site);
    let unknown = site.store().join("v1/blobs/00").join("0".repeat(62));
    fs::create_dir_all(unknown.parent().unwrap()).unwrap();
    fs::write(&unknown, "no entry names this").unwrap();
    let config = crates_io_folder(&site).join("config.json");
    for path in [&blob_path(&site, &sum), &entry_file(&site, "one"), &config] {
        flip_a_byte(path);
    }
    let rotten = fs::read(blob_path(&site, &sum)).unwrap();
    let (code, report) = verify(&site, &["--repair"]);
    assert_eq!(code, Some(1), "{report}");
    for bad in report["bad"].as_array().unwrap() {
        let is_unknown = bad["what"].is_null();
        assert_eq!(bad["repaired"], !is_unknown, "{report}");
        assert!(
            Path::new(bad["quarantined"].as_str().unwrap()).is_file(),
            "{report}"
        );
        assert_eq!(bad["failure"].is_null(), !is_unknown, "{report}");
    }
    assert_eq!(report["bad"].as_array().unwrap().len(), 4, "{report}");
    let blob = blob_path(&site, &sum);
    let kept = blob.strip_prefix(site.store().join("v1")).unwrap();
    let kept = site.store().join("v1/quarantine").join(kept);
    assert!(fs::read(kept).unwrap() == rotten);
    assert!(fs::read(&blob).unwrap() == upstream.body("one", "1.0.0"));
    assert!(!unknown.exists());
    let (code, report) = verify(&site, &["--repair"]);
    assert_eq!(code, Some(0), "{report}");
    assert!(
        run(&site, "check", project.path(), &["--verify"])
            .status
            .success()
    );
}

#[test]
fn verify_repair_without_upstream_reports_what_it_could_not_fetch() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let (_project, sum) = warmed(&upstream, &site);
    flip_a_byte(&blob_path(&site, &sum));
    upstream.stop();
    let (code, report) = verify(&site, &["--repair"]);
    assert_eq!(code, Some(1), "{report}");
    let bad = &report["bad"][0];
    assert_eq!(bad["what"], "crate `one 1.0.0`", "{report}");
    assert!(
        bad["failure"].as_str().unwrap().contains("cannot fetch"),
        "{report}"
    );
    assert!(bad["quarantined"].is_string(), "{report}");
}
