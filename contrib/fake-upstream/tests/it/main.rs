//! Tests of the fake upstream with raw clients, real cargo and real rustup.

mod daemon;
mod faults;
mod lifecycle;
mod registry;
mod toolchains;

use fake_upstream::{Crate, FakeUpstream};

use testkit::http::Http;

/// A fake with `left 1.0.0`, and a client of it.
fn with_left() -> (FakeUpstream, Http) {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(20_000));
    let http = Http::to(upstream.base_url());
    (upstream, http)
}

/// Fails unless all requests came over HTTP/2.
#[track_caller]
fn assert_all_over_http2(upstream: &FakeUpstream) {
    let requests = upstream.requests();
    assert!(requests.iter().all(|request| request.version == "HTTP/2"));
}
