//! Serves one accepted connection until it ends, whichever HTTP it speaks, and gives up on clients that stand still.
//!
//! Accepting, counting connections, addresses and answers are left to its caller; the rules of the upgrade to `h2c`.
//!
//! ```text
//!  first bytes -- preface ----------------------> HTTP/2
//!       |                                           ^
//!       +--------- anything else --> HTTP/1 -- 101 -+
//! ```
//!
//! Every limit here is about a client that makes no progress. How long an answer may take to begin is the
//! service's business, and so is reading a request's body, which ends with the connection at the latest.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep_until};

use super::h2c::{self, Opening, PREFACE};

/// Read buffer, and bound of what is buffered for writing, of an HTTP/1 connection. It bounds a request head; hyper's
/// default of 400 kB would let a few hundred clients fill the memory with half heads.
const HTTP1_BUFFER: usize = 64 * 1024;

/// What HTTP/2 buffers for each stream before it asks the body for more. Two chunks of an ordinary body, so that one
/// is written while the next is read; hyper's default of 400 kB costs 50 streaming clients 20 MB.
const HTTP2_STREAM_BUFFER: usize = 128 * 1024;

/// How much of request bodies HTTP/2 clients may send unasked. larder reads next to none; this is the protocol's
/// own initial value, where hyper would offer 1 MB.
const HTTP2_RECEIVE_WINDOW: u32 = 65_535;

/// Streams a client may open and reset again before they were looked at ("rapid reset"). A client that gives up on a
/// whole batch of downloads can reach some dozens, an attack thousands.
const HTTP2_PENDING_RESETS: usize = 100;

/// Streams reset by us for a client's errors before the connection is given up.
const HTTP2_LOCAL_RESETS: usize = 256;

/// Bytes that count as progress of an HTTP/2 connection. More than all acknowledgements of a silent client's pings
/// within a limit of a minute, less than any transfer moves.
const PROGRESS: u64 = 1024;

/// How long a client may stand still.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until it is known which protocol a new connection speaks, and likewise until HTTP/2 is open, counted from the
    /// preface or the 101. Ten seconds: both take one round trip, so only a lost packet or two needs more.
    pub first_bytes: Duration,
    /// For a whole HTTP/1 request head, counted from the end of the answer before: also how long an idle connection is
    /// kept, in HTTP/2 too. A minute: cargo reuses a connection within one command only.
    pub head: Duration,
    /// For a client to take anything of an answer. A minute: cargo itself gives up after half of it.
    pub write_stall: Duration,
    /// When stopping, for a connection on which no request is under way, or half of one. A first request that is on its way is still
    /// answered, because a connection closed without any answer is the one failure that cargo does not retry. An HTTP/2
    /// client needs it to acknowledge the end; one that does not listen is not waited for. One second: a round trip.
    pub last_call: Duration,
    /// Requests at once on one HTTP/2 connection. libcurl uses no more than 100, whatever is offered; others do.
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_bytes: Duration::from_secs(10),
            head: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            last_call: Duration::from_secs(1),
            h2_streams: 256,
        }
    }
}

/// How a request came. Over the two HTTP/2 ones its authority is in its URI, and there is no `Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 on a connection that began with HTTP/1.1; the request that asked for the upgrade included.
    H2c,
    /// HTTP/2 from the first byte ("prior knowledge").
    Http2,
}

/// Why a connection ended other than by agreement. Nobody but a log is interested: the client is gone.
#[derive(Debug)]
pub enum ConnectionError {
    /// No first bytes, request head or HTTP/2 opening came in time. An HTTP/1 connection that was idle ends so too.
    Silent,
    /// The client took nothing of an answer for [`Limits::write_stall`].
    Stalled,
    /// The socket failed before it was known what the client speaks.
    Socket(io::Error),
    /// The client left in the middle, broke the protocol, or an answer's body failed.
    Http(hyper::Error),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot go on with a connection: ")?;
        match self {
            Self::Silent => f.write_str("the client sent no complete request in time"),
            Self::Stalled => f.write_str("the client took nothing of an answer in time"),
            Self::Socket(_) => f.write_str("the socket failed"),
            Self::Http(_) => f.write_str("the exchange failed"),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Silent | Self::Stalled => None,
            Self::Socket(cause) => Some(cause),
            Self::Http(cause) => Some(cause),
        }
    }
}

