//! The archive of a database, `tar.gz`: read with bounds, and made from a folder's files.

use std::io::{self, Read as _};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::Advisory;

/// Size limit of the unpacked archive in bytes: the database has 3 MB.
const MAX_DATABASE_BYTES: u64 = 256 << 20;
/// Size limit of one advisory in bytes.
const MAX_ADVISORY_BYTES: u64 = 1 << 20;

/// An archive that is no database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be unpacked.
    #[error("it is no tar.gz: {0}")]
    Archive(#[from] io::Error),
    /// It has no advisory about crates.
    #[error("it has no file `crates/NAME/ID.md` that is an advisory")]
    Empty,
}

/// The advisories about crates in an archive, and the number of those that cannot be read. They are skipped: the format
/// may grow.
pub(super) fn read(archive: &[u8]) -> Result<(Vec<Advisory>, usize), DatabaseError> {
    let unpacked = GzDecoder::new(archive).take(MAX_DATABASE_BYTES);
    let mut advisories = Vec::new();
    let (mut is_any, mut unreadable) = (false, 0);
    for file in tar::Archive::new(unpacked).entries()? {
        let file = file?;
        let path = file.path()?.to_string_lossy().into_owned();
        if !is_advisory(&path) {
            continue;
        }
        let mut text = String::new();
        if file
            .take(MAX_ADVISORY_BYTES)
            .read_to_string(&mut text)
            .is_err()
        {
            unreadable += 1;
            continue;
        }
        match Advisory::parse(&text) {
            Ok(advisory) => {
                is_any = true;
                advisories.extend(advisory);
            }
            Err(_) => unreadable += 1,
        }
    }
    match is_any {
        true => Ok((advisories, unreadable)),
        false => Err(DatabaseError::Empty),
    }
}

/// Returns whether a file of the database is an advisory about a crate, by its path.
fn is_advisory(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (name, _, folder) = (parts.next(), parts.next(), parts.next());
    name.is_some_and(|name| name.ends_with(".md")) && folder == Some("crates")
}

/// An archive of these files, each a path below the database's folder and its bytes. Leaves out all but advisories.
///
/// # Errors
/// A path that no archive can have.
pub fn pack(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, bytes) in files {
        if !is_advisory(&path) {
            continue;
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, &path, bytes.as_slice())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(id: &str) -> Vec<u8> {
        format!("```toml\n[advisory]\nid = \"{id}\"\npackage = \"left\"\n```\n# Title\n")
            .into_bytes()
    }

    #[test]
    fn only_advisories_about_crates_are_read() {
        let file = |path: &str, bytes: Vec<u8>| (path.to_owned(), bytes);
        let archive = pack([
            file(
                "db-main/crates/left/RUSTSEC-2026-0001.md",
                advisory("RUSTSEC-2026-0001"),
            ),
            file("crates/left/RUSTSEC-2026-0002.md", b"no advisory".to_vec()),
            file(
                "db-main/rust/std/RUSTSEC-2026-0003.md",
                advisory("RUSTSEC-2026-0003"),
            ),
            file("db-main/README.md", advisory("RUSTSEC-2026-0004")),
        ]);
        let archive = archive.unwrap();
        let (advisories, unreadable) = read(&archive).unwrap();
        let ids: Vec<_> = advisories.into_iter().map(|found| found.id).collect();
        assert_eq!(ids, ["RUSTSEC-2026-0001"]);
        assert_eq!(unreadable, 1);
        assert!(matches!(read(b"<html>"), Err(DatabaseError::Archive(_))));
        assert!(matches!(
            read(&archive[..archive.len() / 2]),
            Err(DatabaseError::Archive(_))
        ));
        let empty = pack([file("README.md", Vec::new())]).unwrap();
        assert!(matches!(read(&empty), Err(DatabaseError::Empty)));
    }
}
