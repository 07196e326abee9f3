//! Reads the `Cargo.toml` files of one workspace: its packages, their dependencies and features.
//!
//! ```text
//!  root/Cargo.toml ─┬─ its own package
//!                   ├─ workspace.members ── crates/* ─> members
//!                   └─ path dependencies of all of these ─> members below the root of a workspace, else other packages
//!                        └─ dev-dependencies of these ─> packages that the lock file may name, but does not need
//! ```
//!
//! This is the part of a manifest that decides what a lock file contains. Conditions on targets are ignored, since a
//! lock file covers all targets. What is not understood here ([`WorkspaceError::Unsupported`]) is left to cargo.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::{
    cargo_config::{CargoConfig, parse_registry},
    files::{self, MAX_MANIFEST_BYTES},
    lockfile::PackageSource,
    projects::plain,
};

/// Packages of one workspace that are read at most, so that odd trees end.
const MAX_PACKAGES: usize = 5000;

/// The local packages that a lock file of this workspace covers.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalWorkspace {
    /// Members first, then other packages that path dependencies lead to.
    pub(super) packages: Vec<LocalPackage>,
}

/// One package of the user.
#[derive(Clone, Debug)]
pub(super) struct LocalPackage {
    folder: PathBuf,
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: Version,
    /// True if the lock file covers all its features and dev-dependencies.
    pub(super) is_member: bool,
    /// Its dependencies of all kinds and targets.
    pub(super) dependencies: Vec<Dependency>,
    /// Its features.
    pub(super) features: BTreeMap<String, Vec<String>>,
}

/// One dependency of a local package or of a crate.
#[derive(Clone, Debug, Default)]
pub(super) struct Dependency {
    /// The name by which features know it.
    pub(super) name: String,
    /// The crate's own name.
    pub(super) package: String,
    /// The version requirement.
    pub(super) requirement: VersionReq,
    /// True if it is in the user's own folders.
    pub(super) is_local: bool,
    /// The registry that the user's manifest names. `None` for other dependencies.
    pub(super) source: Option<PackageSource>,
    /// True if only a feature makes it a dependency.
    pub(super) is_optional: bool,
    /// True if only members use it.
    pub(super) is_dev: bool,
    /// True if it switches on `default`.
    pub(super) default_features: bool,
    /// Features that it switches on.
    pub(super) features: Vec<String>,
    /// True if only some targets need it. Not read for local packages.
    pub(super) is_for_target: bool,
    /// The index of its registry, if it is not that of the crate which depends on it. Not read for local packages.
    pub(super) registry: Option<String>,
}

/// The reason why manifests were not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkspaceError {
    /// A manifest cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// A manifest is no TOML, or TOML of another shape.
    #[error("{}: {}", path.display(), source.message())]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// The reader's error.
        source: Box<toml::de::Error>,
    },
    /// Only cargo can tell what this means for the lock file.
    #[error("{} has {what}", path.display())]
    Unsupported {
        /// The manifest or settings file.
        path: PathBuf,
        /// The part.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawPackageManifest {
    package: Option<RawPackage>,
    workspace: Option<RawWorkspace>,
    patch: Option<toml::Table>,
    replace: Option<toml::Table>,
    project: Option<toml::Table>,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    target: BTreeMap<String, RawDependencies>,
    #[serde(flatten)]
    dependencies: RawDependencies,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    version: Option<Inherited<String>>,
    workspace: Option<String>,
}