/// Serves one accepted connection until it ends, an upgraded one to the end of HTTP/2.
///
/// `service` answers every request. A body that yields an error aborts its answer: RST_STREAM in HTTP/2, a connection
/// closed short of the end in HTTP/1. `upgrade` says whether `Upgrade: h2c` is accepted; where it is not, such requests
/// are ordinary ones. When `stopping` turns true, or its sender is gone, requests under way are finished and the
/// connection ends; bounding that is left to the caller, who may drop this future at any time. Set TCP_NODELAY before.
///
/// # Errors
///
/// When the connection had to be given up. Connections that the client closes between requests end with `Ok`.
pub async fn serve<I, S, F, B>(
    io: I,
    service: S,
    limits: &Limits,
    upgrade: bool,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Protocol) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut wire = Wire::new(io, limits.write_stall);
    let Some(protocol) = sniff(&mut wire, limits, &mut stopping).await? else {
        return Ok(());
    };
    let (wire, protocol, request) = if protocol == Protocol::Http2 {
        (wire, protocol, Bytes::new())
    } else {
        match http1(wire, service.clone(), limits, upgrade, &mut stopping).await? {
            Some((wire, request)) => (wire, Protocol::H2c, request),
            None => return Ok(()),
        }
    };
    // Boxed, because otherwise every HTTP/1 connection carries the room for it.
    Box::pin(http2(
        wire,
        protocol,
        request,
        service,
        limits,
        &mut stopping,
    ))
    .await
}

