//! The health of each upstream: records answers and failures, and probes an upstream that is slow or down.
//!
//! The circuit breakers ([`super::breaker`]) hold the state. This module feeds them, has [`super::state_log`] log their
//! changes, and runs the probes. When a breaker leaves `Closed`, one background task per outage sends requests with
//! growing delays until one succeeds or the breaker is closed. So larder notices the recovery by itself, and no client
//! waits for a failing request.

use std::sync::Arc;

use tokio::time::timeout;
use url::Url;

use super::{
    breaker::{self, CircuitBreakers, Transition},
    counters::{Counter, Counters},
    fetch::request::{EntryRequest, get_sidecar, plain_get},
    options::{CLIENT_TIMEOUT, HEAD_TIMEOUT},
    state_log::StateLog,
};
use crate::{
    clock::now,
    memory_budget::MemoryBudget,
    resource::{Location, Resource, Source},
    upstream::{Failure, FailureKind, Origin, Reply, Upstream},
    validators::Validators,
};

/// The client for all upstreams, with the circuit breaker of each.
#[derive(Debug)]
pub(super) struct UpstreamHealth {
    pub(super) upstream: Arc<Upstream>,
    pub(super) breakers: CircuitBreakers,
    /// `None` in commands without clients: their own reports tell what failed.
    pub(super) state_log: Option<StateLog>,
    pub(super) counters: Arc<Counters>,
    /// The memory for arriving bodies.
    pub(super) memory: MemoryBudget,
    /// Size limit of every entry in bytes.
    pub(super) max_entry_bytes: u64,
}

impl UpstreamHealth {
    /// Records a good answer about `resource` from `url`.
    pub(super) fn record_answer(&self, resource: &Resource, url: &Url) {
        self.counters.add(Counter::UpstreamAnswers);
        if self.breakers.record_success(resource, url) {
            self.log_state(url);
            self.upstream.reconnect();
        }
    }

    /// Records a failed request for `resource` to `url`, and starts probes if that opened a breaker.
    pub(super) fn record_failure(
        self: &Arc<Self>,
        resource: &Resource,
        url: &Url,
        failure: &Failure,
    ) {
        self.counters.add(Counter::UpstreamFailures);
        // The target of a redirect is another origin. Its failure says nothing about the origin of `url`.
        if failure.origin != Origin::from(url) {
            return;
        }
        let transition = self.breakers.record_failure(url, failure, now());
        match transition {
            Transition::None => {}
            Transition::SlowToOpen => self.log_state(url),
            Transition::ClosedToSlow | Transition::ClosedToOpen => {
                self.log_state(url);
                self.upstream.reconnect();
                if let Some(outage) = self.breakers.claim_probes(url) {
                    tokio::spawn(probe(self.clone(), resource.clone(), url.clone(), outage));
                }
            }
        }
    }

    /// Logs the state of the upstream of `url` after a change.
    fn log_state(&self, url: &Url) {
        if let Some(state_log) = &self.state_log {
            state_log.update(&Origin::from(url), || self.breakers.outage(url));
        }
    }

    /// Sends one probe. A good answer is not stored.
    pub(super) async fn send_probe(&self, resource: &Resource, url: &Url) -> Result<(), Failure> {
        let probe = async {
            match resource.location() {
                Location::Pair(..) => {
                    get_sidecar(&self.upstream, url, HEAD_TIMEOUT).await?;
                }
                Location::Entry(_) => {
                    let request = EntryRequest {
                        resource,
                        url,
                        stored: None,
                        validators: Validators::default(),
                        max_bytes: self.max_entry_bytes,
                        memory: &self.memory.reservation(),
                        read_timeout: HEAD_TIMEOUT,
                        keys: None,
                        started: now(),
                    };
                    request.send(&self.upstream).await?;
                }
                Location::Blob(_) | Location::ListedIn(_) => self.probe_blob(url).await?,
            }
            Ok(())
        };
        timeout(CLIENT_TIMEOUT, probe).await.unwrap_or_else(|_| {
            let after = CLIENT_TIMEOUT;
            Err(FailureKind::Silent { after }.at(url))
        })
    }

