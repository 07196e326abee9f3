//! The only fake in larder's tests and benchmarks: a loopback server that acts as crates.io and as rustup's dist
//! server, records every request and injects faults. It knows nothing about larder and asserts nothing.
//!
//! ```
//! use fake_upstream::{Crate, FakeUpstream, Fault, crate_path};
//!
//! let upstream = FakeUpstream::start();
//! upstream.publish(Crate::new("right", "1.0.0").file("src/lib.rs", "pub fn f() {}"));
//! upstream.publish(Crate::new("left", "1.0.0").dep("right", "^1"));
//! upstream.fault_times(&crate_path("left", "1.0.0"), 1, Fault::CutAfter(100));
//! // .. point a client at `upstream.url()` ..
//! assert_eq!(upstream.requests_for("left"), 0);
//! ```
//!
//! The server runs in a thread of its own, so that blocking and async tests use it in the same way. Matchers are
//! substrings of the request path; the empty one matches everything.
//!
//! ```text
//!   server ── accepts ──> wire ──> http1 | http2 ──> state (files, faults, gates, record)
//!                                      └── reply (the answer as steps) ──> body (sends the steps)
//!   package, channel, installer, lock: make the files
//! ```

mod body;
mod channel;
mod fault;
mod gate;
mod http1;
mod http2;
mod installer;
mod lock;
mod package;

mod reply;
mod server;
mod state;
mod terminator;
mod tls;
mod wire;
mod xz;
mod zst;

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

pub use channel::{Archive, DEFAULT_ROOT, HOST, Toolchain, WASM};
pub use fault::Fault;
pub use gate::Gate;
pub use installer::{Installer, bootstrap_script};
pub use lock::{Project, from_lock};
pub use package::{Crate, index_path, sha256};
pub use state::Request;
pub use terminator::TlsTerminator;

use gate::Hold;
use server::{Order, Server};
use state::{File, Lifetime, Settings, State};

/// A running fake. Clones are handles to the same server, which stops with the last of them.
#[derive(Clone, Debug)]
pub struct FakeUpstream {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    state: Arc<State>,
    base: String,
    ca_pem: String,
    orders: UnboundedSender<(Order, mpsc::Sender<std::io::Result<()>>)>,
    thread: Option<JoinHandle<()>>,
}

/// The fixed settings of a fake; see [`FakeUpstream::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    settings: Settings,
    port: u16,
    tls: Option<tls::Identity>,
}

impl Builder {
    /// Serves https (HTTP/2 and 1.1 by ALPN) with a new certificate authority, see [`FakeUpstream::ca_pem`].
    pub fn tls(mut self) -> Self {
        self.tls.get_or_insert_default();
        self
    }

    /// TLS with a certificate for this name only, which is not the name that clients use.
    pub fn tls_name(mut self, name: &str) -> Self {
        self.tls.get_or_insert_default().name = Some(name.to_owned());
        self
    }

    /// TLS with an expired certificate.
    pub fn tls_expired(mut self) -> Self {
        self.tls.get_or_insert_default().expired = true;
        self
    }

    /// TLS without HTTP/2.
    pub fn tls_http1_only(mut self) -> Self {
        self.tls.get_or_insert_default().http1_only = true;
        self
    }

    /// Adds a round trip to every answer. Streams of one connection wait concurrently.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.settings.delay = delay;
        self
    }

    /// Adds a time between the acceptance of a connection and its first byte (none by default). A real client pays one
    /// round trip for TCP and another for TLS 1.3.
    pub fn connect_delay(mut self, delay: Duration) -> Self {
        self.settings.connect_delay = delay;
        self
    }

    /// Limits the body bytes per second of all connections together (unlimited by default).
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.settings.bytes_per_second = Some(bytes_per_second.max(1));
        self
    }

    /// Limits the body bytes per second of each connection (unlimited by default), over all its streams.
    pub fn connection_bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.settings.connection_bytes_per_second = Some(bytes_per_second.max(1));
        self
    }

    /// Enables `ETag` in answers and the evaluation of `If-None-Match` (true by default).
    pub fn validators(mut self, validators: bool) -> Self {
        self.settings.validators = validators;
        self
    }

    /// Sends `Cache-Control: public,max-age=SECONDS` with everything except crates, which are immutable for a year.
    /// With `None` (the default) no answer has a `Cache-Control`.
    pub fn max_age(mut self, seconds: Option<u32>) -> Self {
        self.settings.max_age = seconds;
        self
    }

    /// The port to listen on (a free one by default).
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts the server. It accepts connections when this returns.
    ///
    /// # Panics
    /// If the port cannot be opened or a thread cannot be started.
    pub fn start(self) -> FakeUpstream {
        let state = Arc::new(State::new(self.settings));
        let (scheme, tls, ca_pem) = match &self.tls {
            Some(identity) => {
                let (acceptor, ca_pem) = tls::acceptor(identity);
                ("https", Some(acceptor), ca_pem)
            }
            None => ("http", None, String::new()),
        };
        let (orders, received) = tokio::sync::mpsc::unbounded_channel();
        let (started, wait_for_start) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("fake-upstream".to_owned())
            .spawn({
                let state = Arc::clone(&state);
                move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime can be made");
                    runtime.block_on(async {
                        let listener =
                            server::listen(self.port).expect("the loopback port is free");
                        let server =
                            Server::new(state, listener, tls).expect("a listener has an address");
                        started
                            .send(server.port())
                            .expect("the starter waits for the port");
                        server.run(received).await;
                    });
                }
            })
            .expect("a thread can be started");
        let port = wait_for_start
            .recv()
            .expect("the server thread says where it listens");
        let base = format!("{scheme}://127.0.0.1:{port}/");

        let config = serde_json::json!({"dl": format!("{base}dl"), "api": format!("{base}api")});
        let config = File::new(
            config.to_string().into(),
            "application/json",
            Lifetime::Short,
        );
        state.put("/index/config.json".to_owned(), config);
        FakeUpstream {
            running: Arc::new(Running {
                state,
                base,
                ca_pem,
                orders,
                thread: Some(thread),
            }),
        }
    }
}

