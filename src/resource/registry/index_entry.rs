//! [`IndexEntry`]: the index file of one crate, which lists its versions.
//!
//! Cargo resolves by index entries alone, level by level. It requests an entry, chooses a version, and then requests
//! the entries of its dependencies (docs/client-behaviour.md C-20, C-21). Four features follow from that, all computed
//! from the body:
//!
//! ```text
//!  entry of `app` ── newest version ──> needs `left ^1` ──> entry of `left`
//!        │
//!        ├─ prefetch hints   `left` will be asked for next, so fetch it now
//!        ├─ invalidations    a version of `app` from today may need a `left` from today:
//!        │                   a copy of `left` checked yesterday no longer fits (C-29)
//!        ├─ hiding view      versions that the user's settings forbid are marked as yanked
//!        └─ offline view     versions that are neither stored nor offered by a pin are marked as yanked
//! ```
//!
//! An entry can carry the need for it ([`Need`]): a version requirement, and features. Its own hints then follow the
//! version and the features that cargo will choose, not the newest version with its default features.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Registry, RegistryConfig,
    index_changes::{listed_state, recalled_versions, with_kept_lines},
    index_folder,
    index_hints::{Need, needed_entries},
    index_line::{
        LineDependencies, check_line, checksum_of_line, checksum_of_version, index_lines,
        package_of_line, publication_time, quick_publication_time, version_of_line, with_yanked,
    },
    is_crate_name, is_index_folder_of, write_registry_suffix,
};
use crate::{
    hash::Sha256,
    resource::{
        Audience, Dependencies, Freshness, InvalidBody, Key, Kind, ListedState, Location, Policy,
        PrefetchHint, RecalledVersions, Resource, Retention, Source, Views,
    },
};

/// The index file of one crate: one line of JSON for each version.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The registry.
    pub registry: Arc<Registry>,
    /// The crate's name in lower case, as in index paths.
    name: String,
    /// The need by which the client will choose a version, if it is known.
    need: Option<Need>,
}

impl IndexEntry {
    /// The entry of the crate `name`, which may be in any case. `None` if it cannot be a crate's name.
    pub fn of(registry: &Arc<Registry>, name: &str) -> Option<Resource> {
        Self::new(registry, name).map(|entry| Arc::new(entry) as Resource)
    }

    pub(super) fn new(registry: &Arc<Registry>, name: &str) -> Option<Self> {
        is_crate_name(name).then(|| Self {
            registry: registry.clone(),
            name: name.to_ascii_lowercase(),
            need: None,
        })
    }

    /// Parses path segments below a registry's base. `None` if they are no index path, or if the folder does not fit
    /// the name.
    pub fn parse(registry: &Arc<Registry>, segments: &[&str]) -> Option<Resource> {
        let (name, folder) = segments.split_last()?;
        let entry = Self::new(registry, name)?;
        is_index_folder_of(folder, &entry.name).then(|| Arc::new(entry) as Resource)
    }

    /// The hash that the body of an entry lists for `version`. Versions are compared as text.
    pub fn checksum(body: &[u8], version: &str) -> Option<Sha256> {
        checksum_of_version(body, version)
    }

    /// When `version` was published, if the body of an entry says so.
    pub(super) fn published(body: &[u8], version: &str) -> Option<SystemTime> {
        let is_it = |line: &&[u8]| version_of_line(line).is_some_and(|found| found == version);
        publication_time(index_lines(body).find(is_it)?)
    }

    /// The crate's name, as its publisher spelled it, and the version with this hash, if the body of an entry lists it.
    pub(crate) fn package_of(body: &[u8], sha256: Sha256) -> Option<(String, String)> {
        let digits = sha256.digits();
        let is_listed = |line: &&[u8]| memchr::memmem::find(line, &digits).is_some();
        index_lines(body)
            .filter(is_listed)
            .find_map(|line| package_of_line(line, sha256))
    }

    /// The path below the index.
    fn path(&self) -> String {
        format!("{}/{}", index_folder(&self.name), self.name)
    }

    fn key(&self) -> Key {
        // One folder below the index instead of cargo's two: creating folders costs more than filling them.
        let folder = self.name.get(..2).unwrap_or(&self.name);
        Key::new(&[&self.registry.entry_folder, "index", folder, &self.name])
    }
}

impl fmt::Display for IndexEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index entry of `{}`", self.name)?;
        write_registry_suffix(f, &self.registry)
    }
}

impl Kind for IndexEntry {
    fn location(&self) -> Location {
        Location::Entry(self.key())
    }

    fn policy(&self) -> Policy {
        Policy {
            freshness: Freshness::AsUpstreamSays,
            stale_while_revalidate: true,
            // The largest entries of crates.io are below 20 MB.
            max_bytes: 64 << 20,
            max_bytes_setting: None,
            // `cargo publish` asks before it uploads, and then waits until the new crate is found. Cargo asks once for
            // a name in one command, so a longer memory spares little.
            negative_ttl: Duration::from_secs(2),
            content_type: "text/plain",
            compressible: true,
            audience: Audience::Cargo,
        }
    }

