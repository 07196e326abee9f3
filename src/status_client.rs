//! Finds the running daemon and asks it for its status.
//!
//! A daemon announces its addresses and its process in the store ([`crate::commands::serve`]). The daemon of a store is
//! the one that answers `/-/status.json` at an announced address, within [`STATUS_TIMEOUT`], as the process that was
//! announced. Another daemon, with another store, may listen at a configured address. Never contacts upstream.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

/// Time limit for one address.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A daemon that answered.
#[derive(Clone, Debug)]
pub struct RunningDaemon {
    /// Its base address, ending in `/`.
    pub address: String,
    /// Its `/-/status.json`.
    pub status: Value,
}

/// The first daemon that answers at one of these base addresses as the process beside it.
pub async fn find_announced(addresses: Vec<(String, u32)>) -> Option<RunningDaemon> {
    for (address, pid) in addresses {
        if let Some(daemon) = daemon_at(address).await
            && daemon.status["pid"] == pid
        {
            return Some(daemon);
        }
    }
    None
}

/// The first daemon that answers at one of these base addresses, whatever its store.
pub async fn find_any(addresses: Vec<String>) -> Option<RunningDaemon> {
    for address in addresses {
        if let Some(daemon) = daemon_at(address).await {
            return Some(daemon);
        }
    }
    None
}

async fn daemon_at(address: String) -> Option<RunningDaemon> {
    let status = timeout(STATUS_TIMEOUT, get_status(&address)).await;
    let status = status.ok().flatten()?;
    Some(RunningDaemon { address, status })
}

async fn get_status(base: &str) -> Option<Value> {
    let base = Url::parse(base).ok()?;
    let address = base.socket_addrs(|| None).ok()?;
    let stream = TcpStream::connect(&*address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let host = format!("{}:{}", base.host_str()?, base.port_or_known_default()?);
    let request = Request::get("/-/status.json")
        .header("host", host)
        .body(Empty::<Bytes>::new())
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    let body = response.into_body().collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
