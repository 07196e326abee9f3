//! What rustup would install, worked out from text alone: toolchain files, channel names, release manifests.
//!
//! Pure. Finding the files, fetching what is named here and rewriting addresses to the configured server are left to
//! others. Facts about rustup cite the function in its source (1.29) they were read from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// Which of its two file names a toolchain file has; they are read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolchainFile {
    /// `rust-toolchain`: a channel name if it has one line, TOML otherwise. Wins over the other within one folder.
    Legacy,
    /// `rust-toolchain.toml`: always TOML.
    Toml,
}

/// What a toolchain file asks for. Without channel and path the user's default toolchain is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolchainRequest {
    /// As written: a [`Channel`], or the name of a toolchain that only this user has.
    pub channel: Option<String>,
    /// The absolute path of a toolchain that is there already: nothing to fetch.
    pub path: Option<String>,
    /// Beyond those of the profile.
    pub components: Vec<String>,
    /// Beyond the host.
    pub targets: Vec<String>,
    /// `minimal`, `default`, `complete` or one of rustup's abbreviations; without it the user's setting decides.
    pub profile: Option<String>,
}

/// Why rustup would refuse a toolchain file.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainFileError {
    /// No line, or a blank one.
    #[error("it is empty")]
    Empty,
    /// A profile alone names no toolchain, nor does an empty table.
    #[error("it names no channel, path, components or targets")]
    Nothing,
    /// Not TOML, or not of this shape.
    #[error("it is no valid TOML of a toolchain file: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Both at once.
    #[error("it names both the channel `{channel}` and the path `{path}`")]
    ChannelAndPath {
        /// The one.
        channel: String,
        /// The other.
        path: String,
    },
    /// Components, targets and profiles need a channel to come from.
    #[error("components, targets and profile cannot be had with the path `{0}`")]
    PathWithMore(String),
    /// Only absolute paths are taken.
    #[error("the path `{0}` is relative")]
    RelativePath(String),
    /// See [`ManifestError::UnknownProfile`].
    #[error("there is no profile `{0}`")]
    UnknownProfile(String),
}

/// Reads a toolchain file as rustup does (`Cfg::parse_override_file` and `OverrideCfg::from_file` in `src/config.rs`).
///
/// # Errors
/// For whatever rustup refuses without looking at what is installed. Whether the channel exists is not checked.
pub fn parse_file(name: ToolchainFile, text: &str) -> Result<ToolchainRequest, ToolchainFileError> {
    let wanted = match (text.lines().count(), name) {
        (0, _) => return Err(ToolchainFileError::Empty),
        (1, ToolchainFile::Legacy) => match text.trim() {
            "" => return Err(ToolchainFileError::Empty),
            path if Path::new(path).is_absolute() => ToolchainRequest {
                path: Some(path.to_owned()),
                ..ToolchainRequest::default()
            },
            channel => ToolchainRequest {
                channel: Some(channel.to_owned()),
                ..ToolchainRequest::default()
            },
        },
        _ => from_table(toml::from_str::<FileTables>(text)?.toolchain)?,
    };
    match &wanted.path {
        Some(path) if !Path::new(path).is_absolute() => {
            Err(ToolchainFileError::RelativePath(path.clone()))
        }
        _ => Ok(wanted),
    }
}

fn from_table(table: ToolchainTable) -> Result<ToolchainRequest, ToolchainFileError> {
    let has_lists = table.components.is_some() || table.targets.is_some();
    match (&table.channel, &table.path) {
        (None, None) if !has_lists => return Err(ToolchainFileError::Nothing),
        (Some(channel), Some(path)) => {
            return Err(ToolchainFileError::ChannelAndPath {
                channel: channel.clone(),
                path: path.clone(),
            });
        }
        (None, Some(path)) if has_lists || table.profile.is_some() => {
            return Err(ToolchainFileError::PathWithMore(path.clone()));
        }
        _ => {}
    }
    if let Some(profile) = &table.profile
        && canonical_profile(profile).is_none()
    {
        return Err(ToolchainFileError::UnknownProfile(profile.clone()));
    }
    Ok(ToolchainRequest {
        channel: table.channel,
        path: table.path,
        components: table.components.unwrap_or_default(),
        targets: table.targets.unwrap_or_default(),
        profile: table.profile,
    })
}

#[derive(Deserialize)]
struct FileTables {
    toolchain: ToolchainTable,
}

#[derive(Deserialize)]
struct ToolchainTable {
    channel: Option<String>,
    path: Option<String>,
    components: Option<Vec<String>>,
    targets: Option<Vec<String>>,
    profile: Option<String>,
}

/// The name of a toolchain that comes from a dist server: a release channel or version, a day, a host.
///
/// Displays as the name it was parsed from, but for `1.0` to `1.8`, which mean their only release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// `stable`, `beta`, `nightly`, or a version.
    release: String,
    /// `YYYY-MM-DD`.
    date: Option<String>,
    /// A full triple.
    host: Option<String>,
}

