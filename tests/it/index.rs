//! Index entries through the built daemon: bytes, validators, missing crates, upstream failures. Unit tests cover the
//! decisions that need no socket.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fake_upstream::{Crate, FakeUpstream, Fault, entry_path};

use crate::fixture::site;
use testkit::larder::Larder;
use testkit::paths::{download, entry};
use testkit::process::wait_until;
use testkit::store::{blobs, entry_file, files, index_folder};

/// An upstream with `left 1.0.0`.
fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream
}

#[track_caller]
fn etag(larder: &Larder<'_>, path: &str) -> String {
    let reply = larder.get(path);
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    larder.wait_until_idle();
    reply.header("etag").expect("an ETag").to_owned()
}

/// See docs/client-behaviour.md H-05, C-08.
#[test]
fn entries_are_decoded_from_upstream_and_served_without_a_content_coding() {
    let upstream = upstream();
    upstream.fault("/le/ft/left", Fault::Gzip);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for _ in ["cold", "stored"] {
        let reply = larder.get_with(&entry("left"), &[("accept-encoding", "gzip, br, zstd")]);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-encoding"), None);
        assert_eq!(reply.body, upstream.index_body("left"));
    }
    let plain = etag(&larder, &entry("left"));
    let asked = [("accept-encoding", "gzip"), ("if-none-match", &*plain)];
    assert_eq!(larder.get_with(&entry("left"), &asked).status, 304);
    let requests = upstream.requests();
    let asked = requests.iter().find(|asked| asked.path.ends_with("left"));
    assert_eq!(asked.unwrap().header("accept-encoding"), Some("gzip"));
}

/// See docs/client-behaviour.md H-01.
#[test]
fn if_none_match_with_weak_tags_lists_and_star_uses_weak_comparison() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let tag = etag(&larder, &entry("left"));
    for (sent, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"a\", W/\"b\",{tag}"), 304),
        ("*".to_owned(), 304),
        ("\"unknown\"".to_owned(), 200),
        (tag.trim_matches('"').to_owned(), 200),
        (String::new(), 200),
    ] {
        let reply = larder.get_with(&entry("left"), &[("if-none-match", &sent)]);
        assert_eq!(reply.status, status, "{sent}");
    }
    assert_eq!(upstream.requests_for("left"), 1);
}

/// See docs/client-behaviour.md H-02, C-10.
#[test]
fn a_304_needs_a_validator_has_no_body_and_repeats_the_etag() {
    let upstream = upstream();
    let site = site(&upstream);
    // larder revalidates on every request and gets a 304.
    let larder = site.serve(&["--max-age", "0s"]);
    let tag = etag(&larder, &entry("left"));
    let reply = larder.get(&entry("left"));
    assert_eq!(
        (reply.status, reply.body),
        (200, upstream.index_body("left").to_vec())
    );
    let mut connection = larder.http().connect().unwrap();
    let reply = connection
        .get(&entry("left"), &[("if-none-match", &tag)])
        .unwrap();
    assert_eq!((reply.status, reply.header("etag")), (304, Some(&*tag)));
    // The client would take body bytes for the head of the next answer.
    let reply = connection.get(&entry("left"), &[]).unwrap();
    assert_eq!((reply.status, reply.complete), (200, true));
    let conditional = upstream.requests();
    let conditional = conditional
        .iter()
        .filter(|request| request.header("if-none-match").is_some());
    assert_eq!(conditional.count(), 3);
}

/// See docs/client-behaviour.md C-09.
#[test]
fn etags_survive_a_restart_and_a_second_download_of_the_same_bytes() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let tag = etag(&larder, &entry("left"));
    let larder = larder.restart(&[]);
    let asked = [("if-none-match", &*tag)];
    assert_eq!(larder.get_with(&entry("left"), &asked).status, 304);
    assert_eq!(upstream.requests_for("left"), 1);
    std::fs::remove_file(entry_file(&site, "left")).unwrap();
    assert_eq!(larder.get_with(&entry("left"), &asked).status, 304);
    assert_eq!(upstream.requests_for("left"), 2);
}

