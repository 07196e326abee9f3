//! Finds the running daemon and asks it for its status.
//!
//! A daemon announces its addresses in the store ([`crate::commands::serve`]). `status` and `client print` ask each
//! announced address, those of the settings first, and then the configured addresses themselves: a daemon on another
//! store may listen there. The first that answers `/-/status.json` within [`STATUS_TIMEOUT`] is it. Never contacts
//! upstream.

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

/// The first daemon that answers at these base addresses.
pub async fn find(configured: Vec<String>, announced: Vec<String>) -> Option<RunningDaemon> {
    for address in candidates(configured, announced) {
        if let Ok(Some(status)) = timeout(STATUS_TIMEOUT, get_status(&address)).await {
            return Some(RunningDaemon { address, status });
        }
    }
    None
}

/// Announced addresses, the configured ones among them first, then all configured ones.
fn candidates(configured: Vec<String>, mut announced: Vec<String>) -> Vec<String> {
    announced.sort_by_key(|base| !configured.contains(base));
    announced.extend(configured);
    announced
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_come_first_among_the_announced() {
        let bases = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            candidates(bases(&["c"]), bases(&["a", "c", "b"])),
            ["c", "a", "b", "c"]
        );
        assert_eq!(candidates(bases(&["c"]), bases(&["a"])), ["a", "c"]);
    }
}
