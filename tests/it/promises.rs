//! Promises of docs/promises.md that concern no single part: hostile clients, credentials, certificates, and what many
//! clients at once cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fake_upstream::{Builder, Crate, FakeUpstream, Fault, crate_path, entry_path};

use crate::fixture::{CA_FILE, site, site_at, tls_site, tls_upstream};
use testkit::http::Http;
use testkit::larder::{Larder, Site};
use testkit::lock_file::locked_project;
use testkit::paths::{download, entry};
use testkit::store::files;

/// Paths of every kind of answer.
const ROUTES: [&str; 8] = [
    "/",
    "/config.json",
    "/le/ft/left",
    "/crates/left/1.0.0/download",
    "/-/health",
    "/-/status.json",
    "/-/metrics",
    "/rustup-init.sh",
];

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(50_000));
    upstream
}

#[test]
fn an_offline_miss_is_answered_within_100_ms() {
    let site = site_at("http://upstream.example/index/");
    let larder = site.serve(&["--offline"]);
    let times = (0..20).map(|number| {
        let asked = Instant::now();
        let reply = larder.get(&entry(&format!("absent{number}")));
        assert_eq!(reply.status, 424);
        assert!(reply.text().contains("larder warm"), "{}", reply.text());
        asked.elapsed()
    });
    // The median, to tolerate a busy machine.
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn a_thousand_requests_over_h2_for_one_missing_crate_send_one_request_upstream() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let path = download("left", "1.0.0");
    let body = upstream.body("left", "1.0.0");
    let gate = upstream.gate(&crate_path("left", "1.0.0"));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| larder.http().get_h2(&[&*path; 100])))
            .collect();
        gate.wait_for(1);
        gate.open();
        for client in clients {
            for reply in client.join().unwrap() {
                let reply = reply.unwrap();
                assert!(reply.status == 200 && reply.complete && reply.body == body);
            }
        }
    });
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 1);
    assert_eq!(upstream.requests_for(&entry_path("left")), 1);
}

/// Nothing of a failed fetch is stored, so each client could start one of its own, or wait for all before it.
#[test]
fn clients_of_an_answer_that_is_not_stored_wait_for_one_fetch_together() {
    for fault in [None, Some(Fault::Status(500)), Some(Fault::LoginPage)] {
        let delay = Duration::from_millis(200);
        let upstream = FakeUpstream::builder()
            .delay(delay)
            .max_age(Some(0))
            .start();
        for name in ["left", "right"] {
            upstream.publish(Crate::new(name, "1.0.0"));
            if let Some(fault) = &fault {
                upstream.fault(&entry_path(name), fault.clone());
            }
        }
        let site = site(&upstream);
        let larder = site.serve(&["--max-age", "0s"]);
        let asked = Instant::now();
        larder.get(&entry("right"));
        let alone = asked.elapsed();
        let asked = Instant::now();
        let replies = larder.get_at_once(50, &entry("left"));
        let together = asked.elapsed();
        assert!(
            together < alone * 2 + delay,
            "{fault:?}: {together:?}, alone {alone:?}"
        );
        let requests =
            [entry_path("left"), entry_path("right")].map(|path| upstream.requests_for(&path));
        assert!(requests[0] <= requests[1] * 2, "{fault:?}: {requests:?}");
        for reply in replies {
            assert_eq!(reply.status == 200, fault.is_none(), "{fault:?}");
        }
    }
}

#[test]
fn a_web_page_can_neither_change_anything_nor_read_an_answer() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for path in ROUTES {
        larder.get(path);
    }
    larder.wait_until_idle();
    let before = files(&site.store().join("v1"));
    let page = [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "cors"),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-private-network", "true"),
    ];
    for path in ROUTES {
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE",
        ] {
            let reply = larder.http().request(method, path, &page);
            assert_eq!(reply.status, 405, "{method} {path}");
        }
        for method in ["GET", "HEAD"] {
            let reply = larder.http().request(method, path, &page);
            for (name, _) in &reply.headers {
                assert!(
                    !name.starts_with("access-control-"),
                    "{method} {path}: {name}"
                );
                assert_ne!(name, "set-cookie", "{method} {path}");
            }
        }
    }
    larder.wait_until_idle();
    assert!(files(&site.store().join("v1")) == before);
}

