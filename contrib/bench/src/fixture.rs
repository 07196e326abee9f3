//! The fixture of most benchmarks: an upstream at some distance, a project whose packages it has, and cargo and larder
//! set up to use it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fake_upstream::{FakeUpstream, Project, from_lock};
use tempfile::TempDir;

use testkit::cargo::{self, CargoHome};
use testkit::larder::Site;
use testkit::process;

/// Round trips before the first request can be sent: TCP and TLS 1.3.
pub(crate) const DIAL_ROUND_TRIPS: u32 = 2;

/// An upstream (TLS, HTTP/2) with the packages of a lock file, and the project that uses them.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) upstream: FakeUpstream,
    pub(crate) project: Project,
    pub(crate) round_trip: Duration,
    larder: String,
    cargo_in: PathBuf,
    folder: TempDir,
}

/// A cargo command to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// `cargo fetch --locked`.
    Fetch,
    /// `cargo generate-lockfile`.
    Resolve,
}

/// The cost of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// Requests that reached upstream during the run.
    pub(crate) requests: usize,
}

impl Fixture {
    /// Creates cargo's homes in `cargo_in`. `None` leaves the bandwidth unlimited.
    pub(crate) fn new(
        larder: &str,
        lock: &str,
        cargo_in: &Path,
        round_trip: Duration,
        bytes_per_second: Option<u64>,
    ) -> Self {
        let builder = FakeUpstream::builder()
            .tls()
            .delay(round_trip)
            .connect_delay(round_trip * DIAL_ROUND_TRIPS)
            .max_age(Some(600));
        let builder = match bytes_per_second {
            Some(bytes) => builder.bandwidth(bytes),
            None => builder,
        };
        let upstream = builder.start();
        let folder = TempDir::new().expect("the temporary folder is writable");
        let project = from_lock(lock, &upstream);
        let fixture = Self {
            upstream,
            project,
            round_trip,
            larder: larder.to_owned(),
            cargo_in: cargo_in.to_owned(),
            folder,
        };
        std::fs::write(fixture.ca_file(), fixture.upstream.ca_pem())
            .expect("the temporary folder is writable");
        fixture
            .project
            .write(&fixture.project_folder())
            .expect("the temporary folder is writable");
        fixture
    }

    /// A larder with an empty store.
    pub(crate) fn site(&self) -> Site {
        let ca_file = self.ca_file();
        let ca_file = ca_file
            .to_str()
            .expect("the temporary folder's name is UTF-8");
        Site::new(&self.larder, &self.upstream.url()).variable("LARDER_CA_FILE", ca_file)
    }

    /// A larder whose store has everything that both tasks request.
    pub(crate) fn filled_site(&self) -> Site {
        let site = self.site();
        let larder = site.serve(&[]);
        self.run(Task::Resolve, larder.url());
        larder.stop();
        warm(&site, &self.project_folder());
        site
    }

    /// The project, with its lock file.
    pub(crate) fn project_folder(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// Runs cargo with an empty home against upstream itself.
    pub(crate) fn direct(&self, task: Task) -> Took {
        self.run(task, &self.upstream.url())
    }

    /// Runs cargo with an empty home against the index at this URL.
    ///
    /// # Panics
    /// If cargo fails, or resolves to other versions than the lock file's.
    pub(crate) fn run(&self, task: Task, index: &str) -> Took {
        self.measure(task, index, |cargo| cargo)
    }

    /// Runs cargo below `larder run` with an empty home. No daemon may run on the store.
    ///
    /// # Panics
    /// As [`Fixture::run`].
    pub(crate) fn run_below(&self, task: Task, site: &Site) -> Took {
        let below = |cargo| site.run_command(&[], &cargo);
        self.measure(task, &self.upstream.url(), below)
    }

    /// A cargo home that has fetched all packages from upstream itself.
    ///
    /// # Panics
    /// As [`Fixture::run`].
    pub(crate) fn fetched_home(&self) -> CargoHome {
        let home = self.empty_home();
        self.measure_in(&home, Task::Fetch, &self.upstream.url(), |cargo| cargo);
        home
    }

    fn empty_home(&self) -> CargoHome {
        CargoHome::empty_in(&self.cargo_in).trust(self.upstream.ca_pem())
    }

    fn measure(&self, task: Task, index: &str, wrap: impl FnOnce(Command) -> Command) -> Took {
        self.measure_in(&self.empty_home(), task, index, wrap)
    }

    fn measure_in(
        &self,
        home: &CargoHome,
        task: Task,
        index: &str,
        wrap: impl FnOnce(Command) -> Command,
    ) -> Took {
        let folder = TempDir::new_in(&self.cargo_in).expect("the temporary folder is writable");
        self.project
            .write(folder.path())
            .expect("the temporary folder is writable");
        let project = cargo::Project::at(folder.path());
        let arguments: &[&str] = match task {
            Task::Fetch => &["fetch", "--locked"],
            Task::Resolve => {
                std::fs::remove_file(folder.path().join("Cargo.lock"))
                    .expect("the project has a lock file");
                &["generate-lockfile"]
            }
        };
        // Pending disk writes of one run must not slow down the next.
        rustix::fs::sync();
        let before = self.upstream.requests_for("");
        let run = process::run(wrap(home.command_for(&project, arguments, index)));
        run.assert_success();
        assert_eq!(
            project.lock(),
            self.project.lock,
            "cargo changed the lock file"
        );
        Took {
            seconds: run.took.as_secs_f64(),
            requests: self.upstream.requests_for("") - before,
        }
    }

    /// Bytes of all index entries and crates of the project.
    pub(crate) fn bytes(&self) -> u64 {
        let mut names: Vec<_> = self.project.packages.iter().map(|(name, _)| name).collect();
        names.dedup();
        let entries = names
            .into_iter()
            .map(|name| self.upstream.index_body(name).len());
        let crates = self.project.packages.iter();
        let crates = crates.map(|(name, version)| self.upstream.body(name, version).len());
        entries.chain(crates).map(|len| len as u64).sum()
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

/// Runs `larder warm` on a project. Returns the seconds from start to exit of the process.
///
/// # Panics
/// If it fails.
pub(crate) fn warm(site: &Site, project: &Path) -> f64 {
    seconds_of(site, "warm", project)
}

/// Imports a cargo home into the site's store. Returns the seconds it took.
pub(crate) fn import(site: &Site, home: &Path) -> f64 {
    seconds_of(site, "import", home)
}

/// The seconds that a command of larder takes for a folder.
fn seconds_of(site: &Site, command: &str, folder: &Path) -> f64 {
    let began = Instant::now();
    let output = site.command(&[command.as_ref(), folder.as_os_str()]);
    let seconds = began.elapsed().as_secs_f64();
    assert!(
        output.status.success(),
        "larder {command} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    seconds
}

/// A larder whose log goes into a file, as a daemon's does.
pub(crate) fn site_with_log(log: &Path, larder: &str, index: &str) -> Site {
    Site::new(larder, index).shell_prelude(&format!("exec 2>>'{}'", log.display()))
}

/// The arguments with which larder writes an access log, which never becomes `FILE.1`: it is emptied before each
/// measurement.
pub(crate) fn access_log_arguments(log: &Path, format: &str) -> [String; 6] {
    let log = log.display().to_string();
    [
        "--access-log",
        &log,
        "--access-log-format",
        format,
        "--access-log-size",
        "0",
    ]
    .map(str::to_owned)
}
