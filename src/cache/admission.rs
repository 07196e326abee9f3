//! Applies the pure rules of [`super::decide`] to the present: clock, circuit breakers and negative cache.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;
use url::Url;

use super::{
    absence::Absences,
    decide::{Decision, Demand, NegativeAnswer, Reach, Refusal, StoredCopy, decide},
    flight::FlightKey,
    negative::NegativeCache,
    probe::UpstreamHealth,
};
use crate::{
    clock::now,
    error::Error,
    resource::{Resource, Source},
    store::Entry,
    upstream::{FailureKind, Origin},
};

/// Time for which a refusal (401, 403) is remembered. A user who has just fixed the access waits no longer.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(10);

/// The state that decisions depend on, besides the stored copy.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) health: Arc<UpstreamHealth>,
    pub(super) negative: NegativeCache,
    pub(super) absences: Absences,
    /// The user's bound of freshness lifetimes.
    pub(super) max_age: Duration,
}

impl Admission {
    /// Decides about a request for `resource`, of which `stored` is the stored copy.
    pub(super) fn decide(
        &self,
        resource: &Resource,
        flight_key: &FlightKey,
        stored: Option<&Entry>,
        demand: Demand,
    ) -> Decision {
        let now = now();
        let stored = stored.map(|entry| StoredCopy {
            checked: entry.checked,
            max_age: entry.head.max_age.map(Duration::from_secs),
            validators: &entry.head.validators,
        });
        decide(
            &resource.policy(),
            stored,
            self.negative.get(flight_key, Instant::now()),
            demand,
            now,
            self.reach(resource),
            self.max_age,
        )
    }

    /// Returns whether upstream cannot be asked for `resource` now.
    pub(super) fn is_out_of_reach(&self, resource: &Resource) -> bool {
        matches!(self.reach(resource), Reach::Offline | Reach::Down)
    }

    fn reach(&self, resource: &Resource) -> Reach {
        let breakers = &self.health.breakers;
        if breakers.all_closed() {
            return Reach::Online;
        }
        match resource.source() {
            Source::At(url) => breakers.reach(&url),
            Source::NamedBy(_) if breakers.is_offline() => Reach::Offline,
            // The origin is not known before the naming resource has been read. The fetch checks again.
            Source::NamedBy(_) => Reach::Online,
        }
    }

    /// The error for a refused request.
    pub(super) fn refusal_error(&self, resource: &Resource, refusal: Refusal) -> Error {
        let name = resource.to_string();
        match (refusal, resource.source()) {
            (Refusal::Absent, _) => Error::Absent { resource: name },
            (Refusal::Denied(code), Source::At(url)) => Error::Upstream {
                resource: name,
                failure: FailureKind::Denied { code }.at(&url),
                tried: 1,
            },
            // Only entries have a remembered refusal, and their addresses are known.
            (Refusal::Denied(_), Source::NamedBy(_)) => Error::abandoned(resource),
            (Refusal::Down, Source::At(url)) => {
                self.outage_error(resource, &url)
                    .unwrap_or_else(|| Error::Down {
                        resource: name,
                        origin: Origin::from(&url),
                        since: Duration::ZERO,
                        failure: Box::new(
                            FailureKind::Unreachable {
                                cause: "the attempts failed a moment ago".to_owned(),
                            }
                            .at(&url),
                        ),
                    })
            }
            (Refusal::Offline | Refusal::Down, _) => Error::Offline { resource: name },
        }
    }

    /// The error for a request to `url` while its breaker is open; `None` if it is not open.
    pub(super) fn outage_error(&self, resource: &Resource, url: &Url) -> Option<Error> {
        let outage = self.health.breakers.outage(url)?;
        if !outage.is_open {
            return None;
        }
        Some(Error::Down {
            resource: resource.to_string(),
            origin: Origin::from(url),
            since: now().duration_since(outage.since).unwrap_or_default(),
            failure: Box::new(outage.failure),
        })
    }

    /// Remembers that upstream does not have `resource`, at most as long as an existing resource would count as fresh.
    pub(super) fn remember_absence(
        &self,
        resource: &Resource,
        flight_key: FlightKey,
        is_overruled: bool,
    ) {
        let answer = if is_overruled {
            NegativeAnswer::Overruled
        } else {
            NegativeAnswer::Absent
        };
        let lifetime = resource.policy().negative_ttl.min(self.max_age);
        let expires = Instant::now() + lifetime;
        self.negative.insert(flight_key, answer, expires);
    }

    /// Remembers that upstream refuses `resource`, and tells the user why.
    pub(super) fn remember_refusal(&self, resource: &Resource, flight_key: FlightKey, code: u16) {
        warn!(%resource, code, "upstream refuses access; larder cannot send a token");
        let answer = NegativeAnswer::Denied(code);
        self.negative
            .insert(flight_key, answer, Instant::now() + REFUSAL_LIFETIME);
    }
}

/// The error for a client that has waited for `resource` as long as it can.
pub(super) fn timeout_error(resource: &Resource, after: Duration) -> Error {
    let upstream = match resource.source() {
        Source::At(url) => Origin::from(&url).to_string(),
        Source::NamedBy(naming) => format!("the upstream that the {naming} names"),
    };
    Error::Timeout {
        resource: resource.to_string(),
        upstream,
        after,
    }
}