/// See docs/client-behaviour.md C-09.
#[test]
fn upstream_without_validators_gets_a_stable_etag() {
    let upstream = FakeUpstream::builder().validators(false).start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    let tag = etag(&larder, &entry("left"));
    assert_eq!(etag(&larder, &entry("left")), tag);
    let larder = larder.restart(&["--max-age", "0s"]);
    let asked = [("if-none-match", &*tag)];
    assert_eq!(larder.get_with(&entry("left"), &asked).status, 304);
    upstream.publish(Crate::new("left", "1.1.0"));
    let reply = larder.get_with(&entry("left"), &asked);
    assert_eq!(
        (reply.status, reply.body),
        (200, upstream.index_body("left").to_vec())
    );
    assert_ne!(
        reply
            .headers
            .iter()
            .find(|(name, _)| name == "etag")
            .unwrap()
            .1,
        tag
    );
}

/// See docs/client-behaviour.md C-11.
#[test]
fn missing_crate_is_cached_briefly_and_found_after_its_publication() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "400ms"]);
    assert_eq!(larder.get(&entry("left")).status, 404);
    let asked = Instant::now();
    upstream.publish(Crate::new("left", "1.0.0"));
    if larder.get(&entry("left")).status == 404 {
        assert_eq!(upstream.requests_for("left"), 1);
    } else {
        assert!(
            asked.elapsed() >= Duration::from_millis(300),
            "not remembered"
        );
    }
    wait_until("the published crate is found", || {
        larder.get(&entry("left")).status == 200
    });
}

/// Upstream failures that say nothing about the crate's existence.
fn failures() -> Vec<Fault> {
    vec![
        Fault::Refuse,
        Fault::DropAfterAccept,
        Fault::Status(500),
        Fault::Status(503),
        Fault::RetryAfter(429, "60".to_owned()),
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(418),
        Fault::CutAfter(10),
        Fault::LoginPage,
        Fault::Empty,
        Fault::RedirectLoop,
        Fault::Redirect("http://portal.example/login".to_owned()),
        Fault::NotModifiedWithoutValidator,
    ]
}

/// See docs/client-behaviour.md C-11.
#[test]
fn upstream_failures_are_never_answered_as_missing() {
    thread::scope(|scope| {
        // Each failure gets its own upstream: three consecutive failures would open the circuit breaker.
        for failure in failures() {
            scope.spawn(move || {
                let upstream = upstream();
                upstream.fault("left", failure.clone());
                let site = site(&upstream);
                let larder = site.serve(&[]);
                let reply = larder.get(&entry("left"));
                assert!(
                    matches!(reply.status, 403 | 424 | 503),
                    "{failure:?} became {}: {}",
                    reply.status,
                    reply.text()
                );
                assert_eq!(reply.text().lines().count(), 1, "{}", reply.text());
                assert!(
                    !entry_file(&site, "left").exists(),
                    "{failure:?} was stored"
                );
                upstream.clear_faults();
                let larder = larder.restart(&[]);
                let reply = larder.get(&entry("left"));
                assert_eq!(&*reply.body, &*upstream.index_body("left"), "{failure:?}");
            });
        }
    });
}

/// See docs/client-behaviour.md C-25, H-07.
#[test]
fn stored_entries_of_any_age_are_served_while_upstream_is_down() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let tag = etag(&larder, &entry("left"));
    larder.stop();
    upstream.stop();
    let years_ago = SystemTime::now() - Duration::from_secs(10 * 365 * 24 * 60 * 60);
    let stored = std::fs::File::open(entry_file(&site, "left")).unwrap();
    stored.set_modified(years_ago).unwrap();
    for arguments in [
        &["-v", "--upstream-timeout", "500ms"][..],
        &["-v", "--offline"],
    ] {
        let larder = site.serve(arguments);
        let reply = larder.get(&entry("left"));
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body("left"))
        );
        assert!(
            reply.header("cache-status").unwrap().contains("stale"),
            "{reply:?}"
        );
        let reply = larder.get_with(&entry("left"), &[("if-none-match", &tag)]);
        assert_eq!(reply.status, 304);
        larder.wait_for_log("stale-");
    }
}

