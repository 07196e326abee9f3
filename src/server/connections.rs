//! All open connections: how many there may be, and which one closes for a new one.
//!
//! ```text
//!   new connection ── below both limits ───────────────────────────────> served
//!          └── at a limit ── a quiet one ──> that one closes ──────────> served
//!                                 └── all are in use ──────────────────> refused, with the limit's name
//! ```
//!
//! A connection is quiet if it is idle, the longest first, or else if its client has read nothing of an answer for
//! [`STALL_BEFORE_CLOSE`]. Clients keep idle connections only to save a round trip, and open new ones as needed. The
//! limit for one peer closes only connections of that peer.
//!
//! A connection that closes tells its client first (GOAWAY in HTTP/2). Until its client agrees, it takes a descriptor
//! besides the limit, so at most [`MAX_CLOSING`] do that, and each for a second.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    answer_memory::AnswerMemory,
    client_limits::{ClientLimit, LimitCounters},
    connection::{Abuse, Activity, Quiet},
};

/// Default number of connections. Cargo opens one or two for a command, rustup one for each download.
const DEFAULT_MAX_CONNECTIONS: usize = 1024;
/// Default number of requests in flight.
const DEFAULT_MAX_REQUESTS: u32 = 2048;
/// Time that a request waits while too many are in flight, and the interval at which it looks for stalled clients.
const WAIT_FOR_REQUESTS: [Duration; 2] = [Duration::from_secs(10), Duration::from_millis(500)];
/// Time after which a connection whose client reads nothing may close for a new one. Cargo gives up after 30 s without
/// a byte (docs/client-behaviour.md, C-16), and a client on a slow link reads something every few seconds.
const STALL_BEFORE_CLOSE: Duration = Duration::from_secs(10);
/// Time after which an idle connection may close for a new one. Before that, its client's next request may be in
/// transit.
const IDLE_BEFORE_CLOSE: Duration = Duration::from_millis(100);
/// Connections that may be closing besides the limit.
const MAX_CLOSING: usize = 16;
/// Descriptors that stay free for files, upstream and closing connections if the limit is set, at least.
const MIN_RESERVED_FILES: u64 = 40;

/// Numbers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// From one peer.
    pub per_peer: usize,
    /// True if `per_peer` also limits loopback peers, among them containers behind a proxy on this machine.
    pub limits_loopback: bool,
    /// Requests in flight in total.
    pub requests: u32,
}

impl ConnectionLimits {
    /// The limits of the settings, or the defaults for a process that may open `open_files` files.
    ///
    /// By default half of the files are for connections, and one peer, unless it is on this machine, may have half of
    /// the connections.
    pub fn new(
        total: Option<u32>,
        per_peer: Option<u32>,
        requests: Option<u32>,
        open_files: Option<u64>,
    ) -> Self {
        let files = open_files.unwrap_or(u64::MAX);
        let reserved = MIN_RESERVED_FILES.min(files / 2);
        let (default, most) = (whole(files / 2), whole(files - reserved));
        let default = DEFAULT_MAX_CONNECTIONS.min(default);
        let total = total.map_or(default, |total| most.min(total as usize));
        let total = total.max(1);
        Self {
            total,
            per_peer: per_peer.map_or(total.div_ceil(2), |limit| limit as usize),
            limits_loopback: per_peer.is_some(),
            requests: requests.unwrap_or(DEFAULT_MAX_REQUESTS),
        }
    }

    fn of_peer(&self, peer: IpAddr) -> usize {
        if peer.is_loopback() && !self.limits_loopback {
            usize::MAX
        } else {
            self.per_peer
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::new(None, None, None, None)
    }
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    created: Instant,
    table: Mutex<Table>,
    requests: Arc<Semaphore>,
    /// Memory of the answers to all connections.
    pub(super) answers: AnswerMemory,
    pub(super) counters: LimitCounters,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    open: HashMap<u64, OpenConnection>,
    /// Open connections by peer, without those that are closing.
    by_peer: HashMap<IpAddr, usize>,
    closing: usize,
    /// The server has begun to stop.
    is_stopping: bool,
    /// When a connection last began or ended.
    last_change: Option<Instant>,
}

#[derive(Debug)]
struct OpenConnection {
    peer: IpAddr,
    activity: Arc<Activity>,
    stop: watch::Sender<bool>,
    task: Option<AbortHandle>,
    /// Since when it has been closing for another one.
    closing_since: Option<Instant>,
}

/// A refusal for a new connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AllInUse {
    pub(super) limit: ClientLimit,
    /// The reason, as shown to the client.
    pub(super) reason: String,
}

