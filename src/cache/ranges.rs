//! RangeDownloads of a large body, fetched over connections of their own while the transfer goes on at its front: many servers limit
//! each connection. The transfer itself, and the proof of the whole, are `fetch`'s.
//!
//! ```text
//!  0         written                                     total
//!  |=========|> . . . |=======> . . |===> . . . . |=====> . . |
//!  the front: hashed, |  parts, ahead of it: in the spool, neither
//!  shown to clients   |  hashed nor shown before the front gets there
//! ```

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{Cache, fetch::HEAD_TIMEOUT};
use crate::{
    store::Spool,
    upstream::{Failure, Get, Origin, RangeRequest, Reply, UpstreamBody, retry_delay},
    validators::Validators,
};

/// The smallest body that is worth more connections.
const WORTH: u64 = 32 << 20;
/// RangeDownloads of one body at a time, besides its front.
const PARTS: usize = 3;
/// RangeDownloads of all bodies at a time.
const ROOM: usize = 12;
/// Attempts for one part. What is missing then comes from the front.
const ATTEMPTS: usize = 2;
/// How long the front waits for one part, which set out when the front did and should be as far. The rest of a slower one
/// is asked for anew.
const WAIT: Duration = Duration::from_secs(2);

/// Room for parts, and who shall not be asked for any.
#[derive(Debug)]
pub(super) struct RangeLimits {
    free: Arc<Semaphore>,
    /// Hosts whose parts made a wrong whole.
    distrusted: Mutex<HashSet<Origin>>,
}

impl RangeLimits {
    pub(super) fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(ROOM)),
            distrusted: Mutex::default(),
        }
    }

    /// Asks this origin for no more parts.
    pub(super) fn distrust(&self, origin: Origin) {
        self.distrusted().insert(origin);
    }

    /// Never held across an await.
    fn distrusted(&self) -> MutexGuard<'_, HashSet<Origin>> {
        self.distrusted.lock()
    }
}

/// The parts of one body that the front has not passed yet, in order.
#[derive(Debug, Default)]
pub(super) struct RangeDownloads {
    ahead: VecDeque<Ahead>,
    /// Whether any of the body came in a part.
    pub(super) are_used: bool,
}

#[derive(Debug)]
struct Ahead {
    span: Range<u64>,
    /// Up to where it has arrived; closed when it is over.
    arrived: watch::Receiver<u64>,
    /// How long the front has waited for it.
    waited: Duration,
    task: JoinHandle<()>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RangeDownloads {
    /// Where the stream from the front has to end because a part begins there. One that has nothing to show when the front
    /// gets there is given up.
    pub(super) async fn next_range_start(&mut self, front: u64) -> u64 {
        while let Some(next) = self.ahead.front() {
            let has_any = *next.arrived.borrow() > next.span.start;
            if has_any || (front < next.span.start && !next.task.is_finished()) {
                return next.span.start;
            }
            self.cancel_next().await;
        }
        u64::MAX
    }

    /// Up to where the front may go on with what has arrived, which it waits for; `None` if the next byte has to be asked
    /// for.
    pub(super) async fn arrived(&mut self, front: u64) -> Option<u64> {
        loop {
            let next = self.ahead.front_mut()?;
            if front < next.span.start {
                return None;
            }
            let arrived = *next.arrived.borrow_and_update();
            if arrived > front {
                self.are_used = true;
                return Some(arrived);
            }
            let began = Instant::now();
            let left = WAIT.saturating_sub(next.waited);
            let is_over = arrived == next.span.end
                || !matches!(timeout(left, next.arrived.changed()).await, Ok(Ok(())));
            next.waited += began.elapsed();
            if is_over {
                self.cancel_next().await;
            }
        }
    }

    /// Gives up all, and waits until none of them writes any more.
    pub(super) async fn cancel_all(&mut self) {
        while !self.ahead.is_empty() {
            self.cancel_next().await;
        }
    }

    async fn cancel_next(&mut self) {
        if let Some(mut next) = self.ahead.pop_front() {
            next.task.abort();
            // Aborted or done, it is over.
            let _ = (&mut next.task).await;
        }
    }
}

impl Cache {
    /// Begins to fetch parts of the body of `url` that `incoming` has begun to bring; none if it is not worth it, or upstream
    /// does not give any.
    pub(super) fn begin_parts(
        &self,
        incoming: &UpstreamBody,
        url: &url::Url,
        spool: &Arc<Spool>,
    ) -> RangeDownloads {
        let mut parts = RangeDownloads::default();
        let room = &self.0.parts;
        let (Some(validator), Some(total)) = (&incoming.range_validator, incoming.total) else {
            return parts;
        };
        if total < WORTH || room.distrusted().contains(&Origin::from(url)) {
            return parts;
        }
        let permits: Vec<_> = (0..PARTS)
            .map_while(|_| room.free.clone().try_acquire_owned().ok())
            .collect();
        for (span, permit) in plan(total, permits.len()).zip(permits) {
            let ask = Get {
                url: url.clone(),
                validators: Validators::default(),
                offset: span.start,
                range: Some(RangeRequest {
                    end: span.end,
                    validator: validator.clone(),
                }),
                compressible: false,
                read_timeout: HEAD_TIMEOUT,
            };
            let (progress, arrived) = watch::channel(span.start);
            let (cache, spool, end) = (self.clone(), spool.clone(), span.end);
            let task = tokio::spawn(async move {
                let _permit = permit;
                cache.fetch_part(ask, end, total, &spool, &progress).await;
            });
            parts.ahead.push_back(Ahead {
                span,
                arrived,
                waited: Duration::ZERO,
                task,
            });
        }
        parts
    }

