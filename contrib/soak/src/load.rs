//! Real cargo and rustup and raw clients in parallel, for a long time, while everything around larder fails.
//!
//! ```text
//!   events:  faults ── releases ── outages ── SIGKILL ── SIGTERM ── gc ── clock jump ── ... ── calm check ── ...
//!   clients: ───────────────────────────────────────────────────────────────────┐  paused  ┌────────────
//! ```
//!
//! In a calm check all faults end and the clients pause. Larder must then serve the newest of everything within a
//! minute, cargo and rustup must succeed, the store must be whole, and memory and descriptors are recorded.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fake_upstream::{FakeUpstream, Toolchain};
use tempfile::TempDir;
use testkit::http::Http;
use testkit::larder::Site;

use crate::Report;
use crate::client::Load;
use crate::clock::Clock;
use crate::events::Driver;
use crate::tally::Tally;
use crate::tools::{cargo_fetch, has_rustup, random_project, rustup_install};
use crate::truth::{Truth, populate};
use crate::watch::{Peaks, Sample};

/// Bytes per second of upstream for all requests together.
const BANDWIDTH: u64 = 40_000_000;
/// Raw clients of HTTP/1.1.
const HTTP1_CLIENTS: u64 = 4;
/// Time that a raw client waits for the next byte: above larder's own limit for a client.
const PATIENCE: Duration = Duration::from_secs(40);

/// Options of the run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the run; the last calm check comes after it.
    pub seconds: u64,
    /// Chooses clients' requests, events and faults.
    pub seed: u64,
    /// The daemon's `max-size` in megabytes. The registry is more than twice as large.
    pub max_size: u64,
    /// True if the daemon is killed and restarted during the run.
    pub has_restarts: bool,
}

/// The state that all threads of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) truth: Truth,
    pub(crate) tally: Tally,
    pub(crate) peaks: Peaks,
    pub(crate) clock: Clock,
    pub(crate) max_size: u64,
    pub(crate) is_over: AtomicBool,
    pub(crate) is_paused: AtomicBool,
    /// Counts restarts and releases: a client that saw one may have seen two generations of a manifest.
    pub(crate) disturbances: AtomicU64,
    /// The daemon after each calm check, with the time since the start of the run.
    pub(crate) settled: Mutex<Vec<(Duration, Sample)>>,
}

/// Runs for the given time.
pub fn run(larder: &Path, options: &Options) -> Report {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let clock = Clock::new(folder.path());
    let mut truth = Truth::new(FakeUpstream::builder().bandwidth(BANDWIDTH).start());
    truth.may_begin_wrong = true;
    let max_size = options.max_size * 1_000_000;
    populate(&truth, crates_for(max_size), largest_for(max_size));
    truth.release(&Toolchain::new("stable", "1.95.0").date("2026-04-16"));
    let site = Site::new(&larder.to_string_lossy(), &truth.upstream.url())
        .variable("LARDER_DIST_SERVER", truth.upstream.base_url());
    let site = clock.install(site);
    let run = Run {
        truth,
        tally: Tally::default(),
        peaks: Peaks::default(),
        clock,
        max_size,
        is_over: AtomicBool::new(false),
        is_paused: AtomicBool::new(true),
        disturbances: AtomicU64::new(0),
        settled: Mutex::default(),
    };
    let start = Instant::now();
    let mut driver = Driver::new(&run, &site, options);
    let url = driver.url();
    std::thread::scope(|scope| {
        scope.spawn(|| run.peaks.watch(site.store(), &run.is_over));
        run.start_clients(scope, &url, options.seed);
        // A panic here, as of a daemon that does not stop, must not leave the clients running.
        let _over = Over(&run.is_over);
        driver.drive(start, Duration::from_secs(options.seconds));
    });
    driver.finish();
    run.report(options, start.elapsed())
}