/// The place of one connection, until dropped.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    connections: Arc<Connections>,
    pub(super) id: u64,
    pub(super) activity: Arc<Activity>,
    /// Becomes true when the connection must end.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Connections {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            created: Instant::now(),
            table: Mutex::default(),
            requests: Arc::new(Semaphore::new(limits.requests as usize)),
            answers: AnswerMemory::default(),
            counters: LimitCounters::default(),
        }
    }

    /// The limits.
    pub fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Number of connections, closing ones included.
    pub(super) fn open(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Since when no client wants anything; `None` while a request is in flight or may be in transit.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let table = self.table.lock();
        let mut since = table.last_change.unwrap_or(self.created);
        for connection in table.open.values() {
            match connection.activity.quiet()? {
                Quiet::Idle(last) => since = since.max(last),
                Quiet::Stalled(_) => return None,
            }
        }
        Some(since)
    }

    /// Returns whether the server has begun to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.table.lock().is_stopping
    }

    /// Takes a place for a new connection from `address`. Closes a quiet one if there is none left.
    ///
    /// # Errors
    /// The limit, if all connections that count for it are in use.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPlace, AllInUse> {
        let peer = peer_of(address);
        let now = Instant::now();
        let mut table = self.table.lock();
        let limit = self.limits.of_peer(peer);
        if table.by_peer.get(&peer).is_some_and(|open| *open >= limit) {
            let quiet = table.longest_quiet(now, |other| other.peer == peer);
            let Some(id) = quiet else {
                return Err(Self::all_in_use(
                    ClientLimit::MaxConnectionsPerPeer,
                    limit,
                    "connections of this address",
                ));
            };
            self.close(&mut table, id, now);
        }
        if table.open.len() - table.closing >= self.limits.total {
            let Some(id) = table.longest_quiet(now, |_| true) else {
                return Err(Self::all_in_use(
                    ClientLimit::MaxConnections,
                    self.limits.total,
                    "connections",
                ));
            };
            self.close(&mut table, id, now);
        }
        let (stop, stopping) = watch::channel(table.is_stopping);
        let id = table.next_id;
        table.next_id += 1;
        table.last_change = Some(now);
        *table.by_peer.entry(peer).or_default() += 1;
        let activity = Arc::<Activity>::default();
        table.open.insert(
            id,
            OpenConnection {
                peer,
                activity: activity.clone(),
                stop,
                task: None,
                closing_since: None,
            },
        );
        Ok(ConnectionPlace {
            connections: self.clone(),
            id,
            activity,
            stopping,
        })
    }

    /// The right of one request to be in flight, until dropped. Waits for it, and closes connections whose clients read
    /// nothing meanwhile.
    ///
    /// # Errors
    /// The limit, if all stay in use.
    pub(super) async fn admit_request(&self) -> Result<OwnedSemaphorePermit, AllInUse> {
        if let Ok(permit) = self.requests.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let [longest, interval] = WAIT_FOR_REQUESTS;
        let deadline = Instant::now() + longest;
        loop {
            let permit = timeout(interval, self.requests.clone().acquire_owned());
            // The semaphore is never closed.
            if let Ok(Ok(permit)) = permit.await {
                return Ok(permit);
            }
            self.abort_longest_stalled();
            if Instant::now() >= deadline {
                let max = self.limits.requests as usize;
                let refused = Self::all_in_use(ClientLimit::MaxRequests, max, "requests in flight");
                self.refuse(&refused);
                return Err(refused);
            }
        }
    }

    fn all_in_use(limit: ClientLimit, number: usize, whose: &str) -> AllInUse {
        let reason = format!(
            "all {number} {whose} are in use (setting `{}`)",
            limit.as_str()
        );
        AllInUse { limit, reason }
    }

    /// Counts a connection that gets no place, and logs it.
    pub(super) fn refuse(&self, refused: &AllInUse) {
        let now = std::time::Instant::now();
        if let Some(count) = self.counters.count_and_log(refused.limit, now) {
            warn!(count, reason = %refused.reason, "refused connections or requests");
        }
    }

    /// Counts a connection that ended because of its client's misuse of HTTP/2, and logs it.
    pub(super) fn report_abuse(&self, reason: Abuse) {
        let now = std::time::Instant::now();
        let counters = &self.counters;
        if let Some(count) = counters.count_and_log(ClientLimit::Http2Abuse, now) {
            warn!(count, %reason, "closed connections that misused HTTP/2");
        }
    }

    /// Tells the connection to end, so that its place is free.
    fn close(&self, table: &mut Table, id: u64, now: Instant) {
        let limit = ClientLimit::ClosedIdle;
        if let Some(count) = self
            .counters
            .count_and_log(limit, std::time::Instant::now())
        {
            let max = self.limits.total;
            info!(count, max, "closed idle connections for new ones");
        }
        table.start_closing(id, now);
        if table.closing > MAX_CLOSING {
            table.abort_longest_closing();
        }
    }

    /// Ends the longest quiet connection without telling its client, for want of a descriptor. Returns whether there
    /// was one.
    pub(super) fn abort_longest_quiet(&self) -> bool {
        let mut table = self.table.lock();
        if table.abort_longest_closing() {
            return true;
        }
        let now = Instant::now();
        let Some(id) = table.longest_quiet(now, |_| true) else {
            return false;
        };
        self.counters.count(ClientLimit::ClosedIdle);
        table.start_closing(id, now);
        table.abort_longest_closing()
    }

    /// Ends the connection whose client has read nothing for the longest time, unless that is short.
    fn abort_longest_stalled(&self) {
        let now = Instant::now();
        let mut table = self.table.lock();
        let is_stalled =
            |it: &OpenConnection| matches!(it.activity.quiet(), Some(Quiet::Stalled(_)));
        if let Some(id) = table.longest_quiet(now, is_stalled) {
            self.counters.count(ClientLimit::WriteTimeout);
            table.start_closing(id, now);
            table.abort_longest_closing();
        }
    }

    /// Names the task that serves the connection `id`, so that it can be ended.
    pub(super) fn started(&self, id: u64, task: AbortHandle) {
        if let Some(connection) = self.table.lock().open.get_mut(&id) {
            connection.task = Some(task);
        }
    }

    /// Tells all connections, and those that are still to come, to end after the requests in flight.
    pub(super) fn stop(&self) {
        let mut table = self.table.lock();
        table.is_stopping = true;
        for connection in table.open.values() {
            connection.stop.send_replace(true);
        }
    }
}

