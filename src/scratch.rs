//! Asks the user's own cargo what only cargo knows: the lock file a project without one would get, and which of its
//! packages one target needs.
//!
//! Cargo never works in the user's folder. It works in an overlay: real folders for the project and everything above
//! it, filled with links to what is there. So relative paths to other projects, workspaces and cargo's own settings
//! are found as usual, while the lock file is written beside the links. Crates come from a larder that the caller
//! runs; finding projects, reading lock files and deadlines are left to others.

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

const CARGO_LOCK: &str = "Cargo.lock";
/// The folder, within the scratch folder, that stands for the root of the file system.
const TREE: &str = "tree";
/// The name cargo knows the larder by. Longer than the name in the user's own settings, where `larder` may be
/// another address.
const REGISTRY: &str = "larder-scratch";
/// How much of what cargo said goes into an error. The cause stands first and the advice last, in some ten lines.
const MAX_CARGO_LINES: usize = 20;

/// Cargo, and where it works and fetches.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The program: `$CARGO` if the user set it, else `cargo`.
    pub cargo: PathBuf,
    /// The larder that stands in for crates.io, as `http://127.0.0.1:PORT/`.
    pub registry_address: String,
    /// Where overlays are made and removed again. Must exist. Cargo reads settings from every folder above the one
    /// it works in, so nobody but the user should be able to write here or above; a shared temporary folder will
    /// not do.
    pub folder: PathBuf,
    /// Hosts that the user reaches without a proxy, as in `no_proxy`; empty if none were named.
    pub no_proxy: OsString,
}

/// Why cargo could not be asked.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// The overlay could not be made, filled or read.
    #[error("cannot set up a scratch copy of project `{}`", project.display())]
    Overlay {
        /// The user's project.
        project: PathBuf,
        /// What went wrong on disk.
        source: io::Error,
    },
    /// Cargo did not start.
    #[error("cannot run `{}` for project `{}`", program.display(), project.display())]
    Start {
        /// The program that was tried.
        program: PathBuf,
        /// The user's project.
        project: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// Cargo refused or failed.
    #[error("cannot {task} project `{}`: cargo ended with {status} and said:\n{said}", project.display())]
    Cargo {
        /// What was wanted of it.
        task: &'static str,
        /// The user's project.
        project: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote for people, with paths of the user's folders.
        said: String,
    },
    /// Cargo's answer could not be read.
    #[error("cannot read what cargo says about project `{}`", project.display())]
    Answer {
        /// The user's project.
        project: PathBuf,
        /// What the reader said.
        source: cargo_metadata::Error,
    },
}

const MAKE_LOCK: &str = "make a lock file for";
const LIST_NEEDS: &str = "list what a target needs of";

impl Scratch {
    /// The text of the lock file that cargo would make for `project`, from the newest versions the larder offers.
    ///
    /// `project` is the folder of its `Cargo.toml`; nothing in it is changed. Git dependencies are fetched by cargo
    /// itself. Dropping the future stops cargo; a few files may then stay in [`Scratch::folder`].
    ///
    /// # Errors
    ///
    /// [`ScratchError::Cargo`] when the project cannot be resolved, or with the toolchain that it asks for missing:
    /// rustup is told not to install one.
    pub async fn make_lock(&self, project: &Path) -> Result<String, ScratchError> {
        let overlay = self.overlay(project, None).await?;
        let mut command = Command::new(&self.cargo);
        command
            .arg("generate-lockfile")
            .args(self.settings())
            .current_dir(&overlay.project);
        overlay.set_environment(command.as_std_mut(), self.no_proxy.clone());
        self.run(command, MAKE_LOCK, project, &overlay).await?;
        on_disk(project, move || overlay.lock_text()).await
    }

