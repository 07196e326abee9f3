//! Reads the text of a `Cargo.lock`: its packages, where each comes from, and the checksum of each.
//!
//! ```text
//!  text ─ raw ─> TOML tables with offsets ─ entry ─> LockedPackage ─┐
//!                                             source: PackageSource ┴─> Lockfile { packages, invalid }
//! ```
//!
//! The reader is pure. Opening files, naming the file in messages and choosing what to fetch belong to `plan`.
//!
//! It reads `version`, `[metadata]`, and of each package `name`, `version`, `source`, `checksum`, `replace` and
//! `dependencies`. It ignores the rest, so that a lock file that cargo tolerates does not fail here. Names and versions
//! become parts of paths and URLs later. An entry with an impossible one is excluded alone, with its line; the rest of
//! the file stays usable.
//!
//! `cargo_lock::Lockfile` does none of that: it fails as a whole, reports no line, and looks up the checksums of format
//! 1 without regard to the source. This module uses its `Version` and `SourceId` but not its `Checksum`; docs/decisions
//! has the reason.
//!
//! The format is defined by cargo's `src/cargo/core/resolver/encode.rs` (`EncodableResolve`, `EncodablePackageId`) and
//! `src/cargo/core/source_id.rs` (`SourceId::from_url`).

mod entry;
mod error;
mod graph;
mod raw;
mod source;

use std::collections::{BTreeMap, BTreeSet};

pub use entry::LockedPackage;
pub use error::{EntryError, InvalidEntry, LockfileError};
pub use graph::{LockGraph, LockNode, graph};
pub use source::{PackageSource, canonical_index, parse_source};

use crate::hash::Sha256;
use entry::{PackageId, metadata_checksums, package, replacement_package};
use error::{line_of, shown};

/// The content of a lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockfile {
    /// The packages, sorted and distinct. Names and versions are safe to build paths and URLs from.
    pub packages: Vec<LockedPackage>,
    /// Entries that were excluded because a field is invalid.
    pub invalid: Vec<InvalidEntry>,
}

/// Reads a lock file of format 1 to 4, or the older form with a `[root]` table.
///
/// Entries without `source` are [`PackageSource::Local`]. An entry with `replace` stays, and the package that it
/// points to is listed too, and so are those of `[[patch.unused]]`.
///
/// # Errors
/// If the file as a whole is in doubt. A single entry with an impossible name, version or source is listed in
/// [`Lockfile::invalid`] instead.
pub fn parse(text: &str) -> Result<Lockfile, LockfileError> {
    let raw = raw::read(text)?;
    let checksums = metadata_checksums(text, &raw.metadata)?;

    let mut collector = PackageCollector {
        text,
        packages: BTreeMap::new(),
        disputed: BTreeSet::new(),
        unused: BTreeSet::new(),
        invalid: Vec::new(),
    };
    for entry in raw.root.iter().chain(&raw.package) {
        let offset = entry.span().start;
        let entry = entry.get_ref();
        let is_replaced = entry.replace.as_ref().is_some_and(|replacement| {
            let offset = replacement.span().start;
            match replacement_package(replacement.get_ref(), &checksums) {
                Ok(found) => {
                    if let Some((id, checksum)) = found {
                        collector.add(offset, id, checksum);
                    }
                    true
                }
                Err(reason) => {
                    collector.exclude(offset, replacement.get_ref(), reason);
                    false
                }
            }
        });
        match package(text, entry, &checksums)? {
            Ok((id, checksum)) => {
                if is_replaced {
                    collector.unused.insert(id.clone());
                }
                collector.add(offset, id, checksum);
            }
            Err(reason) => collector.exclude(offset, &entry.label(), reason),
        }
    }
    for entry in &raw::unused_patches(text) {
        match package(text, entry.get_ref(), &checksums)? {
            // A patch may be the same package as one that is used in another way.
            Ok((id, checksum)) if !collector.packages.contains_key(&id) => {
                collector.unused.insert(id.clone());
                collector.add(entry.span().start, id, checksum);
            }
            Ok(_) => {}
            Err(reason) => {
                collector.exclude(entry.span().start, &entry.get_ref().label(), reason);
            }
        }
    }
    Ok(collector.finish())
}

