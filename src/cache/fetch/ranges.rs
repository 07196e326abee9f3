//! Parallel downloads of ranges of one large body, since many servers limit the rate of each connection.
//!
//! ```text
//!  0         written                                     total
//!  |=========|> . . . |=======> . . |===> . . . . |=====> . . |
//!   main stream:       ranges: downloaded over connections of
//!   hashed, visible    their own into the same spool; neither
//!   to clients         hashed nor visible until the main stream
//!                      reaches them
//! ```
//!
//! The main stream ([`super::transfer`]) starts first. Ranges are possible if its response head has the size and a
//! strong validator, by which all ranges belong to the same body. Ranges are an optimisation only. A range that fails,
//! or that is slower than [`RANGE_TIMEOUT`], is cancelled, and the main stream downloads the rest. An origin whose
//! ranges produced a wrong hash gets no more range requests.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::debug;
use url::Url;

use super::{super::options::HEAD_TIMEOUT, request::plain_get};
use crate::{
    store::Spool,
    upstream::{Failure, Get, Origin, RangeRequest, Reply, Upstream, UpstreamBody, retry_delay},
};

/// Smallest body, in bytes, that is worth more than one connection.
const MIN_BODY_BYTES: u64 = 32 << 20;
/// Number of concurrent ranges of one body, besides its main stream.
const RANGES_PER_BODY: usize = 3;
/// Number of concurrent ranges of all bodies.
const MAX_RANGES: usize = 12;
/// Attempts for one range.
const RANGE_ATTEMPTS: usize = 2;
/// Total time that the main stream waits for one range. All of them start together, so a range should be complete by
/// the time it is reached.
const RANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts range downloads, within a limit for all bodies.
#[derive(Debug)]
pub(super) struct RangeDownloader {
    upstream: Arc<Upstream>,
    permits: Arc<Semaphore>,
    /// Origins whose ranges produced a wrong hash.
    distrusted: Mutex<HashSet<Origin>>,
}

impl RangeDownloader {
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            permits: Arc::new(Semaphore::new(MAX_RANGES)),
            distrusted: Mutex::default(),
        }
    }

    /// Sends no more range requests to `origin`.
    pub(super) fn distrust(&self, origin: Origin) {
        self.distrusted.lock().insert(origin);
    }

    /// Starts downloads of ranges of the body that `incoming` has begun to deliver. Starts none if the body is small,
    /// if upstream supports no ranges, or if no permits are left.
    pub(super) fn start(
        &self,
        incoming: &UpstreamBody,
        url: &Url,
        spool: &Arc<Spool>,
    ) -> RangeDownloads {
        let mut downloads = RangeDownloads::default();
        let (Some(validator), Some(total)) = (&incoming.range_validator, incoming.total) else {
            return downloads;
        };
        if total < MIN_BODY_BYTES || self.distrusted.lock().contains(&Origin::from(url)) {
            return downloads;
        }
        let permits: Vec<_> = (0..RANGES_PER_BODY)
            .map_while(|_| self.permits.clone().try_acquire_owned().ok())
            .collect();
        for (range, permit) in split(total, permits.len()).zip(permits) {
            let (arrived_sender, arrived) = watch::channel(range.start);
            let download = Download {
                upstream: self.upstream.clone(),
                get: Get {
                    offset: range.start,
                    range: Some(RangeRequest {
                        end: range.end,
                        validator: validator.clone(),
                    }),
                    ..plain_get(url.clone(), HEAD_TIMEOUT)
                },
                end: range.end,
                total,
                spool: spool.clone(),
                arrived: arrived_sender,
            };
            let task = tokio::spawn(async move {
                let _permit = permit;
                download.run().await;
            });
            downloads.pending.push_back(PendingRange {
                range,
                arrived,
                waited: Duration::ZERO,
                task,
            });
        }
        downloads
    }
}

/// The ranges of one body that the main stream has not passed yet, in order.
#[derive(Debug, Default)]
pub(super) struct RangeDownloads {
    pending: VecDeque<PendingRange>,
    /// True if any part of the body came from a range.
    pub(super) are_used: bool,
}

/// A range that is being downloaded. Dropping it cancels the download.
#[derive(Debug)]
struct PendingRange {
    range: Range<u64>,
    /// End of the bytes that have arrived. Closed when the download is over.
    arrived: watch::Receiver<u64>,
    /// Time that the main stream has waited for this range.
    waited: Duration,
    task: JoinHandle<()>,
}

