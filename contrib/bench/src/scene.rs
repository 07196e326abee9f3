//! The scenes: what is compared with what, round by round, and which claims the figures must meet.
//!
//! The two sides of a comparison alternate, so that a machine that becomes slower meanwhile slows down both.

use std::path::Path;
use std::time::{Duration, Instant};

use fake_upstream::crate_path;
use serde_json::{Value, json};

use crate::goods;
use crate::hits;
use crate::instructions;
use crate::load;
use crate::million;
use crate::others;
use crate::row::{Row, UNCLAIMED, Unit, rounded};
use crate::stage::{DIAL, Stage, Task, Took};
use testkit::larder::{Larder, Site};

/// The usual distance to upstream.
pub(crate) const NEAR: Duration = Duration::from_millis(40);
/// Another continent, or a phone.
const FAR: Duration = Duration::from_millis(150);
/// larder's default for one outage.
const PATIENCE: f64 = 2.0;
/// Clients that want the same crate at once.
const CROWD: usize = 200;
/// Clients that download the same large file at once.
const STREAMS: usize = 50;

/// What a scene is played with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play<'a> {
    /// The built program.
    pub(crate) larder: &'a str,
    /// The text of the lock file that upstream is shaped like.
    pub(crate) lock: &'a str,
    /// Where cargo's homes are made.
    pub(crate) cargo_in: &'a Path,
    pub(crate) rounds: u32,
}

/// A scene gives one row or a few.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// Whether it is played only when it is asked for.
    pub(crate) opt_in: bool,
    pub(crate) play: fn(&Play<'_>) -> Vec<Row>,
}

/// In the order of the table.
pub(crate) const ALL: &[Scene] = &[
    scene("cold", cold),
    scene("stale", stale_near),
    scene("stale-far", stale_far),
    scene("crowd", crowd),
    scene("hits", hits::play),
    scene("warm-100", warm_slow),
    scene("warm-1000", warm_fast),
    scene("outage", outage),
    scene("memory", memory),
    scene(others::SCENE, others::play),
    Scene {
        opt_in: true,
        ..scene("instructions", instructions::play)
    },
    Scene {
        opt_in: true,
        ..scene("million", million::play)
    },
];

const fn scene(name: &'static str, play: fn(&Play<'_>) -> Vec<Row>) -> Scene {
    Scene {
        name,
        opt_in: false,
        play,
    }
}

impl Play<'_> {
    /// An upstream at this distance, shaped like the lock file.
    pub(crate) fn stage(&self, round_trip: Duration, bytes_per_second: Option<u64>) -> Stage {
        Stage::new(
            self.larder,
            self.lock,
            self.cargo_in,
            round_trip,
            bytes_per_second,
        )
    }
}

/// Every run of cargo meets a larder that was just started on an empty store.
fn cold(play: &Play<'_>) -> Vec<Row> {
    let stage = play.stage(NEAR, None);
    let compare = |task, what: &str, first_claim, reach| {
        let mut row = Row::ratio(
            &format!("{what}, larder empty / direct"),
            first_claim,
            reach,
        );
        let mut waste = waste(&format!("{what}, larder empty"));
        // Stores are deleted at the end: where ext4 has no journal, each new file passes over all inodes that were deleted in
        // the last minute, one by one, which nobody's larder ever meets.
        let sites: Vec<_> = (0..play.rounds).map(|_| stage.site()).collect();
        for site in &sites {
            let direct = stage.direct(task);
            let larder = site.serve(&[]);
            let before = index_requests(&stage);
            let through = stage.run(task, larder.url());
            waste.push_waste(&stage, &larder, before);
            // Still writing, it would slow down the next direct run.
            larder.stop();
            row.push_pair(direct, through);
        }
        [row, waste]
    };
    let fetch = compare(Task::Fetch, "cargo fetch --locked", 1.15, 1.0);
    let resolve = compare(Task::Resolve, "cargo generate-lockfile", 1.2, 1.0);
    fetch.into_iter().chain(resolve).collect()
}

fn stale_near(play: &Play<'_>) -> Vec<Row> {
    stale(play, NEAR, 0.8, 0.55)
}

fn stale_far(play: &Play<'_>) -> Vec<Row> {
    stale(play, FAR, 0.5, 0.3)
}

