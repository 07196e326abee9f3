//! Settings: flags, variables and the settings file merged into one [`Settings`].
//!
//! ```text
//!   --max-age 5s  ──>  LARDER_MAX_AGE  ──>  max-age in config.toml  ──>  60 s
//!   flag               variable             settings file                default
//!   └ clap (`cli`)     └ `environment`      └ `file`
//! ```
//!
//! The leftmost that is given wins. Each setting has the same name in all three places. [`settings`] does the merge
//! once, at the start; later code sees values with units and defaults, and never their source. `given` pairs each value
//! with its place, for errors; `source` chooses among them. `environment` reads all variables, also those without a
//! flag, such as `RUSTUP_HOME`.

mod addresses;
mod declared;
mod environment;
mod error;
mod file;
mod given;
mod limits;
mod parse;
mod place;
mod serving;
mod source;
mod spelling;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

pub use declared::{DeclaredSet, DeclaredToolchain};
pub use environment::{CargoHttp, ClientVariables};
pub use error::ConfigError;
pub use limits::LimitSettings;
pub use place::Place;
pub use serving::{ServiceFolders, ServingSettings};

use crate::{
    cli::{self, GlobalFlags, PORT, Serve},
    log::LogFormat,
    resource::dist::ArchiveFormat,
    server::{AccessLogFormat, AccessLogOptions, H2c},
    trust::{InvalidRule, TrustPolicy},
    upstream::ProxyVariables,
};
use addresses::{is_at, merge_addresses, registries};
use environment::Environment;
use file::SettingsFile;
use parse::{
    file_url, parse_choice, parse_entry_limit, parse_jobs, parse_number, parse_path, parse_text,
};
use source::Sources;

/// Default cap of the time that an index entry is served without revalidation.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);
/// Default time limit for upstream.
const DEFAULT_UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// Default size limit of one entry, in MB.
const DEFAULT_MAX_ENTRY_MB: u16 = 32;
/// Default memory for arriving bodies, in MB.
const DEFAULT_MEMORY_MB: u32 = 64;
/// Default of the bytes a second that the check of stored files may read: less than 2 % of a core.
const DEFAULT_SCRUB_RATE: u64 = 4 << 20;
/// Default time between two checks of all stored files.
const DEFAULT_SCRUB_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
/// Default time after which the pin of a project that is gone is dropped.
const DEFAULT_FORGET_AFTER: Duration = Duration::from_secs(14 * 86_400);
/// Default size limit of the access log.
const DEFAULT_ACCESS_LOG_BYTES: u64 = 100_000_000;
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
    /// Largest entry that is accepted from upstream, in bytes.
    pub max_entry: u64,
    /// Memory that arriving bodies may take together, in bytes.
    pub memory: u64,
    /// Limits of connections and requests.
    pub limits: LimitSettings,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// How clients are served.
    pub serving: ServingSettings,
    /// Never contact upstream.
    pub is_offline: bool,
    /// Serve entries unchanged while upstream is unreachable.
    pub full_index: bool,
    /// Host names that clients may use.
    pub allow_hosts: Vec<String>,
    /// True if changed files of warmed projects are fetched without another `warm`.
    pub keep_warm: bool,
    /// Bytes a second that the check of stored files may read; 0 for no check.
    pub scrub_rate: u64,
    /// Time between two such checks.
    pub scrub_interval: Duration,
    /// Disk space for the store in bytes; `None` for no limit.
    pub max_size: Option<u64>,
    /// Time after which the pin of a project that is gone is dropped.
    pub forget_after: Duration,
    /// The intercepting proxy of the daemon.
    pub intercept: InterceptSettings,
    /// Where `larder client apply` keeps backups and rustup's variables.
    pub client: ClientFolders,
    /// Where `larder service` writes.
    pub service: ServiceFolders,
    /// Format of the log.
    pub log_format: LogFormat,
    /// The access log; `None` for none.
    pub access_log: Option<AccessLogOptions>,
    /// Listeners that accept the upgrade to HTTP/2.
    pub h2c: H2c,
    /// Parallel fetches of `warm`.
    pub jobs: u16,
    /// The declared set, which a plain `warm` and `check` cover besides the current folder.
    pub declared: DeclaredSet,
    /// The versions that clients must not get.
    pub trust: TrustPolicy,
    /// Toolchain manifests must be signed.
    pub verify_signatures: bool,
    /// File with the keys that sign them; `None` for Rust's.
    pub signing_key: Option<PathBuf>,
    /// Address of the archive of the advisory database.
    pub advisories: Option<Url>,
    /// Cargo's program.
    pub cargo: PathBuf,
    /// The user's cargo home, which need not exist; `None` if no home folder is known.
    pub cargo_home: Option<PathBuf>,
    /// rustup's settings file, which need not exist; `None` if no home folder is known.
    pub rustup_settings: Option<PathBuf>,
    /// Hosts that the user reaches without a proxy, as in `no_proxy`.
    pub no_proxy: OsString,
    /// The proxies of the environment.
    pub proxies: ProxyVariables,
    /// Cargo's variables about HTTP.
    pub cargo_http: CargoHttp,
    /// The variables by which cargo and rustup find servers, proxies and a toolchain.
    pub client_variables: ClientVariables,
    /// `SSL_CERT_FILE`: the root certificates of programs that use OpenSSL or rustls.
    pub ssl_cert_file: Option<PathBuf>,
    /// The environment permits colours.
    pub may_colour: bool,
}

