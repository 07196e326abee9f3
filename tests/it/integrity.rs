//! Stored files that change, grow or turn into something else while larder runs.
//!
//! Damage that a start finds is in `disk`, and `check --verify` in `verify`.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use fake_upstream::{Crate, FakeUpstream, crate_path, entry_path};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::fixture::site;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};
use testkit::paths::{download, entry};
use testkit::store::{blob_path, crates_io_folder, entry_file, without_place};

/// A name and a function that changes one byte of a stored file.
type Rot = (&'static str, fn(&Path));

const ROTS: [Rot; 4] = [
    ("in place", |path| {
        fs::write(path, flipped(path)).unwrap();
    }),
    ("in place, with the old time", |path| {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, flipped(path)).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(modified).unwrap();
    }),
    ("by a new file of the same length", |path| {
        let next = path.with_extension("next");
        fs::write(&next, flipped(path)).unwrap();
        fs::rename(next, path).unwrap();
    }),
    ("by a new file of the same length and time", |path| {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let next = path.with_extension("next");
        fs::write(&next, flipped(path)).unwrap();
        let file = File::options().write(true).open(&next).unwrap();
        file.set_times(FileTimes::new().set_modified(modified))
            .unwrap();
        fs::rename(next, path).unwrap();
    }),
];

fn flipped(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

/// Longer than larder reuses a `stat` result, and than a file system's clock ticks.
fn let_time_pass() {
    std::thread::sleep(Duration::from_millis(40));
}

/// Sizes of a crate that larder serves from memory, and of one that it streams from its file.
const SIZES: [usize; 2] = [2_000, 1_500_000];

/// Publishes a crate for each kind of rot and each size, and asks for each `times` times.
fn served_crates(upstream: &FakeUpstream, larder: &Larder<'_>, times: usize) -> Vec<String> {
    let mut names = Vec::new();
    for rot in 0..ROTS.len() {
        for size in SIZES {
            let name = format!("left{rot}-{size}");
            upstream.publish(Crate::new(&name, "1.0.0").padding(size));
            for _ in 0..times {
                let reply = larder.get(&download(&name, "1.0.0"));
                assert!(reply.complete && reply.body == upstream.body(&name, "1.0.0"));
                larder.wait_until_idle();
            }
            names.push(name);
        }
    }
    names
}

fn rot_all(site: &Site, upstream: &FakeUpstream, names: &[String]) {
    let_time_pass();
    for (at, name) in names.iter().enumerate() {
        let (_, rot) = ROTS[at / SIZES.len()];
        rot(&blob_path(site, &upstream.checksum(name, "1.0.0")));
    }
    let_time_pass();
}

#[test]
fn a_blob_that_rots_while_larder_runs_is_fetched_again_and_never_served() {
    for times in [1, 3] {
        let upstream = FakeUpstream::start();
        let site = site(&upstream);
        let larder = site.serve(&[]);
        let names = served_crates(&upstream, &larder, times);
        rot_all(&site, &upstream, &names);
        upstream.forget_requests();
        for (at, name) in names.iter().enumerate() {
            let (what, _) = ROTS[at / SIZES.len()];
            for _ in ["healing", "healed"] {
                let reply = larder.get(&download(name, "1.0.0"));
                let is_right = reply.complete && reply.body == upstream.body(name, "1.0.0");
                assert!(is_right, "{what}, {name}, asked {times} times before");
                larder.wait_until_idle();
            }
            assert_eq!(
                upstream.requests_for(&crate_path(name, "1.0.0")),
                1,
                "{what}"
            );
            let stored = fs::read(blob_path(&site, &upstream.checksum(name, "1.0.0"))).unwrap();
            assert!(stored == upstream.body(name, "1.0.0"), "{what}");
        }
    }
}

#[test]
fn a_blob_that_rots_while_larder_runs_offline_is_refused_and_kept_for_inspection() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    served_crates(&upstream, &larder, 1);
    let larder = larder.restart(&["--offline"]);
    let names = served_crates(&upstream, &larder, 1);
    rot_all(&site, &upstream, &names);
    for (at, name) in names.iter().enumerate() {
        let (what, _) = ROTS[at / SIZES.len()];
        let sum = upstream.checksum(name, "1.0.0");
        let blob = blob_path(&site, &sum);
        let rotten = fs::read(&blob).unwrap();
        let reply = larder.get(&format!("/crates/{name}/1.0.0/{sum}/download"));
        assert_eq!(
            reply.status,
            424,
            "{what}, {name}: {} bytes",
            reply.body.len()
        );
        assert!(!blob.exists(), "{what}");
        let kept = site
            .store()
            .join("v1/quarantine/blobs")
            .join(&sum[..2])
            .join(&sum[2..]);
        assert!(fs::read(kept).unwrap() == rotten, "{what}");
    }
    larder.wait_for_log("quarantine");
}

