//! A rough parser for Rust sources: enough to find the paths that a file names, without resolving types.
//!
//! The parser works on the production part of a file, which is everything before `#[cfg(test)] mod tests`. Comments and
//! literals are blanked first, so that a path in a comment is no dependency. Paths inside macro calls (`select!`,
//! `debug!`) count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A name as it is imported: `use a::b::C as D` gives path `a::b::C`, name `D`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// `*` for a glob import.
    pub(super) name: String,
    /// True if the import is `pub` in any form.
    pub(super) is_reexport: bool,
}

/// One source file below `src`.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the repository, with `/` between the parts.
    pub(super) path: String,
    /// The path of the module: empty for `lib.rs` and `main.rs`.
    pub(super) module: Vec<String>,
    /// The production part, comments and literals blanked. Lines are as in the file.
    pub(super) code: String,
    pub(super) imports: Vec<Import>,
    /// Paths in the code outside of `use` declarations, with the number of the line.
    pub(super) paths: Vec<(usize, Vec<String>)>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank(production(text));
        let (imports, rest) = imports(&code);
        Self {
            path: path.to_owned(),
            module: module_path(path),
            imports,
            paths: paths(&rest),
            code,
        }
    }

    /// The module below `src` that the file belongs to: its first folder or its name.
    pub(super) fn top_module(&self) -> String {
        let inner = self.path.trim_start_matches("src/");
        let first = inner.split('/').next().unwrap_or(inner);
        first.trim_end_matches(".rs").to_owned()
    }
}

/// The root of the repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that could be in the repository, as paths relative to it, sorted.
pub(super) fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_built = path
                .file_name()
                .is_some_and(|name| name == "target" || name == ".git");
            if path.is_dir() {
                if !is_built {
                    folders.push(path);
                }
            } else if !is_built {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The Rust files below a folder of the repository with their text.
pub(super) fn rust_files(below: &str) -> Vec<(String, String)> {
    all_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .filter(|path| path.starts_with(below))
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            (path.to_string_lossy().replace('\\', "/"), text)
        })
        .collect()
}

/// The production files below `src`.
pub(super) fn sources() -> Vec<Source> {
    rust_files("src")
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| Source::new(path, text))
        .collect()
}

/// True if the whole file contains tests: `tests.rs`, or a file below a folder `tests`.
pub(super) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Everything before `#[cfg(test)] mod tests`.
pub(super) fn production(text: &str) -> &str {
    let marks = text.match_indices("#[cfg(test)]\n");
    let tests = marks
        .filter(|(at, mark)| {
            text[at + mark.len()..]
                .trim_start()
                .starts_with("mod tests")
        })
        .map(|(at, _)| at)
        .next();
    &text[..tests.unwrap_or(text.len())]
}

fn module_path(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<_> = inner.split('/').map(str::to_owned).collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || (module.len() == 1 && matches!(last, Some("lib" | "main"))) {
        module.pop();
    }
    module
}

/// Replaces comments and the content of literals by blanks; line breaks stay.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len = literal_or_comment(rest, out.chars().next_back());
        if len == 0 {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            let (skipped, after) = rest.split_at(len);
            out.extend(skipped.chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = after;
        }
    }
    out
}

/// The length of the comment or literal at the beginning of `rest`, or 0. `before` is the last character before it.
fn literal_or_comment(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !is_word && (rest.starts_with("r\"") || rest.starts_with("r#")) {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        let begin = 1 + hashes;
        if rest[begin..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return rest[begin + 1..]
                .find(&end)
                .map_or(rest.len(), |at| begin + 1 + at + end.len());
        }
    }
    if let Some(inner) = rest.strip_prefix('"') {
        let mut is_escaped = false;
        let end = inner.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            ends
        });
        return end.map_or(rest.len(), |(at, _)| at + 2);
    }
    if let Some(inner) = rest.strip_prefix('\'') {
        // A lifetime has no second quote; `'\n'` and `'é'` have one within a few characters.
        return match inner.chars().next() {
            Some('\\') => inner[2..].find('\'').map_or(0, |at| at + 4),
            Some(c) if inner[c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
            _ => 0,
        };
    }
    0
}

/// The imports of the code, and the code with its `use` declarations blanked.
fn imports(code: &str) -> (Vec<Import>, String) {
    let mut found = Vec::new();
    let mut rest = String::with_capacity(code.len());
    let mut at = 0;
    while let Some(next) = code[at..].find("use ").map(|next| at + next) {
        let line = &code[code[..next].rfind('\n').map_or(0, |end| end + 1)..next];
        let line = line.trim_start();
        let is_declaration = line.is_empty() || (line.starts_with("pub") && line.ends_with(' '));
        let end = code[next..].find(';').map_or(code.len(), |end| next + end);
        if !is_declaration {
            rest.push_str(&code[at..next + 4]);
            at = next + 4;
            continue;
        }
        let tree: String = code[next + 4..end].replace('\n', " ");
        expand(&tree, &[], line.starts_with("pub"), &mut found);
        rest.push_str(&code[at..next]);
        rest.extend(
            code[next..end]
                .chars()
                .map(|c| if c == '\n' { c } else { ' ' }),
        );
        at = end;
    }
    rest.push_str(&code[at..]);
    (found, rest)
}

/// Adds the imports of one `use` tree below a prefix.
fn expand(tree: &str, prefix: &[String], is_reexport: bool, found: &mut Vec<Import>) {
    let tree = tree.trim();
    if tree.is_empty() {
        return;
    }
    if let Some(open) = tree.find('{') {
        let mut prefix = prefix.to_vec();
        let head = tree[..open].split("::").map(str::trim);
        prefix.extend(head.filter(|part| !part.is_empty()).map(str::to_owned));
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let mut depth = 0_usize;
        let mut begin = 0;
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    expand(&inner[begin..at], &prefix, is_reexport, found);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        expand(&inner[begin..], &prefix, is_reexport, found);
        return;
    }
    let (path, renamed) = match tree.split_once(" as ") {
        Some((path, name)) => (path, Some(name.trim())),
        None => (tree, None),
    };
    let mut full = prefix.to_vec();
    full.extend(path.split("::").map(|part| part.trim().to_owned()));
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    let name = full.last().cloned().unwrap_or_default();
    let name = renamed.map_or(name, str::to_owned);
    found.push(Import {
        path: full,
        name,
        is_reexport,
    });
}

/// All paths of two and more parts in code, and single names, with their lines.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(begin) = rest.find(|c: char| c.is_alphabetic() || c == '_') {
            let mut path = Vec::new();
            rest = &rest[begin..];
            loop {
                let end = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len());
                path.push(rest[..end].to_owned());
                rest = &rest[end..];
                let is_longer = rest.strip_prefix("::").is_some_and(|after| {
                    after.starts_with(|c: char| c.is_alphabetic() || c == '_')
                });
                if !is_longer {
                    break;
                }
                rest = &rest[2..];
            }
            found.push((number + 1, path));
        }
    }
    found
}

/// The modules of a tree of sources, by path; `lib.rs` stands for the root.
pub(super) fn by_module(sources: &[Source]) -> BTreeMap<Vec<String>, usize> {
    let mut modules = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        if !source.path.ends_with("main.rs") {
            modules.insert(source.module.clone(), index);
        }
    }
    modules
}
