//! The runtime's threads, also where the system allows few: `ulimit -u`, `pids.max` of a container.
//!
//! tokio panics if it cannot start a worker, or if blocking work finds no thread and none can be started. So the number
//! of threads that the system grants is measured first, and some threads for blocking work start early and stay. Later
//! work waits for one of them if no more can be started.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::spawn_blocking,
    time::sleep,
};

/// Threads for blocking work that are kept: one may read a large file for minutes.
const KEPT_THREADS: usize = 3;
/// Threads that jemalloc starts for itself, at most. It does without them.
const ALLOCATOR_THREADS: usize = 4;
/// Idle time after which a thread for blocking work ends.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Interval at which the kept threads get work.
const KEEP_INTERVAL: Duration = Duration::from_secs(25);
/// Duration of that work: long enough that each piece needs a thread of its own.
const KEEP_WORK: Duration = Duration::from_millis(1);
/// Longest wait until the system has counted ended threads out.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime with as many threads as the system allows: one for each core, or none besides this one.
///
/// # Errors
/// The system allows no more threads, or refuses other parts of the runtime.
pub(crate) fn runtime() -> io::Result<Runtime> {
    let workers = available_parallelism().map_or(1, usize::from);
    let wanted = workers + KEPT_THREADS + ALLOCATOR_THREADS;
    let mut builder = if granted(wanted) == wanted {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(workers);
        builder
    } else if granted(1) == 1 {
        // Asked again, because the allocator may have taken a thread when the first ones were tried.
        Builder::new_current_thread()
    } else {
        let text =
            "the system allows no more threads (see `ulimit -u`, or `pids.max` of the container)";
        return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
    };
    builder.thread_keep_alive(KEEP_ALIVE).enable_all().build()
}

/// Keeps some threads for blocking work alive, for as long as the runtime runs. Must be the first blocking work.
pub(crate) fn keep_blocking_threads() {
    let start = || {
        for _ in 0..KEPT_THREADS {
            // The result is of no interest.
            drop(spawn_blocking(|| thread::sleep(KEEP_WORK)));
        }
    };
    start();
    tokio::spawn(async move {
        loop {
            sleep(KEEP_INTERVAL).await;
            start();
        }
    });
}

/// The number of threads, `wanted` at most, that the system grants now.
fn granted(wanted: usize) -> usize {
    let mut probes = Vec::new();
    for _ in 0..wanted {
        let (stop, stopped) = mpsc::channel::<()>();
        let probe = thread::Builder::new().spawn(move || {
            // Waits until `stop` is dropped.
            let _ = stopped.recv();
            // `PROCESS/task/THREAD`, where the system tells.
            fs::read_link("/proc/thread-self").ok()
        });
        match probe {
            Ok(probe) => probes.push((stop, probe)),
            Err(_) => break,
        }
    }
    let granted = probes.len();
    let ended = probes.into_iter().filter_map(|(stop, probe)| {
        drop(stop);
        probe.join().ok().flatten()
    });
    let ended: Vec<_> = ended.collect();
    // A joined thread counts until the system no longer lists it.
    let deadline = Instant::now() + END_TIMEOUT;
    let is_listed = |thread: &PathBuf| Path::new("/proc").join(thread).exists();
    while ended.iter().any(is_listed) && Instant::now() < deadline {
        thread::yield_now();
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_runs_blocking_work_on_kept_threads() {
        assert_eq!(granted(3), 3);
        let runtime = runtime().unwrap();
        let done = runtime.block_on(async {
            keep_blocking_threads();
            spawn_blocking(|| 1).await.unwrap()
        });
        assert_eq!(done, 1);
    }
}
