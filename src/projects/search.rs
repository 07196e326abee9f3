//! The search itself: walks folders, and finds the owner of each manifest.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

use super::{
    found::{FoundProjects, Member, Project, SearchError, SearchProblem},
    paths::{
        CARGO_SETTINGS_FOLDER, LOCK_NAME, MANIFEST_NAME, PACKAGE_FOLDER, TOOLCHAIN_FILES, has_file,
        is_cache, is_copy, is_file, is_hidden, is_in_the_way, is_toolchain_file, parent, plain,
        readable,
    },
    workspace::{Membership, read_membership},
};
use crate::{
    cargo_config::{CargoConfig, SETTINGS_FILES},
    script,
};

#[derive(Default)]
pub(super) struct Search {
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
    /// The folders of packages that rule 1 leaves to the user, by real folder.
    not_covered: BTreeMap<PathBuf, PathBuf>,
    /// By the real folder of a project: those that path dependencies in it lead to.
    dependencies: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// Manifests that were read, by real folder. In a tree full of packages the same few are needed many times.
    workspaces: BTreeMap<PathBuf, Membership>,
    /// Folders of members by the real folder of their workspace, then by their own.
    members: BTreeMap<PathBuf, BTreeMap<PathBuf, PathBuf>>,
    /// By real folder: true if it has settings of cargo or a toolchain file.
    settings: BTreeMap<PathBuf, bool>,
}

/// A folder with a manifest and no lock file.
struct Unlocked {
    folder: PathBuf,
    real: PathBuf,
    /// The real path of the walk that found it; the folder itself if the user named it.
    top: PathBuf,
}

/// The relation of a package without lock file to the projects above it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coverage {
    /// A lock file above covers it.
    Full,
    /// Cargo would make a lock file for it, inside a project that has one.
    Doubtful,
    /// No project lies above it.
    None,
}

