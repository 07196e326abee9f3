//! HTTP client for upstreams: one GET request in, one [`Reply`] or [`Failure`] out. The only user of reqwest.
//!
//! ```text
//!  Upstream::get(Get)                                          request.rs: the headers
//!    │
//!    ├─> range of a large body? ──── yes ──> HTTP/1.1 connection of its own
//!    │     no                                                  pool.rs: clients; request_limits.rs: permits
//!    ├─> https, HTTP/2 not ruled out? ─ yes ─> shared HTTP/2 connection ──┐   slots.rs: which connection
//!    │     no                                                             │ it speaks HTTP/1.1 only
//!    ├─> HTTP/1.1 or HTTP/2, as TLS negotiates <──────────────────────────┘
//!    │                                                         origins.rs: protocol by origin, failed dials
//!    ├─> a redirect? follow it within the known hosts          redirect.rs
//!    │
//!    └─> Reply: 304, or a body that is read chunk by chunk     response.rs, lifetime.rs
//!        Failure: origin and kind                              failure.rs, diagnostics.rs, retry.rs
//! ```
//!
//! Every request has time limits: one for the dial (`UpstreamOptions::dial_timeout`), one for the head and for each
//! chunk ([`Get::read_timeout`]). Concurrent requests to an origin wait for the same dial, and learn together if it
//! fails: one time limit passes, not one per request.
//!
//! A [`Relay`] passes requests that larder does not answer itself on to the server that the client asked for.
//!
//! This module sends a request once. Retries, hashes, and what a reply means for the store are the cache's: it asks
//! [`retry_delay`] and keeps the circuit breakers.

mod diagnostics;
mod failure;
mod lifetime;
mod origin;
mod origins;
mod pool;
mod proxy;
mod received;
mod redirect;
mod relay;
mod request;
mod request_limits;
mod response;
mod retry;
mod slots;

use std::{
    collections::{BTreeMap, HashSet},
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::{Certificate, Response, Version};
use url::Url;

use origins::{HttpVersion, OriginEvent, OriginWatcher, Origins};
use pool::{ClientProtocol, ConnectionPool};
use received::ReceivedBytes;
use redirect::{MAX_REDIRECTS, RedirectPolicy, redirect_target};
use request_limits::{Http1Permit, RequestLimits};
use slots::Http2Slots;

use crate::files::{self, MAX_CERTIFICATES_BYTES};

pub use diagnostics::Diagnostics;
pub use failure::{Failure, FailureKind};
pub use origin::Origin;
pub use proxy::ProxyVariables;
pub use relay::{ByteStream, Relay, TunnelError};
pub use request::{Get, RangeRequest};
pub use response::{Coding, Reply, UpstreamBody};
pub use retry::retry_delay;

/// Settings of the client.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// Time limit of a dial: name lookup, TCP and TLS.
    pub dial_timeout: Duration,
    /// Root certificates besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Hosts besides the configured ones that redirects may lead to, each with a port or for all ports.
    pub redirect_hosts: Vec<String>,
    /// Proxies of the environment, or the one that replaces them.
    pub proxies: ProxyVariables,
    /// Concurrent requests over HTTP/1.1 to one origin, at least one.
    pub http1_requests: usize,
    /// Requests a second to all origins; `None` or 0 for no limit.
    pub rate: Option<u32>,
}

