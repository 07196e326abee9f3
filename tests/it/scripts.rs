//! Cargo scripts and `resolver.lockfile-path`: projects whose lock file is not beside a manifest. The judge is real
//! cargo behind an offline larder.
//!
//! `RUSTC_BOOTSTRAP=1` lets a stable cargo take what only nightly versions take.

use std::fs;
use std::path::{Path, PathBuf};

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::{Run, wait_until};

use crate::fixture::site;

const SCRIPT: &str = "#!/usr/bin/env -S cargo +nightly -Zscript\n\
    ---cargo\n[package]\nedition = \"2021\"\n[dependencies]\nleft = \"1\"\n---\n\nfn main() {}\n";

/// A larder's site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

/// Cargo as nightly versions are.
fn nightly_home() -> CargoHome {
    CargoHome::empty().variable("RUSTC_BOOTSTRAP", "1")
}

/// A folder without a manifest, with this script as `tool.rs`.
fn folder_with_script(text: &str) -> (TempDir, Project) {
    let folder = TempDir::new().unwrap();
    let project = Project::at(folder.path());
    project.write("tool.rs", text);
    (folder, project)
}

/// The document that `larder COMMAND` prints about a path in the project, and whether it succeeded.
#[track_caller]
fn run(site: &Site, command: &str, project: &Project, path: &str) -> (Value, bool) {
    let path = project.folder().join(path).display().to_string();
    let output = site.command(&[command, &path, "--json"]);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (document, output.status.success())
}

/// Compares the verdict of `check` on the script with a build by real cargo with this home.
#[track_caller]
fn assert_verdict(
    site: &Site,
    offline: &Larder<'_>,
    project: &Project,
    home: &CargoHome,
    is_ready: bool,
) -> Value {
    let (verdict, is_success) = run(site, "check", project, "tool.rs");
    let build = ["-Zscript", "build", "--manifest-path", "tool.rs"];
    let build = home.run(project, &build, offline.url());
    assert_eq!(build.status.success(), is_ready, "{build:?}\n{verdict:#}");
    assert_eq!(verdict["ready"], is_ready, "{verdict:#}\n{build:?}");
    assert_eq!(is_success, is_ready);
    verdict
}

#[test]
fn script_is_ready_after_warm_and_builds_offline() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("deep", "1.0.0"));
    upstream.publish(Crate::new("left", "1.0.0").dep("deep", "^1"));
    let site = site_with_cargo(&upstream);
    let beside = "path-dep = { path = \"beside\" }\n---\n";
    let (_folder, project) = folder_with_script(&SCRIPT.replacen("---\n\n", beside, 1));
    project.write("beside/Cargo.toml", "[package]\nname = \"path-dep\"\n");
    project.write("beside/src/lib.rs", "");
    // Cargo takes no notice of these.
    project.write("Cargo.toml", "[package]\nname = \"other\"\n[workspace]\n");
    project.write("build.rs", "compile_error!();");
    let offline = site.serve(&["--offline"]);

    let verdict = assert_verdict(&site, &offline, &project, &nightly_home(), false);
    let path = project.folder().join("tool.rs");
    let missing = verdict["projects"][0]["missing"][0].as_str().unwrap();
    assert!(
        missing.contains("cargo cannot resolve it: cannot serve index entry of `left`")
            && missing.contains("`larder warm`")
            && !missing.contains('\n'),
        "{missing}"
    );
    assert_eq!(verdict["projects"][0]["path"], path.display().to_string());

    let (report, is_success) = run(&site, "warm", &project, "tool.rs");
    assert!(is_success, "{report:#}");
    assert_eq!(report["packages"], 2, "{report:#}");
    upstream.stop();
    assert_verdict(&site, &offline, &project, &nightly_home(), true);

    let status = site.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["gone"], Value::Array(Vec::new()), "{status:#}");
    let mut files: Vec<_> = fs::read_dir(project.folder()).unwrap().collect();
    assert_eq!(
        files.drain(..).count(),
        4,
        "nothing was added beside the script"
    );
}

#[test]
fn script_needs_the_versions_that_cargo_has_locked_for_it() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let (_folder, project) = folder_with_script(SCRIPT);
    let home = nightly_home();
    home.run(
        &project,
        &["-Zscript", "fetch", "--manifest-path", "tool.rs"],
        &upstream.url(),
    )
    .assert_success();
    fs::remove_dir_all(home.path().join("registry")).unwrap();
    upstream.publish(Crate::new("left", "1.1.0"));

    // Without the user's home, the newest version is resolved, which the lock file does not want.
    let other = site_with_cargo(&upstream);
    assert!(run(&other, "warm", &project, "tool.rs").1);
    let site = |upstream| {
        site_with_cargo(upstream)
            .variable("CARGO_HOME", &home.path().display().to_string())
            .variable("RUSTC_BOOTSTRAP", "1")
    };
    let locked = site(&upstream).store_in(other.store());
    let offline = locked.serve(&["--offline"]);
    let verdict = assert_verdict(&locked, &offline, &project, &home, false);
    assert!(verdict.to_string().contains("left 1.0.0"), "{verdict:#}");
    offline.stop();

    let (report, is_success) = run(&locked, "warm", &project, "tool.rs");
    assert!(is_success, "{report:#}");
    upstream.stop();
    let offline = locked.serve(&["--offline"]);
    assert_verdict(&locked, &offline, &project, &home, true);

    // The script needs another crate since.
    upstream.restart();
    project.write(
        "tool.rs",
        &SCRIPT.replacen("left = \"1\"", "left = \"1.1\"\nfar = \"1\"", 1),
    );
    let verdict = assert_verdict(&locked, &offline, &project, &home, false);
    let said = verdict.to_string();
    assert!(said.contains("cannot resolve the project"), "{verdict:#}");
    assert!(said.contains("`cargo -Zscript fetch"), "{verdict:#}");
}

