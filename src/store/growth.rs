//! [`Growth`]: the space that this process may still take, if the store has a limit.
//!
//! A large body claims its space before it is written, so that eviction runs ahead of the writes. Small files are
//! reported when they are stored.
//!
//! ```text
//!  spool ── reserve(size of the body) ──> granted at once, if it is small compared to the limit
//!                     │
//!                     └─ waits ──> evictor: counts the store, grants what fits, in order; evicts for the rest
//!                                  (a small claim may overtake a large one, within bounds)
//! ```
//!
//! Space that is granted and not written yet counts like stored files. `limit` tells other processes of it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Longest time that the write of a small file waits for space.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Longest time that a body of a command waits for space.
const MAX_COMMAND_WAIT: Duration = Duration::from_secs(15);
/// A claim of up to one part in this many of the limit is granted without another count of the store.
const SMALL_PARTS: u64 = 100;
/// Space that files are allotted in, on most file systems.
const BLOCK_BYTES: u64 = 4096;

/// The space that a new file of this size probably takes, with its first line if it is an entry.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES
}

/// A body for which `max-size` leaves no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSpace {
    /// It is larger than any that is stored.
    #[error(
        "`max-size` ({}) takes no body above {}; raise it",
        megabytes(*.max),
        megabytes(*.largest)
    )]
    TooLarge {
        /// The limit in bytes.
        max: u64,
        /// The largest body that is stored, in bytes.
        largest: u64,
    },
    /// Other bodies are arriving, and what is stored cannot be removed.
    #[error("arriving bodies and what must stay take all of `max-size` ({}); raise it", megabytes(*.max))]
    Busy {
        /// The limit in bytes.
        max: u64,
    },
}

fn megabytes(bytes: u64) -> String {
    match bytes / 1_000_000 {
        0 => format!("{} kB", bytes / 1000),
        whole => format!("{whole} MB"),
    }
}

impl From<NoSpace> for io::Error {
    fn from(error: NoSpace) -> Self {
        Self::new(io::ErrorKind::StorageFull, error)
    }
}

/// The limit that claims have to keep to. All values are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceLimit {
    /// The limit of the user.
    pub max: u64,
    /// Space that the store may take before claims wait.
    pub usable: u64,
    /// The largest body that is stored.
    pub largest: u64,
    /// True for a command that must store what it fetches: a body that has waited long is written without space.
    pub is_soft: bool,
}

/// The space that claims need after a count. All values are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceNeed {
    /// Granted, and not written yet.
    pub reserved: u64,
    /// Wanted by claims that wait.
    pub waiting: u64,
    /// True if not even a small file has space.
    pub is_full: bool,
}

/// Growth by this process.
#[derive(Debug)]
pub(super) struct Growth {
    /// Wakes the evictor.
    changed: Notify,
    accounts: Mutex<Accounts>,
    /// Signals that waiting claims may have been granted or refused.
    decided: watch::Sender<()>,
    /// True while nothing is free.
    is_full: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Accounts {
    limit: SpaceLimit,
    /// Space that is neither stored nor granted; `None` without a limit.
    free: Option<u64>,
    /// All bytes that were ever written. Tells what was written since a count began.
    written: u64,
    /// Bytes written under claims since the last count.
    uncounted: u64,
    next_id: u64,
    claims: HashMap<u64, Account>,
    /// Claims that wait, in their order.
    queue: VecDeque<u64>,
}

/// The space of one body.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    granted: u64,
    written: u64,
    /// Size of the body, while it waits for more than it was granted.
    wanted: Option<u64>,
    /// Bytes granted to later claims while this one waits.
    overtaken: u64,
}

impl Accounts {
    /// Granted bytes that are not written yet.
    fn reserved(&self) -> u64 {
        let accounts = self.claims.values();
        accounts
            .map(|account| account.granted.saturating_sub(account.written))
            .sum()
    }

