//! The events of a long run, chosen by the seed, and the calm checks between them.

use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use fake_upstream::{Crate, Toolchain};
use tempfile::TempDir;
use testkit::larder::{Larder, Site};
use testkit::lock_file::lock_file;

use crate::faults;
use crate::inspect::inspect;
use crate::load::{Options, Run};
use crate::tools::{cargo_fetch, has_rustup, random_project, rustup_install};
use crate::truth::{Verdict, crate_name, is_manifest};
use crate::watch::Sample;

/// Time between two calm checks.
const CALM_INTERVAL: Duration = Duration::from_secs(25);
/// Time after the end of all faults within which larder must serve everything.
const RECOVERY_TIME: Duration = Duration::from_secs(60);
/// Time for which a calm daemon is left alone before it is sampled.
const SETTLING_TIME: Duration = Duration::from_secs(2);
/// Time for which larder remembers that upstream does not have a file: the daemon's `max-age`, and a little more.
const ABSENCE_LIFETIME: Duration = Duration::from_millis(1_200);
/// Random paths of a calm check.
const CALM_PATHS: usize = 40;
/// Crates of the warmed project.
const PINNED: usize = 5;
/// Ports outside the range from which systems choose those of clients.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const DAY: i64 = 86_400;

/// Makes the events, and owns the daemon.
pub(crate) struct Driver<'a> {
    run: &'a Run,
    site: &'a Site,
    rng: fastrand::Rng,
    address: String,
    larder: Option<Larder<'a>>,
    has_restarts: bool,
    /// Commands that run beside the daemon.
    commands: Vec<Child>,
    project: TempDir,
    is_upstream_stopped: bool,
    versions: u32,
    releases: u32,
}

impl<'a> Driver<'a> {
    /// Starts the daemon and warms a project.
    pub(crate) fn new(run: &'a Run, site: &'a Site, options: &Options) -> Self {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = std::iter::repeat_with(|| rng.u16(PORTS)).find(free);
        let mut driver = Self {
            run,
            site,
            address: format!("127.0.0.1:{}", port.unwrap_or_default()),
            rng,
            larder: None,
            has_restarts: options.has_restarts,
            commands: Vec::new(),
            project: TempDir::new().expect("the temporary folder is writable"),
            is_upstream_stopped: false,
            versions: 0,
            releases: 0,
        };
        let names: Vec<_> = (0..PINNED).map(crate_name).collect();
        let lock = lock_file(&run.truth.upstream, &names);
        std::fs::write(driver.project.path().join("Cargo.lock"), lock)
            .expect("the temporary folder is writable");
        driver.start(false);
        driver
    }

