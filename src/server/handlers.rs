//! Answers one request: checks it, routes it, and calls the handler of the route.
//!
//! Each handler ends in a function of `respond` and passes on the [`AccessLog`] record of the request. Handlers of rare
//! routes are boxed, so that the future of a cache hit stays small.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::time::sleep;

use super::{
    access_log::AccessLog,
    background::BackgroundTasks,
    body::ClientBody,
    client_limits::ClientLimit,
    connection::h2c::H2c,
    connections::Connections,
    guard::{self, Hosts},
    home::{self, Home},
    live, prometheus,
    public_address::PublicAddress,
    ready::readiness,
    request::RequestHead,
    respond::{self, PLAIN_TEXT},
    route::{NoRoute, Route, route},
    status,
    traffic::Traffic,
};
use crate::{
    cache::{Cache, Demand},
    error::Error,
    page,
    resource::{
        Registry, RegistryConfig, Resource, Upstreams, dist,
        registry::{CRATES_IO, config_for_client},
    },
};

/// Time between two looks whether a busy daemon has become idle.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// The state that all requests share.
#[derive(Debug)]
pub struct Server {
    /// Cache that answers requests for resources.
    pub cache: Cache,
    /// Registries and dist server, by which paths are routed.
    pub upstreams: Upstreams,
    /// Host names that clients may use.
    pub hosts: Hosts,
    /// Where clients behind a proxy reach larder.
    pub public: PublicAddress,
    /// Sends clients to upstream for what larder cannot serve because of its own trouble.
    pub redirects_on_trouble: bool,
    /// Open connections.
    pub connections: Arc<Connections>,
    /// Listeners that accept `Upgrade: h2c`.
    pub h2c: H2c,
    /// The background tasks.
    pub tasks: BackgroundTasks,
    /// The data of the page for browsers; `None` for a server that has no page.
    pub home: Option<Arc<Home>>,
    /// Clients and their requests.
    pub traffic: Arc<Traffic>,
}

impl Server {
    /// Waits until no client has wanted anything for `longest`, and nothing is being fetched or written.
    pub async fn idle_for(&self, longest: Duration) {
        loop {
            let is_working = self.cache.in_flight() > 0 || self.cache.pending_writes() > 0;
            let idle = self.connections.idle_since().map(|since| since.elapsed());
            match idle.filter(|_| !is_working) {
                Some(idle) if idle >= longest => return,
                Some(idle) => sleep(longest - idle).await,
                None => sleep(longest.min(BUSY_INTERVAL)).await,
            }
        }
    }

    /// Answers a request from `peer`, if not too many are in flight.
    pub(super) async fn respond(&self, head: RequestHead, peer: IpAddr) -> Response<ClientBody> {
        // The pages about the daemon answer when it is busiest.
        let permit = match head.request.uri().path().starts_with("/-/") {
            true => None,
            false => match self.connections.admit_request().await {
                Ok(permit) => Some(permit),
                Err(refused) => {
                    let path = head.request.uri().path().escape_debug().to_string();
                    let limit = refused.limit.as_str().to_owned();
                    let log = AccessLog::new(path, &head).error(refused.reason.clone(), limit);
                    let reason = Bytes::from(refused.reason + "\n");
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    return respond::text(status, PLAIN_TEXT, reason, &head, log);
                }
            },
        };
        let mut response = self.answer(head, peer).await;
        response.body_mut().hold(permit);
        response
    }

