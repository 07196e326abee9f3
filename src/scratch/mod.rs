//! Asks the user's own cargo the questions that only cargo can answer: the lock file that a project without one would
//! get, the packages that a target needs, whether a lock file fits its manifests, and the place of an unusual project's
//! lock file.
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
//! settings resolve as usual, while cargo writes the lock file beside the links. For a script, the overlay has a
//! `Cargo.toml` made from its frontmatter, so that any cargo can resolve it.
//!
//! Crates come from a larder that the caller runs. Finding projects, reading lock files and time limits belong to the
//! callers.

mod error;
mod overlay;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, PackageId};
use serde::Deserialize;
use tokio::process::Command;

use crate::cargo_config::{CargoConfig, Includes};
use crate::script::Script;
use error::{COMPARE_LOCK, last_lines};
pub use error::{CargoRefusal, ScratchError};
use overlay::{CARGO_LOCK, Overlay};

/// Cargo's name for the larder. It differs from `larder`, which may be another address in the user's own settings.
const REGISTRY: &str = "larder-scratch";
/// Variables from which git takes its proxy.
const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];
/// A settings file that asks whether cargo follows `include`.
const INCLUDE_PROBE: &str = "include-probe.toml";
/// A package that needs nothing, not even a source file of the project.
const PROBE_MANIFEST: &str = "[package]\nname = 'probe'\nbuild = false\nautobins = false\n\
    [workspace]\n[lib]\npath = 'Cargo.toml'\n";

/// Cargo, its folder and its registry.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The program: `$CARGO` if set, else `cargo`.
    pub cargo: PathBuf,
    /// The user's cargo home. Its settings apply, for example the addresses of registries.
    pub cargo_home: Option<PathBuf>,
    /// Address of the larder that replaces crates.io, as `http://127.0.0.1:PORT/`.
    pub registry_address: String,
    /// Other registries that this larder replaces: name and index, as `sparse+URL`.
    pub registries: Vec<(String, String)>,
    /// A proxy that refuses all connections, as `http://127.0.0.1:PORT`, if cargo shall reach the larder alone.
    pub closed_proxy: Option<String>,
    /// Folder for overlays, which must exist. Cargo reads settings from every folder above the one it works in, so
    /// only the user may have write access here and above: not a shared temporary folder.
    pub folder: PathBuf,
    /// Hosts that are reached without a proxy, as in `no_proxy`; may be empty.
    pub no_proxy: OsString,
}

/// A project to ask cargo about.
#[derive(Clone, Copy, Debug)]
pub struct CargoProject<'a> {
    /// Its folder.
    pub folder: &'a Path,
    /// The script in this folder that is the whole project.
    pub script: Option<&'a Script>,
    /// The treatment of `include` in its settings by its cargo.
    pub includes: Includes,
}

impl<'a> From<&'a Path> for CargoProject<'a> {
    fn from(folder: &'a Path) -> Self {
        Self {
            folder,
            script: None,
            includes: Includes::default(),
        }
    }
}

impl CargoProject<'_> {
    /// The path by which the user knows the project.
    fn path(&self) -> &Path {
        self.script.map_or(self.folder, |script| &script.path)
    }

    fn to_owned(self) -> (PathBuf, Option<String>) {
        let manifest = self.script.map(|script| script.manifest.clone());
        (self.folder.to_owned(), manifest)
    }
}

const MAKE_LOCK: &str = "make a lock file for";
const COMPLETE_LOCK: &str = "complete the lock file of";
const FIND_LOCK: &str = "find the lock file of";
const FIND_INCLUDES: &str = "find the included settings of";
const LIST_NEEDS: &str = "list what a target needs of";

impl Scratch {
    /// The text of the lock file that cargo would write for `project`, from the newest versions that the larder serves.
    ///
    /// Nothing in the project's folder is changed. Cargo fetches git dependencies itself. Dropping the future stops
    /// cargo; a few files may then stay in [`Scratch::folder`].
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the project cannot be resolved, or if its toolchain is not installed: rustup is
    /// told not to install one.
    pub async fn make_lock(&self, project: CargoProject<'_>) -> Result<String, ScratchError> {
        let overlay = self.overlay(project, None).await?;
        let mut command = self.command(&overlay);
        command
            .arg("generate-lockfile")
            .args(self.settings(project, &overlay));
        self.run(command, MAKE_LOCK, project, &overlay).await?;
        on_disk(project.path(), move || overlay.lock_text()).await
    }

