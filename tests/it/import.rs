//! `larder import` of real cargo's home and of local registries. Cargo in an empty home judges what the store then has.

use std::fs;
use std::path::{Path, PathBuf};

use fake_upstream::{FakeUpstream, crate_path};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;

use crate::fixture::{project_on_left, publish_pair, said, site};

/// A cargo home that has fetched a project's dependencies from upstream itself, and the project with its lock file.
fn used_home(upstream: &FakeUpstream) -> (CargoHome, Project) {
    publish_pair(upstream);
    let (home, project) = (CargoHome::empty(), project_on_left());
    home.run(&project, &["fetch"], &upstream.url())
        .assert_success();
    (home, project)
}

/// Runs `larder import` on these paths. Returns its document and its exit code.
#[track_caller]
fn import(site: &Site, arguments: &[&str]) -> (Value, Option<i32>) {
    let all = [&["import", "--json"], arguments].concat();
    let output = site.command(&all);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (document, output.status.code())
}

fn counts(report: &Value) -> [Option<u64>; 4] {
    ["crates", "stored_crates", "entries", "stored_entries"].map(|field| report[field].as_u64())
}

/// The `.crate` files of a cargo home.
fn crates_of(home: &CargoHome) -> Vec<PathBuf> {
    let folders = fs::read_dir(home.path().join("registry/cache")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn imported_home_builds_offline_in_an_empty_home() {
    let upstream = FakeUpstream::start();
    let (home, project) = used_home(&upstream);
    upstream.stop();
    let connections = upstream.connections();
    let site = site(&upstream);
    let path = home.path().display().to_string();
    let (report, code) = import(&site, &["--dry-run", &path]);
    assert_eq!(
        (counts(&report), code),
        ([2, 0, 2, 0].map(Some), Some(0)),
        "{report:#}"
    );
    let (report, code) = import(&site, &[&path]);
    assert_eq!(
        (counts(&report), code),
        ([2, 0, 2, 0].map(Some), Some(0)),
        "{report:#}"
    );
    let (report, _) = import(&site, &[&path]);
    assert_eq!(counts(&report), [0, 2, 0, 2].map(Some), "{report:#}");
    assert_eq!(
        upstream.connections(),
        connections,
        "an import asks upstream nothing"
    );

    let larder = site.serve(&["--offline"]);
    let empty = CargoHome::empty();
    empty
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
}

#[test]
fn imported_crates_are_not_downloaded_and_entries_are_asked_for_again() {
    let upstream = FakeUpstream::start();
    let (home, project) = used_home(&upstream);
    let site = site(&upstream);
    import(&site, &[&home.path().display().to_string()]);
    upstream.forget_requests();
    let larder = site.serve(&["--max-age", "0s"]);
    let empty = CargoHome::empty();
    empty
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 0);
    assert!(
        upstream.requests_for("le/ft/left") > 0,
        "{:?}",
        upstream.requests()
    );
}

#[test]
fn damaged_crate_is_left_out_and_a_later_change_does_no_harm() {
    let upstream = FakeUpstream::start();
    let (home, project) = used_home(&upstream);
    let crates = crates_of(&home);
    let good = fs::read(&crates[0]).unwrap();
    let mut bad = fs::read(&crates[1]).unwrap();
    bad[20] ^= 1;
    fs::write(&crates[1], bad).unwrap();
    let site = site(&upstream);
    let path = home.path().display().to_string();
    let (report, code) = import(&site, &[&path]);
    assert_eq!(
        (report["crates"].as_u64(), code),
        (Some(1), Some(0)),
        "{report:#}"
    );
    let skipped = &report["skipped"][0];
    assert_eq!(
        skipped["path"].as_str().map(Path::new),
        Some(crates[1].as_path())
    );
    assert!(
        skipped["why"]
            .as_str()
            .unwrap_or_default()
            .contains("another hash"),
        "{report:#}"
    );

    // The file of the other program is written in place: the store must not see that.
    let mut changed = good;
    changed[20] ^= 1;
    fs::write(&crates[0], changed).unwrap();
    let verify = site.command(&["verify"]);
    assert!(verify.status.success(), "{verify:?}");
    let larder = site.serve(&[]);
    let empty = CargoHome::empty();
    empty
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
}

#[test]
fn home_of_another_index_gives_no_entries_and_its_crates_only_by_their_hash() {
    let upstream = FakeUpstream::start();
    let (home, _) = used_home(&upstream);
    let other = FakeUpstream::start();
    let site = site(&other);
    let (report, code) = import(&site, &[&home.path().display().to_string()]);
    assert_eq!(
        (counts(&report), code),
        ([2, 0, 0, 0].map(Some), Some(0)),
        "{report:#}"
    );
    // No index that this larder mirrors lists them.
    let larder = site.serve(&["--offline"]);
    assert_ne!(larder.get("/le/ft/left").status, 200);
}

#[test]
fn local_registry_gives_its_crates_and_a_vendored_folder_nothing() {
    let upstream = FakeUpstream::start();
    let (home, project) = used_home(&upstream);
    let folder = TempDir::new().unwrap();
    let local = folder.path().join("local");
    for name in ["left", "right"] {
        let index = local.join("index").join(&name[..2]).join(&name[2..4]);
        fs::create_dir_all(&index).unwrap();
        fs::write(index.join(name), upstream.index_body(name)).unwrap();
    }
    for file in crates_of(&home) {
        fs::copy(&file, local.join(file.file_name().unwrap())).unwrap();
    }
    let vendored = folder.path().join("vendor").display().to_string();
    home.run(
        &project,
        &["vendor", "--respect-source-config", &vendored],
        &upstream.url(),
    )
    .assert_success();
    let site = site(&upstream);
    let (report, code) = import(&site, &[&local.display().to_string(), &vendored]);
    assert_eq!(
        (counts(&report), code),
        ([2, 0, 0, 0].map(Some), Some(0)),
        "{report:#}"
    );
    let why = report["skipped"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("`cargo vendor`"), "{report:#}");
}

#[test]
fn empty_store_proposes_an_import_only_if_there_is_something() {
    let upstream = FakeUpstream::start();
    let (home, project) = used_home(&upstream);
    let folder = project.folder().display().to_string();
    let proposal = "holds 2 crates: `larder import`";
    let path = home.path().display().to_string();
    let with_home = site(&upstream).variable("CARGO_HOME", &path);
    let serve = with_home.serve(&[]);
    serve.wait_for_log(proposal);
    serve.stop();
    let warm = with_home.command(&["warm", &folder]);
    let said = String::from_utf8_lossy(&warm.stderr).into_owned();
    assert!(said.contains(proposal), "{said}");
    // Now the store has crates.
    let warm = with_home.command(&["warm", &folder]);
    let said = String::from_utf8_lossy(&warm.stderr).into_owned();
    assert!(!said.contains("larder import"), "{said}");

    let without = site(&upstream).command(&["warm", &folder]);
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(!said.contains("larder import"), "{said}");
    // Another index's crates are not what this larder needs.
    let other = FakeUpstream::start();
    publish_pair(&other);
    let with_home = site(&other).variable("CARGO_HOME", &path);
    let warm = with_home.command(&["warm", &folder]);
    let said = String::from_utf8_lossy(&warm.stderr).into_owned();
    assert!(!said.contains("larder import"), "{said}");
}

#[test]
fn import_without_a_cargo_home_says_where_it_looked_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let home = folder.path().join("none");
    let site = site(&FakeUpstream::start()).variable("CARGO_HOME", home.to_str().unwrap());
    let nothing = format!(
        "nothing found: cargo's home {} does not exist;",
        home.display()
    );
    let import = site.command(&["import"]);
    said(&import, 0, &[&nothing, "`larder import PATH`", "0 crates"]);
    fs::create_dir(&home).unwrap();
    said(&site.command(&["import"]), 0, &["has no crates yet"]);
    // A path that the user names must be there.
    let named = folder.path().join("typo").display().to_string();
    said(&site.command(&["import", &named]), 1, &["does not exist"]);
}
