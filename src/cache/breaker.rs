//! Whether each upstream may be asked: the breaker. One failed dial opens it, a few bad answers in a row do too; while it
//! is open nobody waits for that upstream, and a background probe closes it again. An upstream that is merely slow opens it
//! half. Holds state and decides; asking is the cache's job.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use url::Url;

use super::{decide::Reach, fetch::HEAD_TIMEOUT};
use crate::{
    resource::Resource,
    upstream::{Failure, FailureKind, Origin},
};

/// Bad answers about so many different things, without a good answer between, count as an outage. Fewer may be the fault of
/// the things.
const MAX_BAD_ANSWERS: usize = 3;
/// The pause before the first probe, doubled up to the last one.
const FIRST_PROBE_DELAY: Duration = Duration::from_millis(500);
const MAX_PROBE_DELAY: Duration = Duration::from_secs(15);
/// How long an outage lasts before larder behaves as if told to stay offline: a blip must not make a resolver choose
/// older versions.
const OFFLINE_VIEW_AFTER: Duration = Duration::from_secs(10);

/// The breakers of all upstreams, by origin.
#[derive(Debug)]
pub(super) struct CircuitBreakers {
    is_offline: bool,
    hosts: Mutex<HashMap<Origin, CircuitBreaker>>,
    /// How many outages there are: most of the time none, and then nobody need know which upstream is meant.
    outages: AtomicUsize,
}

#[derive(Debug, Default)]
struct CircuitBreaker {
    /// What there were bad answers about since the last good one.
    bad_answers: HashSet<Url>,
    /// What there was a good answer about last: the best thing to ask for in a probe, since it was once well.
    last_good: Option<(Resource, Url)>,
    outage: Option<Outage>,
}

/// A time during which an upstream is not asked about what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Whether nobody is there, and not only slow: then it is asked for nothing at all.
    pub is_certain: bool,
    /// When it was found out.
    pub since: SystemTime,
    /// How.
    pub cause: String,
}

impl Outage {
    /// It is certain by this failure; whether it was in doubt.
    fn ascertain(&mut self, failure: &Failure) -> bool {
        let was_in_doubt = !self.is_certain;
        if was_in_doubt {
            self.is_certain = true;
            self.cause = failure.to_string();
        }
        was_in_doubt
    }
}

impl CircuitBreakers {
    pub(super) fn new(is_offline: bool) -> Self {
        Self {
            is_offline,
            hosts: Mutex::default(),
            outages: AtomicUsize::new(0),
        }
    }

    /// Whether every upstream may be asked.
    pub(super) fn is_all_well(&self) -> bool {
        !self.is_offline && self.outages.load(Ordering::Acquire) == 0
    }

    /// Whether the upstream of `url` may be asked.
    pub(super) fn reach(&self, url: &Url) -> Reach {
        if self.is_offline {
            Reach::Offline
        } else {
            match self.outage(url) {
                None => Reach::Online,
                Some(outage) if outage.is_certain => Reach::Down,
                Some(_) => Reach::Slow,
            }
        }
    }

    pub(super) fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// Whether clients must live with what is stored: offline by order, or an outage of the upstream of `url` that is no
    /// mere blip.
    pub(super) fn is_settled_in(&self, url: &Url, now: SystemTime) -> bool {
        self.is_offline
            || self.outage(url).is_some_and(|outage| {
                let age = now.duration_since(outage.since);
                outage.is_certain && age.is_ok_and(|age| age >= OFFLINE_VIEW_AFTER)
            })
    }

    /// The outage of the upstream of `url`, if there is one.
    pub(super) fn outage(&self, url: &Url) -> Option<Outage> {
        self.lock().get(&Origin::from(url))?.outage.clone()
    }

    /// All outages, by origin.
    pub(super) fn outages(&self) -> Vec<(Origin, Outage)> {
        self.lock()
            .iter()
            .filter_map(|(origin, breaker)| Some((origin.clone(), breaker.outage.clone()?)))
            .collect()
    }