    /// The lock file with what the project's manifests need and it lacks. `cargo install --locked` completes the lock
    /// file of a crate like this, and says nothing. Needs index entries, and no crates.
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the project cannot be resolved.
    pub async fn complete_lock(
        &self,
        project: CargoProject<'_>,
        lock_text: &str,
    ) -> Result<String, ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut command = self.command(&overlay);
        command
            .args(["update", "--workspace"])
            .args(self.settings(project, &overlay));
        self.run(command, COMPLETE_LOCK, project, &overlay).await?;
        on_disk(project.path(), move || overlay.lock_text()).await
    }

    /// Asks cargo whether the lock file fits the project's manifests. Needs index entries, and no crates.
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the lock file would have to change.
    pub async fn compare_lock(
        &self,
        project: CargoProject<'_>,
        lock_text: &str,
    ) -> Result<(), ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut command = self.command(&overlay);
        command
            .args(["update", "--workspace", "--locked"])
            .args(self.settings(project, &overlay));
        self.run(command, COMPARE_LOCK, project, &overlay).await?;
        on_disk(project.path(), move || overlay.remove()).await
    }

    /// The registry packages that a build of `project` for `target` needs, as (name, version): the packages of
    /// `lock_text` without those for other platforms only. All features and dev-dependencies count.
    ///
    /// Dependencies of build scripts and procedural macros are included unless they depend on the platform. To
    /// cross-compile, ask for the host as well. Cargo downloads the crates through the larder to read their manifests
    /// (`PackageSet::download_accessible` in `src/cargo/core/package.rs`).
    ///
    /// Nothing in the project's folder is changed. Dropping the future stops cargo.
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if the lock file does not fit the project or the target is not known.
    pub async fn needed_for(
        &self,
        project: CargoProject<'_>,
        lock_text: &str,
        target: &str,
    ) -> Result<BTreeSet<(String, String)>, ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut options = vec!["--locked".to_owned(), format!("--filter-platform={target}")];
        options.extend(self.settings(project, &overlay));
        let mut command = MetadataCommand::new()
            .cargo_path(&self.cargo)
            .current_dir(&overlay.project)
            .features(CargoOpt::AllFeatures)
            .other_options(options)
            .cargo_command();
        self.set_environment(&mut command, &overlay);
        let answer = self
            .run(command.into(), LIST_NEEDS, project, &overlay)
            .await?;
        on_disk(project.path(), move || overlay.remove()).await?;
        let unreadable = |source| ScratchError::Answer {
            project: project.path().to_owned(),
            source,
        };
        let text =
            String::from_utf8(answer).map_err(|error| unreadable(error.utf8_error().into()))?;
        Ok(from_registries(
            &MetadataCommand::parse(text).map_err(unreadable)?,
        ))
    }

    /// Lets cargo download all crates that a build for one of `targets` needs, into a home that is deleted. Unlike
    /// [`Scratch::needed_for`], it needs no crates that only this machine's own platform uses.
    ///
    /// # Errors
    /// [`ScratchError::Cargo`] if one of them cannot be downloaded, or the lock file does not fit the project.
    pub async fn fetch(
        &self,
        project: CargoProject<'_>,
        lock_text: &str,
        targets: &[String],
    ) -> Result<(), ScratchError> {
        let overlay = self.overlay(project, Some(lock_text.to_owned())).await?;
        let mut command = self.command(&overlay);
        command.args(["fetch", "--locked"]);
        for target in targets {
            command.args(["--target", target]);
        }
        command.args(self.settings(project, &overlay));
        self.run(command, LIST_NEEDS, project, &overlay).await?;
        on_disk(project.path(), move || overlay.remove()).await
    }

    /// An overlay with an empty package in the project's place.
    async fn probe(&self, project: CargoProject<'_>) -> Result<Overlay, ScratchError> {
        let script = Script {
            path: project.path().to_owned(),
            manifest: PROBE_MANIFEST.to_owned(),
            toolchain: None,
        };
        let project = CargoProject {
            script: Some(&script),
            ..project
        };
        self.overlay(project, None).await
    }

    /// Tells if this cargo keeps the project's lock file where `resolver.lockfile-path` asks for it, by an empty
    /// package in the project's place. Versions before 1.97 ignore the setting unless another setting allows it.
    ///
    /// # Errors
    /// Cargo cannot be asked.
    pub async fn follows_lockfile_path(
        &self,
        project: CargoProject<'_>,
    ) -> Result<bool, ScratchError> {
        let overlay = self.probe(project).await?;
        let lock = overlay.scratch.path().join("asked").join(CARGO_LOCK);
        let mut command = self.command(&overlay);
        command
            .args(["generate-lockfile", "--offline", "--config"])
            .arg(lockfile_path(&lock));
        self.run(command, FIND_LOCK, project, &overlay).await?;
        on_disk(project.path(), move || {
            let is_there = lock.is_file();
            overlay.remove()?;
            Ok(is_there)
        })
        .await
    }

    /// Tells if this cargo reads the files that a settings file includes, by a settings file that includes one that
    /// does not exist. Versions before 1.94 ignore the key unless another setting allows it.
    ///
    /// # Errors
    /// Cargo cannot be asked.
    pub async fn follows_include(&self, project: CargoProject<'_>) -> Result<bool, ScratchError> {
        let overlay = self.probe(project).await?;
        let settings = overlay.scratch.path().join(INCLUDE_PROBE);
        let text = "include = ['does-not-exist.toml']\n";
        let written = settings.clone();
        on_disk(project.path(), move || std::fs::write(written, text)).await?;
        let mut accepted = self.command(&overlay);
        accepted.args(["locate-project", "--config"]).arg(settings);
        let is_ignored = self.run(accepted, FIND_INCLUDES, project, &overlay).await;
        if is_ignored.is_err() {
            // Cargo must work without the probe, or its failure says nothing about `include`.
            let mut plain = self.command(&overlay);
            plain.arg("locate-project");
            self.run(plain, FIND_INCLUDES, project, &overlay).await?;
        }
        on_disk(project.path(), move || overlay.remove()).await?;
        Ok(is_ignored.is_err())
    }

    /// The file in which cargo keeps the lock file of this script: in its own home, or where the user's settings put
    /// builds. The file may not exist yet. `None` if no cargo at hand runs scripts, so that there is none either.
    pub async fn script_lock(&self, script: &Script) -> Option<PathBuf> {
        let named = script.toolchain.as_ref().map(|name| format!("+{name}"));
        let toolchains = [named, None, Some("+nightly".to_owned())];
        for toolchain in toolchains {
            let toolchain = toolchain.as_deref();
            let Some(build) = self.script_build_folder(script, toolchain, &[]).await else {
                continue;
            };
            // In there, cargo names a folder by the hash of the script's path. The template below splits the hash.
            let by_hash = ["--config", "build.build-dir='{workspace-path-hash}'"];
            let hash = self
                .script_build_folder(script, toolchain, &by_hash)
                .await?;
            let mut parts = hash.iter().rev();
            let (end, start) = (parts.next()?, parts.next()?);
            let name: OsString = [start, end].into_iter().collect();
            return Some(build.join(name).join(CARGO_LOCK));
        }
        None
    }

    /// The folder for builds of this script, by the user's own settings. Nothing is written.
    async fn script_build_folder(
        &self,
        script: &Script,
        toolchain: Option<&str>,
        more: &[&str],
    ) -> Option<PathBuf> {
        let path = std::path::absolute(&script.path).ok()?;
        let mut command = Command::new(&self.cargo);
        command
            .args(toolchain)
            .args(["-Zscript", "metadata", "--no-deps", "--format-version=1"])
            .arg("--manifest-path")
            .arg(&path)
            .args(more)
            .current_dir(path.parent()?)
            .env("RUSTUP_AUTO_INSTALL", "0")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.ok()?;
        let answer: BuildFolders = serde_json::from_slice(&output.stdout).ok()?;
        Some(answer.build_directory)
    }

    async fn overlay(
        &self,
        project: CargoProject<'_>,
        lock_text: Option<String>,
    ) -> Result<Overlay, ScratchError> {
        let folder = self.folder.clone();
        let (original, manifest) = project.to_owned();
        let cargo_home = self.cargo_home.clone();
        on_disk(project.path(), move || {
            let overlay = Overlay::new(
                &folder,
                &original,
                manifest.as_deref(),
                lock_text.as_deref(),
            )?;
            if let Some(home) = cargo_home {
                overlay.link_settings(&home, &original)?;
            }
            Ok(overlay)
        })
        .await
    }

    /// The user's cargo in the overlay's project.
    fn command(&self, overlay: &Overlay) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&overlay.project);
        self.set_environment(command.as_std_mut(), overlay);
        command
    }

    fn set_environment(&self, command: &mut std::process::Command, overlay: &Overlay) {
        let Some(proxy) = &self.closed_proxy else {
            return overlay.set_environment(command, self.no_proxy.clone());
        };
        overlay.set_environment(command, OsString::new());
        // For git, which does not read cargo's settings.
        command.envs(PROXY_VARIABLES.map(|name| (name, proxy)));
    }

    /// Settings on the command line override files and variables, so cargo uses the larder whatever the user set, and
    /// writes no lock file outside of the overlay. Only vendored sources stay in use: that project needs no registry.
    fn settings(&self, project: CargoProject<'_>, overlay: &Overlay) -> Vec<String> {
        let address = self.registry_address.trim_end_matches('/');
        let mut settings = vec![
            "net.offline=false".to_owned(),
            lockfile_path(&overlay.project.join(CARGO_LOCK)),
        ];
        let home = self.cargo_home.as_deref();
        let config = CargoConfig::read(project.folder, home, project.includes);
        if !config.has_local_crates_io() {
            settings.extend([
                format!("source.crates-io.replace-with='{REGISTRY}'"),
                // A sparse URL must end in a slash.
                format!("registries.{REGISTRY}.index='sparse+{address}/'"),
            ]);
        }
        for (name, index) in &self.registries {
            let Some(names) = config.replaceable_names(index) else {
                continue;
            };
            let own = format!("{REGISTRY}-{name}");
            settings.push(format!(
                "registries.{own}.index='sparse+{address}/registry/{name}/'"
            ));
            if names.is_empty() {
                settings.push(format!("source.{own}-upstream.registry='{index}'"));
                settings.push(format!("source.{own}-upstream.replace-with='{own}'"));
            }
            // Cargo refuses a second name for a source.
            settings.extend(names.into_iter().map(|name| {
                let key = toml::Value::String(name.to_owned());
                format!("source.{key}.replace-with='{own}'")
            }));
        }
        if let Some(proxy) = &self.closed_proxy {
            settings.push(format!("http.proxy='{proxy}'"));
            // The larder on this machine needs no second attempt, and others get no first one.
            settings.push("net.retry=0".to_owned());
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
        project: CargoProject<'_>,
        overlay: &Overlay,
    ) -> Result<Vec<u8>, ScratchError> {
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command
            .output()
            .await
            .map_err(|source| ScratchError::Start {
                program: self.cargo.clone(),
                project: project.path().to_owned(),
                source,
            })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ScratchError::Cargo {
            task,
            project: project.path().to_owned(),
            status: output.status,
            said: last_lines(&overlay.with_user_paths(&String::from_utf8_lossy(&output.stderr))),
        })
    }
}

#[derive(Deserialize)]
struct BuildFolders {
    build_directory: PathBuf,
}

/// A setting of cargo's command line.
fn lockfile_path(path: &Path) -> String {
    let path = toml::Value::String(path.to_string_lossy().into_owned());
    format!("resolver.lockfile-path={path}")
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
