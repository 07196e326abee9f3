//! Blobs, and reading them in chunks.
//!
//! Clients get a blob in chunks of at most [`CHUNK_BYTES`], so the memory for one client does not depend on the blob's
//! size. Almost every chunk is in the kernel's page cache, because it was downloaded or served a short time ago.
//! Changing threads costs several times as much as reading such a chunk. So [`FileReader`] first tries a read that
//! fails instead of waiting for the disk (`RWF_NOWAIT`, Linux only). Only what that read could not get is read by a
//! blocking thread.

use std::{fmt, fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    blocking::blocking,
    buffers::{BufferPool, CHUNK_BYTES, MIN_POOLED_BYTES, PooledChunk},
    identity::FileIdentity,
};

/// An open blob.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Size in bytes.
    pub len: u64,
    /// The contents.
    pub bytes: Arc<dyn ReadAt>,
    /// The file that has the contents; `None` for a body that is not stored yet.
    pub identity: Option<FileIdentity>,
}

/// Contents that several readers can read at once, from any offset.
#[async_trait]
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Reads exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the contents end before that, or the operating system's error.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;

    /// All of the contents, if they are in memory.
    fn in_memory(&self) -> Option<Bytes> {
        None
    }
}

/// An open file, read in chunks.
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
        // Allocated here and not on the blocking threads, of which there are many: jemalloc has a cache for each
        // thread, and the memory for 50 clients grew by 9 MB.
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

/// Reads from `offset` as far as the page cache has the file, and returns the number of bytes.
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
    async fn reads_of_any_size_are_right_and_reuse_one_buffer() {
        let body: Vec<u8> = (0..3 * CHUNK_BYTES).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&body).unwrap();
        let reader = FileReader {
            file: Arc::new(file),
            buffers: Arc::default(),
        };
        let check = async |offset: usize, len: usize| {
            let chunk = reader.read_at(offset as u64, len).await.unwrap();
            assert_eq!(chunk, body[offset..offset + len], "{len} bytes at {offset}");
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
