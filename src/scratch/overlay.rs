//! The folder in which cargo works: the drawing is in the parent module.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Component, Path, PathBuf},
};

use tempfile::TempDir;

use crate::files::{self, MAX_LOCK_FILE_BYTES, MAX_MANIFEST_BYTES, MAX_SETTINGS_BYTES};

/// Cargo's name for lock files.
pub(super) const CARGO_LOCK: &str = "Cargo.lock";
const CARGO_TOML: &str = "Cargo.toml";
/// Names of cargo's settings file, in its home.
const CARGO_SETTINGS: [&str; 2] = ["config.toml", "config"];
/// Folder within an overlay that stands for the root of the file system.
const TREE: &str = "tree";

/// A folder in which cargo sees the project and its surroundings, and cannot write to the user's files.
pub(super) struct Overlay {
    pub(super) scratch: TempDir,
    /// The root of the mirrored file system.
    tree: PathBuf,
    /// The project within it.
    pub(super) project: PathBuf,
}

impl Overlay {
    /// `manifest` takes the place of the project's own.
    pub(super) fn new(
        folder: &Path,
        original: &Path,
        manifest: Option<&str>,
        lock_text: Option<&str>,
    ) -> io::Result<Self> {
        // Cargo gets its working directory from the operating system, without links.
        let original = original.canonicalize()?;
        if manifest.is_none() {
            // Cargo reads a manifest of any size.
            files::check(&original.join(CARGO_TOML), MAX_MANIFEST_BYTES)?;
        }
        let scratch = tempfile::Builder::new()
            .prefix("project-")
            .tempdir_in(folder.canonicalize()?)?;
        let tree = scratch.path().join(TREE);
        fs::create_dir(&tree)?;
        let project = mirror_path(&original, &tree)?;
        for entry in fs::read_dir(&original)? {
            let name = entry?.file_name();
            let is_replaced = name == CARGO_TOML && manifest.is_some();
            if name != CARGO_LOCK && name != "target" && !is_replaced {
                link(&original.join(&name), &project.join(&name))?;
            }
        }
        if let Some(text) = manifest {
            fs::write(project.join(CARGO_TOML), text)?;
        }
        if let Some(text) = lock_text {
            fs::write(project.join(CARGO_LOCK), text)?;
        }
        Ok(Self {
            scratch,
            tree,
            project,
        })
    }

    /// Links the settings of the user's cargo home into the overlay's, unless cargo finds them above the project.
    pub(super) fn link_settings(&self, home: &Path, original: &Path) -> io::Result<()> {
        let (Ok(home), Ok(original)) = (home.canonicalize(), original.canonicalize()) else {
            // A user without cargo home has no settings in it.
            return Ok(());
        };
        let mut above = original.ancestors();
        if above.any(|folder| folder.join(".cargo") == home) {
            return Ok(());
        }
        for name in CARGO_SETTINGS {
            let (own, settings) = (self.scratch.path().join(name), home.join(name));
            match with_absolute_includes(&settings) {
                Some(text) => fs::write(own, text)?,
                None if settings.is_file() => link(&settings, &own)?,
                None => {}
            }
        }
        Ok(())
    }

    pub(super) fn set_environment(
        &self,
        command: &mut std::process::Command,
        mut exempt: OsString,
    ) {
        command
            // A home of its own leaves the user's caches unchanged. Right above the tree, it also ends cargo's search
            // for a workspace (`find_root_iter` in `src/cargo/core/workspace.rs`).
            .env("CARGO_HOME", self.scratch.path())
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .env("RUSTUP_AUTO_INSTALL", "0")
            // rustup's messages end in a backtrace otherwise.
            .env_remove("RUST_BACKTRACE");
        // No proxy can reach the larder on this machine. The variable also overrides proxies in cargo's and git's
        // settings.
        if !exempt.is_empty() {
            exempt.push(",");
        }
        exempt.push("127.0.0.1");
        command.env("no_proxy", exempt);
    }

    /// Reads the lock file, which cargo writes at the root of the workspace: the project or a folder above it.
    pub(super) fn lock_text(self) -> io::Result<String> {
        let folders = self
            .project
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.tree));
        let locks = folders.map(|folder| folder.join(CARGO_LOCK));
        let lock = locks.into_iter().find(|lock| lock.is_file());
        let lock = lock
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cargo wrote no lock file"))?;
        let text = files::read_text(&lock, MAX_LOCK_FILE_BYTES)?;
        self.remove()?;
        Ok(text)
    }

    pub(super) fn remove(self) -> io::Result<()> {
        self.scratch.close()
    }

    pub(super) fn with_user_paths(&self, text: &str) -> String {
        text.replace(&*self.tree.to_string_lossy(), "")
    }
}

/// The text of a settings file that includes others, with their paths made absolute: beside a link to the file they
/// would not be found. `None` if it includes none.
fn with_absolute_includes(settings: &Path) -> Option<String> {
    let text = files::read_text(settings, MAX_SETTINGS_BYTES).ok()?;
    let mut document: toml_edit::DocumentMut = text.parse().ok()?;
    let folder = settings.parent()?;
    let absolute = |path: &str| folder.join(path).display().to_string();
    let list = document.get_mut("include")?;
    if let Some(tables) = list.as_array_of_tables_mut() {
        for table in tables.iter_mut() {
            let path = table.get("path")?.as_str().map(absolute)?;
            table["path"] = toml_edit::value(path);
        }
    }
    for entry in list
        .as_array_mut()
        .into_iter()
        .flat_map(|list| list.iter_mut())
    {
        if let Some(path) = entry.as_str().map(absolute) {
            *entry = path.into();
        } else if let Some(path) = entry
            .as_inline_table_mut()
            .and_then(|table| table.get_mut("path"))
        {
            *path = path.as_str().map(absolute)?.into();
        }
    }
    Some(document.to_string())
}

/// Creates a real folder for each component of `original`, and a link for every other entry of these folders. Lock
/// files are not linked: cargo would write through the link.
fn mirror_path(original: &Path, tree: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    let mut mirrored = tree.to_owned();
    for component in original.components() {
        if let Component::Normal(next) = component {
            link_siblings(&real, &mirrored, next)?;
            mirrored.push(next);
            fs::create_dir(&mirrored)?;
        }
        real.push(component);
    }
    Ok(mirrored)
}

fn link_siblings(real: &Path, mirrored: &Path, next: &OsStr) -> io::Result<()> {
    // The user may lack permission to list a folder above the project; cargo then needs nothing in it.
    let Ok(entries) = fs::read_dir(real) else {
        return Ok(());
    };
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name();
        if name != next && name != CARGO_LOCK {
            link(&real.join(&name), &mirrored.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link(original: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(original, link)
}

#[cfg(windows)]
fn link(original: &Path, link: &Path) -> io::Result<()> {
    if original.is_dir() {
        std::os::windows::fs::symlink_dir(original, link)
    } else {
        std::os::windows::fs::symlink_file(original, link)
    }
}
