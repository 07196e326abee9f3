//! Real rustup through larder: installs, updates, releases in between, outages, and the script that bootstraps it.

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

#[test]
fn t51_a_second_install_asks_upstream_for_no_archive_and_offline_it_still_works() {
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

#[test]
fn components_targets_and_the_self_update_check_come_through() {
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

#[test]
fn t48_offline_without_the_manifest_is_trouble_and_neither_absence_nor_panic() {
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

#[test]
fn t53_what_upstream_has_not_is_absent() {
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

#[test]
fn t44_manifest_and_sidecar_match_before_during_and_after_a_release() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--max-age", "0s"]);
    let sidecar = || larder.get("/dist/channel-rust-stable.toml.sha256").text()[..64].to_owned();
    let manifest = || fake_upstream::sha256(&larder.get("/dist/channel-rust-stable.toml").body);

    let old = sidecar();
    // A request made while a fetch is being stored shares it.
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

#[test]
fn a_release_between_upstreams_own_sidecar_and_manifest_is_noticed() {
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
fn a_component_that_is_wrong_by_one_byte_is_neither_whole_nor_kept() {
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
    // The fault matches the sidecar's path as well, and may have gone to it.
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
fn twenty_installs_at_once_cost_one_fetch_of_each_file() {
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

#[test]
fn t54_the_script_installs_rustup_over_http_with_no_variable_set() {
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

#[test]
fn t54_a_script_that_changed_upstream_fails_loudly_and_does_nothing() {
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

#[test]
fn gz_only_manifests_make_rustup_take_the_archives_that_unpack_fast() {
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
