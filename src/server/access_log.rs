//! The access log: one line for each request.

use std::{fmt, time::Instant};

use tracing::info;

use crate::resource::Resource;

/// The line that the log gets when a request is over.
#[derive(Debug)]
pub(super) struct AccessLog {
    subject: LogSubject,
    pub(super) outcome: &'static str,
    status: u16,
    began: Instant,
    pub(super) error: Option<String>,
}

/// What a request asked for, to be named when it is over.
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

    pub(super) fn write(&self, bytes: u64) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (resource, outcome, status) = (&self.subject, self.outcome, self.status);
        match &self.error {
            None => info!(%resource, outcome, status, bytes, ms),
            Some(error) => info!(%resource, outcome, status, bytes, ms, error),
        }
    }
}
