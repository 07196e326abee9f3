//! Faults of the file system below the store, which begin and end while larder runs, and a record of its calls.
//!
//! ```text
//!   larder ── read, write, rename, ... ──> kernel ── asks ──> faults.c ── reads ──> control, appends to log
//!                                             └── passes, or fails with the chosen error
//! ```
//!
//! The built larder is not changed: faults.c is compiled by the test, starts larder, and decides about its system
//! calls. Linux only.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::larder::Site;

/// The compiled faults.c.
static PROGRAM: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let source = folder.path().join("faults.c");
    let program = folder.path().join("faults");
    fs::write(&source, include_str!("faults.c")).expect("the temporary folder is writable");
    let compiled = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .output();
    let compiled = compiled.expect("there is a C compiler, which larder's build needs too");
    assert!(compiled.status.success(), "{compiled:?}");
    (folder, program)
});

/// An operation on a file that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Syncing a file or a folder.
    Sync,
    /// Giving a file another name. The path is the new one.
    Rename,
    /// Listing a folder.
    List,
    /// Creating a folder, or opening a file that is created if it does not exist.
    Create,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::List => "list",
            Self::Create => "create",
        }
    }
}

/// The faults of one site.
#[derive(Debug)]
pub struct Faults {
    folder: TempDir,
    store: PathBuf,
}

impl Faults {
    /// Starts all commands of `site` so that operations in its store can fail.
    ///
    /// # Panics
    /// If there is no C compiler.
    #[track_caller]
    pub fn of(site: Site) -> (Self, Site) {
        let faults = Self {
            folder: TempDir::new().expect("the temporary folder is writable"),
            store: site.store().to_owned(),
        };
        let words = [
            &PROGRAM.1,
            &faults.control(),
            &faults.record(),
            &faults.store,
        ];
        let words = words.map(|path| format!("'{}'", path.display()));
        let site = site.shell_prelude(&format!("exec {} \"$0\" \"$@\"", words.join(" ")));
        faults.end();
        (faults, site)
    }

    /// From now on, these operations on paths in the store that begin with `below` fail with this error number.
    #[track_caller]
    pub fn begin(&self, operation: Operation, error: i32, below: &str) {
        let path = self.store.join(below);
        self.set(&format!("{} {error} {}", operation.name(), path.display()));
    }

    /// From now on, no operation fails.
    #[track_caller]
    pub fn end(&self) {
        self.set("");
    }

    /// The operations in the store so far, with the paths below it. The record begins with the first command.
    #[track_caller]
    pub fn operations(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.record()).expect("a command was started");
        let store = format!("{}/", self.store.display());
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let below = |path: &str| path.strip_prefix(&store).unwrap_or_default().to_owned();
        lines
            .map(|(name, path)| (name.to_owned(), below(path)))
            .collect()
    }

    /// Replaced by a rename, so that the reader never sees a part.
    #[track_caller]
    fn set(&self, text: &str) {
        let next = self.folder.path().join("next");
        let written = fs::write(&next, text).and_then(|()| fs::rename(&next, self.control()));
        written.expect("the temporary folder is writable");
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }
}
