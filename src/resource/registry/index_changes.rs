//! Compares two bodies of an index entry: what the newer one takes back.
//!
//! A registry adds versions and yanks some. It almost never removes a version, and never changes the checksum of one.
//! Lines that are equal in both bodies are not parsed.

use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::{BTreeMap, HashSet},
};

use bytes::Bytes;
use serde::Deserialize;

use super::index_line::{check_line, index_lines, version_of_line, with_yanked};
use crate::hash::Sha256;

/// The versions that a new body of an index entry takes back. Each list is sorted by the text of the version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecalledVersions {
    /// Versions that it does not list.
    pub removed: Vec<String>,
    /// Versions that it marks as yanked.
    pub yanked: Vec<String>,
    /// Versions with another checksum.
    pub rewritten: Vec<RewrittenVersion>,
}

impl RecalledVersions {
    /// Returns whether nothing is taken back.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.yanked.is_empty() && self.rewritten.is_empty()
    }
}

/// A version whose checksum has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RewrittenVersion {
    /// The version.
    pub version: String,
    /// The checksum in the old body.
    pub was: Sha256,
    /// The checksum in the new body.
    pub now: Sha256,
}

/// The state of its version in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedState {
    /// The checksum; `None` if a newer schema has none.
    pub checksum: Option<Sha256>,
    /// The version is yanked.
    pub is_yanked: bool,
}

/// The fields that [`ListedState`] is read from.
#[derive(Deserialize)]
struct StateLine<'a> {
    #[serde(borrow)]
    vers: Cow<'a, str>,
    #[serde(borrow)]
    cksum: Cow<'a, str>,
    #[serde(default)]
    yanked: Option<bool>,
}

/// Version and state of a line that cargo reads as one of the crate `name`.
fn state_of_line<'a>(line: &'a [u8], name: &str) -> Option<(Cow<'a, str>, ListedState)> {
    check_line(line, name)
        .is_ok_and(|is_ours| is_ours)
        .then_some(())?;
    let found = serde_json::from_slice::<StateLine<'_>>(line).ok()?;
    let state = ListedState {
        checksum: Sha256::parse(&found.cksum),
        is_yanked: found.yanked == Some(true),
    };
    Some((found.vers, state))
}

/// The state of `version` in the body of the crate `name`; `None` if it does not list it.
pub(super) fn listed_state(body: &[u8], name: &str, version: &str) -> Option<ListedState> {
    index_lines(body)
        .filter(|line| version_of_line(line).is_some_and(|found| found == version))
        .find_map(|line| Some(state_of_line(line, name)?.1))
}

/// The versions of `old` that `new` takes back; both describe the crate `name`.
pub(super) fn recalled_versions(old: &[u8], new: &[u8], name: &str) -> RecalledVersions {
    let old_lines: HashSet<_> = index_lines(old).collect();
    let new_lines: HashSet<_> = index_lines(new).collect();
    let changed: BTreeMap<_, _> = index_lines(new)
        .filter(|line| !old_lines.contains(line))
        .filter_map(|line| state_of_line(line, name))
        .collect();
    let all_listed = OnceCell::new();
    let is_listed = |version: &Cow<'_, str>| {
        let listed = all_listed.get_or_init(|| {
            let states = index_lines(new).filter_map(|line| state_of_line(line, name));
            states.map(|(version, _)| version).collect::<HashSet<_>>()
        });
        listed.contains(version)
    };
    let mut recalled = RecalledVersions::default();
    for line in index_lines(old).filter(|line| !new_lines.contains(line)) {
        let Some((version, was)) = state_of_line(line, name) else {
            continue;
        };
        let Some(now) = changed.get(&version) else {
            if !is_listed(&version) {
                recalled.removed.push(version.into_owned());
            }
            continue;
        };
        if now.is_yanked && !was.is_yanked {
            recalled.yanked.push(version.clone().into_owned());
        }
        if let (Some(was), Some(now)) = (was.checksum, now.checksum)
            && was != now
        {
            let version = version.into_owned();
            recalled
                .rewritten
                .push(RewrittenVersion { version, was, now });
        }
    }
    recalled.removed.sort_unstable();
    recalled.yanked.sort_unstable();
    recalled.rewritten.sort_unstable();
    recalled
}

