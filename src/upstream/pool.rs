//! The connection pool: reqwest clients, one for each kind of connection that larder opens.
//!
//! | client | protocol | used for |
//! |---|---|---|
//! | [`ClientProtocol::Http2`], up to [`MAX_HTTP2_CONNECTIONS`] slots | HTTP/2 only | https upstreams, except those known not to speak it |
//! | [`ClientProtocol::Negotiated`] | whatever TLS negotiates | http upstreams, and https upstreams without HTTP/2 |
//! | [`ClientProtocol::Http1Only`] | HTTP/1.1 | ranges of a large body |
//!
//! A client that may speak either protocol learns only from the first response that requests can share a connection,
//! and opens one connection per request until then. The HTTP/2 clients know before: a burst waits for one dial and
//! opens one connection. Ranges exist because many servers limit each connection, so they must not share one.
//!
//! A slot is one client, and so at most one connection to each origin. Requests take the first slot that has fewer than
//! [`REQUESTS_PER_CONNECTION`] requests in flight, so a second connection opens only under load.

#![expect(
    clippy::disallowed_types,
    reason = "the one place that makes clients for upstream"
)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Certificate, Client, Response};
use url::Url;

use super::{
    failure::{Failure, FailureKind, classify},
    proxy::ProxyVariables,
    request::Get,
};

/// HTTP/2 connections to one origin. Common front ends process about a hundred requests at a time on each, and a
/// burst that revalidates a large project has several hundred.
pub(super) const MAX_HTTP2_CONNECTIONS: usize = 3;
/// Requests in flight on one HTTP/2 connection before the next slot is used.
const REQUESTS_PER_CONNECTION: usize = 100;
/// Flow-control window of one HTTP/2 stream in bytes: what upstream may send within one round trip. With 2 MB a body
/// came with 34 MB/s at 40 ms and 11 MB/s at 150 ms, with 8 MB with 81 and 28.
const STREAM_WINDOW: u32 = 8 << 20;
/// Flow-control window of one HTTP/2 connection in bytes.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Time after which an idle connection is closed.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The clients, and how many requests each has in flight.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    dial_timeout: Duration,
    roots: Vec<Certificate>,
    proxies: ProxyVariables,
    clients: Mutex<Clients>,
    /// Requests in flight by slot, over all origins.
    in_flight: [AtomicUsize; MAX_HTTP2_CONNECTIONS],
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
        let negotiated = build(dial_timeout, &roots, ClientProtocol::Negotiated)?;
        Ok(Self {
            dial_timeout,
            roots,
            proxies,
            clients: Mutex::new(Clients {
                negotiated: Some(negotiated),
                ..Clients::default()
            }),
            in_flight: Default::default(),
        })
    }

    /// Drops all clients and with them the idle connections. Requests in flight go on.
    pub(super) fn reset(&self) {
        *self.clients.lock() = Clients::default();
    }

    /// Counts a request in a slot: the first below [`REQUESTS_PER_CONNECTION`], else the one with the fewest requests.
    pub(super) fn http2_slot(&self) -> ConnectionSlot<'_> {
        let counts = self
            .in_flight
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        let with_capacity = counts
            .iter()
            .position(|count| *count < REQUESTS_PER_CONNECTION);
        let least_used = || (0..counts.len()).min_by_key(|slot| counts[*slot]);
        let index = with_capacity.or_else(least_used).unwrap_or(0);
        let in_flight = &self.in_flight[index];
        in_flight.fetch_add(1, Ordering::Relaxed);
        ConnectionSlot { index, in_flight }
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
        let client = build(self.dial_timeout, &self.roots, protocol)?;
        Ok(place.insert(client).clone())
    }
}

/// One HTTP/2 request in flight, counted in its slot until dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot<'a> {
    pub(super) index: usize,
    in_flight: &'a AtomicUsize,
}

impl Drop for ConnectionSlot<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Builds a client that trusts the system's root certificates and `roots`.
fn build(
    dial_timeout: Duration,
    roots: &[Certificate],
    protocol: ClientProtocol,
) -> reqwest::Result<Client> {
    let builder = Client::builder();
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