    /// Bytes that `id` needs besides those that it was granted, for a body of `bytes` bytes.
    fn missing(&self, id: u64, bytes: u64) -> u64 {
        let granted = self.claims.get(&id).map_or(0, |account| account.granted);
        bytes.saturating_sub(granted)
    }

    /// Grants `id` a body of `bytes` bytes if that much is free, and returns whether it has it now.
    fn try_grant(&mut self, id: u64, bytes: u64) -> bool {
        let is_free = self.free.is_none_or(|free| free >= self.missing(id, bytes));
        if is_free {
            self.grant(id, bytes);
        }
        is_free
    }

    /// Grants `id` a body of `bytes` bytes, free or not.
    fn grant(&mut self, id: u64, bytes: u64) {
        let missing = self.missing(id, bytes);
        self.free = self.free.map(|free| free.saturating_sub(missing));
        let account = self.claims.entry(id).or_default();
        account.granted += missing;
        account.wanted = None;
        account.overtaken = 0;
    }

    /// Grants what fits to those that wait, in their order. Later claims may take space that does not suffice for an
    /// earlier one, but no more bytes than that one waits for: otherwise small bodies would keep a large one out.
    fn serve_queue(&mut self) {
        let mut may_overtake = u64::MAX;
        for id in std::mem::take(&mut self.queue) {
            let account = self.claims.get(&id).copied().unwrap_or_default();
            // `SpaceClaim::result` refuses a body that is too large.
            let is_possible = |bytes: &u64| self.refusal(*bytes).is_none();
            let Some(bytes) = account.wanted.filter(is_possible) else {
                continue;
            };
            let missing = self.missing(id, bytes);
            if missing <= may_overtake && self.try_grant(id, bytes) {
                may_overtake -= missing;
                for earlier in &self.queue {
                    if let Some(account) = self.claims.get_mut(earlier) {
                        account.overtaken += missing;
                    }
                }
            } else {
                may_overtake = may_overtake.min(missing.saturating_sub(account.overtaken));
                self.queue.push_back(id);
            }
        }
    }

    /// Why a body of this size is never stored.
    fn refusal(&self, bytes: u64) -> Option<NoSpace> {
        let SpaceLimit { max, largest, .. } = self.limit;
        (self.free.is_some() && bytes > largest).then_some(NoSpace::TooLarge { max, largest })
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            changed: Notify::new(),
            accounts: Mutex::default(),
            decided: watch::Sender::new(()),
            is_full: watch::Sender::new(false),
        }
    }
}

impl Growth {
    /// Reports that a file was stored that took so many bytes besides those of its claim.
    pub(super) fn report(&self, bytes: u64) {
        let mut accounts = self.accounts.lock();
        accounts.written += bytes;
        if let Some(free) = &mut accounts.free {
            *free = free.saturating_sub(bytes);
        }
        let is_full = accounts.free == Some(0);
        drop(accounts);
        self.set_full(is_full);
        self.changed.notify_one();
    }

    /// Waits until something was stored, claimed or given back since the last wait. For one caller.
    pub(super) async fn wait(&self) {
        self.changed.notified().await;
    }

    /// The bytes written so far, and the granted ones that are not written yet.
    pub(super) fn written_and_reserved(&self) -> (u64, u64) {
        let accounts = self.accounts.lock();
        (accounts.written, accounts.reserved())
    }

    /// Sets the limit, and grants waiting claims what it allows. The store took `counted` bytes besides those reserved
    /// by this process; the count began when this process had written `since` bytes. `None` lifts the limit.
    pub(super) fn allow(&self, limit: Option<SpaceLimit>, counted: u64, since: u64) -> SpaceNeed {
        let mut accounts = self.accounts.lock();
        accounts.limit = limit.unwrap_or_default();
        accounts.uncounted = 0;
        accounts.free = limit.map(|limit| {
            let new = accounts.written.saturating_sub(since);
            let taken = counted.saturating_add(new);
            let taken = taken.saturating_add(accounts.reserved());
            limit.usable.saturating_sub(taken)
        });
        accounts.serve_queue();
        let wanted = accounts.queue.iter().filter_map(|id| {
            let account = accounts.claims.get(id)?;
            Some(account.wanted?.saturating_sub(account.granted))
        });
        let need = SpaceNeed {
            reserved: accounts.reserved(),
            waiting: wanted.sum(),
            is_full: accounts.free == Some(0),
        };
        drop(accounts);
        self.set_full(need.is_full);
        self.decided.send_replace(());
        need
    }

