//! Does a lock file still fit its manifests? `cargo build --locked` refuses one that does not, and without `--locked`
//! cargo resolves anew and asks for crates that are not stored.
//!
//! ```text
//!  members, all features ──> dependency `left ^1`, features [x] ──> locked `left 1.2.0` ──> what its features need ...
//!                                  │                                      │
//!                                  └─ not locked: a crate is missing      └─ never reached: not needed
//! ```
//!
//! [`compare`] walks the lock file's graph, beginning with the workspace members, and enables features as cargo's
//! resolver does (`resolve_features` in `src/cargo/core/resolver/dep_cache.rs`). Members have all their features and
//! dev-dependencies. Other crates have the requested features and no dev-dependencies. Conditions on targets are
//! ignored. `name?/feature` locks `name`, as `name/feature` does. The lock file fits if every dependency on the way is
//! locked in a version that its requirement accepts, and nothing else is locked. Cargo ignores locked local packages
//! that no manifest leads to, and dependencies on them (`EncodableResolve::into_resolve` in
//! `src/cargo/core/resolver/encode.rs`).

use std::collections::{BTreeSet, VecDeque};

use super::{
    manifest::{Dependency, LocalPackage, LocalWorkspace},
    needs::Needs,
};
use crate::{
    lockfile::{LockGraph, LockNode, PackageSource},
    resource::{EnabledFeatures, VersionNeeds},
};

/// The answer of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Agreement {
    /// The lock file is what cargo would write, or there is none to compare.
    #[default]
    Fits,
    /// Cargo would change it, for this reason.
    Differs(String),
    /// Cargo would change nothing but the version of packages of the user, of which this is one. It needs no registry
    /// for that.
    OwnVersion(String),
    /// Cargo cannot have a version that it looks for, for this reason. The lock file lacks it, or it fits and cargo
    /// needs more than its packages.
    Unresolved(String),
    /// Cargo refuses the project, for this reason.
    Unreadable(String),
    /// Only cargo can tell, for this reason.
    Unclear(String),
}

/// Compares a lock file with the workspace it belongs to. `needs` returns the dependencies and features that the index
/// lists for a locked crate.
pub(super) fn compare(
    graph: &LockGraph,
    workspace: &LocalWorkspace,
    needs: impl Fn(&LockNode) -> Option<VersionNeeds>,
) -> Agreement {
    let agreement = compare_versions(graph, workspace, &needs);
    if let Agreement::Differs(_) = agreement
        && let Some((locked, renumbered)) = workspace.as_locked(graph)
        && compare_versions(graph, &locked, &needs) == Agreement::Fits
    {
        return Agreement::OwnVersion(renumbered);
    }
    agreement
}

/// Like [`compare`], with all differences alike.
fn compare_versions(
    graph: &LockGraph,
    workspace: &LocalWorkspace,
    needs: &impl Fn(&LockNode) -> Option<VersionNeeds>,
) -> Agreement {
    let mut walk = Walk {
        graph,
        needs: Vec::with_capacity(graph.nodes.len()),
        is_ignored: graph
            .nodes
            .iter()
            .map(|node| workspace.lacks(node))
            .collect(),
        is_reached: vec![false; graph.nodes.len()],
        enabled: vec![EnabledFeatures::default(); graph.nodes.len()],
        used: BTreeSet::new(),
        queue: VecDeque::new(),
    };
    for node in &graph.nodes {
        let found = match node.source {
            PackageSource::Local => {
                let needs = workspace.named(node).map(Needs::of_local);
                if let Some(value) = needs.as_ref().and_then(Needs::dangling_value) {
                    return Agreement::Unclear(format!(
                        "a feature of `{}` leads to `{value}`, which it has not",
                        node.name
                    ));
                }
                needs
            }
            PackageSource::CratesIo | PackageSource::Registry(_) => {
                match needs(node).map(Needs::of_crate) {
                    Some(Some(needs)) => Some(needs),
                    Some(None) | None => {
                        return Agreement::Unclear(format!(
                            "the index entry of `{} {}` cannot be used",
                            node.name, node.version
                        ));
                    }
                }
            }
            PackageSource::Git(_) => {
                return Agreement::Unclear(format!("`{}` comes from git", node.name));
            }
        };
        walk.needs.push(found);
    }
    for package in workspace
        .packages
        .iter()
        .filter(|package| package.is_member)
    {
        let at = graph.nodes.iter().position(|node| {
            node.source == PackageSource::Local
                && node.name == package.name
                && node.version == package.version
        });
        match at {
            Some(at) => walk.start(at),
            None => {
                return Agreement::Differs(format!(
                    "it does not name `{} {}`",
                    package.name, package.version
                ));
            }
        }
    }
    walk.run()
}

