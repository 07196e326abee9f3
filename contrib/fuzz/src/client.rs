//! Fuzz targets for the bytes that clients send.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use larder::resource::dist::{ArchiveFormat, Dist};
use larder::resource::{Key, Location, Registries, Resource, Upstreams};
use larder::server::connection::h2c::{MAX_HEADER_LIST, Opening, PREFACE, accept};
use larder::server::connection::{Limits, serve};
use larder::server::guard::{self, Hosts};
use larder::server::route::{Route, route};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use url::Url;

use crate::{halves, text};

static UPSTREAMS: LazyLock<Upstreams> = LazyLock::new(|| {
    let url = |text| Url::parse(text).expect("a valid URL");
    let corp = ("corp".to_owned(), url("https://corp.example/index/"));
    Upstreams {
        advisories: None,
        registries: Registries::new(url("https://index.example/"), [corp]),
        dist: Dist::new(
            url("https://dist.example/"),
            url("https://dist.example/rustup/"),
            ArchiveFormat::Upstream,
        ),
    }
});

/// A request has a valid host or is refused, its path leads to a safe place in the store, and two paths share a place
/// only if they mean the same resource.
pub(crate) fn request(data: &[u8]) {
    let Some(data) = text(data) else { return };
    let mut lines = data.split('\n');
    let (one, other, host) = (lines.next(), lines.next(), lines.next());
    let [one, other] = [one, other].map(|path| place(path.unwrap_or_default()));
    if let (Some((key, name)), Some((other_key, other_name))) = (one, other)
        && key == other_key
    {
        // A sidecar is stored with its file, and a crate without hash is looked up in its index entry.
        assert_eq!(name, other_name, "both are stored as {key}");
    }
    check_host(host.unwrap_or_default());
}

/// The key that a path leads to, and the name of the resource that has it. Checks the key.
fn place(path: &str) -> Option<(Key, String)> {
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    let Ok(Route::Resource(mut resource)) = route(path, query, &UPSTREAMS) else {
        return None;
    };
    assert!(!resource.to_string().contains(['\n', '\r', '\0']));
    for _ in 0..4 {
        resource = match resource.location() {
            Location::Entry(key) => return Some((check_key(key), resource.to_string())),
            // Both halves have one name here.
            Location::Pair(key, _) => return Some((check_key(key.clone()), key.to_string())),
            Location::Blob(_) => return None,
            Location::ListedIn(listing) => listing,
        };
        check_listings(&resource);
    }
    panic!("{resource} is listed in a circle")
}

fn check_listings(resource: &Resource) {
    for listing in resource
        .listed()
        .map(|listed| listed.listings())
        .unwrap_or_default()
    {
        assert!(
            matches!(listing.location(), Location::Pair(..)),
            "{listing}"
        );
    }
}

/// Fails unless the key is a path that stays below its folder on every file system.
fn check_key(key: Key) -> Key {
    let path = key.as_str();
    assert!(path.len() <= 1200, "{path}");
    for segment in path.split('/') {
        let is_safe = !segment.is_empty() && !segment.starts_with('.') && segment.len() <= 255;
        let has_bad = segment.contains(|c: char| c.is_control() || c == '\\');
        assert!(is_safe && !has_bad, "{path:?}");
    }
    key
}

/// Fails if a host is accepted that could be more than a name and a port in `config.json`.
fn check_host(host: &str) {
    let hosts = Hosts::new(
        &[([0, 0, 0, 0], 3263).into()],
        &["larder.example".to_owned()],
    );
    let Ok(value) = HeaderValue::from_bytes(host.as_bytes()) else {
        return;
    };
    let mut request = Request::new(());
    request.headers_mut().insert("host", value);
    if let Ok(authority) = guard::check(&request, &hosts) {
        assert_eq!(authority, host);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        assert!(authority.bytes().all(is_plain), "{authority:?}");
        let url =
            Url::parse(&format!("http://{authority}/")).expect("an accepted host makes a URL");
        assert!(
            url.path() == "/" && url.username().is_empty(),
            "{authority:?}"
        );
    }
}

