//! The rules of the cache, as pure functions: [`decide`] before upstream is asked, [`settle`] after it has failed.
//!
//! The clock, the reach of the upstream and the stored copy are arguments, so a table of cases tests every rule.
//!
//! | stored copy | online | slow | down | offline |
//! | --- | --- | --- | --- | --- |
//! | none | fetch | fetch | refuse | refuse |
//! | none, absence or refusal remembered | refuse | refuse | refuse | refuse |
//! | fresh | serve | serve | serve | serve |
//! | stale, within upstream's `max-age` | serve, revalidate later | serve stale | serve stale | serve stale |
//! | stale | revalidate | serve stale | serve stale | serve stale |
//! | stale, absence remembered | refuse | serve stale | serve stale | serve stale |
//! | stale, overruled absence remembered | serve stale | serve stale | serve stale | serve stale |
//! | invalidated | revalidate | revalidate | serve stale | serve stale |
//!
//! That is the table for [`Demand::Fresh`]. [`Demand::Stored`] takes any stored copy as fresh. [`Demand::Refresh`]
//! takes none as fresh, unless its name fixes its bytes, and ignores a remembered absence.
//!
//! Serving a stale copy within upstream's own `max-age` (`stale-while-revalidate`, RFC 5861) is for kinds whose policy
//! allows it, and ends with `--max-age 0s`. An invalidated copy is never served so: cargo combines entries of different
//! ages in one resolve (docs/client-behaviour.md C-29).
//!
//! A failure never removes what is stored. Only upstream's own "not found" counts as an answer, and not even that if a
//! pin needs the stored copy ([`super::absence`]). Everything else leads to the stored copy, or to an error if there is
//! none.

use std::time::{Duration, SystemTime};

use crate::{
    resource::{Freshness, Policy},
    store::Checked,
    upstream::{Failure, FailureKind},
    validators::Validators,
};

/// Time for which a prefetched entry answers the request it was meant for, whatever its freshness lifetime. A resolver
/// asks within a few round trips.
pub const PREFETCH_LIFETIME: Duration = Duration::from_secs(10);

/// How new a copy the caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A copy within its freshness lifetime, or the best there is.
    Fresh,
    /// As [`Demand::Fresh`], but a copy checked at this time or later counts as fresh: it was prefetched for this
    /// request.
    FreshSince(SystemTime),
    /// Any stored copy.
    Stored,
    /// A copy that upstream confirms now.
    Refresh,
}

/// Permission to ask upstream, by `--offline` and the state of its circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The breaker is closed.
    Online,
    /// larder runs with `--offline`.
    Offline,
    /// Upstream did not answer in time. It is asked for what is not stored or invalidated, and by [`Demand::Refresh`].
    Slow,
    /// The breaker is open: only probes are sent.
    Down,
}

/// The way a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Stored and fresh.
    Hit,
    /// Fetched.
    Miss,
    /// Stored, and upstream confirmed that it is unchanged.
    Revalidated,
    /// Fetched by another request at the same time.
    Collapsed,
    /// Fetched by a prefetch, and asked for by a client for the first time.
    Prefetched,
    /// Stored and not fresh.
    Stale(StaleReason),
}

/// The reason for serving a stale copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StaleReason {
    /// larder runs with `--offline`.
    Offline,
    /// Upstream was known to be slow or down.
    Down,
    /// The request to upstream failed.
    Failed,
    /// It is within upstream's own `max-age`, and is being revalidated.
    Revalidating,
    /// Upstream says that it does not exist, and a pin needs it.
    Withdrawn,
}

impl Outcome {
    /// The stable name in logs, `status.json` and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Prefetched => "prefetched",
            Self::Stale(StaleReason::Offline) => "stale-offline",
            Self::Stale(StaleReason::Down) => "stale-down",
            Self::Stale(StaleReason::Failed) => "stale-failed",
            Self::Stale(StaleReason::Revalidating) => "stale-while-revalidate",
            Self::Stale(StaleReason::Withdrawn) => "stale-absent",
        }
    }
}

/// The properties of a stored copy that decisions depend on.
#[derive(Clone, Copy, Debug)]
pub struct StoredCopy<'a> {
    /// The last time upstream confirmed it.
    pub checked: Checked,
    /// Upstream's `max-age`.
    pub max_age: Option<Duration>,
    /// Upstream's validators.
    pub validators: &'a Validators,
}

