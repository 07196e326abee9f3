//! Spools: bodies that are being downloaded.
//!
//! One writer appends, any number of clients read behind it. Once the hash is verified, [`super::Store::put_blob`]
//! makes the body a blob; until then no lookup finds it. Dropping the spool discards it.
//!
//! ```text
//!  Small (memory) ── above 128 kB ──> File (staging) ── put_blob ──> blob
//!      │                                 │
//!      └── no space, or no write ──> InMemory (within the memory budget): clients are served, nothing is stored
//! ```
//!
//! A large body claims its space on disk first: see `growth`.
//!
//! Creating a file costs more than all other work on a small body, so a small body stays in memory until it is
//! verified.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempPath;

use super::{
    blob::{FileReader, ReadAt},
    blocking::in_place,
    buffers::BufferPool,
    error::{StoreError, is_full, is_read_only},
    growth::{NoSpace, SpaceClaim},
    staging::Staging,
};
use crate::memory_budget::Reservation;

/// Largest body in bytes that stays in memory while the disk is full.
const MAX_MEMORY_BYTES: u64 = 64 << 20;
/// Size in bytes from which a body in memory gets the address space of the largest one.
const RESERVE_FROM_BYTES: u64 = 4 << 20;
/// Largest body in bytes that stays in memory while it is downloaded.
const MAX_SMALL_BYTES: u64 = 128 << 10;

/// Longest time that a body waits for space if it can stay in memory instead.
const MAX_MEMORY_WAIT: Duration = Duration::from_secs(1);
/// Longest time that any other body waits for space. Cargo gives up after 30 s without a byte.
const MAX_LARGE_WAIT: Duration = Duration::from_secs(15);

/// A body that is being downloaded.
pub struct Spool {
    staging: Arc<Staging>,
    buffers: Arc<BufferPool>,
    storage: Mutex<Storage>,
    /// Counts the body while the disk takes no more.
    memory: Reservation,
    /// Counts the body on disk.
    claim: SpaceClaim,
}

/// Place of the body so far.
enum Storage {
    /// In memory, because it is small.
    Small(Vec<u8>),
    /// In memory, because the disk takes no more.
    InMemory(Vec<u8>, Cause),
    /// In a staging file. [`Spool::take_file`] takes the path out.
    File(FileReader, Option<TempPath>),
}

/// The reason why the disk takes no more.
#[derive(Clone, Copy)]
enum Cause {
    /// It is full, or read-only.
    Disk(io::ErrorKind),
    /// The limit of the store's size.
    Limit(NoSpace),
}

impl Cause {
    fn of(error: &io::Error) -> Self {
        let limit = error.get_ref().and_then(|cause| cause.downcast_ref());
        limit.map_or(Self::Disk(error.kind()), |limit| Self::Limit(*limit))
    }
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Disk(kind) => kind.into(),
            Cause::Limit(no_space) => no_space.into(),
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

impl Spool {
    pub(super) fn new(
        staging: Arc<Staging>,
        buffers: Arc<BufferPool>,
        memory: Reservation,
        claim: SpaceClaim,
    ) -> Self {
        Self {
            staging,
            buffers,
            storage: Mutex::new(Storage::Small(Vec::new())),
            memory,
            claim,
        }
    }

    /// Returns whether a body of `bytes` bytes may be written without [`Spool::make_space`].
    pub fn has_space(&self, bytes: u64) -> bool {
        bytes <= MAX_SMALL_BYTES || !self.is_for_disk() || self.claim.has(bytes)
    }

