//! What cargo asks for: a registry's config, its index entries, its crate files. Pure; the facts about cargo cite its
//! functions so that the next reader can check whether they still hold.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use semver::{Version, VersionReq};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::{Position, Url};

use super::{
    Audience, Freshness, Key, Kind, Location, Policy, PrefetchHint, Resource, Source, Unlisted,
};
use crate::hash::Sha256;

/// The store's and the log's name for crates.io.
pub const CRATES_IO: &str = "crates-io";

/// The registries this larder serves, by name.
#[derive(Clone, Debug)]
pub struct Registries(HashMap<String, Arc<Registry>>);

/// One registry upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Registry {
    /// `crates-io`, or the name the user gave it: one harmless path segment.
    name: String,
    /// The base address of its sparse index, ending in `/`.
    index: Url,
    /// Where its entries are kept: what was fetched from one address never passes for another's.
    entry_folder: String,
}

impl Registries {
    /// crates.io's index is at `crates_io`; the others are what the settings name.
    pub fn new(crates_io: Url, others: impl IntoIterator<Item = (String, Url)>) -> Self {
        let registries = others
            .into_iter()
            .chain([(CRATES_IO.to_owned(), crates_io)]);
        Self(
            registries
                .map(|(name, index)| (name.clone(), Arc::new(Registry::new(name, index))))
                .collect(),
        )
    }

    /// crates.io.
    pub fn crates_io(&self) -> &Arc<Registry> {
        self.0
            .get(CRATES_IO)
            .expect("the constructor put crates.io in")
    }

    /// The registry of that name, if there is one.
    pub fn named(&self, name: &str) -> Option<&Arc<Registry>> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registry>> {
        self.0.values()
    }
}

impl Registry {
    /// `crates-io`, or the name the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The base address of its sparse index.
    pub fn index(&self) -> &Url {
        &self.index
    }

    fn new(name: String, index: Url) -> Self {
        let entry_folder = format!(
            "{name}-{:.8}",
            Sha256::of(index.as_str().as_bytes()).to_string()
        );
        Self {
            name,
            index,
            entry_folder,
        }
    }

    /// Whether `name` can name a registry: small letters, digits, `-` and `_`, so that no two names share a folder
    /// anywhere.
    pub fn is_valid_name(name: &str) -> bool {
        is_crate_name(name) && !name.contains(|c: char| c.is_ascii_uppercase())
    }

    /// How people are told of it.
    fn display_name(&self) -> Cow<'_, str> {
        if self.name == CRATES_IO {
            "crates.io".into()
        } else {
            format!("registry `{}`", self.name).into()
        }
    }

    /// Whether `template` is one that crates may come from: on the web, no less safe than the index, and on one host for
    /// all crates, since the name of a crate is no reason to speak to a stranger.
    fn check_download_template(&self, template: &str) -> Result<(), String> {
        let example = |name, version, sum: &[u8]| {
            Url::parse(&fill_template(
                template,
                name,
                version,
                Some(Sha256::of(sum)),
            ))
        };
        let unusable = |why: &str| {
            format!(
                "names the unusable download address `{}`: {why}",
                template.escape_debug()
            )
        };
        // Two values for every marker.
        let (Ok(one), Ok(other)) = (example("aa", "0.0.0", b"1"), example("bbb", "1.1.1", b"2"))
        else {
            return Err(unusable("it is no address"));
        };
        if one[..Position::BeforePath] != other[..Position::BeforePath] {
            Err(unusable(
                "a marker stands before the path, where the host is",
            ))
        } else if !matches!(one.scheme(), "http" | "https") {
            Err(unusable("it is neither http nor https"))
        } else if self.index.scheme() == "https" && one.scheme() == "http" {
            Err(unusable("it is http although the index is https"))
        } else {
            Ok(())
        }
    }

    fn url_of(&self, path: &str) -> Url {
        self.index
            .join(path)
            .expect("a validated path joins any base address")
    }
}

/// `config.json` of a registry as upstream has it. Clients never see it: theirs is generated, see [`config_for_client`].
#[derive(Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Whose config.
    pub registry: Arc<Registry>,
}

/// The fields of `config.json` that matter to larder (cargo, `RegistryConfig` in `sources/registry/mod.rs`).
#[derive(Deserialize)]
struct ConfigFields<'a> {
    #[serde(borrow)]
    dl: Cow<'a, str>,
    #[serde(borrow, default)]
    api: Option<Cow<'a, str>>,
}

impl RegistryConfig {
    /// The config of `registry`.
    pub fn of(registry: &Arc<Registry>) -> Resource {
        Arc::new(Self {
            registry: registry.clone(),
        })
    }
}

impl fmt::Display for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config of {}", self.registry.display_name())
    }
}

impl Kind for RegistryConfig {
    fn location(&self) -> Location {
        Location::Entry(Key::new(&[&self.registry.entry_folder, "config.json"]))
    }

