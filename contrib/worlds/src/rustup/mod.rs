//! Worlds of rustup: releases, a toolchain request, a story.

mod generate;
mod run;

use std::fmt::{self, Write as _};

use fake_upstream::{HOST, Toolchain};
use serde::{Deserialize, Serialize};

use crate::harm::Harm;
use crate::project::is_false;
use crate::registry::list;

/// Stands for the user's project folder in settings.
const WORK_FOLDER: &str = "@WORK@";

/// The description of a world of rustup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RustupWorld {
    /// The state of the store, for summaries.
    pub(crate) state: String,
    /// The releases at the beginning, in their order.
    pub(crate) releases: Vec<Release>,
    /// The version of rustup that upstream calls the newest.
    pub(crate) rustup: String,
    /// The user's `settings.toml` of rustup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<String>,
    /// The toolchain that the user has at the beginning, installed without larder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) installed: Option<Request>,
    /// `--max-age` of all commands.
    pub(crate) max_age: String,
    /// `--toolchain-format` of all commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<String>,
    pub(crate) events: Vec<Event>,
    /// The toolchain that is wanted at the end.
    pub(crate) request: Request,
    pub(crate) verify: bool,
    /// True if one of rustup's proxies gives the truth: it installs a missing toolchain. Otherwise `rustup toolchain
    /// install` does.
    #[serde(default)]
    pub(crate) is_by_proxy: bool,
    /// True if all commands of larder get `--host` with this machine's triple: then no home counts, and another user
    /// gives the truth.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) has_host: bool,
    /// True if targets on larder's command line are one list, `--target a,b`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) joins_targets: bool,
}

/// One release of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    pub(crate) channel: String,
    pub(crate) version: String,
    pub(crate) date: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) targets: Vec<String>,
    /// Packages in the manifest without an archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unavailable: Vec<String>,
    #[serde(default)]
    pub(crate) is_gz_only: bool,
}

/// The place in which a toolchain is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// On the command line.
    Command,
    /// In `rust-toolchain`.
    Legacy,
    /// In `rust-toolchain.toml`.
    Toml,
    /// The default toolchain of the user's settings, for a project without toolchain file.
    Default,
    /// An override for the project's folder in the user's settings.
    Override,
}

/// A toolchain of the user's own, named by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PathToolchain {
    /// It exists.
    Absolute,
    /// It exists, and its path starts at the project.
    Relative,
    /// It does not exist.
    Missing,
}

impl PathToolchain {
    fn text(self) -> String {
        match self {
            Self::Absolute => format!("{WORK_FOLDER}/own"),
            Self::Relative => "own".to_owned(),
            Self::Missing => format!("{WORK_FOLDER}/gone"),
        }
    }
}

/// A toolchain that a user wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    /// The path in a toolchain file that names no channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathToolchain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) components: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) targets: Vec<String>,
}

/// One step of the story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// `larder warm`.
    Warm(Request),
    /// Another user installs this toolchain through larder.
    Install(Request),
    /// The user installs this toolchain through larder.
    OwnInstall(Request),
    /// A user who has this toolchain asks through larder for updates.
    Check(Request),
    /// A release.
    Release(Release),
    /// A release of rustup.
    ReleaseRustup(String),
    /// Upstream answers 404 for these files of a release.
    Remove(Release, Removed),
    /// Upstream accepts no connections.
    Down,
    /// Upstream answers 500.
    Broken,
    /// Upstream is as before [`Event::Down`] or [`Event::Broken`].
    Up,
    /// Files of the store are lost or damaged.
    Harm(Harm),
    /// `larder gc` with these flags.
    Gc(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Removed {
    /// The manifest under all its names.
    Manifests,
    /// The archives of a package.
    Package(String),
    /// `release-stable.toml`.
    RustupRelease,
}

impl Release {
    pub(crate) fn toolchain(&self) -> Toolchain {
        let mut toolchain = Toolchain::new(&self.channel, &self.version).date(&self.date);
        for target in &self.targets {
            toolchain = toolchain.target(target);
        }
        for package in &self.unavailable {
            toolchain = toolchain.unavailable(package);
        }
        if self.is_gz_only {
            toolchain.gz_only()
        } else {
            toolchain
        }
    }
}

impl Request {
    /// The name and the text of the toolchain file; `None` for a toolchain on the command line.
    pub(crate) fn file(&self) -> Option<(&'static str, String)> {
        let mut text = "[toolchain]\n".to_owned();
        for (key, value) in [("channel", &self.channel), ("profile", &self.profile)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = \"{value}\"");
            }
        }
        if let Some(path) = self.path {
            let _ = writeln!(text, "path = \"{}\"", path.text());
        }
        for (key, list) in [("components", &self.components), ("targets", &self.targets)] {
            if !list.is_empty() {
                let _ = writeln!(text, "{key} = {}", serde_json::json!(list));
            }
        }
        match (self.place, &self.channel) {
            (Place::Command | Place::Default | Place::Override, _) => None,
            (Place::Legacy, Some(channel)) if self.path.is_none() && text.lines().count() == 2 => {
                Some(("rust-toolchain", format!("{channel}\n")))
            }
            (Place::Legacy, _) => Some(("rust-toolchain", text)),
            (Place::Toml, _) => Some(("rust-toolchain.toml", text)),
        }
    }

    /// The flags that name the toolchain: `flag` names the channel, unless it is empty, then the channel stands alone.
    pub(crate) fn flags(
        &self,
        channel: &str,
        [profile, component, target]: [&str; 3],
    ) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add = |flag: &str, value: &String| {
            flags.extend(
                [flag, value]
                    .into_iter()
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned),
            );
        };
        let channels = self.channel.iter().map(|name| (channel, name));
        let profiles = self.profile.iter().map(|name| (profile, name));
        let components = self.components.iter().map(|name| (component, name));
        let targets = self.targets.iter().map(|name| (target, name));
        for (flag, value) in channels.chain(profiles).chain(components).chain(targets) {
            add(flag, value);
        }
        flags
    }
}

