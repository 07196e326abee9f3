//! Projects whose own settings replace registries by vendored copies need nothing from larder.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;
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
fn vendored_folder_with_a_changed_or_unlisted_package_is_not_ready() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = vendored_project(&upstream);
    let source = project.folder().join("vendor/deep/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, format!("{text}// edited\n")).unwrap();
    let verdict = assert_verdict(&site, &project, false);
    assert!(
        verdict.to_string().contains("changed or missing file"),
        "{verdict:#}"
    );
    fs::write(&source, text).unwrap();
    assert_verdict(&site, &project, true);

    fs::remove_file(project.folder().join("vendor/deep/.cargo-checksum.json")).unwrap();
    let verdict = assert_verdict(&site, &project, false);
    assert!(
        verdict.to_string().contains("no `.cargo-checksum.json`"),
        "{verdict:#}"
    );
    assert_eq!(
        verdict["projects"].as_array().unwrap().len(),
        1,
        "{verdict:#}"
    );
}

#[test]
fn crate_files_of_a_local_registry_are_compared_with_the_lock_file() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site_with_cargo(&upstream);
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let body = upstream.body("left", "1.0.0");
    let index = upstream.index_body("left");
    let crates = project.folder().join("crates");
    fs::create_dir_all(crates.join("index/le/ft")).unwrap();
    fs::write(crates.join("index/le/ft/left"), &index).unwrap();
    fs::write(crates.join("left-1.0.0.crate"), &body).unwrap();
    project.write(
        ".cargo/config.toml",
        "[source.crates-io]\nreplace-with = \"local\"\n[source.local]\nlocal-registry = \"crates\"\n",
    );
    upstream.stop();
    assert_verdict(&site, &project, true);
    fs::write(crates.join("left-1.0.0.crate"), &body[1..]).unwrap();
    assert_verdict(&site, &project, false);
}

/// The folders of the workspaces that real cargo finds from each manifest in the project, with their lock files.
fn workspaces_by_cargo(project: &Project, manifests: &[&str]) -> BTreeSet<String> {
    let roots = manifests.iter().map(|manifest| {
        let run = CargoHome::empty().run_plain(
            project,
            &[
                "locate-project",
                "--workspace",
                "--message-format=plain",
                "--manifest-path",
                manifest,
            ],
        );
        run.assert_success();
        let root = Path::new(run.stdout.trim()).parent().unwrap().to_owned();
        root.display().to_string()
    });
    roots.collect()
}

