//! `larder serve`: the daemon, from the first socket to the last write.
//!
//! ```text
//!   listen ──> build the app ──> announce to other commands ──> "listening on ..." ──> serve
//!                                                                                       │ SIGINT, SIGTERM or SIGHUP
//!   exit code 0 <── write what is buffered, at most 10 s <── transfers end, at most 8 s <┘
//! ```
//!
//! It listens before it opens the store, so that a second daemon on the same port fails without touching anything. A
//! second signal ends the process at once. With sockets of a service manager it also ends after `idle-exit`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    CommandError, import, render::print, serve_proxy::DaemonProxy, serve_sockets::ServingSockets,
};
use crate::{
    app::{self, App, AppMode, StoreAccess},
    config::Settings,
    eviction::{EvictionStatus, Evictor, EvictorOptions},
    prefetch::{self, KeepWarmStatus, PinKeeper},
    server::{self, AccessLogFile, Server, Traffic},
    service_manager::{self, PassedSocket},
    signals::StopSignals,
    store::Announcement,
    verify::{Repairer, Scrub, ScrubOptions, ScrubState},
};

/// Time between two looks at the advisory database. Another process may import one.
const ADVISORIES_INTERVAL: Duration = Duration::from_secs(60);

/// Takes the sockets that the service manager has passed. To be called before the process has threads.
///
/// # Errors
/// A socket cannot be used.
pub fn take_sockets(settings: &Settings) -> Result<Vec<PassedSocket>, CommandError> {
    let names = settings.service.socket_names.as_deref();
    service_manager::take_sockets(names).map_err(CommandError::PassedSocket)
}

/// Runs the command, on the sockets that [`take_sockets`] returned or else on its own.
///
/// # Errors
/// An address or the store cannot be used, or a second signal ended the command.
pub async fn run(settings: &Settings, passed: Vec<PassedSocket>) -> Result<ExitCode, CommandError> {
    let mut sockets = ServingSockets::open(settings, passed).await?;
    let passed = std::mem::take(&mut sockets.proxy);
    let proxy = DaemonProxy::listen(settings, passed).await?;
    let access_log = app::open_access_log(settings)?;
    settings.refuse_own_addresses(&sockets.addresses)?;
    let app = App::build(settings, AppMode::Daemon)?;
    let access = app.prepare_to_serve(settings).await?;
    let addresses = sockets.addresses.iter();
    let bases: Vec<_> = addresses.map(|at| format!("http://{at}/")).collect();
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
    announce(&app, access, &bases, settings.max_size).await;
    let may_write = access != StoreAccess::ReadOnly;
    let server = start_server(
        settings,
        &app,
        &sockets,
        proxy.as_ref(),
        access_log,
        may_write,
    );
    let (stop_proxy, proxy_stopping) = watch::channel(false);
    match proxy {
        Some(proxy) => proxy.start(settings, &app, &server, proxy_stopping).await?,
        None => drop(proxy_stopping),
    }
    say_ready(&bases, &server)?;
    propose_import(settings, &app);
    let listeners = std::mem::take(&mut sockets.listeners);
    let (stop, stopping) = oneshot::channel();
    let is_stopping = stop_proxy.subscribe();
    let work = async {
        let serve = server::run(listeners, server.clone(), async { drop(stopping.await) });
        tokio::join!(serve, drain_proxy(&stop_proxy, is_stopping));
        app.finish().await;
    };
    let stop_then_interrupt = async {
        tokio::select! {
            () = signals.next() => {}
            () = sockets.idle_exit(settings, &server) => {}
        }
        service_manager::notify_stopping();
        let _ = stop.send(());
        let _ = stop_proxy.send(true);
        signals.next().await;
    };
    tokio::select! {
        () = work => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = stop_then_interrupt => Err(CommandError::Interrupted(
            "stopped at once; what was not written yet is fetched again when it is needed",
        )),
    }
}

