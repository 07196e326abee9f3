//! The benchmark `stale-while-revalidate`: each run of cargo meets a larder whose entries are older than `--max-age`,
//! but not older than upstream allows. larder serves them at once and revalidates them after the answer, so the time is
//! nearly that of a larder with everything fresh.

use serde_json::json;

use crate::benchmark::{Context, NEAR};
use crate::fixture::Task;
use crate::row::Row;

/// Below the age of every stored entry, and above zero, which would switch the benchmark's subject off.
const MAX_AGE: &str = "1ms";

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let site = fixture.filled_site();
    let compare = |task, what: &str| {
        let name = format!("{what}, stale within upstream's lifetime / stored and fresh, 40 ms");
        let mut row = Row::ratio(&name, 1.25, 1.1);
        for _ in 0..context.rounds {
            let larder = site.serve(&["--max-age", "1d"]);
            let fresh = fixture.run(task, larder.url());
            larder.stop();
            let larder = site.serve(&["--max-age", MAX_AGE]);
            let stale = fixture.run(task, larder.url());
            larder.stop();
            row.push(
                stale.seconds / fresh.seconds,
                json!({ "fresh_s": fresh.seconds, "stale_s": stale.seconds, "stale_requests": stale.requests }),
            );
        }
        row
    };
    vec![
        compare(Task::Fetch, "cargo fetch --locked"),
        compare(Task::Resolve, "cargo generate-lockfile"),
    ]
}
