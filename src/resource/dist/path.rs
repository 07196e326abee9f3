//! The two trees of a rustup server, and the paths in them.
//!
//! ```text
//!  path at larder        upstream                              bytes change?
//!  dist/2026-04-16/...   SERVER/dist/2026-04-16/...            never: a dated folder
//!  dist/rust-1.95.0-...  SERVER/dist/rust-1.95.0-...           never, but those of `dist/rust-nightly-...` do
//!  dist/channel-...      SERVER/dist/channel-...               unless it names a full version, 1.95.0
//!  rustup/archive/...    UPDATE_ROOT/archive/...               never
//!  rustup/dist/...       UPDATE_ROOT/dist/...                  with each release of rustup
//! ```

use std::{sync::Arc, time::Duration};

use url::Url;

use crate::{
    resource::{Audience, Freshness, Key, Policy},
    toolchain,
};

/// The official server. URLs in manifests begin with it, whichever server the manifest came from (rustup,
/// `DEFAULT_DIST_SERVER` in `src/dist/mod.rs`).
pub const DEFAULT_DIST_SERVER: &str = "https://static.rust-lang.org/";

/// The configured upstream of rustup.
#[derive(Debug, PartialEq, Eq)]
pub struct Dist {
    server: Url,
    update_root: Url,
    pub(super) format: ArchiveFormat,
}

/// The archive formats that manifests offer to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// All that upstream offers. rustup prefers zst to xz to gzip (docs/client-behaviour.md R-17).
    #[default]
    Upstream,
    /// Only gzip, which is larger but unpacks three times as fast as xz.
    Gz,
}

impl ArchiveFormat {
    /// The format of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Upstream, Self::Gz]
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// Its name in settings and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Gz => "gz",
        }
    }
}

impl Dist {
    /// The archive formats that manifests offer to clients.
    pub fn format(&self) -> ArchiveFormat {
        self.format
    }

    /// Toolchains are below `server` + `dist/`, rustup itself is below `update_root`. Both URLs end in `/`.
    pub fn new(server: Url, update_root: Url, format: ArchiveFormat) -> Arc<Self> {
        Arc::new(Self {
            server,
            update_root,
            format,
        })
    }

    /// Both base URLs.
    pub fn addresses(&self) -> [&Url; 2] {
        [&self.server, &self.update_root]
    }
}

/// A file in one of the trees, by its path at larder: `dist/...` or `rustup/...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DistPath {
    pub(super) dist: Arc<Dist>,
    pub(super) path: String,
}

impl DistPath {
    /// Validates path segments: their first is `dist` or `rustup`, and none is `..`, contains a slash, or begins with a
    /// dot.
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

    /// The path of the sidecar beside the file.
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

    /// The last segment.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// For ever if the path fixes the bytes.
    pub(super) fn freshness(&self) -> Freshness {
        if self.is_immutable() {
            Freshness::Forever
        } else {
            Freshness::AsUpstreamSays
        }
    }

    /// `true` if the path fixes the bytes: dated folders, `rustup/archive` and full versions. Channel names, `1.NN`
    /// names and `rustup/dist` change (docs/client-behaviour.md R-09).
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
                None => names_version(name),
            },
            (_, _) => false,
        }
    }
}

/// The channel in the file name of a manifest: `stable`, `1.95`, `1.95.0-beta.3`. Legacy manifests have no `.toml`.
/// The files beside manifests, such as `channel-rust-stable-date.txt` and signatures, are none.
pub(super) fn channel(name: &str) -> Option<&str> {
    let channel = name.strip_prefix("channel-rust-")?;
    let channel = channel.strip_suffix(".sha256").unwrap_or(channel);
    let is_other = channel.ends_with(".txt") || channel.ends_with(".asc");
    (!is_other).then(|| channel.strip_suffix(".toml").unwrap_or(channel))
}

/// Tells if a file name contains a full version, as `rustc-1.95.0-src.tar.xz` does.
pub(super) fn names_version(name: &str) -> bool {
    name.split('-').any(|part| {
        let numbers = part.split('.').take(3);
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        numbers.filter(is_number).count() == 3
    })
}

/// Time for which the negative cache remembers a missing file of rustup.
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// The policy that all kinds of rustup share, apart from the arguments.
pub(super) fn rustup_policy(
    freshness: Freshness,
    max_bytes: u64,
    content_type: &'static str,
) -> Policy {
    Policy {
        freshness,
        // An update must see a release as soon as the bound allows.
        stale_while_revalidate: false,
        max_bytes,
        max_bytes_setting: None,
        negative_ttl: NEGATIVE_TTL,
        content_type,
        compressible: false,
        audience: Audience::Rustup,
    }
}