    fn source(&self) -> Source {
        Source::At(self.registry.url_of(&self.path()))
    }

    /// At least one line must describe this crate, and no line may be one that cargo would misread or that another
    /// server wrote (docs/decisions/0034-index-lines.md). The last line must be complete. Unknown fields, newer
    /// schema versions and a corrupt line are accepted, because cargo skips such lines (C-26). A login page or half a
    /// file is not: cargo would store it as a crate without versions (C-14).
    fn validate(&self, body: &[u8]) -> Result<(), InvalidBody> {
        if index_lines(body).next().is_none() {
            return Err(InvalidBody::Empty);
        }
        let mut is_ours = false;
        let mut bad_line = None;
        for (at, line) in index_lines(body).enumerate() {
            match check_line(line, &self.name) {
                Ok(ours) => is_ours |= ours,
                Err(problem) => {
                    let number = at + 1;
                    bad_line.get_or_insert(InvalidBody::Line { number, problem });
                }
            }
        }
        let is_whole = |line| serde_json::from_slice::<&RawValue>(line).is_ok();
        if !is_ours {
            Err(InvalidBody::OtherCrate(self.name.clone()))
        } else if let Some(bad_line) = bad_line {
            Err(bad_line)
        } else if !body.ends_with(b"\n") && !index_lines(body).last().is_some_and(is_whole) {
            Err(InvalidBody::CutLine)
        } else {
            Ok(())
        }
    }

    fn dependencies(&self) -> Option<&dyn Dependencies> {
        Some(self)
    }

    fn views(&self) -> Option<&dyn Views> {
        Some(self)
    }

    fn retention(&self) -> Option<&dyn Retention> {
        Some(self)
    }
}

impl Retention for IndexEntry {
    fn witness(&self) -> Resource {
        RegistryConfig::of(&self.registry)
    }

    fn recalled_versions(&self, old: &[u8], new: &[u8]) -> RecalledVersions {
        recalled_versions(old, new, &self.name)
    }

    fn with_kept_versions(
        &self,
        old: &[u8],
        new: &[u8],
        recalled: &RecalledVersions,
        locked: &[String],
    ) -> Option<Bytes> {
        with_kept_lines(old, new, recalled, locked, &self.name)
    }

    fn listed_state(&self, body: &[u8], version: &str) -> Option<ListedState> {
        listed_state(body, &self.name, version)
    }

    fn package(&self) -> Option<(&str, &str)> {
        Some((self.registry.name(), &self.name))
    }
}

impl Dependencies for IndexEntry {
    /// A version may need versions of its dependencies that were published shortly before it. So the entries of those
    /// dependencies must have been checked after its publication, or after `now` if the line gives no time.
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
        let mut check_after = BTreeMap::new();
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
            for name in line.deps.iter().filter_map(|dep| dep.crate_name()) {
                let Some(entry) = Self::new(&self.registry, name) else {
                    continue;
                };
                let time = check_after.entry(entry.key()).or_insert(published);
                *time = published.max(*time);
            }
        }
        check_after
            .into_iter()
            .filter(|(_, time)| *time > after)
            .collect()
    }

    fn prefetch_hints(&self, body: &[u8]) -> Vec<PrefetchHint> {
        let needed = needed_entries(self.need.as_ref(), body).into_iter();
        let hints = needed.filter_map(|needed| {
            let text = needed.need.to_string();
            let need = Some(needed.need);
            Some(PrefetchHint {
                resource: Arc::new(Self {
                    need,
                    ..Self::new(&self.registry, &needed.name)?
                }),
                need: text,
                is_likely: needed.is_likely,
            })
        });
        hints.collect()
    }
}

impl Views for IndexEntry {
    fn hiding_view(
        &self,
        body: &Bytes,
        hides: &dyn Fn(&str, Option<SystemTime>) -> bool,
    ) -> Option<Bytes> {
        let is_hidden = |line: &[u8]| {
            version_of_line(line).is_some_and(|version| hides(&version, publication_time(line)))
        };
        let first = index_lines(body).position(is_hidden)?;
        let mut view = Vec::with_capacity(body.len() + 64);
        for (at, line) in index_lines(body).enumerate() {
            let hidden = (at == first || at > first && is_hidden(line)).then(|| with_yanked(line));
            match hidden.flatten() {
                Some(yanked) => view.extend_from_slice(&yanked),
                None => view.extend_from_slice(line),
            }
            view.push(b'\n');
        }
        Some(Bytes::from(view))
    }

    fn checksums(&self, body: &[u8]) -> Vec<Sha256> {
        index_lines(body).filter_map(checksum_of_line).collect()
    }

