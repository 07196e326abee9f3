//! `larder client print`: prints the settings that make cargo, rustup or a container build use the running daemon.
//! `apply` and `undo` are in `client_change.rs`.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use serde_json::json;
use url::Url;

use super::{
    CommandError, client_change,
    client_settings::{cargo_settings, daemon_or_configured, reachable, shared_address},
    doctor,
    render::{note, print, print_json},
};
use crate::{
    app::{App, AppMode},
    cli::{self, ClientCommand, SettingsKind},
    client_config,
    config::Settings,
    status_client::RunningDaemon,
};

/// Runs the command.
///
/// # Errors
/// No address is configured, or the store cannot be read.
pub async fn run(
    settings: &Settings,
    shared: &cli::GlobalFlags,
    flags: cli::Client,
) -> Result<ExitCode, CommandError> {
    let (of, named) = match flags.command {
        ClientCommand::Print { of, address } => (of, address),
        ClientCommand::Apply(target) => {
            return client_change::apply(settings, shared, target).await;
        }
        ClientCommand::Doctor { of } => return doctor::run(settings, shared, of).await,
        ClientCommand::Undo(target) => return client_change::undo(settings, shared, target),
    };
    let note = |text: &str| {
        if shared.quiet == 0 {
            note(text);
        }
    };
    let app = App::build(settings, AppMode::Local)?;
    let (listening, daemon) = daemon_or_configured(settings, &app).await?;
    let local = reachable(&listening);
    let base = match &named {
        Some(named) => named.to_string(),
        None => shared_address(&listening).await,
    };
    // A build on the host's network reaches loopback, whose address never changes.
    let build_base = named.as_ref().map_or(&local, |_| &base);
    let proxy = match &daemon {
        Some(daemon) => proxy_variables(settings, &app, daemon, named.as_ref()).await,
        None => None,
    };
    let is_running = daemon.is_some();
    // Without a daemon, there are no settings for its proxy, and the error says so.
    if !is_running && named.is_none() && of != SettingsKind::Proxy {
        note("note: no larder is running now; this is where `larder serve` will listen");
    }
    if named.is_none() && base != local && of != SettingsKind::Build {
        note(&format!(
            "# larder listens on all addresses: clients on other machines reach it so, those on this one also at {local}"
        ));
    }
    let cargo = cargo_settings(settings, &base);
    if shared.json {
        print_json(&json!({
            "address": base,
            "running": is_running,
            "cargo": cargo,
            "rustup": client_config::rustup_variables(&base).into_iter().collect::<BTreeMap<_, _>>(),
            "proxy": proxy.as_deref().map(|proxy| proxy.iter().cloned().collect::<BTreeMap<_, _>>()),
            "build": client_config::build_arguments(build_base).into_iter().collect::<BTreeMap<_, _>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match of {
        SettingsKind::Cargo => {
            note(
                "# for $CARGO_HOME/config.toml or a project's .cargo/config.toml\n\
                 # rustup's settings: larder client print rustup",
            );
            print(&cargo)?;
        }
        SettingsKind::Rustup => {
            note("# for a shell, or its profile: eval \"$(larder client print rustup)\"");
            print(&client_config::rustup_exports(&base))?;
        }
        SettingsKind::Proxy => {
            let proxy = proxy.ok_or(CommandError::NoProxy)?;
            note("# for a shell, or its profile: eval \"$(larder client print proxy)\"");
            print(&client_config::exports(&proxy))?;
        }
        SettingsKind::Build => {
            note("# for a build: podman build $(larder client print build) .");
            print(&client_config::build_options(build_base))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The variables for clients of the daemon's intercepting proxy, if it has one.
async fn proxy_variables(
    settings: &Settings,
    app: &App,
    daemon: &RunningDaemon,
    named: Option<&Url>,
) -> Option<Vec<(&'static str, String)>> {
    let proxy = &daemon.status["proxy"];
    let listening = Url::parse(&format!("{}/", proxy["address"].as_str()?)).ok()?;
    let address = match named.and_then(Url::host_str) {
        Some(host) => format!("http://{host}:{}", listening.port_or_known_default()?),
        None => shared_address(listening.as_str()).await,
    };
    let roots = Path::new(proxy["roots"].as_str()?);
    let addresses = app.upstreams.addresses();
    let hosts = addresses
        .filter_map(|url| Some(url.host_str()?.to_owned()))
        .collect();
    let no_proxy = client_config::no_proxy(&settings.no_proxy.to_string_lossy(), &hosts);
    let address = address.trim_end_matches('/');
    let variables = client_config::proxy_variables(address, roots, roots, &no_proxy).into_iter();
    Some(
        variables
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect(),
    )
}
