//! Real cargo resolves offline behind a larder whose store `warm` has filled: `cargo add`, `cargo update` and
//! `cargo generate-lockfile` of what is stored, whatever platforms and features are involved.

use std::path::Path;

use fake_upstream::{Crate, FakeUpstream, entry_path};
use serde_json::Value;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::store::entry_file;

use crate::fixture::site;

const LINUX: &str = "x86_64-unknown-linux-gnu";

/// A larder's site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

/// A project with this dependency and its lock file.
fn locked_project(upstream: &FakeUpstream, dependency: &str) -> Project {
    let project = Project::empty().dep_line(dependency);
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    project
}

/// Runs `larder warm` on a project; returns its report.
#[track_caller]
fn warm(site: &Site, project: &Project, arguments: &[&str]) -> Value {
    let folder = project.folder().display().to_string();
    let mut all = vec!["warm", &folder, "--json"];
    all.extend(arguments);
    let output = site.command(&all);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_locked(project: &Project, name: &str, version: &str) {
    let lock = project.lock();
    let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
    assert!(lock.contains(&entry), "no {name} {version} in {lock}");
}

/// `web` needs by default a crate for one platform, with needs of its own. No lock file of the project names them.
fn publish_web(upstream: &FakeUpstream) {
    upstream.publish(Crate::new("http", "1.0.0"));
    upstream.publish(Crate::new("cf-sys", "0.8.0"));
    upstream.publish(Crate::new("foundation", "0.9.0").dep("cf-sys", "^0.8"));
    upstream.publish(
        Crate::new("sysconf", "0.6.0")
            .dep("foundation", "^0.9")
            .optional_dep("far", "^1"),
    );
    upstream.publish(Crate::new("cookies", "3.0.0").dep("http", "^1"));
    upstream.publish(
        Crate::new("web", "0.12.0")
            .dep("http", "^1")
            .optional_target_dep("cfg(target_os = \"macos\")", "sysconf", "^0.6")
            .optional_dep("cookies", "^3")
            .feature("default", &["system"])
            .feature("system", &["dep:sysconf"])
            .feature("cookie-store", &["dep:cookies"]),
    );
}

#[test]
fn cargo_add_of_a_stored_crate_resolves_offline_over_dependencies_of_other_platforms() {
    let upstream = FakeUpstream::start();
    publish_web(&upstream);
    let lean = locked_project(
        &upstream,
        "web = { version = \"0.12\", default-features = false }",
    );
    assert!(!lean.lock().contains("sysconf"), "{}", lean.lock());
    // Newer versions than the stored one do not get in the way.
    upstream.publish(Crate::new("web", "0.13.0").dep("far", "^1"));
    let site = site_with_cargo(&upstream);
    let report = warm(&site, &lean, &[]);
    upstream.stop();

    let offline = site.serve(&["--offline"]);
    let add = |features: &[&str]| {
        let project = Project::empty();
        let home = CargoHome::empty();
        let mut arguments = vec!["add", "web"];
        arguments.extend(features);
        home.run(&project, &arguments, offline.url())
            .assert_success();
        home.run(&project, &["generate-lockfile"], offline.url())
            .assert_success();
        home.run(&project, &["update"], offline.url())
            .assert_success();
        assert_locked(&project, "web", "0.12.0");
        (project, home)
    };
    let (project, home) = add(&[]);
    assert_locked(&project, "sysconf", "0.6.0");
    assert_locked(&project, "cf-sys", "0.8.0");
    // The crates of the other platform are not needed here.
    home.run(&project, &["build", "--target", LINUX], offline.url())
        .assert_success();
    let (project, _) = add(&["--features", "cookie-store"]);
    assert_locked(&project, "cookies", "3.0.0");

    // sysconf, foundation, cf-sys, cookies: what features that are off need is not asked for.
    assert_eq!(report["index_entries"], 4, "{report:#}");
    assert_eq!(upstream.requests_for(&entry_path("far")), 0);
}

#[test]
fn crates_that_warm_left_out_for_a_target_resolve_offline_beside_older_stored_ones() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("win", "0.2.0"));
    upstream.publish(Crate::new("win", "0.3.0"));
    upstream.publish(Crate::new("tool", "1.0.0").target_dep("cfg(windows)", "win", "^0.3"));
    let old = locked_project(&upstream, "win = \"0.2\"");
    let project = locked_project(&upstream, "tool = \"1\"");
    // A version with needs that no warmed project has.
    upstream.publish(Crate::new("win", "0.3.9").dep("win-link", "^1"));
    upstream.publish(Crate::new("win-link", "1.0.0"));
    let site = site_with_cargo(&upstream);
    warm(&site, &old, &[]);
    let report = warm(&site, &project, &["--target", LINUX]);
    upstream.stop();

    let offline = site.serve(&["--offline"]);
    let home = CargoHome::empty();
    for arguments in [&["update"][..], &["build", "--target", LINUX]] {
        home.run(&project, arguments, offline.url())
            .assert_success();
        assert_locked(&project, "win", "0.3.0");
    }
    let new = Project::empty();
    home.run(&new, &["add", "tool"], offline.url())
        .assert_success();
    home.run(&new, &["build", "--target", LINUX], offline.url())
        .assert_success();
    assert_locked(&new, "win", "0.3.0");
    assert_eq!(report["index_entries"], 0, "{report:#}");
}

#[test]
fn stored_versions_are_preferred_to_newer_ones_that_only_a_feature_wants() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("codec", "1.0.0"));
    upstream.publish(Crate::new("codec", "2.0.0"));
    upstream.publish(
        Crate::new("web", "1.0.0")
            .optional_dep("codec", "^2")
            .feature("coding", &["dep:codec"]),
    );
    let site = site_with_cargo(&upstream);
    let project = locked_project(&upstream, "codec = \"1\"\nweb = \"1\"");
    warm(&site, &project, &[]);
    let offline = site.serve(&["--offline"]);
    let home = CargoHome::empty();
    let new = Project::empty();
    home.run(&new, &["add", "codec"], offline.url())
        .assert_success();
    home.run(&new, &["build"], offline.url()).assert_success();
    assert_locked(&new, "codec", "1.0.0");
}

#[test]
fn entries_for_resolving_are_fetched_once_and_no_project_depends_on_them() {
    let upstream = FakeUpstream::start();
    publish_web(&upstream);
    let lean = locked_project(
        &upstream,
        "web = { version = \"0.12\", default-features = false }",
    );
    let site = site_with_cargo(&upstream);
    warm(&site, &lean, &[]);
    let entries = ["sysconf", "foundation", "cf-sys", "cookies"];
    for name in entries {
        assert_eq!(upstream.requests_for(&entry_path(name)), 1, "{name}");
    }
    upstream.forget_requests();
    let report = warm(&site, &lean, &[]);
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(report["index_entries"], 0, "looked up again: {report:#}");
    warm(&site, &lean, &["--refresh"]);
    for name in entries {
        assert_eq!(upstream.requests_for(&entry_path(name)), 1, "{name}");
    }

    std::fs::remove_file(entry_file(&site, "cookies")).unwrap();
    upstream.unpublish("cookies");
    let folder = lean.folder().display().to_string();
    let check = site.command(&["check", &folder]);
    assert!(check.status.success(), "{check:?}");
    let report = warm(&site, &lean, &[]);
    assert_eq!(report["index_entries_failed"].to_string(), "[]");
    upstream.fault(&entry_path("cookies"), fake_upstream::Fault::Status(403));
    let report = warm(&site, &lean, &[]);
    let failed = report["index_entries_failed"].to_string();
    assert!(failed.contains("cookies"), "{report:#}");
}
