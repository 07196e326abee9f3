//! The faults that the server can inject, and the rules that select requests for them. `reply` applies a fault to an
//! answer.

use std::time::Duration;

/// One fault of an answer. A position beyond the body counts as its last byte, so a cut always cuts. Except for
/// [`Fault::StallFor`], "the true answer" has the body even if the client's validator matches.
///
/// "Over h2" means an HTTP/2 connection (TLS, or plain with prior knowledge). There a fault concerns one stream and no
/// other, unless its description says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Resets the connection (RST) instead of an answer; over h2 `RST_STREAM` with `INTERNAL_ERROR`.
    Refuse,
    /// Closes the whole connection (FIN) without a byte of an answer; over h2 all its streams end.
    DropAfterAccept,
    /// Answers with this status and a short text.
    Status(u16),
    /// Answers with this status and body.
    StatusWithBody(u16, String),
    /// Answers with this status and this value of `Retry-After`.
    RetryAfter(u16, String),
    /// Answers with this status, a short text, and a header of this name and value.
    StatusWithHeader(u16, &'static str, String),
    /// Never answers; ends when the client disconnects.
    Stall,
    /// The true answer after this time.
    StallFor(Duration),
    /// The head and this many bytes of the true body, then silence.
    StallBodyAfter(u64),
    /// The true answer at a low speed.
    Drip {
        /// Bytes per second of this one body.
        bytes_per_second: u32,
    },
    /// A true `Content-Length`, then a close after this many bytes; over h2 `RST_STREAM` after them.
    CutAfter(u64),
    /// Chunked, closed after this many bytes without the last chunk; over h2 `RST_STREAM` after them.
    CutChunked(u64),
    /// No length: the connection's end is the body's end, after this many bytes. The body looks complete. Over h2 a
    /// short body with a regular end.
    CutUnframed(u64),
    /// `Content-Length` is one less than the bytes sent, so a trusting client gets a short body and a spare byte.
    WrongLength,
    /// The true answer with this byte of the body inverted.
    FlipByte(u64),
    /// 200 with the HTML of a captive portal.
    LoginPage,
    /// 200 with an empty body.
    Empty,
    /// 200 without a length: repeats the true body without end.
    Endless,
    /// 200 without a length, `Content-Encoding: gzip`: endless zeros, which decode to a thousand times the bytes sent.
    EndlessZip,
    /// The true body with `Content-Encoding: gzip`, whether or not the client accepts it.
    Gzip,
    /// 302 to this location.
    Redirect(String),
    /// 302 to the requested path.
    RedirectLoop,
    /// The full answer although the client's validator matches.
    IgnoreValidator,
    /// The full answer with a new `ETag` each time.
    OtherTag,
    /// 304 although the client sent no validator, or an outdated one.
    NotModifiedWithoutValidator,
    /// The true answer without a length: chunked; over h2 without `content-length`.
    NoLength,
    /// This fault, only for requests with a `Range` that has an end.
    OfRanges(Box<Self>),
}

/// The active rules. The newest rule that matches a path applies.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: String,
    /// `None` for a permanent rule.
    times_left: Option<usize>,
    fault: Fault,
}

impl Faults {
    pub(crate) fn add(&mut self, matcher: &str, times: Option<usize>, fault: Fault) {
        self.rules.push(Rule {
            matcher: matcher.to_owned(),
            times_left: times,
            fault,
        });
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The fault for one request. Uses up one of the rule's times.
    pub(crate) fn take(&mut self, path: &str, is_range: bool) -> Option<Fault> {
        let rule = self.rules.iter_mut().rev().find(|rule| {
            rule.times_left != Some(0)
                && path.contains(&rule.matcher)
                && (is_range || !matches!(rule.fault, Fault::OfRanges(_)))
        })?;
        if let Some(left) = &mut rule.times_left {
            *left -= 1;
        }
        let fault = rule.fault.clone();
        Some(if let Fault::OfRanges(fault) = fault {
            *fault
        } else {
            fault
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_matching_rule_applies_until_it_is_used_up() {
        let mut faults = Faults::default();
        faults.add("left", None, Fault::Empty);
        faults.add("/dl/left", Some(1), Fault::Stall);
        assert_eq!(
            faults.take("/dl/left/1.0.0/download", false),
            Some(Fault::Stall)
        );
        assert_eq!(
            faults.take("/dl/left/1.0.0/download", false),
            Some(Fault::Empty)
        );
        assert_eq!(faults.take("/index/le/ft/left", false), Some(Fault::Empty));
        assert_eq!(faults.take("/index/ri/gh/right", false), None);
        faults.add("left", None, Fault::OfRanges(Box::new(Fault::Refuse)));
        assert_eq!(faults.take("/index/le/ft/left", false), Some(Fault::Empty));
        assert_eq!(faults.take("/index/le/ft/left", true), Some(Fault::Refuse));
        faults.clear();
        assert_eq!(faults.take("/index/le/ft/left", false), None);
    }
}
