//! Real rustup against the fake: installs, adds components, updates and resumes, without a mirror between.

use std::process::Command;

use fake_upstream::{DEFAULT_ROOT, FakeUpstream, Fault, HOST, Installer, Toolchain, WASM};

use testkit::http::Http;
use testkit::process::run;
use testkit::rustup::{Rustup, installed};

/// The version of the installed rustup, so that it finds no newer one.
fn rustup_version() -> String {
    let output = Command::new(installed()).arg("--version").output();
    let text = output.expect("rustup can be started").stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let version = text.split(' ').nth(1);
    version.expect("rustup says its version").to_owned()
}

/// A fake with this release and the current rustup, and its two URLs.
fn with(toolchain: &Toolchain) -> (FakeUpstream, String, String) {
    let upstream = FakeUpstream::start();
    upstream.release(toolchain);
    upstream.release_rustup(&Installer::new(&rustup_version()));
    let dist_server = upstream.base_url().trim_end_matches('/').to_owned();
    let update_root = format!("{dist_server}/rustup");
    (upstream, dist_server, update_root)
}

/// The paths of the requests so far.
fn paths(upstream: &FakeUpstream) -> Vec<String> {
    let mut paths: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    paths.sort();
    paths
}

#[test]
fn rustup_installs_a_minimal_toolchain_into_an_empty_home() {
    let stable = Toolchain::new("stable", "1.95.0");
    let (upstream, dist, update) = with(&stable);
    let rustup = Rustup::without_toolchain();
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup.run(&install, &dist, &update).assert_success();
    let mut expected = vec![
        "/dist/channel-rust-stable.toml".to_owned(),
        "/dist/channel-rust-stable.toml.sha256".to_owned(),
        "/rustup/release-stable.toml".to_owned(),
    ];
    expected.extend(
        ["cargo", "rust-std", "rustc"]
            .map(|package| format!("{}.xz", stable.archive_path(package, HOST))),
    );
    expected.sort();
    assert_eq!(paths(&upstream), expected);
    let name = format!("stable-{HOST}");
    let components = ["cargo", "rust-std", "rustc"].map(|component| format!("{component}-{HOST}"));
    assert_eq!(rustup.components(&name), components);
    let rustc = rustup.run(&["run", "stable", "rustc"], &dist, &update);
    assert_eq!(
        rustc.assert_success().stdout,
        "rustc 1.95.0 (0123abcde 2026-04-16)\n"
    );
    // The stored copy can be used without any mirror.
    let manifest = rustup.installed_text(&name, "lib/rustlib/multirust-channel-manifest.toml");
    assert!(manifest.contains(DEFAULT_ROOT));
}

#[test]
fn rustup_installs_components_and_targets_by_every_form_of_name() {
    let lock = "version = 4\n# of the standard library\n";
    let nightly = Toolchain::new("nightly", "1.97.0-nightly")
        .date("2026-01-15")
        .library_lock(lock)
        .gz_only();
    let (upstream, dist, update) = with(&nightly);
    let rustup = Rustup::without_toolchain();
    let name = format!("nightly-2026-01-15-{HOST}");
    rustup
        .run(
            &[
                "toolchain",
                "install",
                "nightly-2026-01-15",
                "--profile=default",
                "-c=rust-src",
                "-t",
                WASM,
                "--no-self-update",
            ],
            &dist,
            &update,
        )
        .assert_success();
    let archives = upstream.requests_for(".tar.gz");
    assert_eq!(archives, 8);
    assert_eq!(upstream.requests_for("/dist/2026-01-15/"), archives + 2);
    assert_eq!(rustup.components(&name).len(), archives);
    let library_lock = "lib/rustlib/src/rust/library/Cargo.lock";
    assert_eq!(rustup.installed_text(&name, library_lock), lock);
    assert!(
        rustup
            .installed_text(&name, "share/doc/rust/html/index.html")
            .contains("All about it")
    );
}

#[test]
fn rustup_installs_the_toolchain_of_a_toolchain_file() {
    let (upstream, dist, update) = with(&Toolchain::new("stable", "1.95.0"));
    let rustup = Rustup::without_toolchain();
    let file = format!(
        "[toolchain]\nchannel = '1.95.0'\nprofile = 'minimal'\ncomponents = ['clippy']\ntargets = ['{WASM}']\n"
    );
    let run = rustup.run_tool_with(&file, "cargo", &dist, &update);
    assert_eq!(
        run.assert_success().stdout,
        "cargo 1.95.0 (0123abcde 2026-04-16)\n"
    );
    assert_eq!(upstream.requests_for("channel-rust-1.95.0.toml"), 2);
    assert_eq!(rustup.components(&format!("1.95.0-{HOST}")).len(), 5);
}

#[test]
fn rustup_updates_to_the_next_release_and_detects_when_there_is_none() {
    let (upstream, dist, update) = with(&Toolchain::new("stable", "1.95.0"));
    let rustup = Rustup::without_toolchain();
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup.run(&install, &dist, &update).assert_success();
    upstream.forget_requests();
    rustup.run(&["update"], &dist, &update).assert_success();
    assert_eq!(
        paths(&upstream),
        [
            "/dist/channel-rust-stable.toml.sha256",
            "/rustup/release-stable.toml"
        ]
    );
    upstream.release(&Toolchain::new("stable", "1.95.1").date("2026-05-07"));
    rustup.run(&["update"], &dist, &update).assert_success();
    assert_eq!(upstream.requests_for("/dist/2026-05-07/"), 3);
    let rustc = rustup.run(&["run", "stable", "rustc"], &dist, &update);
    assert!(rustc.assert_success().stdout.contains("1.95.1"));
    // The next release does not change the version's own manifest.
    let old = rustup.run(
        &["toolchain", "install", "1.95.0", "--profile", "minimal"],
        &dist,
        &update,
    );
    old.assert_success().assert_says("1.95.0");
}