    /// The daemon's URL, the same after each restart.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn start(&mut self, is_offline: bool) {
        let max_size = format!("{}B", self.run.max_size);
        let mut arguments = vec!["--max-size", &max_size, "--max-age", "1s"];
        // All files are checked several times during a run.
        arguments.extend(["--scrub-interval", "20s"]);
        if is_offline {
            arguments.push("--offline");
        }
        let larder = self.site.serve_at(&self.address, &arguments);
        let process = larder.process_id();
        self.run.peaks.process.store(process, Ordering::Relaxed);
        self.larder = Some(larder);
    }

    /// Ends the daemon, by SIGKILL or in good order.
    fn end(&mut self, kills: bool) {
        let Some(larder) = self.larder.take() else {
            return;
        };
        self.run.disturbances.fetch_add(1, Ordering::SeqCst);
        self.run.peaks.process.store(0, Ordering::Relaxed);
        let process = larder.process_id();
        let log = if kills {
            let log = larder.log();
            larder.kill();
            log
        } else {
            larder.stop()
        };
        self.run.clock.forget(process);
        self.run.tally.log(&log);
    }

    /// Makes events until `length` has passed since `start`, then one more calm check.
    pub(crate) fn drive(&mut self, start: Instant, length: Duration) {
        self.run.is_paused.store(false, Ordering::Relaxed);
        let mut last_calm = Instant::now();
        while start.elapsed() < length {
            std::thread::sleep(Duration::from_millis(self.rng.u64(20..900)));
            self.event();
            if last_calm.elapsed() > CALM_INTERVAL {
                self.calm(start);
                last_calm = Instant::now();
            }
        }
        self.calm(start);
    }

    /// Stops the daemon in good order and looks at what it leaves.
    pub(crate) fn finish(mut self) {
        self.end(false);
        self.tidy();
        let left = inspect(self.site.store(), &self.run.truth);
        if left.processes > 0 {
            let what = format!("{} folders in staging after the end", left.processes);
            self.run.tally.finding(&what);
        }
    }

    fn event(&mut self) {
        self.reap();
        let run = self.run;
        match self.rng.u32(0..40) {
            0..12 => {
                for _ in 0..self.rng.u32(1..8) {
                    let path = run.truth.random_path(&mut self.rng);
                    faults::add(&run.truth.upstream, &path, &mut self.rng);
                    run.tally.event("events: faults");
                }
            }
            12..15 => run.truth.upstream.clear_faults(),
            15..18 => self.publish(),
            18 => self.release(),
            19..21 => self.outage(),
            21..24 if self.has_restarts => {
                self.end(true);
                run.tally.event("events: SIGKILL");
                std::thread::sleep(Duration::from_millis(self.rng.u64(0..400)));
                self.start(false);
                self.check_staging();
            }
            24 if self.has_restarts => {
                self.end(false);
                run.tally.event("events: SIGTERM");
                self.start(false);
            }
            25 if self.has_restarts => {
                self.end(true);
                self.start(true);
                run.tally.event("events: offline phases");
                std::thread::sleep(Duration::from_millis(self.rng.u64(500..3_000)));
                self.end(false);
                self.start(false);
            }
            26..29 => {
                let size = format!("{}B", run.max_size * self.rng.u64(3..9) / 10);
                self.command(&["gc", "--max-size", &size]);
            }
            29..31 => {
                let project = self.project.path().display().to_string();
                self.command(&["warm", &project]);
            }
            31 => self.command(&["verify"]),
            32 => self.command(&["status"]),
            33 => self.kill_commands(),
            34..36 => self.jump(),
            36..38 => self.touch(),
            _ => {}
        }
    }

    /// A new version of a crate, or a yank.
    fn publish(&mut self) {
        let names = self.run.truth.crates();
        let (name, versions) = names
            .iter()
            .nth(self.rng.usize(0..names.len()))
            .expect("there are crates");
        if self.rng.u32(0..3) == 0 {
            // One version stays, so that cargo can resolve every project.
            let version = &versions[self.rng.usize(1..versions.len())];
            self.run.truth.yank(name, version);
            self.run.tally.event("events: yanks");
        } else {
            self.versions += 1;
            let version = format!("1.2.{}", self.versions);
            let package = Crate::new(name, &version).padding(self.rng.usize(100..30_000));
            self.run.truth.publish(name, &version, package);
            self.run.tally.event("events: versions published");
        }
    }

    fn release(&mut self) {
        self.run.disturbances.fetch_add(1, Ordering::SeqCst);
        self.releases += 1;
        let (month, day) = (5 + self.releases / 28 % 8, 1 + self.releases % 28);
        let toolchain = Toolchain::new("stable", &format!("1.95.{}", self.releases))
            .date(&format!("2026-{month:02}-{day:02}"));
        self.run.truth.release(&toolchain);
        self.run.disturbances.fetch_add(1, Ordering::SeqCst);
        self.run.tally.event("events: releases");
    }

    /// A dead or silent upstream for some seconds.
    fn outage(&mut self) {
        let upstream = &self.run.truth.upstream;
        let time = Duration::from_millis(self.rng.u64(300..5_000));
        self.run.tally.event("events: outages");
        if self.rng.bool() {
            upstream.stop();
            self.is_upstream_stopped = true;
            std::thread::sleep(time);
        } else {
            upstream.black_hole();
            std::thread::sleep(time);
            upstream.revive();
        }
        self.bring_upstream_back();
    }

    fn bring_upstream_back(&mut self) {
        if std::mem::take(&mut self.is_upstream_stopped) {
            self.run.truth.upstream.restart();
        }
    }

    fn command(&mut self, arguments: &[&str]) {
        self.run.tally.event("events: commands");
        self.commands.push(self.site.spawn(arguments));
    }

    /// Forgets commands that have ended.
    fn reap(&mut self) {
        let clock = &self.run.clock;
        self.commands.retain_mut(|child| {
            let is_running = matches!(child.try_wait(), Ok(None));
            if !is_running {
                clock.forget(child.id());
            }
            is_running
        });
    }

    fn kill_commands(&mut self) {
        for mut child in std::mem::take(&mut self.commands) {
            let _ = child.kill();
            let _ = child.wait();
            self.run.clock.forget(child.id());
            self.run.tally.event("events: commands killed");
        }
    }

    /// Sets larder's clock to another time, up to a month away, or back to the true one.
    fn jump(&mut self) {
        if self.run.clock.can_jump() {
            let seconds = match self.rng.u32(0..4) {
                0 => 0,
                1 => self.rng.i64(-300..300),
                _ => self.rng.i64(-30 * DAY..30 * DAY),
            };
            self.run.clock.jump(seconds);
            self.run.tally.event("events: clock jumps");
        }
    }

    /// Changes the times of some stored files, into the past or the future.
    fn touch(&mut self) {
        let folder = self.site.store().join("v1");
        let found = walkdir::WalkDir::new(folder).into_iter().flatten();
        let mut files: Vec<PathBuf> = found
            .filter(|found| found.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .filter(|path| !path.components().any(|part| part.as_os_str() == "staging"))
            .collect();
        self.rng.shuffle(&mut files);
        for path in files.iter().take(30) {
            let days = Duration::from_secs(self.rng.u64(0..60) * DAY.unsigned_abs());
            let now = SystemTime::now();
            let time = if self.rng.bool() {
                now + days
            } else {
                now - days
            };
            // Eviction may have removed the file.
            let _ = std::fs::File::open(path).and_then(|file| file.set_modified(time));
        }
        self.run.tally.event("events: file times changed");
    }

    /// After a SIGKILL and a restart: the dead daemon's folder in staging is gone.
    fn check_staging(&mut self) {
        let living = 1 + self.commands.len();
        let folders = std::fs::read_dir(self.site.store().join("v1/staging"));
        let folders = folders.map_or(0, Iterator::count);
        if folders > living {
            self.run.tally.finding(&format!(
                "{folders} folders in staging with {living} living processes"
            ));
        }
    }

    /// Ends all faults and checks that larder recovers, see the head of `load`.
    fn calm(&mut self, start: Instant) {
        let run = self.run;
        run.is_paused.store(true, Ordering::Relaxed);
        run.truth.upstream.clear_faults();
        self.bring_upstream_back();
        // A command may wait long for an answer that a fault has swallowed.
        self.kill_commands();
        let begin = Instant::now();
        std::thread::sleep(ABSENCE_LIFETIME);
        self.must_serve_all(begin);
        let project = random_project(&run.truth, &mut self.rng);
        match cargo_fetch(&run.truth, &project, &self.url()) {
            Ok(done) if done.status.success() => {}
            Ok(done) => run
                .tally
                .finding(&format!("cargo failed in a calm: {}", done.stderr)),
            Err(finding) => run.tally.finding(&finding),
        }
        if has_rustup() {
            match rustup_install(self.url().trim_end_matches('/')) {
                Ok(done) if done.status.success() => {}
                Ok(done) => run
                    .tally
                    .finding(&format!("rustup failed in a calm: {}", done.stderr)),
                Err(finding) => run.tally.finding(&finding),
            }
        }
        let recovered = begin.elapsed();
        if let Some(larder) = &self.larder {
            self.wait_until_idle(larder);
            std::thread::sleep(SETTLING_TIME);
            self.wait_until_idle(larder);
            let mut settled = run.settled.lock().expect("no holder of this lock panics");
            settled.extend(Sample::of(larder.process_id()).map(|now| (start.elapsed(), now)));
        }
        run.tally.event("calm checks");
        run.tally.events(
            "calm checks: milliseconds to recover",
            recovered.as_millis() as u64,
        );
        self.must_be_whole();
        run.is_paused.store(false, Ordering::Relaxed);
    }

    /// Waits until no fetch is in flight and all writes are done.
    fn wait_until_idle(&self, larder: &Larder<'_>) {
        let start = Instant::now();
        loop {
            let status = larder.status();
            if status["fetching"] == 0 && status["storing"] == 0 {
                return;
            }
            if start.elapsed() > RECOVERY_TIME {
                let what = format!("larder is not idle in a calm: {status}");
                return self.run.tally.finding(&what);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Requests paths until each has its newest body.
    fn must_serve_all(&mut self, begin: Instant) {
        let Some(larder) = &self.larder else { return };
        let run = self.run;
        let http = larder.http();
        for _ in 0..CALM_PATHS {
            let path = run.truth.random_path(&mut self.rng);
            loop {
                if is_manifest(&path) {
                    // As rustup does. Without this request, clients get the manifest of the checksum file that was
                    // served last, for a minute.
                    let _ = http.try_get(&format!("{path}.sha256"), &[]);
                }
                let (verdict, text) = match http.try_get(&path, &[]) {
                    Ok(reply) => {
                        let verdict = run.truth.judge(&path, &reply);
                        run.tally.answer(&verdict, reply.body.len());
                        let newest = run.truth.newest(&path);
                        if verdict == Verdict::Right && newest.is_some_and(|new| new == reply.body)
                        {
                            break;
                        }
                        (Some(verdict), reply.text())
                    }
                    Err(error) => (None, error.to_string()),
                };
                if begin.elapsed() > RECOVERY_TIME {
                    let text: String = text.chars().take(300).collect();
                    run.tally.finding(&format!(
                        "{path} is not served in a calm: {verdict:?} {text}"
                    ));
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Starts a process, which removes what killed commands left.
    fn tidy(&self) {
        let size = format!("{}B", self.run.max_size);
        let output = self.site.command(&["gc", "--max-size", &size]);
        if !output.status.success() {
            self.run.tally.finding(&format!("gc: {output:?}"));
        }
    }

    /// Nothing unfinished, nothing damaged, nothing unknown in the store of an idle daemon.
    fn must_be_whole(&self) {
        self.tidy();
        let found = inspect(self.site.store(), &self.run.truth);
        for what in &found.findings {
            self.run.tally.finding(what);
        }
        if found.processes != 1 || !found.staged.is_empty() {
            let what = format!(
                "an idle store has {} processes and {:?} in staging",
                found.processes, found.staged
            );
            self.run.tally.finding(&what);
        }
        let verified = self.site.command(&["verify"]);
        if !verified.status.success() {
            self.run.tally.finding(&format!("verify: {verified:?}"));
        }
    }
}
