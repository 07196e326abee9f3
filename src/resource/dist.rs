//! What rustup asks for: channel manifests with their sidecars, archives, the installer and its script. Pure; the facts about
//! rustup cite its functions so that the next reader can check whether they still hold.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use url::Url;

use super::{Audience, Freshness, Half, Key, Kind, Location, Policy, Resource, Source, Unlisted};
use crate::{hash::Sha256, toolchain};

/// rustup's own server: what the addresses in its manifests begin with, wherever a manifest came from (rustup,
/// `DEFAULT_DIST_SERVER` in `dist/mod.rs`).
pub const DEFAULT_DIST_SERVER: &str = "https://static.rust-lang.org/";

/// Where rustup's things come from.
#[derive(Debug, PartialEq, Eq)]
pub struct Dist {
    server: Url,
    update_root: Url,
    format: ArchiveFormat,
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
struct DistPath {
    dist: Arc<Dist>,
    path: String,
}

impl DistPath {
    /// `segments` are validated: nothing in them climbs, hides a slash, or begins with a dot.
    fn new(dist: &Arc<Dist>, segments: &[&str]) -> Option<Self> {
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

    fn sidecar(&self) -> Self {
        Self {
            dist: self.dist.clone(),
            path: format!("{}.sha256", self.path),
        }
    }

    fn key(&self) -> Key {
        Key::new(&["rustup", &self.path])
    }

    fn url(&self) -> Url {
        let joined = match self.path.strip_prefix("rustup/") {
            Some(rest) => self.dist.update_root.join(rest),
            None => self.dist.server.join(&self.path),
        };
        joined.expect("a validated path joins any base address")
    }

    fn name(&self) -> &str {
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
fn channel(name: &str) -> Option<&str> {
    let channel = name.strip_prefix("channel-rust-")?;
    let channel = channel.strip_suffix(".sha256").unwrap_or(channel);
    Some(channel.strip_suffix(".toml").unwrap_or(channel))
}

/// Reads a path's segments: `dist/...` or `rustup/...`; `None` if they are no such path.
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
        return Some(Arc::new(RustupRelease { file }));
    }
    if file.name().ends_with(".sha256") {
        return Some(Arc::new(Sidecar { file }));
    }
    Some(Arc::new(Archive {
        file,
        checksum: None,
    }))
}

/// The manifest of a channel, in full, at its path at larder (`dist/channel-rust-stable.toml`).
pub fn manifest(dist: &Arc<Dist>, path: &str) -> Option<Resource> {
    let segments: Vec<_> = path.split('/').collect();
    let file = DistPath::new(dist, &segments)?;
    channel(file.name())?;
    Some(Arc::new(ChannelManifest {
        file,
        half: Half::Body,
    }))
}

/// The archive that a manifest names by address and hash. `None` if rustup would not ask larder for that address: only what
/// begins with [`DEFAULT_DIST_SERVER`] is asked of the configured server (rustup, `Manifestation::update` in `dist/manifestation.rs`).
pub fn archive(dist: &Arc<Dist>, url: &str, checksum: Sha256) -> Option<Resource> {
    let segments: Vec<_> = url.strip_prefix(DEFAULT_DIST_SERVER)?.split('/').collect();
    Some(Arc::new(Archive {
        file: DistPath::new(dist, &segments)?,
        checksum: Some(checksum),
    }))
}

/// What rustup asks for at the end of each install.
pub fn release(dist: &Arc<Dist>) -> Resource {
    Arc::new(RustupRelease {
        file: DistPath {
            dist: dist.clone(),
            path: "rustup/release-stable.toml".to_owned(),
        },
    })
}

/// The program that installs rustup itself on a host, where its script looks for it; `None` if that is no triple.
pub fn installer(dist: &Arc<Dist>, host: &str) -> Option<Resource> {
    let ending = if host.contains("-windows-") {
        ".exe"
    } else {
        ""
    };
    let name = format!("rustup-init{ending}");
    Some(Arc::new(Archive {
        file: DistPath::new(dist, &["rustup", "dist", host, &name])?,
        checksum: None,
    }))
}

/// The script that installs rustup, as upstream has it.
pub fn script(dist: &Arc<Dist>) -> Resource {
    Arc::new(BootstrapScript {
        file: DistPath {
            dist: dist.clone(),
            path: "rustup/rustup-init.sh".to_owned(),
        },
    })
}

const NEGATIVE_TTL: Duration = Duration::from_secs(10);

fn rustup_policy(freshness: Freshness, max_bytes: u64, content_type: &'static str) -> Policy {
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
fn freshness(file: &DistPath) -> Freshness {
    if file.is_immutable() {
        Freshness::Forever
    } else {
        Freshness::AsUpstreamSays
    }
}

/// A channel's manifest or its sidecar: two halves of one entry, always of one generation, since rustup asks for the hash
/// first and refuses a manifest that does not match (rustup, `download_and_check` in `dist/download.rs`).
#[derive(Debug, PartialEq, Eq)]
struct ChannelManifest {
    file: DistPath,
    half: Half,
}

impl fmt::Display for ChannelManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.half {
            Half::Body => write!(f, "manifest `{}`", self.file.path),
            Half::Sidecar => write!(f, "sidecar of manifest `{}`", self.file.path),
        }
    }
}

impl Kind for ChannelManifest {
    fn location(&self) -> Location {
        Location::Pair(self.file.key(), self.half)
    }

