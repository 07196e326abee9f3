//! A body on its way in: written once from front to back, read by any number of clients behind the writer. Lives in memory
//! while it is small or the disk is full, and else in a staging file. Becoming a blob is the home's job.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::{NamedTempFile, TempPath};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    ReadAt, is_full,
    read::{Reader, Rooms},
};

/// The largest body that is carried on in memory when the disk is full.
const MEMORY_LIMIT: u64 = 64 << 20;
/// A body gets a file once it is larger than this. To make a file is most of what it costs to keep a small one, and until it
/// is proven nothing is gained by it.
const SMALL: u64 = 128 << 10;

/// Makes a staging file.
type Make = Box<dyn Fn() -> io::Result<NamedTempFile> + Send + Sync>;

/// A body on its way in. Dropping it removes its file.
pub struct Spool {
    make: Make,
    rooms: Arc<Rooms>,
    place: Mutex<Place>,
}

/// Where the body is.
enum Place {
    /// The whole body so far, which is small.
    Small(Vec<u8>),
    /// The whole body so far, since the disk refused to take more.
    NoRoom(Vec<u8>),
    /// In a staging file, whose path is there until it becomes a blob.
    File(Reader, Option<TempPath>),
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

impl Spool {
    /// Spools into a file that `make` makes, once it is worth one.
    pub(super) fn new(make: Make, rooms: Arc<Rooms>) -> Self {
        Self {
            make,
            rooms,
            place: Mutex::new(Place::Small(Vec::new())),
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
            let body = where_it_may_block(move || read_back(&file, len, chunk.len()))?;
            let full = std::mem::replace(&mut *self.place(), Place::NoRoom(body));
            // The last of its readers frees its room.
            where_it_may_block(move || drop(full));
            self.append(offset, chunk)?;
        }
        Ok(())
    }

    /// Appends `chunk`, unless the disk has no room for it and memory has: then the file is returned, of which everything before
    /// `offset` is to be carried on in memory.
    fn append(&self, offset: u64, chunk: &[u8]) -> io::Result<Option<Arc<File>>> {
        let mut place = self.place();
        let end = offset + chunk.len() as u64;
        if matches!(*place, Place::Small(_)) && end > SMALL {
            self.move_to_file(&mut place)?;
        }
        match &mut *place {
            Place::File(reader, _) => match reader.file.write_all_at(chunk, offset) {
                Ok(()) => Ok(None),
                Err(error) if is_full(&error) && end <= MEMORY_LIMIT => {
                    Ok(Some(reader.file.clone()))
                }
                Err(error) => Err(error),
            },
            Place::Small(body) | Place::NoRoom(body) if end <= MEMORY_LIMIT => {
                body.truncate(usize::try_from(offset).map_err(io::Error::other)?);
                body.extend_from_slice(chunk);
                Ok(None)
            }
            Place::Small(_) | Place::NoRoom(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Gives a small body its file. On a full disk it stays in memory: clients can still be served.
    fn move_to_file(&self, place: &mut Place) -> io::Result<()> {
        let Place::Small(body) = place else {
            return Ok(());
        };
        let made = (self.make)().and_then(|mut staged| {
            staged.write_all(body)?;
            Ok(staged)
        });
        match made {
            Ok(staged) => {
                let (file, path) = staged.into_parts();
                let reader = Reader {
                    file: Arc::new(file),
                    rooms: self.rooms.clone(),
                };
                *place = Place::File(reader, Some(path));
                Ok(())
            }
            Err(error) if is_full(&error) => {
                *place = Place::NoRoom(std::mem::take(body));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes `chunk` where what lies before it may still be missing. Blocks like [`Spool::write`].
    ///
    /// # Errors
    /// What the system said; `StorageFull` once the body is in memory for want of room, where there is only what was appended.
    pub fn write_ahead(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let mut place = self.place();
        self.move_to_file(&mut place)?;
        match &*place {
            Place::File(reader, _) => reader.file.write_all_at(chunk, offset),
            Place::Small(_) | Place::NoRoom(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Forgets all that was written, for a body that must be fetched from its first byte again.
    ///
    /// # Errors
    /// What the system said.
    pub fn start_over(&self) -> io::Result<()> {
        match &mut *self.place() {
            Place::Small(body) | Place::NoRoom(body) => {
                body.clear();
                Ok(())
            }
            Place::File(reader, _) => reader.file.set_len(0),
        }
    }

    /// The bytes that are kept in memory.
    pub fn in_memory(&self) -> u64 {
        match &*self.place() {
            Place::Small(body) | Place::NoRoom(body) => body.len() as u64,
            Place::File(..) => 0,
        }
    }

    /// The staging file and its path, for the home to make a blob of, once. Blocks on the disk.
    ///
    /// # Errors
    /// `StorageFull` if the body never fitted on the disk.
    pub(super) fn take(&self) -> io::Result<(Arc<File>, TempPath)> {
        let small = match &mut *self.place() {
            Place::Small(body) => body.clone(),
            Place::NoRoom(_) => return Err(io::ErrorKind::StorageFull.into()),
            Place::File(reader, path) => {
                let path = path.take().ok_or(io::ErrorKind::NotFound)?;
                return Ok((reader.file.clone(), path));
            }
        };
        // Clients go on reading the one in memory meanwhile.
        let mut staged = (self.make)()?;
        staged.write_all(&small)?;
        let (file, path) = staged.into_parts();
        Ok((Arc::new(file), path))
    }

    /// Never held across an await.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadAt for Spool {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = match &*self.place() {
            Place::Small(body) | Place::NoRoom(body) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let part = body
                    .get(start..start.saturating_add(len))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                return Ok(Bytes::copy_from_slice(part));
            }
            Place::File(reader, _) => reader.clone(),
        };
        file.read_at(offset, len).await
    }
}

/// The first `len` bytes of a file, with room for `more`.
fn read_back(file: &File, len: usize, more: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(len + more);
    body.resize(len, 0);
    file.read_exact_at(&mut body, 0)?;
    Ok(body)
}

/// Does work here, after giving what else this thread would do to others, where there are any.
fn where_it_may_block<T>(work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if let Ok(RuntimeFlavor::MultiThread) = runtime {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Runs disk work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(io::Error::other(died)))
}
