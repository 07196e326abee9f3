//! The retry policy: whether and when a failed request is sent again.
//!
//! ```text
//!  attempt 1 ── 0.2 s ── attempt 2 ── 1 s ── attempt 3 ── 3 s ── attempt 4
//! ```
//!
//! The delays get a jitter of ±50 %. `Retry-After` replaces the delay if it is at most [`MAX_RETRY_AFTER`], and ends
//! the attempts otherwise. An unreachable or silent upstream and a wrong hash are retried once. Permanent failures,
//! such as 404, are not retried: [`FailureKind::is_transient`].
//!
//! This module computes; the cache sleeps, and stops retrying when its clients would give up.

use std::time::Duration;

use super::failure::{Failure, FailureKind};

/// Delays between the attempts for one resource: short for a brief failure, then long enough for a proxy to restart.
/// Their sum stays below the 30 s after which cargo gives up (`HttpTimeout` in cargo's `util/network/http.rs`).
const RETRY_DELAYS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];
/// The longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Returns the delay before the next attempt after `attempts` failed ones, the last with `failure`; `None` ends the
/// attempts. `jitter`, from 0 to 1, spreads the attempts of several machines and requests.
pub fn retry_delay(failure: &Failure, attempts: usize, jitter: f64) -> Option<Duration> {
    if !failure.kind.is_transient() {
        return None;
    }
    let delay = RETRY_DELAYS.get(attempts.checked_sub(1)?)?;
    match failure.kind {
        // Each attempt costs its whole time limit; meanwhile the circuit breaker probes.
        FailureKind::Unreachable { .. } | FailureKind::Silent { .. } if attempts > 1 => None,
        // Two transfers do not go wrong by chance.
        FailureKind::WrongHash { .. } if attempts > 1 => None,
        FailureKind::Status {
            retry_after: Some(wanted),
            ..
        } => {
            // Requests that were refused together must not come back together.
            let delay = wanted.max(*delay).mul_f64(1.0 + jitter / 2.0);
            (wanted <= MAX_RETRY_AFTER).then_some(delay)
        }
        FailureKind::Unreachable { .. }
        | FailureKind::Silent { .. }
        | FailureKind::Broken { .. }
        | FailureKind::Status { .. }
        | FailureKind::Denied { .. }
        | FailureKind::Absent { .. }
        | FailureKind::Redirected { .. }
        | FailureKind::TooLarge { .. }
        | FailureKind::NoMemory(_)
        | FailureKind::Unrecognised { .. }
        | FailureKind::Unsupported { .. }
        | FailureKind::WrongHash { .. } => Some(delay.mul_f64(0.5 + jitter)),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[track_caller]
    fn check(kind: FailureKind, attempts: usize, expected_millis: Option<u64>) {
        let failure = kind.at(&Url::parse("https://a.example/").unwrap());
        assert_eq!(
            retry_delay(&failure, attempts, 0.5),
            expected_millis.map(Duration::from_millis),
            "{failure} after {attempts} attempts"
        );
    }

    fn status(retry_after: Option<u64>) -> FailureKind {
        FailureKind::Status {
            code: 503,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn delays_grow_and_end() {
        check(status(None), 1, Some(200));
        check(status(None), 2, Some(1_000));
        check(status(None), 3, Some(3_000));
        check(status(None), 4, None);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_a_limit() {
        // With half of the jitter's range.
        check(status(Some(2)), 1, Some(2_500));
        check(status(Some(0)), 1, Some(250));
        check(status(Some(60)), 1, None);
    }

    #[test]
    fn silence_is_retried_once_and_permanent_failures_never() {
        let silent = FailureKind::Silent {
            after: Duration::from_secs(2),
        };
        check(silent.clone(), 1, Some(200));
        check(silent, 2, None);
        check(FailureKind::Absent { code: 404 }, 1, None);
        check(FailureKind::Denied { code: 403 }, 1, None);
    }
}