    fn policy(&self) -> Policy {
        Policy {
            // A registry moves its downloads about once in years; a wrong `dl` shows at once as a failed download.
            freshness: Freshness::For(Duration::from_secs(24 * 60 * 60)),
            max_bytes: 1 << 20,
            negative_ttl: Duration::from_secs(10),
            content_type: "application/json",
            compressible: false,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        Source::At(self.registry.url_of("config.json"))
    }

    fn validate(&self, body: &[u8]) -> Result<(), String> {
        match serde_json::from_slice::<ConfigFields<'_>>(body) {
            Ok(config) => self.registry.check_download_template(&config.dl),
            Err(_) => Err("is not a registry's config.json".to_owned()),
        }
    }
}

/// The `config.json` for a client that reached larder at `base` (ends in `/`, registry prefix included). Carries the
/// upstream's `api`, so that `cargo search --registry larder` works, and never its `auth-required`: credentials for
/// upstream are larder's own business.
pub fn config_for_client(base: &str, upstream: Option<&[u8]>) -> Bytes {
    let dl = format!("{base}crates/{{crate}}/{{version}}/{{sha256-checksum}}/download");
    let api = upstream
        .and_then(|body| serde_json::from_slice::<ConfigFields<'_>>(body).ok())
        .and_then(|config| config.api);
    let config = match api {
        Some(api) => serde_json::json!({ "dl": dl, "api": api }),
        None => serde_json::json!({ "dl": dl }),
    };
    Bytes::from(format!("{config}\n"))
}

/// Fills a download template as cargo does (cargo, `sources/registry/download.rs`, `download`): plain replacement, no
/// encoding, and a default tail if no marker occurs.
fn fill_template(template: &str, name: &str, version: &str, checksum: Option<Sha256>) -> String {
    const MARKERS: [&str; 5] = [
        "{crate}",
        "{version}",
        "{prefix}",
        "{lowerprefix}",
        "{sha256-checksum}",
    ];
    if !MARKERS.iter().any(|marker| template.contains(marker)) {
        return format!(
            "{}/{name}/{version}/download",
            template.trim_end_matches('/')
        );
    }
    template
        .replace("{crate}", name)
        .replace("{version}", version)
        .replace("{prefix}", &index_folder(name))
        .replace("{lowerprefix}", &index_folder(&name.to_ascii_lowercase()))
        .replace(
            "{sha256-checksum}",
            &checksum.map_or_else(String::new, |sum| sum.to_string()),
        )
}

/// The index folder of a crate (cargo, `make_dep_path` in `cargo-util/src/registry.rs`).
fn index_folder(name: &str) -> String {
    match name.len() {
        1 | 2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

/// Whether these segments, in any case, are the index folder of a crate: [`index_folder`] without its string.
fn is_index_folder_of(folder: &[&str], name: &str) -> bool {
    match (name.len(), folder) {
        (1, ["1"]) | (2, ["2"]) => true,
        (3, ["3", first]) => first.eq_ignore_ascii_case(&name[..1]),
        (4.., [first, second]) => {
            first.eq_ignore_ascii_case(&name[..2]) && second.eq_ignore_ascii_case(&name[2..4])
        }
        _ => false,
    }
}

/// Whether `name` may name a crate: what crates.io allows, and nothing that could be mistaken for a path. Names that
/// crates.io reserves pass: whether they exist is upstream's to say.
fn is_crate_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether `version` may be a version: the characters of semantic versioning, build metadata included.
fn is_version(version: &str) -> bool {
    (1..=128).contains(&version.len())
        && version.starts_with(|c: char| c.is_ascii_digit())
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
}

/// One crate's index file: a JSON object per version, one on each line.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Whose entry.
    pub registry: Arc<Registry>,
    /// The crate's name, lower-case as index paths are.
    name: String,
    /// Among which versions whoever asks will choose, if that is known.
    requirement: Option<VersionReq>,
}

/// The fields of an index line that larder reads (cargo, `IndexPackage` in `cargo-util-schemas/src/index.rs`).
#[derive(Deserialize)]
struct IndexLine<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    vers: Cow<'a, str>,
    #[serde(borrow)]
    cksum: Cow<'a, str>,
}

/// The part of a line that says when and on what it depends.
#[derive(Deserialize)]
struct LineDependencies<'a> {
    #[serde(borrow, default)]
    deps: Vec<IndexDependency<'a>>,
    #[serde(borrow, default)]
    pubtime: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct IndexDependency<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    package: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    req: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    registry: Option<Cow<'a, str>>,
    #[serde(default)]
    optional: bool,
}

/// The part of a line by which versions are chosen.
#[derive(Deserialize)]
struct LineVersion<'a> {
    #[serde(borrow)]
    vers: Cow<'a, str>,
    #[serde(default)]
    yanked: Option<bool>,
}

/// Of how many series of versions that are no substitutes for each other the newest version is looked at.
const MAX_SERIES: usize = 4;

fn index_lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    ends.scan(0, |start, end| {
        let line = &body[*start..end];
        *start = end + 1;
        Some(line.trim_ascii())
    })
    .filter(|line| !line.is_empty())
}

