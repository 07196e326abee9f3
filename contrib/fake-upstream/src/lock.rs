//! A registry with the packages of a real `Cargo.lock`: the same names, versions and dependencies, with invented
//! contents of plausible sizes, and a project whose lock file names exactly these.
//!
//! Everything is derived from names and versions, so two runs with one lock file serve the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use semver::{Version, VersionReq};

use crate::package::{next, noise, seed};
use crate::{Crate, FakeUpstream};

/// The identity of crates.io in lock files.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A project whose lock file names the packages that [`from_lock`] published.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its `Cargo.toml`, a workspace of its own.
    pub manifest: String,
    /// Its `Cargo.lock`, as the current cargo would write it.
    pub lock: String,
    /// Name and version of every registry package, in the order of the lock file.
    pub packages: Vec<(String, String)>,
}

impl Project {
    /// Writes the project with an empty library into this folder, and creates the folder if necessary.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder.join("src"))?;
        std::fs::write(folder.join("Cargo.toml"), &self.manifest)?;
        std::fs::write(folder.join("Cargo.lock"), &self.lock)?;
        std::fs::write(folder.join("src/lib.rs"), "")
    }
}

/// Publishes one crate for each registry package of this lock file, with the same edges as normal dependencies. Returns
/// a project that depends on the dependencies of the lock file's own packages.
///
/// As on crates.io, archives have 8 kB to 4 MB, half of them less than about 30 kB. Entries have 1 to 200 kB, filled
/// with older versions that no resolution picks and that cannot be downloaded. A third of the edges are optional and
/// enabled by the default feature, and every entry has dependencies that no feature enables. All registries of the lock
/// file become one; git and path packages become part of the project.
///
/// # Panics
/// If the text is not a lock file.
pub fn from_lock(text: &str, upstream: &FakeUpstream) -> Project {
    let packages = parse(text);
    let locked: BTreeSet<(&str, &Version)> = packages
        .iter()
        .filter(|package| package.from_registry)
        .map(|package| (package.name.as_str(), &package.version))
        .collect();
    let mut versions: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    for (name, version) in &locked {
        versions.entry(name).or_default().push(version);
    }
    let edges = edges(&packages, &locked);

    let bystanders = bystanders(&versions);
    for name in &bystanders {
        for patch in 0..6 {
            upstream.append_index_line(
                name,
                &Crate::new(name, &format!("1.0.{patch}")).index_line(&"0".repeat(64)),
            );
        }
    }
    let mut checksums = BTreeMap::new();
    for (name, versions) in &versions {
        let mut lines: BTreeMap<Version, String> = BTreeMap::new();
        for version in versions {
            let edges = edges
                .get(&Some((*name, *version)))
                .cloned()
                .unwrap_or_default();
            let package = invented(name, version, &edges, &bystanders);
            let checksum = upstream.publish_archive(&package);
            // The lines of a crate differ only in version and checksum; serializing each would take seconds in all.
            let line = package.index_line(&checksum);
            for older in older_versions(name, version, versions) {
                let invented_checksum =
                    format!("{:016x}", seed(&[name, &older.to_string()])).repeat(4);
                let older_line = line
                    .replacen(
                        &format!("\"vers\":\"{version}\""),
                        &format!("\"vers\":\"{older}\""),
                        1,
                    )
                    .replacen(&checksum, &invented_checksum, 1);
                lines.insert(older, older_line);
            }
            lines.insert((*version).clone(), line);
            checksums.insert((*name, *version), checksum);
        }
        let entry: Vec<String> = lines.into_values().map(|line| line + "\n").collect();
        upstream.set_index(name, entry.concat());
    }

    let root = edges.get(&None).cloned().unwrap_or_default();
    Project {
        manifest: manifest(&root),
        lock: lock(&root, &locked, &versions, &edges, &checksums),
        packages: locked
            .iter()
            .map(|(name, version)| ((*name).to_owned(), version.to_string()))
            .collect(),
    }
}

const ROOT: &str = "shaped-like-a-lock";

type Id<'a> = (&'a str, &'a Version);
/// `None` stands for the project: all packages of the lock file that come from no registry.
type Edges<'a> = BTreeMap<Option<Id<'a>>, BTreeSet<Id<'a>>>;

#[derive(Debug)]
struct Locked {
    name: String,
    version: Version,
    from_registry: bool,
    /// As written: a name, optionally a version, optionally a source in brackets.
    dependencies: Vec<String>,
}

