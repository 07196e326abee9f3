//! One request to upstream: conditional, resumable, bounded, redirects confined. The only user of reqwest. Retries, proof
//! and what an answer means are for the cache.

mod failure;
mod origins;
mod retry;

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use reqwest::{
    Certificate, Client, Response, StatusCode, Version,
    header::{self, HeaderMap, HeaderValue},
};
use tokio::sync::Semaphore;
use url::{Host, Url};

use crate::validators::Validators;
pub use failure::{Failure, FailureKind};
pub use origins::Origin;
use origins::{HttpVersion, OriginEvent, OriginWatcher, Origins};
pub use retry::retry_delay;

/// Redirects followed for one request. Downloads that hop to a bucket take one or two.
const MAX_REDIRECTS: usize = 5;
/// How many hosts named by upstreams are remembered. A registry names one, and seldom another.
const MAX_NAMED_ORIGINS: usize = 64;
/// What one HTTP/2 answer may send unasked: a whole round trip's worth, or it waits. With 2 MB, 34 MB/s came at 40 ms and
/// 11 at 150; with 8, as much as the systems' own buffers are, 81 and 28.
const STREAM_WINDOW: u32 = 8 << 20;
/// How long an idle connection is kept.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How upstream is spoken to.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// How long a dial may take, TLS included.
    pub dial_timeout: Duration,
    /// Extra roots of trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// Hosts besides the configured ones that upstream may redirect to, with a port or for all ports.
    pub redirect_hosts: Vec<String>,
}

/// The kind out. Opens no socket before the first request.
pub struct Upstream {
    options: UpstreamOptions,
    roots: Vec<Certificate>,
    clients: Mutex<Clients>,
    /// Origins of the configured upstreams.
    configured: HashSet<Origin>,
    /// Origins that configured upstreams named, the latest last.
    named: RwLock<VecDeque<Origin>>,
    origins: Origins,
    /// Requests to https origins without an answer yet, by lane.
    in_flight: [AtomicUsize; MAX_HTTP2_CONNECTIONS],
    /// Room for requests that each need a connection of their own.
    http1_permits: Semaphore,
}

/// One client for each kind of connection; each is made when first needed.
#[derive(Debug, Default)]
struct Clients {
    /// HTTP/2 and nothing else, so that it is known before the first answer that all requests can share a connection: a
    /// burst of them waits for one dial, and opens one connection. Each lane has its own.
    http2: [Option<Client>; MAX_HTTP2_CONNECTIONS],
    /// Whatever upstream prefers.
    negotiated: Option<Client>,
    /// HTTP/1.1, for parts: over HTTP/2 all of them would share one connection, and what limits it.
    http1: Option<Client>,
}

/// Which of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientKind {
    Http2(usize),
    Negotiated,
    Http1Only,
}

/// Connections to one HTTP/2 upstream. Common front ends answer a hundred or so requests at a time on each, and a volley
/// that revalidates a large project is several hundred.
const MAX_HTTP2_CONNECTIONS: usize = 3;
/// Requests without an answer for which one lane is enough.
const REQUESTS_PER_CONNECTION: usize = 100;
/// Connections to upstreams that take one request at a time on each.
const MAX_HTTP1_REQUESTS: usize = 100;

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Get {
    /// Where.
    pub url: Url,
    /// Only if it changed, by these.
    pub validators: Validators,
    /// The first byte wanted; more than 0 resumes a broken transfer.
    pub offset: u64,
    /// Only what lies between `offset` and here, over a connection of its own.
    pub range: Option<RangeRequest>,
    /// Whether a compressed transfer helps.
    pub compressible: bool,
    /// How long to wait for the head of the answer, and then for each piece of its body.
    pub read_timeout: Duration,
}

/// A part of a body, fetched beside the rest.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// The first byte after it.
    pub end: u64,
    /// What [`UpstreamBody::range_validator`] said: anything else than that very body is to be answered in full.
    pub validator: String,
}