#[test]
fn text_of_clients_and_upstream_is_sent_as_text_that_no_browser_runs() {
    const MARKUP: &str = "<script>alert(1)</script>";
    let upstream = upstream();
    let page = format!("<html><body>{MARKUP}</body></html>");
    upstream.fault(&entry_path("broken"), Fault::StatusWithBody(500, page));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let mut paths: Vec<_> = ROUTES.iter().map(|&path| path.to_owned()).collect();
    paths.push(entry("broken"));
    for place in [
        "/MARKUP",
        "/crates/MARKUP/1.0.0/download",
        "/registry/MARKUP/config.json",
    ] {
        paths.push(place.replace("MARKUP", "%3Cscript%3Ealert(1)%3C%2Fscript%3E"));
        paths.push(place.replace("MARKUP", "%3Cscript%3E"));
    }
    for path in &paths {
        for host in ["localhost", "<script>", "evil.example"] {
            let reply = larder.http().request("GET", path, &[("host", host)]);
            let content_type = reply.header("content-type").unwrap_or_default();
            assert!(!content_type.contains("html"), "{path}: {content_type}");
            assert!(!content_type.contains("svg"), "{path}: {content_type}");
            assert!(!content_type.is_empty(), "{path}");
            if reply.header("cache-status").is_none() {
                let sniffing = reply.header("x-content-type-options");
                assert_eq!(sniffing, Some("nosniff"), "{path}");
            }
        }
    }
}

/// A secret that clients send, or that is part of a URL.
const MARKER: &str = "s3cr3t-marker";

/// Fails if the marker is anywhere where larder writes.
#[track_caller]
fn assert_marker_is_nowhere(larder: &Larder<'_>, site: &Site, upstream: &FakeUpstream) {
    for path in ["/-/status.json", "/-/metrics", "/", "/config.json"] {
        assert!(!larder.get(path).text().contains(MARKER), "{path}");
    }
    for request in upstream.requests() {
        assert!(!format!("{request:?}").contains(MARKER), "{request:?}");
    }
    for (path, content) in files(site.store()) {
        let content = String::from_utf8_lossy(&content);
        assert!(!content.contains(MARKER), "{}", path.display());
    }
    assert!(!larder.log().contains(MARKER), "{}", larder.log());
}

#[test]
fn credentials_of_clients_reach_neither_upstream_nor_the_log_nor_any_answer() {
    let upstream = upstream();
    let other = FakeUpstream::start();
    other.publish(Crate::new("left", "1.0.0"));
    upstream.fault(&entry_path("broken"), Fault::Status(500));
    let site = site(&upstream);
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("larder.toml");
    let text = format!("[registry.corp]\nindex = \"sparse+{}\"\n", other.url());
    std::fs::write(&settings, text).unwrap();
    let larder = site.serve(&["--config", settings.to_str().unwrap()]);
    let basic = format!("Basic {MARKER}");
    let headers = [
        ("authorization", MARKER),
        ("proxy-authorization", &basic),
        ("cookie", MARKER),
        ("x-api-key", MARKER),
        ("referer", &format!("http://localhost/{MARKER}")),
    ];
    let query = format!("?token={MARKER}");
    for path in [
        "/config.json",
        "/le/ft/left",
        "/crates/left/1.0.0/download",
        "/nothing",
        "/br/ok/broken",
    ] {
        for base in ["", "/registry/corp"] {
            let reply = larder.get_with(&format!("{base}{path}{query}"), &headers);
            assert!(!reply.text().contains(MARKER), "{path}: {}", reply.text());
        }
    }
    larder.wait_until_idle();
    assert_marker_is_nowhere(&larder, &site, &upstream);
    assert_marker_is_nowhere(&larder, &site, &other);
    assert!(!upstream.requests().is_empty() && !other.requests().is_empty());
}

