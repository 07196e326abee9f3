//! Makes responses: the only place that picks the status of a cache error, and the headers of all responses.
//!
//! A status is chosen by the client's reaction to it:
//!
//! ```text
//!                 cargo                                   rustup
//!   404           the crate does not exist                the release does not exist
//!   403, 424      fails at once and prints the body       the release does not exist, so never sent
//!   503           retries three times                     fails with an error
//! ```
//!
//! Either larder retries or cargo does: 503 is for what larder has not retried, as while a circuit breaker is open.
//!
//! A missing resource costs cargo three seconds at the beginning of an outage: three retries outlast a short
//! interruption. Once the outage has lasted [`OFFLINE_VIEW_AFTER`], cargo fails at once, as with `--offline`.
//!
//! Only upstream's own statement becomes a 404: "not found", or a listing without the resource. Users of cargo see the
//! first line of the body, so it says what to do. Malformed requests get their status from `guard` and `handlers`.
//! Every response from the cache carries a strong `ETag` and a `Cache-Status` (RFC 9211). A stored entry that is served
//! without asking upstream also has an `Age`: the seconds since upstream confirmed it.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use url::Url;

use super::{
    access_log::{AccessLog, RequestOutcome},
    answer_memory::AnswerMemory,
    body::ClientBody,
    request::{ByteRange, RequestHead, byte_range},
};
use crate::{
    cache::{Answer, OFFLINE_VIEW_AFTER, Outcome},
    error::Error,
    page::CONTENT_SECURITY_POLICY,
    resource::{Audience, Freshness, Policy},
    upstream::FailureKind,
};

