//! Limits of the system and of larder, reached under the built daemon (docs/limits.md).

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::disk::peak_memory;
use crate::fixture::site;
use testkit::larder::{Larder, Site};
use testkit::paths::{download, entry};
use testkit::process::wait_until;
use testkit::store::blob_path;

/// A larder whose user may have `threads` threads. It lives in `folder`. The system counts the threads of all processes
/// of `user`, so each test has a user that runs nothing else.
fn site_with_threads(upstream: &FakeUpstream, folder: &Path, user: u32, threads: usize) -> Site {
    let (program, store) = (folder.join("larder"), folder.join("store"));
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_larder"), &program).unwrap();
        fs::create_dir(&store).unwrap();
    }
    let limited = format!("prlimit --nproc={threads} \"$0\" \"$@\"");
    let prelude = if is_root() {
        chown(folder, Some(user), None).unwrap();
        chown(&store, Some(user), None).unwrap();
        format!("exec setpriv --reuid={user} --clear-groups {limited}")
    } else {
        // The threads of a new user namespace are counted by themselves.
        format!("exec unshare --user {limited}")
    };
    Site::new(program.to_str().unwrap(), &upstream.url())
        .store_in(&store)
        .shell_prelude(&prelude)
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

#[test]
fn daemon_with_few_threads_answers_every_request_and_survives() {
    let upstream = FakeUpstream::start();
    let names: Vec<_> = (0..8).map(|n| format!("left{n}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0").padding(300_000));
    }
    let folder = TempDir::new().unwrap();
    for threads in [7, 8, 9, 10, 12] {
        let site = site_with_threads(&upstream, folder.path(), 54_321, threads);
        let larder = site.serve(&[]);
        std::thread::scope(|scope| {
            for name in &names {
                let (larder, upstream) = (&larder, &upstream);
                scope.spawn(move || {
                    let reply = larder.get(&entry(name));
                    assert!(reply.body == upstream.index_body(name), "{}", reply.text());
                    let reply = larder.get(&download(name, "1.0.0"));
                    assert!(reply.complete && reply.body == upstream.body(name, "1.0.0"));
                });
            }
        });
        larder.wait_until_idle();
        let log = larder.stop();
        assert!(!log.contains("panicked"), "{threads} threads: {log}");
    }
}

#[test]
fn daemon_without_threads_says_so_and_ends() {
    let upstream = FakeUpstream::start();
    let folder = TempDir::new().unwrap();
    for threads in [1, 2] {
        let site = site_with_threads(&upstream, folder.path(), 54_322, threads);
        let output = site.command(&["serve", "--listen", "127.0.0.1:0"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{threads} threads: {text}");
        assert!(
            text.contains("threads") && text.contains("ulimit -u"),
            "{text}"
        );
        assert!(!text.contains("panicked"), "{text}");
    }
}

/// Opens connections on which nothing is sent.
fn idle_connections(larder: &Larder<'_>, count: usize) -> Vec<TcpStream> {
    let address = larder.http().address();
    (0..count)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect()
}

/// A larder that has `left` stored.
fn larder_with_left<'site>(site: &'site Site, arguments: &[&str]) -> Larder<'site> {
    let larder = site.serve(arguments);
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    larder
}

#[test]
fn idle_connections_do_not_delay_first_requests_where_few_files_may_be_open() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream).shell_prelude("ulimit -n 64");
    let larder = larder_with_left(&site, &[]);
    let idle = idle_connections(&larder, 150);
    for _ in 0..10 {
        let start = Instant::now();
        let reply = larder.get(&download("left", "1.0.0"));
        assert!(reply.complete && reply.body == upstream.body("left", "1.0.0"));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}\n{}", larder.log());
    }
    assert!(
        larder
            .get("/-/metrics")
            .text()
            .contains("larder_max_connections 32\n")
    );
    drop(idle);
}

/// Reads to the end of the connection.
fn rest(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// Requests `path` and reads the head of the answer, not the body.
fn stalled_download(larder: &Larder<'_>, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(larder.http().address()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

#[test]
fn longest_idle_connection_closes_for_a_new_one_and_busy_ones_stay() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("large", "1.0.0").padding(20_000_000));
    let site = site(&upstream);
    let larder = larder_with_left(&site, &["--max-connections", "3"]);
    assert!(larder.get(&download("large", "1.0.0")).complete);
    larder.wait_until_idle();

    let mut busy = stalled_download(&larder, &download("large", "1.0.0"));
    let mut idle = idle_connections(&larder, 1);
    wait_until("the idle connection waits", || {
        larder.status()["connections"]["open"] == 3
    });
    let closed_before = larder.status()["connections"]["limited"]["closed-idle"].clone();
    // With HTTP/2, the connection that is idle for longest then learns it by GOAWAY; with none, it is closed.
    let mut kept = larder.http().connect().unwrap();
    assert_eq!(kept.get("/-/health", &[]).unwrap().status, 200);
    let mut another = larder.http().connect().unwrap();
    assert_eq!(another.get("/-/health", &[]).unwrap().status, 200);
    assert_eq!(rest(&mut idle[0]), "");
    let closed = larder.status()["connections"]["limited"]["closed-idle"].clone();
    assert!(closed.as_u64() > closed_before.as_u64(), "{closed}");
    let body = upstream.body("large", "1.0.0");
    let mut text = vec![0; body.len()];
    busy.read_exact(&mut text).unwrap();
    assert!(
        larder
            .log()
            .contains("closed idle connections for new ones")
    );
}

