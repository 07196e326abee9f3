//! The connection pool: reqwest clients, one for each kind of connection that larder opens.
//!
//! | client | protocol | used for |
//! |---|---|---|
//! | [`ClientProtocol::Http2`], one for each of the [`slots`](super::slots) | HTTP/2 only | https upstreams, except those known not to speak it |
//! | [`ClientProtocol::Negotiated`] | whatever TLS negotiates | http upstreams, and https upstreams without HTTP/2 |
//! | [`ClientProtocol::Http1Only`] | HTTP/1.1 | ranges of a large body |
//!
//! A client that may speak either protocol learns only from the first response that requests can share a connection,
//! and opens one connection per request until then. The HTTP/2 clients know before: a burst waits for one dial and
//! opens one connection. Ranges exist because many servers limit each connection, so they must not share one.

#![expect(
    clippy::disallowed_types,
    reason = "the one place that makes clients for upstream"
)]

use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Certificate, Client, NoProxy, Proxy, Response};
use url::Url;

use super::{
    failure::{Failure, FailureKind, classify},
    proxy::ProxyVariables,
    request::Get,
    slots::{IDLE_CONNECTION_TIMEOUT, MAX_HTTP2_CONNECTIONS},
};

/// Flow-control window of one HTTP/2 stream in bytes: what upstream may send within one round trip. With 2 MB a body
/// came with 34 MB/s at 40 ms and 11 MB/s at 150 ms, with 8 MB with 81 and 28.
const STREAM_WINDOW: u32 = 8 << 20;
/// Flow-control window of one HTTP/2 connection in bytes.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The clients.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    dial_timeout: Duration,
    roots: Vec<Certificate>,
    proxies: ProxyVariables,
    clients: Mutex<Clients>,
}

/// Each client is built on its first use.
#[derive(Debug, Default)]
struct Clients {
    http2: [Option<Client>; MAX_HTTP2_CONNECTIONS],
    negotiated: Option<Client>,
    http1: Option<Client>,
}

/// A client of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    /// HTTP/2 only, by slot.
    Http2(usize),
    /// HTTP/1.1 or HTTP/2.
    Negotiated,
    /// HTTP/1.1 only.
    Http1Only,
}

impl ConnectionPool {
    /// Builds one client, which checks the root certificates. Opens no connection.
    pub(super) fn new(
        dial_timeout: Duration,
        roots: Vec<Certificate>,
        proxies: ProxyVariables,
    ) -> reqwest::Result<Self> {
        let negotiated = build(dial_timeout, &roots, &proxies, ClientProtocol::Negotiated)?;
        Ok(Self {
            dial_timeout,
            roots,
            proxies,
            clients: Mutex::new(Clients {
                negotiated: Some(negotiated),
                ..Clients::default()
            }),
        })
    }

    /// Drops all clients and with them the idle connections. Requests in flight go on.
    pub(super) fn reset(&self) {
        *self.clients.lock() = Clients::default();
    }

    /// Sends `get` to `url` and waits for the response head, without following redirects.
    pub(super) async fn send(
        &self,
        protocol: ClientProtocol,
        get: &Get,
        url: &Url,
    ) -> Result<Response, Failure> {
        let failed = |error| {
            let mut kind = classify(&error);
            if let FailureKind::Unreachable { cause } = &mut kind {
                *cause = self.proxies.explain(url, std::mem::take(cause));
            }
            kind.at(url)
        };
        let client = self.client(protocol).map_err(failed)?;
        let request = client.get(url.clone()).headers(get.headers()).send();
        match tokio::time::timeout(get.read_timeout, request).await {
            Ok(response) => response.map_err(failed),
            Err(_) => Err(FailureKind::Silent {
                after: get.read_timeout,
            }
            .at(url)),
        }
    }

    /// Sends a client's own request to `url` and waits for the response head, as long as it takes: the client has a
    /// time limit of its own.
    pub(super) async fn pass_on(
        &self,
        url: &Url,
        method: reqwest::Method,
        headers: reqwest::header::HeaderMap,
        body: Option<reqwest::Body>,
    ) -> Result<Response, Failure> {
        let failed = |error| classify(&error).at(url);
        let client = self.client(ClientProtocol::Negotiated).map_err(failed)?;
        let mut request = reqwest::Request::new(method, url.clone());
        *request.headers_mut() = headers;
        *request.body_mut() = body;
        client.execute(request).await.map_err(failed)
    }

    fn client(&self, protocol: ClientProtocol) -> reqwest::Result<Client> {
        let mut clients = self.clients.lock();
        let place = match protocol {
            ClientProtocol::Http2(slot) => &mut clients.http2[slot],
            ClientProtocol::Negotiated => &mut clients.negotiated,
            ClientProtocol::Http1Only => &mut clients.http1,
        };
        if let Some(client) = place {
            return Ok(client.clone());
        }
        let client = build(self.dial_timeout, &self.roots, &self.proxies, protocol)?;
        Ok(place.insert(client).clone())
    }
}

/// Builds a client that trusts the system's root certificates and `roots`. It reads the variables of `proxies` itself.
fn build(
    dial_timeout: Duration,
    roots: &[Certificate],
    proxies: &ProxyVariables,
    protocol: ClientProtocol,
) -> reqwest::Result<Client> {
    let builder = Client::builder();
    let builder = match proxies.replacement.as_deref().map(Proxy::all) {
        None => builder,
        Some(Ok(proxy)) => builder.proxy(proxy.no_proxy(NoProxy::from_string(&proxies.no_proxy))),
        // Like a variable whose value is no address. `ProxyVariables::explain` says so.
        Some(Err(_)) => builder.no_proxy(),
    };
    let builder = match protocol {
        ClientProtocol::Http2(_) => builder.http2_prior_knowledge(),
        ClientProtocol::Negotiated => builder,
        ClientProtocol::Http1Only => builder.http1_only(),
    };
    builder
        .user_agent(concat!(
            "larder/",
            env!("CARGO_PKG_VERSION"),
            " (caching registry for cargo)"
        ))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(dial_timeout)
        .tls_certs_merge(roots.iter().cloned())
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15))
        .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .build()
}
