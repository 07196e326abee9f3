//! `larder warm` and `larder check` on toolchains, and real rustup on the warmed store.

use std::fs;
use std::path::Path;

use fake_upstream::{
    Crate, DEFAULT_ROOT, FakeUpstream, HOST, Installer, Toolchain, WASM, crate_path,
};
use larder::toolchain;
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::lock_file::{lock_file, locked_package};
use testkit::rustup::{Rustup, installed};

/// An upstream with a release of rustup and of these toolchains.
pub(crate) fn released(toolchains: &[&Toolchain]) -> FakeUpstream {
    let upstream = FakeUpstream::start();
    for toolchain in toolchains {
        upstream.release(toolchain);
    }
    upstream.release_rustup(&Installer::new("1.29.0").program(fs::read(installed()).unwrap()));
    upstream
}

fn stable() -> Toolchain {
    Toolchain::new("stable", "1.95.0").date("2026-04-16")
}

/// Runs a command with `--json` against this upstream. Returns its document, its exit code and its stderr.
#[track_caller]
pub(crate) fn run(
    site: &Site,
    upstream: &FakeUpstream,
    arguments: &[&str],
) -> (Value, Option<i32>, String) {
    let server = upstream.base_url();
    let mut all = vec!["--json", "--dist-server", &server];
    all.extend(arguments);
    let output = site.command(&all);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {text}"));
    (document, output.status.code(), text)
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let top = TempDir::new().unwrap();
    for (path, text) in files {
        let path = top.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    top
}

fn archives_asked(upstream: &FakeUpstream) -> Vec<String> {
    let requests = upstream.requests().into_iter();
    let mut paths: Vec<_> = requests
        .map(|request| request.path)
        .filter(|path| path.contains(".tar.") && !path.ends_with(".sha256"))
        .collect();
    paths.sort();
    paths
}

/// The paths of the files that `rustup toolchain install` would download.
fn files(release: &Toolchain, profile: &str, components: &[&str], targets: &[&str]) -> Vec<String> {
    let owned = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let manifest = release.manifest(&release.archives());
    let (components, targets) = (owned(components), owned(targets));
    let files = toolchain::files(&manifest, HOST, profile, &components, &targets).unwrap();
    let mut paths: Vec<_> = files
        .into_iter()
        .map(|file| file.url.replace(DEFAULT_ROOT, ""))
        .collect();
    paths.sort();
    paths
}

pub(crate) fn serve_offline<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    site.serve(&["--dist-server", upstream.base_url(), "--offline"])
}

#[track_caller]
pub(crate) fn rustup(rustup: &Rustup, larder: &Larder<'_>, arguments: &[&str]) {
    let server = larder.url().trim_end_matches('/');
    let run = rustup.run(arguments, server, &format!("{server}/rustup"));
    run.assert_success();
}

