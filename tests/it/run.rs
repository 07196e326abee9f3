//! `larder run`: real cargo and rustup keep upstream's addresses, and get larder's copies.
//!
//! Unit tests cover the certificates and the addresses.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fake_upstream::{Crate, FakeUpstream, HOST, Installer, Toolchain, crate_path, entry_path};
use tempfile::TempDir;

use crate::dist::MINIMAL;
use crate::eviction::disk_use;
use crate::fixture::{CA_FILE, project_on_left, publish_pair, site, tls_site, tls_upstream};
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::process::{Run, run, signal, wait_until};
use testkit::rustup::{Rustup, installed};
use testkit::store::files;

/// An https upstream with `left`, which depends on `right`; larder's store; and the upstream's authority as a file.
struct World {
    upstream: FakeUpstream,
    site: Site,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let (upstream, folder) = tls_upstream();
        publish_pair(&upstream);
        Self {
            site: tls_site(&upstream, &folder),
            upstream,
            folder,
        }
    }

    fn ca_file(&self) -> String {
        self.folder.path().join(CA_FILE).display().to_string()
    }

    /// A cargo home whose crates.io is this upstream, and which trusts it.
    fn home(&self) -> CargoHome {
        let home = CargoHome::empty();
        std::fs::create_dir_all(home.path()).unwrap();
        let config = format!(
            "[source.crates-io]\nreplace-with = \"fake\"\n[source.fake]\nregistry = \"sparse+{}\"\n\
             [http]\ncainfo = \"{}\"\n",
            self.upstream.url(),
            self.ca_file()
        );
        std::fs::write(home.path().join("config.toml"), config).unwrap();
        home
    }

    /// Runs cargo through larder.
    fn cargo(&self, flags: &[&str], home: &CargoHome, project: &Project, words: &[&str]) -> Run {
        let mut cargo = home.command(project);
        cargo.args(words);
        run(self.site.run_command(flags, &cargo))
    }

    /// `sh -c SCRIPT` through larder.
    fn shell(&self, script: &str) -> Command {
        let mut shell = CargoHome::empty().command(&Project::empty());
        shell.current_dir(self.folder.path());
        let mut command = Command::new("/bin/sh");
        for (name, value) in shell.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.current_dir(self.folder.path()).args(["-c", script]);
        self.site.run_command(&[], &command)
    }
}

/// Starts a command. Returns it with its first line on stdout, newline included.
fn started(mut command: Command) -> (Child, String) {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line)
}

/// The summary: hits, fetched, missing, and the rest of the line.
#[track_caller]
fn summary(run: &Run) -> (u64, u64, u64, String) {
    let line = run.stderr.lines().last().unwrap_or_default();
    let parts: Vec<_> = line
        .strip_prefix("larder: ")
        .unwrap_or_else(|| panic!("{run:?}"))
        .split(", ")
        .collect();
    let number = |part: &str| part.split(' ').next().unwrap().parse().unwrap();
    (
        number(parts[0]),
        number(parts[1]),
        number(parts[2]),
        parts[3].to_owned(),
    )
}

/// The compiler's work, as `cargo -v` reports it.
#[track_caller]
fn assert_all_fresh(run: &Run) {
    run.assert_success()
        .assert_says("Fresh left v1.0.0")
        .assert_says("Fresh right v1.0.0");
    assert!(!run.stderr.contains("Compiling"), "{}", run.stderr);
}

