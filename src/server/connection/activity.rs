//! Counters of one connection: requests, bytes written, chunks that wait for the client.
//!
//! The request path only increments atomics. [`super::drive`] takes a [`Sample`] a few times per limit, and
//! [`super::idle`] decides from consecutive samples. This costs no timer per request.
//!
//! ```text
//!   RequestGuard, TrackedBody ──┐
//!   BoundedStream ──────────────┴─> Activity ── sample ──> IdleDetector
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::limits::ConnectionError;

/// Counters of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Bytes written to the socket.
    pub(super) bytes_written: AtomicU64,
    /// A write is blocked because the client does not read.
    pub(super) write_blocked: AtomicBool,
    /// A write was blocked for too long and failed.
    pub(super) write_timed_out: AtomicBool,
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

impl Activity {
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
            ConnectionError::WriteTimeout
        } else {
            ConnectionError::Http(cause)
        }
    }
}

/// Counts one request, from its arrival until hyper has taken its answer's body completely or dropped it.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Arc<Activity>,
    is_buffered: bool,
}

impl RequestGuard {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.started.fetch_add(1, Ordering::Release);
        Self {
            activity: Arc::clone(activity),
            is_buffered: false,
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

impl<B> TrackedBody<B> {
    pub(super) fn empty() -> Self {
        Self {
            body: None,
            guard: None,
        }
    }

    pub(super) fn new(body: B, guard: RequestGuard) -> Self {
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
