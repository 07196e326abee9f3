//! Origins, and what larder remembers about each: the HTTP version it speaks, and dials that just failed.
//!
//! A burst of requests to one origin shares one dial. reqwest starts it for the first request; the others wait in
//! reqwest's pool. If the dial fails, reqwest tells the first request only, and the next one dials again: a hundred
//! requests would find out one after the other, each after a whole time limit. So every request watches its origin:
//!
//! ```text
//!  request 1 ── dials ────────────────── fails ── fail_waiters ──┐
//!  request 2 ── waits for the dial ──────────────────────────────┤ OriginEvent::DialFailed
//!  request 3 ── waits for the dial ──────────────────────────────┘
//!  request 0 ── sent before, over a connection that still works ── grace ── fails only if no answer came
//! ```
//!
//! Request 0 began more than [`SAME_DIAL_WINDOW`] earlier, so it has most likely been sent already and may still be
//! answered: it gets a grace period. The other event, [`OriginEvent::Http1Only`], sends the requests that wait for an
//! HTTP/2 connection to [`ClientProtocol::Negotiated`](super::pool::ClientProtocol) at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{failure::Failure, origin::Origin};

/// A request that began at most this long before the one whose dial failed most likely waits for the same dial.
pub(super) const SAME_DIAL_WINDOW: Duration = Duration::from_millis(50);

/// Memory of each origin. There are as many as the settings and the upstreams' `config.json` name.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<Origin, OriginState>>);

#[derive(Debug, Default)]
struct OriginState {
    version: HttpVersion,
    /// The latest event of each connection slot, broadcast to the requests that watch it.
    events: Vec<watch::Sender<Option<OriginEvent>>>,
}

/// The HTTP version that an origin speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HttpVersion {
    /// Not tried yet.
    #[default]
    Unknown,
    /// HTTP/2.
    Http2,
    /// Not HTTP/2.
    Http1,
    /// The first request over HTTP/2 got no answer, which may be the fault of HTTP/2. It is not tried again.
    Http2Unanswered,
}

/// An event at an origin while a request waits for a connection.
#[derive(Clone, Debug)]
pub(super) enum OriginEvent {
    /// A dial failed.
    DialFailed {
        /// The failure, which is that of all waiting requests.
        failure: Failure,
        /// When the request began that dialled.
        began: Instant,
    },
    /// The origin does not speak HTTP/2.
    Http1Only,
}

/// A request's view of its origin: the events since the request began.
pub(super) struct OriginWatcher {
    events: watch::Receiver<Option<OriginEvent>>,
    began: Instant,
}

impl Origins {
    pub(super) fn http_version(&self, origin: &Origin) -> HttpVersion {
        self.0
            .lock()
            .get(origin)
            .map_or(HttpVersion::Unknown, |state| state.version)
    }

    /// Remembers the version. [`HttpVersion::Http1`] is broadcast to the requests that wait for an HTTP/2 connection.
    pub(super) fn set_http_version(&self, origin: &Origin, version: HttpVersion) {
        let mut origins = self.0.lock();
        let state = origins.entry(origin.clone()).or_default();
        state.version = version;
        if version == HttpVersion::Http1 {
            for events in &state.events {
                events.send_replace(Some(OriginEvent::Http1Only));
            }
        }
    }

    /// Forgets the versions: after an outage another server may answer. An unanswered HTTP/2 request is remembered,
    /// since trying again costs a whole time limit.
    pub(super) fn reset_http_versions(&self) {
        for state in self.0.lock().values_mut() {
            if state.version != HttpVersion::Http2Unanswered {
                state.version = HttpVersion::Unknown;
            }
        }
    }

    /// Begins to watch the dials of one connection slot.
    pub(super) fn watch(&self, origin: &Origin, slot: usize) -> OriginWatcher {
        let mut origins = self.0.lock();
        let state = origins.entry(origin.clone()).or_default();
        while state.events.len() <= slot {
            state.events.push(watch::Sender::new(None));
        }
        let mut events = state.events[slot].subscribe();
        events.mark_unchanged();
        OriginWatcher {
            events,
            began: Instant::now(),
        }
    }

