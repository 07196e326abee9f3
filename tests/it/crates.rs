//! Crates through the built daemon: verification, broken transfers, concurrent clients, ranges, redirects.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::thread;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, sha256};

use crate::fixture::{site, tls_site, tls_upstream};
use testkit::larder::{Larder, Site};
use testkit::paths::download;
use testkit::process::wait_until;
use testkit::store::{blob_path, blobs};

/// Size of a crate that larder streams to clients while it arrives.
const LARGE: usize = 300_000;

/// An upstream with a large `left 1.0.0`.
fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(LARGE));
    upstream
}

/// The download path with the checksum, which larder's `config.json` tells cargo to use.
fn checksum_download(upstream: &FakeUpstream, name: &str, version: &str) -> String {
    let sum = upstream.checksum(name, version);
    format!("/crates/{name}/{version}/{sum}/download")
}

/// Fails unless a client gets the right bytes, and the store has them.
#[track_caller]
fn check_served_and_stored(larder: &Larder<'_>, site: &Site, upstream: &FakeUpstream, name: &str) {
    let reply = larder.get(&download(name, "1.0.0"));
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    assert!(
        reply.complete && reply.body == upstream.body(name, "1.0.0"),
        "{name}"
    );
    larder.wait_until_idle();
    let stored = std::fs::read(blob_path(site, &upstream.checksum(name, "1.0.0"))).unwrap();
    assert!(stored == upstream.body(name, "1.0.0"), "{name}");
}

/// See docs/client-behaviour.md C-08.
#[test]
fn crate_with_a_content_coding_is_stored_and_served_decoded() {
    let upstream = upstream();
    upstream.publish(Crate::new("small", "1.0.0"));
    upstream.fault("/dl/", Fault::Gzip);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for name in ["left", "small"] {
        for _ in ["cold", "stored"] {
            let reply = larder.get_with(&download(name, "1.0.0"), &[("accept-encoding", "gzip")]);
            assert_eq!(
                (reply.status, reply.header("content-encoding")),
                (200, None),
                "{name}"
            );
            assert!(
                reply.complete && reply.body == upstream.body(name, "1.0.0"),
                "{name}"
            );
            larder.wait_until_idle();
        }
        let stored = std::fs::read(blob_path(&site, &upstream.checksum(name, "1.0.0"))).unwrap();
        assert!(stored == upstream.body(name, "1.0.0"), "{name}");
        assert_eq!(upstream.requests_for(&crate_path(name, "1.0.0")), 1);
    }
    let asked = upstream.requests();
    let asked = asked
        .iter()
        .find(|request| request.path.starts_with("/dl/"))
        .unwrap();
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
}

/// See docs/client-behaviour.md C-31, H-10.
#[test]
fn encoded_and_plain_plus_in_a_version_name_one_crate() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0+meta.1"));
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let sum = upstream.checksum("left", "1.0.0+meta.1");
    for version in ["1.0.0+meta.1", "1.0.0%2Bmeta.1", "1.0.0%2bmeta.1"] {
        for path in [
            download("left", version),
            format!("/crates/left/{version}/{sum}/download"),
        ] {
            let reply = larder.get(&path);
            assert_eq!(
                (reply.status, &*reply.body),
                (200, &*upstream.body("left", "1.0.0+meta.1")),
                "{path}"
            );
            larder.wait_until_idle();
        }
    }
    assert_eq!(larder.get(&download("left", "1.0.0%20meta.1")).status, 404);
    let asked = upstream.requests();
    let asked: Vec<_> = asked
        .iter()
        .map(|request| &*request.path)
        .filter(|path| path.starts_with("/dl/"))
        .collect();
    assert_eq!(asked, ["/dl/left/1.0.0+meta.1/download"]);
    assert_eq!(blobs(&site).len(), 1);
}

