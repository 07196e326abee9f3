//! One client connection, from its first byte to its end.
//!
//! One TCP port serves three kinds of client: HTTP/1.1, HTTP/2 with prior knowledge, and HTTP/1.1 that upgrades to
//! `h2c`. Cargo is of the third kind: over plain HTTP/1.1 it has one request in flight, over `h2c` up to 100 per
//! connection (docs/client-behaviour.md, C-18 and C-19).
//!
//! ```text
//!   first bytes ──> sniff ── preface ──────────────────────────────> http2 ──> hyper, h2
//!                     └───── anything else ──> http1 ── 101 ── h2c ─────┘
//!                                                └──> hyper
//! ```
//!
//! - `stream` wraps the socket: it replays sniffed bytes and times out blocked writes.
//! - `drive` polls hyper's connection. It applies [`Limits`] with the counters of [`Activity`] and the detector of
//!   `idle`.
//! - [`h2c`] has the rules of the upgrade and the byte stream that an upgraded connection must begin with.
//!
//! Every limit here applies to a client that makes no progress. The service decides how long an answer may take.
//! Nothing reads request bodies: the guard refuses requests that announce one.

mod activity;
mod drive;
pub mod h2c;
mod http1;
mod http2;
mod idle;
mod limits;
mod sniff;
mod stream;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use activity::{Activity, Quiet};
use http1::serve_http1;
use http2::serve_http2;
pub use limits::{Abuse, ConnectionError, Limits};
pub use sniff::Protocol;
use sniff::sniff;
use stream::BoundedStream;

/// Serves one accepted connection until it ends, including the HTTP/2 part of an upgraded one.
///
/// `service` answers every request. A body that yields an error aborts its answer: with RST_STREAM in HTTP/2, by
/// closing the connection before the announced length in HTTP/1. `upgrade` allows `Upgrade: h2c`; without it, such
/// requests get an ordinary answer. `activity` belongs to this connection alone. When `stopping` becomes true or its
/// sender is dropped, requests in flight finish and the connection ends. The caller bounds that time: it may drop this
/// future at any point. The caller also sets TCP_NODELAY.
///
/// # Errors
/// [`ConnectionError`] if a limit or a fault ended the connection. A client that closes between requests is no error.
pub async fn serve<I, S, F, B>(
    io: I,
    service: S,
    limits: &Limits,
    upgrade: bool,
    activity: Arc<Activity>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Protocol) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut stream = BoundedStream::new(io, limits.write_stall, activity);
    let Some(protocol) = sniff(&mut stream, limits, &mut stopping).await? else {
        return Ok(());
    };
    let (stream, protocol, headers_frame) = if protocol == Protocol::Http2 {
        (stream, protocol, Bytes::new())
    } else {
        match serve_http1(stream, service.clone(), limits, upgrade, &mut stopping).await? {
            Some((stream, headers_frame)) => (stream, Protocol::H2c, headers_frame),
            None => return Ok(()),
        }
    };
    // Boxed: the future of an HTTP/1 connection would otherwise contain the larger one of HTTP/2.
    Box::pin(serve_http2(
        stream,
        protocol,
        headers_frame,
        service,
        limits,
        &mut stopping,
    ))
    .await
}
