//! The settings file: TOML whose keys are the flags' names, and a table for each further registry.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::ConfigError;
use crate::cli::{H2cListeners, ToolchainFormat};

/// The contents of a settings file. An unknown key is an error: it is most likely misspelt.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SettingsFile {
    pub(super) store: Option<String>,
    pub(super) max_age: Option<String>,
    pub(super) index: Option<String>,
    pub(super) dist_server: Option<String>,
    pub(super) update_root: Option<String>,
    pub(super) toolchain_format: Option<ToolchainFormat>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) redirect_host: Option<Vec<String>>,
    /// `patience` is its former name.
    #[serde(alias = "patience")]
    pub(super) upstream_timeout: Option<String>,
    pub(super) listen: Option<Vec<SocketAddr>>,
    pub(super) offline: Option<bool>,
    pub(super) full_index: Option<bool>,
    pub(super) allow_host: Option<Vec<String>>,
    pub(super) keep_warm: Option<bool>,
    pub(super) h2c: Option<H2cListeners>,
    pub(super) jobs: Option<u16>,
    /// Registries besides crates.io, by name.
    #[serde(default)]
    pub(super) registry: BTreeMap<String, RegistryTable>,
}

/// `[registry.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryTable {
    /// The index's address, with or without `sparse+`.
    pub(super) index: String,
}

impl SettingsFile {
    /// Reads `named`, which must exist, or else the file in `folder`, which need not.
    pub(super) fn load(named: Option<&Path>, folder: Option<&Path>) -> Result<Self, ConfigError> {
        match (
            named,
            folder.map(|folder| folder.join("larder/config.toml")),
        ) {
            (Some(path), _) => Self::read(path),
            (None, Some(path)) if path.exists() => Self::read(&path),
            (None, _) => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| before.matches('\n').count() + 1),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })
    }
}