#[cfg(test)]
impl UpstreamOptions {
    /// The settings of a test's client, with this time limit of a dial. Installs the process's TLS provider.
    pub(crate) fn for_test(dial_timeout: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            dial_timeout,
            ca_file: None,
            redirect_hosts: Vec::new(),
            proxies: ProxyVariables::default(),
            http1_requests: 100,
            rate: None,
        }
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with root certificates cannot be read.
    #[error("cannot read the root certificates in {}", .path.display())]
    ReadRoots {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file has no root certificate.
    #[error("no PEM certificate in {}", .path.display())]
    NoRoots {
        /// The file.
        path: PathBuf,
    },
    /// TLS refuses the root certificates of the file.
    #[error("cannot use the root certificates in {}", .path.display())]
    UseRoots {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: reqwest::Error,
    },
    /// TLS does not work at all; most often the system has no root certificates.
    #[error("cannot set up TLS (is the package `ca-certificates` installed?)")]
    Tls {
        /// The cause.
        source: reqwest::Error,
    },
}

/// HTTP client for all upstreams. Opens no socket before the first request.
pub struct Upstream {
    options: UpstreamOptions,
    redirects: RedirectPolicy,
    pool: ConnectionPool,
    slots: Http2Slots,
    origins: Origins,
    limits: RequestLimits,
    received: ReceivedBytes,
}

/// A response head, and the permit that its body needs over HTTP/1.1.
struct SentRequest {
    response: Response,
    permit: Option<Http1Permit>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Makes a client. `configured` are the upstreams of the settings; redirects may lead to their origins.
    ///
    /// # Errors
    /// [`SetupError`] if root certificates cannot be used, or the system has none.
    pub fn new<'a>(
        options: UpstreamOptions,
        configured: impl IntoIterator<Item = &'a Url>,
    ) -> Result<Self, SetupError> {
        let roots = match &options.ca_file {
            None => Vec::new(),
            Some(path) => read_roots(path)?,
        };
        let dial_timeout = options.dial_timeout;
        let pool = ConnectionPool::new(dial_timeout, roots, options.proxies.clone()).map_err(
            |source| {
                let works_without_file = || {
                    ConnectionPool::new(dial_timeout, Vec::new(), ProxyVariables::default()).is_ok()
                };
                match &options.ca_file {
                    Some(path) if works_without_file() => SetupError::UseRoots {
                        path: path.clone(),
                        source,
                    },
                    Some(_) | None => SetupError::Tls { source },
                }
            },
        )?;
        Ok(Self {
            redirects: RedirectPolicy::new(configured, options.redirect_hosts.clone()),
            pool,
            slots: Http2Slots::default(),
            origins: Origins::default(),
            limits: RequestLimits::new(options.http1_requests, options.rate),
            received: ReceivedBytes::default(),
            options,
        })
    }

    /// Lets redirects lead to the origin of `url`, which a configured upstream named. Only the latest few are
    /// remembered.
    pub fn allow_redirects_to(&self, url: &Url) {
        self.redirects.allow(url);
    }

    /// Bytes of bodies that have been read since the start, by upstream.
    pub fn received_bytes(&self) -> BTreeMap<String, u64> {
        self.received.totals()
    }

    /// Drops all idle connections, to all origins, and what is known of HTTP versions. When an outage begins or ends,
    /// pooled connections are often dead, and a login page may have answered in upstream's place.
    pub fn reconnect(&self) {
        self.pool.reset();
        self.slots.reset();
        self.origins.reset_http_versions();
    }

    /// Sends one request, and follows redirects within the known hosts.
    ///
    /// # Errors
    /// The [`Failure`] of the origin that was asked last.
    pub async fn get(&self, get: &Get) -> Result<Reply, Failure> {
        let mut url = get.url.clone();
        let mut visited = HashSet::new();
        loop {
            let SentRequest { response, permit } = self.send(get, &url).await?;
            let Some(next) = redirect_target(&url, &response) else {
                let mut reply = response::parse_response(get, &url, response, permit).await?;
                if let Reply::Body(body) = &mut reply {
                    body.count_into(self.received.counter(Origin::from(&url)));
                }
                return Ok(reply);
            };
            let refuse = |foreign| {
                let to = Origin::from(&next);
                FailureKind::Redirected { to, foreign }.at(&url)
            };
            if !self.redirects.permits(&get.url, &url, &next) {
                return Err(refuse(true));
            }
            if visited.len() == MAX_REDIRECTS || !visited.insert(next.clone()) {
                return Err(refuse(false));
            }
            url = next;
        }
    }

