//! The larder under test.

use fake_upstream::FakeUpstream;
use testkit::larder::Site;

/// A larder with an empty store in front of this upstream.
#[track_caller]
pub(crate) fn site(upstream: &FakeUpstream) -> Site {
    site_at(&upstream.url())
}

/// A larder with an empty store in front of the registry at this index URL.
#[track_caller]
pub(crate) fn site_at(index: &str) -> Site {
    Site::new(env!("CARGO_BIN_EXE_larder"), index)
}
