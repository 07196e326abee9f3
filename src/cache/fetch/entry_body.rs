//! [`EntryBody`]: the body of an entry while it arrives, in one piece of memory.
//!
//! A vector that doubles its capacity copies the body again and again, and has it twice meanwhile. So a large body gets
//! the address space of the largest one at once. The system gives memory only to what is written.

use bytes::Bytes;
use url::Url;

use super::decode::BodyLimit;
use crate::{
    memory_budget::Reservation,
    upstream::{Failure, FailureKind},
};

/// Size from which a body is large.
const LARGE_BYTES: usize = 1 << 20;

/// An arriving body.
pub(super) struct EntryBody<'a> {
    bytes: Vec<u8>,
    limit: BodyLimit,
    memory: &'a Reservation,
    url: &'a Url,
}

impl<'a> EntryBody<'a> {
    /// An empty body, of which upstream has announced `announced` bytes.
    ///
    /// # Errors
    /// It is going to be too large.
    pub(super) fn new(
        announced: Option<u64>,
        limit: BodyLimit,
        memory: &'a Reservation,
        url: &'a Url,
    ) -> Result<Self, Failure> {
        let announced = announced.unwrap_or(0);
        limit.check(announced, url)?;
        Ok(Self {
            bytes: Vec::with_capacity(usize::try_from(announced).unwrap_or(0)),
            limit,
            memory,
            url,
        })
    }

    /// Appends decoded bytes.
    ///
    /// # Errors
    /// The body is too large, or other bodies take the memory.
    pub(super) fn append(&mut self, decoded: &[u8]) -> Result<(), Failure> {
        let len = self.bytes.len() + decoded.len();
        self.limit.check(len as u64, self.url)?;
        self.memory
            .grow(len as u64)
            .map_err(|over| FailureKind::NoMemory(over).at(self.url))?;
        if len > self.bytes.capacity().max(LARGE_BYTES) {
            let most = usize::try_from(self.limit.bytes).unwrap_or(len).max(len);
            self.bytes.reserve_exact(most - self.bytes.len());
        }
        self.bytes.extend_from_slice(decoded);
        Ok(())
    }

    /// The whole body.
    pub(super) fn finish(mut self) -> Bytes {
        if self.bytes.capacity() > LARGE_BYTES {
            self.bytes.shrink_to_fit();
        }
        self.bytes.into()
    }
}