    /// Sends one request over the protocol that suits it, and waits for the response head.
    async fn send(&self, get: &Get, url: &Url) -> Result<SentRequest, Failure> {
        self.limits.wait_for_turn().await;
        let origin = Origin::from(url);
        if get.range.is_some() {
            let permit = Some(self.limits.http1_permit(&origin, get).await);
            let sent = self.pool.send(ClientProtocol::Http1Only, get, url).await;
            return sent.map(|response| SentRequest { response, permit });
        }
        if url.scheme() == "https" {
            match self.origins.http_version(&origin) {
                version @ (HttpVersion::Unknown | HttpVersion::Http2) => {
                    let sent = self.send_over_http2(get, url, &origin, version).await?;
                    if let Some(response) = sent {
                        let permit = None;
                        return Ok(SentRequest { response, permit });
                    }
                }
                HttpVersion::Http1 | HttpVersion::Http2Unanswered => {}
            }
        }
        self.send_negotiated(get, url, &origin).await
    }

    /// Sends over the shared HTTP/2 connection. `None` if the origin does not speak HTTP/2, or may not: the caller then
    /// negotiates.
    async fn send_over_http2(
        &self,
        get: &Get,
        url: &Url,
        origin: &Origin,
        version: HttpVersion,
    ) -> Result<Option<Response>, Failure> {
        let slot = self.slots.take(origin);
        let mut watcher = self.origins.watch(origin, slot.index);
        let began = Instant::now();
        let dial_timeout = self.options.dial_timeout;
        let sent = tokio::select! {
            biased;
            sent = self.pool.send(ClientProtocol::Http2(slot.index), get, url) => sent,
            // The grace is as long as a dial of this request's own could take.
            event = watcher.next_event(dial_timeout) => match event {
                OriginEvent::DialFailed { failure, .. } => return Err(failure),
                OriginEvent::Http1Only => return Ok(None),
            },
        };
        let is_first = version == HttpVersion::Unknown;
        match sent {
            Ok(response) => {
                slot.set_answered(true);
                if is_first {
                    self.origins.set_http_version(origin, HttpVersion::Http2);
                }
                Ok(Some(response))
            }
            // A refusal of HTTP/2 comes soon. A late failure means that the origin is unreachable, and another attempt
            // would take the whole time limit again.
            Err(_) if is_first && began.elapsed() < dial_timeout / 2 => Ok(None),
            Err(failure) => {
                if is_first && matches!(failure.kind, FailureKind::Silent { .. }) {
                    self.origins
                        .set_http_version(origin, HttpVersion::Http2Unanswered);
                }
                if matches!(failure.kind, FailureKind::Unreachable { .. }) {
                    slot.set_answered(false);
                    self.origins
                        .fail_waiters(origin, slot.index, &failure, &watcher);
                }
                Err(failure)
            }
        }
    }

    /// Sends over a connection whose protocol TLS negotiates, and remembers which one that was.
    async fn send_negotiated(
        &self,
        get: &Get,
        url: &Url,
        origin: &Origin,
    ) -> Result<SentRequest, Failure> {
        let mut watcher = self.origins.watch(origin, 0);
        // Waits outside the read timeout: a lack of permits is not upstream's silence.
        let permit = tokio::select! {
            biased;
            permit = self.limits.http1_permit(origin, get) => permit,
            failure = first_failed_dial(&mut watcher) => return Err(failure),
        };
        let sent = self.pool.send(ClientProtocol::Negotiated, get, url).await;
        match &sent {
            Ok(response) if url.scheme() == "https" => {
                let version = if response.version() < Version::HTTP_2 {
                    HttpVersion::Http1
                } else {
                    HttpVersion::Http2
                };
                if self.origins.http_version(origin) != version {
                    self.origins.set_http_version(origin, version);
                }
            }
            Ok(_) => {}
            Err(failure) => {
                if matches!(
                    failure.kind,
                    FailureKind::Unreachable { .. } | FailureKind::Silent { .. }
                ) {
                    self.origins.fail_waiters(origin, 0, failure, &watcher);
                }
            }
        }
        let sent = sent?;
        // Over HTTP/2, bodies share a connection.
        let permit = (sent.version() < Version::HTTP_2).then_some(permit);
        Ok(SentRequest {
            response: sent,
            permit,
        })
    }
}

async fn first_failed_dial(watcher: &mut OriginWatcher) -> Failure {
    loop {
        match watcher.next_event(Duration::ZERO).await {
            OriginEvent::DialFailed { failure, .. } => return failure,
            OriginEvent::Http1Only => {}
        }
    }
}

