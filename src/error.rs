//! [`Error`]: why a client cannot have a resource. Its text is one line in three parts:
//!
//! ```text
//!  cannot fetch crate `left 1.0.0`: files.example did not answer within 10s; check the network and the proxy settings
//!  └─ action and resource ───────┘  └─ cause ──────────────────────────────┘ └─ hint, if the user can act ──────────┘
//! ```
//!
//! One fetch can have many clients, and all of them get its error. So `Error` is `Clone`, and causes that are not (of
//! the system, of TLS) are stored as text. [`chain`] renders those: it is the one place that turns an error and its
//! sources into a line.
//!
//! The HTTP status of each error depends on the client, cargo or rustup: `server/respond.rs` chooses it.

use std::{borrow::Cow, time::Duration};

use crate::{
    duration::two_units,
    store::StoreError,
    upstream::{Failure, FailureKind, Origin},
};

/// Why a client cannot have a resource. `Display` is one line without the hint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Not stored, and larder runs with `--offline`.
    #[error("cannot serve {resource}: it is not in the larder, and larder runs offline")]
    Offline {
        /// The resource, as people write it.
        resource: String,
    },
    /// Not stored, and upstream's circuit breaker is open.
    #[error("cannot fetch {resource}: {origin} is out of reach since {} ({failure})", whole_seconds(*.since))]
    Down {
        /// The resource, as people write it.
        resource: String,
        /// The upstream.
        origin: Origin,
        /// Time since the outage began: the breaker may have been slow before it opened.
        since: Duration,
        /// The failure that opened the breaker.
        failure: Box<Failure>,
    },
    /// All attempts to fetch it failed.
    #[error("cannot fetch {resource}: {failure}{}", attempts(*.tried))]
    Upstream {
        /// The resource, as people write it.
        resource: String,
        /// The last failure.
        failure: Failure,
        /// Number of attempts.
        tried: usize,
    },
    /// The client's time limit passed. The fetch goes on.
    #[error("cannot fetch {resource}: {upstream} did not answer within {}", two_units(*.after))]
    Timeout {
        /// The resource, as people write it.
        resource: String,
        /// The upstream, or a description while its address is not known.
        upstream: String,
        /// The time limit.
        after: Duration,
    },
    /// Upstream says that it does not exist. The negative cache may have remembered that.
    #[error("upstream has no {resource}")]
    Absent {
        /// The resource, as people write it.
        resource: String,
    },
    /// The user's settings or an earlier answer of upstream forbid it.
    #[error("refused {resource}: {why}")]
    Refused {
        /// The resource, as people write it.
        resource: String,
        /// The rule and the facts that it applies to, as the end of a sentence.
        why: String,
    },
    /// The index entry does not list the version.
    #[error("cannot serve {resource}: its index entry does not list that version")]
    Unlisted {
        /// The resource, as people write it.
        resource: String,
    },
    /// The stored index entry does not list the version, and upstream cannot be asked for a newer entry.
    #[error(
        "cannot serve {resource}: the stored index entry does not list that version, and upstream cannot be asked now"
    )]
    Outdated {
        /// The resource, as people write it.
        resource: String,
    },
    /// The store failed.
    #[error("cannot {verb} {resource}: {cause}")]
    Store {
        /// `read` or `store`.
        verb: &'static str,
        /// The resource, as people write it.
        resource: String,
        /// Text of the store's error.
        cause: String,
        /// The reason, as far as the user can act on it.
        problem: StoreProblem,
    },
    /// The fetch ended without a result, which is a bug.
    #[error("cannot fetch {resource}: the fetch ended without a result, which is a bug in larder")]
    Abandoned {
        /// The resource, as people write it.
        resource: String,
    },
}

/// Why the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreProblem {
    /// The disk is full.
    Full,
    /// The limit of the store's size leaves no space.
    Limit,
    /// Anything else.
    Other,
}

impl Error {
    /// The store failed to `verb` the resource. The text omits paths, since clients see it.
    pub(crate) fn store(verb: &'static str, resource: impl ToString, error: &StoreError) -> Self {
        let cause = match error {
            StoreError::Full(_)
            | StoreError::Limit(_)
            | StoreError::Damaged { .. }
            | StoreError::Unusable { .. } => error.to_string(),
            StoreError::Io { source, .. } => source.to_string(),
        };
        Self::Store {
            verb,
            resource: resource.to_string(),
            cause,
            problem: match error {
                StoreError::Full(_) => StoreProblem::Full,
                StoreError::Limit(_) => StoreProblem::Limit,
                StoreError::Damaged { .. }
                | StoreError::Unusable { .. }
                | StoreError::Io { .. } => StoreProblem::Other,
            },
        }
    }

    /// The fetch of `resource` ended without a result.
    pub(crate) fn abandoned(resource: impl ToString) -> Self {
        Self::Abandoned {
            resource: resource.to_string(),
        }
    }

    /// Returns whether upstream may have the resource for a client that asks it: the trouble is larder's own, or that
    /// of its way to upstream.
    pub fn is_own_trouble(&self) -> bool {
        match self {
            Self::Down { .. }
            | Self::Timeout { .. }
            | Self::Outdated { .. }
            | Self::Store { .. }
            | Self::Abandoned { .. } => true,
            Self::Upstream { failure, .. } => matches!(
                failure.kind,
                FailureKind::Unreachable { .. }
                    | FailureKind::Silent { .. }
                    | FailureKind::NoMemory(_)
            ),
            Self::Offline { .. }
            | Self::Absent { .. }
            | Self::Refused { .. }
            | Self::Unlisted { .. } => false,
        }
    }

