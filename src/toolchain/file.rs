//! Toolchain files: `rust-toolchain` and `rust-toolchain.toml`, with which a project chooses its toolchain.
//!
//! ```toml
//! [toolchain]
//! channel = "1.95"                        # or path = "/opt/rust", a toolchain that exists already
//! components = ["clippy"]
//! targets = ["wasm32-unknown-unknown"]
//! profile = "minimal"
//! ```
//!
//! A `rust-toolchain` with a single line is not TOML but the name of a channel or an absolute path
//! (docs/client-behaviour.md R-18).

use std::path::Path;

use serde::Deserialize;

use super::profile::canonical_profile;

/// The two file names, which have different syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolchainFile {
    /// `rust-toolchain`: a channel name or a path if it has one line, TOML otherwise. Wins over the other in one
    /// folder.
    Legacy,
    /// `rust-toolchain.toml`: always TOML.
    Toml,
}

/// The content of a toolchain file. Without channel and path it means the user's default toolchain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolchainSpec {
    /// As written: a [`super::Channel`], or the name of a toolchain of the user's own.
    pub channel: Option<String>,
    /// The absolute path of an existing toolchain. There is nothing to fetch.
    pub path: Option<String>,
    /// Components beyond those of the profile.
    pub components: Vec<String>,
    /// Targets beyond the host.
    pub targets: Vec<String>,
    /// `minimal`, `default`, `complete` or an abbreviation. Without it the user's setting decides.
    pub profile: Option<String>,
}

/// Why rustup would refuse a toolchain file.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainFileError {
    /// No line, or a single blank one.
    #[error("it is empty")]
    Empty,
    /// An empty table, or only a profile.
    #[error("it names no channel, path, components or targets")]
    Nothing,
    /// Not TOML, or TOML of another structure.
    #[error("it is no valid TOML of a toolchain file: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A channel and a path.
    #[error("it names both the channel `{channel}` and the path `{path}`")]
    ChannelAndPath {
        /// The channel.
        channel: String,
        /// The path.
        path: String,
    },
    /// Components, targets or a profile beside a path. They need a channel to come from.
    #[error("components, targets and profile cannot be had with the path `{0}`")]
    PathWithMore(String),
    /// A relative path.
    #[error("the path `{0}` is relative")]
    RelativePath(String),
    /// rustup has no such profile.
    #[error("there is no profile `{0}`")]
    UnknownProfile(String),
}

/// Parses a toolchain file as rustup does (`Cfg::parse_override_file` and `OverrideCfg::from_file` in `src/config.rs`).
///
/// # Errors
/// The file is one that rustup refuses. The existence of the channel is not checked.
pub fn parse_file(name: ToolchainFile, text: &str) -> Result<ToolchainSpec, ToolchainFileError> {
    let spec = match (text.lines().count(), name) {
        (0, _) => return Err(ToolchainFileError::Empty),
        (1, ToolchainFile::Legacy) => match text.trim() {
            "" => return Err(ToolchainFileError::Empty),
            path if Path::new(path).is_absolute() => ToolchainSpec {
                path: Some(path.to_owned()),
                ..ToolchainSpec::default()
            },
            channel => ToolchainSpec {
                channel: Some(channel.to_owned()),
                ..ToolchainSpec::default()
            },
        },
        (_, ToolchainFile::Legacy | ToolchainFile::Toml) => {
            from_table(toml::from_str::<FileTables>(text)?.toolchain)?
        }
    };
    match &spec.path {
        Some(path) if !Path::new(path).is_absolute() => {
            Err(ToolchainFileError::RelativePath(path.clone()))
        }
        Some(_) | None => Ok(spec),
    }
}

/// Checks the table by rustup's rules.
fn from_table(table: ToolchainTable) -> Result<ToolchainSpec, ToolchainFileError> {
    let has_lists = table.components.is_some() || table.targets.is_some();
    match (&table.channel, &table.path) {
        (None, None) if !has_lists => return Err(ToolchainFileError::Nothing),
        (Some(channel), Some(path)) => {
            return Err(ToolchainFileError::ChannelAndPath {
                channel: channel.clone(),
                path: path.clone(),
            });
        }
        (None, Some(path)) if has_lists || table.profile.is_some() => {
            return Err(ToolchainFileError::PathWithMore(path.clone()));
        }
        (Some(_), None) | (None, Some(_) | None) => {}
    }
    if let Some(profile) = &table.profile
        && canonical_profile(profile).is_none()
    {
        return Err(ToolchainFileError::UnknownProfile(profile.clone()));
    }
    Ok(ToolchainSpec {
        channel: table.channel,
        path: table.path,
        components: table.components.unwrap_or_default(),
        targets: table.targets.unwrap_or_default(),
        profile: table.profile,
    })
}