/// The request path of an index entry, from the root of the server.
pub fn entry_path(name: &str) -> String {
    format!("/index/{}", index_path(name))
}

/// The request path of a crate's archive, from the root of the server.
pub fn crate_path(name: &str, version: &str) -> String {
    format!("/dl/{name}/{version}/download")
}

impl FakeUpstream {
    /// The default settings: http, no delay, validators, no `Cache-Control`.
    pub fn builder() -> Builder {
        Builder {
            settings: Settings {
                delay: Duration::ZERO,
                connect_delay: Duration::ZERO,
                bytes_per_second: None,
                connection_bytes_per_second: None,
                validators: true,
                max_age: None,
            },
            port: 0,
            tls: None,
        }
    }

    /// A fake with the default settings.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The URL of the index, without cargo's prefix `sparse+`.
    pub fn url(&self) -> String {
        format!("{}index/", self.running.base)
    }

    /// The URL of the server's root, with a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.running.base
    }

    /// The certificate of the authority that clients must trust; empty without TLS.
    pub fn ca_pem(&self) -> &str {
        &self.running.ca_pem
    }

    // Files.

    /// Publishes the archive and appends its line to the index entry. Returns the checksum.
    pub fn publish(&self, package: Crate) -> String {
        let checksum = self.publish_archive(&package);
        self.append_index_line(&package.name, &package.index_line(&checksum));
        checksum
    }

    /// Publishes the archive without changing the index. Returns the checksum.
    pub fn publish_archive(&self, package: &Crate) -> String {
        let archive = package.archive();
        let checksum = sha256(&archive);
        let path = crate_path(&package.name, &package.version);
        self.state().put(
            path,
            File::new(archive, "application/gzip", Lifetime::Immutable),
        );
        checksum
    }

    /// Appends a line to an index entry without publishing an archive.
    pub fn append_index_line(&self, name: &str, line: &str) {
        self.state().change(&entry_path(name), |body| {
            let mut body = body.to_vec();
            body.extend_from_slice(line.as_bytes());
            body.push(b'\n');
            entry(body.into())
        });
    }

    /// Yanks a version.
    ///
    /// # Panics
    /// If the entry has no line of this version that is not yanked.
    pub fn yank(&self, name: &str, version: &str) {
        let vers = format!("\"vers\":\"{version}\"");
        let mut found = false;
        self.state().change(&entry_path(name), |body| {
            let text = String::from_utf8_lossy(&body);
            let mut changed = String::with_capacity(text.len());
            for line in text.split_inclusive('\n') {
                if line.contains(&vers) && line.contains("\"yanked\":false") {
                    found = true;
                    changed.push_str(&line.replace("\"yanked\":false", "\"yanked\":true"));
                } else {
                    changed.push_str(line);
                }
            }
            entry(changed.into())
        });
        assert!(
            found,
            "`{name} {version}` is not published here, or yanked already"
        );
    }

    /// Replaces an index entry by any bytes.
    pub fn set_index(&self, name: &str, body: impl Into<Bytes>) {
        self.state().put(entry_path(name), entry(body.into()));
    }

    /// Removes an index entry, so that it is answered with 404. Archives stay.
    pub fn unpublish(&self, name: &str) {
        self.state().remove(&entry_path(name));
    }

    /// Replaces `config.json` by any bytes.
    pub fn set_config(&self, body: impl Into<Bytes>) {
        let file = File::new(body.into(), "application/json", Lifetime::Short);
        self.state().put("/index/config.json".to_owned(), file);
    }

    /// The archive of a version.
    ///
    /// # Panics
    /// If it was not published.
    pub fn body(&self, name: &str, version: &str) -> Bytes {
        let file = self.state().file(&crate_path(name, version));
        file.unwrap_or_else(|| panic!("`{name} {version}` is not published here"))
            .body
    }

    /// An index entry as it is served.
    ///
    /// # Panics
    /// If it does not exist.
    pub fn index_body(&self, name: &str) -> Bytes {
        let file = self.state().file(&entry_path(name));
        file.unwrap_or_else(|| panic!("`{name}` has no index entry here"))
            .body
    }

    /// The SHA-256 of the archive of a version, in hex.
    ///
    /// # Panics
    /// If it was not published.
    pub fn checksum(&self, name: &str, version: &str) -> String {
        sha256(&self.body(name, version))
    }

    /// Serves these bytes at this path, which starts with a slash, and their hash at the path with `.sha256` appended.
    /// Replaces an earlier file.
    pub fn serve_static(&self, path: &str, body: impl Into<Bytes>, content_type: &str) {
        let file = File::new(body.into(), content_type, Lifetime::Short);
        self.state().put(path.to_owned(), file);
    }

    /// Removes the file at a path.
    pub fn remove_static(&self, path: &str) {
        self.state().remove(path);
    }

    // Faults.

    /// Injects the fault into every request whose path contains the matcher. The newest matching rule applies.
    pub fn fault(&self, matcher: &str, fault: Fault) {
        self.state().add_fault(matcher, None, fault);
    }

    /// [`FakeUpstream::fault`] for the next `times` matching requests.
    pub fn fault_times(&self, matcher: &str, times: usize, fault: Fault) {
        self.state().add_fault(matcher, Some(times), fault);
    }

    /// Removes all faults, for requests that are not decided yet.
    pub fn clear_faults(&self) {
        self.state().clear_faults();
    }

    /// Closes the next `count` connections right after their acceptance, without reading or writing a byte.
    pub fn drop_connections(&self, count: usize) {
        self.state().drop_connections(count);
    }

    /// Delays matching requests after they are recorded. The server decides about faults when the gate is open.
    pub fn gate(&self, matcher: &str) -> Gate {
        let hold = Hold::new(matcher);
        self.state().add_gate(Arc::clone(&hold));
        Gate::new(hold)
    }

    /// Closes the port (dials are refused) and drops all connections. [`FakeUpstream::restart`] can use the port again.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Listens again on the same port.
    pub fn restart(&self) {
        self.order(Order::Restart);
    }

    /// Drops all packets: open connections neither read nor write nor close, and dials get no answer, because the
    /// server keeps the listener's queue full and Linux then drops their SYN.
    ///
    /// # Panics
    /// On systems that answer such dials.
    pub fn black_hole(&self) {
        self.order(Order::BlackHole);
    }

    /// Ends [`FakeUpstream::black_hole`]. Open connections continue; dials are answered, pending ones at their next
    /// SYN, which may take a second or more.
    pub fn revive(&self) {
        self.order(Order::Revive);
    }

    // The record.

    /// All requests so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests()
    }

    /// Number of requests whose path contains the matcher.
    pub fn requests_for(&self, matcher: &str) -> usize {
        self.state().count_requests(matcher)
    }

    /// Clears the record.
    pub fn forget_requests(&self) {
        self.state().forget_requests();
    }

    /// Number of accepted connections so far.
    pub fn connections(&self) -> usize {
        usize::try_from(self.state().connections()).expect("fewer connections than addresses")
    }

    /// Number of requests in flight now, including those that wait. Over HTTP/1 the server notices only after the wait
    /// that a client has disconnected.
    pub fn in_flight(&self) -> usize {
        self.state().in_flight()
    }

    /// The largest number of requests in flight at once.
    pub fn peak_in_flight(&self) -> usize {
        self.state().peak_in_flight()
    }

    /// Resets the peak to the requests in flight now.
    pub fn reset_peak(&self) {
        self.state().reset_peak();
    }

    fn state(&self) -> &State {
        &self.running.state
    }

    #[track_caller]
    fn order(&self, order: Order) {
        let (done, wait) = mpsc::channel();
        let sent = self.running.orders.send((order, done));
        sent.expect("the server runs as long as there are handles");
        let result = wait.recv().expect("the server answers every order");
        result.unwrap_or_else(|error| panic!("the fake upstream could not do as told: {error}"));
    }
}

fn entry(body: Bytes) -> File {
    File::new(body, "text/plain", Lifetime::Short)
}

impl Drop for Running {
    fn drop(&mut self) {
        let (done, _) = mpsc::channel();
        // Both fail only if the server thread has panicked, which was reported then.
        let _ = self.orders.send((Order::Quit, done));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
