//! The daemon's `max-size` while bodies arrive: unfinished files count, and what does not fit is passed on or refused.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path};

use crate::eviction::{disk_use, warm};
use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::lock_file::locked_project;
use testkit::paths::download;
use testkit::process::wait_until;
use testkit::store::{blob_path, blobs};

const MAX: u64 = 6_000_000;
const MAX_SIZE: [&str; 2] = ["--max-size", "6MB"];

/// Runs `clients`, and returns the largest space of the store meanwhile.
fn largest_use_during(store: &Path, clients: impl FnOnce()) -> u64 {
    let (is_over, largest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                largest.fetch_max(disk_use(store), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        clients();
        is_over.store(true, Ordering::Relaxed);
    });
    largest.into_inner()
}

/// Crates of 900 kB that arrive in 1.5 s. Together they take three and a half times the limit.
fn slow_crates(upstream: &FakeUpstream) -> Vec<String> {
    let names: Vec<_> = (0..24).map(|number| format!("slow-{number}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0").padding(900_000));
        let drip = Fault::Drip {
            bytes_per_second: 600_000,
        };
        upstream.fault(&crate_path(name, "1.0.0"), drip);
    }
    names
}

/// Requests all crates at once, half of them without a length, from these daemons in turn.
#[track_caller]
fn check_load(site: &Site, upstream: &FakeUpstream, daemons: &[Larder<'_>]) {
    let names = slow_crates(upstream);
    let largest = largest_use_during(site.store(), || {
        std::thread::scope(|scope| {
            for (number, name) in names.iter().enumerate() {
                let larder = &daemons[number % daemons.len()];
                scope.spawn(move || {
                    let reply = larder.get(&download(name, "1.0.0"));
                    let is_right = reply.complete && reply.body == upstream.body(name, "1.0.0");
                    assert!(is_right, "{name}: {}", reply.status);
                });
            }
        });
        for larder in daemons {
            larder.wait_until_idle();
        }
    });
    assert!(largest < MAX * 105 / 100, "{largest}");
    assert!(largest > MAX / 2, "{largest}");
    assert!(disk_use(site.store()) > MAX / 2, "most of it is stored");
}

#[test]
fn many_slow_downloads_stay_within_the_limit_with_their_unfinished_bodies() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    check_load(&site, &upstream, &[site.serve(&MAX_SIZE)]);
    let verified = site.command(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn slow_downloads_of_two_daemons_stay_within_the_limit_together() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    check_load(&site, &upstream, &[1, 2].map(|_| site.serve(&MAX_SIZE)));
    let verified = site.command(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_body_without_length_takes_no_more_than_the_limit_and_its_refusal_names_it() {
    let upstream = FakeUpstream::start();
    for name in ["stored", "endless"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(500_000));
    }
    upstream.fault(&crate_path("endless", "1.0.0"), Fault::Endless);
    let site = site(&upstream);
    let larder = site.serve(&MAX_SIZE);
    assert!(larder.get(&download("stored", "1.0.0")).complete);
    larder.wait_until_idle();
    let largest = largest_use_during(site.store(), || {
        let reply = larder.get(&download("endless", "1.0.0"));
        assert!(!reply.complete || reply.status >= 400);
    });
    assert!(largest < MAX * 105 / 100, "{largest}");
    larder.wait_for_log("`max-size`");
    assert!(larder.get(&download("stored", "1.0.0")).complete);
}

#[test]
fn a_body_that_is_too_large_for_the_limit_is_passed_on_from_memory_or_refused_with_the_limit() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("stored", "1.0.0").padding(500_000));
    upstream.publish(Crate::new("large", "1.0.0").padding(3_500_000));
    let site = site(&upstream);
    let larder = site.serve(&MAX_SIZE);
    assert!(larder.get(&download("stored", "1.0.0")).complete);
    larder.wait_until_idle();
    let reply = larder.get(&download("large", "1.0.0"));
    assert!(reply.complete && reply.body == upstream.body("large", "1.0.0"));
    larder.wait_for_log("served but not stored");
    larder.wait_for_log("`max-size`");
    let stored = blob_path(&site, &upstream.checksum("stored", "1.0.0"));
    assert!(stored.exists() && blobs(&site).len() == 1);

    let larder = larder.restart(&[&MAX_SIZE[..], &["--memory", "1", "--max-entry", "1"]].concat());
    let reply = larder.get(&download("large", "1.0.0"));
    let text = reply.text();
    assert_eq!(reply.status, 503, "{text}");
    let words = "`max-size` (6 MB) takes no body above 3 MB";
    assert!(text.contains(words) && text.contains("raise"), "{text}");
    let larder = larder.restart(&["--max-size", "20MB"]);
    assert!(larder.get(&download("large", "1.0.0")).complete);
    wait_until("it is stored", || blobs(&site).len() == 2);
}

/// Crates of 900 kB.
fn crates(upstream: &FakeUpstream, word: &str, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count)
        .map(|number| format!("{word}-{number}"))
        .collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0").padding(900_000));
    }
    names
}

#[test]
fn warm_makes_space_before_it_stores_while_a_daemon_keeps_a_limit() {
    let upstream = FakeUpstream::start();
    let old = crates(&upstream, "old", 5);
    let new = crates(&upstream, "new", 5);
    let site = site(&upstream);
    let larder = site.serve(&MAX_SIZE);
    for name in &old {
        assert!(larder.get(&download(name, "1.0.0")).complete);
    }
    larder.wait_until_idle();
    let names: Vec<_> = new.iter().map(String::as_str).collect();
    let project = locked_project(&upstream, &names);
    let largest = largest_use_during(site.store(), || warm(&site, project.path()));
    assert!(largest < MAX * 105 / 100, "{largest}");
    let is_stored = |name: &&String| blob_path(&site, &upstream.checksum(name, "1.0.0")).exists();
    assert!(new.iter().all(|name| is_stored(&name)));
    assert!(old.iter().filter(is_stored).count() < old.len());
}

#[test]
fn warm_stores_what_projects_need_also_above_the_limit_of_a_daemon() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("large", "1.0.0").padding(3_500_000));
    let small = crates(&upstream, "small", 5);
    let site = site(&upstream);
    let larder = site.serve(&MAX_SIZE);
    let names = small.iter().map(String::as_str).chain(["large"]);
    let names: Vec<_> = names.collect();
    let project = locked_project(&upstream, &names);
    warm(&site, project.path());
    larder.wait_for_log("warmed projects and toolchains alone need more than max-size");
    for name in names {
        assert!(
            blob_path(&site, &upstream.checksum(name, "1.0.0")).exists(),
            "{name}"
        );
    }
}
