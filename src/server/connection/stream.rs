//! The socket of a client, with a time limit for blocked writes.
//!
//! [`BoundedStream`] also replays bytes that were read too early: the sniffed ones, and those that hyper read behind an
//! upgrade request. It reports reads and writes to the connection's [`Activity`].
//!
//! A socket that is closed with unread bytes resets its connection, and the client loses what it has not read yet. An
//! HTTP/2 client sends WINDOW_UPDATE for the last bytes of an answer. [`BoundedStream::linger`] therefore reads on
//! after the end, until the client closes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;

/// A stream that fails writes blocked for longer than `write_stall`.
#[derive(Debug)]
pub(super) struct BoundedStream<I> {
    pub(super) io: I,
    /// Bytes to read before the rest of `io`.
    pub(super) unread: Bytes,
    write_stall: Duration,
    /// Created by the first blocked write; most connections never need it.
    timer: Option<Pin<Box<Sleep>>>,
    /// A write is blocked and `timer` runs.
    is_waiting: bool,
    /// Longest time to wait, after the end of writing, until the client closes.
    linger: Duration,
    /// Runs since the end of writing.
    linger_timer: Option<Pin<Box<Sleep>>>,
    pub(super) activity: Arc<Activity>,
}

/// Bytes that are read at a time after the end.
const DISCARDED_BYTES: usize = 1 << 10;

impl<I> BoundedStream<I> {
    pub(super) fn new(io: I, write_stall: Duration, activity: Arc<Activity>) -> Self {
        Self {
            io,
            unread: Bytes::new(),
            write_stall,
            timer: None,
            is_waiting: false,
            linger: Duration::ZERO,
            linger_timer: None,
            activity,
        }
    }

    /// Waits up to `longest` at the end until the client has closed too.
    pub(super) fn linger(self, longest: Duration) -> Self {
        Self {
            linger: longest,
            ..self
        }
    }

    /// Counts a finished write, or applies the time limit to a blocked one.
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
                self.activity.count_written(size);
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
            let before = buf.filled().len();
            let read = Pin::new(&mut self.io).poll_read(cx, buf);
            let activity = &self.activity;
            let waits = &activity.waits_for_client;
            waits.store(read.is_pending(), Ordering::Release);
            return match activity.count_read(buf.filled().len() - before) {
                Some(abuse) => Poll::Ready(Err(io::Error::other(abuse))),
                None => read,
            };
        }
        let size = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(size));
        if self.unread.is_empty() {
            // Frees the allocation.
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for BoundedStream<I> {
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
        if self.linger_timer.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            if self.linger.is_zero() {
                return Poll::Ready(Ok(()));
            }
        }
        let deadline = Instant::now() + self.linger;
        let timer = self
            .linger_timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut bytes = [0; DISCARDED_BYTES];
            let mut discarded = ReadBuf::new(&mut bytes);
            let read = ready!(self.as_mut().poll_read(cx, &mut discarded));
            if read.is_err() || discarded.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