/// The next step for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve the stored copy.
    Serve(Outcome),
    /// Serve the stored copy, and ask upstream in the background whether it is still right.
    ServeAndRevalidate,
    /// Ask upstream whether the stored copy is still right.
    Revalidate(Validators),
    /// Fetch it.
    Fetch,
    /// Answer with an error.
    Refuse(Refusal),
}

/// The reason for an error without asking upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not stored, and larder runs with `--offline`.
    Offline,
    /// Not stored, and upstream is down.
    Down,
    /// Upstream said a short while ago that the resource does not exist.
    Absent,
    /// Upstream refused the resource a short while ago, with this status.
    Denied(u16),
}

/// Upstream's recent answer about a resource, as the negative cache remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegativeAnswer {
    /// It does not exist.
    Absent,
    /// It does not exist, but a pin needs the stored copy.
    Overruled,
    /// Access was refused with this status.
    Denied(u16),
}

/// Decides about a request. `negative` is what the negative cache has about the resource. `cap` is the upper bound of
/// the freshness lifetime that upstream claims.
pub fn decide(
    policy: &Policy,
    stored: Option<StoredCopy<'_>>,
    negative: Option<NegativeAnswer>,
    demand: Demand,
    now: SystemTime,
    reach: Reach,
    cap: Duration,
) -> Decision {
    let Some(stored) = stored else {
        return match (demand, reach) {
            (_, Reach::Offline) => Decision::Refuse(Refusal::Offline),
            (_, Reach::Down) => Decision::Refuse(Refusal::Down),
            (Demand::Refresh, Reach::Online | Reach::Slow) => Decision::Fetch,
            (
                Demand::Fresh | Demand::FreshSince(_) | Demand::Stored,
                Reach::Online | Reach::Slow,
            ) => match negative {
                None => Decision::Fetch,
                Some(NegativeAnswer::Absent | NegativeAnswer::Overruled) => {
                    Decision::Refuse(Refusal::Absent)
                }
                Some(NegativeAnswer::Denied(code)) => Decision::Refuse(Refusal::Denied(code)),
            },
        };
    };
    let is_fresh = is_fresh(policy, stored, now, cap)
        || matches!(demand, Demand::FreshSince(since) if stored.checked >= Checked::At(since)
            && now.duration_since(since).is_ok_and(|age| age < PREFETCH_LIFETIME));
    let demand = match demand {
        Demand::FreshSince(_) => Demand::Fresh,
        Demand::Fresh | Demand::Stored | Demand::Refresh => demand,
    };
    match (demand, reach) {
        (Demand::Stored, _) => Decision::Serve(Outcome::Hit),
        (Demand::Fresh, _) if is_fresh => Decision::Serve(Outcome::Hit),
        (Demand::Refresh, _) if policy.freshness == Freshness::Forever => {
            Decision::Serve(Outcome::Hit)
        }
        (_, Reach::Offline) => Decision::Serve(Outcome::Stale(StaleReason::Offline)),
        // An invalidated copy can break a resolve, so it is worth waiting for a slow upstream.
        (Demand::Fresh, Reach::Slow) if !stored.checked.is_invalidated() => {
            Decision::Serve(Outcome::Stale(StaleReason::Down))
        }
        (_, Reach::Down) => Decision::Serve(Outcome::Stale(StaleReason::Down)),
        (Demand::Fresh, Reach::Online) if negative == Some(NegativeAnswer::Absent) => {
            Decision::Refuse(Refusal::Absent)
        }
        (Demand::Fresh, Reach::Online) if negative == Some(NegativeAnswer::Overruled) => {
            Decision::Serve(Outcome::Stale(StaleReason::Withdrawn))
        }
        (Demand::Fresh, Reach::Online)
            if is_within_upstreams_lifetime(policy, stored, now, cap) =>
        {
            Decision::ServeAndRevalidate
        }
        (_, Reach::Online | Reach::Slow) => Decision::Revalidate(stored.validators.clone()),
    }
}

fn is_fresh(policy: &Policy, stored: StoredCopy<'_>, now: SystemTime, cap: Duration) -> bool {
    let lifetime = match policy.freshness {
        Freshness::Forever => return true,
        Freshness::For(lifetime) => lifetime,
        Freshness::AsUpstreamSays => stored.max_age.unwrap_or(cap).min(cap),
    };
    // The age is unknown if the copy was checked in the future: then the clock was set back.
    stored.checked.age(now).is_some_and(|age| age < lifetime)
}

