//! Keeps the source tidy: every file says its job, the arrows between modules are the ones in ARCHITECTURE.md, and nothing
//! spells a package registry's host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below the project that could be in the repository, as paths relative to it.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git"].contains(&name.as_str()) {
                files(&path, found);
            }
        } else {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), &mut found);
    found
}

fn rust_files(below: &str) -> impl Iterator<Item = (PathBuf, String)> {
    all_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .filter(move |path| path.starts_with(below))
        .map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap()))
}

#[test]
fn every_file_begins_with_its_job() {
    let silent: Vec<_> = rust_files("")
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(
        silent.is_empty(),
        "these do not begin with `//! `: {silent:?}"
    );
}

#[test]
fn no_file_spells_the_host_of_a_package_registry() {
    // Put together here, so that this file does not spell them either.
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

/// The module of a file below `src`: the folder's or the file's name.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix("src").unwrap();
    let first = inner
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The arrows that the code has: what each module names of `crate::`.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in rust_files("src") {
        let from = module(&path);
        if from == "lib" {
            continue;
        }
        // What only tests use does not count.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let prefix = if from == "main" {
            "larder::"
        } else {
            "crate::"
        };
        let to = arrows.entry(from.clone()).or_default();
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            to.extend(first_names(rest).into_iter().filter(|name| *name != from));
        }
    }
    arrows
}

/// The first segments of what follows `crate::`: a name, or the names of a brace group.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect(),
        ];
    };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut name = String::new();
    let mut is_first = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                is_first = true;
            }
            ':' if depth == 0 => is_first = false,
            c if depth == 0 && is_first && !c.is_whitespace() => name.push(c),
            _ => {}
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_'));
    names
}

/// The arrows that ARCHITECTURE.md allows: the last column of its module table.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| {
            let cells: Vec<_> = line
                .trim_end_matches('|')
                .split('|')
                .map(str::trim)
                .collect();
            let [name, _, may_use] = cells.as_slice() else {
                return None;
            };
            let name = name
                .trim_end_matches('`')
                .trim_end_matches(".rs")
                .trim_end_matches('/')
                .to_owned();
            let may_use = may_use
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect();
            Some((name, may_use))
        })
        .collect()
}

#[test]
fn the_arrows_between_modules_are_those_of_the_architecture() {
    let (found, allowed) = (arrows(), allowed());
    let missing: Vec<_> = found
        .keys()
        .filter(|name| !allowed.contains_key(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "not in the table of ARCHITECTURE.md: {missing:?}"
    );
    for (from, to) in &found {
        let extra: Vec<_> = to.difference(&allowed[from]).collect();
        assert!(
            extra.is_empty(),
            "`{from}` uses {extra:?}, which ARCHITECTURE.md does not allow"
        );
        let unused: Vec<_> = allowed[from].difference(to).collect();
        assert!(
            unused.is_empty(),
            "ARCHITECTURE.md allows `{from}` to use {unused:?}, which it does not"
        );
    }
    let gone: Vec<_> = allowed
        .keys()
        .filter(|name| !found.contains_key(*name))
        .collect();
    assert!(
        gone.is_empty(),
        "in the table of ARCHITECTURE.md but not in src: {gone:?}"
    );
}
