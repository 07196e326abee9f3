//! [`ChannelManifest`] and [`Archive`]: the manifest of a release channel, and the archives that manifests list.
//!
//! The two kinds stand in one file because each names the other. A manifest names the archives of an install profile,
//! which larder prefetches. An archive names the manifests that may list its hash.
//!
//! ```text
//!  archive requested ──> hash in the request? no ──> manifests of its channel, then its sidecar ──> blob
//!       │
//!       └─> manifest that lists it ──> host ──> profiles `minimal`, `default` ──> archives rustup asks for next
//! ```

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    path::{
        ArchiveFormat, DEFAULT_DIST_SERVER, Dist, DistPath, channel, names_version, rustup_policy,
    },
    sidecar::{Sidecar, sidecar_sha256},
    unproven::UnprovenFile,
};
use crate::{
    hash::Sha256,
    resource::{
        Absence, Freshness, Half, InstallProfiles, InvalidBody, Key, Kind, Listed, Location,
        Policy, Releases, Resource, Source, Unlisted, Views,
    },
    toolchain,
};

/// The manifest at a path like `dist/channel-rust-stable.toml`. `None` if the path does not name a manifest.
pub fn manifest(dist: &Arc<Dist>, path: &str) -> Option<Resource> {
    let segments: Vec<_> = path.split('/').collect();
    let file = DistPath::new(dist, &segments)?;
    channel(file.name())?;
    Some(Arc::new(ChannelManifest {
        file,
        half: Half::Body,
    }))
}

/// The archive that a manifest lists with this URL and hash. `None` if rustup would not ask larder for the URL: it asks
/// the configured server only for URLs that begin with [`DEFAULT_DIST_SERVER`] (docs/client-behaviour.md R-01).
pub fn archive(dist: &Arc<Dist>, url: &str, checksum: Sha256) -> Option<Resource> {
    let segments: Vec<_> = url.strip_prefix(DEFAULT_DIST_SERVER)?.split('/').collect();
    Some(Arc::new(Archive {
        file: DistPath::new(dist, &segments)?,
        checksum: Some(checksum),
    }))
}

/// The program `rustup-init` for a host, at the path that the bootstrap script uses. `None` if `host` cannot be a
/// triple.
pub fn installer(dist: &Arc<Dist>, host: &str) -> Option<Resource> {
    program(dist, &["rustup", "dist", host])
}

/// The program `rustup-init` of one version for a host, at the path that rustup's self-update uses
/// (docs/client-behaviour.md R-22). Its sidecar has the hash of [`installer`] if that is of the same version, so both
/// are one blob. `None` if `host` cannot be a triple, or `version` cannot be part of a path.
pub fn self_update(dist: &Arc<Dist>, version: &str, host: &str) -> Option<Resource> {
    program(dist, &["rustup", "archive", version, host])
}

/// The program `rustup-init` in this folder, whose last segment is a host triple.
fn program(dist: &Arc<Dist>, folder: &[&str]) -> Option<Resource> {
    let is_windows = folder.last().is_some_and(|host| host.contains("-windows-"));
    let name = if is_windows {
        "rustup-init.exe"
    } else {
        "rustup-init"
    };
    Some(Arc::new(Archive {
        file: DistPath::new(dist, &[folder, &[name]].concat())?,
        checksum: None,
    }))
}

/// Time from the beginning of a day until no release of that day appears any more, in any time zone.
const LATEST_RELEASE: Duration = Duration::from_secs(48 * 60 * 60);

