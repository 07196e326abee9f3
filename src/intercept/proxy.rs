//! The proxy itself: accepts connections, and decides for each request who answers.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use url::Url;

use super::{Answers, Certificates, InterceptedOrigin, ProxyBody, ProxyPassword, Tally};
use crate::{
    server::{
        ClientAddress,
        connection::{self, Limits, h2c::announces_body},
    },
    upstream::Relay,
};

/// Concurrent connections, tunnels included. Further clients wait in the listen queue.
const MAX_PROXY_CONNECTIONS: usize = 1024;
/// Time without data from a client after which the system probes if the client is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between two such probes. After nine without an answer, the connection fails.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Time for the client's part of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay after a failed accept, mostly for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest time in which a client reads nothing of a tunnel. Long: a tunnel should not be noticed.
const TUNNEL_STALL: Duration = Duration::from_secs(86_400);

/// The hosts that clients may reach through the proxy besides the intercepted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelPolicy {
    /// Every host: the proxy belongs to one command.
    All,
    /// These hosts, each with a port or for port 443.
    Only(Vec<String>),
}

impl TunnelPolicy {
    /// True if clients may reach `host` at `port`.
    fn permits(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(hosts) => hosts.iter().any(|allowed| {
                let with_port = format!("{host}:{port}");
                allowed.eq_ignore_ascii_case(&with_port)
                    || port == 443 && (allowed == "*" || allowed.eq_ignore_ascii_case(host))
            }),
        }
    }
}

/// The hosts that a proxy answers for.
#[derive(Clone, Debug)]
pub struct InterceptedHosts {
    /// Scheme, host and port.
    pub origins: BTreeSet<InterceptedOrigin>,
    /// Certificates of the hosts.
    pub certificates: Certificates,
}

/// A proxy that answers for upstream.
#[derive(Debug)]
pub struct Interceptor {
    /// The hosts that it answers for.
    pub hosts: RwLock<InterceptedHosts>,
    /// The server that has the resources.
    pub answers: Answers,
    /// Connections to all other hosts.
    pub relay: Relay,
    /// The other hosts.
    pub tunnels: TunnelPolicy,
    /// True if no request may reach the intercepted hosts.
    pub is_offline: bool,
    /// The password that clients need; `None` if the proxy is for all who reach it.
    pub password: Option<ProxyPassword>,
    /// Counts of the answers.
    pub tally: Tally,
}

/// The permit of one connection. After `CONNECT`, the task that reads the tunnel holds it.
type ConnectionPermit = Arc<OwnedSemaphorePermit>;

/// Serves clients of the proxy until `stopping` becomes true or its sender is dropped.
pub async fn serve(
    interceptor: Arc<Interceptor>,
    listener: TcpListener,
    stopping: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(MAX_PROXY_CONNECTIONS));
    serve_limited(interceptor, listener, stopping, permits).await;
}

