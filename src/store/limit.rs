//! The limit of the store's size: counts the store, and grants space to bodies that arrive.
//!
//! ```text
//!  lock the staging folder ── count ── grant ── staging/PROCESS/reserved gets the length that is granted ── unlock
//! ```
//!
//! `reserved` is a sparse file: it takes no space, but the counts of other processes include its length. So two
//! processes never grant the same space.

use super::{
    Space, SpaceCounter, SpaceLimit, SpaceNeed, Store, StoreError, blocking::blocking,
    staging::lock_folder,
};

impl Store {
    /// Counts the store, and grants waiting bodies the space that `limit` leaves; `None` grants everything. Returns the
    /// counter, the space, and what the granted and the waiting bodies need.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the thread for it was refused.
    pub async fn grant_space(
        &self,
        mut counter: SpaceCounter,
        limit: Option<SpaceLimit>,
    ) -> Result<(SpaceCounter, Space, SpaceNeed), StoreError> {
        let (staging, growth) = (self.staging.clone(), self.growth.clone());
        let counted = blocking(move || {
            let _lock = lock_folder(staging.folder());
            let (since, _) = growth.written_and_reserved();
            let own = staging.reserved();
            let space = counter.count_now();
            let need = growth.allow(limit, space.total.saturating_sub(own), since);
            if need.reserved != own {
                staging.set_reserved(need.reserved);
            }
            Ok((counter, space, need))
        });
        let counted = counted.await;
        counted.map_err(|source| StoreError::io(self.layout.top(), source))
    }

    /// Returns whether a body or a write of this process waits for space now.
    pub fn is_space_awaited(&self) -> bool {
        self.growth.is_awaited()
    }

    /// Waits until this process has stored a file, or a body needs or returns space, since the last call. For one
    /// caller.
    pub async fn size_changed(&self) {
        self.growth.wait().await;
    }
}
