//! Index entries through the built daemon: bytes, validators, absence, trouble upstream. Tests named after a trap hold it
//! for the whole program; what is decided without a socket is tested beside the code.

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

#[test]
fn t7_compression_upstream_is_undone_and_none_is_done_downstream() {
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
    let asked = &upstream.requests()[0];
    assert_eq!(asked.header("accept-encoding"), Some("gzip"));
}

#[test]
fn t8_weak_tags_several_tags_and_a_star_are_compared_by_the_weak_rule() {
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

#[test]
fn t9_a_304_needs_a_validator_has_no_body_and_repeats_the_etag() {
    let upstream = upstream();
    let site = site(&upstream);
    // Every request is one that larder itself revalidates with a 304.
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
    // Bytes of a body would be taken for the head of the next answer.
    let reply = connection.get(&entry("left"), &[]).unwrap();
    assert_eq!((reply.status, reply.complete), (200, true));
    let conditional = upstream.requests();
    let conditional = conditional
        .iter()
        .filter(|request| request.header("if-none-match").is_some());
    assert_eq!(conditional.count(), 3);
}

#[test]
fn t10_etags_survive_a_restart_and_a_second_download_of_the_same_bytes() {
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

#[test]
fn t11_an_upstream_without_validators_still_gives_a_stable_etag() {
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

#[test]
fn t14_an_absence_is_remembered_briefly_and_what_is_published_then_is_found() {
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
    wait_until("what was published is found", || {
        larder.get(&entry("left")).status == 200
    });
}

/// Everything that is trouble, and no word on whether the crate exists.
fn troubles() -> Vec<Fault> {
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

#[test]
fn t15_trouble_upstream_is_never_turned_into_absence() {
    thread::scope(|scope| {
        // Each with an upstream of its own: three troubles in a row would be an outage, which answers for itself.
        for trouble in troubles() {
            scope.spawn(move || {
                let upstream = upstream();
                upstream.fault("left", trouble.clone());
                let site = site(&upstream);
                let larder = site.serve(&[]);
                let reply = larder.get(&entry("left"));
                assert!(
                    matches!(reply.status, 403 | 424 | 503),
                    "{trouble:?} became {}: {}",
                    reply.status,
                    reply.text()
                );
                assert_eq!(reply.text().lines().count(), 1, "{}", reply.text());
                assert!(
                    !entry_file(&site, "left").exists(),
                    "{trouble:?} was stored"
                );
                upstream.clear_faults();
                let larder = larder.restart(&[]);
                let reply = larder.get(&entry("left"));
                assert_eq!(&*reply.body, &*upstream.index_body("left"), "{trouble:?}");
            });
        }
    });
}

#[test]
fn t16_what_is_stored_is_served_however_old_while_upstream_is_down() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let tag = etag(&larder, &entry("left"));
    larder.stop();
    upstream.stop();
    let years_ago = SystemTime::now() - Duration::from_secs(10 * 365 * 24 * 60 * 60);
    let stored = std::fs::File::open(entry_file(&site, "left")).unwrap();
    stored.set_modified(years_ago).unwrap();
    for arguments in [&["--patience", "500ms"][..], &["--offline"]] {
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

#[test]
fn promise_13_trouble_gets_the_stale_copy_and_absence_is_an_answer() {
    let upstream = upstream();
    let stale = upstream.index_body("left").to_vec();
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--patience", "400ms"]);
    etag(&larder, &entry("left"));
    let mut troubles = troubles();
    troubles.retain(|trouble| *trouble != Fault::NotModifiedWithoutValidator);
    // This one makes an outage on its own.
    troubles.push(Fault::Stall);
    for trouble in troubles {
        upstream.fault("left", trouble.clone());
        let reply = larder.get(&entry("left"));
        assert_eq!((reply.status, &reply.body), (200, &stale), "{trouble:?}");
        assert!(
            reply.header("cache-status").unwrap().contains("stale"),
            "{trouble:?}: {reply:?}"
        );
        upstream.clear_faults();
        // A good answer between them, so that none is hidden by the outage that several in a row are.
        wait_until("upstream is believed again", || {
            let reply = larder.get(&entry("left"));
            assert_eq!(
                (reply.status, &reply.body),
                (200, &stale),
                "after {trouble:?}"
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
fn a_body_that_trickles_in_gets_the_stale_copy_in_time_and_the_new_one_later() {
    let upstream = upstream();
    let stale = upstream.index_body("left");
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--patience", "300ms"]);
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

#[test]
fn promise_16_an_absence_never_hides_a_stored_entry_during_an_outage() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--patience", "400ms"]);
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

#[test]
fn t18_login_pages_empty_and_cut_bodies_are_neither_stored_nor_forwarded() {
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
                assert_eq!(reply.status, 503, "{fault:?}: {}", reply.text());
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
fn one_bad_answer_is_asked_again_and_the_client_notices_nothing() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for (at, fault) in troubles().into_iter().enumerate() {
        // Retrying helps neither against a refusal nor against a wrong turn.
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

#[test]
fn t19_odd_lines_pass_byte_for_byte() {
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

#[test]
fn t20_a_crate_with_only_yanked_versions_is_served_like_any_other() {
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

#[test]
fn t21_any_case_leads_to_one_entry_and_the_crate_keeps_its_spelling() {
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

#[test]
fn t22_short_names_are_found_and_wrong_folders_are_refused_unasked() {
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

#[test]
fn t24_a_dash_is_no_underscore() {
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

#[test]
fn t26_a_hundred_requests_at_once_for_one_entry_cost_one_upstream() {
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

#[test]
fn t27_no_index_request_is_left_without_a_byte_for_more_than_25_seconds() {
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
                let expected = if matches!(fault, Fault::StallFor(_)) {
                    200
                } else {
                    503
                };
                assert_eq!(reply.status, expected, "{fault:?}: {}", reply.text());
            });
        }
    });
}

#[test]
fn an_upstream_that_is_only_slow_is_still_asked_for_what_is_not_stored() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("right", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s", "--patience", "300ms"]);
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
    // Known to be slow by now: no second wait for what is stored, and no refusal of what is not.
    let began = Instant::now();
    assert_eq!(larder.get(&entry("left")).status, 200);
    assert!(began.elapsed() < Duration::from_millis(250));
    let fetched = larder.get(&entry("right"));
    assert_eq!(fetched.status, 200, "{}", fetched.text());
    assert_eq!(fetched.body, upstream.index_body("right"));
}
