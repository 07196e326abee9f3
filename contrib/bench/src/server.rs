//! A server under load: the rate of its answers, and the processor time of each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use testkit::http::Http;
use testkit::larder::Larder;

use crate::load;
use crate::payload::Payload;

/// Duration of one measurement.
const DURATION: Duration = Duration::from_secs(3);
/// Downloads of a large file in one measurement: concurrent clients, and downloads of each.
const DOWNLOADS: (usize, usize) = (4, 4);

/// The kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The whole body; requests per second count.
    Body,
    /// The whole body over HTTP/2, which cargo uses; requests per second count.
    Http2,
    /// A conditional request, answered with 304.
    Conditional,
    /// A large body; bytes per second count.
    Bytes,
}

impl Ask {
    /// The figure that counts.
    pub(crate) fn figure(self) -> &'static str {
        match self {
            Self::Body | Self::Http2 | Self::Conditional => "hits per second",
            Self::Bytes => "bytes per second",
        }
    }
}

/// A running server, and one path of it.
pub(crate) struct Server<'a> {
    pub(crate) http: Http,
    /// The URL without a slash at the end.
    pub(crate) base: String,
    pub(crate) path: &'a str,
    pub(crate) processes: Vec<u32>,
    /// Its access log; `None` if it writes none.
    pub(crate) log: Option<PathBuf>,
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Answers or bytes per second.
    pub(crate) rate: f64,
    /// Processor time of the server per answer.
    pub(crate) microseconds: f64,
}

impl<'a> Server<'a> {
    /// A larder that writes this access log, if any.
    pub(crate) fn of_larder(larder: &Larder<'_>, path: &'a str, log: Option<PathBuf>) -> Self {
        Self {
            http: larder.http(),
            base: larder.url().trim_end_matches('/').to_owned(),
            path,
            processes: vec![larder.process_id()],
            log,
        }
    }

    /// Fails unless the server answers with the payload, or with 304 to a conditional request.
    pub(crate) fn assert_answers(&self, ask: Ask, payload: &Payload) {
        payload.assert_served(&self.http, self.path);
        if ask == Ask::Conditional {
            let tag = self.tag();
            let reply = self.http.get_with(self.path, &[("if-none-match", &tag)]);
            assert_eq!(
                (reply.status, reply.body.len()),
                (304, 0),
                "{} was asked conditionally",
                self.base
            );
        }
    }

    fn tag(&self) -> String {
        let reply = self.http.get(self.path);
        reply.header("etag").expect("an ETag").to_owned()
    }

    /// Requests the path as fast as possible.
    ///
    /// # Panics
    /// If an answer is no success, or the access log lacks more than a twentieth of the answers.
    pub(crate) fn measure(&self, ask: Ask) -> Measured {
        if let Some(log) = &self.log {
            load::truncate(log);
        }
        let url = format!("{}{}", self.base, self.path);
        let tag = (ask == Ask::Conditional).then(|| self.tag());
        let before = load::processor_time(&self.processes);
        let began = Instant::now();
        let (rate, answers) = match ask {
            Ask::Body | Ask::Conditional => {
                let headers = tag.as_deref().map(|tag| ("If-None-Match", tag));
                let rate = load::wrk(&url, headers.as_slice(), DURATION);
                (rate, rate * DURATION.as_secs_f64())
            }
            Ask::Http2 => {
                let rate = load::h2load(&url, DURATION);
                (rate, rate * DURATION.as_secs_f64())
            }
            Ask::Bytes => {
                let (clients, times) = DOWNLOADS;
                let bytes = load::download(&self.base, self.path, clients, times);
                let rate = bytes as f64 / began.elapsed().as_secs_f64();
                (rate, (clients * times) as f64)
            }
        };
        let used = load::processor_time(&self.processes) - before;
        if let Some(log) = &self.log {
            // A server may write its log lines a moment later.
            let deadline = Instant::now() + Duration::from_secs(1);
            while (load::lines(log) as f64) < answers * 0.95 {
                assert!(
                    Instant::now() < deadline,
                    "{} wrote {} lines about {answers} answers",
                    self.base,
                    load::lines(log)
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Measured {
            rate,
            microseconds: used / answers * 1e6,
        }
    }
}
