//! [`Background`]: the numbers of the daemon's tasks behind, for status and metrics.

use std::path::PathBuf;

use crate::{eviction::EvictionStatus, prefetch::KeepWarmStatus, verify::ScrubState};

/// The numbers of the tasks behind; `None` for a task that is switched off.
#[derive(Debug)]
pub(super) struct Background {
    pub(super) keep_warm: Option<KeepWarmStatus>,
    pub(super) scrub: Option<ScrubState>,
    pub(super) eviction: Option<EvictionStatus>,
    pub(super) proxy: Option<ProxyStatus>,
}

/// The intercepting proxy of a daemon.
#[derive(Clone, Debug)]
pub struct ProxyStatus {
    /// Its address, as clients take it: `http://HOST:PORT`.
    pub address: String,
    /// The file with the root certificates that clients need.
    pub roots: PathBuf,
}