impl fmt::Display for RustupWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.as_deref().unwrap_or("default");
        writeln!(
            f,
            "store: {}; --max-age {}; format {format}",
            self.state, self.max_age
        )?;
        writeln!(f, "upstream: rustup {}", self.rustup)?;
        for release in &self.releases {
            writeln!(f, "    {release}")?;
        }
        if let Some(settings) = &self.settings {
            writeln!(
                f,
                "rustup's settings: {}",
                settings.trim().replace('\n', "; ")
            )?;
        }
        if let Some(installed) = &self.installed {
            writeln!(f, "installed: {installed}")?;
        }
        writeln!(f, "then:")?;
        for event in &self.events {
            writeln!(f, "  - {event}")?;
        }
        if self.has_host {
            writeln!(f, "larder is asked with --host {HOST}")?;
        }
        if self.joins_targets {
            writeln!(f, "larder is asked with --target a,b")?;
        }
        let verify = if self.verify { " --verify" } else { "" };
        let truth = if self.is_by_proxy {
            "rustc --version"
        } else {
            "rustup toolchain install"
        };
        write!(
            f,
            "question: check{verify} of {} against {truth}",
            self.request
        )
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.channel, self.version, self.date)?;
        write!(
            f,
            "{}{}",
            list(" with ", &self.targets),
            list(" without ", &self.unavailable)
        )?;
        f.write_str(if self.is_gz_only { ", gz only" } else { "" })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channel = match self.path {
            Some(PathToolchain::Absolute) => "a path",
            Some(PathToolchain::Relative) => "a relative path",
            Some(PathToolchain::Missing) => "a path to nothing",
            None => self.channel.as_deref().unwrap_or("no channel"),
        };
        let place = match self.place {
            Place::Command => "",
            Place::Legacy => " in rust-toolchain",
            Place::Toml => " in rust-toolchain.toml",
            Place::Default => " by default",
            Place::Override => " by an override",
        };
        let profile = self.profile.as_deref().unwrap_or("default");
        write!(f, "{channel}{place}, profile {profile}")?;
        write!(
            f,
            "{}{}",
            list(" with ", &self.components),
            list(" for ", &self.targets)
        )
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warm(request) => write!(f, "larder warm of {request}"),
            Self::Install(request) => {
                write!(f, "another user's install through larder of {request}")
            }
            Self::OwnInstall(request) => {
                write!(f, "the user's install through larder of {request}")
            }
            Self::Check(request) => write!(f, "rustup check through larder by a user of {request}"),
            Self::Release(release) => write!(f, "release of {release}"),
            Self::ReleaseRustup(version) => write!(f, "release of rustup {version}"),
            Self::Remove(release, Removed::Manifests) => {
                write!(f, "upstream answers 404 for the manifests of {release}")
            }
            Self::Remove(release, Removed::Package(package)) => {
                write!(
                    f,
                    "upstream answers 404 for the archives of {package} of {release}"
                )
            }
            Self::Remove(_, Removed::RustupRelease) => {
                f.write_str("upstream answers 404 for release-stable.toml")
            }
            Self::Down => f.write_str("upstream goes down"),
            Self::Broken => f.write_str("upstream answers 500"),
            Self::Up => f.write_str("upstream works again"),
            Self::Harm(harm) => harm.fmt(f),
            Self::Gc(flags) => write!(f, "larder gc {}", flags.join(" ")),
        }
    }
}