/// Every run of cargo meets a larder that was just started on a store that has everything and may trust nothing. What it takes if
/// everything may be trusted is cargo's own work; a dial and a round trip more are the least that a cache can take which asks before
/// it answers.
fn stale(play: &Play<'_>, round_trip: Duration, first_claim: f64, reach: f64) -> Vec<Row> {
    let stage = play.stage(round_trip, None);
    let site = filled(&stage);
    let distance = format!("{} ms", round_trip.as_millis());
    let compare = |task, what: &str| {
        let mut row = Row::ratio(
            &format!("{what}, stored but stale / direct, {distance}"),
            first_claim,
            reach,
        );
        let mut waste = waste(&format!("{what}, stored but stale, {distance}"));
        let mut floor = Row::ratio(
            &format!("{what}, stored and fresh / direct, {distance}"),
            UNCLAIMED,
            UNCLAIMED,
        );
        let mut least = Row::ratio(
            &format!("{what}, stored and fresh, and a dial and a round trip / direct, {distance}"),
            UNCLAIMED,
            UNCLAIMED,
        );
        for _ in 0..play.rounds {
            let direct = stage.direct(task);
            let larder = site.serve(&["--max-age", "1d"]);
            let fresh = stage.run(task, larder.url());
            floor.push_pair(direct, fresh);
            let one_volley = (round_trip * (DIAL + 1)).as_secs_f64();
            least.push((fresh.seconds + one_volley) / direct.seconds, json!({}));
            larder.stop();
            let larder = site.serve(&["--max-age", "0s"]);
            let before = index_requests(&stage);
            let through = stage.run(task, larder.url());
            waste.push_waste(&stage, &larder, before);
            larder.stop();
            row.push_pair(direct, through);
        }
        [row, waste, floor, least]
    };
    let fetch = compare(Task::Fetch, "cargo fetch --locked");
    let resolve = compare(Task::Resolve, "cargo generate-lockfile");
    fetch.into_iter().chain(resolve).collect()
}

/// What larder asked for in vain, as a share of all it asked upstream's index.
fn waste(what: &str) -> Row {
    let what = format!("read ahead in vain / index requests upstream, {what}");
    Row::ratio(&what, 0.25, 0.1)
}

/// Index entries that upstream was asked for so far.
fn index_requests(stage: &Stage) -> usize {
    stage.upstream.requests_for("/index/") - stage.upstream.requests_for("/index/config.json")
}

/// A larder that has all that both tasks ask for, and is warmed.
fn filled(stage: &Stage) -> Site {
    let site = stage.site();
    let larder = site.serve(&[]);
    stage.run(Task::Resolve, larder.url());
    larder.stop();
    warm(&site, &stage.project_folder());
    site
}

fn crowd(play: &Play<'_>) -> Vec<Row> {
    let stage = play.stage(NEAR, None);
    // The largest: its download lasts while most of the clients arrive.
    let largest = stage
        .project
        .packages
        .iter()
        .max_by_key(|(name, version)| stage.upstream.body(name, version).len());
    let (name, version) = largest.expect("the lock file names a package");
    let body = stage.upstream.body(name, version);
    let what = format!("requests upstream, {CROWD} clients want one missing crate");
    let mut row = Row {
        unit: Unit::Count,
        ..Row::ratio(&what, 1.0, 1.0)
    };
    for _ in 0..play.rounds {
        let site = stage.site();
        let larder = site.serve(&[]);
        stage.upstream.forget_requests();
        let began = Instant::now();
        let replies = larder.get_at_once(CROWD, &format!("/crates/{name}/{version}/download"));
        let seconds = began.elapsed().as_secs_f64();
        for reply in replies {
            assert!(
                reply.status == 200 && reply.complete && reply.body == body,
                "a client was answered {} with {} bytes of {}",
                reply.status,
                reply.body.len(),
                body.len()
            );
        }
        let crates = stage.upstream.requests_for(&crate_path(name, version));
        let all = stage.upstream.requests_for("");
        larder.stop();
        row.push(
            crates as f64,
            json!({"crate": crates, "all": all, "bytes": body.len(), "seconds": rounded(seconds)}),
        );
    }
    vec![row]
}

fn warm_slow(play: &Play<'_>) -> Vec<Row> {
    warm_twice(play, 100)
}

fn warm_fast(play: &Play<'_>) -> Vec<Row> {
    warm_twice(play, 1000)
}

/// `larder warm` on an empty store, and once more.
fn warm_twice(play: &Play<'_>, megabits: u64) -> Vec<Row> {
    let bytes_per_second = megabits * 1_000_000 / 8;
    let stage = play.stage(NEAR, Some(bytes_per_second));
    // After the dial: one round trip for the index entries, with config.json beside them; one for the crates.
    let round_trips = stage.round_trip * (DIAL + 2);
    let bytes = stage.bytes();
    let needed = bytes as f64 / bytes_per_second as f64 + round_trips.as_secs_f64();
    let packages = stage.project.packages.len();
    let what = format!("larder warm, {packages} packages, empty store / needed, {megabits} Mbit/s");
    let mut first = Row::ratio(&what, 2.5, 1.5);
    let what = format!("larder warm again, nothing to do, {megabits} Mbit/s");
    let mut second = Row {
        unit: Unit::Seconds,
        ..Row::ratio(&what, 0.5, 0.2)
    };
    for _ in 0..play.rounds {
        let site = stage.site();
        rustix::fs::sync();
        let took = warm(&site, &stage.project_folder());
        let raw = json!({"warm": rounded(took), "needed": rounded(needed), "bytes": bytes});
        first.push(took / needed, raw);
        let took = warm(&site, &stage.project_folder());
        second.push(took, json!({}));
    }
    vec![first, second]
}

