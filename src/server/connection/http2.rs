//! Serves HTTP/2.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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

/// Serves HTTP/2 from the client's preface on. `request` is the HEADERS frame of the request that asked for it.
///
/// No pings are sent: a client that reads slowly through deep buffers answers them late and would be cut although it
/// makes progress, and what pings would find out, [`IdleDetector`] sees anyway.
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
        AtIdle::Drain,
        &activity,
        &opened,
        limits,
        stopping,
    )
    .await
}
