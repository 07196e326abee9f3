//! The commands of README.md, docs/guides and docs/operating.md, run as written in a new user's home.
//!
//! A shell runs the `sh` blocks of one document in order; a command that fails, fails the test. The user has a project
//! in `~/src`, real cargo and rustup, and a fake upstream instead of crates.io and rustup's server. `larder serve` is
//! left running until the next one, on another port. The comment `# without a network` stops upstream until the block
//! ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream, Installer, Toolchain};
use tempfile::TempDir;

use crate::fixture::{CA_FILE, publish_pair, tls_upstream};
use crate::readme::blocks;
use testkit::cargo::{Project, toolchain_folder};
use testkit::process::{announced_url, free_address, run};
use testkit::rustup::Rustup;

/// Beginnings of lines that are not run here.
const NOT_RUN: [&str; 10] = [
    // These take minutes.
    "cargo install ",
    "cargo test  ",
    "contrib/",
    // The tests of `container` run the steps of the files.
    "podman ",
    "cargo run ",
    // The tests of `service` run these, with a `systemctl` of their own.
    "larder service ",
    // The tests of `bootstrap` run it.
    "curl ",
    // Tests listen on loopback only.
    "larder serve --listen 0.0.0.0 ",
    "test -x .larder/bin/larder",
    "command -v larder ",
];

/// The comment that stops upstream.
const WITHOUT_NETWORK: &str = "# without a network";

/// A new user with a project.
pub(crate) struct User {
    upstream: FakeUpstream,
    files: TempDir,
    project: Project,
    rustup: Rustup,
    daemon: Option<Child>,
    address: String,
    lines_run: usize,
}