/// See docs/client-behaviour.md H-07, C-11.
#[test]
fn failures_serve_the_stale_copy_and_a_404_is_an_answer() {
    let upstream = upstream();
    let stale = upstream.index_body("left").to_vec();
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "400ms"]);
    etag(&larder, &entry("left"));
    let mut failures = failures();
    failures.retain(|failure| *failure != Fault::NotModifiedWithoutValidator);
    // This failure alone opens the circuit breaker.
    failures.push(Fault::Stall);
    for failure in failures {
        upstream.fault("left", failure.clone());
        let reply = larder.get(&entry("left"));
        assert_eq!((reply.status, &reply.body), (200, &stale), "{failure:?}");
        assert!(
            reply.header("cache-status").unwrap().contains("stale"),
            "{failure:?}: {reply:?}"
        );
        upstream.clear_faults();
        // A good answer after each failure, so that the circuit breaker does not open.
        wait_until("upstream's answer is used again", || {
            let reply = larder.get(&entry("left"));
            assert_eq!(
                (reply.status, &reply.body),
                (200, &stale),
                "after {failure:?}"
            );
            !reply.header("cache-status").unwrap().contains("stale-")
        });
    }
    for gone in [404, 410, 451] {
        upstream.fault("left", Fault::Status(gone));
        assert_eq!(larder.get(&entry("left")).status, 404, "{gone}");
    }
}

#[test]
fn slow_body_serves_the_stale_copy_in_time_and_the_new_one_later() {
    let upstream = upstream();
    let stale = upstream.index_body("left");
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "300ms"]);
    etag(&larder, &entry("left"));
    upstream.publish(Crate::new("left", "1.1.0"));
    let fresh = upstream.index_body("left");
    let bytes_per_second = u32::try_from(fresh.len() / 2).expect("an entry is small");
    upstream.fault_times("left", 1, Fault::Drip { bytes_per_second });
    let asked = Instant::now();
    let reply = larder.get(&entry("left"));
    assert!(
        asked.elapsed() < Duration::from_millis(1500),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!((reply.status, &*reply.body), (200, &*stale));
    larder.wait_until_idle();
    upstream.stop();
    assert_eq!(larder.get(&entry("left")).body, fresh);
    assert_eq!(upstream.requests_for("left"), 2);
}

/// See docs/client-behaviour.md C-11.
#[test]
fn cached_404_never_hides_a_stored_entry_during_an_outage() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "400ms"]);
    etag(&larder, &entry("left"));
    upstream.fault("left", Fault::Status(404));
    assert_eq!(larder.get(&entry("left")).status, 404);
    upstream.stop();
    let reply = larder.get(&entry("left"));
    assert_eq!(
        (reply.status, &*reply.body),
        (200, &*upstream.index_body("left"))
    );
    upstream.clear_faults();
    upstream.restart();
    upstream.publish(Crate::new("left", "1.1.0"));
    wait_until("the way back is noticed", || {
        larder.get(&entry("left")).body == upstream.index_body("left")
    });
}

/// See docs/client-behaviour.md C-14, H-06.
#[test]
fn login_pages_and_empty_or_cut_bodies_are_neither_stored_nor_forwarded() {
    let faults = [
        Fault::LoginPage,
        Fault::Empty,
        Fault::StatusWithBody(200, "{\"error\": \"busy\"}\n".to_owned()),
        Fault::CutAfter(200),
        Fault::CutChunked(200),
        Fault::CutUnframed(200),
    ];
    thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let upstream = upstream();
                upstream.publish(Crate::new("left", "1.1.0"));
                upstream.fault("left", fault.clone());
                let site = site(&upstream);
                let larder = site.serve(&[]);
                let reply = larder.get(&entry("left"));
                assert_eq!(reply.status, 424, "{fault:?}: {}", reply.text());
                assert!(!entry_file(&site, "left").exists(), "{fault:?}");
                upstream.clear_faults();
                let larder = larder.restart(&["--max-age", "0s"]);
                assert_eq!(
                    larder.get(&entry("left")).body,
                    upstream.index_body("left"),
                    "{fault:?}"
                );
            });
        }
    });
}

