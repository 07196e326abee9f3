//! Prefetch of index entries that cargo will request next: the choice of entries, and the number of requests.

use std::fs::File;
use std::thread;
use std::time::{Duration, SystemTime};

use fake_upstream::{Crate, FakeUpstream, Fault, entry_path};

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::wait_until;
use testkit::store::entry_file;

/// Longer than the time in which two answers belong to one burst.
const LONGER_THAN_BURST: Duration = Duration::from_millis(2_500);

/// Publishes `many` with nine compatible series: the first depends on `deep`, the last on `shallow`, the others on
/// nothing.
/// `left` wants the first series, `right` the last, and `both` wants both.
fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    // Old versions: a new one would invalidate its dependencies.
    let publish = |name, version: &str, deps: &[(&str, &str)]| {
        let new = Crate::new(name, version).pubtime("2020-01-01T00:00:00Z");
        let with_deps = deps.iter().fold(new, |new, (dep, req)| new.dep(dep, req));
        upstream.publish(with_deps);
    };
    publish("deep", "1.0.0", &[]);
    publish("shallow", "1.0.0", &[]);
    publish("many", "0.1.0", &[("deep", "^1")]);
    for minor in 2..9 {
        publish("many", &format!("0.{minor}.0"), &[]);
    }
    publish("many", "0.9.0", &[("shallow", "^1")]);
    publish("left", "1.0.0", &[("many", "^0.1")]);
    publish("right", "1.0.0", &[("many", "^0.9")]);
    publish("both", "1.0.0", &[("left", "^1"), ("right", "^1")]);
    upstream
}

/// Makes a stored entry look as if it had been checked an hour ago.
fn age(site: &Site, name: &str) {
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options().write(true).open(entry_file(site, name));
    file.unwrap().set_modified(an_hour_ago).unwrap();
}

/// See docs/client-behaviour.md C-20, C-21.
#[test]
fn wanted_version_determines_the_prefetched_dependencies() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    wait_until("what the wanted version needs was fetched ahead", || {
        upstream.requests_for(&entry_path("deep")) == 1
    });
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(&entry_path("shallow")), 0);
}

#[test]
fn optional_dependencies_that_the_parent_enables_are_prefetched() {
    let upstream = FakeUpstream::start();
    for name in ["enabled", "disabled"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let child = Crate::new("child", "1.0.0")
        .optional_dep("enabled", "^1")
        .optional_dep("disabled", "^1")
        .feature("default", &["dep:enabled"])
        .feature("more", &["dep:disabled"]);
    upstream.publish(child);
    upstream.publish(Crate::new("parent", "1.0.0").dep("child", "^1"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("parent")).status, 200);
    wait_until("the default feature's dependency was fetched ahead", || {
        upstream.requests_for(&entry_path("enabled")) == 1
    });
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(&entry_path("disabled")), 0);
}

/// Most projects use the newest series.
#[test]
fn stored_dependency_of_an_older_series_leads_to_no_download() {
    let upstream = upstream();
    let publish = |version: &str| Crate::new("parent", version).pubtime("2020-01-01T00:00:00Z");
    upstream.publish(publish("1.0.0").dep("many", "^0.1"));
    upstream.publish(publish("2.0.0").dep("left", "^1"));
    // Without dependencies, unlike `left 1.0.0`.
    upstream.publish(Crate::new("left", "1.1.0").pubtime("2020-01-01T00:00:00Z"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("many")).status, 200);
    larder.wait_until_idle();
    assert_eq!(larder.get(&entry("parent")).status, 200);
    wait_until("the newest version's dependency was fetched ahead", || {
        upstream.requests_for(&entry_path("left")) == 1
    });
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(&entry_path("deep")), 0);
}

/// Its bytes came from upstream for this client, so it is no hit. A revalidated copy costs no download.
#[test]
fn first_answer_with_a_prefetched_entry_is_marked_and_counts_as_no_hit() {
    let upstream = upstream();
    let site = site(&upstream);
    let cache_status = |larder: &Larder<'_>, name: &str| {
        let reply = larder.get(&entry(name));
        reply.header("cache-status").unwrap().to_owned()
    };
    // Without the prefetch of `config.json`.
    let larder = site.serve(&["--max-age", "0s", "--keep-warm", "false"]);
    assert_eq!(cache_status(&larder, "left"), "larder; fwd=miss");
    wait_until("`many` and `deep` were prefetched", || {
        larder.request_count("ahead-fetched") == 2
    });
    larder.wait_until_idle();
    let marked = "larder; hit; detail=prefetched";
    assert_eq!(cache_status(&larder, "many"), marked);
    assert_eq!(larder.request_count("prefetched"), 1);
    assert_eq!(larder.request_count("hit"), 0);
    larder.stop();

    for name in ["left", "many", "deep"] {
        age(&site, name);
    }
    let larder = site.serve(&["--max-age", "0s", "--keep-warm", "false"]);
    assert_eq!(cache_status(&larder, "left"), "larder; fwd=stale");
    wait_until("`many` and `deep` were revalidated", || {
        larder.request_count("ahead-fetched") == 2
    });
    larder.wait_until_idle();
    assert_eq!(cache_status(&larder, "many"), "larder; hit");
}

