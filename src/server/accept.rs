//! Accepts connections, limits their number, and drains them on shutdown.
//!
//! Each listener has an accept loop. All loops share one set of permits, one per connection. A loop takes its permit
//! before it accepts, so further clients wait in the system's listen queue.

use std::{io, sync::Arc, time::Duration};

use http::Request;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use super::{
    connection::{self, Limits, Protocol},
    handlers::Server,
    request::RequestHead,
};

/// Concurrent connections. Further clients wait in the listen queue.
const MAX_CONNECTIONS: usize = 4096;
/// Time for requests in flight after shutdown began. Container engines kill after ten seconds, and pending writes must
/// reach the disk before that. Cargo repeats a transfer that was cut.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);
/// Delay after a failed accept, mostly for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Opens a listener.
///
/// # Errors
/// The system's error.
pub async fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `shutdown` resolves, then waits up to eight seconds for requests in flight.
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
    // Each accept loop has a permit for its next connection.
    let connections = (MAX_CONNECTIONS - permits.available_permits()).saturating_sub(listening);
    info!(
        connections,
        "stopping: requests in flight have {} to finish; a second signal ends them at once",
        humantime::format_duration(SHUTDOWN_GRACE)
    );
    let _ = stop.send(true);
    // An accept loop ends when its connections have ended.
    let drain = async { while acceptors.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, drain).await.is_err() {
        warn!(grace = %humantime::format_duration(SHUTDOWN_GRACE), "aborting requests that did not finish in time");
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
        debug!(%error, "connection ended early");
    }
}