/// Prints the addresses, and tells the service manager.
fn say_ready(bases: &[String], server: &Server) -> Result<(), CommandError> {
    for base in bases {
        print(&format!("listening on {base}\n"))?;
    }
    if let Some(proxy) = &server.tasks.proxy {
        print(&format!("intercepting on {}/\n", proxy.address))?;
    }
    service_manager::notify_ready(&format!("listening on {}", bases.join(", ")));
    Ok(())
}

/// Logs a proposal to import. In the background: a large cargo home takes a second to list.
fn propose_import(settings: &Settings, app: &Arc<App>) {
    let (settings, app) = (settings.clone(), app.clone());
    tokio::task::spawn_blocking(move || {
        if let Some(proposal) = import::proposal(&settings, &app) {
            info!("{proposal}");
        }
    });
}

/// Waits for the order to stop, then for the end of all connections of the proxy, up to the grace of all transfers.
async fn drain_proxy(stop: &watch::Sender<bool>, mut stopping: watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
    drop(stopping);
    drop(timeout(server::SHUTDOWN_GRACE, stop.closed()).await);
}

/// The server, with the tasks that work beside it started.
fn start_server(
    settings: &Settings,
    app: &Arc<App>,
    sockets: &ServingSockets,
    proxy: Option<&DaemonProxy>,
    access_log: Option<AccessLogFile>,
    may_write: bool,
) -> Arc<Server> {
    tokio::spawn(keep_advisories(app.clone()));
    let mut server = app.server(settings, &sockets.addresses);
    server.traffic = Arc::new(Traffic::new(access_log));
    if may_write {
        server.tasks.keep_warm = start_prefetching(app, settings);
    }
    server.tasks.scrub = start_scrub(app, settings);
    server.tasks.eviction = may_write.then(|| start_evictor(app, settings));
    server.tasks.proxy = proxy.map(DaemonProxy::status);
    let server = Arc::new(server);
    let page = server.clone();
    tokio::spawn(async move {
        if let Some(home) = &page.home {
            home.record_minutes(&page.cache).await;
        }
    });
    server
}

/// Writes the addresses into the store, where `status` and `client print` look for a daemon; on a full disk as soon as
/// there is space.
async fn announce(app: &Arc<App>, access: StoreAccess, bases: &[String], max_bytes: Option<u64>) {
    match access {
        StoreAccess::ReadOnly => {}
        StoreAccess::Writable => announce_now(app, bases, max_bytes).await,
        StoreAccess::Full => {
            let (app, bases) = (app.clone(), bases.to_owned());
            tokio::spawn(async move {
                app.prepare_once_there_is_space().await;
                announce_now(&app, &bases, max_bytes).await;
            });
        }
    }
}

async fn announce_now(app: &App, bases: &[String], max_bytes: Option<u64>) {
    let announcement = Announcement {
        pid: std::process::id(),
        addresses: bases.to_vec(),
        max_bytes,
    };
    if let Err(error) = app.store.announce(&announcement).await {
        warn!(%error, "cannot write the address for other commands");
    }
}

/// Starts the prefetcher and, unless they are switched off, the requests that no client causes: for `config.json`, and
/// keep-warm. Returns the status of keep-warm.
fn start_prefetching(app: &App, settings: &Settings) -> Option<watch::Receiver<KeepWarmStatus>> {
    let clients_resumed = Arc::<Notify>::default();
    if let Some(events) = app.cache.events() {
        prefetch::spawn(app.cache.clone(), events, clients_resumed.clone());
    }
    if !settings.keep_warm || settings.is_offline {
        return None;
    }
    let registries = app.upstreams.registries.clone();
    tokio::spawn(prefetch::prefetch_configs(app.cache.clone(), registries));
    let keeper = PinKeeper::new(
        app.cache.clone(),
        app.store.clone(),
        app.upstreams.clone(),
        settings.rustup_settings.clone(),
        settings.cargo_home.clone(),
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
pub(super) fn start_evictor(app: &App, settings: &Settings) -> watch::Receiver<EvictionStatus> {
    let options = EvictorOptions {
        max_bytes: settings.max_size,
        forget_after: settings.forget_after,
        is_command: false,
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
