//! The benchmark `cold`: each run of cargo meets a larder that was started on an empty store, a moment before.

use std::thread;
use std::time::Duration;

use crate::benchmark::{Context, NEAR};
use crate::compare::{index_requests, push_ratio, push_unused_prefetches, unused_prefetches};
use crate::fixture::Task;
use crate::row::Row;

/// Time between the start of the daemon and that of cargo. In it the daemon asks for `config.json`. The benchmark `run`
/// starts both at once.
const STARTED_BEFORE: Duration = Duration::from_millis(300);

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let compare = |task, what: &str, first_claim, reach| {
        let mut row = Row::ratio(
            &format!("{what}, larder empty / direct"),
            first_claim,
            reach,
        );
        let mut unused = unused_prefetches(&format!("{what}, larder empty"));
        // Stores are deleted at the end: on ext4 without a journal, creating a file scans all inodes that were deleted
        // within the last minute, one by one. A user's larder never meets that.
        let sites: Vec<_> = (0..context.rounds).map(|_| fixture.site()).collect();
        for site in &sites {
            let direct = fixture.direct(task);
            let larder = site.serve(&[]);
            thread::sleep(STARTED_BEFORE);
            let before = index_requests(&fixture);
            let through = fixture.run(task, larder.url());
            push_unused_prefetches(&mut unused, &fixture, &larder, before);
            // A larder that is still writing would slow down the next direct run.
            larder.stop();
            push_ratio(&mut row, direct, through);
        }
        [row, unused]
    };
    let fetch = compare(Task::Fetch, "cargo fetch --locked", 1.15, 1.0);
    let resolve = compare(Task::Resolve, "cargo generate-lockfile", 1.2, 1.0);
    fetch.into_iter().chain(resolve).collect()
}
