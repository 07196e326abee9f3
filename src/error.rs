//! What can go wrong on the way to a resource, in words for people: what could not be done, on which resource, the
//! cause; and a hint. Statuses are the server's business.

use std::{borrow::Cow, time::Duration};

use crate::{
    store::StoreError,
    upstream::{Failure, FailureKind, Origin},
};

/// Why a resource cannot be had. `Display` is the whole story on one line.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Not stored, and larder was told to stay offline.
    #[error("cannot serve {resource}: it is not in the larder, and larder runs offline")]
    Offline {
        /// What was asked for.
        resource: String,
    },
    /// Not stored, and upstream was found out of reach a moment ago.
    #[error("cannot fetch {resource}: {origin} is out of reach since {} ({cause})", short(*.since))]
    Down {
        /// What was asked for.
        resource: String,
        /// The upstream.
        origin: Origin,
        /// For how long.
        since: Duration,
        /// How it was found out.
        cause: String,
    },
    /// Upstream was asked and gave no good answer.
    #[error("cannot fetch {resource}: {failure}{}", attempts(*.tried))]
    Upstream {
        /// What was asked for.
        resource: String,
        /// The last failure.
        failure: Failure,
        /// How often it was tried.
        tried: usize,
    },
    /// The client has waited as long as it can, and the fetch goes on.
    #[error("cannot fetch {resource}: {upstream} did not answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// What was asked for.
        resource: String,
        /// The upstream, or how to find out which it is.
        upstream: String,
        /// The time limit.
        after: Duration,
    },
    /// Upstream's word, now or a moment ago, that there is no such thing.
    #[error("upstream has no {resource}")]
    Absent {
        /// What was asked for.
        resource: String,
    },
    /// The index entry does not list the version.
    #[error("cannot serve {resource}: its index entry does not list that version")]
    Unlisted {
        /// What was asked for.
        resource: String,
    },
    /// The stored index entry does not list the version, and upstream cannot be asked whether it does by now.
    #[error(
        "cannot serve {resource}: the stored index entry does not list that version, and upstream cannot be asked now"
    )]
    Outdated {
        /// What was asked for.
        resource: String,
    },
    /// The store failed.
    #[error("cannot {verb} {resource}: {cause}")]
    Store {
        /// `read` or `store`.
        verb: &'static str,
        /// What was asked for.
        resource: String,
        /// The store's word.
        cause: String,
        /// Whether room is what is missing.
        full: bool,
    },
    /// The fetch ended without a word, which is a bug.
    #[error("cannot fetch {resource}: the fetch ended without a result, which is a bug in larder")]
    Abandoned {
        /// What was asked for.
        resource: String,
    },
}

impl Error {
    /// The store failed to `verb` it.
    pub(crate) fn store(verb: &'static str, resource: impl ToString, error: &StoreError) -> Self {
        let cause = match error {
            StoreError::Full(_) => error.to_string(),
            StoreError::Damaged { .. } | StoreError::Unusable { .. } => error.to_string(),
            StoreError::Io { source, .. } => source.to_string(),
        };
        Self::Store {
            verb,
            resource: resource.to_string(),
            cause,
            full: error.is_full(),
        }
    }

    /// One thing the user can do about it, if there is one.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Offline { .. } => Some("run `larder warm` in the project while online".into()),
            Self::Down { .. } | Self::Outdated { .. } => {
                Some("larder keeps trying; `larder check` tells what is missing".into())
            }
            Self::Upstream { failure, .. } => failure_hint(&failure.kind),
            Self::Timeout { .. } => Some(CHECK_NETWORK.into()),
            Self::Store { full: true, .. } => Some("make room, or choose another `--store`".into()),
            Self::Absent { .. } | Self::Unlisted { .. } | Self::Store { .. } => None,
            Self::Abandoned { .. } => Some("please report it, with the log".into()),
        }
    }

    /// The whole story and the hint, on one line: cargo shows the beginning of an answer's body.
    pub fn with_hint(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}; {hint}"),
            None => self.to_string(),
        }
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
        FailureKind::Broken { .. }
        | FailureKind::Status { .. }
        | FailureKind::Denied { .. }
        | FailureKind::Absent { .. }
        | FailureKind::Redirected { .. }
        | FailureKind::TooLarge { .. }
        | FailureKind::Unrecognised { .. } => None,
    }
}

/// An error and its causes on one line. What an error says of its cause by itself is not said again.
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

/// Whole seconds, which is all a person wants.
fn short(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_are_told_once_whether_or_not_the_error_tells_them_itself() {
        let cause = || io::Error::other("the disk is gone");
        let tells = StoreError::Io {
            path: "a".into(),
            source: cause(),
        };
        assert_eq!(chain(&tells), "a: the disk is gone");
        let tells_not = StoreError::Full(cause());
        assert_eq!(
            chain(&tells_not),
            "no space left in the store: the disk is gone"
        );
        assert_eq!(chain(&cause()), "the disk is gone");
    }
}
