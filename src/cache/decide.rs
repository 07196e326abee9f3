//! The cache's decisions as values: what to do before upstream is asked, and what its answer means. Pure: the clock, the
//! reach and the store's contents are arguments.

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

/// What the asker wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A copy within its freshness lifetime, or the best there is.
    Fresh,
    /// A copy as for [`Demand::Fresh`], or one checked at this moment or later: it was fetched ahead for this very request.
    FreshSince(SystemTime),
    /// Any stored copy will do.
    Stored,
    /// Upstream's word, whatever is stored.
    Refresh,
}

/// Whether upstream may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It may.
    Online,
    /// It must not: the user said so.
    Offline,
    /// It did not answer in time a moment ago; probes are under way. Only what is not stored is worth waiting for it.
    Slow,
    /// It is out of reach; probes are under way.
    Down,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Stored and fresh.
    Hit,
    /// Fetched.
    Miss,
    /// Stored, and upstream said that it is unchanged.
    Revalidated,
    /// Another request's fetch served this one too.
    Collapsed,
    /// Stored, not fresh, and served all the same.
    Stale(StaleReason),
}

/// Why a stale copy was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StaleReason {
    /// The user wants to stay offline.
    Offline,
    /// Upstream was found out of reach before.
    Down,
    /// Upstream was asked for this and failed.
    Failed,
}

impl Outcome {
    /// The stable name in logs, in `status` and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Stale(StaleReason::Offline) => "stale-offline",
            Self::Stale(StaleReason::Down) => "stale-down",
            Self::Stale(StaleReason::Failed) => "stale-failed",
        }
    }
}

/// What is known of a stored copy.
#[derive(Clone, Copy, Debug)]
pub struct StoredCopy<'a> {
    /// When upstream last vouched for it.
    pub checked: Checked,
    /// Upstream's `max-age`.
    pub max_age: Option<Duration>,
    /// Upstream's validators.
    pub validators: &'a Validators,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve the stored copy.
    Serve(Outcome),
    /// Get upstream whether the stored copy is still right.
    Revalidate(Validators),
    /// Fetch it.
    Fetch,
    /// It cannot be had.
    Refuse(Refusal),
}

/// Why a request is refused without asking upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not stored, and offline by order.
    Offline,
    /// Not stored, and upstream is out of reach.
    Down,
    /// Upstream said a moment ago that there is no such thing.
    Absent,
}

/// What to do about a request, given what is stored, whether upstream said a moment ago that there is no such thing,
/// and whether it may be asked. `cap` bounds the freshness lifetime that upstream claims.
pub fn decide(
    policy: &Policy,
    stored: Option<StoredCopy<'_>>,
    is_absent: bool,
    demand: Demand,
    now: SystemTime,
    reach: Reach,
    cap: Duration,
) -> Decision {
    let Some(stored) = stored else {
        return match (demand, reach) {
            (_, Reach::Offline) => Decision::Refuse(Refusal::Offline),
            (_, Reach::Down) => Decision::Refuse(Refusal::Down),
            (
                Demand::Fresh | Demand::FreshSince(_) | Demand::Stored,
                Reach::Online | Reach::Slow,
            ) if is_absent => Decision::Refuse(Refusal::Absent),
            (_, Reach::Online | Reach::Slow) => Decision::Fetch,
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
        // What was made due is too old to be served lightly.
        (Demand::Fresh, Reach::Slow) if !stored.checked.is_invalidated() => {
            Decision::Serve(Outcome::Stale(StaleReason::Down))
        }
        (_, Reach::Down) => Decision::Serve(Outcome::Stale(StaleReason::Down)),
        (Demand::Fresh, Reach::Online) if is_absent => Decision::Refuse(Refusal::Absent),
        (_, Reach::Online | Reach::Slow) => Decision::Revalidate(stored.validators.clone()),
    }
}

fn is_fresh(policy: &Policy, stored: StoredCopy<'_>, now: SystemTime, cap: Duration) -> bool {
    let lifetime = match policy.freshness {
        Freshness::Forever => return true,
        Freshness::For(lifetime) => lifetime,
        Freshness::AsUpstreamSays => stored.max_age.unwrap_or(cap).min(cap),
    };
    // A copy checked in the future means that the clock was set back: how old it is can't be known.
    stored.checked.age(now).is_some_and(|age| age < lifetime)
}

/// What upstream's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Serve the stored copy.
    ServeStale,
    /// Believe it that there is no such thing, for a while.
    RememberAbsence,
    /// Tell the asker.
    Fail,
}

