//! Answers as HTTP: the only place that picks statuses and headers. A status is chosen by what the client does with it;
//! the body's first line is what its user reads.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use tracing::info;

use crate::{
    cache::{Answer, Body, Outcome},
    error::Error,
    resource::{Audience, Freshness, Policy, Resource},
    upstream::FailureKind,
};

/// How long cargo shall wait before it asks again for something that trouble upstream keeps from it. Cargo's own pauses
/// add up to eleven seconds (cargo, `util/network/retry.rs`); three of these are enough to outlast a blip.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What a request asked for, without its body, which larder has no use for.
#[derive(Debug)]
pub(super) struct Asked(pub(super) Request<()>);

impl Asked {
    fn is_head(&self) -> bool {
        self.0.method() == Method::HEAD
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// Weak comparison of an entity tag with any of several tags, or `*` (RFC 9110, 13.1.2).
    fn has(&self, etag: &str) -> bool {
        let tags = self.0.headers().get_all(header::IF_NONE_MATCH).iter();
        tags.filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }
}

/// The answer to a request for something in the cache.
pub(super) fn answer(
    answer: Answer,
    policy: &Policy,
    asked: Asked,
    line: Line,
) -> Response<Outgoing> {
    let mut etag = [b'"'; 66];
    etag[1..65].copy_from_slice(&answer.sum.digits());
    let tag = std::str::from_utf8(&etag).unwrap_or_default();
    let len = answer.body.size();
    let is_held = asked.has(tag);
    let span = span(&asked, tag, len);
    let is_head = asked.is_head();

    // The table of the request's fields becomes that of the answer's: most of what a table costs is making one.
    let mut headers = asked.0.into_parts().0.headers;
    headers.clear();
    if let Ok(etag) = HeaderValue::from_bytes(&etag) {
        headers.insert(header::ETAG, etag);
    }
    let mut set = |name, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CACHE_CONTROL, cache_control(policy));
    set(CACHE_STATUS, cache_status(answer.outcome));
    let line = line.outcome(answer.outcome.as_str());
    let respond = |status: StatusCode, headers, body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    };

    if is_held {
        let status = StatusCode::NOT_MODIFIED;
        return respond(
            status,
            headers,
            Outgoing::empty(line.status(status.as_u16())),
        );
    }
    set(header::CONTENT_TYPE, policy.content_type);
    set(header::ACCEPT_RANGES, "bytes");
    let mut set_range = |text: String| {
        if let Ok(text) = HeaderValue::try_from(text) {
            headers.insert(header::CONTENT_RANGE, text);
        }
    };
    let (status, start, end) = match span {
        Span::Whole => (StatusCode::OK, 0, len),
        Span::Part { start, end, total } => {
            set_range(format!("bytes {start}-{}/{total}", end - 1));
            (StatusCode::PARTIAL_CONTENT, start, Some(end))
        }
        Span::Unsatisfiable { total } => {
            set_range(format!("bytes */{total}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0, Some(0))
        }
    };
    let line = line.status(status.as_u16());
    if is_head || end == Some(start) {
        if let Some(end) = end {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
        }
        return respond(status, headers, Outgoing::empty(line));
    }
    // Of a body that is sent, hyper tells the length.
    respond(
        status,
        headers,
        Outgoing::body(answer.body, start, end, line),
    )
}

/// A short text of our own.
pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    asked: &Asked,
    line: Line,
) -> Response<Outgoing> {
    let line = line.status(status.as_u16());
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if asked.is_head() {
        return response.map(|()| Outgoing::empty(line));
    }
    let len = body.len() as u64;
    response.map(|()| Outgoing::body(Body::Whole(body), 0, Some(len), line))
}