    fn set_full(&self, is_full: bool) {
        self.is_full.send_if_modified(|known| {
            let was_full = std::mem::replace(known, is_full);
            was_full != is_full
        });
    }

    /// Returns whether a body or the write of a small file waits for space now.
    pub(super) fn is_awaited(&self) -> bool {
        let accounts = self.accounts.lock();
        let is_waiting = |id| {
            let account = accounts.claims.get(id);
            account.is_some_and(|account| account.wanted.is_some())
        };
        self.is_full.receiver_count() > 0 || accounts.queue.iter().any(is_waiting)
    }

    /// Waits while nothing is free, but not for long: the limit is no reason to serve nothing.
    pub(super) async fn wait_for_space(&self) {
        if *self.is_full.borrow() {
            let mut is_full = self.is_full.subscribe();
            let _ = timeout(MAX_WAIT, is_full.wait_for(|is_full| !is_full)).await;
        }
    }

    /// A claim of nothing, for a body that begins to arrive.
    pub(super) fn claim(self: &Arc<Self>) -> SpaceClaim {
        let mut accounts = self.accounts.lock();
        accounts.next_id += 1;
        SpaceClaim {
            id: accounts.next_id,
            growth: self.clone(),
        }
    }
}

/// The space of one body on disk, given back when dropped.
#[derive(Debug)]
pub(super) struct SpaceClaim {
    id: u64,
    growth: Arc<Growth>,
}

impl SpaceClaim {
    /// Returns whether a body of `bytes` bytes may be written, without waiting for anything.
    pub(super) fn has(&self, bytes: u64) -> bool {
        let mut accounts = self.growth.accounts.lock();
        let missing = accounts.missing(self.id, bytes);
        let is_small = accounts.free.is_none() || missing <= accounts.limit.max / SMALL_PARTS;
        let has = missing == 0
            || (is_small
                && accounts.refusal(bytes).is_none()
                && accounts.try_grant(self.id, bytes));
        drop(accounts);
        if has && missing > 0 {
            self.growth.changed.notify_one();
        }
        has
    }

    /// Waits until a body of `bytes` bytes may be written, for `patience` at most. A command waits longer, and then
    /// writes it all the same.
    ///
    /// # Errors
    /// [`NoSpace`]: it is too large, or nothing was freed in time.
    pub(super) async fn reserve(&self, bytes: u64, mut patience: Duration) -> Result<(), NoSpace> {
        let mut decided = self.growth.decided.subscribe();
        {
            let mut accounts = self.growth.accounts.lock();
            let account = accounts.claims.entry(self.id).or_default();
            if account.granted >= bytes {
                return Ok(());
            }
            account.wanted = Some(bytes);
            if !accounts.queue.contains(&self.id) {
                accounts.queue.push_back(self.id);
            }
            if accounts.limit.is_soft {
                patience = MAX_COMMAND_WAIT;
            }
        }
        self.growth.changed.notify_one();
        let granted = async {
            loop {
                if let Some(result) = self.result(bytes) {
                    return result;
                }
                // The sender lives as long as `self.growth`.
                let _ = decided.changed().await;
            }
        };
        match timeout(patience, granted).await {
            Ok(result) => result,
            Err(_) => {
                let mut accounts = self.growth.accounts.lock();
                let SpaceLimit { max, is_soft, .. } = accounts.limit;
                if is_soft || accounts.missing(self.id, bytes) == 0 {
                    accounts.grant(self.id, bytes);
                    return Ok(());
                }
                if let Some(account) = accounts.claims.get_mut(&self.id) {
                    account.wanted = None;
                }
                Err(NoSpace::Busy { max })
            }
        }
    }

