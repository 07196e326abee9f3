//! Finds the cargo projects, and the toolchain files, at and below the paths that a user names.
//!
//! ```text
//!  path ─┬─ folder ───────── walk: every Cargo.lock, Cargo.toml and toolchain file below it ─┐
//!        ├─ Cargo.toml ───── its folder ─────────────────────────────────────────────────────┤
//!        ├─ toolchain file ──────────────────────────────────────────────────────────────────┤
//!        ├─ cargo script ────────────────────────────────────────────────────────────────────┤
//!        └─ any other file ─ a lock file ────────────────────────────────────────────────────┴─> FoundProjects
//! ```
//!
//! A folder with a `Cargo.toml` and no lock file may be a project of its own or a member of a workspace elsewhere;
//! [`find`] lists the rules. For that question alone, manifests are read. Reading lock files and making missing ones
//! belong to `plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use walkdir::{DirEntry, WalkDir};

use crate::cargo_config::CargoConfig;
use crate::files::{self, MAX_MANIFEST_BYTES};
use crate::script;

const MANIFEST_NAME: &str = "Cargo.toml";
const LOCK_NAME: &str = "Cargo.lock";
/// Names of toolchain files in rustup's order: the first one that exists counts (rustup,
/// `find_override_from_dir_walk` in `src/config.rs`).
const TOOLCHAIN_FILES: [&str; 2] = ["rust-toolchain", "rust-toolchain.toml"];
const CACHE_TAG: &str = "CACHEDIR.TAG";
/// The file that `cargo vendor` puts beside each copied `Cargo.toml`. Cargo requires it in directory sources.
const VENDOR_CHECKSUMS: &str = ".cargo-checksum.json";
/// The folder of cargo's settings.
const CARGO_SETTINGS_FOLDER: &str = ".cargo";
/// The folder in which `cargo package` unpacks what it packed.
const PACKAGE_FOLDER: &str = "target/package";
/// Start of a valid `CACHEDIR.TAG`, by the Cache Directory Tagging Specification. Cargo puts one into `target` and
/// into its home.
const CACHE_TAG_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The result of [`find`].
#[derive(Debug, Default)]
pub struct FoundProjects {
    /// The projects, sorted by folder and distinct, however many paths lead to one.
    pub projects: Vec<Project>,
    /// The toolchain files that rustup would read in these projects or in any other folder below the paths, distinct.
    pub toolchain_files: Vec<PathBuf>,
    /// Paths that could not be searched, in the order of the search.
    pub problems: Vec<SearchProblem>,
}

/// A folder that cargo would work in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Project {
    /// The folder, spelled as the user would: relative if the given path is.
    pub folder: PathBuf,
    /// Its lock file. `None` if cargo has not made one yet.
    pub lock: Option<PathBuf>,
    /// The cargo script that is the whole project. Cargo keeps its lock file elsewhere.
    pub script: Option<PathBuf>,
    /// The toolchain file that rustup would read in it: the nearest, up to the root of the file system.
    pub toolchain_file: Option<PathBuf>,
}

/// A path that could not be searched. The search went on with the others.
#[derive(Debug)]
pub struct SearchProblem {
    /// The path.
    pub path: PathBuf,
    /// The reason. Its text does not repeat the path.
    pub error: SearchError,
}

