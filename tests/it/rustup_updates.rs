//! Real rustup through larder over time: releases in between, interrupted downloads, rustup's self-update.
//!
//! Other tests cover single installs.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use fake_upstream::{FakeUpstream, Fault, HOST, Installer, Toolchain};

use crate::dist::MINIMAL;
use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::process::Run;
use testkit::process::wait_until;
use testkit::rustup::{Rustup, installed};

fn old() -> Toolchain {
    Toolchain::new("stable", "1.95.0").date("2026-04-16")
}

fn new() -> Toolchain {
    Toolchain::new("stable", "1.96.0").date("2026-05-28")
}

fn program() -> Vec<u8> {
    std::fs::read(installed()).unwrap()
}

/// A larder that revalidates channel names on each request.
fn serve<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    let server = upstream.base_url().trim_end_matches('/');
    site.serve(&["-v", "--max-age", "0s", "--dist-server", server])
}

#[track_caller]
fn run(user: &Rustup, larder: &Larder<'_>, arguments: &[&str]) -> Run {
    let server = larder.url().trim_end_matches('/');
    user.run(arguments, server, &format!("{server}/rustup"))
}

/// Upstream's requests for each archive of a release's minimal profile.
fn asked(upstream: &FakeUpstream, toolchain: &Toolchain) -> [usize; 3] {
    let requests = upstream.requests();
    ["cargo", "rust-std", "rustc"].map(|package| {
        let path = format!("{}.xz", toolchain.archive_path(package, HOST));
        requests
            .iter()
            .filter(|request| request.path == path)
            .count()
    })
}

#[track_caller]
fn rustc(user: &Rustup) -> String {
    user.installed_text(&format!("stable-{HOST}"), "bin/rustc")
}

#[test]
fn update_across_a_release_fetches_each_archive_once_and_repeats_offline() {
    let upstream = FakeUpstream::start();
    upstream.release(&old());
    upstream.release_rustup(&Installer::new("1.29.0").program(program()));
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let (user, other) = (Rustup::without_toolchain(), Rustup::without_toolchain());
    for user in [&user, &other] {
        run(user, &larder, &MINIMAL).assert_success();
        assert!(rustc(user).contains("rustc 1.95.0"), "{}", rustc(user));
    }
    larder.wait_until_idle();
    let update = run(&user, &larder, &["update", "--no-self-update"]);
    assert!(update.stdout.contains("unchanged"), "{update:?}");

    upstream.release(&new());
    let update = run(&user, &larder, &["update", "--no-self-update"]);
    update.assert_success();
    assert!(rustc(&user).contains("rustc 1.96.0"), "{}", rustc(&user));
    assert_eq!(asked(&upstream, &old()), [1, 1, 1]);
    assert_eq!(asked(&upstream, &new()), [1, 1, 1]);

    larder.wait_until_idle();
    upstream.stop();
    let larder = larder.restart(&["--offline"]);
    run(&other, &larder, &["update", "--no-self-update"]).assert_success();
    assert!(rustc(&other).contains("rustc 1.96.0"), "{}", rustc(&other));
}

/// A release whose given components are large and have this fault.
fn interrupted(components: &[&str], how: &Fault) -> (FakeUpstream, Toolchain) {
    let upstream = FakeUpstream::start();
    let toolchain = components
        .iter()
        .fold(old(), |toolchain, name| toolchain.padding(name, LARGE));
    upstream.release(&toolchain);
    upstream.release_rustup(&Installer::new("1.29.0").program(program()));
    for name in components {
        let path = format!("{}.xz", toolchain.archive_path(name, HOST));
        upstream.fault(&path, how.clone());
    }
    (upstream, toolchain)
}

const LARGE: usize = 6_000_000;

/// Starts an install and waits until much of a large component has arrived. Returns the process and the partial file.
#[track_caller]
fn start(user: &Rustup, larder: &Larder<'_>) -> (Child, PathBuf) {
    let server = larder.url().trim_end_matches('/');
    let mut command = user.command("rustup", server, &format!("{server}/rustup"));
    command
        .args(MINIMAL)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = command.spawn().unwrap();
    let mut partial = None;
    wait_until("a part of a large component has arrived", || {
        partial = large_part(&user.home().join("downloads"));
        partial.is_some()
    });
    (process, partial.unwrap())
}

