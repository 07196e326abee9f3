//! `larder run`: one command whose cargo and rustup go through larder, and nothing else changes.
//!
//! ```text
//!   a daemon on the same store? ── yes ──> it answers
//!          └── no ──> a server in this process, which ends with the command
//!   proxy on a free loopback port ──> environment: proxy, root certificates ──> the command ──> its exit code
//! ```
//!
//! The only files are those with root certificates, in a temporary folder of this user alone. `crate::intercept` says
//! what the proxy does. Signals go to the command; larder ends when it has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    sync::Arc,
};

use indicatif::HumanBytes;
use tempfile::TempDir;
use tokio::{process::Command, sync::watch, task::JoinHandle};
use url::Url;

use super::{CommandError, render::note, running_daemon::find_daemon, serve::start_evictor};
use crate::{
    app::{App, AppMode, StoreAccess},
    cargo_config::CargoConfig,
    cli, client_config,
    config::Settings,
    intercept::{
        Answers, Certificates, DaemonClient, InterceptedHosts, Interceptor, ProxyPassword, Summary,
        Tally, TunnelPolicy, bundle, intercepted_origins, known_configs, serve,
    },
    open_files, prefetch, server,
    signals::ForwardedSignals,
};

/// Exit code of a command that cannot be started, as in shells.
const NOT_STARTED: u8 = 126;
/// Exit code of a command that does not exist, as in shells.
const NOT_FOUND: u8 = 127;

/// Runs the command.
///
/// # Errors
/// The store, the proxy or the root certificates cannot be used. A command that fails is no error.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Run,
) -> Result<ExitCode, CommandError> {
    let Some((program, arguments)) = flags.command.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut proxy = Proxy::start(settings).await?;
    let mut signals = ForwardedSignals::new()?;
    let mut command = Command::new(program);
    command.args(arguments).envs(&proxy.variables);
    let started = open_files::with_original_limit(|| command.spawn());
    let exit_code = match started {
        Ok(mut child) => loop {
            tokio::select! {
                status = child.wait() => break exit_code(status?),
                signal = signals.next() => signals.forward(signal, child.id()),
            }
        },
        Err(error) => {
            note(&format!(
                "error: cannot run `{}`: {error}",
                program.display()
            ));
            let is_absent = error.kind() == io::ErrorKind::NotFound;
            ExitCode::from(if is_absent { NOT_FOUND } else { NOT_STARTED })
        }
    };
    let summary = proxy.stop().await;
    if shared.quiet == 0 {
        note(&summary_line(summary));
    }
    Ok(exit_code)
}

/// The command's own code. A signal that ended it becomes a code as in shells.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn summary_line(summary: Summary) -> String {
    let Summary {
        hits,
        fetched,
        missing,
        saved_bytes,
    } = summary;
    let hits = if hits == 1 {
        "1 hit".to_owned()
    } else {
        format!("{hits} hits")
    };
    let saved = HumanBytes(saved_bytes).to_string();
    format!("larder: {hits}, {fetched} fetched, {missing} missing, {saved} not downloaded")
}

/// The proxy of one command.
struct Proxy {
    interceptor: Arc<Interceptor>,
    /// The server of this process, if no daemon answers.
    app: Option<App>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// The environment of the command, besides the inherited one.
    variables: BTreeMap<&'static str, OsString>,
    /// Files with root certificates.
    _folder: TempDir,
}