impl User {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let (upstream, files) = tls_upstream();
        publish_pair(&upstream);
        // One manifest is for one host, so the numbered release and the channel are two.
        for host in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
            upstream.release_rustup(&Installer::new("1.29.0").host(host).program("a program"));
        }
        upstream.release(&Toolchain::new("stable", "1.96.0").date("2026-05-28"));
        let user = Self {
            upstream,
            project: Project::at(&files.path().join("src/project")).dep("left", "1"),
            files,
            rustup: Rustup::without_toolchain(),
            daemon: None,
            address: free_address().to_string(),
            lines_run: 0,
        };
        user.project
            .write("src/lib.rs", "pub fn three() -> u8 { left::two() + 1 }");
        for folder in ["bin", "run-cargo"] {
            fs::create_dir(user.path(folder)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_larder"), user.path("bin/larder")).unwrap();
        // Below `larder run`, the fake upstream is crates.io for cargo.
        let settings = format!(
            "[source.crates-io]\nreplace-with = \"fake\"\n[source.fake]\nregistry = \"sparse+{}\"\n[http]\n\
             cainfo = \"{}\"\n",
            user.upstream.url(),
            user.path(CA_FILE).display()
        );
        fs::write(user.path("run-cargo/config.toml"), settings).unwrap();
        let lock = user.shell("CARGO_HOME=$RUN_CARGO_HOME cargo generate-lockfile");
        run(lock).assert_success();
        user
    }

    /// Publishes the numbered release of a toolchain for this host.
    fn release(&self, host: &str) {
        let numbered = Toolchain::new("stable", "1.95.0").host(host);
        self.upstream.release(&numbered);
        let newest = Toolchain::new("stable", "1.96.0").date("2026-05-28");
        self.upstream.release(&newest);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A shell in the project, which fails with the first command that does.
    fn shell(&self, script: &str) -> Command {
        let path = format!(
            "{}:{}:{}:/usr/local/bin:/usr/bin:/bin",
            self.path("bin").display(),
            toolchain_folder().display(),
            self.rustup.cargo_home().join("bin").display()
        );
        let mut command = Command::new("/bin/sh");
        command
            .current_dir(self.project.folder())
            .env_clear()
            .env("HOME", self.files.path())
            .env("PATH", path)
            .env("CARGO_HOME", self.rustup.cargo_home())
            .env("RUN_CARGO_HOME", self.path("run-cargo"))
            .env("RUSTUP_HOME", self.rustup.home())
            .env("RUSTUP_IO_THREADS", "1")
            .env("LARDER_LISTEN", &self.address)
            .env("LARDER_INDEX", self.upstream.url())
            .env("LARDER_DIST_SERVER", self.upstream.base_url())
            .env("LARDER_CA_FILE", self.path(CA_FILE));
        // Only `larder run` sees the home with the fake crates.io: source replacement would have two sources.
        let prelude = "set -e
            larder() {
                if [ \"$1\" = run ]; then CARGO_HOME=$RUN_CARGO_HOME command larder \"$@\"
                else command larder \"$@\"; fi
            }";
        command.args(["-c", &format!("{prelude}\n{script}")]);
        command
    }

    /// Runs lines of a shell as written, but for the port.
    #[track_caller]
    pub(crate) fn run_lines(&mut self, lines: &str) {
        self.upstream.restart();
        let mut script = String::new();
        for line in lines.lines() {
            if line == WITHOUT_NETWORK {
                self.run_script(&std::mem::take(&mut script));
                self.upstream.stop();
            } else if NOT_RUN.iter().any(|start| line.starts_with(start)) {
            } else if line.starts_with("larder serve") {
                self.run_script(&std::mem::take(&mut script));
                self.serve(line);
                self.lines_run += 1;
            } else {
                script += &line.replace("127.0.0.1:3263", &self.address);
                script.push('\n');
                self.lines_run += 1;
            }
        }
        self.run_script(&script);
    }

    #[track_caller]
    fn run_script(&self, script: &str) {
        if !script.is_empty() {
            run(self.shell(script)).assert_success();
        }
    }

    #[track_caller]
    fn serve(&mut self, line: &str) {
        self.stop();
        let line = line.replace("--intercept ", "--intercept=127.0.0.1:0 ");
        let mut command = self.shell(&format!("exec {line}"));
        let log = self.path("log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let announced = announced_url(child.stdout.take().unwrap(), Duration::from_secs(20));
        self.daemon = Some(child);
        let said = fs::read_to_string(&log).unwrap_or_default();
        announced.unwrap_or_else(|error| panic!("{line}: {error}\n{said}"));
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// The number of lines that were run.
    pub(crate) fn lines_run(&self) -> usize {
        self.lines_run
    }

    /// Runs all blocks of a document. Returns the number of lines that were run.
    #[track_caller]
    fn follow(mut self, document: &str) -> usize {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(path).unwrap();
        for block in blocks(&text, "sh") {
            // For the output of a failed test.
            let _ = writeln!(std::io::stdout(), "--- {document}\n{block}");
            self.run_lines(block);
        }
        self.lines_run
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn commands_of_readme_work_as_written() {
    assert_eq!(User::new().follow("README.md"), 6);
}

#[test]
fn commands_for_a_laptop_work_as_written() {
    assert_eq!(User::new().follow("docs/guides/laptop.md"), 9);
}

#[test]
fn commands_for_toolchains_work_as_written() {
    let user = User::new();
    user.release("aarch64-unknown-linux-gnu");
    assert_eq!(user.follow("docs/guides/toolchains.md"), 6);
}

#[test]
fn commands_for_containers_work_as_written() {
    assert_eq!(User::new().follow("docs/guides/containers.md"), 3);
}

#[test]
fn commands_for_ci_work_as_written() {
    assert_eq!(User::new().follow("docs/guides/ci.md"), 4);
}

#[test]
fn commands_behind_an_air_gap_work_as_written() {
    let user = User::new();
    user.release("x86_64-unknown-linux-gnu");
    assert_eq!(user.follow("docs/guides/air-gap.md"), 14);
}

#[test]
fn commands_of_an_operator_work_as_written() {
    assert_eq!(User::new().follow("docs/operating.md"), 2);
}

#[test]
fn commands_for_tools_work_as_written() {
    let user = User::new();
    for (name, version) in [
        ("just", "1.40.0"),
        ("cargo-nextest", "0.9.90"),
        ("serde", "1.0.0"),
    ] {
        user.upstream.publish(Crate::new(name, version));
    }
    user.project.write("tools.txt", "just\n");
    assert_eq!(user.follow("docs/guides/tools.md"), 6);
}

/// Documents whose `sh` blocks a test of this file runs, but for the lines of [`NOT_RUN`].
const FOLLOWED: [&str; 8] = [
    "README.md",
    "docs/guides/air-gap.md",
    "docs/guides/ci.md",
    "docs/guides/containers.md",
    "docs/guides/laptop.md",
    "docs/guides/toolchains.md",
    "docs/guides/tools.md",
    "docs/operating.md",
];

/// Documents with `sh` blocks that no test of this file runs, and the reason.
const NOT_FOLLOWED: [(&str, &str); 2] = [
    (
        "contrib/container/README.md",
        "the tests of `container` run the steps of its files",
    ),
    (
        "docs/troubleshooting.md",
        "the tests of `doctor` run its one command",
    ),
];

/// Names of languages of shell blocks, besides `sh`, which would escape the tests.
const OTHER_SHELLS: [&str; 5] = ["bash", "console", "shell", "zsh", "fish"];

#[test]
fn every_document_with_shell_commands_is_run_or_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_wanted =
        |name: &str| name != "target" && !name.starts_with('.') && name != "node_modules";
    let files = walkdir::WalkDir::new(root).into_iter();
    let files = files.filter_entry(|entry| {
        entry.depth() == 0 || is_wanted(&entry.file_name().to_string_lossy())
    });
    let mut found = Vec::new();
    for entry in files {
        let path = entry.unwrap().into_path();
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        for shell in OTHER_SHELLS {
            assert!(
                !text.contains(&format!("```{shell}\n")),
                "{name}: write the block as `sh`"
            );
        }
        if !blocks(&text, "sh").is_empty() {
            found.push(name);
        }
    }
    found.sort();
    let mut known: Vec<_> = FOLLOWED.to_vec();
    known.extend(NOT_FOLLOWED.map(|(name, _)| name));
    known.sort_unstable();
    assert_eq!(
        found, known,
        "let a test follow each document, or state the reason"
    );
}