/// Settings of the daemon's intercepting proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterceptSettings {
    /// Its address; `None` for no proxy.
    pub address: Option<SocketAddr>,
    /// Hosts that clients may reach through it, besides the intercepted ones.
    pub tunnels: Vec<String>,
    /// Folder for its authority; `None` if no home folder is known.
    pub folder: Option<PathBuf>,
}

/// Folders for `larder client apply`; `None` if no home folder is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFolders {
    /// For backups of clients' settings: `larder/client` in the user's folder for state.
    pub backups: Option<PathBuf>,
    /// For a file with rustup's variables: `larder` in the user's folder for settings.
    pub settings: Option<PathBuf>,
}

/// Merges flags, variables and the settings file. `jobs` is a flag of `warm` alone. A fault in a setting that is not
/// among `used` is ignored.
///
/// # Errors
/// A setting that cannot be used, and where it stands.
pub fn settings(
    shared: &GlobalFlags,
    serve: &Serve,
    jobs: Option<u16>,
    used: Vec<&'static str>,
) -> Result<Settings, ConfigError> {
    let mut environment = Environment::read();
    let named = shared.config.clone().or(environment.config.take());
    let named = named.map(|path| expand_home(&path, &environment));
    environment.config.clone_from(&named);
    let folder = environment.config_folder.as_deref();
    let sources = Sources {
        file: SettingsFile::load(named.as_deref(), folder)?,
        variables: std::mem::take(&mut environment.settings),
        used,
    };
    merge(shared, serve, jobs, &sources, environment)
}