/// The reason why a path could not be searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The user's path does not exist.
    #[error("no such file or folder")]
    NotFound,
    /// The path's metadata or real path cannot be read.
    #[error("cannot look at it: {0}")]
    Metadata(#[source] io::Error),
    /// A pipe, a socket or a device.
    #[error("neither a file nor a folder")]
    OtherKind,
    /// A folder below the path cannot be listed.
    #[error("cannot read folder: {}", walk_cause(.0))]
    ReadFolder(#[source] walkdir::Error),
    /// The path has nothing to find below it.
    #[error("no {LOCK_NAME}, {MANIFEST_NAME} or toolchain file below it")]
    Empty,
}

/// The operating system's error, without the path that `walkdir` adds.
fn walk_cause(error: &walkdir::Error) -> String {
    let cause = error.io_error().map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}

/// Finds the projects at and below `paths`, each a folder, a `Cargo.toml`, a toolchain file, a cargo script or a lock
/// file of any name.
///
/// A folder is searched to the bottom, except behind symbolic links, in hidden folders, in folders tagged as a cache
/// (`CACHEDIR.TAG`, as cargo's `target` is), and in copies made by `cargo vendor` or `cargo package`, among them the
/// folders that cargo's settings name as sources. A path that the user gives is searched even if it is one of these.
///
/// Every `Cargo.lock` is a project, unless a `Cargo.toml` beside it makes its folder a member of a workspace elsewhere
/// (rule 2): cargo does not read it then. A folder with only a `Cargo.toml`, and such a member, is
///
/// 1. covered by the nearest folder above it, within the path being walked, that has both files, unless the
///    manifest there excludes it. That is decided without reading the many manifests of a big tree, at the price of
///    missing a workspace of its own inside a locked project. The path itself is never decided this way.
/// 2. otherwise what cargo says (`find_workspace_root` in `src/cargo/core/workspace.rs`): its own `[workspace]`,
///    the workspace that `package.workspace` points to, or the nearest `[workspace]` above it, up to the root of the
///    file system, that does not exclude it. It then stands for that workspace, so that `warm` works in a member's
///    folder. Whether the workspace lists it as a member is not asked.
/// 3. otherwise a project without lock file.
///
/// Blocking. The walk lists folders, looks for cache tags and the mark of `cargo vendor`, and opens no other file but
/// cargo's settings.
pub fn find(paths: &[PathBuf]) -> FoundProjects {
    let mut search = Search::default();
    for path in paths {
        search.path(path);
    }
    search.finish()
}

#[derive(Default)]
struct Search {
    /// Projects by the real path of their lock file or, without one, of their folder.
    projects: BTreeMap<PathBuf, Project>,
    problems: Vec<SearchProblem>,
    /// Real folders with a manifest; the value says whether they have a lock file too.
    manifests: BTreeMap<PathBuf, bool>,
    unlocked: Vec<Unlocked>,
    /// Toolchain files by their real path, spelled as the user would.
    toolchain_files: BTreeMap<PathBuf, PathBuf>,
    /// The nearest toolchain file by real folder.
    nearest: BTreeMap<PathBuf, Option<PathBuf>>,
    /// Manifests that were read, by real folder. In a tree full of packages the same few are needed many times.
    workspaces: BTreeMap<PathBuf, Membership>,
}

/// A folder with a manifest and no lock file.
struct Unlocked {
    folder: PathBuf,
    real: PathBuf,
    /// The real path of the walk that found it; the folder itself if the user named it.
    top: PathBuf,
}

/// The part of a manifest that concerns workspaces.
#[derive(Clone, Default)]
struct Membership {
    root: Option<WorkspaceTable>,
    /// `package.workspace`: the folder of the root, relative to the manifest.
    pointer: Option<PathBuf>,
}

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
struct WorkspaceTable {
    #[serde(default)]
    members: Vec<PathBuf>,
    #[serde(default)]
    exclude: Vec<PathBuf>,
}

impl WorkspaceTable {
    /// Cargo's rule, `WorkspaceRootConfig::is_excluded`: both lists are path prefixes, members win.
    fn excludes(&self, root: &Path, folder: &Path) -> bool {
        let holds = |list: &[PathBuf]| {
            list.iter()
                .any(|entry| folder.starts_with(plain(&root.join(entry))))
        };
        holds(&self.exclude) && !holds(&self.members)
    }
}

impl Search {
    fn path(&mut self, path: &Path) {
        let (metadata, real) =
            match fs::metadata(path).and_then(|found| Ok((found, path.canonicalize()?))) {
                Ok(found) => found,
                Err(error) => {
                    let error = if error.kind() == io::ErrorKind::NotFound {
                        SearchError::NotFound
                    } else {
                        SearchError::Metadata(error)
                    };
                    return self.problem(path, error);
                }
            };
        if metadata.is_dir() {
            self.walk(path, &real);
        } else if !metadata.is_file() {
            self.problem(path, SearchError::OtherKind);
        } else if path.file_name() == Some(OsStr::new(MANIFEST_NAME)) {
            // The folder that the user named, not the one that a linked manifest lies in.
            match parent(path).canonicalize() {
                Ok(real) => self.folder(
                    &parent(path),
                    &real,
                    &real,
                    has_file(&real, LOCK_NAME),
                    true,
                ),
                Err(error) => self.problem(path, SearchError::Metadata(error)),
            }
        } else if is_toolchain_file(path) {
            self.toolchain_files.insert(real, readable(path));
        } else if script::is_script(path) {
            self.script(path, real);
        } else {
            self.lock(path);
        }
    }

    /// A script counts only if the user names it: a walk does not open every `.rs` file.
    fn script(&mut self, path: &Path, real: PathBuf) {
        let script = readable(path);
        self.projects.entry(real).or_insert_with(|| Project {
            folder: parent(&script),
            lock: None,
            script: Some(script),
            toolchain_file: None,
        });
    }

    fn walk(&mut self, path: &Path, real: &Path) {
        let problems_before = self.problems.len();
        // (has manifest, has lock file) by folder.
        let mut folders: BTreeMap<PathBuf, (bool, bool)> = BTreeMap::new();
        let mut configs = vec![CargoConfig::of(path)];
        let is_wanted = |entry: &DirEntry| {
            if entry.file_name() == CARGO_SETTINGS_FOLDER {
                configs.push(CargoConfig::of(&parent(entry.path())));
            }
            entry.depth() == 0
                || !entry.file_type().is_dir()
                || !(is_hidden(entry) || is_cache(entry.path()) || is_copy(entry.path()))
        };
        let mut toolchain_folders = BTreeSet::new();
        for entry in WalkDir::new(path).into_iter().filter_entry(is_wanted) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let at = error.path().unwrap_or(path).to_owned();
                    self.problem(&at, SearchError::ReadFolder(error));
                    continue;
                }
            };
            let is_manifest = entry.file_name() == MANIFEST_NAME;
            if (is_manifest || entry.file_name() == LOCK_NAME) && is_file(&entry) {
                let (manifest, lock) = folders.entry(parent(entry.path())).or_default();
                *(if is_manifest { manifest } else { lock }) = true;
            } else if is_toolchain_file(entry.path()) && is_file(&entry) {
                // A folder may have both names; `toolchain_file` picks the one that counts.
                toolchain_folders.insert(parent(entry.path()));
            }
        }
        // The settings may be found after the folders that they name.
        let sources = configs.iter().flat_map(CargoConfig::source_folders);
        let sources: BTreeSet<PathBuf> = sources
            .filter_map(|folder| folder.canonicalize().ok())
            .filter(|source| !real.starts_with(source))
            .collect();
        // The walk follows no links, so the real path follows from the names.
        let real_folder =
            |folder: &Path| plain(&real.join(folder.strip_prefix(path).unwrap_or(folder)));
        let is_source = |folder: &Path| {
            let real = real_folder(folder);
            sources.iter().any(|source| real.starts_with(source))
        };
        folders.retain(|folder, _| !is_source(folder));
        toolchain_folders.retain(|folder| !is_source(folder));
        let is_bare = folders.is_empty() && toolchain_folders.is_empty();
        if is_bare && self.problems.len() == problems_before {
            self.problem(path, SearchError::Empty);
        }
        for folder in &toolchain_folders {
            self.toolchain_file(folder);
        }
        for (folder, (has_manifest, has_lock)) in folders {
            let real_folder = real_folder(&folder);
            self.folder(&folder, &real_folder, real, has_lock, has_manifest);
        }
    }

    fn folder(
        &mut self,
        folder: &Path,
        real: &Path,
        top: &Path,
        has_lock: bool,
        has_manifest: bool,
    ) {
        // Cargo never reads the lock file of a member, only that of its workspace.
        let has_lock = has_lock && !(has_manifest && self.owner(real) != real);
        if has_manifest {
            self.manifests.insert(real.to_owned(), has_lock);
        }
        if has_lock {
            self.lock(&folder.join(LOCK_NAME));
        } else {
            self.unlocked.push(Unlocked {
                folder: folder.to_owned(),
                real: real.to_owned(),
                top: top.to_owned(),
            });
        }
    }

    fn lock(&mut self, lock: &Path) {
        match lock.canonicalize() {
            Ok(real) => {
                let lock = readable(lock);
                self.projects.entry(real).or_insert_with(|| Project {
                    folder: parent(&lock),
                    lock: Some(lock),
                    script: None,
                    toolchain_file: None,
                });
            }
            Err(error) => self.problem(lock, SearchError::Metadata(error)),
        }
    }

    fn finish(mut self) -> FoundProjects {
        let unlocked = std::mem::take(&mut self.unlocked);
        let mut elsewhere = Vec::new();
        let mut projects: BTreeSet<Project> = BTreeSet::new();
        // Projects of their own first: the user's spelling of a folder is better than one derived from a member.
        for package in unlocked {
            if self.is_covered(&package) {
                continue;
            }
            let owner = self.owner(&package.real);
            if owner == package.real {
                self.project_without_lock(&package.folder, owner);
            } else {
                elsewhere.push(owner);
            }
        }
        for owner in elsewhere {
            if has_file(&owner, LOCK_NAME) {
                self.lock(&owner.join(LOCK_NAME));
            } else {
                self.project_without_lock(&owner.clone(), owner);
            }
        }
        for project in std::mem::take(&mut self.projects).into_values() {
            let real = project.folder.canonicalize();
            let nearest = real.map_or(None, |real| self.nearest(&real));
            let toolchain_file = nearest.map(|nearest| self.toolchain_files[&nearest].clone());
            projects.insert(Project {
                toolchain_file,
                ..project
            });
        }
        let toolchain_files: BTreeSet<PathBuf> = self.toolchain_files.into_values().collect();
        FoundProjects {
            projects: projects.into_iter().collect(),
            toolchain_files: toolchain_files.into_iter().collect(),
            problems: self.problems,
        }
    }

    /// The nearest toolchain file at or above a real folder, by its real path.
    fn nearest(&mut self, folder: &Path) -> Option<PathBuf> {
        if let Some(known) = self.nearest.get(folder) {
            return known.clone();
        }
        let found = match self.toolchain_file(folder) {
            Some(real) => Some(real),
            None => folder.parent().and_then(|above| self.nearest(above)),
        };
        self.nearest.insert(folder.to_owned(), found.clone());
        found
    }

    /// Records the toolchain file that counts in this very folder, and returns its real path.
    fn toolchain_file(&mut self, folder: &Path) -> Option<PathBuf> {
        let name = TOOLCHAIN_FILES
            .into_iter()
            .find(|name| has_file(folder, name))?;
        let file = folder.join(name);
        let real = file.canonicalize().ok()?;
        self.toolchain_files
            .entry(real.clone())
            .or_insert_with(|| readable(&file));
        Some(real)
    }

    fn project_without_lock(&mut self, folder: &Path, real: PathBuf) {
        self.projects.entry(real).or_insert_with(|| Project {
            folder: readable(folder),
            lock: None,
            script: None,
            toolchain_file: None,
        });
    }

    /// Rule 1 of [`find`].
    fn is_covered(&mut self, package: &Unlocked) -> bool {
        if package.real == package.top {
            return false;
        }
        let above = package.real.ancestors().skip(1);
        let within: Vec<PathBuf> = above
            .take_while(|folder| folder.starts_with(&package.top))
            .map(Path::to_owned)
            .collect();
        within.into_iter().any(|folder| {
            self.manifests.get(&folder) == Some(&true)
                && !self
                    .membership(&folder)
                    .root
                    .as_ref()
                    .is_some_and(|workspace| workspace.excludes(&folder, &package.real))
        })
    }

    /// Rule 2 of [`find`]: the real folder that has, or would have, the lock file.
    fn owner(&mut self, real: &Path) -> PathBuf {
        let own = self.membership(real);
        if own.root.is_some() {
            return real.to_owned();
        }
        if let Some(pointer) = &own.pointer {
            // Cargo reports a pointer that leads nowhere.
            return real
                .join(pointer)
                .canonicalize()
                .unwrap_or_else(|_| real.to_owned());
        }
        for folder in real.ancestors().skip(1) {
            // `cargo package` unpacks there, inside the very workspace it must not belong to.
            if folder.ends_with(PACKAGE_FOLDER) {
                break;
            }
            let is_owner = self
                .membership(folder)
                .root
                .as_ref()
                .is_some_and(|workspace| !workspace.excludes(folder, real));
            if is_owner {
                return folder.to_owned();
            }
        }
        real.to_owned()
    }

    /// A manifest that is missing or cannot be read counts as empty; cargo reports it.
    fn membership(&mut self, folder: &Path) -> &Membership {
        self.workspaces
            .entry(folder.to_owned())
            .or_insert_with(|| read_membership(folder))
    }

    fn problem(&mut self, path: &Path, error: SearchError) {
        self.problems.push(SearchProblem {
            path: readable(path),
            error,
        });
    }
}

