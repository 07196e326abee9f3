//! Lives the story of a world of cargo, asks `check`, and lets cargo prove the answer.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_upstream::{FakeUpstream, Fault, crate_path};
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project as Checkout, toolchain_folder};
use testkit::larder::{Larder, Site};
use testkit::process::Run;

use super::{CargoWorld, Event, Question, QuestionPath, TruthBy};
use crate::dice::Dice;
use crate::harm::fold;
use crate::outcome::{Outcome, Truth, Verdict, compare};
use crate::project::{GIT_PACKAGE, GIT_TAG, Project, write};
use crate::registry::{Addresses, Dep, Origin, RegistryName, package_table};

/// The folder of the project, below the user's home or beside it.
const PROJECT: &str = "src/app";
/// The name of a cargo script in that folder.
const SCRIPT: &str = "tool.rs";
/// The path of a lock file that is not beside the manifest.
const LOCK_ELSEWHERE: &str = "locks/Cargo.lock";

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
            !self.has_mirror && stage.is_warmed_for(&self.question),
            || self.question.truth != TruthBy::Fetch && !stage.fetch(&self.question).succeeds,
        );
        offline.kill();
        outcome
    }
}

impl CargoWorld {
    /// True if only nightly versions of cargo take the project.
    fn needs_nightly(&self) -> bool {
        self.is_script || self.has_lock_elsewhere == Some(true)
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
struct Stage<'w> {
    world: &'w CargoWorld,
    folder: TempDir,
    site: Site,
    upstream: FakeUpstream,
    corp: FakeUpstream,
    addresses: Addresses,
    /// The settings that `cargo vendor` printed.
    vendored: Option<String>,
    /// The targets of the last event, if that was a `warm` that ended with 0.
    warmed: Option<Vec<String>>,
}

impl<'w> Stage<'w> {
    fn new(world: &'w CargoWorld, larder: &Path) -> Self {
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
        let site = if world.needs_nightly() {
            site.variable("RUSTC_BOOTSTRAP", "1")
        } else {
            site
        };
        let settings = if world.is_corp_unknown {
            String::new()
        } else {
            format!("[registry.corp]\nindex = \"sparse+{}\"\n", addresses.corp)
        };
        write(&folder.path().join("larder.toml"), &settings);
        let mut stage = Self {
            world,
            folder,
            site,
            upstream,
            corp,
            addresses,
            vendored: None,
            warmed: None,
        };
        for package in &world.crates {
            package.publish(stage.registry(package.registry), &stage.addresses);
        }
        if world.project.has_git() {
            stage.make_git();
        }
        stage.use_upstream();
        stage.write_project(&world.project);
        if world.is_locked {
            // A project that cannot be resolved has no lock file.
            stage.cargo(&["generate-lockfile"]);
            stage.change_lock_version();
        }
        if world.is_vendored {
            stage.vendor();
        }
        stage
    }

    fn write_project(&self, project: &Project) {
        let folder = self.project();
        if self.world.is_script {
            return project.write_script(&folder.join(SCRIPT), &self.git_address());
        }
        project.write(&folder, &self.git_address());
        let mut settings = project.settings() + self.vendored.as_deref().unwrap_or_default();
        if self.world.has_lock_elsewhere.is_some() {
            let _ = write!(
                settings,
                "[resolver]\nlockfile-path = \"{LOCK_ELSEWHERE}\"\n"
            );
        }
        if self.world.has_lock_elsewhere == Some(true) {
            settings.push_str("[unstable]\nlockfile-path = true\n");
        }
        if !settings.is_empty() {
            write(&folder.join(".cargo/config.toml"), &settings);
        }
    }

    /// Lets the lock file state an older version. The contents differ only in the addresses of git repositories.
    fn change_lock_version(&self) {
        let path = self.lock_file();
        let (Some(version), Ok(text)) = (self.world.lock_version, fs::read_to_string(&path)) else {
            return;
        };
        let line = match version {
            2 => String::new(),
            version => format!("version = {version}\n"),
        };
        write(&path, &text.replacen("version = 4\n", &line, 1));
    }

