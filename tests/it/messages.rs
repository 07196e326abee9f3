//! Messages about faults: one line for each cause, however many things it hits, and only hints that are true.

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream, Installer, Toolchain};
use larder::hash::Sha256;
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{site, site_at};
use testkit::larder::Site;
use testkit::store::blob_path;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A folder with a lock file.
fn project(packages: &[String]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let text = format!("version = 4\n{}", packages.concat());
    fs::write(folder.path().join("Cargo.lock"), text).unwrap();
    folder
}

fn package(name: &str, source: &str, checksum: &str) -> String {
    let checksum = match checksum {
        "" => String::new(),
        sum => format!("checksum = \"{sum}\"\n"),
    };
    format!(
        "\n[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{source}\"\n{checksum}"
    )
}

/// Packages of crates.io that upstream does not have.
fn unknown(count: usize) -> Vec<String> {
    let names = (0..count).map(|number| format!("unknown-{number}"));
    names.map(|name| package(&name, CRATES_IO, "")).collect()
}

/// Publishes a crate and returns its package in a lock file.
fn published(upstream: &FakeUpstream, package_: Crate, name: &str) -> String {
    package(name, CRATES_IO, &upstream.publish(package_))
}

fn run(site: &Site, command: &[&str], folder: &Path) -> Output {
    let folder = folder.display().to_string();
    let mut all = command.to_vec();
    all.push(&folder);
    site.command(&all)
}

fn said(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|out| String::from_utf8_lossy(out));
    format!("{stdout}{stderr}")
}

/// The only line that contains `text`.
#[track_caller]
fn only_line<'a>(said: &'a str, text: &str) -> &'a str {
    let lines: Vec<_> = said.lines().filter(|line| line.contains(text)).collect();
    assert_eq!(lines.len(), 1, "`{text}` in\n{said}");
    lines[0]
}

