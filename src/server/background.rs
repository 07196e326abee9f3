//! [`Background`]: the numbers of the daemon's tasks behind, for status and metrics.

use crate::{eviction::EvictionStatus, prefetch::KeepWarmStatus, verify::ScrubState};

/// The numbers of the tasks behind; `None` for a task that is switched off.
#[derive(Debug)]
pub(super) struct Background {
    pub(super) keep_warm: Option<KeepWarmStatus>,
    pub(super) scrub: Option<ScrubState>,
    pub(super) eviction: Option<EvictionStatus>,
}
