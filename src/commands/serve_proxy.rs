//! The intercepting proxy of `larder serve --intercept`, beside the daemon's own addresses.
//!
//! It answers for the hosts whose `config.json` is known, so it looks again until each registry's is. It also replaces
//! the authority in time (`crate::intercept::authority_folder`).

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tracing::warn;

use super::{CommandError, serve_sockets::listen_at};
use crate::{
    app::App,
    config::Settings,
    intercept::{
        Answers, AuthorityFolder, CertificateError, InterceptedHosts, Interceptor, Tally,
        TunnelPolicy, intercepted_origins, known_configs, serve,
    },
    server::{ProxyStatus, Server},
};

/// Time between two looks for the configs of registries, while one is unknown.
const CONFIG_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two looks for other hosts, and at the age of the authority.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3600);

/// A proxy that listens, and does not answer yet.
pub(super) struct DaemonProxy {
    listeners: Vec<TcpListener>,
    folder: AuthorityFolder,
    address: SocketAddr,
}

impl DaemonProxy {
    /// Listens, if the settings ask for a proxy: on the sockets that the service manager has passed, else on its own.
    ///
    /// # Errors
    /// The address or the folder of the authority cannot be used.
    pub(super) async fn listen(
        settings: &Settings,
        passed: Vec<TcpListener>,
    ) -> Result<Option<Self>, CommandError> {
        let Some(wanted) = settings.intercept.address else {
            return Ok(None);
        };
        let listeners = match passed.is_empty() {
            true => vec![listen_at(wanted).await?],
            false => passed,
        };
        let addresses = listeners.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
        let address = match addresses.contains(&wanted) {
            true => wanted,
            false => addresses.first().copied().unwrap_or(wanted),
        };
        if address != wanted && wanted.port() != 0 {
            warn!(
                passed = ?addresses,
                intercept = %wanted,
                "the service manager's sockets are used instead of the setting `intercept`"
            );
        }
        let folder = settings
            .intercept
            .folder
            .clone()
            .ok_or(CommandError::NoStateFolder)?;
        let folder = AuthorityFolder::open(folder.clone())
            .map_err(|source| CertificateError::File(folder, source))?;
        Ok(Some(Self {
            address,
            listeners,
            folder,
        }))
    }

    /// Its address and root certificates, for other commands.
    pub(super) fn status(&self) -> ProxyStatus {
        ProxyStatus {
            address: format!("http://{}", self.address),
            roots: self.folder.roots(),
        }
    }

    /// Starts to answer clients, until `stopping` becomes true. Each connection whose requests larder answers has a
    /// clone of it until its end.
    ///
    /// # Errors
    /// No certificate can be made.
    pub(super) async fn start(
        self,
        settings: &Settings,
        app: &App,
        server: &Arc<Server>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), CommandError> {
        let host_source = HostSource {
            server: server.clone(),
            folder: self.folder,
            settings: settings.clone(),
        };
        let (hosts, is_complete) = host_source.hosts().await?;
        let interceptor = Arc::new(Interceptor {
            hosts: hosts.into(),
            answers: Answers::Server(server.clone()),
            relay: app.relay(settings, None)?,
            tunnels: TunnelPolicy::Only(settings.intercept.tunnels.clone()),
            is_offline: settings.is_offline,
            password: None,
            tally: Tally::default(),
        });
        tokio::spawn(host_source.refresh(interceptor.clone(), is_complete));
        for listener in self.listeners {
            tokio::spawn(serve(interceptor.clone(), listener, stopping.clone()));
        }
        Ok(())
    }
}

/// Where the hosts to intercept, and their certificates, come from.
struct HostSource {
    server: Arc<Server>,
    folder: AuthorityFolder,
    settings: Settings,
}

impl HostSource {
    /// The hosts, and whether those of all registries are among them.
    async fn hosts(&self) -> Result<(InterceptedHosts, bool), CertificateError> {
        let upstreams = &self.server.upstreams;
        let configs = known_configs(&self.server).await;
        let origins = intercepted_origins(upstreams.addresses(), &configs);
        let names: BTreeSet<_> = origins.iter().map(|origin| origin.host.clone()).collect();
        let roots = self.settings.ssl_cert_file.as_deref();
        let certificates = self.folder.certificates(&names, roots)?;
        let is_complete = configs.len() == upstreams.registries.iter().count();
        Ok((
            InterceptedHosts {
                origins,
                certificates,
            },
            is_complete,
        ))
    }

    async fn refresh(self, interceptor: Arc<Interceptor>, mut is_complete: bool) {
        loop {
            let interval = if is_complete {
                REFRESH_INTERVAL
            } else {
                CONFIG_INTERVAL
            };
            tokio::time::sleep(interval).await;
            match self.hosts().await {
                Ok((hosts, complete)) => {
                    is_complete = complete;
                    *interceptor.hosts.write() = hosts;
                }
                Err(error) => warn!(%error, "cannot renew the certificates of the proxy"),
            }
        }
    }
}
