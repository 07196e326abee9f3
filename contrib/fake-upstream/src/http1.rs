//! HTTP/1 written by hand. A library would refuse to send the wrong lengths and broken ends that faults need.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::body::{Ending, Gone, Sink, send_steps};
use crate::reply::{Answer, Framing, Reply};
use crate::state::{Request, State};

const MAX_HEAD: usize = 256 * 1024;

/// Answers requests until the client or an answer ends the connection.
pub(crate) async fn serve<S>(
    state: &State,
    mut stream: S,
    connection: u64,
    reset_at_end: &AtomicBool,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut unread = BytesMut::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut unread, connection).await {
        let _in_flight = state.arrived(&request);
        match state.answer(&request).await {
            Answer::Reply(reply) => match send(state, &mut stream, &request, reply).await {
                Ok(Then::NextRequest) => {}
                Ok(Then::Close) => {
                    // With TLS, `close_notify` says that nothing was cut off. An unframed body needs it to look
                    // complete.
                    let _ = stream.shutdown().await;
                    return;
                }
                Ok(Then::Break) | Err(Gone) => return,
                Ok(Then::Silence) => return until_client_leaves(&mut stream).await,
            },
            Answer::Silence => return until_client_leaves(&mut stream).await,
            Answer::Reset => return reset_at_end.store(true, Ordering::SeqCst),
            Answer::HangUp => return,
        }
    }
}

enum Then {
    NextRequest,
    Close,
    /// Close without `close_notify`.
    Break,
    Silence,
}

async fn send<S>(
    state: &State,
    stream: &mut S,
    request: &Request,
    reply: Reply,
) -> Result<Then, Gone>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let asked_to_close = request.version == "HTTP/1.0"
        || request
            .header("connection")
            .is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    let closes = asked_to_close || reply.framing == Framing::UntilClose;

    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    for (name, value) in &reply.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match reply.framing {
        Framing::Length(length) => {
            let _ = write!(head, "content-length: {length}\r\n");
        }
        Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framing::Bodiless | Framing::UntilClose => {}
    }
    if closes {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");

    let mut sink = Http1Body {
        stream,
        // Sent with the first chunk, so that a small answer is one packet.
        head: head.into_bytes(),
        chunked: reply.framing == Framing::Chunked,
        sent: 0,
    };
    if request.method == "HEAD" {
        sink.flush().await?;
        return Ok(if closes {
            Then::Close
        } else {
            Then::NextRequest
        });
    }
    let ending = send_steps(state, request.connection, reply.steps, &mut sink).await?;
    sink.flush().await?;
    Ok(match ending {
        Ending::Cut => Then::Break,
        Ending::Silence => Then::Silence,
        Ending::Complete => {
            if sink.chunked {
                sink.write(b"0\r\n\r\n").await?;
            }
            // After a false length the two sides disagree about the start of the next answer.
            let is_framed_correctly = match reply.framing {
                Framing::Length(length) => length == sink.sent,
                Framing::Bodiless | Framing::Chunked | Framing::UntilClose => true,
            };
            if closes || !is_framed_correctly {
                Then::Close
            } else {
                Then::NextRequest
            }
        }
    })
}

struct Http1Body<'a, S> {
    stream: &'a mut S,
    head: Vec<u8>,
    chunked: bool,
    sent: u64,
}

impl<S: AsyncWrite + Unpin + Send> Http1Body<'_, S> {
    async fn flush(&mut self) -> Result<(), Gone> {
        self.write(&[]).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let mut all = std::mem::take(&mut self.head);
        all.extend_from_slice(bytes);
        self.stream.write_all(&all).await.map_err(|_| Gone)?;
        self.stream.flush().await.map_err(|_| Gone)
    }
}

impl<S: AsyncWrite + Unpin + Send> Sink for Http1Body<'_, S> {
    async fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.sent += bytes.len() as u64;
        if self.chunked {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend_from_slice(&bytes);
            chunk.extend_from_slice(b"\r\n");
            self.write(&chunk).await
        } else {
            self.write(&bytes).await
        }
    }
}

/// `None` if the client closed the connection between requests. Reads and drops a request body.
async fn read_request<S>(
    stream: &mut S,
    unread: &mut BytesMut,
    connection: u64,
) -> io::Result<Option<Request>>
where
    S: AsyncRead + Unpin,
{
    let head = loop {
        if let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = unread.split_to(end);
            unread.advance(4);
            break head;
        }
        if unread.len() > MAX_HEAD || stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let Some(request) = parse_head(&String::from_utf8_lossy(&head), connection) else {
        return Ok(None);
    };
    let body = request
        .header("content-length")
        .and_then(|length| length.parse().ok());
    let mut body_left: usize = body.unwrap_or(0);
    while body_left > 0 {
        if unread.is_empty() && stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
        let skipped = body_left.min(unread.len());
        unread.advance(skipped);
        body_left -= skipped;
    }
    Ok(Some(request))
}

fn parse_head(head: &str, connection: u64) -> Option<Request> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    let version = match version {
        "HTTP/1.1" => "HTTP/1.1",
        "HTTP/1.0" => "HTTP/1.0",
        _ => return None,
    };
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        add_header(&mut headers, name.to_ascii_lowercase(), value.trim());
    }
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
        version,
        connection,
        at: Instant::now(),
    })
}

/// Joins the values of a repeated header.
pub(crate) fn add_header(headers: &mut BTreeMap<String, String>, name: String, value: &str) {
    headers
        .entry(name)
        .and_modify(|values| {
            values.push_str(", ");
            values.push_str(value);
        })
        .or_insert_with(|| value.to_owned());
}

async fn until_client_leaves<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut ignored = [0; 1024];
    while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}
