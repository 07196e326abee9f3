//! Stores of other releases: one that larder 0.1 wrote in 2026-11, and one with files of a release to come.
//!
//! `golden-store` was written by a daemon in front of a static server at [`INDEX`]. It must never be changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fake_upstream::sha256;

use crate::fixture::site_at;
use testkit::larder::Site;
use testkit::store::files;

/// The index that the store belongs to. Nothing listens there.
const INDEX: &str = "http://127.0.0.1:29123/index/";
const SUM: &str = "99197d362223a9cf0bba4b313b570dbfffa76feb5050155ddcf26a5e2af7c18d";

/// A site with a copy of the golden store.
fn site() -> Site {
    let site = site_at(INDEX);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden-store");
    for (path, content) in files(&golden) {
        write(
            &site.store().join(path.strip_prefix(&golden).unwrap()),
            &content,
        );
    }
    site
}

/// Writes a private file, in private folders.
fn write(path: &Path, content: &[u8]) {
    let folder = path.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(path, content).unwrap();
    for (path, mode) in [(folder, 0o700), (path, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_store_of_larder_0_1_is_served_offline_and_verified_as_it_is() {
    let site = site();
    let before = files(site.store());
    let larder = site.serve(&["--offline"]);
    let entry = larder.get("/le/ft/left");
    assert_eq!(entry.status, 200, "{}", entry.text());
    assert!(entry.text().contains(SUM) && entry.text().ends_with("}\n"));
    for path in [
        "/crates/left/1.0.0/download",
        &format!("/crates/left/1.0.0/{SUM}/download"),
    ] {
        assert_eq!(sha256(&larder.get(path).body), SUM, "{path}");
    }
    let manifest = larder.get("/dist/channel-rust-stable.toml");
    let sidecar = larder.get("/dist/channel-rust-stable.toml.sha256");
    assert!(sidecar.text().starts_with(&sha256(&manifest.body)));
    larder.stop();
    let verified = site.command(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let after = files(site.store());
    for file in before {
        assert!(after.contains(&file), "{} has changed", file.0.display());
    }
}

#[test]
fn files_of_a_newer_release_are_ignored_and_stay() {
    let site = site();
    let newer = [
        "v2/entries/x",
        "v1/index-of-uses",
        "v1/packs/a.tar",
        "v2/lock",
    ]
    .map(|path| site.store().join(path));
    for path in &newer {
        write(path, b"of a newer release");
    }
    let larder = site.serve(&["--offline"]);
    assert_eq!(larder.get("/le/ft/left").status, 200);
    larder.stop();
    for command in [
        &["verify"][..],
        &["status"],
        &["gc", "--max-size", "1GB"],
        &["check", "."],
    ] {
        let run = site.command(command);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(
            !said.contains("panicked") && !said.contains("v2"),
            "{command:?}: {said}"
        );
    }
    for path in &newer {
        assert_eq!(
            fs::read(path).unwrap(),
            b"of a newer release",
            "{}",
            path.display()
        );
    }
}
