//! Single-flight: at most one fetch per resource at a time.
//!
//! ```text
//!  client 1 ── join ──> Leader: spawns the fetch ─┐
//!  client 2 ── join ──> Joined ──────────────────┤<── Progress (watch channel) ── detached fetch task
//!  prefetch ── join ──> Joined ──────────────────┘
//! ```
//!
//! The fetch runs in a task of its own, so a client that disconnects cancels nothing. All callers, the leader included,
//! watch the same [`Progress`]. If the fetch panics, the channel closes and every waiter gets an error.
//!
//! This module knows neither upstream nor the store: [`Flights::join`] gets the fetch as a closure.

use std::{collections::HashMap, future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::decide::Outcome;
use crate::{
    error::Error,
    hash::Sha256,
    resource::{Key, Resource},
    store::{Blob, Entry, Spool},
};

/// Identity of a flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum FlightKey {
    Entry(Key),
    /// A hash, and the name of the resource that was requested by it. A client may ask for a file that does not exist
    /// by the hash of one that does. It must neither spoil nor share the fetch of the other.
    Blob(Sha256, String),
}

impl FlightKey {
    /// The flight that fetches `resource`, whose hash is `sha256`.
    pub(super) fn blob(resource: &Resource, sha256: Sha256) -> Self {
        Self::Blob(sha256, resource.to_string())
    }
}

/// State of a flight.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// No body has arrived yet.
    Asking,
    /// The body of a blob is arriving in the spool.
    Arriving {
        spool: Arc<Spool>,
        /// Size of the body in bytes, if upstream announced it.
        total: Option<u64>,
        /// Number of bytes that clients may read. The last chunk is not among them before the hash has been verified.
        ready: u64,
    },
    /// The body of a blob has arrived and its hash is right. It is not stored yet.
    Verified(FetchResult),
    /// The flight is over.
    Done(Result<FetchResult, Error>),
}

/// A crate or archive that is arriving from upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadProgress {
    /// The resource, in words.
    pub what: String,
    /// Number of bytes that have arrived.
    pub received: u64,
    /// Size in bytes, if upstream announced it.
    pub total: Option<u64>,
}

/// The result of a flight.
#[derive(Clone, Debug)]
pub(super) struct FetchResult {
    pub(super) outcome: Outcome,
    pub(super) body: FetchedBody,
    /// The failure to store the body, which can be served all the same.
    pub(super) write_error: Option<Error>,
}

/// A body that a flight has obtained.
#[derive(Clone, Debug)]
pub(super) enum FetchedBody {
    Entry(Entry),
    Blob(Blob),
}

/// How long to wait for a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Until the body is verified.
    Verified,
    /// Until the body is stored, safe from a crash.
    Stored,
}

/// Part of a caller of [`Flights::join`]: it started the flight, or joined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Joined,
}

impl Role {
    /// The outcome for a caller in this role: [`Outcome::Collapsed`] if it joined another caller's fetch.
    pub(super) fn outcome(self, outcome: Outcome) -> Outcome {
        match (self, outcome) {
            (Self::Joined, Outcome::Miss | Outcome::Revalidated) => Outcome::Collapsed,
            (Self::Leader | Self::Joined, outcome) => outcome,
        }
    }
}

/// All flights under way. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Board>);

#[derive(Debug)]
struct Board {
    under_way: Mutex<HashMap<FlightKey, watch::Receiver<Progress>>>,
    /// Becomes true when flights without a verified body have to end.
    abandon: watch::Sender<bool>,
    /// Signals that a flight has ended.
    ended: Notify,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            abandon: watch::Sender::new(false),
            ended: Notify::new(),
        }
    }
}

impl Flights {
    /// Joins the flight of `flight_key`, or starts it with the fetch that `start` returns.
    ///
    /// A flight that is over is not joined: after a failure the caller wants another attempt, and after a success it
    /// may need something newer.
    pub(super) fn join<F>(
        &self,
        flight_key: FlightKey,
        start: impl FnOnce(watch::Sender<Progress>) -> F,
    ) -> (Role, watch::Receiver<Progress>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.0.under_way.lock();
        if let Some(progress) = flights.get(&flight_key)
            && !matches!(*progress.borrow(), Progress::Done(_))
        {
            return (Role::Joined, progress.clone());
        }
        let (sender, receiver) = watch::channel(Progress::Asking);
        flights.insert(flight_key.clone(), receiver.clone());
        drop(flights);
        let still_open = sender.clone();
        let fetch = start(sender);
        let removal = RemoveOnDrop {
            board: self.0.clone(),
            flight_key,
            progress: receiver.clone(),
        };
        let abandoned = abandoned(self.0.abandon.subscribe(), receiver.clone());
        tokio::spawn(async move {
            // Owned by the task, so that it is dropped even if the fetch panics.
            let removal = removal;
            tokio::select! {
                () = fetch => {}
                () = abandoned => {
                    // Frees the spool. A closed channel would tell waiters that the fetch has panicked.
                    still_open.send_replace(Progress::Asking);
                    drop(removal);
                    std::future::pending().await
                }
            }
        });
        (Role::Leader, receiver)
    }

