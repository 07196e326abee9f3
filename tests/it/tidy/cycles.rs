//! Dependencies between the files of `src`, and the cycles among them.
//!
//! An edge goes from the file that names something to the file that defines it; re-exports are followed to the
//! definition. A `pub use` alone is no edge: it offers a name and does not need it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::source::{Import, Source, by_module, sources};

/// Files that are still in a cycle. The test fails if a listed file no longer is, so that the list shrinks to nothing.
const KNOWN: &[&str] = &[];

/// Edges between files with the first place that causes each: `from -> to -> "line 12: Name"`.
type Edges = BTreeMap<usize, BTreeMap<usize, String>>;

/// Resolves the paths of one tree of sources.
struct Resolver<'a> {
    sources: &'a [Source],
    modules: BTreeMap<Vec<String>, usize>,
}

/// The target of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Module(Vec<String>),
    Item(usize),
}

impl Resolver<'_> {
    fn new(sources: &[Source]) -> Resolver<'_> {
        Resolver {
            modules: by_module(sources),
            sources,
        }
    }

    /// The target of a path that stands in this file, unless it leads out of the crate.
    fn resolve(&self, file: usize, path: &[String], depth: usize) -> Option<Target> {
        // Two modules that import everything from each other would never end.
        if depth > 8 {
            return None;
        }
        let source = &self.sources[file];
        let mut module = source.module.clone();
        let mut rest = path;
        let mut is_local = false;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" | "larder" if !is_local => module = Vec::new(),
                "super" => drop(module.pop()),
                "self" => {}
                _ => break,
            }
            is_local = true;
            rest = after;
        }
        let Some((first, after)) = rest.split_first() else {
            return is_local.then_some(Target::Module(module));
        };
        if !is_local {
            // The first name is a child module, an imported name, or of another crate.
            let mut child = module.clone();
            child.push(first.clone());
            if !self.modules.contains_key(&child) {
                let import = source.imports.iter().find(|known| known.name == *first)?;
                if import.path == path {
                    return None;
                }
                let target = self.resolve(file, &import.path, depth + 1)?;
                return self.descend(target, after, depth);
            }
        }
        self.descend(Target::Module(module), rest, depth)
    }

    /// Follows the rest of a path from a module.
    fn descend(&self, target: Target, rest: &[String], depth: usize) -> Option<Target> {
        let Target::Module(module) = target else {
            return Some(target);
        };
        let Some((first, after)) = rest.split_first() else {
            return Some(Target::Module(module));
        };
        let mut child = module.clone();
        child.push(first.clone());
        if self.modules.contains_key(&child) {
            return self.descend(Target::Module(child), after, depth);
        }
        let file = *self.modules.get(&module)?;
        let source = &self.sources[file];
        let named = source.imports.iter().find(|known| known.name == *first);
        if let Some(import) = named {
            let target = self.resolve(file, &import.path, depth + 1)?;
            return self.descend(target, after, depth);
        }
        let globs = source.imports.iter().filter(|known| known.name == "*");
        for glob in globs {
            let from = &glob.path[..glob.path.len() - 1];
            if let Some(Target::Module(from)) = self.resolve(file, from, depth + 1)
                && let Some(&from) = self.modules.get(&from)
                && defines(&self.sources[from], first)
            {
                return Some(Target::Item(from));
            }
        }
        Some(Target::Item(file))
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (file, source) in self.sources.iter().enumerate() {
            let mut add = |target: Option<Target>, place: &dyn Fn() -> String| {
                if let Some(Target::Item(to)) = target
                    && to != file
                {
                    let to = edges.entry(file).or_default().entry(to);
                    to.or_insert_with(place);
                }
            };
            for import in source.imports.iter().filter(|one| !one.is_reexport) {
                add(self.resolve(file, &import.path, 0), &|| shown(import));
            }
            for (line, path) in &source.paths {
                let is_import = source.imports.iter().any(|known| known.name == path[0]);
                if path.len() > 1 || is_import {
                    add(self.resolve(file, path, 0), &|| {
                        format!("line {line}: {}", path.join("::"))
                    });
                }
            }
        }
        edges
    }
}

fn shown(import: &Import) -> String {
    format!("use {}", import.path.join("::"))
}

/// True if a file defines an item of this name.
fn defines(source: &Source, name: &str) -> bool {
    let kinds = [
        "struct", "enum", "trait", "type", "fn", "const", "static", "union",
    ];
    let mut words = source
        .code
        .split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let mut before = "";
    words.any(|word| {
        let is_definition = word == name && kinds.contains(&before);
        if !word.is_empty() {
            before = word;
        }
        is_definition
    })
}

