//! One line of an index file.

use std::{borrow::Cow, collections::BTreeMap, time::SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

/// The fields of an index line that larder reads (cargo, `IndexPackage` in `cargo-util-schemas/src/index.rs`).
#[derive(Deserialize)]
pub(super) struct IndexLine<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) vers: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) cksum: Cow<'a, str>,
}

/// The part of a line that says when and on what it depends.
#[derive(Deserialize)]
pub(super) struct LineDependencies<'a> {
    #[serde(borrow, default)]
    pub(super) deps: Vec<IndexDependency<'a>>,
    #[serde(borrow, default)]
    pub(super) pubtime: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct IndexDependency<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) package: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) req: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) registry: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) optional: bool,
}

/// The part of a line by which versions are chosen.
#[derive(Deserialize)]
pub(super) struct LineVersion<'a> {
    #[serde(borrow)]
    pub(super) vers: Cow<'a, str>,
    #[serde(default)]
    pub(super) yanked: Option<bool>,
}

pub(super) fn index_lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
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
pub(super) fn version_of_line(line: &[u8]) -> Option<Cow<'_, str>> {
    let quick = quoted_after(b"\"vers\":\"", line).map(Cow::Borrowed);
    quick.or_else(|| Some(serde_json::from_slice::<LineVersion<'_>>(line).ok()?.vers))
}

/// When a line was published, as far as it can be seen without reading the line: no other field of that name has a string. `None`
/// says nothing: the line must be read.
pub(super) fn quick_publication_time(line: &[u8]) -> Option<SystemTime> {
    humantime::parse_rfc3339(quoted_after(b"\"pubtime\":\"", line)?).ok()
}

/// What follows `field` up to the next quotation mark.
fn quoted_after<'a>(field: &[u8], line: &'a [u8]) -> Option<&'a str> {
    let rest = &line[memchr::memmem::find(line, field)? + field.len()..];
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

/// The line with `yanked` set and every other value as it was; `None` if it is no JSON object.
pub(super) fn with_yanked(line: &[u8]) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(line).ok()?;
    let yes: &RawValue = serde_json::from_str("true").ok()?;
    fields.insert("yanked", yes);
    serde_json::to_vec(&fields).ok()
}