#[test]
fn nested_workspaces_and_packed_copies_are_found_as_cargo_finds_them() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let folder = TempDir::new().unwrap();
    let project = Project::at(folder.path());
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nedition = \"2021\"\n{more}")
    };
    let files = [
        (
            "",
            package(
                "top",
                "[workspace]\nmembers = [\"crates/*\", \"tools/far\"]\nexclude = [\"inner\"]\n",
            ),
        ),
        ("crates/one", package("one", "")),
        ("inner", "[workspace]\nmembers = [\"m/*\"]\n".to_owned()),
        ("inner/m/two", package("two", "")),
        ("inner/m/two/deeper", package("deeper", "[workspace]\n")),
        ("tools/far", package("far", "workspace = \"../..\"\n")),
        ("target/package/one-0.0.0", package("one", "")),
    ];
    let mut manifests = Vec::new();
    for (at, manifest) in &files {
        let at = Path::new(at);
        let path = at.join("Cargo.toml").display().to_string();
        project.write(&path, manifest);
        project.write(&at.join("src/lib.rs").display().to_string(), "");
        // Stale lock files everywhere: only those at a workspace's root count.
        project.write(
            &at.join("Cargo.lock").display().to_string(),
            "version = 4\n",
        );
        if !path.starts_with("target") {
            manifests.push(path);
        }
    }
    let manifests: Vec<_> = manifests.iter().map(String::as_str).collect();
    let (verdict, _) = run(&site, "check", &project);
    let projects = verdict["projects"].as_array().unwrap().iter();
    let found: BTreeSet<_> = projects
        .map(|project| project["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, workspaces_by_cargo(&project, &manifests));
    assert_eq!(found.len(), 3, "{found:?}");
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

#[test]
fn included_settings_decide_as_cargo_reads_them() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = vendored_project(&upstream);
    // The store has every crate, so that only the settings can make the project unready.
    upstream.restart();
    let lock = fs::read_to_string(project.folder().join("Cargo.lock")).unwrap();
    let plain = Project::empty();
    plain.write("Cargo.lock", &lock);
    let lock = plain.folder().join("Cargo.lock").display().to_string();
    let warm = site.command(&["warm", &lock]);
    let said = String::from_utf8_lossy(&warm.stderr).into_owned();
    assert!(said.contains("3 fetched"), "{said}");
    upstream.stop();

    let include = "include = [\"none.toml\", { path = \"../shared/vendored.toml\" }]\n";
    let optional = include.replace("\"none.toml\"", "{ path = \"none.toml\", optional = true }");
    fs::create_dir(project.folder().join("shared")).unwrap();
    project.write("shared/vendored.toml", VENDORED);
    project.write(".cargo/config.toml", &optional);
    assert_verdict(&site, &project, true);

    project.write(".cargo/config.toml", include);
    let verdict = assert_verdict(&site, &project, false);
    let said = verdict.to_string();
    assert!(
        said.contains("none.toml, which does not exist"),
        "{verdict:#}"
    );

    project.write(".cargo/config.toml", &optional);
    let deep = project.folder().join("vendor/deep");
    fs::rename(&deep, project.folder().join("gone")).unwrap();
    assert_verdict(&site, &project, false);
    fs::rename(project.folder().join("gone"), &deep).unwrap();

    // The settings of the file itself win over those that it includes.
    project.write("nested.toml", "include = [\"shared/vendored.toml\"]\n");
    project.write(
        ".cargo/config.toml",
        "include = [\"../nested.toml\"]\n[source.vendored-sources]\ndirectory = \"elsewhere\"\n",
    );
    assert_verdict(&site, &project, false);
}

/// A vendored project whose settings replace crates.io only by a file that they include.
fn project_with_included_vendor(upstream: &FakeUpstream) -> Project {
    let project = vendored_project(upstream);
    project.write(".cargo/config.toml", "include = [\"vendored.toml\"]\n");
    project.write(".cargo/vendored.toml", VENDORED);
    project
}

/// The missing things of the only project that `check` found.
#[track_caller]
fn missing(site: &Site, project: &Project) -> String {
    let (verdict, _) = run(site, "check", project);
    let projects = verdict["projects"].as_array().unwrap();
    assert_eq!(projects.len(), 1, "{verdict:#}");
    projects[0]["missing"].to_string()
}

#[test]
fn pinned_toolchain_decides_if_included_settings_count() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = project_with_included_vendor(&upstream);
    for (channel, follows) in [
        ("1.93", false),
        ("1.90.0", false),
        ("1.94.0", true),
        ("1.95", true),
    ] {
        let pinned = format!("[toolchain]\nchannel = \"{channel}\"\n");
        project.write("rust-toolchain.toml", &pinned);
        let missing = missing(&site, &project);
        assert_eq!(missing.contains("deep"), !follows, "{channel}: {missing}");
    }
}

/// The same site with this shell script as its cargo.
#[cfg(unix)]
fn with_cargo(upstream: &FakeUpstream, folder: &TempDir, script: &str) -> Site {
    use std::os::unix::fs::PermissionsExt as _;

    let path = folder.path().join("cargo");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    site_with_cargo(upstream).variable("CARGO", &path.display().to_string())
}

