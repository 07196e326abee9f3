//! Reads files that are most likely in the page cache: without a detour if they are, into buffers that are used again. Knows
//! nothing of what is in them.

use std::{
    fs::File,
    io, mem,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ReadAt, spool::blocking};

/// How much it is best to read at a time, in bytes: enough to spare system calls, little enough for many clients at once.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Reads below this size get memory from the allocator, which is fast at that.
const MIN_POOLED_BYTES: usize = 32 << 10;
/// How many buffers are kept for the next reads, by each group of threads. A new buffer for each would be cleared by the
/// kernel page by page, which takes longer than the reading.
const BUFFERS_PER_GROUP: usize = 3;
/// Groups of threads. Room that another processor has just written to is slow to write to.
const THREAD_GROUPS: usize = 2;

/// An open file that is read piece by piece.
#[derive(Clone, Debug)]
pub(super) struct FileReader {
    pub(super) file: Arc<File>,
    pub(super) buffers: Arc<BufferPool>,
}

/// Room for pieces, free to be used.
#[derive(Debug, Default)]
pub(super) struct BufferPool([Mutex<Vec<Vec<u8>>>; THREAD_GROUPS]);

impl BufferPool {
    fn take(&self) -> Vec<u8> {
        self.group().pop().unwrap_or_else(|| vec![0; CHUNK_BYTES])
    }

    fn put_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.group();
        if buffers.len() < BUFFERS_PER_GROUP {
            buffers.push(buffer);
        }
    }

    /// The buffer of this thread's group. Never held across an await.
    fn group(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static GROUP: usize = THREADS.fetch_add(1, Ordering::Relaxed) % THREAD_GROUPS;
        }
        let buffers = GROUP.with(|group| &self.0[*group]);
        buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadAt for Bytes {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Self> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(len).filter(|end| *end <= self.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(self.slice(start..end))
    }

    fn in_memory(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// The first bytes of a buffer, which is free again when nobody reads them any more.
struct PooledChunk {
    buffer: Vec<u8>,
    len: usize,
    buffers: Arc<BufferPool>,
}

impl AsRef<[u8]> for PooledChunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for PooledChunk {
    fn drop(&mut self) {
        self.buffers.put_back(mem::take(&mut self.buffer));
    }
}

#[async_trait]
impl ReadAt for FileReader {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let is_pooled = (MIN_POOLED_BYTES..=CHUNK_BYTES).contains(&len);
        // Room is made here, not where it blocks: an allocator that keeps a heap for each thread would keep much for many.
        let mut buffer = if is_pooled {
            self.buffers.take()
        } else {
            vec![0; len]
        };
        let in_page_cache = read_page_cache(&self.file, &mut buffer[..len], offset);
        if in_page_cache < len {
            let file = self.file.clone();
            buffer = blocking(move || {
                file.read_exact_at(
                    &mut buffer[in_page_cache..len],
                    offset + in_page_cache as u64,
                )?;
                Ok(buffer)
            })
            .await?;
        }
        Ok(if is_pooled {
            let buffers = self.buffers.clone();
            Bytes::from_owner(PooledChunk {
                buffer,
                len,
                buffers,
            })
        } else {
            Bytes::from(buffer)
        })
    }
}

/// Reads what needs no waiting for a disk, from `offset` on; how many bytes that were. To hand a read to a thread that may
/// wait costs several times as much as the read, and nearly all that clients ask for was read or written lately.
#[cfg(target_os = "linux")]
fn read_page_cache(file: &File, part: &mut [u8], offset: u64) -> usize {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut parts = [io::IoSliceMut::new(part)];
    preadv2(file, &mut parts, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn read_page_cache(_: &File, _: &mut [u8], _: u64) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn pieces_are_right_whatever_their_size_and_their_room_is_used_again() {
        let body: Vec<u8> = (0..3 * CHUNK_BYTES).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&body).unwrap();
        let reader = FileReader {
            file: Arc::new(file),
            buffers: Arc::default(),
        };
        let check = async |offset: usize, len: usize| {
            let piece = reader.read_at(offset as u64, len).await.unwrap();
            assert_eq!(piece, body[offset..offset + len], "{len} bytes at {offset}");
        };
        for len in [
            0,
            1,
            MIN_POOLED_BYTES - 1,
            MIN_POOLED_BYTES,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
        ] {
            check(17, len).await;
        }
        assert_eq!(reader.buffers.group().len(), 1);
        let past_the_end = reader.read_at(body.len() as u64 - 1, 2).await;
        assert_eq!(
            past_the_end.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
