//! What the daemon fetches ahead when a client sets out to ask for what a registered lock file names, and when it does not.

use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, entry_path};

use crate::stage::{blob_path, download, entry, settle, site, total, until};
use crate::support::cargo::{CargoHome, Project};
use crate::support::larder::{Larder, Site};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
const FETCHED: &str = "crates-ahead-fetched";
const ASKED: &str = "crates-ahead-asked";
/// What the log says when it looked and has nothing to do, or listened in vain.
const COMPLETE: &str = "no registered lock file lacks anything";
const IN_VAIN: &str = "clients work on no registered lock file that lacks anything";

/// Has real cargo write the project's lock file, without larder.
#[track_caller]
fn lock(project: &Project, upstream: &FakeUpstream) {
    let run = CargoHome::new().run(project, &["generate-lockfile"], &upstream.url());
    run.assert_success();
}

#[track_caller]
fn warm(site: &Site, folder: &Path, more: &[&str]) {
    let folder = folder.display().to_string();
    let output = site.command(&[&["warm", &folder], more].concat());
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn fetch(project: &Project, larder: &Larder<'_>) {
    let run = CargoHome::new().run(project, &["fetch", "--locked"], larder.url());
    run.assert_success();
}

/// A client that begins as cargo does and asks for these entries.
#[track_caller]
fn ask(larder: &Larder<'_>, names: &[&str]) {
    assert_eq!(larder.get("/config.json").status, 200);
    for name in names {
        assert_eq!(larder.get(&entry(name)).status, 200, "{name}");
    }
}

fn publish(upstream: &FakeUpstream, names: &[&str]) {
    for name in names {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
}

/// A registered project that depends on these, with a store that has nothing of some of it.
fn registered(upstream: &FakeUpstream, site: &Site, names: &[&str], lost: &[&str]) -> Project {
    let mut project = Project::new();
    for name in names {
        project = project.dep(name, "1");
    }
    lock(&project, upstream);
    warm(site, project.folder(), &[]);
    for name in lost {
        fs::remove_file(blob_path(site, &upstream.checksum(name, "1.0.0"))).unwrap();
    }
    upstream.forget_requests();
    project
}

#[test]
fn what_a_lock_file_gained_comes_while_cargo_still_resolves() {
    let upstream = FakeUpstream::builder().max_age(Some(600)).start();
    publish(&upstream, &["old", "low"]);
    // Where a registry does not tell when a version was published, what it needs is asked about once more.
    let published = |name| Crate::new(name, "1.0.0").pubtime("2024-05-06T07:08:09Z");
    upstream.publish(published("mid").dep("low", "^1"));
    upstream.publish(published("top").dep("mid", "^1"));
    let site = site(&upstream);
    let larder = site.serve(&["-v"]);
    // Before anything is registered.
    ask(&larder, &["old"]);
    larder.wait_for_log(COMPLETE);
    let project = registered(&upstream, &site, &["old"], &[]);

    let project = project.dep("top", "1");
    lock(&project, &upstream);
    // What another process registered is seen, once it is time to look again.
    let larder = larder.restart(&[]);
    upstream.forget_requests();
    // Nobody who has not read this can ask for a crate.
    let gate = upstream.gate(&entry_path("low"));
    std::thread::scope(|scope| {
        let cargo = scope.spawn(|| fetch(&project, &larder));
        for name in ["top", "mid"] {
            until("the crates come before cargo can ask for them", || {
                upstream.requests_for(&crate_path(name, "1.0.0")) == 1
            });
        }
        gate.open();
        cargo.join().unwrap();
    });
    settle(&larder);
    for name in ["top", "mid", "low"] {
        assert_eq!(upstream.requests_for(&crate_path(name, "1.0.0")), 1);
        assert_eq!(upstream.requests_for(&entry_path(name)), 1, "{name}");
    }
    assert_eq!(upstream.requests_for(&crate_path("old", "1.0.0")), 0);
    // The last one may have been asked for by both at the same moment.
    let fetched = total(&larder, FETCHED);
    assert!((2..=3).contains(&fetched), "{fetched}");
    assert_eq!(total(&larder, ASKED), fetched);
    let metrics = larder.get("/-/metrics").text();
    let sample = format!("larder_read_ahead_fetched_total{{kind=\"crate\"}} {fetched}\n");
    assert!(metrics.contains(&sample), "{metrics}");
}

#[test]
fn what_is_registered_while_the_daemon_runs_is_seen() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two"]);
    let site = site(&upstream);
    let larder = site.serve(&["-v"]);
    ask(&larder, &["one"]);
    larder.wait_for_log(COMPLETE);
    let _project = registered(&upstream, &site, &["one", "two"], &["two"]);
    // It looks again only after a while.
    until("the missing crate is fetched", || {
        ask(&larder, &["one", "two"]);
        total(&larder, FETCHED) == 1
    });
    assert_eq!(upstream.requests_for("/dl/"), 1);
    assert_eq!(larder.get(&download("two", "1.0.0")).status, 200);
    assert_eq!(total(&larder, ASKED), 1);
    assert_eq!(upstream.requests_for("/dl/"), 1);
}

#[test]
fn an_emptied_store_is_filled_again_by_what_is_registered() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two"]);
    let site = site(&upstream);
    let project = registered(&upstream, &site, &["one", "two"], &[]);
    for folder in ["blobs", "entries"] {
        fs::remove_dir_all(site.store().join("v1").join(folder)).unwrap();
    }
    let larder = site.serve(&[]);
    fetch(&project, &larder);
    settle(&larder);
    assert_eq!(upstream.requests_for("/dl/"), 2);
    for name in ["one", "two"] {
        assert_eq!(upstream.requests_for(&entry_path(name)), 1, "{name}");
    }
}

