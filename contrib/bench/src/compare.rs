//! Rows that several benchmarks share: cargo through larder against cargo straight to upstream, and prefetches that no
//! client used.

use serde_json::json;
use testkit::larder::Larder;

use crate::fixture::{Fixture, Took};
use crate::row::{Row, rounded};

/// A row for unused prefetches: index entries that larder fetched and no client requested, as a share of all its index
/// requests.
pub(crate) fn unused_prefetches(what: &str) -> Row {
    let what = format!("unused prefetches / index requests upstream, {what}");
    Row::ratio(&what, 0.25, 0.1)
}

/// Requests for index entries that upstream has received so far.
pub(crate) fn index_requests(fixture: &Fixture) -> usize {
    let upstream = &fixture.upstream;
    upstream.requests_for("/index/") - upstream.requests_for("/index/config.json")
}

/// Adds a sample to a row of [`unused_prefetches`]. `before` is the result of [`index_requests`] before the run.
pub(crate) fn push_unused_prefetches(
    row: &mut Row,
    fixture: &Fixture,
    larder: &Larder<'_>,
    before: usize,
) {
    // Unused prefetches may still be in flight when cargo exits.
    larder.wait_until_idle();
    let fetched = larder.request_count("ahead-fetched");
    let asked = larder.request_count("ahead-asked");
    let all = index_requests(fixture) - before;
    row.push(
        fetched.saturating_sub(asked) as f64 / all.max(1) as f64,
        json!({"ahead_fetched": fetched, "ahead_asked": asked, "index_requests": all}),
    );
}

/// Adds the ratio of a run through larder to a direct run.
pub(crate) fn push_ratio(row: &mut Row, direct: Took, larder: Took) {
    row.push(
        larder.seconds / direct.seconds,
        json!({
            "direct": rounded(direct.seconds), "larder": rounded(larder.seconds),
            "direct_requests": direct.requests, "larder_requests": larder.requests,
        }),
    );
}
