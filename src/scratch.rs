//! Asks the user's own cargo three questions that only cargo can answer: which lock file a project without one would
//! get, which of its packages a target needs, and whether its lock file fits its manifests.
//!
//! ```text
//!  SCRATCH/project-XXXX/tree/home/user/src/app/Cargo.toml ─link─> /home/user/src/app/Cargo.toml
//!                       │              │   └─ Cargo.lock            written here by cargo
//!                       │              └─ other-project ──link─> /home/user/src/other-project
//!                       └─ etc ─────────────────────────────link─> /etc
//! ```
//!
//! Cargo never works in the user's folder. It works in an overlay: real folders for the project and for every folder
//! above it, filled with links to the user's files. Relative paths to other projects, workspaces and cargo's own
//! settings resolve as usual, while cargo writes the lock file beside the links.
//!
//! Crates come from a larder that the caller runs. Finding projects, reading lock files and time limits belong to the
//! callers.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, PackageId};
use tempfile::TempDir;
use thiserror::Error;
use tokio::process::Command;

use crate::cargo_config::CargoConfig;
use crate::files::{self, MAX_LOCK_FILE_BYTES, MAX_MANIFEST_BYTES};

const CARGO_LOCK: &str = "Cargo.lock";
/// Names of cargo's settings file, in its home.
const CARGO_SETTINGS: [&str; 2] = ["config.toml", "config"];
/// Folder within an overlay that stands for the root of the file system.
const TREE: &str = "tree";
/// Cargo's name for the larder. It differs from `larder`, which may be another address in the user's own settings.
const REGISTRY: &str = "larder-scratch";
/// Lines of cargo's message in an error. Cargo takes some ten lines from the cause to the advice.
const MAX_CARGO_LINES: usize = 20;

/// Cargo, its folder and its registry.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The program: `$CARGO` if set, else `cargo`.
    pub cargo: PathBuf,
    /// The user's cargo home. Its settings apply, for example the addresses of registries.
    pub cargo_home: Option<PathBuf>,
    /// Address of the larder that replaces crates.io, as `http://127.0.0.1:PORT/`.
    pub registry_address: String,
    /// Folder for overlays, which must exist. Cargo reads settings from every folder above the one it works in, so
    /// only the user may have write access here and above: not a shared temporary folder.
    pub folder: PathBuf,
    /// Hosts that are reached without a proxy, as in `no_proxy`; may be empty.
    pub no_proxy: OsString,
}

/// The reason why cargo gave no answer.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// The overlay could not be created, filled or read.
    #[error("cannot set up a scratch copy of project `{}`", project.display())]
    Overlay {
        /// The user's project.
        project: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// Cargo did not start.
    #[error("cannot run `{}` for project `{}`", program.display(), project.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The user's project.
        project: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Cargo refused or failed.
    #[error("cannot {task} project `{}`: cargo ended with {status} and said:\n{said}", project.display())]
    Cargo {
        /// The task, to follow "cannot".
        task: &'static str,
        /// The user's project.
        project: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its stderr, with the user's own paths.
        said: String,
    },
    /// Cargo's answer could not be read.
    #[error("cannot read what cargo says about project `{}`", project.display())]
    Answer {
        /// The user's project.
        project: PathBuf,
        /// The reader's error.
        source: cargo_metadata::Error,
    },
}

const MAKE_LOCK: &str = "make a lock file for";
const COMPARE_LOCK: &str = "find the packages of `Cargo.toml` in the lock file of";
const LIST_NEEDS: &str = "list what a target needs of";

impl Scratch {
    /// The text of the lock file that cargo would write for `project`, from the newest versions that the larder serves.
    ///
    /// `project` is the folder of its `Cargo.toml`; nothing in it is changed. Cargo fetches git dependencies itself.
    /// Dropping the future stops cargo; a few files may then stay in [`Scratch::folder`].
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the project cannot be resolved, or if its toolchain is not installed: rustup is
    /// told not to install one.
    pub async fn make_lock(&self, project: &Path) -> Result<String, ScratchError> {
        let overlay = self.overlay(project, None).await?;
        let mut command = Command::new(&self.cargo);
        command
            .arg("generate-lockfile")
            .args(self.settings(project))
            .current_dir(&overlay.project);
        overlay.set_environment(command.as_std_mut(), self.no_proxy.clone());
        self.run(command, MAKE_LOCK, project, &overlay).await?;
        on_disk(project, move || overlay.lock_text()).await
    }