/// A daemon whose registered project lacks `two`, and what happens when a client asks for these entries.
#[track_caller]
fn check_untouched<T>(names: &[&str], prepare: impl FnOnce(&FakeUpstream, &Site, &Project) -> T) {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two", "three"]);
    let site = site(&upstream);
    let project = registered(&upstream, &site, &["one", "two"], &["two"]);
    let _held = prepare(&upstream, &site, &project);
    upstream.forget_requests();
    let larder = site.serve(&["-v"]);
    ask(&larder, names);
    until("it gives up", || {
        let log = larder.log();
        log.contains(COMPLETE) || log.contains(IN_VAIN)
    });
    settle(&larder);
    assert_eq!(upstream.requests_for("/dl/"), 0);
    assert_eq!(total(&larder, FETCHED), 0);
}

#[test]
fn two_clients_that_begin_at_once_lead_to_nothing_and_are_counted() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two", "three", "four"]);
    let site = site(&upstream);
    let _first = registered(&upstream, &site, &["one", "two"], &["two"]);
    let _second = registered(&upstream, &site, &["three", "four"], &["four"]);
    let larder = site.serve(&["-v"]);
    ask(&larder, &["one", "three", "two", "four"]);
    larder.wait_for_log(IN_VAIN);
    assert_eq!(total(&larder, "bursts-unexplained"), 1);
    let metrics = larder.get("/-/metrics").text();
    for sample in [
        "larder_read_ahead_bursts_total{end=\"unexplained\"} 1\n",
        "larder_read_ahead_bursts_total{end=\"followed\"} 0\n",
    ] {
        assert!(metrics.contains(sample), "{metrics}");
    }
    assert!(!metrics.contains("outcome=\"bursts"), "{metrics}");
    // One after the other.
    until("the missing crate is fetched", || {
        ask(&larder, &["one", "two"]);
        total(&larder, FETCHED) == 1
    });
    assert_eq!(total(&larder, "bursts-followed"), 1);
}

#[test]
fn a_client_that_asks_for_something_else_or_for_a_part_leads_to_nothing() {
    // Another project that shares a package, the missing one among them.
    check_untouched(&["two", "three"], |_, _, _| {});
    check_untouched(&["one", "three"], |_, _, _| {});
    // `cargo add two`, for instance.
    check_untouched(&["two"], |_, _, _| {});
}

#[test]
fn a_registered_project_that_lacks_nothing_and_is_as_good_an_explanation_leads_to_nothing() {
    check_untouched(&["one", "two"], |upstream, site, _| {
        // With another version of `two`.
        upstream.publish(Crate::new("two", "1.1.0"));
        let newer = Project::new().dep("one", "1").dep("two", "1.1");
        lock(&newer, upstream);
        warm(site, newer.folder(), &[]);
        newer
    });
}

#[test]
fn a_lock_file_that_cannot_be_read_leads_to_nothing() {
    let names = ["one", "two"];
    let replaced = |text: &'static [u8]| {
        move |_: &FakeUpstream, _: &Site, project: &Project| {
            fs::write(project.folder().join("Cargo.lock"), text).unwrap();
        }
    };
    check_untouched(&names, replaced(b""));
    check_untouched(&names, replaced(b"version = 4\n\n[[package]\n"));
    check_untouched(&names, replaced(b"\xff\xfe\x00"));
    check_untouched(&names, |_, _, project| {
        let merged = format!("<<<<<<< ours\n{}", project.lock());
        project.write("Cargo.lock", &merged);
    });
    check_untouched(&names, |_, _, project| {
        let huge = project.lock() + &"# more\n".repeat(2 << 20);
        project.write("Cargo.lock", &huge);
    });
    check_untouched(&names, |_, _, project| {
        fs::remove_file(project.folder().join("Cargo.lock")).unwrap();
    });
    check_untouched(&names, |_, _, project| {
        let lock = project.folder().join("Cargo.lock");
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
    });
}

