//! What one fake knows and has seen: its files, the faults and gates in force, the requests and their numbers.
//!
//! Turning a file into an answer is left to `reply`, sockets to `server`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fault::{Fault, Faults};
use crate::gate::Hold;
use crate::package::sha256;
use crate::reply::{self, Answer};

/// How far a bandwidth may run behind its clock and still catch up.
const SLACK: Duration = Duration::from_millis(10);

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// Lower-case names; values of a repeated header are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// Number of the connection it came on, from 1 in the order of acceptance.
    pub connection: u64,
    /// When its head was complete.
    pub at: Instant,
}

impl Request {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is fixed when the server starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) delay: Duration,
    pub(crate) connect_delay: Duration,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) connection_bytes_per_second: Option<u64>,
    pub(crate) validators: bool,
    pub(crate) max_age: Option<u32>,
}

/// Something that can be asked for.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) body: Bytes,
    pub(crate) etag: String,
    pub(crate) content_type: String,
    pub(crate) lifetime: Lifetime,
}

/// Which `Cache-Control` a file goes out with, if any is set at all.
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
    /// By path without query. The only lock that is held while hashing; never across an await.
    files: Mutex<HashMap<String, File>>,
    faults: Mutex<Faults>,
    gates: Mutex<Vec<Arc<Hold>>>,
    requests: Mutex<Vec<Request>>,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
    connections: AtomicU64,
    connections_to_drop: AtomicUsize,
    /// From when the shared bandwidth is free, and that of each connection.
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

    /// Puts many, at once for all observers.
    pub(crate) fn put_all(&self, new: Vec<(String, File)>) {
        lock(&self.files).extend(new);
    }

    pub(crate) fn remove(&self, path: &str) {
        lock(&self.files).remove(path);
    }

    /// Replaces a file by what `change` makes of its body (empty where there was none), at once for all observers.
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

    /// The number of a new connection, or `None` if it is one to drop.
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

    /// Waits as gates, delay and fault demand, then decides the answer from what is known at that moment.
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
        // One with an end: what goes on from somewhere to the end is the rest of a whole.
        let is_range = request
            .header("range")
            .is_some_and(|range| !range.ends_with('-'));
        let fault = lock(&self.faults).take(&request.path, is_range);
        if let Some(Fault::StallFor(time)) = fault {
            tokio::time::sleep(time).await;
        }
        reply::answer(self, request, fault)
    }

    /// Returns when these bytes may go out on this connection under its bandwidth and the shared one.
    pub(crate) async fn pace(&self, connection: u64, bytes: usize) {
        let now = Instant::now();
        let reserve = |bytes_per_second: u64, free_from: Option<Instant>| {
            let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
            // Sleep is coarse: what it took too long is made up for.
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
