//! The state of one fake: its files, the active faults and gates, the recorded requests and their counts.
//!
//! `reply` turns a file into an answer; `server` handles sockets.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fault::{Fault, Faults};
use crate::gate::Hold;
use crate::package::sha256;
use crate::reply::{self, Answer};

/// Time by which a bandwidth limiter may be late and still catch up.
const SLACK: Duration = Duration::from_millis(10);

/// One received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// In upper case.
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// Names in lower case; values of a repeated header are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// Number of its connection, from 1 in the order of acceptance.
    pub connection: u64,
    /// Time at which its head was complete.
    pub at: Instant,
}

impl Request {
    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// The settings of the server, fixed at its start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) delay: Duration,
    pub(crate) connect_delay: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) connection_bytes_per_second: Option<u64>,
    pub(crate) validators: bool,
    pub(crate) max_age: Option<u32>,
}

/// A file that clients can request.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) body: Bytes,
    pub(crate) etag: String,
    pub(crate) content_type: String,
    pub(crate) lifetime: Lifetime,
}

/// The `Cache-Control` of a file, if the server sends any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The server's `max_age`.
    Short,
    /// A year, immutable.
    Immutable,
}

impl File {
    pub(crate) fn new(body: Bytes, content_type: &str, lifetime: Lifetime) -> Self {
        let etag = format!("\"{}\"", &sha256(&body)[..32]);
        Self {
            body,
            etag,
            content_type: content_type.to_owned(),
            lifetime,
        }
    }
}

/// Shared by the handles and by all connections.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    /// By path without query. The only lock that is locked while hashing; never across an await.
    files: Mutex<HashMap<String, File>>,
    faults: Mutex<Faults>,
    gates: Mutex<Vec<Arc<Hold>>>,
    requests: Mutex<Vec<Request>>,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
    connections: AtomicU64,
    connections_to_drop: AtomicUsize,
    /// Times from which the shared bandwidth, and that of each connection, is free.
    pace: Mutex<Option<Instant>>,
    connection_paces: Mutex<HashMap<u64, Instant>>,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            files: Mutex::default(),
            faults: Mutex::default(),
            gates: Mutex::default(),
            requests: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            peak_in_flight: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            connections_to_drop: AtomicUsize::new(0),
            pace: Mutex::new(None),
            connection_paces: Mutex::default(),
        }
    }

    pub(crate) fn file(&self, path: &str) -> Option<File> {
        lock(&self.files).get(path).cloned()
    }

    pub(crate) fn put(&self, path: String, file: File) {
        lock(&self.files).insert(path, file);
    }

    /// Stores many files in one step for all observers.
    pub(crate) fn put_all(&self, new: Vec<(String, File)>) {
        lock(&self.files).extend(new);
    }

    pub(crate) fn remove(&self, path: &str) {
        lock(&self.files).remove(path);
    }

    /// Replaces a file by the result of `change` on its body, which is empty for a missing file. One step for all
    /// observers.
    pub(crate) fn change(&self, path: &str, change: impl FnOnce(Bytes) -> File) {
        let mut files = lock(&self.files);
        let body = files
            .get(path)
            .map_or_else(Bytes::new, |file| file.body.clone());
        files.insert(path.to_owned(), change(body));
    }

    pub(crate) fn add_fault(&self, matcher: &str, times: Option<usize>, fault: Fault) {
        lock(&self.faults).add(matcher, times, fault);
    }

    pub(crate) fn clear_faults(&self) {
        lock(&self.faults).clear();
    }

    pub(crate) fn add_gate(&self, hold: Arc<Hold>) {
        lock(&self.gates).push(hold);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    pub(crate) fn count_requests(&self, matcher: &str) -> usize {
        let requests = lock(&self.requests);
        requests
            .iter()
            .filter(|request| request.path.contains(matcher))
            .count()
    }

    pub(crate) fn forget_requests(&self) {
        lock(&self.requests).clear();
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn peak_in_flight(&self) -> usize {
        self.peak_in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn reset_peak(&self) {
        self.peak_in_flight
            .store(self.in_flight(), Ordering::SeqCst);
    }

    pub(crate) fn drop_connections(&self, count: usize) {
        self.connections_to_drop.store(count, Ordering::SeqCst);
    }

    /// The number of a new connection, or `None` if the connection must be dropped.
    pub(crate) fn connected(&self) -> Option<u64> {
        let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let dropped =
            self.connections_to_drop
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
        dropped.is_err().then_some(number)
    }

    /// Records a request. It is in flight until the returned value is dropped.
    pub(crate) fn arrived(&self, request: &Request) -> InFlight<'_> {
        lock(&self.requests).push(request.clone());
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak_in_flight.fetch_max(now, Ordering::SeqCst);
        InFlight(self)
    }

    /// Waits for gates, delay and fault, then decides the answer from the state at that moment.
    pub(crate) async fn answer(&self, request: &Request) -> Answer {
        let holds: Vec<Arc<Hold>> = {
            let gates = lock(&self.gates);
            let holding = gates.iter().filter(|hold| hold.holds(&request.path));
            holding.cloned().collect()
        };
        for hold in holds {
            hold.pass().await;
        }
        if !self.settings.delay.is_zero() {
            tokio::time::sleep(self.settings.delay).await;
        }
        // Only a range with an end: an open range resumes a whole body.
        let is_range = request
            .header("range")
            .is_some_and(|range| !range.ends_with('-'));
        let fault = lock(&self.faults).take(&request.path, is_range);
        if let Some(Fault::StallFor(time)) = fault {
            tokio::time::sleep(time).await;
        }
        reply::answer(self, request, fault)
    }

    /// Returns when this connection's bandwidth and the shared one allow these bytes.
    pub(crate) async fn pace(&self, connection: u64, bytes: usize) {
        let now = Instant::now();
        let reserve = |bytes_per_second: u64, free_from: Option<Instant>| {
            let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
            // Sleeps are coarse; the limiter makes up for the excess.
            free_from.map_or(now, |free| free.max(now - SLACK)) + takes
        };
        let mut done = now;
        if let Some(rate) = self.settings.bytes_per_second {
            let mut free_from = lock(&self.pace);
            let free = reserve(rate, *free_from);
            *free_from = Some(free);
            done = done.max(free);
        }
        if let Some(rate) = self.settings.connection_bytes_per_second {
            let mut paces = lock(&self.connection_paces);
            let free = reserve(rate, paces.get(&connection).copied());
            paces.insert(connection, free);
            done = done.max(free);
        }
        if done > now {
            tokio::time::sleep_until(done.into()).await;
        }
    }
}

/// See [`State::arrived`].
#[derive(Debug)]
pub(crate) struct InFlight<'a>(&'a State);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
