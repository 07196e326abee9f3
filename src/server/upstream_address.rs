//! Requests by upstream's own addresses, as clients of the intercepting proxy send them (`crate::intercept`).
//!
//! ```text
//!   client ── CONNECT, TLS ──> intercept ──> Server::respond_at      the proxy of this process
//!                                  └─ HTTP/2, `:scheme` https ──> respond     that of `larder run`, at the daemon
//! ```
//!
//! An address of upstream names the same resource as one of larder's own paths, so the same cache answers it. There is
//! one difference: `config.json` is upstream's, because its download address is intercepted as well. Only addresses
//! of configured servers and of the downloads that their indexes name are answered: no client chooses an upstream.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use url::Url;

use super::{
    access_log::AccessLog,
    body::ClientBody,
    handlers::Server,
    request::{RequestHead, RequestOrigin},
    respond,
    traffic::ClientAddress,
};
use crate::{
    cache::Cache,
    resource::{RegistryConfig, Resource, Upstreams, registry},
};

/// A body of a response by upstream's address.
pub type ServedBody = UnsyncBoxBody<Bytes, std::io::Error>;

impl Server {
    /// Answers a GET or HEAD for an address of upstream. `None` if larder has no such resource. The request may have
    /// the extension [`ClientAddress`].
    pub async fn respond_at(&self, url: &Url, head: Request<()>) -> Option<Response<ServedBody>> {
        let resource = resource_at(url, &self.upstreams, &self.cache).await?;
        let client = head.extensions().get::<ClientAddress>();
        let client = client.map_or(Ipv4Addr::LOCALHOST.into(), |client| client.0);
        let origin = RequestOrigin::now(self.traffic.client(client));
        let head = RequestHead {
            request: head,
            origin,
        };
        let response = self.respond_with(&resource, url, head).await;
        Some(response.map(BodyExt::boxed_unsync))
    }

    /// The resource of a request of `larder run`, and its address. Behind a proxy that ends TLS, requests for larder's
    /// own paths look the same but for the host.
    pub(super) async fn asked_by_interceptor(
        &self,
        request: &Request<()>,
    ) -> Option<(Url, Resource)> {
        let url = interceptor_address(request)?;
        let resource = resource_at(&url, &self.upstreams, &self.cache).await?;
        Some((url, resource))
    }

    pub(super) async fn respond_with(
        &self,
        resource: &Resource,
        url: &Url,
        head: RequestHead,
    ) -> Response<ClientBody> {
        if url.path().ends_with("/config.json") {
            // Every command that reads the index begins with this request (docs/client-behaviour.md, C-04).
            self.cache.begin_command();
        }
        let log = AccessLog::new(resource, &head);
        match self.cache.get(resource).await {
            Ok(answer) => {
                let memory = &self.connections.answers;
                respond::answer(answer, &resource.policy(), head, memory, log)
            }
            // `on-trouble` has no effect: a redirect to upstream's address would lead back to the interceptor.
            Err(error) => respond::error(&error, resource.policy().audience, &head, log),
        }
    }
}

/// The resource that upstream has at `url`. Reads stored configs, and never asks upstream.
async fn resource_at(url: &Url, upstreams: &Upstreams, cache: &Cache) -> Option<Resource> {
    if let Some(resource) = upstreams.at(url) {
        return Some(resource);
    }
    for registry in upstreams.registries.iter() {
        if let Some(config) = cache.peek(&RegistryConfig::of(registry)).await
            && let Some(resource) = registry::crate_at(registry, &config, url)
        {
            return Some(resource);
        }
    }
    None
}

/// The address in a request of `larder run`: HTTP/2 without TLS, although the scheme says https.
fn interceptor_address(request: &Request<()>) -> Option<Url> {
    let uri = request.uri();
    let is_interceptor = request.version() == Version::HTTP_2 && uri.scheme_str() == Some("https");
    is_interceptor.then(|| Url::parse(&uri.to_string()).ok())?
}
