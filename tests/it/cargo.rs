//! Real cargo with an empty home, through larder: results, and requests that reach upstream.
//!
//! Outages that begin while cargo runs are in `outage`; the commands are in `warm` and `cli`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, entry_path, index_path};
use tempfile::TempDir;

use crate::fixture::{project_on_left, publish_pair, site, site_at, tls_site, tls_upstream};
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::process::wait_until;
use testkit::store::{crates_io_folder, files, without_place};

/// larder revalidates every entry on every request.
const ALWAYS_STALE: [&str; 2] = ["--max-age", "0s"];
/// larder never revalidates.
const ALWAYS_FRESH: [&str; 2] = ["--max-age", "1h"];

/// A site with the store of `from`, as if it had been filled from the index at `index`: moves the registry's folder.
fn moved(from: Site, index: &str) -> Site {
    let to = site_at(index);
    let before = crates_io_folder(&from);
    let name = before
        .strip_prefix(from.store())
        .expect("it lies in the store");
    fs::rename(from.store(), to.store()).expect("temporary folders are on one file system");
    fs::rename(to.store().join(name), crates_io_folder(&to)).expect("the store is writable");
    // Entries name their place, and those of older releases do not.
    for (path, record) in files(&crates_io_folder(&to)) {
        fs::write(path, without_place(&record)).expect("the store is writable");
    }
    to
}

/// Runs cargo in an empty home and expects success.
#[track_caller]
fn succeed(larder: &Larder<'_>, project: &Project, arguments: &[&str]) {
    CargoHome::empty()
        .run(project, arguments, larder.url())
        .assert_success();
}

fn has(project: &Project, name: &str, version: &str) -> bool {
    project
        .lock()
        .contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n"))
}

#[test]
fn cargo_builds_cold_then_from_the_store_then_stale_without_upstream() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_STALE);

    succeed(&larder, &project_on_left(), &["build"]);
    for (name, version) in [("left", "1.0.0"), ("right", "1.0.0")] {
        assert_eq!(upstream.requests_for(&crate_path(name, version)), 1);
    }

    upstream.forget_requests();
    succeed(&larder, &project_on_left(), &["build"]);
    assert_eq!(upstream.requests_for("/dl/"), 0);
    for name in ["left", "right"] {
        let asked: Vec<_> = upstream
            .requests()
            .into_iter()
            .filter(|request| request.path == entry_path(name))
            .collect();
        assert!(!asked.is_empty(), "{name} is stale and was not asked for");
        for request in asked {
            assert!(request.header("if-none-match").is_some(), "{request:?}");
        }
    }

    upstream.stop();
    succeed(&larder, &project_on_left(), &["build"]);
}

#[test]
fn fresh_entries_and_stored_crates_send_no_request_upstream() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_FRESH);
    succeed(&larder, &project_on_left(), &["fetch"]);
    upstream.forget_requests();
    succeed(&larder, &project_on_left(), &["fetch"]);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn cargo_builds_through_an_offline_larder_that_opens_no_connection() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let first = site(&upstream);
    let larder = first.serve(&[]);
    succeed(&larder, &project_on_left(), &["fetch"]);
    larder.stop();
    let connections = upstream.connections();

    // No resolver knows this name. The stored download address is the fake's.
    let second = moved(first, "http://upstream.example/index/");
    let larder = second.serve(&["--offline", "--max-age", "0s"]);
    succeed(&larder, &project_on_left(), &["build"]);
    let missing = larder.get(&format!("/{}", index_path("absent")));
    assert_eq!(missing.status, 424, "{}", missing.text());
    let log = larder.stop();
    assert_eq!(upstream.connections(), connections);
    assert!(!log.contains("out of reach"), "{log}");
}

