//! HTTP/1.0 and HTTP/1.1, up to an upgrade to `h2c`.
//!
//! hyper parses requests and writes answers. This module answers a valid upgrade with 101 and then takes the socket
//! back from hyper, together with the bytes that hyper read behind the request.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::activity::{Activity, RequestGuard, TrackedBody};
use super::drive::{AtIdle, drive};
use super::h2c;
use super::limits::{ConnectionError, Limits};
use super::sniff::Protocol;
use super::stream::BoundedStream;

/// Bytes of the read buffer, and limit of the write buffer. It also bounds a request head. With hyper's default of 400
/// kB a few hundred clients could fill the memory with partial heads.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// Serves HTTP/1. After an upgrade, returns the stream and the HEADERS frame of the request that HTTP/2 must answer.
pub(super) async fn serve_http1<I, S, F, B>(
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
    let pending_upgrade: Mutex<Option<(OnUpgrade, Bytes)>> = Mutex::new(None);
    let stop = stopping.clone();
    let hyper_service = service_fn(|mut request: Request<Incoming>| {
        // During shutdown an upgrade would only delay the end.
        let wants_upgrade = upgrade && request.headers().contains_key(UPGRADE);
        let frame = if wants_upgrade && !*stop.borrow() {
            h2c::accept(&request)
        } else {
            None
        };
        let answer = match frame {
            Some(frame) => {
                let upgraded = hyper::upgrade::on(&mut request);
                *pending_upgrade.lock() = Some((upgraded, frame));
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
        // The idle detector bounds request heads without a timer per request.
        .header_read_timeout(None)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .half_close(false);
    {
        let connection = pin!(
            builder
                .serve_connection(TokioIo::new(stream), hyper_service)
                .with_upgrades()
        );
        let opened = AtomicBool::new(true);
        drive(
            connection,
            http1::UpgradeableConnection::graceful_shutdown,
            AtIdle::Close,
            &activity,
            &opened,
            limits,
            stopping,
        )
        .await?;
    }

    let Some((upgraded, headers_frame)) = pending_upgrade.into_inner() else {
        return Ok(None);
    };
    let stream = reclaim_stream(upgraded, &activity).await?;
    Ok(Some((stream, headers_frame)))
}

/// Takes the stream back from hyper after a 101, with the bytes that hyper read behind the request.
async fn reclaim_stream<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    upgraded: OnUpgrade,
    activity: &Activity,
) -> Result<BoundedStream<I>, ConnectionError> {
    let upgraded = upgraded.await.map_err(|cause| activity.explain(cause))?;
    let parts = upgraded
        .downcast::<TokioIo<BoundedStream<I>>>()
        .map_err(|_| {
            let cause = io::Error::other("the upgraded connection is not the one that was served");
            ConnectionError::Socket(cause)
        })?;
    let mut stream = parts.io.into_inner();
    stream.unread = parts.read_buf;
    Ok(stream)
}

fn switching_protocols<B: Body>() -> Response<TrackedBody<B>> {
    let mut response = Response::new(TrackedBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    response
}