/// What upstream's failure means, given whether a copy is stored. An answer that there is no such thing is an answer;
/// all else is trouble, and trouble never takes away what is stored.
pub fn settle(is_stored: bool, failure: &Failure) -> Settlement {
    match failure.kind {
        FailureKind::Absent { .. } => Settlement::RememberAbsence,
        FailureKind::Unreachable { .. }
        | FailureKind::Silent { .. }
        | FailureKind::Broken { .. }
        | FailureKind::Status { .. }
        | FailureKind::Denied { .. }
        | FailureKind::Redirected { .. }
        | FailureKind::TooLarge { .. }
        | FailureKind::Unrecognised { .. }
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
            max_bytes: 1,
            negative_ttl: CAP,
            content_type: "text/plain",
            compressible: false,
            audience: crate::resource::Audience::Cargo,
        }
    }

    /// `age` and `max_age` in seconds; `None` for nothing stored.
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
            false,
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
        is_absent: bool,
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
                is_absent,
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
    fn the_table_of_decisions() {
        use Decision::{Fetch, Refuse, Revalidate, Serve};
        use Demand::{Fresh, Refresh, Stored};
        use Outcome::{Hit, Stale};
        use Reach::{Down, Offline, Online, Slow};
        let ask = Revalidate(validators());

        check(None, None, Fresh, Online, &Fetch);
        check(None, None, Stored, Online, &Fetch);
        check(None, None, Fresh, Offline, &Refuse(Refusal::Offline));
        check(None, None, Fresh, Down, &Refuse(Refusal::Down));

        // The window: upstream's max-age, capped; without one, the cap.
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
        // What is stored waits for nobody who is slow; what is not stored does, and who wants upstream's word.
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
    fn what_a_name_fixes_is_never_asked_about_again() {
        for (demand, reach) in [
            (Demand::Fresh, Reach::Online),
            (Demand::Refresh, Reach::Down),
        ] {
            let hit = Decision::Serve(Outcome::Hit);
            check_policy(
                Freshness::Forever,
                Some(999_999),
                None,
                false,
                demand,
                reach,
                &hit,
            );
        }
    }

    #[test]
    fn what_was_fetched_ahead_answers_the_request_it_was_meant_for_whatever_the_window() {
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
    fn absence_is_believed_for_a_while_and_not_when_out_of_reach() {
        let freshness = Freshness::AsUpstreamSays;
        let absent = Decision::Refuse(Refusal::Absent);
        check_policy(
            freshness,
            None,
            None,
            true,
            Demand::Fresh,
            Reach::Online,
            &absent,
        );
        check_policy(
            freshness,
            Some(100),
            None,
            true,
            Demand::Fresh,
            Reach::Online,
            &absent,
        );
        check_policy(
            freshness,
            None,
            None,
            true,
            Demand::Refresh,
            Reach::Online,
            &Decision::Fetch,
        );
        let stale = Decision::Serve(Outcome::Stale(StaleReason::Down));
        check_policy(
            freshness,
            Some(100),
            None,
            true,
            Demand::Fresh,
            Reach::Down,
            &stale,
        );
    }

    #[test]
    fn a_copy_from_the_future_is_stale() {
        let validators = validators();
        let held = StoredCopy {
            checked: Checked::At(NOW + Duration::from_secs(10)),
            max_age: None,
            validators: &validators,
        };
        assert!(!is_fresh(
            &policy(Freshness::AsUpstreamSays),
            held,
            NOW,
            CAP
        ));
    }

    #[test]
    fn t15_trouble_upstream_is_never_absence() {
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
            FailureKind::Denied { code: 403 }.at(&url()),
            FailureKind::Redirected {
                to: (&url()).into(),
                foreign: true,
            }
            .at(&url()),
            FailureKind::TooLarge { limit: 1 }.at(&url()),
            FailureKind::Unrecognised { why: String::new() }.at(&url()),
        ];
        for failure in trouble {
            assert_eq!(settle(true, &failure), Settlement::ServeStale, "{failure}");
            assert_eq!(settle(false, &failure), Settlement::Fail, "{failure}");
        }
        let absent = FailureKind::Absent { code: 404 }.at(&url());
        assert_eq!(settle(true, &absent), Settlement::RememberAbsence);
    }
}
