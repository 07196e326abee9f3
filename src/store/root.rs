//! Notices that the folder of the store was replaced while larder runs.
//!
//! ```text
//!   the folder now                                       larder
//!   the same (device and inode)                          goes on
//!   gone                                                 makes a new one when it stores something
//!   another folder, which only this user may change      uses that one: the user has deleted the store
//!   a link to another folder, or one open to others      writes nothing there until it is restarted
//! ```
//!
//! Builds run the code in the store, so larder refuses a folder that others may write to at the start. This is the same
//! check for the time after it. [`Root::check`] runs before each write; it is a pair of `stat` calls.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::error::UnusableFolder;

/// The folders of a store: the one that the user chose, and the one of the format below it.
#[derive(Debug)]
pub(super) struct Root {
    folders: [PathBuf; 2],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The folders that larder uses; `None` for one that was not there yet.
    known: [Option<FolderIdentity>; 2],
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FolderIdentity {
    device: u64,
    inode: u64,
}

impl Root {
    pub(super) fn new(folder: &Path, top: &Path) -> Self {
        Self {
            folders: [folder.to_owned(), top.to_owned()],
            state: Mutex::default(),
        }
    }

    /// Checks that the folders are the known ones, or others that may be used instead. `judge` refuses those that
    /// others may write to.
    ///
    /// # Errors
    /// `ReadOnlyFilesystem`, with the reason in words.
    pub(super) fn check(
        &self,
        judge: impl FnOnce() -> Result<(), UnusableFolder>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        let found = [0, 1].map(|at| FolderIdentity::of(&self.folders[at]));
        let is_new = |at: usize| found[at].is_some() && found[at] != state.known[at];
        let link = [0, 1].into_iter().find(|at| {
            let is_replaced = is_new(*at) && state.known[*at].is_some();
            is_replaced && fs::symlink_metadata(&self.folders[*at]).is_ok_and(|it| it.is_symlink())
        });
        let problem = if let Some(at) = link {
            let folder = self.folders[at].display();
            Some(format!("{folder} was replaced by a link to another folder"))
        } else if [0, 1].into_iter().any(is_new) {
            judge().err().map(|reason| {
                let folder = self.folders[0].display();
                format!("{folder} was replaced: {reason}")
            })
        } else {
            None
        };
        if problem != state.problem {
            match &problem {
                Some(problem) => {
                    warn!(%problem, "the store is not written to any more until it is back or larder restarts");
                }
                None => info!("the store is written to again"),
            }
            state.problem.clone_from(&problem);
        }
        match problem {
            None => {
                for (known, found) in state.known.iter_mut().zip(found) {
                    *known = found.or(*known);
                }
                Ok(())
            }
            Some(problem) => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, problem)),
        }
    }

    /// The reason why nothing is written, as of the last check.
    pub(super) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }
}

impl FolderIdentity {
    /// The folder at `path`, or the one that a link there leads to.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn root(folder: &Path) -> Root {
        Root::new(folder, &folder.join("v1"))
    }

    #[test]
    fn folder_that_becomes_a_link_is_refused_until_it_is_back() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, away, other) = (
            parent.path().join("store"),
            parent.path().join("away"),
            parent.path().join("other"),
        );
        fs::create_dir_all(folder.join("v1")).unwrap();
        fs::create_dir(&other).unwrap();
        let root = root(&folder);
        root.check(|| Ok(())).unwrap();
        root.check(|| panic!("the folder is known")).unwrap();
        fs::rename(&folder, &away).unwrap();
        symlink(&other, &folder).unwrap();
        let refused = root.check(|| Ok(())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let problem = root.problem().unwrap();
        assert!(
            problem.ends_with("was replaced by a link to another folder"),
            "{problem}"
        );
        fs::remove_file(&folder).unwrap();
        // A link to the same folder changes nothing.
        symlink(&away, &folder).unwrap();
        root.check(|| Ok(())).unwrap();
        assert_eq!(root.problem(), None);
    }

    #[test]
    fn folder_made_anew_is_used_if_only_this_user_may_change_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("store");
        let root = root(&folder);
        root.check(|| Ok(())).unwrap();
        fs::create_dir(&folder).unwrap();
        root.check(|| Ok(())).unwrap();
        fs::rename(&folder, parent.path().join("away")).unwrap();
        root.check(|| panic!("nothing to judge")).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let judge = || Err(UnusableFolder::WritableByOthers { mode: 0o777 });
        let refused = root.check(judge).unwrap_err().to_string();
        assert!(refused.contains("other users may write to it"), "{refused}");
        root.check(|| Ok(())).unwrap();
        assert_eq!(root.problem(), None);
    }
}