/// The certificates that larder must not accept, and the authority that it trusts meanwhile.
fn untrusted(good: &FakeUpstream) -> [(&'static str, Builder, bool); 3] {
    let port = good.base_url().rsplit(':').next().unwrap();
    let port = port.trim_end_matches('/').parse().unwrap();
    let builder = || FakeUpstream::builder().port(port);
    [
        ("an unknown issuer", builder().tls(), false),
        ("an expired certificate", builder().tls_expired(), true),
        (
            "another host's certificate",
            builder().tls_name("other.example"),
            true,
        ),
    ]
}

#[test]
fn an_upstream_with_a_wrong_certificate_counts_as_down_and_is_never_asked() {
    let (good, folder) = tls_upstream();
    good.publish(Crate::new("left", "1.0.0"));
    let body = good.index_body("left");
    // Other programs switch verification off by these.
    let site = tls_site(&good, &folder)
        .variable("GIT_SSL_NO_VERIFY", "1")
        .variable("CARGO_HTTP_CHECK_REVOKE", "false")
        .variable("NODE_TLS_REJECT_UNAUTHORIZED", "0")
        .variable("PYTHONHTTPSVERIFY", "0");
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    larder.stop();
    let cases = untrusted(&good);
    drop(good);
    for (what, builder, is_issuer_known) in cases {
        let bad = builder.start();
        bad.publish(Crate::new("left", "1.0.0"));
        bad.publish(Crate::new("right", "1.0.0"));
        if is_issuer_known {
            std::fs::write(folder.path().join(CA_FILE), bad.ca_pem()).unwrap();
        }
        let larder = site.serve(&["--max-age", "0s"]);
        let reply = larder.get(&entry("left"));
        assert_eq!((reply.status, &*reply.body), (200, &*body), "{what}");
        let status = reply.header("cache-status").unwrap();
        assert!(status.contains("stale"), "{what}: {status}");
        let reply = larder.get(&entry("right"));
        let text = reply.text();
        assert!([424, 503].contains(&reply.status), "{what}: {text}");
        assert!(text.contains("certificate"), "{what}: {text}");
        assert_eq!(bad.requests().len(), 0, "{what}");
        larder.stop();
    }
}

/// Requests that a hostile client of a shared larder may try, by the number of the round.
fn hostile(http: &Http, round: usize) {
    let path = ["/le/ft/left", "/crates/left/1.0.0/download", "/config.json"][round % 3];
    let fields: [&[(&str, &str)]; 8] = [
        &[("range", "bytes=10-20")],
        &[("range", "bytes=0-1,5-6"), ("if-range", "\"x\"")],
        &[("if-none-match", "*")],
        &[
            ("x-forwarded-host", "evil.example"),
            ("x-original-url", "/ri/gh/right"),
        ],
        &[
            ("host", "host.docker.internal:1"),
            ("accept-encoding", "gzip, br"),
        ],
        &[
            ("cache-control", "no-store, no-cache"),
            ("pragma", "no-cache"),
        ],
        &[("x-http-method-override", "DELETE"), ("vary", "*")],
        &[("content-length", "5")],
    ];
    if round.is_multiple_of(5) {
        http.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx: y\r\n").as_bytes());
        return;
    }
    let method = if round % 5 == 1 { "HEAD" } else { "GET" };
    let path = format!("{path}?{round}");
    // A busy machine answers late, and this client does not mind.
    let sent = http.connect().and_then(|mut client| {
        client.send(method, &path, fields[round % 8])?;
        // Some leave in the middle of the answer.
        if round % 5 == 2 {
            Ok(())
        } else {
            client.receive().map(drop)
        }
    });
    drop(sent);
}

#[test]
fn a_hostile_client_changes_no_byte_that_another_client_gets() {
    let upstream = upstream();
    upstream.publish(Crate::new("right", "1.0.0").padding(2_000));
    for _ in 0..5 {
        let site = site(&upstream);
        let larder = site.serve(&["--max-age", "0s"]);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for start in 0..3 {
                let (larder, is_over) = (&larder, &is_over);
                scope.spawn(move || {
                    let http = larder.http().timeout(Duration::from_millis(300));
                    let mut round = start;
                    while !is_over.load(Ordering::Relaxed) {
                        hostile(&http, round);
                        round += 1;
                    }
                });
            }
            for _ in 0..60 {
                for name in ["left", "right"] {
                    let reply = larder.get(&entry(name));
                    assert_eq!(
                        (reply.status, &*reply.body),
                        (200, &*upstream.index_body(name))
                    );
                    let reply = larder.get(&download(name, "1.0.0"));
                    assert!(
                        reply.complete && reply.body == upstream.body(name, "1.0.0"),
                        "{name}"
                    );
                }
                let config = larder.get("/config.json").text();
                assert!(config.contains("127.0.0.1"), "{config}");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        larder.wait_until_idle();
        larder.stop();
        let verified = site.command(&["verify"]);
        assert!(verified.status.success(), "{verified:?}");
    }
}

#[test]
fn warm_sends_no_more_requests_at_once_than_its_jobs_and_waits_as_upstream_asks() {
    let upstream = FakeUpstream::builder()
        .delay(Duration::from_millis(20))
        .start();
    let names: Vec<_> = (0..60).map(|number| format!("many{number}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let folder = locked_project(&upstream, &names);
    let path = folder.path().join("Cargo.lock");
    upstream.fault_times(
        &entry_path("many7"),
        1,
        Fault::RetryAfter(429, "1".to_owned()),
    );
    let site = site(&upstream);
    let asked = Instant::now();
    // Index entries and crates have permits of their own.
    let warmed = site.command(&["warm", "--jobs", "4", path.to_str().unwrap()]);
    assert!(warmed.status.success(), "{warmed:?}");
    assert!(
        upstream.peak_in_flight() <= 8,
        "{}",
        upstream.peak_in_flight()
    );
    assert!(upstream.connections() <= 8, "{}", upstream.connections());
    assert_eq!(upstream.requests_for(&entry_path("many7")), 2);
    assert!(
        asked.elapsed() >= Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}
