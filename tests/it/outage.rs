//! Upstream fails in several ways while real cargo works on a warmed project. Cargo succeeds, an outage costs one
//! timeout in all and not one per crate, and larder recovers by itself.
//!
//! Other tests cover single requests during an outage.

use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream, Fault, entry_path};

use crate::fixture::{larder_with_stale_left, site};
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::entry;
use testkit::process::wait_until;

/// larder's `--upstream-timeout` in these tests.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(1);
/// Allowance for a loaded machine. Far less than one timeout for each crate of the chain.
const SLACK: Duration = Duration::from_secs(2);
/// Length of the chain: cargo requests one entry after the other.
const LINKS: usize = 8;

/// A warmed chain of crates whose entries are always stale.
struct Chain {
    upstream: FakeUpstream,
    site: Site,
    project: Project,
}

impl Chain {
    fn new() -> Self {
        let upstream = FakeUpstream::start();
        upstream.publish(Crate::new("chain-0", "1.0.0"));
        for link in 1..LINKS {
            let package = Crate::new(&format!("chain-{link}"), "1.0.0");
            upstream.publish(package.dep(&format!("chain-{}", link - 1), "^1"));
        }
        let site = site(&upstream);
        let project = Project::empty().dep(&format!("chain-{}", LINKS - 1), "1");
        Self {
            upstream,
            site,
            project,
        }
    }

    /// Starts the daemon on the filled store.
    fn serve(&self) -> Larder<'_> {
        let larder = self
            .site
            .serve(&["--max-age", "0s", "--upstream-timeout", "1s"]);
        self.fetch(&larder);
        let folder = self.project.folder().display().to_string();
        let warmed = self.site.command(&["warm", &folder]);
        assert!(warmed.status.success(), "{warmed:?}");
        larder
    }

    /// Resolves and fetches everything with cargo in an empty home. Returns the time it took.
    #[track_caller]
    fn fetch(&self, larder: &Larder<'_>) -> Duration {
        let home = CargoHome::empty();
        // A resolve requests each entry in turn; a locked fetch requests them again.
        let resolve = home.run(&self.project, &["generate-lockfile"], larder.url());
        resolve.assert_success();
        let fetch = home.run(&self.project, &["fetch", "--locked"], larder.url());
        fetch.assert_success();
        resolve.took + fetch.took
    }

    /// Makes upstream fail, checks that two fetches together pay for one timeout, then lets it recover.
    #[track_caller]
    fn survive(&self, begin: impl FnOnce(&FakeUpstream), end: impl FnOnce(&FakeUpstream)) {
        let larder = self.serve();
        let online = self.fetch(&larder);
        begin(&self.upstream);
        let first = self.fetch(&larder);
        let second = self.fetch(&larder);
        let bound = online * 2 + UPSTREAM_TIMEOUT + SLACK;
        assert!(
            first + second < bound,
            "{first:?} and {second:?} during the outage, {online:?} online:\n{}",
            larder.log()
        );
        larder.wait_for_log("upstream is out of reach");

        end(&self.upstream);
        larder.wait_until_reachable();
        self.upstream.forget_requests();
        self.fetch(&larder);
        for link in 0..LINKS {
            let path = entry_path(&format!("chain-{link}"));
            assert!(
                self.upstream.requests_for(&path) > 0,
                "{path} was not asked for"
            );
        }
        let log = larder.stop();
        let begun = log.matches("upstream is out of reach").count();
        assert_eq!(begun, 1, "one outage, found out once:\n{log}");
    }
}

#[test]
fn closed_port_costs_no_timeout_and_recovery_is_detected() {
    Chain::new().survive(FakeUpstream::stop, FakeUpstream::restart);
}

#[test]
fn black_hole_costs_one_timeout() {
    Chain::new().survive(FakeUpstream::black_hole, FakeUpstream::revive);
}

#[test]
fn upstream_that_answers_503_is_not_asked_until_it_recovers() {
    Chain::new().survive(
        |upstream| upstream.fault("", Fault::Status(503)),
        FakeUpstream::clear_faults,
    );
}

#[test]
fn login_page_counts_as_an_outage_and_is_never_served() {
    Chain::new().survive(
        |upstream| upstream.fault("", Fault::LoginPage),
        FakeUpstream::clear_faults,
    );
}