/// A name that no dist server has: perhaps a toolchain of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no release channel, version or dated channel")]
pub struct ChannelError(String);

impl FromStr for Channel {
    type Err = ChannelError;

    /// Takes what rustup's pattern takes (`ParsedToolchainDesc::from_str` in `src/dist/mod.rs`), except that a host must
    /// be a whole triple: `stable-msvc` can only be completed with rustup's own lists.
    fn from_str(name: &str) -> Result<Self, ChannelError> {
        parse_channel(name).ok_or_else(|| ChannelError(name.to_owned()))
    }
}

impl Channel {
    /// Where the manifest is, below the root of a dist server: `dist/2026-01-15/channel-rust-nightly.toml`
    /// (`ToolchainDesc::manifest_v2_url` in rustup's `src/dist/mod.rs`). Never leaves `dist/`.
    pub fn manifest_path(&self) -> String {
        let day = self.date.as_ref().map(|date| format!("{date}/"));
        format!(
            "dist/{}channel-rust-{}.toml",
            day.unwrap_or_default(),
            self.release
        )
    }

    /// Whether the manifest can never change: a day's, or that of a full version (the negation of
    /// `ToolchainDesc::is_tracking` in rustup's `src/dist/mod.rs`).
    pub fn is_immutable(&self) -> bool {
        let is_moving_version =
            self.release.matches('.').count() < 2 || self.release.ends_with("-beta");
        self.date.is_some() || !is_moving_version
    }

    /// `nightly` without a day, for which rustup may go back to an earlier day if something is not available.
    pub fn is_undated_nightly(&self) -> bool {
        self.release == "nightly" && self.date.is_none()
    }

    /// The same toolchain as it was released on `date`, `YYYY-MM-DD`.
    ///
    /// # Panics
    /// In debug builds, if that is no date.
    #[must_use]
    pub fn on_date(&self, date: &str) -> Self {
        debug_assert!(is_date(date), "`{date}` is no date");
        Self {
            date: Some(date.to_owned()),
            ..self.clone()
        }
    }

    /// The day in the name, `YYYY-MM-DD`.
    pub fn date(&self) -> Option<&str> {
        self.date.as_deref()
    }

    /// The host that the name carries.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)?;
        for part in [&self.date, &self.host].into_iter().flatten() {
            write!(f, "-{part}")?;
        }
        Ok(())
    }
}

fn parse_channel(name: &str) -> Option<Channel> {
    let named = ["nightly", "beta", "stable"]
        .into_iter()
        .find(|channel| name.starts_with(channel));
    let length = named.map_or_else(|| version_length(name), |channel| Some(channel.len()))?;
    let (release, rest) = name.split_at(length);
    let (date, rest) = match rest.strip_prefix('-').and_then(|rest| rest.get(..10)) {
        Some(date) if is_date(date) => (Some(date.to_owned()), &rest[11..]),
        _ => (None, rest),
    };
    let host = match rest.strip_prefix('-') {
        Some(host) if is_triple(host) => Some(host.to_owned()),
        None if rest.is_empty() => None,
        _ => return None,
    };
    // These have no point releases, and rustup knows them by their full version only.
    let is_ancient = release.len() == 3 && release.starts_with("1.") && release != "1.9";
    Some(Channel {
        release: format!("{release}{}", if is_ancient { ".0" } else { "" }),
        date,
        host,
    })
}

/// How many bytes at the start are a version: `1.95`, `1.95.0`, `1.95.0-beta`, `1.95.0-beta.3`.
fn version_length(name: &str) -> Option<usize> {
    let digits = |from: usize| {
        let rest = name.get(from..).unwrap_or_default();
        rest.bytes().take_while(u8::is_ascii_digit).count()
    };
    // A dot and a number without leading zeros of at most so many digits.
    let number = |from: usize, at_most: usize| {
        let count = digits(from + 1);
        let is_number = name[from..].starts_with('.')
            && (1..=at_most).contains(&count)
            && (count == 1 || !name[from + 1..].starts_with('0'));
        is_number.then_some(from + 1 + count)
    };
    let mut length = (digits(0) == 1).then_some(1)?;
    length = number(length, 3)?;
    length = number(length, 2).unwrap_or(length);
    if name[length..].starts_with("-beta") {
        length += "-beta".len();
        let count = digits(length + 1);
        if name[length..].starts_with('.') && (1..=2).contains(&count) {
            length += 1 + count;
        }
    }
    Some(length)
}

/// Whether this is written as a day, `YYYY-MM-DD`.
pub(crate) fn is_date(text: &str) -> bool {
    let digit_or_dash = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(digit_or_dash)
}

/// Three or more parts of what occurs in triples; such a text is safe as part of a file name.
fn is_triple(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
    };
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.split('-').count() >= 3
        && text.split('-').all(is_part)
}

/// What rustup was told by its user once and for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UserSettings {
    /// The toolchain for where nothing names one.
    pub default_toolchain: Option<String>,
    /// The profile for toolchains that name none.
    pub profile: Option<String>,
    default_host_tuple: Option<String>,
    // What rustup before 1.29 wrote.
    default_host_triple: Option<String>,
}