/// Resolves when stopping is ordered.
async fn ordered(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone can give no order any more, and means that the server is.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Which protocol the client speaks, told by as few bytes as possible, which are read again afterwards. `None` when
/// the client left, or stopping was ordered, before it said so.
async fn sniff<I: AsyncRead + Unpin>(
    wire: &mut Wire<I>,
    limits: &Limits,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<Protocol>, ConnectionError> {
    let mut first = BytesMut::with_capacity(1024);
    let mut deadline = Instant::now() + limits.first_bytes;
    let mut stop = false;
    let protocol = loop {
        tokio::select! {
            biased;
            read = wire.io.read_buf(&mut first) => match read {
                Ok(0) => return Ok(None),
                Ok(_) => if let Some(protocol) = protocol_of(&first) {
                    break protocol;
                },
                Err(cause) => return Err(ConnectionError::Socket(cause)),
            },
            () = sleep_until(deadline) => {
                return if stop { Ok(None) } else { Err(ConnectionError::Silent) };
            }
            () = ordered(stopping), if !stop => {
                stop = true;
                deadline = deadline.min(Instant::now() + limits.last_call);
            }
        }
    };
    wire.unread = first.freeze();
    Ok(Some(protocol))
}

/// The protocol that begins with these bytes; `None` while it may be either.
fn protocol_of(first: &[u8]) -> Option<Protocol> {
    let size = first.len().min(PREFACE.len());
    if first[..size] != PREFACE[..size] {
        Some(Protocol::Http1)
    } else if size == PREFACE.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

/// Serves HTTP/1. When the client switched to HTTP/2, gives back the connection and the HEADERS frame that stands for
/// the request to be answered there.
async fn http1<I, S, F, B>(
    wire: Wire<I>,
    service: S,
    limits: &Limits,
    upgrade: bool,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<(Wire<I>, Bytes)>, ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Protocol) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let activity = Arc::clone(&wire.activity);
    let switch: Mutex<Option<(OnUpgrade, Bytes)>> = Mutex::new(None);
    let stop = stopping.clone();
    let answer = service_fn(|mut request: Request<Incoming>| {
        // Once stopping, a switch would only be the longer way to the end.
        let asks = upgrade && request.headers().contains_key(UPGRADE);
        let frame = if asks && !*stop.borrow() {
            h2c::accept(&request)
        } else {
            None
        };
        let answer = match frame {
            Some(frame) => {
                let switched = hyper::upgrade::on(&mut request);
                *switch.lock().unwrap_or_else(PoisonError::into_inner) = Some((switched, frame));
                None
            }
            None => Some(service(request, Protocol::Http1)),
        };
        let stream = Stream::begin(&activity);
        async move {
            Ok::<_, Infallible>(match answer {
                Some(answer) => answer.await.map(|body| Reply::tracked(body, stream)),
                None => switching_protocols(),
            })
        }
    });

    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(HTTP1_BUFFER)
        .half_close(false);
    {
        let connection = pin!(
            builder
                .serve_connection(TokioIo::new(wire), answer)
                .with_upgrades()
        );
        let opened = AtomicBool::new(true);
        drive(
            connection,
            http1::UpgradeableConnection::graceful_shutdown,
            Protocol::Http1,
            &activity,
            &opened,
            limits,
            stopping,
        )
        .await?;
    }

    let Some((switched, frame)) = switch.into_inner().unwrap_or_else(PoisonError::into_inner)
    else {
        return Ok(None);
    };
    let upgraded = switched.await.map_err(|cause| activity.explain(cause))?;
    let parts = upgraded.downcast::<TokioIo<Wire<I>>>().map_err(|_| {
        let cause = io::Error::other("the upgraded connection is not the one that was served");
        ConnectionError::Socket(cause)
    })?;
    let mut wire = parts.io.into_inner();
    wire.unread = parts.read_buf;
    Ok(Some((wire, frame)))
}

fn switching_protocols<B>() -> Response<Reply<B>> {
    let mut response = Response::new(Reply::none());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    response
}

/// Serves HTTP/2 from the client's preface on. `request` is the HEADERS frame of the request that asked for it.
///
/// No pings are sent: a client that reads slowly through deep buffers answers them late and would be cut although it
/// makes progress, and what pings would find out, [`Watch`] sees anyway.
async fn http2<I, S, F, B>(
    wire: Wire<I>,
    protocol: Protocol,
    request: Bytes,
    service: S,
    limits: &Limits,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Protocol) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let activity = Arc::clone(&wire.activity);
    let opened = Arc::new(AtomicBool::new(false));
    let answer = service_fn(|request: Request<Incoming>| {
        let stream = Stream::begin(&activity);
        let answer = service(request, protocol);
        async move {
            let response = answer.await;
            Ok::<_, Infallible>(response.map(|body| Reply::tracked(body, stream)))
        }
    });

    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(h2c::MAX_HEADER_LIST)
        .max_send_buf_size(HTTP2_STREAM_BUFFER)
        .initial_stream_window_size(HTTP2_RECEIVE_WINDOW)
        .initial_connection_window_size(HTTP2_RECEIVE_WINDOW)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_LOCAL_RESETS);
    let io = TokioIo::new(Opening::new(wire, request, Arc::clone(&opened)));
    let connection = pin!(builder.serve_connection(io, answer));
    drive(
        connection,
        http2::Connection::graceful_shutdown,
        protocol,
        &activity,
        &opened,
        limits,
        stopping,
    )
    .await
}