    /// One thing that a client's user can do about it while larder goes on running.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Offline { .. } => Some("run `larder warm` in the project while online".into()),
            Self::Down { .. } | Self::Outdated { .. } => {
                Some("larder keeps trying; `larder check` tells what is missing".into())
            }
            Self::Upstream { failure, .. } => failure_hint(&failure.kind),
            Self::Timeout { .. } => Some(CHECK_NETWORK.into()),
            Self::Store { problem, .. } => match problem {
                StoreProblem::Full => Some("make room, or choose another `--store`".into()),
                // The text says what to do.
                StoreProblem::Limit => None,
                StoreProblem::Other => {
                    Some("check the disk and the permissions of the store".into())
                }
            },
            Self::Absent { .. } | Self::Refused { .. } | Self::Unlisted { .. } => None,
            Self::Abandoned { .. } => Some("please report it, with the log".into()),
        }
    }

    /// One thing that the user of a command can do about it: nothing goes on after a command.
    pub fn command_hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Down { .. } | Self::Outdated { .. } => Some(CHECK_NETWORK.into()),
            Self::Offline { .. }
            | Self::Upstream { .. }
            | Self::Timeout { .. }
            | Self::Absent { .. }
            | Self::Refused { .. }
            | Self::Unlisted { .. }
            | Self::Store { .. }
            | Self::Abandoned { .. } => self.hint(),
        }
    }

    /// The text and the hint for a client on one line: cargo shows only the beginning of a response's body.
    pub fn for_client(&self) -> String {
        with_hint(self.to_string(), self.hint())
    }

    /// The text and the hint for the user of a command, on one line.
    pub fn for_command(&self) -> String {
        with_hint(self.to_string(), self.command_hint())
    }

    /// The cause without the resource, and the hint for the user of a command. Equal for all resources that fail for
    /// the same reason, whatever the attempt, the time limit and upstream's request ids were.
    pub fn cause(&self) -> String {
        let cause = match self {
            Self::Offline { .. } => {
                "they are not in the larder, and larder runs offline".to_owned()
            }
            Self::Down { failure, .. } => failure.cause(),
            Self::Upstream { failure, .. } => failure.cause(),
            Self::Timeout { upstream, .. } => format!("{upstream} does not answer in time"),
            Self::Absent { .. } => "upstream does not have them".to_owned(),
            Self::Refused { why, .. } => format!("refused: {why}"),
            Self::Unlisted { .. } => "their index entries do not list the version".to_owned(),
            Self::Outdated { .. } => {
                "the stored index entries do not list the version, and upstream cannot be asked now"
                    .to_owned()
            }
            Self::Store { verb, cause, .. } => format!("cannot {verb}: {cause}"),
            Self::Abandoned { .. } => "the fetch ended without a result, which is a bug".to_owned(),
        };
        with_hint(cause, self.command_hint())
    }
}

fn with_hint(text: String, hint: Option<Cow<'static, str>>) -> String {
    match hint {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}

const CHECK_NETWORK: &str = "check the network and the proxy settings";

fn failure_hint(kind: &FailureKind) -> Option<Cow<'static, str>> {
    match kind {
        FailureKind::Unreachable { .. } | FailureKind::Silent { .. } => Some(CHECK_NETWORK.into()),
        FailureKind::Redirected { foreign: true, to } => {
            Some(format!("if that is right, allow it with `--redirect-host {to}`").into())
        }
        FailureKind::WrongHash { .. } => Some(
            "nothing was stored; if it repeats, something between here and upstream alters files"
                .into(),
        ),
        FailureKind::Denied { code: 407 } => {
            Some("the proxy requires a user name and a password".into())
        }
        FailureKind::Denied { .. } => {
            Some("larder cannot serve registries that require a token".into())
        }
        FailureKind::Broken { .. }
        | FailureKind::Status { .. }
        | FailureKind::Absent { .. }
        | FailureKind::Redirected { .. }
        | FailureKind::TooLarge { .. }
        | FailureKind::NoMemory(_)
        | FailureKind::Unrecognised { .. }
        | FailureKind::Unsupported { .. } => None,
    }
}

/// Renders an error and its sources on one line. A source that the text before it already ends with is not repeated.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn attempts(tried: usize) -> String {
    if tried > 1 {
        format!(" (tried {tried} times)")
    } else {
        String::new()
    }
}

/// Rounds down to seconds for people.
fn whole_seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn chain_renders_each_cause_once() {
        let cause = || io::Error::other("the disk is gone");
        let embedding = StoreError::Io {
            path: "a".into(),
            source: cause(),
        };
        assert_eq!(
            chain(&embedding),
            "the store cannot use a: the disk is gone"
        );
        let silent = StoreError::Full(cause());
        assert_eq!(
            chain(&silent),
            "no space left in the store: the disk is gone"
        );
        assert_eq!(chain(&cause()), "the disk is gone");
    }
}