/// Returns whether a copy that is older than `cap` may be served while it is revalidated. The age of an invalidated
/// copy is unknown.
fn is_within_upstreams_lifetime(
    policy: &Policy,
    stored: StoredCopy<'_>,
    now: SystemTime,
    cap: Duration,
) -> bool {
    policy.stale_while_revalidate
        && !cap.is_zero()
        && stored
            .max_age
            .zip(stored.checked.age(now))
            .is_some_and(|(max_age, age)| age < max_age)
}

/// The consequence of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Serve the stored copy.
    ServeStale,
    /// Remember for a while that the resource does not exist.
    RememberAbsence,
    /// Serve the stored copy, which upstream disclaims and a pin needs, and remember that for a while.
    OverruleAbsence,
    /// Remember for a while that upstream refuses access.
    RememberRefusal(u16),
    /// Retry, or answer with an error.
    Fail,
}

/// Decides what a failure means. `is_overruled` says that a pin needs the stored copy of an absent resource. An
/// exhaustive match: a new kind of failure must be sorted here.
pub fn settle(is_stored: bool, is_overruled: bool, failure: &Failure) -> Settlement {
    match failure.kind {
        FailureKind::Absent { .. } if is_stored && is_overruled => Settlement::OverruleAbsence,
        FailureKind::Absent { .. } => Settlement::RememberAbsence,
        FailureKind::Denied { code } if !is_stored => Settlement::RememberRefusal(code),
        FailureKind::Unreachable { .. }
        | FailureKind::Silent { .. }
        | FailureKind::Broken { .. }
        | FailureKind::Status { .. }
        | FailureKind::Denied { .. }
        | FailureKind::Redirected { .. }
        | FailureKind::TooLarge { .. }
        | FailureKind::NoMemory(_)
        | FailureKind::Unrecognised { .. }
        | FailureKind::Unsupported { .. }
        | FailureKind::WrongHash { .. } => {
            if is_stored {
                Settlement::ServeStale
            } else {
                Settlement::Fail
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(60);
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn policy(freshness: Freshness) -> Policy {
        Policy {
            freshness,
            stale_while_revalidate: false,
            max_bytes: 1,
            max_bytes_setting: None,
            negative_ttl: CAP,
            content_type: "text/plain",
            compressible: false,
            audience: crate::resource::Audience::Cargo,
        }
    }

    /// `age` and `max_age` are in seconds. An `age` of `None` means that nothing is stored.
    #[track_caller]
    fn check(
        age: Option<u64>,
        max_age: Option<u64>,
        demand: Demand,
        reach: Reach,
        expected: &Decision,
    ) {
        check_policy(
            Freshness::AsUpstreamSays,
            age,
            max_age,
            None,
            demand,
            reach,
            expected,
        );
    }

    #[track_caller]
    fn check_policy(
        freshness: Freshness,
        age: Option<u64>,
        max_age: Option<u64>,
        negative: Option<NegativeAnswer>,
        demand: Demand,
        reach: Reach,
        expected: &Decision,
    ) {
        let validators = validators();
        let now = NOW + Duration::from_secs(1_000_000);
        let stored = age.map(|age| StoredCopy {
            checked: Checked::At(now - Duration::from_secs(age)),
            max_age: max_age.map(Duration::from_secs),
            validators: &validators,
        });
        assert_eq!(
            &decide(
                &policy(freshness),
                stored,
                negative,
                demand,
                now,
                reach,
                CAP
            ),
            expected
        );
    }

    fn validators() -> Validators {
        Validators {
            etag: Some("\"v\"".into()),
            last_modified: None,
        }
    }

    #[test]
    fn decides_by_age_demand_and_reach() {
        use Decision::{Fetch, Refuse, Revalidate, Serve};
        use Demand::{Fresh, Refresh, Stored};
        use Outcome::{Hit, Stale};
        use Reach::{Down, Offline, Online, Slow};
        let ask = Revalidate(validators());

        check(None, None, Fresh, Online, &Fetch);
        check(None, None, Stored, Online, &Fetch);
        check(None, None, Fresh, Offline, &Refuse(Refusal::Offline));
        check(None, None, Fresh, Down, &Refuse(Refusal::Down));

        // The freshness lifetime is upstream's max-age up to the cap, or the cap.
        check(Some(59), None, Fresh, Online, &Serve(Hit));
        check(Some(60), None, Fresh, Online, &ask);
        check(Some(59), Some(600), Fresh, Online, &Serve(Hit));
        check(Some(61), Some(600), Fresh, Online, &ask);
        check(Some(9), Some(10), Fresh, Online, &Serve(Hit));
        check(Some(10), Some(10), Fresh, Online, &ask);
        check(Some(0), Some(0), Fresh, Online, &ask);

        check(Some(1_000), None, Stored, Online, &Serve(Hit));
        check(Some(0), None, Refresh, Online, &ask);
        check(
            Some(1_000),
            None,
            Fresh,
            Offline,
            &Serve(Stale(StaleReason::Offline)),
        );
        check(
            Some(1_000),
            None,
            Fresh,
            Down,
            &Serve(Stale(StaleReason::Down)),
        );
        check(Some(1), None, Fresh, Down, &Serve(Hit));
        // A slow upstream is asked for what is not stored, and by `Refresh`.
        check(None, None, Fresh, Slow, &Fetch);
        check(Some(1), None, Fresh, Slow, &Serve(Hit));
        let stale = Serve(Stale(StaleReason::Down));
        check(Some(1_000), None, Fresh, Slow, &stale);
        check(Some(1_000), None, Refresh, Slow, &ask);
        check(
            Some(1),
            None,
            Refresh,
            Down,
            &Serve(Stale(StaleReason::Down)),
        );
    }

    #[test]
    fn a_copy_whose_name_fixes_its_bytes_is_always_fresh() {
        for (demand, reach) in [
            (Demand::Fresh, Reach::Online),
            (Demand::Refresh, Reach::Down),
        ] {
            let hit = Decision::Serve(Outcome::Hit);
            check_policy(
                Freshness::Forever,
                Some(999_999),
                None,
                None,
                demand,
                reach,
                &hit,
            );
        }
    }

    #[test]
    fn a_prefetched_copy_is_fresh_for_one_request_whatever_its_lifetime() {
        let now = NOW + Duration::from_secs(1_000_000);
        let (hit, ask) = (
            Decision::Serve(Outcome::Hit),
            Decision::Revalidate(validators()),
        );
        let since = |seconds| Demand::FreshSince(now - Duration::from_secs(seconds));
        check(Some(1), Some(0), since(2), Reach::Online, &hit);
        check(Some(3), Some(0), since(2), Reach::Online, &ask);
        check(Some(11), Some(0), since(12), Reach::Online, &ask);
        check(Some(1), Some(0), Demand::Fresh, Reach::Online, &ask);
    }

    #[test]
    fn a_remembered_absence_refuses_requests_unless_upstream_is_down() {
        let freshness = Freshness::AsUpstreamSays;
        let absent = Decision::Refuse(Refusal::Absent);
        check_policy(
            freshness,
            None,
            None,
            Some(NegativeAnswer::Absent),
            Demand::Fresh,
            Reach::Online,
            &absent,
        );
        check_policy(
            freshness,
            Some(100),
            None,
            Some(NegativeAnswer::Absent),
            Demand::Fresh,
            Reach::Online,
            &absent,
        );
        check_policy(
            freshness,
            None,
            None,
            Some(NegativeAnswer::Absent),
            Demand::Refresh,
            Reach::Online,
            &Decision::Fetch,
        );
        let stale = Decision::Serve(Outcome::Stale(StaleReason::Down));
        check_policy(
            freshness,
            Some(100),
            None,
            Some(NegativeAnswer::Absent),
            Demand::Fresh,
            Reach::Down,
            &stale,
        );
    }

    #[test]
    fn an_overruled_absence_and_a_refusal_leave_the_stored_copy_in_use() {
        let withdrawn = Decision::Serve(Outcome::Stale(StaleReason::Withdrawn));
        let ask = Decision::Revalidate(validators());
        for (age, negative, demand, expected) in [
            (
                Some(100),
                NegativeAnswer::Overruled,
                Demand::Fresh,
                withdrawn,
            ),
            (
                Some(100),
                NegativeAnswer::Overruled,
                Demand::Refresh,
                ask.clone(),
            ),
            (Some(100), NegativeAnswer::Denied(401), Demand::Fresh, ask),
            (
                None,
                NegativeAnswer::Denied(401),
                Demand::Fresh,
                Decision::Refuse(Refusal::Denied(401)),
            ),
            (
                None,
                NegativeAnswer::Denied(401),
                Demand::Refresh,
                Decision::Fetch,
            ),
        ] {
            let freshness = Freshness::AsUpstreamSays;
            let (reach, negative) = (Reach::Online, Some(negative));
            check_policy(freshness, age, None, negative, demand, reach, &expected);
        }
    }

    #[test]
    fn a_copy_within_upstreams_lifetime_is_served_while_it_is_revalidated() {
        let validators = validators();
        let now = NOW + Duration::from_secs(1_000_000);
        let decide_with = |stale_while_revalidate, checked, max_age, demand, reach, cap| {
            let stored = StoredCopy {
                checked,
                max_age: Some(Duration::from_secs(max_age)),
                validators: &validators,
            };
            let policy = Policy {
                stale_while_revalidate,
                ..policy(Freshness::AsUpstreamSays)
            };
            decide(&policy, Some(stored), None, demand, now, reach, cap)
        };
        let (fresh, online) = (Demand::Fresh, Reach::Online);
        let at = |age| Checked::At(now - Duration::from_secs(age));
        let ask = Decision::Revalidate(validators.clone());
        let behind = Decision::ServeAndRevalidate;
        assert_eq!(decide_with(true, at(599), 600, fresh, online, CAP), behind);
        let hit = Decision::Serve(Outcome::Hit);
        assert_eq!(decide_with(true, at(59), 600, fresh, online, CAP), hit);
        assert_eq!(decide_with(true, at(600), 600, fresh, online, CAP), ask);
        assert_eq!(decide_with(false, at(599), 600, fresh, online, CAP), ask);
        let zero = Duration::ZERO;
        assert_eq!(decide_with(true, at(1), 600, fresh, online, zero), ask);
        let refresh = Demand::Refresh;
        assert_eq!(decide_with(true, at(599), 600, refresh, online, CAP), ask);
        let invalidated = Checked::Invalidated;
        assert_eq!(decide_with(true, invalidated, 600, fresh, online, CAP), ask);
        let down = Decision::Serve(Outcome::Stale(StaleReason::Down));
        assert_eq!(
            decide_with(true, at(599), 600, fresh, Reach::Down, CAP),
            down
        );
    }

    #[test]
    fn a_copy_checked_in_the_future_is_stale() {
        let validators = validators();
        let copy = StoredCopy {
            checked: Checked::At(NOW + Duration::from_secs(10)),
            max_age: None,
            validators: &validators,
        };
        assert!(!is_fresh(
            &policy(Freshness::AsUpstreamSays),
            copy,
            NOW,
            CAP
        ));
    }

    #[test]
    fn only_upstreams_not_found_counts_as_absence() {
        let url = || url::Url::parse("https://a.example/").unwrap();
        let trouble = [
            FailureKind::Unreachable {
                cause: String::new(),
            }
            .at(&url()),
            FailureKind::Silent { after: CAP }.at(&url()),
            FailureKind::Broken {
                cause: String::new(),
            }
            .at(&url()),
            FailureKind::Status {
                code: 503,
                retry_after: None,
            }
            .at(&url()),
            FailureKind::Redirected {
                to: (&url()).into(),
                foreign: true,
            }
            .at(&url()),
            FailureKind::TooLarge {
                limit: 1,
                setting: None,
            }
            .at(&url()),
            FailureKind::Unrecognised { why: String::new() }.at(&url()),
        ];
        for failure in trouble {
            assert_eq!(
                settle(true, false, &failure),
                Settlement::ServeStale,
                "{failure}"
            );
            assert_eq!(
                settle(false, false, &failure),
                Settlement::Fail,
                "{failure}"
            );
        }
        let absent = FailureKind::Absent { code: 404 }.at(&url());
        assert_eq!(settle(true, false, &absent), Settlement::RememberAbsence);
        assert_eq!(settle(true, true, &absent), Settlement::OverruleAbsence);
        let denied = FailureKind::Denied { code: 403 }.at(&url());
        assert_eq!(settle(true, false, &denied), Settlement::ServeStale);
        assert_eq!(
            settle(false, false, &denied),
            Settlement::RememberRefusal(403)
        );
    }
}
