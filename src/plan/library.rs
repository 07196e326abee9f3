//! The crates that the standard library is built from.
//!
//! `cargo build -Zbuild-std` builds the standard library from the component `rust-src`, which brings a lock file of
//! its own. An install of that component needs the crates in it too.

use std::io::{self, Read};

use tokio::task::{JoinError, spawn_blocking};

use super::{PackageSet, PlanError, Problem};
use crate::{
    cargo_config::LocalSources,
    hash::Sha256,
    resource::Registries,
    store::{Store, StoreError},
    toolchain::DistFile,
};

/// Largest packed archive that is searched, in bytes.
const MAX_PACKED_BYTES: u64 = 256 << 20;
/// Bytes after which unpacking stops.
const MAX_UNPACKED_BYTES: u64 = 4 << 30;
/// Ends of the lock file's path in the archive. It moved in 2024.
const LOCK_PATHS: [&str; 2] = [
    "/lib/rustlib/src/rust/library/Cargo.lock",
    "/lib/rustlib/src/rust/Cargo.lock",
];

/// The reason why the standard library's lock file cannot be read. The text follows its name.
#[derive(Debug, thiserror::Error)]
enum LibraryError {
    #[error("has no usable hash")]
    NoHash,
    #[error("is not stored, or far too large")]
    NotStored,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Read(#[source] io::Error),
    #[error("is not in the archive")]
    NotInArchive,
    #[error("cannot be unpacked: {0}")]
    Unpack(#[source] io::Error),
    #[error("was not read to its end: {0}")]
    Task(#[from] JoinError),
}

/// The packages that the standard library's lock file names, from the stored archive of its sources.
///
/// # Errors
/// If the archive is not stored, or has no lock file that can be read.
pub(crate) async fn packages(
    store: &Store,
    file: &DistFile,
    registries: &Registries,
) -> Result<PackageSet, Problem> {
    let problem = |error: &dyn std::fmt::Display| {
        Problem::new("the standard library's lock file in `rust-src`", error)
    };
    let lock = lock_file(store, file).await;
    let lock = lock.map_err(|error| problem(&error))?;
    let name = "the standard library's Cargo.lock";
    PackageSet::parse(name, &lock, registries, &mut LocalSources::default())
        .map_err(|error: PlanError| Problem::new(name, error))
}

async fn lock_file(store: &Store, file: &DistFile) -> Result<Vec<u8>, LibraryError> {
    let sum = Sha256::parse(&file.sha256).ok_or(LibraryError::NoHash)?;
    let blob = store.blob(sum).await?;
    let blob = blob.filter(|blob| blob.len <= MAX_PACKED_BYTES);
    let blob = blob.ok_or(LibraryError::NotStored)?;
    let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
    let packed = blob.bytes.read_at(0, len).await;
    let packed = packed.map_err(LibraryError::Read)?;
    let lock = spawn_blocking(move || unpack_lock(&packed)).await?;
    lock.map_err(LibraryError::Unpack)?
        .ok_or(LibraryError::NotInArchive)
}

fn unpack_lock(packed: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let unpacked: Box<dyn Read> = match packed {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        [0xfd, b'7', b'z', ..] => Box::new(lzma_rust2::XzReader::new(packed, true)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(packed);
            Box::new(decoder.map_err(io::Error::other)?)
        }
        _ => return Err(io::Error::other("it is neither gzip nor xz nor zstd")),
    };
    let mut archive = tar::Archive::new(unpacked.take(MAX_UNPACKED_BYTES));
    for file in archive.entries()? {
        let mut file = file?;
        let path = file.path()?.to_string_lossy().into_owned();
        if LOCK_PATHS.iter().any(|end| path.ends_with(end)) {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}
