//! `check`'s verdict on toolchain names, toolchain files and rustup's settings, judged by real rustup in a home of its
//! own behind an offline larder.

use std::fs;
use std::path::PathBuf;

use fake_upstream::{Crate, FakeUpstream, HOST, Toolchain, WASM, crate_path};
use tempfile::TempDir;
use testkit::larder::{Larder, Site};
use testkit::lock_file::lock_file;
use testkit::process::Run;
use testkit::rustup::Rustup;

use crate::fixture::site;
use crate::warm_toolchains::{released, run, serve_offline};

fn stable() -> Toolchain {
    Toolchain::new("stable", "1.95.0").date("2026-04-16")
}

/// A larder that reads this user's rustup home.
fn site_of(upstream: &FakeUpstream, user: &Rustup) -> Site {
    site(upstream).variable("RUSTUP_HOME", &user.home().display().to_string())
}

fn folder(name: &str, text: &str) -> TempDir {
    let top = TempDir::new().unwrap();
    fs::write(top.path().join(name), text).unwrap();
    top
}

fn write_settings(user: &Rustup, text: &str) {
    let path = user.home().join("settings.toml");
    fs::write(path, format!("version = \"12\"\n{text}")).unwrap();
}

/// Runs rustup, or a proxy of it, in this folder.
#[track_caller]
fn run_in(
    user: &Rustup,
    larder: &Larder<'_>,
    folder: &TempDir,
    program: &str,
    arguments: &[&str],
) -> Run {
    let server = larder.url().trim_end_matches('/');
    let mut command = user.command(program, server, &format!("{server}/rustup"));
    command.current_dir(folder.path()).args(arguments);
    testkit::process::run(command)
}

#[track_caller]
fn text_of(site: &Site, upstream: &FakeUpstream, arguments: &[&str]) -> (bool, String) {
    let (document, code, said) = run(site, upstream, arguments);
    let is_good = code == Some(0);
    (is_good, format!("{document:#}\n{said}"))
}

/// Warms and checks a toolchain file, and lets rustup's proxy use it offline. All must agree with `expected`.
#[track_caller]
fn check_file(name: &str, text: &str, expected: bool, reason: &str) {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    write_settings(&user, "profile = \"minimal\"\n");
    let site = site_of(&upstream, &user);
    let project = folder(name, text);
    let path = project.path().display().to_string();
    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert_eq!(is_warm, expected, "{text}: {said}");
    let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
    assert_eq!(is_ready, expected, "{text}: {said}");
    assert!(said.contains(reason), "{text}: {said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let rustc = run_in(&user, &larder, &project, "rustc", &["--version"]);
    assert_eq!(rustc.status.success(), expected, "{text}: {rustc:?}");
}

/// See docs/client-behaviour.md R-18.
#[test]
fn toolchain_file_with_a_path_that_does_not_exist_is_not_ready() {
    let top = TempDir::new().unwrap();
    let path = top.path().display();
    let legacy = "rust-toolchain";
    check_file(legacy, &format!("{path}/none\n"), false, "no folder `bin`");
    let table = format!("[toolchain]\npath = '{path}'\n");
    check_file("rust-toolchain.toml", &table, false, "no folder `bin`");
    fs::create_dir(top.path().join("bin")).unwrap();
    check_file("rust-toolchain.toml", &table, false, "has no `rustc`");
    for program in ["rustc", "cargo"] {
        fs::copy("/bin/true", top.path().join("bin").join(program)).unwrap();
    }
    check_file("rust-toolchain.toml", &table, true, "");
}

/// See docs/client-behaviour.md R-18.
#[test]
fn toolchain_file_whose_channel_names_a_host_is_not_ready_as_rustup_refuses_it() {
    for name in [
        format!("stable-{HOST}"),
        "stable-gnu".to_owned(),
        "stable-x86_64".to_owned(),
    ] {
        let text = format!("[toolchain]\nchannel = '{name}'\n");
        check_file("rust-toolchain.toml", &text, false, "names a host");
    }
    let text = "[toolchain]\nchannel = 'stable-mine'\n";
    check_file("rust-toolchain.toml", text, false, "is no release channel");
    check_file(
        "rust-toolchain.toml",
        "[toolchain]\nchannel = 'stable'\n",
        true,
        "",
    );
}

/// See docs/client-behaviour.md R-18.
#[test]
fn toolchain_file_may_name_a_host_or_an_own_toolchain_that_is_installed() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let site = site_of(&upstream, &user);
    let larder = site.serve(&["--dist-server", upstream.base_url()]);
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    let here = TempDir::new().unwrap();
    run_in(&user, &larder, &here, "rustup", &install).assert_success();
    let name = format!("stable-{HOST}");
    let folder_of_it = user.home().join("toolchains").join(&name);
    let link = ["toolchain", "link", "mine", folder_of_it.to_str().unwrap()];
    run_in(&user, &larder, &here, "rustup", &link).assert_success();
    larder.wait_until_idle();
    larder.stop();
    for name in [&name, "mine"] {
        let project = folder("rust-toolchain", &format!("{name}\n"));
        let path = project.path().display().to_string();
        let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
        assert!(is_warm, "{said}");
        let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
        assert!(is_ready, "{said}");
        let larder = serve_offline(&site, &upstream);
        run_in(&user, &larder, &project, "rustc", &["--version"]).assert_success();
    }
}

