//! The larder under test.

use std::process::Output;

use fake_upstream::{Builder, Crate, FakeUpstream};
use tempfile::TempDir;
use testkit::cargo::Project;
use testkit::larder::{Larder, Site};
use testkit::paths::entry;

/// The file with the authority of [`tls_upstream`].
pub(crate) const CA_FILE: &str = "ca.pem";

/// A larder with an empty store in front of this upstream.
#[track_caller]
pub(crate) fn site(upstream: &FakeUpstream) -> Site {
    site_at(&upstream.url())
}

/// A larder with an empty store in front of the registry at this index URL.
#[track_caller]
pub(crate) fn site_at(index: &str) -> Site {
    Site::new(env!("CARGO_BIN_EXE_larder"), index)
}

/// A larder with an empty store in front of an upstream of [`tls_upstream`], whose authority is in `folder`.
#[track_caller]
pub(crate) fn tls_site(upstream: &FakeUpstream, folder: &TempDir) -> Site {
    let ca_file = folder.path().join(CA_FILE);
    site(upstream).variable("LARDER_CA_FILE", &ca_file.display().to_string())
}

/// Publishes `left`, and starts a larder that has stored its entry and asks upstream again at each request.
#[track_caller]
pub(crate) fn larder_with_stale_left<'site>(
    upstream: &FakeUpstream,
    site: &'site Site,
) -> Larder<'site> {
    upstream.publish(Crate::new("left", "1.0.0"));
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "1s"]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    larder
}

/// Fails unless the command ended with `code` and wrote each of `parts`, to stdout or stderr.
#[track_caller]
pub(crate) fn said(output: &Output, code: i32, parts: &[&str]) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

/// An https upstream, and a folder that has its authority as [`CA_FILE`].
pub(crate) fn tls_upstream() -> (FakeUpstream, TempDir) {
    tls_upstream_with(FakeUpstream::builder())
}

/// [`tls_upstream`] with other properties.
pub(crate) fn tls_upstream_with(builder: Builder) -> (FakeUpstream, TempDir) {
    let upstream = builder.tls().start();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join(CA_FILE), upstream.ca_pem()).unwrap();
    (upstream, folder)
}

/// Publishes `left`, which depends on `right`. A build needs both.
pub(crate) fn publish_pair(upstream: &FakeUpstream) {
    upstream.publish(Crate::new("right", "1.0.0").file("src/lib.rs", "pub fn one() -> u8 { 1 }"));
    upstream.publish(
        Crate::new("left", "1.0.0")
            .dep("right", "^1")
            .file("src/lib.rs", "pub fn two() -> u8 { right::one() + 1 }"),
    );
}

/// A project whose build calls `left`.
pub(crate) fn project_on_left() -> Project {
    let project = Project::empty().dep("left", "1");
    project.write("src/lib.rs", "pub fn three() -> u8 { left::two() + 1 }");
    project
}
