//! The freshness lifetime that a response states (RFC 9111, 4.2.1). larder is a shared cache.
//!
//! ```text
//!  no-cache, no-store  ──>  s-maxage  ──>  max-age  ──>  Expires - Date  ──>  none stated
//! ```
//!
//! The first of these that a response has counts, and what cannot be read means zero: such a response is revalidated
//! before each use. So is one that was stale when it arrived, by its `Age`. A smaller `Age` is not subtracted, since it
//! differs in each response: every revalidation would then write the entry again, instead of touching its file. The cap
//! of `--max-age` bounds what that costs.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The longest lifetime, in seconds. Larger numbers count as this one (RFC 9111, 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// Returns the lifetime of a response that arrived at `now`; `None` if it states none.
pub(super) fn lifetime(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let lifetime = lifetime_of_directives(headers).or_else(|| until_expiry(headers, now))?;
    let is_stale = age(headers).is_some_and(|age| age >= lifetime);
    Some(if is_stale { Duration::ZERO } else { lifetime })
}

fn lifetime_of_directives(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    let directives: Vec<_> = lines.filter_map(text).flat_map(members).collect();
    let has = |name: &str| directives.iter().any(|it| it.eq_ignore_ascii_case(name));
    if has("no-cache") || has("no-store") {
        return Some(Duration::ZERO);
    }
    ["s-maxage", "max-age"].iter().find_map(|wanted| {
        let mut named = directives.iter().filter_map(|it| it.split_once('='));
        let (_, value) = named.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(seconds(value).unwrap_or_default())
    })
}

fn until_expiry(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let expires = headers.get(header::EXPIRES)?;
    let sent = headers.get(header::DATE).and_then(date).unwrap_or(now);
    let left = date(expires).and_then(|expires| expires.duration_since(sent).ok());
    Some(left.unwrap_or_default())
}

/// The first member of `Age`. What cannot be read is ignored (RFC 9111, 5.1).
fn age(headers: &HeaderMap) -> Option<Duration> {
    seconds(members(text(headers.get(HeaderName::from_static("age"))?)?).next()?)
}

/// The members of a list. A comma between quotes does not separate.
fn members(list: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let is_separator = move |c| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    };
    list.split(is_separator).map(str::trim)
}

/// A number of seconds, with or without quotes.
fn seconds(text: &str) -> Option<Duration> {
    let unquoted = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let digits = unquoted.unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Too many digits for the type are a large number.
    is_number.then(|| Duration::from_secs(digits.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS)))
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(text(value)?).ok()
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a response that arrives when its `Date` says, and the lifetime in seconds.
    #[track_caller]
    fn check(lines: &[(&'static str, &str)], expected: Option<u64>) {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            });
        let now = httpdate::parse_http_date("Thu, 01 Jan 2026 00:00:10 GMT").unwrap();
        let found = lifetime(&headers, now).map(|lifetime| lifetime.as_secs());
        assert_eq!(found, expected, "{lines:?}");
    }

    #[track_caller]
    fn check_control(value: &str, expected: Option<u64>) {
        check(&[("cache-control", value)], expected);
    }

    #[test]
    fn max_age_states_the_lifetime_and_no_cache_and_no_store_end_it() {
        check_control("public,max-age=600", Some(600));
        check_control("MaX-aGe=\"600\"", Some(600));
        check_control("public", None);
        check_control("No-Cache, max-age=5", Some(0));
        check_control("max-age=5, no-store", Some(0));
        check(&[], None);
    }

    #[test]
    fn all_lines_of_cache_control_count_and_the_first_max_age() {
        let line = |value| ("cache-control", value);
        check(&[line("public"), line("max-age=5")], Some(5));
        check(&[line("max-age=5"), line("no-store")], Some(0));
        check(&[line("max-age=1"), line("max-age=5")], Some(1));
    }

    #[test]
    fn directives_between_quotes_are_no_directives() {
        check_control("x=\"a, max-age=600, no-store\", max-age=1", Some(1));
        check_control("no-cache=\"a, b\", max-age=1", Some(1));
    }

    #[test]
    fn a_shared_cache_takes_s_maxage_before_max_age() {
        check_control("max-age=600, s-maxage=1", Some(1));
        check_control("s-maxage=600, max-age=1", Some(600));
    }

    #[test]
    fn a_lifetime_that_cannot_be_read_is_zero_and_a_huge_one_is_long() {
        for value in ["", "-600", "'600'", "600.0", "600a", "1 0", "\"600"] {
            check_control(&format!("max-age={value}"), Some(0));
        }
        check_control("max-age=99999999999999999999999", Some(MAX_SECONDS));
    }

    #[test]
    fn expires_counts_without_max_age_and_is_measured_from_the_date() {
        let expires = ("expires", "Thu, 01 Jan 2026 00:01:00 GMT");
        check(&[expires], Some(50));
        let date = ("date", "Thu, 01 Jan 2026 00:00:30 GMT");
        check(&[expires, date], Some(30));
        check(&[expires, ("date", "today")], Some(50));
        check(
            &[expires, ("date", "Thu, 01 Jan 2026 00:02:00 GMT")],
            Some(0),
        );
        check(&[("expires", "0")], Some(0));
        check(&[expires, ("cache-control", "max-age=7")], Some(7));
        check(&[expires, ("cache-control", "public")], Some(50));
    }

    #[test]
    fn a_response_that_was_stale_when_it_arrived_has_no_lifetime() {
        let control = ("cache-control", "max-age=600");
        check(&[control, ("age", "599")], Some(600));
        check(&[control, ("age", "600")], Some(0));
        check(&[control, ("age", "7200, 0")], Some(0));
        check(&[control, ("age", "0, 7200")], Some(600));
        check(&[control, ("age", "long")], Some(600));
        check(&[("age", "7200")], None);
    }
}
