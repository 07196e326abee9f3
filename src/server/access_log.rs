//! The record of one request, for the log, the access log and the burst of its client.
//!
//! A record is created when the request is routed and is completed along the way. It ends when the response body is
//! dropped, because only then are the number of bytes and the outcome known:
//!
//! ```text
//!   route ──> AccessLog ──> status, outcome ──> body sent ──> burst of the client        one line when it is over
//!                                                        ├──> access log                 one line, if there is one
//!                                                        └──> log: a warning, or a line at the level DEBUG
//! ```

use std::{fmt, sync::Arc, time::Instant};

use http::StatusCode;
use tracing::{debug, warn};

use super::{
    access_log_file::{AccessLine, RequestLine},
    bursts::AnswerKind,
    request::RequestHead,
    traffic::ClientTraffic,
};
use crate::{
    cache::{Outcome, StaleReason},
    resource::Resource,
};

/// The record of one request.
#[derive(Debug)]
pub(super) struct AccessLog {
    subject: LogSubject,
    client: Arc<ClientTraffic>,
    outcome: RequestOutcome,
    status: u16,
    began: Instant,
    error: Option<RequestError>,
    /// The request as the client wrote it, if there is an access log.
    line: Option<Box<RequestLine>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// A page about the daemon, or a refusal without asking the cache.
    Own,
    /// The cache answered.
    Answered(Outcome),
    /// Upstream does not have the resource.
    Absent,
    /// A rule forbids it.
    Refused,
    /// It is not stored, and larder runs offline.
    MissingOffline,
    /// It is not stored, and upstream is out of reach.
    MissingDown,
    /// The client is sent to upstream, because larder is in trouble.
    Redirected,
    /// Another error.
    Failed,
    /// The transfer failed after the head was sent.
    Aborted,
}

#[derive(Debug)]
struct RequestError {
    text: String,
    /// The part that requests with the same cause share.
    cause: String,
}

/// The requested resource, formatted only when the record is written.
#[derive(Debug)]
pub(super) enum LogSubject {
    Resource(Resource),
    Path(String),
}

/// The line of the log about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogLine {
    /// One line for each cause: see `crate::log`.
    Warning,
    /// A line at the level DEBUG.
    Detail,
}

impl RequestOutcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Answered(outcome) => outcome.as_str(),
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::MissingOffline => "missing-offline",
            Self::MissingDown => "missing-down",
            Self::Redirected => "redirected",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// The group in which the burst of a client counts it. `None` for a request that is none for a resource.
    pub(super) fn kind(self) -> Option<AnswerKind> {
        use StaleReason::{Down, Failed, Offline, Revalidating, Withdrawn};
        Some(match self {
            Self::Own => return None,
            Self::Answered(Outcome::Hit | Outcome::Revalidated | Outcome::Stale(Revalidating)) => {
                AnswerKind::Hit
            }
            Self::Answered(Outcome::Miss | Outcome::Collapsed | Outcome::Prefetched) => {
                AnswerKind::Miss
            }
            Self::Answered(Outcome::Stale(Offline | Down | Failed | Withdrawn)) => {
                AnswerKind::Stale
            }
            Self::Absent => AnswerKind::Absent,
            Self::Refused
            | Self::MissingOffline
            | Self::MissingDown
            | Self::Redirected
            | Self::Failed
            | Self::Aborted => AnswerKind::Failed,
        })
    }

    /// The line about a request that ended with `status`, and with an error if `has_error`.
    fn line(self, status: u16, has_error: bool) -> LogLine {
        match self {
            // Probes for other programs' paths, and clients beyond a limit, which `Connections` reports.
            Self::Own if matches!(status, 404 | 503) => LogLine::Detail,
            Self::Own if has_error => LogLine::Warning,
            // A crate that does not exist is not trouble.
            Self::Own | Self::Answered(_) | Self::Absent => LogLine::Detail,
            Self::Refused
            | Self::MissingOffline
            | Self::MissingDown
            | Self::Redirected
            | Self::Failed
            | Self::Aborted => LogLine::Warning,
        }
    }
}

impl From<&Resource> for LogSubject {
    fn from(resource: &Resource) -> Self {
        Self::Resource(resource.clone())
    }
}