/// See docs/client-behaviour.md C-32, H-06.
#[test]
fn wrong_bytes_never_end_cleanly_and_are_never_stored() {
    let upstream = FakeUpstream::start();
    let left = Crate::new("left", "1.0.0").padding(LARGE);
    upstream.append_index_line("left", &left.index_line(&sha256(&left.archive())));
    upstream.publish_archive(&left.clone().file("src/lib.rs", "malice"));
    let path = download("left", "1.0.0");
    let site = site(&upstream);
    let larder = site.serve(&[]);
    // Slow enough that clients see bytes before the end. Over HTTP/1 the connection closes short of the length.
    let drip = Fault::Drip {
        bytes_per_second: 600_000,
    };
    upstream.fault_times("/dl/left", 1, drip.clone());
    let reply = larder.get(&path);
    assert_eq!((reply.status, reply.complete), (200, false));
    let length: usize = reply
        .header("content-length")
        .expect("a length")
        .parse()
        .unwrap();
    assert!(!reply.body.is_empty() && reply.body.len() < length);
    larder.wait_for_log("refused");
    // The next body is verified before the answer begins, so that cargo sees an error and not another aborted body.
    for fault in [Fault::NoLength, drip.clone()] {
        upstream.fault_times("/dl/left", 1, fault);
        let reply = larder.get(&path);
        assert_eq!((reply.status, reply.complete), (424, true));
    }
    assert_eq!(upstream.requests_for("/dl/left"), 3);
    // A new process knows nothing of that. Over HTTP/2 larder resets the stream.
    let larder = larder.restart(&[]);
    upstream.fault_times("/dl/left", 1, drip);
    let reply = larder.http().get_h2(&[&path]).remove(0).unwrap();
    assert_eq!((reply.status, reply.complete), (200, false));
    assert!(!reply.body.is_empty() && reply.body.len() < length);
    assert_eq!(blobs(&site).len(), 0);
    upstream.publish_archive(&left);
    check_served_and_stored(&larder, &site, &upstream, "left");
}

#[test]
fn one_wrong_byte_at_any_place_is_never_served_as_complete() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for at in [0, 1, 70_000, 150_000, LARGE as u64, u64::MAX] {
        upstream.fault_times("/dl/left", 1, Fault::FlipByte(at));
        let reply = larder.get(&download("left", "1.0.0"));
        match (reply.status, reply.complete) {
            (200, false) | (424, true) => {
                assert_eq!(blobs(&site).len(), 0, "byte {at}");
            }
            // The body arrived in one chunk that no client had seen, and the retry succeeded.
            (200, true) => {
                assert!(reply.body == upstream.body("left", "1.0.0"), "byte {at}");
                larder.wait_until_idle();
                std::fs::remove_file(&blobs(&site)[0]).unwrap();
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    check_served_and_stored(&larder, &site, &upstream, "left");
}

#[test]
fn wrong_bytes_that_no_client_has_seen_are_fetched_again() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let longer = "x".repeat(upstream.body("left", "1.0.0").len() + 500);
    upstream.fault_times("/dl/left", 1, Fault::StatusWithBody(200, longer));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get(&download("left", "1.0.0"));
    assert_eq!(
        (reply.status, &*reply.body),
        (200, &*upstream.body("left", "1.0.0"))
    );
    assert_eq!(upstream.requests_for("/dl/left"), 2);
    larder.wait_until_idle();
    // No bytes of the longer body remain after the right one.
    check_served_and_stored(&larder, &site, &upstream, "left");
    assert_eq!(upstream.requests_for("/dl/left"), 2);
}

/// Requests crates whose transfers are cut repeatedly, each at another tenth of the body. No answer ends cleanly and no
/// body is stored. After the faults end, everything can be fetched.
#[track_caller]
fn check_cuts(upstream: &FakeUpstream, site: &Site, faults: &[fn(u64) -> Fault]) {
    let mut names = Vec::new();
    for (framing, fault) in faults.iter().enumerate() {
        for tenth in 0..10 {
            let name = format!("cut-{framing}-{tenth}");
            upstream.publish(Crate::new(&name, "1.0.0").padding(LARGE / 2));
            let size = upstream.body(&name, "1.0.0").len() as u64;
            upstream.fault(&crate_path(&name, "1.0.0"), fault(size * tenth / 10));
            names.push(name);
        }
    }
    let larder = site.serve(&[]);
    assert_eq!(larder.get("/config.json").status, 200);
    larder.wait_until_idle();
    // All at once: several consecutive failures would open the circuit breaker.
    let gate = upstream.gate("/dl/");
    thread::scope(|scope| {
        let clients: Vec<_> = names
            .iter()
            .map(|name| {
                let larder = &larder;
                scope.spawn(move || larder.get(&checksum_download(upstream, name, "1.0.0")))
            })
            .collect();
        gate.wait_for(names.len());
        gate.open();
        for (name, client) in names.iter().zip(clients) {
            let reply = client.join().unwrap();
            assert!(
                matches!(reply.status, 424 | 503) || (reply.status == 200 && !reply.complete),
                "{name}: {} {}",
                reply.status,
                reply.complete
            );
            assert!(reply.body != upstream.body(name, "1.0.0"), "{name}");
        }
    });
    larder.wait_until_idle();
    assert_eq!(blobs(site), Vec::<std::path::PathBuf>::new());
    upstream.clear_faults();
    wait_until("the outage is over", || {
        larder.get(&download(&names[0], "1.0.0")).complete
            && !larder.get("/-/status.json").text().contains("since")
    });
    for name in &names {
        check_served_and_stored(&larder, site, upstream, name);
    }
}

/// See docs/client-behaviour.md H-06.
#[test]
fn cut_bodies_are_never_stored_with_any_framing() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let upstream = FakeUpstream::start();
            let http_1: [fn(u64) -> Fault; 3] =
                [Fault::CutAfter, Fault::CutChunked, Fault::CutUnframed];
            check_cuts(&upstream, &site(&upstream), &http_1);
        });
        scope.spawn(|| {
            let (upstream, folder) = tls_upstream();
            let site = tls_site(&upstream, &folder);
            check_cuts(&upstream, &site, &[Fault::CutAfter]);
            let asked = upstream.requests();
            assert!(asked.iter().all(|request| request.version == "HTTP/2"));
        });
    });
}

