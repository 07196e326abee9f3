//! Release manifests: which archives rustup would download for an install.
//!
//! ```text
//!  manifest-version = "2"                         header: date
//!  date = "2026-04-16"
//!  [pkg.rust.target.HOST]                         components and extensions that exist for this host
//!  components = [{ pkg = "rustc", target = "HOST" }, ...]
//!  [pkg.rustc.target.HOST]                        one archive in up to three formats
//!  available = true
//!  xz_url = "https://.../rustc-1.95.0-HOST.tar.xz"
//!  xz_hash = "..."
//!  [renames.clippy]                               the user's name of a component -> its package
//!  to = "clippy-preview"
//!  [profiles]                                     the components of each profile
//!  minimal = ["rustc", "cargo", "rust-std", "rust-mingw"]
//! ```
//!
//! [`files`] follows rustup step by step (docs/client-behaviour.md R-16, R-17): the components of the profile, then
//! those named in addition, then `rust-std` for each further target, each in the preferred format.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    archives::{is_sha256, package_and_target},
    channel::is_date,
    profile::canonical_profile,
};

/// One archive of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistFile {
    /// As written: below the official server, whichever server the manifest came from.
    pub url: String,
    /// The SHA-256 of the archive: 64 lower-case hex digits.
    pub sha256: String,
    /// The name of the package, not the user's: `clippy-preview`, not `clippy`.
    pub package: String,
    /// The target triple, or `*` for an archive that serves all targets.
    pub target: String,
}

impl DistFile {
    /// `true` for the sources of the standard library, from which `-Zbuild-std` builds it.
    pub fn is_rust_src(&self) -> bool {
        self.package == "rust-src"
    }
}

/// A manifest that cannot be read, or that lacks something the install needs.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or TOML of another structure.
    #[error("it is no valid release manifest: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A format that rustup 1.29 refuses too.
    #[error("its format is version `{0}`, larder knows version 2")]
    NewerVersion(String),
    /// The date is malformed. It would become part of URLs.
    #[error("its date `{0}` is no date")]
    BadDate(String),
    /// The release has no toolchain for this host.
    #[error("it has no toolchain for the host `{0}`")]
    UnknownHost(String),
    /// rustup or this release has no such profile.
    #[error("it has no profile `{0}`")]
    UnknownProfile(String),
    /// The release lacks these components for this host, written as `name` or `name for triple`. For an undated nightly
    /// rustup then tries the day before.
    #[error("not available in this release: {}", .0.join(", "))]
    Unavailable(Vec<String>),
    /// The hash of an archive is malformed, so the archive could not be verified.
    #[error("the sha256 of `{url}` is `{sha256}`, which is no sha256")]
    BadSha256 {
        /// The URL of the archive.
        url: String,
        /// The malformed hash.
        sha256: String,
    },
}

/// The date of a release, `YYYY-MM-DD`. Reads only the header, up to the first table.
///
/// # Errors
/// The text does not begin like a manifest.
pub fn date(manifest: &str) -> Result<String, ManifestError> {
    let mut end = 0;
    for line in manifest.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            break;
        }
        end += line.len();
    }
    let header: ManifestHeader = toml::from_str(&manifest[..end])?;
    header.check()?;
    Ok(header.date)
}

/// The version of the release, `1.95.0` or `1.96.0-beta.3`, as the names of manifests spell it. `None` if the
/// manifest is written in another form than releases are.
pub fn version(manifest: &str) -> Option<&str> {
    let (_, table) = manifest.split_once("\n[pkg.rust]\n")?;
    let line = table.lines().take_while(|line| !line.starts_with('['));
    let mut versions = line.filter_map(|line| line.strip_prefix("version = \""));
    // After the version stand the commit and its date.
    versions.next()?.split(['"', ' ']).next()
}

