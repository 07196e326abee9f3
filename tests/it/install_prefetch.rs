//! Install prefetch: larder uses the manifest that it served for the checksums of components, and to prefetch the rest
//! of the profile that rustup is installing.

use fake_upstream::{FakeUpstream, Fault, HOST, Toolchain, WASM};

use crate::dist::{archives_asked, released, serve};
use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::process::wait_until;
use testkit::rustup::Rustup;

const INSTALL: [&str; 5] = [
    "toolchain",
    "install",
    "stable",
    "--no-self-update",
    "--profile",
];
const MANIFEST: &str = "/dist/channel-rust-stable.toml";
const FETCHED: &str = "blobs-ahead-fetched";
const ASKED: &str = "blobs-ahead-asked";

fn toolchain() -> Toolchain {
    Toolchain::new("stable", "1.95.0").date("2026-04-16")
}

/// The path of an archive in the format that rustup prefers.
fn xz(package: &str, target: &str) -> String {
    format!("{}.xz", toolchain().archive_path(package, target))
}

fn run(rustup: &Rustup, larder: &Larder<'_>, arguments: &[&str]) -> testkit::process::Run {
    let server = larder.url().trim_end_matches('/').to_owned();
    rustup.run(arguments, &server, &format!("{server}/rustup"))
}

fn install(rustup: &Rustup, larder: &Larder<'_>, more: &[&str]) {
    run(rustup, larder, &[&INSTALL[..], more].concat()).assert_success();
}

/// Requests the manifest as rustup does.
#[track_caller]
fn take_manifest(larder: &Larder<'_>) {
    for path in [&format!("{MANIFEST}.sha256"), MANIFEST] {
        assert_eq!(larder.get(path).status, 200);
    }
}

/// Upstream's requests for archives, sorted, by package: `cargo rustc`; checksum files end with `.sha256`.
fn archives(upstream: &FakeUpstream) -> String {
    let mut names: Vec<_> = upstream
        .requests()
        .iter()
        .filter(|request| request.path.contains(".tar."))
        .map(|request| {
            let name = request.path.rsplit('/').next().unwrap();
            let (package, rest) = name.split_once("-1.95.0").unwrap();
            let of_target = if rest.contains(WASM) { "@wasm" } else { "" };
            let sidecar = if rest.ends_with(".sha256") {
                ".sha256"
            } else {
                ""
            };
            format!("{package}{of_target}{sidecar}")
        })
        .collect();
    names.sort();
    names.join(" ")
}

#[test]
fn install_requests_each_archive_once_and_no_checksum_file() {
    for format in ["upstream", "gz"] {
        let upstream = released();
        let site = site(&upstream);
        let larder = serve(&site, &upstream, &["--toolchain-format", format]);
        install(&Rustup::without_toolchain(), &larder, &["default"]);
        let all = "cargo clippy rust-docs rust-std rustc rustfmt";
        assert_eq!(archives(&upstream), all, "{format}");
        let other = if format == "gz" { ".tar.xz" } else { ".tar.gz" };
        assert_eq!(upstream.requests_for(other), 0);
    }
}

#[test]
fn mirror_without_checksum_files_of_components_suffices() {
    let upstream = released();
    for matcher in [".tar.xz.sha256", ".tar.gz.sha256"] {
        upstream.fault(matcher, Fault::Status(404));
    }
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let rustup = Rustup::without_toolchain();
    install(&rustup, &larder, &["default", "-t", WASM]);
    larder.wait_until_idle();

    // No client requests the manifest from the new process, which reads it from the store.
    let larder = larder.restart(&["--dist-server", upstream.base_url().trim_end_matches('/')]);
    upstream.forget_requests();
    run(&rustup, &larder, &["component", "add", "rust-src"]).assert_success();
    assert_eq!(upstream.requests_for("channel-rust"), 0);
    assert_eq!(archives(&upstream), "rust-src");
}