/// Warms and checks these arguments, and lets rustup install offline. All must agree with `expected`.
#[track_caller]
fn check_named(settings: &str, name: &str, expected: bool) {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    write_settings(&user, settings);
    let site = site_of(&upstream, &user);
    let wanted = ["--toolchain", name, "--profile", "minimal"];
    let (is_warm, said) = text_of(&site, &upstream, &[&["warm"], &wanted[..]].concat());
    assert_eq!(is_warm, expected, "{name}: {said}");
    let (is_ready, said) = text_of(&site, &upstream, &[&["check"], &wanted[..]].concat());
    assert_eq!(is_ready, expected, "{name}: {said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let here = TempDir::new().unwrap();
    let install = ["toolchain", "install", name, "--profile", "minimal"];
    let installed = run_in(&user, &larder, &here, "rustup", &install);
    assert_eq!(
        installed.status.success(),
        expected,
        "{name}: {installed:?}"
    );
}

/// See docs/client-behaviour.md R-19.
#[test]
fn named_toolchain_may_name_parts_of_its_host() {
    let arch = HOST.split('-').next().unwrap();
    let (_, env) = HOST.rsplit_once('-').unwrap();
    for (name, expected) in [
        (format!("stable-{HOST}"), true),
        (format!("stable-{arch}"), true),
        (format!("stable-{env}"), true),
        (format!("1.95.0-{arch}-{env}"), true),
        // A system without an environment is another triple.
        (format!("stable-{arch}-unknown-linux"), false),
        (format!("stable-{env}-{arch}"), false),
        ("stable-mine".to_owned(), false),
    ] {
        check_named("", &name, expected);
    }
}

/// See docs/client-behaviour.md R-23.
#[test]
fn default_host_of_rustup_s_settings_is_read_under_both_its_names() {
    let triple = |host: &str| format!("default_host_triple = \"{host}\"\n");
    check_named(&triple(HOST), "stable", true);
    // The toys have one host.
    check_named(&triple("aarch64-apple-darwin"), "stable", false);
    check_named(&triple("x86_64"), "stable", false);
    check_named("profile = 1\n", "stable", false);

    // rustup 1.29 ignores the later name, so the toolchain for this machine must be there in any case.
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    write_settings(&user, "default_host_tuple = \"aarch64-apple-darwin\"\n");
    let site = site_of(&upstream, &user);
    let wanted = ["warm", "--toolchain", "stable", "--profile", "minimal"];
    let (is_warm, said) = text_of(&site, &upstream, &wanted);
    assert!(!is_warm && said.contains("aarch64-apple-darwin"), "{said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let here = TempDir::new().unwrap();
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    run_in(&user, &larder, &here, "rustup", &install).assert_success();
}

#[test]
fn targets_may_be_given_as_a_list() {
    let upstream = released(&[&stable().target("thumbv6m-none-eabi")]);
    let site = site(&upstream);
    let list = format!("{WASM},thumbv6m-none-eabi");
    let wanted = [
        "--toolchain",
        "stable",
        "--profile",
        "minimal",
        "--target",
        &list,
    ];
    let (is_warm, said) = text_of(&site, &upstream, &[&["warm"], &wanted[..]].concat());
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&site, &upstream, &[&["check"], &wanted[..]].concat());
    assert!(is_ready, "{said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let here = TempDir::new().unwrap();
    let install = [
        "toolchain",
        "install",
        "stable",
        "--profile",
        "minimal",
        "-t",
        &list,
    ];
    run_in(
        &Rustup::without_toolchain(),
        &larder,
        &here,
        "rustup",
        &install,
    )
    .assert_success();
}

/// Runs the documented bootstrap command with a `PATH` without rustup.
#[track_caller]
fn bootstrap(larder: &Larder<'_>) -> (Rustup, Run) {
    let user = Rustup::without_toolchain();
    fs::remove_dir_all(user.cargo_home()).unwrap();
    let mut shell = std::process::Command::new("/bin/sh");
    user.scrub(&mut shell);
    let url = larder.url();
    shell.args([
        "-c",
        &format!("curl -sSf {url}rustup-init.sh | sh -s -- -y --no-modify-path"),
    ]);
    let ran = testkit::process::run(shell);
    (user, ran)
}

#[test]
fn bootstrap_alone_stores_what_the_script_installs_on_an_empty_machine() {
    let upstream = released(&[&stable()]);
    let empty = TempDir::new().unwrap();
    let site = site(&upstream).shell_prelude(&format!("cd {}", empty.path().display()));
    let (is_ready, said) = text_of(&site, &upstream, &["check", "--bootstrap"]);
    assert!(!is_ready && said.contains("stable"), "{said}");
    let (is_warm, said) = text_of(&site, &upstream, &["warm", "--bootstrap"]);
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&site, &upstream, &["check", "--bootstrap"]);
    assert!(is_ready, "{said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let (user, ran) = bootstrap(&larder);
    ran.assert_success();
    assert_eq!(user.components(&format!("stable-{HOST}")).len(), 6);
}

/// See docs/client-behaviour.md R-13.
#[test]
fn warm_tells_that_upstream_s_script_cannot_be_edited_and_keeps_the_older_one() {
    let upstream = released(&[&stable()]);
    let warm = ["warm", "--bootstrap", "--max-age", "0s"];
    let change = || {
        let text = "#!/bin/sh\necho changed\n";
        upstream.serve_static("/rustup/rustup-init.sh", text, "text/plain");
    };
    let empty = TempDir::new().unwrap();
    let cd = format!("cd {}", empty.path().display());
    let never = site(&upstream).shell_prelude(&cd);
    let before = site(&upstream).shell_prelude(&cd);
    let (is_warm, said) = text_of(&before, &upstream, &warm);
    assert!(is_warm, "{said}");

    change();
    let (is_warm, said) = text_of(&never, &upstream, &warm);
    assert!(!is_warm, "{said}");
    assert!(said.contains("insists on https in 0 places"), "{said}");
    let (is_ready, said) = text_of(&never, &upstream, &["check", "--bootstrap"]);
    assert!(!is_ready && said.contains("rustup-init.sh"), "{said}");
    let (is_warm, said) = text_of(&before, &upstream, &warm);
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&before, &upstream, &["check", "--bootstrap"]);
    assert!(is_ready, "{said}");
    upstream.stop();
    let larder = serve_offline(&before, &upstream);
    bootstrap(&larder).1.assert_success();
}

const WITH_CLIPPY: &str = "[toolchain]\nchannel = 'stable'\ncomponents = ['clippy']\n";

/// A user with an older stable and more than a profile of it, after the next release.
fn user_with_extras(upstream: &FakeUpstream) -> Rustup {
    let user = Rustup::without_toolchain();
    let site = site_of(upstream, &user);
    let larder = site.serve(&["--dist-server", upstream.base_url()]);
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    let extras = ["-c", "rust-src", "-t", WASM];
    let here = TempDir::new().unwrap();
    let install = [&install[..], &extras].concat();
    run_in(&user, &larder, &here, "rustup", &install).assert_success();
    upstream.release(&Toolchain::new("stable", "1.96.0").date("2026-05-28"));
    user
}

/// See docs/client-behaviour.md R-24.
#[test]
fn toolchain_file_that_makes_rustup_update_is_not_ready_without_the_installed_extras() {
    let upstream = released(&[&stable()]);
    let user = user_with_extras(&upstream);
    let project = folder("rust-toolchain.toml", WITH_CLIPPY);
    let path = project.path().display().to_string();
    // Warmed for an empty home, as that of another user of the same store.
    let of_others = site(&upstream);
    let (is_warm, said) = text_of(&of_others, &upstream, &["warm", &path]);
    assert!(is_warm, "{said}");
    let of_user = of_others.variable("RUSTUP_HOME", &user.home().display().to_string());
    let (is_ready, said) = text_of(&of_user, &upstream, &["check", &path]);
    assert!(!is_ready, "{said}");
    assert!(said.contains("component `rust-src` for *"), "{said}");
    assert!(
        said.contains(&format!("component `rust-std` for {WASM}")),
        "{said}"
    );
    upstream.stop();
    let larder = serve_offline(&of_user, &upstream);
    run_in(&user, &larder, &project, "rustc", &["--version"]).assert_failure();
}

/// See docs/client-behaviour.md R-24.
#[test]
fn toolchain_file_that_makes_rustup_update_is_warmed_with_the_installed_extras() {
    let upstream = released(&[&stable()]);
    let user = user_with_extras(&upstream);
    let project = folder("rust-toolchain.toml", WITH_CLIPPY);
    let path = project.path().display().to_string();
    let site = site_of(&upstream, &user);
    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
    assert!(is_ready, "{said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let rustc = run_in(&user, &larder, &project, "rustc", &["--version"]);
    rustc.assert_success();
    assert!(rustc.stdout.contains("1.96.0"), "{rustc:?}");
    assert_eq!(user.components(&format!("stable-{HOST}")).len(), 6);
}

/// See docs/client-behaviour.md R-24.
#[test]
fn toolchain_file_that_asks_for_what_is_installed_needs_no_extras() {
    let upstream = released(&[&stable()]);
    let user = user_with_extras(&upstream);
    let text = "[toolchain]\nchannel = 'stable'\nprofile = 'minimal'\ncomponents = ['rust-src']\n";
    let project = folder("rust-toolchain.toml", text);
    let path = project.path().display().to_string();
    let site = site_of(&upstream, &user);
    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert!(is_warm, "{said}");
    let wasm = Toolchain::new("stable", "1.96.0").date("2026-05-28");
    assert_eq!(
        upstream.requests_for(&wasm.archive_path("rust-std", WASM)),
        0
    );
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let rustc = run_in(&user, &larder, &project, "rustc", &["--version"]);
    rustc.assert_success();
    assert!(rustc.stdout.contains("1.95.0"), "{rustc:?}");
}

/// See docs/client-behaviour.md R-24.
#[test]
fn named_toolchain_that_is_installed_needs_its_extras_for_an_update() {
    let upstream = released(&[&stable()]);
    let user = user_with_extras(&upstream);
    let site = site_of(&upstream, &user);
    let wanted = ["warm", "--toolchain", "stable", "--profile", "minimal"];
    let (is_warm, said) = text_of(&site, &upstream, &wanted);
    assert!(is_warm, "{said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let here = TempDir::new().unwrap();
    run_in(&user, &larder, &here, "rustup", &["update"]).assert_success();
    let rustc = user.installed_text(&format!("stable-{HOST}"), "bin/rustc");
    assert!(rustc.contains("1.96.0"), "{rustc}");
}

fn project_without_toolchain_file() -> TempDir {
    let project = folder("Cargo.toml", "[package]\nname = 'app'\nversion = '0.1.0'\n");
    let lock = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n";
    fs::write(project.path().join("Cargo.lock"), lock).unwrap();
    fs::create_dir(project.path().join("src")).unwrap();
    fs::write(project.path().join("src/lib.rs"), "").unwrap();
    project
}

/// Checks and warms a project whose toolchain rustup's settings choose, and uses it offline.
#[track_caller]
fn check_chosen(settings: impl FnOnce(&str) -> String, reason: &str, can_be_warmed: bool) {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let project = project_without_toolchain_file();
    let real = project.path().canonicalize().unwrap();
    write_settings(&user, &settings(&real.display().to_string()));
    let site = site_of(&upstream, &user);
    let path = project.path().display().to_string();
    let (document, code, said) = run(&site, &upstream, &["check", &path]);
    assert_eq!(code, Some(1), "{document:#} {said}");
    assert_eq!(document["projects"][0]["ready"], false, "{document:#}");
    assert!(document.to_string().contains(reason), "{document:#}");

    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert_eq!(is_warm, can_be_warmed, "{said}");
    let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
    assert_eq!(is_ready, can_be_warmed, "{said}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let rustc = run_in(&user, &larder, &project, "rustc", &["--version"]);
    assert_eq!(rustc.status.success(), can_be_warmed, "{rustc:?}");
    larder.stop();
    if can_be_warmed {
        // Installed now, so that the store does not matter.
        let blobs = site.store().join("v1/blobs");
        fs::remove_dir_all(blobs).unwrap();
        let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
        assert!(is_ready, "{said}");
    }
}

/// See docs/client-behaviour.md R-26.
#[test]
fn default_toolchain_that_is_neither_installed_nor_stored_makes_a_project_not_ready() {
    let default =
        |_: &str| format!("default_toolchain = \"stable-{HOST}\"\nprofile = \"minimal\"\n");
    check_chosen(default, "rustup's default toolchain, not installed", true);
    let own = |_: &str| "default_toolchain = \"mine\"\n".to_owned();
    check_chosen(own, "rustup toolchain link", false);
}

/// See docs/client-behaviour.md R-26.
#[test]
fn override_that_is_neither_installed_nor_stored_makes_a_project_not_ready() {
    let toolchain = format!("stable-{HOST}");
    let overridden = |folder: &str| {
        format!("profile = \"minimal\"\n[overrides]\n\"{folder}\" = \"{toolchain}\"\n")
    };
    check_chosen(overridden, "rustup's override for ", true);
    let own = |folder: &str| format!("[overrides]\n\"{folder}\" = \"mine\"\n");
    check_chosen(own, "rustup toolchain link", false);
}

/// Asks `check` about a project, and lets rustup's proxy run cargo in it offline. `RUSTUP_TOOLCHAIN` has this value for
/// both, and both must agree with `expected`.
#[track_caller]
fn check_variable(
    upstream: &FakeUpstream,
    user: &Rustup,
    toolchain: &str,
    expected: bool,
) -> String {
    let project = project_without_toolchain_file();
    let path = project.path().display().to_string();
    let site = site_of(upstream, user).variable("RUSTUP_TOOLCHAIN", toolchain);
    let (is_ready, said) = text_of(&site, upstream, &["check", &path]);
    assert_eq!(is_ready, expected, "{toolchain}: {said}");
    let larder = serve_offline(&site, upstream);
    let server = larder.url().trim_end_matches('/');
    let mut cargo = user.command("cargo", server, &format!("{server}/rustup"));
    cargo.current_dir(project.path()).arg("--version");
    cargo.env("RUSTUP_TOOLCHAIN", toolchain);
    let ran = testkit::process::run(cargo);
    assert_eq!(ran.status.success(), expected, "{toolchain}: {ran:?}");
    said
}

/// See docs/client-behaviour.md R-26.
#[test]
fn toolchain_that_rustup_s_variable_names_decides_before_the_default() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let site = site_of(&upstream, &user);
    install_and_lose_archives(&upstream, &site, &user, &["stable"]);
    let said = check_variable(&upstream, &user, "1.95.0", false);
    assert!(
        said.contains("the variable RUSTUP_TOOLCHAIN, not installed"),
        "{said}"
    );
    let said = check_variable(&upstream, &user, "nosuch", false);
    assert!(said.contains("rustup toolchain link"), "{said}");
    check_variable(&upstream, &user, "+stable", false);
    check_variable(&upstream, &user, "/none", false);
    check_variable(&upstream, &user, "stable/", true);
    check_variable(&upstream, &user, "", true);
    let path = user
        .home()
        .join("toolchains")
        .join(format!("stable-{HOST}"));
    check_variable(&upstream, &user, &path.display().to_string(), true);

    // The variable wins over a toolchain file, and the toolchain can be warmed.
    let project = project_without_toolchain_file();
    fs::write(project.path().join("rust-toolchain"), "stable\n").unwrap();
    let path = project.path().display().to_string();
    let site = site_of(&upstream, &user).variable("RUSTUP_TOOLCHAIN", "1.95.0");
    let (document, _, said) = run(&site, &upstream, &["check", &path]);
    assert_eq!(
        document["projects"][0]["ready"], false,
        "{document:#} {said}"
    );
    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
    assert!(is_ready, "{said}");
}

/// See docs/client-behaviour.md R-28.
#[test]
fn project_for_which_rustup_chooses_no_toolchain_is_not_ready() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let unset = "`rustup default stable` does";
    let said = check_variable(&upstream, &user, "", false);
    assert!(said.contains(unset), "{said}");
    write_settings(&user, "profile = \"minimal\"\n");
    let said = check_variable(&upstream, &user, "", false);
    assert!(said.contains(unset), "{said}");
    // The first toolchain that the user installs becomes the default.
    let site_of_user = site_of(&upstream, &user);
    let project = project_without_toolchain_file();
    let path = project.path().display().to_string();
    let path = path.as_str();
    let named = |command| {
        [
            command,
            path,
            "--toolchain",
            "stable",
            "--profile",
            "minimal",
        ]
    };
    let (is_warm, said) = text_of(&site_of_user, &upstream, &named("warm"));
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&site_of_user, &upstream, &named("check"));
    assert!(is_ready, "{said}");
    write_settings(&user, "profile = 1\n");
    let said = check_variable(&upstream, &user, "", false);
    assert!(
        said.contains("settings.toml: rustup cannot read it"),
        "{said}"
    );

    let toolchain = format!("default_toolchain = \"stable-{HOST}\"\n");
    for (version, says) in [
        // An interrupted write leaves an empty file.
        ("", "missing field `version`"),
        ("version = \"2\"\n", "its version is `2`"),
        ("version = \"99\"\n", "its version is `99`"),
    ] {
        let text = format!("{version}{toolchain}");
        fs::write(user.home().join("settings.toml"), text).unwrap();
        let said = check_variable(&upstream, &user, "", false);
        assert!(said.contains(says), "{said}");
    }

    // Without a home of rustup, cargo comes from elsewhere.
    let (is_ready, said) = text_of(&site(&upstream), &upstream, &["check", path]);
    assert!(is_ready, "{said}");
}

/// See docs/client-behaviour.md R-29.
#[test]
fn installed_toolchain_without_its_programs_is_not_ready() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let folder = user
        .home()
        .join("toolchains")
        .join(format!("stable-{HOST}"));
    let own = user.home().join("toolchains/mine");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::create_dir_all(own.join("bin")).unwrap();
    let said = check_variable(&upstream, &user, "stable", false);
    assert!(
        said.contains("has no `rustc`; after `rustup toolchain uninstall`"),
        "{said}"
    );
    fs::copy("/bin/true", folder.join("bin/rustc")).unwrap();
    fs::copy("/bin/true", own.join("bin/rustc")).unwrap();
    let said = check_variable(&upstream, &user, "stable", false);
    assert!(said.contains("has no `cargo`"), "{said}");
    let said = check_variable(&upstream, &user, "mine", false);
    assert!(
        said.contains("has no `cargo`; `rustup toolchain link`"),
        "{said}"
    );
    // rustup's proxies look at no manifest, and one without cargo uses that of a release.
    fs::copy("/bin/true", folder.join("bin/cargo")).unwrap();
    check_variable(&upstream, &user, "stable", true);
    check_variable(&upstream, &user, "mine", true);
    fs::remove_dir_all(&folder).unwrap();
    check_variable(&upstream, &user, "mine", false);
}

