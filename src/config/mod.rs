//! Settings: flags, variables and the settings file merged into one [`Settings`].
//!
//! ```text
//!   --max-age 5s  ──>  LARDER_MAX_AGE  ──>  max-age in config.toml  ──>  60 s
//!   flag               variable             settings file                default
//!   └──── clap reads both (`cli`) ───┘      └ `file`
//! ```
//!
//! The leftmost that is given wins. Each setting has the same name in all three places. [`settings`] does the merge
//! once, at the start; later code sees values with units and defaults, and never their source. `environment` reads
//! the few variables that have no flag, such as `RUSTUP_HOME`.

mod environment;
mod error;
mod file;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

pub use error::ConfigError;

use crate::{
    cli::{self, GlobalFlags, Serve},
    resource::{
        Registry,
        dist::{ArchiveFormat, DEFAULT_DIST_SERVER},
        registry::CRATES_IO,
    },
    server::H2c,
};
use environment::Environment;
use file::{RegistryTable, SettingsFile};

/// The daemon's default port. It must never change: cargo recompiles everything when a registry's address changes.
pub const PORT: u16 = 3263;

/// Default cap of the time that an index entry is served without revalidation.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);
/// Default time limit for upstream.
const DEFAULT_UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// Default number of parallel fetches of `warm`.
const DEFAULT_JOBS: u16 = 64;

/// All settings, after the merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of the store, absolute.
    pub store: PathBuf,
    /// Cap of the freshness lifetime that upstream claims.
    pub max_age: Duration,
    /// Base address of crates.io's index, ending in `/`.
    pub index: Url,
    /// Base addresses of other registries' indexes, by name.
    pub registries: BTreeMap<String, Url>,
    /// Base address of toolchains, ending in `/`; `dist/` is below it.
    pub dist_server: Url,
    /// Base address of rustup itself, ending in `/`.
    pub update_root: Url,
    /// Archives that toolchain manifests offer; `None` for what the store remembers.
    pub toolchain_format: Option<ArchiveFormat>,
    /// Extra root certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Hosts that upstream may redirect to besides the configured ones.
    pub redirect_hosts: Vec<String>,
    /// Time limit for a connection to upstream, and for its answer when a stale copy is stored.
    pub upstream_timeout: Duration,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Never contact upstream.
    pub is_offline: bool,
    /// Serve entries unchanged while upstream is unreachable.
    pub full_index: bool,
    /// Host names that clients may use.
    pub allow_hosts: Vec<String>,
    /// True if changed files of warmed projects are fetched without another `warm`.
    pub keep_warm: bool,
    /// Listeners that accept the upgrade to HTTP/2.
    pub h2c: H2c,
    /// Parallel fetches of `warm`.
    pub jobs: u16,
    /// Cargo's program.
    pub cargo: PathBuf,
    /// rustup's settings file, which need not exist; `None` if no home folder is known.
    pub rustup_settings: Option<PathBuf>,
    /// Hosts that the user reaches without a proxy, as in `no_proxy`.
    pub no_proxy: OsString,
    /// The environment permits colours.
    pub may_colour: bool,
}

/// Merges flags, variables and the settings file. `jobs` is a flag of `warm` alone.
///
/// # Errors
/// A setting that cannot be used, and where it stands.
pub fn settings(
    shared: &GlobalFlags,
    serve: &Serve,
    jobs: Option<u16>,
) -> Result<Settings, ConfigError> {
    let environment = Environment::read();
    let file = SettingsFile::load(
        shared.config.as_deref(),
        environment.config_folder.as_deref(),
    )?;
    merge(shared, serve, jobs, file, environment)
}

