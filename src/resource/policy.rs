//! [`Policy`]: the rules for the copies of one kind of resource.

use std::time::Duration;

/// The rules for the copies of one kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Time for which a stored copy is served without asking upstream.
    pub freshness: Freshness,
    /// True if a copy older than the user's bound, but not older than upstream's `max-age`, is served at once and
    /// revalidated in the background (RFC 5861).
    pub stale_while_revalidate: bool,
    /// The largest body accepted from upstream, in bytes after decoding.
    pub max_bytes: u64,
    /// The setting that has `max_bytes`, if one has.
    pub max_bytes_setting: Option<&'static str>,
    /// Time for which the negative cache remembers that upstream does not have the resource.
    pub negative_ttl: Duration,
    /// The `Content-Type` for clients.
    pub content_type: &'static str,
    /// True to ask upstream for a compressed transfer. Bodies are stored decoded in either case.
    pub compressible: bool,
    /// The client that requests this kind. It decides which status stands for which failure.
    pub audience: Audience,
}

/// The client that requests a kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// cargo.
    Cargo,
    /// rustup, or its bootstrap script.
    Rustup,
}

/// Time for which a stored copy is served without asking upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// For ever: the name fixes the bytes.
    Forever,
    /// This long, whatever upstream says.
    For(Duration),
    /// As long as upstream's `max-age` says, but at most as long as the user's cap.
    AsUpstreamSays,
}
