//! `larder serve`: the daemon, from the first socket to the last write.
//!
//! ```text
//!   listen ──> build the app ──> announce to other commands ──> "listening on ..." ──> serve
//!                                                                                       │ SIGINT, SIGTERM or SIGHUP
//!   exit code 0 <── flush the write-behind buffer <── transfers end, at most 8 s <──────┘
//! ```
//!
//! It listens before it opens the store, so that a second daemon on the same port fails without touching anything. A
//! second signal ends the process at once.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot, watch},
    time::sleep,
};
use tracing::{info, warn};

use super::{CommandError, render::print, serve_proxy::StandingProxy};
use crate::{
    app::{App, AppMode, StopSignals, StoreAccess},
    config::Settings,
    eviction::{EvictionStatus, Evictor, EvictorOptions},
    prefetch::{self, KeepWarmStatus, PinKeeper},
    server,
    store::Announcement,
    verify::{Repairer, Scrub, ScrubOptions, ScrubState},
};

/// Time between two looks at the advisory database. Another process may import one.
const ADVISORIES_INTERVAL: Duration = Duration::from_secs(60);

/// Runs the command.
///
/// # Errors
/// An address or the store cannot be used, or a second signal ended the command.
pub async fn run(settings: &Settings) -> Result<ExitCode, CommandError> {
    let (listeners, addresses) = listen(&settings.listen)?;
    let proxy = StandingProxy::listen(settings)?;
    settings.refuse_own_addresses(&addresses)?;
    let app = App::build(settings, AppMode::Daemon)?;
    let access = app.prepare_to_serve(settings).await?;
    let may_write = access != StoreAccess::ReadOnly;
    let bases: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}/"))
        .collect();
    if access == StoreAccess::Writable {
        announce(&app, &bases).await;
    }
    let mut signals = StopSignals::new()?;
    let reach = if settings.is_offline {
        "offline"
    } else {
        "online"
    };
    info!(store = %settings.store.display(), upstream = %settings.index, reach, "larder {} serves", env!("CARGO_PKG_VERSION"));

    // The stored files count from the first request on.
    let archive = app.upstreams.advisory_archive();
    app.cache.load_advisories(&archive).await;
    let app = Arc::new(app);
    if access == StoreAccess::Full {
        let (app, bases) = (app.clone(), bases.clone());
        tokio::spawn(async move {
            app.prepare_once_there_is_space().await;
            announce(&app, &bases).await;
        });
    }
    tokio::spawn(keep_advisories(app.clone()));
    let mut server = app.server(settings, &addresses);
    if may_write {
        server.keep_warm = start_prefetching(&app, settings);
    }
    server.scrub = start_scrub(&app, settings);
    server.eviction = may_write.then(|| start_evictor(&app, settings));
    server.proxy = proxy.as_ref().map(StandingProxy::status);
    let server = Arc::new(server);
    let (stop_proxy, proxy_stopping) = watch::channel(false);
    if let Some(proxy) = proxy {
        proxy.start(settings, &app, &server, proxy_stopping).await?;
    }
    for base in &bases {
        print(&format!("listening on {base}\n"))?;
    }
    if let Some(proxy) = &server.proxy {
        print(&format!("intercepting on {}/\n", proxy.address))?;
    }
    let page = server.clone();
    tokio::spawn(async move {
        if let Some(home) = &page.home {
            home.record_minutes(&page.cache).await;
        }
    });
    let (stop, stopping) = oneshot::channel();
    let work = async {
        server::run(listeners, server, async { drop(stopping.await) }).await;
        app.cache.flush().await;
        app.store.flush_uses(true).await;
    };
    let second_signal = async {
        signals.next().await;
        let _ = stop.send(());
        let _ = stop_proxy.send(true);
        signals.next().await;
    };
    tokio::select! {
        () = work => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = second_signal => Err(CommandError::Interrupted(
            "stopped at once; what was not written yet is fetched again when it is needed",
        )),
    }
}

/// Opens all listeners, and tells the addresses that they got: a configured port 0 becomes a free one.
fn listen(configured: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), CommandError> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for &address in configured {
        let listener =
            server::listen(address).map_err(|source| CommandError::Listen { address, source })?;
        addresses.push(listener.local_addr()?);
        listeners.push(listener);
    }
    Ok((listeners, addresses))
}

/// Writes the addresses into the store, where `status` and `client print` look for a daemon.
async fn announce(app: &App, bases: &[String]) {
    let announcement = Announcement {
        pid: std::process::id(),
        addresses: bases.to_vec(),
    };
    if let Err(error) = app.store.announce(&announcement).await {
        warn!(%error, "cannot write the address for other commands");
    }
}

/// Starts the prefetcher and, unless it is switched off, keep-warm. Returns the status of keep-warm.
fn start_prefetching(app: &App, settings: &Settings) -> Option<watch::Receiver<KeepWarmStatus>> {
    let clients_resumed = Arc::<Notify>::default();
    if let Some(events) = app.cache.events() {
        prefetch::spawn(app.cache.clone(), events, clients_resumed.clone());
    }
    if !settings.keep_warm || settings.is_offline {
        return None;
    }
    let keeper = PinKeeper::new(
        app.cache.clone(),
        app.store.clone(),
        app.upstreams.clone(),
        settings.rustup_settings.clone(),
    );
    // A file may have changed while no daemon ran.
    clients_resumed.notify_one();
    let status = keeper.status();
    tokio::spawn(keeper.run(clients_resumed));
    Some(status)
}

/// Keeps the advisory database new, and reads it again when it has changed.
async fn keep_advisories(app: Arc<App>) {
    loop {
        app.refresh_advisories().await;
        sleep(ADVISORIES_INTERVAL).await;
    }
}

/// Starts the evictor. Returns its numbers.
fn start_evictor(app: &App, settings: &Settings) -> watch::Receiver<EvictionStatus> {
    let options = EvictorOptions {
        max_bytes: settings.max_size,
        forget_after: settings.forget_after,
    };
    let evictor = Evictor::new(app.store.clone(), app.upstreams.clone(), options);
    let status = evictor.status();
    tokio::spawn(evictor.run());
    status
}

/// Starts the scrub, unless it is switched off. Returns its state.
fn start_scrub(app: &App, settings: &Settings) -> Option<watch::Receiver<ScrubState>> {
    let options = ScrubOptions {
        rate: settings.scrub_rate,
        interval: settings.scrub_interval,
    };
    if options.rate == 0 {
        return None;
    }
    let store = app.store.clone();
    let repairer = Repairer::new(app.cache.clone(), store.clone(), app.upstreams.clone());
    let scrub = Scrub::new(store, repairer, options);
    let state = scrub.state();
    tokio::spawn(scrub.run());
    Some(state)
}
