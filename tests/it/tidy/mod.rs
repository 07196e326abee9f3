//! Checks of the sources themselves, as text.
//!
//! | check | where |
//! |---|---|
//! | each file begins with `//! `; no package registry's host is spelled | this file |
//! | modules use each other only as ARCHITECTURE.md says | `arrows` |
//! | no dependency cycle between files | `cycles` |
//! | ARCHITECTURE.md has at most 1,500 words | this file |
//! | tests that documents name exist; each promise has one | `promises` |
//! | lengths of files and functions; one definition for each name | `sizes` |
//!
//! The checks read `src` with the small parser in `source`, which sees names and no types.

mod arrows;
mod cycles;
mod promises;
mod sizes;
mod source;

use std::fs;

use source::{all_files, root, rust_files};

#[test]
fn every_file_begins_with_a_module_comment() {
    let silent: Vec<_> = rust_files("")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(
        silent.is_empty(),
        "these do not begin with `//! `: {silent:?}"
    );
}

#[test]
fn architecture_has_at_most_1500_words() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    // Bars of tables and lines of drawings are no words.
    let is_word = |word: &&str| word.contains(char::is_alphanumeric);
    let words = text.split_whitespace().filter(is_word).count();
    assert!(words <= 1_500, "{words} words");
}

#[test]
fn no_file_spells_the_host_of_a_package_registry() {
    // Joined at run time, so that this file does not spell them either.
    let hosts = [["crates", ".io"].concat(), ["npmjs", ".org"].concat()];
    for path in all_files()
        .iter()
        .filter(|path| !path.ends_with("Cargo.lock"))
    {
        let Ok(text) = fs::read_to_string(root().join(path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for host in &hosts {
                let is_host = line.match_indices(host.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back().unwrap_or(' ');
                    let after = line[at + host.len()..].chars().next().unwrap_or(' ');
                    // `crates.io` alone is a name in words; with a label before it, or a path behind it, it is a host.
                    before == '.'
                        || (before == '/' && after != '-')
                        || (after == '/' && before != '/')
                });
                assert!(!is_host, "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
}
