//! Real rustup with homes of its own in an environment that holds nothing else.
//!
//! Which servers it talks to is the caller's choice, and so is what the outcome should be.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::cargo::{Run, run};

/// A user without any toolchain, who has rustup and nothing else; ends with the value.
#[derive(Debug)]
pub(crate) struct Rustup {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Rustup {
    /// Empty homes with a copy of the installed rustup, which may replace itself without harm to the original.
    ///
    /// # Panics
    /// If there is no rustup: a test of the client without the client would pass for nothing.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let rustup = Self {
            folder: TempDir::new().expect("the temporary folder is writable"),
            variables: Vec::new(),
        };
        let bin = rustup.cargo_home().join("bin");
        for folder in [&bin, &rustup.home(), &rustup.work_folder()] {
            std::fs::create_dir_all(folder).expect("the temporary folder is writable");
        }
        // Written by another process: while one of ours has it open for writing, a child that a parallel test starts
        // inherits that for a moment, and what is open for writing cannot be run.
        let copied = Command::new("cp")
            .args([installed(), &bin.join("rustup")])
            .status();
        assert!(copied.is_ok_and(|copied| copied.success()), "cannot copy");
        for tool in ["cargo", "rustc"] {
            std::fs::hard_link(bin.join("rustup"), bin.join(tool))
                .expect("the temporary folder knows links");
        }
        rustup
    }

    /// Sets one more variable for all runs, `RUSTUP_DOWNLOAD_TIMEOUT` for instance.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs rustup with these two servers: `RUSTUP_DIST_SERVER` and `RUSTUP_UPDATE_ROOT`, as given.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], dist_server: &str, update_root: &str) -> Run {
        let mut command = self.command("rustup", dist_server, update_root);
        command.args(arguments);
        run(command)
    }

    /// Runs a tool that rustup stands in for (`cargo`, `rustc`) in a folder with this `rust-toolchain.toml`.
    #[track_caller]
    pub(crate) fn run_tool_with(
        &self,
        toolchain_file: &str,
        tool: &str,
        dist_server: &str,
        update_root: &str,
    ) -> Run {
        let path = self.work_folder().join("rust-toolchain.toml");
        std::fs::write(path, toolchain_file).expect("the temporary folder is writable");
        let mut command = self.command(tool, dist_server, update_root);
        command.arg("--version");
        run(command)
    }

    /// The scrubbed command that all runs start from, for callers with wishes of their own.
    ///
    /// The way to other hosts than loopback leads to a closed port, so that a wrong address fails instead of being found.
    pub(crate) fn command(&self, program: &str, dist_server: &str, update_root: &str) -> Command {
        let bin = self.cargo_home().join("bin");
        let mut command = Command::new(bin.join(program));
        self.scrub(&mut command);
        command
            .env("RUSTUP_DIST_SERVER", dist_server)
            .env("RUSTUP_UPDATE_ROOT", update_root)
            .envs(self.variables.iter().cloned());
        command
    }

    /// Makes any command one of this user, without the two servers.
    pub(crate) fn scrub(&self, command: &mut Command) {
        let mut path = self.cargo_home().join("bin").into_os_string();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        command
            .current_dir(self.work_folder())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("RUSTUP_HOME", self.home())
            .env("CARGO_HOME", self.cargo_home())
            .env("PATH", path)
            // With threads to write files, rustup sleeps a tenth of a second for each package and more.
            .env("RUSTUP_IO_THREADS", "1")
            .env("all_proxy", "http://127.0.0.1:1")
            .env("no_proxy", "127.0.0.1,localhost,::1");
    }

    /// What rustup calls its home: `toolchains/`, `update-hashes/`, `downloads/` and `settings.toml` live there.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("rustup")
    }

    /// Where the programs are, in `bin/`.
    pub(crate) fn cargo_home(&self) -> PathBuf {
        self.folder.path().join("cargo")
    }

    /// Where all runs happen.
    pub(crate) fn work_folder(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The text of a file in an installed toolchain.
    ///
    /// # Panics
    /// If there is no such file.
    #[track_caller]
    pub(crate) fn installed_text(&self, toolchain: &str, path: &str) -> String {
        let path = self.home().join("toolchains").join(toolchain).join(path);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// The components of an installed toolchain, sorted; empty if it is not installed.
    pub(crate) fn components(&self, toolchain: &str) -> Vec<String> {
        let list = Path::new("lib/rustlib/components");
        let path = self.home().join("toolchains").join(toolchain).join(list);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut components: Vec<_> = text.lines().map(str::to_owned).collect();
        components.sort();
        components
    }

    /// The files and folders in rustup's `downloads/`, one a line, for messages and assertions.
    pub(crate) fn downloads(&self) -> String {
        let mut list = String::new();
        if let Ok(entries) = std::fs::read_dir(self.home().join("downloads")) {
            for entry in entries.flatten() {
                let _ = writeln!(list, "{}", entry.file_name().to_string_lossy());
            }
        }
        list
    }
}

/// Makes a folder that holds links to these of this machine's programs and nothing else, to be a whole `PATH`.
///
/// # Panics
/// If one of them is not installed: its test would pass for nothing.
#[track_caller]
pub(crate) fn link_tools(folder: &Path, names: &[&str]) {
    std::fs::create_dir_all(folder).expect("the temporary folder is writable");
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in names {
        let found = std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|program| program.is_file());
        let found = found.unwrap_or_else(|| panic!("{name} is not installed, or not in PATH"));
        std::os::unix::fs::symlink(found, folder.join(name)).expect("the folder is new");
    }
}

/// The program behind the `rustup` in `PATH`; its bytes serve as `rustup-init` too.
///
/// # Panics
/// If there is none.
#[track_caller]
pub(crate) fn installed() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|folder| folder.join("rustup"))
            .find_map(|program| program.canonicalize().ok());
        found.expect("rustup is installed and in PATH")
    })
}
