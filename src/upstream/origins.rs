//! What is known of the ways to each origin: whether HTTP/2 is spoken there, and that a dial has just failed. What is sent
//! over them is for others.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use url::Url;

use super::Failure;

/// Requests that began so shortly before the one whose dial failed most likely wait for that dial as well.
pub(super) const SAME_DIAL_WINDOW: Duration = Duration::from_millis(50);

/// An upstream: the scheme, host and port of a URL. `Display` writes it as people do: `index.example`, or
/// `127.0.0.1:8080` if the port is not the scheme's default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    host: Arc<str>,
    port: u16,
    scheme: Cow<'static, str>,
}

impl Origin {
    /// Whether the user's `name`, a host with or without a port, means this origin.
    pub(super) fn is_named(&self, name: &str) -> bool {
        *self.host == *name || self.to_string() == name
    }
}

impl From<&Url> for Origin {
    fn from(url: &Url) -> Self {
        Self {
            host: url.host_str().unwrap_or_default().into(),
            port: url.port_or_known_default().unwrap_or_default(),
            scheme: match url.scheme() {
                "https" => "https".into(),
                "http" => "http".into(),
                other => other.to_owned().into(),
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.scheme, &*self.host, self.port) {
            (scheme, "", _) => write!(f, "{scheme}:"),
            ("https", host, 443) | ("http", host, 80) | (_, host, 0) => f.write_str(host),
            (_, host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// The ways to all origins.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<Origin, OriginState>>);

#[derive(Debug, Default)]
struct OriginState {
    version: HttpVersion,
    /// By lane: the latest news, for all who wait for a connection there.
    events: Vec<watch::Sender<Option<OriginEvent>>>,
}

/// Which HTTP an origin speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HttpVersion {
    /// Not tried yet.
    #[default]
    Unknown,
    /// HTTP/2.
    Http2,
    /// Something older.
    Http1,
    /// HTTP/2 was tried, and nothing came back. That may be the fault of HTTP/2.
    Http2Unanswered,
}

/// What may become known about an origin while a request waits for a connection to it.
#[derive(Clone, Debug)]
pub(super) enum OriginEvent {
    /// A dial failed: nobody there.
    DialFailed {
        /// How.
        failure: Failure,
        /// When the request began for which it was made.
        since: Instant,
    },
    /// It does not speak HTTP/2.
    Http1Only,
}

/// Tells a request that begins now of news from now on.
pub(super) struct OriginWatcher {
    events: watch::Receiver<Option<OriginEvent>>,
    since: Instant,
}

impl Origins {
    pub(super) fn http_version(&self, origin: &Origin) -> HttpVersion {
        self.lock()
            .get(origin)
            .map_or(HttpVersion::Unknown, |state| state.version)
    }

    pub(super) fn set_http_version(&self, origin: &Origin, version: HttpVersion) {
        let mut origins = self.lock();
        let state = origins.entry(origin.clone()).or_default();
        state.version = version;
        if version == HttpVersion::Http1 {
            for event in &state.events {
                event.send_replace(Some(OriginEvent::Http1Only));
            }
        }
    }

    /// Whoever stands there may be another by now.
    pub(super) fn reset_http_versions(&self) {
        for state in self.lock().values_mut() {
            if state.version != HttpVersion::Http2Unanswered {
                state.version = HttpVersion::Unknown;
            }
        }
    }

    /// Watches the dials of one lane.
    pub(super) fn watch(&self, origin: &Origin, slot: usize) -> OriginWatcher {
        let mut origins = self.lock();
        let state = origins.entry(origin.clone()).or_default();
        while state.events.len() <= slot {
            state.events.push(watch::Sender::new(None));
        }
        let mut events = state.events[slot].subscribe();
        events.mark_unchanged();
        OriginWatcher {
            events,
            since: Instant::now(),
        }
    }

    /// Tells all who watch the lane that the dial failed which was made for a request that `began` then: nobody there. Each of
    /// them would find out one after the other, each after the whole time limit.
    pub(super) fn fail_waiters(
        &self,
        origin: &Origin,
        slot: usize,
        failure: &Failure,
        began: &OriginWatcher,
    ) {
        if let Some(state) = self.lock().get(origin)
            && let Some(event) = state.events.get(slot)
        {
            event.send_replace(Some(OriginEvent::DialFailed {
                failure: failure.clone(),
                since: began.since,
            }));
        }
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, OriginState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OriginWatcher {
    /// Resolves when there is news, if ever. A request that began before the one whose dial failed may have been sent over an
    /// older connection, which works on after it takes nothing new: it's told only after this grace.
    pub(super) async fn next_event(&mut self, grace: Duration) -> OriginEvent {
        loop {
            if self.events.changed().await.is_err() {
                // Nobody is left who could tell.
                std::future::pending::<()>().await;
            }
            let Some(event) = self.events.borrow().clone() else {
                continue;
            };
            if matches!(event, OriginEvent::DialFailed { since, .. } if since > self.since + SAME_DIAL_WINDOW)
            {
                tokio::time::sleep(grace).await;
            }
            return event;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::FailureKind;

    fn origin(host: &str) -> Origin {
        Origin::from(&Url::parse(&format!("https://{host}/")).unwrap())
    }

    fn failure() -> Failure {
        FailureKind::Unreachable {
            cause: "c".to_owned(),
        }
        .at(origin("a"))
    }

    #[tokio::test]
    async fn a_failed_dial_is_told_to_those_who_wait_in_its_lane_and_to_nobody_later() {
        let origins = Origins::default();
        let (first, second, other) = (
            origins.watch(&origin("a"), 0),
            origins.watch(&origin("a"), 0),
            origins.watch(&origin("a"), 1),
        );
        origins.fail_waiters(&origin("a"), 0, &failure(), &first);
        for mut watcher in [first, second] {
            let event = watcher.next_event(Duration::MAX).await;
            assert!(
                matches!(event, OriginEvent::DialFailed { failure: told, .. } if told.to_string() == failure().to_string())
            );
        }
        for mut watcher in [other, origins.watch(&origin("a"), 0)] {
            let told = tokio::time::timeout(
                Duration::from_millis(20),
                watcher.next_event(Duration::ZERO),
            );
            assert!(told.await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_began_before_the_one_whose_dial_failed_is_told_after_a_grace() {
        let origins = Origins::default();
        let mut older = origins.watch(&origin("a"), 0);
        older.since -= SAME_DIAL_WINDOW * 2;
        let failed = origins.watch(&origin("a"), 0);
        origins.fail_waiters(&origin("a"), 0, &failure(), &failed);
        let (began, grace) = (tokio::time::Instant::now(), Duration::from_secs(2));
        assert!(matches!(
            older.next_event(grace).await,
            OriginEvent::DialFailed { .. }
        ));
        assert_eq!(began.elapsed(), grace);
    }

    #[tokio::test]
    async fn who_waits_for_http2_is_told_that_it_is_not_spoken() {
        let origins = Origins::default();
        let mut waiting = origins.watch(&origin("a"), 2);
        origins.set_http_version(&origin("a"), HttpVersion::Http1);
        assert!(matches!(
            waiting.next_event(Duration::ZERO).await,
            OriginEvent::Http1Only
        ));
    }

    #[test]
    fn what_is_spoken_is_learned_by_origin() {
        let origins = Origins::default();
        origins.set_http_version(&origin("a"), HttpVersion::Http2);
        assert_eq!(origins.http_version(&origin("a")), HttpVersion::Http2);
        assert_eq!(origins.http_version(&origin("b")), HttpVersion::Unknown);
        origins.set_http_version(&origin("c"), HttpVersion::Http2Unanswered);
        origins.reset_http_versions();
        assert_eq!(origins.http_version(&origin("a")), HttpVersion::Unknown);
        assert_eq!(
            origins.http_version(&origin("c")),
            HttpVersion::Http2Unanswered
        );
    }
}
