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
pub(super) struct RequestHead(pub(super) Request<()>);

impl RequestHead {
    fn is_head(&self) -> bool {
        self.0.method() == Method::HEAD
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// Weak comparison of an entity tag with any of several tags, or `*` (RFC 9110, 13.1.2).
    fn has_etag(&self, etag: &str) -> bool {
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
    head: RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let mut etag = [b'"'; 66];
    etag[1..65].copy_from_slice(&answer.sum.digits());
    let tag = std::str::from_utf8(&etag).unwrap_or_default();
    let len = answer.body.size();
    let is_unchanged = head.has_etag(tag);
    let range = byte_range(&head, tag, len);
    let is_head = head.is_head();

    // The table of the request's fields becomes that of the answer's: most of what a table costs is making one.
    let mut headers = head.0.into_parts().0.headers;
    headers.clear();
    if let Ok(etag) = HeaderValue::from_bytes(&etag) {
        headers.insert(header::ETAG, etag);
    }
    let mut set = |name, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CACHE_CONTROL, cache_control(policy));
    set(CACHE_STATUS, cache_status(answer.outcome));
    let log = log.outcome(answer.outcome.as_str());
    let respond = |status: StatusCode, headers, body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    };

    if is_unchanged {
        let status = StatusCode::NOT_MODIFIED;
        return respond(
            status,
            headers,
            ClientBody::empty(log.status(status.as_u16())),
        );
    }
    set(header::CONTENT_TYPE, policy.content_type);
    set(header::ACCEPT_RANGES, "bytes");
    let mut set_range = |text: String| {
        if let Ok(text) = HeaderValue::try_from(text) {
            headers.insert(header::CONTENT_RANGE, text);
        }
    };
    let (status, start, end) = match range {
        ByteRange::Whole => (StatusCode::OK, 0, len),
        ByteRange::Part { start, end, total } => {
            set_range(format!("bytes {start}-{}/{total}", end - 1));
            (StatusCode::PARTIAL_CONTENT, start, Some(end))
        }
        ByteRange::Unsatisfiable { total } => {
            set_range(format!("bytes */{total}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0, Some(0))
        }
    };
    let log = log.status(status.as_u16());
    if is_head || end == Some(start) {
        if let Some(end) = end {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
        }
        return respond(status, headers, ClientBody::empty(log));
    }
    // Of a body that is sent, hyper tells the length.
    respond(
        status,
        headers,
        ClientBody::body(answer.body, start, end, log),
    )
}

/// A short text of our own.
pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let log = log.status(status.as_u16());
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
    if head.is_head() {
        return response.map(|()| ClientBody::empty(log));
    }
    let len = body.len() as u64;
    response.map(|()| ClientBody::body(Body::Whole(body), 0, Some(len), log))
}

/// The answer to a request that could not be fulfilled.
pub(super) fn error(
    error: &Error,
    audience: Audience,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let status = match audience {
        Audience::Cargo => status_for_cargo(error),
        Audience::Rustup => status_for_rustup(error),
    };
    let body = Bytes::from(format!("{}\n", error.with_hint()));
    let log = log.outcome(outcome_of(error)).error(error.to_string());
    let mut response = text(status, "text/plain; charset=utf-8", body, head, log);
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
pub(super) fn script_error(
    error: &str,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let quoted = error.replace('\'', "'\\''");
    let body = Bytes::from(format!(
        "#!/bin/sh\nprintf '%s\\n' 'larder: {quoted}' >&2\nexit 1\n"
    ));
    let log = log.outcome("failed").error(error.to_owned());
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "text/x-shellscript",
        body,
        head,
        log,
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
enum ByteRange {
    Whole,
    Part { start: u64, end: u64, total: u64 },
    Unsatisfiable { total: u64 },
}

/// The part of a body that a request wants (RFC 9110, 14). Several parts at once, or a body of unknown size, get the
/// whole, which is always allowed.
fn byte_range(head: &RequestHead, etag: &str, len: Option<u64>) -> ByteRange {
    let (&Method::GET, Some(range), Some(total)) =
        (head.0.method(), head.header(header::RANGE), len)
    else {
        return ByteRange::Whole;
    };
    // A date is no strong validator of ours.
    if head
        .header(header::IF_RANGE)
        .is_some_and(|wanted| wanted != etag)
    {
        return ByteRange::Whole;
    }
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return ByteRange::Whole;
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
        (Some(_) | None, Some(_) | None) => return ByteRange::Whole,
    };
    if start >= end {
        ByteRange::Unsatisfiable { total }
    } else {
        ByteRange::Part { start, end, total }
    }
}

/// The line that the log gets when a request is over.
#[derive(Debug)]
pub(super) struct AccessLog {
    subject: LogSubject,
    outcome: &'static str,
    status: u16,
    began: Instant,
    error: Option<String>,
}

/// What a request asked for, to be named when it is over.
#[derive(Debug)]
pub(super) enum LogSubject {
    Resource(Resource),
    Path(String),
}

impl From<&Resource> for LogSubject {
    fn from(resource: &Resource) -> Self {
        Self::Resource(resource.clone())
    }
}

impl From<String> for LogSubject {
    fn from(path: String) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for LogSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => resource.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl AccessLog {
    pub(super) fn new(subject: impl Into<LogSubject>) -> Self {
        Self {
            subject: subject.into(),
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

    pub(super) fn error(self, error: String) -> Self {
        Self {
            error: Some(error),
            ..self
        }
    }

    fn write(&self, bytes: u64) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (resource, outcome, status) = (&self.subject, self.outcome, self.status);
        match &self.error {
            None => info!(%resource, outcome, status, bytes, ms),
            Some(error) => info!(%resource, outcome, status, bytes, ms, error),
        }
    }
}

/// A body on its way to a client; logs when it is over, however it ends.
pub(super) struct ClientBody {
    chunks: Option<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>>,
    buffer: Option<Bytes>,
    remaining: Option<u64>,
    sent: u64,
    /// Why it is about to break off.
    pending_error: Option<io::Error>,
    log: AccessLog,
}

impl ClientBody {
    fn empty(log: AccessLog) -> Self {
        Self {
            chunks: None,
            buffer: None,
            remaining: Some(0),
            sent: 0,
            pending_error: None,
            log,
        }
    }

    fn body(body: Body, start: u64, end: Option<u64>, log: AccessLog) -> Self {
        let remaining = end.map(|end| end - start);
        if let (Body::Whole(bytes), Some(end)) = (&body, end)
            && let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end))
        {
            return Self {
                chunks: None,
                buffer: Some(bytes.slice(from..to)),
                remaining,
                sent: 0,
                pending_error: None,
                log,
            };
        }
        let end = end.unwrap_or(u64::MAX);
        let chunks = stream::unfold((body, start), move |(mut body, at)| async move {
            let chunk = body.piece(at, end).await.transpose()?;
            let next = chunk
                .as_ref()
                .map_or(u64::MAX, |chunk| at + chunk.len() as u64);
            Some((chunk, (body, next)))
        });
        Self {
            chunks: Some(Box::pin(chunks)),
            buffer: None,
            remaining,
            sent: 0,
            pending_error: None,
            log,
        }
    }
}

impl ClientBody {
    /// Breaks off, one turn later: by then the head, at least, has left. A connection that is closed without a byte of an
    /// answer is the one failure that cargo does not try again (cargo, `maybe_spurious` in `util/network/retry.rs`).
    fn abort<T>(&mut self, error: io::Error, reason: String, cx: &Context<'_>) -> Poll<T> {
        self.log.outcome = "aborted";
        self.log.error = Some(reason);
        self.chunks = None;
        self.pending_error = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl hyper::body::Body for ClientBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(error) = self.pending_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let chunk = match (self.buffer.take(), &mut self.chunks) {
            (Some(buffer), _) => Some(Ok(buffer)),
            (None, Some(chunks)) => match chunks.as_mut().poll_next(cx) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => return Poll::Pending,
            },
            (None, None) => None,
        };
        match chunk {
            Some(Ok(chunk)) => {
                let len = chunk.len() as u64;
                self.sent += len;
                self.remaining = self
                    .remaining
                    .map(|remaining| remaining.saturating_sub(len));
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Some(Err(error)) => {
                let reason = error.to_string();
                self.abort(error, reason, cx)
            }
            // The end came before the size that was promised: it must not look like a clean one.
            None if self.remaining.is_some_and(|remaining| remaining > 0)
                && self.log.error.is_none() =>
            {
                let reason = "the body is shorter than promised".to_owned();
                self.abort(io::ErrorKind::UnexpectedEof.into(), reason, cx)
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.log.write(self.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(HeaderName, &str)]) -> RequestHead {
        let mut request = Request::new(());
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().append(name, value);
        }
        RequestHead(request)
    }

    fn ranged(range: &str, if_range: Option<&str>) -> RequestHead {
        let mut fields = vec![(header::RANGE, range)];
        fields.extend(if_range.map(|tag| (header::IF_RANGE, tag)));
        request(&fields)
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let check = |range: &str, expected: ByteRange| {
            assert_eq!(
                byte_range(&ranged(range, None), "e", Some(10)),
                expected,
                "{range}"
            )
        };
        let part = |start, end| ByteRange::Part {
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
        check("bytes=10-", ByteRange::Unsatisfiable { total: 10 });
        check("bytes=-0", ByteRange::Unsatisfiable { total: 10 });
        check("bytes=5-3", ByteRange::Whole);
        check("bytes=0-1,3-4", ByteRange::Whole);
        check("lines=0-1", ByteRange::Whole);
        check("bytes=+1-2", ByteRange::Whole);
        check("bytes=-", ByteRange::Whole);
        assert_eq!(
            byte_range(&ranged("bytes=3-", Some("e")), "e", Some(10)),
            part(3, 10)
        );
        assert_eq!(
            byte_range(&ranged("bytes=3-", Some("old")), "e", Some(10)),
            ByteRange::Whole
        );
        assert_eq!(
            byte_range(&ranged("bytes=3-", None), "e", None),
            ByteRange::Whole
        );
    }

    #[test]
    fn t8_validators_are_compared_by_the_weak_rule() {
        let matches = |value| request(&[(header::IF_NONE_MATCH, value)]).has_etag("\"x\"");
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
