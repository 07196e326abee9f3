//! `larder client print`: prints the settings that make cargo, rustup or a container build use the running daemon.

use std::{collections::BTreeMap, process::ExitCode};

use serde_json::json;

use super::{
    CommandError,
    render::{note, print, print_json},
    status::{configured, find_daemon},
};
use crate::{
    app::{App, AppMode},
    cli::{self, ClientCommand, SettingsKind},
    client_config,
    config::Settings,
    status_client,
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
    let ClientCommand::Print { of } = flags.command;
    let note = |text: &str| {
        if shared.quiet == 0 {
            note(text);
        }
    };
    let app = App::build(settings, AppMode::Local)?;
    let daemon = match find_daemon(settings, &app.store).await {
        Some(daemon) => Some(daemon),
        // One with another store serves clients as well.
        None => status_client::find_any(configured(settings)).await,
    };
    let is_running = daemon.is_some();
    let base = match daemon {
        Some(daemon) => daemon.address,
        None => {
            note("note: no larder is running now; this is where `larder serve` will listen");
            let address = settings.listen.first().ok_or(CommandError::NoAddress)?;
            format!("http://{address}/")
        }
    };
    let base = reachable(&base);
    let cargo = cargo_settings(settings, &base);
    if shared.json {
        print_json(&json!({
            "address": base,
            "running": is_running,
            "cargo": cargo,
            "rustup": client_config::rustup_variables(&base).into_iter().collect::<BTreeMap<_, _>>(),
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
        SettingsKind::Build => {
            note("# for a build: podman build $(larder client print build) .");
            print(&client_config::build_options(&base))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A daemon that listens on all addresses is reached on this machine through loopback.
pub(super) fn reachable(base: &str) -> String {
    base.replace("//0.0.0.0:", "//127.0.0.1:")
        .replace("//[::]:", "//[::1]:")
}

/// Cargo's settings for crates.io and for every other configured registry.
fn cargo_settings(settings: &Settings, base: &str) -> String {
    let mut text = client_config::cargo_settings(base);
    for (name, index) in &settings.registries {
        text += "\n";
        text += &client_config::registry_settings(base, name, index.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_stand_for_all_become_loopback() {
        assert_eq!(reachable("http://0.0.0.0:1/"), "http://127.0.0.1:1/");
        assert_eq!(reachable("http://[::]:1/"), "http://[::1]:1/");
        assert_eq!(reachable("http://10.0.0.1:1/"), "http://10.0.0.1:1/");
    }
}
