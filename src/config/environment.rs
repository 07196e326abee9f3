//! The only reader of environment variables: the `LARDER_*` twin of each setting, and a few of other programs.

use std::{
    collections::BTreeMap,
    env::{self, consts::EXE_SUFFIX},
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use etcetera::BaseStrategy as _;

use super::{given::Given, place::Place};
use crate::{cli, upstream::ProxyVariables};

/// Settings with any number of values, which a variable separates by commas.
const LISTS: [&str; 7] = [
    "trusted-proxy",
    "redirect-host",
    "listen",
    "allow-host",
    "tunnel",
    "deny",
    "allow-advisory",
];

/// The variables and folders that larder reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// The user's folder for settings, if a home folder is known.
    pub(super) config_folder: Option<PathBuf>,
    /// The user's folder for caches, if a home folder is known.
    pub(super) cache_folder: Option<PathBuf>,
    /// The user's folder for state, if a home folder is known.
    pub(super) state_folder: Option<PathBuf>,
    /// The user's home folder.
    pub(super) home: Option<PathBuf>,
    /// `LARDER_CONFIG`, unless it is empty.
    pub(super) config: Option<PathBuf>,
    /// The `LARDER_*` variables that are not empty, by the key of their setting.
    pub(super) settings: BTreeMap<&'static str, Given>,
    /// `CARGO`: cargo's program.
    pub(super) cargo: Option<OsString>,
    /// `CARGO_HOME`, unless it is empty.
    pub(super) cargo_home: Option<OsString>,
    /// `RUSTUP_HOME`, unless it is empty.
    pub(super) rustup_home: Option<OsString>,
    /// `no_proxy` or `NO_PROXY`.
    pub(super) no_proxy: Option<OsString>,
    /// The variables that reqwest takes proxies from.
    pub(super) proxies: ProxyVariables,
    /// Cargo's variables about HTTP.
    pub(super) cargo_http: CargoHttp,
    /// The variables by which cargo and rustup find servers, proxies and a toolchain.
    pub(super) client_variables: ClientVariables,
    /// `SSL_CERT_FILE`, unless it is empty.
    pub(super) ssl_cert_file: Option<PathBuf>,
    /// `LISTEN_FDNAMES`: the names of the sockets that a service manager has passed.
    pub(super) socket_names: Option<OsString>,
    /// True unless `NO_COLOR` or `TERM=dumb` is set.
    pub(super) may_colour: bool,
}

/// Cargo's variables about HTTP, which stand above its settings files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CargoHttp {
    /// `CARGO_HTTP_PROXY`.
    pub proxy: Option<String>,
    /// `CARGO_HTTP_CAINFO`: a file with root certificates, PEM.
    pub roots: Option<PathBuf>,
}

/// Variables by which cargo and rustup find servers, proxies and a toolchain, as `larder client doctor` judges them.
const CLIENT_VARIABLES: [&str; 15] = [
    "CARGO_HTTP_PROXY",
    "CARGO_HTTP_CAINFO",
    "CARGO_NET_OFFLINE",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_DIST_ROOT",
    "RUSTUP_UPDATE_ROOT",
    "RUSTUP_TOOLCHAIN",
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// [`CLIENT_VARIABLES`] that are set, also to nothing, and cargo's `CARGO_REGISTRIES_NAME_INDEX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientVariables(BTreeMap<String, String>);

impl ClientVariables {
    /// The toolchain that `RUSTUP_TOOLCHAIN` names, unless it is empty.
    pub fn rustup_toolchain(&self) -> Option<String> {
        let name = self.get("RUSTUP_TOOLCHAIN");
        name.filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// The cargo that a shell runs.
    pub fn cargo_in_path(&self) -> Option<PathBuf> {
        let folders = env::split_paths(self.get("PATH")?);
        let mut programs = folders.map(|folder| folder.join(format!("cargo{EXE_SUFFIX}")));
        programs.find(|program| program.is_file())
    }

    /// The value of a variable, which may be empty. Only the client variables are known.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads variables"
    )]
    fn read() -> Self {
        let is_wanted = |name: &str| {
            CLIENT_VARIABLES.contains(&name)
                || name.starts_with("CARGO_REGISTRIES_") && name.ends_with("_INDEX")
        };
        let all = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()?))
        });
        Self(all.filter(|(name, _)| is_wanted(name)).collect())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for ClientVariables {
    fn from(variables: [(&str, &str); N]) -> Self {
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(owned.into())
    }
}

