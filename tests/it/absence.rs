//! Upstream answers 404. For a stored index entry that is not the last word: a project may need it, or the upstream may
//! be broken. For any other entry it is, but only for a short time.

use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault, entry_path};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::wait_until;

/// Every request asks upstream.
const NEVER_FRESH: [&str; 2] = ["--max-age", "0s"];

/// A project that needs `left`, warmed, so that a pin needs its index entry.
fn warmed(upstream: &FakeUpstream, site: &Site) -> Project {
    upstream.publish(Crate::new("left", "1.0.0"));
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let output = site.command(&["warm", &project.folder().display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    project
}

/// Publishes crates and lets larder store their entries, without a project that needs them.
fn store_entries(upstream: &FakeUpstream, larder: &Larder<'_>, names: &[&str]) {
    for name in names {
        upstream.publish(Crate::new(name, "1.0.0"));
        assert_eq!(larder.get(&entry(name)).status, 200);
    }
    larder.wait_until_idle();
}

/// See docs/client-behaviour.md C-11.
#[test]
fn a_404_for_an_entry_that_a_pin_needs_is_reported_and_the_build_goes_on() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    let larder = site.serve(&NEVER_FRESH);
    for gone in [404, 410, 451] {
        upstream.fault(&entry_path("left"), Fault::Status(gone));
        let reply = larder.get(&entry("left"));
        assert_eq!(reply.status, 200, "{gone}: {}", reply.text());
        assert_eq!(&*reply.body, &*upstream.index_body("left"), "{gone}");
    }
    CargoHome::empty()
        .run(&project, &["build", "--locked"], larder.url())
        .assert_success();
    larder.wait_for_log("upstream no longer has this, and a warmed project needs it");
    assert!(larder.request_count("stale-absent") > 0);
    let withdrawn = larder.status()["withdrawn"][0]["resource"].clone();
    assert_eq!(withdrawn, "index entry of `left`");
    let status = site.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains(
            "trouble   upstream no longer has the index entry of `left`; a warmed project needs it"
        ),
        "{status}"
    );
    let metrics = larder.get("/-/metrics").text();
    assert!(metrics.contains("larder_withdrawn_entries 1"), "{metrics}");

    upstream.clear_faults();
    assert_eq!(larder.get(&entry("left")).status, 200);
    assert_eq!(
        larder.status()["withdrawn"].as_array().map(Vec::len),
        Some(0)
    );
}

#[test]
fn a_404_for_a_stored_entry_without_a_pin_counts_while_config_json_answers() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&NEVER_FRESH);
    store_entries(&upstream, &larder, &["left"]);
    upstream.fault(&entry_path("left"), Fault::Status(404));
    assert_eq!(larder.get(&entry("left")).status, 404);
}

#[test]
fn an_upstream_that_answers_404_to_everything_counts_as_broken() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&NEVER_FRESH);
    let names = ["first", "second", "third", "fourth"];
    store_entries(&upstream, &larder, &names);
    upstream.fault("", Fault::Status(404));
    for name in names {
        let reply = larder.get(&entry(name));
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body(name)),
            "{name}: {reply:?}"
        );
    }
    larder.wait_for_log("upstream is out of reach");
    // Probes get 404 as well, and that is no sign of recovery.
    wait_until("two probes have failed", || {
        larder.request_count("probes-failed") >= 2
    });
    assert_eq!(larder.status()["outages"][0]["state"], "down");
    upstream.clear_faults();
    larder.wait_until_reachable();
}

#[test]
fn a_burst_of_404_for_stored_entries_counts_as_a_broken_upstream() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&NEVER_FRESH);
    let names = ["first", "second", "third", "fourth", "fifth", "sixth"];
    store_entries(&upstream, &larder, &names);
    // A mirror that has lost its index and nothing else.
    for name in names {
        upstream.fault(&entry_path(name), Fault::Status(404));
    }
    let statuses = names.map(|name| larder.get(&entry(name)).status);
    assert_eq!(statuses, [404, 404, 200, 200, 200, 200]);
}

/// A censor, a broken CDN, a mirror that moved away. See docs/client-behaviour.md C-11.
#[test]
fn warmed_project_builds_and_resolves_while_upstream_disclaims_everything_directly_or_by_redirect()
{
    let elsewhere = FakeUpstream::start();
    for (what, fault) in [
        ("410", Fault::Status(410)),
        ("451", Fault::Status(451)),
        ("redirect to a 404", Fault::Redirect("/gone".to_owned())),
        (
            "redirect to a 404 of another host",
            Fault::Redirect(format!("{}gone", elsewhere.base_url())),
        ),
        (
            "redirect to a host that may not be followed",
            Fault::Redirect("http://elsewhere.example/".to_owned()),
        ),
    ] {
        let upstream = FakeUpstream::start();
        let site = site(&upstream);
        let names = ["first", "second", "third", "fourth", "fifth"];
        let project = names.iter().fold(Project::empty(), |project, name| {
            upstream.publish(Crate::new(name, "1.0.0"));
            project.dep(name, "1")
        });
        CargoHome::empty()
            .run(&project, &["generate-lockfile"], &upstream.url())
            .assert_success();
        let output = site.command(&["warm", &project.folder().display().to_string()]);
        assert!(output.status.success(), "{what}: {output:?}");
        upstream.fault("", fault);
        upstream.fault("/gone", Fault::Status(404));
        for max_age in ["0s", "60s"] {
            let other_host = elsewhere.base_url().trim_start_matches("http://");
            let other_host = other_host.trim_end_matches('/');
            let larder = site.serve(&["--max-age", max_age, "--redirect-host", other_host]);
            CargoHome::empty()
                .run(&project, &["build", "--locked"], larder.url())
                .assert_success();
            std::fs::remove_file(project.folder().join("Cargo.lock")).unwrap();
            CargoHome::empty()
                .run(&project, &["build"], larder.url())
                .assert_success();
            let log = larder.stop();
            assert!(log.contains("upstream"), "{what}: it says nothing\n{log}");
        }
    }
}

/// `cargo publish` asks for the new crate's entry once a second. See docs/client-behaviour.md C-11.
#[test]
fn a_crate_is_found_within_three_seconds_of_its_publication_although_it_was_asked_for_before() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for _ in 0..3 {
        assert_eq!(larder.get(&entry("left")).status, 404);
    }
    assert_eq!(upstream.requests_for(&entry_path("left")), 1);
    upstream.publish(Crate::new("left", "1.0.0"));
    let published = Instant::now();
    wait_until("the new crate is found", || {
        std::thread::sleep(Duration::from_millis(100));
        larder.get(&entry("left")).status == 200 || published.elapsed() > Duration::from_secs(6)
    });
    let took = published.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}