#[test]
fn upstream_out_of_reach_is_one_line_with_a_count() {
    let upstream = FakeUpstream::start();
    let project = project(&unknown(137));
    let site = site(&upstream);
    upstream.stop();
    let output = run(&site, &["warm"], project.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    let line = only_line(&said, "cannot connect to ");
    assert!(
        line.starts_with("failed 137, among them unknown-0 1.0.0, "),
        "{line}"
    );
    assert!(
        line.ends_with("; check the network and the proxy settings"),
        "{line}"
    );
    assert!(!said.contains("keeps trying"), "{said}");
    // Progress, this line, what is not ready, and the summary.
    assert!(said.lines().count() < 8, "{said}");
}

#[test]
fn two_thousand_unknown_packages_are_one_line_each_of_warm_and_check() {
    let upstream = FakeUpstream::start();
    let project = project(&unknown(2_000));
    let site = site(&upstream);
    let warmed = run(&site, &["warm"], project.path());
    let said_by_warm = said(&warmed);
    let line = only_line(&said_by_warm, "upstream does not have them; the index is ");
    assert!(
        line.starts_with("failed 2,000, among them unknown-0 1.0.0, "),
        "{line}"
    );
    assert!(said_by_warm.lines().count() < 8, "{said_by_warm}");
    let checked = said(&run(&site, &["check"], project.path()));
    only_line(
        &checked,
        "missing: 2,000, among them index entry of `unknown-0 1.0.0`, ",
    );
    assert!(checked.lines().count() < 5, "{checked}");
    let all = said(&run(&site, &["check", "-v"], project.path()));
    assert_eq!(all.matches("missing: ").count(), 2_000);
    let json: Value =
        serde_json::from_slice(&run(&site, &["warm", "--json"], project.path()).stdout).unwrap();
    assert_eq!(json["failed"].as_array().map(Vec::len), Some(2_000));
}

#[test]
fn full_disk_is_one_line_that_says_so() {
    let upstream = FakeUpstream::start();
    let names = ["one", "two", "three", "four", "five"];
    let large = |name| Crate::new(name, "1.0.0").padding(300_000);
    let packages = names.map(|name| published(&upstream, large(name), name));
    let project = project(&packages);
    // A limit on the file size looks to the process like a full file system.
    let site = site(&upstream).shell_prelude("ulimit -f 64");
    let output = run(&site, &["warm"], project.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    let line = only_line(&said, "no space left");
    assert!(line.starts_with("failed 5, among them "), "{line}");
    assert!(
        line.contains("make room, or choose another `--store`"),
        "{line}"
    );
}

#[test]
fn warm_is_the_hint_only_for_what_it_fetches() {
    let upstream = FakeUpstream::start();
    let stored = published(&upstream, Crate::new("stored", "1.0.0"), "stored");
    let other = published(&upstream, Crate::new("other", "1.0.0"), "other");
    let git = package(
        "left",
        "git+https://git.example/left#0123456789abcdef0123456789abcdef01234567",
        "",
    );
    let strange = package("strange", "sparse+https://corp.example/index/", "");
    let site = site(&upstream);
    assert!(
        run(
            &site,
            &["warm"],
            project(std::slice::from_ref(&stored)).path()
        )
        .status
        .success()
    );

    let misfit = project(std::slice::from_ref(&stored));
    let manifest = "[package]\nname = \"p\"\nversion = \"0.1.0\"\n\n[workspace]\n\n[dependencies]\nother = \"1\"\n";
    fs::write(misfit.path().join("Cargo.toml"), manifest).unwrap();
    let forged = project(&[package("stored", CRATES_IO, &"a".repeat(64))]);
    let cases = [
        (misfit, "does not fit Cargo.toml", None),
        (forged, "with the hash that the lock file wants", None),
        (project(std::slice::from_ref(&git)), "comes from git", None),
        (project(&[strange]), "[registry.NAME]", None),
        (
            project(std::slice::from_ref(&other)),
            "index entry of `other 1.0.0`",
            Some("fetches what is missing"),
        ),
        (
            project(&[other, git]),
            "comes from git",
            Some("fetches a part of what is missing"),
        ),
    ];
    for (project, reason, hint) in cases {
        let output = run(&site, &["check"], project.path());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
        match hint {
            Some(hint) => assert!(only_line(&said, "hint: ").contains(hint), "{said}"),
            None => assert!(!said.contains("hint: "), "{said}"),
        }
    }
}

/// An upstream with a release of rustup and of `stable`, and the program of that rustup.
fn released() -> (FakeUpstream, Vec<u8>) {
    let upstream = FakeUpstream::start();
    upstream.release(&Toolchain::new("stable", "1.95.0").date("2026-04-16"));
    let program = b"#!/bin/sh\necho a program of rustup\n".repeat(9);
    upstream.release_rustup(&Installer::new("1.29.0").program(program.clone()));
    (upstream, program)
}

#[test]
fn check_of_a_damaged_rustup_reports_it_and_leaves_it_in_place() {
    let (upstream, program) = released();
    let site = site(&upstream);
    let server = upstream.base_url();
    let arguments = [
        "--dist-server",
        server,
        "--bootstrap",
        "--toolchain",
        "stable",
    ];
    let run = |command: &[&str]| site.command(&[command, &arguments].concat());
    let warmed = run(&["warm"]);
    assert!(warmed.status.success(), "{}", said(&warmed));
    let blob = blob_path(&site, &Sha256::of(&program).to_string());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[5] ^= 1;
    fs::write(&blob, &bytes).unwrap();

    for command in [&["check"][..], &["check", "--verify"]] {
        let output = run(command);
        assert_eq!(
            fs::read(&blob).ok().as_ref(),
            Some(&bytes),
            "{}",
            said(&output)
        );
    }
    let checked = run(&["check", "--verify"]);
    let text = said(&checked);
    assert_eq!(checked.status.code(), Some(1), "{text}");
    assert!(
        text.contains("rustup-init`: the stored copy is damaged"),
        "{text}"
    );
    assert!(
        text.contains("`larder warm` with the same arguments fetches what is missing"),
        "{text}"
    );
    assert!(run(&["warm"]).status.success());
    assert!(run(&["check", "--verify"]).status.success());
}

#[test]
fn dry_run_names_what_it_would_fetch_and_asks_upstream_nothing() {
    let (upstream, _) = released();
    let one = published(&upstream, Crate::new("one", "1.0.0").padding(5_000), "one");
    let site = site(&upstream);
    let server = upstream.base_url();
    let project = project(&[one]);
    let arguments = ["warm", "--toolchain", "stable", "--dist-server", server];
    let warm = |more: &[&str]| run(&site, &[&arguments, more].concat(), project.path());
    let would_fetch = |output: &Output| {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = report["would_fetch"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let text = |thing: &Value| thing["what"].as_str().unwrap_or_default().to_owned();
        list.iter()
            .map(|thing| (text(thing), thing["bytes"].as_u64()))
            .collect::<Vec<_>>()
    };

    let output = warm(&["--dry-run", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let found = would_fetch(&output);
    let names: Vec<_> = found.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(
        names[..2],
        ["crate `one 1.0.0`", "index entry of `one 1.0.0`"]
    );
    assert!(names[2].contains("release-stable.toml"), "{names:?}");
    let toolchain =
        "`dist/channel-rust-stable.toml` is not stored, so its components are not known yet";
    assert!(
        names[3].starts_with("toolchain stable-") && names[3].contains(toolchain),
        "{names:?}"
    );
    let plain = said(&warm(&["--dry-run"]));
    assert!(plain.contains("would fetch crate `one 1.0.0`\n"), "{plain}");
    assert!(plain.contains("and 4 of unknown size"), "{plain}");
    assert_eq!(upstream.connections(), 0);

    assert!(warm(&[]).status.success());
    let connections = upstream.connections();
    assert_eq!(would_fetch(&warm(&["--dry-run", "--json"])), []);
    // The earlier run has recorded sizes.
    let blobs = testkit::store::blobs(&site);
    for path in &blobs {
        fs::remove_file(path).unwrap();
    }
    let found = would_fetch(&warm(&["--dry-run", "--json"]));
    let sized: u64 = found.iter().filter_map(|(_, bytes)| *bytes).sum();
    assert!(
        found
            .iter()
            .any(|(what, _)| what.starts_with("component `rustc`")),
        "{found:?}"
    );
    let pinned = found.iter().filter(|(_, bytes)| bytes.is_some()).count();
    assert_eq!(
        pinned + 1,
        blobs.len(),
        "all but rustup's own program: {found:?}"
    );
    assert!(sized > 5_000, "{found:?}");
    assert_eq!(upstream.connections(), connections);
}

#[test]
fn check_and_status_read_the_store_of_another_user_and_warm_says_the_remedy() {
    let upstream = FakeUpstream::start();
    let one = published(&upstream, Crate::new("one", "1.0.0"), "one");
    let two = published(&upstream, Crate::new("two", "1.0.0"), "two");
    let site = site(&upstream);
    let (held, missing) = (project(&[one]), project(&[two]));
    assert!(run(&site, &["warm"], held.path()).status.success());
    let chown = |owner: &str| {
        let store = site.store().display().to_string();
        let changed = std::process::Command::new("chown")
            .args(["-R", owner, &store])
            .status();
        changed.is_ok_and(|status| status.success())
    };
    if !chown("65534") {
        // Only root can give a store away, and read it afterwards.
        return;
    }
    let before = testkit::store::files(site.store());
    let output = run(&site, &["check"], held.path());
    assert!(output.status.success(), "{}", said(&output));
    let output = run(&site, &["check"], missing.path());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let output = site.command(&["status"]);
    assert!(
        said(&output).contains("projects  1 ready\n"),
        "{}",
        said(&output)
    );
    let output = run(&site, &["warm"], missing.path());
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("it belongs to user 65534, and this is user 0; run larder as its owner"),
        "{text}"
    );
    assert_eq!(testkit::store::files(site.store()), before);
}

#[test]
fn check_of_a_store_of_another_index_names_that_index() {
    let upstream = FakeUpstream::start();
    let names = ["one", "two", "three", "four"];
    let packages = names.map(|name| published(&upstream, Crate::new(name, "1.0.0"), name));
    let project = project(&packages);
    let first = site(&upstream);
    assert!(run(&first, &["warm"], project.path()).status.success());
    let other = "http://mirror.example/index/";
    let second = site_at(other).store_in(first.store());
    let output = run(&second, &["check"], project.path());
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let expected = format!(
        "the store belongs to {}, not to the index {other}",
        upstream.url()
    );
    let line = only_line(&text, &expected);
    assert!(line.contains("missing: 4, among them "), "{text}");
}

#[test]
fn refusing_proxy_is_named_with_its_variable() {
    let project = project(&unknown(1));
    let site = site_at("http://mirror.example/index/").variable("HTTP_PROXY", "http://127.0.0.1:9");
    let text = said(&run(&site, &["warm"], project.path()));
    let expected = "the proxy http://127.0.0.1:9 (from HTTP_PROXY) refused the connection";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn serve_on_a_read_only_store_serves_what_is_stored_and_says_so_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = FakeUpstream::start();
    let one = published(&upstream, Crate::new("one", "1.0.0"), "one");
    upstream.publish(Crate::new("two", "1.0.0").padding(300_000));
    // Root may write to any folder, unless it gives that up.
    let drop_override =
        "[ $(id -u) != 0 ] || exec setpriv --bounding-set=-dac_override \"$0\" \"$@\"";
    let site = site(&upstream).shell_prelude(drop_override);
    assert!(
        run(&site, &["warm"], project(&[one]).path())
            .status
            .success()
    );
    let set_modes = |mode| {
        for folder in walkdir::WalkDir::new(site.store()).contents_first(true) {
            let folder = folder.unwrap();
            if folder.file_type().is_dir() {
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(folder.path(), mode).unwrap();
            }
        }
    };
    set_modes(0o500);
    let before = testkit::store::files(site.store());
    let larder = site.serve(&["--max-age", "0s"]);
    for name in ["one", "two"] {
        let reply = larder.get(&testkit::paths::entry(name));
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body(name)),
            "{name}"
        );
        let reply = larder.get(&testkit::paths::download(name, "1.0.0"));
        assert!(
            reply.complete && reply.body == upstream.body(name, "1.0.0"),
            "{name}: {reply:?}"
        );
    }
    larder.wait_until_idle();
    let log = larder.stop();
    set_modes(0o700);
    assert_eq!(testkit::store::files(site.store()), before);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("the store is read-only; serving what is stored"),
        "{log}"
    );
}
