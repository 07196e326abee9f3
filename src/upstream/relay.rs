//! [`Relay`]: passes on what larder does not answer, to the server that the client asked for.
//!
//! ```text
//!   CONNECT github.example:443 ──> tunnel   bytes both ways, larder sees none of them in clear
//!   PUT https://files.example/api ──> forward   one request, its body and its answer unchanged
//! ```
//!
//! Both go through the same proxies: those of the user's environment, or the one that replaces them. Who may use a relay for which hosts is decided by
//! `crate::intercept`.

use std::{error::Error, io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::{
    client::proxy::matcher::{Intercept, Matcher},
    rt::TokioIo,
};
use reqwest::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use super::{
    SetupError, UpstreamOptions, failure::Failure, pool::ConnectionPool, proxy::ProxyVariables,
    read_roots,
};

/// Time limit of the connection for a tunnel. Long: the client has a limit of its own.
const TUNNEL_DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Headers about one connection (RFC 9110, section 7.6.1), which no relay passes on.
const CONNECTION_HEADERS: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A connection of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Connects clients with servers.
#[derive(Debug)]
pub struct Relay {
    pool: ConnectionPool,
    proxies: Matcher,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No connection to the server or the proxy.
    #[error("cannot connect to {to}: {source}")]
    Dial {
        /// Server or proxy.
        to: String,
        /// The cause.
        source: io::Error,
    },
    /// A scheme of a proxy's address that larder does not speak.
    #[error("larder cannot use the proxy {0}: only http proxies are supported")]
    ProxyScheme(String),
    /// The proxy's answer is no HTTP.
    #[error("the proxy {proxy} failed: {source}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// The cause.
        source: hyper::Error,
    },
    /// The proxy does not allow it.
    #[error("the proxy {proxy} answered {status}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// Its answer.
        status: StatusCode,
    },
    /// No host with a port.
    #[error("`{0}` is no address of a server")]
    Address(String),
}

impl Relay {
    /// A relay with the roots and proxies of `options`.
    ///
    /// # Errors
    /// [`SetupError`] if root certificates cannot be used.
    pub fn new(options: &UpstreamOptions) -> Result<Self, SetupError> {
        let roots = match &options.ca_file {
            None => Vec::new(),
            Some(path) => read_roots(path)?,
        };
        let pool = ConnectionPool::new(TUNNEL_DIAL_TIMEOUT, roots, options.proxies.clone())
            .map_err(|source| SetupError::Tls { source })?;
        Ok(Self {
            pool,
            proxies: matcher(&options.proxies),
        })
    }

    /// Sends a request to the server that its absolute address names, and returns the head of the answer. Redirects are
    /// the client's to follow.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn forward<B>(
        &self,
        url: &Url,
        request: Request<B>,
    ) -> Result<Response<Body>, Failure>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (mut parts, body) = request.into_parts();
        remove_connection_headers(&mut parts.headers);
        // The client for upstream names the host itself.
        parts.headers.remove(header::HOST);
        let body = (!body.is_end_stream()).then(|| Body::wrap(body));
        let response = self.pool.pass_on(url, parts.method, parts.headers, body);
        let mut response = Response::from(response.await?);
        remove_connection_headers(response.headers_mut());
        Ok(response)
    }

    /// Connects to `authority`, a host with a port.
    ///
    /// # Errors
    /// No connection, or a proxy that refuses it.
    pub async fn tunnel(&self, authority: &str) -> Result<Box<dyn ByteStream>, TunnelError> {
        let uri = format!("https://{authority}/").parse::<Uri>();
        let uri = uri.map_err(|_| TunnelError::Address(authority.to_owned()))?;
        match self.proxies.intercept(&uri) {
            None => Ok(Box::new(dial(authority).await?)),
            Some(proxy) => tunnel_through(&proxy, authority).await,
        }
    }
}

/// The proxies for each address.
fn matcher(variables: &ProxyVariables) -> Matcher {
    let value = |variable: &Option<(String, String)>| {
        let value = variable.as_ref().map(|(_, value)| value.clone());
        value.unwrap_or_default()
    };
    let builder = Matcher::builder().no(variables.no_proxy.as_str());
    match &variables.replacement {
        Some(proxy) => builder.all(proxy.clone()).build(),
        None => builder
            .all(value(&variables.all))
            .http(value(&variables.http))
            .https(value(&variables.https))
            .build(),
    }
}

async fn dial(authority: &str) -> Result<TcpStream, TunnelError> {
    let failed = |source| TunnelError::Dial {
        to: authority.to_owned(),
        source,
    };
    let stream = timeout(TUNNEL_DIAL_TIMEOUT, TcpStream::connect(authority)).await;
    let stream = stream.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
    let stream = stream.map_err(failed)?;
    // A failure only costs latency.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Asks `proxy` for a tunnel to `authority`.
async fn tunnel_through(
    proxy: &Intercept,
    authority: &str,
) -> Result<Box<dyn ByteStream>, TunnelError> {
    // Without user name and password.
    let name = proxy.uri().to_string();
    if proxy.uri().scheme_str() != Some("http") {
        return Err(TunnelError::ProxyScheme(name));
    }
    let host = proxy.uri().host().unwrap_or_default();
    let port = proxy.uri().port_u16().unwrap_or(80);
    let stream = dial(&format!("{host}:{port}")).await?;
    let failed = |source| TunnelError::Proxy {
        proxy: name.clone(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::connect(authority).header(header::HOST, authority);
    let request = match proxy.basic_auth() {
        Some(auth) => request.header(header::PROXY_AUTHORIZATION, auth),
        None => request,
    };
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|_| TunnelError::Address(authority.to_owned()))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(TunnelError::Refused {
            proxy: name,
            status: response.status(),
        });
    }
    let stream = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok(Box::new(TokioIo::new(stream)))
}

fn remove_connection_headers(headers: &mut HeaderMap) {
    let listed: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    for name in listed.iter().chain(&CONNECTION_HEADERS) {
        headers.remove(name);
    }
}
