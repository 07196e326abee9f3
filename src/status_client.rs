//! Finds the running daemon and asks it for its status.
//!
//! A daemon announces its addresses and its process in the store ([`crate::commands::serve`]). The daemon of a store is
//! the one that answers `/-/status.json` at an announced address, within [`STATUS_TIMEOUT`], as the process that was
//! announced. Another daemon, with another store, may listen at a configured address. [`probe`] tells what answers
//! where a client looks for larder, also through the client's proxy. Never contacts upstream by itself.

use std::{io, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

/// Time limit for one address.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for the answer of a proxy.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const MAX_REPLY_BYTES: usize = 8 << 20;
/// Port of proxies that name none, as in curl.
const CURL_PROXY_PORT: u16 = 1080;

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
    let url = Url::parse(base).ok()?.join("/-/status.json").ok()?;
    let reply = exchange(&url, None).await.ok()?;
    serde_json::from_slice(&reply.body).ok()
}

/// A server's answer.
#[derive(Clone, Debug)]
pub struct ProbeReply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl ProbeReply {
    /// The status, and the first line of a text.
    pub fn summary(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() && !line.starts_with('<') => {
                let line: String = line.chars().take(200).collect();
                format!("status {}: {line}", self.status)
            }
            Some(_) | None => format!("status {}", self.status),
        }
    }
}

/// The server at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// larder, with its `/-/status.json`.
    Larder(Value),
    /// Another server, or one that refuses. The text says what it answers.
    Other(String),
    /// No connection. The text says why.
    Unreachable(String),
}

/// Asks the server at an http base address, ending in `/`, for larder's status, directly or through a proxy.
pub async fn probe(base: &Url, proxy: Option<&Url>) -> Probe {
    let reply = match base.join("-/status.json") {
        Ok(url) => get(&url, proxy).await,
        Err(error) => Err(error.to_string()),
    };
    match reply {
        Err(why) => Probe::Unreachable(why),
        Ok(reply) => match serde_json::from_slice::<Value>(&reply.body) {
            Ok(status) if status["pid"].is_u64() && status["version"].is_string() => {
                Probe::Larder(status)
            }
            Ok(_) | Err(_) => Probe::Other(reply.summary()),
        },
    }
}

/// One GET of an http address, directly or through a proxy.
///
/// # Errors
/// In words, if there is no answer within a time limit.
pub async fn get(url: &Url, proxy: Option<&Url>) -> Result<ProbeReply, String> {
    let limit = match proxy {
        None => STATUS_TIMEOUT,
        Some(_) => PROXY_TIMEOUT,
    };
    let reply = timeout(limit, exchange(url, proxy)).await;
    reply.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

async fn exchange(url: &Url, proxy: Option<&Url>) -> Result<ProbeReply, String> {
    let text = |error: hyper::Error| error.to_string();
    let server = proxy.unwrap_or(url);
    let host = server.host_str().ok_or("the address has no host")?;
    let port = server
        .port_or_known_default()
        .or(proxy.map(|_| CURL_PROXY_PORT))
        .ok_or("the address has no port")?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = tokio::net::lookup_host((name, port)).await;
    let addresses: Vec<_> = addresses
        .map_err(|_| format!("the name {host} is not known"))?
        .collect();
    let stream = TcpStream::connect(&*addresses).await;
    let stream = stream.map_err(|error| connect_error(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection);
    let target = match proxy {
        None => &url[url::Position::BeforePath..],
        Some(_) => url.as_str(),
    };
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::get(target).header(header::HOST, authority);
    if let Some(proxy) = proxy.filter(|proxy| !proxy.username().is_empty()) {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let password = decoded(proxy.password().unwrap_or_default());
        let user = format!("{}:{password}", decoded(proxy.username()));
        let value = format!("Basic {}", BASE64_STANDARD.encode(user));
        request = request.header(header::PROXY_AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(ProbeReply {
        status,
        body: body.to_bytes(),
    })
}

fn connect_error(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "nothing listens there".to_owned();
    }
    error.to_string()
}
