//! One larder with an address for each kind of answer, for judges from outside such as REDbot.

use std::io::Read as _;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream, Fault, Installer, Toolchain};
use testkit::larder::Site;
use testkit::paths::{download, entry};

/// Prints a line `KIND URL` for each kind of answer, and serves them until standard input ends.
pub fn serve(larder: &Path, say: &mut dyn FnMut(&str)) {
    let upstream = FakeUpstream::start();
    for name in ["left", "broken"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(20_000));
    }
    upstream.fault("/dl/broken", Fault::Status(500));
    let toolchain = Toolchain::new("stable", "1.95.0").date("2026-04-16");
    upstream.release(&toolchain);
    upstream.release_rustup(&Installer::new("1.29.0"));
    // No sidecar and no manifest proves it.
    let unproven = "/dist/2026-04-16/channel-rust-stable-date.txt";
    upstream.serve_static(unproven, "2026-04-16", "text/plain");
    upstream.fault(&format!("{unproven}.sha256"), Fault::Status(404));
    let program = larder.to_string_lossy();
    let site =
        Site::new(&program, &upstream.url()).variable("LARDER_DIST_SERVER", upstream.base_url());
    let empty = Site::new(&program, &upstream.url());
    let (larder, offline) = (site.serve(&[]), empty.serve(&["--offline"]));
    let manifest = "/dist/channel-rust-stable.toml";
    let archive = toolchain.archive_path("rustc", fake_upstream::HOST) + ".xz";
    let kinds = [
        ("index-entry", entry("left")),
        ("config-json", "/config.json".to_owned()),
        ("crate", download("left", "1.0.0")),
        ("manifest", manifest.to_owned()),
        ("sidecar", format!("{manifest}.sha256")),
        ("archive", archive),
        ("script", "/rustup-init.sh".to_owned()),
        ("rustup-release", "/rustup/release-stable.toml".to_owned()),
        ("unproven", unproven.to_owned()),
        ("home", "/".to_owned()),
        ("health", "/-/health".to_owned()),
        ("ready", "/-/ready".to_owned()),
        ("status", "/-/status.json".to_owned()),
        ("metrics", "/-/metrics".to_owned()),
        ("error-400", "/a/..%2f/b".to_owned()),
        ("error-404-entry", entry("nothing")),
        ("error-404-path", "/no/such/place/here/at/all".to_owned()),
        ("error-424-upstream", download("broken", "1.0.0")),
    ];
    for (kind, path) in kinds {
        say(&format!(
            "{kind} {}{path}",
            larder.url().trim_end_matches('/')
        ));
    }
    for (kind, path) in [
        ("error-424-offline", entry("left")),
        ("error-503-rustup", manifest.to_owned()),
    ] {
        say(&format!(
            "{kind} {}{path}",
            offline.url().trim_end_matches('/')
        ));
    }
    // Ends when the judge closes it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
