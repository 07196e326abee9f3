//! `larder warm` and `larder check` as a user runs them, and their effect on a running daemon.
//!
//! Unit tests cover finding projects and reading lock files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream, crate_path, entry_path, index_path};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{site, site_at};
use testkit::larder::Site;
use testkit::process::signal;
use testkit::store::{crates_io_folder, entry_file};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    let cargo = Path::new(env!("CARGO"));
    let folder = cargo.parent().expect("cargo is in a folder");
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

/// A folder of projects.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        Self(TempDir::new().expect("the temporary folder is writable"))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        let folder = path.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("the temporary folder is writable");
        fs::write(path, text).expect("the temporary folder is writable");
    }

    /// Writes a project whose lock file has these packages.
    fn lock(&self, project: &str, packages: &[String]) {
        let text = format!("version = 4\n{}", packages.concat());
        self.write(&format!("{project}/Cargo.lock"), &text);
    }

    fn manifest(&self, project: &str, dependencies: &str) {
        let text = format!(
            "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n\n{dependencies}"
        );
        self.write(&format!("{project}/Cargo.toml"), &text);
        self.write(&format!("{project}/src/lib.rs"), "");
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

/// A lock file's entry for a package of crates.io.
fn locked(name: &str, version: &str, checksum: Option<&str>) -> String {
    locked_from(CRATES_IO, name, version, checksum)
}

fn locked_from(source: &str, name: &str, version: &str, checksum: Option<&str>) -> String {
    let checksum = checksum.map_or_else(String::new, |sum| format!("checksum = \"{sum}\"\n"));
    format!(
        "\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n{checksum}"
    )
}

/// Publishes empty crates of version 1.0.0 and returns their lock file entries.
fn published(upstream: &FakeUpstream, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| {
            let sum = upstream.publish(Crate::new(name, "1.0.0"));
            locked(name, "1.0.0", Some(&sum))
        })
        .collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command with `--json`. Returns its document and its exit code.
#[track_caller]
fn run_json(site: &Site, arguments: &[&str]) -> (Value, i32) {
    let mut all = arguments.to_vec();
    all.push("--json");
    let output = site.command(&all);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches('\n').count(), 1, "one document: {output:?}");
    let document = serde_json::from_str(&text);
    let document = document.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (document, output.status.code().unwrap_or(-1))
}

/// The counts of a report: projects, packages, fetched, cached.
fn counts(report: &Value) -> [u64; 4] {
    ["projects", "packages", "fetched", "cached"]
        .map(|field| report[field].as_u64().unwrap_or(u64::MAX))
}

#[track_caller]
fn assert_problem(list: &Value, what: &str, why: &str) {
    let found = list.as_array().into_iter().flatten().any(|problem| {
        let part = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
        part("what").contains(what) && part("why").contains(why)
    });
    assert!(found, "no `{what}` with `{why}` in {list:#}");
}

#[test]
fn warm_finds_every_lock_file_below_a_folder_and_a_second_run_sends_no_request() {
    let upstream = FakeUpstream::start();
    let all = published(&upstream, &["one", "two", "three"]);
    let tree = Tree::new();
    tree.lock("a", &all[..2]);
    tree.lock("b/deep/down", &all[1..]);
    let site = site(&upstream);

    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([2, 3, 3, 0], 0), "{report:#}");
    assert_eq!(report["failed"], json!([]));
    assert_eq!(report["skipped"], json!([]));
    assert!(report["bytes"].as_u64() > Some(3 * 512), "{report:#}");
    assert!(report["seconds"].as_f64() > Some(0.0), "{report:#}");
    for name in ["one", "two", "three"] {
        assert_eq!(upstream.requests_for(&crate_path(name, "1.0.0")), 1);
        assert_eq!(upstream.requests_for(&entry_path(name)), 1);
    }

    let connections = upstream.connections();
    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([2, 3, 0, 3], 0), "{report:#}");
    assert_eq!(report["bytes"], 0);
    assert_eq!(upstream.connections(), connections);
}

#[test]
fn warm_reports_on_stderr_and_writes_data_to_stdout() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &["one"]));
    let site = site(&upstream).variable("TERM", "xterm-256color");
    let output = site.command(&["warm", &tree.path()]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("1 package in 1 project: 1 fetched, 0 were there"),
        "{said}"
    );
    // No progress bar and no colour without a terminal.
    assert!(!said.contains(['\u{1b}', '\r', '█']), "{said:?}");
    let quiet = site.command(&["warm", "-q", &tree.path()]);
    assert!(
        quiet.stdout.is_empty() && quiet.stderr.is_empty(),
        "{quiet:?}"
    );
}

