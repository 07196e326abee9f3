//! Toolchain files: `rust-toolchain` and `rust-toolchain.toml`.

use std::path::Path;

use serde::Deserialize;

use super::profile::canonical_profile;

/// Which of its two file names a toolchain file has; they are read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolchainFile {
    /// `rust-toolchain`: a channel name if it has one line, TOML otherwise. Wins over the other within one folder.
    Legacy,
    /// `rust-toolchain.toml`: always TOML.
    Toml,
}

/// What a toolchain file asks for. Without channel and path the user's default toolchain is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolchainSpec {
    /// As written: a [`Channel`], or the name of a toolchain that only this user has.
    pub channel: Option<String>,
    /// The absolute path of a toolchain that is there already: nothing to fetch.
    pub path: Option<String>,
    /// Beyond those of the profile.
    pub components: Vec<String>,
    /// Beyond the host.
    pub targets: Vec<String>,
    /// `minimal`, `default`, `complete` or one of rustup's abbreviations; without it the user's setting decides.
    pub profile: Option<String>,
}

/// Why rustup would refuse a toolchain file.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainFileError {
    /// No line, or a blank one.
    #[error("it is empty")]
    Empty,
    /// A profile alone names no toolchain, nor does an empty table.
    #[error("it names no channel, path, components or targets")]
    Nothing,
    /// Not TOML, or not of this shape.
    #[error("it is no valid TOML of a toolchain file: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Both at once.
    #[error("it names both the channel `{channel}` and the path `{path}`")]
    ChannelAndPath {
        /// The one.
        channel: String,
        /// The other.
        path: String,
    },
    /// Components, targets and profiles need a channel to come from.
    #[error("components, targets and profile cannot be had with the path `{0}`")]
    PathWithMore(String),
    /// Only absolute paths are taken.
    #[error("the path `{0}` is relative")]
    RelativePath(String),
    /// See [`ManifestError::UnknownProfile`].
    #[error("there is no profile `{0}`")]
    UnknownProfile(String),
}

/// Reads a toolchain file as rustup does (`Cfg::parse_override_file` and `OverrideCfg::from_file` in `src/config.rs`).
///
/// # Errors
/// For whatever rustup refuses without looking at what is installed. Whether the channel exists is not checked.
pub fn parse_file(name: ToolchainFile, text: &str) -> Result<ToolchainSpec, ToolchainFileError> {
    let wanted = match (text.lines().count(), name) {
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
        _ => from_table(toml::from_str::<FileTables>(text)?.toolchain)?,
    };
    match &wanted.path {
        Some(path) if !Path::new(path).is_absolute() => {
            Err(ToolchainFileError::RelativePath(path.clone()))
        }
        _ => Ok(wanted),
    }
}

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
        _ => {}
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

    fn wanted(channel: Option<&str>, path: Option<&str>) -> ToolchainSpec {
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
            let expected = wanted(Some("nightly-2026-01-15"), None);
            assert_eq!(parse_file(Legacy, text).unwrap(), expected);
            assert!(matches!(
                parse_file(Toml, text),
                Err(ToolchainFileError::Syntax(_))
            ));
        }
        assert_eq!(
            parse_file(Legacy, "/opt/rust\n").unwrap(),
            wanted(None, Some("/opt/rust"))
        );
        // One line, so not a table: rustup takes it for a name and then refuses that.
        let odd = parse_file(Legacy, "toolchain.channel = 'stable'").unwrap();
        assert!(odd.channel.unwrap().parse::<Channel>().is_err());
        let table = "[toolchain]\nchannel = \"1.95\"\n";
        for name in [Legacy, Toml] {
            assert_eq!(parse_file(name, table).unwrap(), wanted(Some("1.95"), None));
        }
        let one_line_of_toml = "toolchain = { channel = 'stable' }";
        assert_eq!(
            parse_file(Toml, one_line_of_toml).unwrap(),
            wanted(Some("stable"), None)
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
            ..wanted(Some("stable"), None)
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
