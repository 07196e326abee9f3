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
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// What HTTP/2 buffers for each stream before it asks the body for more. Two chunks of an ordinary body, so that one
/// is written while the next is read; hyper's default of 400 kB costs 50 streaming clients 20 MB.
const HTTP2_STREAM_BUFFER_BYTES: usize = 128 * 1024;

/// How much of request bodies HTTP/2 clients may send unasked. larder reads next to none; this is the protocol's
/// own initial value, where hyper would offer 1 MB.
const HTTP2_RECEIVE_WINDOW_BYTES: u32 = 65_535;

/// Streams a client may open and reset again before they were looked at ("rapid reset"). A client that gives up on a
/// whole batch of downloads can reach some dozens, an attack thousands.
const HTTP2_MAX_PENDING_RESETS: usize = 100;

/// Streams reset by us for a client's errors before the connection is given up.
const HTTP2_MAX_LOCAL_RESETS: usize = 256;

/// Bytes that count as progress of an HTTP/2 connection. More than all acknowledgements of a silent client's pings
/// within a limit of a minute, less than any transfer moves.
const PROGRESS_BYTES: u64 = 1024;

/// How long a client may stand still.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until it is known which protocol a new connection speaks, and likewise until HTTP/2 is open, counted from the
    /// preface or the 101. Ten seconds: both take one round trip, so only a lost packet or two needs more.
    pub first_bytes: Duration,
    /// For a whole HTTP/1 request head, counted from the end of the answer before: also how long an idle connection is
    /// kept, in HTTP/2 too. A minute: cargo reuses a connection within one command only.
    pub request_head: Duration,
    /// For a client to take anything of an answer. A minute: cargo itself gives up after half of it.
    pub write_stall: Duration,
    /// When stopping, for a connection on which no request is under way, or half of one. A first request that is on its way is still
    /// answered, because a connection closed without any answer is the one failure that cargo does not retry. An HTTP/2
    /// client needs it to acknowledge the end; one that does not listen is not waited for. One second: a round trip.
    pub drain: Duration,
    /// Requests at once on one HTTP/2 connection. libcurl uses no more than 100, whatever is offered; others do.
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_bytes: Duration::from_secs(10),
            request_head: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            drain: Duration::from_secs(1),
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
    RequestTimeout,
    /// The client took nothing of an answer for [`Limits::write_stall`].
    WriteTimeout,
    /// The socket failed before it was known what the client speaks.
    Socket(io::Error),
    /// The client left in the middle, broke the protocol, or an answer's body failed.
    Http(hyper::Error),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot go on with a connection: ")?;
        match self {
            Self::RequestTimeout => f.write_str("the client sent no complete request in time"),
            Self::WriteTimeout => f.write_str("the client took nothing of an answer in time"),
            Self::Socket(_) => f.write_str("the socket failed"),
            Self::Http(_) => f.write_str("the exchange failed"),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::RequestTimeout | Self::WriteTimeout => None,
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
    let mut stream = BoundedStream::new(io, limits.write_stall);
    let Some(protocol) = sniff(&mut stream, limits, &mut stopping).await? else {
        return Ok(());
    };
    let (stream, protocol, request) = if protocol == Protocol::Http2 {
        (stream, protocol, Bytes::new())
    } else {
        match http1(stream, service.clone(), limits, upgrade, &mut stopping).await? {
            Some((stream, request)) => (stream, Protocol::H2c, request),
            None => return Ok(()),
        }
    };
    // Boxed, because otherwise every HTTP/1 connection carries the room for it.
    Box::pin(http2(
        stream,
        protocol,
        request,
        service,
        limits,
        &mut stopping,
    ))
    .await
}

