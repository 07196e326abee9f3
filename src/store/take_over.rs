//! Blobs that are taken over from a file of another program.
//!
//! The store gets a file of its own: a reflink where the file system has them, which shares the blocks until one side
//! changes them, else a copy. It never makes a hard link. Both names would be one file then, and a program that writes
//! into its own file would change a blob whose hash has been checked.

use std::{
    fs::File,
    io::{self, Seek as _},
    path::PathBuf,
};

use super::{Store, StoreError, blocking::blocking, growth::whole_blocks};
use crate::{files::open_nofollow, hash::Sha256};

/// Bytes that are hashed at a time.
const HASHED_CHUNK: usize = 256 << 10;

/// The result of taking over one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenOver {
    /// It is stored.
    Stored {
        /// Size in bytes.
        bytes: u64,
        /// True if it shares its blocks with the other file.
        is_reflink: bool,
    },
    /// It has a hash that is not expected. Nothing was stored.
    OtherHash,
}

impl Store {
    /// Stores the file at `source` if its hash is one of `expected`. The bytes that are hashed are those of the new
    /// file, so a change of the other one meanwhile does no harm.
    ///
    /// # Errors
    /// The file cannot be read, or the store cannot be written to.
    pub async fn take_over(
        &self,
        source: PathBuf,
        expected: Vec<Sha256>,
    ) -> Result<TakenOver, StoreError> {
        let (layout, staging, at) = (self.layout.clone(), self.staging.clone(), source.clone());
        let taken = blocking(move || {
            let mut from = open_nofollow(&source)?.ok_or(io::ErrorKind::NotFound)?;
            let mut staged = staging.file()?;
            let is_reflink = clone_file(staged.as_file(), &from);
            if !is_reflink {
                io::copy(&mut from, staged.as_file_mut())?;
            }
            let mut bytes = 0;
            staged.as_file_mut().rewind()?;
            let mut chunk = vec![0; HASHED_CHUNK];
            let sha256 = Sha256::of_reader(staged.as_file_mut(), &mut chunk, |len| bytes += len)?;
            if !expected.contains(&sha256) {
                return Ok(None);
            }
            staged.as_file().sync_all()?;
            staging.publish(staged.into_temp_path(), &layout.blob(sha256))?;
            Ok(Some((sha256, bytes, is_reflink)))
        });
        let taken = taken.await.map_err(|source| StoreError::io(at, source))?;
        let Some((sha256, bytes, is_reflink)) = taken else {
            return Ok(TakenOver::OtherHash);
        };
        self.blobs.forget_stats();
        self.uses.record_stored(sha256);
        self.growth.report(whole_blocks(bytes));
        Ok(TakenOver::Stored { bytes, is_reflink })
    }

    /// Tells if no blob was ever stored. Looks at one folder only, however much is stored.
    pub fn has_no_blobs(&self) -> bool {
        !self.layout.blobs().exists()
    }
}

/// Makes `new`, which is empty, share the blocks of `old`. Returns whether the file system can do that.
#[cfg(target_os = "linux")]
fn clone_file(new: &File, old: &File) -> bool {
    rustix::fs::ioctl_ficlone(new, old).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn clone_file(_new: &File, _old: &File) -> bool {
    false
}
