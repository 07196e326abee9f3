//! The RustSec advisory database, with a made-up one: fetched or imported, listed, and its malicious versions refused.

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::paths::{download, entry};
use testkit::process::wait_until;

/// The path of the archive on the fake upstream.
const ARCHIVE: &str = "/advisory-db/main.tar.gz";

fn advisory(id: &str, package: &str, facts: &str, patched: &str) -> (String, String) {
    let path = format!("db-main/crates/{package}/{id}.md");
    let text = format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\ndate = \"2026-01-02\"\n{facts}\n\n[versions]\n\
         patched = [{patched}]\n```\n\n# What {package} does\n\nText.\n"
    );
    (path, text)
}

/// `left` before 1.1 is vulnerable, every `evil` is malicious, `old` is unmaintained.
pub(crate) fn database() -> Vec<(String, String)> {
    vec![
        advisory("RUSTSEC-2026-0001", "left", "", "\">= 1.1.0\""),
        advisory(
            "RUSTSEC-2026-0002",
            "evil",
            "categories = [\"malicious\"]",
            "",
        ),
        advisory(
            "RUSTSEC-2026-0003",
            "old",
            "informational = \"unmaintained\"",
            "",
        ),
    ]
}

fn archive(files: &[(String, String)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

pub(crate) fn serve_database(upstream: &FakeUpstream, files: &[(String, String)]) -> String {
    upstream.serve_static(ARCHIVE, archive(files), "application/gzip");
    format!("{}{ARCHIVE}", upstream.base_url().trim_end_matches('/'))
}

/// The folder of a clone.
fn clone_of(files: &[(String, String)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path.strip_prefix("db-main/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn publish(upstream: &FakeUpstream) {
    for name in ["left", "evil", "old"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
}

fn locked(upstream: &FakeUpstream, names: &[&str]) -> Project {
    let mut project = Project::empty();
    for name in names {
        project = project.dep(name, "=1.0.0");
    }
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    project
}

fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn command(site: &Site, name: &str, project: &Project, more: &[&str]) -> Output {
    let folder = project.folder().display().to_string();
    site.command(&[&[name, &folder], more].concat())
}

fn import(site: &Site, path: &Path) -> Output {
    site.command(&["advisories", "import", &path.display().to_string()])
}

#[test]
fn check_lists_the_packages_that_advisories_are_about_offline() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site(&upstream);
    let project = locked(&upstream, &["left", "old"]);
    assert!(command(&site, "warm", &project, &[]).status.success());
    let without = command(&site, "check", &project, &["--advisories"]);
    assert_eq!(without.status.code(), Some(1));
    assert!(
        text(&without).contains("no advisory database is stored"),
        "{}",
        text(&without)
    );

    let address = serve_database(&upstream, &database());
    let warmed = command(&site, "warm", &project, &["--advisory-db", &address]);
    assert!(warmed.status.success(), "{}", text(&warmed));
    upstream.stop();
    let db = ["--advisory-db", &address];
    let check = |more: &[&str]| command(&site, "check", &project, &[&db, more].concat());
    assert!(
        check(&[]).status.success(),
        "only --advisories looks at them"
    );
    let listed = check(&["--advisories"]);
    assert_eq!(listed.status.code(), Some(1), "{}", text(&listed));
    let lines = text(&listed);
    assert!(
        lines.contains("advisory   left 1.0.0: What left does (RUSTSEC-2026-0001, vulnerability)"),
        "{lines}"
    );
    assert!(lines.contains("patched: >=1.1.0; in "), "{lines}");
    assert!(lines.contains("RUSTSEC-2026-0003, unmaintained"), "{lines}");
    let allowed = check(&["--advisories", "--allow-advisory", "RUSTSEC-2026-0001"]);
    assert!(allowed.status.success(), "{}", text(&allowed));
    let json = check(&["--advisories", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let first = &json["advisories"][0];
    assert_eq!(first["id"], "RUSTSEC-2026-0001");
    assert_eq!(
        (&first["kind"], &first["patched"][0]),
        (&"vulnerability".into(), &">=1.1.0".into())
    );
    assert_eq!(json["advisories"].as_array().map(Vec::len), Some(2));
    let status = site.command(&["status", "--advisory-db", &address]);
    let status = text(&status);
    assert!(
        status.contains("advisories 3 known; of warmed projects' packages 0 malicious, 1 vulnerable, 1 with a remark"),
        "{status}"
    );
    assert!(
        status.contains("trouble   of warmed projects' packages 1 vulnerable; "),
        "{status}"
    );
    let larder = site.serve(&db);
    wait_until("the metrics count the packages", || {
        let metrics = larder.get("/-/metrics").text();
        metrics.contains("larder_advised_packages{kind=\"vulnerable\"} 1\n")
            && metrics.contains("larder_advised_packages{kind=\"other\"} 1\n")
    });
}

#[test]
fn a_malicious_version_is_refused_unless_its_advisory_is_allowed() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    upstream.publish(Crate::new("left", "1.1.0"));
    let address = serve_database(&upstream, &database());
    let site = site(&upstream);
    let project = locked(&upstream, &["evil"]);
    let arguments = ["--advisory-db", &address];
    let larder = site.serve(&arguments);
    wait_until("the database was read", || {
        larder.log().contains("advisory database was read")
    });
    let build = CargoHome::empty().run(&project, &["build", "--locked"], larder.url());
    build.assert_failure().assert_says("RUSTSEC-2026-0002");
    assert!(
        larder
            .get(&entry("evil"))
            .text()
            .contains("\"yanked\":true")
    );
    let refused = larder.get(&download("evil", "1.0.0"));
    assert_eq!(refused.status, 403);
    let reason = "RUSTSEC-2026-0002 calls it malicious (What evil does); the setting `allow-advisory = [\"RUSTSEC-2026-0002\"]`";
    assert!(refused.text().contains(reason), "{}", refused.text());
    assert_eq!(upstream.requests_for(&crate_path("evil", "1.0.0")), 0);
    // A vulnerable version is served: that is the user's decision.
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    let warmed = command(&site, "warm", &project, &arguments);
    assert_eq!(warmed.status.code(), Some(1), "{}", text(&warmed));
    assert!(
        text(&warmed).contains("RUSTSEC-2026-0002"),
        "{}",
        text(&warmed)
    );
    // The stored database counts from the first request on, offline too.
    let larder = larder.restart(&[&arguments[..], &["--offline"]].concat());
    assert_eq!(larder.get(&download("evil", "1.0.0")).status, 403);
    let allow = [&arguments[..], &["--allow-advisory", "RUSTSEC-2026-0002"]].concat();
    let larder = larder.restart(&allow);
    assert_eq!(larder.get(&download("evil", "1.0.0")).status, 200);
}

#[test]
fn a_bad_answer_leaves_the_stored_database() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let address = serve_database(&upstream, &database());
    let site = site(&upstream);
    let project = locked(&upstream, &["left"]);
    let db = ["--advisory-db", &address, "--max-age", "0s"];
    assert!(command(&site, "warm", &project, &db).status.success());
    for fault in [
        Fault::LoginPage,
        Fault::Empty,
        Fault::Status(404),
        Fault::CutUnframed(100),
    ] {
        upstream.fault(ARCHIVE, fault);
        assert!(command(&site, "warm", &project, &db).status.success());
        let check = command(
            &site,
            "check",
            &project,
            &[&db, &["--advisories"][..]].concat(),
        );
        assert!(
            text(&check).contains("RUSTSEC-2026-0001"),
            "{}",
            text(&check)
        );
    }
}

#[test]
fn a_clone_or_an_archive_is_imported_and_a_running_daemon_obeys_the_stored_one() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site(&upstream);
    let clone = clone_of(&database());
    let nothing = TempDir::new().unwrap();
    let wrong = import(&site, nothing.path());
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    let imported = import(&site, clone.path());
    assert!(imported.status.success(), "{}", text(&imported));
    assert!(
        text(&imported).contains("stored 3 advisories"),
        "{}",
        text(&imported)
    );
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&download("evil", "1.0.0")).status, 403);
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    let file = nothing.path().join("db.tar.gz");
    fs::write(&file, archive(&database()[..1])).unwrap();
    let imported = import(&site, &file);
    assert!(
        text(&imported).contains("stored 1 advisory"),
        "{}",
        text(&imported)
    );
    let larder = larder.restart(&[]);
    assert_eq!(larder.get(&download("evil", "1.0.0")).status, 200);
    fs::write(&file, "no archive").unwrap();
    assert_eq!(import(&site, &file).status.code(), Some(1));
}
