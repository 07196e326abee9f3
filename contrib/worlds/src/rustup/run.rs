//! Lives the story of a world of rustup, asks `check`, and lets rustup prove the answer.

use std::path::{Path, PathBuf};

use fake_upstream::{FakeUpstream, Fault, HOST, Installer};
use tempfile::TempDir;
use testkit::larder::{Larder, Site};
use testkit::process::Run;
use testkit::rustup::Rustup;

use super::{Event, Place, Removed, Request, RustupWorld, WORK_FOLDER};
use crate::outcome::{Outcome, Truth, Verdict, compare};
use crate::project::write;
use crate::registry::package_table;

/// The lock file of a project without dependencies.
const LOCK: &str = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n";

impl RustupWorld {
    pub(crate) fn run(&self, larder: &Path) -> Outcome {
        let mut stage = Stage::new(self, larder);
        for event in &self.events {
            stage.live(event);
        }
        stage.upstream.stop();
        let offline = stage.serve(&["--offline"]);
        let verify: &[&str] = if self.verify { &["--verify"] } else { &[] };
        let verdict = Verdict::read(&stage.larder("check", &self.request, verify));
        let truth = Truth::from(stage.truth(&offline));
        let was_warmed = stage.warmed.as_ref() == Some(&self.request);
        let outcome = compare(&verdict, &truth, was_warmed, || {
            // A rustup of another version would ask for them, and `rustup toolchain install` instead of a proxy.
            (lacks_only_rustup(&verdict, &offline)
                && (!lacks_newest_release(&verdict) || stage.install_fails(&stage.user, &offline)))
                || (self.request.place == Place::Command
                    && stage.install_fails(&stage.another_user(), &offline))
        });
        offline.kill();
        outcome
    }
}

/// True if `check` misses nothing but files of rustup itself that larder cannot serve.
fn lacks_only_rustup(verdict: &Verdict, offline: &Larder<'_>) -> bool {
    let toolchains = verdict.document["toolchains"].as_array();
    let mut toolchains = toolchains.into_iter().flatten();
    let failed = verdict.document["failed"].as_array();
    let mut failed = failed.into_iter().flatten();
    toolchains.all(|toolchain| toolchain["ready"] == true)
        && failed.all(|problem| {
            let what = problem["what"].as_str().unwrap_or_default();
            let path = what.split('`').nth(1).unwrap_or_default();
            let path = path.strip_prefix("rustup/").unwrap_or(path);
            offline.get(&format!("/rustup/{path}")).status != 200
        })
}

/// True if `check` misses the file that tells rustup's newest release, which only `rustup toolchain install` reads.
fn lacks_newest_release(verdict: &Verdict) -> bool {
    verdict.document["failed"]
        .to_string()
        .contains("release-stable.toml")
}

/// The world's server and folders.
struct Stage<'w> {
    world: &'w RustupWorld,
    folder: TempDir,
    site: Site,
    upstream: FakeUpstream,
    /// The user whose rustup gives the truth.
    user: Rustup,
    /// The request of the last event, if that was a `warm` that ended with 0.
    warmed: Option<Request>,
}

impl<'w> Stage<'w> {
    fn new(world: &'w RustupWorld, larder: &Path) -> Self {
        let upstream = FakeUpstream::start();
        for release in &world.releases {
            upstream.release(&release.toolchain());
        }
        let folder = TempDir::new().expect("the temporary folder is writable");
        let user = Rustup::without_toolchain();
        let site = Site::new(&larder.display().to_string(), &upstream.url())
            .variable("RUSTUP_HOME", &user.home().display().to_string());
        let stage = Self {
            world,
            folder,
            site,
            upstream,
            user,
            warmed: None,
        };
        stage.release_rustup(&world.rustup);
        if let Some(installed) = &world.installed {
            let server = stage.upstream.base_url();
            stage.install(&stage.user, installed, server);
        }
        stage.write_settings(&stage.user);
        stage
    }

    fn release_rustup(&self, version: &str) {
        self.upstream.release_rustup(&Installer::new(version));
    }

    /// The settings that all commands of larder get.
    fn shared(&self, max_age: bool) -> Vec<String> {
        let mut shared = vec![
            "--dist-server".to_owned(),
            self.upstream.base_url().to_owned(),
        ];
        if max_age {
            shared.extend(["--max-age".to_owned(), self.world.max_age.clone()]);
        }
        if let Some(format) = &self.world.format {
            shared.extend(["--toolchain-format".to_owned(), format.clone()]);
        }
        shared
    }

    fn larder(&self, command: &str, request: &Request, more: &[&str]) -> std::process::Output {
        let mut arguments = vec![command.to_owned(), "--json".to_owned()];
        if self.world.has_host {
            arguments.extend(["--host".to_owned(), HOST.to_owned()]);
        }
        arguments.extend(self.shared(command == "warm"));
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        match request.file() {
            Some((name, text)) => {
                let folder = self.folder_for(request);
                let _ = std::fs::remove_dir_all(&folder);
                write_file(&folder, name, &text);
                arguments.push(folder.display().to_string());
            }
            None if matches!(request.place, Place::Default | Place::Override) => {
                let folder = self.folder_for(request);
                write(&folder.join("Cargo.toml"), &package_table("app", "0.1.0"));
                write(&folder.join("Cargo.lock"), LOCK);
                write(&folder.join("src/lib.rs"), "");
                arguments.push(folder.display().to_string());
            }
            None => {
                let flags = ["--profile", "--component", "--target"];
                let mut request = request.clone();
                if self.world.joins_targets && !request.targets.is_empty() {
                    request.targets = vec![request.targets.join(",")];
                }
                arguments.extend(request.flags("--toolchain", flags));
            }
        }
        self.site.command(&arguments)
    }