/// Parses exactly the format that cargo writes.
fn parse(text: &str) -> Vec<Locked> {
    let mut packages = Vec::new();
    // The first part is the head; `[[patch.unused]]` and `[metadata]` end the last package.
    for block in text.replace("\r\n", "\n").split("[[package]]\n").skip(1) {
        let block = block.split("\n[").next().unwrap_or_default();
        let field = |key: &str| {
            let line = block
                .lines()
                .find(|line| line.starts_with(&format!("{key} = ")))?;
            line.split('"').nth(1).map(str::to_owned)
        };
        let dependencies = block
            .lines()
            .filter(|line| line.starts_with(" \""))
            .filter_map(|line| line.split('"').nth(1))
            .map(str::to_owned);
        let name = field("name").expect("a package in a lock file has a name");
        let version = field("version").expect("a package in a lock file has a version");
        let source = field("source").unwrap_or_default();
        packages.push(Locked {
            version: Version::parse(&version).unwrap_or_else(|error| {
                panic!("cannot read the version of `{name}` in the lock file: {error}")
            }),
            name,
            from_registry: source.starts_with("registry+") || source.starts_with("sparse+"),
            dependencies: dependencies.collect(),
        });
    }
    assert!(!packages.is_empty(), "no package in the lock file");
    packages
}

fn edges<'a>(packages: &'a [Locked], locked: &BTreeSet<Id<'a>>) -> Edges<'a> {
    let mut edges = Edges::new();
    for package in packages {
        let from = package
            .from_registry
            .then_some((package.name.as_str(), &package.version));
        for dependency in &package.dependencies {
            let mut words = dependency.split(' ');
            let (name, version) = (words.next().unwrap_or_default(), words.next());
            let target = locked.iter().find(|(locked, at)| {
                *locked == name && version.is_none_or(|version| at.to_string() == version)
            });
            // Other targets are path and git packages, whose own edges belong to the project.
            if let Some(target) = target {
                edges.entry(from).or_default().insert(*target);
            }
        }
    }
    edges
}

/// Each target with the name that its dependent uses: its own, except that all but the first of several versions are
/// renamed.
fn named<'a>(targets: &BTreeSet<Id<'a>>) -> Vec<(String, &'a str, String)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut named = Vec::new();
    for (name, version) in targets {
        let count = seen.entry(name).or_default();
        *count += 1;
        let alias = if *count == 1 {
            (*name).to_owned()
        } else {
            format!("{name}-again-{count}")
        };
        named.push((alias, *name, requirement(version)));
    }
    named
}

fn requirement(version: &Version) -> String {
    // Cargo ignores build metadata in requirements, and warns each time.
    let bare = Version {
        build: semver::BuildMetadata::EMPTY,
        ..version.clone()
    };
    format!("^{bare}")
}

/// Crates with an entry that no lock file names: a client that prefetched every mentioned entry would fetch them
/// without need.
fn bystanders(versions: &BTreeMap<&str, Vec<&Version>>) -> Vec<String> {
    (0..versions.len().clamp(4, 300))
        .map(|number| format!("bystander-{number}"))
        .filter(|name| !versions.contains_key(name.as_str()))
        .collect()
}

/// A crate without its files.
fn invented_head(
    name: &str,
    version: &Version,
    targets: &BTreeSet<Id<'_>>,
    bystanders: &[String],
) -> Crate {
    // The same for all versions of a crate, since a crate's dependencies seldom change.
    let mut dice = seed(&[name, "head"]);
    let mut package = Crate::new(name, &version.to_string()).pubtime("2024-05-06T07:08:09Z");
    let mut default = vec![String::from("std")];
    for (alias, target, req) in named(targets) {
        if next(&mut dice).is_multiple_of(3) {
            default.push(format!("dep:{alias}"));
            package = package.renamed_optional_dep(&alias, target, &req);
        } else {
            package = package.renamed_dep(&alias, target, &req);
        }
    }
    let mut mentioned = BTreeSet::new();
    for _ in 0..next(&mut dice) % 4 {
        mentioned.insert(&bystanders[next(&mut dice) as usize % bystanders.len()]);
    }
    for (number, bystander) in mentioned.into_iter().enumerate() {
        package = if number == 0 {
            package.dev_dep(bystander, "^1")
        } else {
            package.optional_dep(bystander, "^1")
        };
    }
    for number in 0..next(&mut dice) % 24 {
        package = package.feature(&format!("facility-{number}"), &["std"]);
    }
    let default: Vec<&str> = default.iter().map(String::as_str).collect();
    package.feature("std", &[]).feature("default", &default)
}

fn invented(
    name: &str,
    version: &Version,
    targets: &BTreeSet<Id<'_>>,
    bystanders: &[String],
) -> Crate {
    let mut dice = seed(&[name, &version.to_string(), "size"]);
    let size = match next(&mut dice) % 100 {
        0..80 => between(&mut dice, 5_000, 60_000),
        80..97 => between(&mut dice, 60_000, 500_000),
        _ => between(&mut dice, 1_000_000, 4_000_000),
    };
    let files = between(&mut dice, 4, 40);
    let mut package = invented_head(name, version, targets, bystanders);
    for number in 0..files {
        package = package.file(
            &format!("data/part-{number}"),
            noise(next(&mut dice), size / files),
        );
    }
    package
}