    /// The packages from registries that building `project` for `target` needs, as (name, version): those of
    /// `lock_text` that are not for other platforms only. All features and dev-dependencies count.
    ///
    /// What build scripts and procedural macros need on *this* machine is part of it as far as it does not depend on
    /// the platform; when cross-compiling, ask for the host as well. Cargo fetches the crates themselves to look at
    /// their manifests (`PackageSet::download_accessible` in `src/cargo/core/package.rs`), through the larder.
    ///
    /// `project` is the folder of the lock file; nothing in it is changed. Dropping the future stops cargo.
    ///
    /// # Errors
    ///
    /// [`ScratchError::Cargo`] when the lock file does not fit the project or the target is not known.
    pub async fn needed_for(
        &self,
        project: &Path,
        lock_text: &str,
        target: &str,
    ) -> Result<BTreeSet<(String, String)>, ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut options = vec!["--locked".to_owned(), format!("--filter-platform={target}")];
        options.extend(self.settings());
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
        on_disk(project, move || {
            Overlay::new(&folder, &original, lock_text.as_deref())
        })
        .await
    }

    /// Settings on the command line beat those in files and variables, so the larder is used whatever the user set.
    fn settings(&self) -> Vec<String> {
        let address = self.registry_address.trim_end_matches('/');
        [
            format!("source.crates-io.replace-with='{REGISTRY}'"),
            // A sparse URL must end in a slash.
            format!("registries.{REGISTRY}.index='sparse+{address}/'"),
            "net.offline=false".to_owned(),
        ]
        .into_iter()
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
            said: last_lines(
                &overlay.as_the_user_knows_it(&String::from_utf8_lossy(&output.stderr)),
            ),
        })
    }
}

/// A place where cargo sees the project and its surroundings, and writes nothing of the user's.
struct Overlay {
    scratch: TempDir,
    /// The root of the mirrored file system.
    tree: PathBuf,
    /// The project within it.
    project: PathBuf,
}

impl Overlay {
    fn new(folder: &Path, original: &Path, lock_text: Option<&str>) -> io::Result<Self> {
        // Cargo asks the system where it is, and gets paths without links.
        let original = original.canonicalize()?;
        let scratch = tempfile::Builder::new()
            .prefix("project-")
            .tempdir_in(folder.canonicalize()?)?;
        let tree = scratch.path().join(TREE);
        fs::create_dir(&tree)?;
        let project = mirror_way_to(&original, &tree)?;
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

    fn set_environment(&self, command: &mut std::process::Command, mut exempt: OsString) {
        command
            // Its own home keeps the user's caches as they are. That it lies right above the tree has a second
            // effect: cargo looks no further up for a workspace (`find_root_iter` in `src/cargo/core/workspace.rs`).
            .env("CARGO_HOME", self.scratch.path())
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .env("RUSTUP_AUTO_INSTALL", "0");
        // The larder is on this machine, where no proxy can reach it. The variable counts for proxies from cargo's and
        // git's settings as well.
        if !exempt.is_empty() {
            exempt.push(",");
        }
        exempt.push("127.0.0.1");
        command.env("no_proxy", exempt);
    }

    /// Cargo writes the lock file at the root of the workspace: the project or a folder above it.
    fn lock_text(self) -> io::Result<String> {
        let folders = self
            .project
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.tree));
        let locks = folders.map(|folder| folder.join(CARGO_LOCK));
        let lock = locks.into_iter().find(|lock| lock.is_file());
        let lock = lock
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cargo wrote no lock file"))?;
        let text = fs::read_to_string(lock)?;
        self.remove()?;
        Ok(text)
    }

    fn remove(self) -> io::Result<()> {
        self.scratch.close()
    }

    fn as_the_user_knows_it(&self, text: &str) -> String {
        text.replace(&*self.tree.to_string_lossy(), "")
    }
}

/// Makes a real folder for every folder on the way to `original`, and a link for everything beside the way.
///
/// Lock files beside the way are left out: cargo would write through the link.
fn mirror_way_to(original: &Path, tree: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    let mut mirrored = tree.to_owned();
    for component in original.components() {
        if let Component::Normal(next) = component {
            link_all_but(&real, &mirrored, next)?;
            mirrored.push(next);
            fs::create_dir(&mirrored)?;
        }
        real.push(component);
    }
    Ok(mirrored)
}

fn link_all_but(real: &Path, mirrored: &Path, next: &OsStr) -> io::Result<()> {
    // Folders above may be closed to the user, who then knows nothing in them that cargo could want.
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

/// Does slow disk work where it holds up nobody.
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

/// From the last `error` on, without what could harm a terminal.
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
