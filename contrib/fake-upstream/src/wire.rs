//! The socket below a connection. It can fall silent, end with a reset, and return bytes that were read for detection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The first bytes of an HTTP/2 connection with prior knowledge. No HTTP/1 method is `PRI`.
const HTTP2_PREFACE_START: &[u8] = b"PRI * HTTP/2.0";

/// A switch for the whole server: while on, no connection reads or writes a byte, and none is closed.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    on: AtomicBool,
    sleepers: Mutex<Vec<Waker>>,
}

impl Silence {
    pub(crate) fn set(&self, on: bool) {
        let mut sleepers = self.sleepers.lock().expect("no holder of this lock panics");
        self.on.store(on, Ordering::SeqCst);
        if !on {
            sleepers.drain(..).for_each(Waker::wake);
        }
    }

    fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.on.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        let mut sleepers = self.sleepers.lock().expect("no holder of this lock panics");
        // Checked again with the lock, or a wake-up between the check and the lock would be lost.
        if !self.on.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        sleepers.push(cx.waker().clone());
        Poll::Pending
    }
}

/// A client's TCP connection.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TcpStream,
    unread: BytesMut,
    silence: Arc<Silence>,
    reset_at_end: Arc<AtomicBool>,
}

impl Wire {
    /// `reset_at_end` may be set at any time before the wire is dropped; it then ends with RST instead of FIN.
    pub(crate) fn new(
        tcp: TcpStream,
        silence: Arc<Silence>,
        reset_at_end: Arc<AtomicBool>,
    ) -> Self {
        Self {
            tcp,
            unread: BytesMut::new(),
            silence,
            reset_at_end,
        }
    }

    /// Detects a client that begins with HTTP/2. Consumes nothing.
    pub(crate) async fn starts_with_http2(&mut self) -> io::Result<bool> {
        let mut start = BytesMut::new();
        while start.len() < HTTP2_PREFACE_START.len() && HTTP2_PREFACE_START.starts_with(&start) {
            if self.read_buf(&mut start).await? == 0 {
                break;
            }
        }
        let found = start.starts_with(HTTP2_PREFACE_START);
        self.unread = start;
        Ok(found)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.silence.poll_over(cx));
        if !self.unread.is_empty() {
            let given = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..given]);
            self.unread.advance(given);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.silence.poll_over(cx));
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.silence.poll_over(cx));
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset_at_end.load(Ordering::SeqCst) {
            // A failure leaves an ordinary close, which the client also sees as a broken answer.
            let _ = socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}
