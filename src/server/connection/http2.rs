//! HTTP/2, from the client's preface on.
//!
//! hyper and h2 set no time limit on a client that stalls. Their defaults also allow more memory per client than
//! larder's clients need, so every buffer and counter is set here. h2 bounds CONTINUATION frames, and resets of streams
//! that are not accepted yet. [`super::activity`] bounds accepted streams.
//!
//! No pings are sent. A client that reads slowly through deep buffers would answer them late and be disconnected
//! although it makes progress. The idle detector notices dead clients without them.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::activity::{RequestGuard, TrackedBody};
use super::drive::{AtIdle, drive};
use super::h2c::{self, Opening};
use super::limits::{ConnectionError, Limits};
use super::sniff::Protocol;
use super::stream::BoundedStream;

/// Bytes that h2 buffers per stream before it polls the body again. With hyper's default of 400 kB, 50 streaming
/// clients cost 20 MB.
const HTTP2_STREAM_BUFFER_BYTES: usize = 128 * 1024;

/// Bytes of request bodies that a client may send before it needs more window. larder reads no bodies, so this is the
/// protocol's own default; hyper would offer 1 MB.
const HTTP2_RECEIVE_WINDOW_BYTES: u32 = 65_535;

/// Streams that a client may open and reset before h2 has accepted them ("rapid reset"). A client that cancels a batch
/// of downloads can reach some dozens, an attack thousands.
const HTTP2_MAX_PENDING_RESETS: usize = 100;

/// Streams that h2 may reset for the client's errors before it closes the connection.
const HTTP2_MAX_LOCAL_RESETS: usize = 256;

/// Serves HTTP/2. `headers_frame` is the HEADERS frame of the request that asked for the upgrade, or empty.
pub(super) async fn serve_http2<I, S, F, B>(
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
    let free_bytes = &activity.http2_free_bytes;
    free_bytes.store(limits.http2_free_bytes, Ordering::Relaxed);
    let opened = Arc::new(AtomicBool::new(false));
    let hyper_service = service_fn(|request: Request<Incoming>| {
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
    let stream = stream.linger(limits.drain);
    let io = TokioIo::new(Opening::new(stream, headers_frame, Arc::clone(&opened)));
    let connection = pin!(builder.serve_connection(io, hyper_service));
    drive(
        connection,
        http2::Connection::graceful_shutdown,
        AtIdle::Drain,
        &activity,
        &opened,
        limits,
        stopping,
    )
    .await
}
