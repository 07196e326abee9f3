//! Compares the dependencies between the modules below `src` with the table in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::source::{Source, root, sources};

/// The modules that each module uses: all names that its files take from `crate::` (`larder::` in the binary).
fn used(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<_> = sources.iter().map(Source::top_module).collect();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let from = source.top_module();
        if from == "lib" {
            continue;
        }
        let imports = source.imports.iter().map(|import| &import.path);
        let paths = source.paths.iter().map(|(_, path)| path);
        let to = imports
            .chain(paths)
            .filter_map(|path| from_root(source, path))
            .filter(|to| modules.contains(to) && *to != from);
        used.entry(from.clone()).or_default().extend(to);
    }
    used
}

/// The module below `src` that a path names, if it goes through the root.
fn from_root(source: &Source, path: &[String]) -> Option<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let at = match path.first()?.as_str() {
        "crate" | "larder" => 1,
        "super" if supers == source.module.len() => supers,
        _ => return None,
    };
    path.get(at).cloned()
}

/// The dependencies that ARCHITECTURE.md allows: the last column of its module table.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    text.lines()
        .skip_while(|line| *line != "## Modules")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
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
            let name = name.split('`').next()?;
            let name = name.trim_end_matches('/').trim_end_matches(".rs");
            let may_use = may_use.split('`').skip(1).step_by(2).map(str::to_owned);
            Some((name.to_owned(), may_use.collect()))
        })
        .collect()
}

#[test]
fn modules_use_each_other_as_the_table_in_architecture_md_allows() {
    let (found, allowed) = (used(&sources()), allowed());
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
