//! The user's cargo, resolving against this larder: a loopback server for it and a scratch folder.

use super::CommandError;
use crate::{
    app::App,
    config::Settings,
    plan::{Inventory, Plan, Problem},
    scratch::Scratch,
    server::loopback::LoopbackServer,
};

/// A loopback server, and the scratch folder in which cargo talks to it.
pub(super) struct LocalCargo {
    /// Asks cargo.
    pub(super) scratch: Scratch,
    server: LoopbackServer,
}

impl LocalCargo {
    /// Starts the server. What it answers is decided by the cache of `app`, which may be offline.
    ///
    /// # Errors
    /// The store has no scratch folder, or no port can be opened.
    pub(super) fn start(settings: &Settings, app: &App) -> Result<Self, CommandError> {
        let folder = app.store.scratch()?;
        let server = LoopbackServer::start(app.cache.clone(), app.upstreams.clone())?;
        let scratch = Scratch {
            cargo: settings.cargo.clone(),
            cargo_home: settings.cargo_home.clone(),
            registry_address: server.url(),
            folder,
            no_proxy: settings.no_proxy.clone(),
        };
        Ok(Self { scratch, server })
    }

    /// Stops the server.
    pub(super) async fn stop(self) {
        self.server.stop().await;
    }
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
