//! A body on its way in: written once from front to back, read by any number of clients behind the writer. Lives in memory
//! while it is small or the disk is full, and else in a staging file. Becoming a blob is the home's job.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::{NamedTempFile, TempPath};

use super::{
    blob::{FileReader, ReadAt},
    blocking::in_blocking_section,
    buffers::BufferPool,
    error::is_full,
};

/// The largest body that is carried on in memory when the disk is full.
const MAX_MEMORY_BYTES: u64 = 64 << 20;
/// A body gets a file once it is larger than this. To make a file is most of what it costs to keep a small one, and until it
/// is proven nothing is gained by it.
const MAX_SMALL_BYTES: u64 = 128 << 10;

/// Makes a staging file.
type MakeFile = Box<dyn Fn() -> io::Result<NamedTempFile> + Send + Sync>;

/// A body on its way in. Dropping it removes its file.
pub struct Spool {
    make_file: MakeFile,
    buffers: Arc<BufferPool>,
    storage: Mutex<Storage>,
}

/// Where the body is.
enum Storage {
    /// The whole body so far, which is small.
    Small(Vec<u8>),
    /// The whole body so far, since the disk refused to take more.
    DiskFull(Vec<u8>),
    /// In a staging file, whose path is there until it becomes a blob.
    File(FileReader, Option<TempPath>),
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

impl Spool {
    /// Spools into a file that `make_file` makes, once it is worth one.
    pub(super) fn new(make_file: MakeFile, buffers: Arc<BufferPool>) -> Self {
        Self {
            make_file,
            buffers,
            storage: Mutex::new(Storage::Small(Vec::new())),
        }
    }

    /// Appends `chunk`, which begins at `offset`. Blocks on the disk for as long as a copy into the page cache takes; once, when the
    /// disk fills up, until what was written is in memory.
    ///
    /// # Errors
    /// What the system said; a full disk only if the body is too large for memory.
    pub fn write(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        if let Some(file) = self.append(offset, chunk)? {
            let len = usize::try_from(offset).map_err(io::Error::other)?;
            // Readers go on with the file meanwhile.
            let body = in_blocking_section(move || read_back(&file, len, chunk.len()))?;
            let full = std::mem::replace(&mut *self.storage.lock(), Storage::DiskFull(body));
            // The last of its readers frees its disk space.
            in_blocking_section(move || drop(full));
            self.append(offset, chunk)?;
        }
        Ok(())
    }

    /// Appends `chunk`, unless the disk is full and memory has: then the file is returned, of which everything before
    /// `offset` is to be carried on in memory.
    fn append(&self, offset: u64, chunk: &[u8]) -> io::Result<Option<Arc<File>>> {
        let mut storage = self.storage.lock();
        let end = offset + chunk.len() as u64;
        if matches!(*storage, Storage::Small(_)) && end > MAX_SMALL_BYTES {
            self.move_to_file(&mut storage)?;
        }
        match &mut *storage {
            Storage::File(reader, _) => match reader.file.write_all_at(chunk, offset) {
                Ok(()) => Ok(None),
                Err(error) if is_full(&error) && end <= MAX_MEMORY_BYTES => {
                    Ok(Some(reader.file.clone()))
                }
                Err(error) => Err(error),
            },
            Storage::Small(body) | Storage::DiskFull(body) if end <= MAX_MEMORY_BYTES => {
                body.truncate(usize::try_from(offset).map_err(io::Error::other)?);
                body.extend_from_slice(chunk);
                Ok(None)
            }
            Storage::Small(_) | Storage::DiskFull(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Gives a small body its file. On a full disk it stays in memory: clients can still be served.
    fn move_to_file(&self, storage: &mut Storage) -> io::Result<()> {
        let Storage::Small(body) = storage else {
            return Ok(());
        };
        let made = (self.make_file)().and_then(|mut staged| {
            staged.write_all(body)?;
            Ok(staged)
        });
        match made {
            Ok(staged) => {
                let (file, path) = staged.into_parts();
                let reader = FileReader {
                    file: Arc::new(file),
                    buffers: self.buffers.clone(),
                };
                *storage = Storage::File(reader, Some(path));
                Ok(())
            }
            Err(error) if is_full(&error) => {
                *storage = Storage::DiskFull(std::mem::take(body));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes `chunk` where what lies before it may still be missing. Blocks like [`Spool::write`].
    ///
    /// # Errors
    /// What the system said; `StorageFull` once the body is in memory for want of disk space, where there is only what was appended.
    pub fn write_at(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let mut storage = self.storage.lock();
        self.move_to_file(&mut storage)?;
        match &*storage {
            Storage::File(reader, _) => reader.file.write_all_at(chunk, offset),
            Storage::Small(_) | Storage::DiskFull(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Forgets all that was written, for a body that must be fetched from its first byte again.
    ///
    /// # Errors
    /// What the system said.
    pub fn clear(&self) -> io::Result<()> {
        match &mut *self.storage.lock() {
            Storage::Small(body) | Storage::DiskFull(body) => {
                body.clear();
                Ok(())
            }
            Storage::File(reader, _) => reader.file.set_len(0),
        }
    }

    /// The bytes that are kept in memory.
    pub fn memory_bytes(&self) -> u64 {
        match &*self.storage.lock() {
            Storage::Small(body) | Storage::DiskFull(body) => body.len() as u64,
            Storage::File(..) => 0,
        }
    }

    /// The staging file and its path, for the home to make a blob of, once. Blocks on the disk.
    ///
    /// # Errors
    /// `StorageFull` if the body never fitted on the disk.
    pub(super) fn take_file(&self) -> io::Result<(Arc<File>, TempPath)> {
        let small = match &mut *self.storage.lock() {
            Storage::Small(body) => body.clone(),
            Storage::DiskFull(_) => return Err(io::ErrorKind::StorageFull.into()),
            Storage::File(reader, path) => {
                let path = path.take().ok_or(io::ErrorKind::NotFound)?;
                return Ok((reader.file.clone(), path));
            }
        };
        // Clients go on reading the one in memory meanwhile.
        let mut staged = (self.make_file)()?;
        staged.write_all(&small)?;
        let (file, path) = staged.into_parts();
        Ok((Arc::new(file), path))
    }
}

#[async_trait]
impl ReadAt for Spool {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = match &*self.storage.lock() {
            Storage::Small(body) | Storage::DiskFull(body) => {
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

/// The first `len` bytes of a file, with capacity for `more`.
fn read_back(file: &File, len: usize, more: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(len + more);
    body.resize(len, 0);
    file.read_exact_at(&mut body, 0)?;
    Ok(body)
}