/// A text that is the same for two manifests only if rustup takes them for one release in the same archive formats: its
/// date, version and formats. `None` if the manifest is written in another form than releases are.
pub(super) fn release_of(manifest: &str) -> Option<String> {
    let (_, table) = manifest.split_once("\n[pkg.rust]\n")?;
    let version = table
        .lines()
        .find_map(|line| line.strip_prefix("version = "))?;
    let has = |field: &str| manifest.contains(field);
    let formats = [has("\nxz_hash = "), has("\nzst_hash = ")];
    Some(format!("{} {version} {formats:?}", date(manifest).ok()?))
}

/// The archive of a package for a target, if it is available; `package` may be a name of an older release.
///
/// # Errors
/// The hash of the archive is malformed.
pub(super) fn available_file(
    manifest: &ReleaseManifest,
    package: &str,
    target: Option<&str>,
) -> Result<Option<DistFile>, ManifestError> {
    let package = manifest.renamed(package).unwrap_or(package);
    let archive = manifest.package(package, target);
    let Some((url, sha256)) = archive.and_then(PackageTarget::archive) else {
        return Ok(None);
    };
    Ok(Some(DistFile {
        url: url.to_owned(),
        sha256: checked_sha256(url, sha256)?,
        package: package.to_owned(),
        target: target.unwrap_or("*").to_owned(),
    }))
}

/// The archives that `rustup toolchain install` would download into an empty home, in rustup's order: sorted by
/// package, then by target.
///
/// Follows `try_update_from_dist_` in `src/dist/mod.rs`, `Manifest::get_profile_components` and `Manifest::binary` in
/// `src/dist/manifest.rs` and `Update::unavailable_components` in `src/dist/manifestation.rs`. `components` may
/// contain the users' names (`clippy`) or names of packages (`clippy-preview`). Tables of other targets are not read,
/// so mistakes there pass that rustup's `Manifest::validate` would report.
///
/// # Errors
/// rustup would refuse the install: no such host or profile, or a requested component is not available.
pub fn files(
    manifest: &str,
    host: &str,
    profile: &str,
    components: &[String],
    targets: &[String],
) -> Result<Vec<DistFile>, ManifestError> {
    let manifest = parse_manifest(manifest, host, targets)?;
    let for_host = manifest.for_host(host)?;
    let listed = for_host.listed();

    // The derived order of this tuple is rustup's: by package, then by target, none first.
    let mut chosen: Vec<ComponentId<'_>> = Vec::new();
    if manifest.profiles.is_empty() {
        let essential = for_host.components.iter().filter(|c| c.is_for(host));
        chosen.extend(essential.map(|c| (c.pkg.as_str(), c.target())));
    } else {
        let names = canonical_profile(profile).and_then(|profile| manifest.profiles.get(profile));
        let names = names.ok_or_else(|| ManifestError::UnknownProfile(profile.to_owned()))?;
        for name in names {
            let found = listed.iter().find(|c| &c.pkg == name && c.is_for(host));
            chosen.extend(found.map(|c| (name.as_str(), c.target())));
        }
    }
    chosen.extend(manifest.requested(host, components, targets)?);
    chosen.sort_unstable();
    chosen.dedup();

    let mut found = Vec::with_capacity(chosen.len());
    let mut unavailable = Vec::new();
    for (package, target) in chosen {
        match available_file(&manifest, package, target)? {
            Some(file) => found.push(file),
            None => unavailable.push(manifest.description(package, target, host)),
        }
    }
    if unavailable.is_empty() {
        Ok(found)
    } else {
        Err(ManifestError::Unavailable(unavailable))
    }
}

/// Checks the form of a hash.
fn checked_sha256(url: &str, sha256: &str) -> Result<String, ManifestError> {
    is_sha256(sha256)
        .then(|| sha256.to_owned())
        .ok_or_else(|| ManifestError::BadSha256 {
            url: url.to_owned(),
            sha256: sha256.to_owned(),
        })
}

