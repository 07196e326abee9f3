//! The benchmark `crowd`: requests that reach upstream when many clients want one missing crate at the same moment.

use std::time::Instant;

use fake_upstream::crate_path;
use serde_json::json;
use testkit::paths::download;

use crate::benchmark::{Context, NEAR};
use crate::row::{Row, Unit, rounded};

/// Concurrent clients of one crate.
const CLIENTS: usize = 200;

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let fixture = context.fixture(NEAR, None);
    // The largest crate: most clients arrive while its download is in progress.
    let largest = fixture
        .project
        .packages
        .iter()
        .max_by_key(|(name, version)| fixture.upstream.body(name, version).len());
    let (name, version) = largest.expect("the lock file names a package");
    let body = fixture.upstream.body(name, version);
    let what = format!("requests upstream, {CLIENTS} clients want one missing crate");
    let mut row = Row {
        unit: Unit::Count,
        ..Row::ratio(&what, 1.0, 1.0)
    };
    for _ in 0..context.rounds {
        let site = fixture.site();
        let larder = site.serve(&[]);
        fixture.upstream.forget_requests();
        let began = Instant::now();
        let replies = larder.get_at_once(CLIENTS, &download(name, version));
        let seconds = began.elapsed().as_secs_f64();
        for reply in replies {
            assert!(
                reply.status == 200 && reply.complete && reply.body == body,
                "a client was answered {} with {} bytes of {}",
                reply.status,
                reply.body.len(),
                body.len()
            );
        }
        let crates = fixture.upstream.requests_for(&crate_path(name, version));
        let all = fixture.upstream.requests_for("");
        larder.stop();
        row.push(
            crates as f64,
            json!({"crate": crates, "all": all, "bytes": body.len(), "seconds": rounded(seconds)}),
        );
    }
    vec![row]
}