impl Table {
    /// The connection that closes first among those that `may_close` names.
    fn longest_quiet(
        &self,
        now: Instant,
        may_close: impl Fn(&OpenConnection) -> bool,
    ) -> Option<u64> {
        let candidates = self.open.iter().filter_map(|(id, connection)| {
            if connection.closing_since.is_some() || !may_close(connection) {
                return None;
            }
            match connection.activity.quiet()? {
                Quiet::Idle(since) if now < since + IDLE_BEFORE_CLOSE => None,
                Quiet::Stalled(since) if now < since + STALL_BEFORE_CLOSE => None,
                quiet @ (Quiet::Idle(_) | Quiet::Stalled(_)) => Some((quiet, *id)),
            }
        });
        candidates.min().map(|(_, id)| id)
    }

    fn start_closing(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.open.get_mut(&id) else {
            return;
        };
        if connection.closing_since.replace(now).is_none() {
            connection.stop.send_replace(true);
            self.closing += 1;
            let peer = connection.peer;
            self.forget_peer(peer);
        }
    }

    /// Drops the task of the connection that has been closing for the longest time.
    fn abort_longest_closing(&mut self) -> bool {
        let closing = self
            .open
            .iter_mut()
            .filter(|(_, connection)| connection.task.is_some())
            .filter_map(|(id, connection)| Some((connection.closing_since?, *id, connection)));
        let longest = closing.min_by_key(|(since, id, _)| (*since, *id));
        // A task is aborted once: it then ends without further orders.
        let task = longest.and_then(|(_, _, connection)| connection.task.take());
        let found = task.is_some();
        task.inspect(AbortHandle::abort);
        found
    }