#[test]
fn dry_run_counts_missing_packages_without_requests_or_writes() {
    let upstream = FakeUpstream::start();
    let all = published(&upstream, &["one", "two"]);
    let tree = Tree::new();
    tree.lock("a", &all[..1]);
    let site = site(&upstream);
    run_json(&site, &["warm", &tree.path()]);
    tree.lock("a", &all);
    let connections = upstream.connections();
    for _ in 0..2 {
        let (report, code) = run_json(&site, &["warm", "--dry-run", &tree.path()]);
        assert_eq!((counts(&report), code), ([1, 2, 1, 1], 0), "{report:#}");
    }
    assert_eq!(upstream.connections(), connections);
}

#[test]
fn refresh_revalidates_every_entry_and_fetches_no_stored_crate() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &["one", "two"]));
    let site = site(&upstream);
    run_json(&site, &["warm", &tree.path()]);
    upstream.forget_requests();
    let (report, code) = run_json(&site, &["warm", "--refresh", &tree.path()]);
    assert_eq!((counts(&report), code), ([1, 2, 0, 2], 0), "{report:#}");
    assert_eq!(upstream.requests_for(&entry_path("one")), 1);
    assert_eq!(upstream.requests_for(&entry_path("two")), 1);
    assert_eq!(upstream.requests_for("/dl/"), 0);

    upstream.stop();
    let (report, code) = run_json(&site, &["warm", "--refresh", &tree.path()]);
    assert_eq!(code, 1, "{report:#}");
    assert_problem(&report["failed"], "one 1.0.0", "could not be refreshed");
}

#[test]
fn stored_entry_older_than_the_lock_file_is_revalidated() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &["one"]));
    let site = site(&upstream);
    run_json(&site, &["warm", &tree.path()]);
    let sum = upstream.publish(Crate::new("one", "1.1.0"));
    tree.lock("a", &[locked("one", "1.1.0", Some(&sum))]);
    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([1, 1, 1, 0], 0), "{report:#}");
}

