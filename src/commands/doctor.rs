//! `larder client doctor`: finds out why cargo or rustup would not reach larder.
//!
//! Gathers the facts that [`crate::doctor`] judges, and prints the findings. Each request takes the way of the client's
//! requests: the address from its own settings, and the proxy that it would use.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use url::Url;

use super::{
    CommandError,
    client_use::larder_proxy,
    render::{print, print_json},
    running_daemon::{configured, find_daemon},
};
use crate::{
    app::{App, AppMode},
    cargo_config::{CargoConfig, CratesIoSource, ReplacingRegistry, is_on_loopback},
    cli::{ClientKind, GlobalFlags},
    config::Settings,
    doctor::{
        ClientRoute, Finding, FindingVerdict,
        cargo::{self, CargoFacts, LarderProxy, OtherRegistry},
        daemon::{self, DaemonFacts},
        is_healthy,
        proxy::{ClientProxy, ProxySources},
        rustup::{self, RustupFacts, RustupServer},
    },
    error::chain,
    files::{self, MAX_SETTINGS_BYTES},
    lockfile::{self, PackageSource, canonical_index},
    plan::ActiveToolchain,
    status_client::{self, Probe, RunningDaemon, probe},
    store::Store,
};

/// Time limit for git.
const GIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest lock file that is read.
const MAX_LOCK_BYTES: u64 = 64 << 20;

/// Runs the command. Its exit code is 1 if there is a problem.
///
/// # Errors
/// stdout cannot be written to.
pub(super) async fn run(
    settings: &Settings,
    shared: &GlobalFlags,
    named: Option<ClientKind>,
) -> Result<ExitCode, CommandError> {
    let findings = findings(settings, named).await;
    let is_healthy = is_healthy(&findings);
    if shared.json {
        print_json(&json!({ "healthy": is_healthy, "findings": findings }))?;
    } else {
        let is_quiet = shared.quiet > 0;
        let shown = findings.iter();
        let shown = shown.filter(|one| !is_quiet || one.verdict == FindingVerdict::Problem);
        print(&shown.map(text).collect::<String>())?;
    }
    Ok(match is_healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A line for the finding, and one for the remedy.
fn text(finding: &Finding) -> String {
    let word = match finding.verdict {
        FindingVerdict::Ok => "ok",
        FindingVerdict::Note => "note",
        FindingVerdict::Problem => "problem",
    };
    let mut text = format!("{word:<8} {}\n", finding.what);
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "         -> {remedy}");
    }
    text
}

async fn findings(settings: &Settings, named: Option<ClientKind>) -> Vec<Finding> {
    let (own, store_error) = match App::build(settings, AppMode::Local) {
        Ok(app) => {
            let daemon = find_daemon(settings, &app.store).await;
            (
                daemon,
                Store::open(&settings.store)
                    .err()
                    .map(|error| chain(&error)),
            )
        }
        Err(error) => (None, Some(chain(&error))),
    };
    let running = match &own {
        Some(daemon) => Some(daemon.clone()),
        None => status_client::find_any(configured(settings)).await,
    };
    let client = ClientFacts {
        settings,
        running: running.as_ref(),
        named,
    };
    let cargo = match named {
        Some(ClientKind::Rustup) => None,
        Some(ClientKind::Cargo) | None => Some(client.cargo().await),
    };
    let rustup = match named {
        Some(ClientKind::Cargo) => None,
        Some(ClientKind::Rustup) | None => Some(client.rustup().await),
    };
    let servers = rustup
        .iter()
        .flat_map(|facts| [&facts.dist_server, &facts.update_root]);
    let routes = servers.flatten().filter_map(|server| server.route.as_ref());
    let cargo_route = cargo.as_ref().and_then(|facts| facts.route.as_ref());
    let routes: Vec<_> = cargo_route.into_iter().chain(routes).collect();
    let proxies = [
        cargo.as_ref().and_then(|facts| facts.larder_proxy.as_ref()),
        rustup
            .as_ref()
            .and_then(|facts| facts.larder_proxy.as_ref()),
    ];
    let used = used_daemon(&routes, running.as_ref());
    let daemon = DaemonFacts {
        is_on_own_store: is_on_own_store(used.as_ref(), own.as_ref()),
        store: settings.store.display().to_string(),
        store_error,
        is_wanted: !routes.is_empty() || proxies.iter().any(Option::is_some),
        daemon: used,
    };
    let mut findings = daemon::judge(&daemon);
    findings.extend(cargo.iter().flat_map(cargo::judge));
    findings.extend(rustup.iter().flat_map(rustup::judge));
    findings
}