#[test]
fn one_bad_answer_is_retried_before_the_client_is_answered() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for (at, fault) in failures().into_iter().enumerate() {
        // A retry helps neither against a refusal nor against a wrong redirect.
        let passes = !matches!(
            fault,
            Fault::RetryAfter(..)
                | Fault::RedirectLoop
                | Fault::Redirect(_)
                | Fault::Status(401 | 403)
        );
        if !passes {
            continue;
        }
        let name = format!("left{at}");
        upstream.publish(Crate::new(&name, "1.0.0"));
        upstream.fault_times(&entry_path(&name), 1, fault.clone());
        let reply = larder.get(&entry(&name));
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body(&name)),
            "{fault:?}"
        );
        assert_eq!(upstream.requests_for(&entry_path(&name)), 2, "{fault:?}");
    }
}

/// See docs/client-behaviour.md C-26.
#[test]
fn unusual_index_lines_pass_byte_for_byte() {
    let upstream = FakeUpstream::start();
    let sum = "0".repeat(64);
    let plain = format!(
        r#"{{"name":"odd","vers":"1.0.0","deps":[],"cksum":"{sum}","features":{{}},"yanked":false}}"#
    );
    let body = format!(
        "{plain}\n  {}\t\r\n{{\"half\": \n\n{}\nrubbish \u{fffd}\n{plain}",
        plain.replace(
            "\"vers\":\"1.0.0\"",
            "\"v\" : 9 , \"unknown\":{\"a\":[1e3]},\"vers\" : \"1.1.0\""
        ),
        plain.replace("1.0.0", "not a version"),
    );
    upstream.set_index("odd", body.clone());
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("odd")).text(), body);
    larder.wait_until_idle();
    upstream.stop();
    let larder = larder.restart(&["--offline"]);
    assert_eq!(larder.get(&entry("odd")).text(), body);
}

/// See docs/client-behaviour.md C-27.
#[test]
fn crate_with_only_yanked_versions_is_served() {
    let upstream = upstream();
    upstream.publish(Crate::new("left", "1.1.0").yanked());
    upstream.yank("left", "1.0.0");
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get(&entry("left"));
    assert_eq!(
        (reply.status, &*reply.body),
        (200, &*upstream.index_body("left"))
    );
    assert_eq!(reply.text().matches("\"yanked\":true").count(), 2);
    assert_eq!(
        larder.get(&download("left", "1.0.0")).body,
        upstream.body("left", "1.0.0")
    );
}

/// See docs/client-behaviour.md C-03.
#[test]
fn names_in_any_case_share_one_entry_and_downloads_keep_their_case() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("MixedCase", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for path in [
        "/Mi/xe/MixedCase",
        "/mi/xe/mixedcase",
        "/MI/XE/MIXEDCASE",
        "/mi/xe/MixedCase",
    ] {
        let reply = larder.get(path);
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body("MixedCase")),
            "{path}"
        );
    }
    assert_eq!(upstream.requests_for("/index/mi/xe/mixedcase"), 1);
    larder.wait_until_idle();
    let entries = files(&index_folder(&site));
    assert_eq!(entries.len(), 1, "{entries:?}");
    let reply = larder.get(&download("MixedCase", "1.0.0"));
    assert_eq!(reply.body, upstream.body("MixedCase", "1.0.0"));
    assert_eq!(upstream.requests_for("/dl/MixedCase/1.0.0/"), 1);
    assert_eq!(upstream.requests_for("/index/mi"), 1);
}

