//! Large bodies through the built daemon: ranges of arriving bodies, bad bodies shared by many clients, range
//! downloads, and stored bodies whose files change. The tests use toolchain components; crates take the same path.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use fake_upstream::{FakeUpstream, Fault, sha256};

use crate::fixture::site;
use testkit::http::Connection;
use testkit::larder::{Larder, Site};
use testkit::process::wait_until;
use testkit::store::{blob_path, blobs};

const COMPONENT: &str = "/dist/2026-04-16/rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz";
const MEGABYTE: usize = 1 << 20;

/// Bytes without repetition.
fn bytes(size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size + 8);
    let mut number = 0_u64;
    while body.len() < size {
        number += 1;
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        body.extend_from_slice(&mixed.to_le_bytes());
    }
    body.truncate(size);
    body
}

fn serve<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    let server = upstream.base_url().trim_end_matches('/').to_owned();
    let larder = site.serve(&["--dist-server", &server]);
    // larder now knows the component's hash, so that faults and counts concern only the component.
    assert_eq!(larder.get(&format!("{COMPONENT}.sha256")).status, 200);
    larder.wait_until_idle();
    upstream.forget_requests();
    larder
}

fn asked(larder: &Larder<'_>, headers: &[(&str, &str)]) -> Connection {
    let mut client = larder.http().connect().unwrap();
    client.send("GET", COMPONENT, headers).unwrap();
    client
}

/// See docs/client-behaviour.md R-04, H-04.
#[test]
fn ranges_of_an_arriving_component_are_streamed_as_it_arrives() {
    let upstream = FakeUpstream::start();
    let body = bytes(2 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    upstream.fault(
        COMPONENT,
        Fault::Drip {
            bytes_per_second: 2 << 20,
        },
    );
    let mut whole = asked(&larder, &[]);
    whole.wait_for_answer().unwrap();

    let size = body.len();
    let ours = format!("\"{}\"", sha256(&body));
    let check = |state: &str| {
        let wanted = [
            ("bytes=1000-", None, 206, 1000..size),
            ("bytes=1500000-", None, 206, 1_500_000..size),
            ("bytes=1000-1299999", None, 206, 1000..1_300_000),
            ("bytes=1000-1299999", Some(&*ours), 206, 1000..1_300_000),
            ("bytes=1000-1299999", Some("\"other\""), 200, 0..size),
            ("bytes=2097152-", None, 416, 0..0),
        ];
        let clients = wanted.clone().map(|(range, condition, ..)| {
            let mut headers = vec![("range", range)];
            headers.extend(condition.map(|tag| ("if-range", tag)));
            asked(&larder, &headers)
        });
        for (mut client, (range, condition, status, part)) in clients.into_iter().zip(wanted) {
            let reply = client.receive().unwrap();
            let what = format!("{state}: {range} if {condition:?}");
            assert_eq!((reply.status, reply.complete), (status, true), "{what}");
            assert!(reply.body == body[part.clone()], "{what}");
            let announced = match status {
                206 => Some(format!("bytes {}-{}/{size}", part.start, part.end - 1)),
                416 => Some(format!("bytes */{size}")),
                _ => None,
            };
            assert_eq!(
                reply.header("content-range"),
                announced.as_deref(),
                "{what}"
            );
            assert_eq!(reply.header("etag"), Some(&*ours), "{what}");
            if state == "arriving" && range == "bytes=1000-" {
                assert!(
                    reply.first_byte < Duration::from_millis(500),
                    "{what}: {:?}",
                    reply.first_byte
                );
            }
        }
    };
    check("arriving");
    let reply = whole.receive().unwrap();
    assert!(reply.complete && reply.body == body);
    larder.wait_until_idle();
    check("stored");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].header("range"), None);
}