    /// Broadcasts that the dial of `dialler` failed to all requests that watch the same slot.
    pub(super) fn fail_waiters(
        &self,
        origin: &Origin,
        slot: usize,
        failure: &Failure,
        dialler: &OriginWatcher,
    ) {
        if let Some(state) = self.0.lock().get(origin)
            && let Some(events) = state.events.get(slot)
        {
            events.send_replace(Some(OriginEvent::DialFailed {
                failure: failure.clone(),
                began: dialler.began,
            }));
        }
    }
}

impl OriginWatcher {
    /// Waits for the next event, for ever if there is none. A failed dial of a request that began more than
    /// [`SAME_DIAL_WINDOW`] after this one is reported after `grace`, since this one may have been sent before.
    pub(super) async fn next_event(&mut self, grace: Duration) -> OriginEvent {
        loop {
            if self.events.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let Some(event) = self.events.borrow().clone() else {
                continue;
            };
            match &event {
                OriginEvent::DialFailed { began, .. } if *began > self.began + SAME_DIAL_WINDOW => {
                    tokio::time::sleep(grace).await;
                }
                OriginEvent::DialFailed { .. } | OriginEvent::Http1Only => {}
            }
            return event;
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::upstream::FailureKind;

    fn origin(url: &str) -> Origin {
        Origin::from(&Url::parse(url).unwrap())
    }

    fn a() -> Origin {
        origin("https://a.example/")
    }

    fn failure() -> Failure {
        FailureKind::Unreachable {
            cause: "refused".to_owned(),
        }
        .at(a())
    }

    #[tokio::test]
    async fn a_failed_dial_reaches_the_waiters_of_its_slot_and_no_later_request() {
        let origins = Origins::default();
        let first = origins.watch(&a(), 0);
        let second = origins.watch(&a(), 0);
        let other_slot = origins.watch(&a(), 1);
        origins.fail_waiters(&a(), 0, &failure(), &first);
        for mut watcher in [first, second] {
            let event = watcher.next_event(Duration::MAX).await;
            assert!(
                matches!(&event, OriginEvent::DialFailed { failure: got, .. } if *got == failure()),
                "{event:?}"
            );
        }
        for mut watcher in [other_slot, origins.watch(&a(), 0)] {
            let event = watcher.next_event(Duration::ZERO);
            let event = tokio::time::timeout(Duration::from_millis(20), event).await;
            assert!(event.is_err(), "{event:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_began_before_the_failed_dial_gets_a_grace_period() {
        let origins = Origins::default();
        let mut earlier = origins.watch(&a(), 0);
        earlier.began -= SAME_DIAL_WINDOW * 2;
        let dialler = origins.watch(&a(), 0);
        origins.fail_waiters(&a(), 0, &failure(), &dialler);
        let (began, grace) = (tokio::time::Instant::now(), Duration::from_secs(2));
        let event = earlier.next_event(grace).await;
        assert!(matches!(event, OriginEvent::DialFailed { .. }), "{event:?}");
        assert_eq!(began.elapsed(), grace);
    }

    #[tokio::test]
    async fn http1_reaches_the_requests_that_wait_for_http2() {
        let origins = Origins::default();
        let mut watcher = origins.watch(&a(), 2);
        origins.set_http_version(&a(), HttpVersion::Http1);
        let event = watcher.next_event(Duration::ZERO).await;
        assert!(matches!(event, OriginEvent::Http1Only), "{event:?}");
    }

    #[test]
    fn http_versions_are_remembered_by_origin() {
        let origins = Origins::default();
        origins.set_http_version(&a(), HttpVersion::Http2);
        assert_eq!(origins.http_version(&a()), HttpVersion::Http2);
        let b = origin("https://b.example/");
        assert_eq!(origins.http_version(&b), HttpVersion::Unknown);
        origins.set_http_version(&b, HttpVersion::Http2Unanswered);
        origins.reset_http_versions();
        assert_eq!(origins.http_version(&a()), HttpVersion::Unknown);
        assert_eq!(origins.http_version(&b), HttpVersion::Http2Unanswered);
    }
}
