//! A machine without rustup: the command in README.md, by curl and by wget, each where the other is not installed.
//!
//! How the script is edited is tested beside the other kinds.

use std::process::Command;

use fake_upstream::{FakeUpstream, HOST, Installer, Toolchain};

use crate::fixture::site;
use testkit::process::{Run, run};
use testkit::rustup::{Rustup, installed, link_tools};

/// What both the script and the command need.
const TOOLS: [&str; 7] = ["sh", "uname", "mktemp", "chmod", "mkdir", "rm", "rmdir"];

fn released() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.release(&Toolchain::new("stable", "1.95.0"));
    upstream.release_rustup(&Installer::new("1.29.0").program(std::fs::read(installed()).unwrap()));
    upstream
}

/// Gives this command line to a shell in an empty home that knows [`TOOLS`] and this one more.
#[track_caller]
fn say(user: &Rustup, tool: &str, line: &str) -> Run {
    std::fs::remove_dir_all(user.cargo_home()).unwrap();
    let tools = user.work_folder().join("tools");
    link_tools(&tools, &TOOLS);
    link_tools(&tools, &[tool]);
    let mut shell = Command::new("/bin/sh");
    user.scrub(&mut shell);
    shell.env("PATH", tools).args(["-c", line]);
    run(shell)
}

/// Rustup and a toolchain are there, and came through larder without a variable.
#[track_caller]
fn check(tool: &str, fetch: &str) {
    let upstream = released();
    let site = site(&upstream);
    let server = upstream.base_url().trim_end_matches('/').to_owned();
    let larder = site.serve(&["--dist-server", &server]);
    let user = Rustup::without_toolchain();
    let url = larder.url();
    let line =
        format!("{fetch} {url}rustup-init.sh | sh -s -- -y --no-modify-path --profile minimal");
    say(&user, tool, &line).assert_success();
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

#[test]
fn t54_the_command_of_the_readme_brings_rustup_and_a_toolchain_to_an_empty_home() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let fetch = "curl -sSf";
    assert!(readme.unwrap().contains(&format!(
        "{fetch} http://127.0.0.1:3263/rustup-init.sh | sh\n"
    )));
    check("curl", fetch);
}

#[test]
fn t54_where_only_wget_is_installed_the_script_works_as_well() {
    check("wget", "wget -qO-");
}

#[test]
fn t54_without_a_stored_script_an_offline_larder_gives_one_that_fails_with_the_reason() {
    let upstream = released();
    let site = site(&upstream);
    let server = upstream.base_url().trim_end_matches('/').to_owned();
    let larder = site.serve(&["--offline", "--dist-server", &server]);
    let user = Rustup::without_toolchain();
    // Without `-f`, as many commands are, so that the shell gets the body of the failure.
    let line = format!("curl -sS {}rustup-init.sh | sh -s -- -y", larder.url());
    let failed = say(&user, "curl", &line);
    failed.assert_failure().assert_says("larder runs offline");
}
