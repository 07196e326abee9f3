//! The daemon's `max-size`, and what keeps files: pins, grace times, `forget` and `status --why`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path};
use serde_json::Value;

use crate::fixture::site;
use crate::gc::{fetch, gc, publish, removed};
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::lock_file::locked_project;
use testkit::paths::download;
use testkit::process::wait_until;
use testkit::store::{blob_path, blobs, entry_file, index_folder};

#[track_caller]
pub(crate) fn warm(site: &Site, project: &Path) {
    let warmed = site.command(&["warm", &project.display().to_string()]);
    assert!(warmed.status.success(), "{warmed:?}");
}

fn is_stored(site: &Site, upstream: &FakeUpstream, name: &str) -> bool {
    blob_path(site, &upstream.checksum(name, "1.0.0")).exists()
}

fn status(site: &Site) -> String {
    let output = site.command(&["status"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The space of all files below the store, in lengths or blocks, whichever is larger. A file that only reserves space
/// takes none.
pub(crate) fn disk_use(store: &Path) -> u64 {
    let files = walkdir::WalkDir::new(store).into_iter().flatten();
    let files = files.filter(|file| file.file_name() != "reserved");
    let sizes = files.filter_map(|file| file.metadata().ok());
    let sizes = sizes.filter(|found| found.is_file());
    sizes
        .map(|found| found.len().max(found.blocks() * 512))
        .sum()
}

const CRATES: usize = 240;

fn name(number: usize) -> String {
    format!("load-{number:03}")
}

/// 240 crates of 60 kB.
fn load() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    for number in 0..CRATES {
        upstream.publish(Crate::new(&name(number), "1.0.0").padding(60_000));
    }
    upstream
}

/// Gets all crates from these daemons by several clients each, and returns the largest use of the disk meanwhile.
fn largest_use(site: &Site, upstream: &FakeUpstream, daemons: &[Larder<'_>]) -> u64 {
    let is_done = AtomicBool::new(false);
    let largest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                largest.fetch_max(disk_use(site.store()), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let clients: Vec<_> = (0..2 * daemons.len())
            .map(|client| {
                let http = daemons[client % daemons.len()].http();
                scope.spawn(move || {
                    for number in (client..CRATES).step_by(2 * daemons.len()) {
                        let name = name(number);
                        let reply = http.get(&download(&name, "1.0.0"));
                        assert!(reply.complete && reply.body == upstream.body(&name, "1.0.0"));
                        // Clients that pause let the daemon write.
                        std::thread::sleep(Duration::from_millis(10));
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        for larder in daemons {
            larder.wait_until_idle();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    largest.into_inner()
}

const MAX: u64 = 6_000_000;

#[test]
fn a_daemon_under_load_stays_within_five_percent_of_its_limit() {
    let upstream = load();
    let site = site(&upstream);
    let larder = site.serve(&["--max-size", "6MB"]);
    let daemons = [larder];
    let largest = largest_use(&site, &upstream, &daemons);
    assert!(largest > MAX / 2, "{largest}");
    assert!(largest < MAX * 105 / 100, "{largest}");
    let [larder] = daemons;
    let eviction = larder.status()["eviction"].clone();
    assert!(eviction["files"].as_u64().unwrap() > 50, "{eviction}");
    assert_eq!(eviction["max_size"], MAX);
    assert!(eviction["last_pass"].is_string(), "{eviction}");
    let metrics = larder.get("/-/metrics").text();
    for metric in [
        "\nlarder_store_max_bytes 6000000\n",
        "\nlarder_store_bytes ",
        "\nlarder_evicted_files_total ",
        "\nlarder_evicted_bytes_total ",
    ] {
        assert!(metrics.contains(metric), "{metric}: {metrics}");
    }
    let text = status(&site);
    assert!(
        text.contains(" of 5.72 MiB\n") && text.contains("eviction  removed"),
        "{text}"
    );
    let log = larder.stop();
    assert!(log.contains("removed unused files"), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("damaged"), "{log}");
}

/// A command that has not ended keeps what it stored, since it registers its pins at its end.
#[test]
fn a_command_that_runs_for_long_does_not_lift_the_daemons_limit() {
    let upstream = load();
    publish(&upstream, &["early", "late"]);
    let site = site(&upstream);
    let project = locked_project(&upstream, &["early", "late"]);
    let gate = upstream.gate(&crate_path("late", "1.0.0"));
    let warm = site.spawn(&["warm", &project.path().display().to_string()]);
    gate.wait_for(1);
    wait_until("the command has stored a crate", || {
        is_stored(&site, &upstream, "early")
    });
    let daemons = [site.serve(&["--max-size", "6MB"])];
    let largest = largest_use(&site, &upstream, &daemons);
    assert!(largest < MAX * 105 / 100, "{largest}");
    gate.open();
    let warmed = warm.wait_with_output().unwrap();
    assert!(warmed.status.success(), "{warmed:?}");
    assert!(is_stored(&site, &upstream, "early") && is_stored(&site, &upstream, "late"));
}

#[test]
fn a_daemon_with_a_limit_removes_what_killed_commands_left_before_it_evicts() {
    let upstream = load();
    upstream.publish(Crate::new("large", "1.0.0").padding(3_000_000));
    upstream.fault(
        &crate_path("large", "1.0.0"),
        Fault::StallBodyAfter(2_500_000),
    );
    let site = site(&upstream);
    let project = locked_project(&upstream, &["large"]);
    let daemons = [site.serve(&["--max-size", "6MB"])];
    let mut warm = site.spawn(&["warm", &project.path().display().to_string()]);
    wait_until("the command has part of a crate", || {
        disk_use(&site.store().join("v1/staging")) > 2_000_000
    });
    warm.kill().unwrap();
    warm.wait().unwrap();
    let largest = largest_use(&site, &upstream, &daemons);
    assert!(largest < MAX * 105 / 100, "{largest}");
    assert!(disk_use(&site.store().join("v1/staging")) < 1_000_000);
    assert!(disk_use(site.store()) > 4_000_000, "crates have the space");
}

#[test]
fn two_daemons_on_one_store_stay_within_the_limit_together() {
    let upstream = load();
    let site = site(&upstream);
    let daemons = [1, 2].map(|_| site.serve(&["--max-size", "6MB"]));
    let largest = largest_use(&site, &upstream, &daemons);
    assert!(largest > MAX / 2, "{largest}");
    assert!(largest < MAX * 105 / 100, "{largest}");
    for larder in daemons {
        let log = larder.stop();
        assert!(!log.contains("ERROR") && !log.contains("damaged"), "{log}");
    }
    let verified = site.command(&["verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn pins_that_exceed_the_limit_stay_and_log_status_and_metrics_say_so() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two", "other"]);
    let site = site(&upstream).variable("LARDER_MAX_SIZE", "150kB");
    let project = locked_project(&upstream, &["one", "two"]);
    warm(&site, project.path());
    let larder = site.serve(&[]);
    assert!(larder.get(&download("other", "1.0.0")).complete);
    larder.wait_until_idle();
    wait_until("the other crate is removed", || {
        !is_stored(&site, &upstream, "other")
    });
    larder.wait_for_log("warmed projects and toolchains alone need more than max-size");
    assert!(is_stored(&site, &upstream, "one") && is_stored(&site, &upstream, "two"));
    wait_until("the status says so", || {
        larder.status()["eviction"]["pins_exceed"].is_u64()
    });
    let text = status(&site);
    let lines = text
        .matches("warmed projects and toolchains alone take")
        .count();
    assert_eq!(lines, 1, "{text}");
    let passes = || larder.status()["eviction"]["passes"].as_u64().unwrap();
    let before = passes();
    wait_until("another pass ended", || passes() > before);
    let log = larder.stop();
    assert_eq!(
        log.matches("alone need more than max-size").count(),
        1,
        "{log}"
    );
}

/// Crates that gc removes, and the number of times that it is killed.
const GONE: usize = 120;
const KILLS: u32 = 8;

#[test]
fn sigkill_during_gc_leaves_a_store_without_damage_leftovers_or_empty_promises() {
    let upstream = FakeUpstream::start();
    let names: Vec<_> = (0..GONE)
        .map(|number| format!("gone-{number:03}"))
        .collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0").padding(3_000));
    }
    publish(&upstream, &["pinned"]);
    let site = site(&upstream);
    let project = locked_project(&upstream, &["pinned"]);
    warm(&site, project.path());
    let first = blob_path(&site, &upstream.checksum(&names[0], "1.0.0"));
    let mut interrupted = 0;
    for round in 0..KILLS {
        let larder = site.serve(&[]);
        for (number, name) in names.iter().enumerate() {
            assert!(larder.get(&download(name, "1.0.0")).complete);
            if number == 0 {
                larder.wait_until_idle();
            }
        }
        larder.wait_until_idle();
        larder.stop();
        let mut child = site.spawn(&["gc", "--max-size", "1B"]);
        while first.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(400) * round);
        let _ = child.kill();
        let _ = child.wait();
        let left = blobs(&site).len();
        interrupted += usize::from(left > 1);
        for name in &names {
            let promises = entry_file(&site, name).exists() && !is_stored(&site, &upstream, name);
            assert!(!promises, "round {round}: {name}");
        }
        let verified = site.command(&["verify"]);
        assert!(verified.status.success(), "round {round}: {verified:?}");
        let checked = site.command(&["check", &project.path().display().to_string()]);
        assert!(checked.status.success(), "round {round}: {checked:?}");
    }
    let larder = site.serve(&["--offline"]);
    let staging = fs::read_dir(site.store().join("v1/staging")).unwrap();
    assert_eq!(staging.count(), 1, "only the living process stages");
    larder.stop();
    let report = gc(&site, &["--max-size", "1B"]);
    assert_eq!(blobs(&site).len(), 1, "{report}");
    let entries = walkdir::WalkDir::new(index_folder(&site))
        .into_iter()
        .flatten();
    let entries = entries.filter(|found| found.file_type().is_file()).count();
    assert_eq!(entries, 1, "only the pinned crate's entry is left");
    assert!(interrupted > 0, "every kill came too early or too late");
}

#[test]
fn after_gc_an_offline_resolve_chooses_a_version_that_is_stored() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(100_000));
    upstream.publish(Crate::new("left", "1.1.0").padding(100_000));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for version in ["1.1.0", "1.0.0"] {
        assert!(larder.get(&download("left", version)).complete);
        larder.wait_until_idle();
    }
    let size = gc(&site, &["--dry-run"])["size_before"].as_u64().unwrap();
    let report = gc(&site, &["--max-size", &format!("{}B", size - 1)]);
    assert_eq!(removed(&report), ["crate `left 1.1.0`"]);
    let larder = larder.restart(&["--offline"]);
    let project = Project::empty().dep("left", "1");
    let fetch = CargoHome::empty().run(&project, &["fetch"], larder.url());
    fetch.assert_success();
    assert!(
        project.lock().contains("version = \"1.0.0\""),
        "{}",
        project.lock()
    );
}

#[test]
fn a_project_without_lock_file_is_not_gone_as_long_as_its_manifest_is_there() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one"]);
    let cargo = Path::new(env!("CARGO"));
    let path = cargo.parent().unwrap().display().to_string();
    let site = site(&upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &path);
    let folder = locked_project(&upstream, &["one"]);
    let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\n[dependencies]\none = \"1\"\n";
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir_all(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), "").unwrap();
    fs::remove_file(folder.path().join("Cargo.lock")).unwrap();
    warm(&site, folder.path());
    let gc = |flags: &[&str]| gc(&site, &[flags, &["--max-size", "1B"]].concat());
    let report = gc(&["--forget-after", "0s"]);
    assert_eq!(report["gone"], serde_json::json!([]), "{report:#}");
    assert!(removed(&report).is_empty(), "{report:#}");
    assert!(!status(&site).contains("is gone"));
    fs::remove_file(folder.path().join("Cargo.toml")).unwrap();
    assert!(!removed(&gc(&["--forget-after", "0s"])).is_empty());
}

#[test]
fn a_project_that_is_gone_keeps_its_files_for_a_grace_time_and_status_says_so() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one"]);
    let site = site(&upstream);
    let folder = locked_project(&upstream, &["one"]);
    warm(&site, folder.path());
    let lock = folder.path().join("Cargo.lock");
    let text = fs::read(&lock).unwrap();
    fs::remove_file(&lock).unwrap();
    let said = status(&site);
    assert!(
        said.contains("Cargo.lock  (1 package, its file is gone; its files are still kept)"),
        "{said}"
    );
    assert!(removed(&gc(&site, &["--max-size", "1B"])).is_empty());
    let said = status(&site);
    assert!(
        said.contains("Cargo.lock  (1 package, its file is gone; its files are kept until 2"),
        "{said}"
    );
    // It comes back: the time begins anew.
    fs::write(&lock, text).unwrap();
    assert_eq!(gc(&site, &[])["gone"], serde_json::json!([]));
    assert!(!status(&site).contains("is gone"));
    fs::remove_file(&lock).unwrap();
    assert!(removed(&gc(&site, &["--max-size", "1B"])).is_empty());
    // As if that had been noted two hours ago.
    let noted = site.store().join("v1/gone.json");
    let mut gone: BTreeMap<String, u64> =
        serde_json::from_slice(&fs::read(&noted).unwrap()).unwrap();
    *gone.get_mut(lock.to_str().unwrap()).unwrap() -= 2 * 3600;
    fs::write(&noted, serde_json::to_vec(&gone).unwrap()).unwrap();
    assert!(
        removed(&gc(
            &site,
            &["--max-size", "1B", "--forget-after", "3h", "--dry-run"]
        ))
        .is_empty()
    );
    let dry = gc(
        &site,
        &["--max-size", "1B", "--forget-after", "1h", "--dry-run"],
    );
    assert_eq!(removed(&dry), ["index entry of `one`", "crate `one 1.0.0`"]);
    let report = gc(&site, &["--max-size", "1B", "--forget-after", "1h"]);
    assert_eq!(
        report["forgotten"],
        serde_json::json!([lock.display().to_string()])
    );
    assert_eq!(removed(&report), removed(&dry));
    assert!(status(&site).contains("projects  none yet; "));
}

/// The output of `larder status --why`.
fn why(site: &Site, name: &str, version: &str) -> (Option<i32>, String) {
    let output = site.command(&["status", "--why", name, version]);
    let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
    let text = stdout.unwrap() + &stderr.unwrap();
    (output.status.code(), text)
}

#[test]
fn status_why_names_the_projects_that_need_a_crate_its_use_and_size_and_what_gc_would_do() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two"]);
    let site = site(&upstream);
    let projects = [1, 2].map(|_| locked_project(&upstream, &["one"]));
    for project in &projects {
        warm(&site, project.path());
    }
    fetch(&site, &["two"]);
    let (code, text) = why(&site, "one", "1.0.0");
    assert_eq!(code, Some(0), "{text}");
    for project in &projects {
        let owner = project.path().join("Cargo.lock").display().to_string();
        assert!(text.contains(&format!("needed by {owner}")), "{text}");
    }
    assert!(text.starts_with("crate `one 1.0.0`  (1"), "{text}");
    assert!(
        text.contains("KiB, last used 20") && text.contains("gc` would leave it"),
        "{text}"
    );
    let (_, text) = why(&site, "two", "1.0.0");
    assert!(
        text.contains("no warmed project or toolchain needs it"),
        "{text}"
    );
    assert!(text.contains("gc` would leave it"), "{text}");
    let output = site.command(&["status", "--why", "two", "1.0.0", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["files"][0]["pinned_by"], serde_json::json!([]));
    assert_eq!(document["files"][0]["gc_would_remove"], false);
    let site = site.variable("LARDER_MAX_SIZE", "1B");
    let (_, text) = why(&site, "two", "1.0.0");
    assert!(text.contains("`larder gc` would remove it now"), "{text}");
    let (_, text) = why(&site, "one", "1.0.0");
    assert!(text.contains("`larder gc` would leave it"), "{text}");
    let (code, text) = why(&site, "one", "1.0.1");
    assert_eq!(
        (code, text.as_str()),
        (Some(1), "`one 1.0.1` is not stored\n")
    );
}

#[test]
fn forget_drops_a_project_or_one_crate_and_refuses_what_a_project_needs() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two"]);
    let site = site(&upstream);
    let folder = locked_project(&upstream, &["one"]);
    warm(&site, folder.path());
    fetch(&site, &["two"]);
    let forget = |arguments: &[&str]| {
        let output = site.command(&[&["forget"], arguments].concat());
        let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
        (output.status.code(), stdout.unwrap() + &stderr.unwrap())
    };
    let (code, text) = forget(&["two", "1.0.0"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("removed crate `two 1.0.0`"), "{text}");
    assert!(!is_stored(&site, &upstream, "two") && !entry_file(&site, "two").exists());
    let (code, text) = forget(&["two", "1.0.0"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is not stored"), "{text}");

    let (code, text) = forget(&["one", "1.0.0"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("Cargo.lock") && text.contains("--force"),
        "{text}"
    );
    assert!(is_stored(&site, &upstream, "one"));
    let (code, text) = forget(&["one", "1.0.0", "--force"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!is_stored(&site, &upstream, "one") && entry_file(&site, "one").exists());
    warm(&site, folder.path());
    assert!(is_stored(&site, &upstream, "one"));

    let path = folder.path().display().to_string();
    let (code, text) = forget(&[&path]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("forgot ") && text.contains("Cargo.lock"),
        "{text}"
    );
    assert!(is_stored(&site, &upstream, "one"), "gc removes it");
    let (code, text) = forget(&[&path]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("no warmed project and no toolchain is"),
        "{text}"
    );
    let names = removed(&gc(&site, &["--max-size", "1B"]));
    assert_eq!(names, ["index entry of `one`", "crate `one 1.0.0`"]);
}
