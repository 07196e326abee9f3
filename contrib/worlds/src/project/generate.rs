//! Makes projects from random choices, and edits them.

use super::{GIT_PACKAGE, Package, Patch, PatchPlace, Project, Workspace};
use crate::dice::Dice;
use crate::registry::generate::{Shelf, features, vary};
use crate::registry::{Dep, DepKind, Origin, RegistryName};

#[derive(Clone, Copy)]
enum Shape {
    Single,
    /// A root package with members.
    Rooted,
    /// A workspace without a root package.
    Virtual,
    /// A package without `[workspace]`, with path dependencies.
    Paths,
    /// A package that needs a folder beside the project.
    Beside,
}

pub(crate) fn project(dice: &mut Dice, shelf: &Shelf) -> Project {
    let shape = dice.weighted(&[
        (40, Shape::Single),
        (20, Shape::Rooted),
        (22, Shape::Virtual),
        (13, Shape::Paths),
        (5, Shape::Beside),
    ]);
    let folders: &[&str] = match shape {
        Shape::Single => &[""],
        Shape::Rooted => &["", "crates/one", "crates/two"],
        Shape::Virtual => &["crates/one", "crates/two", "tools/three"],
        Shape::Paths => &["", "crates/one", "lib/two"],
        Shape::Beside => &["", "../shared"],
    };
    let count = dice.between(folders.len().min(2), folders.len());
    let mut project = Project::default();
    for folder in &folders[..count] {
        let package = package(dice, folder, shelf, &project);
        project.packages.push(package);
    }
    match shape {
        Shape::Rooted | Shape::Virtual => {
            let members: &[&str] = if dice.chance(70) {
                &["crates/*", "tools/three"]
            } else {
                &["crates/*"]
            };
            // A pattern may match nothing; a name may not.
            let has = |member: &&&str| member.contains('*') || folders[..count].contains(*member);
            project.workspace = Some(Workspace {
                members: members
                    .iter()
                    .filter(has)
                    .map(|&member| member.to_owned())
                    .collect(),
                resolver: dice
                    .chance(40)
                    .then(|| (*dice.pick(&["1", "3"])).to_owned()),
                ..Workspace::default()
            });
            for package in &mut project.packages {
                package.is_inheriting = dice.chance(15);
                if dice.chance(10) {
                    package.rust_version = Some("1.70".to_owned());
                }
            }
            if dice.chance(40) {
                inherit(dice, &mut project);
            }
        }
        Shape::Paths | Shape::Beside => link(&mut project),
        Shape::Single => {}
    }
    if dice.chance(12) {
        patch(dice, &mut project, shelf);
    }
    if dice.chance(4) {
        let mut dep = Dep::new(GIT_PACKAGE, "");
        dep.origin = if dice.chance(50) {
            Origin::Git
        } else {
            Origin::GitTag
        };
        dep.is_optional = dice.chance(20);
        project.packages[0].deps.push(dep);
    }
    project
}

fn package(dice: &mut Dice, folder: &str, shelf: &Shelf, project: &Project) -> Package {
    let name = folder
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or("app");
    let mut deps: Vec<Dep> = Vec::new();
    for _ in 0..dice.weighted(&[(10, 0), (35, 1), (35, 2), (20, 3)]) {
        let Some(mut dep) = shelf.dep(dice, &deps) else {
            continue;
        };
        vary(dice, &mut dep);
        deps.push(dep);
    }
    if dice.chance(12)
        && let Some(dep) = twin(dice, shelf, &mut deps)
    {
        deps.push(dep);
    }
    let others: Vec<_> = project
        .packages
        .iter()
        .filter(|other| !other.folder.is_empty())
        .collect();
    if !others.is_empty() && dice.chance(50) {
        let other = dice.pick(&others);
        let mut dep = Dep::new(&other.name, "");
        dep.origin = Origin::Path(other.folder.clone());
        dep.kind = dice.weighted(&[(80, DepKind::Normal), (20, DepKind::Dev)]);
        deps.push(dep);
    }
    Package {
        folder: folder.to_owned(),
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        features: features(dice, &deps),
        deps,
        is_inheriting: false,
        rust_version: None,
    }
}

/// Another version of a crate that the package needs already, which cargo can use beside the first.
fn twin(dice: &mut Dice, shelf: &Shelf, deps: &mut [Dep]) -> Option<Dep> {
    let first = deps.first_mut()?;
    let versions = shelf.crates.iter().filter(|package| {
        let is_corp = package.registry == RegistryName::Corp;
        package.name == first.package && is_corp == (first.origin == Origin::Corp)
    });
    let versions: Vec<_> = versions.map(|package| package.version.as_str()).collect();
    let (one, other) = (*dice.pick(&versions), *dice.pick(&versions));
    if is_compatible(one, other) {
        return None;
    }
    let exact = |version: &str| format!("={}", version.split('+').next().unwrap_or(version));
    first.req = exact(one);
    first.features.clear();
    let mut twin = Dep::new(&first.package, &exact(other));
    twin.origin = first.origin.clone();
    twin.rename = Some("twin".to_owned());
    Some(twin)
}