/// Seconds from start to end of the process.
fn warm(site: &Site, project: &Path) -> f64 {
    let began = Instant::now();
    let output = site.command(&["warm".as_ref(), project.as_os_str()]);
    let seconds = began.elapsed().as_secs_f64();
    assert!(
        output.status.success(),
        "larder warm failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    seconds
}

/// Upstream takes packets and gives none: noticed by a dial, or on a connection that was in use.
fn outage(play: &Play<'_>) -> Vec<Row> {
    let stage = play.stage(NEAR, None);
    let site = filled(&stage);
    let what = "cargo fetch --locked of a warmed project, upstream black-holed, less 2 s / online";
    let mut at_dial = Row::ratio(&format!("{what}; larder started in the dark"), 1.0, 1.0);
    let mut in_use = Row::ratio(&format!("{what}; larder connected before"), 1.0, 1.0);
    for _ in 0..play.rounds {
        let larder = site.serve(&["--max-age", "0s"]);
        let online = stage.run(Task::Fetch, larder.url());
        stage.upstream.black_hole();
        let dark = stage.run(Task::Fetch, larder.url());
        larder.stop();
        in_use.push_outage(online, dark);

        let larder = site.serve(&["--max-age", "0s"]);
        let dark = stage.run(Task::Fetch, larder.url());
        larder.stop();
        at_dial.push_outage(online, dark);
        stage.upstream.revive();
    }
    vec![at_dial, in_use]
}

fn memory(play: &Play<'_>) -> Vec<Row> {
    let stage = play.stage(NEAR, None);
    let row = |what: &str, first_claim, reach| Row {
        unit: Unit::Mebibytes,
        ..Row::ratio(what, first_claim, reach)
    };
    let mut started = row("resident memory, just started", 30.0, 15.0);
    let mut worked = row("resident memory, idle after a cold cargo fetch", 30.0, 15.0);
    let what = format!("most resident memory, {STREAMS} clients stream a component of 80 MB");
    let mut arriving = row(&format!("{what}, not stored before"), 128.0, 64.0);
    let mut stored = row(&format!("{what}, stored"), 128.0, 64.0);
    let component = goods::component(&stage.upstream);
    let dist_server = goods::dist_server(&stage.upstream);
    for _ in 0..play.rounds {
        let site = stage.site();
        let larder = site.serve(&[]);
        let (all, raw) = resident(&larder, "VmRSS:");
        started.push(all, raw);
        stage.run(Task::Fetch, larder.url());
        // Idle means that nothing is under way any more, cargo's connections and larder's writing included, and that the room for a
        // burst was given up, which is so ten seconds after the last request.
        larder.wait_until_idle();
        std::thread::sleep(Duration::from_secs(12));
        let (all, raw) = resident(&larder, "VmRSS:");
        worked.push(all, raw);
        larder.stop();

        // The most that a process ever had is kept by the kernel, so each takes a process of its own.
        for row in [&mut arriving, &mut stored] {
            let larder = site.serve(&["--dist-server", &dist_server]);
            let url = larder.url().trim_end_matches('/');
            let bytes = load::download(url, &component.path, STREAMS, 1);
            assert_eq!(bytes, (STREAMS * component.body.len()) as u64);
            let (all, raw) = resident(&larder, "VmHWM:");
            row.push(all, raw);
            larder.wait_until_idle();
            larder.stop();
        }
    }
    vec![started, worked, arriving, stored]
}

/// Resident memory in MiB, now (`VmRSS:`) or at its most (`VmHWM:`), program file included.
fn resident(larder: &Larder<'_>, which: &str) -> (f64, Value) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", larder.process_id()));
    let status = status.expect("larder runs and this is Linux");
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        rounded(kibibytes.expect("the kernel tells a process's memory in kB") / 1024.0)
    };
    let all = mebibytes(which);
    let raw = json!({
        "figure": all, "rss": mebibytes("VmRSS:"), "anonymous": mebibytes("RssAnon:"), "file": mebibytes("RssFile:"),
    });
    (all, raw)
}

impl Row {
    /// Waits until nothing is under way any more: what is wasted is not waited for by anybody else.
    fn push_waste(&mut self, stage: &Stage, larder: &Larder<'_>, before: usize) {
        larder.wait_until_idle();
        let status = larder.status();
        let count = |name: &str| status["requests"][name].as_u64().unwrap_or_default();
        let (fetched, asked) = (count("ahead-fetched"), count("ahead-asked"));
        let all = index_requests(stage) - before;
        self.push(
            fetched.saturating_sub(asked) as f64 / all.max(1) as f64,
            json!({"ahead_fetched": fetched, "ahead_asked": asked, "index_requests": all}),
        );
    }

    fn push_pair(&mut self, direct: Took, larder: Took) {
        self.push(
            larder.seconds / direct.seconds,
            json!({
                "direct": rounded(direct.seconds), "larder": rounded(larder.seconds),
                "direct_requests": direct.requests, "larder_requests": larder.requests,
            }),
        );
    }

    fn push_outage(&mut self, online: Took, dark: Took) {
        self.push(
            (dark.seconds - PATIENCE) / online.seconds,
            json!({"online": rounded(online.seconds), "dark": rounded(dark.seconds)}),
        );
    }
}
