//! Why a request to upstream gave no usable answer: which [`Origin`] failed, and how ([`FailureKind`]).
//!
//! Each kind of failure leads to a different decision elsewhere, which is why the kinds are sorted by consequence and
//! not by cause:
//!
//! ```text
//!  kind                                   retried   circuit breaker      with a stale copy, serve it
//!  Unreachable                            once      opens                yes
//!  Silent                                 once      opens, or slow       yes
//!  Broken, Status, Unrecognised           3 times   opens after a few    yes
//!  WrongHash                              once      ignores              yes
//!  Denied, TooLarge, Unsupported          no        ignores              yes
//!  NoMemory                               once      ignores              yes
//!  Redirected                             no        if foreign           yes
//!  Absent                                 no        ignores              no: upstream's own word
//! ```
//!
//! Retries are in `retry.rs`, the breaker in `cache/breaker.rs`, stale copies in `cache/decide.rs`, and the
//! status that a client gets in `server/respond.rs`. All of them match exhaustively, so a new kind does not compile
//! before each has decided about it.

use std::{fmt, time::Duration};

use super::{diagnostics::Diagnostics, origin::Origin};
use crate::{duration::two_units, hash::Sha256, memory_budget::OverBudget};

/// A failed request: the origin that failed and the kind of failure. `Display` is one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The origin that failed. After a redirect it is the redirect's target, not the origin that was asked first.
    pub origin: Origin,
    /// How it failed.
    pub kind: FailureKind,
    /// Upstream's own words, if it answered with any. Boxed, because most failures have none.
    pub diagnostics: Option<Box<Diagnostics>>,
}

/// How a request to upstream failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: name not found, refused, no route, TLS refused.
    Unreachable {
        /// Text of the system's or TLS's error.
        cause: String,
    },
    /// A connection, but no response head in time.
    Silent {
        /// The time limit that passed.
        after: Duration,
    },
    /// The transfer broke off: it ended early, no chunk arrived in time, or its encoding is damaged.
    Broken {
        /// How it ended.
        cause: String,
    },
    /// Trouble on upstream's side: 5xx or 429.
    Status {
        /// The status code.
        code: u16,
        /// `Retry-After`, as sent.
        retry_after: Option<Duration>,
    },
    /// 401, 403 or 407.
    Denied {
        /// The status code.
        code: u16,
    },
    /// Upstream says that the resource does not exist: 404, 410 or 451.
    Absent {
        /// The status code.
        code: u16,
    },
    /// A redirect that leaves the allowed hosts, or exceeds the number of redirects (a loop does).
    Redirected {
        /// The refused target.
        to: Origin,
        /// True if the target is refused; otherwise the number of redirects is.
        foreign: bool,
    },
    /// More bytes than the kind of resource allows.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
        /// The setting that has the limit, if one has.
        setting: Option<&'static str>,
    },
    /// The body had to be dropped because other bodies take larder's memory.
    NoMemory(OverBudget),
    /// An answer, but not one to this request.
    Unrecognised {
        /// The fault, as the rest of a sentence that begins with "the answer".
        why: String,
    },
    /// An answer to this request that larder cannot serve. Upstream works, and would send the same again.
    Unsupported {
        /// The reason, as the rest of a sentence that begins with "the answer".
        why: String,
    },
    /// The bytes do not have the expected hash. Any host on the way may have altered them.
    WrongHash {
        /// The hash of the received bytes.
        got: Sha256,
        /// The hash they should have.
        expected: Sha256,
    },
}

impl FailureKind {
    /// This failure, of `origin`.
    pub fn at(self, origin: impl Into<Origin>) -> Failure {
        Failure {
            origin: origin.into(),
            kind: self,
            diagnostics: None,
        }
    }

    /// Returns whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Unrecognised { .. }
            | Self::WrongHash { .. } => true,
            Self::Denied { .. }
            | Self::Absent { .. }
            | Self::Redirected { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory(_)
            | Self::Unsupported { .. } => false,
        }
    }
}

impl Failure {
    /// The failure without what differs between the resources that it hits: time limits, hashes, and upstream's own
    /// words.
    pub fn cause(&self) -> String {
        let origin = &self.origin;
        match &self.kind {
            FailureKind::Silent { .. } => format!("{origin} does not answer in time"),
            FailureKind::WrongHash { .. } => {
                format!("what {origin} sent does not have the expected sha256")
            }
            FailureKind::Broken { .. } => format!("the transfer from {origin} broke off"),
            kind @ (FailureKind::Unreachable { .. }
            | FailureKind::Status { .. }
            | FailureKind::Denied { .. }
            | FailureKind::Absent { .. }
            | FailureKind::Redirected { .. }
            | FailureKind::TooLarge { .. }
            | FailureKind::NoMemory(_)
            | FailureKind::Unrecognised { .. }
            | FailureKind::Unsupported { .. }) => kind.clone().at(origin.clone()).to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        match &self.kind {
            FailureKind::Unreachable { cause } => write!(f, "cannot connect to {origin}: {cause}"),
            FailureKind::Silent { after } => {
                write!(f, "{origin} did not answer within {}", two_units(*after))
            }
            FailureKind::Broken { cause } => {
                write!(f, "the transfer from {origin} broke off: {cause}")
            }
            FailureKind::Status { code, .. } => write!(f, "{origin} answered {code}"),
            FailureKind::Denied { code } => write!(f, "{origin} refused with {code}"),
            FailureKind::Absent { code } => write!(f, "{origin} has no such thing ({code})"),
            FailureKind::Redirected { to, .. } => write!(f, "{origin} redirects to {to}"),
            FailureKind::TooLarge { limit, setting } => {
                write!(f, "{origin} sent more than {limit} bytes")?;
                match setting {
                    Some(setting) => write!(f, " (setting `{setting}`)"),
                    None => Ok(()),
                }
            }
            FailureKind::NoMemory(budget) => budget.fmt(f),
            FailureKind::Unrecognised { why } | FailureKind::Unsupported { why } => {
                write!(f, "the answer of {origin} {why}")
            }
            FailureKind::WrongHash { got, expected } => {
                write!(f, "sha256 is {got}, expected {expected}")
            }
        }?;
        match &self.diagnostics {
            Some(diagnostics) => diagnostics.fmt(f),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The failure behind an error of reqwest.
pub(super) fn classify(error: &reqwest::Error) -> FailureKind {
    let cause = root_cause(error);
    if error.is_timeout() || error.is_connect() {
        FailureKind::Unreachable { cause }
    } else {
        FailureKind::Broken { cause }
    }
}

/// Text of an error's innermost cause. The layers that reqwest puts around it repeat the address.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
