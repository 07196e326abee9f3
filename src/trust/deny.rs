//! Rules of the setting `deny`: `name`, `name@1.2.3` for one version, `name@<1.3` for those that a requirement matches.

use std::{fmt, str::FromStr};

use semver::{Version, VersionReq};

use super::ranges;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyRule {
    /// As the user wrote it.
    text: String,
    /// The crate's name, see [`canonical`].
    name: String,
    /// `None` for all versions.
    versions: Option<VersionReq>,
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a crate's name is expected, or NAME@VERSION, or NAME@REQUIREMENT such as `left@<1.3`")]
pub struct InvalidRule;

impl DenyRule {
    /// Returns whether the rule names this crate. Like crates.io, it does not tell case, or `-` from `_`.
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.name == canonical(name)
    }

    /// Returns whether the rule covers this version; `None` is a version that cannot be parsed, which only a rule for
    /// all versions covers.
    pub(super) fn covers(&self, version: Option<&Version>) -> bool {
        match (&self.versions, version) {
            (None, _) => true,
            (Some(versions), Some(version)) => ranges::contains(versions, version),
            (Some(_), None) => false,
        }
    }
}

impl FromStr for DenyRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let (name, versions) = match text.split_once('@') {
            None => (text, None),
            Some((name, versions)) => (name, Some(requirement(versions.trim())?)),
        };
        let name = name.trim();
        let is_name_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(is_name_character) {
            return Err(InvalidRule);
        }
        Ok(Self {
            text: text.trim().to_owned(),
            name: canonical(name),
            versions,
        })
    }
}

/// A whole version means that version alone, as in cargo's package ids. In a requirement it would mean later ones too.
fn requirement(text: &str) -> Result<VersionReq, InvalidRule> {
    let text = match Version::parse(text) {
        Ok(version) => format!("={version}"),
        Err(_) => text.to_owned(),
    };
    VersionReq::parse(&text).map_err(|_| InvalidRule)
}

/// The name without the differences that crates.io ignores.
fn canonical(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

impl fmt::Display for DenyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_covers_all_versions_one_or_a_range() {
        let covers = |rule: &str, name: &str, version: &str| {
            let rule: DenyRule = rule.parse().unwrap();
            rule.is_about(name) && rule.covers(Version::parse(version).ok().as_ref())
        };
        assert!(covers("left", "left", "1.0.0"));
        assert!(covers("left", "left", "not a version"));
        assert!(covers("My_Left", "my-left", "1.0.0"));
        assert!(!covers("left", "right", "1.0.0"));
        assert!(covers("left@1.2.3", "left", "1.2.3"));
        assert!(covers("left@1.2.3", "left", "1.2.3+build"));
        assert!(!covers("left@1.2.3", "left", "1.2.4"));
        assert!(covers("left@1.2", "left", "1.9.0"));
        assert!(covers("left@<1.3", "left", "1.2.9"));
        assert!(covers("left@>=1.0, <1.3", "left", "1.2.0-rc.1"));
        assert!(!covers("left@<1.3", "left", "1.3.0"));
        for wrong in ["", "@1.0.0", "left@", "left@soon", "left right", "a/b"] {
            assert_eq!(wrong.parse::<DenyRule>(), Err(InvalidRule), "{wrong}");
        }
    }
}
