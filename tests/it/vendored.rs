//! Projects whose own settings replace registries by vendored copies need nothing from larder.

use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;

use crate::fixture::site;

const VENDORED: &str = "[source.crates-io]\nreplace-with = \"vendored-sources\"\n\
    [source.vendored-sources]\ndirectory = \"vendor\"\n";

/// A larder's site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

/// A project whose dependencies `cargo vendor` has copied; upstream is gone since.
fn vendored_project(upstream: &FakeUpstream) -> Project {
    upstream.publish(Crate::new("deep", "1.0.0"));
    upstream.publish(Crate::new("left", "1.0.0").dep("deep", "^1"));
    upstream.publish(Crate::new("left", "0.9.0"));
    let project = Project::empty()
        .dep("left", "1")
        .dep_line("old = { package = \"left\", version = \"0.9\" }");
    CargoHome::empty()
        .run(
            &project,
            &["vendor", "--respect-source-config"],
            &upstream.url(),
        )
        .assert_success();
    project.write(".cargo/config.toml", VENDORED);
    upstream.stop();
    project
}

/// The document that `larder COMMAND` prints, and whether it succeeded.
#[track_caller]
fn run(site: &Site, command: &str, project: &Project) -> (Value, bool) {
    let folder = project.folder().display().to_string();
    let output = site.command(&[command, &folder, "--json"]);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (document, output.status.success())
}

/// Compares the verdict of `check` with a build by real cargo without any registry.
#[track_caller]
fn assert_verdict(site: &Site, project: &Project, is_ready: bool) -> Value {
    let build = CargoHome::empty().run_plain(project, &["build", "--offline", "--locked"]);
    assert_eq!(build.status.success(), is_ready, "{build:?}");
    let (verdict, is_success) = run(site, "check", project);
    assert_eq!(verdict["ready"], is_ready, "{verdict:#}");
    assert_eq!(is_success, is_ready);
    verdict
}

#[test]
fn vendored_project_is_ready_from_an_empty_store_without_upstream() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = vendored_project(&upstream);
    assert_verdict(&site, &project, true);
    let (report, is_success) = run(&site, "warm", &project);
    assert!(is_success, "{report:#}");
    assert_eq!(report["packages"], 0, "{report:#}");
}

#[test]
fn vendored_project_is_ready_only_if_its_folder_has_what_the_lock_file_names() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = vendored_project(&upstream);
    let folder = project.folder().join("vendor/deep");

    let checksums = fs::read_to_string(folder.join(".cargo-checksum.json")).unwrap();
    let (start, sum) = checksums.split_once("\"package\":\"").unwrap();
    let other = format!("{start}\"package\":\"{}{}", "0".repeat(64), &sum[64..]);
    fs::write(folder.join(".cargo-checksum.json"), other).unwrap();
    let verdict = assert_verdict(&site, &project, false);
    assert!(
        verdict.to_string().contains("another checksum"),
        "{verdict:#}"
    );

    fs::remove_dir_all(&folder).unwrap();
    let verdict = assert_verdict(&site, &project, false);
    assert!(
        verdict.to_string().contains("`cargo vendor`"),
        "{verdict:#}"
    );
    let (report, is_success) = run(&site, "warm", &project);
    assert!(!is_success, "{report:#}");
}

#[test]
fn vendored_project_is_compared_with_its_manifest_from_the_vendored_copies() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = vendored_project(&upstream);
    let manifest = fs::read_to_string(project.folder().join("Cargo.toml")).unwrap();
    project.write("Cargo.toml", &format!("{manifest}deep = \"1\"\n"));
    let verdict = assert_verdict(&site, &project, false);
    assert!(verdict.to_string().contains("does not fit"), "{verdict:#}");

    fs::remove_file(project.folder().join("Cargo.lock")).unwrap();
    let (verdict, _) = run(&site, "check", &project);
    assert_eq!(
        verdict["ready"], true,
        "resolved from the copies: {verdict:#}"
    );
    CargoHome::empty()
        .run_plain(&project, &["build", "--offline"])
        .assert_success();
}