#[test]
fn a_checksum_that_the_index_does_not_give_is_not_fetched_ahead() {
    check_untouched_but_followed(|upstream, project| {
        let lock = project.lock();
        let wrong = lock.replace(&upstream.checksum("two", "1.0.0"), &"a".repeat(64));
        assert_ne!(lock, wrong);
        project.write("Cargo.lock", &wrong);
    });
}

/// The lock file is the one that the client works on, and yet nothing of it is fetched.
#[track_caller]
fn check_untouched_but_followed(prepare: impl FnOnce(&FakeUpstream, &Project)) {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["one", "two"]);
    let site = site(&upstream);
    let project = registered(&upstream, &site, &["one", "two"], &["two"]);
    prepare(&upstream, &project);
    let larder = site.serve(&[]);
    ask(&larder, &["one", "two"]);
    larder.wait_for_log("fetching ahead");
    settle(&larder);
    assert_eq!(upstream.requests_for("/dl/"), 0);
}

#[test]
fn what_only_other_platforms_need_is_not_fetched_ahead() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["here", "there", "beyond"]);
    upstream.publish(Crate::new("wide", "1.0.0").dep("beyond", "^1"));
    let top = Crate::new("top", "1.0.0")
        .target_dep("cfg(windows)", "wide", "^1")
        .target_dep("cfg(not(windows))", "here", "^1")
        .target_dep("x86_64-pc-windows-msvc", "there", "^1");
    upstream.publish(top);
    let site = site(&upstream);
    let lost = ["top", "here", "there", "wide", "beyond"];
    let _project = registered(&upstream, &site, &["top"], &lost);
    let larder = site.serve(&[]);
    ask(&larder, &["top"]);
    until("what is needed here has come", || {
        total(&larder, FETCHED) == 2
    });
    settle(&larder);
    for (name, times) in [
        ("top", 1),
        ("here", 1),
        ("there", 0),
        ("wide", 0),
        ("beyond", 0),
    ] {
        let asked = upstream.requests_for(&crate_path(name, "1.0.0"));
        assert_eq!(asked, times, "{name}");
    }
}

#[test]
fn what_was_left_out_when_it_was_registered_is_not_fetched_ahead() {
    let upstream = FakeUpstream::start();
    publish(&upstream, &["here", "winonly"]);
    let project = Project::new().dep("here", "1");
    let manifest = fs::read_to_string(project.folder().join("Cargo.toml")).unwrap();
    let windows = "\n[target.'cfg(windows)'.dependencies]\nwinonly = \"1\"\n";
    project.write("Cargo.toml", &(manifest + windows));
    lock(&project, &upstream);
    let cargo = Path::new(env!("CARGO"));
    let site = site(&upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &cargo.parent().unwrap().display().to_string());
    warm(
        &site,
        project.folder(),
        &["--target", "x86_64-unknown-linux-gnu"],
    );
    fs::remove_file(blob_path(&site, &upstream.checksum("here", "1.0.0"))).unwrap();
    upstream.forget_requests();
    let larder = site.serve(&[]);
    ask(&larder, &["here", "winonly"]);
    until("what was not left out has come", || {
        total(&larder, FETCHED) == 1
    });
    settle(&larder);
    assert_eq!(upstream.requests_for(&crate_path("winonly", "1.0.0")), 0);
}

#[test]
fn three_refusals_end_what_is_fetched_ahead() {
    let upstream = FakeUpstream::builder().max_age(Some(600)).start();
    let names: Vec<_> = (0..200).map(|number| format!("crate{number}")).collect();
    let names: Vec<_> = names.iter().map(|name| &**name).collect();
    publish(&upstream, &names);
    let site = site(&upstream);
    let _project = registered(&upstream, &site, &names, &names);
    upstream.fault("/dl/", Fault::Status(403));
    let larder = site.serve(&[]);
    ask(&larder, &names);
    larder.wait_for_log("fetching ahead");
    let asked = || {
        let is_asked = |name: &&&str| upstream.requests_for(&crate_path(name, "1.0.0")) > 0;
        names.iter().filter(is_asked).count()
    };
    until("some are asked for", || asked() >= 3);
    settle(&larder);
    assert!(asked() <= 64 + 3, "{}", asked());
}