    /// Returns whether the answer that `resource` does not exist shows that its upstream is there. A broken one, and a
    /// captive portal, may answer so to everything.
    async fn is_absence_an_answer(&self, resource: &Resource) -> bool {
        let witness = resource.retention().map(|retention| retention.witness());
        match witness.map(|witness| (witness.source(), witness)) {
            Some((Source::At(url), witness)) => self.send_probe(&witness, &url).await.is_ok(),
            Some((Source::NamedBy(_), _)) | None => true,
        }
    }

    /// Reads the beginning of a blob, which is enough to recognise a login page.
    async fn probe_blob(&self, url: &Url) -> Result<(), Failure> {
        let get = plain_get(url.clone(), HEAD_TIMEOUT);
        let Reply::Body(mut incoming) = self.upstream.get(&get).await? else {
            return Ok(());
        };
        let first = incoming.chunk().await?.unwrap_or_default();
        if first.trim_ascii_start().starts_with(b"<") {
            let why = "is a page; a login page?".to_owned();
            return Err(FailureKind::Unrecognised { why }.at(url));
        }
        Ok(())
    }
}

/// Probes the upstream of `url` until it gives a good answer, `outage` is over, or the cache is dropped.
///
/// The best probe is the resource that was last answered well, but that may be the one that is broken now. So every
/// second probe asks for the resource that failed.
async fn probe(health: Arc<UpstreamHealth>, failed: Resource, url: Url, outage: u64) {
    let weak = Arc::downgrade(&health);
    drop(health);
    for tried in 0.. {
        tokio::time::sleep(breaker::probe_delay(tried)).await;
        let Some(health) = weak.upgrade() else { return };
        if !health.breakers.is_in_outage(&url, outage) {
            return;
        }
        let last_good = health.breakers.last_good(&url).filter(|_| tried % 2 == 0);
        let (resource, url) = last_good.unwrap_or_else(|| (failed.clone(), url.clone()));
        match health.send_probe(&resource, &url).await {
            // A refusal is an answer too: the upstream is there.
            Ok(())
            | Err(Failure {
                kind: FailureKind::Denied { .. },
                ..
            }) => return health.record_answer(&resource, &url),
            Err(Failure {
                kind: FailureKind::Absent { .. },
                ..
            }) if health.is_absence_an_answer(&resource).await => {
                return health.record_answer(&resource, &url);
            }
            Err(failure) => {
                health.counters.add(Counter::ProbesFailed);
                if health.breakers.record_failed_probe(&url, &failure) {
                    health.log_state(&url);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        resource::{Registries, RegistryConfig},
        upstream::UpstreamOptions,
    };

    #[tokio::test]
    async fn an_upstream_that_fails_again_and_again_is_probed_by_one_task() {
        let options = UpstreamOptions::for_test(Duration::from_secs(1));
        let health = Arc::new(UpstreamHealth {
            upstream: Arc::new(Upstream::new(options, []).unwrap()),
            breakers: CircuitBreakers::new(false),
            state_log: None,
            counters: Arc::default(),
            memory: MemoryBudget::new(1 << 20),
            max_entry_bytes: 1 << 20,
        });
        // Nothing listens there.
        let url = Url::parse("http://127.0.0.1:9/").unwrap();
        let registries = Registries::new(url.clone(), []);
        let resource = RegistryConfig::of(registries.crates_io());
        let cause = "connection refused".into();
        let failure = FailureKind::Unreachable { cause }.at(&url);
        for _ in 0..8 {
            health.record_failure(&resource, &url, &failure);
            health.record_answer(&resource, &url);
        }
        health.record_failure(&resource, &url, &failure);
        let failed = || health.counters.get(Counter::ProbesFailed);
        while failed() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The second probe is a second later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(failed() <= 2, "{} probes failed", failed());
    }
}
