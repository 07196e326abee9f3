//! Output of the commands: `status`, `client print`, wrong usage, and the use of stdout and stderr.
//!
//! `warm` and `check` have modules of their own.

use std::fs;
use std::process::{Command, Output};

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::site_at;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::Site;
use testkit::lock_file::lock_file;

fn site(upstream: &FakeUpstream) -> Site {
    // A port without a listener, so that the test does not find a larder that runs on this machine.
    site_at(&upstream.url()).variable("LARDER_LISTEN", "127.0.0.1:1")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn warmed(upstream: &FakeUpstream, site: &Site) -> Project {
    upstream.publish(Crate::new("one", "1.0.0"));
    let project = Project::empty().dep("one", "1");
    let root =
        "\n[[package]]\nname = \"project\"\nversion = \"0.1.0\"\ndependencies = [\n \"one\",\n]\n";
    project.write("Cargo.lock", &(lock_file(upstream, &["one"]) + root));
    let output = site.command(&["warm", &project.folder().display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    project
}

#[test]
fn status_reports_store_and_pins_without_a_daemon() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    let connections = upstream.connections();
    let output = site.command(&["status"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let text = stdout(&output);
    let lock = project.folder().join("Cargo.lock").display().to_string();
    for expected in [
        &site.store().display().to_string(),
        "files     1, ",
        &lock,
        "(1 package)",
        "not running; start it with `larder serve`",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    let output = site.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(status["daemon"], Value::Null);
    assert_eq!(status["statistics"]["blobs"], 1);
    assert_eq!(status["projects"][0], lock);
    assert_eq!(upstream.connections(), connections);
}

#[test]
fn status_finds_the_daemon_of_its_store_and_reports_an_outage() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let output = site.command(&["status"]);
    let text = stdout(&output);
    let expected = format!(
        "daemon    running at {}, process {}, since ",
        larder.url(),
        larder.process_id()
    );
    assert!(text.contains(&expected), "{text}");

    upstream.stop();
    assert_eq!(larder.get("/ab/se/absent").status, 503);
    let text = stdout(&site.command(&["status"]));
    assert!(
        text.contains("upstream  127.0.0.1:") && text.contains(" is down since "),
        "{text}"
    );

    let larder = larder.restart(&["--offline"]);
    let output = site.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(status["daemon"]["address"], larder.url());
    assert_eq!(status["daemon"]["status"]["offline"], true);
    assert_eq!(status["daemon"]["status"]["pid"], larder.process_id());

    larder.stop();
    let text = stdout(&site.command(&["status"]));
    assert!(text.contains("not running"), "{text}");
}

#[test]
fn status_finds_a_live_daemon_and_prefers_the_configured_one() {
    let upstream = FakeUpstream::start();
    // A port that was just free; the system does not reuse it soon.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let configured = free.expect("loopback has a free port").to_string();
    let site = site_at(&upstream.url()).variable("LARDER_LISTEN", &configured);
    let found = || {
        let status: Value = serde_json::from_slice(&site.command(&["status", "--json"]).stdout)
            .expect("one document");
        let settings = stdout(&site.command(&["client", "print"]));
        let address = status["daemon"]["address"].as_str().unwrap_or("none");
        assert!(settings.contains(address), "{address}, but\n{settings}");
        address.to_owned()
    };
    let first = site.serve(&[]);
    let second = site.serve(&["--offline"]);
    second.stop();
    assert_eq!(found(), first.url());
    let second = site.serve(&["--offline"]);
    second.kill();
    assert_eq!(found(), first.url());
    let third = site.serve_at(&configured, &[]);
    let _fourth = site.serve(&[]);
    assert_eq!(found(), third.url());
}

#[test]
fn status_does_not_speak_of_a_daemon_with_another_store() {
    let upstream = FakeUpstream::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let listen = free.expect("loopback has a free port").to_string();
    let other = site_at(&upstream.url());
    let other = other.serve_at(&listen, &[]);
    let site = site_at(&upstream.url()).variable("LARDER_LISTEN", &listen);
    let text = stdout(&site.command(&["status"]));
    assert!(text.contains("not running"), "{text}");
    // Its clients are served all the same.
    let settings = stdout(&site.command(&["client", "print"]));
    assert!(settings.contains(other.url()), "{settings}");
}

#[test]
fn status_shows_projects_that_are_gone() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    let lock = project.folder().join("Cargo.lock");
    fs::remove_file(&lock).expect("the project is writable");
    let text = stdout(&site.command(&["status"]));
    assert!(text.contains("(1 package)"), "{text}");
    fs::remove_file(project.folder().join("Cargo.toml")).expect("the project is writable");
    let text = stdout(&site.command(&["status"]));
    assert!(
        text.contains("(1 package, its file is gone; its files are still kept)"),
        "{text}"
    );
    let output = site.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(status["gone"][0], lock.display().to_string());
}

#[test]
fn daemon_stops_gracefully_when_its_terminal_closes() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    larder.signal("HUP");
    let (status, log) = larder.wait_for_exit();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn json_documents_have_a_schema_and_errors_are_documents_too() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let folder = TempDir::new().expect("the temporary folder is writable");
    let folder = folder.path().display().to_string();
    let checks: [(&[&str], i32); 6] = [
        (&["status", "--json"], 0),
        (&["client", "print", "--json"], 0),
        (&["warm", "--json", "--dry-run", &folder], 1),
        (&["check", "--json", &folder], 1),
        (&["check", "--json", "--no-such-flag"], 2),
        (&["check", "--json", "--config", "/nowhere/larder.toml"], 2),
    ];
    for (arguments, code) in checks {
        let output = site.command(arguments);
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"));
        assert_eq!(document["schema"], 1, "{arguments:?}: {document}");
        assert_eq!(
            document["error"].is_string(),
            code == 2,
            "{arguments:?}: {document}"
        );
        if code == 2 {
            assert_eq!(output.status.code(), Some(2), "{output:?}");
        }
    }
}

#[test]
fn help_of_a_command_shows_only_flags_that_it_uses() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let help = |command: &str| stdout(&site.command(&[command, "--help"]));
    assert!(help("serve").contains("--max-age"));
    assert!(!help("serve").contains("--json"));
    assert!(help("check").contains("--index"));
    assert!(!help("check").contains("--max-age"));
    assert!(help("status").contains("--index"));
    assert!(!help("service").contains("--index"));
    assert!(!help("completions").contains("--store"));
    // They are accepted all the same, so that one set of flags fits all commands.
    let output = site.command(&["status", "--max-age", "1h", "--redirect-host", "a.example"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn reader_that_stops_early_causes_no_panic() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    for arguments in [&["completions", "bash"][..], &["man"], &["serve", "--help"]] {
        let mut child = site.spawn(arguments);
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the process is ours");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn cargo_accepts_the_printed_settings_unchanged() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let project = warmed(&upstream, &site);
    upstream.stop();
    let larder = site.serve(&[]);
    let output = site.command(&["client", "print"]);
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    assert!(text.contains(larder.url()), "{text}");

    let home = CargoHome::empty();
    fs::create_dir_all(home.path()).expect("the cargo home is writable");
    fs::write(home.path().join("config.toml"), &text).expect("the cargo home is writable");
    home.run_plain(&project, &["fetch", "--locked"])
        .assert_success();
    home.run_plain(&project, &["build", "--locked"])
        .assert_success();
}

#[test]
fn printed_settings_cover_additional_registries() {
    let (public, corp) = (FakeUpstream::start(), FakeUpstream::start());
    public.publish(Crate::new("one", "1.0.0"));
    corp.publish(Crate::new("inner", "1.0.0"));
    let folder = TempDir::new().expect("the temporary folder is writable");
    let config = folder.path().join("larder.toml");
    let text = format!("[registry.corp]\nindex = \"sparse+{}\"\n", corp.url());
    fs::write(&config, text).expect("the temporary folder is writable");
    let config = config.display().to_string();
    let site = site(&public);
    let larder = site.serve(&["-v", "--config", &config]);
    let printed = site.command(&["client", "print", "--config", &config]);
    assert!(printed.status.success(), "{printed:?}");

    // The project names its registry by the registry's own URL, and needs no change.
    let project = Project::empty()
        .dep("one", "1")
        .dep_line("inner = { version = \"1\", registry = \"corp\" }");
    let own = format!("[registries.corp]\nindex = \"sparse+{}\"\n", corp.url());
    project.write(".cargo/config.toml", &own);
    let home = CargoHome::empty();
    fs::create_dir_all(home.path()).expect("the cargo home is writable");
    fs::write(home.path().join("config.toml"), stdout(&printed))
        .expect("the cargo home is writable");
    home.run_plain(&project, &["fetch"]).assert_success();
    assert_eq!(corp.requests_for("/dl/inner"), 1);
    let log = larder.stop();
    assert!(
        log.contains("crate `inner 1.0.0` in registry `corp`"),
        "{log}"
    );
    // The lock file names the registry's own URL, so it works without larder, and `warm` accepts it.
    assert!(project.lock().contains(&corp.url()), "{}", project.lock());
    let folder = project.folder().display().to_string();
    let check = site.command(&["check", "--config", &config, &folder]);
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn shell_that_evaluates_the_rustup_settings_has_its_variables() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let output = site.command(&["client", "print", "rustup"]);
    assert!(output.status.success(), "{output:?}");
    let script = format!("{}\nenv | grep ^RUSTUP_ | sort", stdout(&output));
    let shell = Command::new("sh")
        .env_clear()
        .args(["-c", &script])
        .output()
        .expect("there is a shell");
    let server = larder.url().trim_end_matches('/');
    assert_eq!(
        stdout(&shell),
        format!("RUSTUP_DIST_SERVER={server}\nRUSTUP_UPDATE_ROOT={server}/rustup\n")
    );
}

#[test]
fn client_print_json_is_one_document_for_all_clients() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let text = stdout(&site.command(&["client", "print"]));
    let output = site.command(&["client", "print", "--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("stdout is one document");
    let url = larder.url();
    assert_eq!(printed["address"], url);
    assert_eq!(printed["running"], true);
    assert_eq!(printed["cargo"], text);
    assert_eq!(
        printed["rustup"]["RUSTUP_UPDATE_ROOT"],
        format!("{url}rustup")
    );
    assert_eq!(printed["build"]["CARGO_MIRROR"], url);
    larder.stop();
    let output = site.command(&["client", "print", "build", "--json", "-q"]);
    assert!(stdout(&output).contains("\"running\":false"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn client_print_without_a_daemon_uses_the_configured_address_and_says_so() {
    let upstream = FakeUpstream::start();
    let output = site(&upstream).command(&["client", "print"]);
    assert!(output.status.success());
    assert!(
        stdout(&output).contains("sparse+http://127.0.0.1:1/"),
        "{output:?}"
    );
    assert!(
        stderr(&output).contains("no larder is running now"),
        "{output:?}"
    );
}

#[test]
fn invalid_listen_variable_is_a_usage_error_for_every_command_that_needs_the_daemon() {
    let upstream = FakeUpstream::start();
    let site = site_at(&upstream.url()).variable("LARDER_LISTEN", "here");
    for arguments in [&["status"][..], &["client", "print"]] {
        let output = site.command(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            stderr(&output).starts_with("error: variable LARDER_LISTEN: cannot use `here`: "),
            "{output:?}"
        );
    }
}

#[test]
fn former_names_of_the_upstream_timeout_are_still_read() {
    let upstream = FakeUpstream::start();
    let checks = [
        (site(&upstream), &["status", "--patience", "3s"][..], 0),
        (site(&upstream), &["status", "--patience", "soon"], 2),
        (
            site(&upstream).variable("LARDER_PATIENCE", "3s"),
            &["status"],
            0,
        ),
        (
            site(&upstream).variable("LARDER_PATIENCE", "soon"),
            &["warm"],
            2,
        ),
    ];
    for (site, arguments, code) in checks {
        let output = site.command(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn usage_errors_exit_with_2_and_leave_stdout_empty() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let checks: [&[&str]; 6] = [
        &["warm", "--no-such-flag"],
        &["warm", "--jobs", "0"],
        &["serve", "--max-age", "soon"],
        &["status", "--config", "/nowhere/larder.toml"],
        &["no-such-command"],
        &["status", "-q", "-v"],
    ];
    for arguments in checks {
        let output = site.command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        assert!(
            stderr(&output).starts_with("error: "),
            "{arguments:?}: {output:?}"
        );
        assert_eq!(
            stderr(&output).matches("error: ").count(),
            1,
            "{arguments:?}: {output:?}"
        );
    }
}

#[test]
fn failures_exit_with_1_and_the_reason() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let authority = larder
        .url()
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let taken = site.command(&["serve", "--listen", authority]);
    assert_eq!(taken.status.code(), Some(1), "{taken:?}");
    let other = format!("as process {}; use it, stop it", larder.process_id());
    assert!(stderr(&taken).contains(&other), "{taken:?}");
    assert!(taken.stdout.is_empty(), "{taken:?}");
}

#[test]
fn without_a_terminal_output_has_no_colour_and_stdout_only_the_address() {
    let upstream = FakeUpstream::start();
    for (name, value) in [("TERM", "xterm-256color"), ("NO_COLOR", "1")] {
        let site = site(&upstream).variable(name, value);
        let larder = site.serve(&["-v"]);
        larder.get("/ab/se/absent");
        let log = larder.stop();
        assert!(log.contains("absent") && !log.contains('\u{1b}'), "{log}");
    }
}

#[test]
fn completions_and_manual_go_to_stdout() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    for (arguments, expected) in [
        (&["completions", "bash"][..], "_larder"),
        (&["man"], ".TH \"LARDER\""),
        (&["man", "client", "print"], ".TH \"LARDER-CLIENT-PRINT\""),
    ] {
        let output = site.command(arguments);
        assert!(output.status.success(), "{output:?}");
        assert!(stdout(&output).contains(expected), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}