/// See docs/client-behaviour.md C-18, C-19.
#[test]
fn twenty_missing_entries_are_requested_concurrently_over_few_connections() {
    let (upstream, folder) = tls_upstream();
    let mut project = Project::empty();
    for number in 0..24 {
        let name = format!("many-{number:02}");
        upstream.publish(Crate::new(&name, "1.0.0"));
        project = project.dep(&name, "1");
    }
    let site = tls_site(&upstream, &folder);
    let larder = site.serve(&[]);

    let gate = upstream.gate("/index/ma/ny/");
    std::thread::scope(|scope| {
        let cargo = scope.spawn(|| succeed(&larder, &project, &["generate-lockfile"]));
        gate.wait_for(20);
        gate.open();
        cargo.join().expect("cargo resolves");
    });
    assert!(upstream.peak_in_flight() >= 20);
    assert!(upstream.connections() <= 2, "{}", upstream.connections());
    assert!(has(&project, "many-23", "1.0.0"));
}

/// See docs/client-behaviour.md C-19, H-11.
#[test]
fn cargo_continues_over_http1_when_the_upgrade_is_disabled() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&["--h2c", "off"]);
    let mut connection = larder.http().connect().expect("larder accepts connections");
    let upgrade = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ];
    for name in ["left", "right"] {
        let path = format!("/{}", index_path(name));
        let reply = connection.get(&path, &upgrade).expect("there is an answer");
        assert_eq!(reply.status, 200);
        assert!(reply.complete);
        assert_eq!(reply.body, upstream.index_body(name));
    }
    succeed(&larder, &project_on_left(), &["build"]);
}

#[test]
fn cargo_search_works_through_a_cold_store() {
    let upstream = FakeUpstream::start();
    let found = serde_json::json!({
        "crates": [{"name": "left", "max_version": "1.0.0", "description": "found by search"}],
        "meta": {"total": 1},
    });
    upstream.serve_static("/api/api/v1/crates", found.to_string(), "application/json");
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let search = ["search", "left", "--registry", "larder"];
    let run = CargoHome::empty().run(&Project::empty(), &search, larder.url());
    run.assert_success();
    assert!(run.stdout.contains("found by search"), "{run:?}");
}

/// See docs/client-behaviour.md C-12, C-13.
#[test]
fn offline_miss_fails_cargo_at_once_and_names_the_remedy() {
    let site = Site::new(
        env!("CARGO_BIN_EXE_larder"),
        "http://upstream.example/index/",
    );
    let larder = site.serve(&["--offline"]);
    let runs = [(); 3].map(|()| {
        let project = Project::empty().dep("absent", "1");
        let run = CargoHome::empty().run(&project, &["fetch"], larder.url());
        run.assert_failure()
            .assert_says("run `larder warm` in the project while online");
        assert!(!run.stderr.contains("spurious"), "{}", run.stderr);
        run.took
    });
    // The quickest of three runs, to tolerate a busy machine.
    let quickest = runs.into_iter().min().unwrap_or_default();
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    let log = larder.stop();
    let warned = log.matches("cannot serve index entry of `absent`").count();
    assert_eq!(
        warned, 2,
        "the first warning, and the number of others: {log}"
    );
    assert!(
        log.contains("repeated=2 "),
        "one request for each run: {log}"
    );
}

/// See docs/client-behaviour.md C-12, C-13.
#[test]
fn miss_during_an_outage_fails_without_cargo_retrying_for_11_s() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("listed", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_FRESH);
    let listed = Project::empty().dep("listed", "1");
    succeed(&larder, &listed, &["generate-lockfile"]);
    upstream.stop();
    let unknown = Project::empty().dep("unknown", "1");
    std::thread::scope(|scope| {
        // One project's index entry and the other's crate are not stored.
        for project in [&unknown, &listed] {
            let url = larder.url();
            scope.spawn(move || {
                let run = CargoHome::empty().run(project, &["fetch"], url);
                run.assert_failure().assert_says("is out of reach");
                assert!(run.took < Duration::from_secs(7), "{:?}", run.took);
            });
        }
    });
}

/// See docs/client-behaviour.md C-12, C-13.
#[test]
fn cargo_does_not_repeat_the_retries_of_larder() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.fault(&entry_path("left"), Fault::Status(500));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let project = Project::empty().dep("left", "1");
    let run = CargoHome::empty().run(&project, &["fetch"], larder.url());
    run.assert_failure().assert_says("tried 4 times");
    assert!(!run.stderr.contains("spurious"), "{}", run.stderr);
    assert_eq!(upstream.requests_for(&entry_path("left")), 4);
}

