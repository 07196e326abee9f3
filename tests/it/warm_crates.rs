//! `larder warm` and `larder check` of crates that the user names, of lists and of the declared set. Real cargo in an
//! empty home judges: it installs and adds offline.

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream, crate_path};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::lock_file::{lock_file, locked_package};
use testkit::paths::entry;
use testkit::process::Run;

use crate::fixture::site;

/// A larder's site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

/// A lock file of `tool 1.0.0`, which needs these versions of other crates.
fn lock_of_tool(upstream: &FakeUpstream, needed: &[(&str, &str)]) -> String {
    let mut text = "version = 4\n".to_owned();
    for (name, version) in needed {
        text += &locked_package(upstream, name, version);
    }
    let names = needed.iter().map(|(name, _)| format!(" \"{name}\",\n"));
    let names = names.collect::<String>();
    text + &format!(
        "\n[[package]]\nname = \"tool\"\nversion = \"1.0.0\"\ndependencies = [\n{names}]\n"
    )
}

/// `tool`, a program that needs `helper`. Its lock file, if it has one, names version 1.0.0 of that, not the newest.
fn publish_tool(upstream: &FakeUpstream, has_lock: bool) {
    for version in ["1.0.0", "1.1.0"] {
        let helper = Crate::new("helper", version).file("src/lib.rs", "pub fn help() {}");
        upstream.publish(helper);
    }
    let mut tool = Crate::new("tool", "1.0.0")
        .dep("helper", "^1")
        .file("src/main.rs", "fn main() { helper::help() }");
    if has_lock {
        let lock = lock_of_tool(upstream, &[("helper", "1.0.0")]);
        tool = tool.file("Cargo.lock", lock);
    }
    upstream.publish(tool);
}

/// Runs `cargo install --locked NAME` in an empty home.
#[track_caller]
fn install(larder: &Larder<'_>, name: &str) -> Run {
    let (home, project, root) = (
        CargoHome::empty(),
        Project::empty(),
        TempDir::new().unwrap(),
    );
    let root_path = root.path().display().to_string();
    let run = home.run(
        &project,
        &["install", "--locked", name, "--root", &root_path],
        larder.url(),
    );
    assert_eq!(
        root.path().join("bin/tool").is_file(),
        run.status.success(),
        "{run:?}"
    );
    run
}

/// Runs a command with `--json`. Returns its document and its exit code.
#[track_caller]
fn run_json(site: &Site, arguments: &[&str]) -> (Value, i32) {
    let mut all = arguments.to_vec();
    all.push("--json");
    let output = site.command(&all);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (document, output.status.code().unwrap_or(-1))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn recalled_version_that_a_named_crate_locks_is_reported_under_its_name() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let site = site_with_cargo(&upstream);
    let (report, code) = run_json(&site, &["warm", "--crate", "tool"]);
    assert_eq!(code, 0, "{report:#}");
    upstream.yank("helper", "1.0.0");
    let larder = site.serve(&["--max-age", "0s"]);
    larder.get(&entry("helper"));
    larder.wait_for_log("has yanked versions that warmed projects lock");
    larder.stop();
    let (readiness, _) = run_json(&site, &["check", "--crate", "tool"]);
    let recall = &readiness["recalls"][0];
    assert_eq!(recall["name"], "helper", "{readiness:#}");
    assert_eq!(recall["locked_by"], serde_json::json!(["crate tool"]));
}