/// Upstream's answer: a head, and a body still to come.
#[derive(Debug)]
pub enum Reply {
    /// What was asked about is unchanged.
    NotModified {
        /// The new freshness lifetime, if given.
        max_age: Option<Duration>,
    },
    /// A body follows.
    Body(Box<UpstreamBody>),
}

/// A body on its kind in.
#[derive(Debug)]
pub struct UpstreamBody {
    response: Response,
    /// Upstream's validators; none if the body may be cut unnoticed.
    pub validators: Validators,
    /// `Cache-Control: max-age`; zero if the body may be cut unnoticed.
    pub max_age: Option<Duration>,
    /// Size of the whole resource, if known and not compressed.
    pub total: Option<u64>,
    /// Whether the body begins at the offset asked for, and not at 0. Nothing follows if that is the end of it all.
    pub is_partial: bool,
    /// By what upstream would know parts of this very body, if it gives any.
    pub range_validator: Option<String>,
    /// How the transfer is compressed.
    pub coding: Coding,
    read_timeout: Duration,
    received: u64,
    announced: Option<u64>,
    /// Whether nothing was left to send, and the answer's own body is a text about that.
    is_over: bool,
}

/// How a transfer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Prepares the kind out. `configured` are the addresses the settings name: redirects stay within their hosts.
    ///
    /// # Errors
    /// A sentence on a root certificate that cannot be read, or a system without any.
    pub fn new<'a>(
        options: UpstreamOptions,
        configured: impl IntoIterator<Item = &'a Url>,
    ) -> Result<Self, String> {
        let roots = match &options.ca_file {
            None => Vec::new(),
            Some(file) => std::fs::read(file)
                .map_err(|cause| {
                    format!(
                        "cannot read the root certificates in {}: {cause}",
                        file.display()
                    )
                })
                .and_then(|pem| {
                    Certificate::from_pem_bundle(&pem)
                        .ok()
                        .filter(|roots| !roots.is_empty())
                        .ok_or_else(|| format!("no PEM certificate in {}", file.display()))
                })?,
        };
        let negotiated = build(&options, &roots, ClientKind::Negotiated).map_err(|cause| {
            match &options.ca_file {
                Some(file) if build(&options, &[], ClientKind::Negotiated).is_ok() => format!(
                    "cannot use the root certificates in {}: {}",
                    file.display(),
                    root_cause(&cause)
                ),
                Some(_) | None => format!(
                    "cannot set up TLS: {}; is the package `ca-certificates` installed?",
                    root_cause(&cause)
                ),
            }
        })?;
        let configured = configured.into_iter().map(Origin::from).collect();
        Ok(Self {
            options,
            roots,
            clients: Mutex::new(Clients {
                negotiated: Some(negotiated),
                ..Clients::default()
            }),
            configured,
            named: RwLock::default(),
            origins: Origins::default(),
            in_flight: std::array::from_fn(|_| AtomicUsize::new(0)),
            http1_permits: Semaphore::new(MAX_HTTP1_REQUESTS),
        })
    }

    /// Lets redirects go to the host of `url`, which a configured upstream named. Of those, the latest few count.
    pub fn allow(&self, url: &Url) {
        let origin = Origin::from(url);
        let is_known = |named: &VecDeque<Origin>| named.contains(&origin);
        if self.configured.contains(&origin)
            || is_known(&self.named.read().unwrap_or_else(PoisonError::into_inner))
        {
            return;
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if is_known(&named) {
            return;
        }
        if named.len() >= MAX_NAMED_ORIGINS {
            named.pop_front();
        }
        named.push_back(origin);
    }

    /// Forgets all connections: after an outage those that look alive often are not.
    pub fn reconnect(&self) {
        *self.clients() = Clients::default();
        self.origins.reset_http_versions();
    }

    /// Never held across an await.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, kind: ClientKind) -> reqwest::Result<Client> {
        let mut clients = self.clients();
        let place = match kind {
            ClientKind::Http2(slot) => &mut clients.http2[slot],
            ClientKind::Negotiated => &mut clients.negotiated,
            ClientKind::Http1Only => &mut clients.http1,
        };
        if let Some(client) = place {
            return Ok(client.clone());
        }
        let client = build(&self.options, &self.roots, kind)?;
        Ok(place.insert(client).clone())
    }

    /// Asks once, following redirects within the configured hosts.
    ///
    /// # Errors
    /// The [`Failure`], sorted.
    pub async fn get(&self, ask: &Get) -> Result<Reply, Failure> {
        let mut url = ask.url.clone();
        let mut visited = HashSet::new();
        loop {
            let response = self.send(ask, &url).await?;
            let Some(next) = redirect(&url, &response) else {
                return parse_response(ask, &url, response);
            };
            let refuse = |foreign| {
                let to = Origin::from(&next);
                FailureKind::Redirected { to, foreign }.at(&url)
            };
            if !self.may_follow(&ask.url, &url, &next) {
                return Err(refuse(true));
            }
            if visited.len() == MAX_REDIRECTS || !visited.insert(next.clone()) {
                return Err(refuse(false));
            }
            url = next;
        }
    }

    async fn send(&self, ask: &Get, url: &Url) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        let mut add = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        add(
            header::ACCEPT_ENCODING,
            if ask.compressible { "gzip" } else { "identity" },
        );
        if let Some(etag) = &ask.validators.etag {
            add(header::IF_NONE_MATCH, etag);
        } else if let Some(date) = &ask.validators.last_modified {
            add(header::IF_MODIFIED_SINCE, date);
        }
        if let Some(range) = &ask.range {
            add(
                header::RANGE,
                &format!("bytes={}-{}", ask.offset, range.end.saturating_sub(1)),
            );
            add(header::IF_RANGE, &range.validator);
        } else if ask.offset > 0 {
            add(header::RANGE, &format!("bytes={}-", ask.offset));
        }
        let send = async |kind| {
            let client = self.client(kind).map_err(|error| classify(&error, url))?;
            let request = client.get(url.clone()).headers(headers.clone()).send();
            match tokio::time::timeout(ask.read_timeout, request).await {
                Ok(sent) => sent.map_err(|error| classify(&error, url)),
                Err(_) => Err(FailureKind::Silent {
                    after: ask.read_timeout,
                }
                .at(url)),
            }
        };
        if ask.range.is_some() {
            return send(ClientKind::Http1Only).await;
        }
        let origin = Origin::from(url);
        let version = match url.scheme() {
            "https" => self.origins.http_version(&origin),
            _ => HttpVersion::Http1,
        };
        if matches!(version, HttpVersion::Unknown | HttpVersion::Http2) {
            let (slot, _in_flight) = ConnectionSlot::acquire(&self.in_flight);
            let mut watcher = self.origins.watch(&origin, slot);
            let began = Instant::now();
            // As long as a dial of its own could take.
            let grace = self.options.dial_timeout;
            let sent = tokio::select! {
                biased;
                sent = send(ClientKind::Http2(slot)) => Some(sent),
                event = watcher.next_event(grace) => match event {
                    OriginEvent::DialFailed { failure, .. } => return Err(failure),
                    OriginEvent::Http1Only => None,
                },
            };
            match (sent, version) {
                (Some(Ok(answer)), _) => {
                    if version == HttpVersion::Unknown {
                        self.origins.set_http_version(&origin, HttpVersion::Http2);
                    }
                    return Ok(answer);
                }
                // It may be that HTTP/2 is what failed: then it did so soon. What fails late fails because nobody is there, be it
                // that another's dial timed out, and to find out more would take as long again.
                (Some(Err(failure)), HttpVersion::Unknown)
                    if began.elapsed() >= self.options.dial_timeout / 2 =>
                {
                    if matches!(failure.kind, FailureKind::Silent { .. }) {
                        self.origins
                            .set_http_version(&origin, HttpVersion::Http2Unanswered);
                    }
                    self.broadcast_unreachable(&origin, slot, &failure, &watcher);
                    return Err(failure);
                }
                (
                    Some(Err(failure)),
                    HttpVersion::Http2 | HttpVersion::Http1 | HttpVersion::Http2Unanswered,
                ) => {
                    self.broadcast_unreachable(&origin, slot, &failure, &watcher);
                    return Err(failure);
                }
                (Some(Err(_)), HttpVersion::Unknown) | (None, _) => {}
            }
        }
        let mut watcher = self.origins.watch(&origin, 0);
        let _permit = tokio::select! {
            biased;
            // The wait for others is not upstream's silence.
            permit = self.http1_permits.acquire() => permit,
            event = async {
                loop {
                    if let OriginEvent::DialFailed { failure, .. } = watcher.next_event(Duration::ZERO).await {
                        return failure;
                    }
                }
            } => return Err(event),
        };
        let sent = send(ClientKind::Negotiated).await;
        match &sent {
            Ok(answer) if url.scheme() == "https" => {
                let is_older = answer.version() < Version::HTTP_2;
                let version = if is_older {
                    HttpVersion::Http1
                } else {
                    HttpVersion::Http2
                };
                if self.origins.http_version(&origin) != version {
                    self.origins.set_http_version(&origin, version);
                }
            }
            Ok(_) => {}
            Err(failure) if matches!(failure.kind, FailureKind::Silent { .. }) => {
                self.origins.fail_waiters(&origin, 0, failure, &watcher);
            }
            Err(failure) => self.broadcast_unreachable(&origin, 0, failure, &watcher),
        }
        sent
    }

    /// Tells others who wait for a connection if there can be none.
    fn broadcast_unreachable(
        &self,
        origin: &Origin,
        slot: usize,
        failure: &Failure,
        began: &OriginWatcher,
    ) {
        if matches!(failure.kind, FailureKind::Unreachable { .. }) {
            self.origins.fail_waiters(origin, slot, failure, began);
        }
    }

    /// Within the configured hosts, never from https to http, and to an address on this machine or its network only if
    /// somebody there or the user said so: nobody outside may have larder look around inside.
    fn may_follow(&self, asked: &Url, from: &Url, to: &Url) -> bool {
        let is_web = matches!(to.scheme(), "http" | "https");
        let downgrade = from.scheme() == "https" && to.scheme() == "http";
        if !is_web || downgrade {
            return false;
        }
        let target = Origin::from(to);
        let is_configured = self.configured.contains(&target)
            || self
                .options
                .redirect_hosts
                .iter()
                .any(|allowed| target.is_named(allowed));
        // It has been reached already, so nothing is gained by refusing.
        if is_configured || target == Origin::from(from) {
            return true;
        }
        let is_named = self
            .named
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&target);
        let is_upgrade = from.host() == to.host() && to.scheme() == "https" && to.port().is_none();
        if is_inside(to) {
            is_named && is_inside(asked)
        } else {
            is_named || is_upgrade
        }
    }
}

