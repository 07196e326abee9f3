//! One `rustup toolchain install`.

use std::fmt;

use super::{
    channel::{Channel, ChannelError},
    file::ToolchainSpec,
    profile::canonical_profile,
    settings::UserSettings,
};

/// One `rustup toolchain install`, with nothing left to settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Install {
    /// Which toolchain.
    pub channel: Channel,
    /// The triple it runs on.
    pub host: String,
    /// `minimal`, `default`, `complete`.
    pub profile: String,
    /// Beyond those of the profile.
    pub components: Vec<String>,
    /// Beyond the host.
    pub targets: Vec<String>,
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.channel.host() {
            Some(_) => write!(f, "{}", self.channel),
            None => write!(f, "{}-{}", self.channel, self.host),
        }
    }
}

/// Why a toolchain cannot be had from any dist server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// Neither the file nor rustup's settings name one.
    #[error("it names no channel, and rustup has no default toolchain here")]
    NoChannel,
    /// A name of the user's own.
    #[error("{0}; larder cannot hold a toolchain of your own")]
    NotReleased(#[from] ChannelError),
}

/// What installing what a toolchain file asks for means for this user; `None` if it points to a toolchain that is there already.
///
/// `host` is for names without one.
///
/// # Errors
/// No dist server has it.
pub fn install(
    wanted: ToolchainSpec,
    user: &UserSettings,
    host: &str,
) -> Result<Option<Install>, InstallError> {
    if wanted.path.is_some() {
        return Ok(None);
    }
    let name = wanted.channel.as_ref().or(user.default_toolchain.as_ref());
    let channel: Channel = name.ok_or(InstallError::NoChannel)?.parse()?;
    let profile = wanted.profile.as_deref().or(user.profile.as_deref());
    let profile = profile.unwrap_or("default");
    Ok(Some(Install {
        host: channel.host().unwrap_or(host).to_owned(),
        channel,
        profile: canonical_profile(profile).unwrap_or(profile).to_owned(),
        components: wanted.components,
        targets: wanted.targets,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::{ToolchainFile, fixture::LINUX, parse_file};

    #[test]
    fn install_combines_toolchain_file_and_user_settings() {
        let user = UserSettings::parse("default_toolchain = 'beta'\nprofile = 'minimal'\n");
        let installed = |text: &str| {
            let wanted = parse_file(ToolchainFile::Toml, text).unwrap();
            install(wanted, &user, LINUX).map(|install| {
                install.map(|install| {
                    let more = [install.components.join("+"), install.targets.join("+")];
                    format!("{install} {} {}", install.profile, more.join("/"))
                })
            })
        };
        let ok = |text: &str| Ok(Some(text.to_owned()));
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
        assert_eq!(installed("[toolchain]\npath = '/opt/rust'"), Ok(None));
        assert!(matches!(
            installed("[toolchain]\nchannel = 'mine'"),
            Err(InstallError::NotReleased(_))
        ));
    }
}