impl From<String> for LogSubject {
    fn from(path: String) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for LogSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => resource.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl AccessLog {
    pub(super) fn new(subject: impl Into<LogSubject>, head: &RequestHead) -> Self {
        let client = head.origin.client.clone();
        let line = client.traffic.access_log.as_ref();
        Self {
            subject: subject.into(),
            outcome: RequestOutcome::Own,
            status: 0,
            began: head.origin.began,
            error: None,
            line: line.map(|_| Box::new(RequestLine::of(&head.request))),
            client,
        }
    }

    pub(super) fn outcome(self, outcome: RequestOutcome) -> Self {
        Self { outcome, ..self }
    }

    pub(super) fn status(self, status: StatusCode) -> Self {
        Self {
            status: status.as_u16(),
            ..self
        }
    }

    /// Records an error. Requests with the same `cause` are reported together.
    pub(super) fn error(self, text: String, cause: String) -> Self {
        Self {
            error: Some(RequestError { text, cause }),
            ..self
        }
    }

    /// Records that the transfer failed.
    pub(super) fn abort(&mut self, reason: String) {
        self.outcome = RequestOutcome::Aborted;
        self.error = Some(RequestError {
            text: format!("sending {} was broken off: {reason}", self.subject),
            cause: reason,
        });
    }

    pub(super) fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// Ends the record of a response of which `bytes` bytes of body were sent.
    pub(super) fn write(&self, bytes: u64) {
        let (began, ended) = (self.began, Instant::now());
        if let Some(kind) = self.outcome.kind() {
            self.client.count(kind, bytes, began, ended);
        }
        let error = self.error.as_ref();
        if let (Some(file), Some(line)) = (&self.client.traffic.access_log, &self.line) {
            file.write(&AccessLine {
                client: self.client.address,
                request: line,
                status: self.status,
                bytes,
                took: ended.saturating_duration_since(began),
                outcome: self.outcome.as_str(),
                resource: &self.subject,
                error: error.map(|error| error.text.as_str()),
            });
        }
        let (client, outcome, status) = (self.client.address, self.outcome.as_str(), self.status);
        match (self.outcome.line(status, error.is_some()), error) {
            (LogLine::Warning, Some(RequestError { text, cause }))
                if !self.client.traffic.is_own_cargo =>
            {
                warn!(once = cause, %client, outcome, status, "{text}");
            }
            (LogLine::Warning | LogLine::Detail, error) => {
                let ms = u64::try_from((ended - began).as_millis()).unwrap_or(u64::MAX);
                let (resource, error) = (&self.subject, error.map(|error| error.text.as_str()));
                debug!(%client, %resource, outcome, status, bytes, ms, error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_warnings_and_ordinary_requests_are_details() {
        use LogLine::{Detail, Warning};
        for (outcome, status, has_error, expected) in [
            (RequestOutcome::Answered(Outcome::Hit), 200, false, Detail),
            (RequestOutcome::Answered(Outcome::Miss), 200, false, Detail),
            (
                RequestOutcome::Answered(Outcome::Stale(StaleReason::Down)),
                200,
                false,
                Detail,
            ),
            (RequestOutcome::Absent, 404, true, Detail),
            (RequestOutcome::Refused, 403, true, Warning),
            (RequestOutcome::MissingOffline, 424, true, Warning),
            (RequestOutcome::MissingDown, 503, true, Warning),
            (RequestOutcome::Failed, 424, true, Warning),
            (RequestOutcome::Aborted, 200, true, Warning),
            (RequestOutcome::Own, 200, false, Detail),
            (RequestOutcome::Own, 403, true, Warning),
            (RequestOutcome::Own, 404, true, Detail),
            (RequestOutcome::Own, 503, true, Detail),
        ] {
            assert_eq!(
                outcome.line(status, has_error),
                expected,
                "{outcome:?} {status}"
            );
        }
    }

    #[test]
    fn bursts_count_requests_for_resources_only() {
        assert_eq!(RequestOutcome::Own.kind(), None);
        let hit = RequestOutcome::Answered(Outcome::Stale(StaleReason::Revalidating));
        assert_eq!(hit.kind(), Some(AnswerKind::Hit));
        assert_eq!(RequestOutcome::Aborted.kind(), Some(AnswerKind::Failed));
    }
}