impl Proxy {
    async fn start(settings: &Settings) -> Result<Self, CommandError> {
        let client = ClientEnvironment::read(settings);
        let settings = &client.defaults_of_cargo(settings)?;
        let local = App::build(settings, AppMode::Local)?;
        let addresses: Vec<Url> = local.upstreams.addresses().cloned().collect();
        let (answers, configs, app) = match daemon(settings, &local).await {
            Some(daemon) => {
                let configs = daemon.configs().to_vec();
                (Answers::Daemon(daemon), configs, None)
            }
            None => {
                let app = own_app(settings).await?;
                let server = Arc::new(app.server(settings, &[]));
                let configs = known_configs(&server).await;
                (Answers::Server(server), configs, Some(app))
            }
        };
        let origins = intercepted_origins(&addresses, &configs);
        let hosts: BTreeSet<_> = origins.iter().map(|origin| origin.host.clone()).collect();
        let certificates = Certificates::issue(&hosts)?;
        let folder = tempfile::Builder::new()
            .prefix("larder-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let listener = server::listen(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let authority_pem = certificates.authority_pem();
        let write = |name: &str, file: Option<&Path>, setting: &str| {
            let path = folder.path().join(name);
            let roots = bundle(file, authority_pem).map_err(|error| error.set_by(setting))?;
            std::fs::write(&path, roots)?;
            Ok::<_, CommandError>(path)
        };
        let system_roots = settings.ssl_cert_file.as_deref();
        let tls_roots = write("tls-roots.pem", system_roots, "SSL_CERT_FILE")?;
        let cargo_roots = match &client.cargo_roots {
            Some((file, setting)) => write("cargo-roots.pem", Some(file), setting)?,
            None => tls_roots.clone(),
        };
        let no_proxy = client_config::no_proxy(&settings.no_proxy.to_string_lossy(), &hosts);
        let password = ProxyPassword::generate()?;
        let variables = client_config::proxy_variables(
            &format!("http://{}@{address}", password.user_info()),
            &cargo_roots,
            &tls_roots,
            &no_proxy,
        );
        let interceptor = Arc::new(Interceptor {
            hosts: InterceptedHosts {
                origins,
                certificates,
            }
            .into(),
            answers,
            relay: local.relay(settings, client.cargo_proxy.as_deref())?,
            tunnels: TunnelPolicy::All,
            is_offline: settings.is_offline,
            password: Some(password),
            tally: Tally::default(),
        });
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(serve(interceptor.clone(), listener, stopping));
        Ok(Self {
            interceptor,
            app,
            stop,
            serving,
            variables: variables.into_iter().collect(),
            _folder: folder,
        })
    }

    /// Stops the proxy and writes what is still in memory.
    async fn stop(&mut self) -> Summary {
        let _ = self.stop.send(true);
        let _ = (&mut self.serving).await;
        if let Some(app) = &self.app {
            app.finish().await;
        }
        self.interceptor.tally.summary()
    }
}

/// The daemon that runs on the same store, if it can answer for this command.
async fn daemon(settings: &Settings, local: &App) -> Option<DaemonClient> {
    let is_https = |url: &Url| url.scheme() == "https";
    if !local.upstreams.addresses().all(is_https) {
        return None;
    }
    let running = find_daemon(settings, &local.store).await?;
    // One that is online cannot serve this command as if it were not.
    if running.status["offline"] != settings.is_offline {
        return None;
    }
    let address = Url::parse(&super::client_settings::reachable(&running.address)).ok()?;
    let address: SocketAddr = address.socket_addrs(|| None).ok()?.pop()?;
    DaemonClient::connect(address, local.upstreams.clone()).await
}

/// A cache of this process.
async fn own_app(settings: &Settings) -> Result<App, CommandError> {
    let app = App::build(settings, AppMode::Daemon)?;
    if let Some(events) = app.cache.events() {
        // Only keep-warm, which a daemon has, waits for the notification.
        prefetch::spawn(app.cache.clone(), events, Arc::default());
    }
    let archive = app.upstreams.advisory_archive();
    app.cache.load_advisories(&archive).await;
    let access = app.prepare_to_serve(settings).await?;
    if access != StoreAccess::ReadOnly && settings.max_size.is_some() {
        start_evictor(&app, settings);
    }
    Ok(app)
}

/// The settings of cargo that a proxy in its environment would replace.
struct ClientEnvironment {
    /// Root certificates for cargo, if it has others than the system's, and the setting that names them.
    cargo_roots: Option<(PathBuf, String)>,
    /// Cargo's own proxy.
    cargo_proxy: Option<String>,
}

impl ClientEnvironment {
    fn read(settings: &Settings) -> Self {
        let folder = std::env::current_dir().unwrap_or_default();
        let config = CargoConfig::with_home(&folder, settings.cargo_home.as_deref());
        let roots = settings.cargo_http.roots.clone();
        let roots = roots.map(|roots| (roots, "CARGO_HTTP_CAINFO".to_owned()));
        let configured = || {
            let (roots, file) = config.http_roots()?;
            Some((roots, format!("http.cainfo in {}", file.display())))
        };
        let proxy = settings.cargo_http.proxy.clone();
        Self {
            cargo_roots: roots.or_else(configured),
            cargo_proxy: proxy.or_else(|| config.http_proxy()),
        }
    }

    /// The settings with which larder reaches upstream as cargo does without larder: cargo's roots unless `ca-file`
    /// names others, and cargo's proxy unless a variable names one, which rustup reads too.
    ///
    /// # Errors
    /// Cargo's roots cannot be read.
    fn defaults_of_cargo(&self, settings: &Settings) -> Result<Settings, CommandError> {
        let mut settings = settings.clone();
        if settings.ca_file.is_none()
            && let Some((file, setting)) = &self.cargo_roots
        {
            // The client for upstream would not name the setting.
            bundle(Some(file), "").map_err(|error| error.set_by(setting))?;
            settings.ca_file = Some(file.clone());
        }
        let proxies = &mut settings.proxies;
        let variables = [&proxies.http, &proxies.https, &proxies.all];
        let is_set = |variable: &Option<(String, String)>| {
            variable
                .as_ref()
                .is_some_and(|(_, value)| !value.is_empty())
        };
        if !variables.into_iter().any(is_set) {
            proxies.replacement = self.cargo_proxy.clone();
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_one_line() {
        let summary = Summary {
            hits: 214,
            fetched: 3,
            missing: 0,
            saved_bytes: 38 << 20,
        };
        assert_eq!(
            summary_line(summary),
            "larder: 214 hits, 3 fetched, 0 missing, 38.00 MiB not downloaded"
        );
        assert!(summary_line(Summary::default()).starts_with("larder: 0 hits, 0 fetched"));
    }
}