/// A user whose rustup has an installed nightly, and its folder.
fn user_with_nightly(default: &str) -> (Rustup, PathBuf) {
    let user = Rustup::without_toolchain();
    write_settings(&user, &format!("default_toolchain = \"{default}\"\n"));
    let folder = user
        .home()
        .join("toolchains")
        .join(format!("nightly-{HOST}"));
    fs::create_dir_all(folder.join("bin")).unwrap();
    for program in ["cargo", "rustc"] {
        fs::copy("/bin/true", folder.join("bin").join(program)).unwrap();
    }
    (user, folder)
}

/// See docs/client-behaviour.md C-45.
#[test]
fn settings_with_build_std_need_the_crates_of_the_installed_standard_library() {
    let upstream = released(&[]);
    upstream.publish(Crate::new("libc", "1.0.0"));
    let (user, nightly) = user_with_nightly("nightly");
    let site = site_of(&upstream, &user);
    let project = project_without_toolchain_file();
    let path = project.path().display().to_string();
    let check = |expected: bool, says: &str| {
        let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
        assert_eq!(is_ready, expected, "{said}");
        assert!(said.contains(says), "{said}");
    };
    check(true, "");
    fs::create_dir(project.path().join(".cargo")).unwrap();
    let settings = "[unstable]\nbuild-std = [\"std\"]\n";
    fs::write(project.path().join(".cargo/config.toml"), settings).unwrap();
    check(false, "rustup component add rust-src --toolchain nightly-");

    let library = nightly.join("lib/rustlib/src/rust/library");
    fs::create_dir_all(&library).unwrap();
    fs::write(library.join("Cargo.lock"), lock_file(&upstream, &["libc"])).unwrap();
    check(false, "libc 1.0.0");
    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert!(is_warm, "{said}");
    assert_eq!(upstream.requests_for(&crate_path("libc", "1.0.0")), 1);
    check(true, "");

    // A toolchain file decides, and releases ignore the setting.
    fs::remove_dir_all(site.store()).unwrap();
    check(false, "libc 1.0.0");
    let file = project.path().join("rust-toolchain");
    fs::write(&file, "nightly\n").unwrap();
    check(false, "libc 1.0.0");
    let stable = user
        .home()
        .join("toolchains")
        .join(format!("stable-{HOST}"));
    std::os::unix::fs::symlink(&nightly, stable).unwrap();
    fs::write(&file, "stable\n").unwrap();
    check(true, "");
}