/// The manifest of a channel, or its sidecar. Both are halves of one entry and always of one generation, because rustup
/// asks for the hash first and refuses a manifest with another hash (docs/client-behaviour.md R-02).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChannelManifest {
    pub(super) file: DistPath,
    pub(super) half: Half,
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
        rustup_policy(self.file.freshness(), 64 << 20, "text/plain")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        // The sidecar's hash verifies the body, but a broken server may offer an empty file with the matching hash.
        if body.is_empty() {
            Err(InvalidBody::Empty)
        } else {
            Ok(())
        }
    }

    fn views(&self) -> Option<&dyn Views> {
        Some(self)
    }

    fn install_profiles(&self) -> Option<&dyn InstallProfiles> {
        Some(self)
    }

    /// No nightly appears for a day that is over.
    fn absence(&self) -> Option<Absence> {
        let (folder, name) = self.file.path.rsplit_once('/')?;
        let date = folder.strip_prefix("dist/")?;
        let legacy = name.strip_suffix(".toml");
        Some(Absence {
            key: Key::new(&["rustup", "absent", &self.file.path]),
            final_from: toolchain::midnight(date)?.checked_add(LATEST_RELEASE)?,
            // The manifest of rustup's early days, which rustup asks for next.
            fallback: legacy
                .and_then(|name| manifest(&self.file.dist, &format!("{folder}/{name}"))),
        })
    }

    fn releases(&self) -> Option<&dyn Releases> {
        (self.file.freshness() != Freshness::Forever).then_some(self as &dyn Releases)
    }
}

impl Views for ChannelManifest {
    fn client_view(&self, body: &Bytes) -> Option<Bytes> {
        match self.file.dist.format {
            ArchiveFormat::Upstream => None,
            ArchiveFormat::Gz => gzip_only(body),
        }
    }
}

/// The archive that a manifest lists under this hash. The line before the hash gives its address.
pub fn archive_of_hash(dist: &Arc<Dist>, manifest: &[u8], sha256: Sha256) -> Option<Resource> {
    let text = std::str::from_utf8(manifest).ok()?;
    let at = text.find(&format!("hash = \"{sha256}\""))?;
    let (before, _) = text[..at].rsplit_once('\n')?;
    let line = before.rsplit('\n').next()?.trim();
    let (field, url) = line.split_once(" = \"")?;
    let url = field
        .ends_with("url")
        .then(|| url.strip_suffix('"'))
        .flatten()?;
    archive(dist, url, sha256)
}

impl Releases for ChannelManifest {
    fn folder(&self) -> Key {
        Key::new(&["rustup", "dist"])
    }

    /// Releases are named by their date. Upstream has most of these manifests too.
    fn of_name(&self, name: &str) -> Option<Resource> {
        let path = format!("dist/{name}/{}", self.file.name());
        toolchain::is_date(name)
            .then(|| manifest(&self.file.dist, &path))
            .flatten()
    }

    fn of_body(&self, body: &[u8]) -> Option<Resource> {
        let date = toolchain::date(std::str::from_utf8(body).ok()?).ok()?;
        self.of_name(&date)
    }

    /// The dated manifest and, of a release with a version, the manifests of its versions.
    fn other_names(&self, body: &[u8]) -> Vec<Resource> {
        let text = std::str::from_utf8(body).unwrap_or_default();
        // A nightly has the version of the stable release that it may become.
        let version = toolchain::version(text).filter(|version| !version.ends_with("-nightly"));
        let moving = version.and_then(|version| match version.split_once("-beta") {
            Some((base, _)) => Some(format!("{base}-beta")),
            None => version.rsplit_once('.').map(|(minor, _)| minor.to_owned()),
        });
        let versions = version.map(str::to_owned).into_iter().chain(moving);
        let paths = versions.map(|version| format!("dist/channel-rust-{version}.toml"));
        let others = paths.filter(|path| *path != self.file.path);
        let others = others.filter_map(|path| manifest(&self.file.dist, &path));
        self.of_body(body).into_iter().chain(others).collect()
    }

    fn sort_newest_first(&self, names: &mut [String]) {
        names.sort_unstable_by(|one, other| other.cmp(one));
    }

    fn parts(&self, body: &Bytes) -> BTreeMap<String, Sha256> {
        let client_view = self.client_view(body);
        let text = String::from_utf8_lossy(client_view.as_deref().unwrap_or(body));
        let archives = toolchain::preferred_archives(&text).into_iter();
        archives
            .filter_map(|(name, sha256)| Some((name, Sha256::parse(sha256)?)))
            .collect()
    }
}

