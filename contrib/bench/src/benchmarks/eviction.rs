//! The benchmark `eviction`: hits per second while a daemon removes 10,000 files, compared with a daemon on the same
//! store that removes nothing.
//!
//! ```text
//!   with:     start, eviction begins ── hits ── last file gone ── hits ── TIME since the start
//!   without:  start                  ── hits ── as long        ── hits ── TIME since the start
//! ```
//!
//! A warmed project pins the crates that the clients request, so they stay. Each run starts on a copy of one store.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream};
use serde_json::json;
use tempfile::TempDir;
use testkit::larder::{Larder, Site};
use testkit::lock_file::locked_project;
use testkit::paths::download;

use crate::benchmark::Context;
use crate::fixture::warm;
use crate::row::{Better, Row, rounded};

/// Crates to remove. Each has an index entry and a blob.
const CRATES: usize = 5_000;
/// Crates that clients request, of the same size.
const REQUESTED: usize = 100;
const CRATE_BYTES: usize = 9_000;
const CLIENTS: usize = 4;
/// Length of a run.
const TIME: Duration = Duration::from_secs(10);
/// Time limit of the removal.
const REMOVAL_LIMIT: Duration = Duration::from_secs(300);

/// Hits of one run.
#[derive(Clone, Copy, Debug)]
struct Hits {
    /// Hits per second until the files were gone, or for as long.
    meanwhile: f64,
    /// Hits per second in all of [`TIME`].
    all: f64,
    /// Time until the files were gone.
    removal: Duration,
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

    let row = |what: &str| Row {
        better: Better::More,
        ..Row::ratio(what, 0.95, 1.0)
    };
    let mut meanwhile = row("hits/s while 10,000 files are removed / without");
    let mut all = row("hits/s in ten seconds with the removal / without");
    for round in 0..context.rounds {
        let measure = |evicts, as_long_as| {
            let copy = TempDir::new().expect("the temporary folder is writable");
            let site = Site::new(context.larder, &upstream.url()).store_in(&copy.path().join("s"));
            copy_folder(template.store(), site.store());
            rustix::fs::sync();
            hits(&site, &paths, evicts, as_long_as)
        };
        // The first run of a round tells the second for how long to count.
        let with = measure(true, None);
        let without = measure(false, Some(with.removal));
        let again = measure(true, None);
        let with_meanwhile = f64::midpoint(with.meanwhile, again.meanwhile);
        let with_all = f64::midpoint(with.all, again.all);
        let raw = json!({
            "round": round, "removal_seconds": rounded(with.removal.as_secs_f64()),
            "meanwhile": rounded(with_meanwhile), "meanwhile_without": rounded(without.meanwhile),
            "all": rounded(with_all), "all_without": rounded(without.all),
        });
        meanwhile.push(with_meanwhile / without.meanwhile, raw.clone());
        all.push(with_all / without.all, raw);
    }
    vec![meanwhile, all]
}

fn copy_folder(from: &Path, to: &Path) {
    // Keeps the times, from which larder knows what is fresh.
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|copied| copied.success()), "cannot copy");
}

/// Starts a daemon and counts hits. `as_long_as` is the time to count for if nothing is removed.
fn hits(site: &Site, paths: &[String], evicts: bool, as_long_as: Option<Duration>) -> Hits {
    let arguments: &[&str] = if evicts { &["--max-size", "1B"] } else { &[] };
    let larder = site.serve(arguments);
    let (count, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (http, count, is_over) = (larder.http(), &count, &is_over);
            scope.spawn(move || {
                let mut connection = http.connect().expect("larder accepts connections");
                for path in paths.iter().cycle().skip(client * REQUESTED / CLIENTS) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let reply = connection.get(path, &[]).expect("larder answers");
                    assert!(reply.status == 200 && reply.complete, "{path}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let start = Instant::now();
        let removal = removal_time(&larder, start, evicts, as_long_as);
        let meanwhile = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        std::thread::sleep(TIME.saturating_sub(start.elapsed()));
        let all = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        Hits {
            meanwhile,
            all,
            removal,
        }
    })
}

/// Returns when the files are gone, or after `as_long_as`, with the time since `start`.
fn removal_time(
    larder: &Larder<'_>,
    start: Instant,
    evicts: bool,
    as_long_as: Option<Duration>,
) -> Duration {
    let expected = 2 * CRATES as u64;
    while evicts || start.elapsed() < as_long_as.unwrap_or_default() {
        // Both sides ask for the status, since that costs something.
        let removed = larder.status()["eviction"]["files"].as_u64();
        if evicts && removed.unwrap_or_default() >= expected {
            break;
        }
        assert!(start.elapsed() < REMOVAL_LIMIT, "{removed:?} are removed");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}