/// True if cargo uses at most one of the two versions.
fn is_compatible(one: &str, other: &str) -> bool {
    let significant = |version: &str| {
        let mut parts = version.split(['.', '-', '+']).map(str::to_owned);
        let major = parts.next();
        let minor = parts.next().filter(|_| major.as_deref() == Some("0"));
        (major, minor)
    };
    significant(one) == significant(other)
}

/// Moves some dependencies of members to `[workspace.dependencies]`.
fn inherit(dice: &mut Dice, project: &mut Project) {
    let Some(workspace) = &mut project.workspace else {
        return;
    };
    for package in &mut project.packages {
        for dep in &mut package.deps {
            let is_registry = matches!(dep.origin, Origin::CratesIo | Origin::Corp);
            let is_new = workspace
                .dependencies
                .iter()
                .all(|other| other.name() != dep.name());
            if !is_registry || !is_new || !dice.chance(60) {
                continue;
            }
            let shared = Dep {
                kind: DepKind::Normal,
                is_optional: false,
                target: None,
                ..dep.clone()
            };
            workspace.dependencies.push(shared);
            dep.origin = Origin::Workspace;
            dep.req = String::new();
            dep.rename = None;
            dep.features = Vec::new();
            dep.is_bare = false;
        }
    }
    // The name in the manifest is the key, also for a renamed package.
    for package in &mut project.packages {
        for dep in &mut package.deps {
            let mut shared = workspace.dependencies.iter();
            if dep.origin == Origin::Workspace
                && let Some(shared) = shared.find(|shared| shared.package == dep.package)
            {
                dep.package = shared.name().to_owned();
            }
        }
    }
}

/// Makes the root package depend on all others by path.
fn link(project: &mut Project) {
    let others: Vec<_> = project.packages[1..]
        .iter()
        .map(|package| (package.name.clone(), package.folder.clone()))
        .collect();
    let root = &mut project.packages[0];
    for (name, folder) in others {
        if root.deps.iter().all(|dep| dep.name() != name) {
            let mut dep = Dep::new(&name, "");
            dep.origin = Origin::Path(folder);
            root.deps.push(dep);
        }
    }
}

/// Patches a crate of a registry with a folder of the project, which is not a member.
fn patch(dice: &mut Dice, project: &mut Project, shelf: &Shelf) {
    if shelf.crates.is_empty() {
        return;
    }
    let package = dice.pick(&shelf.crates);
    let folder = format!("patched/{}", package.name);
    if project
        .patches
        .iter()
        .any(|patch| patch.package == package.name)
    {
        return;
    }
    let is_crates_io = package.registry == RegistryName::CratesIo;
    let place = match dice.between(0, 9) {
        0 | 1 => PatchPlace::Settings,
        2 if is_crates_io => PatchPlace::Replace(package.version.clone()),
        _ => PatchPlace::Manifest,
    };
    // Cargo warns of a patch whose version nothing needs.
    let version = match place {
        PatchPlace::Manifest | PatchPlace::Settings if dice.chance(15) => "9.9.9",
        PatchPlace::Manifest | PatchPlace::Settings | PatchPlace::Replace(_) => &package.version,
    };
    let keeps_deps = is_crates_io && dice.chance(40);
    project.packages.push(Package {
        folder: folder.clone(),
        name: package.name.clone(),
        version: version.to_owned(),
        deps: if keeps_deps {
            package.deps.clone()
        } else {
            Vec::new()
        },
        features: package
            .features
            .keys()
            .map(|name| (name.clone(), Vec::new()))
            .collect(),
        is_inheriting: false,
        rust_version: None,
    });
    project.patches.push(Patch {
        package: package.name.clone(),
        folder,
        registry: package.registry,
        place,
    });
    if let Some(workspace) = &mut project.workspace {
        workspace.exclude.push("patched".to_owned());
    }
}

/// The project after a user's edit.
pub(crate) fn edited(dice: &mut Dice, mut project: Project, shelf: &Shelf) -> Project {
    let at = dice.between(0, project.packages.len() - 1);
    let change = dice.between(0, 6);
    let package = &mut project.packages[at];
    match change {
        0 | 1 => {
            if let Some(mut dep) = shelf.dep(dice, &package.deps) {
                vary(dice, &mut dep);
                package.deps.push(dep);
            }
        }
        2 if !package.deps.is_empty() => {
            let gone = dice.between(0, package.deps.len() - 1);
            package.deps.remove(gone);
            package.features.clear();
        }
        3 => {
            // Another requirement for the same crate.
            let other = shelf.dep(dice, &[]);
            let mut deps = package.deps.iter_mut();
            if let Some(other) = other
                && let Some(dep) =
                    deps.find(|dep| dep.package == other.package && dep.origin == other.origin)
            {
                dep.req = other.req;
                dep.features = other.features;
                dep.is_bare = other.is_bare;
            }
        }
        4 => {
            package.version = "0.2.0".to_owned();
            package.is_inheriting = false;
        }
        5 => patch(dice, &mut project, shelf),
        _ => {
            package.features.entry("later".to_owned()).or_default();
        }
    }
    project
}