/// The daemon that the clients reach, else the one that runs here.
fn used_daemon(
    routes: &[&ClientRoute],
    running: Option<&RunningDaemon>,
) -> Option<(String, Value)> {
    let mut answers = routes.iter().flat_map(|route| {
        let answers = [&route.probe, &route.direct].into_iter();
        answers.filter_map(|probe| match probe {
            Probe::Larder(status) => Some((route.base.to_string(), status.clone())),
            Probe::Other(_) | Probe::Unreachable(_) => None,
        })
    });
    let reached = answers.next();
    reached.or_else(|| running.map(|daemon| (daemon.address.clone(), daemon.status.clone())))
}

/// Tells if a daemon is the one of this user's store. One on another machine has a store of its own for good.
fn is_on_own_store(daemon: Option<&(String, Value)>, own: Option<&RunningDaemon>) -> bool {
    let Some((address, status)) = daemon else {
        return true;
    };
    let is_own = own.is_some_and(|own| own.status["pid"] == status["pid"]);
    is_own || !Url::parse(address).is_ok_and(|url| is_on_loopback(&url))
}

/// Gathers facts about the clients.
struct ClientFacts<'a> {
    settings: &'a Settings,
    running: Option<&'a RunningDaemon>,
    named: Option<ClientKind>,
}

