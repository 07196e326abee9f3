//! The daemon's face: accepts connections, asks the cache, drains on shutdown. Kinds and policies are the resources'
//! business, statuses are `respond`'s, the connection's protocols `connection`'s.

pub mod connection;
pub mod guard;
pub mod h2c;
mod metrics;
mod respond;
pub mod route;

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use crate::{
    cache::{Cache, Demand},
    resource::{
        Registry, RegistryConfig, Upstreams, dist,
        registry::{CRATES_IO, config_for_client},
    },
};
use connection::{Limits, Protocol};
use guard::Hosts;
use respond::{AccessLog, ClientBody, RequestHead};
use route::{NoRoute, Route, route};

/// Connections at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
/// How long transfers may go on after the order to stop. Container engines kill after ten seconds, and what waits must be stored
/// before that; cargo fetches anew what was cut.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);
/// The pause after the system refused a connection, for want of descriptors mostly.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// What the daemon serves.
#[derive(Debug)]
pub struct Server {
    /// Where everything comes from.
    pub cache: Cache,
    /// What is served.
    pub upstreams: Upstreams,
    /// The names clients may know it by.
    pub hosts: Hosts,
    /// Whether `Upgrade: h2c` is accepted.
    pub h2c: H2c,
}

/// Where `Upgrade: h2c` is accepted. A reverse proxy that forwards it would let clients tunnel past its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum H2c {
    /// On loopback addresses only.
    #[default]
    Loopback,
    /// Everywhere.
    On,
    /// Nowhere.
    Off,
}

impl H2c {
    fn is_on(self, listener: &TcpListener) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Loopback => listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback()),
        }
    }
}

/// Serves until `shutdown` ends, then lets requests under way finish for a while.
pub async fn run(
    listeners: Vec<TcpListener>,
    server: Arc<Server>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut acceptors = JoinSet::new();
    let listening = listeners.len();
    for listener in listeners {
        acceptors.spawn(accept(
            listener,
            server.clone(),
            permits.clone(),
            stopping.clone(),
        ));
    }
    drop(stopping);
    shutdown.await;
    // Each acceptor keeps room for the next connection.
    let connections = (MAX_CONNECTIONS - permits.available_permits()).saturating_sub(listening);
    info!(
        connections,
        "stopping; what is under way may go on for {}, if it's not ordered again",
        humantime::format_duration(SHUTDOWN_GRACE)
    );
    let _ = stop.send(true);
    // Each acceptor gives its connections' tasks back when it ends.
    let drain = async { while acceptors.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, drain).await.is_err() {
        warn!(grace = %humantime::format_duration(SHUTDOWN_GRACE), "some transfers did not end in time; cutting them");
    }
}

async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    permits: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) {
    let upgrade = server.h2c.is_on(&listener);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => break,
            accepted = async {
                let permit = permits.clone().acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                let (server, stopping) = (server.clone(), stopping.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, server, upgrade, stopping).await;
                });
            }
            (Err(error), _) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    server: Arc<Server>,
    upgrade: bool,
    stopping: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = move |request: Request<hyper::body::Incoming>, _: Protocol| {
        let server = server.clone();
        async move { server.respond(RequestHead(request.map(drop))).await }
    };
    if let Err(error) =
        connection::serve(stream, service, &Limits::default(), upgrade, stopping).await
    {
        debug!(%error, "a connection ended");
    }
}

