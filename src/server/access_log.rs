//! The access log: one record per request.
//!
//! A record is created when the request is routed and is completed along the way. It is written when the response body
//! is dropped, because only then are the number of bytes and the outcome known:
//!
//! ```text
//!   resource="crate `serde 1.0.0`" outcome="hit" status=200 bytes=76424 ms=1
//! ```

use std::{fmt, time::Instant};

use tracing::info;

use crate::resource::Resource;

/// The record of one request.
#[derive(Debug)]
pub(super) struct AccessLog {
    subject: LogSubject,
    outcome: &'static str,
    status: u16,
    began: Instant,
    error: Option<String>,
}

/// The requested resource, formatted only when the record is written.
#[derive(Debug)]
pub(super) enum LogSubject {
    Resource(Resource),
    Path(String),
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
    pub(super) fn new(subject: impl Into<LogSubject>) -> Self {
        Self {
            subject: subject.into(),
            outcome: "own",
            status: 0,
            began: Instant::now(),
            error: None,
        }
    }

    pub(super) fn outcome(self, outcome: &'static str) -> Self {
        Self { outcome, ..self }
    }

    pub(super) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) fn error(self, error: String) -> Self {
        Self {
            error: Some(error),
            ..self
        }
    }

    /// Records that the transfer failed.
    pub(super) fn abort(&mut self, reason: String) {
        self.outcome = "aborted";
        self.error = Some(reason);
    }

    pub(super) fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// Writes the record of a response of which `bytes` bytes of body were sent.
    pub(super) fn write(&self, bytes: u64) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (resource, outcome, status) = (&self.subject, self.outcome, self.status);
        match &self.error {
            None => info!(%resource, outcome, status, bytes, ms),
            Some(error) => info!(%resource, outcome, status, bytes, ms, error),
        }
    }
}
