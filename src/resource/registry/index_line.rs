//! Lines of an index entry: one JSON object for each version of a crate.
//!
//! ```text
//!  {"name":"left","vers":"1.0.1","cksum":"9f86...","deps":[{"name":"pad","req":"^1"}],"pubtime":"2026-..."}
//! ```
//!
//! A popular entry has hundreds of lines, and larder rarely needs more than one or two of them. Parsing all of them
//! would take longer than everything else that is done with an entry. So each reader here first looks at the text,
//! and parses the line as JSON only if it may matter. The quick look relies on spelling that registries use
//! (`"vers":"1.0.1"` without spaces). If a line is written otherwise, the slow path reads it, with the same result.

use std::{borrow::Cow, fmt, time::SystemTime};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{hash::Sha256, resource::LineProblem};

/// The fields that give a version's hash (cargo, `IndexPackage` in `cargo-util-schemas/src/index.rs`).
#[derive(Deserialize)]
struct IndexLine<'a> {
    #[serde(borrow)]
    vers: Cow<'a, str>,
    #[serde(borrow)]
    cksum: Cow<'a, str>,
}

/// The fields by which a line is checked.
#[derive(Deserialize)]
struct CheckedLine<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    vers: Cow<'a, str>,
    #[serde(borrow)]
    cksum: Cow<'a, str>,
    #[serde(default)]
    v: Option<u64>,
}

/// The fields that say what a version depends on and when it was published.
#[derive(Deserialize)]
pub(super) struct LineDependencies<'a> {
    #[serde(borrow, default)]
    pub(super) deps: Vec<IndexDependency<'a>>,
    #[serde(borrow, default)]
    pub(super) pubtime: Option<Cow<'a, str>>,
}

/// One dependency of a version.
#[derive(Deserialize)]
pub(super) struct IndexDependency<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    package: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    registry: Option<Cow<'a, str>>,
}

impl IndexDependency<'_> {
    /// See [`resolved_name`].
    pub(super) fn crate_name(&self) -> Option<&str> {
        let (package, kind) = (self.package.as_deref(), self.kind.as_deref());
        resolved_name(&self.name, package, kind, self.registry.as_deref())
    }
}

/// The name of the crate of a dependency, if a resolve of the line's version can ask the same registry for it.
/// `package` is the name of a renamed dependency (docs/client-behaviour.md C-28). Cargo ignores dev-dependencies of
/// crates from a registry (C-21).
pub(super) fn resolved_name<'a>(
    name: &'a str,
    package: Option<&'a str>,
    kind: Option<&str>,
    registry: Option<&str>,
) -> Option<&'a str> {
    let is_resolved = kind != Some("dev") && registry.is_none();
    is_resolved.then(|| package.unwrap_or(name))
}

/// The fields that decide whether a version can be chosen.
#[derive(Deserialize)]
pub(super) struct LineVersion<'a> {
    #[serde(borrow)]
    pub(super) vers: Cow<'a, str>,
    #[serde(default)]
    pub(super) yanked: Option<bool>,
}

/// The lines of an entry, trimmed, without empty ones.
pub(super) fn index_lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    ends.scan(0, |start, end| {
        let line = &body[*start..end];
        *start = end + 1;
        Some(line.trim_ascii())
    })
    .filter(|line| !line.is_empty())
}

/// The newest schema of lines that cargo reads (docs/client-behaviour.md C-26).
const NEWEST_SCHEMA: u64 = 2;

/// Checks that a line does no harm in the entry of the crate `name`. Returns whether it describes that crate. A line
/// that is no JSON of the known shape does not: cargo skips it.
pub(super) fn check_line(line: &[u8], name: &str) -> Result<bool, LineProblem> {
    if memchr::memchr(0, line).is_some() {
        return Err(LineProblem::Nul);
    }
    if line.starts_with(b"<") {
        return Err(LineProblem::Markup);
    }
    let Ok(found) = serde_json::from_slice::<CheckedLine<'_>>(line) else {
        return Ok(false);
    };
    if found.v.is_some_and(|schema| schema > NEWEST_SCHEMA) {
        return Ok(found.name.eq_ignore_ascii_case(name));
    }
    if !found.name.eq_ignore_ascii_case(name) {
        return Err(LineProblem::OtherCrate(found.name.into_owned()));
    }
    match Sha256::parse(&found.cksum) {
        Some(_) => Ok(true),
        None => Err(LineProblem::Checksum),
    }
}

/// The hash in a line; `None` if the line is not an index line.
pub(super) fn checksum_of_line(line: &[u8]) -> Option<Sha256> {
    let line = serde_json::from_slice::<IndexLine<'_>>(line).ok()?;
    Sha256::parse(&line.cksum)
}

/// Name and version in a line that lists this hash.
pub(super) fn package_of_line(line: &[u8], sha256: Sha256) -> Option<(String, String)> {
    let found = serde_json::from_slice::<CheckedLine<'_>>(line).ok()?;
    let is_it = Sha256::parse(&found.cksum) == Some(sha256);
    is_it.then(|| (found.name.into_owned(), found.vers.into_owned()))
}

