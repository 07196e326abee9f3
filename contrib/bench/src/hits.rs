//! The scene `hits`: larder and nginx serve the same bytes from what they hold, both writing their log.
//!
//! The two sides alternate within a round, and nothing is timed before both were seen to give the right answer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::goods::{self, Good};
use crate::load;
use crate::nginx::Nginx;
use crate::row::{Better, Row, UNCLAIMED, rounded};
use crate::scene::Play;
use testkit::http::Http;
use testkit::larder::Site;

/// How long one measurement lasts.
const LASTING: Duration = Duration::from_secs(3);
/// What one measurement downloads of a large file: clients at once, and downloads of each.
const DOWNLOADS: (usize, usize) = (4, 4);

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// The whole, again and again.
    Body,
    /// Whether it has changed.
    Change,
    /// A large whole, whose bytes count and not its requests.
    Bytes,
}

/// One of the two servers.
struct Side<'a> {
    http: Http,
    base: String,
    path: &'a str,
    processes: Vec<u32>,
    log: PathBuf,
}

pub(crate) fn play(play: &Play<'_>) -> Vec<Row> {
    let lacks = load::lacks(&[("nginx", "nginx-light"), ("wrk", "wrk")]);
    let upstream = goods::upstream();
    let small = goods::entry(&upstream, "index entry 3 kB", "small", 3_000);
    let goods = [
        (Want::Body, 1.3, small.clone()),
        (
            Want::Body,
            1.1,
            goods::entry(&upstream, "index entry 165 kB", "large", 165_000),
        ),
        (
            Want::Change,
            1.3,
            Good {
                what: "304 of an index entry of 3 kB",
                ..small
            },
        ),
        (
            Want::Body,
            1.3,
            goods::archive(&upstream, "crate 11 kB", "slim", 11_000),
        ),
        (
            Want::Body,
            1.1,
            goods::archive(&upstream, "crate 306 kB", "stout", 306_000),
        ),
        (Want::Bytes, 1.1, goods::component(&upstream)),
    ];
    let rows = |want, what, reach| {
        let figure = match want {
            Want::Body | Want::Change => "hits per second",
            Want::Bytes => "bytes per second",
        };
        let rate = Row {
            better: Better::More,
            lacks: lacks.clone(),
            ..Row::ratio(&format!("{figure} / nginx, {what}"), 1.0, reach)
        };
        // Other work on the machine takes from the rates of both sides, but adds little to this.
        let cost = Row {
            lacks: lacks.clone(),
            ..Row::ratio(
                &format!("processor time per hit / nginx, {what}"),
                UNCLAIMED,
                UNCLAIMED,
            )
        };
        [rate, cost]
    };
    if lacks.is_some() {
        let missing = goods.iter();
        return missing
            .flat_map(|(want, reach, good)| rows(*want, good.what, *reach))
            .collect();
    }

    let folder = TempDir::new().expect("the temporary folder is writable");
    let log = folder.path().join("larder.log");
    let site = logging_to(&log, play.larder, &upstream.url());
    let dist_server = goods::dist_server(&upstream);
    let larder = site.serve(&["--max-age", "1h", "--dist-server", &dist_server]);
    let nginx = Nginx::before(upstream.base_url());
    for (_, _, good) in &goods {
        check(&larder.http(), &good.path, good);
        check(&nginx.http(), &good.upstream_path, good);
    }
    larder.wait_until_idle();
    upstream.forget_requests();

    let mut all = Vec::new();
    for (want, reach, good) in &goods {
        let sides = [
            Side {
                http: nginx.http(),
                base: nginx.url(),
                path: &good.upstream_path,
                processes: nginx.workers(),
                log: nginx.log(),
            },
            Side {
                http: larder.http(),
                base: larder.url().trim_end_matches('/').to_owned(),
                path: &good.path,
                processes: vec![larder.process_id()],
                log: log.clone(),
            },
        ];
        let [mut rate, mut cost] = rows(*want, good.what, *reach);
        for side in &sides {
            side.check(*want, good);
        }
        for _ in 0..play.rounds {
            let [nginx, larder] = sides.each_ref().map(|side| side.measure(*want));
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
        "what was measured were not hits"
    );
    all
}

/// A larder whose log goes into a file, as a daemon's does.
pub(crate) fn logging_to(log: &Path, larder: &str, index: &str) -> Site {
    Site::new(larder, index).shell_prelude(&format!("exec 2>>'{}'", log.display()))
}

/// Fails unless this is answered with the right bytes.
pub(crate) fn check(http: &Http, path: &str, good: &Good) {
    let reply = http.get(path);
    assert!(
        reply.status == 200 && reply.complete && reply.body == good.body,
        "{}: {path} was answered with {} and {} bytes of {}",
        http.address(),
        reply.status,
        reply.body.len(),
        good.body.len()
    );
}

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Answers or bytes per second.
    rate: f64,
    /// Processor time of the server for one answer.
    microseconds: f64,
}

impl Side<'_> {
    fn check(&self, want: Want, good: &Good) {
        check(&self.http, self.path, good);
        if want == Want::Change {
            let tag = self.tag();
            let reply = self.http.get_with(self.path, &[("if-none-match", &tag)]);
            assert_eq!(
                (reply.status, reply.body.len()),
                (304, 0),
                "{} was asked for a change",
                self.base
            );
        }
    }

    fn tag(&self) -> String {
        let reply = self.http.get(self.path);
        reply.header("etag").expect("an ETag").to_owned()
    }

    fn measure(&self, want: Want) -> Measured {
        load::truncate(&self.log);
        let url = format!("{}{}", self.base, self.path);
        let tag = (want == Want::Change).then(|| self.tag());
        let before = load::processor_time(&self.processes);
        let began = Instant::now();
        let (rate, answers) = match want {
            Want::Body | Want::Change => {
                let headers = tag.as_deref().map(|tag| ("If-None-Match", tag));
                let rate = load::wrk(&url, headers.as_slice(), LASTING);
                (rate, rate * LASTING.as_secs_f64())
            }
            Want::Bytes => {
                let (clients, times) = DOWNLOADS;
                let bytes = load::download(&self.base, self.path, clients, times);
                let rate = bytes as f64 / began.elapsed().as_secs_f64();
                (rate, (clients * times) as f64)
            }
        };
        let used = load::processor_time(&self.processes) - before;
        // Lines may be a moment late.
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
