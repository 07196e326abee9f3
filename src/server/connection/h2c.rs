//! The `Upgrade: h2c` handshake: the rules for requests that may upgrade, and the byte stream that makes hyper answer
//! them.
//!
//! `http1` answers 101, `http2` serves the upgraded connection, `drive` has the deadlines.
//!
//! hyper serves HTTP/2 but does not support the upgrade. The request that asked for the upgrade must be answered on
//! stream 1 (RFC 7540, section 3.2). So hyper gets a byte stream in which the client seems to have sent that request
//! over HTTP/2: the client's own preface and SETTINGS, then one HEADERS frame made here, then the rest of the socket.
//! An invented preface would not do: h2 would acknowledge two SETTINGS frames where the client sent one, and the client
//! treats the second acknowledgement as a protocol error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;

/// The first bytes that a client sends on an HTTP/2 connection (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest header list accepted over HTTP/2, in bytes as RFC 9113, section 6.5.2, counts them.
///
/// Also the limit for upgrades. A list within the limit always fits into one HEADERS frame: the limit equals the
/// smallest frame size that a peer may ask for, and a list counts 32 bytes for each field where the encoding below adds
/// at most 7.
pub const MAX_HEADER_LIST: u32 = 16 * 1024;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that concern one connection and must not reach HTTP/2, where they make a request malformed.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    HTTP2_SETTINGS,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    TE,
];

const FRAME_HEAD: usize = 9;
const MAX_FRAME: usize = 16_384;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 0x1 | 0x4;

/// True if a request announces a body by a `Content-Length` other than 0 or by `Transfer-Encoding`.
///
/// Of both at once, hyper drops the length (RFC 9112, section 6.3), so this sees the `Transfer-Encoding`.
#[must_use]
pub fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|length| length != "0")
}

/// Listeners that accept `Upgrade: h2c`. A reverse proxy that forwards the upgrade would let clients bypass its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum H2c {
    /// On loopback addresses only.
    #[default]
    Loopback,
    /// Everywhere.
    On,
    /// Nowhere.
    Off,
}

impl H2c {
    pub(in crate::server) fn is_on(self, listener: &TcpListener) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Loopback => listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback()),
        }
    }
}

/// The HEADERS frame that stands for this request on stream 1, or `None` if it may not upgrade.
///
/// Only a body-less HTTP/1.1 GET in origin form upgrades, with one `Host`, `h2c` in `Upgrade`, both
/// `Upgrade` and `HTTP2-Settings` in `Connection`, and exactly one valid `HTTP2-Settings` (RFC 7540, section 3.2.1).
/// HEAD does not: `curl -I` stops reading at the 101. Everything else gets an ordinary answer over HTTP/1.1.
/// The frame carries no field that belongs to the connection, nor one that `Connection` names.
#[must_use]
pub fn accept<B>(request: &Request<B>) -> Option<Bytes> {
    let headers = request.headers();
    let nominated: Vec<&str> = tokens(headers, &CONNECTION)?;
    let lists = |name: &str| {
        nominated
            .iter()
            .any(|token| token.eq_ignore_ascii_case(name))
    };
    let may_upgrade = request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.uri().authority().is_none()
        && !announces_body(headers)
        && tokens(headers, &UPGRADE)?
            .iter()
            .any(|token| token.eq_ignore_ascii_case("h2c"))
        && lists("upgrade")
        && lists("http2-settings")
        && only(headers, &HTTP2_SETTINGS).is_some_and(is_settings_payload);
    if !may_upgrade {
        return None;
    }

    let authority = only(headers, &HOST)?;
    Authority::try_from(authority).ok()?;
    let path = request.uri().path_and_query()?.as_str();
    if !path.starts_with('/') {
        return None;
    }

    let mut block = HeaderBlock::new();
    block.push(b":method", b"GET");
    block.push(b":scheme", b"http");
    block.push(b":authority", authority);
    block.push(b":path", path.as_bytes());
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(name) && !lists(name.as_str()) {
            block.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    block.into_frame()
}

/// All comma-separated elements of a field, over all its lines; `None` if one is not text.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        all.extend(line.to_str().ok()?.split(',').map(str::trim));
    }
    Some(all)
}

