//! The transfer of one blob over all its attempts, into a spool that clients read meanwhile.
//!
//! ```text
//!   upstream ──> decode ──> spool ──> hasher          ready: all but the last chunk
//!                             └────────────────────────> clients
//! ```
//!
//! An attempt that breaks off keeps the bytes that it has written, and the next one asks for the rest with a range
//! request. Bytes of different attempts or ranges may belong to different bodies, if upstream replaced the file
//! meanwhile. The hash at the end catches that.
//!
//! Clients may read while the body arrives, but never its last chunk: if the hash turns out wrong, no client has a
//! complete body, and the connection is closed before its end.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use url::Url;

use super::{
    super::{flight::Progress, options::HEAD_TIMEOUT},
    decode::{BodyLimit, Decoder},
    ranges::{RangeDownloader, RangeDownloads},
    request::{plain_get, unexpected_304},
};
use crate::{
    hash::{Hasher, Sha256},
    resource::Resource,
    store::{CHUNK_BYTES, ReadAt as _, Spool, StoreError},
    upstream::{Failure, FailureKind, Get, Origin, Reply, Upstream, UpstreamBody},
};

/// Size from which clients may read a body that is still arriving. Before that, and before [`STREAM_AFTER`], a bad body
/// can still be answered with an error status.
const STREAM_FROM_BYTES: u64 = 64 << 10;
/// Age from which clients may read a body that is still arriving.
const STREAM_AFTER: Duration = Duration::from_millis(50);
/// Size up to which a body is verified before clients may read it, if its last transfer was aborted. No crate of
/// crates.io is larger.
const MAX_WITHHELD_BYTES: u64 = 16 << 20;
/// Bytes after which clients are notified again. Each notification wakes every client of the transfer, which for small
/// chunks costs more than copying the bytes.
const NOTIFY_BYTES: u64 = 256 << 10;
/// Space that a body without an announced size claims ahead of its bytes.
const SPACE_STEP_BYTES: u64 = 1 << 20;
/// Time after which clients are notified of fewer bytes.
const NOTIFY_AFTER: Duration = Duration::from_millis(10);

/// The failure of an attempt.
pub(super) enum TransferError {
    Failure(Failure),
    Store(StoreError),
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Where one response stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    /// At the end of the body.
    Body,
    /// At the start of a range that another connection downloads.
    Range,
    /// At the head: a body of so many bytes has to wait for space in the store. An unread response would take memory,
    /// so it is dropped.
    NoSpace(u64),
}

/// A blob's transfer.
pub(super) struct Transfer {
    pub(super) spool: Arc<Spool>,
    /// Number of contiguous bytes from the start of the body that are in the spool and hashed.
    pub(super) written: u64,
    /// Time of the last progress.
    pub(super) last_byte: Instant,
    /// True if clients may have read some of the body.
    pub(super) is_visible: bool,
    /// True if the transfer before this one failed while clients were reading it.
    pub(super) was_aborted: bool,
    hasher: Hasher,
    /// Size of the last chunk of `written`, which clients may not read yet.
    last_chunk: u64,
    /// Bytes of the current response that an earlier attempt has written already.
    skip: u64,
    /// Size of the body in bytes, if announced.
    total: Option<u64>,
    limit: BodyLimit,
    ranges: RangeDownloads,
    /// Start of the next range that another connection downloads. The main stream ends there.
    next_range: u64,
    started: Instant,
    /// Number of bytes that clients were last notified of, and when.
    notified: (u64, Instant),
}

impl Transfer {
    pub(super) fn new(resource: &Resource, spool: Arc<Spool>, was_aborted: bool) -> Self {
        let started = Instant::now();
        Self {
            spool,
            written: 0,
            last_byte: started,
            is_visible: false,
            was_aborted,
            hasher: Hasher::default(),
            last_chunk: 0,
            skip: 0,
            total: None,
            limit: BodyLimit::of(resource),
            ranges: RangeDownloads::default(),
            next_range: u64::MAX,
            started,
            notified: (0, started),
        }
    }

    /// Discards everything that was written.
    pub(super) async fn start_over(&mut self) -> Result<(), StoreError> {
        self.ranges.cancel_all().await;
        self.hasher = Hasher::default();
        self.written = 0;
        self.last_chunk = 0;
        self.total = None;
        self.spool
            .clear()
            .map_err(|source| StoreError::io("staging", source))
    }

    /// Makes one attempt to complete the body, and verifies its hash.
    pub(super) async fn attempt(
        &mut self,
        upstream: &Upstream,
        downloader: &RangeDownloader,
        url: &Url,
        expected: Sha256,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), TransferError> {
        loop {
            self.consume_ranges(progress).await;
            if self.written > 0 && self.total == Some(self.written) {
                break;
            }
            match self.stream(upstream, downloader, url, progress).await? {
                StreamEnd::Body => break,
                StreamEnd::Range => {}
                StreamEnd::NoSpace(bytes) => self.make_space(bytes).await?,
            }
        }
        let got = self.hasher.clone().finish();
        if got == expected {
            return Ok(());
        }
        if self.ranges.are_used {
            downloader.distrust(Origin::from(url));
        }
        Err(FailureKind::WrongHash { got, expected }.at(url).into())
    }