    /// Number of flights under way.
    pub(super) fn len(&self) -> usize {
        self.0.under_way.lock().len()
    }

    /// The flights of blobs that are not verified yet.
    pub(super) fn downloads(&self) -> Vec<DownloadProgress> {
        let flights = self.0.under_way.lock();
        let downloads = flights.iter().filter_map(|(flight_key, progress)| {
            let FlightKey::Blob(_, what) = flight_key else {
                return None;
            };
            let (received, total) = match &*progress.borrow() {
                Progress::Asking => (0, None),
                Progress::Arriving { ready, total, .. } => (*ready, *total),
                Progress::Verified(_) | Progress::Done(_) => return None,
            };
            Some(DownloadProgress {
                what: what.clone(),
                received,
                total,
            })
        });
        downloads.collect()
    }

    /// Ends all flights whose body is not verified, now and from now on, and waits until what they have downloaded is
    /// discarded. Their waiters wait for ever: the process is about to end, and to report a failure would be wrong.
    pub(super) async fn abandon_unfinished(&self) {
        self.0.abandon.send_replace(true);
        loop {
            let ended = self.0.ended.notified();
            let is_unfinished = |progress: &watch::Receiver<_>| !is_verified(&progress.borrow());
            if !self.0.under_way.lock().values().any(is_unfinished) {
                return;
            }
            ended.await;
        }
    }

    /// Waits until every body that is verified by now has been stored. Does not wait for fetches that are still
    /// arriving.
    pub(super) async fn wait_stored(&self) {
        let under_way: Vec<_> = self.0.under_way.lock().values().cloned().collect();
        for mut progress in under_way {
            if matches!(*progress.borrow(), Progress::Verified(_)) {
                // An error means that the flight is over as well.
                let _ = progress
                    .wait_for(|progress| matches!(progress, Progress::Done(_)))
                    .await;
            }
        }
    }
}

/// Returns whether the body has its right hash, or the flight is over.
fn is_verified(progress: &Progress) -> bool {
    matches!(progress, Progress::Verified(_) | Progress::Done(_))
}

/// Resolves when a flight has to end because [`Flights::abandon_unfinished`] was called. Never resolves once its body
/// is verified: then it is being stored.
async fn abandoned(mut abandon: watch::Receiver<bool>, progress: watch::Receiver<Progress>) {
    // The flight itself keeps the sender alive.
    let _ = abandon.wait_for(|abandon| *abandon).await;
    if is_verified(&progress.borrow()) {
        std::future::pending().await
    }
}

/// Waits for the flight of `resource`.
///
/// # Errors
/// The fetch failed or ended without a result, or the body could not be stored and `until` asks for that.
pub(super) async fn wait(
    resource: &Resource,
    mut progress: watch::Receiver<Progress>,
    until: Until,
) -> Result<FetchResult, Error> {
    let is_over = |state: &Progress| match state {
        Progress::Asking | Progress::Arriving { .. } => false,
        Progress::Verified(_) => until == Until::Verified,
        Progress::Done(_) => true,
    };
    let state = progress.wait_for(is_over).await.map(|state| state.clone());
    match state {
        Ok(Progress::Done(Ok(FetchResult {
            write_error: Some(error),
            ..
        }))) if until == Until::Stored => Err(error),
        Ok(Progress::Verified(result)) => Ok(result),
        Ok(Progress::Done(result)) => result,
        Ok(Progress::Asking | Progress::Arriving { .. }) | Err(_) => {
            Err(Error::abandoned(resource))
        }
    }
}

/// Removes a flight from the map when its task ends.
struct RemoveOnDrop {
    board: Arc<Board>,
    flight_key: FlightKey,
    progress: watch::Receiver<Progress>,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut flights = self.board.under_way.lock();
        // The next flight of the same key may have replaced this one already.
        if flights
            .get(&self.flight_key)
            .is_some_and(|progress| progress.same_channel(&self.progress))
        {
            flights.remove(&self.flight_key);
        }
        drop(flights);
        self.board.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn downloads_are_blobs_that_are_still_arriving() {
        let flights = Flights::default();
        let (end, wait) = oneshot::channel::<()>();
        let key = Key::of_path("crates-io/le/ft/left").unwrap();
        flights.join(FlightKey::Entry(key), |_| std::future::pending());
        flights.join(flight_key(), |progress| async move {
            let _ = wait.await;
            let _ = progress.send(Progress::Done(Err(Error::Absent {
                resource: "x".into(),
            })));
            std::future::pending().await
        });
        let expected = DownloadProgress {
            what: "x".to_owned(),
            received: 0,
            total: None,
        };
        assert_eq!(flights.downloads(), [expected]);
        end.send(()).unwrap();
        while !flights.downloads().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(flights.len(), 2);
    }