/// The partial file that is too large to be one of the small components.
fn large_part(downloads: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(downloads).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "partial"))
        .find(|path| std::fs::metadata(path).is_ok_and(|file| file.len() > 500_000))
}

/// See docs/client-behaviour.md R-04.
#[test]
fn killed_rustup_resumes_and_upstream_is_asked_once() {
    // Three seconds, so that it can be interrupted. The fault applies to both components that rustup downloads first: a
    // rustup that is killed while it unpacks leaves a lock that its next run respects.
    let drip = Fault::Drip {
        bytes_per_second: u32::try_from(LARGE / 3).unwrap(),
    };
    let (upstream, toolchain) = interrupted(&["cargo", "rust-std"], &drip);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let user = Rustup::without_toolchain();
    let (mut process, partial) = start(&user, &larder);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(partial.exists());

    // The fetch continues without a client; the second run joins it at the first run's position.
    run(&user, &larder, &MINIMAL).assert_success();
    assert!(rustc(&user).contains("rustc 1.95.0"), "{}", rustc(&user));
    assert_eq!(asked(&upstream, &toolchain), [1, 1, 1]);
    let log = larder.stop();
    let resumed = log
        .lines()
        .any(|line| line.contains("-1.95.0") && line.contains("status=206"));
    assert!(resumed, "{log}");
}

#[test]
fn rustup_succeeds_after_larder_was_killed_and_restarted() {
    let stall = Fault::StallBodyAfter(LARGE as u64 / 3);
    let (upstream, toolchain) = interrupted(&["cargo", "rust-std"], &stall);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let user = Rustup::without_toolchain();
    let (mut process, _) = start(&user, &larder);
    // Clients get their answers before the files are stored.
    wait_until(
        "rustc has come ahead, and only the large ones are under way",
        || {
            let status = larder.get("/-/status.json").text();
            status.contains("\"fetching\":2") && status.contains("\"blobs-ahead-fetched\":1")
        },
    );
    let url = larder.url().to_owned();
    larder.kill();
    upstream.clear_faults();
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let server = upstream.base_url().trim_end_matches('/');
    let larder = site.serve_at(authority, &["--dist-server", server]);
    // The run may fail or succeed: rustup's retries may or may not last until larder is back.
    process.wait().unwrap();
    run(&user, &larder, &MINIMAL).assert_success();
    assert!(rustc(&user).contains("rustc 1.95.0"), "{}", rustc(&user));
    assert_eq!(user.components(&format!("stable-{HOST}")).len(), 3);
    // Complete components are stored; the one in transit is fetched once more.
    assert_eq!(asked(&upstream, &toolchain), [2, 2, 1]);
}

/// See docs/client-behaviour.md R-08.
#[test]
fn rustup_updates_itself_through_larder() {
    let upstream = FakeUpstream::start();
    upstream.release(&old());
    upstream.release_rustup(&Installer::new("1.29.0").program(program()));
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let user = Rustup::without_toolchain();
    run(&user, &larder, &MINIMAL).assert_success();
    larder.wait_until_idle();

    // The same program with a suffix, to tell the two apart.
    let mut newer = program();
    newer.extend_from_slice(b"newer");
    let installer = Installer::new("99.0.0").program(newer.clone());
    upstream.release_rustup(&installer);
    let check = run(&user, &larder, &["check"]);
    assert!(
        check.stdout.contains("99.0.0") || check.stderr.contains("99.0.0"),
        "{check:?}"
    );
    larder.wait_until_idle();
    run(&user, &larder, &["self", "update"]).assert_success();
    let now = std::fs::read(user.cargo_home().join("bin/rustup")).unwrap();
    assert!(now == newer, "{} bytes", now.len());
    assert_eq!(
        upstream.requests_for(&installer.archive_path()),
        2,
        "with its sidecar"
    );
}
