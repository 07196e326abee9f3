//! Counters of one connection: requests, bytes written, chunks that wait for the client.
//!
//! The request path only changes atomics. [`super::drive`] takes a [`Sample`] a few times per limit, and
//! [`super::idle`] decides from consecutive samples. This costs no timer per request. The server asks
//! [`Activity::quiet`] when it needs the place of a connection for another one.
//!
//! ```text
//!   RequestGuard, TrackedBody ──┐              ┌─ sample ──> IdleDetector
//!   BoundedStream ──────────────┴─> Activity ──┴─ quiet ───> Connections
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

#[cfg(doc)]
use super::limits::Limits;
use super::limits::{Abuse, ConnectionError};

/// Bytes that an HTTP/2 client may send for each request: the largest head, and some frames that control the stream.
const HTTP2_BYTES_PER_REQUEST: u64 = 32 << 10;
/// A client may send one byte for so many that it receives. Updates of windows take far less.
const HTTP2_RECEIVED_PER_BYTE: u64 = 8;
/// Requests that an HTTP/2 client may cancel, besides as many as it lets finish. A client that cancels a batch of
/// downloads reaches some dozens, "rapid reset" (CVE-2023-44487) thousands.
const HTTP2_MAX_CANCELLED: u64 = 256;

/// Counters of one connection.
#[derive(Debug)]
pub struct Activity {
    created: Instant,
    /// When the last request ended, or 0. In microseconds since `created`.
    last_request_ended: AtomicU64,
    /// When bytes were last written, or 0. In microseconds since `created`.
    last_written: AtomicU64,
    /// All bytes that the client has sent are read.
    pub(in super::super) waits_for_client: AtomicBool,
    /// Bytes written to the socket.
    pub(super) bytes_written: AtomicU64,
    /// A write is blocked because the client does not read.
    pub(super) write_blocked: AtomicBool,
    /// A write was blocked for too long and failed.
    pub(super) write_timed_out: AtomicBool,
    /// [`Limits::http2_free_bytes`], or `u64::MAX` until the connection speaks HTTP/2.
    pub(super) http2_free_bytes: AtomicU64,
    /// Bytes read from the socket.
    bytes_read: AtomicU64,
    /// Requests whose answer was dropped before its end.
    cancelled: AtomicU64,
    /// Requests received, and requests whose answer hyper has taken completely or dropped.
    started: AtomicU64,
    finished: AtomicU64,
    /// Bodies of which hyper has a chunk that it could not send yet. It polls for the next when the client reads.
    chunks_buffered: AtomicUsize,
}

/// The values of an [`Activity`] at one moment. `open` is the number of requests in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) opened: bool,
    pub(super) bytes_written: u64,
    pub(super) write_blocked: bool,
    pub(super) started: u64,
    pub(super) open: u64,
    pub(super) chunks_buffered: usize,
}

/// A connection that does nothing, and since when. The order is that in which such connections are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quiet {
    /// No request is in flight, and all that the client has sent is read.
    Idle(Instant),
    /// The client does not read an answer.
    Stalled(Instant),
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            created: Instant::now(),
            last_request_ended: AtomicU64::new(0),
            last_written: AtomicU64::new(0),
            waits_for_client: AtomicBool::new(false),
            bytes_written: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
            write_timed_out: AtomicBool::new(false),
            http2_free_bytes: AtomicU64::new(u64::MAX),
            bytes_read: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            chunks_buffered: AtomicUsize::new(0),
        }
    }
}

impl Activity {
    /// Tells if the connection does nothing; `None` if it is in use, or if its client may have sent a request that is
    /// not read yet.
    pub fn quiet(&self) -> Option<Quiet> {
        let sample = self.sample(true);
        let since = |moment: &AtomicU64| {
            self.created + Duration::from_micros(moment.load(Ordering::Relaxed))
        };
        if sample.open == 0 && !sample.write_blocked {
            let is_idle = self.waits_for_client.load(Ordering::Acquire);
            return is_idle.then(|| Quiet::Idle(since(&self.last_request_ended)));
        }
        let is_stalled = sample.write_blocked || sample.chunks_buffered > 0;
        is_stalled.then(|| Quiet::Stalled(since(&self.last_written)))
    }

