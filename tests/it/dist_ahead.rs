//! What larder learns from the manifest that it handed out: the hashes of components, and which of them rustup will ask
//! for next.

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

/// Gets the manifest as rustup does.
#[track_caller]
fn take_manifest(larder: &Larder<'_>) {
    for path in [&format!("{MANIFEST}.sha256"), MANIFEST] {
        assert_eq!(larder.get(path).status, 200);
    }
}

/// What was asked of upstream about archives, sorted: `cargo rustc`, sidecars with `.sha256`.
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
fn an_install_costs_one_request_for_each_archive_and_none_for_a_sidecar() {
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
fn a_mirror_without_sidecars_of_components_is_good_enough() {
    let upstream = released();
    for matcher in [".tar.xz.sha256", ".tar.gz.sha256"] {
        upstream.fault(matcher, Fault::Status(404));
    }
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let rustup = Rustup::without_toolchain();
    install(&rustup, &larder, &["default", "-t", WASM]);
    larder.wait_until_idle();

    // Nobody asks the new process for the manifest: it knows it from the store.
    let larder = larder.restart(&["--dist-server", upstream.base_url().trim_end_matches('/')]);
    upstream.forget_requests();
    run(&rustup, &larder, &["component", "add", "rust-src"]).assert_success();
    assert_eq!(upstream.requests_for("channel-rust"), 0);
    assert_eq!(archives(&upstream), "rust-src");
}

/// As it is with rustup's own server since 1.96: rustup adds components by the manifest that it installed by.
#[test]
fn without_sidecar_and_manifest_at_hand_the_manifest_of_the_day_is_fetched() {
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

#[test]
fn offline_a_stored_component_can_be_added_to_a_toolchain_without_asking_for_the_manifest() {
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

#[test]
fn the_first_component_leads_to_the_rest_of_the_smallest_profile() {
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

#[test]
fn a_larger_profile_is_believed_in_when_two_of_its_own_components_were_asked_for() {
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

/// Whether all that was fetched ahead was asked for in the end, and how much that was.
#[track_caller]
fn check_waste(more: &[&str], ahead: impl Fn(u64) -> bool) {
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
    assert!(ahead(fetched), "{more:?}: {fetched}");
}

#[test]
fn nothing_is_fetched_in_vain_for_a_profile() {
    check_waste(&["minimal"], |ahead| (1..=2).contains(&ahead));
    check_waste(&["default"], |ahead| (2..=3).contains(&ahead));
}

#[test]
fn nothing_is_fetched_in_vain_for_a_profile_with_extras() {
    let some = |ahead| ahead >= 1;
    check_waste(&["minimal", "-c", "clippy", "-c", "rustfmt"], some);
    check_waste(&["minimal", "-c", "rust-src", "-t", WASM], some);
}

#[test]
fn what_is_added_to_a_toolchain_leads_to_nothing() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let rustup = Rustup::without_toolchain();
    install(&rustup, &larder, &["minimal"]);
    larder.wait_until_idle();
    let before = larder.request_count(FETCHED);
    upstream.forget_requests();
    for added in ["clippy", "rustfmt", "rust-src"] {
        run(&rustup, &larder, &["component", "add", added]).assert_success();
    }
    run(&rustup, &larder, &["target", "add", WASM]).assert_success();
    larder.wait_until_idle();
    assert_eq!(archives(&upstream), "clippy rust-src rust-std@wasm rustfmt");
    assert_eq!(larder.request_count(FETCHED), before);
}

#[test]
fn who_never_took_the_manifest_gets_what_he_asks_for_and_nothing_follows() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    // Known, since it was taken, but by another process.
    take_manifest(&larder);
    larder.wait_until_idle();
    let larder = larder.restart(&["--dist-server", upstream.base_url().trim_end_matches('/')]);
    assert_eq!(larder.get(&xz("rust-std", HOST)).status, 200);
    // Only looked whether there is a new one.
    assert_eq!(larder.get(&format!("{MANIFEST}.sha256")).status, 200);
    assert_eq!(larder.get(&xz("cargo", HOST)).status, 200);
    larder.wait_until_idle();
    assert_eq!(archives(&upstream), "cargo rust-std");
    assert_eq!(larder.request_count(FETCHED), 0);
}

#[test]
fn what_is_stored_is_not_fetched_ahead() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    install(&Rustup::without_toolchain(), &larder, &["minimal"]);
    larder.wait_until_idle();
    let before = larder.request_count(FETCHED);
    upstream.forget_requests();
    install(&Rustup::without_toolchain(), &larder, &["minimal"]);
    larder.wait_until_idle();
    assert_eq!(archives(&upstream), "");
    assert_eq!(larder.request_count(FETCHED), before);
}

#[test]
fn who_installs_an_older_generation_is_served_by_its_hashes_after_a_release() {
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
fn a_component_that_the_manifest_has_another_hash_for_never_ends_as_a_whole() {
    let upstream = released();
    let toolchain = toolchain().padding("rustc", 3_000_000);
    upstream.release(&toolchain);
    // Bytes and sidecar change, the manifest does not.
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
    check_kept_is_sound(&site, &larder);
}

/// Each blob's name is the hash of its bytes.
#[track_caller]
fn check_kept_is_sound(site: &Site, larder: &Larder<'_>) {
    larder.wait_until_idle();
    let folder = site.store().join("v1/blobs");
    for (path, bytes) in testkit::store::files(&folder) {
        let name = path.strip_prefix(&folder).unwrap().to_string_lossy();
        assert_eq!(name.replace('/', ""), fake_upstream::sha256(&bytes));
    }
}

/// An install while this happens to rustc, and another afterwards.
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
    check_kept_is_sound(&site, &larder);
    upstream.clear_faults();
    wait_until("upstream counts as well again", || {
        larder.get(&xz("rustc", HOST)).complete
    });
    run(&rustup, &larder, &minimal).assert_success();
    check_kept_is_sound(&site, &larder);
}

#[test]
fn a_component_that_was_cut_or_wrong_is_not_kept_and_the_next_try_succeeds() {
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
fn twenty_rustups_at_once_cost_one_fetch_of_each_archive() {
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
fn four_at_a_time_are_fetched_ahead_and_clients_pass_them() {
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
    // Those of the third have to wait, but not for long if somebody wants them now.
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
