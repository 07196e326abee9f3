//! The benchmark `hits`: larder and nginx serve the same stored bytes, and both write an access log.
//!
//! Before the first measurement, both must have given the right answer. Upstream must receive no request during the
//! measurements.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::benchmark::Context;
use crate::fixture::site_with_log;
use crate::load;
use crate::nginx::Nginx;
use crate::payload::{self, Payload};
use crate::row::{Better, Row, UNCLAIMED, rounded};
use testkit::http::Http;

/// Duration of one measurement.
const DURATION: Duration = Duration::from_secs(3);
/// Downloads of a large file in one measurement: concurrent clients, and downloads of each.
const DOWNLOADS: (usize, usize) = (4, 4);

/// The kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// The whole body; requests per second count.
    Body,
    /// A conditional request, answered with 304.
    Conditional,
    /// A large body; bytes per second count.
    Bytes,
}

/// One of the two servers.
struct Server<'a> {
    http: Http,
    base: String,
    path: &'a str,
    processes: Vec<u32>,
    log: PathBuf,
}

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let missing = load::missing_programs(&[("nginx", "nginx-light"), ("wrk", "wrk")]);
    let upstream = payload::upstream();
    let small = payload::entry(&upstream, "index entry 3 kB", "small", 3_000);
    let payloads = [
        (Ask::Body, 1.3, small.clone()),
        (
            Ask::Body,
            1.1,
            payload::entry(&upstream, "index entry 165 kB", "large", 165_000),
        ),
        (
            Ask::Conditional,
            1.3,
            Payload {
                label: "304 of an index entry of 3 kB",
                ..small
            },
        ),
        (
            Ask::Body,
            1.3,
            payload::archive(&upstream, "crate 11 kB", "slim", 11_000),
        ),
        (
            Ask::Body,
            1.1,
            payload::archive(&upstream, "crate 306 kB", "stout", 306_000),
        ),
        (Ask::Bytes, 1.1, payload::component(&upstream)),
    ];
    let rows = |ask, what, reach| {
        let figure = match ask {
            Ask::Body | Ask::Conditional => "hits per second",
            Ask::Bytes => "bytes per second",
        };
        let rate = Row {
            better: Better::More,
            missing: missing.clone(),
            ..Row::ratio(&format!("{figure} / nginx, {what}"), 1.0, reach)
        };
        // Other work on the machine lowers both rates, but adds little to the processor time.
        let cost = Row {
            missing: missing.clone(),
            ..Row::ratio(
                &format!("processor time per hit / nginx, {what}"),
                UNCLAIMED,
                UNCLAIMED,
            )
        };
        [rate, cost]
    };
    if missing.is_some() {
        let missing = payloads.iter();
        return missing
            .flat_map(|(ask, reach, payload)| rows(*ask, payload.label, *reach))
            .collect();
    }

    let folder = TempDir::new().expect("the temporary folder is writable");
    let log = folder.path().join("larder.log");
    let site = site_with_log(&log, context.larder, &upstream.url());
    let dist_server = payload::dist_server(&upstream);
    let larder = site.serve(&["--max-age", "1h", "--dist-server", &dist_server]);
    let nginx = Nginx::before(upstream.base_url());
    for (_, _, payload) in &payloads {
        payload.assert_served(&larder.http(), &payload.path);
        payload.assert_served(&nginx.http(), &payload.upstream_path);
    }
    larder.wait_until_idle();
    upstream.forget_requests();

    let mut all = Vec::new();
    for (ask, reach, payload) in &payloads {
        let servers = [
            Server {
                http: nginx.http(),
                base: nginx.url(),
                path: &payload.upstream_path,
                processes: nginx.workers(),
                log: nginx.log(),
            },
            Server {
                http: larder.http(),
                base: larder.url().trim_end_matches('/').to_owned(),
                path: &payload.path,
                processes: vec![larder.process_id()],
                log: log.clone(),
            },
        ];
        let [mut rate, mut cost] = rows(*ask, payload.label, *reach);
        for server in &servers {
            server.assert_answers(*ask, payload);
        }
        for _ in 0..context.rounds {
            let [nginx, larder] = servers.each_ref().map(|server| server.measure(*ask));
            rate.push(
                larder.rate / nginx.rate,
                json!({"nginx": rounded(nginx.rate), "larder": rounded(larder.rate)}),
            );
            cost.push(
                larder.microseconds / nginx.microseconds,
                json!({
                    "nginx_us": rounded(nginx.microseconds), "larder_us": rounded(larder.microseconds),
                }),
            );
        }
        all.extend([rate, cost]);
    }
    assert_eq!(
        upstream.requests_for(""),
        0,
        "upstream received requests, so these were no hits"
    );
    all
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Answers or bytes per second.
    rate: f64,
    /// Processor time of the server per answer.
    microseconds: f64,
}

impl Server<'_> {
    fn assert_answers(&self, ask: Ask, payload: &Payload) {
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

    fn measure(&self, ask: Ask) -> Measured {
        load::truncate(&self.log);
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
            Ask::Bytes => {
                let (clients, times) = DOWNLOADS;
                let bytes = load::download(&self.base, self.path, clients, times);
                let rate = bytes as f64 / began.elapsed().as_secs_f64();
                (rate, (clients * times) as f64)
            }
        };
        let used = load::processor_time(&self.processes) - before;
        // A server may write its log lines a moment later.
        let deadline = Instant::now() + Duration::from_secs(1);
        while (load::lines(&self.log) as f64) < answers * 0.95 {
            assert!(
                Instant::now() < deadline,
                "{} wrote {} lines about {answers} answers",
                self.base,
                load::lines(&self.log)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Measured {
            rate,
            microseconds: used / answers * 1e6,
        }
    }
}
