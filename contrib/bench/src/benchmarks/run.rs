//! The benchmark `run`: cargo below `larder run`, with an empty and with a full store, and no daemon.

use crate::benchmark::{Context, NEAR};
use crate::compare::push_ratio;
use crate::fixture::Task;
use crate::row::Row;

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let compare = |task, what: &str| {
        let row = |store: &str| {
            Row::ratio(
                &format!("{what} below `larder run`, {store} / direct"),
                1.2,
                1.0,
            )
        };
        let (mut empty, mut full) = (row("larder empty"), row("everything stored"));
        // Stores are deleted at the end, as in `cold`.
        let sites: Vec<_> = (0..context.rounds).map(|_| fixture.site()).collect();
        for site in &sites {
            push_ratio(
                &mut empty,
                fixture.direct(task),
                fixture.run_below(task, site),
            );
            push_ratio(
                &mut full,
                fixture.direct(task),
                fixture.run_below(task, site),
            );
        }
        [empty, full]
    };
    let fetch = compare(Task::Fetch, "`cargo fetch --locked`");
    let resolve = compare(Task::Resolve, "`cargo generate-lockfile`");
    fetch.into_iter().chain(resolve).collect()
}
