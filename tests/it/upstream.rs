//! larder's requests as upstream sees them: connections, framing, resuming. Other tests cover the answers that clients
//! get while upstream fails.

use std::time::Duration;

use fake_upstream::{Builder, Crate, FakeUpstream, Fault, entry_path};

use crate::fixture::{site, tls_site, tls_upstream, tls_upstream_with};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::wait_until;

/// Publishes `count` crates and returns their names.
fn publish_many(upstream: &FakeUpstream, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count)
        .map(|number| format!("many-{number:02}"))
        .collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    names
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
fn slow_answer_does_not_delay_other_requests() {
    let (upstream, folder) = tls_upstream();
    let names = publish_many(&upstream, 20);
    let site = tls_site(&upstream, &folder);
    let larder = filled(&site, &names);

    // A new process has no connection, so the first request opens one.
    let larder = larder.restart(&["--max-age", "0s", "--upstream-timeout", "1s"]);
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

/// Fills a larder with stale entries and requests all of them at once from a new process, which knows nothing about its
/// upstream yet. Returns the number of connections to upstream.
#[track_caller]
fn connections_of_a_burst(upstream: Builder) -> usize {
    let delay = Duration::from_millis(50);
    let (upstream, folder) = tls_upstream_with(upstream.delay(delay).connect_delay(delay * 2));
    let names = publish_many(&upstream, 60);
    let site = tls_site(&upstream, &folder);
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
fn burst_of_requests_uses_one_connection() {
    assert_eq!(connections_of_a_burst(FakeUpstream::builder()), 1);
}

#[test]
fn http1_only_upstream_is_detected_once_for_all_requests() {
    // One connection per request, and not two because each tried HTTP/2 first. A busy machine may open a few more.
    assert!(connections_of_a_burst(FakeUpstream::builder().tls_http1_only()) <= 60 + 10);
}

/// See docs/client-behaviour.md H-06.
#[test]
fn body_without_framing_is_fetched_again_each_time() {
    let upstream = FakeUpstream::builder().max_age(Some(600)).start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let first_line = upstream.index_body("left").len();
    upstream.publish(Crate::new("left", "1.1.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    // The body ends after a complete line, so that the cut is not detectable.
    let cut = Fault::CutUnframed(u64::try_from(first_line).unwrap());
    upstream.fault_times("left", 1, cut);
    let reply = larder.get(&entry("left"));
    assert_eq!((reply.status, reply.body.len()), (200, first_line));
    larder.wait_until_idle();
    let reply = larder.get(&entry("left"));
    assert_eq!(&*reply.body, &*upstream.index_body("left"));
    let asked = || {
        let mut asked = upstream.requests();
        asked.retain(|request| request.path == entry_path("left"));
        asked
    };
    assert_eq!(asked().len(), 2);
    assert_eq!(asked()[1].header("if-none-match"), None);
    // The complete body has framing, and is fresh.
    larder.wait_until_idle();
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    assert_eq!(asked().len(), 2);
}
