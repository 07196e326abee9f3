//! The bootstrap command of docs/guides/toolchains.md on a machine without rustup, with curl only and with wget only.
//!
//! Unit tests cover the edits that larder makes to the script.

use std::process::Command;

use fake_upstream::{FakeUpstream, HOST, Installer, Toolchain};

use crate::fixture::site;
use testkit::process::{Run, run};
use testkit::rustup::{Rustup, installed, link_tools};

/// The programs that both the script and the command need.
const TOOLS: [&str; 7] = ["sh", "uname", "mktemp", "chmod", "mkdir", "rm", "rmdir"];

fn released() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.release(&Toolchain::new("stable", "1.95.0"));
    upstream.release_rustup(&Installer::new("1.29.0").program(std::fs::read(installed()).unwrap()));
    upstream
}

/// Runs this command line in a shell, in an empty home whose `PATH` has [`TOOLS`] and `tool`.
#[track_caller]
fn run_line(user: &Rustup, tool: &str, line: &str) -> Run {
    std::fs::remove_dir_all(user.cargo_home()).unwrap();
    let tools = user.work_folder().join("tools");
    link_tools(&tools, &TOOLS);
    link_tools(&tools, &[tool]);
    let mut shell = Command::new("/bin/sh");
    user.scrub(&mut shell);
    shell.env("PATH", tools).args(["-c", line]);
    run(shell)
}

/// Bootstraps with `tool`, and checks that rustup and a toolchain are installed and came through larder.
#[track_caller]
fn check_bootstrap_with(tool: &str, fetch: &str) {
    let upstream = released();
    let site = site(&upstream);
    let server = upstream.base_url().trim_end_matches('/').to_owned();
    let larder = site.serve(&["--dist-server", &server]);
    let user = Rustup::without_toolchain();
    let url = larder.url();
    let line =
        format!("{fetch} {url}rustup-init.sh | sh -s -- -y --no-modify-path --profile minimal");
    run_line(&user, tool, &line).assert_success();
    let toolchain = format!("stable-{HOST}");
    assert_eq!(user.components(&toolchain).len(), 3);
    assert_eq!(
        upstream.requests_for("/rustup/dist/"),
        2,
        "the program and its sidecar"
    );
    let mut rustc = Command::new(user.cargo_home().join("bin/rustc"));
    user.scrub(&mut rustc);
    let said = run(rustc);
    said.assert_success();
    assert!(said.stdout.contains("rustc 1.95.0"), "{}", said.stdout);
}

/// See docs/client-behaviour.md R-13.
#[test]
fn documented_command_with_curl_installs_rustup_and_a_toolchain() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/toolchains.md");
    let guide = std::fs::read_to_string(guide);
    let fetch = "curl -sSf";
    assert!(guide.unwrap().contains(&format!(
        "{fetch} http://127.0.0.1:3263/rustup-init.sh | sh\n"
    )));
    check_bootstrap_with("curl", fetch);
}

/// See docs/client-behaviour.md R-14.
#[test]
fn documented_command_with_wget_installs_rustup_and_a_toolchain() {
    check_bootstrap_with("wget", "wget -qO-");
}

/// Larder's own rule: docs/decisions/0003-verbatim-bytes.md.
#[test]
fn offline_larder_without_a_stored_script_serves_one_that_fails_with_the_reason() {
    let upstream = released();
    let site = site(&upstream);
    let server = upstream.base_url().trim_end_matches('/').to_owned();
    let larder = site.serve(&["--offline", "--dist-server", &server]);
    let user = Rustup::without_toolchain();
    // Many commands omit `-f`; the shell then runs the body of the error.
    let line = format!("curl -sS {}rustup-init.sh | sh -s -- -y", larder.url());
    let failed = run_line(&user, "curl", &line);
    failed.assert_failure().assert_says("larder runs offline");
}
