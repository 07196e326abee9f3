//! Circuit breakers, one per upstream origin: while an upstream is down, clients do not wait for it.
//!
//! ```text
//!            no answer in time                      refused dial, long silence, 3 bad answers
//!  Closed ────────────────────────> Slow ────────────────────────────> Open
//!    ^  \__________ refused dial, long silence, 3 bad answers ___________^ |
//!    |                                 |                                   |
//!    └──────────────── good answer to a client or to a probe ──────────────┘
//! ```
//!
//! While a breaker is `Slow`, stale copies are served at once. Upstream is asked only for resources that are not stored
//! and for invalidated entries; the table in [`super::decide`] has the details.
//! While it is `Open`, nothing is asked for except probes, which run in the background with growing delays. A failure
//! that concerns one resource only (404, wrong hash) changes nothing; see [`severity`].
//!
//! This module holds state and decides. The cache sends requests and probes.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use url::Url;

use super::{decide::Reach, options::HEAD_TIMEOUT};
use crate::{
    resource::Resource,
    upstream::{Failure, FailureKind, Origin},
};

/// Bad answers about different resources, without a good one between, that open a breaker. Fewer may be faults of those
/// resources.
const MAX_BAD_ANSWERS: usize = 3;
/// Delay before the first probe. It doubles with each failed probe, up to [`MAX_PROBE_DELAY`].
const FIRST_PROBE_DELAY: Duration = Duration::from_millis(500);
/// Longest delay between probes.
const MAX_PROBE_DELAY: Duration = Duration::from_secs(15);
/// Duration of an outage from which clients get the offline view, if the breaker is open. A short interruption of a
/// working upstream must not make a resolver choose older versions.
pub const OFFLINE_VIEW_AFTER: Duration = Duration::from_secs(10);

/// The breakers of all origins.
#[derive(Debug)]
pub(super) struct CircuitBreakers {
    is_offline: bool,
    breakers: Mutex<HashMap<Origin, CircuitBreaker>>,
    /// Number of breakers that are not closed. Zero lets a request skip the lock.
    outages: AtomicUsize,
}

#[derive(Debug, Default)]
struct CircuitBreaker {
    /// True if a request to this origin has ended since the start, well or not.
    is_tried: bool,
    /// Addresses with bad answers since the last good one.
    bad_answers: HashSet<Url>,
    /// The last resource that was answered well, which is the best one to probe with.
    last_good: Option<(Resource, Url)>,
    /// Present while the breaker is not closed.
    outage: Option<Outage>,
    /// Number of outages so far, with this one.
    outages: u64,
    /// The outage, by its number, that a task probes.
    probed: u64,
}

/// The time during which a breaker is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// True if the breaker is open: the upstream is down, not only slow.
    pub is_open: bool,
    /// When the first failure was seen.
    pub since: SystemTime,
    /// The failure that changed the state last.
    pub failure: Failure,
}

impl Outage {
    /// Opens a slow breaker. Returns whether that changed anything.
    fn open(&mut self, failure: &Failure) -> bool {
        let was_slow = !self.is_open;
        if was_slow {
            self.is_open = true;
            self.failure = failure.clone();
        }
        was_slow
    }
}

impl CircuitBreakers {
    pub(super) fn new(is_offline: bool) -> Self {
        Self {
            is_offline,
            breakers: Mutex::default(),
            outages: AtomicUsize::new(0),
        }
    }

    /// Returns whether every breaker is closed and larder is online.
    pub(super) fn all_closed(&self) -> bool {
        !self.is_offline && self.outages.load(Ordering::Acquire) == 0
    }

    /// Returns whether the upstream of `url` may be asked.
    pub(super) fn reach(&self, url: &Url) -> Reach {
        if self.is_offline {
            return Reach::Offline;
        }
        match self.outage(url) {
            None => Reach::Online,
            Some(outage) if outage.is_open => Reach::Down,
            Some(_) => Reach::Slow,
        }
    }

