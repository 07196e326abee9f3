//! The daemon on a store, for the commands that ask it or speak of it.

use crate::{
    config::Settings,
    status_client::{self, RunningDaemon},
    store::Store,
};

/// The limit of the running daemon, else that of the settings.
pub(super) fn max_size(settings: &Settings, daemon: Option<&RunningDaemon>) -> Option<u64> {
    let running = daemon.and_then(|daemon| daemon.status["eviction"]["max_size"].as_u64());
    running.or(settings.max_size)
}

/// The daemon on this store. Of several, one at a configured address comes first.
pub(super) async fn find_daemon(settings: &Settings, store: &Store) -> Option<RunningDaemon> {
    let configured = configured(settings);
    let announced = store.announced().into_iter();
    let mut addresses: Vec<_> = announced
        .flat_map(|one| one.addresses.into_iter().map(move |base| (base, one.pid)))
        .collect();
    addresses.sort_by_key(|(base, _)| !configured.contains(base));
    status_client::find_announced(addresses).await
}

/// The base addresses where `larder serve` would listen.
pub(super) fn configured(settings: &Settings) -> Vec<String> {
    let addresses = settings.listen.iter();
    addresses
        .map(|address| format!("http://{address}/"))
        .collect()
}
