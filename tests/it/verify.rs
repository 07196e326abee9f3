//! `larder check` on a store whose files were damaged on the disk.

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::site;
use testkit::larder::Site;
use testkit::store::{blob_path, entry_file};

/// A warmed project that needs the crate `one 1.0.0`, and the crate's hash.
fn warmed(upstream: &FakeUpstream, site: &Site) -> (TempDir, String) {
    let sum = upstream.publish(Crate::new("one", "1.0.0"));
    let project = TempDir::new().unwrap();
    let lock = format!(
        "version = 4\n\n[[package]]\nname = \"one\"\nversion = \"1.0.0\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{sum}\"\n"
    );
    fs::write(project.path().join("Cargo.lock"), lock).unwrap();
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
