//! Raw HTTP clients that request random paths and compare every answer with the truth.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::http::{Connection, Http};

use crate::tally::Tally;
use crate::truth::{Truth, Verdict};

/// The state that a client of a run needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) truth: &'a Truth,
    pub(crate) tally: &'a Tally,
    /// Clients end when this is true.
    pub(crate) is_over: &'a AtomicBool,
    /// Clients make no requests while this is true.
    pub(crate) is_paused: &'a AtomicBool,
}

/// Time after a refused connection before the next attempt.
const RECONNECT_DELAY: Duration = Duration::from_millis(10);
/// Longest pause between two requests of one client, in milliseconds.
const MAX_PAUSE_MS: u64 = 12;

impl Load<'_> {
    /// Returns whether the client should go on. Waits while clients are paused.
    pub(crate) fn goes_on(&self) -> bool {
        while self.is_paused.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(RECONNECT_DELAY);
        }
        !self.is_over.load(Ordering::Relaxed)
    }

    /// An HTTP/1.1 client: whole bodies, conditional requests, ranges, and answers that it does not read to their end.
    pub(crate) fn http1(&self, http: &Http, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while self.goes_on() {
            let Ok(mut connection) = http.connect() else {
                self.tally.event("connections refused");
                std::thread::sleep(RECONNECT_DELAY);
                continue;
            };
            let mut requests = rng.u32(1..40);
            while requests > 0 && self.goes_on() && self.one(&mut connection, &mut rng) {
                requests -= 1;
                std::thread::sleep(Duration::from_millis(rng.u64(0..MAX_PAUSE_MS)));
            }
        }
    }

    /// One exchange. Returns whether the connection can be used again.
    fn one(&self, connection: &mut Connection, rng: &mut fastrand::Rng) -> bool {
        let path = self.truth.random_path(rng);
        let what = rng.u32(0..100);
        if what < 3 {
            return self.abandon(connection, &path);
        }
        let range = format!("bytes={}-", rng.usize(0..2_000));
        let headers: &[(&str, &str)] = match what {
            // A part of an index entry would be one of a view, which depends on what is stored.
            3..8 if path.starts_with("/crates/") => &[("range", &range)],
            _ => &[],
        };
        let Ok(reply) = connection.get(&path, headers) else {
            self.tally.no_answer();
            return false;
        };
        // A range that begins behind the end of a short body.
        if reply.status == 416 && !headers.is_empty() {
            return reply.complete;
        }
        self.tally
            .answer(&self.truth.judge(&path, &reply), reply.body.len());
        if (8..16).contains(&what)
            && let Some(tag) = reply.header("etag")
        {
            return self.revalidate(connection, &path, tag);
        }
        reply.complete
    }

    /// Asks again with the validator of the last answer.
    fn revalidate(&self, connection: &mut Connection, path: &str, tag: &str) -> bool {
        let Ok(again) = connection.get(path, &[("if-none-match", tag)]) else {
            self.tally.no_answer();
            return false;
        };
        let verdict = match again.status {
            304 => Verdict::Right,
            _ => self.truth.judge(path, &again),
        };
        self.tally.answer(&verdict, again.body.len());
        again.complete
    }

    /// Sends a request and leaves when the answer begins.
    fn abandon(&self, connection: &mut Connection, path: &str) -> bool {
        let sent = connection.send("GET", path, &[]);
        let _ = sent.and_then(|()| connection.wait_for_answer());
        self.tally.event("answers abandoned");
        false
    }

    /// An HTTP/2 client: some requests at once on each connection.
    pub(crate) fn http2(&self, http: &Http, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while self.goes_on() {
            let paths: Vec<_> = (0..rng.usize(2..20))
                .map(|_| self.truth.random_path(&mut rng))
                .collect();
            let texts: Vec<_> = paths.iter().map(String::as_str).collect();
            let Ok(replies) = http.try_get_h2(&texts) else {
                self.tally.event("connections refused");
                std::thread::sleep(RECONNECT_DELAY);
                continue;
            };
            for (path, reply) in paths.iter().zip(replies) {
                match reply {
                    Ok(reply) => {
                        let verdict = self.truth.judge(path, &reply);
                        self.tally.answer(&verdict, reply.body.len());
                    }
                    Err(_) => self.tally.no_answer(),
                }
            }
            std::thread::sleep(Duration::from_millis(rng.u64(0..10 * MAX_PAUSE_MS)));
        }
    }
}
