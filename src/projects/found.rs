//! The result of a search: projects, toolchain files, and what went wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::paths::{LOCK_NAME, MANIFEST_NAME};

/// The result of [`find`](super::find).
#[derive(Debug, Default)]
pub struct FoundProjects {
    /// The projects, sorted by folder and distinct, however many paths lead to one.
    pub projects: Vec<Project>,
    /// The toolchain files that rustup would read in these projects or in any other folder below the paths, distinct.
    pub toolchain_files: Vec<PathBuf>,
    /// The manifests of packages that cargo would make a lock file for, inside a project that has one. They are not
    /// part of that project, and often no more than fixtures and templates.
    pub not_covered: Vec<PathBuf>,
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
    /// The members that the user named, and those found by the search that have settings of their own.
    pub members: Vec<Member>,
}

/// A folder of a workspace's member from which the user may run cargo. Settings of cargo and rustup in it, or between it
/// and the root, count only there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The folder.
    pub folder: PathBuf,
    /// The toolchain file that rustup would read in it.
    pub toolchain_file: Option<PathBuf>,
}

impl Project {
    /// The project as cargo and rustup see it in each of [`Project::members`].
    pub fn in_members(&self) -> impl Iterator<Item = Self> {
        let members = self.members.iter();
        members.map(|member| Self {
            folder: member.folder.clone(),
            toolchain_file: member.toolchain_file.clone(),
            members: Vec::new(),
            ..self.clone()
        })
    }
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
    #[error("no {LOCK_NAME}, {MANIFEST_NAME} or toolchain file below it{}", project_above(.above.as_deref()))]
    Empty {
        /// The folder of the project that the path is part of.
        above: Option<PathBuf>,
    },
}

fn project_above(folder: Option<&Path>) -> String {
    let hint = |folder: &Path| format!("; it is part of the project {}", folder.display());
    folder.map(hint).unwrap_or_default()
}

/// The operating system's error, without the path that `walkdir` adds.
fn walk_cause(error: &walkdir::Error) -> String {
    let cause = error.io_error().map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}
