//! Answers a request: picks the handler of its route.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    access_log::AccessLog,
    body::ClientBody,
    connection::h2c::H2c,
    guard::{self, Hosts},
    metrics,
    request::RequestHead,
    respond,
    route::{NoRoute, Route, route},
    status,
};
use crate::{
    cache::{Cache, Demand},
    resource::{
        Registry, RegistryConfig, Upstreams, dist,
        registry::{CRATES_IO, config_for_client},
    },
};

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

impl Server {
    /// The answer to a request.
    pub(super) async fn respond(&self, head: RequestHead) -> Response<ClientBody> {
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
                status::home_page(authority),
                AccessLog::new(path.to_owned()),
            ),
            Route::Health | Route::Ready => plain_text(
                StatusCode::OK,
                "ok".to_owned(),
                AccessLog::new(path.to_owned()),
            ),
            Route::Status => json(status::json(&self.cache)),
            Route::Metrics => respond::text(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                status::prometheus(&self.cache),
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
}