#[test]
fn fault_in_a_script_is_named() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let (_folder, project) = folder_with_script("---\n[dependencies]\n");
    let (report, is_success) = run(&site, "warm", &project, "tool.rs");
    assert!(!is_success);
    let text = report["failed"].to_string();
    assert!(
        text.contains("tool.rs") && text.contains("no closing `---`"),
        "{text}"
    );
}

const LOCKFILE_PATH: &str = "[resolver]\nlockfile-path = \"locks/Cargo.lock\"\n";
const ALLOWED: &str = "[unstable]\nlockfile-path = true\n";

/// Resolves the project by real cargo, straight from upstream, and returns the path of the lock file below it.
#[track_caller]
fn lock(project: &Project, home: &CargoHome, upstream: &FakeUpstream) -> PathBuf {
    let locks = ["Cargo.lock", "locks/Cargo.lock"].map(|lock| project.folder().join(lock));
    let before = locks.each_ref().map(|lock| fs::read(lock).ok());
    home.run(project, &["update"], &upstream.url())
        .assert_success();
    let changed = locks.iter().zip(before);
    let mut changed = changed.filter(|(lock, before)| fs::read(lock).ok() != *before);
    changed.next().expect("a lock file was written").0.clone()
}

#[test]
fn lock_file_is_read_where_the_installed_cargo_keeps_it() {
    for (settings, bootstrap) in [
        (LOCKFILE_PATH.to_owned(), false),
        (format!("{LOCKFILE_PATH}{ALLOWED}"), true),
    ] {
        let upstream = FakeUpstream::start();
        upstream.publish(Crate::new("left", "1.0.0"));
        let mut site = site_with_cargo(&upstream);
        let mut home = CargoHome::empty();
        if bootstrap {
            site = site.variable("RUSTC_BOOTSTRAP", "1");
            home = nightly_home();
        }
        let project = Project::empty().dep("left", "1");
        let by_default = lock(&project, &home, &upstream);
        let old = fs::read_to_string(&by_default).unwrap();
        upstream.publish(Crate::new("left", "1.1.0"));
        project.write(".cargo/config.toml", &settings);
        let used = lock(&project, &home, &upstream);
        assert_eq!(
            used.parent() != Some(project.folder()),
            bootstrap,
            "{}",
            used.display()
        );
        // The other lock file must not count.
        for other in ["Cargo.lock", "locks/Cargo.lock"] {
            if project.folder().join(other) != used {
                project.write(other, &old);
            }
        }
        let (report, is_success) = run(&site, "warm", &project, "");
        assert!(is_success, "{report:#}");
        upstream.stop();
        let offline = site.serve(&["--offline"]);
        let (verdict, is_ready) = run(&site, "check", &project, "");
        assert!(is_ready, "{verdict:#}");
        home.run(&project, &["fetch", "--locked"], offline.url())
            .assert_success();
        if bootstrap {
            assert_eq!(report["projects"], 1, "{report:#}");
            assert_eq!(report["fetched"], 1, "{report:#}");
        }
    }
}

#[test]
fn warm_writes_no_lock_file_where_the_settings_ask_for_it() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site_with_cargo(&upstream).variable("RUSTC_BOOTSTRAP", "1");
    let project = Project::empty().dep("left", "1");
    project.write(".cargo/config.toml", &format!("{LOCKFILE_PATH}{ALLOWED}"));
    project.write("locks/readme", "");
    let (report, is_success) = run(&site, "warm", &project, "");
    assert!(is_success, "{report:#}");
    assert_eq!(report["packages"], 1, "{report:#}");
    assert!(!project.folder().join("locks/Cargo.lock").exists());
    assert!(!project.folder().join("Cargo.lock").exists());
}

#[test]
fn lock_file_elsewhere_is_kept_warm() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site_with_cargo(&upstream).variable("RUSTC_BOOTSTRAP", "1");
    let project = Project::empty().dep("left", "1");
    project.write(".cargo/config.toml", &format!("{LOCKFILE_PATH}{ALLOWED}"));
    lock(&project, &nightly_home(), &upstream);
    assert!(run(&site, "warm", &project, "").1);

    let larder = site.serve(&[]);
    let count = |name: &str| {
        larder.status()["keep_warm"][name]
            .as_u64()
            .unwrap_or_default()
    };
    larder.get(&entry("left"));
    wait_until("a pass has ended", || count("passes") >= 1);
    upstream.publish(Crate::new("right", "1.0.0"));
    let project = project.dep("right", "1");
    lock(&project, &nightly_home(), &upstream);
    wait_until("the change was fetched", || {
        larder.get(&entry("left"));
        count("fetched") == 1
    });
    larder.wait_until_idle();
    larder.stop();
    upstream.stop();
    let offline = site.serve(&["--offline"]);
    let fetch: Run = nightly_home().run(&project, &["fetch", "--locked"], offline.url());
    fetch.assert_success();
}