/// A request without an answer yet, counted in its lane while it lives.
struct ConnectionSlot<'a>(&'a AtomicUsize);

impl<'a> ConnectionSlot<'a> {
    /// Chooses a lane: the first that has room, so that few requests need one connection, else the least_used.
    fn acquire(slots: &'a [AtomicUsize; MAX_HTTP2_CONNECTIONS]) -> (usize, Self) {
        let counts = slots.each_ref().map(|slot| slot.load(Ordering::Relaxed));
        let with_capacity = counts
            .iter()
            .position(|count| *count < REQUESTS_PER_CONNECTION);
        let least_used = || {
            (0..MAX_HTTP2_CONNECTIONS)
                .min_by_key(|slot| counts[*slot])
                .unwrap_or(0)
        };
        let slot = with_capacity.unwrap_or_else(least_used);
        slots[slot].fetch_add(1, Ordering::Relaxed);
        (slot, Self(&slots[slot]))
    }
}

impl Drop for ConnectionSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this is an address on this machine or a network that is not the internet. Names are not looked up.
fn is_inside(url: &Url) -> bool {
    let is_inside_v4 = |ip: Ipv4Addr| {
        ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
    };
    match url.host() {
        Some(Host::Ipv4(ip)) => is_inside_v4(ip),
        Some(Host::Ipv6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => is_inside_v4(ip),
            None => {
                ip.is_loopback()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
                    || ip.is_unspecified()
            }
        },
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

fn build(
    options: &UpstreamOptions,
    roots: &[Certificate],
    kind: ClientKind,
) -> reqwest::Result<Client> {
    let builder = Client::builder();
    let builder = match kind {
        ClientKind::Http2(_) => builder.http2_prior_knowledge(),
        ClientKind::Negotiated => builder,
        ClientKind::Http1Only => builder.http1_only(),
    };
    builder
        .user_agent(concat!(
            "larder/",
            env!("CARGO_PKG_VERSION"),
            " (caching registry for cargo)"
        ))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(options.dial_timeout)
        .tls_certs_merge(roots.iter().cloned())
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15))
        .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(32 << 20)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .build()
}

