//! What can go wrong upstream, and which request it happens to. What a fault does to an answer is `reply`'s matter.

use std::time::Duration;

/// One thing that goes wrong with an answer. Positions beyond the body count as its last byte, so a cut always cuts.
/// "The true answer" brings the body whatever validator the client sent, except after [`Fault::StallFor`].
///
/// "Over h2" below means an HTTP/2 connection (TLS, or plain with prior knowledge); there a fault concerns one stream and
/// leaves its neighbours alone unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset (RST) instead of an answer; over h2 `RST_STREAM` with `INTERNAL_ERROR`.
    Refuse,
    /// The whole connection is closed (FIN) without a byte of an answer; over h2 all its streams die with it.
    DropAfterAccept,
    /// Another status with a short text.
    Status(u16),
    /// Another status with this body.
    StatusWithBody(u16, String),
    /// This status and this value of `Retry-After`.
    RetryAfter(u16, String),
    /// No answer, ever; ends when the client goes away.
    Stall,
    /// The true answer, this much later.
    StallFor(Duration),
    /// Head and this many bytes of the true body, then silence.
    StallBodyAfter(u64),
    /// The true answer, slowly.
    Drip {
        /// Speed of this one body.
        bytes_per_second: u32,
    },
    /// `Content-Length` says all, the connection is closed after this many bytes; over h2 `RST_STREAM` after them.
    CutAfter(u64),
    /// No length, chunked, closed after this many bytes without the last chunk; over h2 `RST_STREAM` after them.
    CutChunked(u64),
    /// No length, the end of the connection is the end of the body, and it comes after this many bytes: looks complete.
    /// Over h2 a short body that ends in order.
    CutUnframed(u64),
    /// `Content-Length` is one less than the bytes sent, so a trusting client gets a short body and a spare byte.
    WrongLength,
    /// The true answer with this byte of the body inverted.
    FlipByte(u64),
    /// 200 with the HTML of a captive portal.
    LoginPage,
    /// 200 and no bytes.
    Empty,
    /// 200 without a length: the true body over and over, never ending.
    Endless,
    /// 200 without a length, `Content-Encoding: gzip`: zeros, a thousand times larger unpacked than sent, never ending.
    EndlessZip,
    /// The true body as `Content-Encoding: gzip`, asked for or not.
    Gzip,
    /// 302 to this location.
    Redirect(String),
    /// 302 to the very path that was asked.
    RedirectLoop,
    /// The full answer although the client's validator still holds.
    IgnoreValidator,
    /// The full answer with an `ETag` that was never given before.
    OtherTag,
    /// 304 although the client sent no validator (or an old one).
    NotModifiedWithoutValidator,
    /// The true answer without a length: chunked; over h2 without `content-length`.
    NoLength,
    /// This fault, for requests alone with a `Range` that has an end.
    OfRanges(Box<Self>),
}

/// The faults in force. The newest rule that matches a path wins.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: String,
    /// `None` for as long as the rule stands.
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

    /// The fault for one request, used up by this call where it has a number of times.
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
    fn newest_matching_rule_wins_until_it_is_used_up() {
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
