//! The files that larder expects rustup to download are those that real rustup downloads.

use fake_upstream::{DEFAULT_ROOT, FakeUpstream, HOST, Installer, Toolchain, WASM};
use larder::toolchain;

use testkit::rustup::Rustup;

/// Installs with real rustup and compares its archive requests with the files that larder derives from the manifest.
#[track_caller]
fn check(toolchain: &Toolchain, profile: &str, components: &[&str], targets: &[&str]) {
    let upstream = FakeUpstream::start();
    upstream.release(toolchain);
    upstream.release_rustup(&Installer::new("1.29.0"));
    let server = upstream.base_url().trim_end_matches('/');

    let manifest = toolchain.manifest(&toolchain.archives());
    let strings = |items: &[&str]| {
        items
            .iter()
            .map(|&item| item.to_owned())
            .collect::<Vec<_>>()
    };
    let (more_components, more_targets) = (strings(components), strings(targets));
    let expected = toolchain::files(&manifest, HOST, profile, &more_components, &more_targets)
        .expect("the toy has all of them");
    let mut expected: Vec<_> = expected
        .into_iter()
        .map(|file| file.url.replace(DEFAULT_ROOT, ""))
        .collect();

    let mut arguments = vec![
        "toolchain",
        "install",
        "stable",
        "--no-self-update",
        "--profile",
        profile,
    ];
    for component in components {
        arguments.extend(["-c", component]);
    }
    for target in targets {
        arguments.extend(["-t", target]);
    }
    let run = Rustup::without_toolchain().run(&arguments, server, &format!("{server}/rustup"));
    run.assert_success();
    let requests = upstream.requests();
    let mut asked: Vec<_> = requests
        .into_iter()
        .map(|request| request.path)
        .filter(|path| path.contains(".tar."))
        .collect();
    expected.sort();
    asked.sort();
    assert_eq!(asked, expected);
}

/// See docs/client-behaviour.md.
#[test]
fn rustup_downloads_exactly_the_files_that_larder_derives_from_the_manifest() {
    let stable = Toolchain::new("stable", "1.95.0");
    check(&stable, "minimal", &[], &[]);
    check(&stable, "default", &[], &[]);
    check(
        &stable.target("thumbv8m.base-none-eabi").gz_only(),
        "minimal",
        &["clippy", "clippy-preview", "rust-src", "rustc"],
        &[WASM, "thumbv8m.base-none-eabi", HOST],
    );
    check(
        &Toolchain::new("stable", "1.95.0").unavailable("rust-docs"),
        "minimal",
        &["rustfmt-preview"],
        &[],
    );
}
