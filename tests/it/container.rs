//! The files in `contrib/container`, as written: a shell runs their steps, and their health checks must work.
//!
//! A scrubbed home takes the place of the image. The test does not check that image builders can read the files.

use std::path::{Path, PathBuf};
use std::process::Command;

use fake_upstream::{Crate, FakeUpstream, Installer, Toolchain};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::process::{Run, run};
use testkit::rustup::{Rustup, installed, link_tools};

/// The text of a file of `contrib/container`.
#[track_caller]
fn read(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/container");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The instructions of a Containerfile's first stage that builds, each on one line, without comments.
fn first_stage(text: &str) -> Vec<String> {
    let mut instructions = vec![String::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let last = instructions.last_mut().unwrap();
        match line.strip_suffix('\\') {
            Some(part) => last.push_str(part),
            None => {
                last.push_str(line);
                instructions.push(String::new());
            }
        }
    }
    instructions
        .into_iter()
        .skip_while(|line| !line.starts_with("FROM "))
        .skip(1)
        .take_while(|line| !line.starts_with("FROM "))
        .collect()
}

/// The arguments of all instructions that begin with `word`.
fn all_of(word: &str, instructions: &[String]) -> Vec<String> {
    let rest = instructions
        .iter()
        .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    rest.map(str::to_owned).collect()
}

/// Runs the steps of `app.Containerfile` until one fails, as an image builder with these arguments does: in the
/// application's folder, with the environment of `command`.
#[track_caller]
fn build(arguments: &[(&str, &str)], command: impl Fn() -> Command) -> Run {
    let steps = all_of("RUN", &first_stage(&read("app.Containerfile")));
    assert!(steps.len() > 2, "{steps:?}");
    let mut last = None;
    for step in &steps {
        let mut command = command();
        command.envs(arguments.iter().copied()).args(["-c", step]);
        let done = run(command);
        let is_good = done.status.success();
        last = Some(done);
        if !is_good {
            break;
        }
    }
    last.unwrap()
}

fn application(dependency: Option<&str>) -> Project {
    let project = match dependency {
        Some(name) => Project::empty().dep(name, "1"),
        None => Project::empty(),
    };
    project.write("src/main.rs", "fn main() { println!(\"it runs\"); }");
    project
}

/// The output of the program that the last step copies into the image.
#[track_caller]
fn said_by_the_program(project: &Project) -> String {
    let program = project.folder().join("out/bin/project");
    let output = Command::new(program).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The arguments that `larder client print build` prints for this larder.
#[track_caller]
fn printed_arguments(site: &Site) -> Vec<(String, String)> {
    let output = site.command(&["client", "print", "build"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let arguments = text
        .lines()
        .filter_map(|line| line.strip_prefix("--build-arg="))
        .map(|argument| argument.split_once('=').unwrap());
    arguments
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn containerfile_declares_exactly_the_printed_arguments() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let printed = printed_arguments(&site).into_iter().map(|(name, _)| name);
    let declared = |name| {
        let declared = all_of("ARG", &first_stage(&read(name)));
        // Arguments with a default are the file's own.
        declared
            .into_iter()
            .filter(|argument| !argument.contains('='))
            .collect::<Vec<_>>()
    };
    let printed: Vec<_> = printed.collect();
    assert_eq!(declared("app.Containerfile"), printed);
    assert_eq!(declared("Containerfile"), printed);
    larder.stop();
}

#[test]
fn build_with_the_printed_arguments_fetches_every_crate_through_larder() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").file("src/lib.rs", "pub fn f() {}"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let project = application(Some("left"));
    let home = CargoHome::empty();
    home.run(&project, &["generate-lockfile"], larder.url())
        .assert_success();
    // Another, empty home.
    let home = CargoHome::empty();
    upstream.forget_requests();
    let arguments = printed_arguments(&site);
    let arguments: Vec<_> = arguments
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    build(&arguments, || shell(&home, &project)).assert_success();
    assert_eq!(said_by_the_program(&project), "it runs\n");
    assert_eq!(upstream.requests_for("/dl/left"), 1);
    let settings = std::fs::read_to_string(home.path().join("config.toml")).unwrap();
    assert!(settings.contains(larder.url()), "{settings}");
    assert!(!project.lock().contains(larder.url()), "{}", project.lock());
}

#[test]
fn build_without_arguments_uses_no_larder() {
    let project = application(None);
    let home = CargoHome::empty();
    home.run_plain(&project, &["generate-lockfile", "--offline"])
        .assert_success();
    build(&[], || shell(&home, &project)).assert_success();
    assert_eq!(said_by_the_program(&project), "it runs\n");
    assert!(!home.path().join("config.toml").exists());
}

#[test]
fn image_without_rust_installs_rustup_and_the_toolchain_with_one_argument() {
    let upstream = FakeUpstream::start();
    upstream.release(&Toolchain::new("stable", "1.95.0"));
    upstream.release_rustup(&Installer::new("1.29.0").program(std::fs::read(installed()).unwrap()));
    let site = site(&upstream);
    let larder = serve(&site, &upstream);
    let image = Bare::new();
    let project = Project::empty();
    let arguments = [("CARGO_MIRROR", larder.url()), ("TOOLCHAIN", "stable")];
    let last = build(&arguments, || image.shell(&project));
    last.assert_success();
    // The fake cargo prints its version for any command.
    assert_eq!(last.stdout, "cargo 1.95.0 (0123abcde 2026-04-16)\n");
    assert_eq!(upstream.requests_for("/rustup/dist/"), 2);
    assert!(!project.folder().join("rustup-init.sh").exists());
}

#[test]
fn build_without_rust_and_without_larder_names_the_missing_program() {
    let image = Bare::new();
    let project = Project::empty();
    let last = build(&[("TOOLCHAIN", "stable")], || image.shell(&project));
    last.assert_failure()
        .assert_says("this image has no cargo, and no larder was named");
}

#[test]
fn health_checks_distinguish_a_running_larder_from_a_stopped_one() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let port = larder.url().trim_end_matches('/').rsplit_once(':').unwrap();
    let checks: Vec<_> = [
        ("Containerfile", "    CMD "),
        ("larder.container", "HealthCmd="),
    ]
    .map(|(file, key)| {
        let text = read(file);
        let check = text.lines().find_map(|line| line.strip_prefix(key));
        check.unwrap().replace("/3263", &format!("/{}", port.1))
    })
    .into();
    assert_eq!(checks[0], checks[1]);
    let is_healthy = || {
        let check = Command::new("/bin/sh").args(["-c", &checks[0]]).output();
        check.unwrap().status.success()
    };
    assert!(is_healthy());
    larder.stop();
    assert!(!is_healthy());
}

fn serve<'site>(site: &'site Site, upstream: &FakeUpstream) -> Larder<'site> {
    site.serve(&["--dist-server", upstream.base_url().trim_end_matches('/')])
}

