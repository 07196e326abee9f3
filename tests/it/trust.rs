//! Versions that the settings forbid: too young ones (`min-age`) and named ones (`deny`).

use std::fs;
use std::time::{Duration, SystemTime};

use fake_upstream::{Crate, FakeUpstream, crate_path, entry_path};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project, toolchain_folder};
use testkit::larder::Site;
use testkit::paths::{download, entry};
use testkit::process::wait_until;

const DAY: Duration = Duration::from_secs(86_400);
/// A week, as users write it.
const WEEK: [&str; 2] = ["--min-age", "7d"];

/// This crate, published so long ago.
fn published(name: &str, version: &str, ago: Duration) -> Crate {
    let time = humantime::format_rfc3339_seconds(SystemTime::now() - ago);
    Crate::new(name, version).pubtime(&time.to_string())
}

/// `left` in an old version and one from yesterday.
fn old_and_young(upstream: &FakeUpstream) {
    upstream.publish(published("left", "1.0.0", DAY * 30));
    upstream.publish(published("left", "1.1.0", DAY));
}

fn output_text(output: &std::process::Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A project whose lock file names the newest versions that upstream has.
fn newest(upstream: &FakeUpstream) -> Project {
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    assert!(project.lock().contains("1.1.0"), "{}", project.lock());
    project
}

fn command(site: &Site, name: &str, project: &Project, more: &[&str]) -> std::process::Output {
    let folder = project.folder().display().to_string();
    site.command(&[&[name, &folder], more].concat())
}

#[test]
fn min_age_makes_cargo_choose_an_older_version_and_says_why_it_refuses_a_young_one() {
    let upstream = FakeUpstream::start();
    old_and_young(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&WEEK);
    for arguments in [
        ["generate-lockfile", "-q"],
        ["update", "-q"],
        ["add", "left"],
    ] {
        let project = match arguments[0] {
            "add" => Project::empty(),
            _ => Project::empty().dep("left", "1"),
        };
        let home = CargoHome::empty();
        home.run(&project, &arguments, larder.url())
            .assert_success();
        home.run(&project, &["build"], larder.url())
            .assert_success();
        let lock = project.lock();
        assert!(lock.contains("1.0.0") && !lock.contains("1.1.0"), "{lock}");
    }
    // A lock file that was made elsewhere.
    let project = newest(&upstream);
    let build = CargoHome::empty().run(&project, &["build", "--locked"], larder.url());
    build.assert_failure().assert_says("the setting `min-age");
    let refused = larder.get(&download("left", "1.1.0"));
    assert_eq!(refused.status, 403);
    let text = refused.text();
    for part in [
        "left 1.1.0",
        "it was published at 20",
        "min-age = \"7days\"",
        "until 20",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(upstream.requests_for(&crate_path("left", "1.1.0")), 0);
    let sum = upstream.checksum("left", "1.1.0");
    let path = format!("/crates/left/1.1.0/{sum}/download");
    assert_eq!(larder.get(&path).status, 403);
    assert!(larder.request_count("refused") >= 2);
}

#[test]
fn a_warmed_lock_file_gets_the_young_version_that_it_names_and_others_still_do_not() {
    let upstream = FakeUpstream::start();
    old_and_young(&upstream);
    upstream.publish(published("left", "1.2.0", DAY * 2));
    let site = site(&upstream);
    let project = Project::empty().dep("left", "=1.1.0");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let larder = site.serve(&WEEK);
    let warmed = command(&site, "warm", &project, &WEEK);
    assert!(warmed.status.success(), "{}", output_text(&warmed));
    CargoHome::empty()
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
    larder.wait_for_log("a warmed project locks it");
    assert_eq!(larder.get(&download("left", "1.2.0")).status, 403);
    let checked = command(&site, "check", &project, &WEEK);
    assert!(checked.status.success(), "{}", output_text(&checked));
    let body = larder.get(&entry("left")).text();
    let yanked: Vec<_> = body
        .lines()
        .map(|line| line.contains("\"yanked\":true"))
        .collect();
    assert_eq!(yanked, [false, false, true], "{body}");
}

#[test]
fn warm_chooses_old_enough_versions_for_a_project_without_a_lock_file() {
    let upstream = FakeUpstream::start();
    old_and_young(&upstream);
    let folder = toolchain_folder().display();
    let site = site(&upstream)
        .variable("CARGO", &format!("{folder}/cargo"))
        .variable("PATH", &format!("{folder}:/usr/bin:/bin"));
    let project = Project::empty().dep("left", "1");
    let warmed = command(&site, "warm", &project, &WEEK);
    assert!(warmed.status.success(), "{}", output_text(&warmed));
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 1);
    assert_eq!(upstream.requests_for(&crate_path("left", "1.1.0")), 0);
}

#[test]
fn a_version_that_comes_of_age_changes_the_etag_and_is_served() {
    let upstream = FakeUpstream::start();
    upstream.publish(published("left", "1.0.0", DAY));
    upstream.publish(published("left", "1.1.0", Duration::ZERO));
    let site = site(&upstream);
    let larder = site.serve(&["--min-age", "6s"]);
    let young = larder.get(&entry("left"));
    assert!(young.text().contains("\"yanked\":true"), "{}", young.text());
    let tag = young.header("etag").unwrap().to_owned();
    let again = larder.get_with(&entry("left"), &[("if-none-match", &tag)]);
    assert_eq!(again.status, 304);
    assert_eq!(larder.get(&download("left", "1.1.0")).status, 403);
    upstream.forget_requests();
    let mut old = again;
    wait_until("the version is old enough", || {
        old = larder.get_with(&entry("left"), &[("if-none-match", &tag)]);
        old.status != 304
    });
    assert_eq!(old.status, 200);
    assert_eq!(old.body, upstream.index_body("left"));
    assert_eq!(larder.get(&download("left", "1.1.0")).status, 200);
    assert_eq!(
        upstream.requests_for(&entry_path("left")),
        0,
        "the stored entry was fresh"
    );
}

#[test]
fn versions_without_a_time_have_any_age_and_a_registry_may_have_its_own_rule() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("untold", "1.0.0"));
    old_and_young(&upstream);
    let site = site(&upstream);
    let settings = site.store().parent().unwrap().join("larder.toml");
    let corp = format!(
        "[registry.corp]\nindex = \"{}\"\nmin-age = 0\n",
        upstream.url()
    );
    fs::write(&settings, format!("min-age = \"7d\"\n{corp}")).unwrap();
    let settings = settings.display().to_string();
    let larder = site.serve(&["--config", &settings]);
    assert_eq!(
        larder.get(&entry("untold")).body,
        upstream.index_body("untold")
    );
    assert_eq!(larder.get(&download("untold", "1.0.0")).status, 200);
    assert!(
        larder
            .get(&entry("left"))
            .text()
            .contains("\"yanked\":true")
    );
    let corp = larder.get(&format!("/registry/corp{}", entry("left")));
    assert_eq!(corp.body, upstream.index_body("left"));
    let corp = format!("/registry/corp{}", download("left", "1.1.0"));
    assert_eq!(larder.get(&corp).status, 200);
}

