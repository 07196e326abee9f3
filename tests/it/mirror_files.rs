//! Files of a dist server that rustup does not ask for: proven where a proof exists, and marked where none does.

use fake_upstream::{FakeUpstream, Fault, HOST};

use crate::dist::{released, serve};
use crate::fixture::site;
use testkit::http::Reply;

fn cache_status(reply: &Reply) -> &str {
    reply.header("cache-status").unwrap_or_default()
}

#[track_caller]
fn assert_proven(reply: &Reply, body: &[u8]) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body == body, "{} bytes", reply.body.len());
    assert!(!cache_status(reply).contains("unproven"), "{reply:?}");
}

#[track_caller]
fn assert_unproven(reply: &Reply, body: &[u8]) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body == body, "{} bytes", reply.body.len());
    assert!(cache_status(reply).contains("unproven"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
}

/// A server that publishes no sidecar of this file.
fn put_without_sidecar(upstream: &FakeUpstream, path: &str, body: &[u8]) {
    upstream.serve_static(path, body.to_vec(), "application/octet-stream");
    upstream.fault(&format!("{path}.sha256"), Fault::Status(404));
}

#[test]
fn undated_archive_without_sidecar_is_proven_by_the_manifest_of_its_version() {
    let upstream = released();
    let name = format!("rustc-1.95.0-{HOST}.tar.xz");
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let dated = larder.get(&format!("/dist/2026-04-16/{name}"));
    let path = format!("/dist/{name}");
    put_without_sidecar(&upstream, &path, &dated.body);
    larder.wait_until_idle();
    upstream.forget_requests();
    assert_proven(&larder.get(&path), &dated.body);
    let asked = upstream.requests();
    let asked = asked.iter().map(|request| request.path.as_str());
    let asked: Vec<_> = asked.filter(|path| path.ends_with(".tar.xz")).collect();
    assert!(asked.is_empty(), "{asked:?}, though it is the same blob");

    // Other bytes under this name are refused.
    let other = format!("/dist/cargo-1.95.0-{HOST}.tar.xz");
    put_without_sidecar(&upstream, &other, b"something else");
    let refused = larder.get(&other);
    assert_eq!(refused.status, 503, "{}", refused.text());
}

#[test]
fn source_code_without_sidecar_is_proven_by_the_artifacts_of_the_manifest() {
    let upstream = released();
    let source = b"all of it".repeat(1000);
    let manifest = format!(
        "manifest-version = \"2\"\ndate = \"2026-04-16\"\n\n[[artifacts.source-code.target.\"*\"]]\n\
         url = \"https://d.example/dist/2026-04-16/rustc-1.95.0-src.tar.xz\"\nhash-sha256 = \"{}\"\n",
        fake_upstream::sha256(&source)
    );
    upstream.serve_static("/dist/channel-rust-1.95.0.toml", manifest, "text/plain");
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    for path in [
        "/dist/rustc-1.95.0-src.tar.xz",
        "/dist/2026-04-16/rustc-1.95.0-src.tar.xz",
    ] {
        put_without_sidecar(&upstream, path, &source);
        assert_proven(&larder.get(path), &source);
    }
}

/// The files that mirrors serve and that no manifest lists.
const UNLISTED: [&str; 6] = [
    "/dist/channel-rust-stable.toml.asc",
    "/dist/channel-rust-stable-date.txt",
    "/dist/2026-04-16/channel-rust-stable-date.txt",
    "/dist/rust-0.9-x86_64-unknown-linux-gnu.tar.gz",
    "/dist/rustc-nightly-src.tar.xz",
    "/rustup/rustup-init.sh.asc",
];

#[test]
fn file_without_any_proof_is_served_verbatim_and_marked_online_and_offline() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--max-age", "0s"]);
    for (number, path) in UNLISTED.into_iter().enumerate() {
        let body = path.repeat(1 + number * 5_000);
        put_without_sidecar(&upstream, path, body.as_bytes());
        let first = larder.get(path);
        assert_unproven(&first, body.as_bytes());
        assert!(cache_status(&first).contains("fwd=miss"), "{first:?}");
        let again = larder.get(path);
        assert_unproven(&again, body.as_bytes());
        assert!(cache_status(&again).contains("fwd=stale"), "{again:?}");
        let part = larder.get_with(path, &[("range", "bytes=1-4")]);
        assert_eq!((part.status, part.text().as_str()), (206, &path[1..5]));
    }
    // No name fixes the bytes of such a file.
    for path in UNLISTED {
        put_without_sidecar(&upstream, path, b"newer");
        assert_unproven(&larder.get(path), b"newer");
    }
    larder.wait_until_idle();
    larder.stop();
    upstream.stop();
    let larder = serve(&site, &upstream, &["--offline", "--max-age", "0s"]);
    for path in UNLISTED {
        let stored = larder.get(path);
        assert_unproven(&stored, b"newer");
        assert!(
            cache_status(&stored).contains("stale-offline"),
            "{stored:?}"
        );
    }
}

#[test]
fn sidecar_that_upstream_publishes_later_proves_a_stored_file() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &["--max-age", "0s"]);
    let path = "/dist/channel-rust-stable-date.txt";
    put_without_sidecar(&upstream, path, b"2026-04-16\n");
    assert_unproven(&larder.get(path), b"2026-04-16\n");
    upstream.clear_faults();
    assert_proven(&larder.get(path), b"2026-04-16\n");
}

#[test]
fn missing_file_is_reported_by_its_own_name_and_not_as_a_missing_sidecar() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    for path in UNLISTED {
        let missing = larder.get(path);
        assert_eq!(missing.status, 404);
        let said = missing.text();
        assert!(said.contains(&format!("`{}`", &path[1..])), "{said}");
        assert!(!said.contains("sidecar"), "{said}");
    }
}

/// See docs/client-behaviour.md R-20.
#[test]
fn program_without_sidecar_and_web_page_in_place_of_a_file_are_refused() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let program = format!("/rustup/dist/{HOST}/rustup-init");
    upstream.fault(&format!("{program}.sha256"), Fault::Status(404));
    let refused = larder.get(&program);
    assert_eq!(refused.status, 404);
    assert!(refused.text().contains("sidecar"), "{}", refused.text());
    let page = b"\n<!DOCTYPE html><title>Log in</title>";
    put_without_sidecar(&upstream, UNLISTED[0], page);
    let refused = larder.get(UNLISTED[0]);
    assert_eq!(refused.status, 503);
    assert!(
        refused.text().contains("is a web page"),
        "{}",
        refused.text()
    );
}

/// See docs/client-behaviour.md R-13.
#[test]
fn bootstrap_script_is_served_at_its_classic_place_too() {
    let upstream = released();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    let edited = larder.get("/rustup-init.sh");
    let classic = larder.get("/rustup/rustup-init.sh");
    assert_eq!(classic.status, 200, "{}", classic.text());
    assert_eq!(classic.text(), edited.text());
    assert!(classic.text().contains(larder.url().trim_end_matches('/')));
}