fn redirect(from: &Url, response: &Response) -> Option<Url> {
    let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let to = response.headers().get(header::LOCATION).filter(|_| moved)?;
    from.join(to.to_str().ok()?).ok()
}

fn parse_response(ask: &Get, url: &Url, response: Response) -> Result<Reply, Failure> {
    let status = response.status();
    let headers = response.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let max_age = text(header::CACHE_CONTROL).and_then(parse_max_age);
    match status.as_u16() {
        304 if !ask.validators.is_empty() => Ok(Reply::NotModified { max_age }),
        200 | 206 => {
            let coding = match text(header::CONTENT_ENCODING).map(str::trim) {
                None | Some("" | "identity") => Coding::Identity,
                Some("gzip" | "x-gzip") => Coding::Gzip,
                Some(other) => {
                    return Err(FailureKind::Unrecognised {
                        why: format!("is encoded as `{other}`"),
                    }
                    .at(url));
                }
            };
            let is_partial = status == StatusCode::PARTIAL_CONTENT;
            let range = text(header::CONTENT_RANGE).and_then(parse_content_range);
            if is_partial && range.is_none_or(|(start, _)| start != ask.offset || ask.offset == 0) {
                return Err(FailureKind::Unrecognised {
                    why: "is another range than the one asked for".to_owned(),
                }
                .at(url));
            }
            let announced = text(header::CONTENT_LENGTH).and_then(|len| len.parse().ok());
            let total = match (coding, range) {
                (Coding::Gzip, _) => None,
                (Coding::Identity, Some((_, total))) => total,
                (Coding::Identity, None) => announced,
            };
            // Where only the end of the connection ends the body, a cut one looks whole, and an index entry that was cut
            // between two lines is recognised. Believed once, it must not be vouched for by the validators of the whole.
            let is_framed = announced.is_some()
                || headers.contains_key(header::TRANSFER_ENCODING)
                || response.version() >= Version::HTTP_2;
            let (validators, max_age) = if is_framed {
                let validators = Validators {
                    etag: text(header::ETAG).map(str::to_owned),
                    last_modified: text(header::LAST_MODIFIED).map(str::to_owned),
                };
                (validators, max_age)
            } else {
                (Validators::default(), Some(Duration::ZERO))
            };
            let in_parts = text(header::ACCEPT_RANGES).is_some_and(|unit| unit.trim() == "bytes");
            let range_validator = validators
                .etag
                .clone()
                .filter(|etag| !etag.starts_with("W/"))
                .or_else(|| validators.last_modified.clone())
                .filter(|_| in_parts && !is_partial && coding == Coding::Identity);
            Ok(Reply::Body(Box::new(UpstreamBody {
                validators,
                max_age,
                total,
                is_partial,
                range_validator,
                coding,
                read_timeout: ask.read_timeout,
                received: 0,
                announced,
                is_over: false,
                response,
            })))
        }
        // All bytes came before, only the end did not. They may be the wrong ones still.
        416 if ask.offset > 0
            && text(header::CONTENT_RANGE).and_then(parse_unsatisfied_range)
                == Some(ask.offset) =>
        {
            Ok(Reply::Body(Box::new(UpstreamBody {
                validators: Validators::default(),
                max_age: None,
                total: Some(ask.offset),
                is_partial: true,
                range_validator: None,
                coding: Coding::Identity,
                read_timeout: ask.read_timeout,
                received: 0,
                announced: None,
                is_over: true,
                response,
            })))
        }
        code @ (404 | 410 | 451) => Err(FailureKind::Absent { code }.at(url)),
        code @ (401 | 403 | 407) => Err(FailureKind::Denied { code }.at(url)),
        code @ (429 | 500..) => {
            let retry_after = text(header::RETRY_AFTER)
                .and_then(|value| parse_retry_after(value, SystemTime::now()));
            Err(FailureKind::Status { code, retry_after }.at(url))
        }
        code => Err(FailureKind::Unrecognised {
            why: format!("has the status {code}"),
        }
        .at(url)),
    }
}