    async fn fetch_part(
        &self,
        mut ask: Get,
        end: u64,
        total: u64,
        spool: &Spool,
        progress: &watch::Sender<u64>,
    ) {
        for tried in 1..=ATTEMPTS {
            ask.offset = *progress.borrow();
            let Err(failure) = self.bring_part(&ask, end, total, spool, progress).await else {
                return;
            };
            debug!(url = %ask.url, %failure, "a part broke off");
            match retry_delay(&failure, tried, fastrand::f64()) {
                Some(pause) if tried < ATTEMPTS => sleep(pause).await,
                Some(_) | None => return,
            }
        }
    }

    async fn bring_part(
        &self,
        ask: &Get,
        end: u64,
        total: u64,
        spool: &Spool,
        progress: &watch::Sender<u64>,
    ) -> Result<(), Failure> {
        let Reply::Body(mut incoming) = self.0.upstream.get(ask).await? else {
            return Ok(());
        };
        // Something else by now: its parts are of no use.
        if !incoming.is_partial || incoming.total != Some(total) {
            return Ok(());
        }
        let mut at = ask.offset;
        while let Some(mut chunk) = incoming.chunk().await? {
            chunk.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
            // Without room on the disk, the front goes on alone.
            if spool.write_at(at, &chunk).is_err() {
                return Ok(());
            }
            at += chunk.len() as u64;
            progress.send_replace(at);
            if at == end {
                break;
            }
        }
        Ok(())
    }
}

/// Where parts begin and end: the front keeps as much for itself as each of them gets.
fn plan(total: u64, parts: usize) -> impl Iterator<Item = Range<u64>> {
    let count = parts as u64 + 1;
    let size = total.div_ceil(count);
    (1..count).map(move |part| part * size..total.min((part + 1) * size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_the_front_cover_a_body_without_overlap() {
        for total in [WORTH, WORTH + 1, WORTH + 2, WORTH + 3, 1 << 40] {
            for parts in 0..=PARTS {
                let mut at = total.div_ceil(parts as u64 + 1);
                for part in plan(total, parts) {
                    assert!(part.start == at && part.end > at, "{total}: {part:?}");
                    at = part.end;
                }
                assert_eq!(at, total);
            }
        }
    }
}
