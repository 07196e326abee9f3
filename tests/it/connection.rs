//! The connection layer over real sockets: well-behaved clients, stalled clients and malicious clients.
//!
//! Unit tests cover the decisions that need no socket.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Request, Response, StatusCode};
use larder::server::connection::h2c::PREFACE;
use larder::server::connection::{ConnectionError, Limits, Protocol, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

// ---------------------------------------------------------------------------------------------------------------
// The server under test
// ---------------------------------------------------------------------------------------------------------------

/// Time limit of everything that must happen. Only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

async fn within<F: Future>(future: F) -> F::Output {
    timeout(TEST_TIMEOUT, future)
        .await
        .expect("it takes for ever")
}

/// Limits short enough for tests, and different enough to distinguish.
fn short() -> Limits {
    Limits {
        first_bytes: Duration::from_millis(200),
        request_head: Duration::from_millis(500),
        write_stall: Duration::from_millis(400),
        drain: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// The service under test: answers by path, and counts requests.
struct Service {
    /// Requests for `/gate` wait for a permit.
    gate: Arc<Semaphore>,
    /// Number of requests so far.
    received: watch::Sender<usize>,
    open: AtomicUsize,
    peak: AtomicUsize,
    smuggled: AtomicUsize,
    connections: AtomicUsize,
    /// Delay before files are answered.
    delay: Duration,
    files: BTreeMap<String, Bytes>,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>, protocol: Protocol) -> Response<Script> {
        self.received.send_modify(|received| *received += 1);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(open, Ordering::SeqCst);
        let response = self.page(request.uri().path()).await;
        self.open.fetch_sub(1, Ordering::SeqCst);
        let mut response = response;
        response
            .headers_mut()
            .insert("x-protocol", format!("{protocol:?}").parse().unwrap());
        response
    }

    async fn page(&self, path: &str) -> Response<Script> {
        if let Some(size) = path.strip_prefix("/size/") {
            return Response::new(Script::sized(size.parse().unwrap()));
        }
        if let Some(body) = self.files.get(path) {
            sleep(self.delay).await;
            return Response::new(Script::text(body.clone()));
        }
        match path {
            "/hello" => Response::new(Script::text("hello\n")),
            "/gate" => {
                self.gate.acquire().await.unwrap().forget();
                Response::new(Script::text("let through\n"))
            }
            "/breaks/sized" => Response::new(Script::breaking(Some(100_000), &self.gate)),
            "/breaks/chunked" => Response::new(Script::breaking(None, &self.gate)),
            "/smuggled" => {
                self.smuggled.fetch_add(1, Ordering::SeqCst);
                Response::new(Script::text("smuggled\n"))
            }
            _ => {
                let mut response = Response::new(Script::text("no such page\n"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    async fn received(&self, count: usize) {
        let mut received = self.received.subscribe();
        within(received.wait_for(|received| *received >= count))
            .await
            .unwrap();
    }
}

/// A body of `left` bytes in chunks, which may fail at its end.
struct Script {
    left: usize,
    chunk: Bytes,
    length: Option<u64>,
    /// Resolves when the body must fail.
    breaks: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Script {
    fn text(text: impl Into<Bytes>) -> Self {
        let chunk = text.into();
        Self {
            left: chunk.len(),
            length: Some(chunk.len() as u64),
            chunk,
            breaks: None,
        }
    }

    fn sized(size: usize) -> Self {
        Self {
            left: size,
            chunk: Bytes::from(vec![b'x'; 64 * 1024]),
            length: Some(size as u64),
            breaks: None,
        }
    }

    /// A body that fails when the gate opens.
    fn breaking(length: Option<u64>, gate: &Arc<Semaphore>) -> Self {
        let gate = Arc::clone(gate);
        Self {
            left: 5000,
            chunk: Bytes::from(vec![b'x'; 1000]),
            length,
            breaks: Some(Box::pin(async move {
                gate.acquire().await.unwrap().forget();
            })),
        }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            let Some(breaks) = &mut self.breaks else {
                return Poll::Ready(None);
            };
            ready!(breaks.as_mut().poll(cx));
            return Poll::Ready(Some(Err(io::Error::other("the source broke off"))));
        }
        let size = self.left.min(self.chunk.len());
        self.left -= size;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.slice(..size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.breaks.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

type Ended = Result<(), ConnectionError>;

struct Server {
    address: SocketAddr,
    site: Arc<Service>,
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

struct Builder {
    limits: Limits,
    upgrade: bool,
    delay: Duration,
    files: BTreeMap<String, Bytes>,
}

impl Server {
    fn with(limits: Limits) -> Builder {
        Builder {
            limits,
            upgrade: true,
            delay: Duration::ZERO,
            files: BTreeMap::new(),
        }
    }

    async fn start() -> Self {
        Self::with(Limits::default()).start().await
    }

    async fn connect(&self) -> Raw<TcpStream> {
        Raw::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Waits until the next connection ends, and returns how.
    async fn ended(&mut self) -> Ended {
        within(self.ended.recv()).await.unwrap()
    }

    fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Builder {
    fn without_upgrade(mut self) -> Self {
        self.upgrade = false;
        self
    }

    fn site(&self) -> Arc<Service> {
        Arc::new(Service {
            gate: Arc::new(Semaphore::new(0)),
            received: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            smuggled: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            delay: self.delay,
            files: self.files.clone(),
        })
    }

    async fn start(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let site = self.site();
        let stop = watch::Sender::new(false);
        let (endings, ended) = mpsc::unbounded_channel();
        let (served, stopping) = (Arc::clone(&site), stop.subscribe());
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                io.set_nodelay(true).unwrap();
                served.connections.fetch_add(1, Ordering::SeqCst);
                let (site, endings) = (Arc::clone(&served), endings.clone());
                let (limits, stopping) = (self.limits.clone(), stopping.clone());
                tokio::spawn(async move {
                    let service = service_of(site);
                    let activity = Arc::default();
                    let ended = serve(io, service, &limits, self.upgrade, activity, stopping).await;
                    // The test may have finished.
                    endings.send(ended).ok();
                });
            }
        });
        Server {
            address,
            site,
            stop,
            ended,
        }
    }
}

fn service_of(
    site: Arc<Service>,
) -> impl Fn(Request<Incoming>, Protocol) -> Pin<Box<dyn Future<Output = Response<Script>> + Send>>
+ Clone
+ Send
+ 'static {
    move |request, protocol| {
        let site = Arc::clone(&site);
        Box::pin(async move { site.answer(request, protocol).await })
    }
}

#[track_caller]
fn assert_ended(ended: &Ended, expected: &str) {
    let shown = match ended {
        Ok(()) => "ok",
        Err(ConnectionError::RequestTimeout) => "silent",
        Err(ConnectionError::WriteTimeout) => "stalled",
        Err(ConnectionError::Abuse(_)) => "abuse",
        Err(ConnectionError::Socket(_)) => "socket",
        Err(ConnectionError::Http(_)) => "http",
    };
    assert_eq!(shown, expected, "{ended:?}");
}

// ---------------------------------------------------------------------------------------------------------------
// Clients
// ---------------------------------------------------------------------------------------------------------------

/// A client that sends exactly the given bytes.
struct Raw<I> {
    io: I,
    read: BytesMut,
}

/// An HTTP/2 frame.
#[derive(Debug)]
struct RawFrame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Bytes,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `:status: 200` in the static table of HPACK.
const STATUS_200: u8 = 0x88;

impl<I: AsyncRead + AsyncWrite + Unpin> Raw<I> {
    fn new(io: I) -> Self {
        Self {
            io,
            read: BytesMut::new(),
        }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.io.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads more bytes. Returns false at the end of the connection, or after a reset.
    async fn more(&mut self) -> bool {
        match within(self.io.read_buf(&mut self.read)).await {
            Ok(size) => size > 0,
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => false,
            Err(cause) => panic!("{cause}"),
        }
    }

    async fn read_to_end(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.read.split()).into_owned()
    }

    /// Reads the head of an answer, with its blank line.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.read.split_to(end + 4).to_vec()).unwrap();
            }
            assert!(self.more().await, "no whole head: {:?}", self.read);
        }
    }

    async fn exactly(&mut self, size: usize) -> Bytes {
        while self.read.len() < size {
            assert!(self.more().await, "ends after {} bytes", self.read.len());
        }
        self.read.split_to(size).freeze()
    }

    /// The next frame; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<RawFrame> {
        while self.read.len() < 9 {
            if !self.more().await {
                return None;
            }
        }
        let head = self.read.split_to(9);
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.exactly(size).await;
        Some(RawFrame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The next frame of this kind; skips others.
    async fn frame_of(&mut self, kind: u8) -> RawFrame {
        loop {
            let frame = self.frame().await.expect("the connection ends");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads all frames until the end of the connection.
    async fn frames(&mut self) -> Vec<RawFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }

    /// Reads the whole answer on a stream without granting any window. Asserts that its status is 200.
    /// All frames until the server has sent nothing for a while, or has closed the connection.
    async fn frames_until_quiet(&mut self) -> Vec<RawFrame> {
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = timeout(Duration::from_millis(300), self.frame()).await {
            frames.push(frame);
        }
        frames
    }

    async fn h2_answer(&mut self, stream: u32) -> Bytes {
        let head = self.frame_of(HEADERS).await;
        assert_eq!((head.stream, head.payload[0]), (stream, STATUS_200));
        let mut body = BytesMut::new();
        loop {
            let frame = self.frame_of(DATA).await;
            assert_eq!(frame.stream, stream);
            body.extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                return body.freeze();
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, size @ ..] = (payload.len() as u32).to_be_bytes();
    [&size[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn h2_get(stream: u32, path: &str) -> Vec<u8> {
    frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        stream,
        &header_block(path),
    )
}

/// `:method: GET` and `:scheme: http` by index, the authority and the path as literals.
fn header_block(path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| [&[index, value.len() as u8], value.as_bytes()].concat();
    [
        &[0x82, 0x86][..],
        &literal(1, "larder.example"),
        &literal(4, path),
    ]
    .concat()
}

/// Preface and SETTINGS.
fn h2_opening() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

fn upgrade(request_line: &str, more: &str) -> String {
    format!(
        "{request_line} HTTP/1.1\r\nHost: larder.example\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAQAAAAIAAAAA\r\n{more}\r\n"
    )
}

/// Upgrades with a request for `path`, and reads the 101.
async fn upgraded(server: &Server, path: &str) -> Raw<TcpStream> {
    let mut client = server.connect().await;
    client.send(upgrade(&format!("GET {path}"), "")).await;
    assert_switches(&client.head().await);
    client
}

#[track_caller]
fn assert_switches(head: &str) {
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert!(head.contains("\r\nupgrade: h2c\r\n"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
}

#[track_caller]
fn assert_over_http1(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("x-protocol: Http1\r\n"), "{answer}");
}

const CLOSE: &str = "GET /hello HTTP/1.1\r\nHost: larder.example\r\nConnection: close\r\n\r\n";

/// A well-behaved client with prior knowledge.
async fn h2_client(server: &Server) -> h2::client::SendRequest<Bytes> {
    let io = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(async move {
        // The requests report the error.
        connection.await.ok();
    });
    client
}

/// Sends a request and reads the whole answer.
async fn h2_fetch(
    client: &h2::client::SendRequest<Bytes>,
    path: &str,
) -> Result<(HeaderMap, usize), h2::Error> {
    let mut client = client.clone().ready().await?;
    let uri = format!("http://larder.example{path}");
    let request = Request::get(uri).body(()).unwrap();
    let (response, _) = client.send_request(request, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut size = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        size += chunk.len();
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok((head.headers, size))
}

// ---------------------------------------------------------------------------------------------------------------
// The upgrade
// ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn upgrading_request_is_answered_on_stream_1() {
    let mut server = Server::start().await;
    let mut client = upgraded(&server, "/hello").await;
    client.send(h2_opening()).await;
    assert_eq!(client.h2_answer(1).await, "hello\n");

    client.send(h2_get(3, "/hello")).await;
    assert_eq!(client.h2_answer(3).await, "hello\n");
    drop(client);
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn preface_may_come_in_single_bytes() {
    let server = Server::start().await;
    let mut client = upgraded(&server, "/hello").await;
    for byte in h2_opening() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.h2_answer(1).await, "hello\n");
}

#[tokio::test]
async fn request_preface_and_next_request_may_come_in_one_segment() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let all = [
        upgrade("GET /hello", "").into_bytes(),
        h2_opening(),
        h2_get(3, "/size/10"),
    ];
    client.send(all.concat()).await;
    assert_switches(&client.head().await);
    let mut bodies = BTreeMap::new();
    while bodies.len() < 2 {
        let frame = client.frame_of(DATA).await;
        bodies.insert(frame.stream, frame.payload.len());
    }
    assert_eq!(bodies, BTreeMap::from([(1, 6), (3, 10)]));
}

#[tokio::test]
async fn later_request_of_a_connection_may_upgrade() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send("GET /hello HTTP/1.1\r\nHost: larder.example\r\n\r\n")
        .await;
    assert_over_http1(&client.head().await);
    client.exactly(6).await;
    client.send(upgrade("GET /hello", "")).await;
    assert_switches(&client.head().await);
    client.send(h2_opening()).await;
    assert_eq!(client.h2_answer(1).await, "hello\n");
}

#[tokio::test]
async fn wrong_preface_ends_the_connection_before_any_request_is_served() {
    let wrong_preface = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    let headers_first = [PREFACE.to_vec(), h2_get(1, "/hello")].concat();
    for opening in [
        &wrong_preface[..],
        b"GET /hello HTTP/1.1\r\n\r\n",
        &headers_first,
    ] {
        let mut server = Server::start().await;
        let mut client = upgraded(&server, "/hello").await;
        client.send(opening).await;
        while let Some(frame) = client.frame().await {
            assert!(![HEADERS, DATA].contains(&frame.kind), "{frame:?}");
        }
        assert_ended(&server.ended().await, "http");
        assert_eq!(*server.site.received.borrow(), 0);
    }
}

#[tokio::test]
async fn requests_that_may_not_upgrade_are_answered_over_http1() {
    let plain = upgrade("GET /hello", "Connection: close\r\n");
    let settings = "HTTP2-Settings: AAMAAABkAAQAAQAAAAIAAAAA\r\n";
    let large = format!("X-Large: {}\r\nConnection: close\r\n", "a".repeat(20_000));
    for (why, request) in [
        ("bad base64", plain.replace("AAMAAABk", "AAMAAAB!")),
        ("two settings", plain.replace(settings, &settings.repeat(2))),
        ("no settings", plain.replace(settings, "")),
        ("POST", plain.replace("GET", "POST")),
        ("HEAD", plain.replace("GET", "HEAD")),
        ("header block over 16 kB", upgrade("GET /hello", &large)),
    ] {
        let mut server = Server::start().await;
        let mut client = server.connect().await;
        client.send(request).await;
        let answer = client.read_to_end().await;
        assert_over_http1(&answer);
        assert_eq!(
            answer.ends_with("hello\n"),
            why != "HEAD",
            "{why}: {answer}"
        );
        assert_ended(&server.ended().await, "ok");
    }
}

#[tokio::test]
async fn disabled_upgrade_leaves_keep_alive_intact() {
    let server = Server::with(Limits::default())
        .without_upgrade()
        .start()
        .await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send(upgrade("GET /hello", "")).await;
        assert_over_http1(&client.head().await);
        assert_eq!(client.exactly(6).await, "hello\n");
    }
    assert_eq!(server.site.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn client_that_reuses_stream_1_gets_goaway() {
    let mut server = Server::start().await;
    let mut client = upgraded(&server, "/hello").await;
    client.send(h2_opening()).await;
    assert_eq!(client.h2_answer(1).await, "hello\n");
    client.send(h2_get(1, "/hello")).await;
    let frames = client.frames().await;
    let goaway = frames.iter().find(|frame| frame.kind == GOAWAY);
    // STREAM_CLOSED or PROTOCOL_ERROR, and no second answer.
    assert!([1, 5].contains(&goaway.expect("a GOAWAY").payload[7]));
    assert!(frames.iter().all(|frame| frame.kind != HEADERS));
    assert_ended(&server.ended().await, "http");
}

// ---------------------------------------------------------------------------------------------------------------
// HTTP/2 from the start, and HTTP/1
// ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn all_protocols_are_served_on_one_port() {
    let server = Server::start().await;
    let (headers, size) = h2_fetch(&h2_client(&server).await, "/hello").await.unwrap();
    assert_eq!((headers["x-protocol"].as_bytes(), size), (&b"Http2"[..], 6));

    let mut client = server.connect().await;
    client.send(CLOSE).await;
    assert_over_http1(&client.read_to_end().await);
}

#[tokio::test]
async fn two_hundred_requests_are_in_flight_on_one_connection() {
    let server = Server::start().await;
    let client = h2_client(&server).await;
    let mut fetches = JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        fetches.spawn(async move { h2_fetch(&client, "/gate").await.unwrap() });
    }
    server.site.received(200).await;
    server.site.gate.add_permits(200);
    assert_eq!(within(fetches.join_all()).await.len(), 200);
    assert_eq!(server.site.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn large_bodies_arrive_complete_over_every_protocol() {
    let size = 5_000_000;
    let server = Server::start().await;
    let path = format!("/size/{size}");
    let (headers, got) = h2_fetch(&h2_client(&server).await, &path).await.unwrap();
    assert_eq!(
        (headers["content-length"].to_str().unwrap(), got),
        ("5000000", size)
    );

    let mut client = server.connect().await;
    client.send(CLOSE.replace("/hello", &path)).await;
    assert!(client.head().await.contains("content-length: 5000000\r\n"));
    assert_eq!(client.read_to_end().await.len(), size);
}

/// Starts a request for a body that fails, and lets it fail after some of it has arrived.
async fn break_off(server: &Server, path: &str) -> (String, String) {
    let mut client = server.connect().await;
    client.send(CLOSE.replace("/hello", path)).await;
    let head = client.head().await;
    client.exactly(1000).await;
    server.site.gate.add_permits(1);
    (head, client.read_to_end().await)
}

#[tokio::test]
async fn failed_body_never_ends_cleanly_over_http1() {
    let mut server = Server::start().await;

    let (head, rest) = break_off(&server, "/breaks/sized").await;
    assert!(head.contains("content-length: 100000\r\n"), "{head}");
    assert!(rest.len() <= 4000);
    assert_ended(&server.ended().await, "http");

    let (head, rest) = break_off(&server, "/breaks/chunked").await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert!(
        rest.ends_with("x\r\n") && !rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
    assert_ended(&server.ended().await, "http");
}

#[tokio::test]
async fn failed_body_resets_only_its_own_stream() {
    for path in ["/breaks/sized", "/breaks/chunked"] {
        let server = Server::start().await;
        let mut prior = server.connect().await;
        prior.send([h2_opening(), h2_get(1, path)].concat()).await;
        let mut upgraded = upgraded(&server, path).await;
        upgraded.send(h2_opening()).await;
        for client in [&mut prior, &mut upgraded] {
            client.frame_of(HEADERS).await;
            client.frame_of(DATA).await;
            server.site.gate.add_permits(1);
            let mut frame = client.frame().await.unwrap();
            while frame.kind != RST_STREAM {
                assert_eq!((frame.kind, frame.flags & END_STREAM), (DATA, 0));
                frame = client.frame().await.unwrap();
            }
            // INTERNAL_ERROR
            assert_eq!((frame.stream, &frame.payload[..]), (1, &[0, 0, 0, 2][..]));

            client.send(h2_get(3, "/hello")).await;
            assert_eq!(client.h2_answer(3).await, "hello\n");
        }
    }
}

#[tokio::test]
async fn body_that_fails_before_its_first_byte_closes_without_an_answer() {
    let mut server = Server::start().await;
    server.site.gate.add_permits(2);
    let mut client = server.connect().await;
    client
        .send(CLOSE.replace("/hello", "/breaks/chunked"))
        .await;
    let answer = client.read_to_end().await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_ended(&server.ended().await, "http");

    let client = h2_client(&server).await;
    let error = h2_fetch(&client, "/breaks/chunked").await.unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error:?}");
    assert_eq!(h2_fetch(&client, "/hello").await.unwrap().1, 6);
}

// ---------------------------------------------------------------------------------------------------------------
// Stalled clients
// ---------------------------------------------------------------------------------------------------------------

/// Sends these bytes, then nothing. Reads to the end; returns the received text and the time it took.
async fn send_and_stall(server: &Server, bytes: &[u8]) -> (String, Duration) {
    let mut client = server.connect().await;
    let start = Instant::now();
    client.send(bytes).await;
    let answer = client.read_to_end().await;
    (answer, start.elapsed())
}

#[tokio::test]
async fn silent_client_is_closed_at_the_deadline() {
    let limits = short();
    let half_settings = [&PREFACE[..], b"\0\0\x06\x04\0\0\0\0\0\0\x03"].concat();
    for (sent, limit) in [
        (&b""[..], limits.first_bytes),
        (b"P", limits.first_bytes),
        (&PREFACE[..12], limits.first_bytes),
        (&PREFACE[..], limits.first_bytes),
        (&half_settings, limits.first_bytes),
        (upgrade("GET /hello", "").as_bytes(), limits.first_bytes),
        (b"GET /hel", limits.request_head),
        (b"POST /hello HTTP/1.1\r\nHost: lar", limits.request_head),
    ] {
        let mut server = Server::with(limits.clone()).start().await;
        let (_, took) = send_and_stall(&server, sent).await;
        let sent = String::from_utf8_lossy(sent);
        assert_ended(&server.ended().await, "silent");
        assert!(took >= limit, "{sent:?} after {took:?}");
        // Dropped after the limit, and before the next longer one.
        assert!(
            took < limit + Duration::from_secs(3),
            "{sent:?} after {took:?}"
        );
        assert_eq!(*server.site.received.borrow(), 0, "{sent:?}");
    }
}

#[tokio::test]
async fn client_that_sends_its_head_byte_by_byte_is_closed_at_the_deadline() {
    let mut server = Server::with(short()).start().await;
    let mut client = server.connect().await;
    let dripping = async {
        for byte in b"GET /hello HTTP/1.1\r\nX-Slow: "
            .iter()
            .chain([&b'a'; 2000])
        {
            if client.io.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = dripping => assert_ended(&server.ended().await, "silent"),
        ended = server.ended() => assert_ended(&ended, "silent"),
    }
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut server = Server::with(short()).start().await;
    let keep_alive = CLOSE.replace("Connection: close\r\n", "");
    let (answer, took) = send_and_stall(&server, keep_alive.as_bytes()).await;
    assert!(answer.ends_with("hello\n"), "{answer}");
    assert!(took >= short().request_head);
    assert_ended(&server.ended().await, "silent");

    // After the last answer over HTTP/2: nothing in the protocol would end the connection.
    let mut client = upgraded(&server, "/hello").await;
    client.send(h2_opening()).await;
    client.h2_answer(1).await;
    client.frame_of(GOAWAY).await;
    client.frames().await;
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn stalled_reader_is_dropped_and_a_fast_one_unaffected() {
    let mut server = Server::with(short()).start().await;
    let mut slow = server.connect().await;
    slow.send(CLOSE.replace("/hello", "/size/200000000")).await;
    slow.head().await;

    let start = Instant::now();
    let mut fast = server.connect().await;
    fast.send(CLOSE.replace("/hello", "/size/20000000")).await;
    fast.head().await;
    assert_eq!(fast.read_to_end().await.len(), 20_000_000);
    assert_ended(&server.ended().await, "ok");
    assert!(start.elapsed() < TEST_TIMEOUT / 2);

    assert_ended(&server.ended().await, "stalled");
    assert!(slow.read_to_end().await.len() < 200_000_000);
}

#[tokio::test]
async fn client_that_grants_no_window_is_dropped() {
    // Initial window 0, then only pings: no write ever blocks, so only the idle detector can notice.
    let mut server = Server::with(short()).start().await;
    let mut client = server.connect().await;
    client.send(PREFACE).await;
    client
        .send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await;
    client.send(h2_get(1, "/size/1000000")).await;
    let start = Instant::now();
    let ended = loop {
        tokio::select! {
            ended = server.ended() => break ended,
            () = sleep(Duration::from_millis(20)) => {
                // The connection may be closed by now.
                client.io.write_all(&frame(PING, 0, 0, b"12345678")).await.ok();
            }
        }
    };
    assert_ended(&ended, "stalled");
    assert!(start.elapsed() >= short().write_stall);
}

#[tokio::test]
async fn slow_reader_that_makes_progress_is_kept() {
    // Each transfer takes more than twice the limit in all, and no step takes the limit.
    let step = short().write_stall / 8;

    let (near, far) = tokio::io::duplex(4096);
    let site = Server::with(short()).site();
    let stop = watch::Sender::new(false);
    let (limits, stopping) = (short(), stop.subscribe());
    let served = tokio::spawn(async move {
        let service = service_of(site);
        serve(far, service, &limits, true, Arc::default(), stopping).await
    });
    let mut client = Raw::new(near);
    client.send(CLOSE.replace("/hello", "/size/80000")).await;
    client.head().await;
    for _ in 0..20 {
        sleep(step).await;
        client.exactly(4000).await;
    }
    assert_ended(&within(served).await.unwrap(), "ok");

    let mut server = Server::with(short()).start().await;
    let mut client = server.connect().await;
    client.send(PREFACE).await;
    client
        .send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await;
    client.send(h2_get(1, "/size/40000")).await;
    for _ in 0..20 {
        sleep(step).await;
        client
            .send(frame(WINDOW_UPDATE, 0, 1, &2000_u32.to_be_bytes()))
            .await;
    }
    assert_eq!(client.h2_answer(1).await.len(), 40_000);
    drop(client);
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn slow_answer_is_not_cut_off_by_the_limits() {
    // Longer than every limit, over HTTP/1 and HTTP/2.
    let server = Server::with(short()).start().await;
    let mut plain = server.connect().await;
    plain.send(CLOSE.replace("/hello", "/gate")).await;
    let client = h2_client(&server).await;
    let fetch = tokio::spawn(async move { h2_fetch(&client, "/gate").await });
    server.site.received(2).await;
    sleep(short().request_head * 3).await;
    server.site.gate.add_permits(2);
    assert!(plain.read_to_end().await.ends_with("let through\n"));
    assert_eq!(within(fetch).await.unwrap().unwrap().1, 12);
}

// ---------------------------------------------------------------------------------------------------------------
// Stopping
// ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn stopping_closes_an_idle_http1_connection_at_once() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send(CLOSE.replace("Connection: close\r\n", ""))
        .await;
    client.head().await;
    client.exactly(6).await;
    server.stop();
    assert_eq!(client.read_to_end().await, "");
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn stopping_waits_for_the_answer_of_a_busy_http1_connection() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    client.send(CLOSE.replace("/hello", "/gate")).await;
    server.site.received(1).await;
    server.stop();
    server.site.gate.add_permits(1);
    assert!(client.read_to_end().await.ends_with("let through\n"));
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn stopping_waits_for_the_answers_of_a_busy_http2_connection() {
    let mut server = Server::start().await;
    let client = h2_client(&server).await;
    let fetch = tokio::spawn(async move { h2_fetch(&client, "/gate").await });
    server.site.received(1).await;
    server.stop();
    // Longer than `drain`, which does not bound a request in flight.
    sleep(Limits::default().drain * 2).await;
    server.site.gate.add_permits(1);
    assert_eq!(within(fetch).await.unwrap().unwrap().1, 12);
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn stopping_lets_an_upgraded_transfer_finish() {
    let mut server = Server::start().await;
    let mut client = upgraded(&server, "/size/200000").await;
    client.send(h2_opening()).await;
    client.frame_of(HEADERS).await;
    let mut got = client.frame_of(DATA).await.payload.len();

    server.stop();
    client.frame_of(GOAWAY).await;
    for stream in [0, 1] {
        client
            .send(frame(
                WINDOW_UPDATE,
                0,
                stream,
                &1_000_000_u32.to_be_bytes(),
            ))
            .await;
    }
    let mut ended = false;
    while let Some(next) = client.frame().await {
        if next.kind == PING && next.flags & ACK == 0 {
            // The connection ends only after this acknowledgement (RFC 9113, section 6.8).
            client.send(frame(PING, ACK, 0, &next.payload)).await;
        }
        if next.kind == DATA {
            got += next.payload.len();
            ended |= next.flags & END_STREAM != 0;
        }
    }
    assert!(ended);
    // Frames before the GOAWAY were skipped, all of them within the first window.
    assert!((200_000 - 65_535..=200_000).contains(&got), "{got}");
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn last_answer_before_the_end_is_not_lost_to_a_client_that_still_sends() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    let opening = [h2_opening(), h2_get(1, "/gate")].concat();
    client.send(opening).await;
    server.site.received(1).await;
    server.stop();
    let ping = client.frame_of(PING).await;
    client.send(frame(PING, ACK, 0, &ping.payload)).await;
    server.site.gate.add_permits(1);
    // The server has answered and is at its end. A closed socket would answer these frames with a reset.
    for _ in 0..3 {
        sleep(Duration::from_millis(30)).await;
        let more = 10_u32.to_be_bytes();
        client.send(frame(WINDOW_UPDATE, 0, 0, &more)).await;
    }
    assert_eq!(client.h2_answer(1).await.len(), 12);
    client.frames().await;
    drop(client);
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn stopping_in_the_middle_of_an_upgrade_still_answers_its_request() {
    let mut server = Server::start().await;
    let mut client = upgraded(&server, "/hello").await;
    server.stop();
    client.send(h2_opening()).await;
    assert_eq!(client.h2_answer(1).await, "hello\n");
    client.frames().await;
    assert_ended(&server.ended().await, "ok");
}

#[tokio::test]
async fn stopping_does_not_wait_for_an_http2_client_that_ignores_goaway() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send([h2_opening(), h2_get(1, "/hello")].concat())
        .await;
    client.h2_answer(1).await;
    server.stop();
    let start = Instant::now();
    assert_ended(&server.ended().await, "ok");
    assert!(start.elapsed() < Limits::default().drain * 4);
}

#[tokio::test]
async fn stopping_does_not_wait_for_the_rest_of_a_partial_request() {
    // Partial requests before and after an answer, and an HTTP/2 opening without its SETTINGS.
    let half = &CLOSE.as_bytes()[..CLOSE.len() - 2];
    let first = CLOSE.replace("Connection: close\r\n", "");
    let second = [first.as_bytes(), half].concat();
    for (sent, answers) in [(half, 0), (&*second, 1), (&PREFACE[..], 0)] {
        let mut server = Server::start().await;
        let mut client = server.connect().await;
        client.send(sent).await;
        server.site.received(answers).await;
        // By then the server has read the bytes, or reads them while it stops.
        sleep(Duration::from_millis(50)).await;
        server.stop();
        let start = Instant::now();
        let _ = server.ended().await;
        assert!(start.elapsed() < Limits::default().drain * 3);
    }
}

#[tokio::test]
async fn first_request_in_transit_when_stopping_is_answered() {
    let mut server = Server::start().await;
    let mut late = server.connect().await;
    server.stop();
    late.send(CLOSE).await;
    assert_over_http1(&late.read_to_end().await);
    assert_ended(&server.ended().await, "ok");

    let mut later = server.connect().await;
    later.send(upgrade("GET /hello", "")).await;
    assert_over_http1(&later.read_to_end().await);
    assert_ended(&server.ended().await, "ok");

    let mut silent = server.connect().await;
    assert_eq!(silent.read_to_end().await, "");
    assert_ended(&server.ended().await, "ok");
}

// ---------------------------------------------------------------------------------------------------------------
// Malicious clients
// ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn smuggled_requests_are_not_answered() {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: larder.example\r\n\r\n";
    let size = inner.len();
    let head = "GET /hello HTTP/1.1\r\nHost: larder.example\r\n";
    for fields in [
        format!("Content-Length: {size}\r\n"),
        format!("Content-Length: {size}\r\nContent-Length: {size}\r\n"),
        format!("Content-Length: {size}\r\nContent-Length: 0\r\n"),
        format!("Content-Length: +{size}\r\n"),
        format!("Content-Length: {size}, 0\r\n"),
        format!("Content-Length : {size}\r\n"),
        format!("Content-Length:\r\n {size}\r\n"),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding:\r\n chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n".to_owned(),
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        " Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let mut server = Server::with(short()).start().await;
        let mut client = server.connect().await;
        client.send(format!("{head}{fields}\r\n{inner}")).await;
        client.read_to_end().await;
        server.ended().await.ok();
        let smuggled = server.site.smuggled.load(Ordering::SeqCst);
        assert_eq!(smuggled, 0, "{fields:?}");
    }
}

#[tokio::test]
async fn head_larger_than_the_buffer_is_refused() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    let line = format!("X-Large: {}\r\n", "a".repeat(1000));
    let flood = format!("GET /hello HTTP/1.1\r\n{}", line.repeat(90));
    // The server may close before it has read everything.
    client.io.write_all(flood.as_bytes()).await.ok();
    let answer = client.read_to_end().await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    assert_ended(&server.ended().await, "http");
}

/// Sends a flood of frames on an open HTTP/2 connection until the server closes it. Returns the number of frames.
async fn flood(server: &mut Server, frames: impl Fn(u32) -> Vec<u8>) -> (u32, Ended) {
    let mut client = server.connect().await;
    client.send(h2_opening()).await;
    for round in 0..1_000_000 {
        if client.io.write_all(&frames(round)).await.is_err() {
            return (round, server.ended().await);
        }
    }
    panic!("a million rounds were taken");
}

#[tokio::test]
async fn frame_floods_end_the_connection() {
    let mut server = Server::start().await;
    let rapid_reset = |round: u32| {
        let batch = (0..500).flat_map(|each| {
            let stream = (round * 500 + each) * 2 + 1;
            [
                h2_get(stream, "/gate"),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        });
        batch.collect()
    };
    let (_, ended) = flood(&mut server, rapid_reset).await;
    assert_ended(&ended, "abuse");

    let continuation = |round: u32| match round {
        0 => frame(HEADERS, END_STREAM, 1, &header_block("/hello")),
        _ => frame(CONTINUATION, 0, 1, b"\0\x01a\x01b"),
    };
    let (_, ended) = flood(&mut server, continuation).await;
    assert_ended(&ended, "abuse");
}

#[tokio::test]
async fn header_list_over_the_bound_reaches_no_service() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(h2_opening()).await;
    // 600 fields of 34 bytes as the protocol counts them, in one frame of 3 kB.
    let block = [header_block("/hello"), b"\0\x01a\x01b".repeat(600)].concat();
    client
        .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
        .await;
    client.send(h2_get(3, "/hello")).await;
    let mut refused = false;
    loop {
        let frame = client.frame().await.unwrap();
        refused |= frame.stream == 1 && [HEADERS, RST_STREAM].contains(&frame.kind);
        if frame.stream == 3 && frame.kind == DATA {
            break;
        }
    }
    assert!(refused);
    assert_eq!(*server.site.received.borrow(), 1);
}

#[tokio::test]
async fn ping_flood_without_reading_ends_the_connection() {
    let mut server = Server::with(short()).start().await;
    let pings = frame(PING, 0, 0, b"12345678").repeat(1000);
    let mut client = server.connect().await;
    client.send(h2_opening()).await;
    let flooding = async {
        // Until the server accepts no more bytes, then until it closes.
        while client.io.write_all(&pings).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = flooding => unreachable!("it pends"),
        ended = server.ended() => assert!(ended.is_err(), "{ended:?}"),
    }
}

/// Sends `frames` again and again, and reads what comes back. Returns how the server ended the connection, and the
/// bytes that it took until then.
async fn flood_and_read(server: &mut Server, frames: &[u8]) -> (Ended, usize) {
    let mut client = server.connect().await;
    client.send(h2_opening()).await;
    let (mut reader, mut writer) = client.io.into_split();
    let reading = tokio::spawn(async move {
        let mut taken = vec![0; 64 << 10];
        while reader.read(&mut taken).await.is_ok_and(|size| size > 0) {}
    });
    let mut sent = 0;
    let flooding = async {
        while sent < 200 << 20 {
            if writer.write_all(frames).await.is_err() {
                std::future::pending::<()>().await;
            }
            sent += frames.len();
        }
    };
    let ended = tokio::select! {
        () = flooding => panic!("200 MB of frames were taken"),
        ended = server.ended() => ended,
    };
    reading.abort();
    (ended, sent)
}

#[tokio::test]
async fn floods_of_control_frames_end_the_connection_although_its_client_reads() {
    let mut server = Server::start().await;
    for (what, frames) in [
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        (
            "SETTINGS with a value",
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
        ),
        ("SETTINGS acknowledgements", frame(SETTINGS, ACK, 0, &[])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown frames", frame(0x7f, 0, 0, b"")),
    ] {
        let (ended, sent) = flood_and_read(&mut server, &frames.repeat(100)).await;
        assert!(ended.is_err(), "{what}: {ended:?}");
        // The client reads no more than the socket's buffers took.
        assert!(sent < 16 << 20, "{what}: {sent} bytes");
    }
    assert_eq!(*server.site.received.borrow(), 0);
}

/// CVE-2023-44487 ("rapid reset"), with requests that the server has begun to answer.
#[tokio::test]
async fn client_that_cancels_hundreds_of_requests_in_a_row_is_dropped() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    client.send(h2_opening()).await;
    let site = Arc::clone(&server.site);
    let cancelling = async {
        for batch in 0..100 {
            let streams: Vec<u32> = (0..50).map(|each| (batch * 50 + each) * 2 + 1).collect();
            let requests: Vec<u8> = streams.iter().flat_map(|id| h2_get(*id, "/gate")).collect();
            let resets: Vec<u8> = streams
                .iter()
                .flat_map(|id| frame(RST_STREAM, 0, *id, &[0, 0, 0, 8]))
                .collect();
            if client.io.write_all(&requests).await.is_err() {
                break;
            }
            site.received((batch as usize + 1) * 50).await;
            if client.io.write_all(&resets).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = cancelling => unreachable!("it pends"),
        ended = server.ended() => ended,
    };
    assert_ended(&ended, "abuse");
    let received = *server.site.received.borrow();
    assert!(
        (257..=400).contains(&received),
        "{received} requests were begun"
    );
}

#[tokio::test]
async fn client_that_cancels_a_batch_of_requests_is_served_afterwards() {
    let server = Server::start().await;
    let client = h2_client(&server).await;
    for round in 1..=5 {
        let waiting: Vec<_> = (0..100)
            .map(|_| tokio::spawn(h2_fetch_owned(client.clone(), "/gate")))
            .collect();
        server.site.received(round * 200 - 100).await;
        for one in &waiting {
            one.abort();
        }
        for _ in 0..100 {
            assert_eq!(h2_fetch(&client, "/hello").await.unwrap().1, 6);
        }
    }
}

async fn h2_fetch_owned(client: h2::client::SendRequest<Bytes>, path: &'static str) {
    h2_fetch(&client, path).await.ok();
}

#[tokio::test]
async fn header_bomb_of_references_to_one_large_field_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(h2_opening()).await;
    // A field of 3 kB that enters the dynamic table, then 4,000 references to it: 12 MB from 7 kB.
    let value = [b'a'; 3000];
    let field = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &value].concat();
    let block = [header_block("/hello"), field, vec![0xbe; 4000]].concat();
    client
        .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
        .await;
    client.send(h2_get(3, "/hello")).await;
    let frames = within(client.frames_until_quiet()).await;
    let answered = |stream| {
        frames
            .iter()
            .any(|frame| frame.stream == stream && frame.kind == DATA)
    };
    assert!(!answered(1), "{frames:?}");
    assert!(*server.site.received.borrow() <= 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Real clients
// ---------------------------------------------------------------------------------------------------------------

async fn run(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}, {command:?}: {stderr}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A client program without the user's settings.
fn scrubbed(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).current_dir(home);
    for kept in ["PATH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

#[tokio::test]
async fn curl_upgrades_and_reuses_the_connection() {
    let home = tempfile::tempdir().unwrap();
    let version = run(scrubbed("curl", home.path()).arg("--version")).await;
    let version = version.expect("this test needs curl");
    assert!(
        version.contains("HTTP2"),
        "this test needs a curl that speaks HTTP/2: {version}"
    );

    let server = Server::start().await;
    let base = format!("http://{}", server.address);
    let report = "%{http_code} %{http_version} %{num_connects} %{size_download}\n";
    let curl = |how: &[&str]| {
        let mut command = scrubbed("curl", home.path());
        command.args([
            "-q",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "-w",
            report,
        ]);
        command.args(how);
        command
    };
    let (hello, large) = (format!("{base}/hello"), format!("{base}/size/3000000"));
    let two = ["-o", "first", &hello, "-o", "second", &large];

    let upgraded = curl(&[&["--http2"][..], &two].concat());
    assert_eq!(
        run(&mut { upgraded }).await.unwrap(),
        "200 2 1 6\n200 2 0 3000000\n"
    );
    // One file per run: curl 7.88 breaks its own second request with prior knowledge, with any server.
    let prior = curl(&["--http2-prior-knowledge", "-o", "large", &large]);
    assert_eq!(run(&mut { prior }).await.unwrap(), "200 2 1 3000000\n");
    let plain = curl(&[&["--http1.1"][..], &two].concat());
    assert_eq!(
        run(&mut { plain }).await.unwrap(),
        "200 1.1 1 6\n200 1.1 0 3000000\n"
    );
    // HEAD is not upgraded, or curl would stop at the 101.
    let head = curl(&["--http2", "--head", "-o", "head", &large]);
    assert_eq!(run(&mut { head }).await.unwrap(), "200 1.1 1 0\n");
}

const CRATES: usize = 20;

/// Resolves a package with 20 dependencies with real cargo. Returns the peak of concurrent requests and their number.
async fn resolve_with_cargo(upgrade: bool) -> (usize, usize) {
    let mut builder = Server::with(Limits::default());
    builder.upgrade = upgrade;
    builder.delay = Duration::from_millis(50);
    let config = r#"{"dl":"http://larder.example/crates"}"#;
    builder
        .files
        .insert("/config.json".to_owned(), config.into());
    let names: Vec<String> = (0..CRATES).map(|n| format!("shelf-{n:02}")).collect();
    for name in &names {
        let line = format!(
            r#"{{"name":"{name}","vers":"1.0.0","deps":[],"cksum":"{}","features":{{}},"yanked":false}}"#,
            "0".repeat(64)
        );
        let path = format!("/{}/{}/{name}", &name[..2], &name[2..4]);
        builder.files.insert(path, (line + "\n").into());
    }
    let server = builder.start().await;

    let home = tempfile::tempdir().unwrap();
    let mut manifest =
        "[package]\nname = 'larder-test'\nversion = '0.0.0'\n[dependencies]\n".to_owned();
    for name in &names {
        manifest.push_str(&format!("{name} = '1'\n"));
    }
    std::fs::create_dir(home.path().join("src")).unwrap();
    std::fs::write(home.path().join("src/lib.rs"), "").unwrap();
    std::fs::write(home.path().join("Cargo.toml"), manifest).unwrap();
    let cargo = std::env::var("CARGO").expect("cargo runs this test");
    let mut command = scrubbed(&cargo, home.path());
    command
        .env("CARGO_HOME", home.path().join("cargo"))
        .env("NO_PROXY", "*")
        .args([
            "generate-lockfile",
            "--config",
            "source.crates-io.replace-with='larder'",
        ])
        .arg("--config")
        .arg(format!(
            "source.larder.registry='sparse+http://{}/'",
            server.address
        ));
    within(run(&mut command)).await.unwrap();

    let lock = std::fs::read_to_string(home.path().join("Cargo.lock")).unwrap();
    assert_eq!(lock.matches("name = \"shelf-").count(), CRATES, "{lock}");
    let site = &server.site;
    (
        site.peak.load(Ordering::SeqCst),
        site.connections.load(Ordering::SeqCst),
    )
}

/// See docs/client-behaviour.md C-18, C-19.
#[tokio::test]
async fn cargo_has_all_its_index_requests_in_flight_at_once() {
    let (peak, connections) = resolve_with_cargo(true).await;
    assert!(peak >= CRATES, "{peak} at once");
    assert!(connections <= 4, "{connections} connections");

    // Counter-test: without the upgrade cargo has one request in flight. If that changes, the test proves nothing.
    let (peak, _) = resolve_with_cargo(false).await;
    assert!(peak < CRATES, "{peak} at once over HTTP/1.1");
}
