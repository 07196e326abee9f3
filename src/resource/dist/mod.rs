//! Resources of a rustup server: channel manifests, archives, sidecars, the installer and its script.
//!
//! rustup reads two trees. The dist server has the toolchains, the update root has rustup itself. An install of
//! `stable` asks in this order (docs/client-behaviour.md R-02, R-15, R-08):
//!
//! ```text
//!  dist/channel-rust-stable.toml.sha256          the sidecar of the manifest ┐ one pair, one generation:
//!  dist/channel-rust-stable.toml                 the manifest                ┘ rustup refuses a mismatch
//!  dist/2026-04-16/rustc-1.95.0-HOST.tar.xz      the archives; the manifest lists their hashes
//!  rustup/release-stable.toml                    the newest version of rustup
//!  rustup/archive/1.29.0/HOST/rustup-init        the program of that version, if rustup is of another
//!  rustup/dist/HOST/rustup-init                  the newest program; its sidecar lists its hash
//!  rustup-init.sh                                the bootstrap script, edited to work over http
//! ```
//!
//! A **manifest** is about a megabyte of TOML: for each component and each host the address and the SHA-256 of its
//! archives (`manifest.rs`; `crate::toolchain` reads it). A **sidecar** is a small file beside another,
//! `FILE.sha256`, that begins with its hash (`sidecar.rs`). An **archive** is stored as a blob; if the request does
//! not bring the hash, the manifests of its channel list it, or else its sidecar. A file that has neither is served
//! unproven (`unproven.rs`).
//!
//! rustup replaces the default server in a manifest's URLs by the configured one, so manifests are served unchanged
//! (R-01). The exception is a setting: [`ArchiveFormat::Gz`] removes the other formats from the manifest.
//!
//! Facts about rustup cite its source, or a fact of `docs/client-behaviour.md` by id.

mod manifest;
mod path;
mod release;
mod script;
mod sidecar;
mod unproven;

use std::sync::Arc;

use super::{Half, Resource};
use manifest::{Archive, ChannelManifest};
use path::{DistPath, channel};
use sidecar::Sidecar;

pub use manifest::{archive, archive_of_hash, installer, manifest, self_update};
pub use path::{ArchiveFormat, DEFAULT_DIST_SERVER, Dist};
pub use release::{release, released_version};
pub use script::{ScriptError, script, script_for_client};