/// See docs/client-behaviour.md R-18.
#[test]
fn toolchain_file_is_warmed_once_and_rustup_installs_it_offline() {
    let upstream = released(&[&stable()]);
    let tree = folder(&[(
        "app/rust-toolchain.toml",
        &format!(
            "[toolchain]\nchannel = '1.95.0'\nprofile = 'minimal'\ncomponents = ['clippy']\ntargets = ['{WASM}']\n"
        ),
    )]);
    let path = tree.path().display().to_string();
    let site = site(&upstream);
    let (verdict, code, _) = run(&site, &upstream, &["check", &path]);
    assert_eq!((&verdict["ready"], code), (&Value::Bool(false), Some(1)));
    assert!(
        verdict["toolchains"][0]["missing"][0]
            .as_str()
            .is_some_and(|missing| missing.contains("channel-rust-1.95.0.toml")),
        "{verdict:#}"
    );

    let (report, code, said) = run(&site, &upstream, &["warm", &path]);
    assert_eq!(code, Some(0), "{said}");
    let expected = files(&stable(), "minimal", &["clippy"], &[WASM]);
    assert_eq!(archives_asked(&upstream), expected);
    let numbers = ["toolchains", "components", "components_fetched", "failed"];
    let numbers = numbers.map(|field| report[field].to_string());
    assert_eq!(numbers, ["1", "5", "5", "[]"]);

    upstream.forget_requests();
    let (report, code, _) = run(&site, &upstream, &["warm", &path]);
    assert_eq!(
        (report["components_cached"].as_u64(), code),
        (Some(5), Some(0))
    );
    assert_eq!(archives_asked(&upstream).len(), 0);
    let (verdict, code, _) = run(&site, &upstream, &["check", &path]);
    assert_eq!(
        (verdict["ready"].as_bool(), code),
        (Some(true), Some(0)),
        "{verdict:#}"
    );
    let status = site.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("rust-toolchain.toml  (5 components)"),
        "{status}"
    );

    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let client = Rustup::without_toolchain();
    let install = [
        "toolchain",
        "install",
        "1.95.0",
        "--profile",
        "minimal",
        "-t",
        WASM,
    ];
    rustup(&client, &larder, &install);
    // rustup sends no manifest request here.
    rustup(
        &client,
        &larder,
        &["component", "add", "clippy", "--toolchain", "1.95.0"],
    );
    let installed = client.components(&format!("1.95.0-{HOST}"));
    assert!(
        installed.iter().any(|name| name.starts_with("clippy")),
        "{installed:?}"
    );
}

#[test]
fn named_toolchain_is_fetched_completely_and_a_later_release_is_detected() {
    let upstream = released(&[&stable()]);
    let site = site(&upstream);
    let named = [
        "warm",
        "--toolchain",
        "stable",
        "--profile",
        "default",
        "--bootstrap",
        "--max-age",
        "0s",
    ];
    let (report, code, said) = run(&site, &upstream, &named);
    assert_eq!(
        (code, report["projects"].as_u64()),
        (Some(0), Some(0)),
        "{said}"
    );
    assert_eq!(
        archives_asked(&upstream),
        files(&stable(), "default", &[], &[])
    );
    let installer = format!("/rustup/dist/{HOST}/rustup-init");
    assert_eq!(upstream.requests_for(&installer), 2, "its hash, and itself");

    let newer = Toolchain::new("stable", "1.96.0").date("2026-05-28");
    upstream.release(&newer);
    upstream.forget_requests();
    let (_, code, _) = run(&site, &upstream, &named);
    assert_eq!(code, Some(0));
    assert_eq!(
        archives_asked(&upstream),
        files(&newer, "default", &[], &[])
    );

    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    rustup(
        &Rustup::without_toolchain(),
        &larder,
        &["toolchain", "install", "stable"],
    );
    assert_eq!(larder.get("/rustup-init.sh").status, 200);
    assert_eq!(larder.get(&installer).status, 200);
}

