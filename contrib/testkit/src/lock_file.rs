//! Lock files that name published crates, written without cargo.

use fake_upstream::FakeUpstream;
use tempfile::TempDir;

/// A `[[package]]` of a lock file: a crate of crates.io.
#[track_caller]
pub fn locked_package(upstream: &FakeUpstream, name: &str, version: &str) -> String {
    let sum = upstream.checksum(name, version);
    format!(
        "\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{sum}\"\n"
    )
}

/// The text of a lock file that names version 1.0.0 of these crates.
#[track_caller]
pub fn lock_file(upstream: &FakeUpstream, names: &[impl AsRef<str>]) -> String {
    let mut text = "version = 4\n".to_owned();
    for name in names {
        text += &locked_package(upstream, name.as_ref(), "1.0.0");
    }
    text
}

/// A new folder with a [`lock_file`].
#[track_caller]
pub fn locked_project(upstream: &FakeUpstream, names: &[impl AsRef<str>]) -> TempDir {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let path = folder.path().join("Cargo.lock");
    std::fs::write(path, lock_file(upstream, names)).expect("the temporary folder is writable");
    folder
}
