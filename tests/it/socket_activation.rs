//! Socket activation: the tests play systemd's part. They hold the listening socket, start the daemon on it at the
//! first connection, and start the next one after it has ended.
//!
//! `LARDER_TEST_BUILDS=100 LARDER_TEST_RESTARTS=20 cargo test --test it socket_activation::builds` is the long form.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fake_upstream::{Crate, FakeUpstream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fixture::{publish_pair, site, site_at};
use testkit::cargo::{CargoHome, Project};
use testkit::http::Http;
use testkit::larder::{Larder, Site};

/// A listening socket, as a socket unit has it.
struct SocketUnit(TcpListener);

impl SocketUnit {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn http(&self) -> Http {
        Http::to(&self.url())
    }

    fn url(&self) -> String {
        format!("http://{}/", self.0.local_addr().unwrap())
    }

    fn start<'site>(&self, site: &'site Site, arguments: &[&str]) -> Larder<'site> {
        let larder = site.serve_on(self.0.try_clone().unwrap(), arguments);
        assert_eq!(larder.url(), self.url());
        larder
    }

    /// True if a connection waits for a daemon, after up to `time`.
    fn is_wanted(&self, time: Duration) -> bool {
        let mut sockets = [PollFd::new(&self.0, PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap();
        poll(&mut sockets, Some(&time)).unwrap() == 1
    }
}

#[test]
fn connections_wait_for_the_next_daemon_and_the_service_manager_hears_of_it() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let news = UnixDatagram::bind(&path).unwrap();
    news.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let heard = || {
        let mut bytes = [0; 512];
        let len = news.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let site = site(&upstream).variable("NOTIFY_SOCKET", path.to_str().unwrap());
    let unit = SocketUnit::new();
    for round in 0..3 {
        // No daemon runs, and the connection is not refused.
        let mut client = unit.http().connect().unwrap();
        client.send("GET", "/le/ft/left", &[]).unwrap();
        assert!(unit.is_wanted(Duration::from_secs(5)));
        let larder = unit.start(&site, &[]);
        let said = heard();
        assert!(said.contains("READY=1\n"), "{said}");
        assert!(
            said.contains(&format!("STATUS=listening on {}", unit.url())),
            "{said}"
        );
        let reply = client.receive().unwrap();
        assert_eq!(reply.body, upstream.index_body("left"), "round {round}");
        larder.stop();
        assert_eq!(heard(), "STOPPING=1\n");
    }
}

#[test]
fn stopping_daemon_answers_what_it_accepted_and_leaves_the_rest() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let unit = SocketUnit::new();
    let larder = unit.start(&site, &[]);
    let gate = upstream.gate("/dl/left");
    let sha256 = upstream.checksum("left", "1.0.0");
    let mut under_way = unit.http().connect().unwrap();
    let path = format!("/crates/left/1.0.0/{sha256}/download");
    under_way.send("GET", &path, &[]).unwrap();
    gate.wait_for(1);
    larder.signal("TERM");
    larder.wait_for_log("stopping: ");
    let mut later = unit.http().connect().unwrap();
    later.send("GET", "/le/ft/left", &[]).unwrap();
    gate.open();
    let reply = under_way.receive().unwrap();
    assert!(reply.complete && reply.body == upstream.body("left", "1.0.0"));
    drop(under_way);
    let (status, log) = larder.wait_for_exit();
    assert!(status.success(), "{log}");
    let _next = unit.start(&site, &[]);
    assert_eq!(later.receive().unwrap().body, upstream.index_body("left"));
}