#[test]
fn a_build_is_fetched_once_and_repeated_without_upstream() {
    let world = World::new();
    let cold = world.cargo(&[], &world.home(), &project_on_left(), &["build"]);
    cold.assert_success();
    assert_eq!(world.upstream.requests_for("/dl/"), 2, "left and right");
    // `right` was prefetched, and `config.json` when the proxy started. That saves time and no bytes.
    let (hits, fetched, missing, saved) = summary(&cold);
    assert_eq!((hits, fetched, missing), (0, 5, 0), "{}", cold.stderr);
    assert_eq!(saved, "0 B not downloaded");

    world.upstream.forget_requests();
    let warm = world.cargo(
        &["--max-age", "1h"],
        &world.home(),
        &project_on_left(),
        &["build"],
    );
    warm.assert_success();
    assert_eq!(
        world.upstream.requests().len(),
        0,
        "{:?}",
        world.upstream.requests()
    );
    let (hits, fetched, missing, saved) = summary(&warm);
    assert_eq!(
        (hits >= 4, fetched, missing),
        (true, 0, 0),
        "{}",
        warm.stderr
    );
    assert!(!saved.starts_with("0 "), "{saved}");

    world.upstream.stop();
    for flags in [&["--offline"][..], &[]] {
        let without = world.cargo(flags, &world.home(), &project_on_left(), &["build"]);
        without.assert_success();
        assert_eq!(summary(&without).2, 0, "{}", without.stderr);
    }
}

/// A command ends before an outage of ten seconds does. Its resolve must choose stored versions all the same, whether
/// the entries are fresh or not.
#[test]
fn a_project_without_lock_file_resolves_to_stored_versions_without_upstream() {
    for flags in [&["--max-age", "1h"][..], &["--max-age", "0s"]] {
        let world = World::new();
        world.upstream.publish(Crate::new("left", "1.1.0"));
        let older = Project::empty().dep("left", "=1.0.0");
        let cold = world.cargo(flags, &world.home(), &older, &["fetch"]);
        cold.assert_success();
        world.upstream.stop();
        let newest = project_on_left();
        let without = world.cargo(flags, &world.home(), &newest, &["fetch"]);
        without.assert_success();
        assert_eq!(summary(&without).2, 0, "{}", without.stderr);
        let lock = newest.lock();
        assert!(
            lock.contains("name = \"left\"\nversion = \"1.0.0\""),
            "{lock}"
        );

        // Upstream is back: the next command learns of it.
        world.upstream.restart();
        let online = project_on_left();
        let again = world.cargo(flags, &world.home(), &online, &["fetch"]);
        again.assert_success();
        let lock = online.lock();
        assert!(
            lock.contains("name = \"left\"\nversion = \"1.1.0\""),
            "{lock}"
        );
    }
}

#[test]
fn entries_of_dependencies_are_prefetched_without_a_daemon() {
    let world = World::new();
    let done = world.folder.path().join("done");
    let script = format!(
        "curl -sS '{}{}'; until [ -e '{}' ]; do sleep 0.05; done",
        world.upstream.url().trim_end_matches("/index/"),
        entry_path("left"),
        done.display()
    );
    std::thread::scope(|scope| {
        let command = scope.spawn(|| run(world.shell(&script)));
        wait_until("`right`, which no client wants, was fetched", || {
            world.upstream.requests_for(&entry_path("right")) == 1
        });
        std::fs::write(&done, "").unwrap();
        command.join().unwrap().assert_success();
    });
}

/// Twice as much as the limit allows.
#[test]
fn a_command_without_a_daemon_keeps_max_size() {
    const CRATES: usize = 20;
    let (upstream, folder) = tls_upstream();
    let mut script = String::new();
    for number in 0..CRATES {
        let name = format!("load-{number}");
        upstream.publish(Crate::new(&name, "1.0.0").padding(600_000));
        let address = upstream.base_url();
        let address = address.trim_end_matches('/');
        let path = crate_path(&name, "1.0.0");
        script += &format!("curl -sSf -o /dev/null '{address}{path}' || exit 1; sleep 0.1\n");
    }
    let world = World {
        site: tls_site(&upstream, &folder).variable("LARDER_MAX_SIZE", "6MB"),
        upstream,
        folder,
    };
    let ran = run(world.shell(&script));
    ran.assert_success();
    assert_eq!(summary(&ran).1, CRATES as u64, "{}", ran.stderr);
    let used = disk_use(world.site.store());
    assert!(used > 3_000_000 && used < 6_000_000, "{used}");
}

