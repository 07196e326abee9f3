//! [`Traffic`]: learns of each answered request, and reports the bursts of clients.
//!
//! A hit costs a lock that only requests of the same client share. A task wakes up when a burst is over, and not at
//! all while there are no requests.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep_until};
use tracing::info;

use super::{
    access_log_file::AccessLogFile,
    bursts::{AnswerKind, ClientBurst},
    latency::Latencies,
};

/// The address of a client whose requests come through another part of this process: an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// All clients, and the access log.
#[derive(Debug, Default)]
pub struct Traffic {
    clients: Mutex<HashMap<IpAddr, Arc<ClientTraffic>>>,
    /// Answers since the start.
    pub(super) latencies: Latencies,
    /// A client has begun a burst.
    begun: Notify,
    /// `None` without an access log.
    pub(super) access_log: Option<AccessLogFile>,
    /// True if failed requests are no warnings: the client is a cargo of larder's own, and a report has its message.
    pub(super) is_own_cargo: bool,
}

/// A client that has a connection, or a burst that is not reported yet.
#[derive(Debug)]
pub(super) struct ClientTraffic {
    pub(super) address: IpAddr,
    pub(super) traffic: Arc<Traffic>,
    burst: Mutex<Option<ClientBurst>>,
}

impl Traffic {
    /// No clients yet.
    pub fn new(access_log: Option<AccessLogFile>) -> Self {
        Self {
            access_log,
            ..Self::default()
        }
    }

    /// The requests of a cargo that larder itself runs.
    pub(super) fn of_own_cargo() -> Self {
        Self {
            is_own_cargo: true,
            ..Self::default()
        }
    }

    /// The client at this address.
    pub(super) fn client(self: &Arc<Self>, address: IpAddr) -> Arc<ClientTraffic> {
        let mut clients = self.clients.lock();
        let client = clients.entry(address).or_insert_with(|| {
            Arc::new(ClientTraffic {
                address,
                traffic: self.clone(),
                burst: Mutex::default(),
            })
        });
        client.clone()
    }

    /// Reports bursts when they are over. Never ends.
    pub(super) async fn report_bursts(&self) {
        loop {
            match self.report(|burst, now| burst.due() <= now) {
                Some(due) => sleep_until(due.into()).await,
                None => self.begun.notified().await,
            }
        }
    }

    /// Reports all bursts, over or not, and writes the last lines of the access log.
    pub(super) fn finish(&self) {
        self.report(|_, _| true);
        if let Some(access_log) = &self.access_log {
            access_log.close();
        }
    }

    /// Reports the bursts that `is_due`, and forgets clients that are gone. Returns when the next one is due.
    fn report(&self, is_due: impl Fn(&ClientBurst, Instant) -> bool) -> Option<Instant> {
        let now = Instant::now();
        let (mut reported, mut next) = (Vec::new(), None::<Instant>);
        self.clients.lock().retain(|address, client| {
            let mut burst = client.burst.lock();
            if burst.as_ref().is_some_and(|burst| is_due(burst, now)) {
                reported.extend(burst.take().map(|burst| (*address, burst)));
            }
            let due = burst.as_ref().map(ClientBurst::due);
            next = next.into_iter().chain(due).min();
            // The map has one, and each connection another.
            due.is_some() || Arc::strong_count(client) > 1
        });
        for (client, burst) in reported {
            let count = |kind| burst.count(kind);
            info!(
                json.client = %client,
                json.hits = count(AnswerKind::Hit),
                json.misses = count(AnswerKind::Miss),
                json.stale = count(AnswerKind::Stale),
                json.absent = count(AnswerKind::Absent),
                json.failed = count(AnswerKind::Failed),
                json.bytes = burst.bytes,
                json.ms = u64::try_from(burst.took().as_millis()).unwrap_or(u64::MAX),
                "burst from {client}: {burst}"
            );
        }
        next
    }
}

impl ClientTraffic {
    /// Counts a request for a resource.
    pub(super) fn count(&self, kind: AnswerKind, bytes: u64, began: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(began);
        self.traffic.latencies.add(kind, took, bytes);
        let mut burst = self.burst.lock();
        let is_first = burst.is_none();
        let current = burst.get_or_insert_with(|| ClientBurst::new(began));
        current.add(kind, bytes, began, ended);
        drop(burst);
        if is_first {
            self.traffic.begun.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn clients_without_connections_are_forgotten_after_their_burst() {
        let traffic = Arc::<Traffic>::default();
        let client = traffic.client(Ipv4Addr::LOCALHOST.into());
        let now = Instant::now();
        client.count(AnswerKind::Hit, 1, now, now);
        assert!(traffic.report(|_, _| false).is_some());
        assert!(traffic.report(|_, _| true).is_none());
        assert_eq!(traffic.clients.lock().len(), 1, "it has a connection");
        client.count(AnswerKind::Hit, 1, now, now);
        drop(client);
        assert!(traffic.report(|_, _| false).is_some());
        assert_eq!(traffic.clients.lock().len(), 1, "its burst is not reported");
        traffic.finish();
        assert_eq!(traffic.clients.lock().len(), 0);
    }
}