#[test]
fn body_cut_once_is_resumed_and_complete_for_the_client() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let faults: [fn(u64) -> Fault; 2] = [Fault::CutAfter, Fault::CutChunked];
    for (framing, fault) in faults.into_iter().enumerate() {
        for at in [1_000, 100_000, u64::MAX] {
            let name = format!("left-{framing}-{at}");
            upstream.publish(Crate::new(&name, "1.0.0").padding(LARGE));
            upstream.fault_times(&crate_path(&name, "1.0.0"), 1, fault(at));
            let reply = larder.get(&download(&name, "1.0.0"));
            assert!(
                reply.complete && reply.body == upstream.body(&name, "1.0.0"),
                "{name}"
            );
            let asked = upstream.requests();
            let asked: Vec<_> = asked
                .iter()
                .filter(|request| request.path == crate_path(&name, "1.0.0"))
                .collect();
            assert_eq!(asked.len(), 2, "{name}");
            let resumed = asked[1]
                .header("range")
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
            let from: u64 = resumed.expect("a range").parse().unwrap();
            assert!(from > 0 && from <= at, "{name}: {from}");
            check_served_and_stored(&larder, &site, &upstream, &name);
        }
    }
}

/// See docs/client-behaviour.md C-36, H-14.
#[test]
fn redirects_are_followed_only_to_configured_hosts() {
    let upstream = upstream();
    let other = FakeUpstream::start();
    other.serve_static(
        "/bucket/left",
        upstream.body("left", "1.0.0"),
        "application/gzip",
    );
    let host = other
        .base_url()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    upstream.fault(
        "/dl/left",
        Fault::Redirect(format!("{}bucket/left", other.base_url())),
    );
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get(&download("left", "1.0.0"));
    assert_eq!(reply.status, 424);
    assert!(
        reply.text().contains(&format!("`--redirect-host {host}`")),
        "{}",
        reply.text()
    );
    assert_eq!((other.requests().len(), blobs(&site).len()), (0, 0));

    let larder = larder.restart(&["--redirect-host", &host]);
    check_served_and_stored(&larder, &site, &upstream, "left");
    assert_eq!(other.requests().len(), 1);
    let asked = other.requests().remove(0);
    for secret in ["authorization", "cookie", "referer"] {
        assert_eq!(asked.header(secret), None);
    }
}