    /// Requests the body from `written` on, and streams it up to the next range or to its end.
    async fn stream(
        &mut self,
        upstream: &Upstream,
        downloader: &RangeDownloader,
        url: &Url,
        progress: &watch::Sender<Progress>,
    ) -> Result<StreamEnd, TransferError> {
        let get = Get {
            offset: self.written,
            ..plain_get(url.clone(), HEAD_TIMEOUT)
        };
        let Reply::Body(mut incoming) = upstream.get(&get).await? else {
            return Err(unexpected_304(url).into());
        };
        self.accept_head(&incoming, url)?;
        if let Some(total) = incoming.total.filter(|total| !self.spool.has_space(*total)) {
            return Ok(StreamEnd::NoSpace(total));
        }
        if self.written == 0 {
            self.ranges.cancel_all().await;
            self.ranges = downloader.start(&incoming, url, &self.spool);
        }
        self.next_range = self.ranges.next_range_start(self.written).await;
        let mut decoder = Decoder::new(incoming.coding);
        let limit = self.limit;
        while let Some(chunk) = incoming.chunk().await? {
            if self.written + chunk.len() as u64 >= self.next_range {
                self.next_range = self.ranges.next_range_start(self.next_range).await;
            }
            let end = self.written + chunk.len() as u64;
            if incoming.total.is_none() && !self.spool.has_space(end) {
                self.make_space(end + SPACE_STEP_BYTES).await?;
            }
            decoder.decode(&chunk, url, limit, |chunk| self.append(chunk, url))?;
            self.notify(progress);
            if self.written == self.next_range {
                return Ok(StreamEnd::Range);
            }
        }
        decoder.finish(url, |chunk| self.append(chunk, url))?;
        if self.total.is_some_and(|total| total != self.written) {
            let cause = format!("it ended after {} bytes", self.written);
            return Err(FailureKind::Broken { cause }.at(url).into());
        }
        Ok(StreamEnd::Body)
    }

    async fn make_space(&self, bytes: u64) -> Result<(), TransferError> {
        let made = self.spool.make_space(bytes).await;
        made.map_err(TransferError::Store)
    }

    /// Checks the announced size and notes how much of the response is known already.
    fn accept_head(&mut self, incoming: &UpstreamBody, url: &Url) -> Result<(), Failure> {
        self.skip = if incoming.is_partial { 0 } else { self.written };
        self.limit.check(incoming.total.unwrap_or(0), url)?;
        // Once clients can read the body, its size is in their response head.
        if !self.is_visible {
            self.total = incoming.total;
        }
        Ok(())
    }

    /// Appends a chunk of the main stream, except for bytes that are written already or belong to the next range.
    fn append(&mut self, chunk: &[u8], url: &Url) -> Result<(), TransferError> {
        let known = usize::try_from(self.skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        self.skip -= known as u64;
        let chunk = &chunk[known..];
        let until_range = usize::try_from(self.next_range - self.written).unwrap_or(usize::MAX);
        let chunk = &chunk[..chunk.len().min(until_range)];
        if chunk.is_empty() {
            return Ok(());
        }
        let end = self.written + chunk.len() as u64;
        if self.total.is_some_and(|total| end > total) {
            // Clients have been told this size. Excess bytes must not make a bad body look complete.
            let cause = "it is longer than announced".to_owned();
            return Err(FailureKind::Broken { cause }.at(url).into());
        }
        self.limit.check(end, url)?;
        self.spool
            .write(self.written, chunk)
            .map_err(|source| TransferError::Store(StoreError::io("staging", source)))?;
        self.advance(chunk);
        Ok(())
    }

    /// Counts a chunk that is in the spool as written.
    fn advance(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
        self.written += chunk.len() as u64;
        self.last_chunk = chunk.len() as u64;
        self.last_byte = Instant::now();
    }

    /// Advances over the ranges that begin at `written`, as they arrive.
    async fn consume_ranges(&mut self, progress: &watch::Sender<Progress>) {
        while let Some(arrived) = self.ranges.arrived(self.written).await {
            while self.written < arrived {
                let len = (arrived - self.written).min(CHUNK_BYTES as u64);
                let len = usize::try_from(len).unwrap_or(0);
                let Ok(chunk) = self.spool.read_at(self.written, len).await else {
                    // The disk is full, so the spool continues in memory, without the ranges.
                    return self.ranges.cancel_all().await;
                };
                self.advance(&chunk);
                self.notify(progress);
            }
        }
    }

    /// Notifies clients of new bytes, if there are enough of them or enough time has passed.
    fn notify(&mut self, progress: &watch::Sender<Progress>) {
        let ready = self.written - self.last_chunk;
        let is_due = if self.is_visible {
            let (bytes, at) = self.notified;
            ready >= bytes + NOTIFY_BYTES || at.elapsed() >= NOTIFY_AFTER
        } else {
            let is_withheld =
                self.was_aborted && self.total.unwrap_or(self.written) <= MAX_WITHHELD_BYTES;
            !is_withheld
                && (self.written >= STREAM_FROM_BYTES || self.started.elapsed() >= STREAM_AFTER)
        };
        if ready > 0 && is_due {
            self.is_visible = true;
            self.notified = (ready, Instant::now());
            progress.send_replace(Progress::Arriving {
                spool: self.spool.clone(),
                total: self.total,
                ready,
            });
        }
    }
}