/// Parses path segments: `dist/...` or `rustup/...`. `None` for any other path.
pub fn parse(dist: &Arc<Dist>, segments: &[&str]) -> Option<Resource> {
    let file = DistPath::new(dist, segments)?;
    if channel(file.name()).is_some() && file.path.starts_with("dist/") {
        return Some(match file.path.strip_suffix(".sha256") {
            Some(path) => Arc::new(ChannelManifest {
                file: DistPath {
                    path: path.to_owned(),
                    ..file
                },
                half: Half::Sidecar,
            }),
            None => Arc::new(ChannelManifest {
                file,
                half: Half::Body,
            }),
        });
    }
    if file.path == "rustup/release-stable.toml" {
        return Some(release(dist));
    }
    if file.name().ends_with(".sha256") {
        return Some(Arc::new(Sidecar { file }));
    }
    Some(Arc::new(Archive {
        file,
        checksum: None,
    }))
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::resource::{Freshness, Location, Source};

    const MANIFEST: &str = include_str!("../../../fixtures/channel-rust-stable.toml");

    fn dist() -> Arc<Dist> {
        let url = |text| Url::parse(text).unwrap();
        Dist::new(
            url("http://d.example/"),
            url("http://u.example/rustup/"),
            ArchiveFormat::Upstream,
        )
    }

    /// Compares location, address and immutability of the resource at a path.
    #[track_caller]
    fn check(path: &str, expected: Option<(&str, &str, bool)>) {
        let segments: Vec<_> = path.split('/').collect();
        let found = parse(&dist(), &segments).map(|resource| {
            let place = match resource.location() {
                Location::Entry(key) => format!("entry {key}"),
                Location::Pair(key, half) => format!("{half:?} {key}"),
                Location::ListedIn(listing) => format!("listed in {listing}"),
                Location::Blob(_) => "blob".to_owned(),
            };
            let Source::At(url) = resource.source() else {
                panic!("dist files have fixed addresses")
            };
            (
                place,
                url.to_string(),
                resource.policy().freshness == Freshness::Forever,
            )
        });
        let found = found
            .as_ref()
            .map(|(place, url, forever)| (place.as_str(), url.as_str(), *forever));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn dated_and_full_versions_are_immutable_and_channel_names_are_not() {
        let stable = "http://d.example/dist/channel-rust-stable.toml";
        check(
            "dist/channel-rust-stable.toml",
            Some(("Body rustup/dist/channel-rust-stable.toml", stable, false)),
        );
        check(
            "dist/channel-rust-stable.toml.sha256",
            Some((
                "Sidecar rustup/dist/channel-rust-stable.toml",
                stable,
                false,
            )),
        );
        let forever = |path: &str| {
            parse(&dist(), &path.split('/').collect::<Vec<_>>())
                .unwrap()
                .policy()
                .freshness
        };
        for path in [
            "dist/2026-04-16/channel-rust-nightly.toml",
            "dist/channel-rust-1.95.0.toml",
            "dist/channel-rust-1.95.0-beta.3.toml",
            "dist/2026-04-16/rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "dist/rust-1.7.0-x86_64-unknown-linux-gnu.tar.gz",
            "dist/rustc-1.95.0-src.tar.xz.sha256",
            "dist/2026-04-16/channel-rust-nightly-date.txt",
            "rustup/archive/1.29.0/x86_64-unknown-linux-gnu/rustup-init",
        ] {
            assert_eq!(forever(path), Freshness::Forever, "{path}");
        }
        for path in [
            "dist/channel-rust-nightly.toml",
            "dist/channel-rust-1.95.toml",
            "dist/channel-rust-stable",
            "dist/channel-rust-stable.toml.asc",
            "dist/channel-rust-nightly-date.txt",
            "dist/channel-rust-1.95.toml.asc",
            "dist/rust-nightly-x86_64-unknown-linux-gnu.tar.xz",
            "dist/rustc-beta-src.tar.xz.sha256",
            "rustup/release-stable.toml",
            "rustup/dist/x86_64-unknown-linux-gnu/rustup-init",
        ] {
            assert_eq!(forever(path), Freshness::AsUpstreamSays, "{path}");
        }
    }

    #[test]
    fn archive_without_hash_is_listed_in_its_sidecar() {
        check(
            "dist/2026-04-16/rustc-1.95.0-x.tar.xz",
            Some((
                "listed in sidecar `dist/2026-04-16/rustc-1.95.0-x.tar.xz.sha256`",
                "http://d.example/dist/2026-04-16/rustc-1.95.0-x.tar.xz",
                true,
            )),
        );
        check(
            "rustup/dist/x/rustup-init",
            Some((
                "listed in sidecar `rustup/dist/x/rustup-init.sha256`",
                "http://u.example/rustup/dist/x/rustup-init",
                false,
            )),
        );
    }

    #[test]
    fn component_is_resolved_by_sidecar_or_manifest_only() {
        let path = "dist/2026-04-16/cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz";
        let resource = parse(&dist(), &path.split('/').collect::<Vec<_>>()).unwrap();
        let sum = |listing: &str| {
            let complete = resource
                .listed()
                .unwrap()
                .resolve(listing.as_bytes())
                .ok()?;
            let Location::Blob(sum) = complete.location() else {
                panic!("it is not complete: {complete:?}")
            };
            Some(sum.to_string()[..8].to_owned())
        };
        assert_eq!(sum(MANIFEST).as_deref(), Some("3e517d1b"));
        let sidecar = format!("{}  cargo\n", "ab".repeat(32));
        assert_eq!(sum(&sidecar).as_deref(), Some("abababab"));
        assert_eq!(sum(&MANIFEST.replace("2026-04-16/", "2026-04-17/")), None);
        assert_eq!(sum("<html>"), None);
    }

    #[test]
    fn hostile_paths_are_rejected() {
        for path in [
            "dist",
            "dist/",
            "dist/..",
            "dist/.hidden",
            "dist/a b",
            "other/x",
            "dist/a/b/c/d/e/f",
        ] {
            check(path, None);
        }
    }
}
