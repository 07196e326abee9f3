//! The built daemon's routes: protocols, host names, `config.json`, hostile paths, shutdown. Stalled clients and
//! smuggled requests are in `connection`.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault};

use crate::fixture::site;
use testkit::larder::Larder;
use testkit::paths::{download, entry};
use testkit::process::wait_until;
use testkit::store::{entry_file, files};

/// The start of such a daemon asks upstream nothing.
const ASKS_ONLY_FOR_CLIENTS: [&str; 2] = ["--keep-warm", "false"];

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(300_000));
    upstream
}

/// The `dl` of `config.json` for a client that addresses larder by this host name.
#[track_caller]
fn dl(larder: &Larder<'_>, host: &str) -> String {
    let reply = larder
        .http()
        .request("GET", "/config.json", &[("host", host)]);
    assert_eq!(reply.status, 200, "{host}: {}", reply.text());
    let config: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    config["dl"].as_str().unwrap().to_owned()
}

fn authority(larder: &Larder<'_>) -> String {
    larder.http().address().to_string()
}

/// See docs/client-behaviour.md H-12.
#[test]
fn http1_and_http2_with_prior_knowledge_share_the_port() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let old = [entry("left"), download("left", "1.0.0")].map(|path| larder.get(&path));
    let new = larder
        .http()
        .get_h2(&[&entry("left"), &download("left", "1.0.0")]);
    for (old, new) in old.into_iter().zip(new) {
        let new = new.unwrap();
        assert!(old.complete && new.complete);
        assert_eq!((old.status, new.status), (200, 200));
        assert!(old.body == new.body);
        assert_eq!(old.header("etag"), new.header("etag"));
    }
    assert_eq!(upstream.requests_for("left"), 2);
}

/// See docs/client-behaviour.md C-04.
#[test]
fn config_json_is_always_answered_with_200() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let plain = larder.get("/config.json");
    for tag in ["*", "\"x\"", plain.header("etag").unwrap_or("W/\"y\"")] {
        let asked = [
            ("if-none-match", tag),
            ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
        ];
        let reply = larder.get_with("/config.json", &asked);
        assert_eq!(reply.status, 200, "{tag}");
        assert!(reply.text().contains("\"dl\""), "{tag}");
    }
}

#[test]
fn first_config_json_of_a_cold_store_has_upstreams_api() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get("/config.json");
    let config: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(config["api"], format!("{}api", upstream.base_url()));
}

/// See docs/client-behaviour.md C-04.
#[test]
fn config_json_waits_for_an_unreachable_upstream_once() {
    let upstream = upstream();
    upstream.black_hole();
    let site = site(&upstream);
    let timeout = Duration::from_millis(1_500);
    let larder = site.serve(&["--upstream-timeout", "1500ms"]);
    let expected = format!(
        "{}crates/{{crate}}/{{version}}/{{sha256-checksum}}/download",
        larder.url()
    );
    let asked = Instant::now();
    assert_eq!(dl(&larder, &authority(&larder)), expected);
    let first = asked.elapsed();
    assert!(first < timeout + Duration::from_millis(1_000), "{first:?}");
    larder.wait_for_log("out of reach");
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(dl(&larder, &authority(&larder)), expected);
        let next = asked.elapsed();
        assert!(next < Duration::from_millis(1_000), "{next:?}");
    }
}

/// See docs/client-behaviour.md C-04.
#[test]
fn config_json_waits_at_most_one_timeout_for_a_silent_upstream() {
    let upstream = upstream();
    upstream.fault("config.json", Fault::Stall);
    let site = site(&upstream);
    let larder = site.serve(&["--upstream-timeout", "300ms"]);
    for _ in 0..2 {
        let asked = Instant::now();
        assert_eq!(larder.get("/config.json").status, 200);
        let waited = asked.elapsed();
        assert!(waited < Duration::from_millis(1_300), "{waited:?}");
    }
}

