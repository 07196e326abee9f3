//! What every scene stands on: an upstream at some distance, the project it was made for, cargo and larder set up to use it.
//!
//! What is compared with what is left to the scenes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fake_upstream::{FakeUpstream, Project, from_lock};
use tempfile::TempDir;

use testkit::cargo::{self, CargoHome};
use testkit::larder::Site;

/// Round trips before the first request can be sent: TCP and TLS 1.3.
pub(crate) const DIAL: u32 = 2;

/// An upstream (TLS, HTTP/2) shaped like a lock file, and who uses it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) upstream: FakeUpstream,
    pub(crate) project: Project,
    pub(crate) round_trip: Duration,
    larder: String,
    cargo_in: PathBuf,
    folder: TempDir,
}

/// One command of cargo, from start to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// `cargo fetch --locked`.
    Fetch,
    /// `cargo generate-lockfile`.
    Resolve,
}

/// What a task took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// Requests that reached upstream meanwhile.
    pub(crate) requests: usize,
}

impl Stage {
    /// Cargo's homes are made in `cargo_in`. Without `bytes_per_second` the bandwidth is what loopback gives.
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
            .connect_delay(round_trip * DIAL)
            .max_age(Some(600));
        let builder = match bytes_per_second {
            Some(bytes) => builder.bandwidth(bytes),
            None => builder,
        };
        let upstream = builder.start();
        let folder = TempDir::new().expect("the temporary folder is writable");
        let project = from_lock(lock, &upstream);
        let stage = Self {
            upstream,
            project,
            round_trip,
            larder: larder.to_owned(),
            cargo_in: cargo_in.to_owned(),
            folder,
        };
        std::fs::write(stage.ca_file(), stage.upstream.ca_pem())
            .expect("the temporary folder is writable");
        stage
            .project
            .write(&stage.project_folder())
            .expect("the temporary folder is writable");
        stage
    }

    /// A larder with an empty store.
    pub(crate) fn site(&self) -> Site {
        let ca_file = self.ca_file();
        let ca_file = ca_file
            .to_str()
            .expect("the temporary folder has a plain name");
        Site::new(&self.larder, &self.upstream.url()).variable("LARDER_CA_FILE", ca_file)
    }

    /// The project, with its lock file.
    pub(crate) fn project_folder(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// Runs cargo with an empty home straight to upstream.
    pub(crate) fn direct(&self, task: Task) -> Took {
        self.run(task, &self.upstream.url())
    }

    /// Runs cargo with an empty home with the index at this URL.
    ///
    /// # Panics
    /// If cargo fails, or resolves to something else than is locked.
    pub(crate) fn run(&self, task: Task, index: &str) -> Took {
        let home = CargoHome::empty_in(&self.cargo_in).trust(self.upstream.ca_pem());
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
        // What one run left for the disk to write must not slow down the next.
        rustix::fs::sync();
        let before = self.upstream.requests_for("");
        let run = home.run(&project, arguments, index);
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
