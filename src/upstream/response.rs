//! Upstream's response: the head, parsed into a [`Reply`] or a [`Failure`], and the body, read chunk by chunk.
//!
//! The caller gets only usable responses. A status that is no answer to the request, an encoding that was not accepted,
//! and a range that was not requested are failures (`failure.rs`).
//!
//! The body ends cleanly only if it has its announced length. A response without a length or chunks ends with the
//! connection, so it could have been cut anywhere. It is passed on without validators and freshness, and the next
//! request fetches it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Version,
    header::{self, HeaderMap, HeaderName},
};
use url::Url;

use super::{
    diagnostics::Diagnostics,
    failure::{Failure, FailureKind, root_cause},
    lifetime::lifetime,
    origin::Origin,
    request::Get,
    request_limits::Http1Permit,
};
use crate::{clock::now, duration::two_units, validators::Validators};

/// A successful response.
#[derive(Debug)]
pub enum Reply {
    /// The stored copy is still current.
    NotModified {
        /// The new freshness lifetime, if given.
        max_age: Option<Duration>,
    },
    /// A body follows.
    Body(Box<UpstreamBody>),
}

/// A response body that has not been read yet.
#[derive(Debug)]
pub struct UpstreamBody {
    response: Response,
    /// `ETag` and `Last-Modified`; empty if the body could be cut without notice.
    pub validators: Validators,
    /// The freshness lifetime that upstream states; zero if the body could be cut without notice.
    pub max_age: Option<Duration>,
    /// Size of the whole resource in bytes, if known and not compressed.
    pub total: Option<u64>,
    /// True if the body begins at the requested offset, and not at 0. It is empty if the offset is the end.
    pub is_partial: bool,
    /// The validator for `RangeRequest`, if upstream serves ranges of this body.
    pub range_validator: Option<String>,
    /// How the body is compressed.
    pub coding: Coding,
    read_timeout: Duration,
    received_bytes: u64,
    content_length: Option<u64>,
    /// Bytes of all bodies of this upstream.
    counter: Option<Arc<AtomicU64>>,
    /// True if the response's own body is an error text and not part of the resource.
    is_at_end: bool,
    /// Held until the body is read or dropped.
    _permit: Option<Http1Permit>,
}

/// Compression of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// None.
    Identity,
    /// gzip.
    Gzip,
}

/// Sorts the response to `get` from `url`, which a redirect may have led to.
pub(super) async fn parse_response(
    get: &Get,
    url: &Url,
    response: Response,
    permit: Option<Http1Permit>,
) -> Result<Reply, Failure> {
    let headers = response.headers();
    let text = |name| text(headers, name);
    match response.status().as_u16() {
        304 if !get.validators.is_empty() => Ok(Reply::NotModified {
            max_age: lifetime(headers, now()),
        }),
        200 | 206 => UpstreamBody::parse(get, response, permit)
            .map(|body| Reply::Body(Box::new(body)))
            .map_err(|kind| kind.at(url)),
        // The earlier attempt broke after the last byte. The caller still checks the hash.
        416 if get.offset > 0
            && text(header::CONTENT_RANGE).and_then(parse_unsatisfied_range)
                == Some(get.offset) =>
        {
            Ok(Reply::Body(Box::new(UpstreamBody::at_end(get, response))))
        }
        code @ (404 | 410 | 451) => Err(FailureKind::Absent { code }.at(url)),
        code @ (401 | 403 | 407) => Err(failed(FailureKind::Denied { code }, url, response).await),
        code @ (429 | 500..) => {
            let retry_after =
                text(header::RETRY_AFTER).and_then(|value| parse_retry_after(value, now()));
            Err(failed(FailureKind::Status { code, retry_after }, url, response).await)
        }
        code => {
            let why = format!("has the status {code}");
            Err(failed(FailureKind::Unrecognised { why }, url, response).await)
        }
    }
}

/// A failure with what upstream says about it.
async fn failed(kind: FailureKind, url: &Url, response: Response) -> Failure {
    let mut failure = kind.at(url);
    failure.diagnostics = Diagnostics::read(response).await.map(Box::new);
    failure
}

