//! HTTP/2: answers every stream in a task of its own, and breaks it with `RST_STREAM` if a fault says so.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::body::{Ending, Gone, Sink, send_steps};
use crate::http1::add_header;
use crate::reply::{Answer, Framing, Reply};
use crate::state::{Request, State};

/// Concurrent streams per connection. About the value of crates.io's CDN, and enough for cargo's 100.
const STREAMS_PER_CONNECTION: u32 = 128;

/// Answers streams until the client disconnects or one of them ends the connection.
pub(crate) async fn serve<S>(state: Arc<State>, stream: S, connection_number: u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .handshake(stream)
        .await;
    let Ok(mut connection) = handshake else {
        return;
    };
    let hang_up = Arc::new(Notify::new());
    // Dropping the set with the connection cancels its streams.
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let request = recorded(&request, connection_number);
                    streams.spawn(answer(Arc::clone(&state), request, respond, Arc::clone(&hang_up)));
                }
                Some(Err(_)) | None => return,
            },
            () = hang_up.notified() => return,
            Some(_) = streams.join_next() => {}
        }
    }
}

fn recorded(request: &http::Request<h2::RecvStream>, connection: u64) -> Request {
    let mut headers = BTreeMap::new();
    if let Some(authority) = request.uri().authority() {
        headers.insert("host".to_owned(), authority.to_string());
    }
    for (name, value) in request.headers() {
        add_header(
            &mut headers,
            name.as_str().to_owned(),
            &String::from_utf8_lossy(value.as_bytes()),
        );
    }
    Request {
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
            .to_owned(),
        headers,
        version: "HTTP/2",
        connection,
        at: Instant::now(),
    }
}

async fn answer(
    state: Arc<State>,
    request: Request,
    mut respond: SendResponse<Bytes>,
    hang_up: Arc<Notify>,
) {
    let _in_flight = state.arrived(&request);
    let answer = tokio::select! {
        answer = state.answer(&request) => answer,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    match answer {
        Answer::Reply(reply) => {
            // A client that disconnected is no error.
            let _ = send(&state, &request, reply, respond).await;
        }
        Answer::Silence => {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
        }
        Answer::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Answer::HangUp => hang_up.notify_one(),
    }
}

async fn send(
    state: &State,
    request: &Request,
    reply: Reply,
    mut respond: SendResponse<Bytes>,
) -> Result<(), Gone> {
    let mut head = http::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        head = head.header(*name, value);
    }
    if let Framing::Length(length) = reply.framing {
        head = head.header("content-length", length);
    }
    let head = head.body(()).map_err(|_| Gone)?;
    let without_body = request.method == "HEAD" || reply.framing == Framing::Bodiless;
    let stream = respond
        .send_response(head, without_body)
        .map_err(|_| Gone)?;
    if without_body {
        return Ok(());
    }
    let mut body = Http2Body { stream };
    match send_steps(state, request.connection, reply.steps, &mut body).await? {
        Ending::Complete => body.stream.send_data(Bytes::new(), true).map_err(|_| Gone),
        Ending::Cut => {
            // A reset discards the stream's queued frames, so the connection needs a moment to write them first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            body.stream.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        Ending::Silence => {
            let _ = poll_fn(|cx| body.stream.poll_reset(cx)).await;
            Ok(())
        }
    }
}

struct Http2Body {
    stream: SendStream<Bytes>,
}

impl Sink for Http2Body {
    async fn send(&mut self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let granted = poll_fn(|cx| self.stream.poll_capacity(cx)).await;
            let Some(Ok(granted)) = granted else {
                return Err(Gone);
            };
            let now = bytes.split_to(granted.min(bytes.len()));
            self.stream.send_data(now, false).map_err(|_| Gone)?;
        }
        Ok(())
    }
}