#[test]
fn with_a_target_only_its_crates_are_fetched() {
    let upstream = FakeUpstream::start();
    for name in ["everywhere", "winonly"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let tree = Tree::new();
    tree.manifest(
        "a",
        "[dependencies]\neverywhere = \"1\"\n[target.'cfg(windows)'.dependencies]\nwinonly = \"1\"\n",
    );
    let site = site_with_cargo(&upstream);
    let linux = ["warm", "--target", "x86_64-unknown-linux-gnu", &tree.path()];
    let (report, code) = run_json(&site, &linux);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(upstream.requests_for(&crate_path("everywhere", "1.0.0")), 1);
    assert_eq!(upstream.requests_for(&crate_path("winonly", "1.0.0")), 0);
    // Cargo fetched the crate through larder, to list what the target needs.
    assert_eq!(counts(&report), [1, 2, 1, 0], "{report:#}");
    assert!(report["bytes"].as_u64() >= Some(512), "{report:#}");
    let (again, _) = run_json(&site, &linux);
    assert_eq!(counts(&again), [1, 2, 0, 1], "{again:#}");
    assert_eq!(again["bytes"], 0, "{again:#}");
    let (verdict, code) = run_json(&site, &["check", "--target", linux[2], &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(true), 0), "{verdict:#}");
    let windows = "x86_64-pc-windows-msvc";
    let (verdict, code) = run_json(&site, &["check", "--target", windows, &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(false), 1), "{verdict:#}");
    assert!(verdict.to_string().contains("winonly"), "{verdict:#}");
    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(upstream.requests_for(&crate_path("winonly", "1.0.0")), 1);
}

#[test]
fn project_whose_target_packages_are_unknown_is_warmed_completely() {
    let upstream = FakeUpstream::start();
    let all = published(&upstream, &["everywhere", "winonly", "unknown"]);
    let tree = Tree::new();
    tree.manifest(
        "good",
        "[dependencies]\neverywhere = \"1\"\n[target.'cfg(windows)'.dependencies]\nwinonly = \"1\"\n",
    );
    // The lock file no longer fits its manifest.
    tree.manifest("bad", "[dependencies]\neverywhere = \"1\"\n");
    tree.lock("bad", &all[2..]);
    let site = site_with_cargo(&upstream);
    let linux = ["warm", "--target", "x86_64-unknown-linux-gnu", &tree.path()];
    let (report, code) = run_json(&site, &linux);
    assert_eq!(code, 1, "{report:#}");
    assert_problem(&report["failed"], "bad", "cannot list what a target needs");
    for (name, times) in [("everywhere", 1), ("winonly", 0), ("unknown", 1)] {
        let asked = upstream.requests_for(&crate_path(name, "1.0.0"));
        assert_eq!(asked, times, "{name}");
    }
    let registered = testkit::store::files(&site.store().join("v1/projects"));
    let left_out = registered.iter().flat_map(|(_, text)| {
        let pin: Value = serde_json::from_slice(text).expect("a registration is JSON");
        let packages = pin["packages"].as_array().cloned().unwrap_or_default();
        let out = packages
            .into_iter()
            .filter(|one| one["is_excluded"] == true);
        out.map(|one| one["name"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(left_out.collect::<Vec<_>>(), ["winonly"]);
    assert_eq!(registered.len(), 2);
}

#[test]
fn project_without_a_lock_file_is_resolved_elsewhere_by_warm_and_check() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("right", "1.0.0"));
    upstream.publish(Crate::new("left", "1.0.0").dep("right", "^1"));
    let tree = Tree::new();
    tree.manifest("a", "[dependencies]\nleft = \"1\"\n");
    let site = site_with_cargo(&upstream);
    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["packages"], 2, "{report:#}");
    assert!(!tree.0.path().join("a/Cargo.lock").exists());
    assert_eq!(upstream.requests_for("/dl/"), 2);

    let requests = upstream.connections();
    let (verdict, code) = run_json(&site, &["check", &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(true), 0), "{verdict:#}");
    assert_eq!(verdict["projects"][0]["packages"], 2, "{verdict:#}");
    assert_eq!(upstream.connections(), requests);
    tree.manifest("a", "[dependencies]\nleft = \"1\"\nfar = \"1\"\n");
    let (verdict, code) = run_json(&site, &["check", &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(false), 1), "{verdict:#}");
    assert!(verdict.to_string().contains("far"), "{verdict:#}");
    let (verdict, code) = run_json(
        &site.variable("CARGO", "/no/cargo"),
        &["check", &tree.path()],
    );
    assert_eq!((&verdict["ready"], code), (&json!(false), 1), "{verdict:#}");
    let unknown = verdict["projects"][0]["unknown"].to_string();
    assert!(unknown.contains("cannot run `/no/cargo`"), "{verdict:#}");
}

#[test]
fn dry_run_without_a_lock_file_reports_the_planned_resolve() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.manifest("a", "");
    let (report, code) = run_json(&site(&upstream), &["warm", "--dry-run", &tree.path()]);
    assert_eq!(code, 0);
    assert_problem(&report["skipped"], "a", "has no Cargo.lock");
    assert_eq!(upstream.connections(), 0);
}

/// See docs/client-behaviour.md C-33.
#[test]
fn lock_file_that_contradicts_the_index_is_named_and_not_fetched() {
    let upstream = FakeUpstream::start();
    let mut packages = published(&upstream, &["fine"]);
    upstream.publish(Crate::new("forged", "1.0.0"));
    packages.push(locked("forged", "1.0.0", Some(&"a".repeat(64))));
    let tree = Tree::new();
    tree.lock("a", &packages);
    let (report, code) = run_json(&site(&upstream), &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([1, 2, 1, 0], 1), "{report:#}");
    assert_problem(
        &report["failed"],
        "forged 1.0.0",
        "one of them was tampered with",
    );
    assert_eq!(upstream.requests_for(&crate_path("forged", "1.0.0")), 0);
}

#[test]
fn missing_packages_upstream_do_not_stop_others_and_exit_with_1() {
    let upstream = FakeUpstream::start();
    let mut packages = published(&upstream, &["one", "two"]);
    packages.push(locked("gone", "1.0.0", None));
    packages.push(locked("one", "9.9.9", None));
    // In the index, but without an archive.
    let half = Crate::new("half", "1.0.0");
    upstream.append_index_line("half", &half.index_line(&"b".repeat(64)));
    packages.push(locked("half", "1.0.0", None));
    let tree = Tree::new();
    tree.lock("a", &packages);
    let site = site(&upstream);
    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([1, 5, 2, 0], 1), "{report:#}");
    assert_problem(&report["failed"], "gone 1.0.0", "upstream has no");
    assert_problem(&report["failed"], "one 9.9.9", "does not list that version");
    assert_problem(&report["failed"], "half 1.0.0", "upstream has no");

    let plain = site.command(&["warm", &tree.path()]);
    assert_eq!(plain.status.code(), Some(1));
    assert!(stderr(&plain).contains("failed gone 1.0.0: "), "{plain:?}");
}

