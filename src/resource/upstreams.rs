//! The configured upstream servers.

use std::sync::Arc;

use super::{Dist, Registries};

/// Everything upstream that is configured.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// The registries.
    pub registries: Registries,
    /// rustup's trees.
    pub dist: Arc<Dist>,
}
