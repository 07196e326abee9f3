//! Settings that bound what clients and upstream may use: connections, requests.

use super::{
    ConfigError,
    parse::{parse_number, parse_positive},
    source::Sources,
};
use crate::cli::{GlobalFlags, Serve};

/// Limits of connections and requests. Defaults depend on the system, and are chosen where the limits are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

/// Merges the limits of flags, variables and the settings file.
pub(super) fn merge_limits(
    shared: &GlobalFlags,
    serve: &Serve,
    sources: &Sources,
) -> Result<LimitSettings, ConfigError> {
    let positive = |key, flag| sources.one(key, flag, parse_positive);
    Ok(LimitSettings {
        max_connections: positive("max-connections", serve.max_connections)?,
        max_connections_per_peer: positive(
            "max-connections-per-peer",
            serve.max_connections_per_peer,
        )?,
        max_requests: positive("max-requests", serve.max_requests)?,
        upstream_connections: positive("upstream-connections", shared.upstream_connections)?,
        upstream_rate: sources.one("upstream-rate", shared.upstream_rate, parse_number)?,
    })
}
