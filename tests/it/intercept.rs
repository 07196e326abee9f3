//! `larder serve --intercept`: clients keep upstream's addresses, and a daemon answers on a proxy's address.
//!
//! `run` covers the same proxy for one command.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream};
use tempfile::TempDir;

use crate::fixture::{tls_site, tls_upstream};
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::process::{Run, run};

/// An https upstream with `left`, and a place for its authority and larder's.
struct World {
    upstream: FakeUpstream,
    site: Site,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let (upstream, folder) = tls_upstream();
        upstream.publish(Crate::new("left", "1.0.0"));
        Self {
            site: tls_site(&upstream, &folder),
            upstream,
            folder,
        }
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("authority")
    }

    fn serve(&self, flags: &[&str]) -> Larder<'_> {
        let authority = self.authority().display().to_string();
        let own = ["--intercept=127.0.0.1:0", "--intercept-folder", &authority];
        let flags: Vec<_> = own.iter().chain(flags).copied().collect();
        self.site.serve(&flags)
    }

    /// Builds a project on `left` with an empty home, in a shell with these settings.
    fn build(&self, settings: &str) -> Run {
        let project = Project::empty().dep("left", "1");
        let home = CargoHome::empty();
        std::fs::create_dir_all(home.path()).unwrap();
        let config = format!(
            "[source.crates-io]\nreplace-with = \"fake\"\n[source.fake]\nregistry = \"sparse+{}\"\n",
            self.upstream.url()
        );
        std::fs::write(home.path().join("config.toml"), config).unwrap();
        let cargo = home.command(&project);
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().current_dir(project.folder());
        for (name, value) in cargo.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let program = cargo.get_program().to_str().unwrap();
        shell.args(["-c", &format!("{settings}\nexec {program} build")]);
        run(shell)
    }

    /// The output of `larder client print proxy`.
    #[track_caller]
    fn settings(&self) -> String {
        let printed = self.site.command(&["client", "print", "proxy"]);
        assert!(printed.status.success(), "{printed:?}");
        String::from_utf8(printed.stdout).unwrap()
    }
}

/// The status line of the proxy's answer to `head`.
#[track_caller]
fn ask(daemon: &Larder<'_>, head: &str) -> String {
    let status = daemon.status();
    let address = status["proxy"]["address"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://");
    let mut client = TcpStream::connect(address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.write_all(head.as_bytes()).unwrap();
    let mut answer = vec![0; 1000];
    let read = client.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[test]
fn printed_variables_make_cargo_use_the_daemon_over_restarts_and_offline() {
    let world = World::new();
    let daemon = world.serve(&[]);
    let settings = world.settings();
    world.build(&settings).assert_success();
    assert_eq!(world.upstream.requests_for("/dl/left"), 1);
    assert!(daemon.request_count("miss") >= 2, "{}", daemon.status());
    daemon.wait_until_idle();
    let roots = world.authority().join("roots.pem");
    let before = std::fs::read_to_string(&roots).unwrap();
    daemon.stop();

    world.upstream.stop();
    let daemon = world.serve(&["--offline"]);
    assert_eq!(std::fs::read_to_string(&roots).unwrap(), before);
    world.build(&world.settings()).assert_success();
    assert!(daemon.request_count("stale-offline") + daemon.request_count("hit") >= 2);
}

#[test]
fn the_key_is_for_this_user_alone_and_clients_do_not_see_it() {
    let world = World::new();
    let _daemon = world.serve(&[]);
    let key = world.authority().join("authorities.json");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        std::fs::read_to_string(&key)
            .unwrap()
            .contains("PRIVATE KEY")
    );
    let roots = std::fs::read_to_string(world.authority().join("roots.pem")).unwrap();
    assert!(!roots.contains("PRIVATE KEY"));
}

/// See docs/decisions/0015-no-open-proxy.md.
#[test]
fn other_hosts_are_refused_unless_the_settings_name_them() {
    let world = World::new();
    let other = FakeUpstream::builder().tls().start();
    let host = other
        .base_url()
        .trim_start_matches("https://")
        .trim_end_matches('/')
        .to_owned();
    let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let daemon = world.serve(&[]);
    let answer = ask(&daemon, &connect);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains(&format!("--tunnel {host}")), "{answer}");
    let plain = "GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n";
    assert!(ask(&daemon, plain).starts_with("HTTP/1.1 403 "));
    let path = "GET /-/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(ask(&daemon, path).starts_with("HTTP/1.1 400 "));
    assert_eq!(other.connections(), 0);
    daemon.stop();

    let daemon = world.serve(&["--tunnel", &host]);
    let answer = ask(&daemon, &connect);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_daemon_without_the_proxy_has_no_variables_for_it() {
    let world = World::new();
    let check = || {
        let printed = world.site.command(&["client", "print", "proxy"]);
        assert_eq!(printed.status.code(), Some(1));
        let said = String::from_utf8_lossy(&printed.stderr).into_owned();
        assert!(said.contains("larder serve --intercept"), "{said}");
        assert!(said.starts_with("error: "), "{said}");
    };
    check();
    let _daemon = world.site.serve(&[]);
    check();
}
