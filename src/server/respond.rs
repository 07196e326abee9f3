//! Answers as HTTP: the only place that picks statuses and headers. A status is chosen by what the client does with it;
//! the body's first line is what its user reads.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    access_log::AccessLog,
    body::ClientBody,
    request::{ByteRange, RequestHead, byte_range},
};
use crate::{
    cache::{Answer, Body, Outcome},
    error::Error,
    resource::{Audience, Freshness, Policy},
    upstream::FailureKind,
};

/// How long cargo shall wait before it asks again for something that trouble upstream keeps from it. Cargo's own pauses
/// add up to eleven seconds (cargo, `util/network/retry.rs`); three of these are enough to outlast a blip.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

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

#[cfg(test)]
mod tests {
    use super::*;

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