/// See docs/client-behaviour.md C-40.
#[test]
fn packages_from_git_and_unknown_registries_are_skipped_by_name() {
    let upstream = FakeUpstream::start();
    let mut packages = published(&upstream, &["one"]);
    let git = "git+https://git.example/left#0123456789abcdef0123456789abcdef01234567";
    packages.push(locked_from(git, "left", "0.3.0", None));
    packages.push(locked_from(
        "sparse+https://corp.example/index/",
        "corp",
        "1.0.0",
        None,
    ));
    packages.push("\n[[package]]\nname = \"local\"\nversion = \"0.1.0\"\n".to_owned());
    let tree = Tree::new();
    tree.lock("a", &packages);
    let (report, code) = run_json(&site(&upstream), &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([1, 1, 1, 0], 1), "{report:#}");
    assert_problem(&report["not_ready"], "a", "corp 1.0.0");
    assert_problem(&report["skipped"], "left 0.3.0", "git");
    assert_problem(&report["skipped"], "corp 1.0.0", "[registry.NAME]");
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(2));
}

/// See docs/client-behaviour.md C-39.
#[test]
fn lock_files_of_all_formats_warm_the_same_packages() {
    let (public, corp) = (FakeUpstream::start(), FakeUpstream::start());
    let sums = [
        ('a', public.publish(Crate::new("left", "1.0.0"))),
        ('d', public.publish(Crate::new("left", "2.0.0-rc.1"))),
        (
            'e',
            public.publish(Crate::new("right_Hand", "0.11.1+snapshot-preview1")),
        ),
        (
            'c',
            corp.publish(Crate::new("left", "1.0.0").file("src/lib.rs", "// corp")),
        ),
    ];
    let settings = format!("[registry.corp]\nindex = \"{}\"\n", corp.url());
    let mut sets = BTreeSet::new();
    for version in ["root", "v1", "v2", "v3", "v4"] {
        let path = format!(
            "{}/fixtures/same-{version}.lock",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut text = fs::read_to_string(&path).expect("the fixture is there");
        for (digit, sum) in &sums {
            text = text.replace(&digit.to_string().repeat(64), sum);
        }
        let text = text.replace("https://corp.example/sparse/", &corp.url());
        let tree = Tree::new();
        tree.write("a/Cargo.lock", &text);
        tree.write("larder.toml", &settings);
        public.forget_requests();
        corp.forget_requests();
        let site = site(&public);
        let config = tree.0.path().join("larder.toml").display().to_string();
        let (report, code) = run_json(&site, &["warm", "--config", &config, &tree.path()]);
        assert_eq!(
            (counts(&report), code),
            ([1, 4, 4, 0], 1),
            "{version}: {report:#}"
        );
        assert_problem(
            &report["skipped"],
            "left 1.0.0",
            "https://corp.example/index",
        );
        assert_problem(&report["skipped"], "left 0.3.0", "git");
        let asked = |upstream: &FakeUpstream| -> BTreeSet<String> {
            upstream
                .requests()
                .into_iter()
                .map(|request| request.path)
                .collect()
        };
        sets.insert((asked(&public), asked(&corp)));
    }
    assert_eq!(sets.len(), 1, "{sets:#?}");
}

/// See docs/client-behaviour.md C-39.
#[test]
fn unreadable_lock_files_are_reported_each_and_do_not_stop_others() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("good", &published(&upstream, &["one"]));
    for (project, fixture) in [("merged", "merge-conflict"), ("newer", "version-5")] {
        let path = format!("{}/fixtures/{fixture}.lock", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&path).expect("the fixture is there");
        tree.write(&format!("{project}/Cargo.lock"), &text);
    }
    let (report, code) = run_json(&site(&upstream), &["warm", &tree.path()]);
    assert_eq!((counts(&report), code), ([3, 1, 1, 0], 1), "{report:#}");
    assert_problem(
        &report["failed"],
        "merged/Cargo.lock",
        "line 8 is a merge conflict mark",
    );
    assert_problem(&report["failed"], "newer/Cargo.lock", "version 5 is newer");
}