fn merge(
    shared: &GlobalFlags,
    serve: &Serve,
    jobs: Option<u16>,
    file: SettingsFile,
    environment: Environment,
) -> Result<Settings, ConfigError> {
    let dist_server = shared.dist_server.clone().or(file.dist_server);
    let dist_server = base_url(
        dist_server.as_deref().unwrap_or(DEFAULT_DIST_SERVER),
        "the dist server",
    )?;
    let update_root = match shared.update_root.clone().or(file.update_root) {
        Some(root) => base_url(&root, "the update root")?,
        None => base_url(&format!("{dist_server}rustup/"), "the update root")?,
    };
    let index = shared.index.clone().or(file.index);
    let index = index.unwrap_or_else(|| tame_index::CRATES_IO_HTTP_INDEX.to_owned());
    let max_age = match shared.max_age {
        Some(flag) => Some(flag),
        None => file_duration("max-age", file.max_age)?,
    };
    let upstream_timeout = match (shared.upstream_timeout, &environment.patience) {
        (Some(flag), _) => Some(flag),
        (None, Some(text)) => Some(former_variable(&text.to_string_lossy())?),
        (None, None) => file_duration("upstream-timeout", file.upstream_timeout)?,
    };
    let toolchain_format = shared.toolchain_format.or(file.toolchain_format);
    let h2c = serve.h2c.or(file.h2c);
    Ok(Settings {
        store: store_folder(shared.store.clone().or(file.store), &environment)?,
        max_age: max_age.unwrap_or(DEFAULT_MAX_AGE),
        index: index_url(&index)?,
        registries: registries(file.registry)?,
        dist_server,
        update_root,
        toolchain_format: toolchain_format.map(ArchiveFormat::from),
        ca_file: shared.ca_file.clone().or(file.ca_file),
        redirect_hosts: flags_or_file(&shared.redirect_host, file.redirect_host),
        upstream_timeout: upstream_timeout.unwrap_or(DEFAULT_UPSTREAM_TIMEOUT),
        listen: match flags_or_file(&serve.listen, file.listen) {
            none if none.is_empty() => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))],
            addresses => addresses,
        },
        is_offline: serve.offline.or(file.offline).unwrap_or(false),
        full_index: serve.full_index.or(file.full_index).unwrap_or(false),
        allow_hosts: flags_or_file(&serve.allow_host, file.allow_host),
        keep_warm: serve.keep_warm.or(file.keep_warm).unwrap_or(true),
        h2c: h2c.map(H2c::from).unwrap_or_default(),
        jobs: jobs.or(file.jobs).unwrap_or(DEFAULT_JOBS).max(1),
        rustup_settings: environment.rustup_settings(),
        cargo: environment.cargo.unwrap_or_else(|| "cargo".into()).into(),
        no_proxy: environment.no_proxy.unwrap_or_default(),
        may_colour: environment.may_colour,
    })
}

impl From<cli::ToolchainFormat> for ArchiveFormat {
    fn from(format: cli::ToolchainFormat) -> Self {
        match format {
            cli::ToolchainFormat::Upstream => Self::Upstream,
            cli::ToolchainFormat::Gz => Self::Gz,
        }
    }
}

impl From<cli::H2cListeners> for H2c {
    fn from(listeners: cli::H2cListeners) -> Self {
        match listeners {
            cli::H2cListeners::Loopback => Self::Loopback,
            cli::H2cListeners::On => Self::On,
            cli::H2cListeners::Off => Self::Off,
        }
    }
}

/// The flag's list if it has any element, else the file's.
fn flags_or_file<T: Clone>(flags: &[T], file: Option<Vec<T>>) -> Vec<T> {
    if flags.is_empty() {
        file.unwrap_or_default()
    } else {
        flags.to_vec()
    }
}

fn file_duration(
    name: &'static str,
    text: Option<String>,
) -> Result<Option<Duration>, ConfigError> {
    text.map(|text| duration(name, "the settings file", &text))
        .transpose()
}

fn former_variable(text: &str) -> Result<Duration, ConfigError> {
    duration("LARDER_PATIENCE", "the environment", text)
}

fn duration(name: &'static str, place: &'static str, text: &str) -> Result<Duration, ConfigError> {
    humantime::parse_duration(text).map_err(|source| ConfigError::Duration {
        name,
        text: text.to_owned(),
        place,
        source,
    })
}