/// See docs/client-behaviour.md R-04.
#[test]
fn rustup_resumes_an_archive_by_range_after_silence() {
    let stable = Toolchain::new("stable", "1.95.0").padding("rustc", 400_000);
    let (upstream, dist, update) = with(&stable);
    let rustup = Rustup::without_toolchain().variable("RUSTUP_DOWNLOAD_TIMEOUT", "1");
    let rustc = stable.archive_path("rustc", HOST);
    upstream.fault_times(&rustc, 1, Fault::StallBodyAfter(100_000));
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup.run(&install, &dist, &update).assert_success();
    let requests = upstream.requests();
    let ranges: Vec<_> = requests
        .iter()
        .filter(|request| request.path.contains(&rustc))
        .map(|request| request.header("range"))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=100000-")]);
    assert_eq!(rustup.downloads(), "");
}

/// See docs/client-behaviour.md R-02.
#[test]
fn rustup_refuses_a_checksum_file_of_another_release() {
    let (upstream, dist, update) = with(&Toolchain::new("stable", "1.95.0"));
    let rustup = Rustup::without_toolchain();
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    let run = std::thread::scope(|scope| {
        let sidecar = upstream.gate("channel-rust-stable.toml");
        let run = scope.spawn(|| rustup.run(&install, &dist, &update));
        sidecar.wait_for(1);
        // Made while the checksum file's request waits, so that it delays only later requests.
        let manifest = upstream.gate("channel-rust-stable.toml");
        sidecar.open();
        manifest.wait_for(1);
        upstream.release(&Toolchain::new("stable", "1.95.1").date("2026-05-07"));
        manifest.open();
        run.join().unwrap()
    });
    run.assert_failure();
    assert_eq!(upstream.requests_for(".tar."), 0);
    rustup.run(&install, &dist, &update).assert_success();
}

#[test]
fn rustup_names_unavailable_components() {
    let (_upstream, dist, update) =
        with(&Toolchain::new("stable", "1.95.0").unavailable("rustfmt-preview"));
    let rustup = Rustup::without_toolchain();
    let install = ["toolchain", "install", "stable", "--profile", "default"];
    let run = rustup.run(&install, &dist, &update);
    run.assert_failure().assert_says("rustfmt");
}

/// See docs/client-behaviour.md R-01.
#[test]
fn rustup_uses_manifest_urls_on_other_hosts_unchanged() {
    let archives = FakeUpstream::start();
    let stable = Toolchain::new("stable", "1.95.0").root(archives.base_url());
    archives.release(&stable);
    let (upstream, dist, update) = with(&stable);
    let rustup = Rustup::without_toolchain();
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup.run(&install, &dist, &update).assert_success();
    assert_eq!(upstream.requests_for(".tar."), 0);
    assert_eq!(archives.requests_for(".tar."), 3);
}

#[test]
fn real_rustup_works_as_the_installer_from_the_update_root() {
    let (upstream, dist, update) = with(&Toolchain::new("stable", "1.95.0"));
    let program = std::fs::read(installed()).unwrap();
    let installer = Installer::new(&rustup_version()).program(program.clone());
    upstream.release_rustup(&installer);
    for path in [installer.newest_path(), installer.archive_path()] {
        let reply = Http::to(upstream.base_url()).get(&path);
        assert!(reply.body == program);
    }
    let rustup = Rustup::without_toolchain();
    let file = rustup.work_folder().join("rustup-init");
    std::fs::copy(installed(), &file).unwrap();
    let mut command = Command::new(&file);
    rustup.scrub(&mut command);
    command
        .env("RUSTUP_DIST_SERVER", &dist)
        .env("RUSTUP_UPDATE_ROOT", &update)
        .args(["-y", "--no-modify-path", "--profile", "minimal"]);
    run(command).assert_success();
    assert_eq!(rustup.components(&format!("stable-{HOST}")).len(), 3);
}

/// See docs/client-behaviour.md R-13.
#[test]
fn bootstrap_script_runs_the_installer_when_https_is_not_required() {
    let (upstream, dist, update) = with(&Toolchain::new("stable", "1.95.0"));
    let rustup = Rustup::without_toolchain();
    let script = Http::to(upstream.base_url())
        .get("/rustup/rustup-init.sh")
        .text();
    let run_script = |text: &str| {
        let path = rustup.work_folder().join("rustup-init.sh");
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new("/bin/sh");
        rustup.scrub(&mut command);
        command
            .arg(path)
            .arg("-y")
            .env("RUSTUP_DIST_SERVER", &dist)
            .env("RUSTUP_UPDATE_ROOT", &update);
        run(command)
    };
    run_script(&script).assert_failure().assert_says("http");
    let edited = script.replace("--proto '=https' ", "");
    let version = rustup_version();
    assert_eq!(
        run_script(&edited).assert_success().stdout,
        format!("rustup-init {version} dist={dist} update={update} -y\n")
    );
}
