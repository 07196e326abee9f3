//! The project of a world: its packages, its workspace, its patches, and the files it consists of.

pub(crate) mod generate;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::registry::{Dep, DepKind, Origin, features, features_table, list, package_table};

/// The name of the package in the world's git repository.
pub(crate) const GIT_PACKAGE: &str = "from-git";

/// A package of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Its folder below the project's; empty for the root.
    pub(crate) folder: String,
    pub(crate) name: String,
    pub(crate) version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deps: Vec<Dep>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

/// `[workspace]` of the root manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exclude: Vec<String>,
    /// `[workspace.dependencies]`, without kinds and targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dependencies: Vec<Dep>,
}

/// `[patch.crates-io]` with a package in a folder of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Patch {
    pub(crate) package: String,
    pub(crate) folder: String,
}

/// The files of a project, without its lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Project {
    pub(crate) packages: Vec<Package>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<Workspace>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) patches: Vec<Patch>,
}

impl Project {
    /// Writes all manifests and sources into this folder. `git` is the address of the world's git repository.
    pub(crate) fn write(&self, folder: &Path, git: &str) {
        let root = self
            .packages
            .iter()
            .find(|package| package.folder.is_empty());
        let mut manifest = root.map_or(String::new(), |package| package.manifest(git));
        manifest.push_str(&self.root_tables(git));
        write(&folder.join("Cargo.toml"), &manifest);
        for package in &self.packages {
            let place = folder.join(&package.folder);
            if !package.folder.is_empty() {
                write(&place.join("Cargo.toml"), &package.manifest(git));
            }
            write(&place.join("src/lib.rs"), "");
            if package.deps.iter().any(|dep| dep.kind == DepKind::Build) {
                write(&place.join("build.rs"), "fn main() {}\n");
            }
        }
    }

    fn root_tables(&self, git: &str) -> String {
        let mut toml = String::new();
        if let Some(workspace) = &self.workspace {
            let members = serde_json::json!(workspace.members);
            let _ = write!(
                toml,
                "\n[workspace]\nresolver = \"2\"\nmembers = {members}\n"
            );
            if !workspace.exclude.is_empty() {
                let _ = writeln!(toml, "exclude = {}", serde_json::json!(workspace.exclude));
            }
            for dep in &workspace.dependencies {
                let fields = dep.fields(&source(dep, "", git));
                let _ = write!(toml, "\n[workspace.dependencies.{}]\n{fields}", dep.name());
            }
        }
        for patch in &self.patches {
            let (package, folder) = (&patch.package, &patch.folder);
            let _ = write!(toml, "\n[patch.crates-io.{package}]\npath = \"{folder}\"\n");
        }
        toml
    }

    /// True if a package depends on the git repository.
    pub(crate) fn has_git(&self) -> bool {
        self.deps().any(|dep| dep.origin == Origin::Git)
    }

    /// All dependencies of all packages.
    pub(crate) fn deps(&self) -> impl Iterator<Item = &Dep> {
        self.packages.iter().flat_map(|package| &package.deps)
    }
}

impl Package {
    fn manifest(&self, git: &str) -> String {
        let mut toml = package_table(&self.name, &self.version);
        toml.push_str(&features_table(&self.features));
        for dep in &self.deps {
            toml.push_str(&dep.toml(&source(dep, &self.folder, git)));
        }
        toml
    }
}

/// The fields that say where a dependency of the package in `folder` comes from.
fn source(dep: &Dep, folder: &str, git: &str) -> String {
    match &dep.origin {
        Origin::CratesIo => String::new(),
        Origin::Corp => "registry = \"corp\"\n".to_owned(),
        Origin::Git => format!("git = \"{git}\"\n"),
        Origin::Workspace => "workspace = true\n".to_owned(),
        Origin::Path(other) => {
            let depth = folder.split('/').filter(|part| !part.is_empty()).count();
            format!("path = \"{}{other}\"\n", "../".repeat(depth))
        }
    }
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, text: &str) {
    let folders = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = folders.and_then(|()| std::fs::write(path, text));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.workspace {
            Some(workspace) => {
                write!(f, "workspace of [{}]", workspace.members.join("; "))?;
                write!(f, "{}", list(" without ", &workspace.exclude))?;
                write!(
                    f,
                    "{}",
                    list(" with dependencies ", &workspace.dependencies)
                )?;
            }
            None => f.write_str("a single package")?,
        }
        for package in &self.packages {
            let folder = if package.folder.is_empty() {
                "."
            } else {
                &package.folder
            };
            write!(f, "\n    {} {} in {folder}", package.name, package.version)?;
            write!(f, "{}", list(" needs ", &package.deps))?;
            write!(f, "{}", features(&package.features))?;
        }
        for patch in &self.patches {
            write!(
                f,
                "\n    {} is patched by ./{}",
                patch.package, patch.folder
            )?;
        }
        Ok(())
    }
}
