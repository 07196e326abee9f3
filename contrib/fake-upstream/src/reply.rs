//! The answer to a request as a list of steps: first the true answer, then the fault's changes. Pure.
//!
//! `http1` and `http2` send the steps on a connection.

use std::io::Write as _;

use bytes::Bytes;

use crate::fault::Fault;
use crate::package::sha256;
use crate::state::{File, Lifetime, Request, State};

/// The reaction to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Reply),
    /// Nothing until the client disconnects.
    Silence,
    /// A reset of the connection (or stream).
    Reset,
    /// An orderly end of the connection without an answer.
    HangUp,
}

/// A head, and the steps of its body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Without the headers of the framing.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) framing: Framing,
    pub(crate) steps: Vec<Step>,
}

/// The framing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The status has no body.
    Bodiless,
    /// `Content-Length`, true or not.
    Length(u64),
    /// HTTP/1: chunked. HTTP/2: no length.
    Chunked,
    /// HTTP/1: the end of the connection. HTTP/2: no length.
    UntilClose,
}

/// One step of sending a body. After the last step the body ends as its framing says.
#[derive(Debug)]
pub(crate) enum Step {
    Data(Bytes),
    Drip {
        bytes: Bytes,
        bytes_per_second: u32,
    },
    /// These bytes repeatedly, without end.
    Forever(Bytes),
    /// Nothing until the client disconnects.
    Silence,
    /// The connection (or stream) breaks here.
    Cut,
}

const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Welcome aboard</title></head><body>Log in to use the network.</body></html>\n";

/// The answer to this request with this fault.
pub(crate) fn answer(state: &State, request: &Request, fault: Option<Fault>) -> Answer {
    let Some(fault) = fault else {
        return Answer::Reply(truth(state, request));
    };
    // A fault of the body needs a body, so the client's validator counts only for a delayed answer.
    let reply = if matches!(fault, Fault::StallFor(_)) {
        truth(state, request)
    } else {
        truth(state, &without_validator(request))
    };
    let body = reply.body();
    Answer::Reply(match fault {
        Fault::Refuse => return Answer::Reset,
        Fault::DropAfterAccept => return Answer::HangUp,
        Fault::Stall => return Answer::Silence,
        Fault::StallFor(_) => reply,
        Fault::Status(status) => told_status(status),
        Fault::StatusWithBody(status, body) => Reply::text(status, body),
        Fault::RetryAfter(status, value) => told(status, "retry-after", value),
        Fault::StatusWithHeader(status, name, value) => told(status, name, value),
        Fault::StallBodyAfter(count) => {
            reply.with_steps([Step::Data(part(&body, count)), Step::Silence])
        }
        Fault::Drip { bytes_per_second } => reply.with_steps([Step::Drip {
            bytes: body,
            bytes_per_second,
        }]),
        Fault::CutAfter(count) => reply.with_steps([Step::Data(part(&body, count)), Step::Cut]),
        Fault::CutChunked(count) => reply
            .with_framing(Framing::Chunked)
            .with_steps([Step::Data(part(&body, count)), Step::Cut]),
        Fault::CutUnframed(count) => reply
            .with_framing(Framing::UntilClose)
            .with_steps([Step::Data(part(&body, count))]),
        Fault::WrongLength => {
            // An empty body cannot be announced shorter, so it is announced longer.
            let length = (body.len() as u64).checked_sub(1).unwrap_or(1);
            reply.with_framing(Framing::Length(length))
        }
        Fault::FlipByte(at) => reply.with_steps([Step::Data(flipped(&body, at))]),
        Fault::LoginPage => {
            let mut reply = Reply::text(200, LOGIN_PAGE.to_owned());
            reply.headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
            reply
        }
        Fault::Empty => Reply::text(200, String::new()),
        Fault::Endless => reply.endless(vec![Step::Forever(filler(body))]),
        Fault::EndlessZip => {
            let (head, block) = zeros_as_gzip();
            reply
                .with_header("content-encoding", "gzip".to_owned())
                .endless(vec![Step::Data(head), Step::Forever(block)])
        }
        Fault::Gzip => {
            let packed = gzip(&body);
            reply
                .with_header("content-encoding", "gzip".to_owned())
                .with_framing(Framing::Length(packed.len() as u64))
                .with_steps([Step::Data(packed)])
        }
        Fault::Redirect(location) => Reply::redirect(location),
        Fault::RedirectLoop => Reply::redirect(request.path.clone()),
        Fault::IgnoreValidator => reply,
        Fault::OtherTag => {
            let tag = format!("\"{}\"", state.requests().len());
            let mut reply = reply;
            reply.headers.retain(|(name, _)| *name != "etag");
            reply.with_header("etag", tag)
        }
        Fault::NotModifiedWithoutValidator => Reply {
            status: 304,
            ..reply.with_framing(Framing::Bodiless).with_steps([])
        },
        // `Faults::take` returns the inner fault.
        Fault::OfRanges(_) => reply,
        Fault::NoLength => reply.with_framing(Framing::Chunked),
    })
}

/// This status and a short text.
fn told_status(status: u16) -> Reply {
    Reply::text(
        status,
        format!("the fake upstream was told to say {status}\n"),
    )
}

/// [`told_status`] with one more header.
fn told(status: u16, name: &'static str, value: String) -> Reply {
    told_status(status).with_header(name, value)
}

