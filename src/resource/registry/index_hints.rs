//! Prefetch hints: the entries that cargo will ask for after the entry of one crate.
//!
//! They are the entries of the dependencies of the version that the resolver will choose (docs/client-behaviour.md
//! C-21). A parent's line says by which requirement the resolver chooses, and which features the parent enables. So a
//! hint carries a [`Need`], and the hints of its entry follow from that need in turn:
//!
//! ```text
//!  `app 1.2.0` ── left ^1, default features off, features = ["io"] ──> entry of `left`
//!                                                                         │ newest 1.x; `io` enables `dep:pipe`
//!                                                                         └──> entry of `pipe`, likely
//! ```
//!
//! The need of an entry that cargo asked for by itself is unknown: the project's manifest has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use semver::{Version, VersionReq};

use super::{
    EnabledFeatures, VersionNeeds,
    index_line::{LineVersion, index_lines, version_of_line},
};

/// The need for a crate, as the dependencies of another one state it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// The version requirement, as the index line spells it.
    requirement: String,
    /// The features that all dependencies with this requirement enable together.
    features: BTreeSet<String>,
}

/// An entry that cargo may ask for next.
#[derive(Debug)]
pub(super) struct NeededEntry {
    /// The name of its crate.
    pub(super) name: String,
    pub(super) need: Need,
    pub(super) is_likely: bool,
}

/// Number of semver-incompatible series (`1.x`, `0.9.x`) whose newest version gives hints, if no requirement is known.
const MAX_SERIES: usize = 4;

/// The entries to which one with this body leads.
///
/// With a need, they are the dependencies of the version that it chooses. Without one, those of the newest version of
/// all are likely, and those of the newest of some older series are not. An optional dependency is likely only if the
/// need enables it. Default features are no substitute for an unknown need (docs/performance.md).
pub(super) fn needed_entries(need: Option<&Need>, body: &[u8]) -> Vec<NeededEntry> {
    let mut entries: BTreeMap<(String, String), NeededEntry> = BTreeMap::new();
    for (rank, version) in candidates(need, body).iter().enumerate() {
        let enabled = enabled_features(need, version);
        for dependency in &version.deps {
            let Some(name) = dependency.crate_name() else {
                continue;
            };
            let id = (name.to_owned(), dependency.req.clone());
            let entry = entries.entry(id).or_insert_with(|| NeededEntry {
                name: name.to_owned(),
                need: Need {
                    requirement: dependency.req.clone(),
                    features: BTreeSet::new(),
                },
                is_likely: false,
            });
            let enabled = enabled.dependencies.get(&dependency.name);
            if dependency.optional && enabled.is_none() {
                // Unlikely entries lead only to unlikely ones, whatever the features.
                continue;
            }
            entry.is_likely |= rank == 0;
            let default = dependency.default_features.then(|| "default".to_owned());
            let features = enabled.into_iter().flatten().chain(&dependency.features);
            entry.need.features.extend(features.cloned().chain(default));
        }
    }
    entries.into_values().collect()
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.requirement)?;
        self.features
            .iter()
            .try_for_each(|feature| write!(f, " {feature}"))
    }
}

/// The features that the need enables in a version: none if it is unknown.
fn enabled_features(need: Option<&Need>, version: &VersionNeeds) -> EnabledFeatures {
    let mut enabled = EnabledFeatures::default();
    let is_dependency = |name: &str| version.deps.iter().any(|one| one.name == name);
    for feature in need.into_iter().flat_map(|need| &need.features) {
        enabled.enable(&version.features, &is_dependency, feature);
    }
    enabled
}

/// The versions that a resolver may choose, best first, at most one of each semver-compatible series.
fn candidates(need: Option<&Need>, body: &[u8]) -> Vec<VersionNeeds> {
    let requirement = need.and_then(|need| VersionReq::parse(&need.requirement).ok());
    let is_acceptable = |version: &Version| {
        let requirement = requirement.as_ref();
        requirement.is_none_or(|requirement| requirement.matches(version))
    };
    let mut versions: Vec<_> = index_lines(body)
        .filter_map(|line| Some((Version::parse(&version_of_line(line)?).ok()?, line)))
        .filter(|(version, _)| is_acceptable(version))
        .collect();
    versions.sort_unstable_by(|(a, _), (b, _)| (b.pre.is_empty(), b).cmp(&(a.pre.is_empty(), a)));
    let max_series = match requirement {
        Some(_) => 1,
        None => MAX_SERIES,
    };
    let mut series = Vec::new();
    let mut candidates = Vec::new();
    for (version, line) in versions {
        // A pre-release counts only if there is no release.
        let is_lesser = !version.pre.is_empty() && !series.is_empty();
        if is_lesser || series.contains(&series_of(&version)) {
            continue;
        }
        let Some(needs) = available(line, &version) else {
            continue;
        };
        series.push(series_of(&version));
        candidates.push(needs);
        if series.len() == max_series {
            break;
        }
    }
    candidates
}

/// The versions that cargo treats as compatible with each other share this value (semver, `Op::Caret`).
fn series_of(version: &Version) -> (u64, u64, u64) {
    match (version.major, version.minor) {
        (0, 0) => (0, 0, version.patch),
        (0, minor) => (0, minor, 0),
        (major, _) => (major, 0, 0),
    }
}

/// The parsed line, if it describes exactly this version and cargo could choose it.
fn available(line: &[u8], version: &Version) -> Option<VersionNeeds> {
    let is_choice = serde_json::from_slice::<LineVersion<'_>>(line)
        .is_ok_and(|line| line.yanked != Some(true) && line.vers == version.to_string());
    is_choice.then(|| serde_json::from_slice(line).ok())?
}

