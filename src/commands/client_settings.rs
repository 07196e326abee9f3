//! The address that clients use, on this machine or on others, and cargo's settings for it.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};

use super::{
    CommandError,
    running_daemon::{configured, find_daemon},
};
use crate::{
    app::App,
    client_config,
    config::Settings,
    status_client::{self, RunningDaemon},
};

/// The base address for clients, and the daemon if one is running. The address is the setting `public-url`, else the
/// address where the daemon listens, which may stand for all addresses. The daemon is the one on this store, else
/// another at a configured address.
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
    let public = settings.serving.public_url.as_ref();
    Ok((public.map_or(base, ToString::to_string), daemon))
}

/// Time limit for looking up this machine's name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The base address of a daemon that listens at `base`, for clients on other machines. One that listens on all
/// addresses is reached by this machine's name or address.
pub(super) async fn shared_address(base: &str) -> String {
    let Some(port) = port_of_every_address(base) else {
        return base.to_owned();
    };
    let host = match machine_name().await {
        Some(name) => Some(name),
        None => outgoing_address().map(|address| address.to_string()),
    };
    host.map_or_else(|| reachable(base), |host| format!("http://{host}:{port}"))
}

/// The rest of an address behind the host that stands for all addresses.
fn port_of_every_address(base: &str) -> Option<&str> {
    let hosts = ["http://0.0.0.0:", "http://[::]:"];
    hosts.iter().find_map(|host| base.strip_prefix(host))
}

/// This machine's name, if it leads to an address that other machines can reach.
async fn machine_name() -> Option<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let found = timeout(LOOKUP_TIMEOUT, lookup_host((&*name, 0))).await;
    let is_shared = found.ok()?.ok()?.any(|address| !address.ip().is_loopback());
    is_shared.then(|| name.into_owned())
}

/// The address of the interface towards other networks. Connecting a socket for datagrams sends nothing; the address is
/// one that RFC 5737 reserves for documentation.
fn outgoing_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
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

    #[tokio::test]
    async fn only_addresses_that_stand_for_all_are_replaced_for_other_machines() {
        for base in [
            "http://127.0.0.1:1/",
            "http://10.0.0.1:1/",
            "http://[::1]:1/",
        ] {
            assert_eq!(shared_address(base).await, base);
        }
        for base in ["http://0.0.0.0:1/", "http://[::]:1/"] {
            let shared = shared_address(base).await;
            assert!(shared.ends_with(":1/") && shared != base, "{shared}");
        }
    }

    #[test]
    fn addresses_that_stand_for_all_become_loopback() {
        assert_eq!(reachable("http://0.0.0.0:1/"), "http://127.0.0.1:1/");
        assert_eq!(reachable("http://[::]:1/"), "http://[::1]:1/");
        assert_eq!(reachable("http://10.0.0.1:1/"), "http://10.0.0.1:1/");
    }
}
