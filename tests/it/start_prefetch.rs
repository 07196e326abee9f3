//! The daemon asks for `config.json` when it starts, so that the first client does not wait for a dial.

use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream};

use crate::fixture::site;
use testkit::larder::Larder;
use testkit::paths::entry;
use testkit::process::wait_until;

const CONFIG: &str = "config.json";

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream
}

/// Waits until the daemon has what its start asks for.
#[track_caller]
fn wait_for_start(upstream: &FakeUpstream, larder: &Larder<'_>) {
    wait_until("the start asks for config.json", || {
        upstream.requests_for(CONFIG) == 1
    });
    larder.wait_until_idle();
}

/// The address of upstream's API in larder's own `config.json`, which only upstream can name.
fn api(larder: &Larder<'_>) -> Option<String> {
    let config: serde_json::Value =
        serde_json::from_slice(&larder.get("/config.json").body).unwrap();
    config["api"].as_str().map(str::to_owned)
}

/// `config.json` and then, as long as it is fresh, nothing.
#[test]
fn a_start_asks_for_config_json_once_and_only_if_no_fresh_one_is_stored() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    wait_for_start(&upstream, &larder);
    assert!(api(&larder).is_some());
    larder.wait_until_idle();
    assert_eq!(upstream.requests().len(), 1, "{:?}", upstream.requests());
    let counted = |name| larder.request_count(name);
    assert_eq!((counted("ahead-fetched"), counted("ahead-asked")), (1, 1));
    // The connection of the start serves the requests that follow.
    assert_eq!(larder.get(&entry("left")).status, 200);
    assert_eq!(upstream.connections(), 1);

    upstream.forget_requests();
    let larder = larder.restart(&["--keep-warm", "false"]);
    assert!(api(&larder).is_some());
    let larder = larder.restart(&[]);
    assert!(api(&larder).is_some());
    larder.wait_until_idle();
    assert_eq!(upstream.requests().len(), 0, "{:?}", upstream.requests());
}

#[test]
fn the_first_client_joins_the_request_of_the_start() {
    let upstream = upstream();
    let gate = upstream.gate(CONFIG);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    gate.wait_for(1);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| api(&larder));
        // Enough for the client to wait. If it comes later, it finds the answer stored.
        std::thread::sleep(Duration::from_millis(200));
        gate.open();
        assert!(client.join().unwrap().is_some());
    });
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(CONFIG), 1);
}

#[test]
fn a_start_asks_nothing_offline_or_if_keep_warm_is_off() {
    let upstream = upstream();
    let site = site(&upstream);
    for flags in [&["--offline"][..], &["--keep-warm", "false"]] {
        let larder = site.serve(flags);
        std::thread::sleep(Duration::from_millis(300));
        larder.wait_until_idle();
        assert_eq!(upstream.connections(), 0, "{flags:?}");
    }
}

/// A machine that just started may have no network yet.
#[test]
fn an_upstream_that_is_unreachable_at_the_start_counts_as_down_only_once_a_client_asks() {
    let upstream = upstream();
    upstream.stop();
    let site = site(&upstream);
    let larder = site.serve(&["-v"]);
    larder.wait_for_log("not fetched at the start");
    larder.wait_until_idle();
    assert_eq!(larder.status()["outages"].as_array().unwrap().len(), 0);
    upstream.restart();
    assert!(api(&larder).is_some(), "{}", larder.log());
    let log = larder.stop();
    assert!(!log.contains("WARN"), "{log}");

    upstream.stop();
    let site = crate::fixture::site(&upstream);
    let larder = site.serve(&["-v"]);
    larder.wait_for_log("not fetched at the start");
    assert_eq!(api(&larder), None);
    larder.wait_for_log("out of reach");
}