/// See docs/client-behaviour.md R-04, H-04.
#[test]
fn range_of_a_body_with_unknown_size_gets_the_whole_body() {
    let upstream = FakeUpstream::start();
    let body = bytes(3 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    // The cut makes a pause in which the body is certainly still arriving.
    upstream.fault_times(COMPONENT, 1, Fault::CutChunked(2 << 20));
    let mut whole = asked(&larder, &[]);
    whole.wait_for_answer().unwrap();
    let reply = asked(&larder, &[("range", "bytes=1000-")])
        .receive()
        .unwrap();
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(reply.body == body);
    assert_eq!(
        (
            reply.header("content-range"),
            reply.header("content-length")
        ),
        (None, None)
    );
    let reply = whole.receive().unwrap();
    assert!(reply.complete && reply.body == body);
}

/// Several clients join the transfer of a bad body. None of them may receive it as complete.
#[track_caller]
fn check_bad(what: &str, faults: &[(usize, Fault)]) {
    let upstream = FakeUpstream::builder().bandwidth(6 << 20).start();
    let body = bytes(2 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    for (times, fault) in faults {
        upstream.fault_times(COMPONENT, *times, fault.clone());
    }
    let mut first = asked(&larder, &[]);
    first.wait_for_answer().unwrap();
    let ranges = [
        "bytes=1000-",
        "bytes=0-99999",
        "bytes=1900000-",
        "bytes=1000000-1000000",
    ];
    let others: Vec<_> = std::iter::repeat_n(&[][..], 3)
        .map(|headers| (asked(&larder, headers), 0..body.len()))
        .chain(ranges.map(|range| {
            let (start, end) = range["bytes=".len()..].split_once('-').unwrap();
            let end = end.parse().map_or(body.len(), |last: usize| last + 1);
            (
                asked(&larder, &[("range", range)]),
                start.parse().unwrap()..end,
            )
        }))
        .collect();
    let mut in_h2 = larder.http().get_h2(&[COMPONENT, COMPONENT]);
    let clients = std::iter::once((first, 0..body.len())).chain(others);
    for (mut client, part) in clients {
        let reply = client.receive().unwrap();
        assert!(
            matches!(reply.status, 200 | 206),
            "{what}: {}",
            reply.status
        );
        let length = reply
            .header("content-length")
            .map(|length| length.parse().unwrap());
        assert_eq!(length, Some(part.len()), "{what}: {part:?}");
        assert!(!reply.complete, "{what}: {part:?}");
        assert!(reply.body.len() < part.len(), "{what}: {part:?}");
    }
    for reply in in_h2.drain(..) {
        // Clients that came after the failure get an error text.
        assert!(
            reply.is_ok_and(|reply| !reply.complete || reply.status == 503),
            "{what}"
        );
    }
    wait_until("the refusal is in the log", || {
        larder.log().contains("aborted")
    });
    assert_eq!(blobs(&site).len(), 0, "{what}");

    upstream.clear_faults();
    let reply = larder.get(COMPONENT);
    assert_eq!((reply.status, reply.complete), (200, true), "{what}");
    assert!(reply.body == body, "{what}");
    larder.wait_until_idle();
    assert_eq!(blobs(&site).len(), 1, "{what}");
}

#[test]
fn large_body_with_one_wrong_byte_is_complete_for_no_client() {
    for at in [0, 1_500_000, u64::MAX] {
        check_bad(&format!("byte {at}"), &[(1, Fault::FlipByte(at))]);
    }
}

#[test]
fn large_body_that_is_cut_and_not_resumed_is_complete_for_no_client() {
    // The newest fault applies first: upstream refuses the request for the rest.
    check_bad(
        "cut",
        &[(9, Fault::Status(403)), (1, Fault::CutAfter(1_900_000))],
    );
}

#[test]
fn large_body_that_is_cut_is_resumed_and_complete_for_all_clients() {
    let upstream = FakeUpstream::builder().bandwidth(6 << 20).start();
    let body = bytes(2 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    upstream.fault_times(COMPONENT, 1, Fault::CutAfter(1_000_000));
    let mut first = asked(&larder, &[]);
    first.wait_for_answer().unwrap();
    let mut part = asked(&larder, &[("range", "bytes=700000-1699999")]);
    let mut second = asked(&larder, &[]);
    assert!(
        part.receive()
            .is_ok_and(|reply| reply.complete && reply.body == body[700_000..1_700_000])
    );
    for client in [&mut first, &mut second] {
        assert!(
            client
                .receive()
                .is_ok_and(|reply| reply.complete && reply.body == body)
        );
    }
    let ranges: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-".to_owned())]);
}

/// Number of requests for the component from its first byte.
fn whole_requests(upstream: &FakeUpstream) -> usize {
    let requests = upstream.requests();
    let from_the_beginning = requests
        .iter()
        .filter(|request| request.header("range").is_none());
    from_the_beginning.count()
}

/// The requested ranges of the component, sorted by their first byte.
fn ranges(upstream: &FakeUpstream) -> Vec<(usize, Option<usize>)> {
    let requests = upstream.requests();
    let ranges = requests.iter().filter_map(|request| {
        let (start, last) = request.header("range")?["bytes=".len()..].split_once('-')?;
        Some((start.parse().unwrap(), last.parse().ok()))
    });
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort();
    ranges
}

const DIVIDED: usize = 32 * MEGABYTE;
const QUARTER: usize = DIVIDED / 4;

/// A component large enough for range downloads, on an upstream with a low bandwidth per connection.
fn divided(builder: fake_upstream::Builder, megabytes: u64) -> (FakeUpstream, Vec<u8>) {
    let upstream = builder.connection_bandwidth(megabytes << 20).start();
    let body = bytes(DIVIDED);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    (upstream, body)
}

#[track_caller]
fn check_whole_and_kept(site: &Site, larder: &Larder<'_>, body: &[u8]) {
    let reply = larder.get(COMPONENT);
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(reply.body == body);
    larder.wait_until_idle();
    let stored = std::fs::read(blob_path(site, &sha256(body))).unwrap();
    assert!(stored == body);
}

#[test]
fn large_body_is_fetched_in_ranges_over_separate_connections() {
    for builder in [FakeUpstream::builder(), FakeUpstream::builder().tls()] {
        let (upstream, body) = divided(builder, 8);
        let folder = tempfile::TempDir::new().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, upstream.ca_pem()).unwrap();
        let mut site = site(&upstream);
        if !upstream.ca_pem().is_empty() {
            site = site.variable("LARDER_CA_FILE", ca_file.to_str().unwrap());
        }
        let larder = serve(&site, &upstream);
        let began = Instant::now();
        check_whole_and_kept(&site, &larder, &body);
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "{took:?}; one stream takes four seconds"
        );
        let parts = [1, 2, 3].map(|part| (part * QUARTER, Some((part + 1) * QUARTER - 1)));
        assert_eq!(
            (whole_requests(&upstream), ranges(&upstream)),
            (1, parts.to_vec())
        );
        let requests = upstream.requests();
        let connections: HashSet<_> = requests.iter().map(|request| request.connection).collect();
        assert_eq!(connections.len(), 4);
        let tag = format!("\"{}\"", &sha256(&body)[..32]);
        for part in requests
            .iter()
            .filter(|request| request.header("range").is_some())
        {
            assert_eq!(part.header("if-range"), Some(&*tag));
        }
    }
}

#[test]
fn body_without_range_support_upstream_is_fetched_in_one_stream() {
    let (upstream, body) = divided(FakeUpstream::builder(), 64);
    let without_parts = [
        // Failures of range requests, and answers that ignore the range.
        Fault::Status(503),
        Fault::Status(404),
        Fault::Stall,
        Fault::Gzip,
    ];
    for fault in without_parts {
        let site = site(&upstream);
        let larder = serve(&site, &upstream);
        upstream.fault(COMPONENT, Fault::OfRanges(Box::new(fault.clone())));
        check_whole_and_kept(&site, &larder, &body);
        upstream.clear_faults();
        assert_eq!(whole_requests(&upstream), 1, "{fault:?}");
        let ranges = ranges(&upstream);
        assert!(
            ranges.iter().all(|(_, last)| last.is_some()),
            "{fault:?}: {ranges:?}"
        );
    }
    // Without validators, larder cannot tell whether ranges belong to the same body.
    let (upstream, body) = divided(FakeUpstream::builder().validators(false), 64);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    check_whole_and_kept(&site, &larder, &body);
    assert_eq!((whole_requests(&upstream), ranges(&upstream).len()), (1, 0));
}

#[test]
fn ranges_of_a_body_that_changed_are_discarded() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let late = Fault::StallFor(Duration::from_millis(200));
    upstream.fault(COMPONENT, Fault::OfRanges(Box::new(late)));
    let mut client = asked(&larder, &[]);
    client.wait_for_answer().unwrap();
    wait_until("the parts are asked for", || ranges(&upstream).len() == 3);
    upstream.serve_static(COMPONENT, vec![7; DIVIDED], "application/x-xz");
    let reply = client.receive().unwrap();
    assert!(reply.complete && reply.body == body);
    assert_eq!((whole_requests(&upstream), ranges(&upstream).len()), (1, 3));
}

