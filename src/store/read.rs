//! Reads files that are most likely in the page cache, without a detour if they are. Knows nothing of what is in them.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ReadAt, spool::blocking};

#[async_trait]
impl ReadAt for Arc<File> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // Room is made here, not where it blocks: an allocator that keeps a heap for each thread would keep much for many.
        let mut part = vec![0; len];
        let at_hand = read_at_hand(self, &mut part, offset);
        if at_hand == len {
            return Ok(Bytes::from(part));
        }
        let file = self.clone();
        blocking(move || {
            file.read_exact_at(&mut part[at_hand..], offset + at_hand as u64)?;
            Ok(Bytes::from(part))
        })
        .await
    }
}

/// Reads what needs no waiting for a disk, from `offset` on; how many bytes that were. To hand a read to a thread that may
/// wait costs several times as much as the read, and nearly all that clients ask for was read or written lately.
#[cfg(target_os = "linux")]
fn read_at_hand(file: &File, part: &mut [u8], offset: u64) -> usize {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut parts = [io::IoSliceMut::new(part)];
    preadv2(file, &mut parts, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn read_at_hand(_: &File, _: &mut [u8], _: u64) -> usize {
    0
}
