//! The fake upstream against raw clients and real cargo: does it do what its names say?

mod daemon;
mod faults;
mod life;
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