    /// Waits until the store's limit allows a body of `bytes` bytes. If that takes long, the body stays in memory.
    ///
    /// # Errors
    /// [`StoreError::Limit`]: it is too large for memory too.
    pub async fn make_space(&self, bytes: u64) -> Result<(), StoreError> {
        let fits_in_memory = bytes <= MAX_MEMORY_BYTES;
        let patience = if fits_in_memory {
            MAX_MEMORY_WAIT
        } else {
            MAX_LARGE_WAIT
        };
        let Err(no_space) = self.claim.reserve(bytes, patience).await else {
            return Ok(());
        };
        if !fits_in_memory || self.memory.grow(bytes).is_err() {
            return Err(StoreError::Limit(no_space));
        }
        let storage = &mut *self.storage.lock();
        // A file moves to memory when the next chunk is written.
        if let Storage::Small(body) = storage {
            *storage = Storage::InMemory(std::mem::take(body), Cause::Limit(no_space));
        }
        Ok(())
    }

    fn is_for_disk(&self) -> bool {
        match &*self.storage.lock() {
            Storage::Small(_) | Storage::File(..) => true,
            Storage::InMemory(..) => false,
        }
    }

    /// Bytes on disk that were claimed before they were written.
    pub(super) fn claimed_bytes(&self) -> u64 {
        self.claim.written()
    }

    /// Returns the claimed space that was not used.
    pub(super) fn end_claim(&self) {
        self.claim.end();
    }

    /// Appends `chunk`, which begins at `offset`. Copies into the page cache and therefore hardly blocks, except once
    /// when the disk fills up and the body moves back to memory.
    ///
    /// # Errors
    /// The operating system's error. A full disk is one only for bodies above 64 MB, and for those that the memory for
    /// arriving bodies does not suffice for.
    pub fn write(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        if let Some((file, cause)) = self.append(offset, chunk)? {
            let len = usize::try_from(offset).map_err(io::Error::other)?;
            // The lock is free meanwhile, so clients go on reading from the file.
            let body = in_place(move || read_back(&file, len, chunk.len()))?;
            let file = std::mem::replace(&mut *self.storage.lock(), Storage::InMemory(body, cause));
            // Closing a large deleted file frees its blocks, which takes time.
            in_place(move || drop(file));
            self.claim.end();
            self.append(offset, chunk)?;
        }
        Ok(())
    }

    /// Appends `chunk`. If the disk is full and the body fits in memory, appends nothing and returns the file: the
    /// caller must move the bytes before `offset` to memory and call again.
    fn append(&self, offset: u64, chunk: &[u8]) -> io::Result<Option<(Arc<File>, Cause)>> {
        let mut storage = self.storage.lock();
        let end = offset + chunk.len() as u64;
        if matches!(*storage, Storage::Small(_)) && end > MAX_SMALL_BYTES {
            self.move_to_file(&mut storage)?;
        }
        match &mut *storage {
            Storage::File(reader, _) => match self.write_to(&reader.file, chunk, offset) {
                Ok(()) => Ok(None),
                Err(error) if is_full(&error) && end <= MAX_MEMORY_BYTES => {
                    self.grow_memory(end)?;
                    Ok(Some((reader.file.clone(), Cause::of(&error))))
                }
                Err(error) => Err(error),
            },
            Storage::InMemory(_, cause) if end > MAX_MEMORY_BYTES => Err((*cause).into()),
            Storage::InMemory(body, _) => {
                self.grow_memory(end)?;
                reserve_for_large(body, end);
                overwrite_end(body, offset, chunk).map(|()| None)
            }
            Storage::Small(body) => overwrite_end(body, offset, chunk).map(|()| None),
        }
    }

    fn write_to(&self, file: &File, chunk: &[u8], offset: u64) -> io::Result<()> {
        let len = chunk.len() as u64;
        self.claim.write(offset + len, len)?;
        file.write_all_at(chunk, offset)
    }