    /// Marks versions that are not offered as yanked. Cargo then does not choose them anew, but a lock file that names
    /// one still resolves (docs/client-behaviour.md C-27). If no version is offered, the entry stays as it is.
    fn offline_view(&self, body: Bytes, offered: &HashSet<Sha256>) -> Bytes {
        let is_offered =
            |line: &[u8]| checksum_of_line(line).is_some_and(|sha256| offered.contains(&sha256));
        if !index_lines(&body).any(is_offered) {
            return body;
        }
        let mut view = Vec::with_capacity(body.len() + 64);
        for line in index_lines(&body) {
            match (!is_offered(line)).then(|| with_yanked(line)).flatten() {
                Some(yanked) => view.extend_from_slice(&yanked),
                None => view.extend_from_slice(line),
            }
            view.push(b'\n');
        }
        Bytes::from(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::registry::fixture::{SUM, line, registry};

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
    fn dash_and_underscore_are_different_names() {
        check_path("my/-d/my-dash", Some("index/my/my-dash"));
        check_path("my/_d/my_dash", Some("index/my/my_dash"));
    }

    #[track_caller]
    fn check_validation(body: &str, expected: Result<(), &str>) {
        let entry = IndexEntry::of(&registry(), "left").unwrap();
        let found = entry.validate(body.as_bytes());
        match expected {
            Ok(()) => assert!(found.is_ok(), "{found:?}"),
            Err(part) => assert!(found.unwrap_err().to_string().contains(part)),
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
    fn unknown_fields_newer_schemas_white_space_and_lines_that_cargo_skips_are_accepted() {
        let good = line("left", "1.0.0", SUM);
        let newer = good.replace("\"vers\"", "\"new\" : 1, \"v\":7, \"vers\"");
        check_validation(&format!("  {newer}  \r\n"), Ok(()));
        check_validation(&line("LEFT", "1.0.0", SUM), Ok(()));
        check_validation(&format!("{good}\nrubbish\n"), Ok(()));
        check_validation(&format!("rubbish\n{good}"), Ok(()));
        check_validation(&format!("{good}\n{{}}\n{{\"name\":\"left\"}}\n"), Ok(()));
        let future = r#"{"v":3,"name":{"of":"left"},"vers":"2.0.0","cksum":"blake3:1234"}"#;
        check_validation(&format!("{future}\n{good}\n"), Ok(()));
        let spaces = "\n\n";
        check_validation(&format!("{spaces}{good}{spaces}"), Ok(()));
    }

    #[test]
    fn lines_that_cargo_would_misread_are_rejected() {
        let good = line("left", "1.0.0", SUM);
        for (bad, expected) in [
            ("<p>Service unavailable</p>", "line 2 is markup"),
            ("\0\0\0\0", "line 2 has NUL bytes"),
            (
                &line("right", "1.1.0", SUM),
                "line 2 describes the crate `right`",
            ),
            (
                &line("left", "1.1.0", "abc"),
                "line 2 has a checksum that is no sha256",
            ),
            (
                &line("left", "1.1.0", &SUM.replace('9', "x")),
                "line 2 has a checksum",
            ),
        ] {
            check_validation(&format!("{good}\n{bad}\n"), Err(expected));
            let first = expected.replace("line 2", "line 1");
            check_validation(&format!("{bad}\n{good}\n"), Err(&first));
        }
        check_validation(&format!("{good}\n\0\0"), Err("line 2 has NUL bytes"));
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
        let view = entry
            .views()
            .unwrap()
            .offline_view(Bytes::from(body.clone()), &stored);
        let view: Vec<&[u8]> = index_lines(&view).collect();
        assert_eq!(view[0], line("left", "1.0.0", SUM).as_bytes());
        let second: serde_json::Value = serde_json::from_slice(view[1]).unwrap();
        assert_eq!(
            (&second["vers"], &second["yanked"]),
            (&"1.1.0".into(), &true.into())
        );
        assert_eq!(view[2], b"rubbish");
        let none_stored = entry
            .views()
            .unwrap()
            .offline_view(Bytes::from(body.clone()), &HashSet::new());
        assert_eq!(none_stored, body);
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
            let hints = entry
                .dependencies()
                .unwrap()
                .prefetch_hints(body.as_bytes());
            let hints: Vec<_> = hints.iter().map(|hint| hint.resource.to_string()).collect();
            let due = entry.dependencies().unwrap().invalidates(
                None,
                body.as_bytes(),
                after,
                SystemTime::now(),
            );
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
            entry.dependencies().unwrap().invalidates(
                Some(old.as_bytes()),
                changed.as_bytes(),
                long_ago,
                now
            ),
            [(key("right"), now)]
        );
        assert_eq!(
            entry.dependencies().unwrap().invalidates(
                Some(changed.as_bytes()),
                changed.as_bytes(),
                long_ago,
                now
            ),
            []
        );
        let dated = dep(r#","pubtime":"2024-01-02T03:04:05Z""#);
        let published = humantime::parse_rfc3339("2024-01-02T03:04:05Z").unwrap();
        assert_eq!(
            entry
                .dependencies()
                .unwrap()
                .invalidates(None, dated.as_bytes(), long_ago, now),
            [(key("right"), published)]
        );
        for dated in [dated.clone(), dated.replace("\":\"2", "\": \"2")] {
            assert_eq!(
                entry
                    .dependencies()
                    .unwrap()
                    .invalidates(None, dated.as_bytes(), published, now),
                [],
                "{dated}"
            );
        }
    }
}
