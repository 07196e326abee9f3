//! Running disk work on threads that may wait for the disk.
//!
//! A disk can take seconds for one system call. On a runtime thread, the call would delay every connection of that
//! thread. [`blocking`] therefore runs the work on tokio's pool of blocking threads. [`in_place`] runs the work on this
//! thread and moves its other tasks away.

use std::{any::Any, io};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` on a thread for blocking work. If the runtime ends before the work has begun, the result never comes:
/// otherwise a background task could report the end of the process as a failure of the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // Boxed: tokio's task is compiled once, not for each of 50 callers.
    let work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> = Box::new(|| Box::new(work()));
    let done = tokio::task::spawn_blocking(work).await;
    match done.map(|result| result.downcast::<io::Result<T>>()) {
        Ok(Ok(result)) => *result,
        Ok(Err(_)) => Err(io::Error::other("disk work gave a result of another type")),
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Runs `work` on this thread, after moving its other tasks to another thread where the runtime has several.
pub(super) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if let Ok(RuntimeFlavor::MultiThread) = runtime {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
