//! Serves HTTP/1.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::activity::{RequestGuard, TrackedBody};
use super::drive::{AtIdle, drive};
use super::h2c;
use super::limits::{ConnectionError, Limits};
use super::sniff::Protocol;
use super::stream::BoundedStream;

/// Read buffer, and bound of what is buffered for writing, of an HTTP/1 connection. It bounds a request head; hyper's
/// default of 400 kB would let a few hundred clients fill the memory with half heads.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// Serves HTTP/1. When the client switched to HTTP/2, gives back the connection and the HEADERS frame that stands for
/// the request to be answered there.
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
    let switch: Mutex<Option<(OnUpgrade, Bytes)>> = Mutex::new(None);
    let stop = stopping.clone();
    let answer = service_fn(|mut request: Request<Incoming>| {
        // Once stopping, a switch would only be the longer way to the end.
        let asks = upgrade && request.headers().contains_key(UPGRADE);
        let frame = if asks && !*stop.borrow() {
            h2c::accept(&request)
        } else {
            None
        };
        let answer = match frame {
            Some(frame) => {
                let switched = hyper::upgrade::on(&mut request);
                *switch.lock().unwrap_or_else(PoisonError::into_inner) = Some((switched, frame));
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
        .header_read_timeout(None)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .half_close(false);
    {
        let connection = pin!(
            builder
                .serve_connection(TokioIo::new(stream), answer)
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

    let Some((switched, frame)) = switch.into_inner().unwrap_or_else(PoisonError::into_inner)
    else {
        return Ok(None);
    };
    let upgraded = switched.await.map_err(|cause| activity.explain(cause))?;
    let parts = upgraded
        .downcast::<TokioIo<BoundedStream<I>>>()
        .map_err(|_| {
            let cause = io::Error::other("the upgraded connection is not the one that was served");
            ConnectionError::Socket(cause)
        })?;
    let mut stream = parts.io.into_inner();
    stream.unread = parts.read_buf;
    Ok(Some((stream, frame)))
}

fn switching_protocols<B>() -> Response<TrackedBody<B>> {
    let mut response = Response::new(TrackedBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    response
}