/// A number between `least` and `most` whose logarithm is distributed evenly, so that small ones are more frequent.
fn between(dice: &mut u64, least: usize, most: usize) -> usize {
    let (low, high) = ((least as f64).ln(), (most as f64).ln());
    let position = (next(dice) >> 11) as f64 / (1_u64 << 53) as f64;
    (low + (high - low) * position).exp() as usize
}

/// Versions before this one that a resolution without lock file never prefers to a locked one.
fn older_versions(name: &str, version: &Version, locked: &[&Version]) -> Vec<Version> {
    let count = between(&mut seed(&[name, &version.to_string(), "versions"]), 4, 150);
    let preferred = |candidate: &Version| {
        locked.iter().any(|locked| {
            let req = VersionReq::parse(&requirement(locked))
                .expect("a caret and a version are a requirement");
            *locked == candidate || req.matches(candidate)
        })
    };
    let patches = (0..version.patch)
        .rev()
        .map(|patch| (version.major, version.minor, patch));
    let minors = (0..version.minor)
        .rev()
        .flat_map(|minor| (0..4).rev().map(move |patch| (version.major, minor, patch)));
    let majors = (0..version.major).rev().flat_map(|major| {
        (0..16)
            .rev()
            .flat_map(move |minor| (0..3).rev().map(move |patch| (major, minor, patch)))
    });
    patches
        .chain(minors)
        .chain(majors)
        .map(|(major, minor, patch)| Version::new(major, minor, patch))
        .filter(|candidate| !preferred(candidate))
        .take(count)
        .collect()
}

fn manifest(root: &BTreeSet<Id<'_>>) -> String {
    let mut toml = format!(
        "[package]\nname = \"{ROOT}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n[dependencies]\n"
    );
    for (alias, name, req) in named(root) {
        let _ = if alias == name {
            writeln!(toml, "{alias} = \"{req}\"")
        } else {
            writeln!(
                toml,
                "{alias} = {{ package = \"{name}\", version = \"{req}\" }}"
            )
        };
    }
    toml
}

/// Byte for byte the text that cargo writes, because `--locked` compares texts (cargo's `ops::write_pkg_lockfile`).
fn lock(
    root: &BTreeSet<Id<'_>>,
    locked: &BTreeSet<Id<'_>>,
    versions: &BTreeMap<&str, Vec<&Version>>,
    edges: &Edges<'_>,
    checksums: &BTreeMap<Id<'_>, String>,
) -> String {
    let mut blocks: BTreeMap<(&str, Version), String> = BTreeMap::new();
    let dependencies = |targets: &BTreeSet<Id<'_>>| {
        if targets.is_empty() {
            return String::new();
        }
        let lines = targets
            .iter()
            .map(|(name, version)| match versions[name].len() {
                1 => format!(" \"{name}\",\n"),
                _ => format!(" \"{name} {version}\",\n"),
            });
        format!("dependencies = [\n{}]\n", lines.collect::<String>())
    };
    let none = BTreeSet::new();
    for (name, version) in locked {
        let targets = edges.get(&Some((*name, *version))).unwrap_or(&none);
        let checksum = &checksums[&(*name, *version)];
        let block = format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{CRATES_IO}\"\nchecksum = \"{checksum}\"\n{}",
            dependencies(targets)
        );
        blocks.insert((name, (*version).clone()), block);
    }
    blocks.insert(
        (ROOT, Version::new(0, 0, 0)),
        format!(
            "[[package]]\nname = \"{ROOT}\"\nversion = \"0.0.0\"\n{}",
            dependencies(root)
        ),
    );
    let head = "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\nversion = 4\n\n";
    let blocks: Vec<String> = blocks.into_values().collect();
    format!("{head}{}", blocks.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(texts: &[&str]) -> Vec<Version> {
        texts
            .iter()
            .map(|text| Version::parse(text).unwrap())
            .collect()
    }

    #[test]
    fn older_versions_are_never_preferred_to_a_locked_one() {
        let locked = versions(&["0.3.2", "1.0.4", "2.7.0"]);
        let locked: Vec<&Version> = locked.iter().collect();
        for version in &locked {
            for older in older_versions("rand", version, &locked) {
                assert!(older < **version);
                let line = locked.iter().filter(|locked| {
                    VersionReq::parse(&requirement(locked))
                        .unwrap()
                        .matches(&older)
                });
                assert_eq!(line.count(), 0, "{older}");
            }
        }
    }

    #[test]
    fn blocks_that_are_no_packages_are_ignored() {
        let text = "version = 3\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b 2.0.0 (registry+https://github.com/rust-lang/crates.io-index)\",\n]\n\n\
                    [[package]]\nname = \"b\"\nversion = \"2.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n\n\
                    [[patch.unused]]\nname = \"c\"\nversion = \"1.0.0\"\n\n[metadata]\n\"checksum b\" = \"00\"\n";
        let packages = parse(text);
        let names: Vec<&str> = packages
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(packages[0].dependencies.len(), 1);
        assert!(packages[1].from_registry);
    }
}
