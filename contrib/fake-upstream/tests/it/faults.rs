//! Each fault as a raw client sees it, over HTTP/1 and, for broken streams, over HTTP/2.

use std::io::Read as _;
use std::time::Duration;

use fake_upstream::{FakeUpstream, Fault, crate_path, entry_path, sha256};

use crate::with_left;
use testkit::http::{Http, Reply};

/// The answer to a request for the archive of `left` with this fault.
#[track_caller]
fn left_under(fault: Fault) -> (FakeUpstream, Reply) {
    let (upstream, http) = with_left();
    upstream.fault("/dl/left", fault);
    let reply = http.get(&left());
    (upstream, reply)
}

fn left() -> String {
    crate_path("left", "1.0.0")
}

#[test]
fn crate_without_fault_is_complete_and_matches_its_index_line() {
    let (upstream, http) = with_left();
    let reply = http.get(&left());
    assert_eq!((reply.status, reply.complete), (200, true));
    assert_eq!(reply.body, upstream.body("left", "1.0.0"));
    let entry = http.get(&entry_path("left")).text();
    assert!(entry.contains(&sha256(&reply.body)), "{entry}");
}

#[test]
fn cut_with_length_sends_exactly_the_given_bytes() {
    for percent in (0..=100).step_by(10) {
        let (upstream, http) = with_left();
        let body = upstream.body("left", "1.0.0");
        let count = body.len() * percent / 100;
        upstream.fault("/dl/left", Fault::CutAfter(count as u64));
        let reply = http.get(&left());
        assert_eq!(
            reply.header("content-length"),
            Some(body.len().to_string().as_str())
        );
        assert_eq!(reply.body, body[..count.min(body.len() - 1)]);
        assert!(!reply.complete);
    }
}

#[test]
fn cut_chunked_body_has_no_last_chunk() {
    let (upstream, reply) = left_under(Fault::CutChunked(5_000));
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.body, upstream.body("left", "1.0.0")[..5_000]);
    assert!(!reply.complete);
}

#[test]
fn cut_unframed_body_looks_complete() {
    let (upstream, reply) = left_under(Fault::CutUnframed(5_000));
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.body, upstream.body("left", "1.0.0")[..5_000]);
    assert!(reply.complete);
}

#[test]
fn wrong_length_announces_one_byte_less_than_it_sends() {
    let (upstream, http) = with_left();
    upstream.fault("/dl/left", Fault::WrongLength);
    let body = upstream.body("left", "1.0.0");
    let received = http.raw(format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", left()).as_bytes());
    assert!(received.ends_with(&body));
    let head = String::from_utf8_lossy(&received[..received.len() - body.len()]);
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len() - 1)),
        "{head}"
    );
}

#[test]
fn flipped_byte_is_the_only_difference() {
    let (upstream, reply) = left_under(Fault::FlipByte(7));
    let body = upstream.body("left", "1.0.0");
    let different: Vec<usize> = (0..body.len())
        .filter(|&at| body[at] != reply.body[at])
        .collect();
    assert_eq!(different, [7]);
    assert!(reply.complete);
}

#[test]
fn refused_connection_is_reset_and_dropped_one_is_closed() {
    let (upstream, http) = with_left();
    upstream.fault_times("/dl/left", 1, Fault::DropAfterAccept);
    upstream.fault_times("/dl/left", 1, Fault::Refuse);
    let refused = http.try_get(&left(), &[]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    let dropped = http.try_get(&left(), &[]).unwrap_err();
    assert_eq!(dropped.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(http.get(&left()).status, 200);
    assert_eq!(upstream.requests_for("left"), 3);
}

#[test]
fn dropped_connections_never_reach_a_request() {
    let (upstream, http) = with_left();
    upstream.drop_connections(2);
    assert!(http.try_get(&left(), &[]).is_err());
    assert!(http.try_get(&left(), &[]).is_err());
    assert_eq!(http.get(&left()).status, 200);
    assert_eq!((upstream.requests_for(""), upstream.connections()), (1, 3));
}

#[test]
fn statuses_carry_their_body_and_retry_after() {
    let (_, reply) = left_under(Fault::Status(500));
    assert_eq!(reply.status, 500);
    let (_, reply) = left_under(Fault::StatusWithBody(403, "no entry".to_owned()));
    assert_eq!((reply.status, reply.text().as_str()), (403, "no entry"));
    let (_, reply) = left_under(Fault::RetryAfter(429, "7".to_owned()));
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("7"))
    );
}