/// Parses the tables of this host and these targets.
///
/// Nearly all of the megabyte is for other targets. Skipping those tables as text is many times faster than parsing
/// them. If that leaves no valid TOML, because the manifest is spelled otherwise, the whole is parsed.
pub(super) fn parse_manifest(
    manifest: &str,
    host: &str,
    targets: &[String],
) -> Result<ReleaseManifest, ManifestError> {
    let is_requested = |package: &str, target: &str| {
        let is_further_target = targets.iter().any(|requested| requested == target);
        target == host || target == "*" || (package != "rust" && is_further_target)
    };
    let mut relevant = String::with_capacity(64 * 1024);
    let mut is_relevant = true;
    for line in manifest.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            is_relevant = package_and_target(line)
                .is_none_or(|(package, target)| is_requested(package, target));
        }
        if is_relevant {
            relevant.push_str(line);
        }
    }
    let parsed = match toml::from_str::<ReleaseManifest>(&relevant) {
        Ok(parsed) => parsed,
        // The whole text also gives an error with the right line number.
        Err(_) => toml::from_str(manifest)?,
    };
    parsed.header.check()?;
    Ok(parsed)
}

/// The fields before the first table.
#[derive(Deserialize)]
struct ManifestHeader {
    #[serde(rename = "manifest-version")]
    version: String,
    date: String,
}

impl ManifestHeader {
    /// Checks version and date.
    fn check(&self) -> Result<(), ManifestError> {
        if self.version != "2" {
            return Err(ManifestError::NewerVersion(self.version.clone()));
        }
        if !is_date(&self.date) {
            return Err(ManifestError::BadDate(self.date.clone()));
        }
        Ok(())
    }
}

/// The tables that larder reads.
#[derive(Deserialize)]
pub(super) struct ReleaseManifest {
    #[serde(flatten)]
    header: ManifestHeader,
    #[serde(default)]
    pkg: BTreeMap<String, ManifestPackage>,
    #[serde(default)]
    renames: BTreeMap<String, PackageRename>,
    #[serde(default)]
    profiles: BTreeMap<String, Vec<String>>,
}

/// `[pkg.NAME]`.
#[derive(Deserialize)]
struct ManifestPackage {
    /// Empty if all targets of the package were skipped.
    #[serde(default)]
    target: BTreeMap<String, PackageTarget>,
}

/// `[pkg.NAME.target.TRIPLE]`: the archive of a package for one target.
#[derive(Deserialize)]
struct PackageTarget {
    available: bool,
    url: Option<String>,
    hash: Option<String>,
    xz_url: Option<String>,
    xz_hash: Option<String>,
    zst_url: Option<String>,
    zst_hash: Option<String>,
    #[serde(default)]
    components: Vec<ComponentRef>,
    #[serde(default)]
    extensions: Vec<ComponentRef>,
}

/// A component of a toolchain: a package, and its target unless it serves all.
#[derive(Deserialize)]
struct ComponentRef {
    pkg: String,
    target: Option<String>,
}

/// `[renames.NAME]`.
#[derive(Deserialize)]
pub(super) struct PackageRename {
    pub(super) to: String,
}

/// Package and target of a component; no target if the package serves all.
pub(super) type ComponentId<'a> = (&'a str, Option<&'a str>);

impl ReleaseManifest {
    /// The release's own table for a host.
    ///
    /// # Errors
    /// The release has no toolchain for this host.
    fn for_host(&self, host: &str) -> Result<&PackageTarget, ManifestError> {
        let table = self.package("rust", Some(host));
        table.ok_or_else(|| ManifestError::UnknownHost(host.to_owned()))
    }

