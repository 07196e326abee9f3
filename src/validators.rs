//! [`Validators`]: the `ETag` and `Last-Modified` of an upstream's response. The store keeps them with the body, and
//! the next request sends them back, so that upstream can answer 304 instead of the body (RFC 9110, section 13).
//!
//! They are upstream's. Clients get validators of larder's own, computed from the bytes that are served.

use serde::{Deserialize, Serialize};

/// Validators of a stored body, verbatim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

impl Validators {
    /// Returns whether a request with these would be unconditional.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}