/// The shortest path back to `start`, as the files on it; empty if there is none.
fn cycle(edges: &Edges, start: usize) -> Vec<usize> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut layer = vec![start];
    while !layer.is_empty() {
        let mut next = Vec::new();
        for from in layer {
            for &to in edges.get(&from).into_iter().flat_map(BTreeMap::keys) {
                if to == start {
                    let mut path = vec![from];
                    while let Some(&before) = came_from.get(&path[path.len() - 1]) {
                        path.push(before);
                    }
                    path.reverse();
                    return path;
                }
                if let Entry::Vacant(unseen) = came_from.entry(to) {
                    unseen.insert(from);
                    next.push(to);
                }
            }
        }
        layer = next;
    }
    Vec::new()
}

/// The shortest cycle of each file that is in one, with the names that close it.
fn cycles(sources: &[Source]) -> BTreeMap<String, String> {
    let edges = Resolver::new(sources).edges();
    let mut found = BTreeMap::new();
    for &file in edges.keys() {
        let path = cycle(&edges, file);
        let mut text = String::new();
        for (position, from) in path.iter().enumerate() {
            let to = path[(position + 1) % path.len()];
            let why = &edges[from][&to];
            text += &format!(
                "\n    {} -> {}  ({why})",
                sources[*from].path, sources[to].path
            );
        }
        if !path.is_empty() {
            found.insert(sources[file].path.clone(), text);
        }
    }
    found
}

#[test]
fn no_file_of_src_depends_on_itself_through_others() {
    let found = cycles(&sources());
    let new: BTreeSet<_> = found
        .iter()
        .filter(|(file, _)| !KNOWN.contains(&file.as_str()))
        .map(|(file, cycle)| format!("\n{file}:{cycle}"))
        .collect();
    assert!(
        new.is_empty(),
        "cycles of files: {}",
        new.into_iter().collect::<String>()
    );
    let mended: Vec<_> = KNOWN
        .iter()
        .filter(|file| !found.contains_key(**file))
        .collect();
    assert!(
        mended.is_empty(),
        "no longer in a cycle, remove from KNOWN: {mended:?}"
    );
}

/// A tree of sources, given as paths and texts.
fn tree(files: &[(&str, &str)]) -> Vec<Source> {
    files
        .iter()
        .map(|(path, text)| Source::new(path, text))
        .collect()
}

#[test]
fn a_cycle_through_a_reexport_is_reported_with_its_edges() {
    let sources = tree(&[
        ("src/lib.rs", "pub mod a;\npub mod b;\n"),
        ("src/a/mod.rs", "mod inner;\npub use inner::Thing;\n"),
        ("src/a/inner.rs", "use crate::b::go;\npub struct Thing;\n"),
        ("src/b.rs", "pub fn go(thing: crate::a::Thing) {}\n"),
    ]);
    let found = cycles(&sources);
    let files: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(files, ["src/a/inner.rs", "src/b.rs"]);
    assert!(found["src/b.rs"].contains("src/b.rs -> src/a/inner.rs  (line 1: crate::a::Thing)"));
}

#[test]
fn comments_literals_tests_and_mere_reexports_are_no_dependency() {
    let sources = tree(&[
        ("src/lib.rs", "pub mod a;\n"),
        (
            "src/a/mod.rs",
            "mod inner;\npub use inner::{Thing, other as renamed};\npub const LIMIT: u8 = 1;\n",
        ),
        (
            "src/a/inner.rs",
            "use super::LIMIT;\n// crate::a::inner::Thing\nfn f() { g(\"crate::a::inner\", 'a', r#\"super::x\"#); }\n\
             #[cfg(test)]\nmod tests { use super::*; }\n",
        ),
    ]);
    assert_eq!(cycles(&sources), BTreeMap::new());
}

#[test]
fn a_parent_that_uses_its_child_and_is_used_by_it_is_a_cycle() {
    let sources = tree(&[
        ("src/lib.rs", "mod a;\n"),
        (
            "src/a/mod.rs",
            "mod inner;\npub struct Options;\nfn run() { inner::go(&Options) }\n",
        ),
        (
            "src/a/inner.rs",
            "use super::Options;\npub fn go(_: &Options) {}\n",
        ),
    ]);
    let found = cycles(&sources);
    assert_eq!(found.len(), 2, "{found:?}");
}
