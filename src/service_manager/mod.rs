//! The exchange with a service manager such as systemd: it passes listening sockets, and gets notifications.
//!
//! ```text
//!   systemd    holds the sockets ── a connection comes ──> starts the daemon, passes the sockets
//!   daemon     READY=1 ── serves ── STOPPING=1 ── finishes the requests that it has accepted, ends
//!   systemd    holds the sockets; connections wait in the system's queue ──> starts the next daemon
//! ```
//!
//! A daemon that ends closes only its copies of the sockets, so no connection is refused in between. The protocol is
//! that of `sd_listen_fds(3)` and `sd_notify(3)`; without its variables, nothing here has an effect.
//!
//! A socket is for clients of the registry, or for clients of the intercepting proxy. Its unit says which by
//! `FileDescriptorName=`; see [`SocketPurpose::of`].

pub mod units;

use std::{
    ffi::OsStr,
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::warn;

/// A listening socket that the service manager has passed.
#[derive(Debug)]
pub struct PassedSocket {
    /// The socket.
    pub listener: TcpListener,
    /// `FileDescriptorName=` of its unit. By default systemd passes the name of the unit.
    pub name: Option<String>,
}

/// The clients of a passed socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketPurpose {
    /// Clients of the registry and of the dist server.
    Http,
    /// Clients of the intercepting proxy.
    Proxy,
}

impl SocketPurpose {
    /// The purpose of a socket with this name at this address. One without a name is for the proxy if it is at the
    /// `proxy` address of the settings, and otherwise for HTTP. `None` if the name is unknown.
    pub fn of(name: Option<&str>, address: SocketAddr, proxy: Option<SocketAddr>) -> Option<Self> {
        match name.unwrap_or_default() {
            "http" => Some(Self::Http),
            "proxy" => Some(Self::Proxy),
            // `unknown` is that of `sd_listen_fds_with_names(3)`.
            name if name.is_empty() || name == "unknown" || name.ends_with(".socket") => {
                Some(match proxy == Some(address) {
                    true => Self::Proxy,
                    false => Self::Http,
                })
            }
            _ => None,
        }
    }
}

/// Takes the listening sockets that the service manager has passed, none if there is no service manager; `names` is the
/// value of `LISTEN_FDNAMES`. To be called once, before the process has threads: it removes the variables, so that no
/// child process takes them for its own.
///
/// # Errors
/// A passed descriptor is no TCP socket, or is a connection.
pub fn take_sockets(names: Option<&OsStr>) -> io::Result<Vec<PassedSocket>> {
    let names = names.unwrap_or_default();
    let names = names.to_string_lossy();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..passed.len() {
        let name = names.next().map(str::to_owned);
        let Some(socket) = passed.take_tcp_listener(at)? else {
            continue;
        };
        // A unit with `Accept=yes` passes connections.
        if rustix::net::getpeername(&socket).is_ok() {
            return Err(io::Error::other("it is a connection"));
        }
        socket.set_nonblocking(true)?;
        sockets.push(PassedSocket {
            listener: socket,
            name,
        });
    }
    Ok(sockets)
}

/// Tells the service manager that clients are served, and how.
pub fn notify_ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells the service manager that the process ends soon.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        warn!(%error, "cannot tell the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purpose_of_a_socket_is_its_name_or_without_one_its_address() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let proxy = at("127.0.0.1:3264");
        let purpose =
            |name: Option<&str>, address: &str| SocketPurpose::of(name, at(address), Some(proxy));
        let (http, of_proxy) = (Some(SocketPurpose::Http), Some(SocketPurpose::Proxy));
        assert_eq!(purpose(Some("http"), "127.0.0.1:3264"), http);
        assert_eq!(purpose(Some("proxy"), "127.0.0.1:1"), of_proxy);
        for unnamed in [None, Some(""), Some("unknown"), Some("larder.socket")] {
            assert_eq!(purpose(unnamed, "127.0.0.1:3263"), http, "{unnamed:?}");
            assert_eq!(purpose(unnamed, "127.0.0.1:3264"), of_proxy, "{unnamed:?}");
            assert_eq!(SocketPurpose::of(unnamed, proxy, None), http);
        }
        for unknown in ["htpp", "Proxy", "stored"] {
            assert_eq!(purpose(Some(unknown), "127.0.0.1:3263"), None, "{unknown}");
        }
    }
}
