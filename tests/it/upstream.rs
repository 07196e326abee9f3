//! How larder speaks to upstream, as upstream sees it: connections, framing, resuming, redirects. What clients get while
//! upstream is in trouble is tested elsewhere.

use std::time::Duration;

use fake_upstream::{Builder, Crate, FakeUpstream, Fault, entry_path};

use tempfile::TempDir;

use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::wait_until;

/// Publishes so many crates; their names.
fn publish_many(upstream: &FakeUpstream, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count)
        .map(|number| format!("many-{number:02}"))
        .collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    names
}

/// A site that trusts this upstream's authority, whose file is in the folder.
fn trusting_site(upstream: &FakeUpstream) -> (Site, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, upstream.ca_pem()).unwrap();
    let site = site(upstream).variable("LARDER_CA_FILE", ca.to_str().unwrap());
    (site, folder)
}

/// A larder that has stored these entries.
#[track_caller]
fn filled<'site>(site: &'site Site, names: &[String]) -> Larder<'site> {
    let larder = site.serve(&[]);
    for name in names {
        assert_eq!(larder.get(&entry(name)).status, 200);
    }
    larder.wait_until_idle();
    larder
}

#[test]
fn one_slow_answer_holds_up_nobody_behind_it() {
    let upstream = FakeUpstream::builder().tls().start();
    let names = publish_many(&upstream, 20);
    let (site, _ca) = trusting_site(&upstream);
    let larder = filled(&site, &names);

    // A new process has no connection, so the first request goes ahead to make one.
    let larder = larder.restart(&["--max-age", "0s", "--patience", "1s"]);
    upstream.forget_requests();
    let (first, others) = names.split_first().unwrap();
    let slow = Fault::StallFor(Duration::from_millis(1500));
    upstream.fault(&entry_path(first), slow);
    let mut ahead = larder.http().connect().unwrap();
    ahead.send("GET", &entry(first), &[]).unwrap();
    wait_until("the first is asked for", || {
        upstream.requests_for(&entry_path(first)) == 1
    });
    let mut behind: Vec<_> = others
        .iter()
        .map(|name| (name, larder.http().connect().unwrap()))
        .collect();
    for (name, client) in &mut behind {
        client.send("GET", &entry(name), &[]).unwrap();
    }
    for (name, client) in &mut behind {
        let reply = client.receive().unwrap();
        let how = reply.header("cache-status").unwrap();
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(how, "larder; fwd=stale", "{name}");
    }
}

/// Fills a larder with stale entries and asks for all of them at once through a new process, which knows nothing of its
/// upstream yet; how many connections that took.
#[track_caller]
fn volley(upstream: Builder) -> usize {
    let delay = Duration::from_millis(50);
    let upstream = &upstream.delay(delay).connect_delay(delay * 2).start();
    let names = publish_many(upstream, 60);
    let (site, _ca) = trusting_site(upstream);
    let larder = filled(&site, &names);
    let larder = larder.restart(&["--max-age", "0s"]);
    let connections = upstream.connections();
    std::thread::scope(|scope| {
        for name in &names {
            let larder = &larder;
            scope.spawn(move || {
                let reply = larder.get(&entry(name));
                let how = reply.header("cache-status").unwrap();
                assert_eq!((reply.status, how), (200, "larder; fwd=stale"), "{name}");
            });
        }
    });
    assert!(!larder.log().contains("out of reach"), "{}", larder.log());
    upstream.connections() - connections
}

#[test]
fn a_volley_of_questions_goes_over_one_connection() {
    assert_eq!(volley(FakeUpstream::builder().tls()), 1);
}

#[test]
fn an_upstream_that_speaks_older_http_only_is_understood_at_once_by_all() {
    // One for each question, and not another one for each that tried HTTP/2 before; a busy machine may open a few more.
    assert!(volley(FakeUpstream::builder().tls_http1_only()) <= 60 + 10);
}

#[test]
fn a_body_that_may_have_been_cut_is_asked_for_anew_each_time() {
    let upstream = FakeUpstream::builder().max_age(Some(600)).start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let first_line = upstream.index_body("left").len();
    upstream.publish(Crate::new("left", "1.1.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    // Ends after a whole line: nobody can tell.
    let cut = Fault::CutUnframed(u64::try_from(first_line).unwrap());
    upstream.fault_times("left", 1, cut);
    let reply = larder.get(&entry("left"));
    assert_eq!((reply.status, reply.body.len()), (200, first_line));
    larder.wait_until_idle();
    let reply = larder.get(&entry("left"));
    assert_eq!(&*reply.body, &*upstream.index_body("left"));
    let asked = upstream.requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("if-none-match"), None);
    // The whole one came framed, and is fresh.
    larder.wait_until_idle();
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    assert_eq!(upstream.requests().len(), 2);
}