/// Lets a user install this toolchain through a larder, whose crates and archives are lost afterwards.
#[track_caller]
fn install_and_lose_archives(
    upstream: &FakeUpstream,
    site: &Site,
    user: &Rustup,
    arguments: &[&str],
) {
    let larder = site.serve(&["--dist-server", upstream.base_url()]);
    let here = TempDir::new().unwrap();
    let install = [&["toolchain", "install", "--profile", "minimal"], arguments].concat();
    run_in(user, &larder, &here, "rustup", &install).assert_success();
    larder.wait_until_idle();
    larder.stop();
    fs::remove_dir_all(site.store().join("v1/blobs")).unwrap();
}

/// Asks `check` about a toolchain file, and lets rustup's proxy use it offline; both must agree with `expected`.
#[track_caller]
fn check_installed(
    upstream: &FakeUpstream,
    site: &Site,
    user: &Rustup,
    file: &str,
    expected: bool,
) -> (String, Run) {
    let project = folder("rust-toolchain.toml", &format!("[toolchain]\n{file}\n"));
    let path = project.path().display().to_string();
    let (document, _, said) = run(site, upstream, &["check", &path]);
    let toolchain = &document["toolchains"][0];
    assert_eq!(toolchain["ready"], expected, "{document:#} {said}");
    let larder = serve_offline(site, upstream);
    let rustc = run_in(user, &larder, &project, "rustc", &["--version"]);
    assert_eq!(rustc.status.success(), expected, "{rustc:?}");
    (toolchain.to_string(), rustc)
}