/// rustup's own server has no checksum files since 1.96, and rustup adds components by its copy of the manifest.
#[test]
fn missing_checksum_file_and_manifest_make_larder_fetch_the_dated_manifest() {
    let upstream = released();
    for matcher in [".tar.xz.sha256", ".tar.gz.sha256"] {
        upstream.fault(matcher, Fault::Status(404));
    }
    let site = site(&upstream);
    let rustup = Rustup::without_toolchain();
    install(&rustup, &serve(&site, &upstream, &[]), &["minimal"]);

    let elsewhere = crate::fixture::site(&upstream);
    let larder = serve(&elsewhere, &upstream, &[]);
    upstream.forget_requests();
    run(&rustup, &larder, &["component", "add", "clippy", "rustfmt"]).assert_success();
    let asked = archives(&upstream);
    let asked = asked.split(' ').filter(|name| !name.ends_with(".sha256"));
    assert_eq!(asked.collect::<Vec<_>>(), ["clippy", "rustfmt"]);
    assert_eq!(
        upstream.requests_for("/dist/2026-04-16/channel-rust-stable.toml"),
        2,
        "it and its hash"
    );
}

/// See docs/client-behaviour.md R-21.
#[test]
fn stored_component_can_be_added_offline_without_a_manifest_request() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    install(&Rustup::without_toolchain(), &larder, &["default"]);
    let rustup = Rustup::without_toolchain();
    install(&rustup, &larder, &["minimal"]);
    larder.wait_until_idle();
    larder.stop();

    upstream.stop();
    let larder = serve(&site, &upstream, &["--offline"]);
    run(&rustup, &larder, &["component", "add", "clippy"]).assert_success();
    run(&rustup, &larder, &["component", "add", "rust-src"]).assert_failure();
}

/// See docs/client-behaviour.md.
#[test]
fn first_component_prefetches_the_rest_of_the_smallest_profile() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    take_manifest(&larder);
    let gate = upstream.gate(".tar.");
    std::thread::scope(|scope| {
        let cargo = scope.spawn(|| larder.get(&xz("cargo", HOST)));
        gate.wait_for(3);
        assert_eq!(archives(&upstream), "cargo rust-std rustc");
        assert_eq!(larder.request_count(ASKED), 0);
        let rustc = scope.spawn(|| larder.get(&xz("rustc", HOST)));
        wait_until("rustc was asked for", || larder.request_count(ASKED) == 1);
        gate.open();
        for reply in [cargo.join().unwrap(), rustc.join().unwrap()] {
            assert_eq!((reply.status, reply.complete), (200, true));
        }
    });
    larder.wait_until_idle();
    larder.get(&xz("rust-std", HOST));
    larder.get(&xz("rust-std", HOST));
    assert_eq!(
        (larder.request_count(FETCHED), larder.request_count(ASKED)),
        (2, 2)
    );
    assert_eq!(archives(&upstream), "cargo rust-std rustc");
}

/// See docs/client-behaviour.md.
#[test]
fn two_components_of_a_larger_profile_prefetch_that_profile() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    take_manifest(&larder);
    let gate = upstream.gate(".tar.");
    std::thread::scope(|scope| {
        let larder = &larder;
        let expect = |package, waiting, all| {
            scope.spawn(move || larder.get(&xz(package, HOST)));
            gate.wait_for(waiting);
            assert_eq!(archives(&upstream), all);
        };
        expect("cargo", 3, "cargo rust-std rustc");
        expect("clippy-preview", 4, "cargo clippy rust-std rustc");
        let all = "cargo clippy rust-docs rust-std rustc rustfmt";
        expect("rust-docs", 6, all);
        gate.open();
    });
}

/// Installs, and fails unless a client requested all prefetched archives. `is_expected` checks their number.
#[track_caller]
fn check_no_unused_prefetch(more: &[&str], is_expected: impl Fn(u64) -> bool) {
    let upstream = FakeUpstream::builder()
        .delay(std::time::Duration::from_millis(50))
        .start();
    upstream.release(&toolchain());
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    install(&Rustup::without_toolchain(), &larder, more);
    larder.wait_until_idle();
    let (fetched, asked) = (larder.request_count(FETCHED), larder.request_count(ASKED));
    assert_eq!(fetched, asked, "{more:?}");
    assert!(is_expected(fetched), "{more:?}: {fetched}");
}

