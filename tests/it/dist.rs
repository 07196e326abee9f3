//! Real rustup through larder: installs, updates, releases in between, outages, and the bootstrap script.

use fake_upstream::{FakeUpstream, Fault, HOST, Installer, Toolchain, WASM};

use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::rustup::{Rustup, installed};

pub(crate) const MINIMAL: [&str; 6] = [
    "toolchain",
    "install",
    "stable",
    "--profile",
    "minimal",
    "--no-self-update",
];

pub(crate) fn released() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.release(&Toolchain::new("stable", "1.95.0").date("2026-04-16"));
    upstream.release_rustup(&Installer::new("1.29.0").program(std::fs::read(installed()).unwrap()));
    upstream
}

pub(crate) fn serve<'site>(
    site: &'site Site,
    upstream: &FakeUpstream,
    more: &[&str],
) -> Larder<'site> {
    let server = upstream.base_url().trim_end_matches('/').to_owned();
    let mut arguments = vec!["--dist-server", server.as_str()];
    arguments.extend(more);
    site.serve(&arguments)
}

fn install(larder: &Larder<'_>, arguments: &[&str]) -> testkit::process::Run {
    let server = larder.url().trim_end_matches('/').to_owned();
    Rustup::without_toolchain().run(arguments, &server, &format!("{server}/rustup"))
}

pub(crate) fn archives_asked(upstream: &FakeUpstream) -> usize {
    upstream
        .requests()
        .iter()
        .filter(|request| request.path.contains(".tar.") && !request.path.ends_with(".sha256"))
        .count()
}

/// See docs/client-behaviour.md R-10.
#[test]
fn second_install_requests_no_archive_upstream_and_works_offline() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    install(&larder, &MINIMAL).assert_success();
    assert_eq!(archives_asked(&upstream), 3, "cargo, rust-std, rustc");
    upstream.forget_requests();
    install(&larder, &MINIMAL).assert_success();
    assert_eq!(archives_asked(&upstream), 0);
    larder.wait_until_idle();
    larder.stop();

    upstream.stop();
    let larder = serve(&site, &upstream, &["--offline"]);
    install(&larder, &MINIMAL).assert_success();
}

/// See docs/client-behaviour.md R-08.
#[test]
fn components_targets_and_the_self_update_check_work() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let arguments = [
        "toolchain",
        "install",
        "stable",
        "--profile",
        "minimal",
        "-c",
        "clippy",
        "-t",
        WASM,
    ];
    install(&larder, &arguments).assert_success();
    assert_eq!(archives_asked(&upstream), 5);
    assert_eq!(upstream.requests_for("/rustup/release-stable.toml"), 1);
}

/// See docs/client-behaviour.md.
#[test]
fn offline_without_the_manifest_fails_and_is_not_reported_as_missing() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--offline"]);
    for channel in ["stable", "nightly", "1.95.0", "nightly-2026-01-15"] {
        let run = install(
            &larder,
            &["toolchain", "install", channel, "--profile", "minimal"],
        );
        run.assert_failure();
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
    let reply = larder.get("/dist/channel-rust-nightly.toml.sha256");
    assert_eq!(reply.status, 503);
    assert!(
        reply.text().contains("larder runs offline"),
        "{}",
        reply.text()
    );
}

/// See docs/client-behaviour.md.
#[test]
fn missing_dist_files_are_answered_with_404() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    assert_eq!(
        larder
            .get("/dist/2026-01-01/channel-rust-nightly.toml.sha256")
            .status,
        404
    );
    assert_eq!(
        larder.get("/dist/2026-01-01/rustc-1.0.0-x.tar.xz").status,
        404
    );
}

/// See docs/client-behaviour.md R-02.
#[test]
fn manifest_and_checksum_file_match_before_during_and_after_a_release() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--max-age", "0s"]);
    let sidecar = || larder.get("/dist/channel-rust-stable.toml.sha256").text()[..64].to_owned();
    let manifest = || fake_upstream::sha256(&larder.get("/dist/channel-rust-stable.toml").body);

    let old = sidecar();
    // A request during the write of a fetch would share that fetch.
    larder.wait_until_idle();
    upstream.release(&Toolchain::new("stable", "1.96.0").date("2026-05-28"));
    assert_eq!(
        manifest(),
        old,
        "who has the old hash gets the old manifest"
    );
    let new = sidecar();
    assert_ne!(new, old);
    assert_eq!(manifest(), new);
    install(&larder, &MINIMAL)
        .assert_success()
        .assert_says("1.96.0");
}