#[test]
fn another_wanted_version_of_the_same_crate_prefetches_its_own_dependencies() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("both")).status, 200);
    wait_until("what each wanted version needs was fetched ahead", || {
        ["deep", "shallow"]
            .iter()
            .all(|name| upstream.requests_for(&entry_path(name)) == 1)
    });
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(&entry_path("many")), 1);
}

#[test]
fn stale_entries_are_revalidated_concurrently_and_once_each() {
    let upstream = upstream();
    let site = site(&upstream);
    let names = ["both", "left", "right", "many", "deep", "shallow"];
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("both")).status, 200);
    // With `config.json`, which the start asks for.
    wait_until("all was fetched ahead", || {
        larder.request_count("upstream-answers") == 7
    });
    larder.wait_until_idle();
    larder.stop();
    for name in names {
        age(&site, name);
    }

    let larder = site.serve(&["--max-age", "0s"]);
    upstream.forget_requests();
    // Upstream answers no request before all have arrived.
    let gate = upstream.gate("/");
    thread::scope(|scope| {
        let client = scope.spawn(|| larder.get(&entry("both")));
        wait_until("everything is asked about", || {
            names
                .iter()
                .all(|name| upstream.requests_for(&entry_path(name)) == 1)
        });
        drop(gate);
        assert_eq!(client.join().unwrap().status, 200);
    });
    for name in names {
        assert_eq!(larder.get(&entry(name)).status, 200);
    }
    larder.wait_until_idle();
    for name in &names[1..] {
        assert_eq!(upstream.requests_for(&entry_path(name)), 1, "{name}");
    }
}

/// `larder warm` stores entries that only another resolve needs, and none of their crates.
#[test]
fn entries_stored_for_resolving_alone_are_not_prefetched() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("extra", "1.0.0"));
    upstream.publish(Crate::new("needed", "1.0.0"));
    let parent = Crate::new("parent", "1.0.0")
        .dep("needed", "^1")
        .optional_dep("extra", "^1");
    upstream.publish(parent);
    let site = site(&upstream);
    let project = Project::empty().dep_line("parent = \"1\"");
    let resolved = CargoHome::empty().run(&project, &["generate-lockfile"], &upstream.url());
    resolved.assert_success();
    let warmed = site.command(&["warm", &project.folder().display().to_string()]);
    assert!(warmed.status.success(), "{warmed:?}");
    for name in ["parent", "needed", "extra"] {
        age(&site, name);
    }

    let larder = site.serve(&["--max-age", "0s"]);
    upstream.forget_requests();
    assert_eq!(larder.get(&entry("parent")).status, 200);
    wait_until("a dependency that is not optional was prefetched", || {
        upstream.requests_for(&entry_path("needed")) == 1
    });
    larder.wait_until_idle();
    assert_eq!(upstream.requests_for(&entry_path("extra")), 0);
}

#[test]
fn prefetch_of_a_dependency_cycle_ends() {
    let upstream = FakeUpstream::builder()
        .max_age(Some(0))
        .delay(LONGER_THAN_BURST)
        .start();
    upstream.fault_times("/index/", 100, Fault::OtherTag);
    let publish = |name, dep| {
        let new = Crate::new(name, "1.0.0").pubtime("2020-01-01T00:00:00Z");
        upstream.publish(new.dep(dep, "^1"));
    };
    publish("left", "right");
    publish("right", "left");
    let site = site(&upstream);
    let larder = site.serve(&["--upstream-timeout", "10s"]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    // One request each, and at most one more if the other entry's prefetch found it stale.
    let asked = || ["left", "right"].map(|name| upstream.requests_for(&entry_path(name)));
    let asked_by_then = asked();
    let total: usize = asked_by_then.iter().sum();
    assert!((2..=4).contains(&total), "{:?}", upstream.requests());
    larder.stop();
    assert_eq!(asked(), asked_by_then);
}

#[test]
fn next_cargo_command_gets_no_entry_that_an_earlier_one_prefetched() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get("/config.json").status, 200);
    assert_eq!(larder.get(&entry("left")).status, 200);
    wait_until("a dependency was prefetched", || {
        upstream.requests_for(&entry_path("deep")) == 1
    });
    larder.wait_until_idle();
    upstream.publish(Crate::new("deep", "1.1.0").pubtime("2020-01-01T00:00:00Z"));
    assert_eq!(larder.get("/config.json").status, 200);
    let served = larder.get(&entry("deep"));
    assert_eq!(&*served.body, &*upstream.index_body("deep"));
}