impl InstallProfiles for ChannelManifest {
    fn profile_downloads(&self, body: &Bytes, requested: Sha256) -> Vec<Vec<Resource>> {
        let Ok(text) = std::str::from_utf8(body) else {
            return Vec::new();
        };
        let Some(host) = toolchain::target_of_archive(text, &requested.to_string()) else {
            return Vec::new();
        };
        let client_view = self.client_view(body);
        let text = client_view.as_deref().map_or(Ok(text), std::str::from_utf8);
        let text = text.unwrap_or_default();
        let mut profiles: Vec<Vec<Resource>> = Vec::new();
        for profile in PREFETCHED_PROFILES {
            // A target that is not a host has no profiles. A profile that lacks a component cannot be installed.
            let Ok(files) = toolchain::files(text, host, profile, &[], &[]) else {
                continue;
            };
            let downloads = files.iter().map(|file| self.component(file));
            profiles.extend(downloads.collect::<Option<_>>());
        }
        profiles
    }
}

/// The profiles whose downloads are predicted, the smaller first. rustup also has `complete` (`Profile` in its
/// `src/dist/mod.rs`), but its documentation advises against it.
const PREFETCHED_PROFILES: [&str; 2] = ["minimal", "default"];

impl ChannelManifest {
    /// The archive of one component, if rustup would ask larder for it.
    fn component(&self, file: &toolchain::DistFile) -> Option<Resource> {
        let sum = Sha256::parse(&file.sha256)?;
        archive(&self.file.dist, &file.url, sum)
    }
}

/// The manifest without the xz and zst archives, which rustup would prefer (docs/client-behaviour.md R-17). `None` if
/// these fields do not each stand on a line of their own.
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
    let remaining: String = text
        .split_inclusive('\n')
        .filter(|line| !is_other(line))
        .collect();
    Some(Bytes::from(remaining))
}

/// An archive of a component, the program `rustup-init`, or any other file with a sidecar beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) file: DistPath,
    /// The hash, if a manifest or a sidecar gave it.
    pub(super) checksum: Option<Sha256>,
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if is_program(&self.file) {
            "installer"
        } else if self.file.name().contains(".tar.") && !self.file.name().ends_with(".asc") {
            "component"
        } else {
            "file"
        };
        write!(f, "{noun} `{}`", self.file.path)
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
        rustup_policy(self.file.freshness(), 8 << 30, "application/octet-stream")
    }

    fn source(&self) -> Source {
        Source::At(self.file.url())
    }

    fn listed(&self) -> Option<&dyn Listed> {
        Some(self)
    }
}