    /// Notes a good answer about `resource`; whether that ended an outage.
    pub(super) fn note_answer(&self, resource: &Resource, url: &Url) -> bool {
        let mut hosts = self.lock();
        let breaker = hosts.entry(Origin::from(url)).or_default();
        breaker.bad_answers.clear();
        breaker.last_good = Some((resource.clone(), url.clone()));
        let is_over = breaker.outage.take().is_some();
        if is_over {
            self.outages.fetch_sub(1, Ordering::AcqRel);
        }
        is_over
    }

    /// Notes a failure.
    pub(super) fn note_failure(&self, url: &Url, failure: &Failure, now: SystemTime) -> Transition {
        let mut hosts = self.lock();
        let breaker = hosts.entry(Origin::from(url)).or_default();
        let is_certain = match severity(failure) {
            Severity::None => return Transition::Nothing,
            Severity::Answer => {
                breaker.bad_answers.insert(url.clone());
                if breaker.bad_answers.len() < MAX_BAD_ANSWERS {
                    return Transition::Nothing;
                }
                true
            }
            Severity::Doubt => false,
            Severity::Outage => true,
        };
        if is_certain {
            breaker.bad_answers.clear();
        }
        match &mut breaker.outage {
            Some(outage) => {
                if is_certain && outage.ascertain(failure) {
                    Transition::Certainty
                } else {
                    Transition::Nothing
                }
            }
            None => {
                breaker.outage = Some(Outage {
                    is_certain,
                    since: now,
                    cause: failure.to_string(),
                });
                self.outages.fetch_add(1, Ordering::AcqRel);
                if is_certain {
                    Transition::Outage
                } else {
                    Transition::Doubt
                }
            }
        }
    }

    /// Notes that a probe failed; whether that made certain what was in doubt. What is over it does not begin anew.
    pub(super) fn note_failed_probe(&self, url: &Url, failure: &Failure) -> bool {
        let mut hosts = self.lock();
        let breaker = hosts.get_mut(&Origin::from(url));
        let Some(outage) = breaker.and_then(|breaker| breaker.outage.as_mut()) else {
            return false;
        };
        severity(failure) == Severity::Outage && outage.ascertain(failure)
    }