impl UserSettings {
    /// Reads `settings.toml` in rustup's home. One that cannot be read says nothing; rustup will say what is wrong with it.
    pub fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_default()
    }

    /// The triple that rustup installs for where a name has none: the user's setting, or what the machine is.
    ///
    /// `arch`, `os` are spelled as in `std::env::consts`. `None` where they leave a choice: several ABIs or byte orders. On
    /// Linux glibc is assumed, which holds for every rustup that was not built for musl (`TargetTuple::from_host_or_build` in
    /// `src/dist/mod.rs`).
    pub fn host_triple(&self, arch: &str, os: &str) -> Option<String> {
        let set = self.default_host_tuple.as_ref();
        let set = set.or(self.default_host_triple.as_ref());
        if let Some(triple) = set.filter(|triple| is_triple(triple)) {
            return Some(triple.clone());
        }
        let arch = match arch {
            "x86" => "i686",
            "riscv64" => "riscv64gc",
            "x86_64" | "aarch64" | "loongarch64" | "s390x" => arch,
            _ => return None,
        };
        let rest = match os {
            "linux" => "unknown-linux-gnu",
            "macos" => "apple-darwin",
            "windows" => "pc-windows-msvc",
            "freebsd" | "netbsd" => return Some(format!("{arch}-unknown-{os}")),
            _ => return None,
        };
        Some(format!("{arch}-{rest}"))
    }
}

/// One `rustup toolchain install`, with nothing left to settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Install {
    /// Which toolchain.
    pub channel: Channel,
    /// The triple it runs on.
    pub host: String,
    /// `minimal`, `default`, `complete`.
    pub profile: String,
    /// Beyond those of the profile.
    pub components: Vec<String>,
    /// Beyond the host.
    pub targets: Vec<String>,
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.channel.host() {
            Some(_) => write!(f, "{}", self.channel),
            None => write!(f, "{}-{}", self.channel, self.host),
        }
    }
}

/// Why a toolchain cannot be had from any dist server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// Neither the file nor rustup's settings name one.
    #[error("it names no channel, and rustup has no default toolchain here")]
    NoChannel,
    /// A name of the user's own.
    #[error("{0}; larder cannot hold a toolchain of your own")]
    NotReleased(#[from] ChannelError),
}

/// What installing what a toolchain file asks for means for this user; `None` if it points to a toolchain that is there already.
///
/// `host` is for names without one.
///
/// # Errors
/// No dist server has it.
pub fn install(
    wanted: ToolchainRequest,
    user: &UserSettings,
    host: &str,
) -> Result<Option<Install>, InstallError> {
    if wanted.path.is_some() {
        return Ok(None);
    }
    let name = wanted.channel.as_ref().or(user.default_toolchain.as_ref());
    let channel: Channel = name.ok_or(InstallError::NoChannel)?.parse()?;
    let profile = wanted.profile.as_deref().or(user.profile.as_deref());
    let profile = profile.unwrap_or("default");
    Ok(Some(Install {
        host: channel.host().unwrap_or(host).to_owned(),
        channel,
        profile: canonical_profile(profile).unwrap_or(profile).to_owned(),
        components: wanted.components,
        targets: wanted.targets,
    }))
}

/// One archive of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistFile {
    /// As in the manifest: below the default dist server, whichever server the manifest came from.
    pub url: String,
    /// Of the archive; 64 lower-case hex digits.
    pub sha256: String,
    /// The package's own name: `clippy-preview`, not `clippy`.
    pub package: String,
    /// The triple it is installed for, or `*` if it is the same for all.
    pub target: String,
}

impl DistFile {
    /// Whether these are the sources of the standard library, from which cargo builds it (`-Zbuild-std`).
    pub fn is_rust_src(&self) -> bool {
        self.package == "rust-src"
    }
}

/// Why a manifest does not tell what to install.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or not of this shape.
    #[error("it is no valid release manifest: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A format that rustup 1.29 refuses as well.
    #[error("its format is version `{0}`, larder knows version 2")]
    NewerVersion(String),
    /// Its date is none, and would become part of addresses.
    #[error("its date `{0}` is no date")]
    BadDate(String),
    /// There is no such toolchain.
    #[error("it has no toolchain for the host `{0}`")]
    UnknownHost(String),
    /// Neither rustup nor this release has such a profile.
    #[error("it has no profile `{0}`")]
    UnknownProfile(String),
    /// The release lacks these for this host, as `name` or `name for triple`. On an undated nightly rustup tries the day before.
    #[error("not available in this release: {}", .0.join(", "))]
    Unavailable(Vec<String>),
    /// An archive that could not be proven.
    #[error("the sha256 of `{url}` is `{sha256}`, which is no sha256")]
    BadSha256 {
        /// Where it would be.
        url: String,
        /// What stands there.
        sha256: String,
    },
}