/// The answer to a request that could not be fulfilled.
pub(super) fn error(
    error: &Error,
    audience: Audience,
    asked: &Asked,
    line: Line,
) -> Response<Outgoing> {
    let status = match audience {
        Audience::Cargo => status_for_cargo(error),
        Audience::Rustup => status_for_rustup(error),
    };
    let body = Bytes::from(format!("{}\n", error.with_hint()));
    let line = line.outcome(outcome_of(error)).because(error.to_string());
    let mut response = text(status, "text/plain; charset=utf-8", body, asked, line);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// By what cargo does with a status (cargo, `handle_completed_downloads` in `sources/registry/http_remote.rs` and
/// `maybe_spurious` in `util/network/retry.rs`): 404, 410 and 451 mean that there is no such crate, 5xx and 429 are tried
/// again, anything else fails at once and shows the body.
fn status_for_cargo(error: &Error) -> StatusCode {
    match error {
        Error::Absent { .. } | Error::Unlisted { .. } => StatusCode::NOT_FOUND,
        // Asking again helps nothing: the user must act.
        Error::Offline { .. } => StatusCode::FAILED_DEPENDENCY,
        Error::Down { .. } | Error::Outdated { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Upstream { failure, .. } => match failure.kind {
            FailureKind::Denied { .. } => StatusCode::FORBIDDEN,
            FailureKind::Absent { .. } => StatusCode::NOT_FOUND,
            FailureKind::Redirected { .. } | FailureKind::TooLarge { .. } => {
                StatusCode::FAILED_DEPENDENCY
            }
            FailureKind::Unreachable { .. }
            | FailureKind::Silent { .. }
            | FailureKind::Broken { .. }
            | FailureKind::Status { .. }
            | FailureKind::Unrecognised { .. }
            | FailureKind::WrongHash { .. } => StatusCode::SERVICE_UNAVAILABLE,
        },
        Error::Timeout { .. } | Error::Store { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Abandoned { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// By what rustup does with a status (rustup, `dist/mod.rs`, `try_update_from_dist_`): any 4xx on a manifest means that
/// there is no such release, sends it back to older ones, and makes it panic on the undated nightly. 5xx is trouble.
fn status_for_rustup(error: &Error) -> StatusCode {
    match error {
        Error::Absent { .. } | Error::Unlisted { .. } => StatusCode::NOT_FOUND,
        Error::Offline { .. }
        | Error::Down { .. }
        | Error::Outdated { .. }
        | Error::Upstream { .. }
        | Error::Timeout { .. }
        | Error::Store { .. }
        | Error::Abandoned { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A shell script that says what went wrong: whoever pipes the answer into a shell must not run half of something else.
pub(super) fn script_error(error: &str, asked: &Asked, line: Line) -> Response<Outgoing> {
    let quoted = error.replace('\'', "'\\''");
    let body = Bytes::from(format!(
        "#!/bin/sh\nprintf '%s\\n' 'larder: {quoted}' >&2\nexit 1\n"
    ));
    let line = line.outcome("failed").because(error.to_owned());
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "text/x-shellscript",
        body,
        asked,
        line,
    )
}

fn outcome_of(error: &Error) -> &'static str {
    match error {
        Error::Absent { .. } | Error::Unlisted { .. } => "absent",
        Error::Offline { .. } => "missing-offline",
        Error::Down { .. } | Error::Outdated { .. } => "missing-down",
        Error::Upstream { .. }
        | Error::Timeout { .. }
        | Error::Store { .. }
        | Error::Abandoned { .. } => "failed",
    }
}

fn cache_control(policy: &Policy) -> &'static str {
    match policy.freshness {
        Freshness::Forever => "public, max-age=31536000, immutable",
        Freshness::For(_) | Freshness::AsUpstreamSays => "no-cache",
    }
}

fn cache_status(outcome: Outcome) -> &'static str {
    use crate::cache::StaleReason::{Down, Failed, Offline};
    match outcome {
        Outcome::Hit => "larder; hit",
        Outcome::Miss => "larder; fwd=miss",
        Outcome::Revalidated => "larder; fwd=stale",
        Outcome::Collapsed => "larder; fwd=miss; collapsed",
        Outcome::Stale(Offline) => "larder; hit; detail=stale-offline",
        Outcome::Stale(Down) => "larder; hit; detail=stale-down",
        Outcome::Stale(Failed) => "larder; fwd=stale; detail=stale-failed",
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Span {
    Whole,
    Part { start: u64, end: u64, total: u64 },
    Unsatisfiable { total: u64 },
}

/// The part of a body that a request wants (RFC 9110, 14). Several parts at once, or a body of unknown size, get the
/// whole, which is always allowed.
fn span(asked: &Asked, etag: &str, len: Option<u64>) -> Span {
    let (&Method::GET, Some(range), Some(total)) =
        (asked.0.method(), asked.header(header::RANGE), len)
    else {
        return Span::Whole;
    };
    // A date is no strong validator of ours.
    if asked
        .header(header::IF_RANGE)
        .is_some_and(|wanted| wanted != etag)
    {
        return Span::Whole;
    }
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Span::Whole;
    };
    let number = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(last)) if last >= start => (start, last.saturating_add(1).min(total)),
        (Some(start), None) if last.is_empty() => (start, total),
        (None, Some(suffix)) if first.is_empty() => (total.saturating_sub(suffix), total),
        (Some(_) | None, Some(_) | None) => return Span::Whole,
    };
    if start >= end {
        Span::Unsatisfiable { total }
    } else {
        Span::Part { start, end, total }
    }
}

/// The line that the log gets when a request is over.
#[derive(Debug)]
pub(super) struct Line {
    what: What,
    outcome: &'static str,
    status: u16,
    began: Instant,
    error: Option<String>,
}

/// What a request asked for, to be named when it is over.
#[derive(Debug)]
pub(super) enum What {
    Resource(Resource),
    Path(String),
}

impl From<&Resource> for What {
    fn from(resource: &Resource) -> Self {
        Self::Resource(resource.clone())
    }
}

impl From<String> for What {
    fn from(path: String) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => resource.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl Line {
    pub(super) fn new(what: impl Into<What>) -> Self {
        Self {
            what: what.into(),
            outcome: "own",
            status: 0,
            began: Instant::now(),
            error: None,
        }
    }

    fn outcome(self, outcome: &'static str) -> Self {
        Self { outcome, ..self }
    }

    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) fn because(self, error: String) -> Self {
        Self {
            error: Some(error),
            ..self
        }
    }

    fn write(&self, bytes: u64) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (resource, outcome, status) = (&self.what, self.outcome, self.status);
        match &self.error {
            None => info!(%resource, outcome, status, bytes, ms),
            Some(error) => info!(%resource, outcome, status, bytes, ms, error),
        }
    }
}

/// A body on its way to a client; logs when it is over, however it ends.
pub(super) struct Outgoing {
    pieces: Option<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>>,
    whole: Option<Bytes>,
    left: Option<u64>,
    sent: u64,
    /// Why it is about to break off.
    broken: Option<io::Error>,
    line: Line,
}

impl Outgoing {
    fn empty(line: Line) -> Self {
        Self {
            pieces: None,
            whole: None,
            left: Some(0),
            sent: 0,
            broken: None,
            line,
        }
    }

    fn body(body: Body, start: u64, end: Option<u64>, line: Line) -> Self {
        let left = end.map(|end| end - start);
        if let (Body::Whole(bytes), Some(end)) = (&body, end)
            && let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end))
        {
            return Self {
                pieces: None,
                whole: Some(bytes.slice(from..to)),
                left,
                sent: 0,
                broken: None,
                line,
            };
        }
        let end = end.unwrap_or(u64::MAX);
        let pieces = stream::unfold((body, start), move |(mut body, at)| async move {
            let piece = body.piece(at, end).await.transpose()?;
            let next = piece
                .as_ref()
                .map_or(u64::MAX, |piece| at + piece.len() as u64);
            Some((piece, (body, next)))
        });
        Self {
            pieces: Some(Box::pin(pieces)),
            whole: None,
            left,
            sent: 0,
            broken: None,
            line,
        }
    }
}

impl Outgoing {
    /// Breaks off, one turn later: by then the head, at least, has left. A connection that is closed without a byte of an
    /// answer is the one failure that cargo does not try again (cargo, `maybe_spurious` in `util/network/retry.rs`).
    fn break_off<T>(&mut self, error: io::Error, why: String, cx: &Context<'_>) -> Poll<T> {
        self.line.outcome = "aborted";
        self.line.error = Some(why);
        self.pieces = None;
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let piece = match (self.whole.take(), &mut self.pieces) {
            (Some(whole), _) => Some(Ok(whole)),
            (None, Some(pieces)) => match pieces.as_mut().poll_next(cx) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
            (None, None) => None,
        };
        match piece {
            Some(Ok(piece)) => {
                let len = piece.len() as u64;
                self.sent += len;
                self.left = self.left.map(|left| left.saturating_sub(len));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(error)) => {
                let why = error.to_string();
                self.break_off(error, why, cx)
            }
            // The end came before the size that was promised: it must not look like a clean one.
            None if self.left.is_some_and(|left| left > 0) && self.line.error.is_none() => {
                let why = "the body is shorter than promised".to_owned();
                self.break_off(io::ErrorKind::UnexpectedEof.into(), why, cx)
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.line.write(self.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(HeaderName, &str)]) -> Asked {
        let mut request = Request::new(());
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().append(name, value);
        }
        Asked(request)
    }

    fn ranged(range: &str, if_range: Option<&str>) -> Asked {
        let mut fields = vec![(header::RANGE, range)];
        fields.extend(if_range.map(|tag| (header::IF_RANGE, tag)));
        asked(&fields)
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let check = |range: &str, expected: Span| {
            assert_eq!(
                span(&ranged(range, None), "e", Some(10)),
                expected,
                "{range}"
            )
        };
        let part = |start, end| Span::Part {
            start,
            end,
            total: 10,
        };
        check("bytes=0-", part(0, 10));
        check("bytes=3-", part(3, 10));
        check("bytes=3-4", part(3, 5));
        check("bytes=3-99", part(3, 10));
        check("bytes=-4", part(6, 10));
        check("bytes=-99", part(0, 10));
        check("bytes=10-", Span::Unsatisfiable { total: 10 });
        check("bytes=-0", Span::Unsatisfiable { total: 10 });
        check("bytes=5-3", Span::Whole);
        check("bytes=0-1,3-4", Span::Whole);
        check("lines=0-1", Span::Whole);
        check("bytes=+1-2", Span::Whole);
        check("bytes=-", Span::Whole);
        assert_eq!(
            span(&ranged("bytes=3-", Some("e")), "e", Some(10)),
            part(3, 10)
        );
        assert_eq!(
            span(&ranged("bytes=3-", Some("old")), "e", Some(10)),
            Span::Whole
        );
        assert_eq!(span(&ranged("bytes=3-", None), "e", None), Span::Whole);
    }

    #[test]
    fn t8_validators_are_compared_by_the_weak_rule() {
        let matches = |value| asked(&[(header::IF_NONE_MATCH, value)]).has("\"x\"");
        assert!(matches("\"x\""));
        assert!(matches("W/\"x\""));
        assert!(matches("\"a\", W/\"b\" ,\"x\""));
        assert!(matches("*"));
        assert!(!matches("\"y\""));
        assert!(!matches("x"));
    }

    #[test]
    fn t48_rustup_is_told_of_trouble_and_of_absence_only_by_upstreams_own_word() {
        let resource = String::new;
        assert_eq!(
            status_for_rustup(&Error::Offline {
                resource: resource()
            }),
            503
        );
        assert_eq!(
            status_for_rustup(&Error::Absent {
                resource: resource()
            }),
            404
        );
        let url = url::Url::parse("https://a.example/").unwrap();
        let failure = FailureKind::Denied { code: 403 }.at(&url);
        assert_eq!(
            status_for_rustup(&Error::Upstream {
                resource: resource(),
                failure,
                tried: 1
            }),
            503
        );
    }

    #[test]
    fn t15_only_upstreams_own_word_is_a_404() {
        let resource = String::new;
        let upstream = |failure| Error::Upstream {
            resource: resource(),
            failure,
            tried: 1,
        };
        let url = || url::Url::parse("https://a.example/").unwrap();
        assert_eq!(
            status_for_cargo(&Error::Absent {
                resource: resource()
            }),
            404
        );
        assert_eq!(
            status_for_cargo(&Error::Offline {
                resource: resource()
            }),
            424
        );
        assert_eq!(
            status_for_cargo(&upstream(FailureKind::Denied { code: 401 }.at(&url()))),
            403
        );
        assert_eq!(
            status_for_cargo(&upstream(
                FailureKind::Status {
                    code: 500,
                    retry_after: None
                }
                .at(&url())
            )),
            503
        );
        assert_eq!(
            status_for_cargo(&upstream(
                FailureKind::Unreachable {
                    cause: String::new()
                }
                .at(&url())
            )),
            503
        );
    }
}