/// See docs/client-behaviour.md H-14.
#[test]
fn redirect_loops_and_endless_redirects_fail() {
    let upstream = FakeUpstream::start();
    for name in ["left", "right", "near"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    upstream.fault("/dl/left", Fault::RedirectLoop);
    for hop in 1..20 {
        let next = format!("/hop/{}/", hop + 1);
        upstream.fault(&format!("/hop/{hop}/"), Fault::Redirect(next));
    }
    upstream.fault("/dl/right", Fault::Redirect("/hop/1/".to_owned()));
    upstream.serve_static("/there", upstream.body("near", "1.0.0"), "application/gzip");
    upstream.fault("/dl/near", Fault::Redirect("/there".to_owned()));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for name in ["left", "right"] {
        let reply = larder.get(&download(name, "1.0.0"));
        assert_eq!(reply.status, 424, "{name}: {}", reply.text());
    }
    assert!(upstream.requests_for("/dl/left") <= 2);
    assert!(upstream.requests_for("/hop/") <= 5);
    check_served_and_stored(&larder, &site, &upstream, "near");
}

/// See docs/client-behaviour.md H-03.
#[test]
fn head_gives_the_headers_of_get_without_a_body() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let crate_path = download("left", "1.0.0");
    let cold = larder.http().request("HEAD", &crate_path, &[]);
    assert_eq!((cold.status, cold.body.len()), (200, 0));
    larder.wait_until_idle();
    for path in [
        "/config.json",
        "/le/ft/left",
        &crate_path,
        "/-/health",
        "/",
        "/no/ne/none",
        "/nothing",
        "/le/ft/wrong",
    ] {
        let http = larder.http();
        let mut connection = http.connect().unwrap();
        connection.send("GET", path, &[]).unwrap();
        let get = connection.receive().unwrap();
        connection.send("HEAD", path, &[]).unwrap();
        let head = connection.receive().unwrap();
        // The client would take body bytes for the head of the next answer.
        assert_eq!(
            connection.get("/-/health", &[]).unwrap().status,
            200,
            "{path}"
        );
        let without_date = |headers: &[(String, String)]| {
            let mut headers = headers.to_vec();
            headers.retain(|(name, _)| name != "date");
            headers
        };
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(
            without_date(&head.headers),
            without_date(&get.headers),
            "{path}"
        );
    }
    let tag = larder.get(&crate_path).header("etag").unwrap().to_owned();
    let reply = larder
        .http()
        .request("HEAD", &crate_path, &[("if-none-match", &tag)]);
    assert_eq!(reply.status, 304);
}

/// See docs/client-behaviour.md H-06.
#[test]
fn crate_fetched_without_a_length_is_served_with_one() {
    let upstream = upstream();
    upstream.fault("/dl/left", Fault::NoLength);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get(&download("left", "1.0.0"));
    assert!(reply.complete && reply.body == upstream.body("left", "1.0.0"));
    larder.wait_until_idle();
    let reply = larder.get(&download("left", "1.0.0"));
    let size = upstream.body("left", "1.0.0").len().to_string();
    assert_eq!(reply.header("content-length"), Some(&*size));
    assert!(reply.complete && reply.body == upstream.body("left", "1.0.0"));
}

/// Larder's own rule: docs/decisions/0010-single-flight.md.
#[test]
fn two_hundred_clients_of_one_missing_crate_send_one_request_upstream() {
    let upstream = upstream();
    let path = checksum_download(&upstream, "left", "1.0.0");
    for first_leaves in [false, true] {
        upstream.forget_requests();
        let site = site(&upstream);
        let larder = site.serve(&[]);
        let gate = upstream.gate("/dl/left");
        let mut clients: Vec<_> = (0..201).map(|_| larder.http().connect().unwrap()).collect();
        let mut first = clients.remove(0);
        first.send("GET", &path, &[]).unwrap();
        gate.wait_for(1);
        for client in &mut clients {
            client.send("GET", &path, &[]).unwrap();
        }
        if first_leaves {
            drop(first);
        }
        gate.open();
        for client in &mut clients {
            let reply = client.receive().unwrap();
            assert!(
                reply.status == 200
                    && reply.complete
                    && reply.body == upstream.body("left", "1.0.0")
            );
        }
        assert_eq!(upstream.requests_for("/dl/left"), 1);
    }
}

/// Larder's own rule: docs/decisions/0010-single-flight.md.
#[test]
fn fetch_continues_after_its_clients_disconnect() {
    let upstream = upstream();
    let path = checksum_download(&upstream, "left", "1.0.0");
    let drip = Fault::Drip {
        bytes_per_second: 500_000,
    };
    upstream.fault("/dl/left", drip);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let mut leaving = larder.http().connect().unwrap();
    let mut staying = larder.http().connect().unwrap();
    for client in [&mut leaving, &mut staying] {
        client.send("GET", &path, &[]).unwrap();
        client.wait_for_answer().unwrap();
    }
    drop(leaving);
    let reply = staying.receive().unwrap();
    assert!(reply.complete && reply.body == upstream.body("left", "1.0.0"));

    upstream.publish(Crate::new("right", "1.0.0").padding(LARGE));
    upstream.fault(
        "/dl/right",
        Fault::Drip {
            bytes_per_second: 500_000,
        },
    );
    let mut leaving = larder.http().connect().unwrap();
    leaving
        .send("GET", &checksum_download(&upstream, "right", "1.0.0"), &[])
        .unwrap();
    leaving.wait_for_answer().unwrap();
    drop(leaving);
    wait_until("the fetch is finished", || blobs(&site).len() == 2);
    check_served_and_stored(&larder, &site, &upstream, "right");
    assert_eq!(upstream.requests_for("/dl/"), 2);
}

