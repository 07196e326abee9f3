//! `on-trouble`: larder is cut off from upstream by a proxy that does not answer; its clients are not.

use fake_upstream::{FakeUpstream, crate_path, index_path};
use testkit::cargo::CargoHome;
use testkit::http::Reply;
use testkit::larder::Site;

use crate::fixture::{project_on_left, publish_pair, site};

/// Nothing listens there.
const DEAD_PROXY: &str = "http://127.0.0.1:9";

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    upstream
}

/// A larder that has upstream's `config.json`, and can no longer reach upstream.
fn cut_off(upstream: &FakeUpstream) -> Site {
    let site = site(upstream);
    let larder = site.serve(&[]);
    larder.get("/config.json");
    larder.wait_until_idle();
    larder.stop();
    upstream.forget_requests();
    site.variable("http_proxy", DEAD_PROXY)
}

#[track_caller]
fn leads_to(reply: &Reply, address: &str) {
    assert_eq!(reply.status, 307, "{}", reply.text());
    assert_eq!(reply.header("location"), Some(address));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

fn download(upstream: &FakeUpstream) -> String {
    let sha256 = upstream.checksum("left", "1.0.0");
    format!("/crates/left/1.0.0/{sha256}/download")
}

#[test]
fn cargo_builds_from_upstream_while_larder_cannot_reach_it() {
    let upstream = upstream();
    let site = cut_off(&upstream);
    let larder = site.serve(&["--on-trouble", "redirect"]);
    let home = CargoHome::empty().variable("CARGO_NET_RETRY", "0");
    home.run(&project_on_left(), &["build"], larder.url())
        .assert_success();
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 1);
    let log = larder.stop();
    assert!(log.contains("outcome=redirected status=307"), "{log}");
}

#[test]
fn redirect_names_upstreams_own_address_for_cargo_and_rustup() {
    let upstream = upstream();
    let site = cut_off(&upstream);
    let base = upstream.base_url().trim_end_matches('/').to_owned();
    let larder = site.serve(&["--on-trouble", "redirect", "--dist-server", &base]);
    leads_to(
        &larder.get("/le/ft/left"),
        &format!("{}{}", upstream.url(), index_path("left")),
    );
    let crate_address = format!("{base}{}", crate_path("left", "1.0.0"));
    leads_to(&larder.get(&download(&upstream)), &crate_address);
    let manifest = "/dist/channel-rust-stable.toml";
    leads_to(&larder.get(manifest), &format!("{base}{manifest}"));
    // Its own files are larder's.
    assert_eq!(larder.get("/config.json").status, 200);
}

#[test]
fn errors_are_the_default_and_stay_offline_and_under_rules() {
    let upstream = upstream();
    let site = cut_off(&upstream);
    let redirect = ["--on-trouble", "redirect"];
    for (more, statuses) in [
        (&[][..], [503, 424]),
        (&["--on-trouble", "redirect", "--offline"], [424, 424]),
        (
            &["--on-trouble", "redirect", "--deny", "left@<1.0.0"],
            [503, 424],
        ),
        (&["--on-trouble", "redirect", "--min-age", "7d"], [503, 424]),
    ] {
        let larder = site.serve(more);
        for path in ["/le/ft/left".to_owned(), download(&upstream)] {
            let status = larder.get(&path).status;
            assert!(statuses.contains(&status), "{more:?} {path}: {status}");
        }
    }
    assert_eq!(upstream.requests().len(), 0);
    let larder = site.serve(&[&redirect[..], &["--verify-signatures", "true"]].concat());
    assert_eq!(larder.get("/dist/channel-rust-stable.toml").status, 503);
}

#[test]
fn upstreams_own_answers_are_passed_on() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&["--on-trouble", "redirect"]);
    assert_eq!(larder.get("/no/th/nothing").status, 404);
    upstream.fault("left", fake_upstream::Fault::Status(403));
    assert_eq!(larder.get("/le/ft/left").status, 403);
}