/// Packages by identity, so that a package that is named twice counts once.
struct PackageCollector<'a> {
    text: &'a str,
    packages: BTreeMap<PackageId, Option<Sha256>>,
    /// Packages with two different checksums. Neither is more likely than the other.
    disputed: BTreeSet<PackageId>,
    /// Packages that are not downloaded.
    unused: BTreeSet<PackageId>,
    invalid: Vec<InvalidEntry>,
}

impl PackageCollector<'_> {
    fn add(&mut self, offset: usize, id: PackageId, checksum: Option<Sha256>) {
        match self.packages.get_mut(&id) {
            Some(Some(known)) if checksum.is_some_and(|checksum| checksum != *known) => {
                let label = format!("{} {}", id.name, id.version);
                self.exclude(offset, &label, EntryError::TwoChecksums);
                self.disputed.insert(id);
            }
            Some(known) => *known = known.or(checksum),
            None => {
                self.packages.insert(id, checksum);
            }
        }
    }

    fn exclude(&mut self, offset: usize, label: &str, reason: EntryError) {
        let line = line_of(self.text, offset);
        self.invalid.push(InvalidEntry {
            line,
            package: shown(label),
            reason,
        });
    }

    fn finish(self) -> Lockfile {
        let packages = self.packages.into_iter();
        let packages = packages.filter(|(id, _)| !self.disputed.contains(id));
        Lockfile {
            packages: packages
                .map(|(id, checksum)| LockedPackage {
                    is_unused: self.unused.contains(&id),
                    ..id.locked(checksum)
                })
                .collect(),
            invalid: self.invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cargo_lock::SourceId;

    /// crates.io, as lock files spell it.
    fn crates_io() -> String {
        SourceId::default().to_string()
    }

    fn fixture(name: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures")
            .join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn sha256(hex: &str) -> Sha256 {
        Sha256::parse(hex).expect("64 hex digits")
    }

    #[track_caller]
    fn read_one(entry: &str) -> Lockfile {
        parse(&format!("version = 4\n\n[[package]]\n{entry}\n"))
            .expect("the file as a whole is fine")
    }

    #[track_caller]
    fn package(
        name: &str,
        version: &str,
        source: PackageSource,
        checksum: Option<char>,
    ) -> LockedPackage {
        let checksum = checksum.map(|digit| sha256(&digit.to_string().repeat(64)));
        LockedPackage {
            name: name.to_owned(),
            version: version.parse().expect("a version"),
            source,
            checksum,
            is_unused: false,
        }
    }

    /// The packages that each of the `same-*` fixtures names.
    fn same_packages() -> Vec<LockedPackage> {
        let corp = || PackageSource::Registry("https://corp.example/index".to_owned());
        let sparse = || PackageSource::Registry("sparse+https://corp.example/sparse".to_owned());
        let git = "git+https://git.example/left.git#0123456789abcdef0123456789abcdef01234567";
        vec![
            package("app", "0.1.0", PackageSource::Local, None),
            package("beside", "0.2.0", PackageSource::Local, None),
            package("left", "0.3.0", PackageSource::Git(git.to_owned()), None),
            package("left", "1.0.0", PackageSource::CratesIo, Some('a')),
            package("left", "1.0.0", corp(), Some('b')),
            package("left", "1.0.0", sparse(), Some('c')),
            package("left", "2.0.0-rc.1", PackageSource::CratesIo, Some('d')),
            package(
                "right_Hand",
                "0.11.1+snapshot-preview1",
                PackageSource::CratesIo,
                Some('e'),
            ),
        ]
    }

    #[test]
    fn formats_1_to_4_and_root_name_the_same_packages() {
        for name in [
            "same-root.lock",
            "same-v1.lock",
            "same-v2.lock",
            "same-v3.lock",
            "same-v4.lock",
        ] {
            let lockfile = parse(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(lockfile.packages, same_packages(), "{name}");
            assert_eq!(lockfile.invalid, [], "{name}");
        }
    }

    #[test]
    fn newer_formats_and_conflict_markers_are_refused_with_advice() {
        for (name, expected) in [
            (
                "version-5.lock",
                "lock file format version 5 is newer than larder knows (1 to 4): look for a newer larder",
            ),
            (
                "merge-conflict.lock",
                "line 8 is a merge conflict mark: resolve the merge, then run again",
            ),
        ] {
            let error = parse(&fixture(name)).expect_err(name);
            assert_eq!(error.to_string(), expected, "{name}");
        }
    }

    #[test]
    fn each_conflict_marker_is_recognised() {
        for mark in ["<<<<<<< HEAD", "=======", ">>>>>>> topic"] {
            let error = parse(&format!("version = 4\n{mark}\n")).expect_err(mark);
            assert_eq!(error, LockfileError::MergeConflict { line: 2 }, "{mark}");
        }
    }

    #[test]
    fn reads_git_local_and_replaced_packages_and_unused_patches() {
        let lockfile = parse(&fixture("replace-and-patch.lock")).expect("readable");
        let git =
            "git+https://git.example/left?branch=fix#0123456789abcdef0123456789abcdef01234567";
        let unused = |name, version, source| LockedPackage {
            is_unused: true,
            ..package(name, version, source, None)
        };
        let replaced = |name| unused(name, "1.0.0", PackageSource::CratesIo);
        let patch = "git+https://git.example/middle#0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            lockfile.packages,
            [
                package("app", "0.1.0", PackageSource::Local, None),
                replaced("left"),
                package("left", "1.0.0", PackageSource::Git(git.to_owned()), None),
                unused("middle", "2.0.0", PackageSource::Local),
                unused("middle", "3.0.0", PackageSource::Git(patch.to_owned())),
                package("right", "1.0.0", PackageSource::Local, None),
                replaced("right"),
            ]
        );
        assert_eq!(lockfile.invalid, []);
    }

    #[test]
    fn a_patch_that_replaces_nothing_may_be_used_in_another_way() {
        let of_corp = |name| {
            format!(
                "name = \"{name}\"\nversion = \"1.0.0\"\nsource = \"sparse+https://corp.example/\"\n"
            )
        };
        let text = format!(
            "version = 4\n[[package]]\n{0}[[patch.unused]]\n{0}[[patch.unused]]\n{1}[[patch.unused]]\nname = \"..\"\n",
            of_corp("left"),
            of_corp("right")
        );
        let lockfile = parse(&text).expect("readable");
        let found = lockfile.packages.iter();
        let found: Vec<_> = found
            .map(|package| (package.name.as_str(), package.is_unused))
            .collect();
        assert_eq!(found, [("left", false), ("right", true)]);
        assert_eq!(lockfile.invalid.len(), 1, "{:?}", lockfile.invalid);
    }

    #[test]
    fn impossible_entries_are_excluded_one_by_one() {
        let lockfile = parse(&fixture("hostile.lock")).expect("readable");
        assert_eq!(
            lockfile.packages,
            [package("fine", "1.0.0", PackageSource::CratesIo, Some('a'))]
        );
        let reported: Vec<String> = lockfile.invalid.iter().map(ToString::to_string).collect();
        let name_rule = "its name has characters other than ASCII letters, digits, `-` and `_`";
        let loose_rule = "its name has characters other than letters, digits, `-` and `_`";
        let no_version = "its version is not a SemVer version";
        assert_eq!(
            reported,
            [
                format!("left out package `../../etc/passwd 1.0.0` (line 5): {name_rule}"),
                format!("left out package `.. 1.0.0` (line 10): {loose_rule}"),
                format!("left out package `a\\0b 1.0.0` (line 14): {name_rule}"),
                "left out package `1.0.0` (line 19): it has no name".to_owned(),
                "left out package `1.0.0` (line 24): it has no name".to_owned(),
                "left out package `nameless-version` (line 27): it has no version".to_owned(),
                format!("left out package `left 1.0.0/../..` (line 30): {no_version}"),
                format!("left out package `left ..` (line 35): {no_version}"),
                format!("left out package `left 1.0.0\\u{{1b}}[2J` (line 40): {no_version}"),
                "left out package `left 1.0.0` (line 45): its source is of no known kind"
                    .to_owned(),
                "left out package `left 1.1.0` (line 50): its source is no usable URL".to_owned(),
                format!("left out package `ünder 1.0.0` (line 55): {name_rule}"),
                "left out package `../up 1.0.0 (registry+https://corp.example/index)` (line 65): "
                    .to_owned()
                    + name_rule,
            ]
        );
    }

    #[test]
    fn limits_the_length_of_names_and_versions() {
        let crates_io = crates_io();
        for (name, version, source, is_valid) in [
            ("n".repeat(64), "1.0.0".to_owned(), crates_io.as_str(), true),
            (
                "n".repeat(65),
                "1.0.0".to_owned(),
                crates_io.as_str(),
                false,
            ),
            (
                "n".repeat(65),
                "1.0.0".to_owned(),
                "git+https://git.example/n#0",
                true,
            ),
            (
                "n".repeat(256),
                "1.0.0".to_owned(),
                "git+https://git.example/n#0",
                false,
            ),
            (
                "n".to_owned(),
                format!("1.0.0-{}", "r".repeat(122)),
                crates_io.as_str(),
                true,
            ),
            (
                "n".to_owned(),
                format!("1.0.0-{}", "r".repeat(123)),
                crates_io.as_str(),
                false,
            ),
        ] {
            let lockfile = read_one(&format!(
                "name = '{name}'\nversion = '{version}'\nsource = '{source}'"
            ));
            assert_eq!(
                lockfile.packages.len(),
                usize::from(is_valid),
                "{name} {version} {source}"
            );
            assert_eq!(
                lockfile.invalid.len(),
                usize::from(!is_valid),
                "{name} {version} {source}"
            );
        }
    }

    #[test]
    fn sources_are_recognised_in_every_spelling() {
        let crates_io = crates_io();
        let sparse_crates_io = format!(
            "sparse+{}",
            tame_index::CRATES_IO_HTTP_INDEX.trim_start_matches("sparse+")
        );
        let registry = |url: &str| PackageSource::Registry(url.to_owned());
        for (text, expected) in [
            (crates_io.as_str(), PackageSource::CratesIo),
            (&format!("{crates_io}/"), PackageSource::CratesIo),
            (
                &format!("{}.git", crates_io.replace("rust-lang", "Rust-Lang")),
                PackageSource::CratesIo,
            ),
            (&sparse_crates_io, PackageSource::CratesIo),
            (
                sparse_crates_io.trim_end_matches('/'),
                PackageSource::CratesIo,
            ),
            (
                "registry+https://corp.example/Index.git",
                registry("https://corp.example/Index"),
            ),
            (
                "registry+https://corp.example",
                registry("https://corp.example"),
            ),
            (
                "sparse+https://corp.example/index/",
                registry("sparse+https://corp.example/index"),
            ),
            ("path+file:///somewhere/else", PackageSource::Local),
            (
                "git+ssh://git@git.example/a.git?tag=v1#00",
                PackageSource::Git("git+ssh://git@git.example/a.git?tag=v1#00".to_owned()),
            ),
        ] {
            let lockfile = read_one(&format!("name = 'n'\nversion = '1.0.0'\nsource = '{text}'"));
            assert_eq!(
                lockfile.packages,
                [package("n", "1.0.0", expected, None)],
                "{text}"
            );
        }
    }

    #[test]
    fn canonical_index_of_settings_and_lock_files_is_equal() {
        let default = SourceId::default();
        let host = default.url().host_str().unwrap();
        let (with_case, without_case) = (
            format!("https://{host}/Corp/Index"),
            format!("https://{host}/corp/index"),
        );
        for (url, expected) in [
            (
                "https://corp.example/index",
                Some("https://corp.example/index"),
            ),
            (
                "registry+https://corp.example/index.git/",
                Some("https://corp.example/index"),
            ),
            (
                "sparse+https://Corp.example/index/",
                Some("sparse+https://corp.example/index"),
            ),
            (&with_case, Some(without_case.as_str())),
            ("corp", None),
            ("mailto:someone", None),
        ] {
            assert_eq!(canonical_index(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn checksums_are_64_hex_digits_in_either_case() {
        let crates_io = crates_io();
        let upper = "AB".repeat(32);
        let lockfile = read_one(&format!(
            "name = 'n'\nversion = '1.0.0'\nsource = '{crates_io}'\nchecksum = '{upper}'"
        ));
        assert_eq!(lockfile.packages[0].checksum, Some(sha256(&upper)));

        for bad in [
            "",
            "abc",
            &"g".repeat(64),
            &"a".repeat(65),
            // cargo-lock takes the sign for a digit and panics at the umlaut.
            &"+f".repeat(32),
            &format!("a{}a", "\u{fc}".repeat(31)),
        ] {
            let text = format!(
                "version = 4\n[[package]]\nname = 'n'\nversion = '1.0.0'\nsource = '{crates_io}'\nchecksum = '{bad}'\n"
            );
            let expected = LockfileError::BadChecksum {
                line: 6,
                package: "n 1.0.0".to_owned(),
            };
            assert_eq!(parse(&text), Err(expected), "{bad}");

            let text = format!("[metadata]\n'checksum n 1.0.0 ({crates_io})' = '{bad}'\n");
            let expected = LockfileError::BadChecksum {
                line: 2,
                package: format!("n 1.0.0 ({crates_io})"),
            };
            assert_eq!(parse(&text), Err(expected), "{bad}");
        }
    }

    #[test]
    fn a_package_listed_twice_counts_once_unless_checksums_differ() {
        let crates_io = crates_io();
        let entry = |digit: &str| {
            let checksum = digit.repeat(64);
            format!(
                "[[package]]\nname = 'n'\nversion = '1.0.0'\nsource = '{crates_io}'\nchecksum = '{checksum}'\n"
            )
        };
        let bare = format!("[[package]]\nname = 'n'\nversion = '1.0.0'\nsource = '{crates_io}'\n");

        let lockfile =
            parse(&(bare.clone() + &entry("a") + &entry("a") + &bare)).expect("readable");
        assert_eq!(
            lockfile.packages,
            [package("n", "1.0.0", PackageSource::CratesIo, Some('a'))]
        );
        assert_eq!(lockfile.invalid, []);

        let lockfile = parse(&(entry("a") + &entry("b") + &entry("a"))).expect("readable");
        assert_eq!(lockfile.packages, []);
        assert_eq!(lockfile.invalid.len(), 1);
        assert_eq!(
            (lockfile.invalid[0].line, lockfile.invalid[0].reason),
            (6, EntryError::TwoChecksums)
        );
    }

    #[test]
    fn refuses_text_that_is_no_lock_file() {
        for (text, expected) in [
            ("<html>\n", "not a lock file: line 1: "),
            ("version = 4\n[[package]\n", "not a lock file: line 2: "),
            ("[package]\nname = 'n'\n", "not a lock file: line 1: "),
            ("[[package]]\nname = 3\n", "not a lock file: line 2: "),
            (
                "[toolchain]\nchannel = 'stable'\n",
                "not a lock file: it names no package",
            ),
            (
                "version = 0\n",
                "line 1 does not state a lock file format version",
            ),
            (
                "\nversion = '4'\n",
                "line 2 does not state a lock file format version",
            ),
            // A newer format of another shape.
            (
                "version = 6\npackage = 'elsewhere'\n",
                "lock file format version 6 is newer",
            ),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{text:?}: {error}");
        }
    }

    #[test]
    fn ignores_fields_that_larder_does_not_read() {
        for text in [
            "",
            "# nothing yet\n",
            "version = 4\n",
            "\u{feff}version = 4\r\n\r\n[[package]]\r\nname = 'n'\r\nversion = '1.0.0'\r\n",
            "version = 3\nfuture = { a = 1 }\n[metadata]\nother = 7\n[patch]\nunused = 'odd'\n",
            "[[package]]\nname = 'n'\nversion = '1.0.0'\ndependencies = 12\n",
            // Checksums in `[metadata]` belong to format 1; other formats may still carry them.
            "version = 2\n[[package]]\nname = 'n'\nversion = '1.0.0'\n[metadata]\n'checksum m 1.0.0 (registry+https://corp.example/i)' = '<none>'\n",
        ] {
            let lockfile = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(lockfile.invalid, [], "{text:?}");
        }
    }
}