#[cfg(test)]
mod tests {
    use crate::resource::{
        IndexEntry, Resource,
        registry::fixture::{SUM, line, registry},
    };

    /// The line of a version of `left` with these dependencies and features, both in JSON.
    fn version(version: &str, deps: &str, features: &str) -> String {
        line("left", version, SUM)
            .replace("\"deps\":[]", &format!("\"deps\":[{deps}]"))
            .replace("\"features\":{}", &format!("\"features\":{{{features}}}"))
    }

    /// The hints that `entry` gives for a body, each as its crate, its need, and `likely` if it is.
    fn hints(entry: &Resource, body: &str) -> Vec<(Resource, String)> {
        let hints = entry
            .dependencies()
            .unwrap()
            .prefetch_hints(body.as_bytes());
        let told = hints.into_iter().map(|hint| {
            let name = hint.resource.to_string();
            let name = name.trim_start_matches("index entry of ").trim_matches('`');
            let likely = if hint.is_likely { " likely" } else { "" };
            let text = format!("{name} {}{likely}", hint.need);
            (hint.resource, text)
        });
        told.collect()
    }

    #[track_caller]
    fn check_hints(entry: &Resource, body: &str, expected: &[&str]) -> Vec<Resource> {
        let (resources, texts): (Vec<_>, Vec<_>) = hints(entry, body).into_iter().unzip();
        assert_eq!(texts, expected);
        resources
    }

    fn left() -> Resource {
        IndexEntry::of(&registry(), "left").unwrap()
    }

    #[test]
    fn without_need_the_newest_version_is_likely_and_older_series_are_not() {
        let beta = version("2.0.0-beta.1", r#"{"name":"beta"}"#, "");
        let gone = version("1.11.0", r#"{"name":"gone"}"#, "");
        let body = [
            version(
                "1.10.0",
                r#"{"name":"a","package":"needed","req":"^1"},{"name":"built","kind":"build","req":"^2"}"#,
                "",
            ),
            version("1.9.0", r#"{"name":"old"}"#, ""),
            version("0.9.2", r#"{"name":"older"}"#, ""),
            version(
                "0.9.3",
                r#"{"name":"other","req":"no"},{"name":"built","req":"^2"}"#,
                "",
            ),
            beta,
            gone.replace("\"yanked\":false", "\"yanked\":true"),
            version("1.2.0", r#"{"name":"dev","kind":"dev"}"#, ""),
        ];
        check_hints(
            &left(),
            &body.join("\n"),
            &[
                "built ^2 default likely",
                "needed ^1 default likely",
                "other no default",
            ],
        );
    }

    #[test]
    fn a_requirement_chooses_the_version_whose_dependencies_are_likely() {
        let gone = version("0.1.4", r#"{"name":"gone","req":"^1"}"#, "");
        let body = [
            version("0.1.2", r#"{"name":"old","req":"^1"}"#, ""),
            version("0.1.3", r#"{"name":"x","req":"^2"}"#, ""),
            gone.replace("\"yanked\":false", "\"yanked\":true"),
            version("0.9.0", r#"{"name":"left","req":"^0.1"}"#, ""),
        ]
        .join("\n");
        let unlikely = "x ^2 default";
        let first = check_hints(&left(), &body, &["left ^0.1 default likely", unlikely]);
        let second = check_hints(&first[0], &body, &["x ^2 default likely"]);
        // No version of it fits the requirement.
        check_hints(&second[0], &body, &[]);
    }

    #[test]
    fn features_of_the_parent_decide_which_optional_dependencies_are_likely() {
        let optional = |name: &str| format!(r#"{{"name":"{name}","req":"^1","optional":true}}"#);
        let deps = ["pipe", "codec", "extra"].map(optional).join(",");
        let features = r#""default":["dep:codec"],"io":["dep:pipe","codec?/fast"],"all":["extra"]"#;
        let child = version("1.0.0", &deps, features);
        let parent = |features: &str| {
            version(
                "2.0.0",
                &format!(r#"{{"name":"left","req":"^1",{features}}}"#),
                "",
            )
        };
        for (asked, need, expected) in [
            (
                r#""features":[]"#,
                "default",
                ["codec ^1 default likely", "extra ^1", "pipe ^1"],
            ),
            (
                r#""default_features":false,"features":["io"]"#,
                "io",
                [
                    "codec ^1 default fast likely",
                    "extra ^1",
                    "pipe ^1 default likely",
                ],
            ),
            (
                r#""default_features":false,"features":["all"]"#,
                "all",
                ["codec ^1", "extra ^1 default likely", "pipe ^1"],
            ),
        ] {
            let hint = format!("left ^1 {need} likely");
            let needed = check_hints(&left(), &parent(asked), &[&hint]);
            check_hints(&needed[0], &child, &expected);
        }
        // The project's manifest has the need of an entry that cargo asks for by itself.
        check_hints(&left(), &child, &["codec ^1", "extra ^1", "pipe ^1"]);
    }

    #[test]
    fn features_that_several_dependencies_on_one_crate_enable_are_joined() {
        let body = version(
            "1.0.0",
            r#"{"name":"x","req":"^1","default_features":false,"features":["a"]},
               {"name":"y","package":"x","req":"^1","kind":"build","default_features":false,"features":["b"]},
               {"name":"z","package":"x","req":"^1","optional":true,"features":["c"]},
               {"name":"other","package":"x","req":"^2"}"#,
            "",
        );
        let body = body.replace("\n               ", "");
        check_hints(&left(), &body, &["x ^1 a b likely", "x ^2 default likely"]);
    }
}
