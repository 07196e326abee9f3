//! Real cargo with an empty home and a scrubbed environment, and small projects for it to work on.
//!
//! The caller chooses the registry and judges the outcome.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::{Run, run};

/// A cargo home that starts empty and is deleted on drop.
#[derive(Debug)]
pub struct CargoHome {
    folder: TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl CargoHome {
    /// An empty home.
    ///
    /// # Panics
    /// If cargo is not installed.
    #[track_caller]
    pub fn empty() -> Self {
        Self::empty_in(&std::env::temp_dir())
    }

    /// [`CargoHome::empty`] below `folder`.
    #[track_caller]
    pub fn empty_in(folder: &Path) -> Self {
        let _ = toolchain_folder();
        Self {
            folder: TempDir::new_in(folder).expect("the temporary folder is writable"),
            variables: Vec::new(),
        }
    }

    /// Sets an environment variable for all runs, for example `CARGO_NET_RETRY`.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Makes cargo trust only this certificate authority (PEM).
    #[track_caller]
    pub fn trust(self, ca_pem: &str) -> Self {
        let path = self.folder.path().join("ca.pem");
        std::fs::write(&path, ca_pem).expect("the cargo home is writable");
        self.variable("CARGO_HTTP_CAINFO", path)
    }

    /// `CARGO_HOME`: `registry/` and `config.toml` are below it.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("cargo")
    }

    /// Runs cargo in the project, with crates.io replaced by the registry at `index_url` (without `sparse+`).
    #[track_caller]
    pub fn run(&self, project: &Project, arguments: &[&str], index_url: &str) -> Run {
        run(self.command_for(project, arguments, index_url))
    }

    /// The command of [`CargoHome::run`], for callers that need to change it.
    pub fn command_for(&self, project: &Project, arguments: &[&str], index_url: &str) -> Command {
        let index = format!("registries.larder.index=\"sparse+{index_url}\"");
        let mut command = self.command(project);
        command
            .args(["--config", "source.crates-io.replace-with=\"larder\""])
            .args(["--config", &index])
            .args(arguments);
        command
    }

    /// Runs cargo in the project with these arguments only. Registries come from its home's or the project's
    /// configuration.
    #[track_caller]
    pub fn run_plain(&self, project: &Project, arguments: &[impl AsRef<OsStr>]) -> Run {
        let mut command = self.command(project);
        command.args(arguments);
        run(command)
    }

    /// The command with the scrubbed environment that all runs use, for callers that need to change it.
    pub fn command(&self, project: &Project) -> Command {
        let toolchain = toolchain_folder();
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

/// A package for cargo to work on.
#[derive(Debug)]
pub struct Project {
    folder: PathBuf,
    dependencies: Vec<String>,
    /// Deletes the folder on drop, unless the caller provided it.
    _owned: Option<TempDir>,
}

impl Project {
    /// An empty library without dependencies in a temporary folder, as a workspace of its own.
    #[track_caller]
    pub fn empty() -> Self {
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

    /// An existing project; nothing is written or removed.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            dependencies: Vec::new(),
            _owned: None,
        }
    }

    /// Adds a dependency to the manifest that [`Project::empty`] wrote.
    #[track_caller]
    pub fn dep(self, name: &str, requirement: &str) -> Self {
        self.dep_line(&format!("{name} = \"{requirement}\""))
    }

    /// Adds a dependency as a line of TOML.
    #[track_caller]
    pub fn dep_line(mut self, line: &str) -> Self {
        self.dependencies.push(line.to_owned());
        self.write_manifest();
        self
    }

    /// Writes a file and creates its parent folders.
    #[track_caller]
    pub fn write(&self, path: &str, content: &str) {
        let path = self.folder.join(path);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, content));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// The content of `Cargo.lock`.
    #[track_caller]
    pub fn lock(&self) -> String {
        let path = self.folder.join("Cargo.lock");
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// The project's folder.
    pub fn folder(&self) -> &Path {
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

/// The folder of the real cargo and rustc. Rustup's proxies would need the home that the scrubbed environment hides.
///
/// # Panics
/// If they are not installed.
#[track_caller]
pub fn toolchain_folder() -> &'static Path {
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

/// `PATH`: the toolchain, then the system's folders, where the linker is.
fn search_path(toolchain: &Path) -> OsString {
    let mut path = toolchain.as_os_str().to_owned();
    path.push(":/usr/local/bin:/usr/bin:/bin");
    path
}