/// `new` with the lines of `old` for rewritten versions and, marked as yanked, for those removed versions that are in
/// `locked`. `None` if that changes nothing. Both describe the crate `name`.
pub(super) fn with_kept_lines(
    old: &[u8],
    new: &[u8],
    recalled: &RecalledVersions,
    locked: &[String],
    name: &str,
) -> Option<Bytes> {
    // A version may also stand in a line that cargo skips.
    let old_line = |version: &str| {
        index_lines(old)
            .filter(|line| version_of_line(line).is_some_and(|found| found == version))
            .find(|line| state_of_line(line, name).is_some())
    };
    let kept = recalled
        .removed
        .iter()
        .filter(|version| locked.contains(version));
    let kept: Vec<_> = kept
        .filter_map(|version| with_yanked(old_line(version)?))
        .collect();
    if kept.is_empty() && recalled.rewritten.is_empty() {
        return None;
    }
    let first_line = |line: &[u8]| {
        let version = version_of_line(line)?;
        let rewritten = recalled.rewritten.iter().find(|it| it.version == version)?;
        let is_yanked = serde_json::from_slice::<StateLine<'_>>(line).ok()?.yanked == Some(true);
        let old = old_line(&rewritten.version)?;
        match is_yanked {
            true => with_yanked(old),
            false => Some(old.to_vec()),
        }
    };
    let mut body = Vec::with_capacity(new.len() + 64);
    for line in index_lines(new) {
        match first_line(line) {
            Some(first) => body.extend_from_slice(&first),
            None => body.extend_from_slice(line),
        }
        body.push(b'\n');
    }
    for line in kept {
        body.extend_from_slice(&line);
        body.push(b'\n');
    }
    Some(Bytes::from(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn line(version: &str, digit: char, yanked: bool) -> String {
        let sum = sum(digit);
        format!(
            r#"{{"name":"left","vers":"{version}","deps":[],"cksum":"{sum}","yanked":{yanked}}}"#
        )
    }

    fn body(lines: &[String]) -> String {
        lines.join("\n") + "\n"
    }

    #[test]
    fn removed_yanked_and_rewritten_versions_are_told_apart() {
        let old = body(&[
            line("1.0.0", 'a', false),
            line("1.1.0", 'b', false),
            line("1.2.0", 'c', false),
            line("1.3.0", 'd', true),
        ]);
        let new = body(&[
            line("1.0.0", 'a', false),
            line("1.1.0", 'b', true),
            line("1.2.0", 'e', true),
            line("1.4.0", 'f', false),
        ]);
        let recalled = recalled_versions(old.as_bytes(), new.as_bytes(), "left");
        assert_eq!(recalled.removed, ["1.3.0"]);
        assert_eq!(recalled.yanked, ["1.1.0", "1.2.0"]);
        let [rewritten] = recalled.rewritten.as_slice() else {
            panic!("{recalled:?}")
        };
        assert_eq!(rewritten.version, "1.2.0");
        assert_eq!(rewritten.now.to_string(), sum('e'));
        let none = RecalledVersions::default();
        assert_eq!(
            recalled_versions(new.as_bytes(), new.as_bytes(), "left"),
            none
        );
        let longer = body(&[old.trim_end().to_owned(), line("2.0.0", '1', false)]);
        assert_eq!(
            recalled_versions(old.as_bytes(), longer.as_bytes(), "left"),
            none
        );
    }

    #[test]
    fn a_broken_line_removes_its_version_and_a_spelling_does_not() {
        let old = body(&[line("1.0.0", 'a', false), line("1.1.0", 'b', false)]);
        let broken = old.replacen("\"cksum\"", "\"sum\"", 1);
        let recalled = recalled_versions(old.as_bytes(), broken.as_bytes(), "left");
        assert_eq!(recalled.removed, ["1.0.0"]);
        let spaced = old.replace("\":\"", "\": \"");
        assert_eq!(
            recalled_versions(old.as_bytes(), spaced.as_bytes(), "left"),
            RecalledVersions::default()
        );
    }

    #[test]
    fn a_line_that_cargo_skips_is_never_kept_for_its_version() {
        let good = line("1.0.0", 'a', false);
        let old = body(&[good.replacen("\"cksum\"", "cksum", 1), good.clone()]);
        let new = body(&[line("1.0.0", 'b', false)]);
        let recalled = recalled_versions(old.as_bytes(), new.as_bytes(), "left");
        assert_eq!(recalled.rewritten.len(), 1);
        let kept = with_kept_lines(old.as_bytes(), new.as_bytes(), &recalled, &[], "left");
        assert_eq!(kept.as_deref(), Some(body(&[good]).as_bytes()));
    }

    #[test]
    fn first_checksums_and_locked_versions_are_kept() {
        let old = body(&[
            line("1.0.0", 'a', false),
            line("1.1.0", 'b', false),
            line("1.2.0", 'c', false),
            line("1.3.0", 'd', false),
        ]);
        let new = body(&[line("1.2.0", 'e', true), line("1.3.0", 'f', false)]);
        let recalled = recalled_versions(old.as_bytes(), new.as_bytes(), "left");
        let locked = ["1.1.0".to_owned(), "1.2.0".to_owned()];
        let kept =
            with_kept_lines(old.as_bytes(), new.as_bytes(), &recalled, &locked, "left").unwrap();
        let state = |version| {
            let state = listed_state(&kept, "left", version)?;
            let digit = state.checksum?.to_string().chars().next()?;
            Some((digit, state.is_yanked))
        };
        assert_eq!(state("1.0.0"), None, "no pin locks it");
        assert_eq!(state("1.1.0"), Some(('b', true)));
        assert_eq!(state("1.2.0"), Some(('c', true)), "upstream yanked it");
        assert_eq!(state("1.3.0"), Some(('d', false)));
        let removed = RecalledVersions {
            removed: vec!["1.0.0".to_owned()],
            ..RecalledVersions::default()
        };
        let unlocked = with_kept_lines(old.as_bytes(), new.as_bytes(), &removed, &locked, "left");
        assert_eq!(unlocked, None);
    }
}