/// Resolves when stopping is ordered.
async fn stop_requested(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone can give no order any more, and means that the server is.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Which protocol the client speaks, told by as few bytes as possible, which are read again afterwards. `None` when
/// the client left, or stopping was ordered, before it said so.
async fn sniff<I: AsyncRead + Unpin>(
    stream: &mut BoundedStream<I>,
    limits: &Limits,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<Protocol>, ConnectionError> {
    let mut first = BytesMut::with_capacity(1024);
    let mut deadline = Instant::now() + limits.first_bytes;
    let mut stop = false;
    let protocol = loop {
        tokio::select! {
            biased;
            read = stream.io.read_buf(&mut first) => match read {
                Ok(0) => return Ok(None),
                Ok(_) => if let Some(protocol) = protocol_of(&first) {
                    break protocol;
                },
                Err(cause) => return Err(ConnectionError::Socket(cause)),
            },
            () = sleep_until(deadline) => {
                return if stop { Ok(None) } else { Err(ConnectionError::RequestTimeout) };
            }
            () = stop_requested(stopping), if !stop => {
                stop = true;
                deadline = deadline.min(Instant::now() + limits.drain);
            }
        }
    };
    stream.unread = first.freeze();
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
    stream: BoundedStream<I>,
    service: S,
    limits: &Limits,
    upgrade: bool,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<(BoundedStream<I>, Bytes)>, ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Protocol) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let activity = Arc::clone(&stream.activity);
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
        let guard = RequestGuard::begin(&activity);
        async move {
            Ok::<_, Infallible>(match answer {
                Some(answer) => answer.await.map(|body| TrackedBody::new(body, guard)),
                None => switching_protocols(),
            })
        }
    });

    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .half_close(false);
    {
        let connection = pin!(
            builder
                .serve_connection(TokioIo::new(stream), answer)
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
    let parts = upgraded
        .downcast::<TokioIo<BoundedStream<I>>>()
        .map_err(|_| {
            let cause = io::Error::other("the upgraded connection is not the one that was served");
            ConnectionError::Socket(cause)
        })?;
    let mut stream = parts.io.into_inner();
    stream.unread = parts.read_buf;
    Ok(Some((stream, frame)))
}

fn switching_protocols<B>() -> Response<TrackedBody<B>> {
    let mut response = Response::new(TrackedBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    response
}

/// Serves HTTP/2 from the client's preface on. `request` is the HEADERS frame of the request that asked for it.
///
/// No pings are sent: a client that reads slowly through deep buffers answers them late and would be cut although it
/// makes progress, and what pings would find out, [`IdleDetector`] sees anyway.
async fn http2<I, S, F, B>(
    stream: BoundedStream<I>,
    protocol: Protocol,
    headers_frame: Bytes,
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
    let activity = Arc::clone(&stream.activity);
    let opened = Arc::new(AtomicBool::new(false));
    let answer = service_fn(|request: Request<Incoming>| {
        let guard = RequestGuard::begin(&activity);
        let response = service(request, protocol);
        async move { Ok::<_, Infallible>(response.await.map(|body| TrackedBody::new(body, guard))) }
    });

    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(h2c::MAX_HEADER_LIST)
        .max_send_buf_size(HTTP2_STREAM_BUFFER_BYTES)
        .initial_stream_window_size(HTTP2_RECEIVE_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_RECEIVE_WINDOW_BYTES)
        .max_pending_accept_reset_streams(HTTP2_MAX_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_MAX_LOCAL_RESETS);
    let io = TokioIo::new(Opening::new(stream, headers_frame, Arc::clone(&opened)));
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
    let mut detector = IdleDetector::new(limits, Instant::now());
    let mut ticks = ticker(
        limits
            .first_bytes
            .min(limits.request_head)
            .min(limits.write_stall)
            / 4,
    );
    let mut stop = false;
    loop {
        tokio::select! {
            // The connection first: an HTTP/1 one that has not read what was sniffed takes itself for idle.
            biased;
            ended = connection.as_mut() => return ended.map_err(|cause| activity.explain(cause)),
            () = stop_requested(stopping), if !stop => {
                stop = true;
                graceful_shutdown(connection.as_mut());
                detector.start_drain(Instant::now(), limits.drain);
                ticks = ticker(limits.drain / 4);
            }
            now = ticks.tick() => {
                let sample = activity.sample(opened.load(Ordering::Relaxed));
                match detector.check(now, &sample) {
                    Verdict::Alive => {}
                    Verdict::Idle if protocol == Protocol::Http1 => return Err(ConnectionError::RequestTimeout),
                    Verdict::Idle => {
                        graceful_shutdown(connection.as_mut());
                        detector.start_drain(now, limits.first_bytes);
                    }
                    Verdict::Drained => return Ok(()),
                    Verdict::RequestTimeout => return Err(ConnectionError::RequestTimeout),
                    Verdict::WriteTimeout => return Err(ConnectionError::WriteTimeout),
                }
            }
        }
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let period = period.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What goes on over one connection, counted by its parts.
#[derive(Debug, Default)]
struct Activity {
    /// Bytes written to the socket.
    bytes_written: AtomicU64,
    /// A write waits for the client.
    write_blocked: AtomicBool,
    /// A write waited for too long, and was failed for it.
    write_timed_out: AtomicBool,
    /// HTTP/2 requests that came, and those whose answer is with the connection or dropped.
    started: AtomicU64,
    finished: AtomicU64,
    /// Bodies whose last chunk the connection still holds: it asks for the next as soon as the client has room.
    chunks_buffered: AtomicUsize,
}

/// A look at an [`Activity`].
#[derive(Clone, Copy, Debug)]
struct Sample {
    opened: bool,
    bytes_written: u64,
    write_blocked: bool,
    started: u64,
    open: u64,
    chunks_buffered: usize,
}

impl Activity {
    fn sample(&self, opened: bool) -> Sample {
        // In this order `open` can come out too high and never too low.
        let finished = self.finished.load(Ordering::Acquire);
        let started = self.started.load(Ordering::Acquire);
        Sample {
            opened,
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            write_blocked: self.write_blocked.load(Ordering::Relaxed),
            started,
            open: started.saturating_sub(finished),
            chunks_buffered: self.chunks_buffered.load(Ordering::Relaxed),
        }
    }

    /// The reason behind hyper's error where it was made here.
    fn explain(&self, cause: hyper::Error) -> ConnectionError {
        if self.write_timed_out.load(Ordering::Relaxed) {
            ConnectionError::WriteTimeout
        } else {
            ConnectionError::Http(cause)
        }
    }
}

/// Judges from looks at its activity whether a connection goes on.
///
/// hyper bounds none of this. In particular, a client that grants no flow-control window never lets a write wait, so
/// the bound of [`BoundedStream`] does not see it. Limits are kept to about the distance between two ticks.
#[derive(Debug)]
struct IdleDetector {
    first_bytes: Duration,
    request_head: Duration,
    write_stall: Duration,
    /// Set once the client was told that the connection ends: how long it may then stand still.
    draining: Option<Duration>,
    opened_at: Instant,
    /// Requests at the last look, and when there last was one under way.
    started: u64,
    last_request_at: Instant,
    /// Bytes written when there last was progress, and when that was.
    bytes_written: u64,
    last_progress_at: Instant,
    /// When last no body waited for the client.
    last_unbuffered_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    /// No request for so long that the client is to be told to go.
    Idle,
    /// It was told and has nothing to wait for any more.
    Drained,
    /// HTTP/2 was not opened in time.
    RequestTimeout,
    /// Answers wait for the client, which takes nothing.
    WriteTimeout,
}

impl IdleDetector {
    fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            first_bytes: limits.first_bytes,
            request_head: limits.request_head,
            write_stall: limits.write_stall,
            draining: None,
            opened_at: now,
            started: 0,
            last_request_at: now,
            bytes_written: 0,
            last_progress_at: now,
            last_unbuffered_at: now,
        }
    }

    /// The client is told to go, and may stand still for so long.
    fn start_drain(&mut self, now: Instant, patience: Duration) {
        self.draining = Some(patience);
        self.first_bytes = self.first_bytes.min(now - self.opened_at + patience);
        self.last_request_at = now;
    }

    fn check(&mut self, now: Instant, sample: &Sample) -> Verdict {
        if sample.open > 0 || sample.started > self.started {
            self.started = sample.started;
            self.last_request_at = now;
        }
        if sample.bytes_written >= self.bytes_written + PROGRESS_BYTES {
            self.bytes_written = sample.bytes_written;
            self.last_progress_at = now;
        }
        if sample.chunks_buffered == 0 {
            self.last_unbuffered_at = now;
        }

        if !sample.opened {
            return if now - self.opened_at >= self.first_bytes {
                Verdict::RequestTimeout
            } else {
                Verdict::Alive
            };
        }
        // A body that waits only now may wait for the first bytes after a long pause of its source.
        if now - self.last_progress_at.max(self.last_unbuffered_at) >= self.write_stall {
            return Verdict::WriteTimeout;
        }
        // Without a request under way, ends of answers may still be buffered, which is progress or a blocked write. The
        // latter has its own bound.
        let quiet = now - self.last_progress_at.max(self.last_request_at);
        if sample.open > 0 || sample.write_blocked {
            return Verdict::Alive;
        }
        match self.draining {
            Some(patience) if quiet >= patience => Verdict::Drained,
            None if quiet >= self.request_head => Verdict::Idle,
            Some(_) | None => Verdict::Alive,
        }
    }
}

/// One HTTP/2 request under way, from its arrival until its answer's body is with the connection or dropped.
#[derive(Debug)]
struct RequestGuard {
    activity: Arc<Activity>,
    is_buffered: bool,
}

impl RequestGuard {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.started.fetch_add(1, Ordering::Release);
        Self {
            activity: Arc::clone(activity),
            is_buffered: false,
        }
    }

    /// Notes whether the connection holds a chunk of this answer.
    fn set_buffered(&mut self, is_buffered: bool) {
        if is_buffered && !self.is_buffered {
            self.activity
                .chunks_buffered
                .fetch_add(1, Ordering::Relaxed);
        } else if !is_buffered && self.is_buffered {
            self.activity
                .chunks_buffered
                .fetch_sub(1, Ordering::Relaxed);
        }
        self.is_buffered = is_buffered;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.set_buffered(false);
        self.activity.finished.fetch_add(1, Ordering::Release);
    }
}

pin_project! {
    /// The body of an answer, or of a 101, which has none.
    struct TrackedBody<B> {
        #[pin]
        body: Option<B>,
        guard: Option<RequestGuard>,
    }
}

impl<B> TrackedBody<B> {
    fn empty() -> Self {
        Self {
            body: None,
            guard: None,
        }
    }

    fn new(body: B, guard: RequestGuard) -> Self {
        Self {
            body: Some(body),
            guard: Some(guard),
        }
    }
}

impl<B: Body> Body for TrackedBody<B> {
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
        if let Some(guard) = this.guard {
            guard.set_buffered(false);
        }
        let frame = ready!(body.poll_frame(cx));
        if let (Some(guard), Some(Ok(_))) = (this.guard, &frame) {
            guard.set_buffered(true);
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

/// The client's end of the stream: reads again what was read too early, and fails a write that waits for too long.
#[derive(Debug)]
struct BoundedStream<I> {
    io: I,
    /// What is to be read before the rest of `io`.
    unread: Bytes,
    write_stall: Duration,
    /// Made when a write has to wait for the first time; most connections never need one.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether `timer` runs.
    is_waiting: bool,
    activity: Arc<Activity>,
}

impl<I> BoundedStream<I> {
    fn new(io: I, write_stall: Duration) -> Self {
        Self {
            io,
            unread: Bytes::new(),
            write_stall,
            timer: None,
            is_waiting: false,
            activity: Arc::default(),
        }
    }

    /// Counts a write that made progress, and bounds the wait of one that made none.
    fn limit_wait(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write {
            if self.is_waiting {
                self.is_waiting = false;
                self.activity.write_blocked.store(false, Ordering::Relaxed);
            }
            if let Ok(size) = written {
                self.activity
                    .bytes_written
                    .fetch_add(size as u64, Ordering::Relaxed);
            }
            return Poll::Ready(written);
        }

        let deadline = Instant::now() + self.write_stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.is_waiting {
            self.is_waiting = true;
            self.activity.write_blocked.store(true, Ordering::Relaxed);
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.activity.write_timed_out.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for BoundedStream<I> {
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

impl<I: AsyncWrite + Unpin> AsyncWrite for BoundedStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.limit_wait(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.limit_wait(cx, write)
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

    const OPEN: Sample = Sample {
        opened: true,
        bytes_written: 0,
        write_blocked: false,
        started: 0,
        open: 0,
        chunks_buffered: 0,
    };

    /// Looks once a second, at what `seen` says for that second, until the verdict is not `Alive`.
    fn verdict(draining: Option<Duration>, sample: impl Fn(u64) -> Sample) -> (u64, Verdict) {
        let limits = Limits::default();
        let start = Instant::now();
        let mut detector = IdleDetector::new(&limits, start);
        detector.draining = draining;
        (1..1000)
            .map(|second| {
                let now = start + Duration::from_secs(second);
                (second, detector.check(now, &sample(second)))
            })
            .find(|(_, verdict)| *verdict != Verdict::Alive)
            .unwrap_or((1000, Verdict::Alive))
    }

    #[test]
    fn connections_are_given_up_only_when_their_client_stands_still() {
        #[track_caller]
        fn check(case: &str, sample: impl Fn(u64) -> Sample, expected: (u64, Verdict)) {
            assert_eq!(verdict(None, sample), expected, "{case}");
        }
        let alive = (1000, Verdict::Alive);
        let closed = Sample {
            opened: false,
            ..OPEN
        };
        let busy = Sample {
            started: 1,
            open: 1,
            ..OPEN
        };
        let unread = Sample {
            chunks_buffered: 1,
            ..busy
        };

        check("never opened", |_| closed, (10, Verdict::RequestTimeout));
        check("never asked", |_| OPEN, (60, Verdict::Idle));
        check("waits for us", |_| busy, alive);
        check("takes nothing", |_| unread, (60, Verdict::WriteTimeout));
        let pings = |second| Sample {
            bytes_written: second,
            ..unread
        };
        check(
            "answers pings, takes nothing",
            pings,
            (60, Verdict::WriteTimeout),
        );
        let slow = |second| Sample {
            bytes_written: second * 50,
            ..unread
        };
        check("takes a little", slow, alive);
        let late = |second| if second < 100 { busy } else { unread };
        check(
            "takes nothing of a late answer",
            late,
            (159, Verdict::WriteTimeout),
        );
        let asks = |second| Sample {
            started: second / 50,
            ..OPEN
        };
        check("asks between looks", asks, alive);
        let asked = |second: u64| Sample {
            started: second.min(30),
            ..OPEN
        };
        check("asked until then", asked, (90, Verdict::Idle));
        let blocked = Sample {
            write_blocked: true,
            ..OPEN
        };
        check("blocked writes have their own bound", |_| blocked, alive);
    }

    #[test]
    fn closing_connections_are_kept_for_their_answers_only() {
        let second = Some(Duration::from_secs(1));
        let ends_at = |end: u64| {
            move |at| Sample {
                started: 1,
                open: u64::from(at < end),
                ..OPEN
            }
        };
        assert_eq!(verdict(second, |_| OPEN), (1, Verdict::Drained));
        assert_eq!(verdict(second, ends_at(100)), (100, Verdict::Drained));
        let drains = |at: u64| Sample {
            bytes_written: at.min(30) * 2000,
            ..OPEN
        };
        assert_eq!(verdict(second, drains), (31, Verdict::Drained));
    }
}
