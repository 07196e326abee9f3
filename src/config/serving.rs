//! How the daemon serves its clients: settings of `serve` that concern them all.

use std::time::Duration;

use super::{ConfigError, source::Sources};
use crate::cli::{Serve, parse_duration};

/// Settings about the daemon's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingSettings {
    /// Time without a request after which the daemon exits, if a service manager holds its sockets; `None` for never.
    pub idle_exit: Option<Duration>,
}

/// Merges these settings.
pub(super) fn merge_serving(
    serve: &Serve,
    sources: &Sources,
) -> Result<ServingSettings, ConfigError> {
    let idle_exit = sources.one("idle-exit", serve.idle_exit, parse_duration)?;
    Ok(ServingSettings {
        idle_exit: idle_exit.filter(|time| !time.is_zero()),
    })
}
