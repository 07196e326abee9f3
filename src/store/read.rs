//! Reads files that are most likely in the page cache: without a detour if they are, into room that is used again. Knows
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
/// Reads below this size get room from the allocator, which is fast at that.
const SMALL: usize = 32 << 10;
/// How many pieces of room are kept for the next reads, by each group of threads. New room for each would be cleared by the
/// kernel page by page, which takes longer than the reading.
const ROOMS: usize = 3;
/// Groups of threads. Room that another processor has just written to is slow to write to.
const GROUPS: usize = 2;

/// An open file that is read piece by piece.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) file: Arc<File>,
    pub(super) rooms: Arc<Rooms>,
}

/// Room for pieces, free to be used.
#[derive(Debug, Default)]
pub(super) struct Rooms([Mutex<Vec<Vec<u8>>>; GROUPS]);

impl Rooms {
    fn take(&self) -> Vec<u8> {
        self.mine().pop().unwrap_or_else(|| vec![0; CHUNK_BYTES])
    }

    fn give_back(&self, room: Vec<u8>) {
        let mut rooms = self.mine();
        if rooms.len() < ROOMS {
            rooms.push(room);
        }
    }

    /// The room of this thread's group. Never held across an await.
    fn mine(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static GROUP: usize = THREADS.fetch_add(1, Ordering::Relaxed) % GROUPS;
        }
        let group = GROUP.with(|group| &self.0[*group]);
        group.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The first bytes of a room, which is free again when nobody reads them any more.
struct Piece {
    room: Vec<u8>,
    len: usize,
    rooms: Arc<Rooms>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.rooms.give_back(mem::take(&mut self.room));
    }
}

#[async_trait]
impl ReadAt for Reader {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let is_piece = (SMALL..=CHUNK_BYTES).contains(&len);
        // Room is made here, not where it blocks: an allocator that keeps a heap for each thread would keep much for many.
        let mut room = if is_piece {
            self.rooms.take()
        } else {
            vec![0; len]
        };
        let at_hand = read_at_hand(&self.file, &mut room[..len], offset);
        if at_hand < len {
            let file = self.file.clone();
            room = blocking(move || {
                file.read_exact_at(&mut room[at_hand..len], offset + at_hand as u64)?;
                Ok(room)
            })
            .await?;
        }
        Ok(if is_piece {
            let rooms = self.rooms.clone();
            Bytes::from_owner(Piece { room, len, rooms })
        } else {
            Bytes::from(room)
        })
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn pieces_are_right_whatever_their_size_and_their_room_is_used_again() {
        let body: Vec<u8> = (0..3 * CHUNK_BYTES).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&body).unwrap();
        let reader = Reader {
            file: Arc::new(file),
            rooms: Arc::default(),
        };
        let check = async |offset: usize, len: usize| {
            let piece = reader.read_at(offset as u64, len).await.unwrap();
            assert_eq!(piece, body[offset..offset + len], "{len} bytes at {offset}");
        };
        for len in [
            0,
            1,
            SMALL - 1,
            SMALL,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
        ] {
            check(17, len).await;
        }
        assert_eq!(reader.rooms.mine().len(), 1);
        let past_the_end = reader.read_at(body.len() as u64 - 1, 2).await;
        assert_eq!(
            past_the_end.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
