//! How long a client may stand still, and the error when it stood still for longer.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// How long a client may stand still.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until it is known which protocol a new connection speaks, and likewise until HTTP/2 is open, counted from the
    /// preface or the 101. Ten seconds: both take one round trip, so only a lost packet or two needs more.
    pub first_bytes: Duration,
    /// For a whole HTTP/1 request head, counted from the end of the answer before: also how long an idle connection is
    /// kept, in HTTP/2 too. A minute: cargo reuses a connection within one command only.
    pub request_head: Duration,
    /// For a client to take anything of an answer. A minute: cargo itself gives up after half of it.
    pub write_stall: Duration,
    /// When stopping, for a connection on which no request is under way, or half of one. A first request that is on its way is still
    /// answered, because a connection closed without any answer is the one failure that cargo does not retry. An HTTP/2
    /// client needs it to acknowledge the end; one that does not listen is not waited for. One second: a round trip.
    pub drain: Duration,
    /// Requests at once on one HTTP/2 connection. libcurl uses no more than 100, whatever is offered; others do.
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_bytes: Duration::from_secs(10),
            request_head: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            drain: Duration::from_secs(1),
            h2_streams: 256,
        }
    }
}

/// Why a connection ended other than by agreement. Nobody but a log is interested: the client is gone.
#[derive(Debug)]
pub enum ConnectionError {
    /// No first bytes, request head or HTTP/2 opening came in time. An HTTP/1 connection that was idle ends so too.
    RequestTimeout,
    /// The client took nothing of an answer for [`Limits::write_stall`].
    WriteTimeout,
    /// The socket failed before it was known what the client speaks.
    Socket(io::Error),
    /// The client left in the middle, broke the protocol, or an answer's body failed.
    Http(hyper::Error),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot go on with a connection: ")?;
        match self {
            Self::RequestTimeout => f.write_str("the client sent no complete request in time"),
            Self::WriteTimeout => f.write_str("the client took nothing of an answer in time"),
            Self::Socket(_) => f.write_str("the socket failed"),
            Self::Http(_) => f.write_str("the exchange failed"),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::RequestTimeout | Self::WriteTimeout => None,
            Self::Socket(cause) => Some(cause),
            Self::Http(cause) => Some(cause),
        }
    }
}