#[test]
fn many_requests_share_one_http2_connection() {
    let world = World::new();
    let mut project = Project::empty();
    for number in 0..40 {
        let name = format!("crate-{number}");
        world.upstream.publish(Crate::new(&name, "1.0.0"));
        project = project.dep(&name, "1");
    }
    let home = world
        .home()
        .variable("CARGO_HTTP_DEBUG", "true")
        .variable("CARGO_LOG", "network=debug");
    let fetched = world.cargo(&[], &home, &project, &["fetch"]);
    fetched
        .assert_success()
        .assert_says("ALPN: server accepted h2");
    assert_eq!(
        summary(&fetched).1,
        81,
        "config.json, 40 entries, 40 crates"
    );
}

#[test]
fn what_is_missing_offline_is_counted_and_named() {
    let world = World::new();
    let failed = world.cargo(
        &["--offline"],
        &world.home(),
        &project_on_left(),
        &["build"],
    );
    failed.assert_failure().assert_says("larder runs offline");
    assert_eq!(summary(&failed).2, 1, "{}", failed.stderr);
    assert_eq!(world.upstream.requests().len(), 0);
}

#[test]
fn nothing_is_built_again_with_larder_or_without() {
    let world = World::new();
    for larder_first in [true, false] {
        let (home, project) = (world.home(), project_on_left());
        let direct = |words: &[&str]| home.run_plain(&project, words);
        let through = |words: &[&str]| world.cargo(&[], &home, &project, words);
        if larder_first {
            through(&["build"]).assert_success();
            assert_all_fresh(&direct(&["build", "-v"]));
            assert_all_fresh(&direct(&["build", "-v", "--offline"]));
        } else {
            direct(&["build"]).assert_success();
            assert_all_fresh(&through(&["build", "-v"]));
        }
        // The index is read again, and nothing changes.
        through(&["update"]).assert_success();
        direct(&["update"]).assert_success();
        assert_all_fresh(&through(&["build", "-v"]));
    }
}

