//! Gates: matching requests wait in the server until the test opens the gate, so that no test depends on timing.
//!
//! This file only counts and delays requests; `state` records them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Time limit of the `wait_for` calls, far above the longest expected wait on a loaded machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Delays every request whose path contains the matcher, after it is recorded, until [`Gate::open`].
///
/// Dropping the gate opens it, so that a failing test leaves no client waiting.
#[derive(Debug)]
#[must_use = "a dropped gate is open"]
pub struct Gate {
    hold: Arc<Hold>,
}

impl Gate {
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self { hold }
    }

    /// Releases all waiting requests; later ones pass.
    pub fn open(&self) {
        self.hold.open.send_replace(true);
    }

    /// Number of requests that wait at this gate now.
    pub fn waiting(&self) -> usize {
        *self.hold.waiting.borrow()
    }

    /// Blocks the calling thread until at least `count` requests wait here.
    ///
    /// Tests with an async client in the same thread use [`Gate::wait_for_async`].
    ///
    /// # Panics
    /// After 20 seconds.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        let (lock, changed) = &self.hold.arrivals;
        let mut waiting = lock.lock().expect("no holder of this lock panics");
        while *waiting < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}", self.too_few(count));
            waiting = changed
                .wait_timeout(waiting, left)
                .expect("no holder of this lock panics")
                .0;
        }
    }

    /// Waits until at least `count` requests wait here, without blocking the thread.
    ///
    /// # Panics
    /// After 20 seconds.
    pub async fn wait_for_async(&self, count: usize) {
        let mut waiting = self.hold.waiting.subscribe();
        let reached =
            tokio::time::timeout(WAIT_TIMEOUT, waiting.wait_for(|now| *now >= count)).await;
        assert!(reached.is_ok(), "{}", self.too_few(count));
    }

    fn too_few(&self, count: usize) -> String {
        format!(
            "gate `{}`: {} requests wait after {WAIT_TIMEOUT:?}, expected {count}",
            self.hold.matcher,
            self.waiting()
        )
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// The server's side of a [`Gate`].
#[derive(Debug)]
pub(crate) struct Hold {
    matcher: String,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    /// The same count for blocking waiters.
    arrivals: (Mutex<usize>, std::sync::Condvar),
}

impl Hold {
    pub(crate) fn new(matcher: &str) -> Arc<Self> {
        Arc::new(Self {
            matcher: matcher.to_owned(),
            open: watch::Sender::new(false),
            waiting: watch::Sender::new(0),
            arrivals: <(Mutex<usize>, std::sync::Condvar)>::default(),
        })
    }

    pub(crate) fn holds(&self, path: &str) -> bool {
        path.contains(&self.matcher) && !*self.open.borrow()
    }

    /// Returns when the gate is open. The request counts as waiting until then, or until it is dropped.
    pub(crate) async fn pass(&self) {
        let _place = Place::take(self);
        let mut open = self.open.subscribe();
        // An error means that the sender is gone, which `&self` rules out.
        let _ = open.wait_for(|open| *open).await;
    }

    fn count(&self, change: impl Fn(&mut usize)) {
        // The count that `waiting` reads first, so that a woken thread sees the new value.
        self.waiting.send_modify(&change);
        let (lock, changed) = &self.arrivals;
        change(&mut lock.lock().expect("no holder of this lock panics"));
        changed.notify_all();
    }
}

struct Place<'a>(&'a Hold);

impl<'a> Place<'a> {
    fn take(hold: &'a Hold) -> Self {
        hold.count(|waiting| *waiting += 1);
        Self(hold)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.count(|waiting| *waiting -= 1);
    }
}
