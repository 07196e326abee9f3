//! [`UserSettings`]: rustup's `settings.toml`, with the user's default toolchain, profile and host.
//!
//! ```toml
//! version = "12"
//! default_toolchain = "stable-x86_64-unknown-linux-gnu"
//! profile = "minimal"
//! [overrides]
//! "/home/me/app" = "nightly-x86_64-unknown-linux-gnu"
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::triple;

/// The version of the format that rustup 1.29 reads (`MetadataVersion` in `src/settings.rs`).
const SETTINGS_VERSION: &str = "12";

/// The user's settings for all projects. The default is that of a user without the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UserSettings {
    /// The version of the file's format, which rustup requires.
    version: String,
    /// The toolchain of projects that name none.
    pub default_toolchain: Option<String>,
    /// The profile of installs that name none.
    pub profile: Option<String>,
    /// Toolchains by the real path of the folder at and below which they are used.
    #[serde(default)]
    pub overrides: BTreeMap<String, String>,
    default_host_triple: Option<String>,
    // The name of the field after rustup 1.29.
    default_host_tuple: Option<String>,
}

/// Why rustup would refuse to work, or why its host cannot be told. The text follows the name of the file.
#[derive(Debug, thiserror::Error)]
pub enum UserSettingsError {
    /// Not TOML, or TOML of another structure.
    #[error("rustup cannot read it: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A version that rustup 1.29 does not know, or that it asks the user to upgrade.
    #[error("its version is `{0}`, and rustup reads version {SETTINGS_VERSION} only")]
    Version(String),
    /// A default host without a known architecture and system.
    #[error(
        "rustup does not know the default host `{0}` in it; `rustup set default-host TRIPLE` changes it"
    )]
    UnknownHost(String),
}

impl UserSettings {
    /// Parses `settings.toml` of rustup's home.
    ///
    /// # Errors
    /// rustup could not read it either, and refuses to work then.
    pub fn parse(text: &str) -> Result<Self, UserSettingsError> {
        let settings: Self = toml::from_str(text)?;
        match settings.version.as_str() {
            SETTINGS_VERSION => Ok(settings),
            other => Err(UserSettingsError::Version(other.to_owned())),
        }
    }

    /// The host triples of toolchains whose name has none: the user's setting, or else `machine`
    /// (docs/client-behaviour.md R-19, R-23). rustup 1.29 ignores `default_host_tuple` and later versions use it, so
    /// the hosts of both are returned. Empty if no triple is known.
    ///
    /// # Errors
    /// rustup refuses the setting.
    pub fn hosts(&self, machine: Option<&str>) -> Result<Vec<String>, UserSettingsError> {
        let known = |set: &String| {
            let host = triple::complete(set);
            host.ok_or_else(|| UserSettingsError::UnknownHost(set.clone()))
        };
        if let Some(set) = &self.default_host_triple {
            return Ok(vec![known(set)?]);
        }
        let mut hosts: Vec<_> = machine.map(str::to_owned).into_iter().collect();
        if let Some(set) = &self.default_host_tuple {
            let host = known(set)?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(hosts)
    }
}

/// The triple of a machine, by `arch` and `os` as `std::env::consts` spells them.
///
/// `None` if they do not determine the triple, because of several ABIs or byte orders. Linux is taken to use glibc,
/// which is true for every rustup that was not built for musl (`TargetTuple::from_host_or_build` in `src/dist/mod.rs`).
pub fn machine_triple(arch: &str, os: &str) -> Option<String> {
    let arch = match arch {
        "x86" => "i686",
        "riscv64" => "riscv64gc",
        "x86_64" | "aarch64" | "loongarch64" | "s390x" => arch,
        _ => return None,
    };
    let rest = match os {
        "linux" => "unknown-linux-gnu",
        "macos" => "apple-darwin",
        "windows" => "pc-windows-msvc",
        "freebsd" | "netbsd" => return Some(format!("{arch}-unknown-{os}")),
        _ => return None,
    };
    Some(format!("{arch}-{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::fixture::LINUX;

    const MAC: &str = "aarch64-apple-darwin";

    #[test]
    fn hosts_come_from_settings_before_the_machine() {
        for (settings, machine, expected) in [
            ("", Some(LINUX), &[LINUX][..]),
            ("", None, &[]),
            ("[overrides]\n", Some(LINUX), &[LINUX]),
            (
                "default_host_triple = 'aarch64-apple-darwin'",
                Some(LINUX),
                &[MAC],
            ),
            ("default_host_triple = 'aarch64-apple-darwin'", None, &[MAC]),
            // rustup 1.29 ignores this name, and later versions do not.
            (
                "default_host_tuple = 'aarch64-apple-darwin'",
                Some(LINUX),
                &[LINUX, MAC],
            ),
            (
                "default_host_tuple = 'aarch64-apple-darwin'",
                Some(MAC),
                &[MAC],
            ),
            ("default_host_tuple = 'aarch64-apple-darwin'", None, &[MAC]),
            (
                "default_host_triple = 'aarch64-apple-darwin'\ndefault_host_tuple = 'x86_64-pc-windows-gnu'",
                Some(LINUX),
                &[MAC],
            ),
        ] {
            let user = UserSettings::parse(&format!("version = '12'\n{settings}")).unwrap();
            assert_eq!(user.hosts(machine).unwrap(), expected, "{settings}");
        }
    }

    #[test]
    fn settings_that_rustup_refuses_are_refused() {
        for text in ["no toml", "profile = 1", "[overrides]\na = 1\n"] {
            let text = format!("version = '12'\n{text}");
            assert!(UserSettings::parse(&text).is_err(), "{text}");
        }
        for (text, says) in [
            ("", "missing field `version`"),
            ("default_toolchain = 'stable'", "missing field `version`"),
            ("version = 12", "expected a string"),
            ("version = '2'", "version is `2`"),
            ("version = '99'", "version is `99`"),
        ] {
            let error = UserSettings::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        for host in ["../../x-y-z", "x86_64", "mine-unknown-linux-gnu", ""] {
            for name in ["default_host_triple", "default_host_tuple"] {
                let text = format!("version = '12'\n{name} = '{host}'");
                let user = UserSettings::parse(&text).unwrap();
                let error = user.hosts(Some(LINUX)).unwrap_err().to_string();
                assert!(error.contains(&format!("`{host}`")), "{error}");
            }
        }
    }

    #[test]
    fn machine_triple_is_unknown_if_there_are_several() {
        for (arch, os, triple) in [
            ("x86_64", "linux", Some(LINUX)),
            ("aarch64", "macos", Some(MAC)),
            ("x86", "windows", Some("i686-pc-windows-msvc")),
            ("riscv64", "linux", Some("riscv64gc-unknown-linux-gnu")),
            ("x86_64", "freebsd", Some("x86_64-unknown-freebsd")),
            ("arm", "linux", None),
            ("powerpc64", "linux", None),
            ("x86_64", "hermit", None),
        ] {
            assert_eq!(machine_triple(arch, os).as_deref(), triple, "{arch} {os}");
        }
    }
}