/// See docs/client-behaviour.md C-13, C-32.
#[test]
fn crate_with_a_wrong_checksum_is_downloaded_twice_and_not_eight_times() {
    // A small crate is verified before the answer begins, a large one while cargo reads it.
    for padding in [0, 300_000] {
        let upstream = FakeUpstream::start();
        let left = Crate::new("left", "1.0.0").padding(padding);
        upstream.publish(left.clone());
        upstream.publish_archive(&left.file("src/lib.rs", "malice"));
        if padding > 0 {
            let bytes_per_second = 600_000;
            upstream.fault("/dl/left", Fault::Drip { bytes_per_second });
        }
        let site = site(&upstream);
        let larder = site.serve(&[]);
        let project = Project::empty().dep("left", "1");
        let run = CargoHome::empty().run(&project, &["fetch"], larder.url());
        run.assert_failure().assert_says("sha256 is");
        assert_eq!(upstream.requests_for("/dl/left"), 2, "{padding}");
    }
}

/// See docs/client-behaviour.md C-13.
#[test]
fn cargo_prints_upstreams_own_words_and_request_id() {
    for status in [403, 500] {
        let upstream = FakeUpstream::start();
        upstream.publish(Crate::new("left", "1.0.0"));
        let fault = Fault::StatusWithHeader(status, "x-request-id", "request-5".to_owned());
        upstream.fault(&entry_path("left"), fault);
        let site = site(&upstream);
        let larder = site.serve(&[]);
        let project = Project::empty().dep("left", "1");
        let run = CargoHome::empty().run(&project, &["fetch"], larder.url());
        run.assert_failure()
            .assert_says(&format!("the fake upstream was told to say {status}"))
            .assert_says("x-request-id: request-5");
    }
}

/// See docs/client-behaviour.md C-12, C-13.
#[test]
fn miss_fails_cargo_at_once_after_ten_seconds_of_an_outage() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_FRESH);
    upstream.stop();
    let missing = format!("/{}", index_path("absent"));
    // The first request finds out about the outage.
    larder.get(&missing);
    assert_eq!(larder.get(&missing).status, 503);
    wait_until("the outage counts as lasting", || {
        std::thread::sleep(Duration::from_millis(200));
        larder.get(&missing).status == 424
    });
    let runs = [(); 3].map(|()| {
        let project = Project::empty().dep("absent", "1");
        let run = CargoHome::empty().run(&project, &["fetch"], larder.url());
        run.assert_failure().assert_says("is out of reach since");
        assert!(!run.stderr.contains("spurious"), "{}", run.stderr);
        run.took
    });
    // The quickest of three runs, to tolerate a busy machine.
    let quickest = runs.into_iter().min().unwrap_or_default();
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
}

/// See docs/client-behaviour.md C-46.
#[test]
fn offline_config_json_has_no_api_so_that_cargo_does_not_ask_upstream() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    succeed(&larder, &project_on_left(), &["fetch"]);
    let config = larder.get("/config.json").text();
    assert!(config.contains("\"api\""), "{config}");
    let larder = larder.restart(&["--offline"]);
    let config = larder.get("/config.json").text();
    assert!(!config.contains("\"api\""), "{config}");
    upstream.forget_requests();
    let info = ["info", "left", "--registry", "larder"];
    let run = CargoHome::empty().run(&project_on_left(), &info, larder.url());
    run.assert_success();
    assert_eq!(upstream.requests().len(), 0);
}

/// See docs/client-behaviour.md C-27.
#[test]
fn entry_with_only_yanked_versions_passes_unchanged_and_its_lock_builds() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let project = project_on_left();
    {
        let site = site(&upstream);
        succeed(&site.serve(&[]), &project, &["generate-lockfile"]);
    }
    upstream.yank("left", "1.0.0");

    let site = site(&upstream);
    let larder = site.serve(&[]);
    succeed(&larder, &project, &["build", "--locked"]);
    let entry = larder.get(&format!("/{}", index_path("left")));
    assert_eq!(entry.body, upstream.index_body("left"));
    let fresh = CargoHome::empty().run(&project_on_left(), &["fetch"], larder.url());
    fresh.assert_failure().assert_says("yanked");
}

