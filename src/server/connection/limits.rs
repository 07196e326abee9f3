//! Time limits of a connection, and the errors that end it.
//!
//! ```text
//!   connected ── first_bytes ──> protocol known ── first_bytes ──> HTTP/2 open
//!   HTTP/1: previous answer done ── request_head ──> next request head complete
//!   answer under way: write_stall without progress ──> connection dropped
//!   shutdown ── drain ──> dropped, unless a request is in flight
//! ```

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// Time limits for clients that make no progress, and the number of streams.
///
/// `idle` checks most limits four times per limit, so a limit takes effect up to half of it late.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From connecting until the protocol is known, and again from the preface or the 101 until HTTP/2 is open. Ten
    /// seconds: each takes one round trip, so that only lost packets need more.
    pub first_bytes: Duration,
    /// From the end of an answer until the next HTTP/1 request head is complete. Idle connections, HTTP/2 included,
    /// close after it. A minute: cargo reuses a connection within one command only.
    pub request_head: Duration,
    /// Longest time in which a client reads nothing of a pending answer. A minute: cargo itself gives up after 30 s
    /// (docs/client-behaviour.md, C-16).
    pub write_stall: Duration,
    /// During shutdown, time for a connection without a request in flight. A first request that is in transit still
    /// gets its answer, because cargo does not retry when a connection closes before the first byte of a response
    /// (C-15). An HTTP/2 client acknowledges GOAWAY within it. One second: a round trip.
    pub drain: Duration,
    /// Concurrent requests on one HTTP/2 connection. libcurl uses at most 100 of any offer; other clients use more.
    pub h2_streams: u32,
    /// Bytes that an HTTP/2 client may send besides those for its requests and for what it receives. More is a flood.
    /// `u64::MAX` for a service that takes bodies, and for no limit of cancelled requests.
    pub http2_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_bytes: Duration::from_secs(10),
            request_head: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            drain: Duration::from_secs(1),
            h2_streams: 256,
            http2_free_bytes: 256 << 10,
        }
    }
}

/// The reason why a connection ended early. Only the log shows it: the client is gone by then.
#[derive(Debug)]
pub enum ConnectionError {
    /// First bytes, a request head or the HTTP/2 opening did not arrive in time. Idle HTTP/1 connections end with it
    /// too.
    RequestTimeout,
    /// The client read nothing of an answer for [`Limits::write_stall`].
    WriteTimeout,
    /// The socket failed before the protocol was known.
    Socket(io::Error),
    /// The client misused HTTP/2.
    Abuse(Abuse),
    /// The client disconnected within an exchange or broke the protocol, or an answer's body failed.
    Http(hyper::Error),
}

/// A misuse of HTTP/2 that costs much and asks for little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Many bytes for few requests: a flood of PING, SETTINGS or other frames.
    Flood,
    /// Many requests that are cancelled at once ("rapid reset").
    Resets,
    /// Resets, CONTINUATION frames, header lists or small frames beyond h2's own limits.
    RefusedByH2,
}

impl Abuse {
    /// The reason why h2 ended the connection, if that was an excess.
    pub(super) fn refused_by_h2(error: &hyper::Error) -> Option<Self> {
        let error = error.source()?.downcast_ref::<h2::Error>()?;
        let is_excess = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && !error.is_remote();
        is_excess.then_some(Self::RefusedByH2)
    }
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flood => "it sent many bytes and asked for little",
            Self::Resets => "it cancelled too many requests",
            Self::RefusedByH2 => "it exceeded a limit of the protocol's implementation",
        })
    }
}

impl Error for Abuse {}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestTimeout => f.write_str("the client sent no complete request in time"),
            Self::WriteTimeout => f.write_str("the client stopped reading an answer"),
            Self::Socket(_) => f.write_str("the socket failed"),
            Self::Abuse(_) => f.write_str("the client misused HTTP/2"),
            Self::Http(_) => f.write_str("the exchange failed"),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::RequestTimeout | Self::WriteTimeout => None,
            Self::Socket(cause) => Some(cause),
            Self::Abuse(cause) => Some(cause),
            Self::Http(cause) => Some(cause),
        }
    }
}
