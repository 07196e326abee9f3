//! `check`'s verdict on projects whose cargo settings decide if cargo can use larder, judged by real cargo.

use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};

use crate::fixture::site;

/// A larder's site whose cargo has this home.
fn site_with_home(upstream: &FakeUpstream, home: &CargoHome) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
        .variable("CARGO_HOME", &home.path().display().to_string())
}

/// Runs `warm` or `check` on a folder.
#[track_caller]
fn run(site: &Site, command: &str, folder: &Path) -> Value {
    let output = site.command(&[command, &folder.display().to_string(), "--json"]);
    let document = serde_json::from_slice(&output.stdout);
    document.unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Makes larder the source of crates.io in cargo's home.
fn use_larder(home: &CargoHome, larder: &Larder<'_>) {
    let settings = format!(
        "[source.crates-io]\nreplace-with = \"larder\"\n[source.larder]\nregistry = \"sparse+{}\"\n",
        larder.url()
    );
    fs::create_dir_all(home.path()).unwrap();
    fs::write(home.path().join("config.toml"), settings).unwrap();
}

#[test]
fn sources_that_cargo_refuses_make_a_project_unready() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let home = CargoHome::empty();
    let site = site_with_home(&upstream, &home);
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    run(&site, "warm", project.folder());
    let larder = site.serve(&["--offline"]);
    use_larder(&home, &larder);
    let again = format!("[source.again]\nregistry = \"sparse+{}\"\n", larder.url());
    for (settings, reason) in [
        (
            "[source.other]\nregistry = \"sparse+http://other.invalid/\"\n",
            None,
        ),
        (
            "[source.crates-io]\nreplace-with = \"crates-io\"\n",
            Some("by itself"),
        ),
        (
            &again,
            Some("`[source.larder]`, which is the source of `again` again"),
        ),
        (
            "[source.a]\nregistry = \"https://github.com/rust-lang/crates.io-index\"\n",
            Some("`[source.a]`, which is the source of `crates-io` again"),
        ),
        (
            "[source.a]\ndirectory = \"v\"\n[source.b]\ndirectory = \"v\"\n",
            Some("of `a` again"),
        ),
        (
            "[source.a]\nreplace-with = \"larder\"\n",
            Some("without `registry`"),
        ),
        (
            "[source.a]\ndirectory = \"v\"\nregistry = \"sparse+http://other.invalid/\"\n",
            Some("with `registry` and `directory`"),
        ),
    ] {
        project.write(".cargo/config.toml", settings);
        let verdict = run(&site, "check", project.folder());
        assert_eq!(
            verdict["ready"],
            reason.is_none(),
            "{settings}: {verdict:#}"
        );
        let said = verdict["projects"][0]["unknown"].to_string();
        assert!(said.contains(reason.unwrap_or("[]")), "{settings}: {said}");
        let _ = fs::remove_dir_all(home.path().join("registry"));
        let fetch = home.run_plain(&project, &["fetch", "--locked"]);
        assert_eq!(
            fetch.status.success(),
            reason.is_none(),
            "{settings}: {fetch:?}"
        );
    }
    // Without a name of its own, another registry may also take the place of crates.io.
    let moved = "[source.crates-io]\nregistry = \"sparse+http://other.invalid/\"\n";
    fs::write(home.path().join("config.toml"), moved).unwrap();
    project.write(".cargo/config.toml", "");
    assert_eq!(run(&site, "check", project.folder())["ready"], false);
    let fetch = home.run_plain(&project, &["fetch", "--locked"]);
    assert!(!fetch.status.success(), "{fetch:?}");
}