#[derive(Deserialize)]
struct FileTables {
    toolchain: ToolchainTable,
}

#[derive(Deserialize)]
struct ToolchainTable {
    channel: Option<String>,
    path: Option<String>,
    components: Option<Vec<String>>,
    targets: Option<Vec<String>>,
    profile: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::{
        Channel,
        fixture::{WASM, strings},
    };

    fn spec(channel: Option<&str>, path: Option<&str>) -> ToolchainSpec {
        ToolchainSpec {
            channel: channel.map(str::to_owned),
            path: path.map(str::to_owned),
            ..ToolchainSpec::default()
        }
    }

    #[test]
    fn one_line_is_a_channel_or_path_only_in_the_legacy_file() {
        use ToolchainFile::{Legacy, Toml};
        for text in [
            "nightly-2026-01-15",
            "nightly-2026-01-15\n",
            "  nightly-2026-01-15\r\n",
        ] {
            let expected = spec(Some("nightly-2026-01-15"), None);
            assert_eq!(parse_file(Legacy, text).unwrap(), expected);
            assert!(matches!(
                parse_file(Toml, text),
                Err(ToolchainFileError::Syntax(_))
            ));
        }
        assert_eq!(
            parse_file(Legacy, "/opt/rust\n").unwrap(),
            spec(None, Some("/opt/rust"))
        );
        // A single line is not a table: rustup reads it as a name and refuses the name.
        let odd = parse_file(Legacy, "toolchain.channel = 'stable'").unwrap();
        assert!(odd.channel.unwrap().parse::<Channel>().is_err());
        let table = "[toolchain]\nchannel = \"1.95\"\n";
        for name in [Legacy, Toml] {
            assert_eq!(parse_file(name, table).unwrap(), spec(Some("1.95"), None));
        }
        let one_line_of_toml = "toolchain = { channel = 'stable' }";
        assert_eq!(
            parse_file(Toml, one_line_of_toml).unwrap(),
            spec(Some("stable"), None)
        );
    }

    #[test]
    fn all_keys_are_read_and_unknown_keys_are_ignored() {
        let text = r#"
            [toolchain]
            channel = "stable"
            components = ["clippy", "rust-src"]
            targets = ["wasm32-unknown-unknown"]
            profile = "minimal"
            later = true
            [more]
        "#;
        let expected = ToolchainSpec {
            components: strings(&["clippy", "rust-src"]),
            targets: strings(&[WASM]),
            profile: Some("minimal".to_owned()),
            ..spec(Some("stable"), None)
        };
        assert_eq!(parse_file(ToolchainFile::Toml, text).unwrap(), expected);
        let default_toolchain = "[toolchain]\ntargets = []\n";
        assert_eq!(
            parse_file(ToolchainFile::Toml, default_toolchain).unwrap(),
            ToolchainSpec::default()
        );
    }

    #[test]
    fn toolchain_files_that_rustup_refuses_are_refused() {
        for (text, says) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("[toolchain]\n\n", "it names no channel"),
            ("[toolchain]\nprofile = 'minimal'\n", "it names no channel"),
            ("[other]\nchannel = 'stable'\n", "missing field `toolchain`"),
            ("[toolchain]\nchannel = 1.95\n", "no valid TOML"),
            (
                "[toolchain]\nchannel = 'stable'\npath = '/opt/rust'\n",
                "both the channel `stable` and the path `/opt/rust`",
            ),
            (
                "[toolchain]\npath = '/opt/rust'\ncomponents = []\n",
                "cannot be had with the path",
            ),
            ("[toolchain]\npath = '../rust'\n", "is relative"),
            (
                "[toolchain]\nchannel = 'stable'\nprofile = 'huge'\n",
                "there is no profile `huge`",
            ),
        ] {
            let error = parse_file(ToolchainFile::Legacy, text)
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
