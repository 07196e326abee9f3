//! Waits for the servers that larder is compared with.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// Time limit of a server's start and stop on a loaded machine.
pub(crate) const START_STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until the server accepts connections.
///
/// # Panics
/// If it exits or takes too long. The message contains its log.
pub(crate) fn wait_until_listening(server: &mut Child, address: SocketAddr, log: &Path) {
    let deadline = Instant::now() + START_STOP_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        let ended = server.try_wait().ok().flatten();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "nothing listens at {address}: {ended:?}\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
