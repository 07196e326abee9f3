//! The sockets of `larder serve`: those that the service manager has passed, else its own.
//!
//! ```text
//!  passed sockets ── name or address ──> http ── none? ──> open those of `listen`
//!                                   └──> proxy ── none? ──> open that of `intercept`, if it is set
//! ```

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;
use tracing::warn;

use super::{CommandError, client_settings::reachable};
use crate::{
    config::Settings,
    server,
    service_manager::{PassedSocket, SocketPurpose},
    status_client,
};

/// Sockets that listen, and their addresses.
pub(super) struct ServingSockets {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) addresses: Vec<SocketAddr>,
    /// The passed sockets for clients of the proxy.
    pub(super) proxy: Vec<TcpListener>,
    /// The service manager keeps the sockets open.
    is_passed: bool,
}

impl ServingSockets {
    /// Takes the passed sockets, or opens those of the settings: a configured port 0 becomes a free one.
    ///
    /// # Errors
    /// The address or the passed socket that cannot be used.
    pub(super) async fn open(
        settings: &Settings,
        passed: Vec<PassedSocket>,
    ) -> Result<Self, CommandError> {
        let mut listeners = Vec::new();
        let mut proxy = Vec::new();
        for PassedSocket { listener, name } in passed {
            let address = listener.local_addr()?;
            let name = name.as_deref();
            match SocketPurpose::of(name, address, settings.intercept.address) {
                Some(SocketPurpose::Http) => listeners.push(TcpListener::from_std(listener)?),
                Some(SocketPurpose::Proxy) if settings.intercept.address.is_none() => {
                    return Err(CommandError::PassedProxySocket { address });
                }
                Some(SocketPurpose::Proxy) => proxy.push(TcpListener::from_std(listener)?),
                None => {
                    let name = name.unwrap_or_default().to_owned();
                    return Err(CommandError::PassedSocketName { address, name });
                }
            }
        }
        let is_passed = !listeners.is_empty();
        if !is_passed {
            for address in &settings.listen {
                listeners.push(listen_at(*address).await?);
            }
        }
        let addresses = listeners.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
        if is_passed && addresses != settings.listen {
            warn!(
                passed = ?addresses,
                listen = ?settings.listen,
                "the service manager's sockets are used instead of the setting `listen`"
            );
        }
        Ok(Self {
            listeners,
            addresses,
            proxy,
            is_passed,
        })
    }

    /// Waits until the daemon may end because no client wants anything; for ever without that setting.
    pub(super) async fn idle_exit(&self, settings: &Settings, server: &server::Server) {
        let Some(longest) = settings.serving.idle_exit else {
            return std::future::pending().await;
        };
        let obstacle = match (self.is_passed, &server.tasks.proxy) {
            (false, _) => {
                "no service manager has passed sockets, so nothing would start larder again"
            }
            (true, Some(_)) => "connections through the proxy are not counted as clients",
            (true, None) => {
                server.idle_for(longest).await;
                let idle = humantime::format_duration(longest);
                tracing::info!(%idle, "no client: the service manager starts larder at the next connection");
                return;
            }
        };
        warn!("`idle-exit` has no effect: {obstacle}");
        std::future::pending().await
    }
}

/// Listens on an address.
///
/// # Errors
/// [`CommandError::LarderListens`] or [`CommandError::Listen`].
pub(super) async fn listen_at(address: SocketAddr) -> Result<TcpListener, CommandError> {
    let source = match server::listen(address) {
        Ok(listener) => return Ok(listener),
        Err(source) => source,
    };
    if source.kind() == io::ErrorKind::AddrInUse {
        let base = reachable(&format!("http://{address}/"));
        if let Some(other) = status_client::find_any(vec![base]).await {
            let pid = other.status["pid"].as_u64().unwrap_or_default();
            return Err(CommandError::LarderListens { address, pid });
        }
    }
    Err(CommandError::Listen { address, source })
}