/// See docs/client-behaviour.md R-02.
#[test]
fn release_between_upstreams_checksum_file_and_manifest_is_detected() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let gate = upstream.gate("/dist/channel-rust-stable.toml");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| larder.get("/dist/channel-rust-stable.toml.sha256"));
        gate.wait_for(1);
        upstream.release(&Toolchain::new("stable", "1.96.0").date("2026-05-28"));
        gate.open();
        let sidecar = asked.join().unwrap().text();
        let manifest = larder.get("/dist/channel-rust-stable.toml").body;
        assert_eq!(sidecar[..64], fake_upstream::sha256(&manifest));
    });
}

#[test]
fn component_with_one_wrong_byte_is_neither_complete_nor_stored() {
    let upstream = released();
    let toolchain = Toolchain::new("stable", "1.95.0")
        .date("2026-04-16")
        .padding("rustc", 3_000_000);
    upstream.release(&toolchain);
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let path = format!("{}.xz", toolchain.archive_path("rustc", HOST));
    upstream.fault_times(&path, 1, Fault::FlipByte(2_000_000));
    let sidecar = format!("{path}.sha256");
    assert_eq!(larder.get(&sidecar).status, 200);
    // The fault also matches the checksum file's path, and may have applied to that request.
    upstream.clear_faults();
    upstream.fault(&path, Fault::FlipByte(2_000_000));
    let bad = larder.get(&path);
    assert!(!bad.complete || bad.status == 503, "{}", bad.status);
    upstream.clear_faults();
    let good = larder.get(&path);
    assert_eq!((good.status, good.complete), (200, true));
    install(&larder, &MINIMAL).assert_success();
}

#[test]
fn twenty_concurrent_installs_fetch_each_file_once() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let path = format!(
        "{}.xz",
        Toolchain::new("stable", "1.95.0")
            .date("2026-04-16")
            .archive_path("rustc", HOST)
    );
    let bodies = larder.get_at_once(20, &path);
    assert!(
        bodies
            .iter()
            .all(|reply| reply.complete && reply.body == bodies[0].body)
    );
    assert_eq!(archives_asked(&upstream), 1);
}

/// See docs/client-behaviour.md R-13.
#[test]
fn bootstrap_script_installs_rustup_over_http_without_variables() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let script = larder.get("/rustup-init.sh");
    assert_eq!(script.status, 200, "{}", script.text());
    let rustup = Rustup::without_toolchain();
    let file = rustup.home().join("rustup-init.sh");
    std::fs::create_dir_all(rustup.home()).unwrap();
    std::fs::write(&file, &script.body).unwrap();
    let mut command = std::process::Command::new("sh");
    rustup.scrub(&mut command);
    command
        .arg(&file)
        .args(["-y", "--no-modify-path", "--default-toolchain", "none"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(rustup.cargo_home().join("bin/rustup").exists(), "{said}");
    assert_eq!(
        upstream.requests_for("/rustup/dist/"),
        2,
        "the program and its sidecar"
    );
}

/// See docs/client-behaviour.md R-13.
#[test]
fn bootstrap_script_that_changed_upstream_fails_and_does_nothing() {
    let upstream = released();
    upstream.serve_static(
        "/rustup/rustup-init.sh",
        "#!/bin/sh\necho changed\n",
        "text/plain",
    );
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let script = larder.get("/rustup-init.sh");
    assert_eq!(script.status, 503);
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(script.text())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("insists on https in 0 places"), "{said}");
}

/// See docs/client-behaviour.md R-17.
#[test]
fn gz_only_manifests_make_rustup_download_gzip_archives() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--toolchain-format", "gz"]);
    install(&larder, &MINIMAL).assert_success();
    let asked = upstream.requests();
    assert!(
        asked
            .iter()
            .any(|request| request.path.ends_with(".tar.gz"))
    );
    assert!(
        !asked
            .iter()
            .any(|request| request.path.ends_with(".tar.xz"))
    );
}
