//! [`MemoryBudget`]: the memory that arriving bodies may take together.
//!
//! Entries arrive in memory, and so do large bodies while the disk is full. Upstream decides how large they are, so a
//! bound for each body is not enough: many clients can ask for many bodies at once.
//!
//! A body takes its share as it arrives, and never waits while it holds a share. Waiting bodies would keep their
//! connection's flow-control window, and could wait for each other. If nothing is left, the caller drops the body,
//! waits with [`MemoryBudget::reserve`] for the most that the body may need, and requests it again.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit. Bodies up to this size do not count: the number of requests bounds them well enough, and under
/// pressure they need not wait behind large ones.
const UNIT_BYTES: u64 = 64 << 10;

/// The memory for arriving bodies. Cheap to clone; all clones are one budget.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    units: Arc<Semaphore>,
    limit: u64,
}

/// The share of one body, returned when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    share: Mutex<Option<OwnedSemaphorePermit>>,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("arriving bodies take all of their {} MB of memory (setting `memory`)", .limit >> 20)]
pub struct OverBudget {
    /// The budget in bytes.
    pub limit: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            units: Arc::new(Semaphore::new(units(limit) as usize)),
            limit,
        }
    }

    /// An empty share.
    pub fn reservation(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            share: Mutex::new(None),
        }
    }

    /// Waits until a body may take `bytes` bytes. Callers are served in their order.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let wanted = units(bytes.min(self.limit));
        // The semaphore is never closed.
        let share = self.units.clone().acquire_many_owned(wanted).await.ok();
        Reservation {
            budget: self.clone(),
            share: Mutex::new(share),
        }
    }
}

impl Reservation {
    /// Grows the share for a body that has `bytes` bytes now.
    ///
    /// # Errors
    /// [`OverBudget`]. The share is as it was.
    pub fn grow(&self, bytes: u64) -> Result<(), OverBudget> {
        let mut share = self.share.lock();
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = units(bytes).saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        if missing == 0 {
            return Ok(());
        }
        let more = self.budget.units.clone().try_acquire_many_owned(missing);
        let more = more.map_err(|_| OverBudget {
            limit: self.budget.limit,
        })?;
        match &mut *share {
            Some(share) => share.merge(more),
            None => *share = Some(more),
        }
        Ok(())
    }
}

/// The permits that a body of this size needs.
fn units(bytes: u64) -> u32 {
    let units = (bytes / UNIT_BYTES).min(u64::from(u32::MAX));
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[tokio::test]
    async fn bodies_share_the_budget_and_return_what_they_took() {
        let budget = MemoryBudget::new(10 * MB);
        let (first, second) = (budget.reservation(), budget.reservation());
        first.grow(6 * MB).unwrap();
        second.grow(4 * MB).unwrap();
        let refused = OverBudget { limit: 10 * MB };
        assert_eq!(second.grow(5 * MB), Err(refused));
        assert!(
            refused.to_string().contains("10 MB") && refused.to_string().contains("`memory`"),
            "{refused}"
        );
        second.grow(3 * MB).unwrap();
        budget.reservation().grow(UNIT_BYTES - 1).unwrap();
        drop(first);
        second.grow(10 * MB).unwrap();
    }

    #[tokio::test]
    async fn a_waiting_body_gets_what_others_return_before_new_bodies_do() {
        let budget = MemoryBudget::new(10 * MB);
        let first = budget.reservation();
        first.grow(6 * MB).unwrap();
        let waiter = budget.clone();
        let waiting = tokio::spawn(async move { waiter.reserve(20 * MB).await });
        tokio::task::yield_now().await;
        assert!(budget.reservation().grow(MB).is_err());
        drop(first);
        let whole = waiting.await.unwrap();
        whole.grow(10 * MB).unwrap();
        assert!(budget.reservation().grow(MB).is_err());
    }
}