impl Server {
    /// The answer to a request.
    async fn respond(&self, head: RequestHead) -> Response<ClientBody> {
        let request = &head.0;
        let path = request.uri().path();
        let plain_text = |status, body: String, log| {
            respond::text(
                status,
                "text/plain; charset=utf-8",
                Bytes::from(body + "\n"),
                &head,
                log,
            )
        };
        let authority = match guard::check(request, &self.hosts) {
            Ok(authority) => authority,
            Err(refused) => {
                let log =
                    AccessLog::new(path.escape_debug().to_string()).error(refused.reason.clone());
                return plain_text(refused.status, refused.reason, log);
            }
        };
        let route = match route(path, request.uri().query(), &self.upstreams) {
            Ok(route) => route,
            Err(none) => {
                let status = match none {
                    NoRoute::Malformed(_) | NoRoute::GitProtocol => StatusCode::BAD_REQUEST,
                    NoRoute::UnknownRegistry(_) | NoRoute::Unknown => StatusCode::NOT_FOUND,
                };
                let log = AccessLog::new(path.escape_debug().to_string()).error(none.to_string());
                return plain_text(status, none.to_string(), log);
            }
        };
        let json = |body: Bytes| {
            respond::text(
                StatusCode::OK,
                "application/json",
                body,
                &head,
                AccessLog::new(path.to_owned()),
            )
        };
        match route {
            Route::Resource(resource) => {
                let log = AccessLog::new(&resource);
                match self.cache.get(&resource).await {
                    Ok(answer) => respond::answer(answer, &resource.policy(), head, log),
                    Err(error) => respond::error(&error, resource.policy().audience, &head, log),
                }
            }
            // Always 200: cargo sends no validator for it and takes 304 for an error (cargo, `HttpRegistry::config`).
            Route::Config(registry) => json(Box::pin(self.config(&registry, authority)).await),
            Route::Script => {
                let log = AccessLog::new(path.to_owned());
                Box::pin(self.script(authority, &head, log)).await
            }
            Route::Home => plain_text(
                StatusCode::OK,
                home_page(authority),
                AccessLog::new(path.to_owned()),
            ),
            Route::Health | Route::Ready => plain_text(
                StatusCode::OK,
                "ok".to_owned(),
                AccessLog::new(path.to_owned()),
            ),
            Route::Status => json(self.status()),
            Route::Metrics => respond::text(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                self.metrics(),
                &head,
                AccessLog::new(path.to_owned()),
            ),
        }
    }

    /// The generated `config.json`. Upstream's own is needed soon, for the download address: fetching it now also
    /// warms up the connection while cargo reads this one.
    async fn config(&self, registry: &Arc<Registry>, authority: &str) -> Bytes {
        let upstream = RegistryConfig::of(registry);
        let stored = self.cache.peek(&upstream).await;
        if !self.cache.is_offline() {
            self.cache.fetch_in_background(upstream);
        }
        let base = match registry.name() {
            CRATES_IO => format!("http://{authority}/"),
            name => format!("http://{authority}/registry/{name}/"),
        };
        config_for_client(&base, stored.as_deref())
    }

    /// rustup's script, made to work over http against this address.
    async fn script(
        &self,
        authority: &str,
        head: &RequestHead,
        log: AccessLog,
    ) -> Response<ClientBody> {
        let script = dist::script(&self.upstreams.dist);
        let served = match self.cache.ensure(&script, Demand::Fresh).await {
            Ok(ensured) => dist::script_for_client(
                &ensured.entry.unwrap_or_default(),
                &format!("http://{authority}/"),
            )
            .map_err(|cause| {
                format!("cannot make upstream's rustup-init.sh work over http: {cause}")
            }),
            Err(error) => Err(error.with_hint()),
        };
        match served {
            Ok(body) => respond::text(StatusCode::OK, "text/x-shellscript", body, head, log),
            Err(error) => respond::script_error(&error, head, log),
        }
    }

    fn status(&self) -> Bytes {
        let outages: Vec<_> = self
            .cache
            .outages()
            .into_iter()
            .map(|(origin, outage)| {
                let since = humantime::format_rfc3339_seconds(outage.since).to_string();
                json!({
                    "upstream": origin.to_string(),
                    "state": if outage.is_certain { "down" } else { "slow" },
                    "since": since,
                    "cause": outage.cause,
                })
            })
            .collect();
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "offline": self.cache.is_offline(),
            "outages": outages,
            "requests": self.cache.counters(),
            "fetching": self.cache.in_flight(),
            "storing": self.cache.pending_writes(),
        });
        Bytes::from(format!("{status}\n"))
    }

    fn metrics(&self) -> Bytes {
        let outages = self.cache.outages();
        // As text, http and https of one host are one label.
        let down: BTreeSet<_> = outages
            .into_iter()
            .filter_map(|(origin, outage)| outage.is_certain.then(|| origin.to_string()))
            .collect();
        let down = Vec::from_iter(down);
        let snapshot = metrics::Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            is_offline: self.cache.is_offline(),
            counters: &self.cache.counters(),
            in_flight: self.cache.in_flight(),
            pending_writes: self.cache.pending_writes(),
            unreachable: &down,
        };
        Bytes::from(snapshot.to_string())
    }
}

/// What a person is told who opens the address in a browser.
fn home_page(authority: &str) -> String {
    let settings = crate::client_config::cargo_settings(&format!("http://{authority}/"));
    format!(
        "larder {} is running here.\n\nTo use it, put this into cargo's config.toml:\n\n{settings}\nNumbers: /-/status.json, for Prometheus: /-/metrics",
        env!("CARGO_PKG_VERSION")
    )
}

/// Opens a listener.
///
/// # Errors
/// What the system said.
pub async fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