fn read_membership(folder: &Path) -> Membership {
    let path = folder.join(MANIFEST_NAME);
    let text = files::read_text(&path, MAX_MANIFEST_BYTES).unwrap_or_default();
    let Ok(manifest) = toml::from_str::<RawManifest>(&text) else {
        return Membership::default();
    };
    let pointer = manifest
        .package
        .or(manifest.project)
        .and_then(|package| package.workspace);
    Membership {
        root: manifest.workspace,
        pointer,
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Tells if a folder has copies of packages that are built elsewhere.
fn is_copy(folder: &Path) -> bool {
    folder.ends_with(PACKAGE_FOLDER) || has_file(folder, VENDOR_CHECKSUMS)
}

fn is_cache(folder: &Path) -> bool {
    let tag = folder.join(CACHE_TAG);
    let mut start = [0; CACHE_TAG_SIGNATURE.len()];
    tag.is_file()
        && File::open(tag).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
        && start == *CACHE_TAG_SIGNATURE
}

/// A file, or a link to one. Links to folders are not followed.
fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_file() || (entry.file_type().is_symlink() && entry.path().is_file())
}

/// Tells if this path has the name of a toolchain file.
pub(crate) fn is_toolchain_file(path: &Path) -> bool {
    let name = path.file_name();
    name.is_some_and(|name| TOOLCHAIN_FILES.iter().any(|file| name == *file))
}

fn has_file(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// Removes `.` and `..` from an absolute path without reading the disk, as cargo does (`normalize_path`).
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                plain.push(component)
            }
        }
    }
    plain
}