    /// Counts bytes that the client's socket took.
    pub(super) fn count_written(&self, bytes: usize) {
        self.bytes_written
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_written.store(self.now(), Ordering::Relaxed);
    }

    /// Counts bytes that the client has sent. Returns how it misuses HTTP/2, if it does.
    ///
    /// A client that floods the connection with PING, SETTINGS or empty frames sends much and asks for little. h2
    /// bounds the memory that such frames take and not the processor time.
    pub(super) fn count_read(&self, bytes: usize) -> Option<Abuse> {
        let read = self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.abuse(read)
    }

    fn abuse(&self, read: u64) -> Option<Abuse> {
        let free = self.http2_free_bytes.load(Ordering::Relaxed);
        if free == u64::MAX {
            return None;
        }
        let requests = self.started.load(Ordering::Relaxed);
        let written = self.bytes_written.load(Ordering::Relaxed);
        let most = free + requests * HTTP2_BYTES_PER_REQUEST + written / HTTP2_RECEIVED_PER_BYTE;
        if read > most {
            return Some(Abuse::Flood);
        }
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        let finished = self.finished.load(Ordering::Relaxed);
        let kept = finished.saturating_sub(cancelled);
        (cancelled > kept + HTTP2_MAX_CANCELLED).then_some(Abuse::Resets)
    }

    /// Microseconds since the connection was accepted.
    fn now(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn sample(&self, opened: bool) -> Sample {
        // Read in this order, `open` can be too high and never too low.
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

    /// Replaces hyper's error by the timeout that caused it, if one did.
    pub(super) fn explain(&self, cause: hyper::Error) -> ConnectionError {
        if self.write_timed_out.load(Ordering::Relaxed) {
            return ConnectionError::WriteTimeout;
        }
        let found = self.abuse(self.bytes_read.load(Ordering::Relaxed));
        match found.or_else(|| Abuse::refused_by_h2(&cause)) {
            Some(abuse) => ConnectionError::Abuse(abuse),
            None => ConnectionError::Http(cause),
        }
    }
}

/// Counts one request, from its arrival until hyper has taken its answer's body completely or dropped it.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Arc<Activity>,
    is_buffered: bool,
    /// The answer has no body, or all of it was taken.
    is_complete: bool,
}

impl RequestGuard {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.started.fetch_add(1, Ordering::Release);
        Self {
            activity: Arc::clone(activity),
            is_buffered: false,
            is_complete: false,
        }
    }

    /// Records whether hyper buffers a chunk of this answer.
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
        if !self.is_complete {
            self.activity.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        let ended = &self.activity.last_request_ended;
        ended.store(self.activity.now(), Ordering::Relaxed);
        self.activity.finished.fetch_add(1, Ordering::Release);
    }
}

pin_project! {
    /// The body of an answer, which updates the counters as hyper polls it; empty for a 101.
    pub(super) struct TrackedBody<B> {
        #[pin]
        body: Option<B>,
        guard: Option<RequestGuard>,
    }
}

impl<B: Body> TrackedBody<B> {
    pub(super) fn empty() -> Self {
        Self {
            body: None,
            guard: None,
        }
    }

    pub(super) fn new(body: B, mut guard: RequestGuard) -> Self {
        guard.is_complete = body.is_end_stream();
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
        let Some(mut body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        if let Some(guard) = this.guard {
            guard.set_buffered(false);
        }
        let frame = ready!(body.as_mut().poll_frame(cx));
        if let Some(guard) = this.guard {
            guard.set_buffered(matches!(frame, Some(Ok(_))));
            guard.is_complete = frame.is_none() || body.is_end_stream();
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
