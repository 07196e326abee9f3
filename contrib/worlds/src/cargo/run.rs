//! Lives the story of a world of cargo, asks `check`, and lets cargo prove the answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_upstream::{FakeUpstream, Fault, crate_path};
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project as Checkout, toolchain_folder};
use testkit::larder::{Larder, Site};
use testkit::process::Run;

use super::{CargoWorld, Event, Question, TruthBy};
use crate::outcome::{Outcome, Truth, Verdict, compare};
use crate::project::{GIT_PACKAGE, write};
use crate::registry::{Addresses, Dep, Origin, RegistryName, package_table};

/// The folder of the project, below the user's home or beside it.
const PROJECT: &str = "src/app";

impl CargoWorld {
    pub(crate) fn run(&self, larder: &Path) -> Outcome {
        let mut stage = Stage::new(self, larder);
        for event in &self.events {
            stage.live(event);
        }
        stage.end_of_the_story();
        let offline = stage.serve(&["--offline"]);
        let verdict = stage.check(&self.question);
        let truth = stage.truth(&self.question);
        let outcome = compare(
            &verdict,
            &truth,
            stage.is_warmed_for(&self.question),
            || self.question.truth != TruthBy::Fetch && !stage.fetch(&self.question).succeeds,
        );
        offline.kill();
        outcome
    }
}

/// The world's servers and folders.
///
/// ```text
///   home/.cargo/config.toml   the user's settings: larder, or upstream itself
///   home/src/app              the project, or srv/src/app
///   home/src/other            another project
///   git                       a git repository, which is not there when the truth is asked
/// ```
struct Stage {
    folder: TempDir,
    site: Site,
    upstream: FakeUpstream,
    corp: FakeUpstream,
    addresses: Addresses,
    is_outside_home: bool,
    max_age: String,
    /// The targets of the last event, if that was a `warm` that ended with 0.
    warmed: Option<Vec<String>>,
}

