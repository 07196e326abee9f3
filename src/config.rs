//! Flags, `LARDER_*` variables and the settings file made into one [`Settings`]. The only reader of the environment and of
//! the settings file; knows nothing of what the settings do.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use etcetera::BaseStrategy as _;
use serde::Deserialize;
use url::Url;

use crate::{
    cli::{Serve, Shared},
    resource::{
        Registry,
        dist::{ArchiveFormat, DEFAULT_DIST_SERVER},
    },
    server::H2c,
};

/// The daemon's port. Never to be changed: cargo recompiles everything when a registry's address changes.
pub const PORT: u16 = 3263;

/// What the user wants, all sources considered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder of the store.
    pub store: PathBuf,
    /// Cap of the freshness lifetime that upstream claims.
    pub max_age: Duration,
    /// Base address of crates.io's index, ending in `/`.
    pub index: Url,
    /// Other registries, by name.
    pub registries: BTreeMap<String, Url>,
    /// Base address of toolchains, ending in `/`; `dist/` is below it.
    pub dist_server: Url,
    /// Base address of rustup itself, ending in `/`.
    pub update_root: Url,
    /// Which archives toolchain manifests offer.
    pub toolchain_format: ArchiveFormat,
    /// Extra root certificates.
    pub ca_file: Option<PathBuf>,
    /// Hosts that upstream may redirect to besides the configured ones.
    pub redirect_hosts: Vec<String>,
    /// How long a dial may take, and how long a request with a stale copy waits.
    pub upstream_timeout: Duration,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Whether upstream is never asked.
    pub is_offline: bool,
    /// Whether, offline, entries are served as upstream left them.
    pub full_index: bool,
    /// Host names that clients may use.
    pub allow_hosts: Vec<String>,
    /// Where the upgrade to HTTP/2 is accepted.
    pub h2c: H2c,
    /// Fetches at a time in `warm`.
    pub jobs: u16,
    /// Cargo's program.
    pub cargo: PathBuf,
    /// rustup's settings file, which need not exist; `None` if no home folder is known.
    pub rustup_settings: Option<PathBuf>,
    /// Hosts that the user reaches without a proxy; empty if none are named.
    pub no_proxy: OsString,
    /// Whether colours may be used, as far as the environment says.
    pub may_colour: bool,
}

/// Settings that cannot be used: the whole story on one line, which is usage and not failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(String);

/// The settings file. Keys are the flags' names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    store: Option<String>,
    max_age: Option<String>,
    index: Option<String>,
    dist_server: Option<String>,
    update_root: Option<String>,
    toolchain_format: Option<ArchiveFormat>,
    ca_file: Option<PathBuf>,
    redirect_host: Option<Vec<String>>,
    patience: Option<String>,
    listen: Option<Vec<SocketAddr>>,
    offline: Option<bool>,
    full_index: Option<bool>,
    allow_host: Option<Vec<String>>,
    h2c: Option<H2c>,
    jobs: Option<u16>,
    #[serde(default)]
    registry: BTreeMap<String, FileRegistry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRegistry {
    index: String,
}

/// Puts the sources together.
///
/// # Errors
/// A setting that cannot be read, and where it stands.
pub fn settings(
    shared: &Shared,
    serve: &Serve,
    jobs: Option<u16>,
) -> Result<Settings, BadSettings> {
    let folders = etcetera::choose_base_strategy().ok();
    let file = match &shared.config {
        Some(path) => read(path)?,
        None => match folders
            .as_ref()
            .map(|folders| folders.config_dir().join("larder/config.toml"))
        {
            Some(path) if path.exists() => read(&path)?,
            Some(_) | None => File::default(),
        },
    };
    let store = match shared.store.clone().or(file.store) {
        Some(store) if store.contains("://") => {
            return Err(BadSettings(format!(
                "cannot use `{store}` as the store: only a folder can be one"
            )));
        }
        Some(store) => PathBuf::from(store),
        None => folders
            .map(|folders| folders.cache_dir().join("larder"))
            .ok_or_else(|| BadSettings("no home folder is known; say `--store PATH`".to_owned()))?,
    };
    let store = std::path::absolute(&store).unwrap_or(store);
    let duration = |flag: Option<Duration>, file: Option<String>, name, default| match (flag, file)
    {
        (Some(flag), _) => Ok(flag),
        (None, Some(text)) => humantime::parse_duration(&text).map_err(|cause| {
            BadSettings(format!(
                "cannot read `{name} = \"{text}\"` in the settings file: {cause}"
            ))
        }),
        (None, None) => Ok(default),
    };
    let many = |flag: &[String], file: Option<Vec<String>>| {
        if flag.is_empty() {
            file.unwrap_or_default()
        } else {
            flag.to_vec()
        }
    };
    let index = shared
        .index
        .clone()
        .or(file.index)
        .unwrap_or_else(|| tame_index::CRATES_IO_HTTP_INDEX.to_owned());
    let dist_server = shared.dist_server.clone().or(file.dist_server);
    let dist_server = base_url(
        dist_server.as_deref().unwrap_or(DEFAULT_DIST_SERVER),
        "the dist server",
    )?;
    let update_root = match shared.update_root.clone().or(file.update_root) {
        Some(root) => base_url(&root, "the update root")?,
        None => dist_server
            .join("rustup/")
            .map_err(|cause| BadSettings(cause.to_string()))?,
    };
    let mut registries = BTreeMap::new();
    for (name, registry) in file.registry {
        if !Registry::is_valid_name(&name) || name == crate::resource::registry::CRATES_IO {
            return Err(BadSettings(format!(
                "`{name}` cannot be the name of a registry in the settings file"
            )));
        }
        registries.insert(name, index_url(&registry.index)?);
    }
    Ok(Settings {
        store,
        max_age: duration(
            shared.max_age,
            file.max_age,
            "max-age",
            Duration::from_secs(60),
        )?,
        index: index_url(&index)?,
        registries,
        dist_server,
        update_root,
        toolchain_format: shared
            .toolchain_format
            .or(file.toolchain_format)
            .unwrap_or_default(),
        ca_file: shared.ca_file.clone().or(file.ca_file),
        redirect_hosts: many(&shared.redirect_host, file.redirect_host),
        upstream_timeout: duration(
            shared.patience,
            file.patience,
            "patience",
            Duration::from_secs(2),
        )?,
        listen: match (serve.listen.as_slice(), file.listen) {
            ([], Some(listen)) if !listen.is_empty() => listen,
            ([], _) => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))],
            (listen, _) => listen.to_vec(),
        },
        is_offline: serve.offline.or(file.offline).unwrap_or(false),
        full_index: serve.full_index.or(file.full_index).unwrap_or(false),
        allow_hosts: many(&serve.allow_host, file.allow_host),
        h2c: serve.h2c.or(file.h2c).unwrap_or_default(),
        jobs: jobs.or(file.jobs).unwrap_or(64).max(1),
        cargo: env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from),
        // As rustup does (rustup, `rustup_home` in the crate `home`).
        rustup_settings: env::var_os("RUSTUP_HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| Some(etcetera::home_dir().ok()?.join(".rustup")))
            .map(|home| home.join("settings.toml")),
        // Curl, by which cargo fetches, reads the variable in lower case first.
        no_proxy: ["no_proxy", "NO_PROXY"]
            .into_iter()
            .find_map(env::var_os)
            .unwrap_or_default(),
        may_colour: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && env::var_os("TERM").is_none_or(|term| term != "dumb"),
    })
}

