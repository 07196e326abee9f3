//! Observers of a daemon: browsers that show its page, and a program that scrapes its metrics.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::http::Http;
use testkit::larder::Larder;

/// Browsers that show the page.
const BROWSERS: usize = 2;
/// Interval between two scrapes of the metrics.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which an observer looks whether it shall end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit of the page's first event.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Running observers.
#[derive(Debug)]
pub(crate) struct Observers {
    is_over: Arc<AtomicBool>,
    /// The events that each browser has received.
    events: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Lets two browsers load the page and receive its changes, and a program scrape the metrics each second. Returns
    /// once each browser has received an event.
    ///
    /// # Panics
    /// If larder gives no page, or no event in time.
    pub(crate) fn of(larder: &Larder<'_>) -> Self {
        let http = larder.http();
        let is_over = Arc::<AtomicBool>::default();
        let mut observers = Self {
            is_over: is_over.clone(),
            events: Vec::new(),
            threads: Vec::new(),
        };
        for _ in 0..BROWSERS {
            let page = http.get_with("/", &[("accept", "text/html")]);
            assert!(
                page.status == 200 && page.text().contains("data-live"),
                "this is no page for browsers: {}",
                page.text()
            );
            let (address, is_over) = (http.address(), is_over.clone());
            let events = Arc::<AtomicU64>::default();
            observers.events.push(events.clone());
            observers
                .threads
                .push(std::thread::spawn(move || show(address, &events, &is_over)));
        }
        observers
            .threads
            .push(std::thread::spawn(move || scrape(&http, &is_over)));
        let deadline = Instant::now() + FIRST_EVENT_TIMEOUT;
        while observers.least_events() == 0 {
            assert!(Instant::now() < deadline, "the page receives no events");
            std::thread::sleep(Duration::from_millis(1));
        }
        observers
    }

    /// The events that the browser with the fewest has received.
    fn least_events(&self) -> u64 {
        let events = self.events.iter();
        let events = events.map(|events| events.load(Ordering::Relaxed));
        events.min().unwrap_or_default()
    }

    /// Ends the observers. Returns the events of the browser that received the fewest.
    ///
    /// # Panics
    /// If an observer has lost its connection.
    pub(crate) fn end(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("larder answers its observers");
        }
        self.least_events()
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Receives the changes of the page, and counts them.
fn show(address: SocketAddr, events: &AtomicU64, is_over: &AtomicBool) {
    let stream = TcpStream::connect(address).expect("larder accepts connections");
    let timeout = stream.set_read_timeout(Some(LOOK_INTERVAL));
    timeout.expect("a socket has a read timeout");
    let mut stream = BufReader::new(stream);
    let request =
        format!("GET /-/events HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    let sent = stream.get_mut().write_all(request.as_bytes());
    sent.expect("larder takes requests");
    let mut line = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        match stream.read_until(b'\n', &mut line) {
            Ok(0) => panic!("larder ended the changes of the page"),
            Ok(_) => {}
            // The part of the line that has arrived stays.
            Err(error) if is_timeout(&error) => continue,
            Err(error) => panic!("the changes of the page broke off: {error}"),
        }
        if line.starts_with(b"event: ") {
            events.fetch_add(1, Ordering::Relaxed);
        }
        line.clear();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Scrapes the metrics over one connection.
fn scrape(http: &Http, is_over: &AtomicBool) {
    let mut connection = http.connect().expect("larder accepts connections");
    while !is_over.load(Ordering::Relaxed) {
        let next = Instant::now() + SCRAPE_INTERVAL;
        let metrics = connection.get("/-/metrics", &[]);
        let metrics = metrics.expect("larder answers its observers");
        assert!(
            metrics.status == 200 && metrics.complete,
            "{}",
            metrics.text()
        );
        while Instant::now() < next && !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}