/// The day of a release, `YYYY-MM-DD`; reads no further than the first table.
///
/// # Errors
/// If the text does not begin like a manifest.
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

/// The day before `date`; both are `YYYY-MM-DD`. `None` if that is no date, or one before 1970.
pub fn day_before(date: &str) -> Option<String> {
    let day = humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).ok()?;
    let before = day.checked_sub(Duration::from_secs(24 * 60 * 60))?;
    let before = before.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + before).to_string();
    text.get(..10).map(str::to_owned)
}

/// The archives that `rustup toolchain install` would download into an empty home, in its order (sorted by package, then
/// target): those of the profile that the host has, then what is named in addition.
///
/// Follows `try_update_from_dist_` in `src/dist/mod.rs`, `Manifest::get_profile_components` and `Manifest::binary` in
/// `src/dist/manifest.rs` and `Update::unavailable_components` in `src/dist/manifestation.rs`. Names of components may be
/// the users' (`clippy`) or the packages' (`clippy-preview`). Tables of other targets than those asked for are not read,
/// so what rustup's `Manifest::validate` finds wrong there passes here.
///
/// # Errors
/// If rustup would install nothing: no such host or profile, or something explicitly or by profile wanted is not available.
pub fn files(
    manifest: &str,
    host: &str,
    profile: &str,
    components: &[String],
    targets: &[String],
) -> Result<Vec<DistFile>, ManifestError> {
    let manifest = parse_manifest(manifest, host, targets)?;
    let for_host = manifest
        .package("rust", Some(host))
        .ok_or_else(|| ManifestError::UnknownHost(host.to_owned()))?;
    let listed: Vec<&ComponentRef> = for_host
        .components
        .iter()
        .chain(&for_host.extensions)
        .collect();

    // In rustup's order: by package, then by target with none first.
    let mut chosen: Vec<(&str, Option<&str>)> = Vec::new();
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
    for name in components {
        let renamed = manifest.renames.get(name);
        let name = renamed.map_or(name.as_str(), |rename| rename.to.as_str());
        let first = listed.iter().find(|c| c.pkg == name);
        let is_for_all = first.is_some_and(|c| c.target().is_none());
        chosen.push((name, (!is_for_all).then_some(host)));
    }
    chosen.extend(
        targets
            .iter()
            .map(|target| ("rust-std", Some(target.as_str()))),
    );
    chosen.sort_unstable();
    chosen.dedup();

    let mut found = Vec::with_capacity(chosen.len());
    let mut unavailable = Vec::new();
    for (package, target) in chosen {
        match manifest
            .package(package, target)
            .and_then(PackageTarget::archive)
        {
            Some((url, sha256)) => found.push(DistFile {
                url: url.to_owned(),
                sha256: checked_sha256(url, sha256)?,
                package: package.to_owned(),
                target: target.unwrap_or("*").to_owned(),
            }),
            None => unavailable.push(manifest.description(package, target, host)),
        }
    }
    if unavailable.is_empty() {
        Ok(found)
    } else {
        Err(ManifestError::Unavailable(unavailable))
    }
}

/// What a manifest says of one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedArchive<'a> {
    /// Of the archive; 64 lower-case hex digits.
    pub sha256: &'a str,
    /// The triple of the table in which it stands, or `*`.
    pub target: &'a str,
}

/// What the manifest says of the archive whose address ends in `/` and `path`, found without parsing the whole.
///
/// Reads line by line as releases are written: address and hash of one format in one table, each on a line of its own.
/// `None` if it is not there, not written so, or there twice with different hashes.
pub fn find_archive<'a>(manifest: &'a str, path: &str) -> Option<ListedArchive<'a>> {
    let end = format!("/{path}\"");
    let mut found = None;
    for (at, _) in manifest.match_indices(&end) {
        let Some(listed) = find_archive_at(manifest, at, &end) else {
            continue;
        };
        match found {
            None => found = Some(listed),
            Some(ListedArchive { sha256, .. }) if sha256 == listed.sha256 => {}
            Some(_) => return None,
        }
    }
    found
}

/// The triple, or `*`, of the table in which this hash stands.
pub fn target_of_archive<'a>(manifest: &'a str, sha256: &str) -> Option<&'a str> {
    let at = manifest.find(&format!("\"{sha256}\""))?;
    let (header, _) = table_around(manifest, at)?;
    package_and_target(header).map(|(_, target)| target)
}

fn find_archive_at<'a>(manifest: &'a str, at: usize, end: &str) -> Option<ListedArchive<'a>> {
    let (header, table) = table_around(manifest, at)?;
    let (_, target) = package_and_target(header)?;
    let begin = manifest[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = manifest[begin..].lines().next()?;
    let (field, url) = text_field(line)?;
    // The quote that ends the path must be the one that ends the value.
    if begin + line.trim_end().len() != at + end.len() || url.contains('\\') {
        return None;
    }
    let field = match field {
        "url" => "hash",
        "xz_url" => "xz_hash",
        "zst_url" => "zst_hash",
        _ => return None,
    };
    let hash = |line| text_field(line).filter(|(name, _)| *name == field);
    let (_, sha256) = table.lines().find_map(hash)?;
    is_sha256(sha256).then_some(ListedArchive { sha256, target })
}

