//! Reused buffers for reading files in chunks.
//!
//! A new buffer of this size comes from the kernel, which clears it page by page when it is first written. Clearing
//! takes longer than copying a chunk out of the page cache, so [`BufferPool`] reuses a few buffers.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};

/// Size of one read in bytes: large enough to spare system calls, small enough for many clients at once.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Smallest read in bytes that takes a pooled buffer. The allocator is fast for smaller ones.
pub(super) const MIN_POOLED_BYTES: usize = 32 << 10;
/// Free buffers stored for each group of threads.
const BUFFERS_PER_GROUP: usize = 3;
/// Groups of threads that share buffers. A buffer that another core has just written is slow to write.
const THREAD_GROUPS: usize = 2;

/// Free buffers of [`CHUNK_BYTES`], by group of threads.
#[derive(Debug, Default)]
pub(super) struct BufferPool([Mutex<Vec<Vec<u8>>>; THREAD_GROUPS]);

impl BufferPool {
    pub(super) fn take(&self) -> Vec<u8> {
        self.group().pop().unwrap_or_else(|| vec![0; CHUNK_BYTES])
    }

    fn put_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.group();
        if buffers.len() < BUFFERS_PER_GROUP {
            buffers.push(buffer);
        }
    }

    /// The free buffers of this thread's group.
    pub(super) fn group(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static GROUP: usize = THREADS.fetch_add(1, Ordering::Relaxed) % THREAD_GROUPS;
        }
        let buffers = GROUP.with(|group| &self.0[*group]);
        buffers.lock()
    }
}

/// The first `len` bytes of a buffer. Dropping it returns the buffer to the pool.
pub(super) struct PooledChunk {
    pub(super) buffer: Vec<u8>,
    pub(super) len: usize,
    pub(super) buffers: Arc<BufferPool>,
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