    fn policy(&self) -> Policy {
        rustup_policy(freshness(&self.file), 64 << 20, "text/plain")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), String> {
        // The sidecar's hash is the proof. Without this, an empty file with the hash of nothing would pass.
        if body.is_empty() {
            Err("is empty".to_owned())
        } else {
            Ok(())
        }
    }

    fn client_view(&self, body: &Bytes) -> Option<Bytes> {
        match self.file.dist.format {
            ArchiveFormat::Upstream => None,
            ArchiveFormat::Gz => gzip_only(body),
        }
    }

    fn profile_downloads(&self, body: &Bytes, asked: Sha256) -> Vec<Vec<Resource>> {
        let Ok(text) = std::str::from_utf8(body) else {
            return Vec::new();
        };
        let Some(host) = toolchain::target_of_archive(text, &asked.to_string()) else {
            return Vec::new();
        };
        let client_view = self.client_view(body);
        // A part of what is valid, cut between lines.
        let text = client_view.as_deref().map_or(Ok(text), std::str::from_utf8);
        let text = text.unwrap_or_default();
        let mut profiles: Vec<Vec<Resource>> = Vec::new();
        for profile in PREFETCHED_PROFILES {
            // A target that is no host has none; a release without some component has no such profile for this host.
            let Ok(files) = toolchain::files(text, host, profile, &[], &[]) else {
                continue;
            };
            let downloads = files.iter().map(|file| self.component(file));
            profiles.extend(downloads.collect::<Option<_>>());
        }
        profiles
    }
}

/// The profiles that toolchains are installed with (rustup, `Profile` in `dist/mod.rs`), the smaller first. Nobody needs
/// `complete`, which rustup's own documentation advises against.
const PREFETCHED_PROFILES: [&str; 2] = ["minimal", "default"];

impl ChannelManifest {
    fn component(&self, file: &toolchain::DistFile) -> Option<Resource> {
        let sum = Sha256::parse(&file.sha256)?;
        archive(&self.file.dist, &file.url, sum)
    }
}

/// The manifest without the archives that rustup would prefer to gzip (rustup, `dist/manifest.rs`); `None` if it is not
/// written as expected: each such field on a line of its own, beside a gzip one.
fn gzip_only(manifest: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(manifest).ok()?;
    let is_other = |line: &&str| {
        ["xz_url", "xz_hash", "zst_url", "zst_hash"]
            .iter()
            .any(|field| {
                line.strip_prefix(field)
                    .is_some_and(|rest| rest.trim_start().starts_with('='))
            })
    };
    let others = text.lines().filter(is_other).count();
    let mentions = ["xz_", "zst_"]
        .iter()
        .map(|field| text.matches(field).count())
        .sum::<usize>();
    if others != mentions {
        return None;
    }
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| !is_other(line))
        .collect();
    Some(Bytes::from(kept))
}

/// The small file beside another that holds its hash.
#[derive(Debug, PartialEq, Eq)]
struct Sidecar {
    file: DistPath,
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
        rustup_policy(freshness(&self.file), 1 << 12, "text/plain")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), String> {
        sidecar_sha256(body)
            .map(|_| ())
            .ok_or_else(|| "does not begin with a sha256".to_owned())
    }
}

/// The hash that a sidecar begins with. rustup panics on fewer than 64 digits, so such a one never gets through.
pub(crate) fn sidecar_sha256(body: &[u8]) -> Option<Sha256> {
    Sha256::parse(std::str::from_utf8(body.get(..64)?).ok()?)
}