/// Lets upstream fail while a fetch is in the middle of the chain, and checks that cargo completes within one timeout.
#[track_caller]
fn check_failure_in_the_middle(fail: fn(&FakeUpstream), recover: fn(&FakeUpstream)) {
    let chain = Chain::new();
    let larder = chain.serve();
    let online = chain.fetch(&larder);
    let gate = chain.upstream.gate(&entry_path("chain-4"));
    std::thread::scope(|scope| {
        let cargo = scope.spawn(|| chain.fetch(&larder));
        gate.wait_for(1);
        let failed = Instant::now();
        fail(&chain.upstream);
        cargo.join().expect("cargo fetches all");
        let rest = failed.elapsed();
        assert!(
            rest < online + UPSTREAM_TIMEOUT + SLACK,
            "{rest:?}, {online:?} online"
        );
    });
    gate.open();
    recover(&chain.upstream);
    larder.wait_until_reachable();
    chain.fetch(&larder);
}

#[test]
fn cargo_completes_when_upstream_dies_in_the_middle_of_a_fetch() {
    check_failure_in_the_middle(FakeUpstream::stop, FakeUpstream::restart);
}

#[test]
fn upstream_that_falls_silent_in_the_middle_of_a_fetch_costs_one_timeout() {
    check_failure_in_the_middle(FakeUpstream::black_hole, FakeUpstream::revive);
}

#[test]
fn upstream_that_fails_and_recovers_again_and_again_is_logged_in_three_lines() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = larder_with_stale_left(&upstream, &site);
    let began = Instant::now();
    for _ in 0..4 {
        upstream.stop();
        assert_eq!(larder.get(&entry("left")).status, 200);
        assert_eq!(larder.status()["outages"][0]["state"], "down");
        upstream.restart();
        larder.wait_until_reachable();
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the machine is too slow for this test"
    );
    larder.wait_for_log("upstream is back");
    let log = larder.stop();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" upstream is "))
        .collect();
    let expected = ["is out of reach", "is unsteady", "is back"];
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{log}");
    }
    assert!(lines[1].contains("changes=7"), "{log}");
}

#[test]
fn crate_transfer_resumes_when_upstream_is_back() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("large", "1.0.0").padding(1_000_000));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    upstream.fault_times("/dl/", 1, Fault::CutAfter(600_000));
    let project = Project::empty().dep("large", "1");
    CargoHome::empty()
        .run(&project, &["fetch"], larder.url())
        .assert_success();
    let asked: Vec<_> = upstream
        .requests()
        .into_iter()
        .filter(|request| request.path.contains("/dl/"))
        .collect();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].header("range").is_some(), "{asked:?}");
}

/// A daemon that reached upstream takes an outage for an interruption at first. One that starts in the outage does not.
#[test]
fn only_a_daemon_that_never_reached_upstream_offers_stored_versions_at_once() {
    let upstream = FakeUpstream::start();
    for version in ["1.0.0", "1.1.0"] {
        upstream.publish(Crate::new("left", version));
    }
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    let older = Project::empty().dep("left", "=1.0.0");
    let fetch = CargoHome::empty().run(&older, &["fetch"], larder.url());
    fetch.assert_success();
    upstream.stop();
    let chosen = |larder: &Larder<'_>| {
        let project = Project::empty().dep("left", "1");
        let resolve = CargoHome::empty().run(&project, &["generate-lockfile"], larder.url());
        resolve.assert_success();
        let lock = project.lock();
        let is_newest = lock.contains("version = \"1.1.0\"");
        assert!(is_newest || lock.contains("version = \"1.0.0\""), "{lock}");
        is_newest
    };
    assert!(chosen(&larder), "a short interruption");
    let larder = larder.restart(&["--max-age", "0s"]);
    assert!(!chosen(&larder), "the network is away");
    upstream.restart();
    larder.wait_until_reachable();
    assert!(chosen(&larder), "the network is back");
}

#[test]
fn an_upstream_that_stays_down_costs_others_no_connections() {
    let upstream = FakeUpstream::start();
    let other = crate::dist::released();
    let site = site(&upstream);
    upstream.publish(Crate::new("left", "1.0.0"));
    let flags = ["--max-age", "0s", "--upstream-timeout", "1s"];
    let larder = crate::dist::serve(&site, &other, &flags);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    upstream.stop();
    assert_eq!(larder.get(&entry("left")).status, 200);
    let get_other = || {
        let reply = larder.get("/dist/channel-rust-stable.toml.sha256");
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    get_other();
    let (connections, failed) = (other.connections(), larder.request_count("probes-failed"));
    larder.wait_until_idle();
    wait_until("another probe has failed", || {
        larder.request_count("probes-failed") > failed
    });
    other.forget_requests();
    get_other();
    assert!(!other.requests().is_empty());
    assert_eq!(other.connections(), connections);
}