/// Seconds until cargo's next try after a failure upstream. Cargo's own delays add up to eleven seconds
/// (docs/client-behaviour.md, C-12). Three tries a second apart outlast a short interruption.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Type of answers for people.
pub(super) const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Field name of RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The response for a resource that the cache returned.
pub(super) fn answer(
    answer: Answer,
    policy: &Policy,
    head: RequestHead,
    memory: &AnswerMemory,
    log: AccessLog,
) -> Response<ClientBody> {
    let mut etag = [b'"'; 66];
    etag[1..65].copy_from_slice(&answer.sha256.digits());
    let tag = std::str::from_utf8(&etag).unwrap_or_default();
    let len = answer.body.size();
    let is_unchanged = head.has_etag(tag);
    let range = byte_range(&head, tag, len);
    let is_head = head.is_head();

    // Reuses the header map of the request: most of the cost of a map is its allocation.
    let mut headers = head.request.into_parts().0.headers;
    headers.clear();
    if let Ok(etag) = HeaderValue::from_bytes(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if let Some(age) = answer.age {
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    let mut set = |name, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    let (control, status) = cache_fields(&answer, policy);
    set(header::CACHE_CONTROL, control);
    set(CACHE_STATUS, status);
    let log = log.outcome(RequestOutcome::Answered(answer.outcome));
    let respond = |status: StatusCode, headers, body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    };

    if is_unchanged {
        let status = StatusCode::NOT_MODIFIED;
        return respond(status, headers, ClientBody::empty(log.status(status)));
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
    let log = log.status(status);
    if is_head || end == Some(start) {
        if let Some(end) = end {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
        }
        return respond(status, headers, ClientBody::empty(log));
    }
    // hyper sets `Content-Length` from the size hint of the body.
    respond(
        status,
        headers,
        ClientBody::body(answer.body, start, end, memory, log),
    )
}

/// A short response that larder generates.
pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let log = log.status(status);
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
    response.map(|()| ClientBody::whole(body, log))
}

/// The start page as HTML.
pub(super) fn page(html: String, head: &RequestHead, log: AccessLog) -> Response<ClientBody> {
    let mut response = text(
        StatusCode::OK,
        "text/html; charset=utf-8",
        Bytes::from(html),
        head,
        log,
    );
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

/// A stream of server-sent events, which ends when the browser leaves the page or the server stops.
pub(super) fn events(
    events: impl Stream<Item = String> + Send + 'static,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let log = log.status(StatusCode::OK);
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if head.is_head() {
        return response.map(|()| ClientBody::empty(log));
    }
    response.map(|()| ClientBody::endless(events.map(Bytes::from), log))
}

/// The response for a resource that the cache could not return.
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
    let body = Bytes::from(format!("{}\n", error.for_client()));
    let log = log
        .outcome(outcome_of(error))
        .error(error.to_string(), error.cause());
    let mut response = text(status, PLAIN_TEXT, body, head, log);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// A redirect to upstream, for a resource that larder cannot serve because of `error`. Cargo and rustup follow it.
pub(super) fn redirect(
    url: &Url,
    error: &Error,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let body = Bytes::from(format!("{error}; ask {url}\n"));
    let log = log
        .outcome(RequestOutcome::Redirected)
        .error(error.to_string(), error.cause());
    let status = StatusCode::TEMPORARY_REDIRECT;
    let mut response = text(status, PLAIN_TEXT, body, head, log);
    if let Ok(location) = HeaderValue::from_str(url.as_str()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The status for cargo. To cargo, 404, 410 and 451 mean that the crate does not exist (`handle_completed_downloads` in
/// `sources/registry/http_remote.rs`). It retries after 5xx and 429 (`maybe_spurious` in `util/network/retry.rs`).
/// After any other status it fails at once and shows the body.
fn status_for_cargo(error: &Error) -> StatusCode {
    match error {
        Error::Absent { .. } | Error::Unlisted { .. } => StatusCode::NOT_FOUND,
        // Cargo fails at once and prints the reason.
        Error::Refused { .. } => StatusCode::FORBIDDEN,
        // A retry would not help: the user must act.
        Error::Offline { .. } => StatusCode::FAILED_DEPENDENCY,
        Error::Down { since, .. } if *since >= OFFLINE_VIEW_AFTER => StatusCode::FAILED_DEPENDENCY,
        Error::Down { .. } | Error::Outdated { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Upstream { failure, .. } => match failure.kind {
            FailureKind::Denied { .. } => StatusCode::FORBIDDEN,
            FailureKind::Absent { .. } => StatusCode::NOT_FOUND,
            FailureKind::Redirected { .. }
            | FailureKind::TooLarge { .. }
            | FailureKind::Unsupported { .. } => StatusCode::FAILED_DEPENDENCY,
            // larder has retried these. Four retries by cargo would each cost upstream as many requests again.
            FailureKind::Broken { .. }
            | FailureKind::Status { .. }
            | FailureKind::Unrecognised { .. }
            | FailureKind::WrongHash { .. } => StatusCode::FAILED_DEPENDENCY,
            // These open the circuit breaker, so cargo's retries reach upstream only after a probe has.
            FailureKind::Unreachable { .. } | FailureKind::Silent { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            // Memory comes back with the end of other transfers.
            FailureKind::NoMemory(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        Error::Timeout { .. } | Error::Store { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::Abandoned { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status for rustup. Any 4xx on a manifest means that the release does not exist: rustup tries older ones, and
/// panics on the undated nightly. 5xx is an error. (rustup, `dist/mod.rs`, `try_update_from_dist_`.)
fn status_for_rustup(error: &Error) -> StatusCode {
    match error {
        Error::Absent { .. } | Error::Unlisted { .. } => StatusCode::NOT_FOUND,
        Error::Offline { .. }
        | Error::Down { .. }
        | Error::Refused { .. }
        | Error::Outdated { .. }
        | Error::Upstream { .. }
        | Error::Timeout { .. }
        | Error::Store { .. }
        | Error::Abandoned { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A shell script that prints the error and fails. Users pipe the response into a shell, so plain text must not be
/// sent.
pub(super) fn script_error(
    error: &str,
    head: &RequestHead,
    log: AccessLog,
) -> Response<ClientBody> {
    let quoted = error.replace('\'', "'\\''");
    let body = Bytes::from(format!(
        "#!/bin/sh\nprintf '%s\\n' 'larder: {quoted}' >&2\nexit 1\n"
    ));
    let log = log.outcome(RequestOutcome::Failed);
    let log = log.error(error.to_owned(), error.to_owned());
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "text/x-shellscript",
        body,
        head,
        log,
    )
}

fn outcome_of(error: &Error) -> RequestOutcome {
    match error {
        Error::Absent { .. } | Error::Unlisted { .. } => RequestOutcome::Absent,
        Error::Refused { .. } => RequestOutcome::Refused,
        Error::Offline { .. } => RequestOutcome::MissingOffline,
        Error::Down { .. } | Error::Outdated { .. } => RequestOutcome::MissingDown,
        Error::Upstream { .. }
        | Error::Timeout { .. }
        | Error::Store { .. }
        | Error::Abandoned { .. } => RequestOutcome::Failed,
    }
}

/// `Cache-Control` and `Cache-Status`. No name fixes the bytes of a body that upstream does not prove.
fn cache_fields(answer: &Answer, policy: &Policy) -> (&'static str, &'static str) {
    match answer.is_proven {
        true => (cache_control(policy), cache_status(answer.outcome)),
        false => ("no-cache", unproven_status(answer.outcome)),
    }
}

fn cache_control(policy: &Policy) -> &'static str {
    match policy.freshness {
        Freshness::Forever => "public, max-age=31536000, immutable",
        Freshness::For(_) | Freshness::AsUpstreamSays => "no-cache",
    }
}

fn cache_status(outcome: Outcome) -> &'static str {
    use crate::cache::StaleReason::{Down, Failed, Offline, Revalidating, Withdrawn};
    match outcome {
        Outcome::Hit => "larder; hit",
        Outcome::Miss => "larder; fwd=miss",
        Outcome::Revalidated => "larder; fwd=stale",
        Outcome::Collapsed => "larder; fwd=miss; collapsed",
        Outcome::Prefetched => "larder; hit; detail=prefetched",
        Outcome::Stale(Offline) => "larder; hit; detail=stale-offline",
        Outcome::Stale(Down) => "larder; hit; detail=stale-down",
        Outcome::Stale(Revalidating) => "larder; hit; detail=stale-while-revalidate",
        Outcome::Stale(Withdrawn) => "larder; hit; detail=stale-absent",
        Outcome::Stale(Failed) => "larder; fwd=stale; detail=stale-failed",
    }
}

/// The same for a body that upstream does not prove.
fn unproven_status(outcome: Outcome) -> &'static str {
    use crate::cache::StaleReason::{Down, Failed, Offline, Revalidating, Withdrawn};
    match outcome {
        Outcome::Hit => "larder; hit; detail=unproven",
        Outcome::Miss => "larder; fwd=miss; detail=unproven",
        Outcome::Revalidated => "larder; fwd=stale; detail=unproven",
        Outcome::Collapsed => "larder; fwd=miss; collapsed; detail=unproven",
        Outcome::Prefetched => "larder; hit; detail=\"unproven, prefetched\"",
        Outcome::Stale(Offline) => "larder; hit; detail=\"unproven, stale-offline\"",
        Outcome::Stale(Down) => "larder; hit; detail=\"unproven, stale-down\"",
        Outcome::Stale(Revalidating) => "larder; hit; detail=\"unproven, stale-while-revalidate\"",
        Outcome::Stale(Withdrawn) => "larder; hit; detail=\"unproven, stale-absent\"",
        Outcome::Stale(Failed) => "larder; fwd=stale; detail=\"unproven, stale-failed\"",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rustup_gets_404_only_if_upstream_said_so() {
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
        let url = Url::parse("https://a.example/").unwrap();
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
    fn cargo_gets_404_only_if_upstream_said_so() {
        let resource = String::new;
        let upstream = |failure| Error::Upstream {
            resource: resource(),
            failure,
            tried: 1,
        };
        let url = || Url::parse("https://a.example/").unwrap();
        assert_eq!(
            status_for_cargo(&Error::Absent {
                resource: resource()
            }),
            404
        );
        let down = |seconds| Error::Down {
            resource: resource(),
            origin: (&url()).into(),
            since: Duration::from_secs(seconds),
            failure: Box::new(
                FailureKind::Status {
                    code: 500,
                    retry_after: None,
                }
                .at(&url()),
            ),
        };
        assert_eq!(
            [9, 10].map(|age| status_for_cargo(&down(age)).as_u16()),
            [503, 424]
        );
        assert_eq!(status_for_rustup(&down(10)), 503);
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
            424
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
