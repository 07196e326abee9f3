//! The tables `[[warm.project]]`, `[[warm.toolchain]]` and `[[warm.crate]]`: what a plain `larder warm` and `larder
//! check` are about, besides the current folder.

use std::{collections::BTreeMap, path::PathBuf};

use super::{ConfigError, Place, given::Given, parse::parse_text};
use crate::{
    cli,
    crate_spec::{CrateSpec, CrateUse},
};

/// The keys of a table, and those that it must have.
pub(super) struct TableKind {
    /// The name below `warm`.
    pub(super) name: &'static str,
    /// All keys. The first one is required.
    pub(super) keys: &'static [&'static str],
}

/// The tables below `warm`.
pub(super) const TABLES: [TableKind; 3] = [
    TableKind {
        name: "project",
        keys: &["path"],
    },
    TableKind {
        name: "toolchain",
        keys: &["channel", "profile", "components", "targets"],
    },
    TableKind {
        name: "crate",
        keys: &["name", "version", "with-dependencies"],
    },
];

/// One table of the settings file.
#[derive(Debug)]
pub(super) struct WarmTable {
    /// The name below `warm`.
    pub(super) kind: &'static str,
    /// Its values by key, the required one among them.
    pub(super) values: BTreeMap<&'static str, Given>,
}

/// The set that the settings file declares, to be kept in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredSet {
    /// Folders and files of projects. Relative paths start at the settings file's folder.
    pub projects: Vec<PathBuf>,
    /// Toolchains.
    pub toolchains: Vec<DeclaredToolchain>,
    /// Crates.
    pub crates: Vec<(CrateSpec, CrateUse)>,
}

/// A toolchain that the settings file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredToolchain {
    /// Its name, as rustup takes it.
    pub channel: String,
    /// Its profile; `None` for rustup's setting.
    pub profile: Option<String>,
    /// Components beyond those of the profile.
    pub components: Vec<String>,
    /// Targets beyond the host.
    pub targets: Vec<String>,
}

impl DeclaredSet {
    /// Tells if nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.projects.is_empty() && self.toolchains.is_empty() && self.crates.is_empty()
    }

    /// Reads the tables. `expand` replaces a leading `~`.
    pub(super) fn read(
        tables: &[WarmTable],
        expand: impl Fn(PathBuf) -> PathBuf,
    ) -> Result<Self, ConfigError> {
        let mut set = Self::default();
        for table in tables {
            match table.kind {
                "project" => set.projects.extend(table.project(&expand)?),
                "toolchain" => set.toolchains.push(table.toolchain()?),
                _ => set.crates.extend(table.named_crate()?),
            }
        }
        Ok(set)
    }
}

impl WarmTable {
    fn project(&self, expand: impl Fn(PathBuf) -> PathBuf) -> Result<Option<PathBuf>, ConfigError> {
        let Some(given) = self.values.get("path") else {
            return Ok(None);
        };
        let path = given.one(parse_text)?;
        let path = expand(PathBuf::from(path));
        let folder = match &given.place {
            Place::File { path, .. } => path.parent(),
            Place::Flag(_) | Place::Variable(_) => None,
        };
        Ok(Some(match folder {
            Some(folder) => folder.join(path),
            None => path,
        }))
    }

    fn toolchain(&self) -> Result<DeclaredToolchain, ConfigError> {
        let many = |key: &str| match self.values.get(key) {
            Some(given) => given.parse(parse_text),
            None => Ok(Vec::new()),
        };
        let one = |key: &str| {
            let given = self.values.get(key);
            given.map(|given| given.one(parse_text)).transpose()
        };
        let profile = self.values.get("profile");
        let profile = profile.map(|given| {
            given.one(|text| match text {
                "minimal" | "default" | "complete" => Ok(text.to_owned()),
                _ => Err("expected one of minimal, default, complete".to_owned()),
            })
        });
        Ok(DeclaredToolchain {
            channel: one("channel")?.unwrap_or_default(),
            profile: profile.transpose()?,
            components: many("components")?,
            targets: many("targets")?,
        })
    }

    fn named_crate(&self) -> Result<Option<(CrateSpec, CrateUse)>, ConfigError> {
        let Some(name) = self.values.get("name") else {
            return Ok(None);
        };
        let named = |name: &str, version: Option<&str>| {
            CrateSpec::new(name, version).map_err(|error| error.to_string())
        };
        let mut spec = name.one(|name| named(name, None))?;
        if let Some(version) = self.values.get("version") {
            spec = version.one(|version| named(spec.name(), Some(version)))?;
        }
        let with_dependencies = match self.values.get("with-dependencies") {
            Some(given) => given.one(cli::parse_switch)?,
            None => false,
        };
        let usage = if with_dependencies {
            CrateUse::Dependency
        } else {
            CrateUse::Install
        };
        Ok(Some((spec, usage)))
    }
}
