//! The memory of answers that clients have not taken yet.
//!
//! Each HTTP/2 stream of a client that reads nothing holds one piece of its answer, and a client may have hundreds of
//! streams. So pieces are large only while all of them together are small:
//!
//! ```text
//!   below 64 MB held  ──> pieces of 256 kB, which spare system calls
//!   above             ──> pieces of 16 kB, until clients have taken some
//! ```
//!
//! With the limit of requests in flight, this bounds the memory whatever clients do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

/// Bytes of pieces from which on new ones are small.
const LARGE_PIECES_BYTES: u64 = 64 << 20;
/// Size of a large piece in bytes, as the store reads files.
const LARGE_PIECE_BYTES: u64 = 256 << 10;
/// Size of a small piece in bytes: the usual size of a frame in HTTP/2.
const SMALL_PIECE_BYTES: u64 = 16 << 10;

/// Counts the bytes of all pieces that are held.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerMemory(Arc<AtomicU64>);

impl AnswerMemory {
    /// The size that the next piece may have, in bytes.
    pub(super) fn next_piece(&self) -> u64 {
        match self.held() < LARGE_PIECES_BYTES {
            true => LARGE_PIECE_BYTES,
            false => SMALL_PIECE_BYTES,
        }
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The same bytes, counted until they are dropped.
    pub(super) fn count(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let memory = self.clone();
        Bytes::from_owner(HeldPiece { bytes, memory })
    }
}

struct HeldPiece {
    bytes: Bytes,
    memory: AnswerMemory,
}

impl AsRef<[u8]> for HeldPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldPiece {
    fn drop(&mut self) {
        let len = self.bytes.len() as u64;
        self.memory.0.fetch_sub(len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_while_many_are_held() {
        let memory = AnswerMemory::default();
        let large = Bytes::from(vec![0; 256 << 10]);
        let count = LARGE_PIECES_BYTES / LARGE_PIECE_BYTES;
        let mut held: Vec<_> = (0..count)
            .map(|_| {
                assert_eq!(memory.next_piece(), LARGE_PIECE_BYTES);
                memory.count(large.clone())
            })
            .collect();
        assert_eq!(memory.next_piece(), SMALL_PIECE_BYTES);
        held.pop();
        assert_eq!(memory.next_piece(), LARGE_PIECE_BYTES);
        let part = held[0].slice(..1);
        drop(held);
        assert_eq!((memory.held(), part.len()), (LARGE_PIECE_BYTES, 1));
        drop(part);
        assert_eq!(memory.held(), 0);
    }
}
