//! Worlds of cargo: crates, a project, a story, and a question to `larder check`.

mod generate;
mod run;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::harm::Harm;
use crate::project::{Project, is_false};
use crate::registry::{CrateSpec, Dep, RegistryName, list};

/// The description of a world of cargo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CargoWorld {
    /// The state of the store, for summaries.
    pub(crate) state: String,
    /// All versions that are published at the beginning.
    pub(crate) crates: Vec<CrateSpec>,
    pub(crate) project: Project,
    /// True if the project has a lock file, made from the beginning's crates.
    pub(crate) is_locked: bool,
    /// True if `cargo vendor` ran, and the project's settings name the copies.
    #[serde(default)]
    pub(crate) is_vendored: bool,
    /// True if the project is not below the user's home, so that cargo finds the user's settings in its own home only.
    #[serde(default)]
    pub(crate) is_outside_home: bool,
    /// True if the project is a cargo script. It has the dependencies of the only package.
    #[serde(default)]
    pub(crate) is_script: bool,
    /// True if the project's settings say `resolver.lockfile-path`, and cargo follows that; false if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) has_lock_elsewhere: Option<bool>,
    /// The version that the lock file states, if it is not cargo's newest. The second one states none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lock_version: Option<u32>,
    /// True if larder's settings do not name the second registry.
    #[serde(default)]
    pub(crate) is_corp_unknown: bool,
    /// The dependencies of the package in the git repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) git_deps: Vec<Dep>,
    /// True if the project's settings replace crates.io by a mirror, past larder.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) has_mirror: bool,
    /// True if targets on larder's command line are one list, `--target a,b`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) joins_targets: bool,
    /// `--max-age` of all commands.
    pub(crate) max_age: String,
    pub(crate) events: Vec<Event>,
    pub(crate) question: Question,
}

/// One step of the story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// `larder warm` on the project.
    Warm { targets: Vec<String> },
    /// `cargo fetch` in the project, through larder.
    Fetch,
    /// `cargo fetch` in another project with these dependencies, through larder.
    FetchOther { deps: Vec<Dep> },
    /// A new release.
    Publish(CrateSpec),
    Yank {
        registry: RegistryName,
        name: String,
        version: String,
    },
    /// Upstream answers 404 for an index entry.
    RemoveEntry {
        registry: RegistryName,
        name: String,
    },
    /// Upstream answers 404 for a crate.
    RemoveCrate {
        registry: RegistryName,
        name: String,
        version: String,
    },
    /// Upstream accepts no connections.
    Down,
    /// Upstream answers 500.
    Broken,
    /// Upstream is as before [`Event::Down`] or [`Event::Broken`].
    Up,
    /// Files of the store are lost or damaged.
    Harm(Harm),
    /// The user edits the manifests.
    Edit(Project),
    /// The user deletes the lock file.
    DeleteLock,
    /// `cargo update` in the project, without larder.
    Update,
    /// A daemon starts, and stops when it is idle.
    Daemon,
    /// `larder gc` with these flags.
    Gc { flags: Vec<String> },
    /// `cargo add` in the project, through larder.
    Add { package: String, is_offline: bool },
    /// Folders of vendored crates are lost.
    LoseVendored { percent: u32, salt: u64 },
}

/// The question to `check`, and how the truth is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) verify: bool,
    pub(crate) targets: Vec<String>,
    pub(crate) truth: TruthBy,
    #[serde(default)]
    pub(crate) path: QuestionPath,
}

/// The path that `check` is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum QuestionPath {
    /// The project's folder.
    #[default]
    Project,
    /// The folder of a member; cargo runs there, too.
    Member(String),
    /// The root manifest.
    Manifest,
    /// The lock file.
    Lock,
    /// The folder that has this project and others.
    Above,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TruthBy {
    /// `cargo fetch`, with `--locked` if there is a lock file.
    Fetch,
    /// `cargo build`, with `--locked` if there is a lock file.
    Build,
    /// `cargo build` without `--locked`.
    PlainBuild,
    /// `cargo test --no-run`, with `--locked` if there is a lock file.
    Test,
}