#[test]
fn larder_changes_no_file_outside_its_folders() {
    let world = World::new();
    let temporary = TempDir::new().unwrap();
    let (home, project) = (world.home(), project_on_left());
    world
        .cargo(&[], &home, &project, &["build"])
        .assert_success();
    let home = home.variable("TMPDIR", temporary.path());
    let places = [
        home.path(),
        project.folder().to_owned(),
        world.folder.path().to_owned(),
    ];
    let before = places.each_ref().map(|place| files(place));
    let mut command = home.command(&project);
    // Reads the proxy's variables from a program that does not write.
    command = {
        let mut shell = Command::new("/bin/sh");
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell.current_dir(project.folder());
        shell.args([
            "-c",
            "cat $CARGO_HTTP_CAINFO $SSL_CERT_FILE && find $TMPDIR -printf '%m %f\\n'",
        ]);
        shell
    };
    let ran = run(world.site.run_command(&[], &command));
    ran.assert_success();
    assert!(ran.stdout.contains("BEGIN CERTIFICATE"));
    assert!(!ran.stdout.contains("PRIVATE KEY"), "keys stay in memory");
    assert!(ran.stdout.contains("700 larder-"), "{}", ran.stdout);
    let after = places.each_ref().map(|place| files(place));
    assert_eq!(before, after);
    assert_eq!(files(temporary.path()), []);
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The paths below a cargo home, without the hashes that differ by upstream's port, and without cargo's own database.
fn paths(home: &CargoHome) -> BTreeSet<String> {
    let all = files(&home.path()).into_iter();
    let paths = all.map(|(path, _)| {
        path.strip_prefix(home.path())
            .unwrap()
            .display()
            .to_string()
    });
    paths
        .filter(|path| !path.contains(".global-cache"))
        .collect()
}

#[test]
fn cargo_keeps_the_same_files_as_without_larder() {
    let world = World::new();
    let (direct, through) = (world.home(), world.home());
    direct
        .run_plain(&project_on_left(), &["build"])
        .assert_success();
    world
        .cargo(&[], &through, &project_on_left(), &["build"])
        .assert_success();
    assert_eq!(paths(&direct), paths(&through));
}

#[test]
fn programs_of_crates_are_installed_and_described() {
    let world = World::new();
    let tool = Crate::new("tool", "1.0.0").dep("left", "1");
    world
        .upstream
        .publish(tool.file("src/main.rs", "fn main() { println!(\"{}\", left::two()) }"));
    let (home, project) = (world.home(), Project::empty());
    world
        .cargo(&[], &home, &project, &["install", "tool"])
        .assert_success();
    let said = run(Command::new(home.path().join("bin/tool")));
    assert_eq!(said.stdout, "2\n");
    let home = home.variable(
        "CARGO_REGISTRIES_CORP_INDEX",
        format!("sparse+{}", world.upstream.url()),
    );
    let info = world.cargo(
        &["--offline"],
        &home,
        &project,
        &["info", "tool", "--registry", "corp"],
    );
    info.assert_success();
    assert!(info.stdout.contains("version: 1.0.0"), "{}", info.stdout);
}

#[test]
fn unreadable_root_certificates_are_named_with_their_setting() {
    let world = World::new();
    let project = project_on_left();
    let settings = "[http]\ncainfo = \"/no/such/roots.pem\"\n";
    project.write(".cargo/config.toml", settings);
    let file = project.folder().join(".cargo/config.toml");
    let named = world.cargo(&[], &world.home(), &project, &["fetch"]);
    named
        .assert_failure()
        .assert_says("cannot read the root certificates in /no/such/roots.pem")
        .assert_says(&format!("(http.cainfo in {})", file.display()));
    let mut cargo = world.home().command(&project);
    cargo
        .arg("fetch")
        .env("CARGO_HTTP_CAINFO", "/no/such/other.pem");
    run(world.site.run_command(&[], &cargo))
        .assert_failure()
        .assert_says("in /no/such/other.pem (CARGO_HTTP_CAINFO)");
}

#[test]
fn exit_codes_of_the_command_are_those_of_larder() {
    let world = World::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let ended = run(world.shell(script));
        assert_eq!(ended.status.code(), Some(code), "{script}");
        assert_eq!(summary(&ended).0, 0);
    }
    let absent = run(world
        .site
        .run_command(&[], &Command::new("/no/such/program")));
    assert_eq!(absent.status.code(), Some(127));
    absent.assert_says("cannot run `/no/such/program`");
}

#[test]
fn signals_reach_the_command() {
    let world = World::new();
    for (name, number, code) in [
        ("TERM", 15, 3),
        ("INT", 2, 4),
        ("HUP", 1, 5),
        ("USR1", 10, 6),
    ] {
        // No shell can trap it if the tests run below `nohup` or in the background of a script.
        if is_ignored(number) {
            continue;
        }
        let script = "trap 'exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' HUP; trap 'exit 6' USR1; \
                      echo ready; while :; do sleep 0.05; done";
        let (mut larder, line) = started(world.shell(script));
        assert_eq!(line, "ready\n");
        signal(larder.id(), name);
        assert_eq!(larder.wait().unwrap().code(), Some(code), "{name}");
    }
}

/// Returns whether this process was started with the signal of this number ignored.
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[test]
fn the_summary_can_be_switched_off() {
    let world = World::new();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "true"]);
    let quiet = run(world.site.run_command(&["--quiet"], &shell));
    quiet.assert_success();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn another_host_is_reached_through_an_unread_tunnel() {
    let world = World::new();
    let other = FakeUpstream::builder().tls().start();
    other.publish(Crate::new("corp", "1.0.0"));
    let home = world.home();
    // Cargo trusts both upstreams. Larder does not know the second one.
    let roots = format!("{}{}", world.upstream.ca_pem(), other.ca_pem());
    std::fs::write(world.folder.path().join(CA_FILE), roots).unwrap();
    let registry = format!("[registries.corp]\nindex = \"sparse+{}\"\n", other.url());
    let config = home.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + &registry).unwrap();
    let project = Project::empty()
        .dep_line("corp = { version = \"1\", registry = \"corp\" }")
        .dep("left", "1");
    let built = world.cargo(&[], &home, &project, &["build"]);
    built.assert_success();
    assert_eq!(other.requests_for("/dl/corp"), 1);
    assert_eq!(
        summary(&built).1,
        5,
        "only what is crates.io's: {}",
        built.stderr
    );
    let agent = other.requests()[0].header("user-agent").unwrap().to_owned();
    assert!(agent.starts_with("cargo"), "{agent}");
    other.stop();
    let failed = world.cargo(&[], &world.home(), &project, &["build"]);
    failed.assert_failure();
}