/// The value of a field that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first.as_bytes())
}

/// True if a value is an encoded SETTINGS payload. Its content is not needed: the client repeats its settings in the
/// frame behind its preface, and they apply before anything is sent on stream 1.
fn is_settings_payload(value: &[u8]) -> bool {
    URL_SAFE_NO_PAD
        .decode(value)
        .is_ok_and(|payload| payload.len() % 6 == 0)
}

/// A header block under construction, after space for its frame head.
struct HeaderBlock {
    frame: BytesMut,
    list_size: usize,
}

impl HeaderBlock {
    fn new() -> Self {
        let mut frame = BytesMut::with_capacity(512);
        frame.put_bytes(0, FRAME_HEAD);
        Self {
            frame,
            list_size: 0,
        }
    }

    /// Adds a field as "literal without indexing, new name" (RFC 7541, section 6.2.2), which leaves the dynamic table
    /// unchanged.
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.list_size += name.len() + value.len() + 32;
        self.frame.put_u8(0);
        self.push_string(name);
        self.push_string(value);
    }

    /// A string without Huffman coding; its length as an integer with a prefix of 7 bits (RFC 7541, section 5.1).
    fn push_string(&mut self, string: &[u8]) {
        match u8::try_from(string.len()) {
            Ok(short) if short < 0x7f => self.frame.put_u8(short),
            Ok(_) | Err(_) => {
                self.frame.put_u8(0x7f);
                let mut rest = string.len() - 0x7f;
                while rest >= 0x80 {
                    self.frame.put_u8((rest & 0x7f) as u8 | 0x80);
                    rest >>= 7;
                }
                self.frame.put_u8(rest as u8);
            }
        }
        self.frame.put_slice(string);
    }

    fn into_frame(mut self) -> Option<Bytes> {
        if self.list_size > MAX_HEADER_LIST as usize {
            return None;
        }
        let length = u16::try_from(self.frame.len() - FRAME_HEAD).ok()?;
        let [high, low] = length.to_be_bytes();
        let head = [0, high, low, HEADERS, END_STREAM_AND_HEADERS, 0, 0, 0, 1];
        self.frame[..FRAME_HEAD].copy_from_slice(&head);
        Some(self.frame.freeze())
    }
}

/// A connection on which the client must open HTTP/2 properly before anything else is read.
///
/// Reading yields the client's preface and its SETTINGS frame, then `insert`, then whatever the connection yields.
/// Anything but a preface and a SETTINGS frame of ordinary size is an error as soon as a byte differs. Writing is
/// passed through from the start. There is no deadline here: `opened` turns true when the client has done its part.
#[derive(Debug)]
pub struct Opening<I> {
    io: I,
    phase: Phase,
    insert: Bytes,
    opened: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Phase {
    /// Bytes of the preface that have come.
    Preface(usize),
    /// The head of the first frame, and how much of it has come.
    FrameHead([u8; FRAME_HEAD], usize),
    /// Bytes of the first frame's payload that are still to come.
    Payload(usize),
    /// The client's part is done; the rest of the inserted frame comes next.
    Insert,
    /// Reads pass through.
    Through,
}

impl<I> Opening<I> {
    /// Checks the opening of `io`. `insert` is a frame from [`accept`], or empty for a client that spoke
    /// HTTP/2 from the start.
    pub fn new(io: I, insert: Bytes, opened: Arc<AtomicBool>) -> Self {
        Self {
            io,
            phase: Phase::Preface(0),
            insert,
            opened,
        }
    }

    /// Bytes missing from the present phase; 0 when the client's part is done.
    fn wanted(&self) -> usize {
        match self.phase {
            Phase::Preface(got) => PREFACE.len() - got,
            Phase::FrameHead(_, got) => FRAME_HEAD - got,
            Phase::Payload(left) => left,
            Phase::Insert | Phase::Through => 0,
        }
    }