/// See docs/client-behaviour.md R-24.
#[test]
fn toolchain_file_that_asks_for_what_is_installed_needs_no_archive() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let site = site_of(&upstream, &user);
    install_and_lose_archives(&upstream, &site, &user, &["stable", "-c", "clippy"]);
    upstream.stop();
    let check = |file: &str, expected: bool| {
        check_installed(&upstream, &site, &user, file, expected);
    };
    check("channel = 'stable'\nprofile = 'default'", true);
    check("channel = 'stable'\ncomponents = ['clippy', 'rustc']", true);
    check("channel = 'stable'\ncomponents = ['rustfmt']", false);
    check("channel = '1.95.0'", false);
}

/// See docs/client-behaviour.md R-22.
#[test]
fn installed_toolchain_of_a_toolchain_file_needs_no_release_of_rustup() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let first = site_of(&upstream, &user);
    install_and_lose_archives(&upstream, &first, &user, &["stable"]);
    upstream.stop();
    // Nothing at all is stored here.
    let site = site_of(&upstream, &user);
    check_installed(&upstream, &site, &user, "channel = 'stable'", true);
    let project = folder("rust-toolchain", "stable\n");
    let path = project.path().display().to_string();
    let (is_ready, said) = text_of(&site, &upstream, &["check", &path]);
    assert!(is_ready, "{said}");
}

