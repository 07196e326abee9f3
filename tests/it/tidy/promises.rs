//! Compares the test names in documents with the tests in the tree.

use std::collections::HashSet;
use std::fs;

use super::source::{root, rust_files};

/// The names of all tests in Rust files.
fn tests() -> HashSet<String> {
    let mut names = HashSet::new();
    for (_, text) in rust_files("") {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            if let Some((_, rest)) = line.split_once("fn ")
                && !line.starts_with("//")
            {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                if std::mem::take(&mut is_test) {
                    names.insert(rest[..end.unwrap_or(rest.len())].to_owned());
                }
            }
        }
    }
    names
}

/// The last cell of each row of the tables in a document, after its first cell.
fn rows(document: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line
            .strip_prefix("| ")?
            .trim_end_matches(" |")
            .split(" | ")
            .collect();
        Some((
            cells.first()?.trim().to_owned(),
            cells.last()?.trim().to_owned(),
        ))
    });
    rows.collect()
}

/// The names in backticks that are written like those of tests.
fn test_names(cell: &str) -> impl Iterator<Item = &str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.matches('_').count() >= 2 && !name.contains(' '))
}

#[test]
fn tests_named_in_promises_and_limits_exist() {
    let tests = tests();
    for document in ["docs/promises.md", "docs/limits.md"] {
        let rows = rows(document);
        let named = rows.iter().flat_map(|(_, cell)| test_names(cell));
        let named: HashSet<_> = named.collect();
        assert!(named.len() > 3, "{document} names {} tests", named.len());
        let missing: Vec<_> = named
            .into_iter()
            .filter(|name| !tests.contains(*name))
            .collect();
        assert!(missing.is_empty(), "{document}: no such test: {missing:?}");
    }
}

#[test]
fn each_promise_has_a_test_or_a_reason() {
    let rows = rows("docs/promises.md");
    for number in (1..=52).chain([54]) {
        let number = number.to_string();
        let found: Vec<_> = rows.iter().filter(|(first, _)| *first == number).collect();
        assert_eq!(found.len(), 1, "rows of promise {number}");
        let (_, tests) = found[0];
        let is_reasoned = tests.starts_with("Does not apply: ");
        assert!(
            test_names(tests).count() > 0 || is_reasoned,
            "promise {number}"
        );
        assert!(
            !tests.contains("later,") && !tests.contains("TODO"),
            "promise {number}"
        );
    }
}