impl Drop for PendingRange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RangeDownloads {
    /// The start of the next range, where a main stream at `position` has to end; `u64::MAX` without one. Cancels a
    /// range that has delivered nothing by the time the main stream reaches it.
    pub(super) async fn next_range_start(&mut self, position: u64) -> u64 {
        while let Some(next) = self.pending.front() {
            let has_any = *next.arrived.borrow() > next.range.start;
            if has_any || (position < next.range.start && !next.task.is_finished()) {
                return next.range.start;
            }
            self.cancel_next().await;
        }
        u64::MAX
    }

    /// Waits for bytes of the range that contains `position`, and returns the end of those that have arrived. `None` if
    /// the byte at `position` has to come from the main stream.
    pub(super) async fn arrived(&mut self, position: u64) -> Option<u64> {
        loop {
            let next = self.pending.front_mut()?;
            if position < next.range.start {
                return None;
            }
            let arrived = *next.arrived.borrow_and_update();
            if arrived > position {
                self.are_used = true;
                return Some(arrived);
            }
            let started = Instant::now();
            let left = RANGE_TIMEOUT.saturating_sub(next.waited);
            let is_over = arrived == next.range.end
                || !matches!(timeout(left, next.arrived.changed()).await, Ok(Ok(())));
            next.waited += started.elapsed();
            if is_over {
                self.cancel_next().await;
            }
        }
    }

    /// Cancels all ranges, and waits until none of them writes to the spool any more.
    pub(super) async fn cancel_all(&mut self) {
        while !self.pending.is_empty() {
            self.cancel_next().await;
        }
    }

    async fn cancel_next(&mut self) {
        if let Some(mut next) = self.pending.pop_front() {
            next.task.abort();
            // An error means that the task was aborted, which is intended.
            let _ = (&mut next.task).await;
        }
    }
}

/// The download of one range.
struct Download {
    upstream: Arc<Upstream>,
    get: Get,
    end: u64,
    /// Size of the whole body in bytes.
    total: u64,
    spool: Arc<Spool>,
    arrived: watch::Sender<u64>,
}

impl Download {
    async fn run(mut self) {
        for attempt in 1..=RANGE_ATTEMPTS {
            self.get.offset = *self.arrived.borrow();
            let Err(failure) = self.attempt().await else {
                return;
            };
            debug!(url = %self.get.url, %failure, "a range download failed");
            match retry_delay(&failure, attempt, fastrand::f64()) {
                Some(delay) if attempt < RANGE_ATTEMPTS => sleep(delay).await,
                Some(_) | None => return,
            }
        }
    }

    async fn attempt(&self) -> Result<(), Failure> {
        let Reply::Body(mut incoming) = self.upstream.get(&self.get).await? else {
            return Ok(());
        };
        // Upstream has another body by now.
        if !incoming.is_partial || incoming.total != Some(self.total) {
            return Ok(());
        }
        let mut position = self.get.offset;
        while let Some(mut chunk) = incoming.chunk().await? {
            chunk.truncate(usize::try_from(self.end - position).unwrap_or(usize::MAX));
            // If the disk is full, the main stream continues alone.
            if self.spool.write_at(position, &chunk).is_err() {
                return Ok(());
            }
            position += chunk.len() as u64;
            self.arrived.send_replace(position);
            if position == self.end {
                break;
            }
        }
        Ok(())
    }
}

/// Splits a body of `total` bytes into `ranges` ranges and a beginning of the same size, which the main stream
/// downloads.
fn split(total: u64, ranges: usize) -> impl Iterator<Item = Range<u64>> {
    let count = ranges as u64 + 1;
    let size = total.div_ceil(count);
    (1..count).map(move |number| number * size..total.min((number + 1) * size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_stream_and_ranges_cover_a_body_without_overlap() {
        let smallest = MIN_BODY_BYTES;
        for total in [smallest, smallest + 1, smallest + 2, smallest + 3, 1 << 40] {
            for ranges in 0..=RANGES_PER_BODY {
                let mut end = total.div_ceil(ranges as u64 + 1);
                for range in split(total, ranges) {
                    assert!(range.start == end && range.end > end, "{total}: {range:?}");
                    end = range.end;
                }
                assert_eq!(end, total);
            }
        }
    }
}