    fn grow_memory(&self, bytes: u64) -> io::Result<()> {
        let grown = self.memory.grow(bytes);
        grown.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))
    }

    /// Moves a small body to a staging file. If the disk is full, it stays in memory, so that clients still get it.
    fn move_to_file(&self, storage: &mut Storage) -> io::Result<()> {
        let Storage::Small(body) = storage else {
            return Ok(());
        };
        let len = body.len() as u64;
        let claimed = self.claim.write(len, len).map_err(io::Error::from);
        match claimed.and_then(|()| self.stage(body)) {
            Ok((file, path)) => {
                let buffers = self.buffers.clone();
                *storage = Storage::File(FileReader { file, buffers }, Some(path));
                Ok(())
            }
            Err(error) if is_full(&error) || is_read_only(&error) => {
                *storage = Storage::InMemory(std::mem::take(body), Cause::of(&error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A new staging file with these contents.
    fn stage(&self, body: &[u8]) -> io::Result<(Arc<File>, TempPath)> {
        let mut staged = self.staging.file()?;
        staged.write_all(body)?;
        let (file, path) = staged.into_parts();
        Ok((Arc::new(file), path))
    }

    /// Writes `chunk` at `offset`, for downloads by ranges: bytes before it may be missing. Blocks like
    /// [`Spool::write`].
    ///
    /// # Errors
    /// The operating system's error, and `StorageFull` once the body is in memory, which can only grow at its end.
    pub fn write_at(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let mut storage = self.storage.lock();
        self.move_to_file(&mut storage)?;
        match &*storage {
            Storage::File(reader, _) => self.write_to(&reader.file, chunk, offset),
            Storage::Small(_) | Storage::InMemory(..) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Discards the written bytes, so that the body can be downloaded again from its first byte.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn clear(&self) -> io::Result<()> {
        match &mut *self.storage.lock() {
            Storage::Small(body) | Storage::InMemory(body, _) => {
                body.clear();
                Ok(())
            }
            Storage::File(reader, _) => {
                self.claim.clear();
                reader.file.set_len(0)
            }
        }
    }

    /// Bytes of the body that are in memory.
    pub fn memory_bytes(&self) -> u64 {
        match &*self.storage.lock() {
            Storage::Small(body) | Storage::InMemory(body, _) => body.len() as u64,
            Storage::File(..) => 0,
        }
    }

    /// The staging file and its path, for publishing it as a blob. Works once. Blocks on the disk.
    ///
    /// # Errors
    /// The reason why the disk did not take the body: `StorageFull`, or of a read-only store.
    pub(super) fn take_file(&self) -> io::Result<(Arc<File>, TempPath)> {
        let small = match &mut *self.storage.lock() {
            // Clients go on reading this copy while another is written.
            Storage::Small(body) => body.clone(),
            Storage::InMemory(_, cause) => return Err((*cause).into()),
            Storage::File(reader, path) => {
                let path = path.take().ok_or(io::ErrorKind::NotFound)?;
                return Ok((reader.file.clone(), path));
            }
        };
        self.stage(&small)
    }
}

/// Gives a large body the address space of the largest one, so that growing copies it no more.
fn reserve_for_large(body: &mut Vec<u8>, end: u64) {
    let len = body.len();
    let most = usize::try_from(MAX_MEMORY_BYTES).unwrap_or(len);
    if end > RESERVE_FROM_BYTES && body.capacity() < most {
        body.reserve_exact(most.saturating_sub(len));
    }
}

/// Replaces everything from `offset` on by `chunk`.
fn overwrite_end(body: &mut Vec<u8>, offset: u64, chunk: &[u8]) -> io::Result<()> {
    body.truncate(usize::try_from(offset).map_err(io::Error::other)?);
    body.extend_from_slice(chunk);
    Ok(())
}

#[async_trait]
impl ReadAt for Spool {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = match &*self.storage.lock() {
            Storage::Small(body) | Storage::InMemory(body, _) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let part = body
                    .get(start..start.saturating_add(len))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                return Ok(Bytes::copy_from_slice(part));
            }
            Storage::File(reader, _) => reader.clone(),
        };
        file.read_at(offset, len).await
    }
}

/// The first `len` bytes of a file, in a buffer with capacity for `more` bytes after them.
fn read_back(file: &File, len: usize, more: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(len + more);
    body.resize(len, 0);
    file.read_exact_at(&mut body, 0)?;
    Ok(body)
}
