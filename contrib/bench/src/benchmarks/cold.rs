//! The benchmarks `cold` and `slow-empty`: each run of cargo meets a larder that was started on an empty store, a
//! moment before.

use std::thread;
use std::time::Duration;

use crate::benchmark::{Context, NEAR, SLOW};
use crate::compare::{index_requests, push_ratio, push_unused_prefetches, unused_prefetches};
use crate::fixture::{DIAL_ROUND_TRIPS, Task};
use crate::row::Row;

/// Time between the start of the daemon and that of cargo, in addition to three round trips. In it the daemon asks for
/// `config.json`. The benchmark `run` starts both at once.
const STARTED_BEFORE: Duration = Duration::from_millis(200);

pub(crate) fn run_near(context: &Context<'_>) -> Vec<Row> {
    run(context, NEAR, [(1.0, 0.9), (0.9, 0.8)])
}

pub(crate) fn run_slow(context: &Context<'_>) -> Vec<Row> {
    run(context, SLOW, [(0.8, 0.65), (0.8, 0.7)])
}

/// `claims` are the first claim and the goal of each task.
fn run(context: &Context<'_>, round_trip: Duration, claims: [(f64, f64); 2]) -> Vec<Row> {
    let fixture = context.fixture(round_trip, None);
    let distance = match round_trip == NEAR {
        true => String::new(),
        false => format!(", {} ms", round_trip.as_millis()),
    };
    let compare = |task, what: &str, (first_claim, reach)| {
        let mut row = Row::ratio(
            &format!("{what}, larder empty / direct{distance}"),
            first_claim,
            reach,
        );
        let mut unused = unused_prefetches(&format!("{what}, larder empty{distance}"));
        // Stores are deleted at the end: on ext4 without a journal, creating a file scans all inodes that were deleted
        // within the last minute, one by one. A user's larder never meets that.
        let sites: Vec<_> = (0..context.rounds).map(|_| fixture.site()).collect();
        for site in &sites {
            let direct = fixture.direct(task);
            let larder = site.serve(&[]);
            thread::sleep(STARTED_BEFORE + round_trip * (DIAL_ROUND_TRIPS + 1));
            let before = index_requests(&fixture);
            let through = fixture.run(task, larder.url());
            push_unused_prefetches(&mut unused, &fixture, &larder, before);
            // A larder that is still writing would slow down the next direct run.
            larder.stop();
            push_ratio(&mut row, direct, through);
        }
        [row, unused]
    };
    let [fetch, resolve] = claims;
    let fetch = compare(Task::Fetch, "cargo fetch --locked", fetch);
    let resolve = compare(Task::Resolve, "cargo generate-lockfile", resolve);
    fetch.into_iter().chain(resolve).collect()
}