/// The header of the table that this place is in, and what stands below it.
fn table_around(manifest: &str, at: usize) -> Option<(&str, &str)> {
    let begin = manifest[..at].rfind("\n[").map(|newline| newline + 1)?;
    let (header, below) = manifest[begin..].split_once('\n')?;
    let end = below.find("\n[").unwrap_or(below.len());
    Some((header, &below[..end]))
}

/// Name and value of a line `NAME = "VALUE"`.
fn text_field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=')?;
    let value = value.trim_start().strip_prefix('"')?.strip_suffix('"')?;
    (!value.contains('"')).then_some((name.trim_end(), value))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn checked_sha256(url: &str, sha256: &str) -> Result<String, ManifestError> {
    is_sha256(sha256)
        .then(|| sha256.to_owned())
        .ok_or_else(|| ManifestError::BadSha256 {
            url: url.to_owned(),
            sha256: sha256.to_owned(),
        })
}

/// The profile's name in manifests (`Profile::from_str` in rustup's `src/dist/mod.rs`).
fn canonical_profile(name: &str) -> Option<&'static str> {
    match name {
        "minimal" | "m" => Some("minimal"),
        "default" | "d" | "" => Some("default"),
        "complete" | "c" => Some("complete"),
        _ => None,
    }
}

/// Parses the tables that matter for this host and these targets.
///
/// A manifest is a megabyte of tables in one line each way, nearly all for other targets: leaving those out first is
/// many times faster than parsing them. Should a manifest be written otherwise, all of it is parsed.
fn parse_manifest(
    manifest: &str,
    host: &str,
    targets: &[String],
) -> Result<ReleaseManifest, ManifestError> {
    let is_wanted = |package: &str, target: &str| {
        target == host
            || target == "*"
            || (package == "rust-std" && targets.iter().any(|wanted| wanted == target))
    };
    let mut kept = String::with_capacity(64 * 1024);
    let mut keep = true;
    for line in manifest.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            keep =
                package_and_target(line).is_none_or(|(package, target)| is_wanted(package, target));
        }
        if keep {
            kept.push_str(line);
        }
    }
    let parsed = match toml::from_str::<ReleaseManifest>(&kept) {
        Ok(parsed) => parsed,
        // Also for the sake of an error with the right line.
        Err(_) => toml::from_str(manifest)?,
    };
    parsed.header.check()?;
    Ok(parsed)
}

/// `NAME` and `TRIPLE` of `[pkg.NAME.target.TRIPLE]` and of the tables below it.
fn package_and_target(header: &str) -> Option<(&str, &str)> {
    let header = header.trim_start().trim_start_matches('[');
    let (package, target) = header.strip_prefix("pkg.")?.split_once(".target.")?;
    let target = match target.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => target.split(['.', ']']).next(),
    };
    Some((package.trim_matches('"'), target?))
}

/// What stands before the first table.
#[derive(Deserialize)]
struct ManifestHeader {
    #[serde(rename = "manifest-version")]
    version: String,
    date: String,
}

impl ManifestHeader {
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

#[derive(Deserialize)]
struct ReleaseManifest {
    #[serde(flatten)]
    header: ManifestHeader,
    #[serde(default)]
    pkg: BTreeMap<String, ManifestPackage>,
    #[serde(default)]
    renames: BTreeMap<String, PackageRename>,
    #[serde(default)]
    profiles: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct ManifestPackage {
    /// Empty if all its targets were left out.
    #[serde(default)]
    target: BTreeMap<String, PackageTarget>,
}

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

#[derive(Deserialize)]
struct ComponentRef {
    pkg: String,
    target: Option<String>,
}

#[derive(Deserialize)]
struct PackageRename {
    to: String,
}

impl ReleaseManifest {
    /// What to install of a package: its only entry if that is for all targets, else the one of this very target.
    fn package(&self, name: &str, target: Option<&str>) -> Option<&PackageTarget> {
        let targets = &self.pkg.get(name)?.target;
        match (targets.len(), targets.get("*")) {
            (1, Some(for_all)) => Some(for_all),
            _ => targets.get(target?),
        }
    }

    /// A component in the user's words.
    fn description(&self, package: &str, target: Option<&str>, host: &str) -> String {
        let old_name = self.renames.iter().find(|(_, rename)| rename.to == package);
        let name = old_name.map_or(package, |(name, _)| name.as_str());
        match target {
            Some(target) if target != host => format!("{name} for {target}"),
            _ => name.to_owned(),
        }
    }
}

impl PackageTarget {
    /// Address and hash in the format that rustup prefers among those there are.
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
    fn target(&self) -> Option<&str> {
        self.target.as_deref().filter(|&target| target != "*")
    }