/// See docs/client-behaviour.md C-05.
#[test]
fn old_download_urls_stay_valid() {
    let upstream = upstream();
    let sum = upstream.checksum("left", "1.0.0");
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let old = dl(&larder, &authority(&larder));
    let old = old
        .replace("{crate}", "left")
        .replace("{version}", "1.0.0")
        .replace("{sha256-checksum}", &sum);
    let path = old
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .unwrap()
        .1;
    // Neither form may ever change: clients use their stored `config.json` without asking for a new one.
    assert_eq!(path, format!("crates/left/1.0.0/{sum}/download"));
    let larder = larder.restart_on_same_port(&[]);
    assert_eq!(
        dl(&larder, &authority(&larder))
            .replace("{crate}", "left")
            .replace("{version}", "1.0.0")
            .replace("{sha256-checksum}", &sum),
        old
    );
    for path in [format!("/{path}"), "/crates/left/1.0.0/download".to_owned()] {
        let reply = larder.get(&path);
        assert!(
            reply.complete && reply.body == upstream.body("left", "1.0.0"),
            "{path}"
        );
    }
    larder.wait_until_idle();
    upstream.stop();
    let larder = larder.restart_on_same_port(&["--offline"]);
    for path in [format!("/{path}"), "/crates/left/1.0.0/download".to_owned()] {
        let reply = larder.get(&path);
        assert!(
            reply.complete && reply.body == upstream.body("left", "1.0.0"),
            "{path}"
        );
    }
}

/// See docs/client-behaviour.md C-06.
#[test]
fn download_url_has_the_host_name_that_the_client_used() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&["--allow-host", "larder.corp.example"]);
    let port = larder.http().address().port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "localhost".to_owned(),
        "host.containers.internal:3263".to_owned(),
        "larder.corp.example".to_owned(),
        "larder.corp.example:8080".to_owned(),
    ] {
        assert_eq!(
            dl(&larder, &host),
            format!("http://{host}/crates/{{crate}}/{{version}}/{{sha256-checksum}}/download")
        );
    }
    let reply = larder.http().get_h2(&["/config.json"]).remove(0).unwrap();
    assert!(
        reply
            .text()
            .contains(&format!("http://127.0.0.1:{port}/crates/")),
        "{}",
        reply.text()
    );
}