/// Runs a hyper connection to its end, and gives up on a client that stands still.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    protocol: Protocol,
    activity: &Activity,
    opened: &AtomicBool,
    limits: &Limits,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let mut watch = Watch::new(limits, Instant::now());
    let mut looks = every(limits.first_bytes.min(limits.head).min(limits.write_stall) / 4);
    let mut stop = false;
    loop {
        tokio::select! {
            // The connection first: an HTTP/1 one that has not read what was sniffed takes itself for idle.
            biased;
            ended = connection.as_mut() => return ended.map_err(|cause| activity.explain(cause)),
            () = ordered(stopping), if !stop => {
                stop = true;
                graceful_shutdown(connection.as_mut());
                watch.close(Instant::now(), limits.last_call);
                looks = every(limits.last_call / 4);
            }
            now = looks.tick() => {
                let seen = activity.look(opened.load(Ordering::Relaxed));
                match watch.judge(now, &seen) {
                    Verdict::Alive => {}
                    Verdict::Idle if protocol == Protocol::Http1 => return Err(ConnectionError::Silent),
                    Verdict::Idle => {
                        graceful_shutdown(connection.as_mut());
                        watch.close(now, limits.first_bytes);
                    }
                    Verdict::Gone => return Ok(()),
                    Verdict::Silent => return Err(ConnectionError::Silent),
                    Verdict::Stalled => return Err(ConnectionError::Stalled),
                }
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let period = period.max(Duration::from_millis(1));
    let mut looks = interval_at(Instant::now() + period, period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// What goes on over one connection, counted by its parts.
#[derive(Debug, Default)]
struct Activity {
    /// Bytes written to the socket.
    written: AtomicU64,
    /// A write waits for the client.
    blocked: AtomicBool,
    /// A write waited for too long, and was failed for it.
    stalled: AtomicBool,
    /// HTTP/2 requests that came, and those whose answer is with the connection or dropped.
    begun: AtomicU64,
    finished: AtomicU64,
    /// Bodies whose last chunk the connection still holds: it asks for the next as soon as the client has room.
    held: AtomicUsize,
}

/// A look at an [`Activity`].
#[derive(Clone, Copy, Debug)]
struct Seen {
    opened: bool,
    written: u64,
    blocked: bool,
    begun: u64,
    open: u64,
    held: usize,
}

impl Activity {
    fn look(&self, opened: bool) -> Seen {
        // In this order `open` can come out too high and never too low.
        let finished = self.finished.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        Seen {
            opened,
            written: self.written.load(Ordering::Relaxed),
            blocked: self.blocked.load(Ordering::Relaxed),
            begun,
            open: begun.saturating_sub(finished),
            held: self.held.load(Ordering::Relaxed),
        }
    }

    /// The reason behind hyper's error where it was made here.
    fn explain(&self, cause: hyper::Error) -> ConnectionError {
        if self.stalled.load(Ordering::Relaxed) {
            ConnectionError::Stalled
        } else {
            ConnectionError::Http(cause)
        }
    }
}

/// Judges from looks at its activity whether a connection goes on.
///
/// hyper bounds none of this. In particular, a client that grants no flow-control window never lets a write wait, so
/// the bound of [`Wire`] does not see it. Limits are kept to about the distance between two looks.
#[derive(Debug)]
struct Watch {
    first_bytes: Duration,
    head: Duration,
    write_stall: Duration,
    /// Set once the client was told that the connection ends: how long it may then stand still.
    closing: Option<Duration>,
    since: Instant,
    /// Requests at the last look, and when there last was one under way.
    begun: u64,
    busy_at: Instant,
    /// Bytes written when there last was progress, and when that was.
    written: u64,
    moved_at: Instant,
    /// When last no body waited for the client.
    unheld_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    /// No request for so long that the client is to be told to go.
    Idle,
    /// It was told and has nothing to wait for any more.
    Gone,
    /// HTTP/2 was not opened in time.
    Silent,
    /// Answers wait for the client, which takes nothing.
    Stalled,
}

impl Watch {
    fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            first_bytes: limits.first_bytes,
            head: limits.head,
            write_stall: limits.write_stall,
            closing: None,
            since: now,
            begun: 0,
            busy_at: now,
            written: 0,
            moved_at: now,
            unheld_at: now,
        }
    }

    /// The client is told to go, and may stand still for so long.
    fn close(&mut self, now: Instant, patience: Duration) {
        self.closing = Some(patience);
        self.first_bytes = self.first_bytes.min(now - self.since + patience);
        self.busy_at = now;
    }

    fn judge(&mut self, now: Instant, seen: &Seen) -> Verdict {
        if seen.open > 0 || seen.begun > self.begun {
            self.begun = seen.begun;
            self.busy_at = now;
        }
        if seen.written >= self.written + PROGRESS {
            self.written = seen.written;
            self.moved_at = now;
        }
        if seen.held == 0 {
            self.unheld_at = now;
        }

        if !seen.opened {
            return if now - self.since >= self.first_bytes {
                Verdict::Silent
            } else {
                Verdict::Alive
            };
        }
        // A body that waits only now may wait for the first bytes after a long pause of its source.
        if now - self.moved_at.max(self.unheld_at) >= self.write_stall {
            return Verdict::Stalled;
        }
        // Without a request under way, ends of answers may still be buffered, which is progress or a blocked write. The
        // latter has its own bound.
        let quiet = now - self.moved_at.max(self.busy_at);
        if seen.open > 0 || seen.blocked {
            return Verdict::Alive;
        }
        match self.closing {
            Some(patience) if quiet >= patience => Verdict::Gone,
            None if quiet >= self.head => Verdict::Idle,
            Some(_) | None => Verdict::Alive,
        }
    }
}

/// One HTTP/2 request under way, from its arrival until its answer's body is with the connection or dropped.
#[derive(Debug)]
struct Stream {
    activity: Arc<Activity>,
    holds: bool,
}

impl Stream {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Release);
        Self {
            activity: Arc::clone(activity),
            holds: false,
        }
    }

    /// Notes whether the connection holds a chunk of this answer.
    fn hold(&mut self, holds: bool) {
        if holds && !self.holds {
            self.activity.held.fetch_add(1, Ordering::Relaxed);
        } else if !holds && self.holds {
            self.activity.held.fetch_sub(1, Ordering::Relaxed);
        }
        self.holds = holds;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.hold(false);
        self.activity.finished.fetch_add(1, Ordering::Release);
    }
}

