//! Pins that stay ready by themselves: a changed lock file of a warmed project is fetched without another `warm`.

use std::path::Path;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::{Run, wait_until};

/// Writes the project's lock file, as cargo resolves it straight from upstream.
fn lock(project: &Project, upstream: &FakeUpstream) {
    CargoHome::empty()
        .run(project, &["generate-lockfile"], &upstream.url())
        .assert_success();
}

/// A project that depends on `left`, warmed.
fn warmed_project(upstream: &FakeUpstream, site: &Site) -> Project {
    upstream.publish(Crate::new("left", "1.0.0"));
    let project = Project::empty().dep("left", "1");
    lock(&project, upstream);
    warm(site, project.folder());
    project
}

fn warm(site: &Site, folder: &Path) {
    let output = site.command(&["warm", &folder.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
}

/// Adds `right` to the project, as `git pull` would.
fn add_right(project: Project, upstream: &FakeUpstream) -> Project {
    upstream.publish(Crate::new("right", "1.0.0"));
    let project = project.dep("right", "1");
    lock(&project, upstream);
    project
}

/// `cargo build --locked` with an empty home, through this larder.
fn build(project: &Project, larder: &Larder<'_>) -> Run {
    CargoHome::empty().run(project, &["build", "--locked"], larder.url())
}

/// A number that `status.json` tells about the passes.
fn count(larder: &Larder<'_>, name: &str) -> u64 {
    let status = larder.status();
    status["keep_warm"][name].as_u64().unwrap_or_default()
}

#[test]
fn a_changed_lock_file_is_ready_offline_after_a_client_was_active() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed_project(&upstream, &site);
    let larder = site.serve(&[]);
    // The first pass learns what the lock file says.
    larder.get(&entry("left"));
    wait_until("a pass has ended", || count(&larder, "passes") >= 1);

    let project = add_right(project, &upstream);
    wait_until("the change was fetched", || {
        larder.get(&entry("left"));
        count(&larder, "fetched") == 1
    });
    larder.wait_until_idle();
    let status = larder.status();
    let keep_warm = &status["keep_warm"];
    assert_eq!(keep_warm["changed"], 1, "{status}");
    assert_eq!(keep_warm["pins"], 1, "{status}");
    assert_eq!(keep_warm["not_ready"], 0, "{status}");
    assert!(keep_warm["last_pass"].is_string(), "{status}");
    let metrics = larder.get("/-/metrics").text();
    assert!(
        metrics.contains("\nlarder_keep_warm_fetched_total 1\n"),
        "{metrics}"
    );

    upstream.stop();
    let larder = larder.restart(&["--offline"]);
    build(&project, &larder).assert_success();
}

#[test]
fn a_lock_file_that_changed_while_the_daemon_was_stopped_is_fetched_after_it_starts() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = add_right(warmed_project(&upstream, &site), &upstream);
    let larder = site.serve(&[]);
    larder.get(&entry("left"));
    wait_until("the change was fetched", || count(&larder, "fetched") == 1);
    larder.wait_until_idle();
    upstream.stop();
    let larder = larder.restart(&["--offline"]);
    build(&project, &larder).assert_success();
}

#[test]
fn with_keep_warm_off_a_changed_lock_file_is_left_alone() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed_project(&upstream, &site);
    let larder = site.serve(&["--keep-warm", "false"]);
    let _project = add_right(project, &upstream);
    larder.get(&entry("left"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    larder.wait_until_idle();
    assert!(larder.status()["keep_warm"].is_null());
    assert_eq!(upstream.requests_for(&crate_path("right", "1.0.0")), 0);
}

#[test]
fn missing_packages_are_reported_and_not_requested_in_a_loop() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed_project(&upstream, &site);
    let _project = add_right(project, &upstream);
    upstream.fault_times(&crate_path("right", "1.0.0"), 100, Fault::Status(403));
    upstream.forget_requests();
    let larder = site.serve(&[]);
    larder.get(&entry("left"));
    wait_until("the failure is reported", || {
        count(&larder, "not_ready") == 1
    });
    larder.wait_for_log("not all that this project needs could be fetched");
    let asked = upstream.requests_for(&crate_path("right", "1.0.0"));
    let passes = count(&larder, "passes");
    wait_until("another pass has ended", || {
        larder.get(&entry("left"));
        count(&larder, "passes") > passes
    });
    assert_eq!(upstream.requests_for(&crate_path("right", "1.0.0")), asked);
    assert_eq!(count(&larder, "not_ready"), 1);
}
