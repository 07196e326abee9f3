//! One advisory: a Markdown file that begins with a block of TOML.
//!
//! Format: `EXAMPLE_ADVISORY.md` in the database.

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::super::ranges;

/// The line before the TOML block.
const BLOCK_START: &str = "```toml";
/// The line after it.
const BLOCK_END: &str = "\n```";

/// An advisory about versions of one crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advisory {
    /// Its id, such as `RUSTSEC-2026-0001`.
    pub id: String,
    /// The crate.
    pub package: String,
    /// Its first heading.
    pub title: String,
    /// The versions that it is about.
    pub kind: AdvisoryKind,
    /// A page about it.
    pub url: Option<String>,
    /// Versions that are mended.
    pub patched: Vec<VersionReq>,
    /// Versions that never had the fault.
    unaffected: Vec<VersionReq>,
}

/// The versions that an advisory is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdvisoryKind {
    /// They do harm on purpose: the category `malicious`.
    Malicious,
    /// They have a vulnerability.
    Vulnerability,
    /// They are unsound, without a known way to exploit that.
    Unsound,
    /// The crate is no longer maintained.
    Unmaintained,
    /// Another remark.
    Notice,
}

impl AdvisoryKind {
    /// Returns whether a project with such a version counts as not well.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Malicious | Self::Vulnerability)
    }

    /// The stable name in JSON and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malicious => "malicious",
            Self::Vulnerability => "vulnerability",
            Self::Unsound => "unsound",
            Self::Unmaintained => "unmaintained",
            Self::Notice => "notice",
        }
    }
}

#[derive(Deserialize)]
struct FrontMatter {
    advisory: AdvisoryFacts,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct AdvisoryFacts {
    id: String,
    package: String,
    #[serde(default)]
    informational: Option<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    withdrawn: Option<String>,
}

#[derive(Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

impl Advisory {
    /// Reads the text of an advisory; `None` if it is withdrawn.
    ///
    /// # Errors
    /// It has no TOML block, or lacks a field.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, toml::de::Error> {
        let text = text.replace("\r\n", "\n");
        let after = text.split_once(BLOCK_START).map_or("", |(_, after)| after);
        let (block, rest) = after.split_once(BLOCK_END).unwrap_or((after, ""));
        let FrontMatter { advisory, versions } = toml::from_str(block)?;
        if advisory.withdrawn.is_some() {
            return Ok(None);
        }
        let title = rest.lines().find_map(|line| line.trim().strip_prefix("# "));
        let mut words = advisory.categories.iter().chain(&advisory.keywords);
        let kind = match advisory.informational.as_deref() {
            _ if words.any(|word| word == "malicious") => AdvisoryKind::Malicious,
            None => AdvisoryKind::Vulnerability,
            Some("unsound") => AdvisoryKind::Unsound,
            Some("unmaintained") => AdvisoryKind::Unmaintained,
            Some(_) => AdvisoryKind::Notice,
        };
        Ok(Some(Self {
            title: title.unwrap_or("without a title").trim().to_owned(),
            id: advisory.id,
            package: advisory.package,
            kind,
            url: advisory.url,
            patched: versions.patched,
            unaffected: versions.unaffected,
        }))
    }

    /// Returns whether the advisory is about this version; `None` is one that cannot be parsed.
    pub(super) fn touches(&self, version: Option<&Version>) -> bool {
        let mut well = self.patched.iter().chain(&self.unaffected);
        !version.is_some_and(|version| well.any(|range| ranges::contains(range, version)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"left\"\ndate = \"2026-01-02\"\n\
        url = \"https://a.example/\"\ncategories = [\"memory-corruption\"]\n\n[versions]\npatched = [\">= 1.2.3\"]\n\
        unaffected = [\"< 1.0.0\"]\n```\n\n# Left is wrong\n\nText.\n```toml\nnot = \"this\"\n```\n";

    fn parse(text: &str) -> Advisory {
        Advisory::parse(text).unwrap().unwrap()
    }

    #[test]
    fn an_advisory_touches_versions_that_are_neither_patched_nor_unaffected() {
        let advisory = parse(TEXT);
        assert_eq!(advisory.title, "Left is wrong");
        assert_eq!(advisory.kind, AdvisoryKind::Vulnerability);
        let touches = |version: &str| advisory.touches(Version::parse(version).ok().as_ref());
        assert!(touches("1.0.0") && touches("1.2.2") && touches("1.2.3-rc.1"));
        assert!(!touches("1.2.3") && !touches("0.9.9") && !touches("2.0.0-rc.1"));
        assert!(touches("not a version"));
    }

    #[test]
    fn kinds_come_from_categories_keywords_and_the_informational_field() {
        let kind =
            |field: &str| parse(&TEXT.replace("categories = [\"memory-corruption\"]", field)).kind;
        assert_eq!(
            kind("categories = [\"malicious\"]"),
            AdvisoryKind::Malicious
        );
        assert_eq!(kind("keywords = [\"malicious\"]"), AdvisoryKind::Malicious);
        assert_eq!(kind("informational = \"unsound\""), AdvisoryKind::Unsound);
        assert_eq!(
            kind("informational = \"unmaintained\""),
            AdvisoryKind::Unmaintained
        );
        assert_eq!(kind("informational = \"notice\""), AdvisoryKind::Notice);
        let withdrawn = TEXT.replace("categories", "withdrawn = \"2026-02-03\"\ncategories");
        assert_eq!(Advisory::parse(&withdrawn), Ok(None));
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in [
            "",
            "# Left",
            "```toml\n[advisory]\nid = \"x\"\n```",
            "```toml\n[",
        ] {
            assert!(Advisory::parse(wrong).is_err(), "{wrong}");
        }
    }
}