/// The version of a line. Mostly it can be seen without reading the line: registries write it before what could look the
/// same, the dependencies. Where it is written in another way, the line is read.
fn version_of_line(line: &[u8]) -> Option<Cow<'_, str>> {
    let quick = quoted_after(b"\"vers\":\"", line).map(Cow::Borrowed);
    quick.or_else(|| Some(serde_json::from_slice::<LineVersion<'_>>(line).ok()?.vers))
}

/// When a line was published, as far as it can be seen without reading the line: no other field of that name has a string. `None`
/// says nothing: the line must be read.
fn quick_publication_time(line: &[u8]) -> Option<SystemTime> {
    humantime::parse_rfc3339(quoted_after(b"\"pubtime\":\"", line)?).ok()
}

/// What follows `field` up to the next quotation mark.
fn quoted_after<'a>(field: &[u8], line: &'a [u8]) -> Option<&'a str> {
    let rest = &line[memchr::memmem::find(line, field)? + field.len()..];
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

impl IndexEntry {
    /// The entry of the crate `name`, in any case; `None` if that cannot be a crate's name.
    pub fn of(registry: &Arc<Registry>, name: &str) -> Option<Resource> {
        Self::new(registry, name).map(|entry| Arc::new(entry) as Resource)
    }

    fn new(registry: &Arc<Registry>, name: &str) -> Option<Self> {
        is_crate_name(name).then(|| Self {
            registry: registry.clone(),
            name: name.to_ascii_lowercase(),
            requirement: None,
        })
    }

    /// Reads the path segments below a registry's base; `None` if they are no index path or the folder does not
    /// belong to the name.
    pub fn parse(registry: &Arc<Registry>, segments: &[&str]) -> Option<Resource> {
        let (name, folder) = segments.split_last()?;
        let entry = Self::new(registry, name)?;
        is_index_folder_of(folder, &entry.name).then(|| Arc::new(entry) as Resource)
    }

    fn path(&self) -> String {
        format!("{}/{}", index_folder(&self.name), self.name)
    }

    /// The checksum that an entry's body gives for a version; textual comparison, build metadata included.
    pub fn checksum(body: &[u8], version: &str) -> Option<Sha256> {
        Self::find(body, version).map(|(_, checksum)| checksum)
    }

    /// The line of a version, and the checksum in it.
    fn find<'a>(body: &'a [u8], version: &str) -> Option<(&'a [u8], Sha256)> {
        let read = |text: &'a [u8]| {
            let line = serde_json::from_slice::<IndexLine<'_>>(text).ok()?;
            (line.vers == version).then(|| Some((text, Sha256::parse(&line.cksum)?)))?
        };
        // To read all of the lines before the right one takes longer than everything else that a stored crate costs.
        let needle = format!("\"vers\":\"{version}\"");
        let text = std::str::from_utf8(body).unwrap_or_default();
        let quick = text.find(&needle).and_then(|at| {
            let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
            read(&body[start..end])
        });
        // Written in another way, or found within something else.
        quick.or_else(|| index_lines(body).find_map(read))
    }
}

impl fmt::Display for IndexEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index entry of `{}`", self.name)?;
        write_registry_suffix(f, &self.registry)
    }
}

fn write_registry_suffix(f: &mut fmt::Formatter<'_>, registry: &Registry) -> fmt::Result {
    if registry.name == CRATES_IO {
        Ok(())
    } else {
        write!(f, " in {}", registry.display_name())
    }
}

impl Kind for IndexEntry {
    fn location(&self) -> Location {
        // One folder below the index, not the two of cargo's layout: making folders costs more than filling them.
        let folder = self.name.get(..2).unwrap_or(&self.name);
        Location::Entry(Key::new(&[
            &self.registry.entry_folder,
            "index",
            folder,
            &self.name,
        ]))
    }

