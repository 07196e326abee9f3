//! Slots of HTTP/2 connections: which connection to an origin carries the next request.
//!
//! A slot is one client of the pool, and so at most one connection to each origin. Front ends process about
//! [`REQUESTS_PER_ROUND_TRIP`] requests at a time on one connection; further ones wait there until others end. A new
//! connection takes two round trips before its first request (TCP and TLS 1.3). So the second batch of a burst is
//! answered sooner on the open connection than on a new one, and the third batch opens the new one:
//!
//! ```text
//!  requests in flight    0 .. 99   100 .. 199   200 .. 299
//!  open connection          1          2            3       round trips until the answer
//!  new connection           3          4            5
//! ```

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::origin::Origin;

/// HTTP/2 connections to one origin. A burst that revalidates a large project has several hundred requests.
pub(super) const MAX_HTTP2_CONNECTIONS: usize = 3;
/// Requests that a front end answers within one round trip on one connection.
const REQUESTS_PER_ROUND_TRIP: usize = 100;
/// Round trips of a dial: TCP and TLS 1.3.
const DIAL_ROUND_TRIPS: usize = 2;
/// Time after which an idle connection is closed.
pub(super) const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The slots of all origins. There are as many origins as the settings and the upstreams' `config.json` name.
#[derive(Debug, Default)]
pub(super) struct Http2Slots(Mutex<HashMap<Origin, Slots>>);

type Slots = [Slot; MAX_HTTP2_CONNECTIONS];

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Requests that wait for their response heads.
    in_flight: usize,
    /// When the connection last answered.
    answered: Option<Instant>,
}

/// One HTTP/2 request in flight, counted in its slot until dropped.
#[derive(Debug)]
pub(super) struct SlotPermit<'a> {
    pub(super) index: usize,
    slots: &'a Http2Slots,
    origin: Origin,
}

impl Http2Slots {
    /// Counts a request in the slot that will probably answer it first.
    pub(super) fn take(&self, origin: &Origin) -> SlotPermit<'_> {
        let mut origins = self.0.lock();
        let slots = origins.entry(origin.clone()).or_default();
        let index = fastest(slots, Instant::now());
        slots[index].in_flight += 1;
        SlotPermit {
            index,
            slots: self,
            origin: origin.clone(),
        }
    }

    /// Forgets which connections are open.
    pub(super) fn reset(&self) {
        for slot in self.0.lock().values_mut().flatten() {
            slot.answered = None;
        }
    }
}

impl SlotPermit<'_> {
    /// Records whether the connection answered.
    pub(super) fn set_answered(&self, answered: bool) {
        self.update(|slot| slot.answered = answered.then(Instant::now));
    }

    fn update(&self, change: impl FnOnce(&mut Slot)) {
        if let Some(slots) = self.slots.0.lock().get_mut(&self.origin) {
            change(&mut slots[self.index]);
        }
    }
}

impl Drop for SlotPermit<'_> {
    fn drop(&mut self) {
        self.update(|slot| slot.in_flight -= 1);
    }
}

/// The slot with the fewest round trips until an answer. Of two with equally many, a new connection is better: the
/// requests after this one gain from it.
fn fastest(slots: &Slots, now: Instant) -> usize {
    let by_round_trips =
        |index: &usize| (slots[*index].round_trips(now), slots[*index].is_open(now));
    (0..slots.len()).min_by_key(by_round_trips).unwrap_or(0)
}

impl Slot {
    fn is_open(&self, now: Instant) -> bool {
        self.answered
            .is_some_and(|at| now.duration_since(at) < IDLE_CONNECTION_TIMEOUT)
    }

    /// Round trips until one more request is answered.
    fn round_trips(&self, now: Instant) -> usize {
        let dial = if self.is_open(now) {
            0
        } else {
            DIAL_ROUND_TRIPS
        };
        dial + 1 + self.in_flight / REQUESTS_PER_ROUND_TRIP
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::from(&Url::parse(url).unwrap())
    }

    /// The slots that this many more requests take.
    fn take<'a>(slots: &'a Http2Slots, origin: &Origin, requests: usize) -> Vec<SlotPermit<'a>> {
        (0..requests).map(|_| slots.take(origin)).collect()
    }

    #[track_caller]
    fn check_counts(permits: &[SlotPermit<'_>], expected: [usize; MAX_HTTP2_CONNECTIONS]) {
        let mut counts = [0; MAX_HTTP2_CONNECTIONS];
        permits.iter().for_each(|permit| counts[permit.index] += 1);
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_burst_fills_new_connections_one_after_the_other() {
        let (slots, a) = (Http2Slots::default(), origin("https://a.example/"));
        check_counts(&take(&slots, &a, 250), [100, 100, 50]);
        check_counts(&take(&slots, &a, 400), [200, 100, 100]);
    }

    #[test]
    fn a_second_batch_waits_on_the_open_connection_and_the_third_one_opens_another() {
        let (slots, a) = (Http2Slots::default(), origin("https://a.example/"));
        slots.take(&a).set_answered(true);
        check_counts(&take(&slots, &a, 200), [200, 0, 0]);
        let first = take(&slots, &a, 300);
        check_counts(&first, [200, 100, 0]);
        first[299].set_answered(true);
        drop(first);
        check_counts(&take(&slots, &a, 300), [200, 100, 0]);
        check_counts(&take(&slots, &a, 500), [200, 200, 100]);
    }

    #[test]
    fn a_connection_is_open_until_it_fails_or_was_idle_for_long() {
        let now = Instant::now();
        let mut slot = Slot::default();
        assert!(!slot.is_open(now));
        slot.answered = Some(now);
        assert!(slot.is_open(now) && !slot.is_open(now + IDLE_CONNECTION_TIMEOUT));

        let (slots, a) = (Http2Slots::default(), origin("https://a.example/"));
        let permit = slots.take(&a);
        permit.set_answered(true);
        permit.set_answered(false);
        drop(permit);
        check_counts(&take(&slots, &a, 150), [100, 50, 0]);
        slots.take(&a).set_answered(true);
        slots.reset();
        check_counts(&take(&slots, &a, 150), [100, 50, 0]);
    }

    #[test]
    fn origins_have_slots_of_their_own() {
        let slots = Http2Slots::default();
        let busy = take(&slots, &origin("https://a.example/"), 250);
        assert_eq!(slots.take(&origin("https://b.example/")).index, 0);
        drop(busy);
        assert_eq!(slots.take(&origin("https://a.example/")).index, 0);
    }
}