#[test]
fn a_denied_version_is_not_chosen_and_refused_even_to_a_warmed_project() {
    let upstream = FakeUpstream::start();
    old_and_young(&upstream);
    let site = site(&upstream);
    let project = newest(&upstream);
    assert!(command(&site, "warm", &project, &[]).status.success());
    let deny = ["--deny", "left@>=1.1.0"];
    for offline in [&[][..], &["--offline"]] {
        let larder = site.serve(&[&deny, offline].concat());
        let build = CargoHome::empty().run(&project, &["build", "--locked"], larder.url());
        build.assert_failure().assert_says("the setting `deny");
        let refused = larder.get(&download("left", "1.1.0"));
        assert_eq!(refused.status, 403);
        let rule = "the setting `deny = [\"left@>=1.1.0\"]` forbids it";
        assert!(refused.text().contains(rule), "{}", refused.text());
        if offline.is_empty() {
            let other = Project::empty().dep("left", "1");
            CargoHome::empty()
                .run(&other, &["build"], larder.url())
                .assert_success();
            assert!(other.lock().contains("1.0.0"), "{}", other.lock());
        }
        larder.stop();
    }
    for name in ["check", "warm"] {
        let output = command(&site, name, &project, &deny);
        assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
        assert!(
            output_text(&output).contains("forbids it"),
            "{}",
            output_text(&output)
        );
    }
    let wrong = command(&site, "check", &project, &["--deny", "left@soon"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", output_text(&wrong));
}