#[cfg(unix)]
#[test]
fn missing_toolchain_is_no_fault_of_the_lock_file() {
    let upstream = FakeUpstream::start();
    let project = vendored_project(&upstream);
    let folder = TempDir::new().unwrap();
    let script = "echo \"error: toolchain '1.2.3-x' is not installed\" >&2; exit 1";
    let (verdict, is_ready) = run(&with_cargo(&upstream, &folder, script), "check", &project);
    assert!(!is_ready, "{verdict:#}");
    let said = verdict["projects"][0].to_string();
    assert!(!said.contains("does not fit"), "{verdict:#}");
    assert!(said.contains("`1.2.3-x` is not installed; "), "{verdict:#}");
}

#[cfg(unix)]
#[test]
fn cargo_is_asked_if_included_settings_count_where_no_version_is_pinned() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = project_with_included_vendor(&upstream);
    assert_verdict(&site, &project, true);

    // Cargo before 1.94 accepts a settings file whatever it includes.
    let folder = TempDir::new().unwrap();
    let cargo = |script: &str| with_cargo(&upstream, &folder, script);
    let real = env!("CARGO");
    let old = cargo(&format!(
        "case \"$*\" in *include-probe.toml) exec '{real}' locate-project;; esac\nexec '{real}' \"$@\""
    ));
    let said = missing(&old, &project);
    assert!(said.contains("deep"), "{said}");

    let broken = cargo("echo 'error: no toolchain' >&2; exit 1");
    let (verdict, is_ready) = run(&broken, "check", &project);
    assert!(!is_ready, "{verdict:#}");
    let said = verdict.to_string();
    assert!(said.contains("from 1.94 on, cannot be told"), "{verdict:#}");

    // A file that replaces no source raises no question.
    let asked = folder.path().join("asked");
    let recording = cargo(&format!(
        "case \"$*\" in *include-probe.toml) : > '{}';; esac\nexec '{real}' \"$@\"",
        asked.display()
    ));
    assert!(run(&recording, "check", &project).1);
    assert!(asked.exists());
    fs::remove_file(&asked).unwrap();
    project.write(".cargo/vendored.toml", "[net]\nretry = 1\n");
    let settings = format!("include = [\"vendored.toml\"]\n{VENDORED}");
    project.write(".cargo/config.toml", &settings);
    assert!(run(&recording, "check", &project).1);
    assert!(!asked.exists());
}

#[test]
fn included_mirror_makes_a_project_unready() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    upstream.publish(Crate::new("left", "1.0.0"));
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let (report, is_success) = run(&site, "warm", &project);
    assert!(is_success, "{report:#}");
    let (verdict, _) = run(&site, "check", &project);
    assert_eq!(verdict["ready"], true, "{verdict:#}");
    project.write(".cargo/config.toml", "include = [\"mirror.toml\"]\n");
    project.write(
        ".cargo/mirror.toml",
        "[source.crates-io]\nreplace-with = \"far\"\n[source.far]\nregistry = \"sparse+https://mirror.example/\"\n",
    );
    let (verdict, _) = run(&site, "check", &project);
    assert_eq!(verdict["ready"], false, "{verdict:#}");
}

#[test]
fn home_that_includes_a_file_beside_it_does_not_keep_larder_from_asking_cargo() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let home = TempDir::new().unwrap();
    fs::write(
        home.path().join("config.toml"),
        "include = [\"net.toml\"]\n",
    )
    .unwrap();
    fs::write(home.path().join("net.toml"), "[net]\nretry = 0\n").unwrap();
    let site = site_with_cargo(&upstream).variable("CARGO_HOME", home.path().to_str().unwrap());
    // Without a lock file, larder asks cargo to make one.
    let project = Project::empty().dep("left", "1");
    let (report, is_success) = run(&site, "warm", &project);
    assert!(is_success, "{report:#}");
    let (verdict, is_ready) = run(&site, "check", &project);
    assert!(is_ready, "{verdict:#}");
}