    async fn answer(&self, head: RequestHead, peer: IpAddr) -> Response<ClientBody> {
        let request = &head.request;
        let path = request.uri().path();
        if guard::check_head(request).is_ok()
            && let Some((url, resource)) = Box::pin(self.asked_by_interceptor(request)).await
        {
            return Box::pin(self.respond_with(&resource, &url, head)).await;
        }
        let base = match self.public.base(request, peer, &self.hosts) {
            Ok(base) => base,
            Err(refused) => {
                if refused.is_too_large() {
                    self.connections.counters.count(ClientLimit::RequestHead);
                }
                return refusal(refused.status, &refused.reason, &head);
            }
        };
        let route = match route(path, request.uri().query(), &self.upstreams) {
            Ok(route) => route,
            Err(none) => {
                return refusal(status_of(&none), &none.to_string(), &head);
            }
        };
        let json = |body: Bytes| {
            respond::text(
                StatusCode::OK,
                "application/json",
                body,
                &head,
                AccessLog::new(path.to_owned(), &head),
            )
        };
        match route {
            Route::Resource(resource) => {
                let log = AccessLog::new(&resource, &head);
                match self.cache.get(&resource).await {
                    Ok(answer) => {
                        let memory = &self.connections.answers;
                        respond::answer(answer, &resource.policy(), head, memory, log)
                    }
                    Err(error) => Box::pin(self.failed(&resource, &error, &head, log)).await,
                }
            }
            // Always 200: cargo sends no validator and treats 304 as an error (docs/client-behaviour.md, C-04).
            Route::Config(registry) => {
                json(Box::pin(self.config(&registry, &base.address())).await)
            }
            Route::Script => {
                let log = AccessLog::new(path.to_owned(), &head);
                Box::pin(self.script(&base.address(), &head, log)).await
            }
            Route::Home => Box::pin(self.start_page(&base.address(), &head)).await,
            Route::Style => page_file("text/css; charset=utf-8", page::STYLE, &head),
            Route::PageScript => page_file("text/javascript; charset=utf-8", page::SCRIPT, &head),
            Route::Events => self.events(&head),
            Route::Ready => Box::pin(self.ready(&head)).await,
            Route::Health => {
                let log = AccessLog::new(path.to_owned(), &head);
                respond::text(StatusCode::OK, PLAIN_TEXT, Bytes::from("ok\n"), &head, log)
            }
            Route::Status => json(status::json(self.status_sources())),
            Route::Metrics => respond::text(
                StatusCode::OK,
                prometheus::CONTENT_TYPE,
                status::prometheus(self.status_sources()),
                &head,
                AccessLog::new(path.to_owned(), &head),
            ),
        }
    }