/// See docs/client-behaviour.md R-24.
#[test]
fn installed_toolchain_needs_only_those_further_components_that_the_release_has() {
    let upstream = released(&[&stable()]);
    let user = Rustup::without_toolchain();
    let site = site_of(&upstream, &user);
    install_and_lose_archives(&upstream, &site, &user, &["stable"]);
    let wanted = "channel = 'stable'\nprofile = 'default'\ncomponents = ['miri', 'rust-src']";
    let project = folder("rust-toolchain.toml", &format!("[toolchain]\n{wanted}\n"));
    let path = project.path().display().to_string();
    let (not_ready, _) = check_installed(&upstream, &site, &user, wanted, false);
    assert!(not_ready.contains("`rust-src`"), "{not_ready}");
    assert!(!not_ready.contains("miri"), "{not_ready}");
    assert!(!not_ready.contains("`rustc`"), "{not_ready}");
    // An empty home could not have it, but this one can.
    let (is_warm, said) = text_of(&site, &upstream, &["warm", &path]);
    assert!(is_warm, "{said}");
    upstream.stop();
    let (_, rustc) = check_installed(&upstream, &site, &user, wanted, true);
    assert!(
        rustc.stderr.contains("skipping unavailable component miri"),
        "{rustc:?}"
    );
    assert_eq!(user.components(&format!("stable-{HOST}")).len(), 4);
}

