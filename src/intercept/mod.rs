//! An HTTPS proxy that answers for upstream: clients keep the registry's own addresses, and get larder's copies.
//!
//! Source replacement gives packages another source address, and with it another folder, so that everything is built
//! again (docs/client-behaviour.md C-35). A proxy changes nothing that cargo can see. The price is a certificate
//! authority that the client has to trust (`certificates`).
//!
//! ```text
//!   cargo, rustup
//!     │  CONNECT index.example:443                       CONNECT github.example:443      GET http://…
//!   proxy ── an intercepted host? ── yes ──> end TLS         no: tunnel, unread           no: forward
//!                                             │                └───────── upstream::Relay ────┘
//!                        HTTP/2 or 1.1        │
//!                     a resource of larder? ──┴─ no: forward (an API on the same host)
//!                             │ yes
//!                          Answers ──> Server of this process, or DaemonClient: a daemon on the same store
//!                             │
//!                           Tally ──> the summary of `larder run`
//! ```
//!
//! | module | its job |
//! |---|---|
//! | [`certificates`] | an authority for the intercepted hosts, which can sign nothing but these and names below them |
//! | [`authority_folder`] | the authority of a daemon, which outlives it |
//! | [`trust`] | files of root certificates for clients |
//! | [`password`] | keeps other users out of the proxy of one command |
//! | [`proxy`] | accepts connections, decides, answers |
//! | [`daemon`] | asks a running daemon |
//! | [`tally`] | counts answers |
//!
//! Intercepted are the hosts of the indexes, of the downloads that the indexes' `config.json` name, of the dist server
//! and of the update root, each with its port.

pub mod authority_folder;
pub mod certificates;
pub mod daemon;
pub mod password;
pub mod proxy;
pub mod tally;
pub mod trust;

use std::{collections::BTreeSet, sync::Arc};

use http::{Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use url::Url;

use crate::{
    resource::{Registry, RegistryConfig, registry::download_address},
    server::Server,
};

pub use authority_folder::AuthorityFolder;
pub use certificates::{CertificateError, Certificates};
pub use daemon::{DaemonClient, DaemonError};
pub use password::{PROXY_USER, ProxyPassword};
pub use proxy::{InterceptedHosts, Interceptor, TunnelPolicy, serve};
pub use tally::{Summary, Tally};
pub use trust::{RootsError, bundle};

/// An error while a body is sent.
type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of any answer of the proxy.
pub(crate) type ProxyBody = UnsyncBoxBody<bytes::Bytes, BodyError>;

/// The server that answers requests for upstream's resources.
#[derive(Debug)]
pub enum Answers {
    /// The server of this process.
    Server(Arc<Server>),
    /// A running daemon.
    Daemon(DaemonClient),
}

impl Answers {
    /// The answer to a GET or HEAD for `url`; `None` if larder has no such resource.
    async fn get(
        &self,
        url: &Url,
        head: Request<()>,
    ) -> Result<Option<Response<ProxyBody>>, DaemonError> {
        match self {
            Self::Server(server) => {
                let response = server.respond_at(url, head).await;
                Ok(response
                    .map(|response| response.map(|body| body.map_err(Into::into).boxed_unsync())))
            }
            Self::Daemon(daemon) => {
                if daemon.resource_at(url).is_none() {
                    return Ok(None);
                }
                let response = daemon.send(url, head).await?;
                // It has other upstreams.
                if response.status() == http::StatusCode::MISDIRECTED_REQUEST {
                    return Ok(None);
                }
                Ok(Some(
                    response.map(|body| body.map_err(Into::into).boxed_unsync()),
                ))
            }
        }
    }
}

/// The `config.json` of each registry, if it is stored or upstream sends it in time.
pub async fn known_configs(server: &Server) -> Vec<(Arc<Registry>, bytes::Bytes)> {
    let cache = &server.cache;
    let configs = server.upstreams.registries.iter().map(async |registry| {
        let config = RegistryConfig::of(registry);
        let body = match cache.peek(&config).await {
            None if !cache.is_offline() => {
                // Recorded as a prefetch, so that the client's own request does not count as a hit.
                cache.prefetch_entry(&config, true).await;
                cache.fetch_in_time(&config).await
            }
            stored => stored,
        };
        Some((registry.clone(), body?))
    });
    let configs = futures_util::future::join_all(configs).await;
    configs.into_iter().flatten().collect()
}

/// The hosts to intercept: those of `addresses`, and of the downloads of `configs`. Each is `host:port`.
pub fn intercepted_origins<'a>(
    addresses: impl IntoIterator<Item = &'a Url>,
    configs: &[(Arc<Registry>, bytes::Bytes)],
) -> BTreeSet<InterceptedOrigin> {
    let downloads = configs
        .iter()
        .filter_map(|(registry, config)| download_address(registry, config));
    let addresses = addresses.into_iter().cloned().chain(downloads);
    addresses
        .filter_map(|url| InterceptedOrigin::of(&url))
        .collect()
}

/// Scheme, host and port that the proxy answers for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterceptedOrigin {
    /// True for https, false for http.
    pub is_https: bool,
    /// The host as in a URL: lower case, IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl InterceptedOrigin {
    /// The origin of `url`, if it has one that clients use a proxy for.
    pub fn of(url: &Url) -> Option<Self> {
        Some(Self {
            is_https: match url.scheme() {
                "https" => true,
                "http" => false,
                _ => return None,
            },
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}