    /// Returns whether larder runs with `--offline`.
    pub(super) fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// Returns whether clients get the offline view: larder runs offline, or the breaker of `url` is open and its
    /// outage began at least [`OFFLINE_VIEW_AFTER`] ago. The upstream of a process that never reached it is not
    /// interrupted, it is out of reach: then the view begins at once. A short `larder run` lives no ten seconds.
    pub(super) fn uses_offline_view(&self, url: &Url, now: SystemTime) -> bool {
        if self.is_offline {
            return true;
        }
        let breakers = self.breakers.lock();
        let Some(breaker) = breakers.get(&Origin::from(url)) else {
            return false;
        };
        breaker.outage.as_ref().is_some_and(|outage| {
            let was_never_reached = breaker.last_good.is_none()
                && matches!(outage.failure.kind, FailureKind::Unreachable { .. });
            let age = now.duration_since(outage.since);
            let is_long = age.is_ok_and(|age| age >= OFFLINE_VIEW_AFTER);
            outage.is_open && (was_never_reached || is_long)
        })
    }

    /// Returns whether nothing is known about the upstream of `url`: it may be asked, and no request to it has ended
    /// since the start.
    pub(super) fn is_untried(&self, url: &Url) -> bool {
        let is_tried = |breaker: &CircuitBreaker| breaker.is_tried;
        let breakers = self.breakers.lock();
        !self.is_offline && !breakers.get(&Origin::from(url)).is_some_and(is_tried)
    }

    /// The outage of the upstream of `url`.
    pub(super) fn outage(&self, url: &Url) -> Option<Outage> {
        self.breakers.lock().get(&Origin::from(url))?.outage.clone()
    }

    /// All outages, by origin.
    pub(super) fn outages(&self) -> Vec<(Origin, Outage)> {
        self.breakers
            .lock()
            .iter()
            .filter_map(|(origin, breaker)| Some((origin.clone(), breaker.outage.clone()?)))
            .collect()
    }

    /// Records a good answer about `resource` and closes the breaker. Returns whether that ended an outage.
    pub(super) fn record_success(&self, resource: &Resource, url: &Url) -> bool {
        let mut breakers = self.breakers.lock();
        let breaker = breakers.entry(Origin::from(url)).or_default();
        breaker.is_tried = true;
        breaker.bad_answers.clear();
        breaker.last_good = Some((resource.clone(), url.clone()));
        let is_over = breaker.outage.take().is_some();
        if is_over {
            self.outages.fetch_sub(1, Ordering::AcqRel);
        }
        is_over
    }

    /// Records a failure of a client's request.
    pub(super) fn record_failure(
        &self,
        url: &Url,
        failure: &Failure,
        now: SystemTime,
    ) -> Transition {
        let mut breakers = self.breakers.lock();
        let breaker = breakers.entry(Origin::from(url)).or_default();
        breaker.is_tried = true;
        let is_open = match severity(failure) {
            Severity::None => return Transition::None,
            Severity::BadAnswer => {
                breaker.bad_answers.insert(url.clone());
                if breaker.bad_answers.len() < MAX_BAD_ANSWERS {
                    return Transition::None;
                }
                true
            }
            Severity::Slow => false,
            Severity::Down => true,
        };
        if is_open {
            breaker.bad_answers.clear();
        }
        match &mut breaker.outage {
            Some(outage) => {
                if is_open && outage.open(failure) {
                    Transition::SlowToOpen
                } else {
                    Transition::None
                }
            }
            None => {
                breaker.outage = Some(Outage {
                    is_open,
                    since: now,
                    failure: failure.clone(),
                });
                breaker.outages += 1;
                self.outages.fetch_add(1, Ordering::AcqRel);
                if is_open {
                    Transition::ClosedToOpen
                } else {
                    Transition::ClosedToSlow
                }
            }
        }
    }

    /// Records a failed probe. Returns whether it opened a slow breaker. A closed breaker stays closed: the outage
    /// that the probe belongs to is over.
    pub(super) fn record_failed_probe(&self, url: &Url, failure: &Failure) -> bool {
        let mut breakers = self.breakers.lock();
        let breaker = breakers.get_mut(&Origin::from(url));
        let Some(outage) = breaker.and_then(|breaker| breaker.outage.as_mut()) else {
            return false;
        };
        severity(failure) == Severity::Down && outage.open(failure)
    }

    /// Returns the number of the outage that the caller must probe; `None` if another task does, or there is none.
    pub(super) fn claim_probes(&self, url: &Url) -> Option<u64> {
        let mut breakers = self.breakers.lock();
        let breaker = breakers.get_mut(&Origin::from(url))?;
        let is_unclaimed = breaker.outage.is_some() && breaker.probed != breaker.outages;
        breaker.probed = breaker.outages;
        is_unclaimed.then_some(breaker.outages)
    }

