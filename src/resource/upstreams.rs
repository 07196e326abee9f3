//! [`Upstreams`]: the configured servers that resources come from.

use std::sync::Arc;

use super::{Dist, Registries};

/// All configured upstream servers.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// The registries that cargo's resources come from.
    pub registries: Registries,
    /// The two trees that rustup's resources come from.
    pub dist: Arc<Dist>,
}
