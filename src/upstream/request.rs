//! One GET request to upstream: what to ask for, and the headers that say it.
//!
//! A request is conditional (`If-None-Match` or `If-Modified-Since`), or it resumes a transfer (`Range: bytes=N-`),
//! or it fetches one range of a large body beside the main stream (`Range` with `If-Range`).

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::validators::Validators;

/// A GET request.
#[derive(Clone, Debug)]
pub struct Get {
    /// The address.
    pub url: Url,
    /// Validators of the stored copy; empty for an unconditional request.
    pub validators: Validators,
    /// The first byte wanted. More than 0 resumes a broken transfer.
    pub offset: u64,
    /// Fetches only `offset..end`, over a connection of its own.
    pub range: Option<RangeRequest>,
    /// True to accept gzip.
    pub compressible: bool,
    /// Time limit for the response head, and then for each chunk of the body.
    pub read_timeout: Duration,
}

/// The end of a byte range, and the body that it must belong to.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// The first byte after the range.
    pub end: u64,
    /// `UpstreamBody::range_validator` of the body. If upstream has another body by now, it answers with all of it.
    pub validator: String,
}

impl Get {
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let encoding = if self.compressible {
            "gzip"
        } else {
            "identity"
        };
        add(header::ACCEPT_ENCODING, encoding);
        if let Some(etag) = &self.validators.etag {
            add(header::IF_NONE_MATCH, etag);
        } else if let Some(date) = &self.validators.last_modified {
            add(header::IF_MODIFIED_SINCE, date);
        }
        if let Some(range) = &self.range {
            let last = range.end.saturating_sub(1);
            add(header::RANGE, &format!("bytes={}-{last}", self.offset));
            add(header::IF_RANGE, &range.validator);
        } else if self.offset > 0 {
            add(header::RANGE, &format!("bytes={}-", self.offset));
        }
        headers
    }
}