#[test]
fn prefetch_of_a_profile_is_used_completely() {
    check_no_unused_prefetch(&["minimal"], |fetched| (1..=2).contains(&fetched));
    check_no_unused_prefetch(&["default"], |fetched| (2..=3).contains(&fetched));
}

#[test]
fn prefetch_of_a_profile_with_components_and_targets_is_used_completely() {
    let some = |fetched| fetched >= 1;
    check_no_unused_prefetch(&["minimal", "-c", "clippy", "-c", "rustfmt"], some);
    check_no_unused_prefetch(&["minimal", "-c", "rust-src", "-t", WASM], some);
}

/// After an install of the minimal profile, `act` must cause requests for these archives and no prefetch.
#[track_caller]
fn check_no_prefetch_after_install(fetched: &str, act: impl FnOnce(&Rustup, &Larder<'_>)) {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let rustup = Rustup::without_toolchain();
    install(&rustup, &larder, &["minimal"]);
    larder.wait_until_idle();
    let before = larder.request_count(FETCHED);
    upstream.forget_requests();
    act(&rustup, &larder);
    larder.wait_until_idle();
    assert_eq!(archives(&upstream), fetched);
    assert_eq!(larder.request_count(FETCHED), before);
}

/// See docs/client-behaviour.md R-21.
#[test]
fn adding_a_component_prefetches_no_other() {
    let all = "clippy rust-src rust-std@wasm rustfmt";
    check_no_prefetch_after_install(all, |rustup, larder| {
        for added in ["clippy", "rustfmt", "rust-src"] {
            run(rustup, larder, &["component", "add", added]).assert_success();
        }
        run(rustup, larder, &["target", "add", WASM]).assert_success();
    });
}

#[test]
fn client_without_the_manifest_causes_no_prefetch() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    // The manifest is stored, but another process served it.
    take_manifest(&larder);
    larder.wait_until_idle();
    let larder = larder.restart(&["--dist-server", upstream.base_url().trim_end_matches('/')]);
    assert_eq!(larder.get(&xz("rust-std", HOST)).status, 200);
    // The client only checks for a new release.
    assert_eq!(larder.get(&format!("{MANIFEST}.sha256")).status, 200);
    assert_eq!(larder.get(&xz("cargo", HOST)).status, 200);
    larder.wait_until_idle();
    assert_eq!(archives(&upstream), "cargo rust-std");
    assert_eq!(larder.request_count(FETCHED), 0);
}

#[test]
fn stored_archives_are_not_prefetched() {
    check_no_prefetch_after_install("", |_, larder| {
        install(&Rustup::without_toolchain(), larder, &["minimal"]);
    });
}

#[test]
fn install_of_an_older_generation_is_verified_by_its_own_checksums_after_a_release() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--max-age", "0s"]);
    take_manifest(&larder);
    larder.wait_until_idle();
    upstream.release(&Toolchain::new("stable", "1.96.0").date("2026-05-28"));
    take_manifest(&larder);
    assert!(larder.get(MANIFEST).text().contains("1.96.0"));
    upstream.fault(".sha256", Fault::Status(404));
    let reply = larder.get(&xz("cargo", HOST));
    assert_eq!((reply.status, reply.complete), (200, true));
}

