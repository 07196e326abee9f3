//! One connection to an https upstream, however many requests begin at once. What is sent over it is for others.

use std::{
    collections::{HashMap, hash_map},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Response;
use tokio::sync::watch;
use url::Url;

use super::{Failure, IDLE, origin};

/// How long others wait for the one that went ahead: some round trips. If it is slower than that, more connections are the
/// lesser evil, for its slowness may be the fault of what it asked for.
const WAIT: Duration = Duration::from_millis(300);

/// Lets one request go ahead to each https origin without a connection, and the others follow when it has its answer: only
/// then is it known that all of them can share that one connection. Without this, a burst of requests opens as many.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<HashMap<String, Door>>);

#[derive(Debug)]
enum Door {
    /// Something was answered at this moment.
    Open(Instant),
    /// One request went ahead, and will say here how it went.
    Opening(watch::Receiver<Option<Knock>>),
}

/// How going ahead went: nobody there, or go on.
pub(super) type Knock = Result<(), Failure>;

impl Doors {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all connections.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    /// Waits for the request that went ahead, at most for [`WAIT`]; gives the sender to one that shall go ahead itself.
    ///
    /// # Errors
    /// If nobody was there.
    pub(super) async fn pass(
        &self,
        url: &Url,
    ) -> Result<Option<watch::Sender<Option<Knock>>>, Failure> {
        if url.scheme() != "https" {
            return Ok(None);
        }
        let mut opening = match self.lock().entry(origin(url)) {
            hash_map::Entry::Occupied(door) if door.get().is_open() => return Ok(None),
            hash_map::Entry::Occupied(mut door) => match door.get() {
                // Whoever gave up dropped its end.
                Door::Opening(opening) if opening.has_changed().is_ok() => opening.clone(),
                Door::Opening(_) | Door::Open(_) => {
                    let (sender, opening) = watch::channel(None);
                    door.insert(Door::Opening(opening));
                    return Ok(Some(sender));
                }
            },
            hash_map::Entry::Vacant(door) => {
                let (sender, opening) = watch::channel(None);
                door.insert(Door::Opening(opening));
                return Ok(Some(sender));
            }
        };
        let knock = tokio::time::timeout(WAIT, opening.wait_for(Option::is_some)).await;
        match knock {
            Ok(Ok(knock)) => knock.clone().unwrap_or(Ok(())).map(|()| None),
            // It is slow, or gave up: that says nothing about others.
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Notes how a request went, for those that wait for it and for those to come.
    pub(super) fn note(
        &self,
        url: &Url,
        opener: Option<watch::Sender<Option<Knock>>>,
        sent: &Result<Response, Failure>,
    ) {
        if url.scheme() != "https" {
            return;
        }
        match sent {
            Ok(_) => {
                self.lock().insert(origin(url), Door::Open(Instant::now()));
            }
            Err(failure) => {
                let mut doors = self.lock();
                let is_shut = matches!(failure, Failure::Unreachable { .. });
                // Others may have gone in while the one ahead stood waiting.
                let is_opening =
                    opener.is_some() && matches!(doors.get(&origin(url)), Some(Door::Opening(_)));
                if is_shut || is_opening {
                    doors.remove(&origin(url));
                }
            }
        }
        if let Some(opener) = opener {
            let knock = match sent {
                Err(failure @ Failure::Unreachable { .. }) => Err(failure.clone()),
                Ok(_) | Err(_) => Ok(()),
            };
            opener.send_replace(Some(knock));
        }
    }
}

impl Door {
    /// Whether there should still be a connection.
    fn is_open(&self) -> bool {
        match self {
            Self::Open(answered) => answered.elapsed() < IDLE,
            Self::Opening(_) => false,
        }
    }
}