    fn project(&self) -> PathBuf {
        let top = if self.world.is_outside_home {
            "srv"
        } else {
            "home"
        };
        self.folder.path().join(top).join(PROJECT)
    }

    /// The path of the project for larder.
    fn path(&self) -> PathBuf {
        if self.world.is_script {
            self.project().join(SCRIPT)
        } else {
            self.project()
        }
    }

    fn lock_file(&self) -> PathBuf {
        let name = match self.world.has_lock_elsewhere {
            Some(true) => LOCK_ELSEWHERE,
            Some(false) | None => "Cargo.lock",
        };
        self.project().join(name)
    }

    fn has_lock(&self) -> bool {
        self.lock_file().exists()
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
        let mut manifest = package_table(GIT_PACKAGE, "0.1.0");
        for dep in &self.world.git_deps {
            manifest.push_str(&dep.toml(registry_line(dep)));
        }
        write(&folder.join("Cargo.toml"), &manifest);
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
            &["tag", GIT_TAG],
        ] {
            let done = Command::new("git")
                .args(arguments)
                .current_dir(&folder)
                .status();
            assert!(done.is_ok_and(|done| done.success()), "git {arguments:?}");
        }
    }

    /// Copies all crates into the project, as `cargo vendor` says.
    fn vendor(&mut self) {
        let run = self.cargo(&["vendor", "--quiet", "vendor"]);
        if run.status.success() {
            self.vendored = Some(run.stdout);
            self.write_project(&self.world.project);
        }
    }

