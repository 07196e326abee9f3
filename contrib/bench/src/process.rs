//! Other people's servers: which port they get, and when they are ready.
//!
//! How each is set up is left to who starts it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long start and stop may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A loopback address that is free for now; whoever takes it meanwhile makes the server fail, which is seen.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("there is a free port")
}

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