#[test]
fn warmed_crate_installs_offline_with_the_lock_file_of_its_archive() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let site = site_with_cargo(&upstream);
    let (readiness, code) = run_json(&site, &["check", "--crate", "tool"]);
    assert_eq!(
        (&readiness["ready"], code),
        (&false.into(), 1),
        "{readiness:#}"
    );

    let (report, code) = run_json(&site, &["warm", "--crate", "tool"]);
    assert_eq!(code, 0, "{report:#}");
    let counts = ["projects", "crates", "packages", "fetched"].map(|field| report[field].as_u64());
    assert_eq!(counts, [0, 1, 2, 2].map(Some), "{report:#}");
    assert_eq!(upstream.requests_for(&crate_path("helper", "1.1.0")), 0);

    upstream.stop();
    let check = site.command(&["check", "--crate", "tool"]);
    assert!(check.status.success(), "{check:?}");
    assert_eq!(
        stdout(&check),
        "ready      crate tool, version 1.0.0  (2 packages)\n"
    );
    let larder = site.serve(&[]);
    install(&larder, "tool").assert_success();
    larder.stop();
    // Another version was never stored.
    let check = site.command(&["check", "--crate", "tool@=2.0.0"]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    let said = stdout(&check);
    assert!(
        said.contains("missing: a version of crate `tool@=2.0.0`"),
        "{said}"
    );
}

#[test]
fn eviction_keeps_a_warmed_crate_until_it_is_forgotten() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let site = site_with_cargo(&upstream);
    run_json(&site, &["warm", "--crate", "tool@^1"]);
    let (evicted, _) = run_json(&site, &["gc", "--max-size", "1B"]);
    assert!(
        run_json(&site, &["check", "--crate", "tool"]).1 == 0,
        "{evicted:#}"
    );
    let status = stdout(&site.command(&["status"]));
    assert!(status.contains("crate tool@^1"), "{status}");

    let forgotten = site.command(&["forget", "tool"]);
    assert_eq!(
        stdout(&forgotten),
        "forgot crate tool@^1\n",
        "{forgotten:?}"
    );
    run_json(&site, &["gc", "--max-size", "1B"]);
    assert_eq!(run_json(&site, &["check", "--crate", "tool"]).1, 1);
}

#[test]
fn crate_without_a_lock_file_is_resolved_and_said_to_be() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, false);
    let site = site_with_cargo(&upstream);
    let warm = site.command(&["warm", "--crate", "tool"]);
    assert!(warm.status.success(), "{warm:?}");
    let said = stderr(&warm);
    assert!(
        said.contains("crate tool has no lock file in its archive"),
        "{said}"
    );
    assert!(said.contains("2 packages in 1 crate: 2 fetched"), "{said}");

    upstream.stop();
    let check = site.command(&["check", "--crate", "tool"]);
    assert!(check.status.success(), "{check:?}");
    let said = stdout(&check);
    assert!(
        said.contains("2 packages, no lock file in its archive"),
        "{said}"
    );
    install(&site.serve(&[]), "tool").assert_success();
}

#[test]
fn lock_file_that_does_not_fit_is_completed_as_cargo_install_does() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("helper", "1.0.0"));
    upstream.publish(Crate::new("other", "1.0.0"));
    let lock = lock_of_tool(&upstream, &[("helper", "1.0.0")]);
    upstream.publish(
        Crate::new("tool", "1.0.0")
            .dep("helper", "^1")
            .dep("other", "^1")
            .file("src/main.rs", "fn main() {}")
            .file("Cargo.lock", lock.as_str()),
    );
    let site = site_with_cargo(&upstream);
    let (report, code) = run_json(&site, &["warm", "--crate", "tool"]);
    assert_eq!(
        (report["fetched"].as_u64(), code),
        (Some(3), 0),
        "{report:#}"
    );
    upstream.stop();
    let (readiness, code) = run_json(&site, &["check", "--crate", "tool"]);
    assert_eq!(code, 0, "{readiness:#}");
    let larder = site.serve(&[]);
    install(&larder, "tool").assert_success();
    larder.stop();
    // Without `other`, which the lock file does not name, cargo could not install it.
    assert!(
        site.command(&["forget", "other", "1.0.0", "--force"])
            .status
            .success()
    );
    let (readiness, code) = run_json(&site, &["check", "--crate", "tool"]);
    assert_eq!(code, 1, "{readiness:#}");
    install(&site.serve(&[]), "tool").assert_failure();
}

