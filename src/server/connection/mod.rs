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

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use http1::serve_http1;
use http2::serve_http2;
pub use limits::{ConnectionError, Limits};
pub use sniff::Protocol;
use sniff::sniff;
use stream::BoundedStream;

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
        match serve_http1(stream, service.clone(), limits, upgrade, &mut stopping).await? {
            Some((stream, request)) => (stream, Protocol::H2c, request),
            None => return Ok(()),
        }
    };
    // Boxed, because otherwise every HTTP/1 connection carries the room for it.
    Box::pin(serve_http2(
        stream,
        protocol,
        request,
        service,
        limits,
        &mut stopping,
    ))
    .await
}