    /// Asks cargo whether the lock file fits the project's manifests. Needs index entries, and no crates.
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the lock file would have to change.
    pub async fn compare_lock(&self, project: &Path, lock_text: &str) -> Result<(), ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut command = Command::new(&self.cargo);
        command
            .args(["update", "--workspace", "--locked"])
            .args(self.settings(project))
            .current_dir(&overlay.project);
        overlay.set_environment(command.as_std_mut(), self.no_proxy.clone());
        self.run(command, COMPARE_LOCK, project, &overlay).await?;
        on_disk(project, move || overlay.remove()).await
    }

    /// The registry packages that a build of `project` for `target` needs, as (name, version): the packages of
    /// `lock_text` without those for other platforms only. All features and dev-dependencies count.
    ///
    /// Dependencies of build scripts and procedural macros are included unless they depend on the platform. To
    /// cross-compile, ask for the host as well. Cargo downloads the crates through the larder to read their manifests
    /// (`PackageSet::download_accessible` in `src/cargo/core/package.rs`).
    ///
    /// `project` is the folder of the lock file; nothing in it is changed. Dropping the future stops cargo.
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the lock file does not fit the project or the target is not known.
    pub async fn needed_for(
        &self,
        project: &Path,
        lock_text: &str,
        target: &str,
    ) -> Result<BTreeSet<(String, String)>, ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut options = vec!["--locked".to_owned(), format!("--filter-platform={target}")];
        options.extend(self.settings(project));
        let mut command = MetadataCommand::new()
            .cargo_path(&self.cargo)
            .current_dir(&overlay.project)
            .features(CargoOpt::AllFeatures)
            .other_options(options)
            .cargo_command();
        overlay.set_environment(&mut command, self.no_proxy.clone());
        let answer = self
            .run(command.into(), LIST_NEEDS, project, &overlay)
            .await?;
        on_disk(project, move || overlay.remove()).await?;
        let unreadable = |source| ScratchError::Answer {
            project: project.to_owned(),
            source,
        };
        let text =
            String::from_utf8(answer).map_err(|error| unreadable(error.utf8_error().into()))?;
        Ok(from_registries(
            &MetadataCommand::parse(text).map_err(unreadable)?,
        ))
    }

    async fn overlay(
        &self,
        project: &Path,
        lock_text: Option<String>,
    ) -> Result<Overlay, ScratchError> {
        let folder = self.folder.clone();
        let original = project.to_owned();
        let cargo_home = self.cargo_home.clone();
        on_disk(project, move || {
            let overlay = Overlay::new(&folder, &original, lock_text.as_deref())?;
            if let Some(home) = cargo_home {
                overlay.link_settings(&home, &original)?;
            }
            Ok(overlay)
        })
        .await
    }

    /// Settings on the command line override files and variables, so cargo uses the larder whatever the user set. Only
    /// vendored sources stay in use: that project needs no registry.
    fn settings(&self, project: &Path) -> Vec<String> {
        let address = self.registry_address.trim_end_matches('/');
        let mut settings = vec!["net.offline=false".to_owned()];
        if !CargoConfig::of(project).has_local_crates_io() {
            settings.extend([
                format!("source.crates-io.replace-with='{REGISTRY}'"),
                // A sparse URL must end in a slash.
                format!("registries.{REGISTRY}.index='sparse+{address}/'"),
            ]);
        }
        let settings = settings.into_iter();
        settings
            .flat_map(|setting| ["--config".to_owned(), setting])
            .collect()
    }

    async fn run(
        &self,
        mut command: Command,
        task: &'static str,
        project: &Path,
        overlay: &Overlay,
    ) -> Result<Vec<u8>, ScratchError> {
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command
            .output()
            .await
            .map_err(|source| ScratchError::Start {
                program: self.cargo.clone(),
                project: project.to_owned(),
                source,
            })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ScratchError::Cargo {
            task,
            project: project.to_owned(),
            status: output.status,
            said: last_lines(&overlay.with_user_paths(&String::from_utf8_lossy(&output.stderr))),
        })
    }
}

/// A folder in which cargo sees the project and its surroundings, and cannot write to the user's files.
struct Overlay {
    scratch: TempDir,
    /// The root of the mirrored file system.
    tree: PathBuf,
    /// The project within it.
    project: PathBuf,
}

impl Overlay {
    fn new(folder: &Path, original: &Path, lock_text: Option<&str>) -> io::Result<Self> {
        // Cargo gets its working directory from the operating system, without links.
        let original = original.canonicalize()?;
        // Cargo reads a manifest of any size.
        files::check(&original.join("Cargo.toml"), MAX_MANIFEST_BYTES)?;
        let scratch = tempfile::Builder::new()
            .prefix("project-")
            .tempdir_in(folder.canonicalize()?)?;
        let tree = scratch.path().join(TREE);
        fs::create_dir(&tree)?;
        let project = mirror_path(&original, &tree)?;
        for entry in fs::read_dir(&original)? {
            let name = entry?.file_name();
            if name != CARGO_LOCK && name != "target" {
                link(&original.join(&name), &project.join(&name))?;
            }
        }
        if let Some(text) = lock_text {
            fs::write(project.join(CARGO_LOCK), text)?;
        }
        Ok(Self {
            scratch,
            tree,
            project,
        })
    }