/// A value, or `{ workspace = true }`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Inherited<T> {
    Value(T),
    FromWorkspace {
        #[serde(rename = "workspace")]
        _workspace: bool,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawWorkspace {
    members: Vec<String>,
    exclude: Vec<String>,
    dependencies: BTreeMap<String, RawDependency>,
    package: RawWorkspacePackage,
}

#[derive(Default, Deserialize)]
struct RawWorkspacePackage {
    version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RawDependencies {
    dependencies: BTreeMap<String, RawDependency>,
    #[serde(alias = "dev_dependencies")]
    dev_dependencies: BTreeMap<String, RawDependency>,
    #[serde(alias = "build_dependencies")]
    build_dependencies: BTreeMap<String, RawDependency>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum RawDependency {
    Version(String),
    Table(Box<RawDependencyTable>),
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RawDependencyTable {
    version: Option<String>,
    path: Option<PathBuf>,
    git: Option<String>,
    registry: Option<String>,
    registry_index: Option<String>,
    package: Option<String>,
    optional: bool,
    #[serde(alias = "default_features")]
    default_features: Option<bool>,
    features: Vec<String>,
    workspace: bool,
}

/// Collects packages, each once.
struct WorkspaceReader<'a> {
    /// The settings that name registries.
    config: &'a CargoConfig,
    /// The real root folder.
    root: PathBuf,
    /// `[workspace]` of the root.
    workspace: Option<RawWorkspace>,
    packages: Vec<LocalPackage>,
    /// Folders of dev-dependencies of packages that are no members.
    beyond: Vec<PathBuf>,
    /// True once only packages are read that the lock file does not need.
    is_beyond: bool,
}

impl Dependency {
    /// # Errors
    /// The part that only cargo understands.
    fn of_manifest(
        name: &str,
        table: RawDependencyTable,
        source: Option<PackageSource>,
        is_dev: bool,
    ) -> Result<Self, String> {
        if table.git.is_some() {
            return Err(format!("git dependency `{name}`"));
        }
        let source =
            source.ok_or_else(|| format!("a registry of `{name}` that no settings file names"))?;
        let requirement = table.version.as_deref().unwrap_or("*");
        let requirement = VersionReq::parse(requirement)
            .map_err(|_| format!("a version of `{name}` that cannot be read"))?;
        Ok(Self {
            name: name.to_owned(),
            package: table.package.unwrap_or_else(|| name.to_owned()),
            requirement,
            is_local: source == PackageSource::Local,
            source: Some(source),
            is_optional: table.optional,
            is_dev,
            default_features: table.default_features.unwrap_or(true),
            features: table.features,
            ..Self::default()
        })
    }
}

impl LocalWorkspace {
    /// Reads the workspace whose root manifest is in `root`, for a cargo with these settings.
    ///
    /// # Errors
    /// See [`WorkspaceError`].
    pub(super) fn read(root: &Path, config: &CargoConfig) -> Result<Self, WorkspaceError> {
        let manifest_path = root.join("Cargo.toml");
        let real = root.canonicalize();
        let root = real.map_err(|source| WorkspaceError::Read {
            path: root.to_owned(),
            source,
        })?;
        refuse_patches_in_settings(config)?;
        let mut manifest = read_manifest(&root)?;
        let unsupported = |what: &str| WorkspaceError::Unsupported {
            path: manifest_path.clone(),
            what: what.to_owned(),
        };
        if manifest.patch.is_some() || manifest.replace.is_some() {
            return Err(unsupported("`[patch]` or `[replace]`"));
        }
        let pointer = manifest
            .package
            .as_ref()
            .and_then(|package| package.workspace.as_ref());
        if pointer.is_some() {
            return Err(unsupported("`package.workspace`"));
        }
        let workspace = manifest.workspace.take();
        let members = match &workspace {
            Some(workspace) => member_folders(&root, &workspace.members)?,
            None => Vec::new(),
        };
        let mut reader = WorkspaceReader {
            config,
            root: root.clone(),
            workspace,
            packages: Vec::new(),
            beyond: Vec::new(),
            is_beyond: false,
        };
        if manifest.package.is_some() {
            reader.add(root, true, manifest)?;
        }
        for member in members {
            reader.package(&member, true)?;
        }
        reader.is_beyond = true;
        while let Some(folder) = reader.beyond.pop() {
            let folder = plain(&folder);
            // Cargo ignores them as well if they are not there (`build_path_deps` in
            // `src/cargo/core/resolver/encode.rs`).
            if folder.join("Cargo.toml").is_file() {
                reader.package(&folder, false)?;
            }
        }
        Ok(Self {
            packages: reader.packages,
        })
    }
}

impl WorkspaceReader<'_> {
    /// Reads the package in `folder`, and those that its path dependencies lead to. Cargo follows no links in these
    /// paths: a linked member is below the root, and its `../b` is beside the link (docs/client-behaviour.md C-54).
    fn package(&mut self, folder: &Path, is_member: bool) -> Result<(), WorkspaceError> {
        let folder = plain(folder);
        let is_member = is_member || self.is_within(&folder);
        if self.packages.iter().any(|known| known.folder == folder) {
            return Ok(());
        }
        let manifest = read_manifest(&folder)?;
        self.add(folder, is_member, manifest)
    }

    /// Cargo makes a path dependency below the root of a workspace a member (`find_path_deps` in
    /// `src/cargo/core/workspace.rs`).
    fn is_within(&self, folder: &Path) -> bool {
        let Some(workspace) = self.workspace.as_ref().filter(|_| !self.is_beyond) else {
            return false;
        };
        let is_listed = |list: &[String]| {
            let mut entries = list.iter();
            entries.any(|entry| folder.starts_with(plain(&self.root.join(entry))))
        };
        folder.starts_with(&self.root)
            && (!is_listed(&workspace.exclude) || is_listed(&workspace.members))
    }

    fn add(
        &mut self,
        folder: PathBuf,
        is_member: bool,
        manifest: RawPackageManifest,
    ) -> Result<(), WorkspaceError> {
        let path = folder.join("Cargo.toml");
        let unsupported = |what: &str| WorkspaceError::Unsupported {
            path: path.clone(),
            what: what.to_owned(),
        };
        let Some(package) = manifest.package else {
            return Err(unsupported("no `[package]`"));
        };
        if manifest.project.is_some() || self.packages.len() >= MAX_PACKAGES {
            return Err(unsupported("an unusual shape"));
        }
        let version = match package.version {
            None => Some("0.0.0".to_owned()),
            Some(Inherited::Value(version)) => Some(version),
            Some(Inherited::FromWorkspace { .. }) if is_member => {
                let workspace = self.workspace.as_ref();
                workspace.and_then(|workspace| workspace.package.version.clone())
            }
            Some(Inherited::FromWorkspace { .. }) => None,
        };
        let version = version.and_then(|version| Version::parse(version.trim()).ok());
        let version = version.ok_or_else(|| unsupported("a version that cannot be told"))?;
        let mut dependencies = Vec::new();
        let mut folders = Vec::new();
        for (table, is_dev) in manifest
            .dependencies
            .kinds()
            .into_iter()
            .chain(manifest.target.values().flat_map(RawDependencies::kinds))
        {
            for (name, raw) in table {
                let (table, base) =
                    self.inherited(name, raw, &folder, is_member)
                        .ok_or_else(|| {
                            unsupported(&format!(
                                "dependency `{name}`, which inherits from elsewhere"
                            ))
                        })?;
                let source = self.source(&table);
                match &table.path {
                    Some(path) if is_member || !is_dev => folders.push(base.join(path)),
                    Some(path) => self.beyond.push(base.join(path)),
                    None => {}
                }
                let dependency = Dependency::of_manifest(name, table, source, is_dev);
                dependencies.push(dependency.map_err(|what| unsupported(&what))?);
            }
        }
        self.packages.push(LocalPackage {
            folder,
            name: package.name,
            version,
            is_member,
            dependencies,
            features: manifest.features,
        });
        for folder in folders {
            self.package(&folder, false)?;
        }
        Ok(())
    }

    /// The place that a dependency comes from, by its table and the settings files.
    fn source(&self, table: &RawDependencyTable) -> Option<PackageSource> {
        if table.path.is_some() {
            return Some(PackageSource::Local);
        }
        match (&table.registry_index, &table.registry) {
            (None, None) => Some(PackageSource::CratesIo),
            (Some(index), None) => parse_registry(index),
            (None, Some(name)) => self.config.registry(name),
            // Cargo refuses both.
            (Some(_), Some(_)) => None,
        }
    }

    /// The dependency's table, completed from `[workspace.dependencies]`, and the folder its path starts from.
    fn inherited(
        &self,
        name: &str,
        raw: &RawDependency,
        folder: &Path,
        is_member: bool,
    ) -> Option<(RawDependencyTable, PathBuf)> {
        let own = raw.table();
        if !own.workspace {
            return Some((own, folder.to_owned()));
        }
        let workspace = self.workspace.as_ref().filter(|_| is_member)?;
        let mut table = workspace.dependencies.get(name)?.table();
        table.optional = own.optional;
        table.features.extend(own.features);
        // A member can switch default features on, not off.
        if own.default_features == Some(true) {
            table.default_features = Some(true);
        }
        Some((table, self.root.clone()))
    }
}

impl RawDependencies {
    /// The tables, each with `true` for dev-dependencies.
    fn kinds(&self) -> [(&BTreeMap<String, RawDependency>, bool); 3] {
        [
            (&self.dependencies, false),
            (&self.build_dependencies, false),
            (&self.dev_dependencies, true),
        ]
    }
}

impl RawDependency {
    fn table(&self) -> RawDependencyTable {
        match self {
            Self::Version(version) => RawDependencyTable {
                version: Some(version.clone()),
                ..RawDependencyTable::default()
            },
            Self::Table(table) => (**table).clone(),
        }
    }
}

fn read_manifest(folder: &Path) -> Result<RawPackageManifest, WorkspaceError> {
    let path = folder.join("Cargo.toml");
    match files::read_text(&path, MAX_MANIFEST_BYTES) {
        Ok(text) => toml::from_str(&text).map_err(|source| WorkspaceError::Parse {
            path,
            source: Box::new(source),
        }),
        Err(source) => Err(WorkspaceError::Read { path, source }),
    }
}

/// Patches in cargo's settings change the lock file as those in a manifest do.
fn refuse_patches_in_settings(config: &CargoConfig) -> Result<(), WorkspaceError> {
    match config.patching_file() {
        Some((path, key)) => Err(WorkspaceError::Unsupported {
            path: path.to_owned(),
            what: format!("`{key}`"),
        }),
        None => Ok(()),
    }
}

/// The folders of `workspace.members`, in which `*` and `?` stand for names.
fn member_folders(root: &Path, members: &[String]) -> Result<Vec<PathBuf>, WorkspaceError> {
    let mut found = Vec::new();
    for member in members {
        if member.contains("**") || member.contains('[') {
            return Err(WorkspaceError::Unsupported {
                path: root.join("Cargo.toml"),
                what: format!("member `{member}`"),
            });
        }
        if !member.contains(['*', '?']) {
            found.push(root.join(member));
            continue;
        }
        let mut folders = vec![root.to_owned()];
        for part in member.split('/').filter(|part| !part.is_empty()) {
            folders = folders
                .iter()
                .flat_map(|folder| matching(folder, part))
                .collect();
        }
        folders.retain(|folder| folder.join("Cargo.toml").is_file());
        found.append(&mut folders);
    }
    Ok(found)
}

/// The entries of a folder whose names match, sorted.
fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    if !pattern.contains(['*', '?']) {
        return vec![folder.join(pattern)];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            matches(pattern.as_bytes(), name.as_bytes())
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Shell matching of one path component.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        Some((b'?', rest)) => !name.is_empty() && matches(rest, &name[1..]),
        Some((byte, rest)) => name.first() == Some(byte) && matches(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_in_cargos_settings_are_left_to_cargo() {
        let patch = "[patch.crates-io]\nleft = { path = 'left' }\n";
        for (files, expected) in [
            ([("config.toml", ""), ("more.toml", patch)], None),
            ([("config.toml", patch), ("more.toml", "")], Some("`patch`")),
            (
                [("config", "paths = ['left']"), ("more.toml", "")],
                Some("`paths`"),
            ),
            (
                [
                    ("config.toml", "include = ['more.toml']"),
                    ("more.toml", patch),
                ],
                Some("`patch`"),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let manifest = "[package]\nname = 'app'\nversion = '1.0.0'\n";
            fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
            let settings = folder.path().join(".cargo");
            fs::create_dir(&settings).unwrap();
            for (name, text) in files {
                fs::write(settings.join(name), text).unwrap();
            }
            let config = CargoConfig::of(folder.path());
            let what = match LocalWorkspace::read(folder.path(), &config) {
                Err(WorkspaceError::Unsupported { what, .. }) => Some(what),
                Ok(_) | Err(_) => None,
            };
            assert_eq!(what.as_deref(), expected, "{files:?}");
        }
    }

    #[test]
    fn patterns_of_members_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?", "ab", true),
            ("a?", "a", false),
            ("a*", "a", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