#[test]
fn component_with_another_hash_than_in_the_manifest_is_never_complete() {
    let upstream = released();
    let toolchain = toolchain().padding("rustc", 3_000_000);
    upstream.release(&toolchain);
    // The bytes and the checksum file change; the manifest does not.
    let path = xz("rustc", HOST);
    let mut body = toolchain
        .archives()
        .into_iter()
        .find(|archive| archive.path == path)
        .unwrap()
        .body
        .to_vec();
    body[1_000_000] ^= 1;
    upstream.serve_static(&path, body, "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    take_manifest(&larder);
    for _ in 0..2 {
        let reply = larder.get(&path);
        assert!(
            !reply.complete || reply.status == 503,
            "{} {}",
            reply.status,
            reply.body.len()
        );
    }
    let failed = run(
        &Rustup::without_toolchain().variable("RUSTUP_MAX_RETRIES", "0"),
        &larder,
        &[&INSTALL[..], &["minimal"]].concat(),
    );
    failed.assert_failure();
    check_blobs_match_their_names(&site, &larder);
}

/// Fails unless each blob's name is the hash of its bytes.
#[track_caller]
fn check_blobs_match_their_names(site: &Site, larder: &Larder<'_>) {
    larder.wait_until_idle();
    let folder = site.store().join("v1/blobs");
    for (path, bytes) in testkit::store::files(&folder) {
        let name = path.strip_prefix(&folder).unwrap().to_string_lossy();
        assert_eq!(name.replace('/', ""), fake_upstream::sha256(&bytes));
    }
}

/// Installs with this fault on rustc, then without.
#[track_caller]
fn check_recovery(fault: Fault) {
    let upstream = released();
    upstream.release(&toolchain().padding("rustc", 3_000_000));
    upstream.fault(&xz("rustc", HOST), fault);
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let rustup = Rustup::without_toolchain().variable("RUSTUP_MAX_RETRIES", "0");
    let minimal = [&INSTALL[..], &["minimal"]].concat();
    run(&rustup, &larder, &minimal).assert_failure();
    check_blobs_match_their_names(&site, &larder);
    upstream.clear_faults();
    wait_until("upstream counts as well again", || {
        larder.get(&xz("rustc", HOST)).complete
    });
    // A new home: rustup may leave a toolchain with an empty version file after a failure, and refuses that one.
    let rustup = Rustup::without_toolchain();
    run(&rustup, &larder, &minimal).assert_success();
    check_blobs_match_their_names(&site, &larder);
}

#[test]
fn cut_or_wrong_component_is_not_stored_and_the_next_install_succeeds() {
    std::thread::scope(|scope| {
        for fault in [
            Fault::FlipByte(2_000_000),
            Fault::CutUnframed(2_000_000),
            Fault::CutAfter(2_000_000),
            Fault::LoginPage,
        ] {
            scope.spawn(|| check_recovery(fault));
        }
    });
}

#[test]
fn twenty_concurrent_rustups_fetch_each_archive_once() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| install(&Rustup::without_toolchain(), &larder, &["minimal"]));
        }
    });
    assert_eq!(archives_asked(&upstream), 3);
    larder.wait_until_idle();
    assert_eq!(larder.request_count(FETCHED), larder.request_count(ASKED));
}

#[test]
fn prefetch_has_four_permits_and_client_requests_bypass_them() {
    let upstream = released();
    let toolchains = [
        toolchain(),
        Toolchain::new("beta", "1.96.0-beta.3").date("2026-05-01"),
        Toolchain::new("nightly", "1.97.0-nightly").date("2026-06-01"),
    ];
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let gate = upstream.gate("/rust");
    for (toolchain, channel) in toolchains.iter().zip(["stable", "beta", "nightly"]) {
        upstream.release(toolchain);
        let manifest = format!("/dist/channel-rust-{channel}.toml");
        for path in [&format!("{manifest}.sha256"), &manifest] {
            assert_eq!(larder.get(path).status, 200);
        }
        let cargo = format!("{}.xz", toolchain.archive_path("cargo", HOST));
        assert!(larder.get(&cargo).complete);
    }
    gate.wait_for(4);
    // Prefetches of the third install wait for a permit. A client's request for one of them does not.
    let rust_std = format!("{}.xz", toolchains[2].archive_path("rust-std", HOST));
    assert_eq!(upstream.requests_for(&rust_std), 0);
    assert_eq!(gate.waiting(), 4);
    std::thread::scope(|scope| {
        let rust_std = scope.spawn(|| larder.get(&rust_std));
        gate.wait_for(5);
        gate.open();
        assert!(rust_std.join().unwrap().complete);
    });
    let rustc = format!("{}.xz", toolchains[2].archive_path("rustc", HOST));
    wait_until("the queue goes on", || upstream.requests_for(&rustc) == 1);
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(&rust_std), 1);
    assert_eq!(larder.request_count(FETCHED), 5);
}
