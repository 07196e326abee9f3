//! `/-/metrics`: Prometheus can parse the exposition, and the values match the requests.
//!
//! Access control is the same for all routes and tested with them.

use std::collections::{BTreeMap, BTreeSet};

use fake_upstream::{Crate, FakeUpstream, entry_path};

use crate::fixture::{larder_with_stale_left, site};
use testkit::larder::Larder;
use testkit::paths::{download, entry};
use testkit::process::wait_until;

/// An exposition, parsed as strictly as the format's description allows.
#[derive(Debug, Default)]
struct Metrics {
    /// Values by metric name, labels included as written.
    samples: BTreeMap<String, u64>,
    kinds: BTreeMap<String, String>,
}

impl Metrics {
    #[track_caller]
    fn of(larder: &Larder<'_>) -> Self {
        let reply = larder.get("/-/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        Self::parse(&reply.text())
    }

    #[track_caller]
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line must end:\n{text}");
        let mut metrics = Self::default();
        let mut helped = BTreeSet::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, _) = rest.split_once(' ').expect("a help has words");
                assert!(helped.insert(name), "`{name}` is helped twice");
                current = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type has a kind");
                assert_eq!(name, current, "the type must follow its help");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(metrics.kinds.insert(name.to_owned(), kind.to_owned()), None);
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
                let name = sample.split('{').next().unwrap_or(sample);
                let of_histogram = ["_bucket", "_sum", "_count"].into_iter();
                let suffixes = of_histogram.filter(|_| metrics.kinds[current] == "histogram");
                let family = suffixes
                    .filter_map(|suffix| name.strip_suffix(suffix))
                    .next();
                assert_eq!(
                    family.unwrap_or(name),
                    current,
                    "samples must follow their type: {line}"
                );
                if let Some(labels) = sample.strip_prefix(name).filter(|l| !l.is_empty()) {
                    assert!(
                        labels.starts_with('{')
                            && labels.contains("=\"")
                            && labels.ends_with("\"}"),
                        "{line}"
                    );
                }
                if sample.contains("_sum{") {
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                    continue;
                }
                let value = value.parse().expect("a count");
                assert_eq!(
                    metrics.samples.insert(sample.to_owned(), value),
                    None,
                    "{line} is there twice"
                );
            }
        }
        metrics
    }

    /// The value of a metric, labels included; 0 if it is missing.
    fn get(&self, sample: &str) -> u64 {
        self.samples.get(sample).copied().unwrap_or_default()
    }
}

#[test]
fn counters_match_the_requests() {
    let upstream = FakeUpstream::start();
    // No client requests `far`: it is the unused prefetch.
    upstream.publish(Crate::new("far", "1.0.0"));
    upstream.publish(Crate::new("right", "1.0.0").dep("far", "^1"));
    upstream.publish(Crate::new("left", "1.0.0").dep("right", "^1"));
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "1h"]);

    let before = Metrics::of(&larder);
    assert_eq!(before.get("larder_requests_total{outcome=\"hit\"}"), 0);
    assert_eq!(before.kinds["larder_requests_total"], "counter");

    // As cargo begins. The start has prefetched upstream's.
    assert_eq!(larder.get("/config.json").status, 200);
    assert_eq!(larder.get(&entry("left")).status, 200);
    wait_until("both entries behind `left` were fetched ahead", || {
        upstream.requests_for(&entry_path("far")) == 1
    });
    larder.wait_until_idle();
    assert_eq!(larder.get(&entry("right")).status, 200);
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    larder.wait_until_idle();
    for _ in 0..3 {
        assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    }
    assert_eq!(larder.get(&entry("nothing")).status, 404);

    let after = Metrics::of(&larder);
    for (sample, expected) in [
        // `left`'s entry and its crate. `right`'s entry was prefetched.
        ("larder_requests_total{outcome=\"miss\"}", 2),
        ("larder_requests_total{outcome=\"prefetched\"}", 1),
        // Three more requests for the crate.
        ("larder_requests_total{outcome=\"hit\"}", 3),
        ("larder_requests_total{outcome=\"absent\"}", 1),
        ("larder_read_ahead_fetched_total{kind=\"index\"}", 3),
        ("larder_read_ahead_asked_total{kind=\"index\"}", 2),
        ("larder_read_ahead_unused{kind=\"index\"}", 1),
        ("larder_request_duration_seconds_count{answer=\"hit\"}", 3),
        (
            "larder_request_duration_seconds_bucket{answer=\"miss\",le=\"+Inf\"}",
            3,
        ),
        ("larder_fetches_in_flight", 0),
        ("larder_outages", 0),
        ("larder_offline", 0),
        (
            concat!(
                "larder_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"}"
            ),
            1,
        ),
    ] {
        assert_eq!(after.get(sample), expected, "{sample}\n{after:#?}");
    }
    let answered = after.get("larder_upstream_requests_total{result=\"answered\"}");
    let failed = after.get("larder_upstream_requests_total{result=\"failed\"}");
    assert_eq!(answered + failed, upstream.requests().len() as u64);
    // Upstream's 404 for `nothing`.
    assert_eq!(failed, 1);
}

