//! Entries that are older than `--max-age` but not older than upstream allows are served at once and revalidated
//! behind the answer (stale-while-revalidate, RFC 5861).

use std::time::{Duration, SystemTime};

use fake_upstream::{Crate, FakeUpstream, Fault, entry_path};

use crate::fixture::site;
use testkit::larder::Site;
use testkit::paths::entry;
use testkit::process::wait_until;
use testkit::store::entry_file;

/// `max-age` of the fake upstream, as crates.io has it.
const UPSTREAM_MAX_AGE: u32 = 600;

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::builder()
        .max_age(Some(UPSTREAM_MAX_AGE))
        .start();
    upstream.publish(Crate::new("base", "1.0.0"));
    upstream.publish(Crate::new("left", "1.0.0").dep("base", "^1"));
    upstream
}

/// Stores the entries of both crates, as checked this many seconds ago.
fn store_entries(site: &Site, age: u64) {
    let larder = site.serve(&[]);
    for name in ["left", "base"] {
        assert_eq!(larder.get(&entry(name)).status, 200);
    }
    larder.stop();
    for name in ["left", "base"] {
        set_age(site, name, age);
    }
}

fn set_age(site: &Site, name: &str, age: u64) {
    let stored = std::fs::File::open(entry_file(site, name)).unwrap();
    let checked = SystemTime::now() - Duration::from_secs(age);
    stored.set_modified(checked).unwrap();
}

#[test]
fn an_entry_within_upstreams_lifetime_is_served_at_once_and_revalidated_behind() {
    let upstream = upstream();
    let site = site(&upstream);
    store_entries(&site, 300);
    let old = upstream.index_body("left");
    upstream.publish(Crate::new("left", "1.1.0"));
    upstream.forget_requests();
    let gate = upstream.gate(&entry_path("left"));
    let larder = site.serve(&[]);
    for _ in 0..3 {
        // Upstream has not answered yet.
        let reply = larder.get(&entry("left"));
        assert_eq!((reply.status, &*reply.body), (200, &*old));
        let status = reply.header("cache-status");
        assert_eq!(status, Some("larder; hit; detail=stale-while-revalidate"));
    }
    gate.wait_for(1);
    gate.open();
    wait_until("the new entry is served", || {
        larder.get(&entry("left")).body == upstream.index_body("left")
    });
    assert_eq!(upstream.requests_for(&entry_path("left")), 1);
    assert!(larder.request_count("stale-while-revalidate") >= 3);
}

#[test]
fn an_entry_from_the_store_has_the_age_since_upstream_confirmed_it() {
    let upstream = upstream();
    let site = site(&upstream);
    store_entries(&site, 300);
    let larder = site.serve(&["--offline"]);
    let reply = larder.get(&entry("left"));
    let age: u64 = reply.header("age").unwrap().parse().unwrap();
    assert!((300..600).contains(&age), "{age}");
    let larder = larder.restart(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("left")).header("age"), None);
}

#[test]
fn an_entry_beyond_upstreams_lifetime_is_revalidated_before_it_is_served() {
    let upstream = upstream();
    let site = site(&upstream);
    store_entries(&site, u64::from(UPSTREAM_MAX_AGE) + 1);
    upstream.publish(Crate::new("left", "1.1.0"));
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
}

#[test]
fn max_age_zero_serves_nothing_that_upstream_has_not_confirmed() {
    let upstream = upstream();
    let site = site(&upstream);
    store_entries(&site, 300);
    upstream.publish(Crate::new("left", "1.1.0"));
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
}

/// Trap T25: an entry that needs a new version of a dependency never meets an older entry of that dependency. See
/// docs/client-behaviour.md C-29.
#[test]
fn an_entry_that_changed_behind_never_meets_an_older_entry_of_its_dependency() {
    let upstream = upstream();
    let site = site(&upstream);
    store_entries(&site, 300);
    upstream.publish(Crate::new("base", "1.1.0"));
    upstream.publish(Crate::new("left", "1.1.0").dep("base", "^1.1"));
    let larder = site.serve(&[]);
    let new = upstream.index_body("left");
    wait_until("the changed entry is served", || {
        larder.get(&entry("left")).body == new
    });
    assert_eq!(larder.get(&entry("base")).body, upstream.index_body("base"));
}

#[test]
fn a_failure_behind_the_answer_costs_clients_nothing() {
    let upstream = upstream();
    let site = site(&upstream);
    store_entries(&site, 300);
    upstream.fault("", Fault::Status(503));
    let larder = site.serve(&[]);
    for _ in 0..5 {
        let reply = larder.get(&entry("left"));
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body("left"))
        );
        larder.wait_until_idle();
    }
}
