//! A disk that is filled and freed again under load, on a small file system of its own.
//!
//! ```text
//!   filler takes all space ── load ── SIGKILL, start on the full disk ── load ── filler and old files go ── load ── ...
//! ```
//!
//! Clients get everything throughout: what cannot be stored is passed on. When there is space again, it is stored.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fake_upstream::FakeUpstream;
use tempfile::TempDir;
use testkit::http::Http;
use testkit::larder::{Larder, Site};

use crate::Report;
use crate::inspect::inspect;
use crate::tally::Tally;
use crate::truth::{Truth, Verdict, populate};

/// Size of the file system.
const DISK_BYTES: u64 = 24_000_000;
/// Crates of the registry, of two versions each: twice the disk.
const CRATES: usize = 560;
const LARGEST: usize = 400_000;
/// Length of each phase.
const PHASE: Duration = Duration::from_millis(1_500);
const CLIENTS: u64 = 4;

/// Options of the run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Times that the disk is filled and freed.
    pub rounds: u32,
    /// Chooses clients' requests.
    pub seed: u64,
    pub file_system: FileSystem,
}

/// The kind of the small file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Tmpfs,
    /// In a file, by a loop device.
    Ext4,
}

/// A mounted file system. Unmounted on drop.
#[derive(Debug)]
struct Mount {
    folder: TempDir,
}

impl Mount {
    /// # Errors
    /// If this user cannot mount, or a program for it is missing.
    fn new(kind: FileSystem) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let mount = Self { folder };
        let point = mount.point();
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        match kind {
            FileSystem::Tmpfs => {
                let options = format!("size={DISK_BYTES},mode=0700");
                tool(
                    Command::new("mount")
                        .args(["-t", "tmpfs", "-o", &options, "larder-test"])
                        .arg(&point),
                )?;
            }
            FileSystem::Ext4 => {
                let image = mount.folder.path().join("image");
                let sized = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
                sized.map_err(|error| error.to_string())?;
                tool(
                    Command::new("mkfs.ext4")
                        .args(["-q", "-m", "0"])
                        .arg(&image),
                )?;
                tool(
                    Command::new("mount")
                        .args(["-o", "loop"])
                        .arg(&image)
                        .arg(&point),
                )?;
            }
        }
        Ok(mount)
    }

    fn point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nothing can be done about a failure here.
        let _ = tool(Command::new("umount").arg("--lazy").arg(self.point()));
    }
}

fn tool(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{shown}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Fills and frees the disk.
///
/// # Errors
/// If the file system cannot be mounted here, with the reason.
pub fn run(larder: &Path, options: &Options) -> Result<Report, String> {
    let mount = Mount::new(options.file_system)?;
    let truth = Truth::new(FakeUpstream::start());
    populate(&truth, CRATES, LARGEST);
    let store = mount.point().join("store");
    let site = Site::new(&larder.to_string_lossy(), &truth.upstream.url()).store_in(&store);
    let disk = Disk {
        truth: &truth,
        site: &site,
        mount: &mount,
        tally: Tally::default(),
        rng: fastrand::Rng::with_seed(options.seed),
    };
    Ok(disk.run(options))
}

struct Disk<'a> {
    truth: &'a Truth,
    site: &'a Site,
    mount: &'a Mount,
    tally: Tally,
    rng: fastrand::Rng,
}

impl Disk<'_> {
    fn run(mut self, options: &Options) -> Report {
        let start = Instant::now();
        let mut larder = self.site.serve(&[]);
        self.load("empty disk", &larder);
        for _ in 0..options.rounds {
            self.fill();
            self.load("full disk", &larder);
            self.tally.log(&larder.log());
            larder.kill();
            larder = self.site.serve(&[]);
            self.load("full disk after SIGKILL and start", &larder);
            self.free();
            let before = self.blobs();
            self.load("freed disk", &larder);
            larder.wait_until_idle();
            if self.blobs() <= before {
                self.tally.finding("nothing was stored on the freed disk");
            }
            self.check();
        }
        self.tally.log(&larder.stop());
        Report {
            table: format!(
                "{:?}, {} rounds, seed {}, {:.0} s\n{}",
                options.file_system,
                options.rounds,
                options.seed,
                start.elapsed().as_secs_f64(),
                self.tally.table()
            ),
            findings: self.tally.findings(),
        }
    }

    fn filler(&self) -> PathBuf {
        self.mount.point().join("filler")
    }

    /// Takes all space that is left, to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("the disk was freed");
        for size in [1 << 20, 1 << 16, 1 << 12, 1 << 8, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        // The data may not fit either; then it is full all the more.
        let _ = file.sync_all();
        self.tally.event("times the disk was filled");
    }

    /// Gives the space back, and some of the store's.
    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the file exists");
        let size = format!("{}B", DISK_BYTES / 4);
        let output = self.site.command(&["gc", "--max-size", &size]);
        if !output.status.success() {
            self.tally.finding(&format!("gc: {output:?}"));
        }
    }

    fn blobs(&self) -> u64 {
        inspect(self.site.store(), self.truth).blobs
    }

    /// Some clients for the length of a phase. All their requests must be answered, and rightly.
    fn load(&mut self, phase: &'static str, larder: &Larder<'_>) {
        let is_over = AtomicBool::new(false);
        let (truth, tally) = (self.truth, &self.tally);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let (http, seed, is_over) = (larder.http(), self.rng.u64(..), &is_over);
                scope.spawn(move || request_all(&http, seed, phase, truth, tally, is_over));
            }
            std::thread::sleep(PHASE);
            is_over.store(true, Ordering::Relaxed);
        });
    }

    /// Checks the whole store.
    fn check(&self) {
        let found = inspect(self.site.store(), self.truth);
        for what in &found.findings {
            self.tally.finding(what);
        }
        if found.processes != 1 || !found.staged.is_empty() {
            let (processes, staged) = (found.processes, found.staged);
            self.tally
                .finding(&format!("leftovers: {processes} processes, {staged:?}"));
        }
        let output = self.site.command(&["verify"]);
        if !output.status.success() {
            self.tally.finding(&format!("verify: {output:?}"));
        }
    }
}

fn request_all(
    http: &Http,
    seed: u64,
    phase: &'static str,
    truth: &Truth,
    tally: &Tally,
    is_over: &AtomicBool,
) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut connection = http.connect().expect("larder accepts connections");
    while !is_over.load(Ordering::Relaxed) {
        let path = truth.random_path(&mut rng);
        let reply = match connection.get(&path, &[]) {
            Ok(reply) => reply,
            Err(error) => {
                tally.finding(&format!("{phase}: {path}: {error}"));
                return;
            }
        };
        let verdict = truth.judge(&path, &reply);
        tally.answer(&verdict, reply.body.len());
        tally.event(phase);
        if !matches!(verdict, Verdict::Right | Verdict::Wrong(_)) {
            tally.finding(&format!("{phase}: {path}: {verdict:?} {}", reply.text()));
            return;
        }
    }
}