    fn lose_vendored(&self, percent: u32, salt: u64) {
        let Ok(folders) = fs::read_dir(self.project().join("vendor")) else {
            return;
        };
        for folder in folders.flatten() {
            let name = folder.file_name();
            if Dice::new(salt ^ fold(&name.to_string_lossy())).chance(percent) {
                fs::remove_dir_all(folder.path()).expect("the temporary folder is writable");
            }
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
        let mut settings = format!(
            "[source.crates-io]\nreplace-with = \"larder\"\n[registries.larder]\nindex = \"sparse+{address}\"\n\
             [registries.corp]\nindex = \"sparse+{corp}\"\n"
        );
        if !self.world.is_corp_unknown {
            let _ = write!(
                settings,
                "[source.corp]\nregistry = \"sparse+{corp}\"\nreplace-with = \"larder-corp\"\n\
                 [registries.larder-corp]\nindex = \"sparse+{address}registry/corp/\"\n"
            );
        }
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
        let mut arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        let mut home = home;
        if self.world.needs_nightly() {
            // It lets a stable cargo take scripts and unstable settings.
            home = home.variable("RUSTC_BOOTSTRAP", "1");
        }
        if self.world.is_script && folder == self.project() {
            arguments.insert(0, "-Zscript");
            arguments.extend(["--manifest-path", SCRIPT]);
        }
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
        let mut arguments = vec!["--config", &settings, "--max-age", &self.world.max_age];
        arguments.extend(more);
        let larder = self.site.serve(&arguments);
        self.use_larder(larder.url());
        larder
    }

    fn settings(&self) -> String {
        self.folder.path().join("larder.toml").display().to_string()
    }

    fn live(&mut self, event: &Event) {
        if !matches!(event, Event::Gc { .. }) {
            self.warmed = None;
        }
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
            Event::Edit(project) => self.write_project(project),
            Event::Daemon => {
                let larder = self.serve(&[]);
                larder.wait_until_idle();
                larder.stop();
            }
            Event::Gc { flags } => {
                let mut arguments = vec!["gc".to_owned(), "--config".to_owned(), self.settings()];
                arguments.extend(flags.iter().cloned());
                self.site.command(&arguments);
            }
            Event::Add {
                package,
                is_offline,
            } => {
                let larder = self.serve(if *is_offline { &["--offline"] } else { &[] });
                self.cargo(&["add", package]);
                larder.wait_until_idle();
                larder.stop();
            }
            Event::LoseVendored { percent, salt } => self.lose_vendored(*percent, *salt),
            Event::DeleteLock => {
                // The project may have none.
                let _ = fs::remove_file(self.lock_file());
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
        let project = self.path();
        let max_age = ["--max-age", &self.world.max_age];
        let arguments = self.arguments("warm", &project, targets, &max_age);
        let output = self.site.command(&arguments);
        self.warmed = output.status.success().then(|| targets.to_vec());
    }

    fn arguments(
        &self,
        command: &str,
        path: &Path,
        targets: &[String],
        more: &[&str],
    ) -> Vec<String> {
        let path = path.display().to_string();
        let mut all = vec![command.to_owned(), path, "--json".to_owned()];
        all.extend(["--config".to_owned(), self.settings()]);
        let targets = match (self.world.joins_targets, targets.is_empty()) {
            (true, false) => vec![targets.join(",")],
            _ => targets.to_vec(),
        };
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
            manifest.push_str(&dep.toml(registry_line(dep)));
        }
        write(&folder.join("Cargo.toml"), &manifest);
        write(&folder.join("src/lib.rs"), "");
        write(&folder.join("build.rs"), "fn main() {}\n");
        folder
    }

    /// Takes everything away that is beyond this machine: upstream and the git repository.
    fn end_of_the_story(&self) {
        self.both(FakeUpstream::stop);
        if self.world.has_mirror {
            let path = self.project().join(".cargo/config.toml");
            let settings = fs::read_to_string(&path).unwrap_or_default();
            // No such host exists, as on a plane.
            write(
                &path,
                &format!(
                    "{settings}[source.crates-io]\nreplace-with = \"mirror\"\n\
                     [source.mirror]\nregistry = \"sparse+http://mirror.invalid/\"\n"
                ),
            );
        }
        if self.git().exists() {
            let moved = fs::rename(self.git(), self.folder.path().join("git-elsewhere"));
            moved.expect("the temporary folder is writable");
        }
    }

    fn check(&self, question: &Question) -> Verdict {
        let verify: &[&str] = if question.verify { &["--verify"] } else { &[] };
        let path = match &question.path {
            QuestionPath::Project => self.path(),
            QuestionPath::Member(folder) => self.project().join(folder),
            QuestionPath::Manifest => self.project().join("Cargo.toml"),
            QuestionPath::Lock => self.lock_file(),
            QuestionPath::Above => self.project().parent().expect("it is not /").to_owned(),
        };
        let arguments = self.arguments("check", &path, &question.targets, verify);
        let project = if self.world.is_script {
            format!("{PROJECT}/{SCRIPT}")
        } else {
            PROJECT.to_owned()
        };
        Verdict::of_project(&self.site.command(&arguments), &project)
    }

    fn is_warmed_for(&self, question: &Question) -> bool {
        self.warmed.as_ref() == Some(&question.targets)
    }

    /// The folder in which cargo is run for the truth.
    fn truth_folder(&self) -> PathBuf {
        match &self.world.question.path {
            QuestionPath::Member(folder) => self.project().join(folder),
            QuestionPath::Project
            | QuestionPath::Manifest
            | QuestionPath::Lock
            | QuestionPath::Above => self.project(),
        }
    }

    fn truth(&self, question: &Question) -> Truth {
        match question.truth {
            TruthBy::Fetch => self.fetch(question),
            TruthBy::Build | TruthBy::PlainBuild | TruthBy::Test => {
                let is_locked = question.truth != TruthBy::PlainBuild && self.has_lock();
                let locked: &[&str] = if is_locked { &["--locked"] } else { &[] };
                let command: &[&str] = match question.truth {
                    TruthBy::Test => &["test", "--no-run", "--workspace"],
                    TruthBy::Fetch | TruthBy::Build | TruthBy::PlainBuild => {
                        &["build", "--workspace"]
                    }
                };
                self.on_a_copy(&[command, locked].concat())
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
        let home = CargoHome::empty_in(self.folder.path());
        let run = self.cargo_in(&self.truth_folder(), arguments, home);
        if !had_lock {
            let _ = fs::remove_file(self.lock_file());
        }
        run.into()
    }
}

/// The line that names the registry of a dependency on a crate.
fn registry_line(dep: &Dep) -> &'static str {
    if dep.origin == Origin::Corp {
        "registry = \"corp\"\n"
    } else {
        ""
    }
}