/// The answer without a fault.
fn truth(state: &State, request: &Request) -> Reply {
    if request.method != "GET" && request.method != "HEAD" {
        return Reply::text(405, "only GET and HEAD are known here\n".to_owned());
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let Some(file) = state.file(path).or_else(|| sidecar(state, path)) else {
        return Reply::text(404, format!("nothing at {path}\n"));
    };

    let mut headers = vec![("accept-ranges", "bytes".to_owned())];
    if state.settings.validators {
        headers.push(("etag", file.etag.clone()));
    }
    if let Some(seconds) = state.settings.max_age {
        headers.push((
            "cache-control",
            match file.lifetime {
                Lifetime::Short => format!("public,max-age={seconds}"),
                Lifetime::Immutable => "public,max-age=31536000,immutable".to_owned(),
            },
        ));
    }
    let held = request.header("if-none-match");
    let unchanged = held.is_some_and(|held| {
        held.split(',')
            .any(|tag| tag.trim() == file.etag || tag.trim() == "*")
    });
    if state.settings.validators && unchanged {
        return Reply {
            status: 304,
            headers,
            framing: Framing::Bodiless,
            steps: Vec::new(),
        };
    }

    headers.push(("content-type", file.content_type.clone()));
    let size = file.body.len();
    match wanted_range(request, &file) {
        Wanted::All => Reply::bytes(200, headers, file.body),
        Wanted::Part(start, end) => {
            headers.push(("content-range", format!("bytes {start}-{}/{size}", end - 1)));
            Reply::bytes(206, headers, file.body.slice(start..end))
        }
        Wanted::Beyond => {
            headers.push(("content-range", format!("bytes */{size}")));
            Reply::bytes(416, headers, Bytes::new())
        }
    }
}

/// `PATH.sha256` for every static file that has no such file of its own, in the format of `sha256sum`.
fn sidecar(state: &State, path: &str) -> Option<File> {
    let of = path.strip_suffix(".sha256")?;
    let file = state.file(of)?;
    let name = of.rsplit('/').next().unwrap_or(of);
    let text = format!("{}  {name}\n", sha256(&file.body));
    Some(File::new(text.into(), "text/plain", Lifetime::Short))
}

enum Wanted {
    All,
    /// From the first position up to the second, which is excluded.
    Part(usize, usize),
    Beyond,
}

/// Parses a single byte range. Any other `Range` requests the whole, as RFC 9110 14.2 allows.
fn wanted_range(request: &Request, file: &File) -> Wanted {
    let condition_holds = request
        .header("if-range")
        .is_none_or(|tag| tag == file.etag);
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="));
    let Some((from, to)) = range
        .filter(|_| condition_holds)
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    let size = file.body.len();
    let (start, end) = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to.saturating_add(1).min(size)),
        (Ok(from), Err(_)) if to.is_empty() => (from, size),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => (size.saturating_sub(last), size),
        _ => return Wanted::All,
    };
    if start < size {
        Wanted::Part(start, end)
    } else {
        Wanted::Beyond
    }
}

fn without_validator(request: &Request) -> Request {
    let mut request = request.clone();
    request.headers.remove("if-none-match");
    request.headers.remove("if-modified-since");
    request
}

/// At most `count` bytes, and never all.
fn part(body: &Bytes, count: u64) -> Bytes {
    let most = body.len().saturating_sub(1);
    body.slice(..usize::try_from(count).unwrap_or(most).min(most))
}

/// The same bytes but for the one at `at`, or the last one.
fn flipped(body: &Bytes, at: u64) -> Bytes {
    let mut bytes = body.to_vec();
    let last = bytes.len().saturating_sub(1);
    if let Some(byte) = bytes.get_mut(usize::try_from(at).unwrap_or(last).min(last)) {
        *byte = !*byte;
    }
    bytes.into()
}

/// Bytes to repeat without end.
fn filler(body: Bytes) -> Bytes {
    if body.is_empty() {
        Bytes::from_static(&[b'x'; 1024])
    } else {
        body
    }
}

fn gzip(body: &Bytes) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).expect("writing to memory succeeds");
    gzip.finish().expect("writing to memory succeeds").into()
}

/// The head of a gzip stream, and a block of deflate that can follow the head and itself any number of times.
fn zeros_as_gzip() -> (Bytes, Bytes) {
    const HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let zeros = vec![0; 8 << 20];
    let mut block = Vec::with_capacity(64 << 10);
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
    deflate
        .compress_vec(&zeros, &mut block, flate2::FlushCompress::Sync)
        .expect("deflate takes any bytes");
    (Bytes::from_static(HEAD), block.into())
}

impl Reply {
    fn with_steps(self, steps: impl Into<Vec<Step>>) -> Self {
        let steps = steps.into();
        Self { steps, ..self }
    }

    fn with_framing(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same head with status 200, and a body without end.
    fn endless(self, steps: Vec<Step>) -> Self {
        Self {
            status: 200,
            framing: Framing::Chunked,
            steps,
            ..self
        }
    }

    fn bytes(status: u16, headers: Vec<(&'static str, String)>, body: Bytes) -> Self {
        Self {
            status,
            headers,
            framing: Framing::Length(body.len() as u64),
            steps: vec![Step::Data(body)],
        }
    }

    fn text(status: u16, body: String) -> Self {
        Self::bytes(
            status,
            vec![("content-type", "text/plain".to_owned())],
            body.into(),
        )
    }

    fn redirect(location: String) -> Self {
        let mut reply = Self::text(302, String::new());
        reply.headers.push(("location", location));
        reply
    }

    fn body(&self) -> Bytes {
        match self.steps.first() {
            Some(Step::Data(bytes)) => bytes.clone(),
            _ => Bytes::new(),
        }
    }
}
