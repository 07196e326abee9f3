//! Bounds on the length of files and functions, and one definition for each name.
//!
//! Each bound has a list of exceptions with reasons. An entry that is no longer needed fails the test, so that the
//! lists shrink.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{is_test_file, production, rust_files};

/// Lines that a production file may have.
const FILE_LINES: usize = 600;
/// Lines that a production function may have, from its signature to its closing brace.
const FUNCTION_LINES: usize = 80;

/// Files above [`FILE_LINES`], each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];
/// Functions above [`FUNCTION_LINES`], as `file function`, each with the reason.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];
/// Types and constants that two files define, each with the reason.
const SHARED_NAMES: &[(&str, &str)] = &[];

/// The production files below `src` with their production text.
fn production_files() -> Vec<(String, String)> {
    let mut files = rust_files("src");
    files.retain(|(path, _)| !is_test_file(path));
    for (_, text) in &mut files {
        text.truncate(production(text).len());
    }
    files
}

/// Fails unless the exceptions are exactly these.
#[track_caller]
fn assert_only_exceptions(found: &BTreeMap<String, String>, exceptions: &[(&str, &str)]) {
    let known: BTreeSet<_> = exceptions.iter().map(|(name, _)| *name).collect();
    let new: Vec<_> = found
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()))
        .map(|(name, why)| format!("\n    {name}: {why}"))
        .collect();
    assert!(new.is_empty(), "not in the list:{}", new.concat());
    let gone: Vec<_> = known
        .iter()
        .filter(|name| !found.contains_key(**name))
        .collect();
    assert!(gone.is_empty(), "no longer needed in the list: {gone:?}");
}

#[test]
fn production_files_have_at_most_600_lines() {
    let found = production_files()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(path, lines)| (path, format!("{lines} lines")))
        .collect();
    assert_only_exceptions(&found, LONG_FILES);
}

/// The name of the function whose signature begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    let line = line.strip_prefix("const ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let name = line.strip_prefix("fn ")?;
    name.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .next()
}

/// The functions of a file with the number of their lines. Relies on rustfmt: the brace that ends a function has its
/// indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (begin, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indentation = &line[..line.len() - line.trim_start().len()];
        let is_last = |(at, line): (usize, &&str)| {
            let inner = line.strip_prefix(indentation).unwrap_or_default();
            let ends_signature = inner.ends_with(';') && !inner.starts_with(' ');
            inner == "}" || ends_signature || (at == 0 && inner.ends_with('}'))
        };
        let last = lines[begin..].iter().enumerate().position(is_last);
        if let Some(last) = last {
            found.push((name.to_owned(), last + 1));
        }
    }
    found
}

#[test]
fn production_functions_have_at_most_80_lines() {
    let mut found = BTreeMap::new();
    for (path, text) in production_files() {
        for (name, lines) in functions(&text) {
            if lines > FUNCTION_LINES {
                found.insert(format!("{path} {name}"), format!("{lines} lines"));
            }
        }
    }
    assert_only_exceptions(&found, LONG_FUNCTIONS);
}

/// The type or constant that this line defines.
fn defined(line: &str) -> Option<&str> {
    let inner = line.trim_start();
    let inner = match inner.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => inner.strip_prefix("pub ").unwrap_or(inner),
    };
    let is_outer = inner.len() == line.len() || !line.starts_with(' ');
    let (kind, rest) = inner.split_once(' ')?;
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
    let counts = match kind {
        "struct" | "enum" | "trait" => true,
        // `type` within an impl is an associated type.
        "type" => is_outer,
        "const" | "static" => after.starts_with(':') && name != "_",
        _ => false,
    };
    (counts && !name.is_empty()).then_some(name)
}

#[test]
fn types_and_constants_are_defined_in_one_module_each() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in production_files() {
        for name in text.lines().filter_map(defined) {
            let files = places.entry(name.to_owned()).or_default();
            files.insert(path.clone());
        }
    }
    let found = places
        .into_iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| (name, Vec::from_iter(files).join(", ")))
        .collect();
    assert_only_exceptions(&found, SHARED_NAMES);
}

#[test]
fn functions_and_definitions_are_counted_as_rustfmt_writes_them() {
    let text = "pub(crate) async fn long(\n    a: u8,\n) -> u8 {\n    a\n}\n\nfn short() {}\n\
                trait T {\n    fn open(&self);\n    fn two(&self) {\n        1;\n    }\n}\n";
    let found = functions(text);
    let found: Vec<_> = found
        .iter()
        .map(|(name, lines)| (name.as_str(), *lines))
        .collect();
    assert_eq!(found, [("long", 5), ("short", 1), ("open", 1), ("two", 3)]);
    let lines = [
        ("pub(crate) struct Entry<T> {", Some("Entry")),
        ("    const LIMIT: u64 = 1;", Some("LIMIT")),
        ("    type Item = u8;", None),
        ("type Short = Vec<u8>;", Some("Short")),
        ("const fn make() {}", None),
        ("    fn f() {}", None),
    ];
    for (line, name) in lines {
        assert_eq!(defined(line), name, "{line}");
    }
}
