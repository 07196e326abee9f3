//! The two trees of rustup's server.

use std::{sync::Arc, time::Duration};

use url::Url;

use crate::{
    resource::{Audience, Freshness, Key, Policy},
    toolchain,
};

/// rustup's own server: what the addresses in its manifests begin with, wherever a manifest came from (rustup,
/// `DEFAULT_DIST_SERVER` in `dist/mod.rs`).
pub const DEFAULT_DIST_SERVER: &str = "https://static.rust-lang.org/";

/// Where rustup's things come from.
#[derive(Debug, PartialEq, Eq)]
pub struct Dist {
    server: Url,
    update_root: Url,
    pub(super) format: ArchiveFormat,
}

/// Which archives manifests offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// Those that upstream offers: rustup takes the smallest.
    #[default]
    Upstream,
    /// gzip alone: larger, and unpacked three times as fast.
    Gz,
}

impl Dist {
    /// The tree of toolchains is at `server` + `dist/`, the one of rustup itself at `update_root`; both end in `/`.
    pub fn new(server: Url, update_root: Url, format: ArchiveFormat) -> Arc<Self> {
        Arc::new(Self {
            server,
            update_root,
            format,
        })
    }

    /// Both addresses.
    pub fn addresses(&self) -> [&Url; 2] {
        [&self.server, &self.update_root]
    }
}

/// One file of the two trees, by its path at larder: `dist/...` or `rustup/...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DistPath {
    pub(super) dist: Arc<Dist>,
    pub(super) path: String,
}

impl DistPath {
    /// `segments` are validated: nothing in them climbs, hides a slash, or begins with a dot.
    pub(super) fn new(dist: &Arc<Dist>, segments: &[&str]) -> Option<Self> {
        let is_harmless = |segment: &&str| {
            (1..=128).contains(&segment.len())
                && !segment.starts_with('.')
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
        };
        let is_ours = matches!(segments, ["dist" | "rustup", _, ..]) && segments.len() <= 6;
        (is_ours && segments.iter().all(is_harmless)).then(|| Self {
            dist: dist.clone(),
            path: segments.join("/"),
        })
    }

    pub(super) fn sidecar(&self) -> Self {
        Self {
            dist: self.dist.clone(),
            path: format!("{}.sha256", self.path),
        }
    }

    pub(super) fn key(&self) -> Key {
        Key::new(&["rustup", &self.path])
    }

    pub(super) fn url(&self) -> Url {
        let joined = match self.path.strip_prefix("rustup/") {
            Some(rest) => self.dist.update_root.join(rest),
            None => self.dist.server.join(&self.path),
        };
        joined.expect("a validated path joins any base address")
    }

    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the path fixes the bytes: what lies in a dated folder or an archive, and full versions. Channel names,
    /// `1.NN` names and `rustup/dist` move (rustup, `dist/mod.rs`, `manifest_v2_url`).
    fn is_immutable(&self) -> bool {
        let mut segments = self.path.split('/');
        match (segments.next(), segments.next()) {
            (Some("rustup"), Some(folder)) => folder == "archive",
            (Some("dist"), Some(folder)) if toolchain::is_date(folder) => true,
            (Some("dist"), Some(name)) => match channel(name) {
                Some(channel) => {
                    channel.split('.').count() >= 3
                        && channel.starts_with(|c: char| c.is_ascii_digit())
                }
                None => true,
            },
            (_, _) => false,
        }
    }
}

/// The channel in the name of a manifest: `stable`, `1.95`, `1.95.0-beta.3`. Manifests of the old kind have no ending.
pub(super) fn channel(name: &str) -> Option<&str> {
    let channel = name.strip_prefix("channel-rust-")?;
    let channel = channel.strip_suffix(".sha256").unwrap_or(channel);
    Some(channel.strip_suffix(".toml").unwrap_or(channel))
}

const NEGATIVE_TTL: Duration = Duration::from_secs(10);

pub(super) fn rustup_policy(
    freshness: Freshness,
    max_bytes: u64,
    content_type: &'static str,
) -> Policy {
    Policy {
        freshness,
        max_bytes,
        negative_ttl: NEGATIVE_TTL,
        content_type,
        compressible: false,
        audience: Audience::Rustup,
    }
}

/// As long as upstream says for what moves, for ever for what does not.
pub(super) fn freshness(file: &DistPath) -> Freshness {
    if file.is_immutable() {
        Freshness::Forever
    } else {
        Freshness::AsUpstreamSays
    }
}
