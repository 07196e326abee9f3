//! Where disk work may block.

use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work here, after giving what else this thread would do to others, where there are any.
pub(super) fn in_blocking_section<T>(work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if let Ok(RuntimeFlavor::MultiThread) = runtime {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Runs disk work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(io::Error::other(died)))
}
