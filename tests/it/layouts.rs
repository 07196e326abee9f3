//! Unusual layouts of projects: `check`'s verdict on them, judged by real cargo behind an offline larder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};

use crate::fixture::site;

/// A larder's site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    for name in ["left", "right", "other"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

/// Writes a package with an empty library.
fn package(folder: &Path, name: &str, more: &str) {
    fs::create_dir_all(folder.join("src")).unwrap();
    let text =
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}\n");
    fs::write(folder.join("Cargo.toml"), text).unwrap();
    fs::write(folder.join("src/lib.rs"), "").unwrap();
}

/// Makes the lock file of the project in `folder`, and warms it.
fn lock_and_warm(site: &Site, upstream: &FakeUpstream, folder: &Path) {
    CargoHome::empty()
        .run(
            &Project::at(folder),
            &["generate-lockfile"],
            &upstream.url(),
        )
        .assert_success();
    let output = site.command(&["warm", &folder.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
}

/// The verdict of `check`, and the proof of `cargo fetch`, which keeps the lock file as it is.
fn verdict_and_truth(site: &Site, offline: &Larder<'_>, folder: &Path) -> (bool, bool, Value) {
    let output = site.command(&["check", "--json", &folder.display().to_string()]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lock = folder.join("Cargo.lock");
    let before = fs::read(&lock).ok();
    let fetch = CargoHome::empty().run(&Project::at(folder), &["fetch"], offline.url());
    if let Some(before) = before {
        fs::write(&lock, before).unwrap();
    } else {
        let _ = fs::remove_file(&lock);
    }
    (verdict["ready"] == true, fetch.status.success(), verdict)
}

/// Cargo removes `.` and `..` from paths, and follows no links (docs/client-behaviour.md C-54).
#[test]
fn linked_packages_are_found_where_cargo_finds_them() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let top = TempDir::new().unwrap();
    let path = |name: &str| top.path().join(name);
    // A path dependency below the root of a workspace is a member, also if it is a link.
    let right = "[dependencies]\nright = \"1\"\n";
    package(&path("ext/linked"), "linked", right);
    let root = "[dependencies]\nlinked = { path = \"linked\" }\n[workspace]";
    package(&path("one"), "one", root);
    symlink("../ext/linked", path("one/linked")).unwrap();
    // Cargo finds `../b` of a linked member beside the link.
    package(
        &path("ext/a"),
        "a",
        "[dependencies]\nb = { path = \"../b\" }",
    );
    package(&path("ext/b"), "b", right);
    package(&path("two/crates/b"), "b", right);
    symlink("../../ext/a", path("two/crates/a")).unwrap();
    let root = "[workspace]\nresolver = \"2\"\nmembers = [\"crates/*\"]\n";
    fs::write(path("two/Cargo.toml"), root).unwrap();
    for name in ["one", "two"] {
        lock_and_warm(&site, &upstream, &path(name));
    }
    let offline = site.serve(&["--offline"]);
    for (ready, tests) in [(true, ""), (false, "[dev-dependencies]\nother = \"1\"\n")] {
        let more = format!("{right}{tests}");
        package(&path("ext/linked"), "linked", &more);
        package(&path("two/crates/b"), "b", &more);
        for name in ["one", "two"] {
            let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &path(name));
            assert_eq!(
                (is_ready, is_true),
                (ready, ready),
                "{name} {tests}: {text:#}"
            );
        }
    }
}

#[test]
fn lock_file_that_cargo_cannot_make_is_not_ready() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let top = TempDir::new().unwrap();
    let project = top.path().join("project");
    package(&project, "project", "[dependencies]\nright = \"1\"");
    lock_and_warm(&site, &upstream, &project);
    let offline = site.serve(&["--offline"]);
    // Cargo makes the file that the link leads to, but no folder.
    for (target, ready) in [("../lock", true), ("../nowhere/lock", false)] {
        fs::remove_file(project.join("Cargo.lock")).unwrap();
        symlink(target, project.join("Cargo.lock")).unwrap();
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!((is_ready, is_true), (ready, ready), "{target}: {text:#}");
        if !ready {
            assert!(
                text["failed"].to_string().contains("Cargo.lock"),
                "{text:#}"
            );
        }
        symlink(target, project.join("Cargo.lock")).unwrap_or_default();
    }
}

