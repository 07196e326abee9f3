//! Random faults of upstream, of a kind that larder can detect on the path concerned.
//!
//! Index entries have no hash, so a changed byte in one is upstream's word. Only crates, archives and manifests can get
//! wrong bytes here, and be compared with the truth.

use std::time::Duration;

use fake_upstream::{FakeUpstream, Fault};

/// Statuses that a broken server or proxy answers with.
const STATUSES: [u16; 10] = [400, 403, 404, 410, 429, 451, 500, 502, 503, 504];

/// Adds a rule for the next few requests of a path that clients use, or for a whole class of requests.
pub(crate) fn add(upstream: &FakeUpstream, path: &str, rng: &mut fastrand::Rng) {
    let times = rng.usize(1..8);
    if rng.u32(0..6) == 0 {
        let class = ["/index/", "/dl/", "/dist/", "config.json", ""][rng.usize(0..5)];
        upstream.fault_times(class, times, detectable_anywhere(rng, false));
        return;
    }
    let (matcher, has_hash) = match path.strip_prefix("/crates/") {
        Some(rest) => (format!("/dl/{rest}"), true),
        None if path.contains(".tar.") && !path.ends_with(".sha256") => (path.to_owned(), true),
        None if path.starts_with("/dist/") => (path.to_owned(), false),
        None => (format!("/index{path}"), false),
    };
    let fault = match has_hash && rng.bool() {
        true => wrong_bytes(rng),
        false => detectable_anywhere(rng, !has_hash),
    };
    upstream.fault_times(&matcher, times, fault);
    // The rule matches the checksum file of an archive too, whose bytes nothing proves. A newer rule beats it.
    upstream.fault(&format!("{matcher}.sha256"), Fault::NoLength);
}

/// A fault that shows itself: an error, a broken transfer, a body that is no answer of this kind, or time.
///
/// A crate or archive may have a gigabyte, so an endless one would only fill the disk. One that drips must arrive
/// before a calm check gives up: nothing ends it.
fn detectable_anywhere(rng: &mut fastrand::Rng, is_small: bool) -> Fault {
    let count = rng.u64(0..20_000);
    let status = STATUSES[rng.usize(0..STATUSES.len())];
    match rng.u32(0..20) {
        0 => Fault::Refuse,
        1 => Fault::DropAfterAccept,
        2..=4 => Fault::Status(status),
        5 => Fault::RetryAfter(503, rng.u32(0..3).to_string()),
        6 => Fault::Stall,
        7 | 8 => Fault::StallFor(Duration::from_millis(rng.u64(20..4_000))),
        9 => Fault::StallBodyAfter(count),
        10 => Fault::Drip {
            bytes_per_second: rng.u32(if is_small { 5_000 } else { 40_000 }..400_000),
        },
        11 | 12 => Fault::CutAfter(count),
        13 => Fault::CutChunked(count),
        14 => Fault::LoginPage,
        15 if is_small => Fault::EndlessZip,
        16 => Fault::Gzip,
        17 => Fault::RedirectLoop,
        18 => Fault::NotModifiedWithoutValidator,
        _ => Fault::OtherTag,
    }
}

/// A body of the right form with other bytes.
fn wrong_bytes(rng: &mut fastrand::Rng) -> Fault {
    let at = rng.u64(0..30_000);
    match rng.u32(0..6) {
        0..3 => Fault::FlipByte(at),
        3 => Fault::CutUnframed(at),
        4 => Fault::WrongLength,
        _ => Fault::Empty,
    }
}