impl Stage {
    fn new(world: &CargoWorld, larder: &Path) -> Self {
        let (upstream, corp) = (FakeUpstream::start(), FakeUpstream::start());
        let addresses = Addresses {
            crates_io: upstream.url(),
            corp: corp.url(),
        };
        let folder = TempDir::new().expect("the temporary folder is writable");
        let tools = toolchain_folder();
        let site = Site::new(&larder.display().to_string(), &addresses.crates_io)
            .variable("HOME", &folder.path().join("home").display().to_string())
            .variable("CARGO", &tools.join("cargo").display().to_string())
            .variable(
                "PATH",
                &format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display()),
            );
        let settings = format!("[registry.corp]\nindex = \"sparse+{}\"\n", addresses.corp);
        write(&folder.path().join("larder.toml"), &settings);
        let stage = Self {
            folder,
            site,
            upstream,
            corp,
            addresses,
            is_outside_home: world.is_outside_home,
            max_age: world.max_age.clone(),
            warmed: None,
        };
        for package in &world.crates {
            package.publish(stage.registry(package.registry), &stage.addresses);
        }
        if world.project.has_git() {
            stage.make_git();
        }
        world.project.write(&stage.project(), &stage.git_address());
        stage.use_upstream();
        if world.is_locked {
            // A project that cannot be resolved has no lock file.
            stage.cargo(&["generate-lockfile"]);
        }
        if world.is_vendored {
            stage.vendor();
        }
        stage
    }

    fn project(&self) -> PathBuf {
        let top = if self.is_outside_home { "srv" } else { "home" };
        self.folder.path().join(top).join(PROJECT)
    }

    fn has_lock(&self) -> bool {
        self.project().join("Cargo.lock").exists()
    }

    fn registry(&self, name: RegistryName) -> &FakeUpstream {
        match name {
            RegistryName::CratesIo => &self.upstream,
            RegistryName::Corp => &self.corp,
        }
    }

    fn git(&self) -> PathBuf {
        self.folder.path().join("git")
    }

    fn git_address(&self) -> String {
        format!("file://{}", self.git().display())
    }

    fn make_git(&self) {
        let folder = self.git();
        write(
            &folder.join("Cargo.toml"),
            &package_table(GIT_PACKAGE, "0.1.0"),
        );
        write(&folder.join("src/lib.rs"), "");
        for arguments in [
            &["init", "--quiet"][..],
            &["add", "."],
            &[
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@b",
                "commit",
                "--quiet",
                "-m",
                "all",
            ],
        ] {
            let done = Command::new("git")
                .args(arguments)
                .current_dir(&folder)
                .status();
            assert!(done.is_ok_and(|done| done.success()), "git {arguments:?}");
        }
    }

    /// Copies all crates into the project, as `cargo vendor` says.
    fn vendor(&self) {
        let run = self.cargo(&["vendor", "--quiet", "vendor"]);
        if run.status.success() {
            write(&self.project().join(".cargo/config.toml"), &run.stdout);
        }
    }

    /// Settings with which cargo asks upstream itself.
    fn use_upstream(&self) {
        let Addresses { crates_io, corp } = &self.addresses;
        let settings = format!(
            "[source.crates-io]\nreplace-with = \"direct\"\n[registries.direct]\nindex = \"sparse+{crates_io}\"\n\
             [registries.corp]\nindex = \"sparse+{corp}\"\n"
        );
        write(
            &self.folder.path().join("home/.cargo/config.toml"),
            &settings,
        );
    }

    /// Settings with which cargo asks the larder at this address, as `larder client print` gives them.
    fn use_larder(&self, address: &str) {
        let corp = &self.addresses.corp;
        let settings = format!(
            "[source.crates-io]\nreplace-with = \"larder\"\n[registries.larder]\nindex = \"sparse+{address}\"\n\
             [registries.corp]\nindex = \"sparse+{corp}\"\n\
             [source.corp]\nregistry = \"sparse+{corp}\"\nreplace-with = \"larder-corp\"\n\
             [registries.larder-corp]\nindex = \"sparse+{address}registry/corp/\"\n"
        );
        write(
            &self.folder.path().join("home/.cargo/config.toml"),
            &settings,
        );
    }

    /// Runs cargo in the project with an empty home.
    fn cargo(&self, arguments: &[impl AsRef<str>]) -> Run {
        self.cargo_in(
            &self.project(),
            arguments,
            CargoHome::empty_in(self.folder.path()),
        )
    }

    fn cargo_in(&self, folder: &Path, arguments: &[impl AsRef<str>], home: CargoHome) -> Run {
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        // A real home has the user's settings; cargo reads them there if the project is elsewhere.
        let settings = fs::read_to_string(self.folder.path().join("home/.cargo/config.toml"));
        write(
            &home.path().join("config.toml"),
            &settings.unwrap_or_default(),
        );
        home.run_plain(&Checkout::at(folder), &arguments)
    }

    fn serve(&self, more: &[&str]) -> Larder<'_> {
        let settings = self.settings();
        let mut arguments = vec!["--config", &settings, "--max-age", &self.max_age];
        arguments.extend(more);
        let larder = self.site.serve(&arguments);
        self.use_larder(larder.url());
        larder
    }

    fn settings(&self) -> String {
        self.folder.path().join("larder.toml").display().to_string()
    }

    fn live(&mut self, event: &Event) {
        self.warmed = None;
        match event {
            Event::Warm { targets } => self.warm(targets),
            Event::Fetch => self.fetch_through_larder(&self.project()),
            Event::FetchOther { deps } => self.fetch_through_larder(&self.other_project(deps)),
            Event::Publish(package) => {
                package.publish(self.registry(package.registry), &self.addresses);
            }
            Event::Yank {
                registry,
                name,
                version,
            } => self.registry(*registry).yank(name, version),
            Event::RemoveEntry { registry, name } => self.registry(*registry).unpublish(name),
            Event::RemoveCrate {
                registry,
                name,
                version,
            } => {
                self.registry(*registry)
                    .remove_static(&crate_path(name, version));
            }
            Event::Down => self.both(FakeUpstream::stop),
            Event::Broken => self.both(|upstream| upstream.fault("", Fault::Status(500))),
            Event::Up => self.both(|upstream| {
                upstream.clear_faults();
                upstream.stop();
                upstream.restart();
            }),
            Event::Harm(harm) => {
                harm.apply(self.site.store());
            }
            Event::Edit(project) => project.write(&self.project(), &self.git_address()),
            Event::DeleteLock => {
                // The project may have none.
                let _ = fs::remove_file(self.project().join("Cargo.lock"));
            }
            Event::Update => {
                self.use_upstream();
                self.cargo(&["update"]);
            }
        }
    }

    fn both(&self, change: impl Fn(&FakeUpstream)) {
        change(&self.upstream);
        change(&self.corp);
    }

    fn warm(&mut self, targets: &[String]) {
        // The user's cargo would ask upstream itself for what larder does not replace.
        self.use_upstream();
        let output =
            self.site
                .command(&self.arguments("warm", targets, &["--max-age", &self.max_age]));
        self.warmed = output.status.success().then(|| targets.to_vec());
    }

    fn arguments(&self, command: &str, targets: &[String], more: &[&str]) -> Vec<String> {
        let project = self.project().display().to_string();
        let mut all = vec![command.to_owned(), project, "--json".to_owned()];
        all.extend(["--config".to_owned(), self.settings()]);
        all.extend(
            targets
                .iter()
                .flat_map(|target| ["--target".to_owned(), target.clone()]),
        );
        all.extend(more.iter().map(|&argument| argument.to_owned()));
        all
    }

    fn fetch_through_larder(&self, folder: &Path) {
        let larder = self.serve(&[]);
        // The fetch may fail; then it has filled the store with less. Retries would only take time.
        let home = CargoHome::empty_in(self.folder.path()).variable("CARGO_NET_RETRY", "0");
        self.cargo_in(folder, &["fetch"], home);
        larder.wait_until_idle();
        larder.stop();
    }

    fn other_project(&self, deps: &[Dep]) -> PathBuf {
        let folder = self.folder.path().join("home/src/other");
        let mut manifest = package_table("other", "0.1.0");
        for dep in deps {
            let source = if dep.origin == Origin::Corp {
                "registry = \"corp\"\n"
            } else {
                ""
            };
            manifest.push_str(&dep.toml(source));
        }
        write(&folder.join("Cargo.toml"), &manifest);
        write(&folder.join("src/lib.rs"), "");
        write(&folder.join("build.rs"), "fn main() {}\n");
        folder
    }

    /// Takes everything away that is beyond this machine: upstream and the git repository.
    fn end_of_the_story(&self) {
        self.both(FakeUpstream::stop);
        if self.git().exists() {
            let moved = fs::rename(self.git(), self.folder.path().join("git-elsewhere"));
            moved.expect("the temporary folder is writable");
        }
    }

    fn check(&self, question: &Question) -> Verdict {
        let verify: &[&str] = if question.verify { &["--verify"] } else { &[] };
        let arguments = self.arguments("check", &question.targets, verify);
        Verdict::of_project(&self.site.command(&arguments), PROJECT)
    }

    fn is_warmed_for(&self, question: &Question) -> bool {
        self.warmed.as_ref() == Some(&question.targets)
    }

    fn truth(&self, question: &Question) -> Truth {
        match question.truth {
            TruthBy::Fetch => self.fetch(question),
            TruthBy::Build | TruthBy::PlainBuild => {
                let is_locked = question.truth == TruthBy::Build && self.has_lock();
                let locked: &[&str] = if is_locked { &["--locked"] } else { &[] };
                self.on_a_copy(&[&["build", "--workspace"], locked].concat())
            }
        }
    }

    fn fetch(&self, question: &Question) -> Truth {
        let mut arguments = vec!["fetch"];
        if self.has_lock() {
            arguments.push("--locked");
        }
        for target in &question.targets {
            arguments.extend(["--target", target]);
        }
        self.on_a_copy(&arguments)
    }

    /// Runs cargo, and removes the lock file that it may have made.
    fn on_a_copy(&self, arguments: &[&str]) -> Truth {
        let had_lock = self.has_lock();
        let run = self.cargo(arguments);
        if !had_lock {
            let _ = fs::remove_file(self.project().join("Cargo.lock"));
        }
        run.into()
    }
}