fn merge(
    shared: &GlobalFlags,
    serve: &Serve,
    jobs: Option<u16>,
    sources: &Sources,
    environment: Environment,
) -> Result<Settings, ConfigError> {
    let addresses = merge_addresses(shared, sources)?;
    let max_age = sources.one("max-age", shared.max_age, cli::parse_duration)?;
    let flag = shared.upstream_timeout;
    let upstream_timeout = sources.one("upstream-timeout", flag, cli::parse_duration)?;
    let (max_entry, memory) = memory_limits(shared, sources)?;
    let flag = shared.toolchain_format;
    let toolchain_format: Option<cli::ToolchainFormat> =
        sources.one("toolchain-format", flag, parse_choice)?;
    let ca_file = sources.one("ca-file", shared.ca_file.clone(), parse_path)?;
    let offline = sources.one("offline", serve.offline, cli::parse_switch)?;
    let full_index = sources.one("full-index", serve.full_index, cli::parse_switch)?;
    let keep_warm = sources.one("keep-warm", serve.keep_warm, cli::parse_switch)?;
    let scrub_rate = sources.one("scrub-rate", serve.scrub_rate, parse_number)?;
    let flag = serve.scrub_interval;
    let scrub_interval = sources.one("scrub-interval", flag, cli::parse_duration)?;
    let max_size = sources.one("max-size", serve.max_size, cli::parse_size)?;
    let forget_after = sources.one("forget-after", serve.forget_after, cli::parse_age)?;
    let h2c: Option<cli::H2cListeners> = sources.one("h2c", serve.h2c, parse_choice)?;
    let jobs = sources.one("jobs", jobs, parse_jobs)?;
    let flag = shared.verify_signatures;
    let verify_signatures = sources.one("verify-signatures", flag, cli::parse_switch)?;
    let signing_key = sources.one("signing-key", shared.signing_key.clone(), parse_path)?;
    let store = store_folder(shared, sources, &environment)?;
    Ok(Settings {
        service: serving::service_folders(&environment, &store),
        store,
        max_age: max_age.unwrap_or(DEFAULT_MAX_AGE),
        index: addresses.index,
        registries: sources.if_used("registry", registries(&sources.file.registries))?,
        dist_server: addresses.dist_server,
        update_root: addresses.update_root,
        toolchain_format: toolchain_format.map(ArchiveFormat::from),
        ca_file: ca_file.map(|path| expand_home(&path, &environment)),
        redirect_hosts: sources.many("redirect-host", &shared.redirect_host, parse_text)?,
        upstream_timeout: upstream_timeout.unwrap_or(DEFAULT_UPSTREAM_TIMEOUT),
        max_entry,
        memory,
        limits: limits::merge_limits(shared, serve, sources)?,
        listen: match sources.many("listen", &serve.listen, cli::parse_listen)? {
            none if none.is_empty() => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))],
            addresses => addresses,
        },
        serving: serving::merge_serving(serve, sources)?,
        is_offline: offline.unwrap_or(false),
        full_index: full_index.unwrap_or(false),
        allow_hosts: sources.many("allow-host", &serve.allow_host, parse_text)?,
        keep_warm: keep_warm.unwrap_or(true),
        scrub_rate: scrub_rate.map_or(DEFAULT_SCRUB_RATE, |rate| u64::from(rate) << 20),
        scrub_interval: scrub_interval.unwrap_or(DEFAULT_SCRUB_INTERVAL),
        max_size,
        forget_after: forget_after.unwrap_or(DEFAULT_FORGET_AFTER),
        intercept: intercept_settings(serve, sources, &environment)?,
        client: client_folders(&environment),
        log_format: log_format(serve, sources)?,
        access_log: access_log(serve, sources, &environment)?,
        h2c: h2c.map(H2c::from).unwrap_or_default(),
        jobs: jobs.unwrap_or(DEFAULT_JOBS).max(1),
        declared: declared_set(sources, &environment)?,
        trust: trust_policy(shared, sources)?,
        verify_signatures: verify_signatures.unwrap_or(false),
        signing_key: signing_key.map(|path| expand_home(&path, &environment)),
        advisories: sources.text("advisory-db", shared.advisory_db.as_deref(), file_url)?,
        cargo_home: environment.cargo_home(),
        rustup_settings: environment.rustup_settings(),
        cargo: environment.cargo.unwrap_or_else(|| "cargo".into()).into(),
        no_proxy: environment.no_proxy.unwrap_or_default(),
        proxies: environment.proxies,
        cargo_http: environment.cargo_http,
        client_variables: environment.client_variables,
        ssl_cert_file: environment.ssl_cert_file,
        may_colour: environment.may_colour,
    })
}

fn declared_set(sources: &Sources, environment: &Environment) -> Result<DeclaredSet, ConfigError> {
    let expand = |path: PathBuf| expand_home(&path, environment);
    sources.if_used("warm", DeclaredSet::read(&sources.file.warm, expand))
}