    /// Checks bytes of the client, at most [`Self::wanted`], and advances the phase.
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.phase {
            Phase::Preface(got) => {
                if PREFACE[*got..*got + bytes.len()] != *bytes {
                    return Err(refusal("the client sent something else than its preface"));
                }
                *got += bytes.len();
                if *got == PREFACE.len() {
                    self.phase = Phase::FrameHead([0; FRAME_HEAD], 0);
                }
            }
            Phase::FrameHead(head, got) => {
                head[*got..*got + bytes.len()].copy_from_slice(bytes);
                *got += bytes.len();
                if *got == FRAME_HEAD {
                    let length = settings_length(*head)?;
                    self.phase = Phase::Payload(length);
                }
            }
            Phase::Payload(left) => *left -= bytes.len(),
            Phase::Insert | Phase::Through => {}
        }
        if let Phase::Payload(0) = self.phase {
            self.opened.store(true, Ordering::Relaxed);
            self.phase = if self.insert.is_empty() {
                Phase::Through
            } else {
                Phase::Insert
            };
        }
        Ok(())
    }
}

/// The payload length of a frame head that may come first: SETTINGS, no acknowledgement, on stream 0.
fn settings_length([l0, l1, l2, kind, flags, stream @ ..]: [u8; FRAME_HEAD]) -> io::Result<usize> {
    let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
    // The highest bit of the stream is reserved and to be ignored.
    let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
    if kind != SETTINGS || flags & ACK != 0 || stream != 0 {
        return Err(refusal("the client's first frame is not SETTINGS"));
    }
    if length > MAX_FRAME || !length.is_multiple_of(6) {
        return Err(refusal("the client's first frame has a wrong size"));
    }
    Ok(length)
}

fn refusal(cause: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("cannot open HTTP/2: {cause}"),
    )
}