/// See docs/client-behaviour.md C-29.
#[test]
fn new_entry_is_not_served_beside_an_older_entry_of_its_dependency() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("base", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_FRESH);
    succeed(&larder, &Project::empty().dep("base", "1"), &["fetch"]);

    upstream.publish(Crate::new("base", "1.1.0"));
    upstream.publish(Crate::new("above", "1.0.0").dep("base", "^1.1"));
    let project = Project::empty().dep("above", "1");
    succeed(&larder, &project, &["fetch"]);
    assert!(has(&project, "base", "1.1.0"));
}

/// See docs/client-behaviour.md C-29.
#[test]
fn refresh_by_warm_replaces_fresh_entries_of_a_running_daemon() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("base", "1.0.0"));
    upstream.publish(Crate::new("above", "1.0.0").dep("base", "^1.0"));
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_FRESH);
    let old = Project::empty().dep("above", "1");
    succeed(&larder, &old, &["fetch"]);

    upstream.publish(Crate::new("base", "1.1.0"));
    upstream.publish(Crate::new("above", "1.1.0").dep("base", "^1.1"));
    // The project names only `above`; cargo reaches the new `base` through it.
    let only_above = Project::empty();
    only_above.write(
        "Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"above\"\nversion = \"1.1.0\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\n",
    );
    let folder = only_above.folder().display().to_string();
    let warmed = site.command(&["warm", "--refresh", &folder]);
    // The lock file names a crate that the manifest does not, so the project is not ready.
    assert_eq!(warmed.status.code(), Some(1), "{warmed:?}");

    let project = Project::empty().dep("above", "1.1");
    succeed(&larder, &project, &["fetch"]);
    assert!(has(&project, "base", "1.1.0"));
}

/// See docs/client-behaviour.md C-15, H-16.
#[test]
fn stopping_larder_finishes_the_requests_of_a_running_cargo() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("last", "1.0.0").padding(300_000));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let http = larder.http();
    let url = larder.url().to_owned();
    let gate = upstream.gate("/dl/");
    std::thread::scope(|scope| {
        let cargo = scope.spawn(|| {
            let project = Project::empty().dep("last", "1");
            CargoHome::empty().run(&project, &["fetch"], &url)
        });
        gate.wait_for(1);
        larder.signal("TERM");
        wait_until("new connections are refused", || http.connect().is_err());
        gate.open();
        cargo.join().expect("cargo runs").assert_success();
    });
    // A second signal would end the process at once.
    let (status, log) = larder.wait_for_exit();
    assert!(status.success(), "larder ended with {status}:\n{log}");
    assert_eq!(upstream.requests_for("/dl/"), 1);
}

/// Writes a settings file with a second registry.
fn settings_with(folder: &Path, name: &str, index: &str) -> PathBuf {
    let path = folder.join("larder.toml");
    let text = format!("[registry.{name}]\nindex = \"sparse+{index}\"\n");
    fs::write(&path, text).expect("the temporary folder is writable");
    path
}

/// See docs/client-behaviour.md C-34.
#[test]
fn same_crate_from_two_registries_builds_in_one_project() {
    let (public, corp) = (FakeUpstream::start(), FakeUpstream::start());
    public.publish(Crate::new("left", "1.0.0").file("src/lib.rs", "pub fn public() {}"));
    corp.publish(Crate::new("left", "1.0.0").file("src/lib.rs", "pub fn corp() {}"));
    let folder = TempDir::new().expect("the temporary folder is writable");
    let settings = settings_with(folder.path(), "corp", &corp.url());
    let site = site(&public);
    let larder = site.serve(&["--config", &settings.display().to_string()]);

    let project = Project::empty()
        .dep("left", "1")
        .dep_line("corp-left = { package = \"left\", version = \"1\", registry = \"corp\" }");
    project.write(
        "src/lib.rs",
        "pub fn both() { left::public(); corp_left::corp() }",
    );
    let corp_index = format!(
        "registries.corp.index=\"sparse+{}registry/corp/\"",
        larder.url()
    );
    let run = CargoHome::empty().run(&project, &["--config", &corp_index, "build"], larder.url());
    run.assert_success();

    let path = index_path("left");
    assert_eq!(
        larder.get(&format!("/{path}")).body,
        public.index_body("left")
    );
    assert_eq!(
        larder.get(&format!("/registry/corp/{path}")).body,
        corp.index_body("left")
    );
    for (prefix, upstream) in [("", &public), ("/registry/corp", &corp)] {
        assert_eq!(upstream.requests_for("/dl/"), 1);
        let reply = larder.get(&format!("{prefix}/crates/left/1.0.0/download"));
        assert_eq!(reply.body, upstream.body("left", "1.0.0"));
    }
}