fn store_folder(named: Option<String>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    let folder = match named {
        Some(address) if address.contains("://") => return Err(ConfigError::StoreAddress(address)),
        Some(folder) => PathBuf::from(folder),
        None => environment
            .cache_folder
            .as_ref()
            .ok_or(ConfigError::NoHome)?
            .join("larder"),
    };
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

fn registries(
    tables: BTreeMap<String, RegistryTable>,
) -> Result<BTreeMap<String, Url>, ConfigError> {
    tables
        .into_iter()
        .map(|(name, table)| {
            if !Registry::is_valid_name(&name) || name == CRATES_IO {
                return Err(ConfigError::RegistryName(name));
            }
            Ok((name, index_url(&table.index)?))
        })
        .collect()
}

/// The base address of an index. `sparse+` is cargo's prefix for the protocol and not part of the address.
fn index_url(text: &str) -> Result<Url, ConfigError> {
    base_url(text.strip_prefix("sparse+").unwrap_or(text), "an index")
}

/// An address that paths are appended to, with the final slash that this needs.
fn base_url(text: &str, purpose: &'static str) -> Result<Url, ConfigError> {
    let wrong = |reason| ConfigError::Address {
        text: text.to_owned(),
        purpose,
        reason,
    };
    let mut url = Url::parse(text).map_err(|source| ConfigError::Url {
        text: text.to_owned(),
        purpose,
        source,
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it must be an http or https address"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must not have a query or a fragment"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str, shared: GlobalFlags, serve: &Serve) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        settings(
            &GlobalFlags {
                config: Some(path),
                store: Some("store".into()),
                ..shared
            },
            serve,
            None,
        )
    }

    #[test]
    fn defaults_are_crates_io_and_the_documented_address() {
        let found = from_file("", GlobalFlags::default(), &Serve::default()).unwrap();
        assert_eq!(
            format!("sparse+{}", found.index),
            tame_index::CRATES_IO_HTTP_INDEX
        );
        assert_eq!(found.listen, ["127.0.0.1:3263".parse().unwrap()]);
        assert_eq!(
            (found.max_age, found.is_offline),
            (Duration::from_secs(60), false)
        );
    }

    #[test]
    fn flag_beats_file_and_file_beats_default() {
        let text = "max-age = \"5m\"\noffline = true\nindex = \"sparse+http://127.0.0.1:1/i\"\n\
                    [registry.corp]\nindex = \"https://corp.example/index\"";
        let found = from_file(text, GlobalFlags::default(), &Serve::default()).unwrap();
        assert_eq!(
            (found.max_age, found.is_offline),
            (Duration::from_secs(300), true)
        );
        assert_eq!(found.index.as_str(), "http://127.0.0.1:1/i/");
        assert_eq!(
            found.registries["corp"].as_str(),
            "https://corp.example/index/"
        );
        let shared = GlobalFlags {
            max_age: Some(Duration::from_secs(1)),
            ..GlobalFlags::default()
        };
        let serve = Serve {
            offline: Some(false),
            ..Serve::default()
        };
        let found = from_file(text, shared, &serve).unwrap();
        assert_eq!(
            (found.max_age, found.is_offline),
            (Duration::from_secs(1), false)
        );
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        let refused = from_file(text, GlobalFlags::default(), &Serve::default())
            .unwrap_err()
            .to_string();
        assert!(refused.contains(part), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }

    #[test]
    fn errors_name_the_key_or_flag_on_one_line() {
        check_refused(
            "offline = true\nmax-aeg = \"5m\"",
            "config.toml, line 2: unknown field `max-aeg`, expected one of",
        );
        check_refused("max-age = \"5m", "config.toml, line 1: ");
        check_refused("max-age = \"soon\"", "max-age");
        check_refused("index = \"ftp://x\"", "http or https");
        check_refused("[registry.crates-io]\nindex = \"http://x\"", "crates-io");
        check_refused("[registry.\"a/b\"]\nindex = \"http://x\"", "a/b");
        let shared = GlobalFlags {
            store: Some("s3://bucket".into()),
            ..GlobalFlags::default()
        };
        let refused = settings(&shared, &Serve::default(), None).unwrap_err();
        assert!(refused.to_string().contains("s3://bucket"));
    }
    /// Merges without a file, in this environment.
    fn in_environment(
        shared: &GlobalFlags,
        environment: Environment,
    ) -> Result<Settings, ConfigError> {
        let environment = Environment {
            cache_folder: Some("/cache".into()),
            ..environment
        };
        let file = SettingsFile::default();
        merge(shared, &Serve::default(), None, file, environment)
    }

    #[test]
    fn former_name_of_the_upstream_timeout_works_in_file_and_environment() {
        let shared = GlobalFlags::default();
        let found = from_file("patience = \"7s\"", shared, &Serve::default()).unwrap();
        assert_eq!(found.upstream_timeout, Duration::from_secs(7));

        let environment = |text: &str| Environment {
            patience: Some(text.into()),
            ..Environment::default()
        };
        let found = in_environment(&GlobalFlags::default(), environment("7s")).unwrap();
        assert_eq!(found.upstream_timeout, Duration::from_secs(7));
        let flag = GlobalFlags {
            upstream_timeout: Some(Duration::from_secs(1)),
            ..GlobalFlags::default()
        };
        let found = in_environment(&flag, environment("7s")).unwrap();
        assert_eq!(found.upstream_timeout, Duration::from_secs(1));
        let refused = in_environment(&GlobalFlags::default(), environment("soon")).unwrap_err();
        assert!(refused.to_string().contains("LARDER_PATIENCE"), "{refused}");
    }

    #[test]
    fn store_is_in_the_cache_folder_unless_named() {
        let found = in_environment(&GlobalFlags::default(), Environment::default()).unwrap();
        assert_eq!(found.store, PathBuf::from("/cache/larder"));
        let none = Environment::default();
        let refused = merge(
            &GlobalFlags::default(),
            &Serve::default(),
            None,
            SettingsFile::default(),
            none,
        );
        assert!(matches!(refused, Err(ConfigError::NoHome)));
    }
}