/// See docs/client-behaviour.md C-40.
#[test]
fn replaced_and_unused_patched_packages_do_not_fail_warm() {
    let upstream = FakeUpstream::start();
    published(&upstream, &["left", "right"]);
    let path = format!(
        "{}/fixtures/replace-and-patch.lock",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(&path).expect("the fixture is there");
    let tree = Tree::new();
    tree.write("a/Cargo.lock", &text);
    let (report, code) = run_json(&site(&upstream), &["warm", &tree.path()]);
    // Of what takes their place, one comes from git, the other is local.
    assert_eq!((counts(&report), code), ([1, 2, 0, 0], 1), "{report:#}");
    assert_eq!(report["failed"], json!([]));
    assert_problem(&report["skipped"], "left 1.0.0", "git");
    assert_problem(&report["skipped"], "middle 3.0.0", "git");
}

#[test]
fn hostile_lock_entries_reach_neither_the_disk_nor_upstream() {
    let upstream = FakeUpstream::start();
    let sum = upstream.publish(Crate::new("fine", "1.0.0"));
    let path = format!("{}/fixtures/hostile.lock", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).expect("the fixture is there");
    let tree = Tree::new();
    tree.write("a/Cargo.lock", &text.replace(&"a".repeat(64), &sum));
    let (report, code) = run_json(&site(&upstream), &["warm", &tree.path()]);
    assert_eq!(
        (report["fetched"].as_u64(), code),
        (Some(1), 1),
        "{report:#}"
    );
    let asked: BTreeSet<_> = upstream
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    let expected = [
        crate_path("fine", "1.0.0"),
        "/index/config.json".to_owned(),
        entry_path("fine"),
    ];
    assert_eq!(asked, BTreeSet::from(expected));
}

#[test]
fn running_daemon_sees_warmed_files_at_once() {
    let upstream = FakeUpstream::start();
    let mut packages = published(&upstream, &["old", "new"]);
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "1h"]);
    let old_entry = format!("/{}", index_path("old"));
    let before = upstream.index_body("old");
    assert_eq!(larder.get(&old_entry).body, before);
    let sum = upstream.publish(Crate::new("old", "1.1.0"));
    packages.push(locked("old", "1.1.0", Some(&sum)));
    // Still fresh for the daemon, which has no reason to revalidate.
    assert_eq!(larder.get(&old_entry).body, before);

    let tree = Tree::new();
    tree.lock("a", &packages);
    let (report, code) = run_json(&site, &["warm", &tree.path()]);
    assert_eq!(
        (report["fetched"].as_u64(), code),
        (Some(3), 0),
        "{report:#}"
    );
    upstream.stop();
    assert_eq!(larder.get(&old_entry).body, upstream.index_body("old"));
    for (name, version) in [("old", "1.0.0"), ("old", "1.1.0"), ("new", "1.0.0")] {
        let reply = larder.get(&format!("/crates/{name}/{version}/download"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.body, upstream.body(name, version));
    }
}