    fn is_for(&self, host: &str) -> bool {
        self.target().is_none_or(|target| target == host)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::Instant;

    use super::*;

    const MANIFEST: &str = include_str!("../fixtures/channel-rust-stable.toml");
    const LINUX: &str = "x86_64-unknown-linux-gnu";
    const WINDOWS: &str = "x86_64-pc-windows-gnu";
    const WASM: &str = "wasm32-unknown-unknown";
    const THUMB: &str = "thumbv8m.base-none-eabi";

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    fn wanted(channel: Option<&str>, path: Option<&str>) -> ToolchainRequest {
        ToolchainRequest {
            channel: channel.map(str::to_owned),
            path: path.map(str::to_owned),
            ..ToolchainRequest::default()
        }
    }

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
    fn find_archive_returns_the_hash_of_the_same_format() {
        let listed = |path: &str| {
            let listed = find_archive(MANIFEST, path)?;
            Some((&listed.sha256[..8], listed.target))
        };
        let cargo = "dist/2026-04-16/cargo-1.95.0-x86_64-unknown-linux-gnu.tar";
        let clippy = "dist/2026-04-16/clippy-1.95.0-x86_64-unknown-linux-gnu.tar";
        assert_eq!(listed(&format!("{cargo}.gz")), Some(("68f68d44", LINUX)));
        assert_eq!(listed(&format!("{cargo}.xz")), Some(("3e517d1b", LINUX)));
        assert_eq!(listed(&format!("{clippy}.gz")), Some(("6a36cb68", LINUX)));
        assert_eq!(listed(&format!("{clippy}.xz")), Some(("18b7bbd9", LINUX)));
        assert_eq!(listed(&format!("{clippy}.zst")), Some(("deb7e22e", LINUX)));
        let source = listed("dist/2026-04-16/rust-src-1.95.0.tar.xz");
        assert_eq!(source.map(|(_, target)| target), Some("*"));
        for path in [
            // Not the whole path, from either side.
            &format!("{cargo}.x"),
            &format!("{cargo}.xz.sha256"),
            &format!("{cargo}.zst"),
            &format!("x/{cargo}.xz"),
            "ist/2026-04-16/cargo-1.95.0-x86_64-unknown-linux-gnu.tar.xz",
            "",
        ] {
            assert_eq!(listed(path), None, "{path}");
        }
    }

    #[test]
    fn find_archive_agrees_with_files() {
        for host in [LINUX, WINDOWS] {
            for file in files(MANIFEST, host, "minimal", &[], &strings(&[WASM])).unwrap() {
                let path = file.url.strip_prefix("https://dist.example/").unwrap();
                let listed = find_archive(MANIFEST, path).unwrap();
                assert_eq!(listed.sha256, file.sha256);
                assert_eq!(
                    target_of_archive(MANIFEST, &file.sha256),
                    Some(listed.target)
                );
                assert_eq!(listed.target, file.target);
            }
        }
    }

    /// What is found of `dist/a.tar.xz` in a manifest with these tables; `A` and `B` stand for hashes.
    #[track_caller]
    fn check_listed(tables: &str, expected: Option<char>) {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(64));
        let text = format!("date = \"2026-04-16\"\n{tables}")
            .replace("URL", "\"https://d.example/dist/a.tar.xz\"")
            .replace("\"A\"", &format!("\"{a}\""))
            .replace("\"B\"", &format!("\"{b}\""));
        let found =
            find_archive(&text, "dist/a.tar.xz").and_then(|listed| listed.sha256.chars().next());
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn find_archive_accepts_only_tables_written_as_releases_write_them() {
        check_listed(
            "[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"A\"\n",
            Some('a'),
        );
        check_listed(
            "[pkg.a.target.x]\r\nxz_hash=\"A\"\r\nxz_url=URL\r\n",
            Some('a'),
        );
        // The hash of another format, of another table, of none.
        check_listed("[pkg.a.target.x]\nxz_url = URL\nhash = \"A\"\n", None);
        check_listed(
            "[pkg.a.target.x]\nxz_url = URL\n\n[pkg.a.target.y]\nxz_hash = \"A\"\n",
            None,
        );
        check_listed("[pkg.a.target.x]\nxz_url = URL\n", None);
        check_listed("[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"A0\"\n", None);
        check_listed("[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"\"\n", None);
        // Another field, a comment, another table.
        check_listed(
            "[pkg.a.target.x]\nabout = URL\nxz_hash = \"A\"\nhash = \"B\"\n",
            None,
        );
        check_listed("[pkg.a.target.x]\n# xz_url = URL\nxz_hash = \"A\"\n", None);
        check_listed("[artifacts.a]\nxz_url = URL\nxz_hash = \"A\"\n", None);
        check_listed("xz_url = URL\nxz_hash = \"A\"\n", None);
        check_listed(
            "[pkg.a.target.x]\nxz_url = URL # or \"another\"\nxz_hash = \"A\"\n",
            None,
        );
        // Twice.
        let twice = |second: &str| {
            format!(
                "[pkg.a.target.x]\nxz_url = URL\nxz_hash = \"A\"\n\n[pkg.a.target.y]\nxz_url = URL\nxz_hash = \"{second}\"\n"
            )
        };
        check_listed(&twice("A"), Some('a'));
        check_listed(&twice("B"), None);
    }

    #[test]
    fn one_line_is_a_channel_or_path_only_in_the_legacy_file() {
        use ToolchainFile::{Legacy, Toml};
        for text in [
            "nightly-2026-01-15",
            "nightly-2026-01-15\n",
            "  nightly-2026-01-15\r\n",
        ] {
            let expected = wanted(Some("nightly-2026-01-15"), None);
            assert_eq!(parse_file(Legacy, text).unwrap(), expected);
            assert!(matches!(
                parse_file(Toml, text),
                Err(ToolchainFileError::Syntax(_))
            ));
        }
        assert_eq!(
            parse_file(Legacy, "/opt/rust\n").unwrap(),
            wanted(None, Some("/opt/rust"))
        );
        // One line, so not a table: rustup takes it for a name and then refuses that.
        let odd = parse_file(Legacy, "toolchain.channel = 'stable'").unwrap();
        assert!(odd.channel.unwrap().parse::<Channel>().is_err());
        let table = "[toolchain]\nchannel = \"1.95\"\n";
        for name in [Legacy, Toml] {
            assert_eq!(parse_file(name, table).unwrap(), wanted(Some("1.95"), None));
        }
        let one_line_of_toml = "toolchain = { channel = 'stable' }";
        assert_eq!(
            parse_file(Toml, one_line_of_toml).unwrap(),
            wanted(Some("stable"), None)
        );
    }

    #[test]
    fn all_keys_are_read_and_unknown_keys_are_ignored() {
        let text = r#"
            [toolchain]
            channel = "stable"
            components = ["clippy", "rust-src"]
            targets = ["wasm32-unknown-unknown"]
            profile = "minimal"
            later = true
            [more]
        "#;
        let expected = ToolchainRequest {
            components: strings(&["clippy", "rust-src"]),
            targets: strings(&[WASM]),
            profile: Some("minimal".to_owned()),
            ..wanted(Some("stable"), None)
        };
        assert_eq!(parse_file(ToolchainFile::Toml, text).unwrap(), expected);
        let default_toolchain = "[toolchain]\ntargets = []\n";
        assert_eq!(
            parse_file(ToolchainFile::Toml, default_toolchain).unwrap(),
            ToolchainRequest::default()
        );
    }

    #[test]
    fn toolchain_files_that_rustup_refuses_are_refused() {
        for (text, says) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("[toolchain]\n\n", "it names no channel"),
            ("[toolchain]\nprofile = 'minimal'\n", "it names no channel"),
            ("[other]\nchannel = 'stable'\n", "missing field `toolchain`"),
            ("[toolchain]\nchannel = 1.95\n", "no valid TOML"),
            (
                "[toolchain]\nchannel = 'stable'\npath = '/opt/rust'\n",
                "both the channel `stable` and the path `/opt/rust`",
            ),
            (
                "[toolchain]\npath = '/opt/rust'\ncomponents = []\n",
                "cannot be had with the path",
            ),
            ("[toolchain]\npath = '../rust'\n", "is relative"),
            (
                "[toolchain]\nchannel = 'stable'\nprofile = 'huge'\n",
                "there is no profile `huge`",
            ),
        ] {
            let error = parse_file(ToolchainFile::Legacy, text)
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn channel_names_map_to_manifest_paths() {
        for (name, path, is_immutable) in [
            ("stable", "dist/channel-rust-stable.toml", false),
            ("beta", "dist/channel-rust-beta.toml", false),
            ("nightly", "dist/channel-rust-nightly.toml", false),
            (
                "nightly-2026-01-15",
                "dist/2026-01-15/channel-rust-nightly.toml",
                true,
            ),
            (
                "beta-2026-01-15-aarch64-apple-darwin",
                "dist/2026-01-15/channel-rust-beta.toml",
                true,
            ),
            ("1.95", "dist/channel-rust-1.95.toml", false),
            ("1.95.0", "dist/channel-rust-1.95.0.toml", true),
            ("1.95-beta", "dist/channel-rust-1.95-beta.toml", false),
            ("1.95.0-beta", "dist/channel-rust-1.95.0-beta.toml", false),
            (
                "1.95.0-beta.3",
                "dist/channel-rust-1.95.0-beta.3.toml",
                true,
            ),
            (
                "1.95.0-beta.3-x86_64-unknown-linux-gnu",
                "dist/channel-rust-1.95.0-beta.3.toml",
                true,
            ),
            (
                "1.95.0-x86_64-pc-windows-msvc",
                "dist/channel-rust-1.95.0.toml",
                true,
            ),
        ] {
            let channel: Channel = name.parse().unwrap();
            assert_eq!(channel.manifest_path(), path, "{name}");
            assert_eq!(channel.is_immutable(), is_immutable, "{name}");
            assert_eq!(channel.to_string(), name);
        }
        let ancient: Channel = "1.8".parse().unwrap();
        assert_eq!(ancient.manifest_path(), "dist/channel-rust-1.8.0.toml");
        let with_host: Channel = format!("nightly-2026-01-15-{LINUX}").parse().unwrap();
        assert_eq!(with_host.host(), Some(LINUX));
        assert!(!with_host.is_undated_nightly());
        assert!(
            "nightly-x86_64-unknown-linux-gnu"
                .parse::<Channel>()
                .unwrap()
                .is_undated_nightly()
        );
    }

    #[test]
    fn malformed_channel_names_are_refused() {
        for name in [
            "",
            "mine",
            "Stable",
            "stable ",
            "stablest",
            "stable-",
            "stable-mine",
            "stable-msvc",
            "stable/../../x",
            "stable-../../../x-y",
            "stable-a-b-c/d",
            "stable-a-b-c%2fd",
            "stable-a--b-c",
            "stable-..-..-..",
            "nightly-2026-1-5",
            "nightly-2026-01-15x",
            "nightly-2026-01-15-",
            "nightly-2026-01-1\u{e9}",
            "nightly-\u{0662}026-01-15",
            "1",
            "1.",
            "1.095",
            "1.9555",
            "12.1",
            "1.95.",
            "1.95.00",
            "1.95.123",
            "1.95.0.1",
            "1.95.0-beta.",
            "1.95.0-beta.123",
            "1.95.0-rc.1",
            "+stable",
            "/opt/rust",
            "stable\n",
            "stable\0",
        ] {
            let error = name.parse::<Channel>().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn host_triple_comes_from_settings_before_the_machine() {
        let ours = Some(LINUX);
        for (settings, arch, os, triple) in [
            (None, "x86_64", "linux", ours),
            (
                Some("version = \"12\"\n[overrides]\n"),
                "x86_64",
                "linux",
                ours,
            ),
            (
                Some("default_host_triple = \"x86_64-unknown-linux-gnu\""),
                "aarch64",
                "macos",
                ours,
            ),
            (
                Some("default_host_tuple = \"x86_64-unknown-linux-gnu\""),
                "mips",
                "linux",
                ours,
            ),
            (
                Some("default_host_triple = \"../../x-y-z\""),
                "x86_64",
                "linux",
                ours,
            ),
            (Some("no toml"), "x86_64", "linux", ours),
            (None, "aarch64", "macos", Some("aarch64-apple-darwin")),
            (None, "x86", "windows", Some("i686-pc-windows-msvc")),
            (
                None,
                "riscv64",
                "linux",
                Some("riscv64gc-unknown-linux-gnu"),
            ),
            (None, "x86_64", "freebsd", Some("x86_64-unknown-freebsd")),
            (None, "arm", "linux", None),
            (None, "powerpc64", "linux", None),
            (None, "x86_64", "hermit", None),
        ] {
            assert_eq!(
                UserSettings::parse(settings.unwrap_or_default())
                    .host_triple(arch, os)
                    .as_deref(),
                triple,
                "{settings:?} {arch} {os}"
            );
        }
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
        // One is there as zst too, another as gz only.
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
        // The best of a few: other tests share the processor.
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

    #[test]
    fn install_combines_toolchain_file_and_user_settings() {
        let user = UserSettings::parse("default_toolchain = 'beta'\nprofile = 'minimal'\n");
        let installed = |text: &str| {
            let wanted = parse_file(ToolchainFile::Toml, text).unwrap();
            install(wanted, &user, LINUX).map(|install| {
                install.map(|install| {
                    let more = [install.components.join("+"), install.targets.join("+")];
                    format!("{install} {} {}", install.profile, more.join("/"))
                })
            })
        };
        let ok = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(
            installed(
                "[toolchain]\nchannel = '1.95'\ncomponents = ['clippy']\ntargets = ['w']\nprofile = 'd'"
            ),
            ok(&format!("1.95-{LINUX} default clippy/w"))
        );
        assert_eq!(
            installed("[toolchain]\ncomponents = ['rust-src']"),
            ok(&format!("beta-{LINUX} minimal rust-src/"))
        );
        assert_eq!(
            installed("[toolchain]\nchannel = 'stable-x86_64-pc-windows-gnu'"),
            ok("stable-x86_64-pc-windows-gnu minimal /")
        );
        assert_eq!(installed("[toolchain]\npath = '/opt/rust'"), Ok(None));
        assert!(matches!(
            installed("[toolchain]\nchannel = 'mine'"),
            Err(InstallError::NotReleased(_))
        ));
    }

    #[test]
    fn day_before_crosses_months_and_leap_years() {
        assert_eq!(day_before("2026-03-01").as_deref(), Some("2026-02-28"));
        assert_eq!(day_before("2024-03-01").as_deref(), Some("2024-02-29"));
        assert_eq!(day_before("2026-01-01").as_deref(), Some("2025-12-31"));
        assert_eq!(day_before("2026-13-01"), None);
        assert_eq!(day_before("1970-01-01"), None);
    }
}