fn intercept_settings(
    serve: &Serve,
    sources: &Sources,
    environment: &Environment,
) -> Result<InterceptSettings, ConfigError> {
    let folder = sources.one(
        "intercept-folder",
        serve.intercept_folder.clone(),
        parse_path,
    )?;
    let usual = environment.state_folder.as_ref();
    Ok(InterceptSettings {
        address: sources.one("intercept", serve.intercept, cli::parse_intercept)?,
        tunnels: sources.many("tunnel", &serve.tunnel, parse_text)?,
        folder: match folder {
            Some(folder) => Some(expand_home(&folder, environment)),
            None => usual.map(|folder| folder.join("larder/intercept")),
        },
    })
}

fn log_format(serve: &Serve, sources: &Sources) -> Result<LogFormat, ConfigError> {
    let format: Option<cli::LogFormatName> =
        sources.one("log-format", serve.log_format, parse_choice)?;
    Ok(match format {
        Some(cli::LogFormatName::Json) => LogFormat::Json,
        Some(cli::LogFormatName::Text) | None => LogFormat::Text,
    })
}

fn access_log(
    serve: &Serve,
    sources: &Sources,
    environment: &Environment,
) -> Result<Option<AccessLogOptions>, ConfigError> {
    let path = sources.one("access-log", serve.access_log.clone(), parse_path)?;
    let flag = serve.access_log_format;
    let format: Option<cli::AccessLogFormatName> =
        sources.one("access-log-format", flag, parse_choice)?;
    let max_bytes = sources.one("access-log-size", serve.access_log_size, cli::parse_size)?;
    Ok(path.map(|path| AccessLogOptions {
        path: expand_home(&path, environment),
        format: match format {
            Some(cli::AccessLogFormatName::Json) => AccessLogFormat::Json,
            Some(cli::AccessLogFormatName::Combined) | None => AccessLogFormat::Combined,
        },
        max_bytes: max_bytes.unwrap_or(DEFAULT_ACCESS_LOG_BYTES),
    }))
}

/// The size limit of one entry, and the memory for arriving bodies, which has space for one, in bytes.
fn memory_limits(shared: &GlobalFlags, sources: &Sources) -> Result<(u64, u64), ConfigError> {
    let max_entry = sources.one("max-entry", shared.max_entry, parse_entry_limit)?;
    let max_entry = u64::from(max_entry.unwrap_or(DEFAULT_MAX_ENTRY_MB)) << 20;
    let memory = sources.one("memory", shared.memory, parse_number)?;
    let memory = u64::from(memory.unwrap_or(DEFAULT_MEMORY_MB)) << 20;
    Ok((max_entry, memory.max(max_entry)))
}

fn client_folders(environment: &Environment) -> ClientFolders {
    let state = environment.state_folder.as_ref();
    let config = environment.config_folder.as_ref();
    ClientFolders {
        backups: state.map(|folder| folder.join("larder/client")),
        settings: config.map(|folder| folder.join("larder")),
    }
}

impl Settings {
    /// The host names that clients may use: those of `allow-host` and that of `public-url`.
    pub fn host_names(&self) -> Vec<String> {
        let public = self.serving.public_url.as_ref();
        let public = public.and_then(Url::host_str).map(str::to_owned);
        self.allow_hosts.iter().cloned().chain(public).collect()
    }