impl Search {
    pub(super) fn path(&mut self, path: &Path) {
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
            self.listed_members(&parent(path));
        }
    }

    /// Records the listed members of the workspace with a lock file that the user named: no walk finds them.
    fn listed_members(&mut self, folder: &Path) {
        let Ok(owner) = folder.canonicalize() else {
            return;
        };
        let workspace = self.membership(&owner).root.clone();
        let folders = workspace.map(|workspace| workspace.member_folders(&owner));
        for folder in folders.unwrap_or_default() {
            let Ok(real) = folder.canonicalize() else {
                continue;
            };
            if has_file(&real, MANIFEST_NAME) && self.owner(&real) == owner {
                let top = owner.clone();
                self.member(&Unlocked { folder, real, top }, &owner);
            }
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
            members: Vec::new(),
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
            let mut above = real.ancestors().skip(1);
            let above = above.find(|folder| has_file(folder, MANIFEST_NAME));
            let above = above.map(Path::to_owned);
            self.problem(path, SearchError::Empty { above });
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
                    members: Vec::new(),
                });
            }
            Err(error) => self.problem(lock, SearchError::Metadata(error)),
        }
    }

    pub(super) fn finish(mut self) -> FoundProjects {
        let unlocked = std::mem::take(&mut self.unlocked);
        let mut elsewhere = Vec::new();
        let mut projects: BTreeSet<Project> = BTreeSet::new();
        // Projects of their own first: the user's spelling of a folder is better than one derived from a member.
        for package in unlocked {
            let coverage = self.coverage(&package);
            let is_covered = coverage != Coverage::None;
            if coverage == Coverage::Doubtful && self.owner(&package.real) == package.real {
                let Unlocked { folder, real, .. } = package;
                self.not_covered.insert(real, folder);
                continue;
            }
            if is_covered && !self.has_settings_below(&package.real, &package.top) {
                continue;
            }
            let owner = self.owner(&package.real);
            self.member(&package, &owner);
            if is_covered {
                continue;
            }
            let lock = package.folder.join(LOCK_NAME);
            if owner == package.real && is_in_the_way(&lock) {
                // Cargo fails on it, and makes no lock file.
                self.lock(&lock);
            } else if owner == package.real {
                self.project_without_lock(&package.folder, owner);
            } else {
                elsewhere.push(owner);
            }
        }
        for owner in elsewhere {
            let lock = owner.join(LOCK_NAME);
            if lock.exists() || is_in_the_way(&lock) {
                self.lock(&lock);
            } else {
                self.project_without_lock(&owner.clone(), owner);
            }
        }
        self.not_covered
            .retain(|real, _| !self.projects.contains_key(real));
        for project in std::mem::take(&mut self.projects).into_values() {
            let real = project.folder.canonicalize().ok();
            let members = real.as_ref().and_then(|real| self.members.remove(real));
            let members = members.into_iter().flatten();
            let members = members.map(|(real, folder)| Member {
                folder: readable(&folder),
                toolchain_file: self.nearest_file(&real),
            });
            projects.insert(Project {
                members: members.collect(),
                toolchain_file: real.and_then(|real| self.nearest_file(&real)),
                ..project
            });
        }
        let toolchain_files: BTreeSet<PathBuf> = self.toolchain_files.into_values().collect();
        let not_covered = self.not_covered.into_values();
        FoundProjects {
            not_covered: not_covered
                .map(|folder| readable(&folder.join(MANIFEST_NAME)))
                .collect(),
            projects: projects.into_iter().collect(),
            toolchain_files: toolchain_files.into_iter().collect(),
            problems: self.problems,
        }
    }

    /// Records a package of a workspace elsewhere if cargo or rustup may behave differently in its folder.
    fn member(&mut self, package: &Unlocked, owner: &Path) {
        let Unlocked { folder, real, top } = package;
        if real == owner {
            return;
        }
        // The settings of a root that does not lie above the package do not count in its folder.
        let is_special =
            real == top || !real.starts_with(owner) || self.has_settings_below(real, owner);
        if is_special {
            let members = self.members.entry(owner.to_owned()).or_default();
            members.insert(real.clone(), folder.clone());
        }
    }

    /// Tells if a real folder, or one between it and `top`, has settings.
    fn has_settings_below(&mut self, real: &Path, top: &Path) -> bool {
        let folders = real.ancestors().take_while(|folder| *folder != top);
        let folders: Vec<_> = folders.collect();
        folders.into_iter().any(|folder| self.has_settings(folder))
    }

    /// Tells if a real folder has settings of cargo or a toolchain file.
    fn has_settings(&mut self, real: &Path) -> bool {
        let known = self.settings.entry(real.to_owned());
        *known.or_insert_with(|| {
            let settings = real.join(CARGO_SETTINGS_FOLDER);
            let mut settings_files = SETTINGS_FILES.iter();
            let mut toolchain_files = TOOLCHAIN_FILES.iter();
            settings_files.any(|name| has_file(&settings, name))
                || toolchain_files.any(|name| has_file(real, name))
        })
    }

    /// The nearest toolchain file at or above a real folder, spelled as the user would.
    fn nearest_file(&mut self, real: &Path) -> Option<PathBuf> {
        let nearest = self.nearest(real)?;
        self.toolchain_files.get(&nearest).cloned()
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
            members: Vec::new(),
        });
    }

    /// Rule 1 of [`find`](super::find).
    fn coverage(&mut self, package: &Unlocked) -> Coverage {
        if package.real == package.top {
            return Coverage::None;
        }
        let above = package.real.ancestors().skip(1);
        let within: Vec<PathBuf> = above
            .take_while(|folder| folder.starts_with(&package.top))
            .filter(|folder| self.manifests.get(*folder) == Some(&true))
            .map(Path::to_owned)
            .collect();
        let is_root = self.membership(&package.real).root.is_some();
        let mut coverage = Coverage::None;
        for folder in within {
            let workspace = &self.membership(&folder).root;
            let is_excluded = workspace
                .as_ref()
                .is_some_and(|workspace| workspace.excludes(&folder, &package.real));
            if is_excluded {
                continue;
            }
            let is_member = workspace.is_some() && !is_root;
            if is_member || self.dependencies(&folder).contains(&package.real) {
                return Coverage::Full;
            }
            coverage = Coverage::Doubtful;
        }
        coverage
    }

    /// The real folders that path dependencies of the project in `folder` lead to, from any package of its workspace.
    fn dependencies(&mut self, folder: &Path) -> &BTreeSet<PathBuf> {
        if !self.dependencies.contains_key(folder) {
            let mut queue = vec![folder.to_owned()];
            if self.membership(folder).root.is_some() {
                let below = self.manifests.keys();
                let below: Vec<_> = below.filter(|real| real.starts_with(folder)).collect();
                queue.extend(below.into_iter().cloned());
                queue.retain(|real| real == folder || self.membership(real).root.is_none());
            }
            let mut found = BTreeSet::new();
            while let Some(package) = queue.pop() {
                for path in self.membership(&package).paths.clone() {
                    let path = plain(&package.join(path));
                    let real = path.canonicalize().unwrap_or(path);
                    if found.insert(real.clone()) {
                        queue.push(real);
                    }
                }
            }
            self.dependencies.insert(folder.to_owned(), found);
        }
        &self.dependencies[folder]
    }

    /// Rule 2 of [`find`](super::find): the real folder that has, or would have, the lock file.
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