/// Larder's own rule: docs/decisions/0004-verified-bytes.md.
#[test]
fn crate_is_streamed_to_the_client_while_it_arrives() {
    let upstream = upstream();
    upstream.fault(
        "/dl/left",
        Fault::Drip {
            bytes_per_second: 200_000,
        },
    );
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let asked = Instant::now();
    let reply = larder.get(&checksum_download(&upstream, "left", "1.0.0"));
    assert!(reply.complete && reply.body == upstream.body("left", "1.0.0"));
    let all = asked.elapsed();
    assert!(
        all > Duration::from_millis(1400) && reply.first_byte < all / 2,
        "{:?} of {all:?}",
        reply.first_byte
    );
}

/// The expected answer to a range of a body with `size` bytes (RFC 9110, 14): status and part.
fn expected_range(range: &str, size: usize) -> (u16, std::ops::Range<usize>) {
    match range {
        "bytes=0-" | "bytes=0-99999999" | "bytes=-99999999" => (206, 0..size),
        "bytes=100000-" => (206, 100_000..size),
        "bytes=0-0" => (206, 0..1),
        "bytes=1000-1999" => (206, 1000..2000),
        "bytes=-500" => (206, size - 500..size),
        "bytes=99999999-" | "bytes=-0" => (416, 0..0),
        // Several ranges, other units and invalid ranges get the whole body.
        _ => (200, 0..size),
    }
}

/// See docs/client-behaviour.md H-04.
#[test]
fn ranges_are_right_for_stored_and_for_arriving_crates() {
    let upstream = upstream();
    let path = checksum_download(&upstream, "left", "1.0.0");
    let body = upstream.body("left", "1.0.0");
    upstream.fault(
        "/dl/left",
        Fault::Drip {
            bytes_per_second: 200_000,
        },
    );
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let mut whole = larder.http().connect().unwrap();
    whole.send("GET", &path, &[]).unwrap();
    whole.wait_for_answer().unwrap();

    let tag = format!("\"{}\"", upstream.checksum("left", "1.0.0"));
    let check = |state: &str| {
        let ranges = [
            "bytes=0-",
            "bytes=0-99999999",
            "bytes=-99999999",
            "bytes=100000-",
            "bytes=0-0",
            "bytes=1000-1999",
            "bytes=-500",
            "bytes=99999999-",
            "bytes=-0",
            "bytes=0-1,5-6",
            "lines=1-2",
            "bytes=9-3",
            "bytes=x-",
        ];
        // All at once, so that the requests are in flight while the body arrives.
        let clients: Vec<_> = ranges
            .iter()
            .flat_map(|range| {
                [
                    None,
                    Some((&*tag, true)),
                    Some(("\"old\"", false)),
                    Some(("W/\"old\"", false)),
                ]
                .map(|condition| {
                    let mut client = larder.http().connect().unwrap();
                    let mut headers = vec![("range", *range)];
                    headers.extend(condition.map(|(tag, _)| ("if-range", tag)));
                    client.send("GET", &path, &headers).unwrap();
                    (client, *range, condition.is_none_or(|(_, holds)| holds))
                })
            })
            .collect();
        for (mut client, range, holds) in clients {
            let reply = client.receive().unwrap();
            let (status, part) = match expected_range(range, body.len()) {
                _ if !holds => (200, 0..body.len()),
                expected_range => expected_range,
            };
            assert_eq!(
                (reply.status, reply.complete),
                (status, true),
                "{state}: {range}"
            );
            assert!(reply.body == body[part.clone()], "{state}: {range}");
            assert_eq!(
                reply.header("content-length"),
                Some(&*part.len().to_string()),
                "{state}: {range}"
            );
            let announced = match status {
                206 => Some(format!(
                    "bytes {}-{}/{}",
                    part.start,
                    part.end - 1,
                    body.len()
                )),
                416 => Some(format!("bytes */{}", body.len())),
                _ => None,
            };
            assert_eq!(
                reply.header("content-range"),
                announced.as_deref(),
                "{state}: {range}"
            );
        }
    };
    check("arriving");
    let reply = whole.receive().unwrap();
    assert!(reply.complete && reply.body == body);
    larder.wait_until_idle();
    check("there");
    assert_eq!(upstream.requests_for("/dl/left"), 1);
}
