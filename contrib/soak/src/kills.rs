//! Rounds of SIGKILL under mixed load, while eviction runs.
//!
//! All rounds share one store. In each, one or two daemons with a small `max-size` serve raw clients, and `gc`, `warm`
//! and `verify` run beside them. All are killed at a random moment. Then nothing lives, and the store is read by a
//! reader of its own; `larder verify` and `larder check` judge it as well. A new daemon must remove what the dead ones
//! left behind, and serve the truth.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fake_upstream::FakeUpstream;
use tempfile::TempDir;
use testkit::larder::{Larder, Site};
use testkit::lock_file::lock_file;

use crate::Report;
use crate::client::Load;
use crate::inspect::{Inspection, inspect};
use crate::tally::Tally;
use crate::tools::{cargo_fetch, random_project};
use crate::truth::{Truth, Verdict, crate_name, populate};
use crate::watch::Peaks;

/// Crates of the registry, of two versions each: four times `MAX_SIZE`.
const CRATES: usize = 320;
const LARGEST: usize = 150_000;
/// The daemons' `max-size`.
const MAX_SIZE: u64 = 4_000_000;
/// Crates of the warmed project.
const PINNED: usize = 10;
/// Paths requested from the daemon that starts after a kill.
const REQUESTED_AFTER: usize = 40;
/// Time within which an idle daemon withdraws its reservation of space.
const RESERVATION_TIME: Duration = Duration::from_secs(5);
/// Slow enough that a kill can interrupt a transfer.
const BANDWIDTH: u64 = 30_000_000;

/// Options of the run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of rounds, each with a kill of all processes.
    pub rounds: u32,
    /// Chooses the load, the moments and the commands.
    pub seed: u64,
}

/// The moment of a kill.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the start of the process, which may not listen yet.
    Starting(Duration),
    /// So long after the start of the load.
    After(Duration),
    /// When upstream has this many requests.
    Requests(usize),
}

impl Moment {
    fn random(rng: &mut fastrand::Rng) -> Self {
        match rng.u32(0..10) {
            0 => Self::Starting(Duration::from_millis(rng.u64(0..80))),
            1..=4 => Self::Requests(rng.usize(1..250)),
            _ => Self::After(Duration::from_millis(rng.u64(0..900))),
        }
    }
}

/// Runs all rounds.
pub fn run(larder: &Path, options: &Options) -> Report {
    let start = Instant::now();
    let truth = Truth::new(FakeUpstream::builder().bandwidth(BANDWIDTH).start());
    populate(&truth, CRATES, LARGEST);
    let program = larder.to_string_lossy();
    let rounds = Rounds {
        truth: &truth,
        site: Site::new(&program, &truth.upstream.url())
            .variable("LARDER_MAX_SIZE", &format!("{MAX_SIZE}B")),
        project: TempDir::new().expect("the temporary folder is writable"),
        tally: Tally::default(),
        peaks: Peaks::default(),
    };
    rounds.warm_project();
    let mut rng = fastrand::Rng::with_seed(options.seed);
    for round in 0..options.rounds {
        rounds.one(round, &mut rng);
    }
    let Rounds { tally, peaks, .. } = rounds;
    let (disk, too_much) = peaks.judge_disk(MAX_SIZE);
    if let Some(finding) = too_much {
        tally.finding(&finding);
    }
    let table = format!(
        "rounds {}, seed {}, {:.0} s\n{}{disk}{:<44} {:>10}\n",
        options.rounds,
        options.seed,
        start.elapsed().as_secs_f64(),
        tally.table(),
        "peak memory of a daemon, MB",
        peaks.memory.load(Ordering::Relaxed) / 1_000_000,
    );
    Report {
        table,
        findings: tally.findings(),
    }
}

struct Rounds<'a> {
    truth: &'a Truth,
    site: Site,
    project: TempDir,
    tally: Tally,
    peaks: Peaks,
}

