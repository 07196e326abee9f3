//! Generations of a release channel: whatever happens to the channel, a toolchain whose archives are stored can be
//! installed offline by real rustup.

use fake_upstream::{FakeUpstream, Fault, HOST, Installer, Toolchain, WASM};

use crate::fixture::site;
use crate::warm_toolchains::{released, run, rustup, serve_offline};
use testkit::larder::{Larder, Site};
use testkit::rustup::{Rustup, installed};

const DEFAULT: [&str; 4] = ["--toolchain", "stable", "--profile", "default"];
const MINIMAL: [&str; 4] = ["--toolchain", "stable", "--profile", "minimal"];
const INSTALL: [&str; 5] = ["toolchain", "install", "stable", "--profile", "default"];

fn old() -> Toolchain {
    Toolchain::new("stable", "1.95.0").date("2026-04-16")
}

fn new() -> Toolchain {
    Toolchain::new("stable", "1.96.0").date("2026-05-28")
}

#[track_caller]
fn exit(site: &Site, upstream: &FakeUpstream, command: &str, arguments: &[&str]) -> Option<i32> {
    let arguments = [&[command, "--max-age", "0s"], arguments].concat();
    let (_, code, _) = run(site, upstream, &arguments);
    code
}

/// An upstream whose 1.95.0 is warmed in the default profile, and which has released 1.96.0 since.
#[track_caller]
fn released_since_the_warm(more: &[&str]) -> (FakeUpstream, Site) {
    let upstream = released(&[&old()]);
    let site = site(&upstream);
    let arguments = [&DEFAULT, more].concat();
    assert_eq!(exit(&site, &upstream, "warm", &arguments), Some(0));
    upstream.release(&new());
    (upstream, site)
}

fn serve_online<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    let server = upstream.base_url().trim_end_matches('/');
    site.serve(&["--max-age", "0s", "--dist-server", server])
}

/// Checks that the default profile is ready, and installs it offline; the installed rustc is of this version.
#[track_caller]
fn assert_installs_offline(site: &Site, upstream: &FakeUpstream, version: &str) {
    assert_eq!(exit(site, upstream, "check", &DEFAULT), Some(0));
    let larder = serve_offline(site, upstream);
    let user = Rustup::without_toolchain();
    rustup(&user, &larder, &INSTALL);
    let rustc = user.installed_text(&format!("stable-{HOST}"), "bin/rustc");
    assert!(rustc.contains(version), "{rustc}");
    assert_eq!(user.components(&format!("stable-{HOST}")).len(), 6);
}

#[test]
fn rustup_check_after_a_release_keeps_the_older_toolchain_installable() {
    let (upstream, site) = released_since_the_warm(&[]);
    let larder = site.serve(&["--dist-server", upstream.base_url(), "--max-age", "1h"]);
    let user = Rustup::without_toolchain();
    rustup(&user, &larder, &INSTALL);
    larder.wait_until_idle();
    larder.stop();
    let larder = serve_online(&site, &upstream);
    let server = larder.url().trim_end_matches('/');
    let check = user.run(&["check"], server, &format!("{server}/rustup"));
    assert!(check.stdout.contains("1.96.0"), "{check:?}");
    larder.wait_until_idle();
    larder.stop();
    upstream.stop();
    assert_installs_offline(&site, &upstream, "1.95.0");
}

#[test]
fn one_request_for_the_sidecar_keeps_the_older_toolchain_installable_while_upstream_is_down() {
    let (upstream, site) = released_since_the_warm(&[]);
    let larder = serve_online(&site, &upstream);
    let path = "/dist/channel-rust-stable.toml";
    let newest = larder.get(&format!("{path}.sha256")).text();
    let newest = newest[..64].to_owned();
    assert_eq!(fake_upstream::sha256(&larder.get(path).body), newest);
    upstream.stop();
    // The same process, which has just served the newer generation.
    let user = Rustup::without_toolchain();
    rustup(&user, &larder, &INSTALL);
    let rustc = user.installed_text(&format!("stable-{HOST}"), "bin/rustc");
    assert!(rustc.contains("1.95.0"), "{rustc}");
    larder.stop();
    assert_installs_offline(&site, &upstream, "1.95.0");
}

