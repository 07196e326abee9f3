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

use crate::fixture::{publish_pair, site, site_at, tls_site, tls_upstream_with};
use testkit::cargo::{CargoHome, Project};
use testkit::http::Http;
use testkit::larder::{Larder, Site};
use testkit::process::Run;

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
    larder.wait_for_log("`idle-exit` has no effect: connections through the proxy are not counted");
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

/// A daemon that does not start on this socket: its only line.
#[track_caller]
fn refusal(site: &Site, unit: &SocketUnit, arguments: &[&str]) -> String {
    let output = site.fail_on(unit.0.try_clone().unwrap(), arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn socket_with_a_wrong_name_or_without_its_setting_is_refused_with_the_remedy() {
    let unit = SocketUnit::new();
    let named = |name: &str| site_at("http://127.0.0.1:9/").variable("LISTEN_FDNAMES", name);
    let said = refusal(&named("htpp"), &unit, &[]);
    for part in ["a socket named `htpp`", "`FileDescriptorName=http` or"] {
        assert!(said.contains(part), "{said}");
    }
    let said = refusal(&named("proxy"), &unit, &[]);
    let setting = format!("set `intercept = \"{}\"`", unit.0.local_addr().unwrap());
    assert!(said.contains(&setting), "{said}");
    // systemd's name for a socket without one is that of its unit.
    for name in ["http", "larder.socket"] {
        let site = named(name);
        assert_eq!(unit.start(&site, &[]).get("/-/health").status, 200);
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

/// The registry of a test: the crates of each build, and those of all.
fn publish_crates(upstream: &FakeUpstream, builds: usize) {
    let own =
        (0..builds).flat_map(|build| (0..OWN_CRATES).map(move |own| format!("own-{build}-{own}")));
    for name in own.chain((0..SHARED_CRATES).map(|shared| format!("shared-{shared}"))) {
        upstream.publish(Crate::new(&name, "1.0.0").padding(20_000));
    }
}

/// The project of one build.
fn project(number: usize) -> Project {
    let own = (0..OWN_CRATES).map(|own| format!("own-{number}-{own}"));
    let names = own.chain((0..SHARED_CRATES).map(|shared| format!("shared-{shared}")));
    names.fold(Project::empty(), |project, name| project.dep(&name, "1"))
}

/// Checks one `cargo build` with an empty home. Cargo may not retry, so every failed request fails the build.
#[track_caller]
fn check_build(run: &Run) {
    run.assert_success();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

/// Restarts a daemon while builds run: `start` starts one once `is_wanted` says that a connection waits for it.
#[expect(clippy::print_stderr, reason = "figures of the long form")]
fn restart_during_builds<'site>(
    upstream: &FakeUpstream,
    builds: usize,
    build: impl Fn(usize) + Sync,
    is_wanted: impl Fn(Duration) -> bool + Sync,
    start: impl Fn() -> Larder<'site> + Sync,
) {
    let restarts = number("LARDER_TEST_RESTARTS", 3);
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
                        build(number);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let manager = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if !is_wanted(Duration::from_millis(50)) {
                    continue;
                }
                let larder = start();
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
                waited += usize::from(is_wanted(Duration::ZERO));
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

#[test]
fn builds_over_restarts_of_the_daemon_see_no_error() {
    let builds = number("LARDER_TEST_BUILDS", 9);
    let upstream = FakeUpstream::builder()
        .delay(Duration::from_millis(40))
        .start();
    publish_crates(&upstream, builds);
    let site = site(&upstream);
    let unit = SocketUnit::new();
    let build = |number: usize| {
        let home = CargoHome::empty().variable("CARGO_NET_RETRY", "0");
        check_build(&home.run(&project(number), &["build"], &unit.url()));
    };
    let is_wanted = |time| unit.is_wanted(time);
    restart_during_builds(&upstream, builds, build, is_wanted, || {
        unit.start(&site, &[])
    });
}

/// Builds through the proxy over restarts: the variables of `larder client print proxy`, and the proxy's socket held by
/// the service manager under `names`.
fn check_builds_through_the_proxy(names: Option<&str>) {
    let builds = number("LARDER_TEST_BUILDS", 9);
    let (upstream, files) =
        tls_upstream_with(FakeUpstream::builder().delay(Duration::from_millis(40)));
    publish_crates(&upstream, builds);
    let mut site = tls_site(&upstream, &files);
    if let Some(names) = names {
        site = site.variable("LISTEN_FDNAMES", names);
    }
    let (http, proxy) = (SocketUnit::new(), SocketUnit::new());
    let intercept = format!("--intercept={}", proxy.0.local_addr().unwrap());
    let start = || {
        let sockets = [&http, &proxy].map(|unit| unit.0.try_clone().unwrap().into());
        site.serve_on_two(sockets, &[&intercept])
    };
    let roots = {
        let larder = start();
        let roots = larder.status()["proxy"]["roots"]
            .as_str()
            .unwrap()
            .to_owned();
        larder.stop();
        roots
    };
    let build = |number: usize| {
        let home = CargoHome::empty()
            .variable("CARGO_NET_RETRY", "0")
            .variable("CARGO_HTTP_PROXY", proxy.url().trim_end_matches('/'))
            .variable("CARGO_HTTP_CAINFO", &roots);
        check_build(&home.run(&project(number), &["build"], &upstream.url()));
    };
    let is_wanted = |time| proxy.is_wanted(time);
    restart_during_builds(&upstream, builds, build, is_wanted, start);
}

#[test]
fn builds_through_the_proxy_over_restarts_see_no_error() {
    check_builds_through_the_proxy(Some("http:proxy"));
}

#[test]
fn unnamed_socket_at_the_proxy_s_address_is_the_proxy_s() {
    check_builds_through_the_proxy(None);
}
