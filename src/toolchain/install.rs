//! [`Install`]: the arguments of one `rustup toolchain install`, from a toolchain file and the user's settings.
//!
//! ```text
//!  channel   file, else the user's default toolchain
//!  host      channel's name, which may name parts of it; else the user's setting, else the machine
//!  profile   file, else the user's setting, else `default`
//! ```

use std::fmt;

use super::{
    channel::{Channel, ChannelError, UnknownHost},
    file::ToolchainSpec,
    installed::HomeState,
    profile::canonical_profile,
    settings::UserSettings,
};

/// One `rustup toolchain install` in which nothing is left to settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Install {
    /// The toolchain, without host.
    pub channel: Channel,
    /// The triple that the toolchain runs on.
    pub host: String,
    /// `minimal`, `default`, `complete`.
    pub profile: String,
    /// Components beyond those of the profile.
    pub components: Vec<String>,
    /// Targets beyond the host.
    pub targets: Vec<String>,
    /// The toolchain of the same name in rustup's home.
    pub home: HomeState,
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.channel, self.host)
    }
}

/// A toolchain that no dist server has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// Neither the toolchain file nor the user's settings name a channel.
    #[error("it names no channel, and rustup has no default toolchain here")]
    NoChannel,
    /// The name of a toolchain of the user's own.
    #[error("{0}; larder cannot hold a toolchain of your own")]
    NotReleased(#[from] ChannelError),
    /// A partial host that the default host does not complete.
    #[error(transparent)]
    UnknownHost(#[from] UnknownHost),
}

/// The install that a toolchain file means for this user, into an empty home. `path` is not considered.
///
/// `host` is the triple for channel names without one.
///
/// # Errors
/// No dist server has the toolchain.
pub fn install(
    spec: ToolchainSpec,
    user: &UserSettings,
    host: &str,
) -> Result<Install, InstallError> {
    let name = spec.channel.as_ref().or(user.default_toolchain.as_ref());
    let channel: Channel = name.ok_or(InstallError::NoChannel)?.parse()?;
    let (channel, host) = channel.resolve(host)?;
    let profile = spec.profile.as_deref().or(user.profile.as_deref());
    let profile = profile.unwrap_or("default");
    Ok(Install {
        channel,
        host,
        profile: canonical_profile(profile).unwrap_or(profile).to_owned(),
        components: spec.components,
        targets: spec.targets,
        home: HomeState::Absent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::{ToolchainFile, fixture::LINUX, parse_file};

    #[test]
    fn install_combines_toolchain_file_and_user_settings() {
        let user = UserSettings::parse(
            "version = '12'\ndefault_toolchain = 'beta'\nprofile = 'minimal'\n",
        )
        .unwrap();
        let installed = |text: &str| {
            let spec = parse_file(ToolchainFile::Toml, text).unwrap();
            install(spec, &user, LINUX).map(|install| {
                let more = [install.components.join("+"), install.targets.join("+")];
                format!("{install} {} {}", install.profile, more.join("/"))
            })
        };
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(
            installed(
                "[toolchain]\nchannel = '1.95'\ncomponents = ['clippy']\ntargets = ['w']\nprofile = 'd'"
            ),
            ok(&format!("1.95-{LINUX} default clippy/w"))
        );
        assert_eq!(
            installed("[toolchain]\ncomponents = ['rust-src']"),
            ok(&format!("beta-{LINUX} minimal rust-src/"))
        );
        assert_eq!(
            installed("[toolchain]\nchannel = 'stable-x86_64-pc-windows-gnu'"),
            ok("stable-x86_64-pc-windows-gnu minimal /")
        );
        assert_eq!(
            installed("[toolchain]\nchannel = 'stable-aarch64'"),
            ok("stable-aarch64-unknown-linux-gnu minimal /")
        );
        assert!(matches!(
            installed("[toolchain]\nchannel = 'mine'"),
            Err(InstallError::NotReleased(_))
        ));
    }
}