#[test]
fn host_names_that_no_container_uses_are_refused_and_never_reach_config_json() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for (host, status) in [
        ("$(id).internal", 400),
        ("localhost:99999", 400),
        ("metadata.google.internal", 421),
        ("anything.internal:3263", 421),
        ("host.docker.internal", 200),
        ("192.168.127.254:3263", 200),
    ] {
        let reply = larder.get_with("/config.json", &[("host", host)]);
        assert_eq!(reply.status, status, "{host}: {}", reply.text());
        let is_repeated = reply.text().contains(&format!("http://{host}/"));
        assert_eq!(is_repeated, status == 200, "{host}: {}", reply.text());
    }
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let reply = larder.get_with("/config.json", &[("host", machine.trim())]);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Paths that try to leave the store or to select another upstream.
fn hostile_paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/..",
        "/../..",
        "/../../etc/passwd",
        "/se/rd/../../../left",
        "/se/rd/..",
        "/./le/ft/left",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/.%2e/left",
        "/%2E%2E%2Fetc%2Fpasswd",
        "/le/ft/..%2fleft",
        "/le%2fft%2fleft",
        "//le/ft/left",
        "/le//ft/left",
        "/le/ft//left",
        "/le/ft/left/",
        "//127.0.0.1/le/ft/left",
        "/le/ft/left%00",
        "/le/ft/%00left",
        "/le/ft/left%0a",
        "/le/ft/left%0d%0ax:%20y",
        "/le/ft/le%7fft",
        "/le\\ft\\left",
        "/le/ft/..%5cleft",
        "/le/ft/%5c..%5cleft",
        "/c:/windows/nul",
        "/3/n/nul:",
        "/le/ft/left.",
        "/le/ft/%c0%ae%c0%ae",
        "/le/ft/%c0%af",
        "/%ff%fe/x",
        "/le/ft/%ef%bc%8fleft",
        "/le/ft/l%c3%a9ft",
        "/crates/../1.0.0/download",
        "/crates/left/../download",
        "/crates/left/1.0.0/../../download",
        "/crates/..%2f..%2fleft/1.0.0/download",
        "/crates/left/..%2f1.0.0/download",
        "/crates/left/1.0.0%2f..%2f/download",
        "/crates/left/%2e%2e/download",
        "/crates/left/1.0.0%00/download",
        "/crates/left/%2f1.0.0/download",
        "/crates//1.0.0/download",
        "/crates/left//download",
        "/crates/left/1.0.0/..%2f..%2f/download",
        "/crates/left/1.0.0/XYZ/download",
        "/registry/../config.json",
        "/registry/%2e%2e/config.json",
        "/registry//config.json",
        "/registry/x%2fy/config.json",
        "/-/../config.json",
        "/-/%2e%2e%2fetc",
        "/config.json/..",
        "/.git/config",
        "/.../left",
        "/le/ft/.left",
    ]
    .iter()
    .map(|&path| path.to_owned())
    .collect();
    paths.push(format!("/{}", "a".repeat(4096)));
    paths.push(format!("/aa/aa/{}", "a".repeat(65)));
    paths.push(format!("/{}x", "../".repeat(300)));
    paths.push(format!("/crates/left/{}/download", "1".repeat(300)));
    paths
}

/// See docs/client-behaviour.md H-10.
#[test]
fn hostile_paths_reach_neither_the_disk_nor_upstream() {
    let upstream = upstream();
    // The store is in a folder of its own, whose other contents must not change.
    let outside = tempfile::tempdir().unwrap();
    for secret in ["left", "config.json", "etc/passwd"] {
        let path = outside.path().join(secret);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "secret").unwrap();
    }
    let site = site(&upstream).store_in(&outside.path().join("store"));
    let larder = site.serve(&ASKS_ONLY_FOR_CLIENTS);
    let before = files(outside.path());
    for path in hostile_paths() {
        let reply = larder.http().request("GET", &path, &[]);
        assert!(
            matches!(reply.status, 400 | 404 | 414),
            "{path}: {}",
            reply.status
        );
        assert!(!reply.text().contains("secret"), "{path}");
        assert_eq!(reply.text().lines().count(), 1, "{path}: {}", reply.text());
    }
    let h2: Vec<String> = hostile_paths()
        .into_iter()
        .filter(|path| path.parse::<http::Uri>().is_ok() && !path.starts_with("//"))
        .collect();
    let h2: Vec<&str> = h2.iter().map(String::as_str).collect();
    for (path, reply) in h2.iter().zip(larder.http().get_h2(&h2)) {
        // A stream that the HTTP/2 layer refuses is also fine.
        if let Ok(reply) = reply {
            assert!(
                matches!(reply.status, 400 | 404 | 414),
                "{path}: {}",
                reply.status
            );
        }
    }
    assert_eq!(upstream.requests().len(), 0);
    assert!(files(outside.path()) == before);
}

