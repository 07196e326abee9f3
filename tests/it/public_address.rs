//! larder behind a proxy that ends TLS, with real cargo over https.

use std::net::SocketAddr;

use fake_upstream::{FakeUpstream, TlsTerminator, crate_path};
use serde_json::Value;
use testkit::cargo::CargoHome;
use testkit::larder::Larder;
use testkit::process::free_address;

use crate::fixture::{project_on_left, publish_pair, site};

const CLIENT: &str = "203.0.113.7";

fn address(larder: &Larder<'_>) -> SocketAddr {
    larder.http().address()
}

/// The download address that a client gets which sends these headers.
fn dl(larder: &Larder<'_>, headers: &[(&str, &str)]) -> String {
    let config: Value =
        serde_json::from_slice(&larder.get_with("/config.json", headers).body).unwrap();
    config["dl"].as_str().unwrap().to_owned()
}

/// A build whose every request must come through the proxy: cargo trusts its authority alone.
#[track_caller]
fn build(proxy: &TlsTerminator, upstream: &FakeUpstream) {
    let home = CargoHome::empty()
        .trust(proxy.ca_pem())
        .variable("CARGO_NET_RETRY", "0");
    home.run(&project_on_left(), &["build"], &proxy.url())
        .assert_success();
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 1);
}

#[test]
fn cargo_builds_over_https_through_a_trusted_proxy_whose_client_is_logged() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&["-v", "--trusted-proxy", "10.0.0.0/8,127.0.0.1"]);
    let proxy = TlsTerminator::start(address(&larder), CLIENT);
    build(&proxy, &upstream);
    let log = larder.stop();
    let downloads = log.lines().filter(|line| line.contains("crate `"));
    let downloads: Vec<_> = downloads
        .filter(|line| line.contains("status=200"))
        .collect();
    assert_eq!(downloads.len(), 2, "cargo went past the proxy: {log}");
    for line in downloads {
        assert!(line.contains(&format!("client={CLIENT} ")), "{line}");
    }
}

#[test]
fn headers_of_others_change_nothing() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["-v", "--trusted-proxy", "10.0.0.0/8"]);
    let headers = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "localhost:1"),
        ("X-Forwarded-For", CLIENT),
        ("Forwarded", "for=203.0.113.7;proto=https;host=localhost:1"),
    ];
    let own = format!("{}crates/", larder.url());
    let found = dl(&larder, &headers);
    assert!(found.starts_with(&own), "{found}");
    let log = larder.stop();
    assert!(!log.contains(CLIENT), "{log}");
}

#[test]
fn public_url_is_in_config_json_script_and_page_whatever_the_proxy_says() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let listen = free_address();
    let proxy = TlsTerminator::start(listen, CLIENT);
    let larder = site.serve_at(&listen.to_string(), &["--public-url", &proxy.url()]);
    build(&proxy, &upstream);
    assert!(dl(&larder, &[]).starts_with(&format!("{}crates/", proxy.url())));
    // The name in the public URL is one of larder's.
    let home = larder.get("/").text();
    assert!(home.contains(&format!("sparse+{}", proxy.url())), "{home}");
    drop(larder);
    let named = site.serve(&["--public-url", "https://cache.example/larder"]);
    let request = "GET /config.json HTTP/1.1\r\nHost: cache.example\r\nConnection: close\r\n\r\n";
    let found = named.http().raw(request.as_bytes());
    let found = String::from_utf8_lossy(&found);
    let expected = "\"https://cache.example/larder/crates/";
    assert!(found.contains(expected), "{found}");
    drop(named);
    let site = site.variable("LARDER_PUBLIC_URL", "https://cache.example/larder");
    let printed = site.command(&["client", "print"]);
    let printed = String::from_utf8_lossy(&printed.stdout);
    assert!(
        printed.contains("\"sparse+https://cache.example/larder/\""),
        "{printed}"
    );
}

#[test]
fn unusable_networks_and_addresses_are_named() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    for (flag, value) in [
        ("--trusted-proxy", "proxy.example"),
        ("--public-url", "cache.example"),
    ] {
        let output = site.command(&["serve", flag, value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(flag) && said.contains(value), "{said}");
    }
}
