//! Accepts connections, within the limits of [`Connections`], and drains them on shutdown.
//!
//! Each listener has an accept loop. While all connections are in use, new ones wait in the system's listen queue for
//! [`WAIT_FOR_PLACE`]. If none closes by then, new ones are refused until one does. If the system has no descriptor for
//! a new connection, an idle connection is closed.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use http::Request;
use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use super::{
    client_limits::ClientLimit,
    connection::{self, ConnectionError, Limits, Protocol},
    connections::{AllInUse, ConnectionPlace, Connections},
    handlers::Server,
    refusal::refuse,
    request::{RequestHead, RequestOrigin},
    traffic::ClientTraffic,
};

/// Time for requests in flight after shutdown began. Container engines kill after ten seconds, and pending writes must
/// reach the disk before that. Cargo repeats a transfer that was cut.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);
/// Connections that may wait to be accepted; the system has a limit of its own (`net.core.somaxconn`). The usual 128
/// are too few for a burst: the system drops further connections, and their clients try again after 1, 3, 7 s and so
/// on. The first bytes of a dropped connection may then arrive after their time limit.
const LISTEN_QUEUE: u32 = 4096;
/// Delay after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The same where only another connection must close first.
const DESCRIPTOR_RETRY_DELAY: Duration = Duration::from_millis(2);
/// Time that a new connection waits while all others are in use. Most requests end within milliseconds.
const WAIT_FOR_PLACE: Duration = Duration::from_secs(1);
/// Interval at which it looks for a place.
const PLACE_INTERVAL: Duration = Duration::from_millis(5);
/// Refusals that are being sent. Further connections are closed without an answer.
const MAX_REFUSALS: usize = 16;

/// Opens a listener.
///
/// # Errors
/// The system's error.
pub fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        std::net::SocketAddr::V4(_) => TcpSocket::new_v4()?,
        std::net::SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A daemon that restarts finds connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_QUEUE)
}

/// Serves until `shutdown` resolves, then waits up to eight seconds for requests in flight.
pub async fn run(
    listeners: Vec<TcpListener>,
    server: Arc<Server>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let connections = server.connections.clone();
    let traffic = server.traffic.clone();
    let mut acceptors = JoinSet::new();
    for listener in listeners {
        let acceptor = Acceptor {
            upgrade: server.h2c.is_on(&listener),
            server: server.clone(),
            connections: connections.clone(),
            tasks: JoinSet::new(),
            refusals: JoinSet::new(),
            is_full: false,
        };
        acceptors.spawn(acceptor.run(listener, stopping.clone()));
    }
    drop(stopping);
    tokio::select! {
        () = shutdown => {}
        () = traffic.report_bursts() => {}
    }
    info!(
        connections = connections.open(),
        "stopping: requests in flight have {} to finish; a second signal ends them at once",
        humantime::format_duration(SHUTDOWN_GRACE)
    );
    let _ = stop.send(true);
    connections.stop();
    // An accept loop ends when its connections have ended.
    let drain = async { while acceptors.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, drain).await.is_err() {
        warn!(grace = %humantime::format_duration(SHUTDOWN_GRACE), "aborting requests that did not finish in time");
    }
    traffic.finish();
}

/// The accept loop of one listener.
struct Acceptor {
    server: Arc<Server>,
    connections: Arc<Connections>,
    upgrade: bool,
    tasks: JoinSet<()>,
    refusals: JoinSet<()>,
    /// The last connection waited in vain for a place.
    is_full: bool,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
                Some(_) = self.tasks.join_next() => continue,
                Some(_) = self.refusals.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => match self.admit(peer.ip()).await {
                    Ok(place) => self.serve(stream, peer.ip(), place),
                    Err(refused) => self.refuse(stream, refused),
                },
                Err(error) => self.recover(&error).await,
            }
        }
        drop(listener);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Takes a place, and waits for one if all are in use. Only the first of several waits: while no place becomes
    /// free, the others would wait for nothing.
    async fn admit(&mut self, peer: IpAddr) -> Result<ConnectionPlace, AllInUse> {
        let deadline = Instant::now() + WAIT_FOR_PLACE;
        loop {
            match self.connections.admit(peer) {
                Ok(place) => {
                    self.is_full = false;
                    return Ok(place);
                }
                // Clients of other addresses do not wait for this one's.
                Err(refused) if refused.limit != ClientLimit::MaxConnections => {
                    return Err(refused);
                }
                Err(refused) if self.is_full || Instant::now() >= deadline => {
                    self.is_full = true;
                    return Err(refused);
                }
                Err(_) => sleep(PLACE_INTERVAL).await,
            }
        }
    }

    fn serve(&mut self, stream: TcpStream, peer: IpAddr, place: ConnectionPlace) {
        let (id, server, upgrade) = (place.id, self.server.clone(), self.upgrade);
        let client = self.server.traffic.client(peer.to_canonical());
        let task = self.tasks.spawn(serve_connection(
            stream, peer, server, client, upgrade, place,
        ));
        self.connections.started(id, task);
    }

    fn refuse(&mut self, stream: TcpStream, refused: AllInUse) {
        self.connections.refuse(&refused);
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals
                .spawn(async move { refuse(stream, &refused.reason).await });
        }
    }

    /// Makes the next accept possible after a failed one.
    async fn recover(&self, error: &io::Error) {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                let now = std::time::Instant::now();
                let counters = &self.connections.counters;
                if let Some(count) = counters.count_and_log(ClientLimit::OpenFiles, now) {
                    warn!(count, %error, "cannot accept connections (see `ulimit -n`); closing idle ones");
                }
                self.connections.abort_longest_quiet();
                sleep(DESCRIPTOR_RETRY_DELAY).await;
            }
            // The client has given up.
            Some(Errno::CONNABORTED | Errno::CONNRESET) => debug!(%error, "a client left at once"),
            Some(_) | None => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: IpAddr,
    server: Arc<Server>,
    client: Arc<ClientTraffic>,
    upgrade: bool,
    place: ConnectionPlace,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let connections = server.connections.clone();
    let service = move |request: Request<hyper::body::Incoming>, _: Protocol| {
        let client = match server.public.client(peer, request.headers()) {
            Some(behind_proxy) => server.traffic.client(behind_proxy),
            None => client.clone(),
        };
        let server = server.clone();
        let head = RequestHead {
            request: request.map(drop),
            origin: RequestOrigin::now(client),
        };
        async move { server.respond(head, peer).await }
    };
    let (activity, stopping) = (place.activity.clone(), place.stopping.clone());
    let limits = Limits::default();
    let served = connection::serve(stream, service, &limits, upgrade, activity, stopping).await;
    if let Err(error) = served {
        let limit = match error {
            ConnectionError::RequestTimeout => Some(ClientLimit::RequestTimeout),
            ConnectionError::WriteTimeout => Some(ClientLimit::WriteTimeout),
            ConnectionError::Abuse(abuse) => {
                connections.report_abuse(abuse);
                None
            }
            ConnectionError::Http(ref cause) if cause.is_parse_too_large() => {
                Some(ClientLimit::RequestHead)
            }
            ConnectionError::Socket(_) | ConnectionError::Http(_) => None,
        };
        limit.inspect(|limit| connections.counters.count(*limit));
        debug!(%error, "connection ended early");
    }
}
