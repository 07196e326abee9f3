//! The limit of open files (`ulimit -n`): raised for this process, shared out among its parts, and restored for the
//! programs that it starts.

use std::sync::OnceLock;

use rustix::process;

/// One part in this many of the files that the process may open is for HTTP/1.1 connections to one upstream, and one
/// for stored files that stay open.
const SHARE_OF_FILES: usize = 8;

/// The largest soft limit that older macOS takes.
const MACOS_OPEN_MAX: u64 = 10_240;

/// The soft limit of open files that this process was started with.
static ORIGINAL_LIMIT: OnceLock<Option<u64>> = OnceLock::new();

/// The number of files that this process may open; `None` for no limit.
pub(crate) fn limit() -> Option<u64> {
    process::getrlimit(process::Resource::Nofile).current
}

/// The files that one part of larder may keep open besides the connections of clients.
pub(crate) fn share() -> usize {
    let files = limit().map(|files| usize::try_from(files).unwrap_or(usize::MAX));
    files.map_or(usize::MAX, |files| files / SHARE_OF_FILES)
}

/// Raises the soft limit of open files to the hard limit: the usual soft limit is for programs that use `select`.
pub(crate) fn raise_limit() {
    let limit = process::getrlimit(process::Resource::Nofile);
    // A later call finds the raised limit.
    ORIGINAL_LIMIT.get_or_init(|| limit.current);
    set_limit(limit.maximum);
    // Older macOS refuses "unlimited", which is its hard limit.
    if limit.maximum.is_none() && self::limit().is_some() {
        set_limit(Some(MACOS_OPEN_MAX));
    }
}

/// Calls `start`, which starts another program, with the limit of open files that this one was started with.
pub(crate) fn with_original_limit<T>(start: impl FnOnce() -> T) -> T {
    if let Some(limit) = ORIGINAL_LIMIT.get() {
        set_limit(*limit);
    }
    let result = start();
    raise_limit();
    result
}

fn set_limit(current: Option<u64>) {
    let mut limit = process::getrlimit(process::Resource::Nofile);
    limit.current = current;
    if let Err(error) = process::setrlimit(process::Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot set the limit of open files");
    }
}