impl ClientFacts<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.settings.client_variables.get(name)
    }

    fn running(&self) -> Option<String> {
        let daemon = self.running?;
        Some(super::client_settings::reachable(&daemon.address))
    }

    /// The proxy of larder that this variable names, and whether something listens there.
    async fn larder_proxy(&self, variable: Option<&str>) -> Option<LarderProxy> {
        let address = larder_proxy(self.settings, variable, self.running)?;
        let shown = ClientProxy::of_variable("", address.as_str()).shown();
        let is_up = !matches!(probe(&address, None).await, Probe::Unreachable(_));
        Some(LarderProxy {
            address: shown,
            is_up,
        })
    }

    async fn cargo(&self) -> CargoFacts {
        let settings = self.settings;
        let folder = std::env::current_dir().unwrap_or_default();
        let home = settings.cargo_home.as_deref();
        let config = CargoConfig::with_home(&folder, home);
        let variable = |name: &str| self.variable(name).map(str::to_owned);
        let source = config.crates_io_source(variable);
        let mut sources = ProxySources::of_environment(|name| self.variable(name));
        sources.own = self.cargo_proxy(&config).await;
        let mut facts = CargoFacts {
            is_named: self.named == Some(ClientKind::Cargo),
            faults: config.faults().to_vec(),
            replacements: config.crates_io_replacements(),
            larder_proxy: self.larder_proxy(self.variable("CARGO_HTTP_PROXY")).await,
            net_offline: config.net_offline(variable),
            route: None,
            is_http_only: false,
            dl: None,
            running: self.running(),
            configured: configured(settings),
            cached: Vec::new(),
            other_registries: self.other_registries(&config, &folder),
            home: home.map(Path::to_owned),
            source,
        };
        if let CratesIoSource::Registry(registry) = facts.source.clone() {
            self.ask_registry(&mut facts, &registry, &sources).await;
        }
        facts
    }

    /// Asks the registry that replaces crates.io.
    async fn ask_registry(
        &self,
        facts: &mut CargoFacts,
        registry: &ReplacingRegistry,
        sources: &ProxySources,
    ) {
        let index = &registry.index;
        let plain = index.strip_prefix("sparse+").unwrap_or(index);
        let Ok(mut url) = Url::parse(plain) else {
            return;
        };
        if url.scheme() == "https" {
            facts.is_http_only = larder_at(&url).await.is_some();
            return;
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let route = route(url.clone(), sources).await;
        if let Ok(config) = url.join("config.json") {
            let proxy = route.proxy.as_ref().and_then(ClientProxy::parsed);
            facts.dl = Some(dl(&config, proxy.as_ref()).await);
        }
        facts.cached = cached_configs(self.settings.cargo_home.as_deref(), index);
        facts.route = Some(route);
    }

    /// Cargo's own proxy: the variable, cargo's settings, then git's.
    async fn cargo_proxy(&self, config: &CargoConfig) -> Option<ClientProxy> {
        if let Some(url) = self.variable("CARGO_HTTP_PROXY") {
            return Some(ClientProxy::of_variable("CARGO_HTTP_PROXY", url));
        }
        if let Some((url, file)) = config.http_proxy_with_file() {
            let place = format!("`http.proxy` in {}", file.display());
            return Some(ClientProxy { url, place });
        }
        git_proxy().await
    }

    /// The registries in the nearest lock file that no settings replace.
    fn other_registries(&self, config: &CargoConfig, folder: &Path) -> Vec<OtherRegistry> {
        let mut locks = folder.ancestors().map(|folder| folder.join("Cargo.lock"));
        let text = locks.find_map(|lock| files::read_text(&lock, MAX_LOCK_BYTES).ok());
        let Some(Ok(lock)) = text.map(|text| lockfile::parse(&text)) else {
            return Vec::new();
        };
        let served = self.settings.registries.values();
        let served: BTreeSet<_> = served
            .filter_map(|url| canonical_index(&format!("sparse+{url}")))
            .collect();
        let sources: BTreeSet<_> = lock.packages.into_iter().map(|one| one.source).collect();
        let others = sources
            .into_iter()
            .filter(|source| !config.is_replaced(source));
        others
            .filter_map(|source| match source {
                PackageSource::Registry(index) => Some(OtherRegistry {
                    is_served: served.contains(&index),
                    index,
                }),
                PackageSource::Local | PackageSource::CratesIo | PackageSource::Git(_) => None,
            })
            .collect()
    }

    async fn rustup(&self) -> RustupFacts {
        let sources = ProxySources::of_environment(|name| self.variable(name));
        let dist_server = self.variable("RUSTUP_DIST_SERVER").map(str::to_owned);
        let dist_server = dist_server.or_else(|| {
            let root = self.variable("RUSTUP_DIST_ROOT")?;
            Some(root.trim_end_matches("/dist").to_owned())
        });
        let file = self.settings.client.settings.as_ref();
        let file = file.map(|folder| folder.join("env"));
        let https = self
            .variable("https_proxy")
            .or_else(|| self.variable("HTTPS_PROXY"));
        let (refused_toolchain, due_toolchain) = match self.active_toolchain() {
            ActiveToolchain::Installed => (None, None),
            ActiveToolchain::Downloaded(due) => (None, Some(due)),
            ActiveToolchain::Refused(why) => (Some(why), None),
        };
        RustupFacts {
            is_named: self.named == Some(ClientKind::Rustup),
            dist_server: match dist_server {
                Some(value) => Some(server(value, "", &sources).await),
                None => None,
            },
            update_root: match self.variable("RUSTUP_UPDATE_ROOT") {
                Some(value) => Some(server(value.to_owned(), "/rustup", &sources).await),
                None => None,
            },
            applied: file.as_deref().map(applied_values).unwrap_or_default(),
            file: file.filter(|file| file.is_file()),
            larder_proxy: self.larder_proxy(https).await,
            refused_toolchain,
            due_toolchain,
            configured: configured(self.settings),
            running: self.running(),
        }
    }

    /// The toolchain that rustup would run in the current folder.
    fn active_toolchain(&self) -> ActiveToolchain {
        let folder = std::env::current_dir().unwrap_or_default();
        let variables = &self.settings.client_variables;
        let (variable, cargo) = (variables.rustup_toolchain(), variables.cargo_in_path());
        let settings = self.settings.rustup_settings.as_deref();
        ActiveToolchain::of(&folder, settings, variable.as_deref(), cargo.as_deref())
    }
}

