//! The folder in which cargo works: the drawing is in the parent module.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Component, Path, PathBuf},
};

use tempfile::TempDir;
use toml_edit::{ArrayOfTables, Item, TableLike};

use crate::cargo_config::SETTINGS_FILES;
use crate::files::{self, MAX_LOCK_FILE_BYTES, MAX_MANIFEST_BYTES, MAX_SETTINGS_BYTES};

/// Cargo's name for lock files.
pub(super) const CARGO_LOCK: &str = "Cargo.lock";
const CARGO_TOML: &str = "Cargo.toml";
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
            if name != CARGO_LOCK && !is_replaced {
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
        for name in SETTINGS_FILES {
            let (own, settings) = (self.scratch.path().join(name), home.join(name));
            match with_absolute_paths(&settings) {
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
            // The project's own `target` is linked, since packages may lie in it.
            .env("CARGO_TARGET_DIR", self.scratch.path().join("target"))
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

/// The text of a settings file with absolute paths in place of relative ones: cargo would look for these from the link
/// to the file. `None` if nothing changes.
fn with_absolute_paths(settings: &Path) -> Option<String> {
    let text = files::read_text(settings, MAX_SETTINGS_BYTES).ok()?;
    let mut document: toml_edit::DocumentMut = text.parse().ok()?;
    let folder = settings.parent()?;
    // Paths but those of included files start from the folder with cargo's home.
    let base = folder.parent()?;
    for (key, start) in [("include", folder), ("paths", base)] {
        if let Some(list) = document.get_mut(key) {
            make_list_absolute(list, start);
        }
    }
    let tables: [(_, _, &[&str]); 2] = [
        ("patch", 2, &["path"]),
        ("source", 1, &["directory", "local-registry"]),
    ];
    for (name, depth, keys) in tables {
        let table = document.get_mut(name).and_then(Item::as_table_like_mut);
        if let Some(table) = table {
            make_table_absolute(table, depth, keys, base);
        }
    }
    let absolute = document.to_string();
    (absolute != text).then_some(absolute)
}

/// Makes paths and tables with a `path` in a list absolute.
fn make_list_absolute(list: &mut Item, start: &Path) {
    for table in list
        .as_array_of_tables_mut()
        .into_iter()
        .flat_map(ArrayOfTables::iter_mut)
    {
        make_table_absolute(table, 0, &["path"], start);
    }
    for entry in list
        .as_array_mut()
        .into_iter()
        .flat_map(|list| list.iter_mut())
    {
        if let Some(path) = entry.as_str() {
            *entry = start.join(path).display().to_string().into();
        } else if let Some(table) = entry.as_inline_table_mut() {
            make_table_absolute(table, 0, &["path"], start);
        }
    }
}

/// Makes the values of `keys` absolute in the tables that are `depth` levels below this one.
fn make_table_absolute(table: &mut dyn TableLike, depth: usize, keys: &[&str], start: &Path) {
    if let Some(depth) = depth.checked_sub(1) {
        for (_, item) in table.iter_mut() {
            if let Some(inner) = item.as_table_like_mut() {
                make_table_absolute(inner, depth, keys, start);
            }
        }
        return;
    }
    for key in keys {
        if let Some(path) = table.get(key).and_then(Item::as_str) {
            let path = start.join(path).display().to_string();
            table.insert(key, toml_edit::value(path));
        }
    }
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

fn link(original: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(original, link)
}