    fn remove(&mut self, id: u64) {
        let Some(connection) = self.open.remove(&id) else {
            return;
        };
        self.last_change = Some(Instant::now());
        if connection.closing_since.is_some() {
            self.closing -= 1;
        } else {
            self.forget_peer(connection.peer);
        }
    }

    fn forget_peer(&mut self, peer: IpAddr) {
        if let Entry::Occupied(mut count) = self.by_peer.entry(peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.table.lock().remove(self.id);
    }
}

/// The peer that an address counts for. In IPv6 one machine usually has a network of 64 bits to itself.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = u128::from(v6) & (u128::MAX << 64);
            Ipv6Addr::from(network).into()
        }
        other @ (IpAddr::V4(_) | IpAddr::V6(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_files_for_the_store_and_for_upstream() {
        let total = |total, files| ConnectionLimits::new(total, None, None, files).total;
        assert_eq!(total(None, None), DEFAULT_MAX_CONNECTIONS);
        assert_eq!(total(None, Some(1 << 20)), DEFAULT_MAX_CONNECTIONS);
        assert_eq!(total(None, Some(256)), 128);
        assert_eq!(total(None, Some(64)), 32);
        assert_eq!(total(Some(5000), Some(1 << 20)), 5000);
        assert_eq!(total(Some(5000), Some(1024)), 984);
        assert_eq!(total(Some(5000), Some(64)), 32);
        assert_eq!(total(Some(5000), Some(1)), 1);
    }

    #[test]
    fn limit_for_one_peer_spares_this_machine_unless_it_is_set() {
        let of = |per_peer, address: &str| {
            let limits = ConnectionLimits::new(Some(100), per_peer, None, None);
            limits.of_peer(peer_of(address.parse().unwrap()))
        };
        for local in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(None, local), usize::MAX, "{local}");
            assert_eq!(of(Some(7), local), 7, "{local}");
        }
        assert_eq!(of(None, "10.0.2.2"), 50);
        assert_eq!(of(Some(7), "10.0.2.2"), 7);
    }

    #[test]
    fn one_ipv6_network_is_one_peer() {
        let peer = |address: &str| peer_of(address.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_of_a_connection_is_free_again_when_it_ends_or_begins_to_close() {
        let connections = Arc::new(Connections::new(ConnectionLimits::new(
            Some(2),
            None,
            None,
            None,
        )));
        let admit = || connections.admit([127, 0, 0, 1].into());
        let waits = |place: &ConnectionPlace| {
            place
                .activity
                .waits_for_client
                .store(true, std::sync::atomic::Ordering::Release);
        };
        let (first, second) = (admit().unwrap(), admit().unwrap());
        assert_eq!(connections.idle_since(), None);
        // Their first bytes may not be read yet.
        assert_eq!(admit().unwrap_err().limit, ClientLimit::MaxConnections);
        waits(&first);
        tokio::time::advance(Duration::from_secs(1)).await;
        waits(&second);
        let third = admit().unwrap();
        assert!(*first.stopping.borrow());
        assert!(!*second.stopping.borrow() && !*third.stopping.borrow());
        drop(first);
        assert_eq!(connections.open(), 2);
        drop(second);
        let fourth = admit().unwrap();
        connections.stop();
        assert!(*third.stopping.borrow() && *fourth.stopping.borrow());
        waits(&third);
        assert_eq!(connections.idle_since(), None);
        drop(fourth);
        let ended = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(connections.idle_since(), Some(ended));
    }
}