    #[tokio::test]
    async fn abandoned_flights_end_with_what_they_hold_and_a_verified_body_is_still_stored() {
        let flights = Flights::default();
        let held = Arc::new(());
        let downloading = held.clone();
        let (_, unfinished) = flights.join(flight_key(), |progress| async move {
            let _all = (progress, downloading);
            std::future::pending().await
        });
        let (stored, storing) = oneshot::channel::<()>();
        let key = FlightKey::Blob(Sha256::of(b"y"), "y".to_owned());
        let (_, mut verified) = flights.join(key, |progress| async move {
            let entry = Entry::new("y".into(), Default::default(), None, SystemTime::UNIX_EPOCH);
            let result = FetchResult {
                outcome: Outcome::Miss,
                body: FetchedBody::Entry(entry),
                write_error: None,
            };
            let _ = progress.send(Progress::Verified(result.clone()));
            let _ = storing.await;
            let _ = progress.send(Progress::Done(Ok(result)));
        });
        verified.changed().await.unwrap();
        flights.abandon_unfinished().await;
        assert_eq!((Arc::strong_count(&held), flights.len()), (1, 1));
        assert!(unfinished.has_changed().is_ok(), "the channel is open");
        let (_, late) = flights.join(flight_key(), |progress| async move {
            let _progress = progress;
            std::future::pending().await
        });
        flights.abandon_unfinished().await;
        assert!(late.has_changed().is_ok(), "the channel is open");
        stored.send(()).unwrap();
        flights.wait_stored().await;
        assert!(matches!(*verified.borrow(), Progress::Done(Ok(_))));
    }

    fn flight_key() -> FlightKey {
        FlightKey::Blob(Sha256::of(b"x"), "x".to_owned())
    }

    #[tokio::test]
    async fn a_second_caller_joins_and_the_flight_is_removed_at_its_end() {
        let flights = Flights::default();
        let (go, wait) = oneshot::channel::<()>();
        let (role, mut first) = flights.join(flight_key(), |progress| async move {
            let _ = wait.await;
            let _ = progress.send(Progress::Done(Err(Error::Absent {
                resource: "x".into(),
            })));
        });
        assert_eq!(role, Role::Leader);
        let (role, _) = flights.join(flight_key(), |_| async {
            panic!("a second fetch was started")
        });
        assert_eq!((role, flights.len()), (Role::Joined, 1));
        go.send(()).unwrap();
        first
            .wait_for(|progress| matches!(progress, Progress::Done(_)))
            .await
            .unwrap();
        while first.changed().await.is_ok() {}
        while flights.len() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_flight_that_is_over_is_not_joined_and_its_end_leaves_the_next_one_alone() {
        let flights = Flights::default();
        let (end, wait) = oneshot::channel::<()>();
        let (_, mut first) = flights.join(flight_key(), |progress| async move {
            let _ = progress.send(Progress::Done(Err(Error::Absent {
                resource: "x".into(),
            })));
            let _ = wait.await;
        });
        first.changed().await.unwrap();
        let (release, released) = oneshot::channel::<()>();
        let (role, _) = flights.join(flight_key(), |_| async move {
            let _ = released.await;
        });
        assert_eq!(role, Role::Leader);
        end.send(()).unwrap();
        while first.changed().await.is_ok() {}
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let (role, _) = flights.join(flight_key(), |_| async {
            panic!("a third fetch was started")
        });
        assert_eq!((role, flights.len()), (Role::Joined, 1));
        drop(release);
    }

    #[tokio::test]
    async fn a_panic_of_a_fetch_ends_the_wait_and_the_next_caller_starts_anew() {
        let flights = Flights::default();
        let (_, mut waiter) = flights.join(flight_key(), |progress| async move {
            let _progress = progress;
            panic!("on purpose: the fetch panics");
        });
        assert!(waiter.changed().await.is_err());
        while flights.len() > 0 {
            tokio::task::yield_now().await;
        }
        let (role, _) = flights.join(flight_key(), |_| async {});
        assert_eq!(role, Role::Leader);
    }
}
