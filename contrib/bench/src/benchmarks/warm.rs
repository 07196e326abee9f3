//! The benchmarks `warm-100` and `warm-1000`: `larder warm` on an empty store, and once more with nothing to do.
//!
//! The first is compared with the time that its bytes and round trips need at that bandwidth.

use serde_json::json;

use crate::benchmark::{Context, NEAR};
use crate::fixture::{DIAL_ROUND_TRIPS, warm};
use crate::row::{Row, Unit, rounded};

pub(crate) fn run_100_megabit(context: &Context<'_>) -> Vec<Row> {
    run(context, 100)
}

pub(crate) fn run_1000_megabit(context: &Context<'_>) -> Vec<Row> {
    run(context, 1000)
}

fn run(context: &Context<'_>, megabits: u64) -> Vec<Row> {
    let bytes_per_second = megabits * 1_000_000 / 8;
    let fixture = context.fixture(NEAR, Some(bytes_per_second));
    // After the dial: one round trip for the index entries, with config.json beside them; one for the crates.
    let round_trips = fixture.round_trip * (DIAL_ROUND_TRIPS + 2);
    let bytes = fixture.bytes();
    let needed = bytes as f64 / bytes_per_second as f64 + round_trips.as_secs_f64();
    let packages = fixture.project.packages.len();
    let what = format!("larder warm, {packages} packages, empty store / needed, {megabits} Mbit/s");
    let mut first = Row::ratio(&what, 2.5, 1.5);
    let what = format!("larder warm again, nothing to do, {megabits} Mbit/s");
    let mut second = Row {
        unit: Unit::Seconds,
        ..Row::ratio(&what, 0.5, 0.2)
    };
    for _ in 0..context.rounds {
        let site = fixture.site();
        rustix::fs::sync();
        let took = warm(&site, &fixture.project_folder());
        let raw = json!({"warm": rounded(took), "needed": rounded(needed), "bytes": bytes});
        first.push(took / needed, raw);
        let took = warm(&site, &fixture.project_folder());
        second.push(took, json!({}));
    }
    vec![first, second]
}