#[test]
fn package_in_a_folder_called_target_is_part_of_its_project() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let top = TempDir::new().unwrap();
    let project = top.path().join("project");
    let member = project.join("target/member");
    package(&member, "member", "[dependencies]\nright = \"1\"");
    let needs = "[dependencies]\nmember = { path = \"target/member\" }\n[workspace]\n";
    package(&project, "project", needs);
    lock_and_warm(&site, &upstream, &project);
    let lock = fs::read(project.join("Cargo.lock")).unwrap();
    let offline = site.serve(&["--offline"]);
    let judge = |what: &str| {
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!((is_ready, is_true), (true, true), "{what}: {text:#}");
    };
    // Cargo compares a lock file if there is a patch.
    package(&project, "project", &format!("{needs}[patch.crates-io]\n"));
    judge("compared");
    fs::remove_file(project.join("Cargo.lock")).unwrap();
    judge("made");
    // Cargo writes nothing into the user's `target`.
    fs::write(project.join("Cargo.lock"), lock).unwrap();
    let target = project.join("target");
    fs::rename(&member, project.join("kept")).unwrap();
    fs::remove_dir_all(&target).unwrap();
    fs::create_dir(&target).unwrap();
    fs::rename(project.join("kept"), &member).unwrap();
    let output = site.command(&[
        "warm",
        "--target",
        "x86_64-unknown-linux-gnu",
        &project.display().to_string(),
    ]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
}

#[test]
fn new_version_of_the_own_package_is_said_to_stop_locked_builds_alone() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let top = TempDir::new().unwrap();
    let folder = top.path();
    let needs = "[dependencies]\nright = \"1\"";
    package(folder, "project", needs);
    lock_and_warm(&site, &upstream, folder);
    let offline = site.serve(&["--offline"]);
    let check = |needs: &str| {
        package(folder, "project", needs);
        let manifest = folder.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("0.1.0", "0.2.0")).unwrap();
        let (is_ready, is_true, verdict) = verdict_and_truth(&site, &offline, folder);
        assert!(!is_ready, "{verdict:#}");
        (is_true, verdict.to_string())
    };
    let (works, text) = check(needs);
    assert!(works);
    for part in [
        "Cargo.lock has another version of a package of yours",
        "`project 0.2.0`",
        "--locked",
        "corrects it offline too",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (works, text) = check("[dependencies]\nright = \"1\"\nother = \"1\"");
    assert!(!works);
    assert!(text.contains("does not fit"), "{text}");
    assert!(!text.contains("offline too"), "{text}");
}

#[test]
fn packages_with_a_lock_file_of_their_own_to_make_are_named() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let top = TempDir::new().unwrap();
    let outer = top.path().join("outer");
    package(
        &outer,
        "outer",
        "[dependencies]\nright = \"1\"\nused = { path = \"used\" }",
    );
    package(&outer.join("used"), "used", "[workspace]");
    let needs = "[dependencies]\nother = \"1\"\n";
    package(&outer.join("fuzz"), "fuzz", &format!("{needs}[workspace]"));
    package(&outer.join("example"), "example", needs);
    lock_and_warm(&site, &upstream, &outer);
    let offline = site.serve(&["--offline"]);
    for (inner, is_fetched) in [("fuzz", false), ("example", false), ("used", true)] {
        let (_, is_true, _) = verdict_and_truth(&site, &offline, &outer.join(inner));
        assert_eq!(is_true, is_fetched, "{inner}");
    }
    let (is_ready, is_true, verdict) = verdict_and_truth(&site, &offline, &outer);
    assert_eq!((is_ready, is_true), (true, true), "{verdict:#}");
    let manifest = |name: &str| outer.join(name).join("Cargo.toml").display().to_string();
    assert_eq!(
        verdict["not_covered"],
        serde_json::json!([manifest("example"), manifest("fuzz")]),
        "{verdict:#}"
    );
    let output = site.command(&["check", &outer.display().to_string()]);
    let text = String::from_utf8(output.stderr).unwrap();
    let line = format!(
        "note: not covered: {} and {}: cargo would make a lock file for each",
        manifest("example"),
        manifest("fuzz")
    );
    assert!(text.contains(&line), "{text}");
}