/// Serves as many connections at a time as there are permits.
async fn serve_limited(
    interceptor: Arc<Interceptor>,
    listener: TcpListener,
    mut stopping: watch::Receiver<bool>,
    permits: Arc<Semaphore>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = async {
                let permit = permits.clone().acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, peer)), Ok(permit)) => {
                let client = ClientAddress(peer.ip().to_canonical());
                let interceptor = interceptor.clone();
                let connection = interceptor.serve_connection(
                    stream,
                    client,
                    Arc::new(permit),
                    stopping.clone(),
                );
                tokio::spawn(connection);
            }
            // Never: the semaphore stays open.
            (Ok(_), Err(_)) => return,
            (Err(error), _) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Interceptor {
    async fn serve_connection(
        self: Arc<Self>,
        stream: TcpStream,
        client: ClientAddress,
        permit: ConnectionPermit,
        stopping: watch::Receiver<bool>,
    ) {
        // A failure only costs latency.
        let _ = stream.set_nodelay(true);
        if let Err(error) = keep_alive(&stream) {
            debug!(%error, "cannot probe if a proxy client is still there");
        }
        let service = {
            let stopping = stopping.clone();
            move |mut request: Request<Incoming>, _| {
                request.extensions_mut().insert(client);
                let interceptor = self.clone();
                let (permit, stopping) = (permit.clone(), stopping.clone());
                async move { interceptor.respond(request, permit, stopping).await }
            }
        };
        let limits = Limits {
            write_stall: TUNNEL_STALL,
            ..Limits::default()
        };
        if let Err(error) =
            connection::serve(stream, service, &limits, false, Arc::default(), stopping).await
        {
            debug!(%error, "connection of a proxy client ended early");
        }
    }

    /// Answers a request to the proxy itself.
    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        permit: ConnectionPermit,
        stopping: watch::Receiver<bool>,
    ) -> Response<ProxyBody> {
        let has_password = |password: &ProxyPassword| password.is_in(request.headers());
        if !self.password.as_ref().is_none_or(has_password) {
            return unauthenticated();
        }
        if request.method() == Method::CONNECT {
            return self.connect(request, permit, stopping).await;
        }
        match Url::parse(&request.uri().to_string()) {
            // Clients send requests for http addresses to a proxy as they are.
            Ok(url) if url.scheme() == "http" && request.version() < http::Version::HTTP_2 => {
                self.exchange(url, request).await
            }
            Ok(_) | Err(_) => text(
                StatusCode::BAD_REQUEST,
                "this is larder's proxy: it answers CONNECT, and requests for absolute addresses",
            ),
        }
    }

    /// Opens a connection through the proxy: one whose TLS ends here, or a tunnel.
    async fn connect(
        self: Arc<Self>,
        request: Request<Incoming>,
        permit: ConnectionPermit,
        stopping: watch::Receiver<bool>,
    ) -> Response<ProxyBody> {
        let authority = request.uri().authority().cloned();
        let Some((host, port)) = authority.as_ref().and_then(|authority| {
            let host = authority.host().to_ascii_lowercase();
            Some((host, authority.port_u16()?))
        }) else {
            return text(StatusCode::BAD_REQUEST, "CONNECT needs a host with a port");
        };
        let origin = InterceptedOrigin {
            is_https: true,
            host,
            port,
        };
        if let Some(acceptor) = self.acceptor(&origin) {
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = self.intercept(request, origin, acceptor, stopping).await {
                    debug!(%error, "an intercepted connection ended early");
                }
            });
            return established();
        }
        if !self.tunnels.permits(&origin.host, port) {
            return refused(&origin.host, port);
        }
        match self.relay.tunnel(&format!("{}:{port}", origin.host)).await {
            Ok(mut server) => {
                tokio::spawn(async move {
                    let _permit = permit;
                    let client = hyper::upgrade::on(request)
                        .await
                        .map_err(io::Error::other)?;
                    let mut client = TokioIo::new(client);
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
                established()
            }
            Err(error) => text(StatusCode::BAD_GATEWAY, &error.to_string()),
        }
    }

    /// Ends TLS for one connection and answers its requests.
    async fn intercept(
        self: Arc<Self>,
        request: Request<Incoming>,
        origin: InterceptedOrigin,
        acceptor: TlsAcceptor,
        stopping: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let client = request.extensions().get::<ClientAddress>().copied();
        let upgraded = hyper::upgrade::on(request)
            .await
            .map_err(io::Error::other)?;
        let handshake = acceptor.accept(TokioIo::new(upgraded));
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        let service = move |mut request: Request<Incoming>, _| {
            client.map(|client| request.extensions_mut().insert(client));
            let (interceptor, origin) = (self.clone(), origin.clone());
            async move {
                match address(&request, &origin) {
                    Some(url) => interceptor.exchange(url, request).await,
                    None => text(
                        StatusCode::MISDIRECTED_REQUEST,
                        "this connection was made for another host",
                    ),
                }
            }
        };
        // `cargo publish` sends crates.
        let limits = Limits {
            http2_free_bytes: u64::MAX,
            ..Limits::default()
        };
        let served =
            connection::serve(stream, service, &limits, false, Arc::default(), stopping).await;
        served.map_err(io::Error::other)
    }

    /// Answers a request for `url`.
    async fn exchange(&self, url: Url, request: Request<Incoming>) -> Response<ProxyBody> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD)
            && !announces_body(request.headers());
        if is_read && self.is_intercepted(&url) {
            let (parts, _) = request.into_parts();
            let mut head = Request::new(());
            *head.method_mut() = parts.method.clone();
            *head.headers_mut() = parts.headers.clone();
            let client = parts.extensions.get::<ClientAddress>().copied();
            client.map(|client| head.extensions_mut().insert(client));
            match self.answers.get(&url, head).await {
                Ok(Some(response)) => {
                    let bytes = response.body().size_hint().exact();
                    let (status, headers) = (response.status(), response.headers());
                    self.tally.count(url.as_str(), status, headers, bytes);
                    return response;
                }
                Ok(None) => {}
                // A command outlives the daemon that answered it.
                Err(error) if !self.is_offline => debug!(%error, "upstream is asked instead"),
                Err(error) => return text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
            }
            let request = Request::from_parts(parts, Empty::<Bytes>::new());
            return self.forward(&url, request).await;
        }
        self.forward(&url, request).await
    }

    fn is_intercepted(&self, url: &Url) -> bool {
        let origin = InterceptedOrigin::of(url);
        origin.is_some_and(|origin| self.hosts.read().origins.contains(&origin))
    }

    /// Ends TLS for this origin, if the proxy answers for it.
    fn acceptor(&self, origin: &InterceptedOrigin) -> Option<TlsAcceptor> {
        let hosts = self.hosts.read();
        let is_intercepted = hosts.origins.contains(origin);
        is_intercepted.then(|| hosts.certificates.acceptor(&origin.host).cloned())?
    }

    /// Passes a request on to the server that it is for.
    async fn forward<B>(&self, url: &Url, request: Request<B>) -> Response<ProxyBody>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.is_offline && self.is_intercepted(url) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "larder runs offline");
        }
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.tunnels.permits(host, port) {
            return refused(host, port);
        }
        match self.relay.forward(url, request).await {
            Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
            Err(failure) => text(StatusCode::BAD_GATEWAY, &failure.to_string()),
        }
    }
}

