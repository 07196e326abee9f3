//! Gates, delays, the record, and the ways in which a server goes away and comes back.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, entry_path};

use crate::with_left;
use testkit::http::Http;
use testkit::process::announced_url;

#[test]
fn gated_requests_are_recorded_and_wait() {
    let (upstream, http) = with_left();
    let gate = upstream.gate("left");
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let http = http.clone();
            std::thread::spawn(move || http.get(&entry_path("left")).status)
        })
        .collect();
    gate.wait_for(3);
    assert_eq!((gate.waiting(), upstream.requests_for("left")), (3, 3));
    assert_eq!((upstream.in_flight(), upstream.peak_in_flight()), (3, 3));
    assert_eq!(http.get("/index/config.json").status, 200);
    // Decided after the gate.
    upstream.fault("left", Fault::Status(418));
    gate.open();
    for client in clients {
        assert_eq!(client.join().unwrap(), 418);
    }
    assert_eq!(gate.waiting(), 0);
    while upstream.in_flight() > 0 {
        std::thread::yield_now();
    }
    upstream.reset_peak();
    http.get(&entry_path("left"));
    assert_eq!(upstream.peak_in_flight(), 1);
}

#[tokio::test]
async fn gate_can_be_awaited_and_opens_when_dropped() {
    let (upstream, http) = with_left();
    let gate = upstream.gate("left");
    let client = tokio::task::spawn_blocking(move || http.get(&entry_path("left")).status);
    gate.wait_for_async(1).await;
    drop(gate);
    assert_eq!(client.await.unwrap(), 200);
}

#[test]
fn requests_are_recorded_with_their_headers_and_connections() {
    let (upstream, http) = with_left();
    let before = Instant::now();
    let mut connection = http.connect().unwrap();
    connection
        .get("/index/config.json", &[("User-Agent", "me")])
        .unwrap();
    connection
        .get("/nothing?q=1", &[("X-Two", "a"), ("x-two", "b")])
        .unwrap();
    http.get("/other");
    let requests = upstream.requests();
    let seen: Vec<(&str, &str, u64)> = requests
        .iter()
        .map(|request| {
            (
                request.method.as_str(),
                request.path.as_str(),
                request.connection,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", "/index/config.json", 1),
            ("GET", "/nothing?q=1", 1),
            ("GET", "/other", 2)
        ]
    );
    assert_eq!(requests[0].header("user-agent"), Some("me"));
    assert_eq!(requests[1].header("x-two"), Some("a, b"));
    assert_eq!(requests[0].version, "HTTP/1.1");
    assert!(requests[0].at >= before);
    assert_eq!(upstream.connections(), 2);
    upstream.forget_requests();
    assert_eq!(upstream.requests_for(""), 0);
}

#[test]
fn delay_is_shared_by_concurrent_streams() {
    let upstream = FakeUpstream::builder()
        .delay(Duration::from_millis(100))
        .start();
    let path = "/index/config.json";
    let start = Instant::now();
    let replies = Http::to(upstream.base_url()).get_h2(&[path; 50]);
    let took = start.elapsed();
    assert!(
        replies
            .into_iter()
            .all(|reply| reply.unwrap().status == 200)
    );
    assert!(
        took >= Duration::from_millis(100) && took < Duration::from_secs(2),
        "{took:?}"
    );
    assert_eq!((upstream.peak_in_flight(), upstream.connections()), (50, 1));
}

#[test]
fn bandwidth_is_shared_by_connections() {
    let upstream = FakeUpstream::builder().bandwidth(400_000).start();
    upstream.serve_static("/big", vec![7; 50_000], "text/plain");
    let start = Instant::now();
    let replies = Http::to(upstream.base_url()).get_at_once(4, "/big");
    let took = start.elapsed();
    assert!(
        replies
            .iter()
            .all(|reply| reply.complete && reply.body.len() == 50_000)
    );
    assert!(took >= Duration::from_millis(490), "{took:?}");
}

#[test]
fn connection_has_a_bandwidth_of_its_own() {
    let upstream = FakeUpstream::builder()
        .connection_bandwidth(400_000)
        .start();
    upstream.serve_static("/big", vec![7; 100_000], "text/plain");
    let start = Instant::now();
    let replies = Http::to(upstream.base_url()).get_at_once(4, "/big");
    let took = start.elapsed();
    assert!(replies.iter().all(|reply| reply.complete));
    assert!(
        took >= Duration::from_millis(220) && took < Duration::from_millis(750),
        "{took:?}"
    );
}

#[test]
fn max_age_and_missing_validators_show_in_the_headers() {
    let upstream = FakeUpstream::builder()
        .validators(false)
        .max_age(Some(600))
        .start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let http = Http::to(upstream.base_url());
    let entry = http.get(&entry_path("left"));
    assert_eq!(entry.header("etag"), None);
    assert_eq!(entry.header("cache-control"), Some("public,max-age=600"));
    let archive = http.get(&crate_path("left", "1.0.0"));
    assert_eq!(
        archive.header("cache-control"),
        Some("public,max-age=31536000,immutable")
    );
}

#[test]
fn stopped_server_refuses_dials_and_drops_connections() {
    let (upstream, http) = with_left();
    let mut connection = http.connect().unwrap();
    connection.get("/index/config.json", &[]).unwrap();
    upstream.stop();
    assert!(connection.get("/index/config.json", &[]).is_err());
    let refused = http.try_get("/index/config.json", &[]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    upstream.stop();
    upstream.restart();
    assert_eq!(
        http.get(&entry_path("left")).body,
        upstream.index_body("left")
    );
    upstream.restart();
    assert_eq!(http.get("/index/config.json").status, 200);
}

#[test]
fn black_hole_answers_neither_dials_nor_connections_until_revived() {
    let (upstream, http) = with_left();
    let patient = http.clone().timeout(Duration::from_millis(200));
    let mut connection = patient.connect().unwrap();
    connection.get("/index/config.json", &[]).unwrap();
    let accepted = upstream.connections();

    upstream.black_hole();
    let silent = connection.get("/index/config.json", &[]).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::WouldBlock);
    for _ in 0..3 {
        assert_eq!(patient.connect().unwrap_err().kind(), ErrorKind::TimedOut);
    }
    assert_eq!(upstream.requests_for(""), 1);

    upstream.revive();
    assert_eq!(http.get("/index/config.json").status, 200);
    assert_eq!(upstream.connections(), accepted + 1);
    // A second time, ended by a stop.
    upstream.black_hole();
    assert_eq!(patient.connect().unwrap_err().kind(), ErrorKind::TimedOut);
    upstream.stop();
    assert_eq!(
        patient.connect().unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    upstream.restart();
    assert_eq!(http.get("/index/config.json").status, 200);
}

#[test]
fn port_is_free_again_when_the_last_handle_is_gone() {
    let (upstream, http) = with_left();
    let copy = upstream.clone();
    drop(upstream);
    assert_eq!(http.get("/index/config.json").status, 200);
    drop(copy);
    let refused = http.try_get("/index/config.json", &[]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn announced_address_is_found_among_other_lines() {
    let time_limit = Duration::from_secs(5);
    let said: &[u8] = b"hello\nlistening on http://127.0.0.1:1/\nmore\n";
    assert_eq!(
        announced_url(said, time_limit).unwrap(),
        "http://127.0.0.1:1/"
    );
    let said: &[u8] = b"not listening on anything\n";
    assert_eq!(
        announced_url(said, time_limit).unwrap_err(),
        "ended without `listening on `"
    );
}