#[test]
fn cut_ranges_are_resumed_and_the_main_stream_fetches_the_rest() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let cut = |at| Fault::OfRanges(Box::new(Fault::CutAfter(at)));
    // Two attempts for each of three ranges.
    upstream.fault_times(COMPONENT, 6, cut(1_000_000));
    check_whole_and_kept(&site, &larder, &body);
    assert_eq!(whole_requests(&upstream), 1);
    let (parts, rests): (Vec<_>, Vec<_>) = ranges(&upstream)
        .into_iter()
        .partition(|(_, last)| last.is_some());
    let begin = |part: usize, piece: usize| part * QUARTER + piece * 1_000_000;
    let tries = [1, 2, 3].map(|part| [0, 1].map(|piece| begin(part, piece)));
    assert!(
        parts
            .iter()
            .map(|(start, _)| *start)
            .eq(tries.as_flattened().iter().copied()),
        "{parts:?}"
    );
    assert!(
        rests
            .iter()
            .map(|(start, _)| *start)
            .eq([1, 2, 3].map(|part| begin(part, 2))),
        "{rests:?}"
    );
}

#[test]
fn slow_range_is_fetched_by_the_main_stream_instead() {
    let (upstream, body) = divided(FakeUpstream::builder(), 64);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let drip = Fault::Drip {
        bytes_per_second: 200_000,
    };
    upstream.fault_times(COMPONENT, 1, Fault::OfRanges(Box::new(drip)));
    let began = Instant::now();
    check_whole_and_kept(&site, &larder, &body);
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "{took:?}; it takes 40 seconds"
    );
    assert_eq!(whole_requests(&upstream), 1);
}