/// Lets the system close the connection of a client that has vanished.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    Ok(sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?)
}

/// The address that a request on a connection to `origin` is for; `None` if it is for another host.
fn address(request: &Request<Incoming>, origin: &InterceptedOrigin) -> Option<Url> {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let path = request.uri().path_and_query()?.as_str();
    let url = Url::parse(&format!("https://{}{path}", authority.or(host)?)).ok()?;
    (InterceptedOrigin::of(&url).as_ref() == Some(origin)).then_some(url)
}

fn established() -> Response<ProxyBody> {
    Response::new(Empty::new().map_err(Into::into).boxed_unsync())
}

fn refused(host: &str, port: u16) -> Response<ProxyBody> {
    let reason = format!(
        "larder's proxy does not connect to {host}:{port}; to allow it, add `--tunnel {host}:{port}` to `larder serve`"
    );
    text(StatusCode::FORBIDDEN, &reason)
}

fn unauthenticated() -> Response<ProxyBody> {
    let reason = "this proxy belongs to one command, which has its password";
    let mut response = text(StatusCode::PROXY_AUTHENTICATION_REQUIRED, reason);
    let challenge = HeaderValue::from_static("Basic realm=\"larder\"");
    response
        .headers_mut()
        .insert(header::PROXY_AUTHENTICATE, challenge);
    response
}

fn text(status: StatusCode, text: &str) -> Response<ProxyBody> {
    let body = Full::new(Bytes::from(format!("larder: {text}\n")));
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
        time::sleep,
    };

    use super::*;
    use crate::{intercept::DaemonClient, upstream::UpstreamOptions};

    /// A proxy that intercepts `host:443` for a daemon that does not run, with tunnels to all other hosts.
    fn interceptor(host: &str) -> Interceptor {
        let options = UpstreamOptions::for_test(Duration::from_secs(5));
        let origin = InterceptedOrigin {
            is_https: true,
            host: host.to_owned(),
            port: 443,
        };
        Interceptor {
            hosts: InterceptedHosts {
                origins: [origin].into(),
                certificates: Certificates::issue(&[host.to_owned()].into()).unwrap(),
            }
            .into(),
            answers: Answers::Daemon(DaemonClient::unconnected()),
            relay: Relay::new(&options).unwrap(),
            tunnels: TunnelPolicy::All,
            is_offline: false,
            password: None,
            tally: Tally::default(),
        }
    }

    /// Opens a connection to `authority` through the proxy.
    fn connected(proxy: std::net::SocketAddr, authority: &str) -> JoinHandle<TcpStream> {
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        tokio::spawn(async move {
            let mut client = TcpStream::connect(proxy).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"HTTP/1.1 200");
            client
        })
    }

    #[tokio::test]
    async fn tunnels_and_intercepted_connections_count_until_they_end() {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (server, listener) = (listen().await, listen().await);
        let [tunnelled, proxy] =
            [&server, &listener].map(|listener| listener.local_addr().unwrap());
        let interceptor = Arc::new(interceptor("index.example"));
        let (_stop, stopping) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(1));
        tokio::spawn(serve_limited(interceptor, listener, stopping, permits));
        let tunnelled = tunnelled.to_string();
        for authority in ["index.example:443", &tunnelled] {
            let first = connected(proxy, authority).await.unwrap();
            let second = connected(proxy, authority);
            sleep(Duration::from_millis(200)).await;
            assert!(!second.is_finished(), "two connections to {authority}");
            drop(first);
            drop(second.await.unwrap());
        }
    }

    #[tokio::test]
    async fn clients_that_vanish_are_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        keep_alive(&accepted).unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEPALIVE_IDLE);
    }

    #[test]
    fn tunnels_lead_to_permitted_hosts_alone() {
        let only = |hosts: &[&str]| {
            TunnelPolicy::Only(hosts.iter().map(|host| (*host).to_owned()).collect())
        };
        for (policy, host, port, expected) in [
            (TunnelPolicy::All, "a.example", 22, true),
            (only(&[]), "a.example", 443, false),
            (only(&["a.example"]), "a.example", 443, true),
            (only(&["A.example"]), "a.example", 443, true),
            (only(&["a.example"]), "a.example", 22, false),
            (only(&["a.example"]), "b.a.example", 443, false),
            (only(&["a.example:22"]), "a.example", 22, true),
            (only(&["a.example:22"]), "a.example", 443, false),
            (only(&["*"]), "b.example", 443, true),
            (only(&["*"]), "b.example", 25, false),
            (only(&["[::1]:8443"]), "[::1]", 8443, true),
        ] {
            assert_eq!(
                policy.permits(host, port),
                expected,
                "{policy:?} {host}:{port}"
            );
        }
    }
}