/// Builds a request from lines `name: value`. The first line is the target.
fn request_of(head: &[u8]) -> Option<Request<()>> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let target = text(lines.next()?)?;
    let mut request = Request::get(target).body(()).ok()?;
    for line in lines.take(64) {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// An upgrade makes one valid HEADERS frame without fields of the connection. The opening passes on what the client
/// sent with that frame after the first one, however the bytes arrive, or refuses it.
pub(crate) fn h2c(data: &[u8]) {
    let (head, bytes) = halves(data);
    let frame = request_of(head).and_then(|request| accept(&request));
    if let Some(frame) = &frame {
        check_frame(frame);
    }
    let insert = frame.unwrap_or_default();
    let one_piece = opened(bytes, &insert, usize::MAX);
    for piece in [1, 7] {
        assert_eq!(
            opened(bytes, &insert, piece),
            one_piece,
            "in pieces of {piece}"
        );
    }
    match one_piece {
        (Ok(read), true) => {
            let first = PREFACE.len() + 9 + usize::from(u16::from_be_bytes([bytes[25], bytes[26]]));
            let expected = [&bytes[..first], &insert, &bytes[first..]].concat();
            assert_eq!(read, expected);
            assert!(bytes.starts_with(PREFACE) && bytes[24] == 0 && bytes[27] == 4);
        }
        (Ok(read), false) => assert_eq!(read, bytes, "the client left early"),
        (Err(kind), is_open) => {
            assert_eq!(kind, ErrorKind::InvalidData);
            assert!(!is_open);
        }
    }
}

/// Fails unless this is one HEADERS frame on stream 1 whose block decodes to allowed fields.
fn check_frame(frame: &[u8]) {
    let (head, mut block) = frame.split_at(9);
    assert_eq!(
        head[..3],
        u32::try_from(block.len()).unwrap().to_be_bytes()[1..]
    );
    assert!(block.len() <= MAX_HEADER_LIST as usize);
    assert_eq!(head[3..], [1, 5, 0, 0, 0, 1]);
    let mut names = Vec::new();
    while let Some((0, rest)) = block.split_first().map(|(first, rest)| (*first, rest)) {
        let (name, rest) = string(rest);
        let (value, rest) = string(rest);
        assert!(!value.contains(&b'\n') && !value.contains(&0));
        names.push(name.to_vec());
        block = rest;
    }
    assert!(block.is_empty(), "a field that is not a literal");
    let pseudo: [&[u8]; 4] = [b":method", b":scheme", b":authority", b":path"];
    assert_eq!(names[..4], pseudo);
    for name in &names[4..] {
        let forbidden: [&[u8]; 6] = [
            b"connection",
            b"upgrade",
            b"http2-settings",
            b"host",
            b"transfer-encoding",
            b"te",
        ];
        assert!(
            !name.starts_with(b":") && !forbidden.contains(&&**name),
            "{name:?}"
        );
        assert!(!name.iter().any(u8::is_ascii_uppercase), "{name:?}");
    }
}

/// Reads a string literal without Huffman coding (RFC 7541, section 5.2).
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (first, mut rest) = bytes.split_first().expect("a length");
    let mut len = usize::from(*first);
    assert!(len < 0x80, "not Huffman coded");
    if len == 0x7f {
        let mut shift = 0;
        loop {
            let (next, others) = rest.split_first().expect("more of the length");
            len += usize::from(next & 0x7f) << shift;
            shift += 7;
            rest = others;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    rest.split_at(len)
}

/// The result of an opening for `bytes` in pieces of this size, and whether it counted as open.
fn opened(bytes: &[u8], insert: &[u8], piece: usize) -> (Result<Vec<u8>, ErrorKind>, bool) {
    let is_open = Arc::new(AtomicBool::new(false));
    let mut opening = Opening::new(
        Pieces { rest: bytes, piece },
        Bytes::copy_from_slice(insert),
        Arc::clone(&is_open),
    );
    let mut read = Vec::new();
    let end = RUNTIME.with(|runtime| runtime.block_on(opening.read_to_end(&mut read)));
    let read = end.map(|_| read).map_err(|error| error.kind());
    (read, is_open.load(Ordering::Relaxed))
}

/// A reader that yields at most so many bytes at once.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl tokio::io::AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let size = self.rest.len().min(buffer.remaining()).min(self.piece);
        let (now, later) = self.rest.split_at(size);
        buffer.put_slice(now);
        self.rest = later;
        std::task::Poll::Ready(Ok(()))
    }
}

thread_local! {
    /// The clock stands still while something can be done, and jumps when nothing can.
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
}

/// A connection ends after the client has, whatever it sent, and answers are HTTP.
pub(crate) fn connection(data: &[u8]) {
    RUNTIME.with(|runtime| runtime.block_on(exchange(data)));
}

async fn exchange(data: &[u8]) {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let (_stop, stopping) = watch::channel(false);
    let answer = |request: Request<Incoming>, _| async move {
        let hosts = Hosts::new(&[([127, 0, 0, 1], 1).into()], &[]);
        let status = match guard::check(&request, &hosts) {
            Ok(_) => StatusCode::OK,
            Err(refused) => refused.status,
        };
        let mut response = Response::new(Full::<Bytes>::from("larder\n"));
        *response.status_mut() = status;
        response
    };
    let limits = Limits::default();
    let serving = serve(server, answer, &limits, true, Arc::default(), stopping);
    let talking = async {
        // Fails if the server has closed.
        let _ = client.write_all(data).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
        answers
    };
    let both = async { tokio::join!(serving, talking) };
    let ended = tokio::time::timeout(Duration::from_secs(600), both).await;
    let (_, answers) = ended.expect("the connection ends");
    let is_http = answers.is_empty()
        || answers.starts_with(b"HTTP/1.")
        // The server's SETTINGS: a frame of at most 16 kB.
        || (answers.len() >= 9 && answers[0] == 0 && answers[3] == 4);
    assert!(is_http, "{answers:?}");
}