    /// What to ask for to see whether the upstream of `url` is back, if anything was ever well there.
    pub(super) fn last_good(&self, url: &Url) -> Option<(Resource, Url)> {
        self.lock().get(&Origin::from(url))?.last_good.clone()
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, CircuitBreaker>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause before the probe after `tried` ones.
pub(super) fn probe_delay(tried: u32) -> Duration {
    FIRST_PROBE_DELAY
        .saturating_mul(1 << tried.min(10))
        .min(MAX_PROBE_DELAY)
}

/// What a failure has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Nothing,
    /// The upstream may be slow, or out of reach: the caller must probe it.
    Doubt,
    /// It is out of reach, and not known to have been so: the caller must probe it.
    Outage,
    /// What was in doubt is out of reach; the probes go on.
    Certainty,
}

/// What a failure says about its upstream as a whole.
#[derive(Debug, PartialEq, Eq)]
enum Severity {
    /// It is there; this is about one thing.
    None,
    /// It is there but not well, or something poses as it.
    Answer,
    /// It may be slow, or not there any more.
    Doubt,
    /// It is not there.
    Outage,
}

fn severity(failure: &Failure) -> Severity {
    match &failure.kind {
        // Who waits with a copy at hand does not wait long.
        FailureKind::Silent { after, .. } if *after < HEAD_TIMEOUT => Severity::Doubt,
        FailureKind::Unreachable { .. } | FailureKind::Silent { .. } => Severity::Outage,
        FailureKind::Status { .. }
        | FailureKind::Unrecognised { .. }
        | FailureKind::Broken { .. } => Severity::Answer,
        FailureKind::Redirected { foreign, .. } => {
            // A captive portal redirects everything to itself.
            if *foreign {
                Severity::Answer
            } else {
                Severity::None
            }
        }
        FailureKind::Denied { .. }
        | FailureKind::Absent { .. }
        | FailureKind::TooLarge { .. }
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
    fn one_failed_dial_opens_the_breaker_of_that_host_only_and_an_answer_closes_it() {
        let breakers = CircuitBreakers::new(false);
        let fail = || breakers.note_failure(&url("a.example"), &unreachable(), NOW);
        assert_eq!([fail(), fail()], [Transition::Outage, Transition::Nothing]);
        assert_eq!(breakers.reach(&url("a.example")), Reach::Down);
        assert_eq!(breakers.reach(&url("b.example")), Reach::Online);
        assert!(breakers.note_answer(&resource(), &url("a.example")));
        assert_eq!(breakers.reach(&url("a.example")), Reach::Online);
        assert!(breakers.last_good(&url("a.example/other")).is_some());
    }

    #[test]
    fn slowness_is_no_outage_until_somebody_has_waited_long_or_a_dial_has_failed() {
        let long = FailureKind::Silent {
            after: HEAD_TIMEOUT,
        }
        .at(&url("a.example"));
        for proof in [long, unreachable()] {
            let breakers = CircuitBreakers::new(false);
            let at = url("a.example");
            let fail = |failure: &Failure| breakers.note_failure(&at, failure, NOW);
            let changes = [&silent(), &silent()].map(fail);
            assert_eq!(changes, [Transition::Doubt, Transition::Nothing]);
            assert_eq!(breakers.reach(&at), Reach::Slow);
            assert!(!breakers.note_failed_probe(&at, &silent()));
            assert!(!breakers.is_settled_in(&at, NOW + OFFLINE_VIEW_AFTER));
            let changes = [&proof, &proof, &silent()].map(fail);
            assert_eq!(
                changes,
                [
                    Transition::Certainty,
                    Transition::Nothing,
                    Transition::Nothing
                ]
            );
            assert_eq!(breakers.reach(&at), Reach::Down);
            assert!(breakers.note_answer(&resource(), &at) && breakers.is_all_well());
            // A probe that fails later than that says nothing new.
            assert!(!breakers.note_failed_probe(&at, &proof) && breakers.is_all_well());
            fail(&silent());
            assert!(breakers.note_failed_probe(&at, &proof));
            assert_eq!(breakers.reach(&at), Reach::Down);
        }
    }

    #[test]
    fn bad_answers_about_several_things_open_the_breaker_and_a_good_one_between_starts_the_count_anew()
     {
        let breakers = CircuitBreakers::new(false);
        let bad = |thing: &str| {
            breakers.note_failure(&url(&format!("a.example/{thing}")), &portal(), NOW)
        };
        use Transition::{Nothing, Outage};
        assert_eq!(["a", "b"].map(bad), [Nothing, Nothing]);
        breakers.note_answer(&resource(), &url("a.example"));
        assert_eq!(["a", "b", "c"].map(bad), [Nothing, Nothing, Outage]);
    }

    #[test]
    fn one_broken_thing_upstream_is_no_outage_however_often_it_is_asked_for() {
        let breakers = CircuitBreakers::new(false);
        let bad = |_| breakers.note_failure(&url("a.example/broken"), &portal(), NOW);
        assert!((0..20).map(bad).all(|change| change == Transition::Nothing));
    }

    #[test]
    fn a_blip_is_not_yet_a_life_offline() {
        let breakers = CircuitBreakers::new(false);
        breakers.note_failure(&url("a.example"), &unreachable(), NOW);
        assert!(!breakers.is_settled_in(&url("a.example"), NOW + Duration::from_secs(9)));
        assert!(breakers.is_settled_in(&url("a.example"), NOW + Duration::from_secs(10)));
        assert!(CircuitBreakers::new(true).is_settled_in(&url("a.example"), NOW));
    }

    #[test]
    fn probes_become_rarer_and_never_stop() {
        let pauses: Vec<_> = (0..8).map(|tried| probe_delay(tried).as_millis()).collect();
        assert_eq!(
            pauses,
            [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]
        );
        assert_eq!(probe_delay(u32::MAX), MAX_PROBE_DELAY);
    }
}