/// `release-stable.toml`: which rustup is the newest. Asked for at the end of every install, and its absence would make
/// that fail after the fact.
#[derive(Debug, PartialEq, Eq)]
struct RustupRelease {
    file: DistPath,
}

impl fmt::Display for RustupRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rustup's `release-stable.toml`")
    }
}

impl Kind for RustupRelease {
    fn location(&self) -> Location {
        Location::Entry(self.file.key())
    }

    fn policy(&self) -> Policy {
        rustup_policy(Freshness::AsUpstreamSays, 1 << 16, "text/plain")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(body).unwrap_or_default();
        match toml::from_str::<toml::Table>(text) {
            Ok(table) if table.contains_key("schema-version") && table.contains_key("version") => {
                Ok(())
            }
            Ok(_) | Err(_) => Err("names no version of rustup".to_owned()),
        }
    }
}

/// A component, an installer, anything with a sidecar beside it: proven by the manifest's hash or the sidecar's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Archive {
    file: DistPath,
    checksum: Option<Sha256>,
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Cow<'_, str> = if self.file.path.starts_with("dist/") {
            format!("component `{}`", self.file.path).into()
        } else {
            format!("installer `{}`", self.file.path).into()
        };
        f.write_str(&what)
    }
}

impl Kind for Archive {
    fn location(&self) -> Location {
        match self.checksum {
            Some(sum) => Location::Blob(sum),
            None => Location::ListedIn(Arc::new(Sidecar {
                file: self.file.sidecar(),
            })),
        }
    }

    fn policy(&self) -> Policy {
        rustup_policy(freshness(&self.file), 8 << 30, "application/octet-stream")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    /// The listing is a sidecar or a manifest: rustup itself believes the manifest alone.
    fn resolve(&self, listing: &[u8]) -> Result<Resource, Unlisted> {
        let in_manifest = || {
            let manifest = std::str::from_utf8(listing).ok()?;
            Sha256::parse(toolchain::find_archive(manifest, &self.file.path)?.sha256)
        };
        let checksum = Some(
            sidecar_sha256(listing)
                .or_else(in_manifest)
                .ok_or(Unlisted)?,
        );
        Ok(Arc::new(Self {
            checksum,
            ..self.clone()
        }))
    }

    fn listings(&self) -> Vec<Resource> {
        let paths = manifest_paths(&self.file.path);
        let of_path = |path: &String| manifest(&self.file.dist, path);
        paths.iter().filter_map(of_path).collect()
    }
}

/// The manifests that may list a component, by their paths; a component lies in a dated folder and has its channel or its
/// full version in its name (`rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz`).
fn manifest_paths(path: &str) -> Vec<String> {
    let mut segments = path.split('/');
    let (Some("dist"), Some(date), Some(name), None) = (
        segments.next(),
        segments.next().filter(|date| toolchain::is_date(date)),
        segments.next(),
        segments.next(),
    ) else {
        return Vec::new();
    };
    let stem = name.split_once(".tar.").map_or(name, |(stem, _)| stem);
    let is_version = |part: &&str| {
        part.split('.').count() == 3
            && part
                .split('.')
                .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let names = match stem
        .split('-')
        .find(|part| matches!(*part, "nightly" | "beta") || is_version(part))
    {
        Some(channel @ ("nightly" | "beta")) => {
            vec![channel.to_owned(), format!("{date}/{channel}")]
        }
        Some(version) => {
            let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
            let stable = ["stable", version, minor].map(str::to_owned);
            [&stable[..], &[format!("{date}/stable")]].concat()
        }
        None => Vec::new(),
    };
    let path = |name: &String| match name.rsplit_once('/') {
        Some((date, channel)) => format!("dist/{date}/channel-rust-{channel}.toml"),
        None => format!("dist/channel-rust-{name}.toml"),
    };
    names.iter().map(path).collect()
}

/// The script that installs rustup.
#[derive(Debug, PartialEq, Eq)]
struct BootstrapScript {
    file: DistPath,
}

impl fmt::Display for BootstrapScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("script `rustup-init.sh`")
    }
}

impl Kind for BootstrapScript {
    fn location(&self) -> Location {
        Location::Entry(self.file.key())
    }

    fn policy(&self) -> Policy {
        rustup_policy(Freshness::AsUpstreamSays, 1 << 20, "text/x-shellscript")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), String> {
        if body.starts_with(b"#!/") {
            Ok(())
        } else {
            Err("is not a shell script".to_owned())
        }
    }
}