#[test]
fn stalled_request_gets_no_byte_and_ends_with_its_client() {
    let (upstream, http) = with_left();
    upstream.fault("/dl/left", Fault::Stall);
    let impatient = http.timeout(Duration::from_millis(100));
    let error = impatient.try_get(&left(), &[]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    while upstream.in_flight() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn stalled_body_stops_after_the_given_bytes_without_an_end() {
    let (upstream, http) = with_left();
    upstream.fault("/dl/left", Fault::StallBodyAfter(1_000));
    let reply = http.timeout(Duration::from_millis(200)).get(&left());
    assert_eq!(reply.body, upstream.body("left", "1.0.0")[..1_000]);
    assert!(!reply.complete);
    assert_eq!(reply.status, 200);
}

#[test]
fn delayed_answer_and_slow_body_take_the_configured_time() {
    let (upstream, http) = with_left();
    upstream.fault_times("/dl/left", 1, Fault::StallFor(Duration::from_millis(150)));
    let late = http.get(&left());
    assert!(
        late.complete && late.first_byte >= Duration::from_millis(150),
        "{late:?}"
    );

    let size = u32::try_from(upstream.body("left", "1.0.0").len()).unwrap();
    upstream.fault(
        "/dl/left",
        Fault::Drip {
            bytes_per_second: size * 2,
        },
    );
    let start = std::time::Instant::now();
    let dripped = http.get(&left());
    assert!(
        start.elapsed() >= Duration::from_millis(350),
        "{:?}",
        start.elapsed()
    );
    assert!(
        dripped.first_byte < Duration::from_millis(300),
        "{:?}",
        dripped.first_byte
    );
    assert_eq!(dripped.body, upstream.body("left", "1.0.0"));
}

#[test]
fn login_page_and_empty_answer_have_status_200() {
    let (_, reply) = left_under(Fault::LoginPage);
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(reply.text().starts_with("<!DOCTYPE html>"));
    let (_, reply) = left_under(Fault::Empty);
    assert_eq!(
        (reply.status, reply.body.len(), reply.complete),
        (200, 0, true)
    );
}

/// Reads this many bytes of an answer and disconnects.
fn beginning(http: &Http, bytes: usize) -> Vec<u8> {
    use std::io::Write as _;
    let address = http.address();
    let mut stream = std::net::TcpStream::connect(address).expect("the server accepts connections");
    write!(stream, "GET {} HTTP/1.1\r\nhost: x\r\n\r\n", left()).expect("the request can be sent");
    let mut received = vec![0; bytes];
    stream
        .read_exact(&mut received)
        .expect("the answer is long enough");
    received
}

#[test]
fn endless_bodies_have_no_length_and_go_on() {
    let (upstream, http) = with_left();
    upstream.fault("/dl/left", Fault::Endless);
    let received = beginning(&http, 3 << 20);
    let head = String::from_utf8_lossy(&received[..300]);
    assert!(
        head.starts_with("HTTP/1.1 200") && !head.contains("content-length"),
        "{head}"
    );
}

#[test]
fn endless_zip_unpacks_to_far_more_than_was_sent() {
    let (upstream, http) = with_left();
    upstream.fault("/dl/left", Fault::EndlessZip);
    let received = beginning(&http, 200_000);
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("content-encoding: gzip"));
    // Decode the complete chunks.
    let mut rest = &received[received
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap()
        + 4..];
    let mut packed = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else {
            break;
        };
        packed.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    let mut unpacked = 0;
    let mut zip = flate2::read::GzDecoder::new(packed.as_slice());
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = zip.read(&mut buffer) {
        unpacked += count;
    }
    assert!(
        unpacked > 50 * packed.len(),
        "{unpacked} of {}",
        packed.len()
    );
}

#[test]
fn gzip_body_decodes_to_the_published_body() {
    let (upstream, reply) = left_under(Fault::Gzip);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(reply.body.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, upstream.body("left", "1.0.0"));
}

#[test]
fn redirects_have_the_given_location() {
    let (_, reply) = left_under(Fault::Redirect("http://other.example/x".to_owned()));
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, Some("http://other.example/x"))
    );
    let (_, reply) = left_under(Fault::RedirectLoop);
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, Some(left().as_str()))
    );
}

#[test]
fn body_without_length_is_chunked_and_complete() {
    let (upstream, reply) = left_under(Fault::NoLength);
    assert_eq!(
        (reply.header("content-length"), reply.complete),
        (None, true)
    );
    assert_eq!(reply.body, upstream.body("left", "1.0.0"));
}

