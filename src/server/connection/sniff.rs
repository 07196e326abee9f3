//! Detects the protocol of a new connection from its first bytes.
//!
//! HTTP/2 with prior knowledge begins with a fixed preface of 24 bytes, with which no HTTP/1.1 request can begin (RFC
//! 9113, section 3.4). [`sniff`] reads until one byte decides, and returns the bytes to the stream to be read again.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::drive::stop_requested;
use super::h2c::PREFACE;
use super::limits::{ConnectionError, Limits};
use super::stream::BoundedStream;

/// The protocol of a request. In both forms of HTTP/2 the URI carries the authority and there is no `Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 on a connection that began with HTTP/1.1, including the request that asked for the upgrade.
    H2c,
    /// HTTP/2 from the first byte ("prior knowledge").
    Http2,
}

/// Reads as few bytes as possible to detect the protocol, and puts them back. `None` if the client disconnects, or
/// shutdown begins and [`Limits::drain`] passes, before the protocol is known.
pub(super) async fn sniff<I: AsyncRead + Unpin>(
    stream: &mut BoundedStream<I>,
    limits: &Limits,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<Protocol>, ConnectionError> {
    let mut first = BytesMut::with_capacity(1024);
    let mut deadline = Instant::now() + limits.first_bytes;
    let mut stop = false;
    let protocol = loop {
        tokio::select! {
            biased;
            read = stream.read_buf(&mut first) => match read {
                Ok(0) => return Ok(None),
                Ok(_) => if let Some(protocol) = protocol_of(&first) {
                    break protocol;
                },
                Err(cause) => return Err(ConnectionError::Socket(cause)),
            },
            () = sleep_until(deadline) => {
                return if stop { Ok(None) } else { Err(ConnectionError::RequestTimeout) };
            }
            () = stop_requested(stopping), if !stop => {
                stop = true;
                deadline = deadline.min(Instant::now() + limits.drain);
            }
        }
    };
    stream.unread = first.freeze();
    Ok(Some(protocol))
}

/// The protocol that begins with these bytes, or `None` while both are possible.
fn protocol_of(first: &[u8]) -> Option<Protocol> {
    let size = first.len().min(PREFACE.len());
    if first[..size] != PREFACE[..size] {
        Some(Protocol::Http1)
    } else if size == PREFACE.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deciding_byte_tells_the_protocol() {
        for size in 0..PREFACE.len() {
            assert_eq!(protocol_of(&PREFACE[..size]), None, "{size} bytes");
            let other = [&PREFACE[..size], b"?"].concat();
            assert_eq!(protocol_of(&other), Some(Protocol::Http1), "{size} bytes");
        }
        assert_eq!(protocol_of(PREFACE), Some(Protocol::Http2));
        let more = [&PREFACE[..], b"\0\0\0"].concat();
        assert_eq!(protocol_of(&more), Some(Protocol::Http2));
        assert_eq!(protocol_of(b"G"), Some(Protocol::Http1));
        assert_eq!(protocol_of(b"PRI * HTTP/1.1\r\n"), Some(Protocol::Http1));
    }
}