#[test]
fn idle_daemon_ends_and_the_next_connection_is_answered_by_another() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let unit = SocketUnit::new();
    let idle = ["--idle-exit", "1s"];
    let larder = unit.start(&site, &idle);
    let began = Instant::now();
    let mut client = unit.http().connect().unwrap();
    // A client that asks from time to time keeps it running, on a connection of its own or not.
    while began.elapsed() < Duration::from_millis(2500) {
        client.get("/le/ft/left", &[]).unwrap();
        assert_eq!(unit.http().get("/config.json").status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    // An idle connection does not.
    let last = Instant::now();
    let (status, log) = larder.wait_for_exit();
    assert!(status.success(), "{log}");
    assert!(last.elapsed() >= Duration::from_millis(800), "{log}");
    assert!(
        log.contains("the service manager starts larder at the next connection"),
        "{log}"
    );
    let mut client = unit.http().connect().unwrap();
    client.send("GET", "/le/ft/left", &[]).unwrap();
    assert!(unit.is_wanted(Duration::from_secs(5)));
    let _next = unit.start(&site, &idle);
    assert_eq!(client.receive().unwrap().status, 200);
}

#[test]
fn idle_exit_without_a_service_manager_is_named_and_ignored() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&["--idle-exit", "10ms"]);
    larder.wait_for_log("`idle-exit` has no effect: no service manager has passed sockets");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(larder.get("/-/health").status, 200);
    let unit = SocketUnit::new();
    let state = ["--idle-exit", "10ms", "--intercept=127.0.0.1:0"];
    let larder = unit.start(&site, &state);
    larder.wait_for_log("`idle-exit` has no effect: the proxy's socket");
}

#[test]
fn passed_descriptor_that_is_no_listening_socket_is_refused() {
    let site = site_at("http://127.0.0.1:9/");
    let file = std::fs::File::open(env!("CARGO_BIN_EXE_larder")).unwrap();
    let unit = SocketUnit::new();
    let connection = TcpStream::connect(unit.0.local_addr().unwrap()).unwrap();
    for output in [site.fail_on(file, &[]), site.fail_on(connection, &[])] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in [
            "error: cannot use the sockets that the service manager has passed: ",
            "`Accept=no`",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}

/// The number in a variable, for the long form.
fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Crates that each build needs and no other.
const OWN_CRATES: usize = 6;
/// Crates that all builds need.
const SHARED_CRATES: usize = 6;
/// Builds at the same time.
const WORKERS: usize = 3;

/// One `cargo build` with an empty home. Cargo may not retry, so every failed request fails the build.
fn build(number: usize, url: &str) {
    let mut project = Project::empty();
    for own in 0..OWN_CRATES {
        project = project.dep(&format!("own-{number}-{own}"), "1");
    }
    for shared in 0..SHARED_CRATES {
        project = project.dep(&format!("shared-{shared}"), "1");
    }
    let home = CargoHome::empty().variable("CARGO_NET_RETRY", "0");
    let run = home.run(&project, &["build"], url);
    run.assert_success();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

#[test]
#[expect(clippy::print_stderr, reason = "figures of the long form")]
fn builds_over_restarts_of_the_daemon_see_no_error() {
    let builds = number("LARDER_TEST_BUILDS", 9);
    let restarts = number("LARDER_TEST_RESTARTS", 3);
    let upstream = FakeUpstream::builder()
        .delay(Duration::from_millis(40))
        .start();
    let own =
        (0..builds).flat_map(|build| (0..OWN_CRATES).map(move |own| format!("own-{build}-{own}")));
    for name in own.chain((0..SHARED_CRATES).map(|shared| format!("shared-{shared}"))) {
        upstream.publish(Crate::new(&name, "1.0.0").padding(20_000));
    }
    let site = site(&upstream);
    let unit = SocketUnit::new();
    let (next, done, is_over) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let (mut started, mut in_flight, mut waited) = (0, 0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= builds {
                            return;
                        }
                        build(number, &unit.url());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let manager = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if !unit.is_wanted(Duration::from_millis(50)) {
                    continue;
                }
                let larder = unit.start(&site, &[]);
                started += 1;
                // The restarts are spread over all builds; each comes while upstream has requests of a build.
                let due = |done: usize| done * (restarts + 1) >= (started - 1) * builds;
                while !is_over.load(Ordering::Relaxed)
                    && (started > restarts
                        || !due(done.load(Ordering::Relaxed))
                        || upstream.in_flight() == 0)
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                in_flight += usize::from(upstream.in_flight() > 0);
                larder.stop();
                waited += usize::from(unit.is_wanted(Duration::ZERO));
            }
        });
        let ended: Vec<_> = workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::Relaxed);
        manager.join().unwrap();
        assert!(ended.iter().all(Result::is_ok));
    });
    eprintln!(
        "{builds} builds, {} restarts, {in_flight} of them with requests in flight, {waited} with waiting connections",
        started - 1
    );
    assert!(started > restarts, "{started} starts");
}
