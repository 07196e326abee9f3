//! Tells a client why its new connection is refused, in the protocol that it speaks.
//!
//! larder first reads the bytes that the client has sent by then. Closing a socket with unread bytes resets the
//! connection, and the reset can overtake the answer.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::connection::h2c::PREFACE;

/// Time that a refused client has to send its request, and again to close.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(250);
/// Bytes that are read from a refused client, at most.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// SETTINGS without settings, which must come first in HTTP/2.
const SETTINGS_FRAME: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// GOAWAY, of which no stream was answered, for ENHANCE_YOUR_CALM (RFC 9113, section 7).
const GOAWAY_PAYLOAD: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0xb];

/// Answers `reason` to the client and closes.
pub(super) async fn refuse(mut stream: TcpStream, reason: &str) {
    // A client that is gone needs no answer.
    drop(timeout(REFUSAL_TIMEOUT * 2, answer(&mut stream, reason)).await);
}

async fn answer(stream: &mut TcpStream, reason: &str) -> io::Result<()> {
    let mut request = vec![0; MAX_REQUEST_BYTES];
    let read = timeout(REFUSAL_TIMEOUT, stream.read(&mut request)).await;
    let received = &request[..read.unwrap_or(Ok(0))?];
    stream.write_all(&refusal(received, reason)).await?;
    stream.shutdown().await?;
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}

/// The answer to a client that has sent `received`.
fn refusal(received: &[u8], reason: &str) -> Vec<u8> {
    if received.starts_with(PREFACE) {
        let length = u8::try_from(GOAWAY_PAYLOAD.len() + reason.len()).unwrap_or(u8::MAX);
        let reason = &reason.as_bytes()[..usize::from(length) - GOAWAY_PAYLOAD.len()];
        let head = [0, 0, length, 7, 0, 0, 0, 0, 0];
        return [&SETTINGS_FRAME[..], &head, &GOAWAY_PAYLOAD, reason].concat();
    }
    let length = reason.len() + 1;
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{reason}\n"
    );
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_in_the_client_s_protocol() {
        let http1 = refusal(b"GET / HTTP/1.1\r\n", "full");
        let http1 = String::from_utf8(http1).unwrap();
        assert!(http1.starts_with("HTTP/1.1 503 "), "{http1}");
        assert!(
            http1.ends_with(
                "content-length: 5\r\nretry-after: 1\r\nconnection: close\r\n\r\nfull\n"
            )
        );
        let http2 = refusal(PREFACE, "full");
        assert_eq!(http2[..9], SETTINGS_FRAME);
        assert_eq!(http2[9..18], [0, 0, 12, 7, 0, 0, 0, 0, 0]);
        assert_eq!(http2[18..], *b"\0\0\0\0\0\0\0\x0bfull");
    }
}