impl<I: AsyncRead + Unpin> AsyncRead for Opening<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.phase {
            Phase::Through => Pin::new(&mut this.io).poll_read(cx, buf),
            Phase::Insert => {
                let size = this.insert.len().min(buf.remaining());
                buf.put_slice(&this.insert.split_to(size));
                if this.insert.is_empty() {
                    this.phase = Phase::Through;
                }
                Poll::Ready(Ok(()))
            }
            Phase::Preface(_) | Phase::FrameHead(..) | Phase::Payload(_) => {
                // Reads at most [`Self::wanted`] bytes, so that nothing behind the first frame is consumed here.
                let mut piece = [0; 256];
                let size = this.wanted().min(buf.remaining()).min(piece.len());
                let mut piece = ReadBuf::new(&mut piece[..size]);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut piece))?;
                this.check(piece.filled())?;
                buf.put_slice(piece.filled());
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Opening<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::http::request::Builder;
    use tokio::io::AsyncReadExt;

    const CARGO_SETTINGS: &str = "AAMAAABkAAQAAQAAAAIAAAAA";

    fn from_cargo() -> Builder {
        Request::get("/se/rd/serde?x=1")
            .header("host", "larder.example:3263")
            .header("user-agent", "cargo/1.95.0")
            .header("connection", "Upgrade, HTTP2-Settings")
            .header("upgrade", "h2c")
            .header("http2-settings", CARGO_SETTINGS)
    }

    /// Builds a request from `from_cargo` with one field replaced, or removed for an empty value.
    fn with(name: &'static str, value: &str) -> Request<()> {
        let mut request = from_cargo().body(()).unwrap();
        request.headers_mut().remove(name);
        if !value.is_empty() {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn request_of_cargo_becomes_one_headers_frame() {
        let frame = accept(&from_cargo().body(()).unwrap()).unwrap();

        let mut block = Vec::new();
        for (name, value) in [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "larder.example:3263"),
            (":path", "/se/rd/serde?x=1"),
            ("user-agent", "cargo/1.95.0"),
        ] {
            block.extend([0, name.len() as u8]);
            block.extend(name.bytes());
            block.push(value.len() as u8);
            block.extend(value.bytes());
        }
        assert_eq!(frame[..9], [0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
        assert_eq!(frame[9..], block);
    }

    #[test]
    fn long_strings_carry_their_length_in_several_bytes() {
        for (size, length) in [
            (126, vec![126]),
            (127, vec![127, 0]),
            (254, vec![127, 127]),
            (255, vec![127, 128, 1]),
            (
                10_000,
                vec![127, 0x80 | (9873 & 0x7f) as u8, (9873 >> 7) as u8],
            ),
        ] {
            let mut block = HeaderBlock::new();
            block.push_string(&vec![b'a'; size]);
            let encoded = &block.frame[FRAME_HEAD..];
            assert_eq!(encoded[..length.len()], length, "{size} bytes");
            assert_eq!(encoded.len(), length.len() + size);
        }
    }

    #[test]
    fn requests_outside_the_rules_do_not_upgrade() {
        #[track_caller]
        fn check(why: &str, request: Request<()>, upgrades: bool) {
            assert_eq!(accept(&request).is_some(), upgrades, "{why}");
        }
        check("as cargo sends it", from_cargo().body(()).unwrap(), true);
        check("post", from_cargo().method("POST").body(()).unwrap(), false);
        check("head", from_cargo().method("HEAD").body(()).unwrap(), false);
        let old = from_cargo().version(Version::HTTP_10);
        check("HTTP/1.0", old.body(()).unwrap(), false);
        let absolute = from_cargo().uri("http://larder.example/a");
        check("absolute form", absolute.body(()).unwrap(), false);
        check(
            "asterisk form",
            from_cargo().uri("*").body(()).unwrap(),
            false,
        );

        check("body with length", with("content-length", "5"), false);
        check("empty body", with("content-length", "0"), true);
        check("chunked body", with("transfer-encoding", "chunked"), false);

        check("no upgrade", with("upgrade", ""), false);
        check("websocket", with("upgrade", "websocket"), false);
        check("h2 means TLS", with("upgrade", "h2"), false);
        check("h2c among others", with("upgrade", "websocket, H2C"), true);

        check("no connection", with("connection", ""), false);
        check(
            "connection without settings",
            with("connection", "Upgrade"),
            false,
        );
        check(
            "connection without upgrade",
            with("connection", "HTTP2-Settings"),
            false,
        );
        check(
            "any case, any order",
            with("connection", "http2-settings , upgrade"),
            true,
        );
        let mut split = with("connection", "Upgrade");
        split
            .headers_mut()
            .append("connection", "HTTP2-Settings".parse().unwrap());
        check("two connection lines", split, true);

        check("no settings", with("http2-settings", ""), false);
        check(
            "not base64",
            with("http2-settings", "AAMAAABkAAQAAQAAAAIAAAA!"),
            false,
        );
        check(
            "wrong alphabet",
            with("http2-settings", "AAMAAABkAAQ+AQ/AAAIAAAAA"),
            false,
        );
        check(
            "padded",
            with("http2-settings", "AAMAAABkAAQAAQAAAAIAAAA="),
            false,
        );
        check(
            "not whole settings",
            with("http2-settings", "AAMAAABkAAQAAQAAAAIA"),
            false,
        );
        let twice = from_cargo().header("http2-settings", CARGO_SETTINGS);
        check("two settings", twice.body(()).unwrap(), false);

        check("no host", with("host", ""), false);
        check("host that is none", with("host", "a b"), false);
        let hosts = from_cargo().header("host", "other.example");
        check("two hosts", hosts.body(()).unwrap(), false);

        check(
            "large but within the list",
            with("x-large", &"a".repeat(15_000)),
            true,
        );
        check(
            "list too large",
            with("x-large", &"a".repeat(16_384)),
            false,
        );
    }

    #[test]
    fn connection_fields_are_not_forwarded() {
        let request = from_cargo()
            .header("connection", "X-Private")
            .header("x-private", "secret")
            .header("te", "trailers")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("accept", "text/plain");
        let frame = accept(&request.body(()).unwrap()).unwrap();
        let text = String::from_utf8_lossy(&frame);
        for gone in [
            "x-private",
            "te\u{8}",
            "keep-alive",
            "connection",
            "upgrade",
            "settings",
        ] {
            assert!(!text.contains(gone), "{gone} in {text:?}");
        }
        assert!(text.contains("accept\ntext/plain"));
    }

    /// Feeds these pieces to an opening, one per read. Returns its output, and whether it counted as opened.
    async fn read_all(pieces: &[&[u8]], insert: &'static [u8]) -> (io::Result<Vec<u8>>, bool) {
        let opened = Arc::new(AtomicBool::new(false));
        let io = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        let mut opening = Opening::new(io, Bytes::from_static(insert), Arc::clone(&opened));
        let mut out = Vec::new();
        let read = opening.read_to_end(&mut out).await.map(|_| out);
        (read, opened.load(Ordering::Relaxed))
    }

    /// A reader that yields one piece for each read.
    struct Pieces(Vec<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.0.retain(|piece| !piece.is_empty());
            if let Some(piece) = self.0.first_mut() {
                let size = piece.len().min(buf.remaining());
                buf.put_slice(&piece.drain(..size).collect::<Vec<_>>());
            }
            Poll::Ready(Ok(()))
        }
    }

    const FIRST: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

    #[tokio::test]
    async fn frame_is_inserted_behind_the_first_frame_however_the_bytes_arrive() {
        let all = [PREFACE, FIRST, b"rest"].concat();
        let expected = [PREFACE, FIRST, b"<inserted>", b"rest"].concat();

        let singles: Vec<&[u8]> = all.chunks(1).collect();
        for pieces in [vec![&all[..]], singles, all.chunks(7).collect()] {
            let (read, opened) = read_all(&pieces, b"<inserted>").await;
            assert_eq!(read.unwrap(), expected);
            assert!(opened);
        }
        let (read, _) = read_all(&[&all], b"").await;
        assert_eq!(read.unwrap(), all);
    }

    #[tokio::test]
    async fn wrong_prefaces_are_refused_at_once() {
        for (wrong, bytes) in [
            ("no preface", &b"GET / HTTP/1.1\r\n"[..]),
            ("preface with one wrong byte", b"PRI * HTTP/2.0\r\n\r\nSX"),
            (
                "HEADERS first",
                &[PREFACE, &b"\0\0\x06\x01\0\0\0\0\0"[..]].concat(),
            ),
            (
                "acknowledgement first",
                &[PREFACE, &b"\0\0\0\x04\x01\0\0\0\0"[..]].concat(),
            ),
            (
                "SETTINGS of a stream",
                &[PREFACE, &b"\0\0\x06\x04\0\0\0\0\x01"[..]].concat(),
            ),
            (
                "larger than a frame",
                &[PREFACE, &b"\0\x40\x02\x04\0\0\0\0\0"[..]].concat(),
            ),
            (
                "not whole settings",
                &[PREFACE, &b"\0\0\x05\x04\0\0\0\0\0"[..]].concat(),
            ),
        ] {
            let (read, opened) = read_all(&[bytes], b"<inserted>").await;
            assert_eq!(
                read.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{wrong}"
            );
            assert!(!opened, "{wrong}");
        }
    }

    #[tokio::test]
    async fn nothing_is_inserted_for_a_client_that_leaves_early() {
        let all = [PREFACE, FIRST].concat();
        for end in 0..all.len() {
            let (read, opened) = read_all(&[&all[..end]], b"<inserted>").await;
            assert_eq!(read.unwrap(), &all[..end]);
            assert!(!opened);
        }
    }
}
