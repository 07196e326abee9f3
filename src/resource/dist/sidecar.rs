//! [`Sidecar`]: the small file `FILE.sha256` beside a file, which begins with the file's hash.
//!
//! ```text
//!  9f86d081884c7d65...0a08  rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz
//!  └─ 64 hex digits ─────┘
//! ```
//!
//! The sidecar of a manifest is another kind: one half of the manifest's pair (`manifest.rs`).

use std::fmt;

use super::path::{DistPath, rustup_policy};
use crate::{
    hash::Sha256,
    resource::{InvalidBody, Kind, Location, Policy, Source},
};

/// The file with the hash of the file beside it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sidecar {
    pub(super) file: DistPath,
}

impl fmt::Display for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sidecar `{}`", self.file.path)
    }
}

impl Kind for Sidecar {
    fn location(&self) -> Location {
        Location::Entry(self.file.key())
    }

    fn policy(&self) -> Policy {
        rustup_policy(self.file.freshness(), 1 << 12, "text/plain")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        sidecar_sha256(body)
            .map(|_| ())
            .ok_or(InvalidBody::NoSha256)
    }
}

/// The hash at the start of a sidecar. rustup panics on fewer than 64 bytes (docs/client-behaviour.md R-03), so a
/// shorter sidecar is never served.
pub(super) fn sidecar_sha256(body: &[u8]) -> Option<Sha256> {
    Sha256::parse(std::str::from_utf8(body.get(..64)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecar_must_begin_with_64_hex_digits() {
        let sum = "a".repeat(64);
        assert!(sidecar_sha256(format!("{sum}  file\n").as_bytes()).is_some());
        assert!(sidecar_sha256(&sum.as_bytes()[..63]).is_none());
        assert!(sidecar_sha256(b"<html>").is_none());
    }
}