/// See docs/client-behaviour.md R-22.
#[test]
fn warm_stores_the_program_that_rustup_updates_itself_to_after_an_install() {
    let upstream = released(&[&stable()]);
    // The same program with a suffix, to tell the two apart.
    let mut newer = fs::read(installed()).unwrap();
    newer.extend_from_slice(b"newer");
    let installer = Installer::new("99.0.0").program(newer.clone());
    upstream.release_rustup(&installer);
    let site = site(&upstream);
    let wanted = ["--toolchain", "stable", "--profile", "minimal"];
    let (_, code, said) = run(&site, &upstream, &[&["warm"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (verdict, code, _) = run(&site, &upstream, &[&["check"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{verdict:#}");
    let with_bootstrap = [&["warm", "--bootstrap"], &wanted[..]].concat();
    let (_, code, said) = run(&site, &upstream, &with_bootstrap);
    assert_eq!(code, Some(0), "{said}");
    let newest = upstream.requests_for(&installer.newest_path());
    assert_eq!(newest, 1, "only the sidecar: it is the same blob");

    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let client = Rustup::without_toolchain();
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup(&client, &larder, &install);
    let now = fs::read(client.cargo_home().join("bin/rustup")).unwrap();
    assert!(now == newer, "{} bytes", now.len());

    let blob = testkit::store::blob_path(&site, &fake_upstream::sha256(&newer));
    fs::remove_file(blob).unwrap();
    let (verdict, code, _) = run(&site, &upstream, &[&["check"], &wanted[..]].concat());
    assert_eq!(code, Some(1));
    let path = installer.archive_path();
    assert!(
        verdict["failed"].to_string().contains(&path[1..]),
        "{verdict:#}"
    );
}

/// See docs/client-behaviour.md R-12.
#[test]
fn incomplete_nightly_is_skipped_as_rustup_does() {
    let nightly = |date: &str| Toolchain::new("nightly", "1.97.0-nightly").date(date);
    let complete = nightly("2026-04-14");
    let upstream = released(&[
        &complete,
        &nightly("2026-04-15").unavailable("clippy-preview"),
        &nightly("2026-04-16").unavailable("clippy-preview"),
    ]);
    let site = site(&upstream);
    let wanted = [
        "--toolchain",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "clippy",
    ];
    let (report, code, said) = run(&site, &upstream, &[&["warm"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{said}{report:#}");
    assert_eq!(
        archives_asked(&upstream),
        files(&complete, "minimal", &["clippy"], &[])
    );
    let (verdict, code, _) = run(&site, &upstream, &[&["check"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{verdict:#}");

    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let install = [
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "-c",
        "clippy",
    ];
    rustup(&Rustup::without_toolchain(), &larder, &install);
}

#[test]
fn warmed_channel_can_be_installed_offline_by_its_version_and_by_its_date() {
    let nightly = Toolchain::new("nightly", "1.97.0-nightly").date("2026-05-01");
    let upstream = released(&[&stable(), &nightly]);
    let site = site(&upstream);
    let minimal = |names: &[&'static str]| {
        let names = names.iter().flat_map(|name| ["--toolchain", *name]);
        names.chain(["--profile", "minimal"]).collect::<Vec<_>>()
    };
    let wanted = minimal(&["stable", "nightly"]);
    let (_, code, said) = run(&site, &upstream, &[&["warm"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let others = ["1.95.0", "1.95", "stable-2026-04-16", "nightly-2026-05-01"];
    let (verdict, code, _) = run(
        &site,
        &upstream,
        &[&["check"], &minimal(&others)[..]].concat(),
    );
    assert_eq!(code, Some(0), "{verdict:#}");

    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let client = Rustup::without_toolchain();
    for name in others {
        let install = ["toolchain", "install", name, "--profile", "minimal"];
        rustup(&client, &larder, &install);
    }
}

/// See docs/client-behaviour.md R-17.
#[test]
fn archive_format_is_one_setting_of_the_store() {
    let upstream = released(&[&stable()]);
    let site = site(&upstream);
    let wanted = ["--toolchain", "stable", "--profile", "minimal"];
    let gz = [&["warm", "--toolchain-format", "gz"], &wanted[..]].concat();
    let check = [&["check"], &wanted[..]].concat();
    let (_, code, said) = run(&site, &upstream, &gz);
    assert_eq!(code, Some(0), "{said}");
    let (verdict, code, _) = run(&site, &upstream, &check);
    assert_eq!(code, Some(0), "{verdict:#}");
    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let install = ["toolchain", "install", "stable", "--profile", "minimal"];
    rustup(&Rustup::without_toolchain(), &larder, &install);
    larder.stop();

    // Another format is another set of archives, for all commands.
    let server = upstream.base_url();
    let other = [
        "--dist-server",
        server,
        "--offline",
        "--toolchain-format",
        "upstream",
    ];
    let larder = site.serve(&other);
    let (verdict, code, _) = run(&site, &upstream, &check);
    assert_eq!(code, Some(1), "{verdict:#}");
    let output = site.command(&gz);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("serves toolchains as `upstream`, not as `gz`"),
        "{said}"
    );
    larder.stop();
}

/// See docs/client-behaviour.md R-12.
#[test]
fn day_without_a_nightly_is_remembered_for_the_offline_install() {
    let nightly = |date: &str| Toolchain::new("nightly", "1.97.0-nightly").date(date);
    let complete = nightly("2026-04-13");
    let upstream = released(&[
        &complete,
        &nightly("2026-04-16").unavailable("clippy-preview"),
    ]);
    let site = site(&upstream);
    let profile = ["--profile", "minimal"];
    let wanted = ["--toolchain", "nightly", "--component", "clippy"];
    let wanted = [&wanted[..], &profile].concat();
    let (report, code, said) = run(&site, &upstream, &[&["warm"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{said}{report:#}");
    let (verdict, code, _) = run(&site, &upstream, &[&["check"], &wanted[..]].concat());
    assert_eq!(code, Some(0), "{verdict:#}");

    upstream.stop();
    let larder = serve_offline(&site, &upstream);
    let install = ["toolchain", "install", "nightly", "-c", "clippy"];
    let client = Rustup::without_toolchain();
    rustup(&client, &larder, &[&install[..], &profile].concat());
    let day = "/dist/2026-04-15/channel-rust-nightly";
    assert_eq!(larder.get(&format!("{day}.toml.sha256")).status, 404);
    assert_eq!(larder.get(&format!("{day}.sha256")).status, 404);
    let other = "/dist/2026-04-12/channel-rust-nightly.toml.sha256";
    assert_eq!(larder.get(other).status, 503, "upstream was not asked");
}

#[test]
fn release_without_a_wanted_component_fails_and_names_it() {
    let upstream = released(&[&stable().unavailable("clippy-preview")]);
    let site = site(&upstream);
    let wanted = ["warm", "--toolchain", "stable", "--profile", "default"];
    let (report, code, said) = run(&site, &upstream, &wanted);
    assert_eq!(code, Some(1), "{report:#}");
    assert!(
        said.contains("toolchain stable-") && said.contains("clippy"),
        "{said}"
    );
    let (_, code, said) = run(&site, &upstream, &["warm", "--toolchain", "1.12.0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no such release"), "{said}");
    let (_, code, said) = run(&site, &upstream, &["warm", "--toolchain", "mine"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("`mine` is no release channel"), "{said}");
}

#[test]
fn target_filter_of_projects_does_not_apply_to_the_standard_library() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("libc", "1.0.0"));
    let libc = locked_package(&upstream, "libc", "1.0.0");
    upstream.release(&stable().library_lock(&format!("version = 4\n{libc}")));
    upstream.release_rustup(&Installer::new("1.29.0"));
    // The filter excludes the same crate from a project, which is resolved first.
    let package = "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n";
    let lock = format!(
        "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\"libc\"]\n{libc}"
    );
    let manifest = format!("{package}[target.'cfg(windows)'.dependencies]\nlibc = '1'\n");
    let tree = folder(&[
        (
            "rust-toolchain",
            "[toolchain]\nchannel = 'stable'\nprofile = 'minimal'\ncomponents = ['rust-src']",
        ),
        ("app/Cargo.toml", &manifest),
        ("app/Cargo.lock", &lock),
        ("app/src/lib.rs", ""),
    ]);
    let path = tree.path().display().to_string();
    let cargo = Path::new(env!("CARGO"));
    let site = site(&upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &cargo.parent().unwrap().display().to_string());
    let (report, code, said) = run(&site, &upstream, &["warm", "--target", HOST, &path]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        (report["packages"].as_u64(), report["fetched"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(upstream.requests_for(&crate_path("libc", "1.0.0")), 1);
}

/// See docs/client-behaviour.md C-45.
#[test]
fn rust_src_warms_the_crates_of_the_standard_library() {
    let upstream = FakeUpstream::start();
    let sum = upstream.publish(Crate::new("libc", "1.0.0"));
    let lock = lock_file(&upstream, &["libc"]);
    // In the archive formats that rustup prefers, and in the other.
    for release in [
        stable().library_lock(&lock).zst(),
        stable().library_lock(&lock),
        stable().library_lock(&lock).gz_only(),
    ] {
        upstream.forget_requests();
        upstream.release(&release);
        upstream.release_rustup(&Installer::new("1.29.0"));
        let tree = folder(&[(
            "rust-toolchain",
            "[toolchain]\nchannel = 'stable'\nprofile = 'minimal'\ncomponents = ['rust-src']",
        )]);
        let path = tree.path().display().to_string();
        let site = site(&upstream);
        let (report, code, said) = run(&site, &upstream, &["warm", &path]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            (report["packages"].as_u64(), report["fetched"].as_u64()),
            (Some(1), Some(1))
        );
        assert_eq!(upstream.requests_for(&crate_path("libc", "1.0.0")), 1);
        let (verdict, code, _) = run(&site, &upstream, &["check", &path]);
        assert_eq!(code, Some(0), "{verdict:#}");
        let larder = serve_offline(&site, &upstream);
        let install = ["toolchain", "install", "stable", "--profile", "minimal"];
        let client = Rustup::without_toolchain();
        rustup(
            &client,
            &larder,
            &[&install[..], &["-c", "rust-src"]].concat(),
        );
        larder.stop();

        fs::remove_file(testkit::store::blob_path(&site, &sum)).unwrap();
        let (verdict, code, _) = run(&site, &upstream, &["check", &path]);
        assert_eq!(code, Some(1));
        assert!(
            verdict["toolchains"][0]["missing"][0]
                .as_str()
                .is_some_and(|missing| missing.contains("libc 1.0.0")),
            "{verdict:#}"
        );
    }
}

/// See docs/client-behaviour.md R-18.
#[test]
fn toolchain_files_without_a_download_and_unreadable_ones_are_reported_differently() {
    let upstream = released(&[&stable()]);
    let tree = folder(&[
        ("a/rust-toolchain.toml", "[toolchain]\npath = '/opt/rust'\n"),
        ("b/rust-toolchain", "my-own\n"),
        ("c/rust-toolchain.toml", "[toolchain\n"),
        ("d/rust-toolchain", "stable\n"),
    ]);
    let path = tree.path().display().to_string();
    let site = site(&upstream);
    let (report, code, said) = run(&site, &upstream, &["warm", "--dry-run", &path]);
    assert_eq!(
        (code, archives_asked(&upstream).len()),
        (Some(1), 0),
        "{said}"
    );
    assert_eq!(upstream.connections(), 0, "a dry run asks upstream nothing");
    assert!(
        report["would_fetch"]
            .to_string()
            .contains("channel-rust-stable.toml` is not stored"),
        "{report:#}"
    );

    let (report, code, _) = run(&site, &upstream, &["warm", &path]);
    assert_eq!((code, report["toolchains"].as_u64()), (Some(1), Some(1)));
    assert_eq!(
        report["skipped"].as_array().map(Vec::len),
        Some(1),
        "{report:#}"
    );
    assert!(
        report["skipped"]
            .to_string()
            .contains("`my-own` is no release")
    );
    let failed = report["failed"].to_string();
    assert_eq!(
        report["failed"].as_array().map(Vec::len),
        Some(2),
        "{report:#}"
    );
    assert!(
        failed.contains("`/opt/rust` has no folder") && failed.contains("c/rust-toolchain.toml"),
        "{failed}"
    );

    // Everything is stored, so a dry run can read the manifest.
    let (report, _, _) = run(&site, &upstream, &["warm", "--dry-run", &path]);
    assert_eq!(
        report["components_cached"], report["components"],
        "{report:#}"
    );
}

/// See docs/client-behaviour.md R-01.
#[test]
fn manifest_with_urls_past_larder_is_refused_with_the_reason() {
    let upstream = FakeUpstream::start();
    upstream.release(&stable().root("http://mirror.example/static"));
    upstream.release_rustup(&Installer::new("1.29.0"));
    let site = site(&upstream);
    let (_, code, said) = run(&site, &upstream, &["warm", "--toolchain", "stable"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("past larder, to http://mirror.example/static/dist/"),
        "{said}"
    );
}