#[test]
fn cut_main_stream_is_resumed_and_uses_the_ranges() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    upstream.fault_times(COMPONENT, 1, Fault::CutAfter(1_000_000));
    check_whole_and_kept(&site, &larder, &body);
    assert_eq!(whole_requests(&upstream), 1);
    let ranges = ranges(&upstream);
    assert_eq!((ranges.len(), ranges[0]), (4, (1_000_000, None)));
}

#[test]
fn body_made_wrong_by_ranges_is_refused_and_next_fetched_without_ranges() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let corrupt = Fault::OfRanges(Box::new(Fault::FlipByte(100_000)));
    upstream.fault(COMPONENT, corrupt);
    let mut joined = asked(&larder, &[("range", "bytes=1000-1999")]);
    for reply in [larder.get(COMPONENT), joined.receive().unwrap()] {
        assert!(
            matches!(reply.status, 200 | 206) && !reply.complete,
            "{}",
            reply.status
        );
    }
    wait_until("the refusal is in the log", || {
        larder.log().contains("nothing was stored")
    });
    assert_eq!((blobs(&site).len(), ranges(&upstream).len()), (0, 3));
    upstream.forget_requests();
    check_whole_and_kept(&site, &larder, &body);
    assert_eq!((whole_requests(&upstream), ranges(&upstream).len()), (1, 0));
}

