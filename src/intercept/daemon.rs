//! A running daemon that answers for `larder run`: the same requests, by upstream's addresses, over HTTP/2 on loopback
//! (`crate::server` says how it recognises them).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

#[cfg(test)]
use crate::resource::{Dist, Registries, dist::ArchiveFormat};
use crate::resource::{Registry, RegistryConfig, Resource, Source, Upstreams, registry};

/// Time limit for connecting to the daemon.
const DAEMON_DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for the `config.json` of all registries at the start. The daemon may wait for upstream longer; then
/// larder does without it.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control window of a stream and of the connection, in bytes: copying on loopback should not wait.
const WINDOW: u32 = 4 << 20;

type Sender = http2::SendRequest<Empty<Bytes>>;

/// The daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No connection.
    #[error("cannot connect to the daemon at {address}: {source}")]
    Dial {
        /// Its address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the daemon did not answer: {0}")]
    Http(#[from] hyper::Error),
}

/// Asks one daemon.
#[derive(Debug)]
pub struct DaemonClient {
    address: SocketAddr,
    upstreams: Upstreams,
    /// The body of upstream's `config.json` of each registry that has one.
    configs: Vec<(Arc<Registry>, Bytes)>,
    sender: Mutex<Option<Sender>>,
}

impl DaemonClient {
    /// A client of the daemon at `address`, with the configs that it has. `None` if the daemon does not answer requests
    /// by upstream's addresses: it is an older one, or has other upstreams.
    pub async fn connect(address: SocketAddr, upstreams: Upstreams) -> Option<Self> {
        let mut client = Self {
            address,
            upstreams,
            configs: Vec::new(),
            sender: Mutex::default(),
        };
        // Otherwise each request would open a connection.
        client.sender().await.ok()?;
        let registries: Vec<_> = client.upstreams.registries.iter().cloned().collect();
        let asked = registries.into_iter().filter_map(|registry| {
            let Source::At(url) = RegistryConfig::of(&registry).source() else {
                return None;
            };
            let client = &client;
            Some(async move { (registry, client.config(&url).await) })
        });
        let answers = timeout(CONFIG_TIMEOUT, join_all(asked)).await.ok()?;
        for (registry, config) in answers {
            match config {
                Some(Ok(body)) => client.configs.push((registry, body)),
                // It knows the registry and has no config.
                Some(Err(status)) if is_trouble(status) => {}
                Some(Err(_)) | None => return None,
            }
        }
        Some(client)
    }

    /// A client of a daemon that does not run.
    #[cfg(test)]
    pub(super) fn unconnected() -> Self {
        let url = |text: &str| Url::parse(text).expect("a valid address");
        let server = url("https://dist.example/");
        Self {
            address: ([127, 0, 0, 1], 1).into(),
            upstreams: Upstreams {
                advisories: None,
                registries: Registries::new(url("https://index.example/"), []),
                dist: Dist::new(server.clone(), server, ArchiveFormat::default()),
            },
            configs: Vec::new(),
            sender: Mutex::default(),
        }
    }

    /// The config at `url`, or the status of another answer.
    async fn config(&self, url: &Url) -> Option<Result<Bytes, StatusCode>> {
        let response = self.send(url, Request::new(())).await.ok()?;
        if response.status() != StatusCode::OK {
            return Some(Err(response.status()));
        }
        let body = response.into_body().collect().await.ok()?;
        Some(Ok(body.to_bytes()))
    }

    /// The body of upstream's `config.json` of each registry that has one.
    pub fn configs(&self) -> &[(Arc<Registry>, Bytes)] {
        &self.configs
    }

    /// The resource at `url`, if larder has it.
    pub fn resource_at(&self, url: &Url) -> Option<Resource> {
        let crates = || {
            let mut configs = self.configs.iter();
            configs.find_map(|(registry, config)| registry::crate_at(registry, config, url))
        };
        self.upstreams.at(url).or_else(crates)
    }

    /// Sends a request for `url`, with the method and the headers of `head`. Tries twice: a service manager may start a
    /// daemon that has stopped again.
    ///
    /// # Errors
    /// The daemon is gone.
    pub async fn send(
        &self,
        url: &Url,
        head: Request<()>,
    ) -> Result<Response<Incoming>, DaemonError> {
        match self.send_once(url, head.clone()).await {
            Err(_) => self.send_once(url, head).await,
            sent => sent,
        }
    }

    async fn send_once(
        &self,
        url: &Url,
        head: Request<()>,
    ) -> Result<Response<Incoming>, DaemonError> {
        let (mut parts, ()) = head.into_parts();
        parts.version = Version::HTTP_2;
        parts.headers.remove(http::header::HOST);
        // An address of the `url` crate is one of `http` as well.
        parts.uri = url.as_str().parse().unwrap_or_default();
        let request = Request::from_parts(parts, Empty::new());
        let mut sender = self.sender().await?;
        Ok(sender.send_request(request).await?)
    }

    /// The open connection, or a new one.
    async fn sender(&self) -> Result<Sender, DaemonError> {
        let open = self.sender.lock().clone();
        if let Some(sender) = open.filter(|sender| !sender.is_closed()) {
            return Ok(sender);
        }
        let failed = |source| DaemonError::Dial {
            address: self.address,
            source,
        };
        let stream = timeout(DAEMON_DIAL_TIMEOUT, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        let stream = stream.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        *self.sender.lock() = Some(sender.clone());
        Ok(sender)
    }
}

/// True for the statuses with which larder says that it cannot get a resource.
fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::FAILED_DEPENDENCY | StatusCode::FORBIDDEN
        )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::{server, service::service_fn};
    use tokio::{net::TcpListener, sync::Barrier};

    use super::*;

    /// A daemon without configs that answers two requests at a time.
    async fn serve_in_pairs(listener: TcpListener) {
        let barrier = Arc::new(Barrier::new(2));
        while let Ok((stream, _)) = listener.accept().await {
            let barrier = barrier.clone();
            let service = service_fn(move |_| {
                let barrier = barrier.clone();
                async move {
                    barrier.wait().await;
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    }

    #[tokio::test]
    async fn all_registries_are_asked_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_in_pairs(listener));
        let index = |host: &str| Url::parse(&format!("https://{host}/")).unwrap();
        let corp = ("corp".to_owned(), index("corp.example"));
        let upstreams = Upstreams {
            registries: Registries::new(index("index.example"), [corp]),
            ..DaemonClient::unconnected().upstreams
        };
        let client = DaemonClient::connect(address, upstreams).await;
        assert!(client.unwrap().configs().is_empty());
    }
}
