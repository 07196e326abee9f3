//! The benchmark `import`: the first fetch of a user whose cargo home larder has imported.
//!
//! ```text
//!   cargo home, filled by a direct fetch ── larder import ──> store ──> a larder ──> cargo with an empty home
//! ```
//!
//! There are no claims yet. The crates need no download. Imported index entries count as old, so larder asks upstream
//! whether they have changed.

use serde_json::json;

use crate::benchmark::{Context, NEAR};
use crate::compare::push_ratio;
use crate::fixture::{Task, import};
use crate::row::{Row, UNCLAIMED, Unit, rounded};

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let home = fixture.fetched_home();
    let packages = fixture.project.packages.len();
    let what = "cargo fetch --locked after an import, cargo home empty / direct";
    let mut fetch = Row::ratio(what, UNCLAIMED, UNCLAIMED);
    let mut took = Row {
        unit: Unit::Seconds,
        ..Row::ratio(
            &format!("larder import of {packages} packages"),
            UNCLAIMED,
            UNCLAIMED,
        )
    };
    for _ in 0..context.rounds {
        let site = fixture.site();
        let seconds = import(&site, &home.path());
        took.push(seconds, json!({"import": rounded(seconds)}));
        let direct = fixture.direct(Task::Fetch);
        let larder = site.serve(&[]);
        let through = fixture.run(Task::Fetch, larder.url());
        larder.stop();
        push_ratio(&mut fetch, direct, through);
    }
    vec![fetch, took]
}