#[test]
fn cargo_builds_although_a_stored_crate_rots_under_a_running_larder() {
    let upstream = FakeUpstream::start();
    let code = ("src/lib.rs", "pub fn one() -> u8 { 1 }");
    let sum = upstream.publish(
        Crate::new("left", "1.0.0")
            .file(code.0, code.1)
            .padding(5_000),
    );
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let project = Project::empty().dep("left", "1");
    project.write("src/lib.rs", "pub fn two() -> u8 { left::one() + 1 }");
    let build = || CargoHome::empty().run(&project, &["build"], larder.url());
    build().assert_success();
    larder.wait_until_idle();
    let_time_pass();
    let blob = blob_path(&site, &sum);
    fs::write(&blob, flipped(&blob)).unwrap();
    let_time_pass();
    build().assert_success();
}

fn make_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn a_fifo_in_the_place_of_a_stored_file_hangs_no_client_and_is_replaced() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let sum = upstream.publish(Crate::new("left", "1.0.0"));
    let sum2 = upstream.publish(Crate::new("right", "1.0.0"));
    for name in ["left", "right"] {
        assert!(larder.get(&download(name, "1.0.0")).complete);
    }
    larder.wait_until_idle();
    for path in [blob_path(&site, &sum), entry_file(&site, "left")] {
        make_fifo(&path);
    }
    // A folder is no file either.
    let folder = blob_path(&site, &sum2);
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    for larder in [larder, site.serve(&[])] {
        let http = larder.http().timeout(Duration::from_secs(10));
        for name in ["left", "right"] {
            for path in [entry(name), download(name, "1.0.0")] {
                let reply = http.get(&path);
                assert!(
                    reply.complete && reply.status == 200,
                    "{path}: {}",
                    reply.text()
                );
            }
        }
        larder.wait_until_idle();
        for path in [
            blob_path(&site, &sum),
            entry_file(&site, "left"),
            folder.clone(),
        ] {
            assert!(
                fs::symlink_metadata(&path).unwrap().is_file(),
                "{}",
                path.display()
            );
        }
        for path in [blob_path(&site, &sum), entry_file(&site, "left")] {
            make_fifo(&path);
        }
    }
}

#[test]
fn fifos_in_the_store_and_the_project_stop_no_command() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    upstream.publish(Crate::new("left", "1.0.0"));
    assert!(larder.get(&download("left", "1.0.0")).complete);
    larder.stop();
    let staging = site.store().join("v1/staging/other");
    fs::create_dir_all(&staging).unwrap();
    fs::create_dir_all(site.store().join("v1/projects")).unwrap();
    make_fifo(&staging.join("lock"));
    make_fifo(&site.store().join("v1/toolchain-format"));
    make_fifo(&site.store().join("v1/projects/0.json"));
    let project = TempDir::new().unwrap();
    make_fifo(&project.path().join("Cargo.lock"));
    make_fifo(&project.path().join("rust-toolchain.toml"));
    let path = project.path().display().to_string();
    for arguments in [vec!["status"], vec!["check", &path], vec!["warm", &path]] {
        let mut command = site.spawn(&arguments);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while command.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > deadline {
                command.kill().unwrap();
                panic!("{arguments:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    site.serve(&[]).stop();
}

#[test]
fn an_entry_in_the_place_of_another_crates_is_not_served() {
    let upstream = FakeUpstream::start();
    for name in ["left", "right"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "1h"]);
    for name in ["left", "right"] {
        assert_eq!(larder.get(&entry(name)).body, upstream.index_body(name));
    }
    larder.wait_until_idle();
    let_time_pass();
    fs::copy(entry_file(&site, "right"), entry_file(&site, "left")).unwrap();
    let_time_pass();
    upstream.forget_requests();
    let reply = larder.get(&entry("left"));
    assert_eq!(reply.body, upstream.index_body("left"), "{}", reply.text());
    assert_eq!(upstream.requests_for(&entry_path("left")), 1);
    larder.wait_for_log("another");
    assert!(larder.get(&download("right", "1.0.0")).complete);
    larder.wait_until_idle();
    // The configuration of a registry is no index entry, but a record as well.
    fs::copy(
        crates_io_folder(&site).join("config.json"),
        entry_file(&site, "left"),
    )
    .unwrap();
    let larder = larder.restart(&["--offline"]);
    assert_eq!(larder.get(&entry("left")).status, 424);
    assert_eq!(
        larder.get(&entry("right")).body,
        upstream.index_body("right")
    );
}

#[test]
fn a_changed_fact_in_an_entrys_first_line_counts_as_damage() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    larder.get(&entry("left"));
    larder.wait_until_idle();
    larder.stop();
    let file = entry_file(&site, "left");
    let record = fs::read(&file).unwrap();
    let end = record.iter().position(|&byte| byte == b'\n').unwrap();
    let etag = record[..end]
        .windows(6)
        .position(|part| part == b"\"etag\"")
        .unwrap();
    let mut changed = record.clone();
    changed[etag + 11] ^= 1;
    fs::write(&file, changed).unwrap();
    let larder = site.serve(&["--offline"]);
    assert_eq!(larder.get(&entry("left")).status, 424);
}

