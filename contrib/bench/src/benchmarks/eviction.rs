//! The benchmark `eviction`: hits per second while a daemon removes 10,000 files, compared with a daemon that removes
//! nothing.
//!
//! ```text
//!   A removes files    hits ─ stopped ─ hits ─ stopped ─ ...  until all are gone
//!   B removes nothing         hits            hits
//! ```
//!
//! Clients alternate between both every [`TURN`], because other work on the machine changes the rate of hits by more
//! than the removal does. A is stopped (`SIGSTOP`) during the turns of B, so that these are free of what the removal
//! costs processors and disk. A warmed project pins the crates that the clients request, so they stay. Both daemons start on
//! copies of one store.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream};
use serde_json::json;
use tempfile::TempDir;
use testkit::http::Connection;
use testkit::larder::Site;
use testkit::lock_file::locked_project;
use testkit::paths::download;

use crate::benchmark::Context;
use crate::fixture::warm;
use crate::load;
use crate::row::{Better, Row, UNCLAIMED, rounded};

/// Crates to remove. Each has an index entry and a blob.
const CRATES: usize = 5_000;
/// Crates that clients request, of the same size.
const REQUESTED: usize = 100;
const CRATE_BYTES: usize = 9_000;
const CLIENTS: usize = 4;
/// Time for which the clients stay with one daemon.
const TURN: Duration = Duration::from_millis(500);
/// Time limit of the removal.
const REMOVAL_LIMIT: Duration = Duration::from_secs(600);

/// Hits of one turn, or of several.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    count: u64,
    seconds: f64,
    /// Processor time of the daemon in seconds.
    used: f64,
}

impl Hits {
    fn rate(self) -> f64 {
        self.count as f64 / self.seconds
    }

    /// Processor time per hit in microseconds.
    fn microseconds(self) -> f64 {
        self.used / self.count as f64 * 1e6
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.seconds += other.seconds;
        self.used += other.used;
    }
}

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let upstream = FakeUpstream::start();
    let (old, requested): (Vec<_>, Vec<_>) = (0..CRATES + REQUESTED)
        .map(|number| format!("evict-{number:05}"))
        .partition(|name| name.as_str() < format!("evict-{CRATES:05}").as_str());
    for name in old.iter().chain(&requested) {
        upstream.publish(Crate::new(name, "1.0.0").padding(CRATE_BYTES));
    }
    let template = Site::new(context.larder, &upstream.url());
    let [old_project, project] = [&old, &requested].map(|names| locked_project(&upstream, names));
    for project in [&old_project, &project] {
        warm(&template, project.path());
    }
    let forget = template.command(&["forget".as_ref(), old_project.path().as_os_str()]);
    assert!(forget.status.success(), "{forget:?}");
    let paths: Vec<_> = requested
        .iter()
        .map(|name| download(name, "1.0.0"))
        .collect();

    let mut rate = Row {
        better: Better::More,
        ..Row::ratio("hits/s while 10,000 files are removed / without", 0.95, 1.0)
    };
    let mut cost = Row::ratio(
        "processor time per hit while 10,000 files are removed / without",
        UNCLAIMED,
        UNCLAIMED,
    );
    for round in 0..context.rounds {
        let copies = [TempDir::new(), TempDir::new()];
        let sites = copies.each_ref().map(|copy| {
            let copy = copy.as_ref().expect("the temporary folder is writable");
            let site = Site::new(context.larder, &upstream.url()).store_in(&copy.path().join("s"));
            copy_folder(template.store(), site.store());
            site
        });
        rustix::fs::sync();
        let [with, without] = alternate(&sites, &paths);
        let raw = json!({
            "round": round, "removal_seconds": rounded(with.seconds),
            "with": rounded(with.rate()), "without": rounded(without.rate()),
            "microseconds": rounded(with.microseconds()),
            "microseconds_without": rounded(without.microseconds()),
        });
        rate.push(with.rate() / without.rate(), raw.clone());
        cost.push(with.microseconds() / without.microseconds(), raw);
    }
    vec![rate, cost]
}

fn copy_folder(from: &Path, to: &Path) {
    // Keeps the times, from which larder knows what is fresh.
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|copied| copied.success()), "cannot copy");
}

/// Starts a daemon on each store, of which the first removes files, and counts hits of both in turns until the files
/// are gone.
fn alternate(sites: &[Site; 2], paths: &[String]) -> [Hits; 2] {
    let [with, without] = [["--max-size", "1B"].as_slice(), &[]];
    let larders = [sites[0].serve(with), sites[1].serve(without)];
    let mut connections = larders.each_ref().map(|larder| {
        let connect = || larder.http().connect().expect("larder accepts connections");
        (0..CLIENTS).map(|_| connect()).collect::<Vec<_>>()
    });
    let mut turn = |side: usize| {
        let before = load::processor_time(&[larders[side].process_id()]);
        let (count, seconds) = hits(&mut connections[side], paths);
        let used = load::processor_time(&[larders[side].process_id()]) - before;
        Hits {
            count,
            seconds,
            used,
        }
    };
    // Each blob is hashed on its first hit.
    let _ = turn(1);
    let start = Instant::now();
    let expected = 2 * CRATES as u64;
    let mut totals = [Hits::default(); 2];
    loop {
        let removed = larders[0].status()["eviction"]["files"].as_u64();
        let removed = removed.unwrap_or_default();
        if removed >= expected {
            return totals;
        }
        assert!(
            start.elapsed() < REMOVAL_LIMIT,
            "{removed} of {expected} files are removed after {REMOVAL_LIMIT:?}"
        );
        totals[0].add(turn(0));
        larders[0].signal("STOP");
        totals[1].add(turn(1));
        larders[0].signal("CONT");
    }
}

/// Requests the paths over these connections for [`TURN`]. Returns the hits, and the time in seconds.
fn hits(connections: &mut [Connection], paths: &[String]) -> (u64, f64) {
    let start = Instant::now();
    let count = std::thread::scope(|scope| {
        let clients = connections.iter_mut().enumerate();
        let clients = clients.map(|(client, connection)| {
            let paths = paths.iter().cycle().skip(client * REQUESTED / CLIENTS);
            scope.spawn(move || {
                let paths = paths.take_while(|_| start.elapsed() < TURN);
                let hits = paths.map(|path| {
                    let reply = connection.get(path, &[]).expect("larder answers");
                    assert!(reply.status == 200 && reply.complete, "{path}");
                });
                hits.count() as u64
            })
        });
        let clients: Vec<_> = clients.collect();
        let clients = clients.into_iter();
        let counts = clients.map(|client| client.join().expect("a client does not panic"));
        counts.sum()
    });
    (count, start.elapsed().as_secs_f64())
}