fn nightly(day: &str) -> Toolchain {
    Toolchain::new("nightly", "1.97.0-nightly").date(day)
}

/// See docs/client-behaviour.md R-24.
#[test]
fn toolchain_file_never_makes_rustup_go_back_from_the_newest_nightly() {
    let upstream = released(&[&nightly("2026-04-12")]);
    let user = Rustup::without_toolchain();
    let site = site_of(&upstream, &user);
    install_and_lose_archives(&upstream, &site, &user, &["nightly", "-c", "rustfmt"]);
    upstream.release(&nightly("2026-04-13").unavailable("rustfmt-preview"));
    let of_others = crate::fixture::site(&upstream);
    let wanted = "channel = 'nightly'\nprofile = 'minimal'\ntargets = ['thumbv6m-none-eabi']";
    let project = folder("rust-toolchain.toml", &format!("[toolchain]\n{wanted}\n"));
    let path = project.path().display().to_string();
    let warm = ["warm", &path, "--max-age", "0s"];
    let (is_warm, said) = text_of(&of_others, &upstream, &warm);
    assert!(!is_warm && said.contains("thumbv6m-none-eabi"), "{said}");
    let (is_warm, said) = text_of(&site, &upstream, &warm);
    assert!(is_warm, "{said}");
    upstream.stop();
    let (_, rustc) = check_installed(&upstream, &site, &user, wanted, true);
    let text = format!("{rustc:?}");
    assert!(
        text.contains("skipping unavailable component rustfmt"),
        "{text}"
    );
}

