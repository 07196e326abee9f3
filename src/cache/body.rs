//! The body of an answer: in memory, stored in a file, or still arriving. Readers take it in pieces and need not know
//! which.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use super::flight::{FetchedBody, Progress};
use crate::store::{Blob, CHUNK_BYTES, ReadAt, Spool};

/// The body of an answer.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Whole(Bytes),
    /// In the store.
    Blob(Blob),
    /// Being downloaded.
    Arriving(Arriving),
}

/// A body that is being downloaded.
#[derive(Clone, Debug)]
pub struct Arriving {
    pub(super) spool: Arc<Spool>,
    /// Size in bytes, if upstream announced it.
    pub(super) total: Option<u64>,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Body {
    /// Size in bytes, if known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Blob(blob) => Some(blob.len),
            Self::Arriving(arriving) => arriving.total,
        }
    }

    /// Reads the next piece of `start..end`, of at most `max` bytes unless the body is in memory; `None` at the end of
    /// the body.
    ///
    /// The byte before `end` is delivered only after the whole body has been verified. So a bad body never looks
    /// complete, and neither does a range of it.
    ///
    /// # Errors
    /// The body turned out bad, its transfer broke off, or the disk failed. The caller must close the connection before
    /// the end of the body.
    pub async fn piece(&mut self, start: u64, end: u64, max: u64) -> io::Result<Option<Bytes>> {
        let (ready, bytes): (u64, Arc<dyn ReadAt>) = match self {
            Self::Whole(bytes) => {
                let end = usize::try_from(end.min(bytes.len() as u64)).map_err(io::Error::other)?;
                let start = usize::try_from(start).map_err(io::Error::other)?;
                return Ok((start < end).then(|| bytes.slice(start..end)));
            }
            Self::Blob(blob) => (blob.len, blob.bytes.clone()),
            Self::Arriving(arriving) => (
                arriving.wait_ready(start, end).await?,
                arriving.spool.clone(),
            ),
        };
        let end = end.min(ready).min(start + max.min(CHUNK_BYTES as u64));
        if start >= end {
            return Ok(None);
        }
        let len = usize::try_from(end - start).map_err(io::Error::other)?;
        bytes.read_at(start, len).await.map(Some)
    }
}

impl Arriving {
    /// Waits until a byte of `start..end` may be read or the body is complete. Returns the end of the readable bytes.
    async fn wait_ready(&mut self, start: u64, end: u64) -> io::Result<u64> {
        loop {
            match &*self.progress.borrow_and_update() {
                Progress::Asking => {}
                Progress::Arriving { ready, .. } => {
                    let ready = (*ready).min(end.saturating_sub(1));
                    if ready > start {
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
