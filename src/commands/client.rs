//! `larder client print`: prints the settings that make cargo, rustup or a container build use the running daemon.
//! `apply` and `undo` are in `client_change.rs`.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use serde_json::json;

use super::{
    CommandError, client_change,
    client_settings::{cargo_settings, daemon_or_configured, reachable},
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
    let of = match flags.command {
        ClientCommand::Print { of } => of,
        ClientCommand::Apply(target) => {
            return client_change::apply(settings, shared, target).await;
        }
        ClientCommand::Undo(target) => return client_change::undo(settings, shared, target),
    };
    let note = |text: &str| {
        if shared.quiet == 0 {
            note(text);
        }
    };
    let app = App::build(settings, AppMode::Local)?;
    let (base, daemon) = daemon_or_configured(settings, &app).await?;
    let proxy = daemon
        .as_ref()
        .and_then(|daemon| proxy_variables(settings, &app, daemon));
    let is_running = daemon.is_some();
    if !is_running {
        note("note: no larder is running now; this is where `larder serve` will listen");
    }
    let cargo = cargo_settings(settings, &base);
    if shared.json {
        print_json(&json!({
            "address": base,
            "running": is_running,
            "cargo": cargo,
            "rustup": client_config::rustup_variables(&base).into_iter().collect::<BTreeMap<_, _>>(),
            "proxy": proxy.as_deref().map(|proxy| proxy.iter().cloned().collect::<BTreeMap<_, _>>()),
            "build": client_config::build_arguments(&base).into_iter().collect::<BTreeMap<_, _>>(),
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
            note("# for a shell, or its profile: eval \"$(larder client print proxy)\"");
            print(&client_config::exports(
                &proxy.ok_or(CommandError::NoProxy)?,
            ))?;
        }
        SettingsKind::Build => {
            note("# for a build: podman build $(larder client print build) .");
            print(&client_config::build_options(&base))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The variables for clients of the daemon's intercepting proxy, if it has one.
fn proxy_variables(
    settings: &Settings,
    app: &App,
    daemon: &RunningDaemon,
) -> Option<Vec<(&'static str, String)>> {
    let proxy = &daemon.status["proxy"];
    let address = reachable(&format!("{}/", proxy["address"].as_str()?));
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
