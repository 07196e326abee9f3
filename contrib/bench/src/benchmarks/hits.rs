//! The benchmark `hits`: larder and nginx serve the same stored bytes, and both write an access log.
//!
//! Before the first measurement, both must have given the right answer. Upstream must receive no request during the
//! measurements.

use serde_json::json;
use tempfile::TempDir;

use crate::benchmark::Context;
use crate::fixture::access_log_arguments;
use crate::load;
use crate::nginx::Nginx;
use crate::payload::{self, Payload};
use crate::row::{Row, rounded};
use crate::server::{Ask, Server};
use testkit::larder::Site;

pub(crate) fn run(context: &Context<'_>) -> Vec<Row> {
    let missing = load::missing_programs(&[
        ("nginx", "nginx-light"),
        ("wrk", "wrk"),
        ("h2load", "nghttp2-client"),
    ]);
    let upstream = payload::upstream();
    let small = payload::small_entry(&upstream);
    let large = payload::entry(&upstream, "index entry 165 kB", "large", 165_000);
    let small_crate = payload::small_crate(&upstream);
    let large_crate = payload::large_crate(&upstream);
    let payloads = [
        (Ask::Body, 1.3, small.clone()),
        (Ask::Body, 1.1, large.clone()),
        (Ask::Body, 1.3, small_crate.clone()),
        (Ask::Body, 1.1, large_crate.clone()),
        (Ask::Http2, 1.2, small.clone()),
        (Ask::Http2, 1.2, large),
        (Ask::Http2, 1.2, small_crate),
        (Ask::Http2, 1.2, large_crate),
        (
            Ask::Conditional,
            1.3,
            Payload {
                label: "304 of an index entry of 3 kB",
                ..small
            },
        ),
        (Ask::Bytes, 1.1, payload::component(&upstream)),
    ];
    let rows = |ask: Ask, what: &str, reach| {
        let over = if ask == Ask::Http2 {
            " over HTTP/2"
        } else {
            ""
        };
        let label = |figure: &str| format!("{figure}{over} / nginx, {what}");
        Row::rate_and_cost(ask.figure(), label, 1.0, reach, missing.as_ref())
    };
    if missing.is_some() {
        let missing = payloads.iter();
        return missing
            .flat_map(|(ask, reach, payload)| rows(*ask, payload.label, *reach))
            .collect();
    }

    let folder = TempDir::new().expect("the temporary folder is writable");
    let log = folder.path().join("access.log");
    let site = Site::new(context.larder, &upstream.url());
    let dist_server = payload::dist_server(&upstream);
    let mut arguments = vec!["--max-age", "1h", "--dist-server", &dist_server];
    let access_log = access_log_arguments(&log, "combined");
    arguments.extend(access_log.iter().map(String::as_str));
    let larder = site.serve(&arguments);
    let nginx = Nginx::before(upstream.base_url());
    for (_, _, payload) in &payloads {
        payload.assert_served(&larder.http(), &payload.path);
        payload.assert_served(&nginx.http(), &payload.upstream_path);
    }
    larder.wait_until_idle();
    upstream.forget_requests();

    let mut all = Vec::new();
    for (ask, reach, payload) in &payloads {
        let servers = [
            Server {
                http: nginx.http(),
                base: match ask {
                    Ask::Http2 => nginx.http2_url(),
                    Ask::Body | Ask::Conditional | Ask::Bytes => nginx.url(),
                },
                path: &payload.upstream_path,
                processes: nginx.workers(),
                log: Some(nginx.log()),
            },
            Server::of_larder(&larder, &payload.path, Some(log.clone())),
        ];
        let [mut rate, mut cost] = rows(*ask, payload.label, *reach);
        for server in &servers {
            server.assert_answers(*ask, payload);
        }
        for _ in 0..context.rounds {
            let [nginx, larder] = servers.each_ref().map(|server| server.measure(*ask));
            rate.push(
                larder.rate / nginx.rate,
                json!({"nginx": rounded(nginx.rate), "larder": rounded(larder.rate)}),
            );
            cost.push(
                larder.microseconds / nginx.microseconds,
                json!({
                    "nginx_us": rounded(nginx.microseconds), "larder_us": rounded(larder.microseconds),
                }),
            );
        }
        all.extend([rate, cost]);
    }
    payload::assert_only_hits(&upstream);
    all
}