/// See docs/client-behaviour.md H-16, C-15.
#[test]
fn stopping_finishes_requests_in_flight_and_refuses_new_connections() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let http = larder.http();
    let gate = upstream.gate("/dl/left");
    let path = format!(
        "/crates/left/1.0.0/{}/download",
        upstream.checksum("left", "1.0.0")
    );
    let mut under_way = http.connect().unwrap();
    under_way.send("GET", &path, &[]).unwrap();
    gate.wait_for(1);
    larder.signal("TERM");
    wait_until("no new connection is accepted", || {
        http.connect()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    gate.open();
    let reply = under_way.receive().unwrap();
    assert!(reply.status == 200 && reply.complete && reply.body == upstream.body("left", "1.0.0"));
    drop(under_way);
    let (status, log) = larder.wait_for_exit();
    assert!(status.success(), "{log}");
}

#[test]
fn second_signal_ends_requests_in_flight_at_once() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let gate = upstream.gate("/dl/left");
    let sum = upstream.checksum("left", "1.0.0");
    let mut under_way = larder.http().connect().unwrap();
    let path = format!("/crates/left/1.0.0/{sum}/download");
    under_way.send("GET", &path, &[]).unwrap();
    gate.wait_for(1);
    larder.signal("INT");
    larder.wait_for_log("stopping");
    larder.wait_for_log("connections=1");
    let ordered = Instant::now();
    larder.signal("TERM");
    let (status, log) = larder.wait_for_exit();
    assert!(ordered.elapsed() < Duration::from_secs(5), "{log}");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("error: stopped at once"), "{log}");
}

/// See docs/decisions/0023-eight-seconds-to-stop.md.
#[test]
fn stopping_discards_unfinished_downloads_and_waits_ten_seconds_for_a_disk_that_hangs() {
    let upstream = upstream();
    upstream.publish(Crate::new("large", "1.0.0").padding(3_000_000));
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    larder.get(&entry("left"));
    larder.wait_until_idle();
    // Larder takes this lock before it replaces an entry.
    let folder = fs::File::open(entry_file(&site, "left").parent().unwrap()).unwrap();
    folder.lock().unwrap();
    upstream.publish(Crate::new("left", "1.1.0"));
    assert!(larder.get(&entry("left")).text().contains("1.1.0"));

    upstream.fault("/dl/large", Fault::StallBodyAfter(2_000_000));
    let mut leaves = larder.http().connect().unwrap();
    leaves
        .send("GET", &download("large", "1.0.0"), &[])
        .unwrap();
    leaves.wait_for_answer().unwrap();
    let has_staged = || {
        let staged = files(&site.store().join("v1/staging")).into_iter();
        staged.map(|(_, body)| body.len()).max() > Some(1_000_000)
    };
    wait_until("the download has begun", has_staged);
    drop(leaves);
    let ordered = Instant::now();
    larder.signal("TERM");
    wait_until("the download is discarded", || !has_staged());
    assert!(ordered.elapsed() < Duration::from_secs(5));
    let (status, log) = larder.wait_for_exit();
    assert!(status.success(), "{log}");
    assert!(log.contains("too slow to write everything"), "{log}");
}

/// See docs/client-behaviour.md C-37.
#[test]
fn git_protocol_requests_get_a_hint_about_sparse() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&ASKS_ONLY_FOR_CLIENTS);
    for path in [
        "/info/refs?service=git-upload-pack",
        "/index/info/refs?service=git-upload-pack",
        "/registry/x/info/refs?service=git-upload-pack",
    ] {
        let reply = larder.get(path);
        assert_eq!(reply.status, 400, "{path}");
        assert!(
            reply.text().contains("`sparse+`"),
            "{path}: {}",
            reply.text()
        );
    }
    assert_eq!(upstream.requests().len(), 0);
}

/// One path for each kind of route.
const ROUTES: [&str; 9] = [
    "/config.json",
    "/le/ft/left",
    "/crates/left/1.0.0/download",
    "/",
    "/-/health",
    "/-/ready",
    "/-/status.json",
    "/-/metrics",
    "/nothing",
];

