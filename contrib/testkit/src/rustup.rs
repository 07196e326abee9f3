//! Real rustup with empty homes and a scrubbed environment.
//!
//! The caller chooses the servers and judges the outcome.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::{Run, run};

/// A user account with rustup and no toolchain. Deleted on drop.
#[derive(Debug)]
pub struct Rustup {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Rustup {
    /// Empty homes with a copy of the installed rustup. The copy may replace itself without changing the original.
    ///
    /// # Panics
    /// If rustup is not installed.
    #[track_caller]
    pub fn without_toolchain() -> Self {
        let rustup = Self {
            folder: TempDir::new().expect("the temporary folder is writable"),
            variables: Vec::new(),
        };
        let bin = rustup.cargo_home().join("bin");
        for folder in [&bin, &rustup.home(), &rustup.work_folder()] {
            std::fs::create_dir_all(folder).expect("the temporary folder is writable");
        }
        // `cp` writes the file in another process. If this process wrote it, a child of a parallel test could inherit
        // the open file for a moment, and a file that is open for writing cannot be executed (ETXTBSY).
        let copied = Command::new("cp")
            .args([installed(), &bin.join("rustup")])
            .status();
        assert!(copied.is_ok_and(|copied| copied.success()), "cannot copy");
        for tool in ["cargo", "rustc"] {
            std::fs::hard_link(bin.join("rustup"), bin.join(tool))
                .expect("the temporary folder supports hard links");
        }
        rustup
    }

    /// Sets an environment variable for all runs, for example `RUSTUP_DOWNLOAD_TIMEOUT`.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs rustup with `RUSTUP_DIST_SERVER` and `RUSTUP_UPDATE_ROOT` set to these URLs.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], dist_server: &str, update_root: &str) -> Run {
        let mut command = self.command("rustup", dist_server, update_root);
        command.args(arguments);
        run(command)
    }

    /// Runs one of rustup's proxies (`cargo`, `rustc`) in a folder with this `rust-toolchain.toml`.
    #[track_caller]
    pub fn run_tool_with(
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

    /// The command with the scrubbed environment that all runs use, for callers that need to change it.
    ///
    /// Requests to other hosts than loopback go to a proxy on a closed port, so that a wrong address fails.
    pub fn command(&self, program: &str, dist_server: &str, update_root: &str) -> Command {
        let bin = self.cargo_home().join("bin");
        let mut command = Command::new(bin.join(program));
        self.scrub(&mut command);
        command
            .env("RUSTUP_DIST_SERVER", dist_server)
            .env("RUSTUP_UPDATE_ROOT", update_root)
            .envs(self.variables.iter().cloned());
        command
    }

    /// Gives any command this user's environment, without the two server variables.
    pub fn scrub(&self, command: &mut Command) {
        let mut path = self.cargo_home().join("bin").into_os_string();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        command
            .current_dir(self.work_folder())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("RUSTUP_HOME", self.home())
            .env("CARGO_HOME", self.cargo_home())
            .env("PATH", path)
            // With I/O threads, rustup sleeps at least 0.1 s for each package.
            .env("RUSTUP_IO_THREADS", "1")
            .env("all_proxy", "http://127.0.0.1:1")
            .env("no_proxy", "127.0.0.1,localhost,::1");
    }

    /// `RUSTUP_HOME`: contains `toolchains/`, `update-hashes/`, `downloads/` and `settings.toml`.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("rustup")
    }

    /// `CARGO_HOME`: rustup and its proxies are in `bin/`.
    pub fn cargo_home(&self) -> PathBuf {
        self.folder.path().join("cargo")
    }

    /// Working folder of all runs.
    pub fn work_folder(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The content of a file of an installed toolchain.
    ///
    /// # Panics
    /// If the file does not exist.
    #[track_caller]
    pub fn installed_text(&self, toolchain: &str, path: &str) -> String {
        let path = self.home().join("toolchains").join(toolchain).join(path);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// The components of an installed toolchain, sorted; empty if it is not installed.
    pub fn components(&self, toolchain: &str) -> Vec<String> {
        let list = Path::new("lib/rustlib/components");
        let path = self.home().join("toolchains").join(toolchain).join(list);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut components: Vec<_> = text.lines().map(str::to_owned).collect();
        components.sort();
        components
    }

    /// The names in rustup's `downloads/`, one per line.
    pub fn downloads(&self) -> String {
        let mut list = String::new();
        if let Ok(entries) = std::fs::read_dir(self.home().join("downloads")) {
            for entry in entries.flatten() {
                let _ = writeln!(list, "{}", entry.file_name().to_string_lossy());
            }
        }
        list
    }
}

/// Makes a folder that contains only links to these programs of this machine, to be used as the whole `PATH`.
///
/// # Panics
/// If one of them is not installed.
#[track_caller]
pub fn link_tools(folder: &Path, names: &[&str]) {
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

/// The file that `rustup` in `PATH` resolves to. Its bytes also serve as `rustup-init`.
///
/// # Panics
/// If rustup is not installed.
#[track_caller]
pub fn installed() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|folder| folder.join("rustup"))
            .find_map(|program| program.canonicalize().ok());
        found.expect("rustup is installed and in PATH")
    })
}