/// An HTTP proxy that opens tunnels and remembers the addresses.
fn connect_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let record = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let record = record.clone();
            std::thread::spawn(move || tunnel(client, &record));
        }
    });
    (url, asked)
}

fn tunnel(mut client: TcpStream, record: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let address = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    record.lock().unwrap().push(address.clone());
    let mut server = TcpStream::connect(address).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    std::io::copy(&mut server, &mut client).ok()?;
    Some(())
}

#[test]
fn the_proxy_of_the_environment_is_used_for_all_hosts() {
    let world = World::new();
    let other = FakeUpstream::builder().tls().start();
    other.publish(Crate::new("corp", "1.0.0"));
    let (proxy, asked) = connect_proxy();
    let roots = format!("{}{}", world.upstream.ca_pem(), other.ca_pem());
    std::fs::write(world.folder.path().join(CA_FILE), roots).unwrap();
    let home = world.home().variable("HTTPS_PROXY", &proxy).variable(
        "CARGO_REGISTRIES_CORP_INDEX",
        format!("sparse+{}", other.url()),
    );
    let project = Project::empty()
        .dep_line("corp = { version = \"1\", registry = \"corp\" }")
        .dep("left", "1");
    world
        .cargo(&[], &home, &project, &["build"])
        .assert_success();
    let asked: BTreeSet<_> = asked.lock().unwrap().iter().cloned().collect();
    assert_eq!(
        asked,
        [authority(&world.upstream), authority(&other)].into()
    );
}

#[test]
fn requests_to_an_api_on_the_same_host_reach_it_unchanged() {
    let world = World::new();
    let answer = r#"{"crates":[{"name":"left","description":"d","max_version":"1.0.0"}],"meta":{"total":1}}"#;
    // The fake ignores the query.
    let path = "/api/api/v1/crates";
    world
        .upstream
        .serve_static(path, answer, "application/json");
    let home = world
        .home()
        .variable(
            "CARGO_REGISTRIES_CORP_INDEX",
            format!("sparse+{}", world.upstream.url()),
        )
        .variable("CARGO_REGISTRIES_CORP_TOKEN", "secret");
    let project = Project::empty();
    let found = world.cargo(
        &[],
        &home,
        &project,
        &["search", "left", "--registry", "corp"],
    );
    found.assert_success();
    assert!(
        found.stdout.contains("left = \"1.0.0\""),
        "{}",
        found.stdout
    );
    // The fake refuses other methods than GET: its refusal must reach the user.
    let refused = world.cargo(
        &[],
        &home,
        &project,
        &[
            "publish",
            "--registry",
            "corp",
            "--no-verify",
            "--allow-dirty",
        ],
    );
    refused.assert_failure().assert_says("405");
    let requests = world.upstream.requests();
    let publish = requests
        .iter()
        .find(|request| request.method == "PUT")
        .unwrap();
    assert_eq!(publish.path, "/api/api/v1/crates/new");
    assert_eq!(publish.header("authorization"), Some("secret"));
    assert!(publish.header("user-agent").unwrap().starts_with("cargo"));
    let offline = world.cargo(
        &["--offline"],
        &home,
        &project,
        &["search", "left", "--registry", "corp"],
    );
    offline.assert_failure().assert_says("larder runs offline");
}

/// The host's authority in proxy requests.
fn authority(upstream: &FakeUpstream) -> String {
    let address = upstream.base_url();
    let address = address.trim_start_matches("https://");
    address.trim_end_matches('/').to_owned()
}