fn read_roots(path: &Path) -> Result<Vec<Certificate>, SetupError> {
    let pem = files::read_named(path, MAX_CERTIFICATES_BYTES).map_err(|source| {
        SetupError::ReadRoots {
            path: path.to_owned(),
            source,
        }
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(roots) if !roots.is_empty() => Ok(roots),
        Ok(_) | Err(_) => Err(SetupError::NoRoots {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fake_upstream::{Crate, FakeUpstream, entry_path};

    use super::*;
    use crate::validators::Validators;

    fn upstream(configured: &[&Url], ca_file: Option<&Path>) -> Upstream {
        let options = UpstreamOptions {
            ca_file: ca_file.map(Path::to_owned),
            ..UpstreamOptions::for_test(Duration::from_secs(5))
        };
        Upstream::new(options, configured.iter().copied()).unwrap()
    }

    fn get(url: Url, offset: u64) -> Get {
        Get {
            url,
            validators: Validators::default(),
            offset,
            range: None,
            compressible: false,
            read_timeout: Duration::from_secs(20),
        }
    }

    /// The address of a server that sends `response` to one request.
    fn respond_once(response: String) -> Url {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut client, _) = server.accept().unwrap();
            let read = client.read(&mut [0; 4096]).unwrap();
            assert!(read > 0);
            client.write_all(response.as_bytes()).unwrap();
        });
        Url::parse(&url).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_dial_leaves_requests_on_older_connections_alone() {
        let fake = FakeUpstream::builder().tls().start();
        for name in ["left", "right"] {
            fake.publish(Crate::new(name, "1.0.0"));
        }
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), fake.ca_pem()).unwrap();
        let base = Url::parse(fake.base_url()).unwrap();
        let get = |name| get(base.join(&entry_path(name)).unwrap(), 0);
        let upstream = Arc::new(upstream(&[], Some(ca.path())));
        upstream.get(&get("left")).await.unwrap();

        let gate = fake.gate(&entry_path("left"));
        let (sender, request) = (upstream.clone(), get("left"));
        let waiting = tokio::spawn(async move { sender.get(&request).await });
        while fake.requests_for(&entry_path("left")) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(origins::SAME_DIAL_WINDOW * 2).await;
        // New requests need a new connection, as after a GOAWAY.
        upstream.pool.reset();
        fake.drop_connections(1);
        let failure = upstream.get(&get("right")).await.unwrap_err();
        assert!(
            matches!(failure.kind, FailureKind::Unreachable { .. }),
            "{failure:?}"
        );
        tokio::time::sleep(origins::SAME_DIAL_WINDOW).await;
        assert!(!waiting.is_finished(), "the earlier request has ended");
        gate.open();
        let reply = waiting.await.unwrap();
        assert!(matches!(reply, Ok(Reply::Body(_))), "{reply:?}");
        assert_eq!(fake.requests_for(&entry_path("left")), 2);
    }

    #[tokio::test]
    async fn a_failure_after_a_redirect_names_the_redirects_target() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("http://{}/", closed.local_addr().unwrap());
        drop(closed);
        let requested = respond_once(format!(
            "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
        ));
        let target = Url::parse(&target).unwrap();
        let upstream = upstream(&[&requested, &target], None);
        let failure = upstream.get(&get(requested, 0)).await.unwrap_err();
        assert_eq!(failure.origin, Origin::from(&target), "{failure}");
    }

    #[tokio::test]
    async fn a_range_that_begins_at_the_end_is_an_empty_body_if_the_size_fits() {
        let beyond = |size| {
            respond_once(format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */{size}\r\ncontent-length: 4\r\n\r\noops"
            ))
        };
        let upstream = upstream(&[], None);
        let reply = upstream.get(&get(beyond(5), 5)).await.unwrap();
        let Reply::Body(mut rest) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!((rest.is_partial, rest.total), (true, Some(5)));
        assert_eq!(rest.chunk().await, Ok(None));
        for (size, offset) in [(9, 5), (0, 0)] {
            let failure = upstream.get(&get(beyond(size), offset)).await.unwrap_err();
            assert!(
                matches!(failure.kind, FailureKind::Unrecognised { .. }),
                "{failure:?}"
            );
        }
    }
}