/// See docs/client-behaviour.md C-01.
#[test]
fn short_names_are_found_and_wrong_folders_are_refused_without_upstream() {
    let upstream = FakeUpstream::start();
    for name in ["a", "cc", "log", "B", "Dd", "Eee"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for (path, name) in [
        ("/1/a", "a"),
        ("/2/cc", "cc"),
        ("/3/l/log", "log"),
        ("/1/b", "B"),
        ("/2/dd", "Dd"),
        ("/3/e/eee", "Eee"),
    ] {
        assert_eq!(larder.get(path).body, upstream.index_body(name), "{path}");
    }
    let asked = upstream.requests().len();
    for path in [
        "/2/a",
        "/1/cc",
        "/3/x/log",
        "/lo/g/log",
        "/xx/yy/serde",
        "/se/rd/",
        "/serde",
        "/a",
        "/3/log",
        "/se/rd/serde/x",
    ] {
        assert_eq!(larder.get(path).status, 404, "{path}");
    }
    assert_eq!(upstream.requests().len(), asked);
}

/// See docs/client-behaviour.md C-02.
#[test]
fn dash_and_underscore_are_different_crates() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("my-dash", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("my-dash")).status, 200);
    assert_eq!(larder.get(&entry("my_dash")).status, 404);
    assert_eq!(larder.get(&download("my_dash", "1.0.0")).status, 404);
    assert_eq!(larder.get(&download("my-dash", "1.0.0")).status, 200);
    larder.wait_until_idle();
    assert_eq!(blobs(&site).len(), 1);
}

/// Larder's own rule: docs/decisions/0010-single-flight.md.
#[test]
fn hundred_concurrent_requests_for_one_entry_send_one_request_upstream() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let gate = upstream.gate("left");
    let mut clients: Vec<_> = (0..100).map(|_| larder.http().connect().unwrap()).collect();
    for client in &mut clients {
        client.send("GET", &entry("left"), &[]).unwrap();
    }
    gate.wait_for(1);
    gate.open();
    for client in &mut clients {
        let reply = client.receive().unwrap();
        assert_eq!(
            (reply.status, &*reply.body),
            (200, &*upstream.index_body("left"))
        );
    }
    assert_eq!(upstream.requests_for("left"), 1);
}

/// See docs/client-behaviour.md C-16.
#[test]
fn index_requests_are_answered_within_25_s() {
    let faults = [
        Fault::Stall,
        Fault::StallBodyAfter(100),
        Fault::Drip {
            bytes_per_second: 3,
        },
        Fault::StallFor(Duration::from_secs(9)),
    ];
    thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                let upstream = upstream();
                upstream.fault("left", fault.clone());
                let site = site(&upstream);
                let larder = site.serve(&[]);
                let asked = Instant::now();
                let reply = larder.get(&entry("left"));
                assert!(asked.elapsed() < Duration::from_secs(25), "{fault:?}");
                // A client that gives up before the fetch has failed may ask again (503). Once larder's own attempts
                // have failed, cargo must not repeat them (424). Both limits are 24 s, so either may come first.
                let expected: &[u16] = if matches!(fault, Fault::StallFor(_)) {
                    &[200]
                } else {
                    &[424, 503]
                };
                let text = reply.text();
                assert!(
                    expected.contains(&reply.status),
                    "{fault:?}: {} {text}",
                    reply.status
                );
            });
        }
    });
}

#[test]
fn slow_upstream_is_still_asked_for_missing_entries() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("right", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--upstream-timeout", "300ms"]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    upstream.fault_times(
        "/index/",
        100,
        Fault::StallFor(Duration::from_millis(1_200)),
    );
    let stale = larder.get(&entry("left"));
    assert_eq!(stale.status, 200);
    assert_eq!(stale.body, upstream.index_body("left"));
    // The breaker is in the state `Slow`: no second wait for stored entries, and no refusal of missing ones.
    let began = Instant::now();
    assert_eq!(larder.get(&entry("left")).status, 200);
    assert!(began.elapsed() < Duration::from_millis(250));
    let fetched = larder.get(&entry("right"));
    assert_eq!(fetched.status, 200, "{}", fetched.text());
    assert_eq!(fetched.body, upstream.index_body("right"));
}

