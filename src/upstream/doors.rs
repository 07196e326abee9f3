//! What is known of the ways to each origin: whether HTTP/2 is spoken there, and that a dial has just failed. What is sent
//! over them is for others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::Failure;

/// The ways to all origins.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<HashMap<String, Door>>);

#[derive(Debug, Default)]
struct Door {
    speech: Speech,
    /// By lane: the last dial that failed, for all who wait for a connection there.
    shut: Vec<watch::Sender<Option<Failure>>>,
}

/// Which HTTP an origin speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speech {
    /// Not tried yet.
    #[default]
    Unknown,
    /// HTTP/2.
    Http2,
    /// Something older.
    Older,
}

/// Tells whether a dial fails from now on.
pub(super) struct Watcher(watch::Receiver<Option<Failure>>);

impl Doors {
    pub(super) fn speech(&self, origin: &str) -> Speech {
        self.lock()
            .get(origin)
            .map_or(Speech::Unknown, |door| door.speech)
    }

    pub(super) fn learn(&self, origin: &str, speech: Speech) {
        self.lock().entry(origin.to_owned()).or_default().speech = speech;
    }

    /// Watches the dials of one lane.
    pub(super) fn watch(&self, origin: &str, lane: usize) -> Watcher {
        let mut doors = self.lock();
        let door = doors.entry(origin.to_owned()).or_default();
        while door.shut.len() <= lane {
            door.shut.push(watch::Sender::new(None));
        }
        let mut watcher = door.shut[lane].subscribe();
        watcher.mark_unchanged();
        Watcher(watcher)
    }

    /// Tells all who watch the lane that its dial failed: nobody there. Each of them would find out one after the other, each
    /// after the whole time limit.
    pub(super) fn shut(&self, origin: &str, lane: usize, failure: &Failure) {
        if let Some(door) = self.lock().get(origin)
            && let Some(shut) = door.shut.get(lane)
        {
            shut.send_replace(Some(failure.clone()));
        }
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Resolves when a dial has failed, if ever.
    pub(super) async fn shut(mut self) -> Failure {
        loop {
            if self.0.changed().await.is_err() {
                // Nobody is left who could tell.
                std::future::pending::<()>().await;
            }
            if let Some(failure) = self.0.borrow().clone() {
                return failure;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure::Unreachable {
            host: "h".to_owned(),
            cause: "c".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_failed_dial_is_told_to_those_who_wait_in_its_lane_and_to_nobody_later() {
        let doors = Doors::default();
        let (first, second, other) = (
            doors.watch("a:1", 0),
            doors.watch("a:1", 0),
            doors.watch("a:1", 1),
        );
        doors.shut("a:1", 0, &failure());
        for watcher in [first, second] {
            assert_eq!(watcher.shut().await.to_string(), failure().to_string());
        }
        for watcher in [other, doors.watch("a:1", 0)] {
            let told = tokio::time::timeout(std::time::Duration::from_millis(20), watcher.shut());
            assert!(told.await.is_err());
        }
    }

    #[test]
    fn what_is_spoken_is_learned_by_origin() {
        let doors = Doors::default();
        doors.learn("a:1", Speech::Http2);
        assert_eq!(doors.speech("a:1"), Speech::Http2);
        assert_eq!(doors.speech("b:1"), Speech::Unknown);
    }
}
