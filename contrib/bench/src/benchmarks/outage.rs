//! The benchmark `outage`: upstream drops all packets. larder notices it either when it dials, or on a connection that
//! was in use.

use serde_json::json;

use crate::benchmark::{Context, NEAR};
use crate::fixture::{Task, Took};
use crate::row::{Row, rounded};

/// Seconds that larder may wait for upstream in one outage: the default of `--upstream-timeout`.
const UPSTREAM_TIMEOUT: f64 = 2.0;

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let site = fixture.filled_site();
    let what = "cargo fetch --locked of a warmed project, upstream black-holed, less 2 s / online";
    let mut at_dial = Row::ratio(&format!("{what}; larder started in the dark"), 1.0, 1.0);
    let mut in_use = Row::ratio(&format!("{what}; larder connected before"), 1.0, 1.0);
    for _ in 0..context.rounds {
        let larder = site.serve(&["--max-age", "0s"]);
        let online = fixture.run(Task::Fetch, larder.url());
        fixture.upstream.black_hole();
        let offline = fixture.run(Task::Fetch, larder.url());
        larder.stop();
        push_outage(&mut in_use, online, offline);

        let larder = site.serve(&["--max-age", "0s"]);
        let offline = fixture.run(Task::Fetch, larder.url());
        larder.stop();
        push_outage(&mut at_dial, online, offline);
        fixture.upstream.revive();
    }
    vec![at_dial, in_use]
}

fn push_outage(row: &mut Row, online: Took, offline: Took) {
    row.push(
        (offline.seconds - UPSTREAM_TIMEOUT) / online.seconds,
        json!({"online": rounded(online.seconds), "dark": rounded(offline.seconds)}),
    );
}