/// See docs/client-behaviour.md C-23, C-24.
#[test]
fn warmed_lock_is_fetched_for_all_platforms_without_upstream() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("winonly", "1.0.0"));
    upstream.publish(
        Crate::new("left", "1.0.0")
            .target_dep("cfg(windows)", "winonly", "^1")
            .padding(100_000),
    );
    let project = Project::empty().dep("left", "1");
    {
        let site = site(&upstream);
        succeed(&site.serve(&[]), &project, &["generate-lockfile"]);
    }
    let lock = project.lock();
    let site = site(&upstream);
    let folder = project.folder().display().to_string();
    let warmed = site.command(&["warm", &folder]);
    assert!(warmed.status.success(), "{warmed:?}");
    upstream.stop();

    for arguments in [&[][..], &["--offline"]] {
        let larder = site.serve(arguments);
        let home = CargoHome::empty();
        home.run(&project, &["fetch", "--locked"], larder.url())
            .assert_success();
        assert!(is_unpacked(&home, "winonly-1.0.0"));
    }
    assert_eq!(project.lock(), lock);
}

/// True if cargo has unpacked this crate in its home.
fn is_unpacked(home: &CargoHome, folder: &str) -> bool {
    let sources = fs::read_dir(home.path().join("registry/src"));
    sources
        .into_iter()
        .flatten()
        .flatten()
        .any(|source| source.path().join(folder).exists())
}

/// See docs/client-behaviour.md C-41, H-15.
#[test]
fn warm_bypasses_a_proxy_from_the_environment_for_its_own_larder() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    // `no_proxy` covers only upstream, under a name that differs from larder's own address.
    let base = upstream.base_url().replace("127.0.0.1", "localhost");
    upstream.set_config(format!("{{\"dl\":\"{base}dl\"}}"));
    let mut site = site_at(&format!("{base}index/"))
        .variable("no_proxy", "localhost")
        .variable("CARGO", env!("CARGO"));
    for name in ["http_proxy", "all_proxy"] {
        site = site.variable(name, "http://127.0.0.1:1");
    }
    // Without a lock file, `warm` runs cargo through a larder of its own.
    let project = project_on_left();
    let folder = project.folder().display().to_string();
    let warmed = site.command(&["warm", &folder]);
    assert!(warmed.status.success(), "{warmed:?}");

    let larder = site.serve(&["--offline"]);
    let status = site.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(status.contains(larder.url()), "{status}");
    // A client whose `no_proxy` has loopback, as the documentation says, also works.
    let home = CargoHome::empty()
        .variable("http_proxy", "http://127.0.0.1:1")
        .variable("no_proxy", "127.0.0.1");
    home.run(&project, &["fetch"], larder.url())
        .assert_success();
}

/// See docs/client-behaviour.md C-42.
#[test]
fn index_url_with_localhost_gives_download_urls_with_localhost() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let url = larder.url().replace("127.0.0.1", "localhost");
    CargoHome::empty()
        .run(&project_on_left(), &["fetch"], &url)
        .assert_success();
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let request =
        format!("GET /config.json HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    let answer = larder.http().raw(request.as_bytes());
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains(&format!("\"dl\":\"{url}crates/")),
        "{answer}"
    );
}

