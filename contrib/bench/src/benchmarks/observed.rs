//! The benchmark `observed`: a larder that is observed, compared with one that is not. The observed one writes an
//! access log of JSON lines, two browsers show its page and receive its changes, and its metrics are scraped each
//! second.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use testkit::larder::{Larder, Site};

use crate::benchmark::{Context, NEAR};
use crate::fixture::{Fixture, Task, access_log_arguments};
use crate::load;
use crate::observers::Observers;
use crate::payload;
use crate::row::{Row, rounded};
use crate::server::{Ask, Measured, Server};

/// Format of the access log. A JSON line costs more than a combined one.
const LOG_FORMAT: &str = "json";

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let mut rows = compare_cargo(context);
    rows.extend(compare_hits(context));
    rows
}

/// Cargo through an observed larder, with an empty and with a stale store.
fn compare_cargo(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let row = |what: &str| Row::ratio(&format!("{what}, observed / not"), 1.15, 1.05);
    let tasks = [
        (Task::Fetch, "cargo fetch --locked"),
        (Task::Resolve, "cargo generate-lockfile"),
    ];
    let mut rows = Vec::new();
    for (task, what) in tasks {
        let mut empty = row(&format!("{what}, larder empty"));
        // Deleted at the end, as in `cold`.
        let sites: Vec<_> = (0..context.rounds)
            .map(|_| [fixture.site(), fixture.site()])
            .collect();
        for [plain, observed] in &sites {
            let plain = run_plain(&fixture, plain, &[], task);
            let (observed, events) = run_observed(&fixture, observed, &[], task);
            push(&mut empty, plain, observed, events);
        }
        rows.push(empty);
    }
    let site = fixture.filled_site();
    let stale = ["--max-age", "0s"];
    for (task, what) in tasks {
        let mut row = row(&format!("{what}, stored but stale"));
        for _ in 0..context.rounds {
            let plain = run_plain(&fixture, &site, &stale, task);
            let (observed, events) = run_observed(&fixture, &site, &stale, task);
            push(&mut row, plain, observed, events);
        }
        rows.push(row);
    }
    rows
}

fn push(row: &mut Row, plain: f64, observed: f64, events: u64) {
    row.push(
        observed / plain,
        json!({"plain": rounded(plain), "observed": rounded(observed), "events": events}),
    );
}

/// Seconds of a cargo command through a larder without observers.
fn run_plain(fixture: &Fixture, site: &Site, arguments: &[&str], task: Task) -> f64 {
    let larder = site.serve(arguments);
    let took = fixture.run(task, larder.url());
    larder.wait_until_idle();
    larder.stop();
    took.seconds
}

/// Seconds of a cargo command through an observed larder, and the events that each browser received at least.
fn run_observed(fixture: &Fixture, site: &Site, arguments: &[&str], task: Task) -> (f64, u64) {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let log = folder.path().join("access.log");
    let larder = serve_observed(site, &log, arguments);
    let observers = Observers::of(&larder);
    let took = fixture.run(task, larder.url());
    larder.wait_until_idle();
    let events = observers.end();
    larder.stop();
    let requests = std::fs::read_to_string(&log).expect("larder writes an access log");
    assert!(
        requests.contains(r#""path":"/config.json""#),
        "the access log lacks cargo's requests"
    );
    (took.seconds, events)
}

fn serve_observed<'site>(site: &'site Site, log: &Path, arguments: &[&str]) -> Larder<'site> {
    let log = access_log_arguments(log, LOG_FORMAT);
    let log = log.iter().map(String::as_str);
    site.serve(&arguments.iter().copied().chain(log).collect::<Vec<_>>())
}

/// Hits of an observed larder.
fn compare_hits(context: &Context<'_>) -> Vec<Row> {
    let missing = load::missing_programs(&[("wrk", "wrk")]);
    let upstream = payload::upstream();
    let payloads = [
        (Ask::Body, payload::small_entry(&upstream)),
        (Ask::Body, payload::small_crate(&upstream)),
        (Ask::Body, payload::large_crate(&upstream)),
        (Ask::Bytes, payload::component(&upstream)),
    ];
    let rows = |ask: Ask, what: &str| {
        let label = |figure: &str| format!("{figure}, {what}, observed / not");
        Row::rate_and_cost(ask.figure(), label, 0.8, 0.95, missing.as_ref())
    };
    if missing.is_some() {
        let missing = payloads.iter();
        return missing
            .flat_map(|(ask, payload)| rows(*ask, payload.label))
            .collect();
    }
    let folder = TempDir::new().expect("the temporary folder is writable");
    let log = folder.path().join("access.log");
    let sites = [(); 2].map(|()| Site::new(context.larder, &upstream.url()));
    let dist_server = payload::dist_server(&upstream);
    let arguments = ["--max-age", "1h", "--dist-server", &dist_server];
    let plain = sites[0].serve(&arguments);
    let observed = serve_observed(&sites[1], &log, &arguments);
    for larder in [&plain, &observed] {
        for (_, payload) in &payloads {
            payload.assert_served(&larder.http(), &payload.path);
        }
        larder.wait_until_idle();
    }
    upstream.forget_requests();

    let mut all = Vec::new();
    for (ask, payload) in &payloads {
        let server = |larder: &Larder<'_>, log| Server::of_larder(larder, &payload.path, log);
        let [mut rate, mut cost] = rows(*ask, payload.label);
        for _ in 0..context.rounds {
            let without = server(&plain, None).measure(*ask);
            let observers = Observers::of(&observed);
            let with = server(&observed, Some(log.clone())).measure(*ask);
            let events = observers.end();
            push_measured(&mut rate, &mut cost, without, with, events);
        }
        all.extend([rate, cost]);
    }
    payload::assert_only_hits(&upstream);
    all
}

fn push_measured(rate: &mut Row, cost: &mut Row, plain: Measured, observed: Measured, events: u64) {
    push(rate, plain.rate, observed.rate, events);
    cost.push(
        observed.microseconds / plain.microseconds,
        json!({
            "plain_us": rounded(plain.microseconds), "observed_us": rounded(observed.microseconds),
        }),
    );
}