/// The values of the variables in the file that `larder client apply rustup` wrote.
fn applied_values(file: &Path) -> Vec<String> {
    let text = files::read_text(file, MAX_SETTINGS_BYTES).unwrap_or_default();
    let values = text.lines().filter_map(|line| {
        let (_, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some(value.trim_matches('\'').to_owned())
    });
    values.collect()
}

/// Asks what stands at the value of a variable, whose right value ends in `path`.
async fn server(value: String, path: &str, sources: &ProxySources) -> RustupServer {
    let plain = value.trim_end_matches('/');
    let base = plain.strip_suffix(path);
    let base = base.and_then(|base| Url::parse(&format!("{base}/")).ok());
    let base = base.filter(|base| base.scheme() == "http");
    let larder = match Url::parse(&value) {
        Ok(url) if url.has_host() => larder_at(&url).await,
        // The scheme is missing.
        Ok(_) | Err(_) => match Url::parse(&format!("http://{value}")) {
            Ok(url) => larder_at(&url).await,
            Err(_) => None,
        },
    };
    RustupServer {
        route: match base {
            Some(base) => Some(route(base, sources).await),
            None => None,
        },
        larder,
        value,
    }
}

/// The base address of a larder that answers over http at the host and port of an address.
async fn larder_at(url: &Url) -> Option<Url> {
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let base = Url::parse(&format!("http://{authority}/")).ok()?;
    matches!(probe(&base, None).await, Probe::Larder(_)).then_some(base)
}

/// Asks an index or base address for larder's status, directly and through the proxy for it.
async fn route(url: Url, sources: &ProxySources) -> ClientRoute {
    let base = match url.path().split_once("/registry/") {
        Some((before, _)) => {
            let mut base = url.clone();
            base.set_path(&format!("{before}/"));
            base
        }
        None => url,
    };
    let proxy = sources.proxy_for(&base).cloned();
    let direct = probe(&base, None).await;
    let through = match proxy.as_ref().map(ClientProxy::parsed) {
        None => direct.clone(),
        Some(Some(url)) if url.scheme() == "http" => probe(&base, Some(&url)).await,
        Some(Some(_) | None) => Probe::Unreachable("only http proxies are checked".to_owned()),
    };
    ClientRoute {
        base,
        proxy,
        probe: through,
        direct,
    }
}

/// The `dl` of a `config.json`.
async fn dl(url: &Url, proxy: Option<&Url>) -> Result<String, String> {
    let reply = status_client::get(url, proxy).await?;
    let config: Option<Value> = serde_json::from_slice(&reply.body).ok();
    let dl = config.as_ref().and_then(|config| config["dl"].as_str());
    let dl = dl.filter(|_| reply.status == 200).map(str::to_owned);
    dl.ok_or_else(|| reply.summary())
}

/// The copies of `config.json` in cargo's home for the registry at this address, with their `dl`. Cargo names their
/// folders by a hash, which versions before 1.85 compute in another way.
fn cached_configs(home: Option<&Path>, index: &str) -> Vec<(PathBuf, String)> {
    let folders = [true, false].into_iter().filter_map(|is_stable| {
        let folder = tame_index::utils::url_to_local_dir(index, is_stable).ok()?;
        Some(home?.join("registry/index").join(folder.dir_name))
    });
    let configs = folders.filter_map(|folder| {
        let file = folder.join("config.json");
        let text = files::read_text(&file, MAX_SETTINGS_BYTES).ok()?;
        let config: Value = serde_json::from_str(&text).ok()?;
        Some((file, config["dl"].as_str()?.to_owned()))
    });
    configs.collect()
}

/// git's `http.proxy` outside of any repository, as cargo reads it.
async fn git_proxy() -> Option<ClientProxy> {
    let mut git = Command::new("git");
    git.args(["config", "--null", "--show-origin", "--get", "http.proxy"])
        .current_dir("/")
        .env_remove("GIT_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(GIT_TIMEOUT, git.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut parts = text.split('\0');
    let file = parts.next()?;
    let url = parts.next().filter(|url| !url.is_empty())?.to_owned();
    let file = file.strip_prefix("file:").unwrap_or(file);
    let place = format!("git's `http.proxy` in {file}");
    Some(ClientProxy { url, place })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Subject;

    #[test]
    fn copies_of_config_json_are_found_by_cargo_s_names_of_folders() {
        let home = tempfile::tempdir().unwrap();
        let folder = home
            .path()
            .join("registry/index/127.0.0.1-ce9cf12c329d7901");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), r#"{"dl":"http://old/"}"#).unwrap();
        let found = |index| cached_configs(Some(home.path()), index);
        let expected = [(folder.join("config.json"), "http://old/".to_owned())];
        assert_eq!(found("sparse+http://127.0.0.1:4263/"), expected);
        assert_eq!(found("sparse+http://127.0.0.1:4264/"), []);
    }

    #[test]
    fn findings_are_lines_with_the_remedy_below() {
        let finding = Finding {
            subject: Subject::Cargo,
            check: "daemon",
            verdict: FindingVerdict::Problem,
            what: "it is down".to_owned(),
            remedy: Some("start it".to_owned()),
        };
        assert_eq!(
            text(&finding),
            "problem  it is down\n         -> start it\n"
        );
    }
}