#[test]
fn requests_that_are_passed_on_go_through_the_proxy_of_cargo() {
    let world = World::new();
    let (proxy, asked) = connect_proxy();
    let (of_environment, _) = connect_proxy();
    let answer = r#"{"crates":[],"meta":{"total":0}}"#;
    world
        .upstream
        .serve_static("/api/api/v1/crates", answer, "application/json");
    let home = world
        .home()
        .variable("HTTPS_PROXY", of_environment)
        .variable("CARGO_HTTP_PROXY", proxy)
        .variable(
            "CARGO_REGISTRIES_CORP_INDEX",
            format!("sparse+{}", world.upstream.url()),
        );
    let words = ["search", "left", "--registry", "corp"];
    let found = world.cargo(&[], &home, &Project::empty(), &words);
    found.assert_success();
    assert_eq!(*asked.lock().unwrap(), [authority(&world.upstream)]);
}

#[test]
fn the_proxy_and_the_roots_of_cargo_lead_to_upstream() {
    let (upstream, folder) = tls_upstream();
    publish_pair(&upstream);
    let site = site(&upstream);
    let world = World {
        upstream,
        site,
        folder,
    };
    let (proxy, asked) = connect_proxy();
    let home = world.home();
    let config = home.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}proxy = \"{proxy}\"\n")).unwrap();
    let built = world.cargo(&[], &home, &project_on_left(), &["build"]);
    built.assert_success();
    assert_eq!(summary(&built).1, 5, "{}", built.stderr);
    let asked: BTreeSet<_> = asked.lock().unwrap().drain(..).collect();
    assert_eq!(asked, [authority(&world.upstream)].into());

    // Variables that name a proxy say otherwise, and rustup reads them too.
    let (of_environment, others) = connect_proxy();
    let home = home.variable("HTTPS_PROXY", of_environment);
    let again = world.cargo(&["--max-age", "0s"], &home, &project_on_left(), &["update"]);
    again.assert_success();
    assert!(!others.lock().unwrap().is_empty());
}

#[test]
fn a_daemon_on_the_same_store_answers() {
    let world = World::new();
    let daemon = world.site.serve(&["--max-age", "1h"]);
    world
        .cargo(&[], &world.home(), &project_on_left(), &["build"])
        .assert_success();
    let answered: u64 = ["hit", "miss", "collapsed", "prefetched"]
        .map(|name| daemon.request_count(name))
        .iter()
        .sum();
    assert!(
        answered >= 5,
        "config, two entries, two crates: {}",
        daemon.status()
    );
    for path in [
        "/index/le/ft/left",
        "/index/ri/gh/right",
        "/dl/left",
        "/dl/right",
    ] {
        assert_eq!(world.upstream.requests_for(path), 1, "{path}");
    }
    let before = daemon.request_count("hit");
    world.upstream.stop();
    let warm = world.cargo(&[], &world.home(), &project_on_left(), &["build"]);
    warm.assert_success();
    assert!(
        daemon.request_count("hit") >= before + 4,
        "{}",
        daemon.status()
    );
    assert_eq!(summary(&warm).1, 0, "{}", warm.stderr);
    // An online daemon does not answer for a command that must stay offline.
    let hits = daemon.request_count("hit");
    daemon.wait_until_idle();
    world
        .cargo(
            &["--offline"],
            &world.home(),
            &project_on_left(),
            &["build"],
        )
        .assert_success();
    assert_eq!(daemon.request_count("hit"), hits);
}

/// Gets `left`'s entry, and `right`'s after the daemon has stopped.
fn stop_the_daemon_between_two_requests(world: &World, flags: &[&str]) -> Run {
    let daemon = world.site.serve(flags);
    let [first, second] = ["left", "right"].map(|name| {
        let base = world.upstream.url().trim_end_matches("/index/").to_owned();
        format!("curl -sS --fail-with-body '{base}{}'", entry_path(name))
    });
    let path = |name: &str| world.folder.path().join(name).display().to_string();
    let (ready, stopped) = (path("ready"), path("stopped"));
    let script = format!(
        "{first}; touch '{ready}'; until [ -e '{stopped}' ]; do sleep 0.05; done; {second}"
    );
    let mut command = world.shell(&script);
    if flags.contains(&"--offline") {
        command.env("LARDER_OFFLINE", "true");
    }
    std::thread::scope(|scope| {
        let command = scope.spawn(|| run(command));
        wait_until("the daemon was asked", || Path::new(&ready).exists());
        daemon.stop();
        std::fs::write(stopped, "").unwrap();
        command.join().unwrap()
    })
}