impl LocalWorkspace {
    /// True for a local package that cargo drops from a lock file when it reads it. If all manifests of that name agree
    /// on a version, cargo takes the package for this one (`get_source_id` in `src/cargo/core/resolver/encode.rs`).
    fn lacks(&self, node: &LockNode) -> bool {
        let of_name = self.packages.iter();
        let of_name = of_name.filter(|package| package.name == node.name);
        let versions: BTreeSet<_> = of_name.map(|package| &package.version).collect();
        node.source == PackageSource::Local
            && (versions.is_empty() || (versions.len() > 1 && !versions.contains(&node.version)))
    }

    /// The workspace with the versions that the lock file has of its packages, and the first package that this changes.
    /// `None` if it changes nothing.
    fn as_locked(&self, graph: &LockGraph) -> Option<(Self, String)> {
        let mut locked = self.clone();
        let mut changed = None;
        for package in &mut locked.packages {
            let nodes = graph.nodes.iter();
            let mut nodes = nodes
                .filter(|node| node.source == PackageSource::Local && node.name == package.name);
            let (Some(node), None) = (nodes.next(), nodes.next()) else {
                continue;
            };
            if node.version != package.version {
                let (name, version) = (&package.name, &package.version);
                changed = changed.or_else(|| Some(format!("`{name} {version}`")));
                package.version = node.version.clone();
            }
        }
        Some((locked, changed?))
    }

    fn named(&self, node: &LockNode) -> Option<&LocalPackage> {
        let mut packages = self.packages.iter();
        packages.find(|package| package.name == node.name && package.version == node.version)
    }
}

/// Positions are those of the graph's nodes.
struct Walk<'a> {
    graph: &'a LockGraph,
    /// `None` for a local package that no manifest names.
    needs: Vec<Option<Needs>>,
    is_ignored: Vec<bool>,
    is_reached: Vec<bool>,
    enabled: Vec<EnabledFeatures>,
    /// Edges of the graph that a dependency led along.
    used: BTreeSet<(usize, usize)>,
    queue: VecDeque<usize>,
}