/// See docs/client-behaviour.md H-08.
#[test]
fn unknown_hosts_are_refused_on_every_route() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let port = larder.http().address().port();
    for route in ROUTES {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "203.0.113.1",
            "[2001:db8::1]",
            "2130706433",
            "0x7f.1",
            "evil.example.",
            "larder",
        ] {
            let reply = larder.http().request("GET", route, &[("host", host)]);
            assert!(
                matches!(reply.status, 400 | 403 | 421),
                "{route} by {host}: {}",
                reply.status
            );
        }
        for host in [
            format!("LocalHost:{port}"),
            "localhost.".to_owned(),
            "127.0.0.1".to_owned(),
            "127.8.8.8:1".to_owned(),
        ] {
            let reply = larder.http().request("GET", route, &[("host", &host)]);
            assert!(
                matches!(reply.status, 200 | 404),
                "{route} by {host}: {}",
                reply.status
            );
        }
        for head in [
            format!("GET {route} HTTP/1.1\r\nconnection: close\r\n\r\n"),
            format!(
                "GET {route} HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            ),
            format!(
                "GET {route} HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n"
            ),
            format!("GET {route} HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n"),
            format!("GET {route} HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n"),
            format!("GET {route} HTTP/1.1\r\nhost: user@localhost\r\nconnection: close\r\n\r\n"),
        ] {
            let answer = larder.http().raw(head.as_bytes());
            let answer = String::from_utf8_lossy(&answer);
            let refused = ["400", "421"]
                .iter()
                .any(|status| answer.starts_with(&format!("HTTP/1.1 {status} ")));
            assert!(refused, "{head:?}: {answer}");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for host in ["evil.example", "203.0.113.1:3263", "localhost.evil.example"] {
        let replies = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(larder.http().address())
                .await
                .unwrap();
            testkit::http::get_h2_on(stream, host, &ROUTES).await
        });
        for (route, reply) in ROUTES.iter().zip(replies) {
            assert_eq!(reply.unwrap().status, 421, "{route} by {host}");
        }
    }
}

/// See docs/client-behaviour.md H-09.
#[test]
fn no_request_selects_an_upstream() {
    let upstream = upstream();
    let trap = FakeUpstream::start();
    trap.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&ASKS_ONLY_FOR_CLIENTS);
    let host = authority(&larder);
    let other = trap
        .base_url()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    for line in [
        format!("GET http://{other}/index/le/ft/left HTTP/1.1\r\nhost: {other}"),
        format!("GET http://{other}/le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("GET http://{host}/le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("CONNECT {other} HTTP/1.1\r\nhost: {other}"),
        format!("CONNECT {host} HTTP/1.1\r\nhost: {host}"),
        format!("GET /http://{other}/index/le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("GET /http:%2f%2f{other}%2findex HTTP/1.1\r\nhost: {host}"),
        format!("GET //{other}/index/le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("GET /registry/{other}/le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("GET /registry/http:%2f%2f{other}/le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("POST /le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("DELETE /le/ft/left HTTP/1.1\r\nhost: {host}"),
        format!("OPTIONS * HTTP/1.1\r\nhost: {host}"),
    ] {
        let answer = larder
            .http()
            .raw(format!("{line}\r\nconnection: close\r\n\r\n").as_bytes());
        let answer = String::from_utf8_lossy(&answer);
        let refused = ["400", "404", "405", "421"]
            .iter()
            .any(|status| answer.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(refused, "{line}: {answer}");
    }
    assert_eq!(upstream.requests().len(), 0);
    // A host in a query or in a header has no effect.
    let asked = format!(
        "/le/ft/left?upstream={}&url={}&index={}",
        trap.url(),
        trap.url(),
        trap.url()
    );
    let headers = [
        ("x-forwarded-host", &*other),
        ("x-original-url", "/config.json"),
        ("forwarded", "host=evil.example"),
        ("referer", trap.base_url()),
    ];
    let reply = larder.get_with(&asked, &headers);
    assert!(reply.status == 200 && reply.body == upstream.index_body("left"));
    assert_eq!(trap.requests().len() + trap.connections(), 0);
    assert_eq!(upstream.requests()[0].path, "/index/le/ft/left");
}