impl UpstreamBody {
    /// Parses the head of a 200 or 206 response.
    fn parse(
        get: &Get,
        response: Response,
        permit: Option<Http1Permit>,
    ) -> Result<Self, FailureKind> {
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let headers = response.headers();
        let text = |name| text(headers, name);
        let coding = match text(header::CONTENT_ENCODING).map(str::trim) {
            None | Some("" | "identity") => Coding::Identity,
            Some("gzip" | "x-gzip") => Coding::Gzip,
            Some(other) => {
                let why = format!("is encoded as `{other}`");
                return Err(FailureKind::Unrecognised { why });
            }
        };
        let range = text(header::CONTENT_RANGE).and_then(parse_content_range);
        if is_partial && range.is_none_or(|(start, _)| start != get.offset || get.offset == 0) {
            let why = "is another range than the one asked for".to_owned();
            return Err(FailureKind::Unrecognised { why });
        }
        let content_length = text(header::CONTENT_LENGTH).and_then(|len| len.parse().ok());
        let total = match (coding, range) {
            (Coding::Gzip, _) => None,
            (Coding::Identity, Some((_, total))) => total,
            (Coding::Identity, None) => content_length,
        };
        // Without framing a cut body looks complete, and an index entry that was cut between two lines parses. With the
        // validators of the complete body, each revalidation would confirm it.
        let is_framed = content_length.is_some()
            || headers.contains_key(header::TRANSFER_ENCODING)
            || response.version() >= Version::HTTP_2;
        let (validators, max_age) = if is_framed {
            let validators = Validators {
                etag: text(header::ETAG).map(str::to_owned),
                last_modified: text(header::LAST_MODIFIED).map(str::to_owned),
            };
            (validators, lifetime(headers, now()))
        } else {
            (Validators::default(), Some(Duration::ZERO))
        };
        let accepts_ranges = text(header::ACCEPT_RANGES).is_some_and(|unit| unit.trim() == "bytes");
        let range_validator = (accepts_ranges && !is_partial && coding == Coding::Identity)
            .then(|| strong_validator(&validators))
            .flatten();
        Ok(Self {
            validators,
            max_age,
            total,
            is_partial,
            range_validator,
            coding,
            read_timeout: get.read_timeout,
            received_bytes: 0,
            content_length,
            counter: None,
            is_at_end: false,
            _permit: permit,
            response,
        })
    }

    /// The empty rest of a body that was transferred in full.
    fn at_end(get: &Get, response: Response) -> Self {
        Self {
            validators: Validators::default(),
            max_age: None,
            total: Some(get.offset),
            is_partial: true,
            range_validator: None,
            coding: Coding::Identity,
            read_timeout: get.read_timeout,
            received_bytes: 0,
            content_length: None,
            counter: None,
            is_at_end: true,
            _permit: None,
            response,
        }
    }

    /// Adds the size of each chunk to `counter`, too.
    pub(super) fn count_into(&mut self, counter: Arc<AtomicU64>) {
        self.counter = Some(counter);
    }

    /// Reads the next chunk; `None` at a clean end.
    ///
    /// # Errors
    /// [`FailureKind::Broken`] if the body ends early, or no byte arrives within [`Get::read_timeout`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.is_at_end {
            return Ok(None);
        }
        let cause = match tokio::time::timeout(self.read_timeout, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                self.received_bytes += chunk.len() as u64;
                if let Some(counter) = &self.counter {
                    counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
                return Ok(Some(chunk));
            }
            Ok(Ok(None))
                if self
                    .content_length
                    .is_none_or(|len| len == self.received_bytes) =>
            {
                return Ok(None);
            }
            Ok(Ok(None)) => format!("it ended after {} bytes", self.received_bytes),
            Ok(Err(error)) => root_cause(&error),
            Err(_) => format!("nothing came for {}", two_units(self.read_timeout)),
        };
        Err(FailureKind::Broken { cause }.at(Origin::from(self.response.url())))
    }
}

/// A header's value, if it is printable ASCII.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The value for `If-Range`, which must not be a weak `ETag` (RFC 9110, section 13.1.5).
fn strong_validator(validators: &Validators) -> Option<String> {
    validators
        .etag
        .clone()
        .filter(|etag| !etag.starts_with("W/"))
        .or_else(|| validators.last_modified.clone())
}

/// The first byte of a range, and the size of the whole resource if given.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// The size of the whole resource, from a 416 response.
fn parse_unsatisfied_range(value: &str) -> Option<u64> {
    value.strip_prefix("bytes */")?.parse().ok()
}

fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value)
            .ok()
            .map(|at| at.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_parsed_with_and_without_a_total() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_and_as_a_date() {
        assert_eq!(
            parse_retry_after("7", SystemTime::UNIX_EPOCH),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            parse_retry_after("Thu, 01 Jan 1970 00:00:05 GMT", SystemTime::UNIX_EPOCH),
            Some(Duration::from_secs(5))
        );
    }
}