/// A shell in an image that has Rust, in the application's folder.
fn shell(home: &CargoHome, project: &Project) -> Command {
    let cargo = home.command(project);
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().current_dir(project.folder());
    for (name, value) in cargo.get_envs() {
        shell.env(name, value.unwrap());
    }
    // A proxy on a closed port: requests to other hosts than loopback fail.
    shell
        .env("all_proxy", "http://127.0.0.1:1")
        .env("no_proxy", "127.0.0.1");
    shell
}

/// An image that has a C compiler and curl, and no Rust.
struct Bare {
    rustup: Rustup,
}

impl Bare {
    #[track_caller]
    fn new() -> Self {
        let rustup = Rustup::without_toolchain();
        std::fs::remove_dir_all(rustup.cargo_home()).unwrap();
        let image = Self { rustup };
        let tools = [
            "sh", "curl", "cc", "uname", "mktemp", "chmod", "mkdir", "rm", "rmdir",
        ];
        link_tools(&image.tools(), &tools);
        image
    }

    fn tools(&self) -> PathBuf {
        self.rustup.work_folder().join("tools")
    }

    fn shell(&self, project: &Project) -> Command {
        let mut shell = Command::new("/bin/sh");
        self.rustup.scrub(&mut shell);
        let path = [self.rustup.cargo_home().join("bin"), self.tools()];
        shell
            .env("PATH", std::env::join_paths(path).unwrap())
            .current_dir(project.folder());
        shell
    }
}