    /// Returns whether this outage of the upstream of `url` goes on. A later one has probes of its own.
    pub(super) fn is_in_outage(&self, url: &Url, outage: u64) -> bool {
        let breakers = self.breakers.lock();
        let breaker = breakers.get(&Origin::from(url));
        breaker.is_some_and(|breaker| breaker.outage.is_some() && breaker.outages == outage)
    }

    /// The resource to probe the upstream of `url` with, if that upstream ever gave a good answer.
    pub(super) fn last_good(&self, url: &Url) -> Option<(Resource, Url)> {
        let breakers = self.breakers.lock();
        breakers.get(&Origin::from(url))?.last_good.clone()
    }
}

/// Delay before the next probe, after `tried` failed ones.
pub(super) fn probe_delay(tried: u32) -> Duration {
    FIRST_PROBE_DELAY
        .saturating_mul(1 << tried.min(10))
        .min(MAX_PROBE_DELAY)
}

/// The change of state that a failure caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    None,
    /// The caller must start probes.
    ClosedToSlow,
    /// The caller must start probes.
    ClosedToOpen,
    /// Probes are running already.
    SlowToOpen,
}

/// Severity of one failure for its upstream as a whole.
#[derive(Debug, PartialEq, Eq)]
enum Severity {
    /// The upstream works; the failure concerns one resource.
    None,
    /// The upstream answers but is broken, or something else answers in its place.
    BadAnswer,
    /// The upstream may be slow or down.
    Slow,
    /// The upstream is down.
    Down,
}