#[test]
fn warm_and_daemon_can_fetch_the_same_files_concurrently() {
    let upstream = FakeUpstream::start();
    let names: Vec<_> = (0..20).map(|number| format!("both-{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &names));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let gate = upstream.gate("/dl/");
    std::thread::scope(|scope| {
        let warm = scope.spawn(|| run_json(&site, &["warm", &tree.path()]));
        let clients: Vec<_> = names
            .iter()
            .map(|name| {
                let path = format!("/crates/{name}/1.0.0/download");
                let larder = &larder;
                scope.spawn(move || larder.get(&path))
            })
            .collect();
        // Both processes are in the middle of all fetches.
        gate.wait_for(2 * names.len());
        gate.open();
        let (report, code) = warm.join().expect("warm ends");
        assert_eq!((counts(&report), code), ([1, 20, 20, 0], 0), "{report:#}");
        for (client, name) in clients.into_iter().zip(&names) {
            let reply = client.join().expect("a client ends");
            assert!(reply.complete);
            assert_eq!(reply.body, upstream.body(name, "1.0.0"));
        }
    });
    let (verdict, code) = run_json(&site, &["check", &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(true), 0));
}

#[test]
fn check_names_everything_missing_without_requests() {
    let upstream = FakeUpstream::start();
    let mut packages = published(&upstream, &["one", "two"]);
    let tree = Tree::new();
    tree.lock("ready", &packages[..1]);
    let site = site(&upstream);
    run_json(&site, &["warm", &tree.path()]);
    let connections = upstream.connections();

    let (verdict, code) = run_json(&site, &["check", &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(true), 0), "{verdict:#}");
    assert_eq!(verdict["projects"][0]["packages"], 1);
    assert_eq!(verdict["projects"][0]["missing"], json!([]));
    assert_eq!(verdict["failed"], json!([]));
    let plain = site.command(&["check", &tree.path()]);
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(
        plain.status.success() && text.starts_with("ready "),
        "{text}"
    );
    let hint = String::from_utf8_lossy(&plain.stderr).into_owned();
    assert!(hint.starts_with("hint: cargo does not use larder yet") && hint.lines().count() == 1);

    packages.push(locked("one", "1.2.0", None));
    packages.push(locked_from(
        "git+https://git.example/left#01",
        "left",
        "0.3.0",
        None,
    ));
    tree.lock("short", &packages);
    let (verdict, code) = run_json(&site, &["check", &tree.path()]);
    assert_eq!((&verdict["ready"], code), (&json!(false), 1), "{verdict:#}");
    assert_eq!(verdict["projects"][0]["ready"], true);
    assert_eq!(verdict["projects"][1]["ready"], false);
    let missing = &verdict["projects"][1]["missing"];
    assert_eq!(missing.as_array().map(Vec::len), Some(3), "{missing:#}");
    let plain = site.command(&["check", &tree.path()]);
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    for expected in [
        "not ready",
        "`one 1.2.0`",
        "`two 1.0.0`",
        "left 0.3.0",
        "git",
    ] {
        assert!(text.contains(expected), "no {expected}: {text}");
    }
    assert_eq!(plain.status.code(), Some(1));
    assert!(stderr(&plain).contains("`larder warm`"), "{plain:?}");
    assert_eq!(upstream.connections(), connections);
}

#[test]
fn check_of_a_missing_path_fails_and_names_it() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    for command in ["check", "warm"] {
        let (said, code) = run_json(&site, &[command, "/nowhere/at/all"]);
        assert_eq!(code, 1, "{said:#}");
        assert_problem(&said["failed"], "/nowhere/at/all", "");
    }
}

/// See docs/client-behaviour.md C-33.
#[test]
fn crate_with_another_hash_than_in_the_lock_file_is_not_ready() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &["one"]));
    let site = site(&upstream);
    run_json(&site, &["warm", &tree.path()]);
    tree.lock("a", &[locked("one", "1.0.0", Some(&"c".repeat(64)))]);
    let (verdict, code) = run_json(&site, &["check", &tree.path()]);
    assert_eq!(code, 1, "{verdict:#}");
    assert!(
        verdict
            .to_string()
            .contains("with the hash that the lock file wants")
    );
}

#[test]
fn warm_reads_a_lock_file_with_any_name() {
    let upstream = FakeUpstream::start();
    let packages = published(&upstream, &["one"]);
    let tree = Tree::new();
    tree.write("saved.lock", &format!("version = 4\n{}", packages.concat()));
    let file = Path::new(&tree.path())
        .join("saved.lock")
        .display()
        .to_string();
    let (report, code) = run_json(&site(&upstream), &["warm", &file]);
    assert_eq!((counts(&report), code), ([1, 1, 1, 0], 0), "{report:#}");
}

#[test]
fn interrupted_warm_keeps_fetched_files() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &["left"]));
    let site = site(&upstream);
    let gate = upstream.gate("/dl/left");
    let process = site.spawn(&["warm", &tree.path()]);
    gate.wait_for(1);
    signal(process.id(), "INT");
    let output = process.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("interrupted; what was fetched is kept"),
        "{said}"
    );
    assert!(entry_file(&site, "left").exists());
    assert!(crates_io_folder(&site).join("config.json").exists());
}

#[test]
fn url_that_is_no_index_is_named_without_its_secrets() {
    let upstream = FakeUpstream::start();
    let tree = Tree::new();
    tree.lock("a", &published(&upstream, &["left"]));
    let check = |index: &str, expected: &str| {
        let site = site_at(index);
        let (report, code) = run_json(&site, &["warm", &tree.path()]);
        assert_eq!(code, 1);
        assert_problem(&report["failed"], "left 1.0.0", expected);
        assert!(!report.to_string().contains("secret"), "{report:#}");
    };
    let url = upstream.url().replace("//", "//user:secret@");
    let public = upstream.url();
    check(
        &format!("{url}short/"),
        &format!("{public}short/ is no cargo index, it has no config.json"),
    );
    upstream.unpublish("left");
    check(
        &url,
        &format!("has no index entry of `left`; the index is {public}"),
    );
}