/// The hash in a line, without parsing it. `None` means that the caller must parse the line.
pub(super) fn quick_checksum_of_line(line: &[u8]) -> Option<Sha256> {
    Sha256::parse(quoted_after(b"\"cksum\":\"", line)?)
}

/// The hash that the entry lists for `version`. Versions are compared as text, build metadata included
/// (docs/client-behaviour.md C-31). If it is listed twice, the last line counts, as for cargo (C-51).
pub(super) fn checksum_of_version(body: &[u8], version: &str) -> Option<Sha256> {
    let read = |line: &[u8]| {
        let line = serde_json::from_slice::<IndexLine<'_>>(line).ok()?;
        (line.vers == version).then(|| Sha256::parse(&line.cksum))?
    };
    let needle = format!("\"vers\":\"{version}\"");
    let text = std::str::from_utf8(body).unwrap_or_default();
    let quick = text.rfind(&needle).and_then(|at| {
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        read(&body[start..end])
    });
    // The slow path is for other spellings, and for a needle found inside another field.
    quick.or_else(|| index_lines(body).filter_map(read).last())
}

/// The version in a line. The first `"vers"` in the text is the line's own: registries write it before the
/// dependencies.
pub(super) fn version_of_line(line: &[u8]) -> Option<Cow<'_, str>> {
    let quick = quoted_after(b"\"vers\":\"", line).map(Cow::Borrowed);
    quick.or_else(|| Some(serde_json::from_slice::<LineVersion<'_>>(line).ok()?.vers))
}

/// The versions that an index entry lists, with their checksums, in its order: the newest is last.
pub fn listed_checksums(body: &[u8]) -> Vec<(String, Sha256)> {
    let versions = index_lines(body).filter_map(|line| {
        let version = version_of_line(line)?.into_owned();
        Some((version, checksum_of_line(line)?))
    });
    versions.collect()
}

/// The publication time in a line, without parsing it. `None` means that the caller must parse the line.
pub(super) fn quick_publication_time(line: &[u8]) -> Option<SystemTime> {
    humantime::parse_rfc3339(quoted_after(b"\"pubtime\":\"", line)?).ok()
}

/// The publication time in a line, if it has one.
pub(super) fn publication_time(line: &[u8]) -> Option<SystemTime> {
    quick_publication_time(line).or_else(|| {
        // Many registries have no such field, and parsing each line takes long.
        memchr::memmem::find(line, b"\"pubtime\"")?;
        let line = serde_json::from_slice::<LineDependencies<'_>>(line).ok()?;
        humantime::parse_rfc3339(&line.pubtime?).ok()
    })
}

/// The text between `field` and the next quotation mark.
fn quoted_after<'a>(field: &[u8], line: &'a [u8]) -> Option<&'a str> {
    let rest = &line[memchr::memmem::find(line, field)? + field.len()..];
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

/// The line with `yanked` set and every other value unchanged; `None` if the line is no JSON object. A field that is
/// there twice stays so: cargo skips such a line, and must not understand it for that.
pub(super) fn with_yanked(line: &[u8]) -> Option<Vec<u8>> {
    let LineFields(mut fields) = serde_json::from_slice(line).ok()?;
    let yes: &RawValue = serde_json::from_str("true").ok()?;
    let before = fields.len();
    fields.retain(|(name, _)| name.0 != "yanked");
    let count = (before - fields.len()).max(1);
    let yanked = (FieldName(Cow::Borrowed("yanked")), yes);
    fields.extend(std::iter::repeat_n(yanked, count));
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    serde_json::to_vec(&LineFields(fields)).ok()
}

/// The fields of a JSON object.
struct LineFields<'a>(Vec<(FieldName<'a>, &'a RawValue)>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for LineFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllFields;

        impl<'de> Visitor<'de> for AllFields {
            type Value = LineFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(LineFields(fields))
            }
        }

        deserializer.deserialize_map(AllFields)
    }
}

impl Serialize for LineFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_yanked(line: &str, expected: Option<&str>) {
        let yanked = with_yanked(line.as_bytes()).map(|line| String::from_utf8(line).unwrap());
        assert_eq!(yanked.as_deref(), expected);
    }

    #[test]
    fn yanking_changes_no_other_value_and_joins_no_fields() {
        check_yanked(
            r#"{"vers":"1.0.0","yanked":false,"x":1.50}"#,
            Some(r#"{"vers":"1.0.0","x":1.50,"yanked":true}"#),
        );
        check_yanked(
            r#"{"vers":"1.0.0"}"#,
            Some(r#"{"vers":"1.0.0","yanked":true}"#),
        );
        // Cargo skips lines that have a field twice.
        check_yanked(
            r#"{"cksum":"a","cksum":"b","yanked":false,"yanked":false}"#,
            Some(r#"{"cksum":"a","cksum":"b","yanked":true,"yanked":true}"#),
        );
        check_yanked(
            r#"{"na\u006de":"left"}"#,
            Some(r#"{"name":"left","yanked":true}"#),
        );
        check_yanked("[1]", None);
    }
}
