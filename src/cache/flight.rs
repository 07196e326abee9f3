//! One fetch per place at a time. Whoever asks for something on its way in joins its flight; the fetch itself belongs to
//! no client, so that nobody's disconnect cancels it. What is fetched, and how, is for others.

use std::{collections::HashMap, future::Future, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::FetchResult;
use crate::{error::Error, hash::Sha256, resource::Key, store::Spool};

/// What a flight is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum FlightKey {
    Entry(Key),
    /// A hash, and what was asked for by it: whoever asks for something else by the same hash, which may not exist, must
    /// neither spoil nor share this fetch.
    Blob(Sha256, String),
}

/// How far a flight has come.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// Upstream has been asked, or soon will be.
    Asking,
    /// The body arrives in the spool; its first `ready` bytes may be read. The last piece is held back until the whole
    /// is verified.
    Arriving {
        spool: Arc<Spool>,
        total: Option<u64>,
        ready: u64,
    },
    /// The body is a blob's and right; it is being stored.
    Verified(FetchResult),
    /// It is over.
    Done(Result<FetchResult, Error>),
}

/// The flights under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<FlightKey, watch::Receiver<Progress>>>>);

/// Whether the caller's request started the flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Joined,
}

impl Flights {
    /// Joins the flight of `flight_key`, or starts it with the fetch that `start` makes. If the fetch dies without result,
    /// the channel closes and every waiter sees that. Nobody joins a flight that is over: after a failure, who asks again
    /// wants another try, and after a success they may want what is newer than its answer.
    pub(super) fn join<F>(
        &self,
        flight_key: FlightKey,
        start: impl FnOnce(watch::Sender<Progress>) -> F,
    ) -> (Role, watch::Receiver<Progress>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(progress) = flights.get(&flight_key)
            && !matches!(*progress.borrow(), Progress::Done(_))
        {
            return (Role::Joined, progress.clone());
        }
        let (sender, receiver) = watch::channel(Progress::Asking);
        flights.insert(flight_key.clone(), receiver.clone());
        drop(flights);
        let fetch = start(sender);
        let ended = Ended {
            flights: self.0.clone(),
            flight_key,
            progress: receiver.clone(),
        };
        tokio::spawn(async move {
            // Moved in here, so that it is dropped however the fetch ends.
            let _ended = ended;
            fetch.await;
        });
        (Role::Leader, receiver)
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until everything that is proven by now has been stored. Fetches still on their way are not waited for.
    pub(super) async fn wait_stored(&self) {
        let under_way: Vec<_> = self.lock().values().cloned().collect();
        for mut progress in under_way {
            if matches!(*progress.borrow(), Progress::Verified(_)) {
                // An error means that the flight is over as well.
                let _ = progress
                    .wait_for(|progress| matches!(progress, Progress::Done(_)))
                    .await;
            }
        }
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<FlightKey, watch::Receiver<Progress>>> {
        self.0.lock()
    }
}

/// Takes the flight off the board when dropped.
struct Ended {
    flights: Arc<Mutex<HashMap<FlightKey, watch::Receiver<Progress>>>>,
    flight_key: FlightKey,
    progress: watch::Receiver<Progress>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // After a failure the next flight may have taken the place already.
        if flights
            .get(&self.flight_key)
            .is_some_and(|progress| progress.same_channel(&self.progress))
        {
            flights.remove(&self.flight_key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn flight_key() -> FlightKey {
        FlightKey::Blob(Sha256::of(b"x"), "x".to_owned())
    }

    #[tokio::test]
    async fn a_second_asker_joins_and_the_board_is_clear_afterwards() {
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
    async fn nobody_joins_a_flight_that_is_over_and_its_end_leaves_the_next_one_alone() {
        let flights = Flights::default();
        let (end, wait) = oneshot::channel::<()>();
        let (_, mut first) = flights.join(flight_key(), |progress| async move {
            let _ = progress.send(Progress::Done(Err(Error::Absent {
                resource: "x".into(),
            })));
            let _ = wait.await;
        });
        first.changed().await.unwrap();
        let (keep, kept) = oneshot::channel::<()>();
        let (role, _) = flights.join(flight_key(), |_| async move {
            let _ = kept.await;
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
        drop(keep);
    }

    #[tokio::test]
    async fn a_fetch_that_dies_frees_its_waiters_and_the_next_asker_starts_anew() {
        let flights = Flights::default();
        let (_, mut waiter) = flights.join(flight_key(), |progress| async move {
            let _progress = progress;
            panic!("on purpose: the fetch dies");
        });
        assert!(waiter.changed().await.is_err());
        while flights.len() > 0 {
            tokio::task::yield_now().await;
        }
        let (role, _) = flights.join(flight_key(), |_| async {});
        assert_eq!(role, Role::Leader);
    }
}