/// What keeps upstream's script from speaking http, in both places where it calls curl (rustup, `rustup-init.sh`,
/// `downloader`).
const HTTPS_ONLY_OPTION: &str = "--proto '=https' ";
/// How many such places there are.
const HTTPS_ONLY_COUNT: usize = 2;

/// Upstream's script for a client that reached larder at `base` (ends in `/`): may speak http, and takes everything from
/// here unless the caller's variables say otherwise.
///
/// # Errors
/// Upstream's text is not as expected, so that the edit would make a script that works by half.
pub fn script_for_client(script: &[u8], base: &str) -> Result<Bytes, String> {
    let text = std::str::from_utf8(script).map_err(|_| "it is not UTF-8".to_owned())?;
    let places = text.matches(HTTPS_ONLY_OPTION).count();
    if places != HTTPS_ONLY_COUNT {
        return Err(format!(
            "it insists on https in {places} places, and {HTTPS_ONLY_COUNT} were expected"
        ));
    }
    let (interpreter, rest) = text.split_once('\n').ok_or("it has one line only")?;
    let base = base.trim_end_matches('/');
    let edited = format!(
        "{interpreter}\n\
         # Served by larder: the curl options that insist on https are gone, and these two lines are new.\n\
         export RUSTUP_UPDATE_ROOT=\"${{RUSTUP_UPDATE_ROOT:-{base}/rustup}}\"\n\
         export RUSTUP_DIST_SERVER=\"${{RUSTUP_DIST_SERVER:-{base}}}\"\n"
    );
    Ok(Bytes::from(edited + &rest.replace(HTTPS_ONLY_OPTION, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist() -> Arc<Dist> {
        let url = |text| Url::parse(text).unwrap();
        Dist::new(
            url("http://d.example/"),
            url("http://u.example/rustup/"),
            ArchiveFormat::Upstream,
        )
    }

    /// Path, place, address, whether it is kept for ever.
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
            "rustup/archive/1.29.0/x86_64-unknown-linux-gnu/rustup-init",
        ] {
            assert_eq!(forever(path), Freshness::Forever, "{path}");
        }
        for path in [
            "dist/channel-rust-nightly.toml",
            "dist/channel-rust-1.95.toml",
            "dist/channel-rust-stable",
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
    fn component_is_looked_up_in_manifests_of_its_channel_and_version() {
        let manifests = |path: &str| manifest_paths(path).join(" ");
        let x = "x86_64-unknown-linux-gnu";
        assert_eq!(
            manifests(&format!("dist/2026-04-16/rust-std-1.95.0-{x}.tar.xz")),
            "dist/channel-rust-stable.toml dist/channel-rust-1.95.0.toml dist/channel-rust-1.95.toml \
             dist/2026-04-16/channel-rust-stable.toml"
        );
        assert_eq!(
            manifests("dist/2026-04-16/rust-src-nightly.tar.gz"),
            "dist/channel-rust-nightly.toml dist/2026-04-16/channel-rust-nightly.toml"
        );
        assert_eq!(
            manifests(&format!("dist/2026-04-16/rustc-beta-{x}.tar.xz")),
            "dist/channel-rust-beta.toml dist/2026-04-16/channel-rust-beta.toml"
        );
        for path in [
            "dist/rust-1.7.0-x.tar.gz",
            "rustup/dist/x/rustup-init",
            "dist/2026-04-16/x/rustc-nightly-x.tar.gz",
            "dist/2026-04-16/thing.tar.gz",
        ] {
            assert_eq!(manifests(path), "", "{path}");
        }
    }

    fn stable(format: ArchiveFormat) -> ChannelManifest {
        let url = |text| Url::parse(text).unwrap();
        let dist = Dist::new(url("http://d.example/"), url("http://u.example/"), format);
        ChannelManifest {
            file: DistPath {
                dist,
                path: "dist/channel-rust-stable.toml".to_owned(),
            },
            half: Half::Body,
        }
    }

    const MANIFEST: &str = include_str!("../../fixtures/channel-rust-stable.toml");

    /// The profiles that the asking for this file leads to, as the names of packages.
    #[track_caller]
    fn check_profile_downloads(
        asked: &str,
        format: ArchiveFormat,
        ending: &str,
        expected: &[&str],
    ) {
        let path = format!("dist/2026-04-16/{asked}");
        let asked = toolchain::find_archive(MANIFEST, &path).unwrap().sha256;
        let body = Bytes::from(MANIFEST.replace("https://dist.example/", DEFAULT_DIST_SERVER));
        let profiles = stable(format).profile_downloads(&body, Sha256::parse(asked).unwrap());
        let profiles: Vec<_> = profiles
            .iter()
            .map(|downloads| {
                let names: Vec<_> = downloads
                    .iter()
                    .map(|file| {
                        let name = file.to_string();
                        let (_, name) = name.split_once("/2026-04-16/").unwrap();
                        assert!(matches!(file.location(), Location::Blob(_)));
                        // Of one component, there is no other archive.
                        assert!(
                            name.contains(ending) || name.starts_with("rustfmt"),
                            "{name}"
                        );
                        name.split("-1.").next().unwrap().to_owned()
                    })
                    .collect();
                names.join(" ")
            })
            .collect();
        assert_eq!(profiles, expected);
    }

    #[test]
    fn component_request_predicts_the_profiles_of_its_host() {
        let linux = "x86_64-unknown-linux-gnu.tar";
        let profiles = [
            "cargo rust-std rustc",
            "cargo clippy rust-docs rust-std rustc rustfmt",
        ];
        let (cargo_xz, cargo_gz) = (
            format!("cargo-1.95.0-{linux}.xz"),
            format!("cargo-1.95.0-{linux}.gz"),
        );
        check_profile_downloads(&cargo_gz, ArchiveFormat::Gz, ".tar.gz", &profiles);
        check_profile_downloads(&cargo_xz, ArchiveFormat::Gz, ".tar.gz", &profiles);
        check_profile_downloads(&cargo_xz, ArchiveFormat::Upstream, linux, &profiles);
        // clippy is not available there, and without it rustup does not install the default profile.
        let windows = "rustc-1.95.0-x86_64-pc-windows-gnu.tar.xz";
        let minimal = ["cargo rust-mingw rust-std rustc"];
        check_profile_downloads(windows, ArchiveFormat::Upstream, ".tar.", &minimal);
        for no_host in [
            "rust-src-1.95.0.tar.xz",
            "rust-std-1.95.0-wasm32-unknown-unknown.tar.xz",
        ] {
            check_profile_downloads(no_host, ArchiveFormat::Upstream, "", &[]);
        }
    }

    #[test]
    fn component_is_resolved_by_sidecar_or_manifest_only() {
        let path = "dist/2026-04-16/cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz";
        let resource = parse(&dist(), &path.split('/').collect::<Vec<_>>()).unwrap();
        let sum = |listing: &str| {
            let complete = resource.resolve(listing.as_bytes()).ok()?;
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

    #[test]
    fn sidecar_must_begin_with_64_hex_digits() {
        let sum = "a".repeat(64);
        assert!(sidecar_sha256(format!("{sum}  file\n").as_bytes()).is_some());
        assert!(sidecar_sha256(&sum.as_bytes()[..63]).is_none());
        assert!(sidecar_sha256(b"<html>").is_none());
    }

    #[test]
    fn bootstrap_script_is_edited_in_exactly_two_places_or_refused() {
        let upstream = "#!/bin/sh\ncurl --proto '=https' --tlsv1.2 a\ncurl --proto '=https' b\n";
        let served = script_for_client(upstream.as_bytes(), "http://127.0.0.1:3263/").unwrap();
        let served = std::str::from_utf8(&served).unwrap();
        assert!(served.starts_with("#!/bin/sh\n"));
        assert!(served.contains("${RUSTUP_UPDATE_ROOT:-http://127.0.0.1:3263/rustup}"));
        assert!(served.contains("${RUSTUP_DIST_SERVER:-http://127.0.0.1:3263}"));
        assert!(served.ends_with("curl --tlsv1.2 a\ncurl b\n"));
        assert!(script_for_client(b"#!/bin/sh\ncurl --proto '=https' a\n", "http://x/").is_err());
    }

    #[test]
    fn gzip_only_manifest_drops_other_formats_and_nothing_else() {
        let manifest = "a = 1\n[t]\nurl = \"x.gz\"\nhash = \"1\"\nxz_url = \"x.xz\"\nxz_hash = \"2\"\nend = 1\n";
        assert_eq!(
            gzip_only(manifest.as_bytes()).unwrap(),
            "a = 1\n[t]\nurl = \"x.gz\"\nhash = \"1\"\nend = 1\n"
        );
        assert_eq!(gzip_only(b"t = { xz_url = \"x\" }\n"), None);
    }
}
