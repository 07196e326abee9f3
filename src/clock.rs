//! The crate's only reader of the wall clock.
//!
//! Freshness and invalidation compare wall-clock times, because they must survive a restart: the store saves the time
//! of an entry's last check as the file's modification time. Outages are reported with the time they began. Code that
//! only measures a duration uses [`std::time::Instant`] or tokio's clock instead. One function makes every use of the
//! wall clock easy to find.
//!
//! Files and JSON have times as numbers since 1970.

use std::time::{Duration, SystemTime};

/// The current wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970; 0 for earlier times.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    since_1970(time).as_secs()
}

/// Milliseconds since 1970; 0 for earlier times.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    u64::try_from(since_1970(time).as_millis()).unwrap_or(u64::MAX)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