/// The length of the first `lines` lines of a crate's index entry.
fn len_of_lines(upstream: &FakeUpstream, name: &str, lines: usize) -> u64 {
    let body = upstream.index_body(name);
    let lines = body.split_inclusive(|&byte| byte == b'\n').take(lines);
    lines.map(<[u8]>::len).sum::<usize>() as u64
}

fn publish_versions(upstream: &FakeUpstream, count: u32) {
    for minor in 0..count {
        upstream.publish(Crate::new("left", &format!("1.{minor}.0")));
    }
}

#[test]
fn an_entry_cut_at_a_lines_end_is_asked_for_again_before_it_replaces_a_longer_one() {
    let upstream = FakeUpstream::start();
    publish_versions(&upstream, 38);
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    larder.wait_until_idle();
    upstream.publish(Crate::new("left", "1.38.0"));
    let cut = Fault::CutUnframed(len_of_lines(&upstream, "left", 5));
    upstream.fault_times(&entry_path("left"), 1, cut);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    larder.wait_for_log("incomplete entry");
    assert_eq!(larder.request_count("entries-recalled"), 0);
    // Cut elsewhere each time: the stored copy stays.
    upstream.publish(Crate::new("left", "1.39.0"));
    let stored = larder.get(&entry("left")).body;
    upstream.publish(Crate::new("left", "1.40.0"));
    for lines in [7, 3] {
        let cut = Fault::CutUnframed(len_of_lines(&upstream, "left", lines));
        upstream.fault_times(&entry_path("left"), 1, cut);
    }
    assert_eq!(larder.get(&entry("left")).body, stored);
    larder.wait_for_log("other ones each time");
}

#[test]
fn versions_that_upstream_has_removed_are_reported_as_recalled() {
    let upstream = FakeUpstream::start();
    publish_versions(&upstream, 5);
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    larder.get(&entry("left"));
    larder.wait_until_idle();
    let shorter = upstream
        .index_body("left")
        .slice(..len_of_lines(&upstream, "left", 3) as usize);
    upstream.set_index("left", shorter.clone());
    upstream.forget_requests();
    assert_eq!(larder.get(&entry("left")).body, shorter);
    assert_eq!(upstream.requests_for(&entry_path("left")), 2, "asked again");
    larder.wait_for_log("recalled");
    assert!(larder.log().contains("1.3.0, 1.4.0"), "{}", larder.log());
    assert_eq!(larder.request_count("entries-recalled"), 1);
    let metrics = larder.get("/-/metrics").text();
    assert!(
        metrics.contains("larder_recalls_total{kind=\"index\"} 1"),
        "{metrics}"
    );
    assert_eq!(larder.get(&entry("left")).body, shorter);
    assert_eq!(larder.request_count("entries-recalled"), 1);
}

#[test]
fn an_entry_with_a_line_that_cargo_would_misread_replaces_nothing() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("right", "1.0.0"));
    let good = upstream.index_body("left");
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("left")).body, good);
    larder.wait_until_idle();
    let right = String::from_utf8(upstream.index_body("right").to_vec()).unwrap();
    let text = String::from_utf8(good.to_vec()).unwrap();
    let sum = upstream.checksum("left", "1.0.0");
    let short_sum = text.replace("1.0.0", "1.1.0").replace(&sum, &sum[..40]);
    for bad in [
        "\0\0\0\0\n",
        "<html>maintenance</html>\n",
        &right,
        &short_sum,
    ] {
        upstream.set_index("left", format!("{text}{bad}"));
        assert_eq!(larder.get(&entry("left")).body, good, "{bad}");
    }
    larder.wait_for_log("not a whole index entry");
}