/// Removes the `./` that a walk from `.` puts in front.
fn readable(path: &Path) -> PathBuf {
    match path.strip_prefix(".") {
        Ok(rest) if !rest.as_os_str().is_empty() => rest.to_owned(),
        Ok(_) | Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "[package]\nname = 'p'\n";
    const WORKSPACE: &str = "[workspace]\nmembers = ['crates/*']\nexclude = ['out', 'both']\n";
    const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# by cargo\n";

    /// Files by relative path, in a temporary folder that no manifest lies above.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        top
    }

    /// Searches `paths` below the tree and compares with `FOLDER` or `FOLDER: LOCK`, all relative to the tree.
    #[track_caller]
    fn check(files: &[(&str, &str)], paths: &[&str], expected: &[&str]) {
        let top = tree(files);
        let paths: Vec<PathBuf> = paths.iter().map(|path| top.path().join(path)).collect();
        let found = find(&paths);
        assert_eq!(texts(&found), [""; 0]);
        assert_eq!(shown(&found, top.path()), expected);
    }

    fn texts(found: &FoundProjects) -> Vec<String> {
        let problems = found.problems.iter();
        problems
            .map(|problem| format!("{}: {}", problem.path.display(), problem.error))
            .collect()
    }

    fn shown(found: &FoundProjects, top: &Path) -> Vec<String> {
        let real = top.canonicalize().unwrap();
        let short = |path: &Path| {
            let path = path
                .strip_prefix(top)
                .or_else(|_| path.strip_prefix(&real))
                .unwrap_or(path);
            path.display().to_string()
        };
        let line = |project: &Project| match (&project.lock, &project.script) {
            (Some(lock), _) => format!("{}: {}", short(&project.folder), short(lock)),
            (None, Some(script)) => format!("script {}", short(script)),
            (None, None) => short(&project.folder),
        };
        found.projects.iter().map(line).collect()
    }

    #[test]
    fn every_lock_file_below_a_folder_is_a_project() {
        check(
            &[
                ("src/b/Cargo.toml", PACKAGE),
                ("src/b/Cargo.lock", ""),
                ("src/a/deep/down/Cargo.lock", ""),
                ("src/b/tools/Cargo.toml", PACKAGE),
                ("src/b/tools/Cargo.lock", ""),
                ("src/readme", ""),
                ("elsewhere/Cargo.lock", ""),
            ],
            &["src"],
            &[
                "src/a/deep/down: src/a/deep/down/Cargo.lock",
                "src/b: src/b/Cargo.lock",
                "src/b/tools: src/b/tools/Cargo.lock",
            ],
        );
    }

    #[test]
    fn a_manifest_alone_is_a_project_without_lock_file() {
        check(
            &[("a/Cargo.toml", PACKAGE), ("b/c/Cargo.toml", "not toml")],
            &[""],
            &["a", "b/c"],
        );
    }

    #[test]
    fn a_lock_file_of_any_name_and_a_manifest_may_be_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("a/Cargo.lock.msrv", ""),
            ("b/Cargo.toml", PACKAGE),
            ("b/below/Cargo.lock", ""),
        ];
        check(&files, &["a/Cargo.lock.msrv"], &["a: a/Cargo.lock.msrv"]);
        check(&files, &["a/Cargo.toml"], &["a: a/Cargo.lock"]);
        check(&files, &["b/Cargo.toml"], &["b"]);
        check(
            &files,
            &["b/Cargo.toml", "a/Cargo.lock", "a/Cargo.lock.msrv"],
            &["a: a/Cargo.lock", "a: a/Cargo.lock.msrv", "b"],
        );
    }

    #[test]
    fn a_script_is_a_project_if_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/tool.rs", "---\n---\n"),
            ("a/run", "#!/usr/bin/env -S cargo -Zscript\n"),
        ];
        check(&files, &[""], &["a"]);
        check(
            &files,
            &["a/tool.rs", "a/run", "a/../a/tool.rs"],
            &["script a/run", "script a/tool.rs"],
        );
    }

    #[test]
    fn a_project_reached_twice_counts_once() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("b/Cargo.toml", PACKAGE),
        ];
        check(
            &files,
            &["", "a", "a/../a/Cargo.lock", "b", "b/Cargo.toml", "./b"],
            &["a: a/Cargo.lock", "b"],
        );
    }

    #[test]
    fn skips_hidden_folders_and_caches_unless_named() {
        let files = [
            (".hidden/Cargo.lock", ""),
            ("out/CACHEDIR.TAG", TAG),
            ("out/deep/Cargo.lock", ""),
            ("fake/CACHEDIR.TAG", "Signature: none"),
            ("fake/Cargo.lock", ""),
        ];
        check(&files, &[""], &["fake: fake/Cargo.lock"]);
        check(
            &files,
            &[".hidden", "out"],
            &[
                ".hidden: .hidden/Cargo.lock",
                "out/deep: out/deep/Cargo.lock",
            ],
        );
    }

    #[test]
    fn vendored_and_packaged_copies_are_no_projects_unless_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            (
                "a/vendor/left/Cargo.toml",
                "[package]\nname = 'left'\n[workspace]\n",
            ),
            ("a/vendor/left/Cargo.lock", ""),
            ("a/vendor/left/.cargo-checksum.json", "{}"),
            ("a/vendor/left/fuzz/Cargo.lock", ""),
            ("a/vendor/left/fuzz/Cargo.toml", PACKAGE),
            ("a/target/package/a-0.1.0/Cargo.toml", PACKAGE),
            ("a/target/package/a-0.1.0/Cargo.lock", ""),
        ];
        check(&files, &[""], &["a: a/Cargo.lock"]);
        check(
            &files,
            &["a/vendor/left", "a/target/package"],
            &[
                "a/target/package/a-0.1.0: a/target/package/a-0.1.0/Cargo.lock",
                "a/vendor/left: a/vendor/left/Cargo.lock",
            ],
        );
    }

    #[test]
    fn source_folders_of_the_settings_are_no_projects_unless_named() {
        let settings =
            "[source.crates-io]\nreplace-with = 'v'\n[source.v]\ndirectory = '../third-party'\n";
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("a/.cargo/config.toml", settings),
            // Without the mark of `cargo vendor`, and outside of the project that uses it.
            ("third-party/left/Cargo.toml", PACKAGE),
            ("third-party/left/Cargo.lock", ""),
            ("third-party/left/rust-toolchain.toml", ""),
            ("third-party-tools/Cargo.lock", ""),
        ];
        check(
            &files,
            &[""],
            &[
                "a: a/Cargo.lock",
                "third-party-tools: third-party-tools/Cargo.lock",
            ],
        );
        let top = tree(&files);
        let found = find(&[top.path().to_owned()]);
        assert!(found.toolchain_files.is_empty(), "{found:?}");
        check(
            &files,
            &["third-party/left"],
            &["third-party/left: third-party/left/Cargo.lock"],
        );
    }

    #[test]
    fn lock_file_of_a_workspace_member_is_not_a_project() {
        let unlocked = [
            ("ws/Cargo.toml", WORKSPACE),
            ("ws/crates/a/Cargo.toml", PACKAGE),
            ("ws/crates/a/Cargo.lock", ""),
            ("ws/out/Cargo.toml", PACKAGE),
            ("ws/out/Cargo.lock", ""),
        ];
        let mut locked = unlocked.to_vec();
        locked.push(("ws/Cargo.lock", ""));
        for path in ["", "ws", "ws/crates/a", "ws/crates/a/Cargo.toml"] {
            let mut with_workspace = vec!["ws"];
            let mut with_lock = vec!["ws: ws/Cargo.lock"];
            if path.len() <= 2 {
                with_workspace.push("ws/out: ws/out/Cargo.lock");
                with_lock.push("ws/out: ws/out/Cargo.lock");
            }
            check(&unlocked, &[path], &with_workspace);
            check(&locked, &[path], &with_lock);
        }
    }

    #[test]
    fn a_member_selects_its_workspace() {
        let unlocked = [
            ("ws/Cargo.toml", WORKSPACE),
            ("ws/crates/a/Cargo.toml", PACKAGE),
            ("ws/crates/b/Cargo.toml", PACKAGE),
        ];
        let mut locked = unlocked.to_vec();
        locked.push(("ws/Cargo.lock", ""));
        for path in [
            "",
            "ws",
            "ws/crates",
            "ws/crates/a",
            "ws/crates/b/Cargo.toml",
        ] {
            check(&unlocked, &[path], &["ws"]);
            check(&locked, &[path], &["ws: ws/Cargo.lock"]);
        }
    }

    #[test]
    fn a_member_that_a_workspace_excludes_is_a_project_of_its_own() {
        let manifest =
            "[workspace]\nmembers = ['crates/*', 'both/in']\nexclude = ['out', 'both']\n";
        let unlocked = [
            ("ws/Cargo.toml", manifest),
            ("ws/out/x/Cargo.toml", PACKAGE),
            ("ws/outside/Cargo.toml", PACKAGE),
            ("ws/both/in/Cargo.toml", PACKAGE),
            ("ws/both/not/Cargo.toml", PACKAGE),
        ];
        check(&unlocked, &[""], &["ws", "ws/both/not", "ws/out/x"]);
        let mut locked = unlocked.to_vec();
        locked.push(("ws/Cargo.lock", ""));
        check(
            &locked,
            &[""],
            &["ws: ws/Cargo.lock", "ws/both/not", "ws/out/x"],
        );
    }

    #[test]
    fn the_workspace_key_points_to_the_root() {
        check(
            &[
                (
                    "ws/root/Cargo.toml",
                    "[workspace]\nmembers = ['../member']\n",
                ),
                (
                    "ws/member/Cargo.toml",
                    "[package]\nname = 'm'\nworkspace = '../root'\n",
                ),
            ],
            &["ws/member"],
            &["ws/root"],
        );
    }

    #[test]
    fn an_unlocked_workspace_inside_an_unlocked_one_is_its_own() {
        check(
            &[
                ("ws/Cargo.toml", WORKSPACE),
                ("ws/fuzz/Cargo.toml", "[package]\nname = 'f'\n[workspace]\n"),
            ],
            &[""],
            &["ws", "ws/fuzz"],
        );
    }

    #[test]
    fn a_locked_project_covers_folders_below_unless_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("a/vendor/x/Cargo.toml", PACKAGE),
            ("a/fuzz/Cargo.toml", "[workspace]\n[package]\nname = 'f'\n"),
            // Without a manifest beside it, a lock file covers nothing.
            ("b/Cargo.lock", ""),
            ("b/x/Cargo.toml", PACKAGE),
        ];
        check(
            &files,
            &[""],
            &["a: a/Cargo.lock", "b: b/Cargo.lock", "b/x"],
        );
        check(&files, &["a/fuzz"], &["a/fuzz"]);
        check(
            &files,
            &["", "a/fuzz/Cargo.toml"],
            &["a: a/Cargo.lock", "a/fuzz", "b: b/Cargo.lock", "b/x"],
        );
    }

    #[cfg(unix)]
    #[test]
    fn follows_links_only_if_named() {
        let top = tree(&[
            ("real/a/Cargo.lock", ""),
            ("real/a/Cargo.toml", PACKAGE),
            ("walked/b/Cargo.toml", PACKAGE),
        ]);
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(top.path().join(target), top.path().join(name)).unwrap();
        };
        link("real/a", "walked/linked");
        link("walked", "walked/b/loop");
        link("real/a/Cargo.lock", "walked/b/Cargo.lock");

        let found = find(&[top.path().join("walked")]);
        assert_eq!(shown(&found, top.path()), ["walked/b: walked/b/Cargo.lock"]);

        // The given name stays; the lock file behind it counts once.
        let found = find(&[top.path().join("walked/linked"), top.path().join("real")]);
        assert_eq!(
            shown(&found, top.path()),
            ["walked/linked: walked/linked/Cargo.lock"]
        );
        assert_eq!(texts(&found), [""; 0]);
    }

    #[test]
    fn a_path_that_cannot_be_searched_is_a_problem_and_others_are_searched() {
        let top = tree(&[("empty/readme", ""), ("a/Cargo.lock", "")]);
        let paths = ["missing", "empty", "a"].map(|path| top.path().join(path));
        let found = find(&paths);
        assert_eq!(shown(&found, top.path()), ["a: a/Cargo.lock"]);
        let expected = [
            (&paths[0], "no such file or folder"),
            (
                &paths[1],
                "no Cargo.lock, Cargo.toml or toolchain file below it",
            ),
        ]
        .map(|(path, text)| format!("{}: {text}", path.display()));
        assert_eq!(texts(&found), expected);
    }

    #[cfg(unix)]
    #[test]
    fn an_unreadable_folder_is_a_problem_and_others_are_searched() {
        use std::os::unix::fs::PermissionsExt;

        let top = tree(&[("a/Cargo.lock", ""), ("shut/Cargo.lock", "")]);
        let shut = top.path().join("shut");
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
        // The super-user may read it anyway.
        let is_readable = fs::read_dir(&shut).is_ok();
        let found = find(&[top.path().to_owned()]);
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();

        if is_readable {
            assert_eq!(
                shown(&found, top.path()),
                ["a: a/Cargo.lock", "shut: shut/Cargo.lock"]
            );
        } else {
            assert_eq!(shown(&found, top.path()), ["a: a/Cargo.lock"]);
            assert_eq!(found.problems.len(), 1);
            assert_eq!(found.problems[0].path, shut);
            let text = found.problems[0].error.to_string();
            assert!(text.starts_with("cannot read folder: "), "{text}");
        }
    }

    #[test]
    fn a_relative_path_stays_relative() {
        // Tests run in the package's own folder.
        let found = find(&[PathBuf::from("."), PathBuf::from("Cargo.toml")]);
        assert_eq!(texts(&found), [""; 0]);
        let here = Project {
            folder: PathBuf::from("."),
            lock: Some(PathBuf::from("Cargo.lock")),
            script: None,
            toolchain_file: found.projects[0].toolchain_file.clone(),
        };
        assert!(found.projects.contains(&here), "{:?}", found.projects);
    }

    #[test]
    fn a_project_has_the_nearest_toolchain_file_and_the_older_name_wins() {
        let top = tree(&[
            ("rust-toolchain.toml", ""),
            ("ws/Cargo.lock", ""),
            ("ws/rust-toolchain", ""),
            ("ws/rust-toolchain.toml", ""),
            ("ws/member/rust-toolchain.toml", ""),
            ("deep/er/Cargo.lock", ""),
            ("ci/image/rust-toolchain.toml", ""),
            ("ci/.hidden/rust-toolchain.toml", ""),
        ]);
        let check = |paths: &[&str], projects: &[&str], files: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| top.path().join(path)).collect();
            let found = find(&paths);
            assert_eq!(texts(&found), [""; 0]);
            let real = top.path().canonicalize().unwrap();
            let short = |path: &Path| {
                let path = path
                    .strip_prefix(top.path())
                    .or_else(|_| path.strip_prefix(&real));
                path.unwrap().display().to_string()
            };
            let nearest: Vec<String> = found
                .projects
                .iter()
                .map(|project| {
                    let file = project.toolchain_file.as_deref().map(short);
                    format!("{}: {}", short(&project.folder), file.unwrap_or_default())
                })
                .collect();
            let all: Vec<_> = found
                .toolchain_files
                .iter()
                .map(|file| short(file))
                .collect();
            assert_eq!(
                (nearest, all),
                (
                    projects.iter().map(ToString::to_string).collect(),
                    files.iter().map(ToString::to_string).collect(),
                )
            );
        };
        check(
            &[""],
            &["deep/er: rust-toolchain.toml", "ws: ws/rust-toolchain"],
            &[
                "ci/image/rust-toolchain.toml",
                "rust-toolchain.toml",
                "ws/member/rust-toolchain.toml",
                "ws/rust-toolchain",
            ],
        );
        check(
            &["deep"],
            &["deep/er: rust-toolchain.toml"],
            &["rust-toolchain.toml"],
        );
        check(&["ci"], &[], &["ci/image/rust-toolchain.toml"]);
        check(
            &["ws/member/rust-toolchain.toml"],
            &[],
            &["ws/member/rust-toolchain.toml"],
        );
    }
}
