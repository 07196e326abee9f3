//! The address that clients of this machine use, and cargo's settings for it.

use super::{
    CommandError,
    status::{configured, find_daemon},
};
use crate::{
    app::App,
    client_config,
    config::Settings,
    status_client::{self, RunningDaemon},
};

/// The base address that clients of this machine use, and the daemon there if one is running: the one on this store,
/// else another at a configured address.
///
/// # Errors
/// No address is configured.
pub(super) async fn daemon_or_configured(
    settings: &Settings,
    app: &App,
) -> Result<(String, Option<RunningDaemon>), CommandError> {
    let daemon = match find_daemon(settings, &app.store).await {
        Some(daemon) => Some(daemon),
        // One with another store serves clients as well.
        None => status_client::find_any(configured(settings)).await,
    };
    let base = match &daemon {
        Some(daemon) => daemon.address.clone(),
        None => {
            let address = settings.listen.first().ok_or(CommandError::NoAddress)?;
            format!("http://{address}/")
        }
    };
    Ok((reachable(&base), daemon))
}

/// A daemon that listens on all addresses is reached on this machine through loopback.
pub(super) fn reachable(base: &str) -> String {
    base.replace("//0.0.0.0:", "//127.0.0.1:")
        .replace("//[::]:", "//[::1]:")
}

/// Cargo's settings for crates.io and for every other configured registry.
pub(super) fn cargo_settings(settings: &Settings, base: &str) -> String {
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