#[test]
fn connection_beyond_the_limit_is_refused_with_its_name_while_all_are_busy() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("large", "1.0.0").padding(20_000_000));
    let site = site(&upstream);
    let larder = larder_with_left(&site, &["--max-connections", "2"]);
    assert!(larder.get(&download("large", "1.0.0")).complete);
    larder.wait_until_idle();
    let busy: Vec<_> = (0..2)
        .map(|_| stalled_download(&larder, &download("large", "1.0.0")))
        .collect();
    for _ in 0..5 {
        let reply = larder.get("/-/health");
        assert_eq!(reply.status, 503);
        let text = reply.text();
        assert_eq!(
            text,
            "all 2 connections are in use (setting `max-connections`)\n"
        );
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    let mut h2 = TcpStream::connect(larder.http().address()).unwrap();
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let goaway = rest(&mut h2);
    assert!(goaway.contains("setting `max-connections`"), "{goaway}");
    drop(busy);
    wait_until("there is a place again", || {
        larder.get("/-/health").status == 200
    });
    let refused = larder.status()["connections"]["limited"]["max-connections"].clone();
    assert!(refused.as_u64() >= Some(6), "{refused}");
    let log = larder.stop();
    assert_eq!(
        log.matches("refused connections or requests").count(),
        1,
        "{log}"
    );
}

#[test]
fn one_peer_cannot_take_the_connections_of_others() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("large", "1.0.0").padding(20_000_000));
    let site = site(&upstream);
    let larder = larder_with_left(&site, &["--max-connections-per-peer", "2"]);
    assert!(larder.get(&download("large", "1.0.0")).complete);
    // Polls of the status would take the places of this address.
    let stored = blob_path(&site, &upstream.checksum("large", "1.0.0"));
    wait_until("the crate is stored", || stored.exists());
    let mut busy: Vec<_> = (0..2)
        .map(|_| stalled_download(&larder, &download("large", "1.0.0")))
        .collect();
    let reply = larder.get("/-/health");
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.text(),
        "all 2 connections of this address are in use (setting `max-connections-per-peer`)\n"
    );
    // Another address of this machine.
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut other = runtime
        .block_on(other.connect(larder.http().address()))
        .unwrap()
        .into_std()
        .unwrap();
    other.set_nonblocking(false).unwrap();
    other
        .write_all(b"GET /-/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert!(rest(&mut other).starts_with("HTTP/1.1 200 "));
    busy.pop();
    wait_until("there is a place again", || {
        larder.get("/-/health").status == 200
    });
    // The connection of the request before may still count as one in use.
    wait_until("the metrics count the refusal", || {
        let metrics = larder.get("/-/metrics").text();
        metrics.contains("larder_limited_total{limit=\"max-connections-per-peer\"} ")
    });
}

#[test]
fn requests_over_http1_to_one_upstream_are_limited() {
    let upstream = FakeUpstream::builder()
        .delay(Duration::from_millis(30))
        .start();
    let names: Vec<_> = (0..12).map(|n| format!("left{n}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0").padding(300_000));
    }
    let site = site(&upstream);
    let larder = site.serve(&["--upstream-connections", "4"]);
    std::thread::scope(|scope| {
        for name in &names {
            let larder = &larder;
            scope.spawn(move || {
                assert_eq!(larder.get(&entry(name)).status, 200);
                assert!(larder.get(&download(name, "1.0.0")).complete);
            });
        }
    });
    assert_eq!(upstream.peak_in_flight(), 4);
}