    /// Links the settings of the user's cargo home into the overlay's, unless cargo finds them above the project.
    fn link_settings(&self, home: &Path, original: &Path) -> io::Result<()> {
        let (Ok(home), Ok(original)) = (home.canonicalize(), original.canonicalize()) else {
            // A user without cargo home has no settings in it.
            return Ok(());
        };
        let mut above = original.ancestors();
        if above.any(|folder| folder.join(".cargo") == home) {
            return Ok(());
        }
        for name in CARGO_SETTINGS {
            if home.join(name).is_file() {
                link(&home.join(name), &self.scratch.path().join(name))?;
            }
        }
        Ok(())
    }

    fn set_environment(&self, command: &mut std::process::Command, mut exempt: OsString) {
        command
            // A home of its own leaves the user's caches unchanged. Right above the tree, it also ends cargo's search
            // for a workspace (`find_root_iter` in `src/cargo/core/workspace.rs`).
            .env("CARGO_HOME", self.scratch.path())
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .env("RUSTUP_AUTO_INSTALL", "0");
        // No proxy can reach the larder on this machine. The variable also overrides proxies in cargo's and git's
        // settings.
        if !exempt.is_empty() {
            exempt.push(",");
        }
        exempt.push("127.0.0.1");
        command.env("no_proxy", exempt);
    }

    /// Reads the lock file, which cargo writes at the root of the workspace: the project or a folder above it.
    fn lock_text(self) -> io::Result<String> {
        let folders = self
            .project
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.tree));
        let locks = folders.map(|folder| folder.join(CARGO_LOCK));
        let lock = locks.into_iter().find(|lock| lock.is_file());
        let lock = lock
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cargo wrote no lock file"))?;
        let text = files::read_text(&lock, MAX_LOCK_FILE_BYTES)?;
        self.remove()?;
        Ok(text)
    }

    fn remove(self) -> io::Result<()> {
        self.scratch.close()
    }

    fn with_user_paths(&self, text: &str) -> String {
        text.replace(&*self.tree.to_string_lossy(), "")
    }
}

/// Creates a real folder for each component of `original`, and a link for every other entry of these folders. Lock
/// files are not linked: cargo would write through the link.
fn mirror_path(original: &Path, tree: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    let mut mirrored = tree.to_owned();
    for component in original.components() {
        if let Component::Normal(next) = component {
            link_siblings(&real, &mirrored, next)?;
            mirrored.push(next);
            fs::create_dir(&mirrored)?;
        }
        real.push(component);
    }
    Ok(mirrored)
}

fn link_siblings(real: &Path, mirrored: &Path, next: &OsStr) -> io::Result<()> {
    // The user may lack permission to list a folder above the project; cargo then needs nothing in it.
    let Ok(entries) = fs::read_dir(real) else {
        return Ok(());
    };
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name();
        if name != next && name != CARGO_LOCK {
            link(&real.join(&name), &mirrored.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link(original: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(original, link)
}

#[cfg(windows)]
fn link(original: &Path, link: &Path) -> io::Result<()> {
    if original.is_dir() {
        std::os::windows::fs::symlink_dir(original, link)
    } else {
        std::os::windows::fs::symlink_file(original, link)
    }
}

/// Runs disk work on a blocking thread.
async fn on_disk<T: Send + 'static>(
    project: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ScratchError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| ScratchError::Overlay {
            project: project.to_owned(),
            source,
        })
}

fn from_registries(metadata: &Metadata) -> BTreeSet<(String, String)> {
    let needed: BTreeSet<&PackageId> = metadata
        .resolve
        .iter()
        .flat_map(|resolve| &resolve.nodes)
        .map(|node| &node.id)
        .collect();
    let is_from_registry = |package: &&cargo_metadata::Package| {
        package.source.as_ref().is_some_and(|source| {
            source.repr.starts_with("registry+") || source.repr.starts_with("sparse+")
        })
    };
    metadata
        .packages
        .iter()
        .filter(|package| needed.contains(&package.id))
        .filter(is_from_registry)
        .map(|package| (package.name.to_string(), package.version.to_string()))
        .collect()
}

/// The lines from the last `error` on, without characters that could harm a terminal.
fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let first = lines
        .iter()
        .rposition(|line| line.starts_with("error"))
        .unwrap_or_else(|| lines.len().saturating_sub(MAX_CARGO_LINES));
    let lines = lines[first..]
        .iter()
        .take(MAX_CARGO_LINES)
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    lines
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}