impl Walk<'_> {
    /// Starts at a member, with everything switched on.
    fn start(&mut self, at: usize) {
        if let Some(needs) = &self.needs[at] {
            let features: Vec<_> = needs.features.keys().cloned().collect();
            self.switch_on(at, &features);
        }
    }

    /// Reaches a package and switches features on in it.
    fn switch_on(&mut self, at: usize, features: &[String]) {
        let mut is_new = !std::mem::replace(&mut self.is_reached[at], true);
        let enabled = &mut self.enabled[at];
        for feature in features {
            if enabled.features.contains(feature) {
                continue;
            }
            is_new = true;
            if let Some(needs) = &self.needs[at] {
                needs.enable(enabled, feature);
            }
        }
        if is_new {
            self.queue.push_back(at);
        }
    }

    fn run(mut self) -> Agreement {
        while let Some(at) = self.queue.pop_front() {
            let node = &self.graph.nodes[at];
            let Some(needs) = self.needs[at].take() else {
                let (name, version) = (&node.name, &node.version);
                return Agreement::Differs(format!("no manifest has `{name} {version}`"));
            };
            for dependency in &needs.dependencies {
                let asked = self.enabled[at].dependencies.get(&dependency.name);
                let is_wanted = if dependency.is_dev {
                    needs.is_member
                } else {
                    needs.is_member || !dependency.is_optional || asked.is_some()
                };
                if !is_wanted {
                    continue;
                }
                let mut features = dependency.features.clone();
                features.extend(asked.into_iter().flatten().cloned());
                let targets = self.locked(at, dependency);
                if let Some(why) = self.moved(at, dependency, &targets) {
                    return Agreement::Unclear(why);
                }
                if targets.is_empty() {
                    return Agreement::Differs(format!(
                        "it lacks `{} {}`, which `{}` needs",
                        dependency.package, dependency.requirement, node.name
                    ));
                }
                let unknown = targets.iter().find_map(|&target| {
                    let needs = self.needs[target].as_ref()?;
                    let feature = features
                        .iter()
                        .find(|feature| !needs.has_feature(feature))?;
                    Some((&self.graph.nodes[target], feature))
                });
                if let Some((target, feature)) = unknown {
                    return Agreement::Unclear(format!(
                        "its `{} {}` has no feature `{feature}`, which `{}` needs",
                        target.name, target.version, node.name
                    ));
                }
                // A crate without `default` has none to switch on.
                if dependency.default_features {
                    features.push("default".to_owned());
                }
                for target in targets {
                    self.used.insert((at, target));
                    if target == at {
                        continue;
                    }
                    self.switch_on(target, &features);
                }
            }
            self.needs[at] = Some(needs);
        }
        self.unused()
    }

    /// Tells if the lock file has a dependency only from another registry than the manifest names. `locked` are the
    /// packages that fit it otherwise. Cargo knows best if both registries are one.
    fn moved(&self, at: usize, dependency: &Dependency, locked: &[usize]) -> Option<String> {
        let wanted = dependency.source.as_ref()?;
        let is_moved = locked
            .iter()
            .all(|&target| self.graph.nodes[target].source != *wanted);
        (!locked.is_empty() && is_moved).then(|| {
            let (package, node) = (&dependency.package, &self.graph.nodes[at].name);
            format!("it has `{package}`, which `{node}` needs, from another registry")
        })
    }

    /// The locked packages that fit a dependency. Rarely more than one.
    fn locked(&self, at: usize, dependency: &Dependency) -> Vec<usize> {
        let edges = self.graph.nodes[at].dependencies.iter().copied();
        // A package may depend on itself for its tests; lock files do not list that.
        let is_self = dependency.is_local && dependency.package == self.graph.nodes[at].name;
        let candidates = edges.chain(is_self.then_some(at));
        candidates
            .filter(|&target| {
                let node = &self.graph.nodes[target];
                node.name == dependency.package
                    && (node.source == PackageSource::Local) == dependency.is_local
                    && dependency.requirement.matches(&node.version)
            })
            .collect()
    }

    /// True for a local package that cargo does not know any more.
    fn is_ignored(&self, at: usize) -> bool {
        self.is_ignored[at]
    }

    /// Looks for locked packages and dependencies that nothing led to.
    fn unused(&self) -> Agreement {
        for (at, node) in self.graph.nodes.iter().enumerate() {
            if self.is_ignored(at) {
                continue;
            }
            if !self.is_reached[at] {
                let (name, version) = (&node.name, &node.version);
                return Agreement::Differs(format!(
                    "nothing needs its `{name} {version}` any more"
                ));
            }
            let mut edges = node.dependencies.iter();
            let is_unused =
                |target: usize| !self.is_ignored(target) && !self.used.contains(&(at, target));
            if let Some(&target) = edges.find(|&&target| is_unused(target)) {
                return Agreement::Differs(format!(
                    "`{}` does not need its `{}` any more",
                    node.name, self.graph.nodes[target].name
                ));
            }
        }
        Agreement::Fits
    }
}
