//! The head of a request: method, validators and byte range.
//!
//! larder compares its own strong `ETag`, the SHA-256 of the body, with `If-None-Match` by the weak rule and with
//! `If-Range` by the strong one. It serves single ranges, which rustup uses to resume downloads
//! (docs/client-behaviour.md, R-04).

use std::{sync::Arc, time::Instant};

use http::{HeaderName, Method, Request, header};

use super::traffic::ClientTraffic;

/// A request without its body, which larder never reads, and where it comes from.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) request: Request<()>,
    pub(super) origin: RequestOrigin,
}

/// The client of a request, and when the request began.
#[derive(Debug)]
pub(super) struct RequestOrigin {
    pub(super) client: Arc<ClientTraffic>,
    pub(super) began: Instant,
}

impl RequestOrigin {
    /// A request of `client` that begins now.
    pub(super) fn now(client: Arc<ClientTraffic>) -> Self {
        Self {
            client,
            began: Instant::now(),
        }
    }
}

impl RequestHead {
    pub(super) fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// True if `If-None-Match` lists this entity tag, by weak comparison, or is `*` (RFC 9110, section 13.1.2).
    pub(super) fn has_etag(&self, etag: &str) -> bool {
        let tags = self.request.headers().get_all(header::IF_NONE_MATCH).iter();
        tags.filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ByteRange {
    Whole,
    Part { start: u64, end: u64, total: u64 },
    Unsatisfiable { total: u64 },
}

/// The requested range of a body of `len` bytes (RFC 9110, section 14). A server may ignore `Range`; larder does so for
/// several ranges, and for bodies of unknown size.
pub(super) fn byte_range(head: &RequestHead, etag: &str, len: Option<u64>) -> ByteRange {
    let (&Method::GET, Some(range), Some(total)) =
        (head.request.method(), head.header(header::RANGE), len)
    else {
        return ByteRange::Whole;
    };
    // larder issues no dates, so a date in `If-Range` never matches.
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn request(fields: &[(HeaderName, &str)]) -> RequestHead {
        let mut request = Request::new(());
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().append(name, value);
        }
        let traffic = Arc::<crate::server::traffic::Traffic>::default();
        let client = traffic.client(std::net::Ipv4Addr::LOCALHOST.into());
        RequestHead {
            request,
            origin: RequestOrigin::now(client),
        }
    }

    fn ranged(range: &str, if_range: Option<&str>) -> RequestHead {
        let mut fields = vec![(header::RANGE, range)];
        fields.extend(if_range.map(|tag| (header::IF_RANGE, tag)));
        request(&fields)
    }

    #[test]
    fn ranges_follow_rfc_9110() {
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

    /// Compares with the definition: the positions of a body that a range names.
    #[test]
    fn every_small_range_names_the_positions_that_rfc_9110_says() {
        let ends = || (0..7).map(Some).chain([None, Some(u64::MAX)]);
        for (total, first, last) in (0..6).flat_map(|total| {
            ends().flat_map(move |first| ends().map(move |last| (total, first, last)))
        }) {
            let text = |end: Option<u64>| end.map_or_else(String::new, |end| end.to_string());
            let range = format!("bytes={}-{}", text(first), text(last));
            let is_named = |at: &u64| match (first, last) {
                (Some(first), last) => *at >= first && last.is_none_or(|last| *at <= last),
                (None, Some(suffix)) => *at >= total - suffix.min(total),
                (None, None) => true,
            };
            let named: Vec<u64> = (0..total).filter(is_named).collect();
            let is_valid = (first.is_some() || last.is_some())
                && last.is_none_or(|last| first.is_none_or(|first| first <= last));
            let expected = match named.as_slice() {
                _ if !is_valid => ByteRange::Whole,
                [] => ByteRange::Unsatisfiable { total },
                [start, ..] => ByteRange::Part {
                    start: *start,
                    end: named[named.len() - 1] + 1,
                    total,
                },
            };
            assert_eq!(
                byte_range(&ranged(&range, None), "e", Some(total)),
                expected,
                "{range} of {total}"
            );
        }
    }

    #[test]
    fn if_none_match_uses_weak_comparison() {
        let matches = |value| request(&[(header::IF_NONE_MATCH, value)]).has_etag("\"x\"");
        assert!(matches("\"x\""));
        assert!(matches("W/\"x\""));
        assert!(matches("\"a\", W/\"b\" ,\"x\""));
        assert!(matches("*"));
        assert!(!matches("\"y\""));
        assert!(!matches("x"));
    }
}
