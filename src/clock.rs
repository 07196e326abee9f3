//! The crate's only reader of the wall clock.
//!
//! Freshness and invalidation compare wall-clock times, because they must survive a restart: the store saves the time
//! of an entry's last check as the file's modification time. Outages are reported with the time they began. Code that
//! only measures a duration uses [`std::time::Instant`] or tokio's clock instead. One function makes every use of the
//! wall clock easy to find.

use std::time::SystemTime;

/// The current wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
