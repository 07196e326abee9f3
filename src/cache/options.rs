//! The user's settings for the cache, and the time limits that come from the habits of clients.

use std::time::Duration;

/// Longest time a client waits without a byte, as long as nothing stale can be served. Cargo gives a request up after
/// 30 s (`HttpTimeout` in cargo's `util/network/http.rs`), so larder answers before that.
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(24);
/// Time limit of one attempt for upstream's response head, and then for each chunk of the body, if nothing is stored
/// that could be served instead. With a stored copy, [`CacheOptions::upstream_timeout`] applies.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How the cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// True if upstream must never be asked.
    pub is_offline: bool,
    /// Upper bound of the freshness lifetime that upstream claims.
    pub max_age: Duration,
    /// Time limit for upstream if a stale copy is stored.
    pub upstream_timeout: Duration,
    /// Size limit of every entry in bytes, besides that of its kind.
    pub max_entry_bytes: u64,
    /// True if index entries offer only stored crates while upstream is unreachable.
    pub offline_view: bool,
    /// Number of concurrent writes to the store. A daemon keeps it low, because creating files competes with clients
    /// for the processor.
    pub writers: usize,
    /// True if clients wait for answers: then writes are delayed until they are idle.
    pub has_clients: bool,
}
