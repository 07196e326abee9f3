//! The body of an answer, wherever it is: in memory, stored, or still on its way in. Reading it piece by piece is the
//! same for all.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use super::{FetchedBody, flight::Progress};
use crate::store::{Blob, CHUNK_BYTES, ReadAt, Spool};

/// The body of an answer.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Whole(Bytes),
    /// Stored.
    Blob(Blob),
    /// Still on its way in.
    Arriving(Arriving),
}

/// A body on its way in, and how far it has come.
#[derive(Clone, Debug)]
pub struct Arriving {
    pub(super) spool: Arc<Spool>,
    /// Its size in bytes, if upstream told.
    pub(super) total: Option<u64>,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Body {
    /// Its size in bytes, if known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Blob(blob) => Some(blob.len),
            Self::Arriving(arriving) => arriving.total,
        }
    }

    /// The piece that begins at `at` and ends before `end`, as much as is convenient; `None` at the end of the body. What
    /// ends at `end` comes only when the whole body is proven, so that no part of a bad one looks complete.
    ///
    /// # Errors
    /// A body on its way in turned out bad or broke off, or the disk failed: the transfer must not end cleanly.
    pub async fn piece(&mut self, at: u64, end: u64) -> io::Result<Option<Bytes>> {
        let (ready, bytes): (u64, Arc<dyn ReadAt>) = match self {
            Self::Whole(bytes) => {
                let end = usize::try_from(end.min(bytes.len() as u64)).map_err(io::Error::other)?;
                let at = usize::try_from(at).map_err(io::Error::other)?;
                return Ok((at < end).then(|| bytes.slice(at..end)));
            }
            Self::Blob(blob) => (blob.len, blob.bytes.clone()),
            Self::Arriving(arriving) => (arriving.ready(at, end).await?, arriving.spool.clone()),
        };
        let end = end.min(ready).min(at + CHUNK_BYTES as u64);
        if at >= end {
            return Ok(None);
        }
        bytes
            .read_at(at, usize::try_from(end - at).map_err(io::Error::other)?)
            .await
            .map(Some)
    }
}

impl Arriving {
    /// Waits until more than `at` bytes may be read on the way to `end`, or until there will be no more; how many may be
    /// read then.
    async fn ready(&mut self, at: u64, end: u64) -> io::Result<u64> {
        loop {
            match &*self.progress.borrow_and_update() {
                Progress::Asking => {}
                Progress::Arriving { ready, .. } => {
                    let ready = (*ready).min(end.saturating_sub(1));
                    if ready > at {
                        return Ok(ready);
                    }
                }
                Progress::Verified(result) | Progress::Done(Ok(result)) => {
                    return match &result.body {
                        FetchedBody::Blob(blob) => Ok(blob.len),
                        FetchedBody::Entry(entry) => Ok(entry.body.len() as u64),
                    };
                }
                Progress::Done(Err(error)) => return Err(io::Error::other(error.to_string())),
            }
            self.progress
                .changed()
                .await
                .map_err(|_| io::Error::other("the fetch ended without a result"))?;
        }
    }
}