/// Ends all clients when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Crates of the registry, so that it has two and a half times `max_size`.
fn crates_for(max_size: u64) -> usize {
    // Of twenty crates of two versions: one of the largest, two of an eighth, 17 of 12 kB.
    let twenty = 2 * (largest_for(max_size) * 5 / 4 + 17 * 12_000);
    usize::try_from(max_size * 5 / 2).unwrap_or(usize::MAX) / twenty * 20
}

/// The largest crate in bytes: well below the 5 % by which a limit may be exceeded.
fn largest_for(max_size: u64) -> usize {
    usize::try_from(max_size / 40).unwrap_or(usize::MAX)
}

impl Run {
    fn load(&self) -> Load<'_> {
        Load {
            truth: &self.truth,
            tally: &self.tally,
            is_over: &self.is_over,
            is_paused: &self.is_paused,
        }
    }

    fn start_clients<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        url: &str,
        seed: u64,
    ) {
        let http = Http::to(url).timeout(PATIENCE);
        for client in 0..HTTP1_CLIENTS {
            let http = http.clone();
            scope.spawn(move || self.load().http1(&http, seed ^ (client + 1)));
        }
        scope.spawn(move || self.load().http2(&http, seed ^ 100));
        let of_cargo = url.to_owned();
        scope.spawn(move || self.cargo(&of_cargo, seed ^ 200));
        if has_rustup() {
            let of_rustup = url.trim_end_matches('/').to_owned();
            scope.spawn(move || self.rustup(&of_rustup));
        }
    }

    fn cargo(&self, url: &str, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while self.load().goes_on() {
            let project = random_project(&self.truth, &mut rng);
            match cargo_fetch(&self.truth, &project, url) {
                Ok(run) if run.status.success() => self.tally.event("cargo runs that succeeded"),
                Ok(_) => self.tally.event("cargo runs that were refused"),
                Err(finding) => self.tally.finding(&finding),
            }
            std::thread::sleep(Duration::from_millis(rng.u64(0..1_000)));
        }
    }

    fn rustup(&self, server: &str) {
        while self.load().goes_on() {
            let before = self.disturbances.load(Ordering::SeqCst);
            match rustup_install(server) {
                Ok(run) if run.status.success() => self.tally.event("rustup runs that succeeded"),
                Ok(_) => self.tally.event("rustup runs that were refused"),
                Err(finding) if before == self.disturbances.load(Ordering::SeqCst) => {
                    self.tally.finding(&finding);
                }
                Err(_) => self.tally.event("rustup runs across a release or restart"),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn report(&self, options: &Options, took: Duration) -> Report {
        let (disk, too_much) = self.peaks.judge_disk(self.max_size);
        if let Some(finding) = too_much {
            self.tally.finding(&finding);
        }
        let get = |peak: &AtomicU64| peak.load(Ordering::Relaxed);
        let mut table = format!(
            "seed {}, {:.0} s, max-size {} MB, {} restarts, clock jumps by {}\n{}",
            options.seed,
            took.as_secs_f64(),
            options.max_size,
            if options.has_restarts {
                "with"
            } else {
                "without"
            },
            match self.clock.can_jump() {
                true => "libfaketime and file times",
                false => "file times alone (libfaketime is not installed)",
            },
            self.tally.table()
        );
        let _ = writeln!(
            table,
            "{disk}\n{:>10} {:>10} {:>12} {:>8}",
            "settled at", "memory MB", "descriptors", "threads"
        );
        let mut line = |at: &str, memory: u64, descriptors: u64, threads: u64| {
            let memory = memory as f64 / 1e6;
            let _ = writeln!(
                table,
                "{at:>10} {memory:>10.1} {descriptors:>12} {threads:>8}"
            );
        };
        let settled = self.settled.lock().expect("no holder of this lock panics");
        for (at, sample) in settled.iter() {
            let at = format!("{} s", at.as_secs());
            line(&at, sample.memory, sample.descriptors, sample.threads);
        }
        let peaks = &self.peaks;
        let (memory, descriptors) = (get(&peaks.memory), get(&peaks.descriptors));
        line("peak", memory, descriptors, get(&peaks.threads));
        Report {
            table,
            findings: self.tally.findings(),
        }
    }
}
