//! The user's cargo, resolving against this larder: a loopback server for it and a scratch folder.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpSocket;

use super::CommandError;
use crate::{
    app::App,
    config::Settings,
    plan::{Inventory, Plan, Problem},
    resource::registry::CRATES_IO,
    scratch::Scratch,
    server::loopback::LoopbackServer,
};

/// A loopback server, and the scratch folder in which cargo talks to it.
pub(super) struct LocalCargo {
    /// Asks cargo.
    pub(super) scratch: Scratch,
    server: LoopbackServer,
    /// Keeps the port of the closed proxy, on which nobody listens.
    _closed_port: Option<TcpSocket>,
}

impl LocalCargo {
    /// Starts the server. What it answers is decided by the cache of `app`. If that is offline, cargo asks no other.
    ///
    /// # Errors
    /// The store has no scratch folder, or no port can be opened.
    pub(super) fn start(settings: &Settings, app: &App) -> Result<Self, CommandError> {
        let folder = app.store.scratch()?;
        let server = LoopbackServer::start(app.cache.clone(), app.upstreams.clone())?;
        let closed_port = app.cache.is_offline().then(closed_port).transpose()?;
        let closed_proxy = closed_port
            .as_ref()
            .map(|(_, address)| format!("http://{address}"));
        let registries = app.upstreams.registries.iter();
        let registries = registries.filter(|registry| registry.name() != CRATES_IO);
        let scratch = Scratch {
            cargo: settings.cargo.clone(),
            cargo_home: settings.cargo_home.clone(),
            registry_address: server.url(),
            registries: registries
                .map(|registry| {
                    let index = format!("sparse+{}", registry.index());
                    (registry.name().to_owned(), index)
                })
                .collect(),
            closed_proxy,
            folder,
            no_proxy: settings.no_proxy.clone(),
        };
        Ok(Self {
            scratch,
            server,
            _closed_port: closed_port.map(|(socket, _)| socket),
        })
    }

    /// Stops the server.
    pub(super) async fn stop(self) {
        self.server.stop().await;
    }
}

/// A port of this machine that refuses connections, because its socket does not listen.
fn closed_port() -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Completes a plan where only cargo can: projects without a lock file, and what `targets` need. If cargo cannot be
/// asked, the plan gets a problem.
pub(super) async fn complete_plan(
    plan: &mut Plan,
    targets: &[String],
    settings: &Settings,
    app: &App,
) {
    if !plan.needs_cargo(targets) {
        return;
    }
    match LocalCargo::start(settings, app) {
        Ok(cargo) => {
            let registries = &app.upstreams.registries;
            let inventory = Inventory::new(&app.cache, &app.store, &app.upstreams);
            plan.ask_cargo(&cargo.scratch, targets, registries, &inventory)
                .await;
            cargo.stop().await;
        }
        Err(error) => plan.failed.push(Problem::new("a larder for cargo", error)),
    }
}
