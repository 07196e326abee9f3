//! [`BackgroundTasks`]: the numbers of the daemon's background tasks, for status and metrics.

use std::path::PathBuf;

use tokio::sync::watch;

use crate::{eviction::EvictionStatus, prefetch::KeepWarmStatus, verify::ScrubState};

/// The background tasks; `None` for a task that is switched off.
#[derive(Clone, Debug, Default)]
pub struct BackgroundTasks {
    /// Status of keep-warm.
    pub keep_warm: Option<watch::Receiver<KeepWarmStatus>>,
    /// State of the scrub.
    pub scrub: Option<watch::Receiver<ScrubState>>,
    /// Numbers about eviction. A store that cannot be written to has none.
    pub eviction: Option<watch::Receiver<EvictionStatus>>,
    /// The intercepting proxy.
    pub proxy: Option<ProxyStatus>,
}

impl BackgroundTasks {
    /// Their numbers at this moment.
    pub(super) fn numbers(&self) -> Background {
        Background {
            keep_warm: self.keep_warm.as_ref().map(|status| *status.borrow()),
            scrub: self.scrub.as_ref().map(|state| state.borrow().clone()),
            eviction: self.eviction.as_ref().map(|status| *status.borrow()),
            proxy: self.proxy.clone(),
        }
    }
}

/// The numbers of the background tasks; `None` for a task that is switched off.
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