    /// The components that a toolchain file or a command names, beyond those of a profile.
    ///
    /// # Errors
    /// The release has no toolchain for this host.
    pub(super) fn requested<'a>(
        &'a self,
        host: &'a str,
        components: &'a [String],
        targets: &'a [String],
    ) -> Result<Vec<ComponentId<'a>>, ManifestError> {
        let listed = self.for_host(host)?.listed();
        let named = components.iter().map(|name| {
            let name = self.renamed(name).unwrap_or(name);
            let first = listed.iter().find(|c| c.pkg == name);
            let is_for_all = first.is_some_and(|c| c.target().is_none());
            (name, (!is_for_all).then_some(host))
        });
        let libraries = targets
            .iter()
            .map(|target| ("rust-std", Some(target.as_str())));
        Ok(named.chain(libraries).collect())
    }

    /// The component by which an update to this release replaces an installed one; `None` if it has none (`Update::new`
    /// in rustup's `src/dist/manifestation.rs`).
    ///
    /// # Errors
    /// The release has no toolchain for this host.
    pub(super) fn successor<'a>(
        &'a self,
        (package, target): ComponentId<'a>,
        host: &str,
    ) -> Result<Option<ComponentId<'a>>, ManifestError> {
        let listed = self.for_host(host)?.listed();
        if let Some(renamed) = self.renamed(package) {
            return Ok(Some((renamed, target)));
        }
        let mut of_package = listed.iter().filter(|c| c.pkg == package);
        Ok(if of_package.clone().any(|c| c.target() == target) {
            Some((package, target))
        } else if target.is_none() && of_package.next().is_some() {
            Some((package, None))
        } else {
            None
        })
    }

    /// The package of a name that users write.
    fn renamed(&self, name: &str) -> Option<&str> {
        self.renames.get(name).map(|rename| rename.to.as_str())
    }

    /// The archive of a package for a target: the only one if it serves all targets, else the one of exactly this
    /// target.
    fn package(&self, name: &str, target: Option<&str>) -> Option<&PackageTarget> {
        let targets = &self.pkg.get(name)?.target;
        match (targets.len(), targets.get("*")) {
            (1, Some(for_all)) => Some(for_all),
            _ => targets.get(target?),
        }
    }

    /// A component by the user's name, for messages.
    pub(super) fn description(&self, package: &str, target: Option<&str>, host: &str) -> String {
        let old_name = self.renames.iter().find(|(_, rename)| rename.to == package);
        let name = old_name.map_or(package, |(name, _)| name.as_str());
        match target {
            Some(target) if target != host => format!("{name} for {target}"),
            _ => name.to_owned(),
        }
    }
}

impl PackageTarget {
    /// All components that a toolchain of this release may have.
    fn listed(&self) -> Vec<&ComponentRef> {
        self.components.iter().chain(&self.extensions).collect()
    }

    /// URL and hash in the format that rustup prefers, if the archive is available (docs/client-behaviour.md R-17).
    fn archive(&self) -> Option<(&str, &str)> {
        let formats = [
            (&self.zst_url, &self.zst_hash),
            (&self.xz_url, &self.xz_hash),
            (&self.url, &self.hash),
        ];
        let complete = formats
            .into_iter()
            .find_map(|(url, hash)| Some((url.as_deref()?, hash.as_deref()?)));
        complete.filter(|_| self.available)
    }
}

impl ComponentRef {
    /// The target; `None` if the component serves all.
    fn target(&self) -> Option<&str> {
        self.target.as_deref().filter(|&target| target != "*")
    }