    fn policy(&self) -> Policy {
        Policy {
            freshness: Freshness::AsUpstreamSays,
            // The largest entries of crates.io are below 20 MB.
            max_bytes: 64 << 20,
            // Long enough to spare upstream a typo in a loop, short enough that a crate published a minute ago is found.
            negative_ttl: Duration::from_secs(30),
            content_type: "text/plain",
            compressible: true,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        Source::At(self.registry.url_of(&self.path()))
    }

    /// At least one line must describe this very crate, and the last line must be whole: unknown fields, newer schema
    /// versions and an odd line pass, a login page or half a file does not.
    fn validate(&self, body: &[u8]) -> Result<(), String> {
        let is_ours = |line| {
            serde_json::from_slice::<IndexLine<'_>>(line)
                .is_ok_and(|line| line.name.eq_ignore_ascii_case(&self.name))
        };
        let is_whole = |line| serde_json::from_slice::<&RawValue>(line).is_ok();
        if index_lines(body).next().is_none() {
            Err("is empty".to_owned())
        } else if !index_lines(body).any(is_ours) {
            Err(format!(
                "does not describe the crate `{}`; a login page or a wrong server?",
                self.name
            ))
        } else if !body.ends_with(b"\n") && !index_lines(body).last().is_some_and(is_whole) {
            Err("ends in the middle of a line".to_owned())
        } else {
            Ok(())
        }
    }

    /// A version published at a moment may need versions of its dependencies published just before that moment, so
    /// their entries must have been checked since. Without a publication time, the moment is now.
    fn invalidates(
        &self,
        old: Option<&[u8]>,
        new: &[u8],
        after: SystemTime,
        now: SystemTime,
    ) -> Vec<(Key, SystemTime)> {
        let known: HashSet<&[u8]> = old
            .map(|old| index_lines(old).collect())
            .unwrap_or_default();
        let mut checked_since = BTreeMap::new();
        // Nearly all versions are old, and to read their lines takes longer than all else that is done with an entry.
        let is_new = |line: &&[u8]| {
            !known.contains(line) && quick_publication_time(line).is_none_or(|at| at > after)
        };
        for line in index_lines(new).filter(is_new) {
            let Ok(line) = serde_json::from_slice::<LineDependencies<'_>>(line) else {
                continue;
            };
            let published = line
                .pubtime
                .and_then(|time| humantime::parse_rfc3339(&time).ok())
                .map_or(now, |time| time.min(now));
            for dep in line.deps {
                // Dev-dependencies of other people's crates are never resolved; those of another registry are not
                // known by name here.
                if dep.kind.as_deref() == Some("dev") || dep.registry.is_some() {
                    continue;
                }
                let Some(dep) = Self::new(&self.registry, &dep.package.unwrap_or(dep.name)) else {
                    continue;
                };
                let since = checked_since.entry(dep.name).or_insert(published);
                *since = published.max(*since);
            }
        }
        checked_since
            .into_iter()
            .filter(|(_, since)| *since > after)
            .filter_map(
                |(name, since)| match Self::new(&self.registry, &name)?.location() {
                    Location::Entry(key) => Some((key, since)),
                    Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_) => None,
                },
            )
            .collect()
    }

    /// The entries of what the version needs that a resolver will choose, which is the newest acceptable one (cargo,
    /// `core/resolver/dep_cache.rs`): the newest that is wanted. Where that isn't known, the newest of all and, if somebody needed it
    /// before, of some older series of versions that the newest one is no substitute for. Of the optional dependencies most are off; which
    /// ones are on shows by what was asked for before, too. Dev-dependencies are always off.
    fn prefetch_hints(&self, body: &[u8]) -> Vec<PrefetchHint> {
        let is_acceptable = |version: &Version| {
            let requirement = self.requirement.as_ref();
            requirement.is_none_or(|requirement| requirement.matches(version))
        };
        // Most lines are only looked at: to parse all of them takes as long as everything else that an entry costs.
        let mut versions: Vec<_> = index_lines(body)
            .filter_map(|line| Some((Version::parse(&version_of_line(line)?).ok()?, line)))
            .filter(|(version, _)| is_acceptable(version))
            .collect();
        versions
            .sort_unstable_by(|(a, _), (b, _)| (b.pre.is_empty(), b).cmp(&(a.pre.is_empty(), a)));
        let max_series = if self.requirement.is_some() {
            1
        } else {
            MAX_SERIES
        };
        let mut hints: BTreeMap<(String, String), bool> = BTreeMap::new();
        let mut series = Vec::new();
        for (version, line) in versions {
            // What cargo takes for compatible (semver, `Op::Caret`).
            let this = match (version.major, version.minor) {
                (0, 0) => (0, 0, version.patch),
                (0, minor) => (0, minor, 0),
                (major, _) => (major, 0, 0),
            };
            let is_odd = !version.pre.is_empty() && !series.is_empty();
            if is_odd || series.contains(&this) {
                continue;
            }
            let is_choice = serde_json::from_slice::<LineVersion<'_>>(line)
                .is_ok_and(|line| line.yanked != Some(true) && line.vers == version.to_string());
            if !is_choice {
                continue;
            }
            let Ok(line) = serde_json::from_slice::<LineDependencies<'_>>(line) else {
                continue;
            };
            for dep in line.deps {
                if dep.kind.as_deref() == Some("dev") || dep.registry.is_some() {
                    continue;
                }
                let name = dep.package.unwrap_or(dep.name).into_owned();
                *hints.entry((name, dep.req.into_owned())).or_default() |=
                    !dep.optional && series.is_empty();
            }
            series.push(this);
            if series.len() == max_series {
                break;
            }
        }
        hints
            .into_iter()
            .filter_map(|((name, req), is_likely)| {
                let entry = Self {
                    requirement: VersionReq::parse(&req).ok(),
                    ..Self::new(&self.registry, &name)?
                };
                Some(PrefetchHint {
                    resource: Arc::new(entry),
                    choice: req,
                    is_likely,
                })
            })
            .collect()
    }

    fn checksums(&self, body: &[u8]) -> Vec<Sha256> {
        index_lines(body)
            .filter_map(|line| serde_json::from_slice::<IndexLine<'_>>(line).ok())
            .filter_map(|line| Sha256::parse(&line.cksum))
            .collect()
    }

    /// Versions whose crate is not held are marked as yanked: cargo then chooses none of them anew, yet a lock file
    /// that names one still resolves (cargo, `Summaries`/`query_inner` in `sources/registry/index/mod.rs`), which
    /// matters for crates that another platform needs and this one never downloads. If none is held, the entry says
    /// nothing about choice and stays as it is.
    fn offline_view(&self, body: Bytes, stored: &HashSet<Sha256>) -> Bytes {
        let is_stored = |line: &[u8]| {
            serde_json::from_slice::<IndexLine<'_>>(line)
                .ok()
                .and_then(|line| Sha256::parse(&line.cksum))
                .is_some_and(|sum| stored.contains(&sum))
        };
        if !index_lines(&body).any(is_stored) {
            return body;
        }
        let mut view = Vec::with_capacity(body.len() + 64);
        for line in index_lines(&body) {
            match (!is_stored(line)).then(|| with_yanked(line)).flatten() {
                Some(yanked) => view.extend_from_slice(&yanked),
                None => view.extend_from_slice(line),
            }
            view.push(b'\n');
        }
        Bytes::from(view)
    }
}