    /// Where status and metrics find their facts.
    fn status_sources(&self) -> status::StatusSources<'_> {
        status::StatusSources {
            cache: &self.cache,
            connections: &self.connections,
            traffic: &self.traffic,
            background: self.tasks.numbers(),
            home: self.home.as_deref(),
        }
    }

    /// The answer for a resource that larder cannot serve: upstream's address, if the settings say so, else the error.
    async fn failed(
        &self,
        resource: &Resource,
        error: &Error,
        head: &RequestHead,
        log: AccessLog,
    ) -> Response<ClientBody> {
        // Advisories that are not loaded yet may forbid it.
        if self.redirects_on_trouble
            && error.is_own_trouble()
            && self.upstreams.advisories.is_none()
            && let Some(url) = self.cache.address_past_larder(resource).await
        {
            return respond::redirect(&url, error, head, log);
        }
        respond::error(error, resource.policy().audience, head, log)
    }

    /// The page at `/`: HTML for browsers, else the settings as text.
    async fn start_page(&self, base: &str, head: &RequestHead) -> Response<ClientBody> {
        let uri = head.request.uri();
        let log = AccessLog::new(uri.path().to_owned(), head);
        let Some(home) = self.home.as_ref().filter(|_| home::wants_html(head)) else {
            let text = Bytes::from(home::plain_text(base));
            return respond::text(StatusCode::OK, PLAIN_TEXT, text, head, log);
        };
        let background = self.tasks.numbers();
        let asked = (base, uri.query());
        let (cache, traffic) = (&self.cache, &self.traffic);
        let page = home.page(cache, &self.upstreams, &background, traffic, asked);
        respond::page(page.await.html(), head, log)
    }

    /// Answers whether a load balancer should send clients to this daemon.
    async fn ready(&self, head: &RequestHead) -> Response<ClientBody> {
        let failure = self.cache.store_failure().await;
        let (status, text) = readiness(self.connections.is_stopping(), failure.as_deref());
        let log = AccessLog::new(head.request.uri().path().to_owned(), head);
        respond::text(status, PLAIN_TEXT, Bytes::from(text), head, log)
    }

    /// The changes of the start page.
    fn events(&self, head: &RequestHead) -> Response<ClientBody> {
        let log = AccessLog::new(page::EVENTS_PATH.to_owned(), head);
        let Some(home) = &self.home else {
            let body = Bytes::from_static(b"this server has no page\n");
            return respond::text(StatusCode::NOT_FOUND, PLAIN_TEXT, body, head, log);
        };
        let (cache, tasks) = (self.cache.clone(), self.tasks.clone());
        match live::changes(home, cache, tasks, &self.connections, &self.traffic) {
            Some(changes) => respond::events(changes, head, log),
            None => {
                let body = Bytes::from_static(b"too many browsers show the page\n");
                respond::text(StatusCode::SERVICE_UNAVAILABLE, PLAIN_TEXT, body, head, log)
            }
        }
    }

    /// Generates `config.json`. Cargo reads upstream's `api` from it, so the first request of a cold store waits for
    /// upstream's, as long as a client with a stale copy would. Later requests use the stored copy, which is renewed in
    /// the background: the connection is then open before cargo's first index request.
    async fn config(&self, registry: &Arc<Registry>, base: &str) -> Bytes {
        // Every command that reads the index begins with this request (docs/client-behaviour.md, C-04).
        self.cache.begin_command();
        let upstream = RegistryConfig::of(registry);
        self.cache.count_as_asked(&upstream);
        let stored = self.cache.peek(&upstream).await;
        let known = match (stored, self.cache.is_offline()) {
            (Some(stored), false) => {
                self.cache.fetch_in_background(upstream);
                Some(stored)
            }
            (None, false) => self.cache.fetch_in_time(&upstream).await,
            (stored, true) => stored,
        };
        let base = match registry.name() {
            CRATES_IO => base.to_owned(),
            name => format!("{base}registry/{name}/"),
        };
        config_for_client(&base, known.as_deref(), self.cache.is_offline())
    }

    /// Upstream's `rustup-init.sh`, edited to work over plain http with this address (docs/client-behaviour.md, R-13).
    async fn script(&self, base: &str, head: &RequestHead, log: AccessLog) -> Response<ClientBody> {
        let script = dist::script(&self.upstreams.dist);
        let served = match self.cache.ensure(&script, Demand::Fresh).await {
            Ok(ensured) => dist::script_for_client(&ensured.entry.unwrap_or_default(), base)
                .map_err(|cause| {
                    format!("cannot make upstream's rustup-init.sh work over http: {cause}")
                }),
            Err(error) => Err(error.for_client()),
        };
        match served {
            Ok(body) => respond::text(StatusCode::OK, "text/x-shellscript", body, head, log),
            Err(error) => respond::script_error(&error, head, log),
        }
    }
}

/// A file that the page loads.
fn page_file(
    content_type: &'static str,
    text: &'static str,
    head: &RequestHead,
) -> Response<ClientBody> {
    let log = AccessLog::new(head.request.uri().path().to_owned(), head);
    let body = Bytes::from_static(text.as_bytes());
    respond::text(StatusCode::OK, content_type, body, head, log)
}

fn status_of(none: &NoRoute) -> StatusCode {
    match none {
        NoRoute::Malformed(_) | NoRoute::GitProtocol => StatusCode::BAD_REQUEST,
        NoRoute::UnknownRegistry(_) | NoRoute::Unknown => StatusCode::NOT_FOUND,
    }
}

/// The response to a request that `guard` or `route` refuses. Refusals with one status count as one cause in the log:
/// clients choose the rest of the text.
fn refusal(status: StatusCode, reason: &str, head: &RequestHead) -> Response<ClientBody> {
    let path = head.request.uri().path().escape_debug().to_string();
    let text = format!("refused a request for `{path}`: {reason}");
    let log = AccessLog::new(path, head).error(text, status.as_str().to_owned());
    respond::text(
        status,
        PLAIN_TEXT,
        Bytes::from(format!("{reason}\n")),
        head,
        log,
    )
}
