//! The quarantine: damaged files are moved out of the way, so that they are fetched again and can be inspected.
//!
//! A damaged file keeps its path below `quarantine`. The next damaged file of the same name replaces it, so the
//! quarantine never holds more files than the store. Nothing reads it; the user may delete it at any time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    identity::FileIdentity,
    layout::{StoreLayout, make_folder},
};

/// Moves whatever lies at `path` to the quarantine, unless it is another file than `seen`.
#[expect(
    clippy::disallowed_methods,
    reason = "a damaged file is moved, not published"
)]
pub(super) fn move_away(
    layout: &StoreLayout,
    path: &Path,
    seen: Option<FileIdentity>,
) -> io::Result<Option<PathBuf>> {
    let is_seen = |path: &Path| -> io::Result<bool> {
        let found = FileIdentity::of(&fs::symlink_metadata(path)?);
        Ok(seen.is_none_or(|seen| seen.is_same_file(&found)))
    };
    let moved = || -> io::Result<Option<PathBuf>> {
        layout.check_root()?;
        if !is_seen(path)? {
            return Ok(None);
        }
        let target = layout.quarantine_of(path);
        let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
        make_folder(folder)?;
        clear(&target)?;
        fs::rename(path, &target)?;
        if is_seen(&target)? {
            return Ok(Some(target));
        }
        // Another process published a file between the two calls above. Theirs is as good as any newer one.
        fs::rename(&target, path)?;
        Ok(None)
    };
    match moved() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        moved => moved,
    }
}

/// Removes what lies at `path`, if anything does.
fn clear(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Sha256;

    #[test]
    fn a_damaged_file_moves_and_one_that_has_replaced_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let layout = StoreLayout::new(folder.path());
        let path = layout.blob(Sha256::of(b""));
        assert_eq!(move_away(&layout, &path, None).unwrap(), None);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "bad").unwrap();
        let bad = FileIdentity::of(&fs::metadata(&path).unwrap());
        let other = folder.path().join("other");
        fs::write(&other, "good").unwrap();
        let good = FileIdentity::of(&fs::metadata(&other).unwrap());
        assert_eq!(move_away(&layout, &path, Some(good)).unwrap(), None);
        let moved = move_away(&layout, &path, Some(bad)).unwrap().unwrap();
        assert_eq!(fs::read(&moved).unwrap(), b"bad");
        assert!(moved.starts_with(folder.path().join("v1/quarantine/blobs")));
        // A folder replaces the file there, and a file the folder.
        for round in 0..2 {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "").unwrap();
            assert_eq!(move_away(&layout, &path, None).unwrap().unwrap(), moved);
            assert!(moved.is_dir() && !path.exists(), "{round}");
        }
        fs::write(&path, "bad").unwrap();
        assert_eq!(move_away(&layout, &path, None).unwrap().unwrap(), moved);
        assert!(moved.is_file());
    }
}
