//! The benchmark `memory`: larder's resident memory, just started, idle after work, and at its peak under large
//! downloads.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::larder::Larder;

use crate::benchmark::{Context, NEAR};
use crate::fixture::Task;
use crate::load;
use crate::payload;
use crate::row::{Row, Unit, rounded};

/// Clients that download the same large file at the same time.
const STREAMS: usize = 50;
/// Time after the last request until larder counts as idle: it gives up burst capacity after 10 s.
const IDLE: Duration = Duration::from_secs(12);

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    let row = |what: &str, first_claim, reach| Row {
        unit: Unit::Mebibytes,
        ..Row::ratio(what, first_claim, reach)
    };
    let mut started = row("resident memory, just started", 30.0, 15.0);
    let mut worked = row("resident memory, idle after a cold cargo fetch", 30.0, 15.0);
    let what = format!("most resident memory, {STREAMS} clients stream a component of 80 MB");
    let mut arriving = row(&format!("{what}, not stored before"), 128.0, 64.0);
    let mut stored = row(&format!("{what}, stored"), 128.0, 64.0);
    let component = payload::component(&fixture.upstream);
    let dist_server = payload::dist_server(&fixture.upstream);
    for _ in 0..context.rounds {
        let site = fixture.site();
        let larder = site.serve(&[]);
        let (all, raw) = resident(&larder, "VmRSS:");
        started.push(all, raw);
        fixture.run(Task::Fetch, larder.url());
        larder.wait_until_idle();
        std::thread::sleep(IDLE);
        let (all, raw) = resident(&larder, "VmRSS:");
        worked.push(all, raw);
        larder.stop();

        // The kernel records the peak per process, so each measurement needs a process of its own.
        for row in [&mut arriving, &mut stored] {
            let larder = site.serve(&["--dist-server", &dist_server]);
            let url = larder.url().trim_end_matches('/');
            let bytes = load::download(url, &component.path, STREAMS, 1);
            assert_eq!(bytes, (STREAMS * component.body.len()) as u64);
            let (all, raw) = resident(&larder, "VmHWM:");
            row.push(all, raw);
            larder.wait_until_idle();
            larder.stop();
        }
    }
    vec![started, worked, arriving, stored]
}

/// Resident memory in MiB, program file included: the current value (`VmRSS:`) or the peak (`VmHWM:`).
fn resident(larder: &Larder<'_>, field: &str) -> (f64, Value) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", larder.process_id()));
    let status = status.expect("larder runs and this is Linux");
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        rounded(kibibytes.expect("the kernel reports a process's memory in kB") / 1024.0)
    };
    let all = mebibytes(field);
    let raw = json!({
        "figure": all, "rss": mebibytes("VmRSS:"), "anonymous": mebibytes("RssAnon:"), "file": mebibytes("RssFile:"),
    });
    (all, raw)
}
