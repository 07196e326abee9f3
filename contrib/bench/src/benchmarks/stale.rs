//! The benchmarks `stale`, `stale-far` and `slow-filled`: each run of cargo meets a larder whose store has everything,
//! and nothing of it is fresh.
//!
//! Two more rows bound the result from below. With everything fresh, the time is cargo's own work. That time plus a
//! dial and a round trip is the least for a cache that asks upstream before it answers.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::benchmark::{Context, FAR, NEAR, SLOW};
use crate::compare::{index_requests, push_ratio, push_unused_prefetches, unused_prefetches};
use crate::fixture::{DIAL_ROUND_TRIPS, Task};
use crate::row::{Row, UNCLAIMED};

/// Time until larder no longer takes the entries that the previous run of cargo checked for part of this run: its
/// prefetcher would not revalidate them. More than its `BURST_WINDOW` of two seconds.
const AFTER_PREVIOUS_RUN: Duration = Duration::from_secs(3);

pub(crate) fn run_near(context: &Context<'_>) -> Vec<Row> {
    run(context, NEAR, 0.8, 0.55)
}

pub(crate) fn run_far(context: &Context<'_>) -> Vec<Row> {
    run(context, FAR, 0.5, 0.3)
}

pub(crate) fn run_slow(context: &Context<'_>) -> Vec<Row> {
    run(context, SLOW, 0.4, 0.25)
}

fn run(context: &Context<'_>, round_trip: Duration, first_claim: f64, reach: f64) -> Vec<Row> {
    let fixture = context.fixture(round_trip, None);
    let site = fixture.filled_site();
    let distance = format!("{} ms", round_trip.as_millis());
    let compare = |task, what: &str| {
        let mut row = Row::ratio(
            &format!("{what}, stored but stale / direct, {distance}"),
            first_claim,
            reach,
        );
        let mut unused = unused_prefetches(&format!("{what}, stored but stale, {distance}"));
        let mut floor = Row::ratio(
            &format!("{what}, stored and fresh / direct, {distance}"),
            UNCLAIMED,
            UNCLAIMED,
        );
        let mut least = Row::ratio(
            &format!("{what}, stored and fresh, and a dial and a round trip / direct, {distance}"),
            UNCLAIMED,
            UNCLAIMED,
        );
        for _ in 0..context.rounds {
            let direct = fixture.direct(task);
            let larder = site.serve(&["--max-age", "1d"]);
            let fresh = fixture.run(task, larder.url());
            push_ratio(&mut floor, direct, fresh);
            let dial_and_round_trip = (round_trip * (DIAL_ROUND_TRIPS + 1)).as_secs_f64();
            least.push(
                (fresh.seconds + dial_and_round_trip) / direct.seconds,
                json!({}),
            );
            larder.stop();
            thread::sleep(AFTER_PREVIOUS_RUN);
            let larder = site.serve(&["--max-age", "0s"]);
            let before = index_requests(&fixture);
            let through = fixture.run(task, larder.url());
            push_unused_prefetches(&mut unused, &fixture, &larder, before);
            larder.stop();
            push_ratio(&mut row, direct, through);
        }
        [row, unused, floor, least]
    };
    let fetch = compare(Task::Fetch, "cargo fetch --locked");
    let resolve = compare(Task::Resolve, "cargo generate-lockfile");
    fetch.into_iter().chain(resolve).collect()
}