    /// Refuses an upstream that is one of the addresses listened on: each request would wait for itself.
    ///
    /// # Errors
    /// Such an upstream.
    pub fn refuse_own_addresses(&self, listening: &[SocketAddr]) -> Result<(), ConfigError> {
        let registries = self.registries.iter();
        let registries = registries.map(|(name, url)| (format!("registry `{name}`"), url));
        let upstreams = [
            ("the index".to_owned(), &self.index),
            ("the dist server".to_owned(), &self.dist_server),
            ("the update root".to_owned(), &self.update_root),
        ];
        for (purpose, url) in upstreams.into_iter().chain(registries) {
            if listening.iter().any(|address| is_at(url, *address)) {
                let url = url.clone();
                return Err(ConfigError::OwnAddress { url, purpose });
            }
        }
        Ok(())
    }
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

/// The path with the user's home folder for a leading `~`, which a shell expands only at the beginning of a word.
fn expand_home(path: &Path, environment: &Environment) -> PathBuf {
    match (path.strip_prefix("~"), &environment.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        (Ok(_) | Err(_), _) => path.to_owned(),
    }
}

fn store_folder(
    shared: &GlobalFlags,
    sources: &Sources,
    environment: &Environment,
) -> Result<PathBuf, ConfigError> {
    let parse = |text: &str| match text {
        "" => Err("a folder is expected".to_owned()),
        address if address.contains("://") => Err("only a folder can be the store".to_owned()),
        folder => Ok(PathBuf::from(folder)),
    };
    let folder = match sources.text("store", shared.store.as_deref(), parse)? {
        Some(folder) => expand_home(&folder, environment),
        None => environment
            .cache_folder
            .as_ref()
            .ok_or(ConfigError::NoHome)?
            .join("larder"),
    };
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

/// The rules about versions that clients must not get.
fn trust_policy(shared: &GlobalFlags, sources: &Sources) -> Result<TrustPolicy, ConfigError> {
    let min_age = sources.one("min-age", shared.min_age, cli::parse_age)?;
    let rule = |text: &str| text.parse().map_err(|error: InvalidRule| error.to_string());
    let mut min_age_of = BTreeMap::new();
    for (name, table) in &sources.file.registries {
        if let Some(given) = &table.min_age {
            let own = sources.if_used("registry", given.parse(cli::parse_age))?;
            min_age_of.extend(own.into_iter().map(|age| (name.clone(), age)));
        }
    }
    let allowed = sources.many("allow-advisory", &shared.allow_advisory, parse_text)?;
    Ok(TrustPolicy {
        min_age: min_age.unwrap_or_default(),
        min_age_of,
        deny: sources.many_texts("deny", &shared.deny, rule)?,
        allow_advisories: allowed.into_iter().collect(),
        signing_keys: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crate_spec::CrateUse;

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
            [cli::all_settings(), vec!["registry", "warm"]].concat(),
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
    fn defaults_in_the_help_are_those_that_are_used() {
        use clap::CommandFactory as _;
        let found = from_file("", GlobalFlags::default(), &Serve::default()).unwrap();
        let mut cli = cli::Cli::command();
        cli.build();
        let documented = |command: &str, flag: &str| {
            let command = cli.find_subcommand(command).unwrap();
            let mut flags = command.get_arguments();
            let flag = flags
                .find(|argument| argument.get_long() == Some(flag))
                .unwrap();
            let help = flag
                .get_long_help()
                .or(flag.get_help())
                .unwrap()
                .to_string();
            let (_, default) = help.rsplit_once("[default: ").unwrap();
            default.split(']').next().unwrap().to_owned()
        };
        for (flag, used) in [
            ("max-age", found.max_age),
            ("upstream-timeout", found.upstream_timeout),
            ("scrub-interval", found.scrub_interval),
            ("forget-after", found.forget_after),
        ] {
            let default = cli::parse_duration(&documented("serve", flag)).unwrap();
            assert_eq!(default, used, "{flag}");
        }
        let gc = cli::parse_duration(&documented("gc", "forget-after")).unwrap();
        assert_eq!(gc, found.forget_after);
        for (flag, used) in [
            ("max-entry", found.max_entry >> 20),
            ("max-crate", found.limits.max_crate >> 20),
            ("memory", found.memory >> 20),
            ("scrub-rate", found.scrub_rate >> 20),
        ] {
            assert_eq!(documented("serve", flag), used.to_string(), "{flag}");
        }
        for (flag, used) in [
            ("offline", found.is_offline),
            ("full-index", found.full_index),
            ("keep-warm", found.keep_warm),
        ] {
            assert_eq!(documented("serve", flag), used.to_string(), "{flag}");
        }
        assert_eq!(documented("serve", "listen"), found.listen[0].to_string());
        assert_eq!(documented("serve", "h2c"), "loopback");
        assert_eq!(found.h2c, H2c::Loopback);
        assert_eq!(
            (documented("serve", "max-size").as_str(), found.max_size),
            ("no limit", None)
        );
        assert_eq!(documented("warm", "jobs"), found.jobs.to_string());
        assert_eq!(documented("serve", "ca-file"), "none");
        assert_eq!((found.ca_file, found.redirect_hosts), (None, Vec::new()));
    }

    #[test]
    fn tables_declare_what_to_warm() {
        let text = "[[warm.project]]\npath = \"app\"\n[[warm.project]]\npath = \"/b\"\n\
                    [[warm.toolchain]]\nchannel = \"stable\"\ncomponents = [\"clippy\", \"rust-src\"]\n\
                    [[warm.crate]]\nname = \"just\"\nversion = \"1.2.3\"\n\
                    [[warm.crate]]\nname = \"serde\"\nwith-dependencies = true\n";
        let found = from_file(text, GlobalFlags::default(), &Serve::default()).unwrap();
        let set = found.declared;
        let is_beside_the_file = set.projects[0].is_absolute() && set.projects[0].ends_with("app");
        assert!(is_beside_the_file, "{set:?}");
        assert_eq!(set.projects[1], Path::new("/b"));
        assert_eq!(set.toolchains[0].channel, "stable");
        assert_eq!(set.toolchains[0].components, ["clippy", "rust-src"]);
        let crates: Vec<_> = set
            .crates
            .iter()
            .map(|(spec, usage)| (spec.to_string(), *usage))
            .collect();
        assert_eq!(
            crates,
            [
                ("just@1.2.3".to_owned(), CrateUse::Install),
                ("serde".to_owned(), CrateUse::Dependency)
            ]
        );
    }

    #[test]
    fn faults_in_declared_tables_are_told_with_their_line() {
        for (text, message) in [
            (
                "[[warm.crate]]\nversion = \"1\"",
                "line 1: a table `[[warm.crate]]` has no `name`",
            ),
            (
                "\n[[warm.crate]]\nname = \"a b\"",
                "line 3, key `warm.crate.name`: cannot use `a b`",
            ),
            (
                "[[warm.project]]\nfolder = \"a\"",
                "line 2: unknown key `folder`",
            ),
            ("[[warm.tool]]\nname = \"a\"", "line 1: unknown key `tool`"),
            (
                "[warm.crate]\nname = \"a\"",
                "line 1: `warm.crate` is written as `[[warm.crate]]`",
            ),
        ] {
            let error = from_file(text, GlobalFlags::default(), &Serve::default());
            let error = error.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
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
            "config.toml, line 2: unknown key `max-aeg`; did you mean `max-age`?",
        );
        check_refused("max-age = \"5m", "config.toml, line 1: ");
        check_refused(
            "max-age = \"soon\"",
            "config.toml, line 1, key `max-age`: cannot use `soon`: ",
        );
        check_refused("index = \"ftp://x\"", "http or https");
        check_refused("[registry.crates-io]\nindex = \"http://x\"", "crates-io");
        check_refused("[registry.\"a/b\"]\nindex = \"http://x\"", "a/b");
        let shared = GlobalFlags {
            store: Some("s3://bucket".into()),
            ..GlobalFlags::default()
        };
        let refused = settings(&shared, &Serve::default(), None, vec!["store"]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "flag --store: cannot use `s3://bucket`: only a folder can be the store"
        );
    }

    #[test]
    fn faults_in_unused_settings_are_ignored() {
        let text = "max-age = \"soon\"\njobs = 0\n[registry.crates-io]\nindex = \"http://x\"";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let shared = GlobalFlags {
            config: Some(path),
            ..GlobalFlags::default()
        };
        let found = settings(&shared, &Serve::default(), None, vec!["store"]).unwrap();
        assert_eq!((found.max_age, found.jobs), (DEFAULT_MAX_AGE, DEFAULT_JOBS));
    }

    #[test]
    fn numbers_words_and_single_values_are_taken_where_they_are_clear() {
        let text = "max-age = 90\nlisten = \"127.0.0.2\"\noffline = \"on\"\nh2c = \"off\"";
        let found = from_file(text, GlobalFlags::default(), &Serve::default()).unwrap();
        assert_eq!(found.max_age, Duration::from_secs(90));
        assert_eq!(found.listen, ["127.0.0.2:3263".parse().unwrap()]);
        assert!(found.is_offline);
        assert_eq!(found.h2c, H2c::Off);
    }

    #[test]
    fn upstream_that_is_an_own_address_is_refused() {
        let own = |index: &str, listen: &str| {
            let text = format!("index = \"{index}\"");
            let found = from_file(&text, GlobalFlags::default(), &Serve::default()).unwrap();
            found
                .refuse_own_addresses(&[listen.parse().unwrap()])
                .is_err()
        };
        assert!(own("http://127.0.0.1:3263/", "127.0.0.1:3263"));
        assert!(own("http://localhost:3263/", "0.0.0.0:3263"));
        assert!(own("http://[::1]:3263/", "[::]:3263"));
        assert!(!own("http://127.0.0.1:3264/", "127.0.0.1:3263"));
        assert!(!own("http://index.example:3263/", "127.0.0.1:3263"));
    }

    /// Merges without a file, in this environment.
    fn in_environment(
        shared: &GlobalFlags,
        variables: &[(&'static str, &str, &str)],
    ) -> Result<Settings, ConfigError> {
        let environment = Environment {
            cache_folder: Some("/cache".into()),
            home: Some("/home/me".into()),
            ..Environment::default()
        };
        let variables = variables.iter().map(|(key, name, value)| {
            let given = environment::given(key, (*name).to_owned(), value.into());
            (*key, given)
        });
        let sources = Sources {
            variables: variables.collect(),
            used: cli::all_settings(),
            ..Sources::default()
        };
        merge(shared, &Serve::default(), None, &sources, environment)
    }

    #[test]
    fn variables_beat_defaults_and_their_errors_name_them() {
        let none = GlobalFlags::default();
        let variables = [
            ("offline", "LARDER_OFFLINE", "1"),
            ("store", "LARDER_STORE", "~/store"),
            ("listen", "LARDER_LISTEN", "localhost,[::1]:80"),
            ("upstream-timeout", "LARDER_PATIENCE", "7"),
        ];
        let found = in_environment(&none, &variables).unwrap();
        assert!(found.is_offline);
        assert_eq!(found.store, Path::new("/home/me/store"));
        assert_eq!(
            found.listen,
            ["127.0.0.1:3263", "[::1]:80"].map(|text| text.parse().unwrap())
        );
        assert_eq!(found.upstream_timeout, Duration::from_secs(7));
        let refused = in_environment(&none, &[("jobs", "LARDER_JOBS", "many")]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "variable LARDER_JOBS: cannot use `many`: a number from 1 to 65535 is expected"
        );
    }

    #[test]
    fn former_name_of_the_upstream_timeout_works_in_the_file() {
        let shared = GlobalFlags::default();
        let found = from_file("patience = \"7s\"", shared, &Serve::default()).unwrap();
        assert_eq!(found.upstream_timeout, Duration::from_secs(7));
        let flag = GlobalFlags {
            upstream_timeout: Some(Duration::from_secs(1)),
            ..GlobalFlags::default()
        };
        let variables = [("upstream-timeout", "LARDER_PATIENCE", "7s")];
        let found = in_environment(&flag, &variables).unwrap();
        assert_eq!(found.upstream_timeout, Duration::from_secs(1));
    }

    #[test]
    fn store_is_in_the_cache_folder_unless_named() {
        let none = GlobalFlags::default();
        let found = in_environment(&none, &[]).unwrap();
        assert_eq!(found.store, PathBuf::from("/cache/larder"));
        let refused = merge(
            &none,
            &Serve::default(),
            None,
            &Sources::default(),
            Environment::default(),
        );
        assert!(matches!(refused, Err(ConfigError::NoHome)));
    }
}