/// The line with `yanked` set and every other value as it was; `None` if it is no JSON object.
fn with_yanked(line: &[u8]) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(line).ok()?;
    let yes: &RawValue = serde_json::from_str("true").ok()?;
    fields.insert("yanked", yes);
    serde_json::to_vec(&fields).ok()
}

/// One crate archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrateFile {
    /// Whose crate.
    pub registry: Arc<Registry>,
    /// In the case of the index line.
    name: String,
    version: String,
    checksum: Option<Sha256>,
}

impl CrateFile {
    /// The archive of that name and version, with its hash if the asker knows it (from a lock file or the address);
    /// `None` if that cannot be a crate's name and version.
    pub fn of(
        registry: &Arc<Registry>,
        name: &str,
        version: &str,
        checksum: Option<Sha256>,
    ) -> Option<Resource> {
        (is_crate_name(name) && is_version(version)).then(|| {
            Arc::new(Self {
                registry: registry.clone(),
                name: name.to_owned(),
                version: version.to_owned(),
                checksum,
            }) as Resource
        })
    }

    /// Reads the path segments below a registry's base: `crates/NAME/VERSION/download`, or with the checksum before
    /// the last; `None` if they are no such path.
    pub fn parse(registry: &Arc<Registry>, segments: &[&str]) -> Option<Resource> {
        match segments {
            ["crates", name, version, "download"] => Self::of(registry, name, version, None),
            ["crates", name, version, checksum, "download"] => {
                Self::of(registry, name, version, Some(Sha256::parse(checksum)?))
            }
            _ => None,
        }
    }
}

impl fmt::Display for CrateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crate `{} {}`", self.name, self.version)?;
        write_registry_suffix(f, &self.registry)
    }
}

