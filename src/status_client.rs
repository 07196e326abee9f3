//! Asks the running daemon about itself, on loopback or wherever it was announced. Never asks upstream.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

/// How long a living daemon may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The daemon's own account of itself, if one answers at `base`.
pub async fn status(base: &str) -> Option<serde_json::Value> {
    timeout(PATIENCE, get(base, "/-/status.json")).await.ok()?
}

async fn get(base: &str, path: &str) -> Option<serde_json::Value> {
    let base = Url::parse(base).ok()?;
    let address = base.socket_addrs(|| None).ok()?;
    let stream = TcpStream::connect(&*address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let host = format!("{}:{}", base.host_str()?, base.port_or_known_default()?);
    let request = Request::get(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())
        .ok()?;
    let body = sender
        .send_request(request)
        .await
        .ok()?
        .into_body()
        .collect()
        .await
        .ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