    /// The decision about a body of `bytes` bytes that waits; `None` if there is none yet.
    fn result(&self, bytes: u64) -> Option<Result<(), NoSpace>> {
        let mut accounts = self.growth.accounts.lock();
        let refusal = accounts.refusal(bytes);
        let account = accounts.claims.get_mut(&self.id)?;
        if account.granted >= bytes {
            return Some(Ok(()));
        }
        let refusal = refusal?;
        account.wanted = None;
        Some(Err(refusal))
    }

    /// Counts `len` bytes as written, which end at `end` in the body. Claims more if that is free.
    ///
    /// # Errors
    /// [`NoSpace`]: they must not be written.
    pub(super) fn write(&self, end: u64, len: u64) -> Result<(), NoSpace> {
        let mut accounts = self.growth.accounts.lock();
        let SpaceLimit { max, is_soft, .. } = accounts.limit;
        if let Some(refusal) = accounts.refusal(end) {
            return Err(refusal);
        }
        if !accounts.try_grant(self.id, end) {
            if !is_soft {
                return Err(NoSpace::Busy { max });
            }
            accounts.grant(self.id, end);
        }
        let account = accounts.claims.entry(self.id).or_default();
        // Ranges that were cancelled are written twice.
        let new = len.min(account.granted.saturating_sub(account.written));
        account.written += new;
        accounts.written += new;
        accounts.uncounted += new;
        // Other processes count these bytes twice, as written and as reserved, until the next count here.
        let is_due = accounts.free.is_some() && accounts.uncounted > max / SMALL_PARTS;
        drop(accounts);
        if is_due {
            self.growth.changed.notify_one();
        }
        Ok(())
    }

    /// The bytes that [`SpaceClaim::write`] has counted.
    pub(super) fn written(&self) -> u64 {
        let accounts = self.growth.accounts.lock();
        let account = accounts.claims.get(&self.id);
        account.map_or(0, |account| account.written)
    }

    /// Counts nothing as written: the file was emptied.
    pub(super) fn clear(&self) {
        if let Some(account) = self.growth.accounts.lock().claims.get_mut(&self.id) {
            account.written = 0;
        }
    }

    /// Gives back what is not written: the body is complete, or it is not on disk any more.
    pub(super) fn end(&self) {
        if self
            .growth
            .accounts
            .lock()
            .claims
            .remove(&self.id)
            .is_some()
        {
            self.growth.changed.notify_one();
        }
    }
}

