//! Large bodies through the built daemon: ranges of what is still arriving, bodies that turn out bad when many clients
//! have most of them, and stored ones, whatever happens to their files meanwhile. Components of toolchains stand for all;
//! crates take the same way.

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

/// Bytes of which no two pieces are alike.
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
    // From here on the component's hash is known, and faults and counts are about the component alone.
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

#[test]
fn t46_ranges_of_a_component_that_is_still_arriving_are_parts_of_it_as_it_arrives() {
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

#[test]
fn t46_a_range_of_a_body_whose_size_upstream_has_not_told_gets_the_whole() {
    let upstream = FakeUpstream::start();
    let body = bytes(3 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    // Cut, so that there is a pause in which it is surely arriving.
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

/// Several clients join the transfer of a body that turns out bad. None of them may take what it has for all.
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
        // Who came when all was over was told so in words.
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
fn a_large_body_with_one_wrong_byte_is_whole_for_none_of_those_who_joined() {
    for at in [0, 1_500_000, u64::MAX] {
        check_bad(&format!("byte {at}"), &[(1, Fault::FlipByte(at))]);
    }
}

#[test]
fn a_large_body_that_is_cut_and_not_resumed_is_whole_for_none_of_those_who_joined() {
    // The newest fault comes first: the rest, when it is asked for, is refused.
    check_bad(
        "cut",
        &[(9, Fault::Status(403)), (1, Fault::CutAfter(1_900_000))],
    );
}

#[test]
fn a_large_body_that_is_cut_is_resumed_and_whole_for_all_who_joined() {
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

/// How often the component was asked for from its beginning.
fn whole_requests(upstream: &FakeUpstream) -> usize {
    let requests = upstream.requests();
    let from_the_beginning = requests
        .iter()
        .filter(|request| request.header("range").is_none());
    from_the_beginning.count()
}

/// The ranges of it that were asked for, in order of their beginnings.
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

/// A component that is large enough to be fetched in parts, from an upstream that is slow on each connection.
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
fn a_large_body_is_fetched_in_parts_over_connections_of_their_own() {
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
fn what_upstream_gives_no_parts_of_comes_in_one_stream() {
    let (upstream, body) = divided(FakeUpstream::builder(), 64);
    let without_parts = [
        // Trouble, and no range at all.
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
    // Nothing to know the same body by.
    let (upstream, body) = divided(FakeUpstream::builder().validators(false), 64);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    check_whole_and_kept(&site, &larder, &body);
    assert_eq!((whole_requests(&upstream), ranges(&upstream).len()), (1, 0));
}

#[test]
fn parts_of_what_has_changed_meanwhile_are_not_taken() {
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
fn parts_that_are_cut_are_resumed_and_what_they_lack_is_fetched_from_the_front() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let cut = |at| Fault::OfRanges(Box::new(Fault::CutAfter(at)));
    // Two attempts for each of three parts.
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
fn a_part_that_is_much_slower_than_the_others_is_not_waited_for() {
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
fn a_front_that_is_cut_is_resumed_and_uses_the_parts_all_the_same() {
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
fn a_whole_made_wrong_by_its_parts_is_refused_and_next_time_there_are_none() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let lie = Fault::OfRanges(Box::new(Fault::FlipByte(100_000)));
    upstream.fault(COMPONENT, lie);
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
fn parts_that_find_no_room_on_the_disk_leave_it_to_the_front() {
    let (upstream, body) = divided(FakeUpstream::builder(), 16);
    // In blocks of 512 bytes: in the middle of the second part.
    let site = site(&upstream).shell_prelude("ulimit -f 40000");
    let larder = serve(&site, &upstream);
    let reply = larder.get(COMPONENT);
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(reply.body == body);
    larder.wait_for_log("not stored");
    assert_eq!((blobs(&site).len(), whole_requests(&upstream)), (0, 1));
}

/// A larder that holds the component.
fn storing<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    let larder = serve(site, upstream);
    assert!(larder.get(COMPONENT).complete);
    larder.wait_until_idle();
    upstream.forget_requests();
    larder
}

/// Reads the rest of an answer and compares it with what it should be, without holding it.
fn brings(client: &mut Connection, body: &[u8]) -> bool {
    let mut at = 0;
    let mut is_right = true;
    let reply = client.receive_chunks(&mut |piece| {
        is_right &= body.get(at..at + piece.len()) == Some(piece);
        at += piece.len();
    });
    is_right && at == body.len() && reply.is_ok_and(|reply| reply.complete)
}

#[test]
fn a_stored_component_comes_whole_and_in_parts_time_and_again_over_one_connection() {
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
        assert!(brings(&mut client, &body[part.clone()]), "{range}");
        client.send("HEAD", COMPONENT, &[]).unwrap();
        let head = client.receive().unwrap();
        assert_eq!(head.header("content-length"), Some("83886080"));
        assert_eq!(client.get("/-/health", &[]).unwrap().text(), "ok\n");
    }
    // The next requests are there already when an answer begins.
    for (range, _) in &wanted {
        client.send("GET", COMPONENT, &[("range", range)]).unwrap();
    }
    for (range, part) in &wanted {
        let is_right = brings(&mut client, &body[part.clone()]);
        assert!(is_right, "{range} after what was asked for before");
    }
    assert_eq!(upstream.requests_for(""), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stored_component_that_must_come_from_the_disk_comes_whole() {
    let upstream = FakeUpstream::start();
    let body = bytes(24 * MEGABYTE);
    upstream.serve_static(COMPONENT, body.clone(), "application/x-xz");
    let site = site(&upstream);
    let larder = storing(&site, &upstream);
    let blob = std::fs::File::open(blob_path(&site, &sha256(&body))).unwrap();
    let mut client = larder.http().connect().unwrap();
    // The whole, then every other megabyte, as far as the system obliges.
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
        assert!(brings(&mut client, &body));
    }
}

#[test]
fn a_component_that_is_removed_or_replaced_on_its_way_to_a_client_is_sent_to_its_end() {
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
    assert!(brings(&mut client, &body), "replaced");

    std::fs::write(&other, &body).unwrap();
    std::fs::rename(&other, &blob).unwrap();
    let mut client = asked(&larder, &[]);
    client.wait_for_answer().unwrap();
    std::fs::remove_file(&blob).unwrap();
    assert!(brings(&mut client, &body), "removed");
}

#[test]
fn a_component_that_is_cut_on_its_way_to_a_client_breaks_off() {
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
fn clients_that_leave_in_the_middle_of_a_stored_component_leave_nothing_behind() {
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
    assert!(brings(&mut asked(&larder, &[]), &body));
}

/// The highest memory that the daemon has had so far, in kB.
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
fn fifty_clients_of_a_large_component_cost_little_memory_and_the_slowest_holds_up_nobody() {
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
                .map(|mut client| scope.spawn(move || brings(&mut client, part)))
                .collect();
            for reader in readers {
                assert!(reader.join().unwrap(), "{state}");
            }
        });
        larder.wait_until_idle();
        assert!(brings(&mut slowest, part), "{state}: the slowest");
        let peak = peak_memory(&larder);
        assert!(peak < 64 << 10, "{state}: {peak} kB, at first {before} kB");
    };
    check("arriving", &[], &body);
    // Memory is a matter of how many, not of how long.
    check("stored", &[("range", "bytes=67108864-")], &body[64 << 20..]);
    assert_eq!(whole_requests(&upstream), 1);
}
