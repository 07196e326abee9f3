//! Response bodies on their way to a client.
//!
//! A body is either one buffer or a stream of chunks that are read from the cache as hyper asks for them. It knows how
//! many bytes it promised. If the source fails or ends early, the transfer is aborted, so that the client notices:
//! HTTP/1.1 clients by the missing bytes, HTTP/2 clients by the reset of the stream (docs/client-behaviour.md, H-06).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::body::{Frame, SizeHint};

use tokio::sync::OwnedSemaphorePermit;

use super::{access_log::AccessLog, answer_memory::AnswerMemory};
use crate::cache::Body;

/// A response body. It writes its access-log record when it is dropped, however the transfer ended.
pub(super) struct ClientBody {
    chunks: Option<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>>,
    buffer: Option<Bytes>,
    remaining: Option<u64>,
    sent: u64,
    /// Error to return at the next poll: see [`Self::abort`].
    pending_error: Option<io::Error>,
    log: AccessLog,
    /// The right of the request to be in flight.
    permit: Option<OwnedSemaphorePermit>,
}

impl ClientBody {
    /// Holds the permit of the request until the body is dropped.
    pub(super) fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.permit = permit;
    }

    pub(super) fn empty(log: AccessLog) -> Self {
        Self {
            chunks: None,
            buffer: None,
            remaining: Some(0),
            sent: 0,
            pending_error: None,
            log,
            permit: None,
        }
    }

    /// A body that is in memory.
    pub(super) fn whole(bytes: Bytes, log: AccessLog) -> Self {
        Self {
            chunks: None,
            remaining: Some(bytes.len() as u64),
            buffer: Some(bytes),
            sent: 0,
            pending_error: None,
            log,
            permit: None,
        }
    }

    /// A body without a length, which may end at any time.
    pub(super) fn endless(
        chunks: impl Stream<Item = Bytes> + Send + 'static,
        log: AccessLog,
    ) -> Self {
        let mut body = Self::empty(log);
        body.chunks = Some(Box::pin(chunks.map(Ok)));
        body.remaining = None;
        body
    }

    /// The part `start..end` of a body; without an end, the rest of it.
    pub(super) fn body(
        body: Body,
        start: u64,
        end: Option<u64>,
        memory: &AnswerMemory,
        log: AccessLog,
    ) -> Self {
        let remaining = end.map(|end| end - start);
        if let (Body::Whole(bytes), Some(end)) = (&body, end)
            && let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end))
        {
            return Self::whole(bytes.slice(from..to), log);
        }
        let end = end.unwrap_or(u64::MAX);
        let source = (body, start, memory.clone());
        let chunks = stream::unfold(source, move |(mut body, at, memory)| async move {
            let chunk = body.piece(at, end, memory.next_piece()).await.transpose()?;
            let next = chunk
                .as_ref()
                .map_or(u64::MAX, |chunk| at + chunk.len() as u64);
            let chunk = chunk.map(|chunk| memory.count(chunk));
            Some((chunk, (body, next, memory)))
        });
        Self {
            chunks: Some(Box::pin(chunks)),
            buffer: None,
            remaining,
            sent: 0,
            pending_error: None,
            log,
            permit: None,
        }
    }
}

impl ClientBody {
    /// Aborts the transfer at the next poll, when hyper has at least sent the head. Cargo does not retry if a
    /// connection closes before the first byte of a response (cargo, `maybe_spurious` in `util/network/retry.rs`).
    fn abort<T>(&mut self, error: io::Error, reason: String, cx: &Context<'_>) -> Poll<T> {
        self.log.abort(reason);
        self.chunks = None;
        self.pending_error = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl hyper::body::Body for ClientBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(error) = self.pending_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let chunk = match (self.buffer.take(), &mut self.chunks) {
            (Some(buffer), _) => Some(Ok(buffer)),
            (None, Some(chunks)) => match chunks.as_mut().poll_next(cx) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => return Poll::Pending,
            },
            (None, None) => None,
        };
        match chunk {
            Some(Ok(chunk)) => {
                let len = chunk.len() as u64;
                self.sent += len;
                self.remaining = self
                    .remaining
                    .map(|remaining| remaining.saturating_sub(len));
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Some(Err(error)) => {
                let reason = error.to_string();
                self.abort(error, reason, cx)
            }
            // The source ended before the promised size: the transfer must not end cleanly.
            None if self.remaining.is_some_and(|remaining| remaining > 0)
                && !self.log.has_error() =>
            {
                let reason = "the body is shorter than its announced length".to_owned();
                self.abort(io::ErrorKind::UnexpectedEof.into(), reason, cx)
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.log.write(self.sent);
    }
}