#[test]
fn a_daemon_that_stops_during_the_command_does_not_break_it() {
    let world = World::new();
    let ran = stop_the_daemon_between_two_requests(&world, &[]);
    ran.assert_success();
    assert!(ran.stdout.contains(r#""name":"right""#), "{ran:?}");
    assert_eq!(summary(&ran).1, 1, "the daemon answered: {}", ran.stderr);
}

#[test]
fn offline_nobody_else_is_asked_when_the_daemon_has_stopped() {
    let world = World::new();
    let ran = stop_the_daemon_between_two_requests(&world, &["--offline"]);
    ran.assert_failure();
    assert!(
        ran.stdout.contains("cannot connect to the daemon"),
        "{ran:?}"
    );
    assert_eq!(world.upstream.requests().len(), 0);
}

#[test]
fn rustup_installs_a_toolchain_and_repeats_it_without_upstream() {
    let world = World::new();
    world.upstream.release(&Toolchain::new("stable", "1.95.0"));
    world
        .upstream
        .release_rustup(&Installer::new("1.29.0").program(std::fs::read(installed()).unwrap()));
    let server = world.upstream.base_url().trim_end_matches('/').to_owned();
    let install = |flags: &[&str]| {
        let user = Rustup::without_toolchain().variable("SSL_CERT_FILE", world.ca_file());
        let mut rustup = user.command("rustup", &server, &format!("{server}/rustup"));
        rustup.args(MINIMAL);
        let flags: Vec<_> = ["--dist-server", &server]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        let installed = run(world.site.run_command(&flags, &rustup));
        installed.assert_success();
        assert_eq!(user.components(&format!("stable-{HOST}")).len(), 3);
        installed
    };
    let cold = install(&[]);
    assert_eq!(summary(&cold).2, 0, "{}", cold.stderr);
    assert!(world.upstream.requests_for(".tar.") >= 3);
    world.upstream.stop();
    let warm = install(&["--offline"]);
    let (hits, fetched, missing, _) = summary(&warm);
    assert_eq!(
        (hits >= 5, fetched, missing),
        (true, 0, 0),
        "{}",
        warm.stderr
    );
}

#[test]
fn the_proxy_is_for_its_command_alone_and_ends_with_it() {
    let world = World::new();
    let script = "echo $https_proxy; sleep 60";
    let (mut larder, line) = started(world.shell(script));
    let (user_info, address) = line.trim().rsplit_once('@').unwrap();
    let digits = BASE64_STANDARD.encode(user_info.trim_start_matches("http://"));
    let host = "127.0.0.1:1";
    for (head, expected) in [
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            407,
        ),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            407,
        ),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 407),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nProxy-Authorization: Basic {digits}\r\n\r\n"
            ),
            400,
        ),
        (
            format!(
                "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic {digits}\r\n\r\n"
            ),
            502,
        ),
    ] {
        let mut client = TcpStream::connect(address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer, format!("HTTP/1.1 {expected}"), "{head}");
    }
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    signal(larder.id(), "TERM");
    larder.wait().unwrap();
    let is_closed = || TcpStream::connect(address).is_err();
    wait_until("the proxy ends with the command", is_closed);
}

/// A folder that `larder run` must not need.
#[test]
fn a_command_runs_from_a_folder_that_larder_knows_nothing_of() {
    let world = World::new();
    let mut shell = Command::new("/bin/sh");
    shell.current_dir(Path::new("/")).args(["-c", "pwd"]);
    let ran = run(world.site.run_command(&[], &shell));
    ran.assert_success();
    assert_eq!(ran.stdout, "/\n");
}
