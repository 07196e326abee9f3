//! Events that tell the prefetcher what clients ask for.
//!
//! The cache knows no prefetcher. It sends plain events on a bounded channel and drops them while the channel is full
//! or has no reader: a lost event costs a prefetch, never an answer.

use std::sync::OnceLock;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{hash::Sha256, resource::Resource, store::Entry};

/// Events that wait to be read. A burst of a large project has some hundred.
const CHANNEL_CAPACITY: usize = 4096;

/// Something a client did.
#[derive(Clone, Debug)]
pub enum CacheEvent {
    /// Clients ask again after a pause.
    ClientsResumed,
    /// A client's request made the cache ask upstream about an entry. Sent with the stored body before upstream is
    /// asked, and with the new body if upstream had another one.
    EntryRequested {
        /// The entry.
        resource: Resource,
        /// Its body as known now.
        body: Bytes,
    },
    /// A client was served a manifest.
    ManifestServed {
        /// The manifest.
        manifest: Resource,
        /// Its generation.
        entry: Entry,
    },
    /// A client asked for an archive that a served manifest lists.
    BlobRequested {
        /// Hash of that manifest.
        generation: Sha256,
        /// Hash of the archive.
        sha256: Sha256,
    },
}

/// Visibility of a request to the prefetcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// A client, or `warm`: the fetch reports events.
    Client,
    /// The prefetcher, which needs no events about its own requests.
    Prefetch,
    /// The start of the daemon, on behalf of the first client: until one waits, a failure has no effect.
    Start,
}

/// The sending side. Without a reader, sending does nothing.
#[derive(Debug, Default)]
pub(super) struct Events(OnceLock<mpsc::Sender<CacheEvent>>);

impl Events {
    /// The reading side, for the first caller only.
    pub(super) fn subscribe(&self) -> Option<mpsc::Receiver<CacheEvent>> {
        let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
        self.0.set(sender).is_ok().then_some(receiver)
    }

    /// Sends the event that `event` makes, if there is a reader with space for it.
    pub(super) fn send(&self, event: impl FnOnce() -> CacheEvent) {
        if let Some(sender) = self.0.get()
            && let Ok(permit) = sender.try_reserve()
        {
            permit.send(event());
        }
    }
}
