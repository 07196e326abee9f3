//! A body on its way in: written once from front to back, read by any number of clients behind the writer. Lives in a
//! staging file, or in memory once the disk is full. Becoming a blob is the home's job.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// A body on its way in. Dropping it removes its file.
#[derive(Debug)]
pub struct Spool {
    /// None if there was no room for one from the beginning.
    file: Option<Reader>,
    path: Mutex<Option<TempPath>>,
    /// The whole body so far, once the disk refused to take more.
    memory: Mutex<Option<Vec<u8>>>,
}

impl Spool {
    /// Spools into a staging file.
    pub(super) fn new(staged: NamedTempFile, rooms: Arc<Rooms>) -> Self {
        let (file, path) = staged.into_parts();
        Self {
            file: Some(Reader {
                file: Arc::new(file),
                rooms,
            }),
            path: Mutex::new(Some(path)),
            memory: Mutex::new(None),
        }
    }

    /// Spools into memory, for want of room.
    pub(super) fn in_memory() -> Self {
        Self {
            file: None,
            path: Mutex::new(None),
            memory: Mutex::new(Some(Vec::new())),
        }
    }

    /// Appends `chunk`, which begins at `offset`. Blocks on the disk for as long as a copy into the page cache takes.
    ///
    /// # Errors
    /// What the system said; a full disk only if the body is too large for memory.
    pub fn write(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let mut memory = self.memory();
        if let (None, Some(file)) = (&*memory, &self.file) {
            match file.file.write_all_at(chunk, offset) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) && offset < MEMORY_LIMIT => {
                    let mut body = vec![0; usize::try_from(offset).map_err(io::Error::other)?];
                    file.file.read_exact_at(&mut body, 0)?;
                    *memory = Some(body);
                }
                Err(error) => return Err(error),
            }
        }
        match memory.as_mut() {
            Some(body) if offset + chunk.len() as u64 <= MEMORY_LIMIT => {
                body.truncate(usize::try_from(offset).map_err(io::Error::other)?);
                body.extend_from_slice(chunk);
                Ok(())
            }
            Some(_) | None => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Writes `chunk` where what lies before it may still be missing. Blocks like [`Spool::write`].
    ///
    /// # Errors
    /// What the system said; `StorageFull` once the body is in memory, where there is only what was appended.
    pub fn write_ahead(&self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let memory = self.memory();
        match (&*memory, &self.file) {
            (None, Some(file)) => file.file.write_all_at(chunk, offset),
            (Some(_), _) | (None, None) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Forgets all that was written, for a body that must be fetched from its first byte again.
    ///
    /// # Errors
    /// What the system said.
    pub fn start_over(&self) -> io::Result<()> {
        if let Some(body) = self.memory().as_mut() {
            body.clear();
        }
        self.file
            .as_ref()
            .map_or(Ok(()), |file| file.file.set_len(0))
    }

    /// The staging file and its path, for the home to make a blob of, once.
    ///
    /// # Errors
    /// `StorageFull` if the body never fitted on the disk.
    pub(super) fn take(&self) -> io::Result<(Arc<File>, TempPath)> {
        if self.memory().is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let path = self
            .path
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let file = self
            .file
            .as_ref()
            .ok_or(io::ErrorKind::NotFound)?
            .file
            .clone();
        Ok((file, path.ok_or(io::ErrorKind::NotFound)?))
    }

    /// Never held across an await.
    fn memory(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadAt for Spool {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if let Some(body) = self.memory().as_deref() {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let part = body
                .get(start..start.saturating_add(len))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            return Ok(Bytes::copy_from_slice(part));
        }
        let file = self.file.clone().ok_or(io::ErrorKind::UnexpectedEof)?;
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
