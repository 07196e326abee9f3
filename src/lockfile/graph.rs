//! The dependency graph of a lock file: which locked package uses which.
//!
//! ```text
//!  [[package]] app   dependencies = ["left 1.2.0", "right"] ──> nodes[0].dependencies = [1, 2]
//! ```
//!
//! Lock files shorten a dependency to `NAME` or `NAME VERSION` if that is unambiguous (docs/client-behaviour.md C-39).

use cargo_lock::Version;

use super::{
    LockfileError,
    entry::{metadata_checksums, package},
    raw,
    source::{PackageSource, parse_source},
};

/// All packages of a lock file with their dependencies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockGraph {
    /// The packages, in the order of the file.
    pub nodes: Vec<LockNode>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockNode {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The place that it comes from.
    pub source: PackageSource,
    /// Positions of its dependencies in [`LockGraph::nodes`].
    pub dependencies: Vec<usize>,
}

/// Reads the graph. `None` if the file has something that the graph cannot express: an entry that [`super::parse`]
/// excludes, `replace`, or a dependency that is not listed.
///
/// # Errors
/// If the file as a whole is in doubt.
pub fn graph(text: &str) -> Result<Option<LockGraph>, LockfileError> {
    let raw = raw::read(text)?;
    let checksums = metadata_checksums(text, &raw.metadata)?;
    let mut nodes = Vec::new();
    let mut dependencies = Vec::new();
    for entry in raw.root.iter().chain(&raw.package) {
        let entry = entry.get_ref();
        let Ok((id, _)) = package(text, entry, &checksums)? else {
            return Ok(None);
        };
        let ids = entry.dependencies().filter(|_| entry.replace.is_none());
        let Some(ids) = ids else {
            return Ok(None);
        };
        let package = id.locked(None);
        nodes.push(LockNode {
            name: package.name,
            version: package.version,
            source: package.source,
            dependencies: Vec::new(),
        });
        dependencies.push(ids);
    }
    for (index, ids) in dependencies.into_iter().enumerate() {
        let found: Option<Vec<_>> = ids.iter().map(|id| position(&nodes, id)).collect();
        let Some(found) = found else {
            return Ok(None);
        };
        nodes[index].dependencies = found;
    }
    Ok(Some(LockGraph { nodes }))
}

/// The position of the one package that a possibly shortened id names.
fn position(nodes: &[LockNode], id: &str) -> Option<usize> {
    let mut parts = id.splitn(3, ' ');
    let name = parts.next()?;
    let version = parts.next();
    let source = match parts.next() {
        Some(text) => Some(parse_source(text.strip_prefix('(')?.strip_suffix(')')?).ok()?),
        None => None,
    };
    let mut found = nodes.iter().enumerate().filter(|(_, node)| {
        node.name == name
            && version.is_none_or(|version| node.version.to_string() == version)
            && source.as_ref().is_none_or(|source| node.source == *source)
    });
    let first = found.next();
    // `NAME VERSION` without a source means the local package, if packages of other sources share both.
    let local = found.find(|(_, node)| source.is_none() && node.source == PackageSource::Local);
    local.or(first).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_dependencies_lead_to_the_packages_they_mean() {
        let text = "version = 4\n\
            [[package]]\nname = 'app'\nversion = '0.1.0'\ndependencies = ['left 1.0.0', 'right']\n\
            [[package]]\nname = 'left'\nversion = '0.9.0'\nsource = 'registry+https://corp.example/index'\n\
            [[package]]\nname = 'left'\nversion = '1.0.0'\nsource = 'registry+https://corp.example/index'\n\
            [[package]]\nname = 'right'\nversion = '2.0.0'\ndependencies = ['left 0.9.0']\n";
        let graph = graph(text).unwrap().unwrap();
        let edges: Vec<_> = graph.nodes.iter().map(|node| &node.dependencies).collect();
        assert_eq!(edges, [&vec![2, 3], &vec![], &vec![], &vec![1]]);
    }

    #[test]
    fn unlisted_dependency_leaves_no_graph() {
        let text =
            "version = 4\n[[package]]\nname = 'app'\nversion = '0.1.0'\ndependencies = ['left']\n";
        assert_eq!(graph(text), Ok(None));
    }
}