#[test]
fn newer_version_that_is_not_stored_leaves_the_stored_one_installable() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let site = site_with_cargo(&upstream);
    run_json(&site, &["warm", "--crate", "tool"]);
    upstream.publish(
        Crate::new("tool", "1.1.0")
            .dep("helper", "^1")
            .file("src/main.rs", "fn main() {}"),
    );
    // A client makes larder store the entry that lists it.
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get("/to/ol/tool").status, 200);
    larder.stop();
    upstream.stop();
    let (readiness, code) = run_json(&site, &["check", "--crate", "tool"]);
    assert_eq!(code, 0, "{readiness:#}");
    assert_eq!(readiness["crates"][0]["version"], "1.0.0", "{readiness:#}");
    install(&site.serve(&["--offline"]), "tool").assert_success();
}

#[test]
fn warmed_dependency_is_added_and_built_offline() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("right", "1.2.0").file("src/lib.rs", "pub fn one() {}"));
    for version in ["0.9.0", "1.0.0"] {
        let left = Crate::new("left", version).dep("right", "^1");
        upstream.publish(left.file("src/lib.rs", "pub fn two() { right::one() }"));
    }
    let site = site_with_cargo(&upstream);
    let arguments = ["warm", "--with-dependencies", "--crate", "left"];
    let (report, code) = run_json(&site, &arguments);
    assert_eq!(
        (report["fetched"].as_u64(), code),
        (Some(2), 0),
        "{report:#}"
    );

    upstream.stop();
    let check = site.command(&["check", "--with-dependencies", "--crate", "left"]);
    assert!(check.status.success(), "{check:?}");
    assert_eq!(stdout(&check), "ready      dependency left  (2 packages)\n");
    let larder = site.serve(&["--offline"]);
    let (home, project) = (CargoHome::empty(), Project::empty());
    home.run(&project, &["add", "left"], larder.url())
        .assert_success();
    home.run(&project, &["build"], larder.url())
        .assert_success();
    let lock = project.lock();
    assert!(
        lock.contains("name = \"left\"\nversion = \"1.0.0\""),
        "{lock}"
    );
    larder.stop();

    // Not even cargo can find what was never stored.
    let (readiness, code) = run_json(
        &site,
        &["check", "--with-dependencies", "--crate", "left@0.9"],
    );
    assert_eq!(code, 1, "{readiness:#}");
}

#[test]
fn dry_run_of_a_crate_fetches_nothing() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let site = site_with_cargo(&upstream);
    let dry_run = site.command(&["warm", "--dry-run", "--crate", "tool"]);
    assert!(dry_run.status.success(), "{dry_run:?}");
    let said = stdout(&dry_run);
    assert!(
        said.contains("would fetch index entry of `tool` (what it needs"),
        "{said}"
    );
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn crate_for_one_target_leaves_out_what_only_others_need() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("here", "1.0.0"));
    upstream.publish(Crate::new("elsewhere", "1.0.0"));
    let needed = [("elsewhere", "1.0.0"), ("here", "1.0.0")];
    let lock = lock_of_tool(&upstream, &needed);
    upstream.publish(
        Crate::new("tool", "1.0.0")
            .dep("here", "^1")
            .target_dep("cfg(windows)", "elsewhere", "^1")
            .file("src/main.rs", "fn main() {}")
            .file("Cargo.lock", lock.as_str()),
    );
    let site = site_with_cargo(&upstream);
    let target = ["--target", "x86_64-unknown-linux-gnu"];
    let arguments = [["warm", "--crate", "tool"].as_slice(), &target].concat();
    let (report, code) = run_json(&site, &arguments);
    assert_eq!(
        (report["fetched"].as_u64(), code),
        (Some(2), 0),
        "{report:#}"
    );
    assert_eq!(upstream.requests_for(&crate_path("elsewhere", "1.0.0")), 0);
    upstream.stop();
    let arguments = [["check", "--crate", "tool"].as_slice(), &target].concat();
    assert_eq!(run_json(&site, &arguments).1, 0);
    install(&site.serve(&[]), "tool").assert_success();
}