#[test]
fn warm_that_fails_on_one_archive_keeps_the_older_toolchain_installable() {
    let (upstream, site) = released_since_the_warm(&[]);
    let rustc = new().archive_path("rustc", HOST);
    upstream.fault(&rustc, Fault::Status(404));
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(1));
    assert_installs_offline(&site, &upstream, "1.95.0");

    upstream.clear_faults();
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(0));
    assert_installs_offline(&site, &upstream, "1.96.0");
}

#[test]
fn warm_of_a_smaller_profile_keeps_the_older_toolchain_installable() {
    let (upstream, site) = released_since_the_warm(&[]);
    assert_eq!(exit(&site, &upstream, "warm", &MINIMAL), Some(0));
    assert_eq!(exit(&site, &upstream, "check", &MINIMAL), Some(0));
    assert_installs_offline(&site, &upstream, "1.95.0");
}

/// See docs/client-behaviour.md R-21.
#[test]
fn target_of_an_installed_older_release_can_be_added_offline() {
    let (upstream, site) = released_since_the_warm(&["--target", WASM]);
    let larder = site.serve(&["--dist-server", upstream.base_url(), "--max-age", "1h"]);
    let user = Rustup::without_toolchain();
    rustup(&user, &larder, &INSTALL);
    larder.wait_until_idle();
    larder.stop();
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(0));
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    rustup(&user, &larder, &["target", "add", WASM]);
}

/// A release of rustup whose program differs from the installed one.
fn newer_rustup() -> (Installer, Vec<u8>) {
    let mut program = std::fs::read(installed()).unwrap();
    program.extend_from_slice(b"newer");
    (Installer::new("99.0.0").program(program.clone()), program)
}

/// See docs/client-behaviour.md R-22.
#[test]
fn rustup_check_after_a_release_of_rustup_keeps_offline_installs_successful() {
    let upstream = released(&[&old()]);
    let site = site(&upstream);
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(0));
    let (newer, program) = newer_rustup();
    upstream.release_rustup(&newer);
    let larder = serve_online(&site, &upstream);
    let server = larder.url().trim_end_matches('/').to_owned();
    let user = Rustup::without_toolchain();
    let check = user.run(&["check"], &server, &format!("{server}/rustup"));
    assert!(check.stdout.contains("99.0.0"), "{check:?}");
    larder.wait_until_idle();

    // While upstream is down, and offline.
    upstream.stop();
    rustup(&user, &larder, &INSTALL);
    larder.stop();
    assert_installs_offline(&site, &upstream, "1.95.0");
    let now = std::fs::read(user.cargo_home().join("bin/rustup")).unwrap();
    assert!(
        now == std::fs::read(installed()).unwrap(),
        "rustup is unchanged"
    );

    // Once the newer program is stored, it is offered.
    upstream.restart();
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(0));
    upstream.stop();
    assert_installs_offline(&site, &upstream, "1.95.0");
    let larder = serve_offline(&site, &upstream);
    rustup(&user, &larder, &["self", "update"]);
    let now = std::fs::read(user.cargo_home().join("bin/rustup")).unwrap();
    assert!(now == program, "{} bytes", now.len());
}

/// See docs/client-behaviour.md R-22.
#[test]
fn warm_that_cannot_fetch_the_newer_rustup_keeps_offline_installs_successful() {
    let upstream = released(&[&old()]);
    let site = site(&upstream);
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(0));
    let (newer, _) = newer_rustup();
    upstream.release_rustup(&newer);
    upstream.fault(&newer.archive_path(), Fault::Status(404));
    assert_eq!(exit(&site, &upstream, "warm", &DEFAULT), Some(1));
    upstream.stop();
    assert_installs_offline(&site, &upstream, "1.95.0");
}