impl Drop for SpaceClaim {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: SpaceLimit = SpaceLimit {
        max: 1000,
        usable: 900,
        largest: 500,
        is_soft: false,
    };
    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn writes_wait_while_the_store_is_full_but_not_for_long() {
        let growth = Growth::default();
        let waited = async || {
            let started = tokio::time::Instant::now();
            growth.wait_for_space().await;
            started.elapsed()
        };
        assert_eq!(waited().await, Duration::ZERO);
        growth.allow(Some(LIMIT), 800, 0);
        growth.report(60);
        assert_eq!(waited().await, Duration::ZERO);
        growth.report(60);
        assert_eq!(waited().await, MAX_WAIT);
        let freed = async {
            tokio::time::sleep(MAX_WAIT / 4).await;
            growth.allow(None, 0, 0);
        };
        let (waited, ()) = tokio::join!(waited(), freed);
        assert!(waited < MAX_WAIT / 2, "{waited:?}");
        growth.report(u64::MAX / 2);
        growth.wait_for_space().await;
        assert!(!*growth.is_full.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_claim_waits_for_a_count_and_is_granted_in_its_order() {
        let growth = Arc::new(Growth::default());
        growth.allow(Some(LIMIT), 500, 0);
        let [first, second, small] = [(); 3].map(|()| growth.claim());
        assert!(!first.has(300), "another process may have taken the space");
        assert!(small.has(10));
        let counted = async {
            tokio::time::sleep(SOON / 2).await;
            growth.allow(Some(LIMIT), 500, 0)
        };
        let (granted, refused, need) =
            tokio::join!(first.reserve(300, SOON), second.reserve(200, SOON), counted);
        assert_eq!(granted, Ok(()));
        assert_eq!(refused, Err(NoSpace::Busy { max: 1000 }));
        let expected = SpaceNeed {
            reserved: 310,
            waiting: 200,
            is_full: false,
        };
        assert_eq!(need, expected);
        assert!(first.has(300) && first.write(300, 300).is_ok());
        assert!(second.write(91, 91).is_err());
        // The count sees what the first has written.
        assert_eq!(growth.allow(Some(LIMIT), 800, 300).reserved, 10);
        drop((first, small));
        assert_eq!(growth.allow(Some(LIMIT), 500, 300).reserved, 0);
        assert!(second.write(91, 91).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn small_claims_overtake_a_large_one_by_no_more_bytes_than_it_waits_for() {
        let growth = Arc::new(Growth::default());
        growth.allow(Some(LIMIT), 500, 0);
        let [arriving, large, one, two, three] = [(); 5].map(|()| growth.claim());
        let allow = || growth.allow(Some(LIMIT), 500, 0);
        let (granted, _) = tokio::join!(arriving.reserve(50, SOON), async { allow() });
        assert_eq!(granted, Ok(()));
        // 350 bytes are free.
        let counted = async {
            tokio::time::sleep(SOON / 4).await;
            allow();
            tokio::time::sleep(SOON / 4).await;
            // The space of the first one is given back, and would suffice for the third.
            one.end();
            allow()
        };
        let (large, one_granted, two, three, need) = tokio::join!(
            large.reserve(400, SOON),
            one.reserve(200, SOON),
            two.reserve(150, SOON),
            three.reserve(100, SOON),
            counted
        );
        assert_eq!((one_granted, two), (Ok(()), Ok(())));
        let busy = Err(NoSpace::Busy { max: 1000 });
        assert_eq!((large, three), (busy, busy));
        assert_eq!((need.reserved, need.waiting), (200, 500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_a_command_waits_longer_and_is_then_written_all_the_same() {
        let growth = Arc::new(Growth::default());
        let limit = SpaceLimit {
            is_soft: true,
            ..LIMIT
        };
        growth.allow(Some(limit), 800, 0);
        let claim = growth.claim();
        let started = tokio::time::Instant::now();
        assert_eq!(claim.reserve(400, SOON).await, Ok(()));
        assert_eq!(started.elapsed(), MAX_COMMAND_WAIT);
        // It is longer than announced.
        assert_eq!(claim.write(450, 450), Ok(()));
        assert_eq!(growth.written_and_reserved(), (450, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_can_never_be_stored_is_refused_at_once() {
        let growth = Arc::new(Growth::default());
        growth.allow(Some(LIMIT), 0, 0);
        let (body, other) = (growth.claim(), growth.claim());
        let started = tokio::time::Instant::now();
        let refusal = NoSpace::TooLarge {
            max: 1000,
            largest: 500,
        };
        assert_eq!(body.reserve(501, SOON).await, Err(refusal));
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(body.write(501, 501), Err(refusal));
        let text = NoSpace::TooLarge {
            max: 6_000_000,
            largest: 3_000_000,
        };
        assert_eq!(
            text.to_string(),
            "`max-size` (6 MB) takes no body above 3 MB; raise it"
        );
        // It does not hold up others, and without a limit everything is stored.
        let (granted, _) = tokio::join!(other.reserve(500, SOON), async {
            growth.allow(Some(LIMIT), 0, 0)
        });
        assert_eq!(granted, Ok(()));
        growth.allow(None, 0, 0);
        assert!(body.has(501));
    }
}
