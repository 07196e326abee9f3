//! How the daemon serves its clients: settings of `serve` that concern them all.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use url::Url;

use super::{
    ConfigError,
    environment::Environment,
    parse::{base_url, parse_choice},
    source::Sources,
};
use crate::cli::{OnTrouble, Serve, parse_duration, parse_network};

/// Settings about the daemon's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingSettings {
    /// Time without a request after which the daemon exits, if a service manager holds its sockets; `None` for never.
    pub idle_exit: Option<Duration>,
    /// The address that clients use, ending in `/`; `None` for the one that each client used.
    pub public_url: Option<Url>,
    /// Sends clients to upstream for what larder cannot serve because of its own trouble.
    pub redirects_on_trouble: bool,
    /// Proxies whose `X-Forwarded-*` and `Forwarded` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// The settings that `larder service` needs besides the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFolders {
    /// The folder in which the user's service manager looks for files; `None` if no home folder is known.
    pub files: Option<PathBuf>,
    /// For a copy of what was written: `larder/service` in the user's folder for state.
    pub backups: Option<PathBuf>,
    /// The settings file that the user named.
    pub config: Option<PathBuf>,
    /// The store, if it is not the usual one.
    pub store: Option<PathBuf>,
    /// `LISTEN_FDNAMES`: the names of the sockets that a service manager has passed, with colons between them.
    pub socket_names: Option<OsString>,
}

/// Finds these folders.
pub(super) fn service_folders(environment: &Environment, store: &Path) -> ServiceFolders {
    let named = environment.config.as_ref();
    let files = if cfg!(target_os = "macos") {
        let home = environment.home.as_ref();
        home.map(|home| home.join("Library/LaunchAgents"))
    } else {
        let config = environment.config_folder.as_ref();
        config.map(|folder| folder.join("systemd/user"))
    };
    let usual = environment.cache_folder.as_ref();
    let is_usual = usual.is_some_and(|folder| folder.join("larder") == store);
    let state = environment.state_folder.as_ref();
    ServiceFolders {
        files,
        backups: state.map(|folder| folder.join("larder/service")),
        config: named.map(|path| std::path::absolute(path).unwrap_or(path.clone())),
        store: (!is_usual).then(|| store.to_owned()),
        socket_names: environment.socket_names.clone(),
    }
}

/// Merges these settings.
pub(super) fn merge_serving(
    serve: &Serve,
    sources: &Sources,
) -> Result<ServingSettings, ConfigError> {
    let idle_exit = sources.one("idle-exit", serve.idle_exit, parse_duration)?;
    let public_url = sources.text("public-url", serve.public_url.as_deref(), base_url)?;
    let on_trouble = sources.one("on-trouble", serve.on_trouble, parse_choice)?;
    let trusted = sources.many("trusted-proxy", &serve.trusted_proxy, parse_network)?;
    Ok(ServingSettings {
        idle_exit: idle_exit.filter(|time| !time.is_zero()),
        public_url,
        redirects_on_trouble: on_trouble == Some(OnTrouble::Redirect),
        trusted_proxies: trusted,
    })
}