/// Sorts a failure by what it says about its upstream. An exhaustive match: a new kind of failure must be sorted here.
fn severity(failure: &Failure) -> Severity {
    match &failure.kind {
        // A request that has a stored copy has a short time limit, so a timeout may only mean a slow upstream.
        FailureKind::Silent { after, .. } if *after < HEAD_TIMEOUT => Severity::Slow,
        FailureKind::Unreachable { .. } | FailureKind::Silent { .. } => Severity::Down,
        FailureKind::Status { .. }
        | FailureKind::Unrecognised { .. }
        | FailureKind::Broken { .. } => Severity::BadAnswer,
        FailureKind::Redirected { foreign, .. } => {
            // A captive portal redirects everything to itself.
            if *foreign {
                Severity::BadAnswer
            } else {
                Severity::None
            }
        }
        FailureKind::Denied { .. }
        | FailureKind::Absent { .. }
        | FailureKind::TooLarge { .. }
        | FailureKind::NoMemory(_)
        | FailureKind::Unsupported { .. }
        | FailureKind::WrongHash { .. } => Severity::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Registries, RegistryConfig};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn url(host: &str) -> Url {
        Url::parse(&format!("https://{host}/")).unwrap()
    }

    fn silent() -> Failure {
        FailureKind::Silent {
            after: Duration::from_secs(2),
        }
        .at(&url("a.example"))
    }

    fn unreachable() -> Failure {
        FailureKind::Unreachable {
            cause: "connection refused".into(),
        }
        .at(&url("a.example"))
    }

    fn portal() -> Failure {
        FailureKind::Unrecognised {
            why: "is a login page".into(),
        }
        .at(&url("a.example"))
    }

    fn resource() -> Resource {
        let registries = Registries::new(url("a.example"), []);
        RegistryConfig::of(registries.crates_io())
    }

    #[test]
    fn one_failed_dial_opens_the_breaker_of_its_origin_and_an_answer_closes_it() {
        let breakers = CircuitBreakers::new(false);
        let fail = || breakers.record_failure(&url("a.example"), &unreachable(), NOW);
        assert_eq!(
            [fail(), fail()],
            [Transition::ClosedToOpen, Transition::None]
        );
        assert_eq!(breakers.reach(&url("a.example")), Reach::Down);
        assert_eq!(breakers.reach(&url("b.example")), Reach::Online);
        assert!(breakers.record_success(&resource(), &url("a.example")));
        assert_eq!(breakers.reach(&url("a.example")), Reach::Online);
        assert!(breakers.last_good(&url("a.example/other")).is_some());
    }

    #[test]
    fn a_slow_breaker_opens_after_a_long_silence_or_a_failed_dial() {
        let long = FailureKind::Silent {
            after: HEAD_TIMEOUT,
        }
        .at(&url("a.example"));
        for proof in [long, unreachable()] {
            let breakers = CircuitBreakers::new(false);
            let at = url("a.example");
            let fail = |failure: &Failure| breakers.record_failure(&at, failure, NOW);
            let changes = [&silent(), &silent()].map(fail);
            assert_eq!(changes, [Transition::ClosedToSlow, Transition::None]);
            assert_eq!(breakers.reach(&at), Reach::Slow);
            assert!(!breakers.record_failed_probe(&at, &silent()));
            assert!(!breakers.uses_offline_view(&at, NOW + OFFLINE_VIEW_AFTER));
            let changes = [&proof, &proof, &silent()].map(fail);
            assert_eq!(
                changes,
                [Transition::SlowToOpen, Transition::None, Transition::None]
            );
            assert_eq!(breakers.reach(&at), Reach::Down);
            assert!(breakers.record_success(&resource(), &at) && breakers.all_closed());
            // A probe that fails after the outage has ended changes nothing.
            assert!(!breakers.record_failed_probe(&at, &proof) && breakers.all_closed());
            fail(&silent());
            assert!(breakers.record_failed_probe(&at, &proof));
            assert_eq!(breakers.reach(&at), Reach::Down);
        }
    }

    #[test]
    fn bad_answers_about_several_resources_open_the_breaker_unless_a_good_one_comes_between() {
        let breakers = CircuitBreakers::new(false);
        let bad = |thing: &str| {
            breakers.record_failure(&url(&format!("a.example/{thing}")), &portal(), NOW)
        };
        use Transition::{ClosedToOpen, None};
        assert_eq!(["a", "b"].map(bad), [None, None]);
        breakers.record_success(&resource(), &url("a.example"));
        assert_eq!(["a", "b", "c"].map(bad), [None, None, ClosedToOpen]);
    }

    #[test]
    fn one_broken_resource_never_opens_the_breaker() {
        let breakers = CircuitBreakers::new(false);
        let bad = |_| breakers.record_failure(&url("a.example/broken"), &portal(), NOW);
        assert!((0..20).map(bad).all(|change| change == Transition::None));
    }

    #[test]
    fn a_short_outage_does_not_switch_to_the_offline_view() {
        let breakers = CircuitBreakers::new(false);
        breakers.record_success(&resource(), &url("a.example"));
        breakers.record_failure(&url("a.example"), &unreachable(), NOW);
        assert!(!breakers.uses_offline_view(&url("a.example"), NOW + Duration::from_secs(9)));
        assert!(breakers.uses_offline_view(&url("a.example"), NOW + Duration::from_secs(10)));
        assert!(CircuitBreakers::new(true).uses_offline_view(&url("a.example"), NOW));
    }

    #[test]
    fn an_upstream_that_was_never_reached_has_the_offline_view_at_once() {
        let at = url("a.example");
        let breakers = CircuitBreakers::new(false);
        assert!(breakers.is_untried(&at) && !CircuitBreakers::new(true).is_untried(&at));
        breakers.record_failure(&at, &unreachable(), NOW);
        assert!(!breakers.is_untried(&at) && breakers.is_untried(&url("b.example")));
        assert!(breakers.uses_offline_view(&at, NOW));
        assert!(!breakers.uses_offline_view(&url("b.example"), NOW));
        breakers.record_success(&resource(), &at);
        breakers.record_failure(&at, &unreachable(), NOW);
        assert!(!breakers.uses_offline_view(&at, NOW));
    }

    #[test]
    fn an_upstream_that_answers_badly_from_the_start_is_not_out_of_reach() {
        let breakers = CircuitBreakers::new(false);
        for thing in ["a", "b", "c"] {
            breakers.record_failure(&url(&format!("a.example/{thing}")), &portal(), NOW);
        }
        let at = url("a.example");
        assert_eq!(breakers.reach(&at), Reach::Down);
        assert!(!breakers.uses_offline_view(&at, NOW + Duration::from_secs(9)));
        assert!(breakers.uses_offline_view(&at, NOW + OFFLINE_VIEW_AFTER));
    }

    #[test]
    fn probe_delays_grow_up_to_a_limit() {
        let pauses: Vec<_> = (0..8).map(|tried| probe_delay(tried).as_millis()).collect();
        assert_eq!(
            pauses,
            [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]
        );
        assert_eq!(probe_delay(u32::MAX), MAX_PROBE_DELAY);
    }
}