#[test]
fn list_names_crates_and_projects() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    upstream.publish(Crate::new("left", "1.0.0"));
    let folder = TempDir::new().unwrap();
    let app = folder.path().join("app");
    fs::create_dir_all(&app).unwrap();
    fs::write(app.join("Cargo.lock"), lock_file(&upstream, &["left"])).unwrap();
    let list = folder.path().join("list.txt");
    fs::write(&list, "# tools\ntool@^1  # the tool\n\n./app\n").unwrap();
    let list_path = list.display().to_string();
    let site = site_with_cargo(&upstream);
    let (report, code) = run_json(&site, &["warm", "--list", &list_path]);
    let counts = ["projects", "crates", "fetched"].map(|field| report[field].as_u64());
    assert_eq!((counts, code), ([1, 1, 3].map(Some), 0), "{report:#}");
    upstream.stop();
    assert_eq!(run_json(&site, &["check", "--list", &list_path]).1, 0);

    fs::write(&list, "tool\nCargo.lock\n").unwrap();
    let refused = site.command(&["warm", "--list", &list_path]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = stderr(&refused);
    assert!(
        said.contains("list.txt, line 2: `Cargo.lock` is no crate's name"),
        "{said}"
    );
}

#[test]
fn plain_warm_and_check_heed_the_declared_set() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let folder = TempDir::new().unwrap();
    let settings = folder.path().join("config.toml");
    fs::write(&settings, "[[warm.crate]]\nname = \"tool\"\n").unwrap();
    let empty = TempDir::new().unwrap();
    let site = site_with_cargo(&upstream)
        .variable("LARDER_CONFIG", &settings.display().to_string())
        .shell_prelude(&format!("cd {}", empty.path().display()));
    let run = |arguments: &[&str]| {
        let output = site.command(arguments);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (document, output.status.code())
    };
    let (readiness, code) = run(&["check", "--json"]);
    assert_eq!(code, Some(1), "{readiness:#}");
    // The current folder has no project, which is no fault where a set is declared.
    let (report, code) = run(&["warm", "--json"]);
    assert_eq!(
        (report["crates"].as_u64(), code),
        (Some(1), Some(0)),
        "{report:#}"
    );
    upstream.stop();
    let (readiness, code) = run(&["check", "--json"]);
    assert_eq!(
        (readiness["crates"][0]["name"].as_str(), code),
        (Some("tool"), Some(0))
    );
    // A project in the current folder counts too.
    fs::write(
        empty.path().join("Cargo.lock"),
        "version = 4\n\n[[package]]\nname = \"gone\"\nversion = \"1.0.0\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\n",
    )
    .unwrap();
    let (readiness, code) = run(&["check", "--json"]);
    assert_eq!(code, Some(1), "{readiness:#}");
    assert_eq!(readiness["crates"][0]["ready"], true, "{readiness:#}");
    // A path on the command line means that alone.
    let path = empty.path().display().to_string();
    let (readiness, _) = run(&["check", &path, "--json"]);
    assert_eq!(
        readiness["crates"].as_array().map(Vec::len),
        Some(0),
        "{readiness:#}"
    );
}

#[test]
fn list_names_what_is_kept_and_what_is_no_longer_stored() {
    let upstream = FakeUpstream::start();
    publish_tool(&upstream, true);
    let site = site_with_cargo(&upstream);
    assert_eq!(
        run_json(&site, &["list"]).0["items"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    run_json(&site, &["warm", "--crate", "tool"]);
    let (list, _) = run_json(&site, &["list"]);
    let item = &list["items"][0];
    assert_eq!(
        (item["kind"].as_str(), item["name"].as_str()),
        (Some("crate"), Some("tool"))
    );
    assert_eq!(
        (item["packages"].as_u64(), item["complete"].as_bool()),
        (Some(2), Some(true))
    );
    assert!(
        item["bytes"].as_u64() > Some(0) && item["last_used"].is_u64(),
        "{list:#}"
    );
    site.command(&["forget", "helper", "1.0.0", "--force"]);
    let said = stdout(&site.command(&["list"]));
    assert!(said.starts_with("not ready  crate       tool"), "{said}");
    assert!(said.contains("missing: helper 1.0.0"), "{said}");
}
