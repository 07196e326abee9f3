//! Real cargo with a home of its own in an environment that holds nothing else, and the small projects it works on.
//!
//! Whose registry it talks to is the caller's choice, and so is what the outcome should be.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Four attempts of 30 seconds with cargo's pauses between them fit in; beyond, something hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// A cargo home that starts empty and ends with the value.
#[derive(Debug)]
pub(crate) struct CargoHome {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
}

/// One finished run of a client.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From start to end of the process.
    pub(crate) took: Duration,
    command: String,
}

impl CargoHome {
    /// An empty home.
    ///
    /// # Panics
    /// If there is no cargo: a test of the client without the client would pass for nothing.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// [`CargoHome::new`] below this folder.
    #[track_caller]
    pub(crate) fn new_in(folder: &Path) -> Self {
        let _ = toolchain();
        Self {
            folder: TempDir::new_in(folder).expect("the temporary folder is writable"),
            variables: Vec::new(),
        }
    }

    /// Sets one more variable for all runs, `CARGO_NET_RETRY` for instance.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Trusts this certificate authority (PEM) and no other.
    #[track_caller]
    pub(crate) fn trust(self, ca_pem: &str) -> Self {
        let path = self.folder.path().join("ca.pem");
        std::fs::write(&path, ca_pem).expect("the cargo home is writable");
        self.variable("CARGO_HTTP_CAINFO", path)
    }

    /// What cargo calls its home: `registry/` and `config.toml` live below it.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("cargo")
    }

    /// Runs cargo in the project with crates.io replaced by the registry at this index URL (without `sparse+`).
    #[track_caller]
    pub(crate) fn run(&self, project: &Project, arguments: &[&str], index_url: &str) -> Run {
        let mut all = vec![
            "--config".to_owned(),
            "source.crates-io.replace-with=\"larder\"".to_owned(),
            "--config".to_owned(),
            format!("registries.larder.index=\"sparse+{index_url}\""),
        ];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.run_plain(project, &all)
    }

    /// Runs cargo in the project with these arguments alone: what it knows of registries stands in its home or project.
    #[track_caller]
    pub(crate) fn run_plain(&self, project: &Project, arguments: &[impl AsRef<OsStr>]) -> Run {
        let mut command = self.command(project);
        command.args(arguments);
        run(command)
    }

    /// The scrubbed command that all runs start from, for callers with wishes of their own.
    pub(crate) fn command(&self, project: &Project) -> Command {
        let toolchain = toolchain();
        let home = self.folder.path().join("home");
        for folder in [&home, &self.path()] {
            std::fs::create_dir_all(folder).expect("the temporary folder is writable");
        }
        let mut command = Command::new(toolchain.join("cargo"));
        command
            .current_dir(project.folder())
            .env_clear()
            .env("HOME", home)
            .env("CARGO_HOME", self.path())
            .env("PATH", search_path(toolchain))
            .envs(self.variables.iter().cloned());
        command
    }
}

impl Run {
    /// Fails the test unless the client exited with 0.
    #[track_caller]
    pub(crate) fn assert_success(&self) -> &Self {
        assert!(
            self.status.success(),
            "should have succeeded: {}",
            self.report()
        );
        self
    }

    /// Fails the test if the client exited with 0.
    #[track_caller]
    pub(crate) fn assert_failure(&self) -> &Self {
        assert!(
            !self.status.success(),
            "should have failed: {}",
            self.report()
        );
        self
    }

    /// Fails the test unless stderr contains this.
    #[track_caller]
    pub(crate) fn assert_says(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text),
            "should have said `{text}`: {}",
            self.report()
        );
        self
    }

    fn report(&self) -> String {
        format!(
            "{}\n{} after {:?}\n--- stdout\n{}--- stderr\n{}",
            self.command, self.status, self.took, self.stdout, self.stderr
        )
    }
}

/// A package for cargo to work on.
#[derive(Debug)]
pub(crate) struct Project {
    folder: PathBuf,
    dependencies: Vec<String>,
    /// Removes the folder at the end, if it is ours.
    _owned: Option<TempDir>,
}

impl Project {
    /// An empty library without dependencies in a temporary folder, a workspace of its own.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let owned = TempDir::new().expect("the temporary folder is writable");
        let project = Self {
            folder: owned.path().to_owned(),
            dependencies: Vec::new(),
            _owned: Some(owned),
        };
        project.write("src/lib.rs", "");
        project.write_manifest();
        project
    }

    /// A project that is already there; nothing is written or removed.
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            dependencies: Vec::new(),
            _owned: None,
        }
    }

    /// Adds a dependency to the manifest that [`Project::new`] wrote.
    #[track_caller]
    pub(crate) fn dep(self, name: &str, requirement: &str) -> Self {
        self.dep_line(&format!("{name} = \"{requirement}\""))
    }

    /// Adds a dependency in any form, as a line of TOML.
    #[track_caller]
    pub(crate) fn dep_line(mut self, line: &str) -> Self {
        self.dependencies.push(line.to_owned());
        self.write_manifest();
        self
    }

    /// Writes a file, and the folders above it.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.folder.join(path);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, content));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// The text of `Cargo.lock`.
    #[track_caller]
    pub(crate) fn lock(&self) -> String {
        let path = self.folder.join("Cargo.lock");
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    #[track_caller]
    fn write_manifest(&self) {
        let mut manifest = "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n\n[dependencies]\n".to_owned();
        for line in &self.dependencies {
            let _ = writeln!(manifest, "{line}");
        }
        self.write("Cargo.toml", &manifest);
    }
}

/// The folder with the real cargo and rustc: rustup's stand-ins would want a home that the scrubbed environment hides.
#[track_caller]
fn toolchain() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let output = Command::new("rustc").args(["--print", "sysroot"]).output();
        let output = output.expect("rustc is installed and in PATH");
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let folder = sysroot.join("bin");
        assert!(
            folder.join("cargo").exists(),
            "no cargo beside rustc in {}",
            folder.display()
        );
        folder
    })
}

/// The toolchain first, then where a system keeps its linker.
fn search_path(toolchain: &Path) -> OsString {
    let mut path = toolchain.as_os_str().to_owned();
    path.push(":/usr/local/bin:/usr/bin:/bin");
    path
}

/// Runs a client to its end.
///
/// # Panics
/// If it cannot be started, or is still running after a time that only hanging explains.
#[track_caller]
pub(crate) fn run(mut command: Command) -> Run {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let start = Instant::now();
    let child = command.spawn().expect("the client can be started");
    let id = child.id();
    let (finished, wait) = mpsc::channel();
    std::thread::spawn(move || finished.send((child.wait_with_output(), start.elapsed())));
    let Ok((output, took)) = wait.recv_timeout(PATIENCE) else {
        // The shell's own kill: no program has to be installed for it.
        let _ = Command::new("/bin/sh")
            .args(["-c", &format!("kill -KILL {id}")])
            .status();
        panic!("{shown}\nstill running after {PATIENCE:?}");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the end of the client can be waited for");
    Run {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        took,
        command: shown,
    }
}
