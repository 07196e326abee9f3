//! Settings that bound what clients and upstream may use: connections, requests, the size of crates.

use super::{
    ConfigError,
    parse::{parse_number, parse_positive},
    source::Sources,
};
use crate::cli::{GlobalFlags, Serve};

/// Default size limit of one crate, in MB.
const DEFAULT_MAX_CRATE_MB: u32 = 256;

/// Limits of connections, requests and crates. Defaults that depend on the system are chosen where the limits are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections of clients in total.
    pub max_connections: Option<u32>,
    /// Connections from one address.
    pub max_connections_per_peer: Option<u32>,
    /// Requests of clients in flight.
    pub max_requests: Option<u32>,
    /// Concurrent requests over HTTP/1.1 to one upstream.
    pub upstream_connections: Option<u32>,
    /// Requests a second to upstream; 0 for no limit.
    pub upstream_rate: Option<u32>,
    /// Largest crate that is accepted from upstream, in bytes.
    pub max_crate: u64,
}

/// Merges the limits of flags, variables and the settings file.
pub(super) fn merge_limits(
    shared: &GlobalFlags,
    serve: &Serve,
    sources: &Sources,
) -> Result<LimitSettings, ConfigError> {
    let positive = |key, flag| sources.one(key, flag, parse_positive);
    let max_crate = positive("max-crate", shared.max_crate)?;
    Ok(LimitSettings {
        max_connections: positive("max-connections", serve.max_connections)?,
        max_connections_per_peer: positive(
            "max-connections-per-peer",
            serve.max_connections_per_peer,
        )?,
        max_requests: positive("max-requests", serve.max_requests)?,
        upstream_connections: positive("upstream-connections", shared.upstream_connections)?,
        upstream_rate: sources.one("upstream-rate", shared.upstream_rate, parse_number)?,
        max_crate: u64::from(max_crate.unwrap_or(DEFAULT_MAX_CRATE_MB)) << 20,
    })
}