#[test]
fn outage_is_reported_with_its_host_until_it_ends() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = larder_with_stale_left(&upstream, &site);

    upstream.stop();
    assert_eq!(larder.get(&entry("left")).status, 200);
    let down = Metrics::of(&larder);
    assert_eq!(down.get("larder_outages"), 1);
    let hosts: Vec<_> = down
        .samples
        .keys()
        .filter(|sample| sample.starts_with("larder_upstream_down{"))
        .collect();
    assert!(
        matches!(hosts[..], [host] if host.contains("127.0.0.1")),
        "{hosts:?}"
    );
    assert!(down.get("larder_upstream_requests_total{result=\"failed\"}") >= 1);

    upstream.restart();
    wait_until("the outage is over", || {
        Metrics::of(&larder).get("larder_outages") == 0
    });
    let up = Metrics::of(&larder);
    assert!(
        up.samples
            .keys()
            .all(|sample| !sample.starts_with("larder_upstream_down{"))
    );
}

#[test]
fn offline_mode_is_reported() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["--offline"]);
    assert_eq!(larder.get(&entry("left")).status, 424);
    let metrics = Metrics::of(&larder);
    assert_eq!(metrics.get("larder_offline"), 1);
    assert_eq!(metrics.get("larder_requests_total{outcome=\"failed\"}"), 1);
}

#[test]
fn bytes_from_upstream_count_by_host_and_the_store_by_its_space_without_a_limit() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let body = larder.get(&download("left", "1.0.0")).body;
    larder.wait_until_idle();
    let received = |metrics: &Metrics| -> u64 {
        let samples = metrics.samples.iter();
        let samples = samples.filter(|(name, _)| name.starts_with("larder_received_bytes_total{"));
        samples.map(|(_, bytes)| bytes).sum()
    };
    let metrics = Metrics::of(&larder);
    // The crate, its index entry and config.json.
    let once = received(&metrics);
    assert!(once > body.len() as u64, "{metrics:#?}");
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    wait_until("the store is counted", || {
        Metrics::of(&larder).get("larder_store_bytes") > body.len() as u64
    });
    assert_eq!(received(&Metrics::of(&larder)), once, "a hit needs none");
    let status = larder.status();
    let by_host = status["received_bytes"].as_object().unwrap();
    let sum: u64 = by_host.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(sum, once);
    assert_eq!(status["sent_bytes"]["hit"], body.len() as u64);
}

#[test]
fn a_slow_upstream_is_reported_apart_from_one_that_is_down() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = larder_with_stale_left(&upstream, &site);
    upstream.black_hole();
    assert_eq!(larder.get(&entry("left")).status, 200, "it is stored");
    wait_until("the upstream is slow", || {
        let metrics = Metrics::of(&larder);
        let mut names = metrics.samples.keys();
        let is_slow = names.any(|name| name.starts_with("larder_upstream_slow{"));
        is_slow && metrics.get("larder_outages") == 0
    });
    assert_eq!(larder.status()["outages"][0]["state"], "slow");
    let text = site.command(&["status"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains(" is slow since "), "{text}");
    upstream.revive();
}