impl fmt::Display for CargoWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store: {}; --max-age {}", self.state, self.max_age)?;
        writeln!(f, "upstream:")?;
        for package in &self.crates {
            writeln!(f, "    {package}")?;
        }
        writeln!(f, "project: {}", self.project)?;
        let lock = if self.is_locked {
            "a lock file"
        } else {
            "no lock file"
        };
        let vendored = if self.is_vendored {
            ", vendored crates"
        } else {
            ""
        };
        let place = if self.is_outside_home {
            ", outside the user's home"
        } else {
            ""
        };
        let version = self.lock_version;
        let version = version.map_or(String::new(), |version| format!(" of version {version}"));
        let form = if self.is_script { "a script" } else { "it" };
        writeln!(f, "{form} has {lock}{version}{vendored}{place}")?;
        if let Some(is_followed) = self.has_lock_elsewhere {
            let not = if is_followed { "" } else { "not " };
            writeln!(f, "lockfile-path is set, and {not}followed by cargo")?;
        }
        if self.has_mirror {
            writeln!(f, "the project's settings replace crates.io by a mirror")?;
        }
        if self.joins_targets {
            writeln!(f, "larder is asked with --target a,b")?;
        }
        if self.is_corp_unknown {
            writeln!(f, "larder does not know the registry corp")?;
        }
        if !self.git_deps.is_empty() {
            writeln!(f, "the package in git{}", list(" needs ", &self.git_deps))?;
        }
        writeln!(f, "then:")?;
        for event in &self.events {
            writeln!(f, "  - {event}")?;
        }
        write!(f, "question: {}", self.question)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warm { targets } => write!(f, "larder warm{}", flags(targets)),
            Self::Fetch => f.write_str("cargo fetch through larder"),
            Self::FetchOther { deps } => {
                write!(
                    f,
                    "cargo fetch of another project through larder{}",
                    list(", which needs ", deps)
                )
            }
            Self::Publish(package) => write!(f, "release of {package}"),
            Self::Yank { name, version, .. } => write!(f, "{name} {version} is yanked"),
            Self::RemoveEntry { name, .. } => {
                write!(f, "upstream answers 404 for the entry of {name}")
            }
            Self::RemoveCrate { name, version, .. } => {
                write!(f, "upstream answers 404 for the crate {name} {version}")
            }
            Self::Down => f.write_str("upstream goes down"),
            Self::Broken => f.write_str("upstream answers 500"),
            Self::Up => f.write_str("upstream works again"),
            Self::Harm(harm) => harm.fmt(f),
            Self::Edit(project) => write!(f, "the project is edited: {project}"),
            Self::DeleteLock => f.write_str("the lock file is deleted"),
            Self::Update => f.write_str("cargo update without larder"),
            Self::Daemon => f.write_str("larder serve for a moment"),
            Self::Gc { flags } => write!(f, "larder gc {}", flags.join(" ")),
            Self::Add {
                package,
                is_offline,
            } => {
                let offline = if *is_offline {
                    ", which is offline"
                } else {
                    ""
                };
                write!(f, "cargo add {package} through larder{offline}")
            }
            Self::LoseVendored { percent, .. } => {
                write!(f, "{percent} % of the vendored folders are lost")
            }
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verify = if self.verify { " --verify" } else { "" };
        let truth = match self.truth {
            TruthBy::Fetch => "cargo fetch --locked",
            TruthBy::Build => "cargo build --locked",
            TruthBy::PlainBuild => "cargo build",
            TruthBy::Test => "cargo test --no-run --locked",
        };
        let path = match &self.path {
            QuestionPath::Project => "the project",
            QuestionPath::Member(folder) => folder,
            QuestionPath::Manifest => "Cargo.toml",
            QuestionPath::Lock => "Cargo.lock",
            QuestionPath::Above => "the folder above",
        };
        let targets = flags(&self.targets);
        write!(f, "check{verify}{targets} of {path} against {truth}")
    }
}

fn flags(targets: &[String]) -> String {
    targets
        .iter()
        .map(|target| format!(" --target {target}"))
        .collect()
}
