//! A body on its way in: written once from front to back, read by any number of clients behind the writer. Lives in memory
//! while it is small or the disk is full, and else in a staging file. Becoming a blob is the home's job.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::{NamedTempFile, TempPath};

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
    /// None while the body is small, or if there was no room for one from the beginning.
    file: OnceLock<Reader>,
    path: Mutex<Option<TempPath>>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
enum Memory {
    /// The whole body so far, which is small.
    Small(Vec<u8>),
    /// The whole body so far, since the disk refused to take more.
    NoRoom(Vec<u8>),
    /// The body is in the file.
    None,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// Spools into a file that `make` makes, once it is worth one.
    pub(super) fn new(make: Make, rooms: Arc<Rooms>) -> Self {
        Self {
            make,
            rooms,
            file: OnceLock::new(),
            path: Mutex::new(None),
            memory: Mutex::new(Memory::Small(Vec::new())),
        }
    }

    /// Appends `chunk`, which begins at `offset`. Blocks on the disk for as long as a copy into the page cache takes.
    ///
    /// # Errors
    /// What the system said; a full disk only if the body is too large for memory.
    pub fn write(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let mut memory = self.memory();
        if matches!(*memory, Memory::Small(_)) && offset + chunk.len() as u64 > SMALL {
            self.move_to_file(&mut memory)?;
        }
        if let (Memory::None, Some(file)) = (&*memory, self.file.get()) {
            match file.file.write_all_at(chunk, offset) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) && offset < MEMORY_LIMIT => {
                    let mut body = vec![0; usize::try_from(offset).map_err(io::Error::other)?];
                    file.file.read_exact_at(&mut body, 0)?;
                    *memory = Memory::NoRoom(body);
                }
                Err(error) => return Err(error),
            }
        }
        match &mut *memory {
            Memory::Small(body) | Memory::NoRoom(body)
                if offset + chunk.len() as u64 <= MEMORY_LIMIT =>
            {
                body.truncate(usize::try_from(offset).map_err(io::Error::other)?);
                body.extend_from_slice(chunk);
                Ok(())
            }
            Memory::Small(_) | Memory::NoRoom(_) | Memory::None => {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }

    /// Gives a small body its file. On a full disk it stays in memory: clients can still be served.
    fn move_to_file(&self, memory: &mut Memory) -> io::Result<()> {
        let Memory::Small(body) = memory else {
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
                if self.file.set(reader).is_err() {
                    return Err(io::Error::other("there was a file already"));
                }
                *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
                *memory = Memory::None;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                *memory = Memory::NoRoom(std::mem::take(body));
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
        let mut memory = self.memory();
        self.move_to_file(&mut memory)?;
        match (&*memory, self.file.get()) {
            (Memory::None, Some(file)) => file.file.write_all_at(chunk, offset),
            (_, _) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Forgets all that was written, for a body that must be fetched from its first byte again.
    ///
    /// # Errors
    /// What the system said.
    pub fn start_over(&self) -> io::Result<()> {
        if let Memory::Small(body) | Memory::NoRoom(body) = &mut *self.memory() {
            body.clear();
        }
        self.file.get().map_or(Ok(()), |file| file.file.set_len(0))
    }

    /// The bytes that are kept in memory.
    pub fn in_memory(&self) -> u64 {
        match &*self.memory() {
            Memory::Small(body) | Memory::NoRoom(body) => body.len() as u64,
            Memory::None => 0,
        }
    }

    /// The staging file and its path, for the home to make a blob of, once. Blocks on the disk.
    ///
    /// # Errors
    /// `StorageFull` if the body never fitted on the disk.
    pub(super) fn take(&self) -> io::Result<(Arc<File>, TempPath)> {
        let small = match &*self.memory() {
            Memory::Small(body) => Some(body.clone()),
            Memory::NoRoom(_) => return Err(io::ErrorKind::StorageFull.into()),
            Memory::None => None,
        };
        // Clients go on reading the one in memory meanwhile.
        if let Some(body) = small {
            let mut staged = (self.make)()?;
            staged.write_all(&body)?;
            let (file, path) = staged.into_parts();
            return Ok((Arc::new(file), path));
        }
        let path = self
            .path
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let file = self.file.get().ok_or(io::ErrorKind::NotFound)?.file.clone();
        Ok((file, path.ok_or(io::ErrorKind::NotFound)?))
    }

    /// Never held across an await.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadAt for Spool {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if let Memory::Small(body) | Memory::NoRoom(body) = &*self.memory() {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let part = body
                .get(start..start.saturating_add(len))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            return Ok(Bytes::copy_from_slice(part));
        }
        let file = self.file.get().ok_or(io::ErrorKind::UnexpectedEof)?;
        file.read_at(offset, len).await
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