#[test]
fn requests_to_upstream_keep_to_the_rate() {
    let upstream = FakeUpstream::start();
    let names: Vec<_> = (0..30).map(|n| format!("left{n}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let site = site(&upstream);
    let larder = site.serve(&["--upstream-rate", "10"]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for name in &names {
            let larder = &larder;
            scope.spawn(move || assert_eq!(larder.get(&entry(name)).status, 200));
        }
    });
    // Thirty requests, of which ten may go at once.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
}

#[test]
fn heads_beyond_the_limits_are_refused_with_the_limit() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let long = format!("/{}", "a".repeat(8 << 10));
    let reply = larder.get(&long);
    assert_eq!(reply.status, 414);
    assert_eq!(reply.text(), "the address has more than 8192 bytes\n");
    let reply = &larder.http().get_h2(&[&long])[0];
    let reply = reply.as_ref().unwrap();
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (414, "the address has more than 8192 bytes\n")
    );

    let fields: Vec<_> = (0..101).map(|n| format!("x-{n}")).collect();
    let fields: Vec<_> = fields.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(larder.get_with("/-/health", &fields).status, 431);
    assert_eq!(larder.get_with("/-/health", &fields[..90]).status, 200);
    let large = [("x-large", "a".repeat(70_000))];
    let large: Vec<_> = large
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(larder.get_with("/-/health", &large).status, 431);
    // Connections that hyper refuses are counted when they end.
    wait_until("all four are counted", || {
        larder.status()["connections"]["limited"]["request-head"] == 4
    });
}

/// Opens an HTTP/2 connection, requests `path` on many streams, and reads nothing.
fn stalled_streams(larder: &Larder<'_>, path: &str, streams: u32) -> TcpStream {
    let mut client = TcpStream::connect(larder.http().address()).unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let literal = |index: u8, value: &str| [&[index, value.len() as u8], value.as_bytes()].concat();
    // `:method: GET` and `:scheme: http` by index, the authority and the path as literals.
    let block = [
        &[0x82, 0x86][..],
        &literal(1, "localhost"),
        &literal(4, path),
    ]
    .concat();
    for stream in 0..streams {
        bytes.extend([0, 0, block.len() as u8, 1, 5]);
        bytes.extend((stream * 2 + 1).to_be_bytes());
        bytes.extend(&block);
    }
    client.write_all(&bytes).unwrap();
    client
}

#[test]
fn clients_that_read_nothing_take_little_memory_and_make_way_for_others() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("large", "1.0.0").padding(2_000_000));
    let site = site(&upstream);
    let larder = larder_with_left(&site, &["--max-requests", "1000"]);
    assert!(larder.get(&download("large", "1.0.0")).complete);
    larder.wait_until_idle();
    let before = peak_memory(&larder);
    let path = download("large", "1.0.0");
    let first_stalled = Instant::now();
    let stalled: Vec<_> = (0..12)
        .map(|_| stalled_streams(&larder, &path, 100))
        .collect();
    // All permits are taken by now or very soon; the stalled clients lose theirs after ten seconds.
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    let mut replies = 0;
    while start.elapsed() < Duration::from_secs(25) {
        let reply = larder.get(&download("left", "1.0.0"));
        if reply.status == 200 {
            replies += 1;
            break;
        }
        assert_eq!(reply.status, 503);
        assert_eq!(
            reply.text(),
            "all 1000 requests in flight are in use (setting `max-requests`)\n"
        );
    }
    assert_eq!(replies, 1, "{:?}", start.elapsed());
    let waited = first_stalled.elapsed();
    assert!(
        waited >= Duration::from_secs(10),
        "a permit was free: {waited:?}"
    );
    let taken = peak_memory(&larder) - before;
    // With pieces of 256 kB it is 256 MB.
    assert!(taken < 140 << 20, "{taken} bytes");
    drop(stalled);
}

#[test]
fn request_beyond_the_limit_waits_and_is_then_refused_with_its_name() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("slow", "1.0.0").padding(2_000_000));
    let site = site(&upstream);
    let larder = larder_with_left(&site, &["--max-requests", "2"]);
    let drip = Fault::Drip {
        bytes_per_second: 20_000,
    };
    upstream.fault(&crate_path("slow", "1.0.0"), drip);
    // Their clients take what there is, so neither connection may close.
    let busy = [0, 1].map(|_| stalled_download(&larder, &download("slow", "1.0.0")));
    assert_eq!(larder.get("/-/health").status, 200);
    let start = Instant::now();
    let reply = larder.get(&download("left", "1.0.0"));
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.text(),
        "all 2 requests in flight are in use (setting `max-requests`)\n"
    );
    assert!(start.elapsed() >= Duration::from_secs(10));
    drop(busy);
    assert_eq!(larder.get(&download("left", "1.0.0")).status, 200);
    assert_eq!(larder.status()["connections"]["limited"]["max-requests"], 1);
}

#[test]
fn burst_of_clients_waits_in_the_listen_queue_while_the_daemon_is_held_up() {
    const CLIENTS: usize = 1200;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["--max-connections", "1500"]);
    larder.signal("STOP");
    let address = larder.http().address();
    let clients: Vec<_> = (0..CLIENTS)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok())
        .collect();
    larder.signal("CONT");
    assert_eq!(clients.len(), CLIENTS);
    assert_eq!(larder.get("/-/health").status, 200);
}