#[test]
fn ranges_that_do_not_fit_on_disk_leave_the_body_to_the_main_stream() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    // In blocks of 512 bytes: the limit is in the middle of the second range.
    let site = site(&upstream).shell_prelude("ulimit -f 40000");
    let larder = serve(&site, &upstream);
    let reply = larder.get(COMPONENT);
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(reply.body == body);
    larder.wait_for_log("not stored");
    assert_eq!((blobs(&site).len(), whole_requests(&upstream)), (0, 1));
}

/// A larder that has stored the component.
fn storing<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    let larder = serve(site, upstream);
    assert!(larder.get(COMPONENT).complete);
    larder.wait_until_idle();
    upstream.forget_requests();
    larder
}

/// Reads an answer's body and compares it with `body`, chunk by chunk.
fn body_equals(client: &mut Connection, body: &[u8]) -> bool {
    let mut at = 0;
    let mut is_right = true;
    let reply = client.receive_chunks(&mut |piece| {
        is_right &= body.get(at..at + piece.len()) == Some(piece);
        at += piece.len();
    });
    is_right && at == body.len() && reply.is_ok_and(|reply| reply.complete)
}

#[test]
fn stored_component_is_served_whole_and_in_ranges_over_one_connection() {
    let upstream = FakeUpstream::start();
    let body = bytes(80 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = storing(&site, &upstream);
    let mut client = larder.http().connect().unwrap();
    let wanted = [
        ("bytes=0-", 0..body.len()),
        ("bytes=12345678-", 12_345_678..body.len()),
        ("bytes=999-50000000", 999..50_000_001),
        ("bytes=262144-524287", 262_144..524_288),
        ("bytes=262143-262143", 262_143..262_144),
        ("bytes=-300000", body.len() - 300_000..body.len()),
    ];
    for (range, part) in &wanted {
        client.send("GET", COMPONENT, &[("range", range)]).unwrap();
        assert!(body_equals(&mut client, &body[part.clone()]), "{range}");
        client.send("HEAD", COMPONENT, &[]).unwrap();
        let head = client.receive().unwrap();
        assert_eq!(head.header("content-length"), Some("83886080"));
        assert_eq!(client.get("/-/health", &[]).unwrap().text(), "ok\n");
    }
    // The next requests have arrived before an answer begins.
    for (range, _) in &wanted {
        client.send("GET", COMPONENT, &[("range", range)]).unwrap();
    }
    for (range, part) in &wanted {
        let is_right = body_equals(&mut client, &body[part.clone()]);
        assert!(is_right, "{range} after the earlier requests");
    }
    assert_eq!(upstream.requests_for(""), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn stored_component_outside_the_page_cache_is_served_complete() {
    let upstream = FakeUpstream::start();
    let body = bytes(24 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = storing(&site, &upstream);
    let blob = std::fs::File::open(blob_path(&site, &sha256(&body))).unwrap();
    let mut client = larder.http().connect().unwrap();
    // Evicts everything, then every other megabyte, as far as the kernel complies.
    let megabyte = std::num::NonZeroU64::new(MEGABYTE as u64);
    let parts = (0..24)
        .step_by(2)
        .map(|at| (at * MEGABYTE as u64, megabyte));
    for forgotten in [vec![(0, None)], parts.collect()] {
        blob.sync_all().unwrap();
        for (at, len) in forgotten {
            rustix::fs::fadvise(&blob, at, len, rustix::fs::Advice::DontNeed).unwrap();
        }
        client.send("GET", COMPONENT, &[]).unwrap();
        assert!(body_equals(&mut client, &body));
    }
}

#[test]
fn component_whose_file_is_removed_or_replaced_while_served_is_sent_completely() {
    let upstream = FakeUpstream::start();
    let body = bytes(24 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = storing(&site, &upstream);
    let blob = blob_path(&site, &sha256(&body));
    let other = blob.with_extension("other");
    std::fs::write(&other, &body[1..]).unwrap();
    let mut client = asked(&larder, &[]);
    client.wait_for_answer().unwrap();
    std::fs::rename(&other, &blob).unwrap();
    assert!(body_equals(&mut client, &body), "replaced");

    std::fs::write(&other, &body).unwrap();
    std::fs::rename(&other, &blob).unwrap();
    let mut client = asked(&larder, &[]);
    client.wait_for_answer().unwrap();
    std::fs::remove_file(&blob).unwrap();
    assert!(body_equals(&mut client, &body), "removed");
}

#[test]
fn component_whose_file_is_truncated_while_served_ends_incomplete() {
    let upstream = FakeUpstream::start();
    let body = bytes(32 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = storing(&site, &upstream);
    let mut client = asked(&larder, &[]);
    client.wait_for_answer().unwrap();
    let blob = blob_path(&site, &sha256(&body));
    let blob = std::fs::File::options().write(true).open(blob).unwrap();
    blob.set_len(24 << 20).unwrap();
    let reply = client.receive().unwrap();
    assert_eq!((reply.status, reply.complete), (200, false));
    assert!(reply.body.len() <= 24 << 20 && body.starts_with(&reply.body));
}

#[cfg(target_os = "linux")]
#[test]
fn disconnecting_clients_of_a_stored_component_leak_nothing() {
    let upstream = FakeUpstream::start();
    let body = bytes(24 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = storing(&site, &upstream);
    let sum = sha256(&body);
    let open = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", larder.process_id())).unwrap();
        files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .filter(|path| path.ends_with(&sum[2..]))
            .count()
    };
    let mut clients: Vec<_> = (0..20).map(|_| asked(&larder, &[])).collect();
    for client in &mut clients {
        client.wait_for_answer().unwrap();
    }
    assert_eq!(open(), 20);
    drop(clients);
    wait_until("no file is open for those who left", || open() == 0);
    assert!(body_equals(&mut asked(&larder, &[]), &body));
}

/// The daemon's peak resident memory in kB.
#[cfg(target_os = "linux")]
#[track_caller]
fn peak_memory(larder: &Larder<'_>) -> u64 {
    let status = format!("/proc/{}/status", larder.process_id());
    let status = std::fs::read_to_string(status).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn fifty_clients_of_a_large_component_need_little_memory_and_a_slow_one_delays_none() {
    const CLIENTS: usize = 50;
    let upstream = FakeUpstream::builder().bandwidth(60 << 20).start();
    let body = bytes(80 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let before = peak_memory(&larder);
    let check = |state: &str, headers: &[(&str, &str)], part: &[u8]| {
        let gate = upstream.gate(COMPONENT);
        let mut slowest = asked(&larder, headers);
        let clients: Vec<_> = (1..CLIENTS).map(|_| asked(&larder, headers)).collect();
        gate.open();
        slowest.wait_for_answer().unwrap();
        std::thread::scope(|scope| {
            let readers: Vec<_> = clients
                .into_iter()
                .map(|mut client| scope.spawn(move || body_equals(&mut client, part)))
                .collect();
            for reader in readers {
                assert!(reader.join().unwrap(), "{state}");
            }
        });
        larder.wait_until_idle();
        assert!(body_equals(&mut slowest, part), "{state}: the slowest");
        let peak = peak_memory(&larder);
        // The program's own pages count at first: 36 MB in a debug build.
        assert!(
            peak - before < 40 << 10,
            "{state}: {peak} kB, at first {before} kB"
        );
    };
    check("arriving", &[], &body);
    // Memory depends on the number of clients, not on the length of the range.
    check("stored", &[("range", "bytes=67108864-")], &body[64 << 20..]);
    assert_eq!(whole_requests(&upstream), 1);
}