#[test]
fn validators_are_evaluated_unless_disabled() {
    let (upstream, http) = with_left();
    let path = entry_path("left");
    let etag = http.get(&path).header("etag").unwrap().to_owned();
    let conditional = || http.get_with(&path, &[("if-none-match", &etag)]);
    let reply = conditional();
    assert_eq!((reply.status, reply.body.len()), (304, 0));
    upstream.fault_times(&path, 1, Fault::IgnoreValidator);
    assert_eq!(conditional().body, upstream.index_body("left"));
    upstream.fault_times(&path, 1, Fault::NotModifiedWithoutValidator);
    assert_eq!(http.get(&path).status, 304);
    upstream.yank("left", "1.0.0");
    assert_eq!(conditional().status, 200);
    assert!(conditional().text().contains("\"yanked\":true"));
}

#[test]
fn fault_with_a_count_ends_by_itself() {
    let (upstream, http) = with_left();
    upstream.fault_times("left", 2, Fault::Status(503));
    let statuses: Vec<u16> = (0..3).map(|_| http.get(&left()).status).collect();
    assert_eq!(statuses, [503, 503, 200]);
    upstream.fault("left", Fault::Status(500));
    upstream.clear_faults();
    assert_eq!(http.get(&left()).status, 200);
}

#[test]
fn ranges_are_slices_of_the_body() {
    let (upstream, http) = with_left();
    let body = upstream.body("left", "1.0.0");
    let size = body.len();
    let range = |range: &str| http.get_with(&left(), &[("range", range)]);
    let reply = range("bytes=100-199");
    assert_eq!((reply.status, &reply.body[..]), (206, &body[100..200]));
    assert_eq!(
        reply.header("content-range"),
        Some(format!("bytes 100-199/{size}").as_str())
    );
    assert_eq!(range("bytes=100-").body, body[100..]);
    assert_eq!(range("bytes=-100").body, body[size - 100..]);
    assert_eq!(range(&format!("bytes={size}-")).status, 416);
    assert_eq!(range("bytes=1-2,5-6").status, 200);
    let old = http.get_with(&left(), &[("range", "bytes=100-"), ("if-range", "\"old\"")]);
    assert_eq!((old.status, old.body.len()), (200, size));
}

#[test]
fn static_file_has_a_checksum_file_until_it_is_replaced() {
    let (upstream, http) = with_left();
    upstream.serve_static("/dist/channel.toml", "v1", "text/plain");
    assert_eq!(http.get("/dist/channel.toml").text(), "v1");
    assert_eq!(
        http.get("/dist/channel.toml.sha256").text(),
        format!("{}  channel.toml\n", sha256(b"v1"))
    );
    upstream.serve_static("/dist/channel.toml.sha256", "other", "text/plain");
    assert_eq!(http.get("/dist/channel.toml.sha256").text(), "other");
}

#[test]
fn broken_h2_streams_do_not_affect_other_streams() {
    let (upstream, http) = with_left();
    upstream.publish(fake_upstream::Crate::new("right", "1.0.0").padding(20_000));
    let right = crate_path("right", "1.0.0");
    let body = upstream.body("left", "1.0.0");
    for (fault, expected) in [
        (Fault::Refuse, None),
        (Fault::CutAfter(3_000), Some((3_000, false))),
        (Fault::CutChunked(3_000), Some((3_000, false))),
        (Fault::CutUnframed(3_000), Some((3_000, true))),
        (Fault::NoLength, Some((body.len(), true))),
    ] {
        upstream.clear_faults();
        upstream.fault("/dl/left", fault.clone());
        let mut replies = http.get_h2(&[&left(), &right]).into_iter();
        let broken = replies.next().unwrap();
        let whole = replies.next().unwrap().unwrap();
        assert_eq!(whole.body, upstream.body("right", "1.0.0"), "{fault:?}");
        match expected {
            None => assert!(
                broken.unwrap_err().to_string().contains("stream error"),
                "{fault:?}"
            ),
            Some((count, complete)) => {
                let broken = broken.unwrap();
                assert_eq!(
                    (broken.body.len(), broken.complete),
                    (count, complete),
                    "{fault:?}"
                );
                assert_eq!(broken.body, body[..count]);
            }
        }
    }
    crate::assert_all_over_http2(&upstream);
}

#[test]
fn hang_up_over_h2_ends_all_streams() {
    let (upstream, http) = with_left();
    upstream.publish(fake_upstream::Crate::new("right", "1.0.0"));
    upstream.fault("right", Fault::Stall);
    upstream.fault("left", Fault::DropAfterAccept);
    let replies = http.get_h2(&[&crate_path("right", "1.0.0"), &left()]);
    assert!(replies.iter().all(Result::is_err), "{replies:?}");
}

#[test]
fn wrong_length_over_h2_is_an_error_for_a_strict_client() {
    let (upstream, http) = with_left();
    upstream.fault("left", Fault::WrongLength);
    let reply = http.get_h2(&[&left()]).remove(0);
    assert!(reply.is_err() || !reply.unwrap().complete);
}
