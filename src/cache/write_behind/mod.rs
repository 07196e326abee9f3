//! Write-behind: clients get their answer first, the disk gets it later.
//!
//! ```text
//!  fetch or revalidation ──> buffer ──> (schedule: clients idle) ──> store
//!                              ^
//!  lookup ─────────────────────┘ reads the buffer first, so an update takes effect at once
//! ```
//!
//! [`buffer`] holds pending updates, [`schedule`] says when to write, and this module writes. Writes of one entry are
//! serialised, and a newer update replaces one that is still pending. If a write fails, clients have still been
//! served; the update is discarded, and the next request fetches the entry again. So a full disk turns the cache into
//! a pass-through.
//!
//! A crash loses what is buffered. That costs a download, never a wrong byte. [`WriteBehind::flush`] waits for one
//! entry, and [`WriteBehind::flush_all`] empties the buffer on shutdown.

mod buffer;
mod schedule;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};
use tracing::warn;

pub(super) use buffer::Update;

use super::invalidation::Invalidations;
use crate::{
    clock::now,
    error::{Error, chain},
    hash::Sha256,
    resource::{Key, Resource},
    store::{Entry, FileIdentity, Spool, Store, StoreError},
};
use buffer::{Buffer, FlushGuard};
use schedule::FlushScheduler;

/// Writers that [`WriteBehind::flush_all`] adds. Writes mostly wait for the disk, which syncs several files at a time
/// about as fast as one.
const FINAL_WRITERS: usize = 16;

/// The write-behind buffer over a store. Cheap to clone; all clones are one buffer.
#[derive(Clone, Debug)]
pub(super) struct WriteBehind(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    invalidations: Arc<Invalidations>,
    buffer: Arc<Buffer>,
    scheduler: FlushScheduler,
    /// One permit per concurrent write.
    writers: Semaphore,
    /// True if writes wait until clients are idle. `warm` has no clients and writes at once.
    has_clients: bool,
}

