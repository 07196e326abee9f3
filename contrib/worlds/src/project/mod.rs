//! The project of a world: its packages, its workspace, its patches, and the files it consists of.

pub(crate) mod generate;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::registry::{
    Dep, DepKind, Origin, RegistryName, features, features_table, list, package_table,
};

/// The name of the package in the world's git repository.
pub(crate) const GIT_PACKAGE: &str = "from-git";
/// The tag of its only commit.
pub(crate) const GIT_TAG: &str = "v1";
/// The version and the edition of packages that take them from `[workspace.package]`.
const SHARED_FIELDS: &str = "version = \"0.1.0\"\nedition = \"2021\"\n";

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
    /// True if version and edition are those of `[workspace.package]`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_inheriting: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rust_version: Option<String>,
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
    /// The version of the resolver, if it is not 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resolver: Option<String>,
}

/// A package of a registry that a package in a folder of the project takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Patch {
    pub(crate) package: String,
    pub(crate) folder: String,
    /// The registry whose package is patched.
    #[serde(default)]
    pub(crate) registry: RegistryName,
    #[serde(default)]
    pub(crate) place: PatchPlace,
}

/// The table that has a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PatchPlace {
    /// `[patch]` of the root manifest.
    #[default]
    Manifest,
    /// `[patch]` of the project's `.cargo/config.toml`.
    Settings,
    /// `[replace]` of the root manifest, for this version.
    Replace(String),
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
    /// Writes all manifests and sources into this folder, without [`Self::settings`]. `git` is the address of the
    /// world's git repository.
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

    /// Writes a cargo script with the dependencies of the root package.
    pub(crate) fn write_script(&self, path: &Path, git: &str) {
        let root = self.packages.first();
        let deps = root.into_iter().flat_map(|package| &package.deps);
        let tables: String = deps.map(|dep| dep.toml(&source(dep, "", git))).collect();
        let text = format!(
            "#!/usr/bin/env -S cargo -Zscript\n---\n[package]\nedition = \"2021\"\n{tables}---\n\nfn main() {{}}\n"
        );
        write(path, &text);
    }

    /// The text of the project's `.cargo/config.toml`, or nothing.
    pub(crate) fn settings(&self) -> String {
        self.patches(&PatchPlace::Settings)
    }

    fn root_tables(&self, git: &str) -> String {
        let mut toml = String::new();
        if let Some(workspace) = &self.workspace {
            let members = serde_json::json!(workspace.members);
            let _ = write!(
                toml,
                "\n[workspace]\nresolver = \"{}\"\nmembers = {members}\n",
                workspace.resolver.as_deref().unwrap_or("2")
            );
            if !workspace.exclude.is_empty() {
                let _ = writeln!(toml, "exclude = {}", serde_json::json!(workspace.exclude));
            }
            if self.packages.iter().any(|package| package.is_inheriting) {
                let _ = write!(toml, "\n[workspace.package]\n{SHARED_FIELDS}");
            }
            for dep in &workspace.dependencies {
                let fields = dep.fields(&source(dep, "", git));
                let _ = write!(toml, "\n[workspace.dependencies.{}]\n{fields}", dep.name());
            }
        }
        toml + &self.patches(&PatchPlace::Manifest) + &self.replacements()
    }

    /// The tables of the patches in this place.
    fn patches(&self, place: &PatchPlace) -> String {
        let patches = self.patches.iter().filter(|patch| patch.place == *place);
        let tables = patches.map(|patch| {
            let registry = match patch.registry {
                RegistryName::CratesIo => "crates-io",
                RegistryName::Corp => "corp",
            };
            let (package, folder) = (&patch.package, &patch.folder);
            format!("\n[patch.{registry}.{package}]\npath = \"{folder}\"\n")
        });
        tables.collect()
    }

    fn replacements(&self) -> String {
        let mut toml = String::new();
        for patch in &self.patches {
            if let PatchPlace::Replace(version) = &patch.place {
                let (package, folder) = (&patch.package, &patch.folder);
                let _ = write!(
                    toml,
                    "\n[replace.\"{package}:{version}\"]\npath = \"{folder}\"\n"
                );
            }
        }
        toml
    }

    /// True if a package depends on the git repository.
    pub(crate) fn has_git(&self) -> bool {
        self.deps()
            .any(|dep| matches!(dep.origin, Origin::Git | Origin::GitTag))
    }

    /// All dependencies of all packages.
    pub(crate) fn deps(&self) -> impl Iterator<Item = &Dep> {
        self.packages.iter().flat_map(|package| &package.deps)
    }
}

impl Package {
    fn manifest(&self, git: &str) -> String {
        let mut toml = if self.is_inheriting {
            let name = &self.name;
            format!(
                "[package]\nname = \"{name}\"\nversion.workspace = true\nedition.workspace = true\n"
            )
        } else {
            package_table(&self.name, &self.version)
        };
        if let Some(version) = &self.rust_version {
            let _ = writeln!(toml, "rust-version = \"{version}\"");
        }
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
        Origin::GitTag => format!("git = \"{git}\"\ntag = \"{GIT_TAG}\"\n"),
        Origin::Workspace => "workspace = true\n".to_owned(),
        Origin::Path(other) => {
            let depth = folder.split('/').filter(|part| !part.is_empty()).count();
            format!("path = \"{}{other}\"\n", "../".repeat(depth))
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
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
                if let Some(resolver) = &workspace.resolver {
                    write!(f, " with resolver {resolver}")?;
                }
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
            if package.is_inheriting {
                f.write_str(", version of the workspace")?;
            }
            if let Some(version) = &package.rust_version {
                write!(f, ", for Rust {version}")?;
            }
        }
        for patch in &self.patches {
            let verb = match patch.place {
                PatchPlace::Manifest => "patched",
                PatchPlace::Settings => "patched in the project's settings",
                PatchPlace::Replace(_) => "replaced",
            };
            write!(f, "\n    {} is {verb} by ./{}", patch.package, patch.folder)?;
        }
        Ok(())
    }
}