/// See docs/client-behaviour.md R-24.
#[test]
fn named_nightly_is_not_ready_if_an_update_of_the_installed_one_must_go_back_to_a_day_that_is_not_stored()
 {
    let upstream = released(&[&nightly("2026-04-12")]);
    let user = Rustup::without_toolchain();
    let site = site_of(&upstream, &user);
    install_and_lose_archives(&upstream, &site, &user, &["nightly", "-c", "rustfmt"]);
    upstream.release(&nightly("2026-04-14").unavailable("rustfmt-preview"));
    let wanted = ["--toolchain", "nightly", "--profile", "minimal"];
    let warm = [&["warm", "--max-age", "0s"], &wanted[..]].concat();
    let check = [&["check"], &wanted[..]].concat();
    let install = ["toolchain", "install", "nightly", "--profile", "minimal"];
    let nobody = crate::fixture::site(&upstream).store_in(site.store());
    let (is_warm, said) = text_of(&nobody, &upstream, &warm);
    assert!(is_warm, "{said}");
    let (is_ready, said) = text_of(&nobody, &upstream, &check);
    assert!(is_ready, "{said}");
    let here = TempDir::new().unwrap();
    let compare = |expected: bool| {
        let (is_ready, said) = text_of(&site, &upstream, &check);
        assert_eq!(is_ready, expected, "{said}");
        let larder = serve_offline(&site, &upstream);
        let installed = run_in(&user, &larder, &here, "rustup", &install);
        assert_eq!(installed.status.success(), expected, "{installed:?}");
    };
    compare(false);
    let (is_warm, said) = text_of(&site, &upstream, &warm);
    assert!(is_warm, "{said}");
    upstream.stop();
    compare(true);
}
