//! The part of a manifest that tells which workspace a package belongs to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::paths::{MANIFEST_NAME, plain};
use crate::files::{self, MAX_MANIFEST_BYTES};

/// Characters of patterns in lists of members.
const PATTERN_CHARACTERS: [char; 3] = ['*', '?', '['];

/// The part of a manifest that concerns workspaces.
#[derive(Clone, Default)]
pub(super) struct Membership {
    pub(super) root: Option<WorkspaceTable>,
    /// `package.workspace`: the folder of the root, relative to the manifest.
    pub(super) pointer: Option<PathBuf>,
    /// The folders of path dependencies and patches, relative to the manifest.
    pub(super) paths: Vec<PathBuf>,
}

/// The tables of a manifest that may have dependencies with a path, at any depth.
const TABLES_WITH_PATHS: [&str; 9] = [
    "dependencies",
    "dev-dependencies",
    "dev_dependencies",
    "build-dependencies",
    "build_dependencies",
    "target",
    "workspace",
    "patch",
    "replace",
];

#[derive(Deserialize)]
struct RawManifest {
    workspace: Option<WorkspaceTable>,
    package: Option<RawManifestPackage>,
    project: Option<RawManifestPackage>,
}

#[derive(Deserialize)]
struct RawManifestPackage {
    workspace: Option<PathBuf>,
}

#[derive(Clone, Default, Deserialize)]
pub(super) struct WorkspaceTable {
    #[serde(default)]
    members: Vec<PathBuf>,
    #[serde(default)]
    exclude: Vec<PathBuf>,
}

impl WorkspaceTable {
    /// Cargo's rule, `WorkspaceRootConfig::is_excluded`: both lists are path prefixes, members win.
    pub(super) fn excludes(&self, root: &Path, folder: &Path) -> bool {
        let holds = |list: &[PathBuf]| {
            list.iter()
                .any(|entry| folder.starts_with(plain(&root.join(entry))))
        };
        holds(&self.exclude) && !holds(&self.members)
    }

    /// The folders that may be those of listed members: a pattern stands for every folder at its place. Blocking.
    pub(super) fn member_folders(&self, root: &Path) -> Vec<PathBuf> {
        let members = self.members.iter().flat_map(|member| {
            let mut folders = vec![root.to_owned()];
            for part in member.components() {
                let name = part.as_os_str().to_string_lossy();
                let step = |folder: PathBuf| match name.contains(PATTERN_CHARACTERS) {
                    true => folders_in(&folder),
                    false => vec![folder.join(part)],
                };
                folders = folders.into_iter().flat_map(step).collect();
            }
            folders
        });
        members.collect()
    }
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

pub(super) fn read_membership(folder: &Path) -> Membership {
    let path = folder.join(MANIFEST_NAME);
    let text = files::read_text(&path, MAX_MANIFEST_BYTES).unwrap_or_default();
    let Ok(table) = toml::from_str::<toml::Table>(&text) else {
        return Membership::default();
    };
    let mut paths = Vec::new();
    for value in TABLES_WITH_PATHS.iter().filter_map(|name| table.get(*name)) {
        add_paths(value, &mut paths);
    }
    let Ok(manifest) = table.try_into::<RawManifest>() else {
        return Membership::default();
    };
    let pointer = manifest
        .package
        .or(manifest.project)
        .and_then(|package| package.workspace);
    Membership {
        root: manifest.workspace,
        pointer,
        paths,
    }
}

/// Adds each `path` in a table and the tables in it.
fn add_paths(value: &toml::Value, paths: &mut Vec<PathBuf>) {
    let Some(table) = value.as_table() else {
        return;
    };
    for (key, value) in table {
        match value.as_str() {
            Some(path) if key == "path" => paths.push(path.into()),
            Some(_) => {}
            None => add_paths(value, paths),
        }
    }
}