    /// `true` if the component can be installed for `host`.
    fn is_for(&self, host: &str) -> bool {
        self.target().is_none_or(|target| target == host)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::toolchain::{
        find_archive,
        fixture::{LINUX, MANIFEST, THUMB, WASM, WINDOWS, strings},
    };

    /// The file names that would be downloaded.
    #[track_caller]
    fn check(host: &str, profile: &str, components: &[&str], targets: &[&str], names: &[&str]) {
        let files = files(
            MANIFEST,
            host,
            profile,
            &strings(components),
            &strings(targets),
        )
        .unwrap();
        let root = "https://dist.example/dist/2026-04-16/";
        let found: Vec<_> = files
            .iter()
            .map(|file| file.url.strip_prefix(root).unwrap())
            .collect();
        assert_eq!(found, names);
    }

    #[track_caller]
    fn refusal(manifest: &str, host: &str, profile: &str, components: &[&str]) -> String {
        let files = files(manifest, host, profile, &strings(components), &[]);
        files.unwrap_err().to_string()
    }

    #[test]
    fn profile_selects_components_of_the_host() {
        let minimal = [
            "cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "rust-std-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
        ];
        check(LINUX, "minimal", &[], &[], &minimal);
        check(LINUX, "m", &[], &[], &minimal);
        // clippy is also available as zst, rustfmt only as gz.
        let default = [
            "cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "clippy-1.95.0-x86_64-unknown-linux-gnu.tar.zst",
            "rust-docs-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "rust-std-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "rustfmt-1.95.0-x86_64-unknown-linux-gnu.tar.gz",
        ];
        check(LINUX, "default", &[], &[], &default);
        check(LINUX, "", &[], &[], &default);
        let windows = [
            "cargo-1.95.0-x86_64-pc-windows-gnu.tar.xz",
            "rust-mingw-1.95.0-x86_64-pc-windows-gnu.tar.xz",
            "rust-std-1.95.0-x86_64-pc-windows-gnu.tar.xz",
            "rustc-1.95.0-x86_64-pc-windows-gnu.tar.xz",
        ];
        check(WINDOWS, "minimal", &[], &[], &windows);
    }

    #[test]
    fn components_and_targets_are_added_without_duplicates() {
        let all = [
            "cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "clippy-1.95.0-x86_64-unknown-linux-gnu.tar.zst",
            "rust-src-1.95.0.tar.xz",
            "rust-std-1.95.0-thumbv8m.base-none-eabi.tar.gz",
            "rust-std-1.95.0-wasm32-unknown-unknown.tar.xz",
            "rust-std-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "rustc-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
        ];
        let components = ["clippy", "clippy-preview", "rust-src", "cargo"];
        check(
            LINUX,
            "minimal",
            &components,
            &[WASM, LINUX, THUMB, WASM],
            &all,
        );
        let src = files(MANIFEST, LINUX, "minimal", &strings(&["rust-src"]), &[]).unwrap();
        let src = src.iter().find(|file| file.package == "rust-src").unwrap();
        assert_eq!(src.target, "*");
        assert_eq!(src.sha256.len(), 64);
    }

    #[test]
    fn manifest_without_profiles_installs_essential_components() {
        let (old, _) = MANIFEST.split_once("[profiles]").unwrap();
        let files = files(old, WINDOWS, "whatever", &[], &[]).unwrap_err();
        assert_eq!(files.to_string(), "not available in this release: clippy");
        let packages: Vec<_> = super::files(old, LINUX, "minimal", &[], &[])
            .unwrap()
            .into_iter()
            .map(|file| file.package)
            .collect();
        let essential = [
            "cargo",
            "clippy-preview",
            "rust-docs",
            "rust-std",
            "rustc",
            "rustfmt-preview",
        ];
        assert_eq!(packages, essential);
    }

    #[test]
    fn unavailable_components_are_named_in_the_error() {
        let unavailable = |names: &str| format!("not available in this release: {names}");
        assert_eq!(
            refusal(MANIFEST, WINDOWS, "default", &[]),
            unavailable("clippy")
        );
        assert_eq!(
            refusal(
                MANIFEST,
                LINUX,
                "minimal",
                &["llvm-bitcode-linker", "rust-everything"]
            ),
            unavailable("llvm-bitcode-linker, rust-everything")
        );
        let error = files(
            MANIFEST,
            LINUX,
            "minimal",
            &[],
            &strings(&["z80-none-none"]),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            unavailable("rust-std for z80-none-none")
        );
        assert_eq!(
            refusal(MANIFEST, WASM, "minimal", &[]),
            format!("it has no toolchain for the host `{WASM}`")
        );
        assert_eq!(
            refusal(MANIFEST, LINUX, "huge", &[]),
            "it has no profile `huge`"
        );
    }

    #[test]
    fn malformed_manifests_are_refused() {
        let newer = MANIFEST.replace("manifest-version = \"2\"", "manifest-version = \"3\"");
        let odd_day = MANIFEST.replace("date = \"2026-04-16\"", "date = \"../../../etc\"");
        let cut = &MANIFEST[..MANIFEST.len() / 2];
        let (first_hash, _) = MANIFEST
            .split_once("cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz\"\nxz_hash = \"")
            .map(|(before, hash)| (&hash[..64], before))
            .unwrap();
        let bad_hash = MANIFEST.replace(first_hash, "0123");
        for (text, says) in [
            ("", "missing field"),
            (
                "<!DOCTYPE html>\n<html></html>",
                "no valid release manifest",
            ),
            (newer.as_str(), "larder knows version 2"),
            (odd_day.as_str(), "is no date"),
            (cut, ""),
            (bad_hash.as_str(), "`0123`, which is no sha256"),
        ] {
            let error = refusal(text, LINUX, "minimal", &[]);
            assert!(error.contains(says), "{error}");
        }
        assert!(date(&odd_day).is_err() && date(&newer).is_err() && date("<html>").is_err());
    }

    #[test]
    fn date_is_read_before_the_first_table() {
        assert_eq!(date(MANIFEST).unwrap(), "2026-04-16");
        assert_eq!(
            date("date = \"2026-01-15\"\nmanifest-version = \"2\"\n[pkg.broken\n").unwrap(),
            "2026-01-15"
        );
    }

    #[test]
    fn version_is_that_of_the_package_rust() {
        assert_eq!(version(MANIFEST), Some("1.95.0"));
        let beta = "\n[pkg.rust]\nversion = \"1.96.0-beta.3 (0123abc 2026-04-16)\"\n";
        assert_eq!(version(beta), Some("1.96.0-beta.3"));
        assert_eq!(version("\n[pkg.rust]\n[pkg.x]\nversion = \"1\"\n"), None);
    }

    #[test]
    fn manifest_in_other_toml_spelling_is_read_in_full() {
        let inline = format!(
            "manifest-version = '2'\ndate = '2026-04-16'\nprofiles = {{ minimal = ['rustc'] }}\n\
             [pkg.rust.target]\n{LINUX} = {{ available = false, components = [{{ pkg = 'rustc', target = '{LINUX}' }}] }}\n\
             [pkg.other.target.z80-none-none]\navailable = true\nlist = [\n[1], [\"\"\"\n[pkg.x]\n\"\"\"],\n]\n\
             [pkg.rustc.target.{LINUX}]\navailable = true\nurl = 'https://dist.example/rustc'\nhash = '{}'\n",
            "0".repeat(64)
        );
        let files = files(&inline, LINUX, "minimal", &[], &[]).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[test]
    fn megabyte_manifest_is_read_within_time_limits() {
        let (start, end) = MANIFEST.split_once("[renames.").unwrap();
        let mut large = start.to_owned();
        for number in 0..3_000 {
            let _ = write!(
                large,
                "[pkg.rust-std.target.z{number}-none-none]\navailable = true\n\
                 url = \"https://dist.example/dist/2026-04-16/rust-std-1.95.0-z{number}-none-none.tar.gz\"\nhash = \"{0}\"\n\
                 xz_url = \"https://dist.example/dist/2026-04-16/rust-std-1.95.0-z{number}-none-none.tar.xz\"\nxz_hash = \"{0}\"\n\
                 components = []\nextensions = []\n\n",
                "0".repeat(64)
            );
        }
        large.push_str("[renames.");
        large.push_str(end);
        assert!(large.len() > 1_000_000);
        // The best of five runs, because other tests share the processor.
        let best = (0..5)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(files(&large, LINUX, "minimal", &[], &[]).unwrap().len(), 3);
                start.elapsed()
            })
            .min();
        assert!(best.unwrap() < Duration::from_millis(500), "{best:?}");
        let last = "dist/2026-04-16/rust-std-1.95.0-z2999-none-none.tar.xz";
        let best = (0..5)
            .map(|_| {
                let start = Instant::now();
                assert!(find_archive(&large, last).is_some());
                start.elapsed()
            })
            .min();
        assert!(best.unwrap() < Duration::from_millis(100), "{best:?}");
    }
}
