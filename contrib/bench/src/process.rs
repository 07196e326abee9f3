//! Other people's servers: which port they get, and when they are ready.
//!
//! How each is set up is left to who starts it.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long start and stop may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the server accepts connections.
///
/// # Panics
/// If it ends or takes too long; with what it wrote into its log.
pub(crate) fn wait_until_it_listens(server: &mut Child, address: SocketAddr, log: &Path) {
    let deadline = Instant::now() + PATIENCE;
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