impl Rounds<'_> {
    /// Warms the project whose crates must survive everything.
    fn warm_project(&self) {
        let names: Vec<_> = (0..PINNED).map(crate_name).collect();
        let lock = lock_file(&self.truth.upstream, &names);
        let path = self.project.path().join("Cargo.lock");
        std::fs::write(path, lock).expect("the temporary folder is writable");
        let warmed = self.site.command(&["warm", &self.project_path()]);
        assert!(warmed.status.success(), "{warmed:?}");
    }

    /// Reads the store beside an idle daemon, which withdraws the reservation of its last downloads a moment later.
    fn inspect_idle(&self) -> Inspection {
        let deadline = Instant::now() + RESERVATION_TIME;
        loop {
            let living = inspect(self.site.store(), self.truth);
            let is_reserved = living.staged.iter().any(|path| path.ends_with("reserved"));
            if !is_reserved || Instant::now() > deadline {
                return living;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn project_path(&self) -> String {
        self.project.path().display().to_string()
    }

    fn finding(&self, round: u32, what: &str) {
        self.tally.finding(&format!("round {round}: {what}"));
    }

    fn one(&self, round: u32, rng: &mut fastrand::Rng) {
        let moment = Moment::random(rng);
        self.truth.upstream.forget_requests();
        if let Moment::Starting(time) = moment {
            let mut starting = self.site.spawn(&["serve", "--listen", "127.0.0.1:0"]);
            std::thread::sleep(time);
            kill(&mut starting);
            self.tally.event("daemons killed while starting");
            self.check(round, rng);
            return;
        }
        let daemons: Vec<_> = (0..rng.usize(1..=2))
            .map(|_| self.site.serve(&[]))
            .collect();
        if rng.u32(0..12) == 0 {
            self.kill_under_cargo(round, daemons, rng);
        } else {
            self.kill_under_load(daemons, moment, rng);
        }
        self.check(round, rng);
    }

    /// Raw clients and commands, until all processes are killed.
    fn kill_under_load(&self, daemons: Vec<Larder<'_>>, moment: Moment, rng: &mut fastrand::Rng) {
        let (is_over, is_paused) = (AtomicBool::new(false), AtomicBool::new(false));
        let load = Load {
            truth: self.truth,
            tally: &self.tally,
            is_over: &is_over,
            is_paused: &is_paused,
        };
        let mut seeds = std::iter::repeat_with(|| rng.u64(..)).take(24);
        let mut seed = || seeds.next().unwrap_or_default();
        std::thread::scope(|scope| {
            let first = daemons.first().map_or(0, Larder::process_id);
            self.peaks.process.store(first, Ordering::Relaxed);
            let is_over = &is_over;
            scope.spawn(|| self.peaks.watch(self.site.store(), is_over));
            for larder in &daemons {
                let http = larder.http().timeout(Duration::from_secs(10));
                for _ in 0..5 {
                    let (http, seed) = (http.clone(), seed());
                    scope.spawn(move || load.http1(&http, seed));
                }
                let seed = seed();
                scope.spawn(move || load.http2(&http, seed));
            }
            for _ in 0..2 {
                let seed = seed();
                scope.spawn(move || self.commands(is_over, seed));
            }
            wait_for(self.truth, moment);
            for larder in daemons {
                self.tally.log(&larder.log());
                larder.kill();
                self.tally.event("daemons killed under load");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        self.peaks.process.store(0, Ordering::Relaxed);
    }

    /// Real cargo, which must succeed although larder is killed and started again.
    fn kill_under_cargo(&self, round: u32, mut daemons: Vec<Larder<'_>>, rng: &mut fastrand::Rng) {
        daemons.truncate(1);
        let Some(larder) = daemons.pop() else { return };
        let url = larder.url().to_owned();
        let project = random_project(self.truth, rng);
        let delay = Duration::from_millis(rng.u64(50..700));
        std::thread::scope(|scope| {
            let cargo = scope.spawn(|| cargo_fetch(self.truth, &project, &url));
            std::thread::sleep(delay);
            larder.kill();
            self.tally.event("daemons killed under cargo");
            let authority = url.trim_start_matches("http://").trim_end_matches('/');
            let larder = self.site.serve_at(authority, &[]);
            match cargo.join().expect("cargo ends") {
                Ok(run) if run.status.success() => self.tally.event("cargo runs that succeeded"),
                Ok(run) => self.finding(round, &format!("cargo failed: {}", run.stderr)),
                Err(finding) => self.finding(round, &finding),
            }
            larder.kill();
        });
    }

    /// Commands beside the daemons, most of them killed.
    fn commands(&self, is_over: &AtomicBool, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (smaller, project) = (format!("{}B", MAX_SIZE * 2 / 3), self.project_path());
        while !is_over.load(Ordering::Relaxed) {
            let (name, arguments) = match rng.u32(0..8) {
                0..3 => ("gc", vec!["gc", "--max-size", &smaller]),
                3..6 => ("warm", vec!["warm", &project]),
                6 => ("verify", vec!["verify"]),
                _ => ("status", vec!["status"]),
            };
            let mut child = self.site.spawn(&arguments);
            let patience = match rng.u32(0..10) {
                0..7 => Duration::from_millis(rng.u64(0..120)),
                _ => Duration::MAX,
            };
            let start = Instant::now();
            while start.elapsed() < patience
                && !is_over.load(Ordering::Relaxed)
                && matches!(child.try_wait(), Ok(None))
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            if matches!(child.try_wait(), Ok(None)) {
                kill(&mut child);
                self.tally.event(match name {
                    "gc" => "gc killed",
                    "warm" => "warm killed",
                    _ => "other commands killed",
                });
            } else {
                let output = child.wait_with_output().expect("the process is ours");
                self.tally.event("commands that ended");
                if !output.status.success() {
                    self.tally.finding(&format!("{name} failed: {output:?}"));
                }
            }
            std::thread::sleep(Duration::from_millis(rng.u64(0..60)));
        }
    }

    /// Checks the store while nothing lives, and then a new daemon on it.
    fn check(&self, round: u32, rng: &mut fastrand::Rng) {
        let left = inspect(self.site.store(), self.truth);
        for what in &left.findings {
            self.finding(round, what);
        }
        self.tally.events(
            "stored files inspected after kills",
            left.blobs + left.entries,
        );
        self.tally
            .events("unfinished files left by kills", left.staged.len() as u64);
        let path = self.project_path();
        for arguments in [&["verify"][..], &["check", &path]] {
            let output = self.site.command(arguments);
            if !output.status.success() {
                self.finding(round, &format!("{arguments:?}: {output:?}"));
            }
        }
        let is_offline = rng.bool();
        let larder = self
            .site
            .serve(if is_offline { &["--offline"] } else { &[] });
        self.request_some(round, &larder, is_offline, rng);
        larder.wait_until_idle();
        let living = self.inspect_idle();
        for what in &living.findings {
            self.finding(round, what);
        }
        if living.processes != 1 || !living.staged.is_empty() {
            let (processes, staged) = (living.processes, living.staged);
            self.finding(
                round,
                &format!("leftovers: {processes} processes, {staged:?}"),
            );
            self.tally.event("LEFTOVERS after a restart");
        }
        self.tally.log(&larder.stop());
    }

    /// Requests some paths, and all of the warmed project, from a daemon that has just started.
    fn request_some(
        &self,
        round: u32,
        larder: &Larder<'_>,
        is_offline: bool,
        rng: &mut fastrand::Rng,
    ) {
        let some = (0..REQUESTED_AFTER).map(|_| (self.truth.random_path(rng), is_offline));
        let pinned = (0..PINNED).map(|number| {
            let path = testkit::paths::download(&crate_name(number), "1.0.0");
            (path, false)
        });
        let mut connection = larder.http().connect().expect("larder accepts connections");
        for (path, may_be_refused) in some.chain(pinned) {
            let reply = connection.get(&path, &[]);
            let Ok(reply) = reply else {
                self.finding(round, &format!("{path}: no answer after the restart"));
                return;
            };
            let verdict = self.truth.judge(&path, &reply);
            self.tally.answer(&verdict, reply.body.len());
            match verdict {
                Verdict::Right | Verdict::Wrong(_) => {}
                Verdict::Refused(424) if may_be_refused => {}
                Verdict::Refused(_) | Verdict::Cut | Verdict::CutWrong => {
                    self.finding(round, &format!("{path}: {verdict:?}: {}", reply.text()));
                }
            }
        }
    }
}

/// Kills a child process and reaps it.
fn kill(child: &mut Child) {
    // Fails only if the process has ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// Returns at this moment.
fn wait_for(truth: &Truth, moment: Moment) {
    match moment {
        Moment::Starting(time) | Moment::After(time) => std::thread::sleep(time),
        Moment::Requests(count) => {
            let deadline = Instant::now() + Duration::from_secs(2);
            while truth.upstream.requests_for("") < count && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    }
}
