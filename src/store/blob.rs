//! Blobs, and reading them.

use std::{fmt, fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    blocking::blocking,
    buffers::{BufferPool, CHUNK_BYTES, MIN_POOLED_BYTES, PooledChunk},
};

/// An open blob.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its size in bytes.
    pub len: u64,
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
}

/// Bytes that can be read from any offset, by several readers at once.
#[async_trait]
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if there are fewer.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;

    /// All of them, if they are in memory.
    fn in_memory(&self) -> Option<Bytes> {
        None
    }
}

/// An open file that is read piece by piece.
#[derive(Clone, Debug)]
pub(super) struct FileReader {
    pub(super) file: Arc<File>,
    pub(super) buffers: Arc<BufferPool>,
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