impl Listed for Archive {
    /// The listing is a sidecar or a manifest. rustup itself verifies components with the manifest's hash.
    fn resolve(&self, listing: &[u8]) -> Result<Resource, Unlisted> {
        let in_manifest = || {
            let manifest = std::str::from_utf8(listing).ok()?;
            Sha256::parse(toolchain::find_archive(manifest, self.listed_path())?.sha256)
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

    /// rustup and its script do not verify programs (docs/client-behaviour.md R-20), so larder must.
    fn unproven(&self) -> Option<Resource> {
        (!is_program(&self.file)).then(|| {
            let (file, title) = (self.file.clone(), self.to_string());
            Arc::new(UnprovenFile { file, title }) as Resource
        })
    }
}

impl Archive {
    /// The end of its URL in manifests. They list a release's files in its dated folder. Outside of such a folder only
    /// files with a full version in their name have listings, and that name is the same in the folder.
    fn listed_path(&self) -> &str {
        match dated_folder(&self.file.path) {
            Some(_) => &self.file.path,
            None => self.file.name(),
        }
    }
}

/// Tells if a file is the program `rustup-init` of some host.
fn is_program(file: &DistPath) -> bool {
    file.path.starts_with("rustup/") && matches!(file.name(), "rustup-init" | "rustup-init.exe")
}

/// The date of the folder of a file directly in it.
fn dated_folder(path: &str) -> Option<&str> {
    let (date, name) = path.strip_prefix("dist/")?.split_once('/')?;
    (toolchain::is_date(date) && !name.contains('/')).then_some(date)
}

/// The paths of the manifests that may list a component. The component's path has a dated folder, and the channel or
/// the full version in its file name: `dist/2026-04-16/rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz`. With a full
/// version the dated folder may be missing.
fn manifest_paths(path: &str) -> Vec<String> {
    let date = dated_folder(path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_undated = path.strip_prefix("dist/") == Some(name) && names_version(name);
    if date.is_none() && !is_undated || name.ends_with(".asc") {
        return Vec::new();
    }
    let stem = name.split_once(".tar.").map_or(name, |(stem, _)| stem);
    let is_version = |part: &&str| {
        part.split('.').count() == 3
            && part
                .split('.')
                .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let names = match (
        stem.split('-')
            .find(|part| matches!(*part, "nightly" | "beta") || is_version(part)),
        date,
    ) {
        (Some(channel @ ("nightly" | "beta")), Some(date)) => {
            vec![channel.to_owned(), format!("{date}/{channel}")]
        }
        (Some(version), Some(date)) => {
            let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
            let stable = ["stable", version, minor].map(str::to_owned);
            // The older releases of the names that change.
            let older = [minor, "stable"].map(|name| format!("{date}/{name}"));
            [stable.as_slice(), &older].concat()
        }
        (Some(version), None) => ["stable", version].map(str::to_owned).to_vec(),
        (None, _) => Vec::new(),
    };
    let path = |name: &String| match name.rsplit_once('/') {
        Some((date, channel)) => format!("dist/{date}/channel-rust-{channel}.toml"),
        None => format!("dist/channel-rust-{name}.toml"),
    };
    names.iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn component_is_looked_up_in_manifests_of_its_channel_and_version() {
        let manifests = |path: &str| manifest_paths(path).join(" ");
        let x = "x86_64-unknown-linux-gnu";
        assert_eq!(
            manifests(&format!("dist/2026-04-16/rust-std-1.95.0-{x}.tar.xz")),
            "dist/channel-rust-stable.toml dist/channel-rust-1.95.0.toml dist/channel-rust-1.95.toml \
             dist/2026-04-16/channel-rust-1.95.toml dist/2026-04-16/channel-rust-stable.toml"
        );
        assert_eq!(
            manifests("dist/2026-04-16/rust-src-nightly.tar.gz"),
            "dist/channel-rust-nightly.toml dist/2026-04-16/channel-rust-nightly.toml"
        );
        assert_eq!(
            manifests(&format!("dist/2026-04-16/rustc-beta-{x}.tar.xz")),
            "dist/channel-rust-beta.toml dist/2026-04-16/channel-rust-beta.toml"
        );
        assert_eq!(
            manifests("dist/rustc-1.95.0-src.tar.xz"),
            "dist/channel-rust-stable.toml dist/channel-rust-1.95.0.toml"
        );
        for path in [
            "dist/rust-nightly-x.tar.gz",
            "dist/x/rust-1.7.0-x.tar.gz",
            "dist/2026-04-16/rustc-1.95.0-src.tar.xz.asc",
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

    const MANIFEST: &str = include_str!("../../../fixtures/channel-rust-stable.toml");

    /// Compares the profiles that a request for this file predicts, as package names.
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
                        // One component has no archive in another format.
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
        // The release has no clippy for this host, so rustup cannot install the default profile.
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
    fn gzip_only_manifest_drops_other_formats_and_nothing_else() {
        let manifest = "a = 1\n[t]\nurl = \"x.gz\"\nhash = \"1\"\nxz_url = \"x.xz\"\nxz_hash = \"2\"\nend = 1\n";
        assert_eq!(
            gzip_only(manifest.as_bytes()).unwrap(),
            "a = 1\n[t]\nurl = \"x.gz\"\nhash = \"1\"\nend = 1\n"
        );
        assert_eq!(gzip_only(b"t = { xz_url = \"x\" }\n"), None);
    }
}
