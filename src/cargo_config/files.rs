//! The settings files that cargo reads for one folder, with the files that they include.
//!
//! ```text
//!  .cargo/config.toml    include = ["a.toml", "b.toml"]     its own settings win
//!      b.toml            include = ["deep.toml"]            then those of the last included file
//!          deep.toml                                        and of the files that this one includes
//!      a.toml                                               last, the first included file
//! ```
//!
//! Cargo follows `include` since 1.94 and ignores it before (`load_includes` in `src/cargo/util/context/mod.rs`). A
//! path is relative to the file that includes it. A relative path in an included file starts from the folder above that
//! file's own folder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use toml::Value;

use crate::files::{self, MAX_SETTINGS_BYTES};

/// Characters of patterns and templates, which cargo refuses in the path of an included file.
const REFUSED_CHARACTERS: [char; 5] = ['*', '?', '[', '{', '}'];

/// Names of cargo's settings file in a folder, the preferred one first (`get_file_path` in
/// `src/cargo/util/context/mod.rs`).
pub const SETTINGS_FILES: [&str; 2] = ["config", "config.toml"];

/// The minor version of the first cargo 1.x that follows `include`.
const FIRST_MINOR_WITH_INCLUDE: u64 = 94;

/// The treatment of the `include` key, which depends on the version of cargo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Includes {
    /// The included files are read.
    #[default]
    Followed,
    /// A list has no effect. Anything else counts as refused, as by cargo 1.93; older versions ignore that as well.
    Ignored,
}

impl Includes {
    /// The treatment by cargo 1.x with this minor version.
    pub fn by_cargo(minor: u64) -> Self {
        match minor < FIRST_MINOR_WITH_INCLUDE {
            true => Self::Ignored,
            false => Self::Followed,
        }
    }
}

/// A settings file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    /// The file.
    pub(super) path: PathBuf,
    /// The folder that relative paths start from: the one with the folder of the file.
    pub(super) base: PathBuf,
    pub(super) settings: toml::Table,
}

/// A settings file that cargo refuses, so that every command of it fails. The text follows the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub why: String,
}

/// Reads the settings in a `.cargo` folder, or in cargo's home, the file that wins first. Blocking.
///
/// # Errors
/// Cargo refuses a file. The files before it are in the list.
pub(super) fn read_folder(
    folder: &Path,
    includes: Includes,
    found: &mut Vec<ConfigFile>,
) -> Result<(), ConfigFault> {
    let mut paths = SETTINGS_FILES.map(|name| folder.join(name)).into_iter();
    match paths.find(|path| path.is_file()) {
        Some(path) => read_file(&path, includes, &mut BTreeSet::new(), found),
        None => Ok(()),
    }
}

/// The settings of the files that this one includes, merged. Blocking. Empty if cargo refuses one.
pub fn included_settings(path: &Path) -> toml::Table {
    let mut found = Vec::new();
    let mut merged = toml::Table::new();
    let followed = Includes::Followed;
    if read_file(path, followed, &mut BTreeSet::new(), &mut found).is_ok() {
        for file in found.into_iter().skip(1) {
            merge(&mut merged, file.settings);
        }
    }
    merged
}

/// Adds what `winner` lacks.
pub(super) fn merge(winner: &mut toml::Table, other: toml::Table) {
    for (key, value) in other {
        match (winner.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (Some(_), _) => {}
            (None, value) => {
                winner.insert(key, value);
            }
        }
    }
}

/// The value at `keys` in the nearest of these files that has it, and that file.
pub(super) fn text_with_file<'a>(
    files: &'a [ConfigFile],
    keys: &[&str],
) -> Option<(&'a str, &'a ConfigFile)> {
    files.iter().find_map(|file| {
        let (last, tables) = keys.split_last()?;
        let mut table = &file.settings;
        for key in tables {
            table = table.get(*key)?.as_table()?;
        }
        Some((table.get(*last)?.as_str()?, file))
    })
}

fn read_file(
    path: &Path,
    includes: Includes,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<ConfigFile>,
) -> Result<(), ConfigFault> {
    let fault = |why: String| ConfigFault {
        path: path.to_owned(),
        why,
    };
    if !seen.insert(path.to_owned()) {
        return Err(fault("is included twice, which cargo refuses".to_owned()));
    }
    let text = files::read_text(path, MAX_SETTINGS_BYTES);
    let text = text.map_err(|error| fault(format!("cannot be read: {error}")))?;
    let settings = toml::from_str::<toml::Table>(&text);
    let settings =
        settings.map_err(|error| fault(format!("is not valid TOML: {}", error.message())))?;
    let list = include_list(&settings).map_err(fault)?;
    let included = match includes {
        Includes::Followed => included_paths(path, list).map_err(fault)?,
        Includes::Ignored => Vec::new(),
    };
    // A path that cargo forms from the parents of the file, without looking at links.
    let base = path
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"));
    found.push(ConfigFile {
        path: path.to_owned(),
        base: base.to_owned(),
        settings,
    });
    for path in included.iter().rev() {
        read_file(path, includes, seen, found)?;
    }
    Ok(())
}

/// The entries of the `include` key. A file without it has none.
fn include_list(settings: &toml::Table) -> Result<&[Value], String> {
    match settings.get("include") {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err("has an `include` that is no list".to_owned()),
    }
}

/// The files that a settings file includes, the one that loses first; without optional ones that do not exist.
fn included_paths(path: &Path, list: &[Value]) -> Result<Vec<PathBuf>, String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut paths = Vec::new();
    for entry in list {
        let table = entry.as_table();
        let name = match table {
            Some(table) => table.get("path").and_then(Value::as_str),
            None => entry.as_str(),
        };
        let optional = table.and_then(|table| table.get("optional"));
        let is_optional = optional.map_or(Some(false), Value::as_bool);
        let (Some(name), Some(is_optional)) = (name, is_optional) else {
            return Err(format!(
                "has an `include` that cargo does not understand: {entry}"
            ));
        };
        let is_toml = Path::new(name).extension().is_some_and(|end| end == "toml");
        if !is_toml || name.contains(REFUSED_CHARACTERS) {
            return Err(format!(
                "includes `{name}`: cargo takes only names of single files that end in `.toml`"
            ));
        }
        let included = folder.join(name);
        if is_optional && !included.exists() {
            continue;
        }
        if !included.exists() {
            return Err(format!(
                "includes {}, which does not exist",
                included.display()
            ));
        }
        paths.push(included);
    }
    Ok(paths)
}