impl WriteBehind {
    /// A buffer that writes to `store`, at most `writers` files at a time.
    pub(super) fn new(
        store: Arc<Store>,
        invalidations: Arc<Invalidations>,
        writers: usize,
        has_clients: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            invalidations,
            buffer: Arc::default(),
            scheduler: FlushScheduler::new(),
            writers: Semaphore::new(writers),
            has_clients,
        }))
    }

    /// Records client activity, which delays writes.
    pub(super) fn client_active(&self) {
        self.0.scheduler.client_active();
    }

    /// Time since the last client activity.
    pub(super) fn client_idle_time(&self) -> Duration {
        self.0.scheduler.idle_time()
    }

    /// Waits while the buffer is full.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk has hung.
    pub(super) async fn wait_for_capacity(&self) -> Result<(), StoreError> {
        self.0.scheduler.wait_for_capacity().await
    }

    /// The buffered update of `key`.
    pub(super) fn update(&self, key: &Key) -> Option<Update> {
        self.0.buffer.update(key)
    }

    /// Number of entries that clients have been served and the disk does not have yet.
    pub(super) fn pending(&self) -> usize {
        self.0.buffer.len()
    }

    /// Buffers an update: lookups see it at once, and the disk gets it when clients are idle.
    pub(super) fn write_later(&self, resource: &Resource, key: &Key, update: Update) {
        let bytes = update.bytes();
        let Some(guard) = self.0.buffer.add(resource, key, update) else {
            return;
        };
        let this = self.clone();
        tokio::spawn(async move { this.write_when_idle(guard, bytes).await });
    }

    async fn write_when_idle(&self, guard: FlushGuard, bytes: u64) {
        let _pending = if self.0.has_clients {
            self.0.scheduler.wait_for_idle(bytes).await
        } else {
            self.0.scheduler.add_pending(bytes)
        };
        // A failure has been logged, and no caller waits for this write.
        let _ = self.flush(guard.key()).await;
    }

    /// Writes the pending update of `key`, or waits until its writer has. Returns whether an update was pending.
    ///
    /// # Errors
    /// The write failed or the writer stopped.
    pub(super) async fn flush(&self, key: &Key) -> Result<bool, Error> {
        let Some(write) = self.0.buffer.get(key) else {
            return Ok(false);
        };
        let mut result = write.write_lock.lock().await;
        let _permit = self.0.writers.acquire().await;
        while let Some((version, update)) = self.0.buffer.next_update(key, &write) {
            // Stays `None` if the write below panics.
            *result = None;
            *result = Some(self.write(&write.resource, key, update).await);
            self.0.buffer.finish(key, &write, version);
        }
        match &*result {
            Some(result) => result.clone().map(|()| true),
            None => Err(Error::Abandoned {
                resource: write.resource.to_string(),
            }),
        }
    }

    /// Writes one update, unless another process has stored a newer one.
    ///
    /// # Errors
    /// A body could not be written. A check time that could not be written costs one revalidation and is only logged.
    pub(super) async fn write(
        &self,
        resource: &Resource,
        key: &Key,
        update: Update,
    ) -> Result<(), Error> {
        // A dependency of a changed entry may have been invalidated while its own update was buffered.
        let effective = |checked| self.0.invalidations.effective_checked(key, checked);
        let store = &self.0.store;
        match update.clone() {
            Update::Entry(mut entry) => {
                entry.checked = effective(entry.checked);
                let keeps = move |stored: &Entry| !update.supersedes(stored, now());
                let written = store.put_entry_unless(key, &entry, keeps).await;
                written.map_err(|error| self.write_error(resource, &error))
            }
            Update::Checked(_, checked) => {
                let applies = move |stored: &Entry| update.supersedes(stored, now());
                let marked = store.mark_checked(key, effective(checked), applies).await;
                if let Err(error) = marked
                    && !error.is_read_only()
                {
                    warn!(%resource, error = %chain(&error), "cannot write the check time of an entry");
                }
                Ok(())
            }
        }
    }

    /// Stores a verified body as the blob `sha256`, when clients are idle. Returns the file that has it.
    ///
    /// # Errors
    /// The blob could not be written.
    pub(super) async fn write_blob(
        &self,
        resource: &Resource,
        spool: Arc<Spool>,
        sha256: Sha256,
    ) -> Result<FileIdentity, Error> {
        let _pending = match self.0.has_clients {
            true => Some(self.0.scheduler.wait_for_idle(spool.memory_bytes()).await),
            false => None,
        };
        let _permit = self.0.writers.acquire().await;
        let written = self.0.store.put_blob(spool, sha256).await;
        written.map_err(|error| self.write_error(resource, &error))
    }

    /// Writes everything that is pending, without further delays and with more writers: no client is left to delay.
    pub(super) async fn flush_all(&self) {
        self.0.scheduler.shut_down();
        self.0.writers.add_permits(FINAL_WRITERS);
        let mut writes = JoinSet::new();
        for key in self.0.buffer.keys() {
            let this = self.clone();
            writes.spawn(async move { this.flush(&key).await });
        }
        // A failure has been logged. A panic must not keep the other entries from being written.
        while writes.join_next().await.is_some() {}
    }

    /// The error of a failed write. Without clients, the caller's report tells it.
    fn write_error(&self, resource: &Resource, error: &StoreError) -> Error {
        // The daemon has said once that its store is read-only.
        if self.0.has_clients && !error.is_read_only() {
            warn!(%resource, error = %chain(error), "served but not stored");
        }
        Error::store("store", resource, error)
    }

    /// Fills the buffer, as if the disk had hung.
    #[cfg(test)]
    pub(super) async fn fill(&self) -> impl Drop {
        self.0.scheduler.wait_for_idle(1 << 30).await
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt, fs, path::Path};

    use bytes::Bytes;
    use tokio::time::{sleep, timeout};
    use url::Url;

    use super::*;
    use crate::{
        resource::{IndexEntry, Kind, Location, Policy, Registries, Source},
        validators::Validators,
    };

    /// An index entry whose name cannot be formatted, so that a writer that reports a failure panics.
    #[derive(Debug)]
    struct PanicsWhenNamed(Resource);

    impl fmt::Display for PanicsWhenNamed {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("on purpose: the writer panics");
        }
    }

    impl Kind for PanicsWhenNamed {
        fn location(&self) -> Location {
            self.0.location()
        }

        fn policy(&self) -> Policy {
            self.0.policy()
        }

        fn source(&self) -> Source {
            self.0.source()
        }
    }

    /// A buffer over a store that cannot write entries, a resource with its key, and an update of it.
    fn setup(folder: &Path) -> (WriteBehind, Resource, Key, Update) {
        let store = Arc::new(Store::open(folder).unwrap());
        fs::create_dir(folder.join("v1")).unwrap();
        fs::write(folder.join("v1/entries"), "a file in the folder's place").unwrap();
        let registries = Registries::new(Url::parse("http://127.0.0.1:9/").unwrap(), []);
        let resource = IndexEntry::of(registries.crates_io(), "left").unwrap();
        let Location::Entry(key) = resource.location() else {
            panic!("an index entry is stored as an entry");
        };
        let entry = Entry::new(
            Bytes::from_static(b"body"),
            Validators::default(),
            None,
            now(),
        );
        let write_behind = WriteBehind::new(store, Arc::default(), 2, true);
        (write_behind, resource, key, Update::Entry(entry))
    }

    async fn wait_until_empty(write_behind: &WriteBehind) {
        let empty = async {
            while write_behind.pending() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let empty = timeout(Duration::from_secs(10), empty).await;
        empty.expect("the buffer becomes empty");
    }

    #[tokio::test]
    async fn a_failed_write_is_reported_by_flush_and_leaves_the_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let (write_behind, resource, key, update) = setup(folder.path());
        write_behind.write_later(&resource, &key, update.clone());
        assert!(write_behind.update(&key).is_some());
        let flushed = write_behind.flush(&key).await;
        assert!(matches!(flushed, Err(Error::Store { .. })), "{flushed:?}");
        assert!(write_behind.update(&key).is_none());
        let written = write_behind.write(&resource, &key, update).await;
        assert!(matches!(written, Err(Error::Store { .. })), "{written:?}");
    }

    #[tokio::test]
    async fn after_a_writer_panics_the_next_update_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (write_behind, resource, key, update) = setup(folder.path());
        let resource: Resource = Arc::new(PanicsWhenNamed(resource));
        write_behind.write_later(&resource, &key, update.clone());
        assert_eq!(write_behind.pending(), 1);
        wait_until_empty(&write_behind).await;
        fs::remove_file(folder.path().join("v1/entries")).unwrap();
        write_behind.write_later(&resource, &key, update);
        wait_until_empty(&write_behind).await;
        let stored = write_behind.0.store.entry(&key).await.unwrap().unwrap();
        assert_eq!(&stored.body[..], b"body");
    }

    #[tokio::test]
    async fn the_flush_on_shutdown_has_more_writers() {
        let folder = tempfile::tempdir().unwrap();
        let (write_behind, resource, key, update) = setup(folder.path());
        fs::remove_file(folder.path().join("v1/entries")).unwrap();
        write_behind.write_later(&resource, &key, update);
        let busy = write_behind.0.writers.acquire_many(2).await.unwrap();
        let flushed = timeout(Duration::from_secs(10), write_behind.flush_all()).await;
        flushed.expect("it waits for no other write");
        assert!(write_behind.0.store.entry(&key).await.unwrap().is_some());
        drop(busy);
    }

    #[tokio::test]
    async fn a_panic_of_a_writer_does_not_stop_the_flush_on_shutdown_and_counts_as_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let (write_behind, resource, key, update) = setup(folder.path());
        let resource: Resource = Arc::new(PanicsWhenNamed(resource));
        write_behind.write_later(&resource, &key, update);
        let write = write_behind.0.buffer.get(&key).unwrap();
        write_behind.flush_all().await;
        wait_until_empty(&write_behind).await;
        let result = write.write_lock.lock().await;
        assert!(result.is_none(), "{result:?}");
    }
}