/// See docs/client-behaviour.md C-43.
#[test]
fn slow_fetch_of_one_project_does_not_delay_another() {
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    upstream.publish(Crate::new("slow", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let gate = upstream.gate(&crate_path("slow", "1.0.0"));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| succeed(&larder, &Project::empty().dep("slow", "1"), &["fetch"]));
        gate.wait_for(1);
        succeed(&larder, &project_on_left(), &["fetch"]);
        assert!(!slow.is_finished());
        gate.open();
        slow.join().expect("the slow one ends as well");
    });
}

/// Runs `check` with an offline larder, started with `arguments`: `pick 1.0.0` is stored, `pick 1.1.0` is only listed.
fn with_unstored_newest(check: impl FnOnce(&Larder<'_>), arguments: &[&str]) {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("pick", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_STALE);
    succeed(&larder, &Project::empty().dep("pick", "1"), &["fetch"]);
    upstream.publish(Crate::new("pick", "1.1.0"));
    let entry = larder.get(&format!("/{}", index_path("pick")));
    assert_eq!(entry.body, upstream.index_body("pick"));
    upstream.stop();
    check(&larder.restart(arguments));
}

#[test]
fn offline_cargo_add_update_and_resolve_choose_stored_versions() {
    with_unstored_newest(
        |larder| {
            let fresh = Project::empty().dep("pick", "1");
            succeed(larder, &fresh, &["generate-lockfile"]);
            assert!(has(&fresh, "pick", "1.0.0"), "{}", fresh.lock());
            succeed(larder, &fresh, &["update"]);
            assert!(has(&fresh, "pick", "1.0.0"), "{}", fresh.lock());
            succeed(larder, &fresh, &["build", "--locked"]);

            let project = Project::empty();
            succeed(larder, &project, &["add", "pick"]);
            let manifest = fs::read_to_string(project.folder().join("Cargo.toml"))
                .expect("the manifest is there");
            assert!(manifest.contains("pick = \"1.0.0\""), "{manifest}");
            succeed(larder, &project, &["build"]);
        },
        &["--offline"],
    );
}

#[test]
fn full_index_disables_the_offline_view() {
    with_unstored_newest(
        |larder| {
            let fresh = Project::empty().dep("pick", "1");
            succeed(larder, &fresh, &["generate-lockfile"]);
            assert!(has(&fresh, "pick", "1.1.0"), "{}", fresh.lock());
            let run = CargoHome::empty().run(&fresh, &["fetch", "--locked"], larder.url());
            run.assert_failure().assert_says("larder warm");
        },
        &["--offline", "--full-index"],
    );
}

#[test]
fn offline_lock_with_a_missing_crate_builds_unless_the_platform_needs_it() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("elsewhere", "1.0.0"));
    upstream.publish(Crate::new("needed", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&ALWAYS_STALE);
    let target_dep = "\n[target.'cfg(windows)'.dependencies]\nelsewhere = \"1\"";
    let older = Project::empty().dep("needed", "1").dep_line(target_dep);
    // One version of each crate is stored, so that the offline view hides another.
    succeed(&larder, &older, &["fetch"]);
    upstream.publish(Crate::new("elsewhere", "1.1.0"));
    upstream.publish(Crate::new("needed", "1.1.0"));
    let elsewhere = Project::empty()
        .dep("needed", "=1.0.0")
        .dep_line(target_dep);
    let needed = Project::empty().dep("needed", "1").dep_line(target_dep);
    for project in [&elsewhere, &needed] {
        succeed(&larder, project, &["generate-lockfile"]);
        assert!(has(project, "elsewhere", "1.1.0"));
    }
    upstream.stop();

    let larder = larder.restart(&["--offline"]);
    succeed(&larder, &elsewhere, &["build", "--locked"]);
    let all = CargoHome::empty().run(&elsewhere, &["fetch", "--locked"], larder.url());
    all.assert_failure()
        .assert_says("crate `elsewhere 1.1.0`")
        .assert_says("larder warm");
    let run = CargoHome::empty().run(&needed, &["build", "--locked"], larder.url());
    run.assert_failure()
        .assert_says("crate `needed 1.1.0`")
        .assert_says("run `larder warm` in the project while online");
    assert!(!run.stderr.contains("spurious"), "{}", run.stderr);
}