    fn serve(&self, more: &[&str]) -> Larder<'_> {
        let shared = self.shared(true);
        let mut arguments: Vec<_> = shared.iter().map(String::as_str).collect();
        arguments.extend(more);
        self.site.serve(&arguments)
    }

    /// The folder with a toolchain file: the user's, if the user wants that toolchain.
    fn folder_for(&self, request: &Request) -> PathBuf {
        if *request == self.world.request {
            self.user.work_folder()
        } else {
            self.folder.path().join("wanted")
        }
    }

    /// Another user with rustup, the same settings, and no toolchain.
    fn another_user(&self) -> Rustup {
        let user = Rustup::without_toolchain();
        self.write_settings(&user);
        user
    }

    fn write_settings(&self, user: &Rustup) {
        let work = user.work_folder().display().to_string();
        if let Some(settings) = &self.world.settings {
            let settings = settings.replace(WORK_FOLDER, &work);
            write(&user.home().join("settings.toml"), &settings);
        }
    }

    fn truth(&self, larder: &Larder<'_>) -> Run {
        let server = larder.url();
        let request = &self.world.request;
        let another = self.world.has_host.then(|| self.another_user());
        let user = another.as_ref().unwrap_or(&self.user);
        if !self.world.is_by_proxy {
            return self.install(user, request, server);
        }
        if let Some((name, text)) = request.file() {
            write_file(&user.work_folder(), name, &text);
        }
        let server = server.trim_end_matches('/');
        let mut command = user.command("rustc", server, &format!("{server}/rustup"));
        command.arg("--version");
        testkit::process::run(command)
    }

    /// True if this user cannot install the toolchain by `rustup toolchain install`.
    fn install_fails(&self, user: &Rustup, larder: &Larder<'_>) -> bool {
        let run = self.install(user, &self.world.request, larder.url());
        !run.status.success()
    }

    fn install(&self, user: &Rustup, request: &Request, server: &str) -> Run {
        let mut arguments = vec!["toolchain".to_owned(), "install".to_owned()];
        match request.file() {
            Some((name, text)) => write_file(&user.work_folder(), name, &text),
            None => arguments.extend(request.flags("", ["--profile", "-c", "-t"])),
        }
        self.rustup(user, &arguments, server)
    }

    fn rustup(&self, user: &Rustup, arguments: &[String], server: &str) -> Run {
        let server = server.trim_end_matches('/');
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        user.run(&arguments, server, &format!("{server}/rustup"))
    }

    fn live(&mut self, event: &Event) {
        // Without `--keep-last-stables` and the like, it never removes what was warmed.
        if !matches!(event, Event::Gc(flags) if !flags.iter().any(|flag| flag.starts_with("--keep")))
        {
            self.warmed = None;
        }
        match event {
            Event::Warm(request) => {
                let output = self.larder("warm", request, &[]);
                self.warmed = output.status.success().then(|| request.clone());
            }
            Event::Install(request) | Event::Check(request) => {
                let larder = self.serve(&[]);
                let user = self.another_user();
                self.install(&user, request, larder.url());
                larder.wait_until_idle();
                if matches!(event, Event::Check(_)) {
                    self.rustup(&user, &["check".to_owned()], larder.url());
                    larder.wait_until_idle();
                }
                larder.stop();
            }
            Event::OwnInstall(request) => {
                let larder = self.serve(&[]);
                self.install(&self.user, request, larder.url());
                larder.wait_until_idle();
                larder.stop();
                let _ = std::fs::remove_dir_all(self.user.work_folder());
                std::fs::create_dir_all(self.user.work_folder())
                    .expect("the temporary folder is writable");
            }
            Event::Release(release) => self.upstream.release(&release.toolchain()),
            Event::ReleaseRustup(version) => self.release_rustup(version),
            Event::Remove(release, removed) => self.remove(&release.toolchain(), removed),
            Event::Down => self.upstream.stop(),
            Event::Broken => self.upstream.fault("", Fault::Status(500)),
            Event::Up => {
                self.upstream.clear_faults();
                self.upstream.restart();
            }
            Event::Harm(harm) => {
                harm.apply(self.site.store());
            }
            Event::Gc(flags) => {
                let mut arguments = vec!["gc".to_owned()];
                arguments.extend(self.shared(false));
                arguments.extend(flags.iter().cloned());
                self.site.command(&arguments);
            }
        }
    }

    fn remove(&self, release: &fake_upstream::Toolchain, removed: &Removed) {
        let paths = match removed {
            Removed::Manifests => release.manifest_paths(),
            Removed::Package(package) => {
                let target = if package == "rust-src" { "*" } else { HOST };
                let path = release.archive_path(package, target);
                vec![format!("{path}.xz"), format!("{path}.gz")]
            }
            Removed::RustupRelease => vec!["/rustup/release-stable.toml".to_owned()],
        };
        for path in paths {
            self.upstream.remove_static(&path);
        }
    }
}

/// Writes a toolchain file, and the toolchain beside it that it may name by path.
fn write_file(folder: &Path, name: &str, text: &str) {
    let text = text.replace(WORK_FOLDER, &folder.display().to_string());
    write(&folder.join(name), &text);
    if text.contains("path = ") {
        let rustc = folder.join("own/bin/rustc");
        write(&rustc, "");
        std::fs::remove_file(&rustc).expect("it was just written");
        std::fs::copy("/bin/true", &rustc).expect("the temporary folder is writable");
    }
}
