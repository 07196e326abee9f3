//! Buffers for reading, used again.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};

/// How much it is best to read at a time, in bytes: enough to spare system calls, little enough for many clients at once.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Reads below this size get memory from the allocator, which is fast at that.
pub(super) const MIN_POOLED_BYTES: usize = 32 << 10;
/// How many buffers are kept for the next reads, by each group of threads. A new buffer for each would be cleared by the
/// kernel page by page, which takes longer than the reading.
const BUFFERS_PER_GROUP: usize = 3;
/// Groups of threads. Room that another processor has just written to is slow to write to.
const THREAD_GROUPS: usize = 2;

/// Room for pieces, free to be used.
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

    /// The buffer of this thread's group. Never held across an await.
    pub(super) fn group(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static GROUP: usize = THREADS.fetch_add(1, Ordering::Relaxed) % THREAD_GROUPS;
        }
        let buffers = GROUP.with(|group| &self.0[*group]);
        buffers.lock()
    }
}

/// The first bytes of a buffer, which is free again when nobody reads them any more.
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