#[test]
fn entries_of_older_releases_are_served_and_gain_their_place_when_they_are_renewed() {
    let upstream = FakeUpstream::start();
    for name in ["left", "right"] {
        upstream.publish(Crate::new(name, "1.0.0"));
    }
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for name in ["left", "right"] {
        larder.get(&entry(name));
    }
    larder.wait_until_idle();
    larder.stop();
    for name in ["left", "right"] {
        let file = entry_file(&site, name);
        fs::write(&file, without_place(&fs::read(&file).unwrap())).unwrap();
    }
    // Another crate's entry of an older release still describes another crate.
    let larder = site.serve(&["--offline"]);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    fs::copy(entry_file(&site, "left"), entry_file(&site, "right")).unwrap();
    let larder = larder.restart(&["--offline"]);
    assert_eq!(larder.get(&entry("right")).status, 424);
    upstream.forget_requests();
    let larder = larder.restart(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
    larder.wait_until_idle();
    let record = fs::read(entry_file(&site, "left")).unwrap();
    let line = String::from_utf8_lossy(&record)
        .lines()
        .next()
        .unwrap()
        .to_owned();
    assert!(line.contains("index/le/left"), "{line}");
}

/// The process's peak resident memory in bytes; `None` if it has ended.
fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    Some(peak?.trim().parse::<u64>().unwrap() * 1024)
}

/// Makes a file of this size that takes no space on the disk.
fn grow(path: &Path, bytes: u64) {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.set_len(bytes).unwrap();
    assert!(fs::metadata(path).unwrap().blocks() < 1_000);
}

#[test]
fn an_entry_file_of_four_gigabytes_counts_as_damaged_and_is_not_read() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    larder.get(&entry("left"));
    larder.wait_until_idle();
    grow(&entry_file(&site, "left"), 4 << 30);
    let_time_pass();
    let reply = larder.get(&entry("left"));
    assert_eq!(reply.body, upstream.index_body("left"));
    let peak = peak_memory(larder.process_id()).unwrap();
    assert!(peak < 300 << 20, "{peak} bytes");
    larder.wait_until_idle();
    assert!(fs::metadata(entry_file(&site, "left")).unwrap().len() < 10_000);
}

#[test]
fn huge_lock_files_manifests_and_toolchain_files_are_refused_before_they_are_read() {
    let upstream = FakeUpstream::start();
    for name in [
        "Cargo.lock",
        "Cargo.toml",
        "rust-toolchain.toml",
        "rust-toolchain",
    ] {
        let site = site(&upstream);
        let project = TempDir::new().unwrap();
        if name == "Cargo.toml" {
            fs::write(project.path().join("Cargo.lock"), "version = 4\n").unwrap();
        }
        grow(&project.path().join(name), 3 << 30);
        let path = project.path().display().to_string();
        for command in ["warm", "check"] {
            let mut process = site.spawn(&[command, &path]);
            let deadline = std::time::Instant::now() + Duration::from_secs(15);
            let mut peak = 0;
            let status = loop {
                if let Some(status) = process.try_wait().unwrap() {
                    break status;
                }
                peak = peak.max(peak_memory(process.id()).unwrap_or_default());
                if std::time::Instant::now() > deadline {
                    process.kill().unwrap();
                    panic!("{command} on a huge {name} does not end");
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            let output = process.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(status.code(), Some(1), "{command} {name}: {said}");
            assert!(said.contains("larger than"), "{command} {name}: {said}");
            assert!(peak < 200 << 20, "{command} {name}: {peak} bytes");
        }
    }
}