impl Environment {
    /// Reads the environment of this process.
    pub(super) fn read() -> Self {
        let folders = etcetera::choose_base_strategy().ok();
        Self {
            config_folder: folders.as_ref().map(|folders| folders.config_dir()),
            cache_folder: folders.as_ref().map(|folders| folders.cache_dir()),
            state_folder: folders.as_ref().and_then(|folders| folders.state_dir()),
            home: etcetera::home_dir().ok(),
            config: nonempty("LARDER_CONFIG").map(PathBuf::from),
            settings: cli::all_settings()
                .into_iter()
                .filter_map(|key| Some((key, setting(key)?)))
                .collect(),
            cargo: nonempty("CARGO"),
            cargo_home: nonempty("CARGO_HOME"),
            rustup_home: nonempty("RUSTUP_HOME"),
            // curl, which cargo downloads with, reads the lower-case name first.
            no_proxy: variable("no_proxy").or_else(|| variable("NO_PROXY")),
            proxies: ProxyVariables {
                http: proxy("HTTP_PROXY"),
                https: proxy("HTTPS_PROXY"),
                all: proxy("ALL_PROXY"),
                no_proxy: proxy("NO_PROXY").map_or_else(String::new, |(_, value)| value),
                replacement: None,
            },
            cargo_http: CargoHttp {
                proxy: nonempty("CARGO_HTTP_PROXY").and_then(|proxy| proxy.into_string().ok()),
                roots: nonempty("CARGO_HTTP_CAINFO").map(PathBuf::from),
            },
            client_variables: ClientVariables::read(),
            ssl_cert_file: nonempty("SSL_CERT_FILE").map(PathBuf::from),
            socket_names: nonempty("LISTEN_FDNAMES"),
            may_colour: variable("NO_COLOR").is_none_or(|value| value.is_empty())
                && variable("TERM").as_deref() != Some(OsStr::new("dumb")),
        }
    }

    /// Cargo's home, found as cargo finds it (`cargo_home` in the crate `home`).
    pub(super) fn cargo_home(&self) -> Option<PathBuf> {
        match &self.cargo_home {
            Some(home) => Some(PathBuf::from(home)),
            None => Some(self.home.as_ref()?.join(".cargo")),
        }
    }

    /// rustup's settings file, found as rustup finds it (rustup, `rustup_home` in the crate `home`).
    pub(super) fn rustup_settings(&self) -> Option<PathBuf> {
        let home = match &self.rustup_home {
            Some(home) => PathBuf::from(home),
            None => self.home.as_ref()?.join(".rustup"),
        };
        Some(home.join("settings.toml"))
    }
}

/// The variable of a setting. `LARDER_PATIENCE` is the former name of `LARDER_UPSTREAM_TIMEOUT`.
fn setting(key: &'static str) -> Option<Given> {
    let name = format!("LARDER_{}", key.to_uppercase().replace('-', "_"));
    match nonempty(&name) {
        Some(value) => Some(given(key, name, value)),
        None if key == "upstream-timeout" => {
            let name = "LARDER_PATIENCE";
            Some(given(key, name.to_owned(), nonempty(name)?))
        }
        None => None,
    }
}

pub(super) fn given(key: &str, name: String, value: OsString) -> Given {
    let texts = value.into_string().map_err(|_| "it is not UTF-8");
    Given {
        texts: texts.map(|text| {
            if LISTS.contains(&key) {
                text.split(',').map(|part| part.trim().to_owned()).collect()
            } else {
                vec![text]
            }
        }),
        place: Place::Variable(name),
    }
}

/// A proxy's variable with its value. As in reqwest, the upper-case name comes first.
fn proxy(name: &str) -> Option<(String, String)> {
    let names = [name.to_owned(), name.to_lowercase()];
    let mut set = names
        .into_iter()
        .filter_map(|name| Some((variable(&name)?, name)));
    let (value, name) = set.next()?;
    Some((name, value.into_string().ok()?))
}

fn nonempty(name: &str) -> Option<OsString> {
    variable(name).filter(|value| !value.is_empty())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads variables"
)]
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rustup_home_beats_the_home_folder() {
        let mut environment = Environment {
            home: Some("/home/me".into()),
            ..Environment::default()
        };
        let settings = environment.rustup_settings();
        assert_eq!(
            settings.as_deref(),
            Some(Path::new("/home/me/.rustup/settings.toml"))
        );
        environment.rustup_home = Some("/rustup".into());
        let settings = environment.rustup_settings();
        assert_eq!(
            settings.as_deref(),
            Some(Path::new("/rustup/settings.toml"))
        );
        assert_eq!(Environment::default().rustup_settings(), None);
    }
}
