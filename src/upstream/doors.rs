//! What is known of the ways to each origin: whether HTTP/2 is spoken there, and that a dial has just failed. What is sent
//! over them is for others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::Failure;

/// Requests that began so shortly before the one whose dial failed most likely wait for that dial as well.
pub(super) const TOGETHER: Duration = Duration::from_millis(50);

/// The ways to all origins.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<HashMap<String, Door>>);

#[derive(Debug, Default)]
struct Door {
    speech: Speech,
    /// By lane: the latest news, for all who wait for a connection there.
    news: Vec<watch::Sender<Option<News>>>,
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
    /// HTTP/2 was tried, and nothing came back. That may be the fault of HTTP/2.
    Doubtful,
}

/// What may become known about an origin while a request waits for a connection to it.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// A dial failed: nobody there.
    Shut {
        /// How.
        failure: Failure,
        /// When the request began for which it was made.
        since: Instant,
    },
    /// It does not speak HTTP/2.
    Older,
}

/// Tells a request that begins now of news from now on.
pub(super) struct Watcher {
    news: watch::Receiver<Option<News>>,
    since: Instant,
}

impl Doors {
    pub(super) fn speech(&self, origin: &str) -> Speech {
        self.lock()
            .get(origin)
            .map_or(Speech::Unknown, |door| door.speech)
    }

    pub(super) fn learn(&self, origin: &str, speech: Speech) {
        let mut doors = self.lock();
        let door = doors.entry(origin.to_owned()).or_default();
        door.speech = speech;
        if speech == Speech::Older {
            for news in &door.news {
                news.send_replace(Some(News::Older));
            }
        }
    }

    /// Whoever stands there may be another by now.
    pub(super) fn forget(&self) {
        for door in self.lock().values_mut() {
            if door.speech != Speech::Doubtful {
                door.speech = Speech::Unknown;
            }
        }
    }

    /// Watches the dials of one lane.
    pub(super) fn watch(&self, origin: &str, lane: usize) -> Watcher {
        let mut doors = self.lock();
        let door = doors.entry(origin.to_owned()).or_default();
        while door.news.len() <= lane {
            door.news.push(watch::Sender::new(None));
        }
        let mut news = door.news[lane].subscribe();
        news.mark_unchanged();
        Watcher {
            news,
            since: Instant::now(),
        }
    }

    /// Tells all who watch the lane that the dial failed which was made for a request that `began` then: nobody there. Each of
    /// them would find out one after the other, each after the whole time limit.
    pub(super) fn shut(&self, origin: &str, lane: usize, failure: &Failure, began: &Watcher) {
        if let Some(door) = self.lock().get(origin)
            && let Some(news) = door.news.get(lane)
        {
            news.send_replace(Some(News::Shut {
                failure: failure.clone(),
                since: began.since,
            }));
        }
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Resolves when there is news, if ever. A request that began before the one whose dial failed may have been sent over an
    /// older connection, which works on after it takes nothing new: it's told only after this grace.
    pub(super) async fn news(&mut self, grace: Duration) -> News {
        loop {
            if self.news.changed().await.is_err() {
                // Nobody is left who could tell.
                std::future::pending::<()>().await;
            }
            let Some(news) = self.news.borrow().clone() else {
                continue;
            };
            if matches!(news, News::Shut { since, .. } if since > self.since + TOGETHER) {
                tokio::time::sleep(grace).await;
            }
            return news;
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
        doors.shut("a:1", 0, &failure(), &first);
        for mut watcher in [first, second] {
            let news = watcher.news(Duration::MAX).await;
            assert!(
                matches!(news, News::Shut { failure: told, .. } if told.to_string() == failure().to_string())
            );
        }
        for mut watcher in [other, doors.watch("a:1", 0)] {
            let told =
                tokio::time::timeout(Duration::from_millis(20), watcher.news(Duration::ZERO));
            assert!(told.await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_began_before_the_one_whose_dial_failed_is_told_after_a_grace() {
        let doors = Doors::default();
        let mut older = doors.watch("a:1", 0);
        older.since -= TOGETHER * 2;
        let failed = doors.watch("a:1", 0);
        doors.shut("a:1", 0, &failure(), &failed);
        let (began, grace) = (tokio::time::Instant::now(), Duration::from_secs(2));
        assert!(matches!(older.news(grace).await, News::Shut { .. }));
        assert_eq!(began.elapsed(), grace);
    }

    #[tokio::test]
    async fn who_waits_for_http2_is_told_that_it_is_not_spoken() {
        let doors = Doors::default();
        let mut waiting = doors.watch("a:1", 2);
        doors.learn("a:1", Speech::Older);
        assert!(matches!(waiting.news(Duration::ZERO).await, News::Older));
    }

    #[test]
    fn what_is_spoken_is_learned_by_origin() {
        let doors = Doors::default();
        doors.learn("a:1", Speech::Http2);
        assert_eq!(doors.speech("a:1"), Speech::Http2);
        assert_eq!(doors.speech("b:1"), Speech::Unknown);
        doors.learn("c:1", Speech::Doubtful);
        doors.forget();
        assert_eq!(doors.speech("a:1"), Speech::Unknown);
        assert_eq!(doors.speech("c:1"), Speech::Doubtful);
    }
}
