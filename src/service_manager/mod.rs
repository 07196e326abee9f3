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

pub mod units;

use std::{io, net::TcpListener};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::warn;

/// Takes the listening sockets that the service manager has passed, none if there is no service manager. To be called
/// once, before the process has threads: it removes the variables, so that no child process takes them for its own.
///
/// # Errors
/// A passed descriptor is no TCP socket, or is a connection.
pub fn take_sockets() -> io::Result<Vec<TcpListener>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..passed.len() {
        let Some(socket) = passed.take_tcp_listener(at)? else {
            continue;
        };
        // A unit with `Accept=yes` passes connections.
        if rustix::net::getpeername(&socket).is_ok() {
            return Err(io::Error::other("it is a connection"));
        }
        socket.set_nonblocking(true)?;
        sockets.push(socket);
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