impl Kind for CrateFile {
    fn location(&self) -> Location {
        match self.checksum {
            Some(sum) => Location::Blob(sum),
            None => Location::ListedIn(Arc::new(
                IndexEntry::new(&self.registry, &self.name)
                    .expect("a crate file's name was checked when it was made"),
            )),
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            freshness: Freshness::Forever,
            max_bytes: 1 << 30,
            negative_ttl: Duration::from_secs(30),
            content_type: "application/gzip",
            compressible: false,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        Source::NamedBy(RegistryConfig::of(&self.registry))
    }

    fn resolve(&self, listing: &[u8]) -> Result<Resource, Unlisted> {
        let sum = IndexEntry::checksum(listing, &self.version).ok_or(Unlisted)?;
        Ok(Arc::new(Self {
            checksum: Some(sum),
            ..self.clone()
        }))
    }

    fn locate(&self, naming: &[u8]) -> Result<Url, String> {
        let config: ConfigFields<'_> = serde_json::from_slice(naming)
            .map_err(|cause| format!("config.json cannot be read: {cause}"))?;
        // Recognised when it came, but perhaps by an older release, or from a disk that others write to.
        self.registry
            .check_download_template(&config.dl)
            .map_err(|why| format!("config.json {why}"))?;
        let address = fill_template(&config.dl, &self.name, &self.version, self.checksum);
        Url::parse(&address).map_err(|cause| format!("`{address}` is no address: {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Arc<Registry> {
        let registries = Registries::new(Url::parse("http://127.0.0.1:9/index/").unwrap(), []);
        registries.crates_io().clone()
    }

    #[track_caller]
    fn check_path(path: &str, key: Option<&str>) {
        let segments: Vec<_> = path.split('/').collect();
        let found = IndexEntry::parse(&registry(), &segments).map(|entry| match entry.location() {
            Location::Entry(key) => {
                let (folder, path) = key.as_str().split_once('/').unwrap();
                assert!(folder.starts_with("crates-io-"), "{folder}");
                path.to_owned()
            }
            other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                panic!("an index entry lives in an entry, not {other:?}")
            }
        });
        assert_eq!(found.as_deref(), key, "{path}");
    }

    #[test]
    fn short_names_have_their_own_folders_and_wrong_folders_are_refused() {
        check_path("1/a", Some("index/a/a"));
        check_path("2/cc", Some("index/cc/cc"));
        check_path("3/l/log", Some("index/lo/log"));
        check_path("se/rd/serde", Some("index/se/serde"));
        check_path("re/gi/registry", Some("index/re/registry"));
        check_path("xx/yy/serde", None);
        check_path("3/x/log", None);
        check_path("1/cc", None);
        check_path("serde", None);
        check_path("se/rd/se..rde", None);
        check_path("se/rd/", None);
    }

    #[test]
    fn any_case_maps_to_one_lower_case_entry() {
        check_path("mi/xe/mixedcase", Some("index/mi/mixedcase"));
        check_path("Mi/Xe/MixedCase", Some("index/mi/mixedcase"));
    }

    #[test]
    fn entries_of_different_index_urls_have_different_keys() {
        let key = |address: &str| {
            let registries = Registries::new(Url::parse(address).unwrap(), []);
            match RegistryConfig::of(registries.crates_io()).location() {
                Location::Entry(key) => key,
                other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                    panic!("{other:?}")
                }
            }
        };
        assert_eq!(key("http://a.example/"), key("http://a.example/"));
        assert_ne!(key("http://a.example/"), key("http://b.example/"));
    }

    #[test]
    fn dash_and_underscore_are_different_names() {
        check_path("my/-d/my-dash", Some("index/my/my-dash"));
        check_path("my/_d/my_dash", Some("index/my/my_dash"));
    }

    const SUM: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn line(name: &str, version: &str, sum: &str) -> String {
        format!(
            r#"{{"name":"{name}","vers":"{version}","deps":[],"cksum":"{sum}","features":{{}},"yanked":false}}"#
        )
    }

    #[track_caller]
    fn check_validation(body: &str, expected: Result<(), &str>) {
        let entry = IndexEntry::of(&registry(), "left").unwrap();
        let found = entry.validate(body.as_bytes());
        match expected {
            Ok(()) => assert_eq!(found, Ok(())),
            Err(part) => assert!(found.clone().unwrap_err().contains(part), "{found:?}"),
        }
    }

    #[test]
    fn login_pages_and_empty_and_cut_bodies_are_rejected() {
        let good = line("left", "1.0.0", SUM);
        check_validation(&good, Ok(()));
        check_validation("", Err("empty"));
        check_validation("\n\n", Err("empty"));
        check_validation(
            "<html><body>Please log in</body></html>",
            Err("does not describe"),
        );
        check_validation(&line("right", "1.0.0", SUM), Err("does not describe"));
        let two = format!("{good}\n{}", line("left", "1.1.0", SUM));
        check_validation(&two, Ok(()));
        for cut in good.len() + 2..two.len() {
            check_validation(&two[..cut], Err("middle"));
        }
    }

    #[test]
    fn unknown_fields_newer_schemas_white_space_and_one_corrupt_line_are_accepted() {
        let good = line("left", "1.0.0", SUM);
        check_validation(&format!("{good}\nrubbish\n"), Ok(()));
        check_validation(&format!("rubbish\n{good}"), Ok(()));
        check_validation(
            &format!(
                "  {}  \r\n",
                good.replace("\"vers\"", "\"new\" : 1, \"v\":7, \"vers\"")
            ),
            Ok(()),
        );
        check_validation(&line("LEFT", "1.0.0", SUM), Ok(()));
    }

    #[test]
    fn build_metadata_is_part_of_the_version() {
        let segments = [
            "crates",
            "wasi",
            "0.11.1+wasi-snapshot-preview1",
            "download",
        ];
        let found = CrateFile::parse(&registry(), &segments).unwrap();
        assert_eq!(
            found.to_string(),
            "crate `wasi 0.11.1+wasi-snapshot-preview1`"
        );
        let body = format!(
            "{}\n{}",
            line("wasi", "0.11.1", &"0".repeat(64)),
            line("wasi", "0.11.1+x", SUM)
        );
        assert_eq!(
            IndexEntry::checksum(body.as_bytes(), "0.11.1+x"),
            Sha256::parse(SUM)
        );
    }

    #[track_caller]
    fn check_download_url(dl: &str, expected: &str) {
        let sum = Sha256::parse(SUM);
        let file = CrateFile::of(&registry(), "MixedCase", "1.0.0+b", sum).unwrap();
        let config = serde_json::json!({ "dl": dl }).to_string();
        assert_eq!(file.locate(config.as_bytes()).unwrap().as_str(), expected);
    }

    #[test]
    fn download_templates_are_filled_as_cargo_fills_them() {
        check_download_url(
            "http://a.example/dl",
            "http://a.example/dl/MixedCase/1.0.0+b/download",
        );
        check_download_url(
            "http://a.example/dl/",
            "http://a.example/dl/MixedCase/1.0.0+b/download",
        );
        check_download_url(
            "http://a.example/{lowerprefix}/{prefix}/{crate}-{version}.crate",
            "http://a.example/mi/xe/Mi/xe/MixedCase-1.0.0+b.crate",
        );
        check_download_url(
            "http://a.example/{sha256-checksum}",
            &format!("http://a.example/{SUM}"),
        );
    }

    #[track_caller]
    fn check_template_refused(index: &str, dl: &str, part: &str) {
        let registries = Registries::new(Url::parse(index).unwrap(), []);
        let registry = registries.crates_io();
        let config = serde_json::json!({ "dl": dl }).to_string();
        let file = CrateFile::of(registry, "left", "1.0.0", Sha256::parse(SUM)).unwrap();
        let located = file.locate(config.as_bytes()).unwrap_err();
        let recognised = RegistryConfig::of(registry)
            .validate(config.as_bytes())
            .unwrap_err();
        for why in [located, recognised] {
            assert!(why.contains(part), "{dl}: {why}");
        }
    }

    #[test]
    fn download_templates_must_be_http_and_as_secure_as_the_index() {
        for dl in ["file:///etc", "ftp://a.example/dl", "data:{crate}"] {
            check_template_refused("http://a.example/", dl, "neither http nor https");
        }
        check_template_refused("https://a.example/", "http://a.example/dl", "http although");
        check_template_refused("https://a.example/", "dl/{crate}", "no address");
        check_download_url(
            "https://a.example/",
            "https://a.example/MixedCase/1.0.0+b/download",
        );
    }

    #[test]
    fn markers_before_the_path_of_a_template_are_refused() {
        for dl in [
            "http://{crate}.example/",
            "http://{crate}/",
            "http:///{crate}/x",
            "http:{crate}",
            "http:\\\\{lowerprefix}.example/",
            "http://{prefix}.example/",
            "http://a.example{crate}",
            "http://{sha256-checksum}.example/",
            "http://{crate}@a.example/",
            "{crate}://a.example/",
            "http://v{version}.example/{crate}",
        ] {
            check_template_refused("http://a.example/", dl, "before the path");
        }
    }

    #[test]
    fn crate_without_hash_is_resolved_by_its_index_entry() {
        let file = CrateFile::of(&registry(), "left", "1.0.0", None).unwrap();
        let Location::ListedIn(listing) = file.location() else {
            panic!("needs a listing")
        };
        assert_eq!(listing.to_string(), "index entry of `left`");
        let complete = file.resolve(line("left", "1.0.0", SUM).as_bytes()).unwrap();
        assert!(matches!(complete.location(), Location::Blob(sum) if sum.to_string() == SUM));
        assert_eq!(
            file.resolve(line("left", "2.0.0", SUM).as_bytes())
                .unwrap_err(),
            Unlisted
        );
    }

    #[test]
    fn client_config_carries_checksum_marker_and_api_but_no_credentials() {
        let upstream =
            br#"{"dl":"http://b.example/dl","api":"http://b.example","auth-required":true}"#;
        let served = config_for_client("http://127.0.0.1:3263/", Some(upstream));
        let config: serde_json::Value = serde_json::from_slice(&served).unwrap();
        assert_eq!(
            config["dl"],
            "http://127.0.0.1:3263/crates/{crate}/{version}/{sha256-checksum}/download"
        );
        assert_eq!(config["api"], "http://b.example");
        assert!(config.get("auth-required").is_none());
    }

    #[test]
    fn offline_view_yanks_versions_that_are_not_stored_and_changes_nothing_else() {
        let other = "0".repeat(64);
        let body = format!(
            "{}\n{}\nrubbish\n",
            line("left", "1.0.0", SUM),
            line("left", "1.1.0", &other)
        );
        let entry = IndexEntry::of(&registry(), "left").unwrap();
        let stored = HashSet::from([Sha256::parse(SUM).unwrap()]);
        let view = entry.offline_view(Bytes::from(body.clone()), &stored);
        let view: Vec<&[u8]> = index_lines(&view).collect();
        assert_eq!(view[0], line("left", "1.0.0", SUM).as_bytes());
        let second: serde_json::Value = serde_json::from_slice(view[1]).unwrap();
        assert_eq!(
            (&second["vers"], &second["yanked"]),
            (&"1.1.0".into(), &true.into())
        );
        assert_eq!(view[2], b"rubbish");
        let none_stored = entry.offline_view(Bytes::from(body.clone()), &HashSet::new());
        assert_eq!(none_stored, body);
    }

    #[test]
    fn hints_are_the_dependencies_of_the_newest_version_and_unlikely_ones_of_older_series() {
        let deps = |version: &str, deps: &str| {
            line("left", version, SUM).replace("\"deps\":[]", &format!("\"deps\":[{deps}]"))
        };
        let body = [
            deps("1.10.0", r#"{"name":"a","package":"needed"},{"name":"built","kind":"build"},{"name":"no","optional":true}"#),
            deps("1.9.0", r#"{"name":"old"}"#),
            deps("0.9.2", r#"{"name":"older"}"#),
            deps("0.9.3", r#"{"name":"other"},{"name":"built"}"#),
            deps("2.0.0-beta.1", r#"{"name":"beta"}"#),
            deps("1.11.0", r#"{"name":"gone"}"#).replace("\"yanked\":false", "\"yanked\":true"),
            deps("1.10.0", r#"{"name":"dev","kind":"dev"}"#).replace("1.10.0", "1.2.0"),
        ]
        .join("\n");
        let entry = IndexEntry::of(&registry(), "left").unwrap();
        let hints: Vec<_> = entry
            .prefetch_hints(body.as_bytes())
            .into_iter()
            .map(|hint| (hint.resource.to_string(), hint.is_likely))
            .collect();
        let expected = [
            ("built", true),
            ("needed", true),
            ("no", false),
            ("other", false),
        ];
        assert_eq!(
            hints,
            expected.map(|(name, is_likely)| (format!("index entry of `{name}`"), is_likely))
        );
    }

    #[test]
    fn hints_and_invalidations_do_not_depend_on_json_white_space() {
        let line = |version: &str, dep: &str, year: u32| {
            format!(
                r#"{{"name":"a","vers":"{version}","deps":[{{"name":"{dep}","req":"^1"}}],"cksum":"","pubtime":"{year}-01-01T00:00:00Z"}}"#
            )
        };
        let tight = line("1.0.0", "old", 2020) + "\n" + &line("1.1.0", "new", 2025);
        let spaced = tight.replace("\":", "\" : ").replace(',', ", ");
        let entry = IndexEntry::of(&registry(), "a").unwrap();
        let after = humantime::parse_rfc3339("2024-01-01T00:00:00Z").unwrap();
        let seen = |body: &str| {
            let hints = entry.prefetch_hints(body.as_bytes());
            let hints: Vec<_> = hints.iter().map(|hint| hint.resource.to_string()).collect();
            let due = entry.invalidates(None, body.as_bytes(), after, SystemTime::now());
            (hints, due)
        };
        assert_eq!(seen(&tight), seen(&spaced));
        let (hints, due) = seen(&spaced);
        assert_eq!(
            (hints, due.len()),
            (vec!["index entry of `new`".to_owned()], 1)
        );
    }

    #[test]
    fn hints_of_an_entry_with_requirement_follow_the_newest_matching_version() {
        let deps = |version: &str, deps: &str| {
            line("left", version, SUM).replace("\"deps\":[]", &format!("\"deps\":[{deps}]"))
        };
        let body = [
            deps("0.1.2", r#"{"name":"old","req":"^1"}"#),
            deps(
                "0.1.3",
                r#"{"name":"x","req":"^2"},{"name":"X","package":"x","req":"^3","optional":true}"#,
            ),
            deps("0.1.4", r#"{"name":"gone","req":"^1"}"#)
                .replace("\"yanked\":false", "\"yanked\":true"),
            deps("0.9.0", r#"{"name":"left","req":"^0.1"}"#),
            deps("0.8.0", r#"{"name":"other","req":"not a requirement"}"#),
        ]
        .join("\n");
        let hints = |entry: &Resource| entry.prefetch_hints(body.as_bytes());
        let told = |hints: &[PrefetchHint]| -> Vec<_> {
            hints
                .iter()
                .map(|hint| format!("{} {} {}", hint.resource, hint.choice, hint.is_likely))
                .collect()
        };
        let wanted = hints(&IndexEntry::of(&registry(), "left").unwrap());
        assert_eq!(
            told(&wanted),
            [
                "index entry of `left` ^0.1 true",
                "index entry of `other` not a requirement false",
                "index entry of `x` ^2 false",
                "index entry of `x` ^3 false",
            ]
        );
        let further = hints(&wanted[0].resource);
        assert_eq!(
            told(&further),
            ["index entry of `x` ^2 true", "index entry of `x` ^3 false"]
        );
        assert!(hints(&further[0].resource).is_empty());
    }

    #[test]
    fn new_lines_invalidate_dependencies_checked_before_publication() {
        let entry = IndexEntry::of(&registry(), "left").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let long_ago = SystemTime::UNIX_EPOCH;
        let old = line("left", "1.0.0", SUM);
        let dep = |time: &str| {
            line("left", "1.1.0", SUM).replace(
                "\"deps\":[]",
                &format!(
                    r#""deps":[{{"name":"x","package":"right","req":"^2"}},{{"name":"dev","kind":"dev","req":"1"}}]{time}"#
                ),
            )
        };
        let key = |name: &str| match IndexEntry::of(&registry(), name).unwrap().location() {
            Location::Entry(key) => key,
            other @ (Location::Pair(..) | Location::Blob(_) | Location::ListedIn(_)) => {
                panic!("{other:?}")
            }
        };
        let changed = format!("{old}\n{}", dep(""));
        assert_eq!(
            entry.invalidates(Some(old.as_bytes()), changed.as_bytes(), long_ago, now),
            [(key("right"), now)]
        );
        assert_eq!(
            entry.invalidates(Some(changed.as_bytes()), changed.as_bytes(), long_ago, now),
            []
        );
        let dated = dep(r#","pubtime":"2024-01-02T03:04:05Z""#);
        let published = humantime::parse_rfc3339("2024-01-02T03:04:05Z").unwrap();
        assert_eq!(
            entry.invalidates(None, dated.as_bytes(), long_ago, now),
            [(key("right"), published)]
        );
        for dated in [dated.clone(), dated.replace("\":\"2", "\": \"2")] {
            assert_eq!(
                entry.invalidates(None, dated.as_bytes(), published, now),
                [],
                "{dated}"
            );
        }
    }
}
