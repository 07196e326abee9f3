//! Gates: requests that match one wait in the server until the test lets them through, so that no test has to guess a time.
//!
//! Which requests exist is `state`'s matter; this file only counts and holds them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long the `wait_for` calls stand before they fail the test: far above any honest wait on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Holds every request whose path contains the matcher, from after its recording until [`Gate::open`].
///
/// Dropping the gate opens it, so a failing test leaves nobody hanging.
#[derive(Debug)]
#[must_use = "a dropped gate is open"]
pub struct Gate {
    hold: Arc<Hold>,
}

impl Gate {
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self { hold }
    }

    /// Lets all held requests through, and all later ones.
    pub fn open(&self) {
        self.hold.open.send_replace(true);
    }

    /// How many requests wait at this gate now.
    pub fn waiting(&self) -> usize {
        *self.hold.waiting.borrow()
    }

    /// Blocks the calling thread until `count` or more requests wait here.
    ///
    /// For tests without an async client in the same thread; those use [`Gate::wait_for_async`].
    ///
    /// # Panics
    /// After 20 seconds.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
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

    /// Waits until `count` or more requests wait here, without blocking the thread.
    ///
    /// # Panics
    /// After 20 seconds.
    pub async fn wait_for_async(&self, count: usize) {
        let mut waiting = self.hold.waiting.subscribe();
        let reached = tokio::time::timeout(PATIENCE, waiting.wait_for(|now| *now >= count)).await;
        assert!(reached.is_ok(), "{}", self.too_few(count));
    }

    fn too_few(&self, count: usize) -> String {
        format!(
            "gate `{}`: {} requests wait after {PATIENCE:?}, expected {count}",
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

    /// Returns when the gate is open. Counted as waiting until then, also when the request is dropped meanwhile.
    pub(crate) async fn pass(&self) {
        let _place = Place::take(self);
        let mut open = self.open.subscribe();
        // An error means the sender is gone, which `&self` rules out.
        let _ = open.wait_for(|open| *open).await;
    }

    fn count(&self, change: impl Fn(&mut usize)) {
        // First the number that `waiting` reads, so that whoever is woken finds it there.
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
