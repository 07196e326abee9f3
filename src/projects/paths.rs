//! Names of the files that matter, and questions about single paths.

use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use walkdir::DirEntry;

pub(super) const MANIFEST_NAME: &str = "Cargo.toml";
pub(super) const LOCK_NAME: &str = "Cargo.lock";
/// Names of toolchain files in rustup's order: the first one that exists counts (rustup,
/// `find_override_from_dir_walk` in `src/config.rs`).
pub(super) const TOOLCHAIN_FILES: [&str; 2] = ["rust-toolchain", "rust-toolchain.toml"];
const CACHE_TAG: &str = "CACHEDIR.TAG";
/// The file that `cargo vendor` puts beside each copied `Cargo.toml`. Cargo requires it in directory sources.
const VENDOR_CHECKSUMS: &str = ".cargo-checksum.json";
/// The folder of cargo's settings.
pub(super) const CARGO_SETTINGS_FOLDER: &str = ".cargo";
/// The folder in which `cargo package` unpacks what it packed.
pub(super) const PACKAGE_FOLDER: &str = "target/package";
/// Start of a valid `CACHEDIR.TAG`, by the Cache Directory Tagging Specification. Cargo puts one into `target` and
/// into its home.
const CACHE_TAG_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

pub(super) fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Tells if a folder has copies of packages that are built elsewhere.
pub(super) fn is_copy(folder: &Path) -> bool {
    folder.ends_with(PACKAGE_FOLDER) || has_file(folder, VENDOR_CHECKSUMS)
}

pub(super) fn is_cache(folder: &Path) -> bool {
    let tag = folder.join(CACHE_TAG);
    let mut start = [0; CACHE_TAG_SIGNATURE.len()];
    tag.is_file()
        && File::open(tag).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
        && start == *CACHE_TAG_SIGNATURE
}

/// A file, or a link to one. Links to folders are not followed.
pub(super) fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_file() || (entry.file_type().is_symlink() && entry.path().is_file())
}

/// Tells if cargo can neither read nor create a lock file at this path: a folder has its name, or a link that leads into
/// a folder that does not exist.
pub(super) fn is_in_the_way(lock: &Path) -> bool {
    match lock.read_link() {
        Ok(target) if !lock.exists() => {
            let target = parent(lock).join(target);
            target.is_symlink() || !parent(&target).is_dir()
        }
        Ok(_) | Err(_) => lock.exists(),
    }
}

/// Tells if this path has the name of a toolchain file.
pub(crate) fn is_toolchain_file(path: &Path) -> bool {
    let name = path.file_name();
    name.is_some_and(|name| TOOLCHAIN_FILES.iter().any(|file| name == *file))
}

/// The toolchain file that rustup would read in a folder: the nearest, up to the root of the file system.
pub(crate) fn nearest_toolchain_file(folder: &Path) -> Option<PathBuf> {
    let real = folder.canonicalize().ok()?;
    let mut files = real
        .ancestors()
        .flat_map(|above| TOOLCHAIN_FILES.iter().map(|name| above.join(name)));
    files.find(|file| file.is_file())
}

pub(super) fn has_file(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file()
}

pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// Removes `.` and `..` from an absolute path without reading the disk, as cargo does (`normalize_path`).
pub(crate) fn plain(path: &Path) -> PathBuf {
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
pub(super) fn readable(path: &Path) -> PathBuf {
    match path.strip_prefix(".") {
        Ok(rest) if !rest.as_os_str().is_empty() => rest.to_owned(),
        Ok(_) | Err(_) => path.to_owned(),
    }
}