pin_project! {
    /// The body of an answer, or of a 101, which has none.
    struct Reply<B> {
        #[pin]
        body: Option<B>,
        stream: Option<Stream>,
    }
}

impl<B> Reply<B> {
    fn none() -> Self {
        Self {
            body: None,
            stream: None,
        }
    }

    fn tracked(body: B, stream: Stream) -> Self {
        Self {
            body: Some(body),
            stream: Some(stream),
        }
    }
}

impl<B: Body> Body for Reply<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        if let Some(stream) = this.stream {
            stream.hold(false);
        }
        let frame = ready!(body.poll_frame(cx));
        if let (Some(stream), Some(Ok(_))) = (this.stream, &frame) {
            stream.hold(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The client's end of the wire: reads again what was read too early, and fails a write that waits for too long.
#[derive(Debug)]
struct Wire<I> {
    io: I,
    /// What is to be read before the rest of `io`.
    unread: Bytes,
    write_stall: Duration,
    /// Made when a write has to wait for the first time; most connections never need one.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether `timer` runs.
    waits: bool,
    activity: Arc<Activity>,
}

impl<I> Wire<I> {
    fn new(io: I, write_stall: Duration) -> Self {
        Self {
            io,
            unread: Bytes::new(),
            write_stall,
            timer: None,
            waits: false,
            activity: Arc::default(),
        }
    }

    /// Counts a write that made progress, and bounds the wait of one that made none.
    fn bound(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write {
            if self.waits {
                self.waits = false;
                self.activity.blocked.store(false, Ordering::Relaxed);
            }
            if let Ok(size) = written {
                self.activity
                    .written
                    .fetch_add(size as u64, Ordering::Relaxed);
            }
            return Poll::Ready(written);
        }

        let deadline = Instant::now() + self.write_stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.waits {
            self.waits = true;
            self.activity.blocked.store(true, Ordering::Relaxed);
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.activity.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let size = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(size));
        if self.unread.is_empty() {
            // Lets go of the allocation.
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.bound(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.bound(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_is_known_as_soon_as_a_byte_decides() {
        for size in 0..PREFACE.len() {
            assert_eq!(protocol_of(&PREFACE[..size]), None, "{size} bytes");
            let other = [&PREFACE[..size], b"?"].concat();
            assert_eq!(protocol_of(&other), Some(Protocol::Http1), "{size} bytes");
        }
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
        let more = [&PREFACE[..], b"\0\0\0"].concat();
        assert_eq!(protocol_of(&more), Some(Protocol::Http2));
        assert_eq!(protocol_of(b"G"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"PRI * HTTP/1.1\r\n"), Some(Protocol::Http1));
    }

    const OPEN: Seen = Seen {
        opened: true,
        written: 0,
        blocked: false,
        begun: 0,
        open: 0,
        held: 0,
    };

    /// Looks once a second, at what `seen` says for that second, until the verdict is not `Alive`.
    fn verdict(closing: Option<Duration>, seen: impl Fn(u64) -> Seen) -> (u64, Verdict) {
        let limits = Limits::default();
        let start = Instant::now();
        let mut watch = Watch::new(&limits, start);
        watch.closing = closing;
        (1..1000)
            .map(|second| {
                let now = start + Duration::from_secs(second);
                (second, watch.judge(now, &seen(second)))
            })
            .find(|(_, verdict)| *verdict != Verdict::Alive)
            .unwrap_or((1000, Verdict::Alive))
    }

    #[test]
    fn connections_are_given_up_only_when_their_client_stands_still() {
        #[track_caller]
        fn check(case: &str, seen: impl Fn(u64) -> Seen, expected: (u64, Verdict)) {
            assert_eq!(verdict(None, seen), expected, "{case}");
        }
        let alive = (1000, Verdict::Alive);
        let closed = Seen {
            opened: false,
            ..OPEN
        };
        let busy = Seen {
            begun: 1,
            open: 1,
            ..OPEN
        };
        let held = Seen { held: 1, ..busy };

        check("never opened", |_| closed, (10, Verdict::Silent));
        check("never asked", |_| OPEN, (60, Verdict::Idle));
        check("waits for us", |_| busy, alive);
        check("takes nothing", |_| held, (60, Verdict::Stalled));
        let pings = |second| Seen {
            written: second,
            ..held
        };
        check(
            "answers pings, takes nothing",
            pings,
            (60, Verdict::Stalled),
        );
        let slow = |second| Seen {
            written: second * 50,
            ..held
        };
        check("takes a little", slow, alive);
        let late = |second| if second < 100 { busy } else { held };
        check(
            "takes nothing of a late answer",
            late,
            (159, Verdict::Stalled),
        );
        let asks = |second| Seen {
            begun: second / 50,
            ..OPEN
        };
        check("asks between looks", asks, alive);
        let asked = |second: u64| Seen {
            begun: second.min(30),
            ..OPEN
        };
        check("asked until then", asked, (90, Verdict::Idle));
        let blocked = Seen {
            blocked: true,
            ..OPEN
        };
        check("blocked writes have their own bound", |_| blocked, alive);
    }

    #[test]
    fn closing_connections_are_kept_for_their_answers_only() {
        let second = Some(Duration::from_secs(1));
        let ends_at = |end: u64| {
            move |at| Seen {
                begun: 1,
                open: u64::from(at < end),
                ..OPEN
            }
        };
        assert_eq!(verdict(second, |_| OPEN), (1, Verdict::Gone));
        assert_eq!(verdict(second, ends_at(100)), (100, Verdict::Gone));
        let drains = |at: u64| Seen {
            written: at.min(30) * 2000,
            ..OPEN
        };
        assert_eq!(verdict(second, drains), (31, Verdict::Gone));
    }
}