impl UpstreamBody {
    /// The origin that sends the body. After a redirect it is not the origin that was asked first.
    pub fn origin(&self) -> Origin {
        Origin::from(self.response.url())
    }

    /// The next piece; `None` at a clean end.
    ///
    /// # Errors
    /// [`FailureKind::Broken`]: it ended early, or nothing came for as long as [`Get::read_timeout`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let cause = match tokio::time::timeout(self.read_timeout, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                self.received += chunk.len() as u64;
                return Ok(Some(chunk));
            }
            Ok(Ok(None)) if self.announced.is_none_or(|len| len == self.received) => {
                return Ok(None);
            }
            Ok(Ok(None)) => format!("it ended after {} bytes", self.received),
            Ok(Err(error)) => root_cause(&error),
            Err(_) => format!(
                "nothing came for {}",
                humantime::format_duration(self.read_timeout)
            ),
        };
        Err(FailureKind::Broken { cause }.at(self.origin()))
    }
}

fn classify(error: &reqwest::Error, url: &Url) -> Failure {
    let cause = root_cause(error);
    if error.is_timeout() || error.is_connect() {
        FailureKind::Unreachable { cause }.at(url)
    } else {
        FailureKind::Broken { cause }.at(url)
    }
}

/// The innermost cause of an error alone: what reqwest wraps around it repeats the address.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn parse_max_age(value: &str) -> Option<Duration> {
    let directives = || {
        value
            .split(',')
            .map(|part| part.trim().to_ascii_lowercase())
    };
    if directives().any(|part| part == "no-cache" || part == "no-store") {
        return Some(Duration::ZERO);
    }
    let seconds = directives().find_map(|part| {
        part.strip_prefix("max-age=")?
            .trim_matches('"')
            .parse()
            .ok()
    })?;
    Some(Duration::from_secs(seconds))
}

fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// The size of the whole, from an answer that has no such range.
fn parse_unsatisfied_range(value: &str) -> Option<u64> {
    value.strip_prefix("bytes */")?.parse().ok()
}

fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value)
            .ok()
            .map(|at| at.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fake_upstream::{Crate, FakeUpstream, entry_path};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_dial_ends_no_request_that_an_older_connection_still_answers() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fake = FakeUpstream::builder().tls().start();
        for name in ["left", "right"] {
            fake.publish(Crate::new(name, "1.0.0"));
        }
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), fake.ca_pem()).unwrap();
        let options = UpstreamOptions {
            dial_timeout: Duration::from_secs(5),
            ca_file: Some(ca.path().to_owned()),
            redirect_hosts: Vec::new(),
        };
        let ask = |name| Get {
            url: Url::parse(fake.base_url())
                .unwrap()
                .join(&entry_path(name))
                .unwrap(),
            validators: Validators::default(),
            offset: 0,
            range: None,
            compressible: false,
            read_timeout: Duration::from_secs(20),
        };
        let upstream = Arc::new(Upstream::new(options, []).unwrap());
        upstream.get(&ask("left")).await.unwrap();

        let gate = fake.gate(&entry_path("left"));
        let (sent, asked) = (upstream.clone(), ask("left"));
        let sent = tokio::spawn(async move { sent.get(&asked).await });
        while fake.requests_for(&entry_path("left")) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(origins::SAME_DIAL_WINDOW * 2).await;
        // As when upstream said that it takes nothing new on that connection.
        *upstream.clients() = Clients::default();
        fake.drop_connections(1);
        let failed = upstream.get(&ask("right")).await;
        assert!(
            matches!(&failed, Err(failure) if matches!(failure.kind, FailureKind::Unreachable { .. })),
            "{failed:?}"
        );
        tokio::time::sleep(origins::SAME_DIAL_WINDOW).await;
        assert!(!sent.is_finished(), "the request that was sent has ended");
        gate.open();
        let sent = sent.await.unwrap();
        assert!(matches!(sent, Ok(Reply::Body(_))), "{sent:?}");
        assert_eq!(fake.requests_for(&entry_path("left")), 2);
    }

    #[test]
    fn freshness_and_ranges_are_read_from_headers() {
        assert_eq!(
            parse_max_age("public,max-age=600"),
            Some(Duration::from_secs(600))
        );
        assert_eq!(parse_max_age("public"), None);
        assert_eq!(parse_max_age("no-cache, max-age=5"), Some(Duration::ZERO));
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(
            parse_retry_after("7", SystemTime::UNIX_EPOCH),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            parse_retry_after("Thu, 01 Jan 1970 00:00:05 GMT", SystemTime::UNIX_EPOCH),
            Some(Duration::from_secs(5))
        );
    }

    /// A server that answers one request with this, and its address.
    fn answer_once(answer: String) -> Url {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut client, _) = server.accept().unwrap();
            let read = client.read(&mut [0; 4096]).unwrap();
            assert!(read > 0);
            client.write_all(answer.as_bytes()).unwrap();
        });
        Url::parse(&url).unwrap()
    }

    fn ask(url: Url, offset: u64) -> Get {
        Get {
            url,
            validators: Validators::default(),
            offset,
            range: None,
            compressible: false,
            read_timeout: Duration::from_secs(10),
        }
    }

    #[tokio::test]
    async fn a_failure_behind_a_redirect_is_the_fault_of_the_host_it_led_to() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let led_to = format!("http://{}/", gone.local_addr().unwrap());
        drop(gone);
        let asked = answer_once(format!(
            "HTTP/1.1 302 Found\r\nlocation: {led_to}\r\ncontent-length: 0\r\n\r\n"
        ));
        let led_to = Url::parse(&led_to).unwrap();
        let upstream = upstream(&[&asked, &led_to]);
        let failure = upstream.get(&ask(asked, 0)).await.unwrap_err();
        assert_eq!(failure.origin, Origin::from(&led_to), "{failure}");
    }

    #[tokio::test]
    async fn a_rest_of_no_bytes_is_an_empty_body_and_another_size_is_not() {
        let beyond = |size| {
            answer_once(format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{size}\r\ncontent-length: 4\r\n\r\noops"
            ))
        };
        let upstream = upstream(&[]);
        let reply = upstream.get(&ask(beyond(5), 5)).await.unwrap();
        let Reply::Body(mut rest) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!((rest.is_partial, rest.total), (true, Some(5)));
        assert_eq!(rest.chunk().await, Ok(None));
        for (size, offset) in [(9, 5), (0, 0)] {
            let reply = upstream.get(&ask(beyond(size), offset)).await;
            assert!(
                matches!(&reply, Err(failure) if matches!(failure.kind, FailureKind::Unrecognised { .. })),
                "{reply:?}"
            );
        }
    }

    fn upstream(configured: &[&Url]) -> Upstream {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = UpstreamOptions {
            dial_timeout: Duration::from_secs(1),
            ca_file: None,
            redirect_hosts: vec!["cdn.example".into(), "10.0.0.7:81".into()],
        };
        Upstream::new(options, configured.iter().copied()).unwrap()
    }

    #[track_caller]
    fn check_redirect(from: &str, to: &str, expected: bool) {
        let configured = [
            Url::parse("https://index.example/").unwrap(),
            Url::parse("http://127.0.0.1:80/").unwrap(),
        ];
        let upstream = upstream(&configured.each_ref());
        for named in ["http://192.168.0.9:82/", "https://dl.example/"] {
            upstream.allow(&Url::parse(named).unwrap());
        }
        let from = Url::parse(from).unwrap();
        assert_eq!(
            upstream.may_follow(&from, &from, &Url::parse(to).unwrap()),
            expected,
            "{from} {to}"
        );
    }

    #[test]
    fn hosts_that_upstreams_name_are_remembered_and_the_oldest_forgotten() {
        let from = Url::parse("https://index.example/").unwrap();
        let upstream = upstream(&[&from]);
        let named = |number| Url::parse(&format!("https://dl-{number}.example/")).unwrap();
        for number in 0..=MAX_NAMED_ORIGINS {
            upstream.allow(&named(number));
            upstream.allow(&named(number));
        }
        let may_follow = |number| upstream.may_follow(&from, &from, &named(number));
        assert!(!may_follow(0));
        assert!((1..=MAX_NAMED_ORIGINS).all(may_follow));
    }

    #[test]
    fn t33_redirects_stay_within_configured_hosts_and_never_lose_tls() {
        check_redirect("https://index.example/a", "https://index.example/b", true);
        check_redirect("https://index.example/a", "https://cdn.example/b", true);
        check_redirect("https://index.example/a", "https://other.example/b", false);
        check_redirect("https://index.example/a", "http://index.example/b", false);
        check_redirect("http://127.0.0.1/a", "http://127.0.0.1:8080/b", false);
        check_redirect("https://index.example/a", "ftp://index.example/b", false);
        check_redirect("https://index.example/a", "https://dl.example/b", true);
        check_redirect("http://other.example:80/a", "https://other.example/b", true);
    }

    #[test]
    fn nobody_outside_sends_larder_to_an_address_inside() {
        for to in [
            "http://127.0.0.1:81/",
            "http://2130706433:81/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.7]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://10.0.0.7/",
            "http://169.254.169.254/",
            "http://172.16.0.1/",
            "http://192.168.0.9:82/",
            "http://localhost/",
        ] {
            check_redirect("http://index.example/a", to, false);
        }
        check_redirect("http://index.example/a", "http://127.0.0.1:80/", true);
        // What the user or somebody inside named, to the port.
        check_redirect("http://index.example/a", "http://10.0.0.7:81/", true);
        check_redirect("http://127.0.0.1/a", "http://192.168.0.9:82/", true);
        check_redirect("http://127.0.0.1/a", "http://192.168.0.9:83/", false);
        check_redirect("http://10.0.0.8/a", "http://10.0.0.8/b", true);
        check_redirect("http://10.0.0.8:81/a", "https://10.0.0.8/b", false);
    }
}