#[test]
fn offline_and_down_nothing_is_asked_for_ahead() {
    let upstream = FakeUpstream::start();
    let names = ["one", "two", "three", "four"];
    publish(&upstream, &names);
    let site = site(&upstream);
    let _project = registered(&upstream, &site, &names, &["two"]);
    let connections = upstream.connections();
    let larder = site.serve(&["--offline", "-v"]);
    ask(&larder, &names);
    larder.wait_for_log("offline: nothing is fetched ahead");
    settle(&larder);
    assert_eq!(upstream.connections(), connections);
    assert!(!larder.stop().contains("fetching ahead"));

    // Down as far as larder can tell, and yet it would give crates.
    upstream.fault("/index/", Fault::Status(500));
    let larder = site.serve(&["-v", "--max-age", "0s"]);
    ask(&larder, &names);
    larder.wait_for_log("out of reach: nothing is fetched ahead");
    settle(&larder);
    assert_eq!(upstream.requests_for("/dl/"), 0);
    assert!(!larder.log().contains("fetching ahead"));

    // That it was down then is no reason to leave it at that.
    upstream.clear_faults();
    until("the missing crate is fetched", || {
        ask(&larder, &names);
        total(&larder, FETCHED) == 1
    });
    assert_eq!(upstream.requests_for(&crate_path("two", "1.0.0")), 1);
}

/// Writes a lock file by hand: what the project depends on, and each package's name, source and hash.
fn write_lock(folder: &Path, direct: &[String], packages: &[(&str, String, String)]) {
    let packages = packages.iter().map(|(name, source, sum)| {
        format!(
            "\n[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{source}\"\nchecksum = \"{sum}\"\n"
        )
    });
    let project = "[[package]]\nname = \"app\"\nversion = \"0.1.0\"";
    let packages: String = packages.collect();
    let text = format!("version = 4\n\n{project}\ndependencies = {direct:?}\n{packages}");
    fs::write(folder.join("Cargo.lock"), text).unwrap();
}

#[test]
fn two_registries_that_have_a_crate_of_one_name_are_told_apart() {
    let (public, corp) = (FakeUpstream::start(), FakeUpstream::start());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("larder.toml");
    let settings = format!("[registry.corp]\nindex = \"sparse+{}\"\n", corp.url());
    fs::write(&config, settings).unwrap();
    let config = ["--config", &config.display().to_string()];
    let mut sums = Vec::new();
    let mut packages = Vec::new();
    for (upstream, text, source) in [
        (&public, "public", CRATES_IO.to_owned()),
        (&corp, "corp", format!("sparse+{}", corp.url())),
    ] {
        let sum = upstream.publish(Crate::new("twin", "1.0.0").file("src/lib.rs", text));
        sums.push(sum.clone());
        packages.push(("twin", source, sum));
    }
    let direct = packages
        .iter()
        .map(|(name, source, _)| format!("{name} 1.0.0 ({source})"));
    write_lock(folder.path(), &direct.collect::<Vec<_>>(), &packages);
    let site = site(&public);
    warm(&site, folder.path(), &config);
    for sum in &sums {
        fs::remove_file(blob_path(&site, sum)).unwrap();
    }

    let larder = site.serve(&config);
    ask(&larder, &["twin"]);
    let path = format!("/registry/corp{}", entry("twin"));
    assert_eq!(larder.get(&path).status, 200);
    until("both are fetched", || total(&larder, FETCHED) == 2);
    settle(&larder);
    for sum in &sums {
        assert!(blob_path(&site, sum).exists());
    }
}

#[test]
fn a_client_is_not_held_up_by_the_many_entries_of_a_lock_file() {
    // Over HTTP/2, as crates.io.
    let upstream = FakeUpstream::builder().tls().start();
    publish(&upstream, &["other"]);
    let names: Vec<_> = (0..320).map(|number| format!("held-{number}")).collect();
    let mut top = Crate::new("top", "1.0.0");
    let mut packages = Vec::new();
    for name in &names {
        let sum = upstream.publish(Crate::new(name, "1.0.0"));
        packages.push((&**name, CRATES_IO.to_owned(), sum));
        top = top.dep(name, "^1");
    }
    let sum = upstream.publish(top);
    packages.push(("top", CRATES_IO.to_owned(), sum));
    let folder = tempfile::tempdir().unwrap();
    write_lock(folder.path(), &["top".to_owned()], &packages);
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, upstream.ca_pem()).unwrap();
    let site = site(&upstream).variable("LARDER_CA_FILE", &ca.display().to_string());
    warm(&site, folder.path(), &[]);
    // What the newest version needs is read ahead whoever asks, but here it needs nothing.
    upstream.publish(Crate::new("top", "1.0.1"));
    for folder in ["blobs", "entries"] {
        fs::remove_dir_all(site.store().join("v1").join(folder)).unwrap();
    }
    let larder = site.serve(&[]);
    let gate = upstream.gate("/he/ld/");
    ask(&larder, &["top"]);
    gate.wait_for(200);
    assert_eq!(larder.get(&entry("other")).status, 200);
    assert_eq!(gate.waiting(), 200);
    gate.open();
    until("all crates are fetched", || total(&larder, FETCHED) == 321);
}