fn read(path: &Path) -> Result<File, BadSettings> {
    let text = std::fs::read_to_string(path).map_err(|cause| {
        BadSettings(format!(
            "cannot read the settings file {}: {cause}",
            path.display()
        ))
    })?;
    toml::from_str(&text).map_err(|cause| {
        let line = cause
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(String::new(), |before| {
                format!(", line {}", before.matches('\n').count() + 1)
            });
        BadSettings(format!(
            "cannot read the settings file {}{line}: {}",
            path.display(),
            cause.message().lines().collect::<Vec<_>>().join(", ")
        ))
    })
}

/// An index's base address: `sparse+` is cargo's way to say how it is spoken to.
fn index_url(text: &str) -> Result<Url, BadSettings> {
    base_url(text.strip_prefix("sparse+").unwrap_or(text), "an index")
}

/// An address that others are joined to, which needs its last slash.
fn base_url(text: &str, what: &str) -> Result<Url, BadSettings> {
    let bad = |why: &str| BadSettings(format!("cannot use `{text}` as {what}: {why}"));
    let mut url = Url::parse(text).map_err(|cause| bad(&cause.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad("it must be an http or https address"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must not have a query or a fragment"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str, shared: Shared, serve: &Serve) -> Result<Settings, BadSettings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        settings(
            &Shared {
                config: Some(path),
                store: Some("store".into()),
                ..shared
            },
            serve,
            None,
        )
    }

    #[test]
    fn the_default_upstream_is_crates_io_and_the_default_address_never_changes() {
        let found = from_file("", Shared::default(), &Serve::default()).unwrap();
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
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let text = "max-age = \"5m\"\noffline = true\nindex = \"sparse+http://127.0.0.1:1/i\"\n\
                    [registry.corp]\nindex = \"https://corp.example/index\"";
        let found = from_file(text, Shared::default(), &Serve::default()).unwrap();
        assert_eq!(
            (found.max_age, found.is_offline),
            (Duration::from_secs(300), true)
        );
        assert_eq!(found.index.as_str(), "http://127.0.0.1:1/i/");
        assert_eq!(
            found.registries["corp"].as_str(),
            "https://corp.example/index/"
        );
        let shared = Shared {
            max_age: Some(Duration::from_secs(1)),
            ..Shared::default()
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
        let refused = from_file(text, Shared::default(), &Serve::default())
            .unwrap_err()
            .to_string();
        assert!(refused.contains(part), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        check_refused(
            "offline = true\nmax-aeg = \"5m\"",
            "config.toml, line 2: unknown field `max-aeg`, expected one of",
        );
        check_refused("max-age = \"5m", "config.toml, line 1: ");
        check_refused("max-age = \"soon\"", "max-age");
        check_refused("index = \"ftp://x\"", "http or https");
        check_refused("[registry.crates-io]\nindex = \"http://x\"", "crates-io");
        check_refused("[registry.\"a/b\"]\nindex = \"http://x\"", "a/b");
        let shared = Shared {
            store: Some("s3://bucket".into()),
            ..Shared::default()
        };
        let refused = settings(&shared, &Serve::default(), None).unwrap_err();
        assert!(refused.to_string().contains("s3://bucket"));
    }
}
