//! What the tests of this binary share: the clients (`cargo`, `rustup`, `http`) and the daemon (`larder`). Upstream is the crate `fake-upstream`.

pub(crate) mod cargo;
pub(crate) mod http;
pub(crate) mod larder;
pub(crate) mod rustup;
