//! The store under the built daemon: damaged files, a full disk, symbolic links, permissions, endless bodies.
//!
//! Unit tests of the store cover the rest.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::thread;

use fake_upstream::{Crate, FakeUpstream, Fault, crate_path, entry_path};

use crate::fixture::site;
use testkit::larder::Larder;
use testkit::paths::{download, entry};
use testkit::process::wait_until;
use testkit::store::{blob_path, blobs, entry_file, files};

/// A name and a function that damages the content of a stored file.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 8] = [
    ("first byte", |bytes| bytes[0] ^= 1),
    ("a byte in the middle", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x80;
    }),
    ("last byte", |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0xff;
    }),
    ("cut", |bytes| bytes.truncate(bytes.len() / 3)),
    ("empty", Vec::clear),
    ("one byte less", |bytes| bytes.truncate(bytes.len() - 1)),
    ("one byte more", |bytes| bytes.push(b'\n')),
    ("zeros", |bytes| bytes.fill(0)),
];

/// Larder's own rule: ARCHITECTURE.md, "Invariants".
#[test]
fn damaged_files_are_never_served_and_are_fetched_again() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let names: Vec<String> = (0..DAMAGES.len()).map(|at| format!("left{at}")).collect();
    for name in &names {
        // One crate is too large to be served from memory.
        let padding = if name == "left1" { 1_500_000 } else { 10_000 };
        upstream.publish(Crate::new(name, "1.0.0").padding(padding));
        assert!(larder.get(&download(name, "1.0.0")).complete);
    }
    larder.wait_until_idle();
    larder.stop();
    for (name, (_, damage)) in names.iter().zip(DAMAGES) {
        let sum = upstream.checksum(name, "1.0.0");
        for path in [blob_path(&site, &sum), entry_file(&site, name)] {
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }
    upstream.forget_requests();

    let larder = site.serve(&["--offline"]);
    for (name, (what, _)) in names.iter().zip(DAMAGES) {
        let sum = upstream.checksum(name, "1.0.0");
        for path in [entry(name), format!("/crates/{name}/1.0.0/{sum}/download")] {
            let reply = larder.get(&path);
            assert_eq!(reply.status, 424, "{what}: {path}");
        }
    }
    assert_eq!(upstream.requests().len(), 0);
    let larder = larder.restart(&[]);
    for (name, (what, _)) in names.iter().zip(DAMAGES) {
        for _ in ["healing", "healed"] {
            let reply = larder.get(&entry(name));
            assert!(
                reply.status == 200 && reply.body == upstream.index_body(name),
                "{what}"
            );
            let reply = larder.get(&download(name, "1.0.0"));
            assert!(
                reply.complete && reply.body == upstream.body(name, "1.0.0"),
                "{what}"
            );
            larder.wait_until_idle();
        }
        let sum = upstream.checksum(name, "1.0.0");
        assert!(
            fs::read(blob_path(&site, &sum)).unwrap() == upstream.body(name, "1.0.0"),
            "{what}"
        );
        assert_eq!(upstream.requests_for(&entry_path(name)), 1, "{what}");
        assert_eq!(
            upstream.requests_for(&crate_path(name, "1.0.0")),
            1,
            "{what}"
        );
    }
    larder.wait_for_log("damaged");
}

/// Sets the largest file that the process may write from now on.
fn limit_files(larder: &Larder<'_>, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let process = Pid::from_raw(i32::try_from(larder.process_id()).unwrap());
    let limit = Rlimit {
        current: bytes,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(process, Resource::Fsize, limit).unwrap();
}

/// Larder's own rule: docs/decisions/0011-local-files.md.
#[test]
fn full_disk_does_not_stop_serving_and_storing_resumes_with_space() {
    let upstream = FakeUpstream::start();
    for name in ["before", "during", "other"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(300_000));
    }
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let check = |larder: &Larder<'_>, name: &str| {
        let reply = larder.get(&entry(name));
        assert!(
            reply.status == 200 && reply.body == upstream.index_body(name),
            "{name}"
        );
        let reply = larder.get(&download(name, "1.0.0"));
        assert!(
            reply.complete && reply.body == upstream.body(name, "1.0.0"),
            "{name}"
        );
        larder.wait_until_idle();
    };
    check(&larder, "before");
    let kept = files(&site.store().join("v1/blobs"));

    // A limit on the file size looks to the process like a full file system.
    limit_files(&larder, Some(100_000));
    check(&larder, "during");
    larder.wait_for_log("served but not stored");
    larder.wait_for_log("no space left");
    limit_files(&larder, Some(0));
    check(&larder, "before");
    check(&larder, "other");
    assert_eq!(files(&site.store().join("v1/blobs")), kept);

    limit_files(&larder, None);
    for name in ["during", "other"] {
        check(&larder, name);
        let stored = fs::read(blob_path(&site, &upstream.checksum(name, "1.0.0"))).unwrap();
        assert!(stored == upstream.body(name, "1.0.0"), "{name}");
    }
    upstream.forget_requests();
    let larder = larder.restart(&[]);
    for name in ["before", "during", "other"] {
        check(&larder, name);
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn while_the_disk_is_full_new_entries_pass_through_and_stored_ones_stay_until_there_is_space() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("older", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    larder.get(&entry("older"));
    larder.wait_until_idle();
    let older = fs::read(entry_file(&site, "older")).unwrap();
    let older_body = upstream.index_body("older");

    let larder = larder.restart(&["--max-age", "0s", "--upstream-timeout", "1s"]);
    limit_files(&larder, Some(0));
    upstream.publish(Crate::new("older", "1.1.0"));
    upstream.publish(Crate::new("new", "1.0.0"));
    let check = |name: &str| {
        let reply = larder.get(&entry(name));
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert_eq!(&*reply.body, &*upstream.index_body(name), "{name}");
    };
    for name in ["older", "new"] {
        check(name);
        larder.wait_until_idle();
        check(name);
    }
    larder.wait_until_idle();
    larder.wait_for_log("served but not stored");
    assert!(fs::read(entry_file(&site, "older")).unwrap() == older);
    assert!(!entry_file(&site, "new").exists());
    upstream.stop();
    let reply = larder.get(&entry("older"));
    assert_eq!(&*reply.body, &*older_body, "the stored copy is served");

    limit_files(&larder, None);
    upstream.restart();
    wait_until("upstream is asked again", || {
        larder.get(&entry("new")).status == 200
    });
    check("older");
    larder.wait_until_idle();
    let larder = larder.restart(&["--offline"]);
    for name in ["older", "new"] {
        let reply = larder.get(&entry(name));
        assert_eq!(&*reply.body, &*upstream.index_body(name), "{name}");
    }
}

#[test]
fn body_that_does_not_fit_on_disk_frees_its_space_and_continues_in_memory() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0").padding(600_000));
    let drip = Fault::Drip {
        bytes_per_second: 600_000,
    };
    upstream.fault(&crate_path("left", "1.0.0"), drip);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    larder.wait_until_idle();
    let staged = || files(&site.store().join("v1/staging"));
    let idle = staged().len();
    limit_files(&larder, Some(250_000));
    let mut client = larder.http().connect().unwrap();
    client.send("GET", &download("left", "1.0.0"), &[]).unwrap();
    let (mut got, mut on_disk, mut afterwards) = (Vec::new(), false, None);
    let reply = client.receive_chunks(&mut |piece| {
        got.extend_from_slice(piece);
        if got.len() < 250_000 {
            on_disk |= staged().len() > idle;
        } else if afterwards.is_none() {
            afterwards = Some(staged().len());
        }
    });
    assert!(reply.unwrap().complete && got == upstream.body("left", "1.0.0"));
    assert!(on_disk, "it began in a file");
    assert_eq!(afterwards, Some(idle));
}

/// The process's peak resident memory in bytes.
pub(crate) fn peak_memory(larder: &Larder<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", larder.process_id())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    peak.expect("a peak").trim().parse::<u64>().unwrap() * 1024
}

/// Larder's own rule: bodies have a size limit by kind.
#[test]
fn endless_bodies_are_refused_within_bounded_memory() {
    let upstream = FakeUpstream::start();
    for name in ["left", "right"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(100_000));
    }
    upstream.set_index("left", upstream.index_body("left").repeat(200));
    upstream.fault(&entry_path("left"), Fault::Endless);
    upstream.fault(&crate_path("right", "1.0.0"), Fault::Endless);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get(&entry("left"));
    assert_eq!(reply.status, 424, "{}", reply.text());
    assert!(reply.text().contains("more than"), "{}", reply.text());
    assert!(!entry_file(&site, "left").exists());
    // The disk's limit ends the transfer before that of crates does.
    limit_files(&larder, Some(50_000));
    let reply = larder.get(&download("right", "1.0.0"));
    assert!(!reply.complete || reply.status >= 400);
    assert_eq!(blobs(&site).len(), 0);
    assert_eq!(
        upstream.requests_for("left") + upstream.requests_for("/dl/right"),
        2
    );
    let peak = peak_memory(&larder);
    // 136 MiB were seen on a busy machine.
    assert!(peak < 180 << 20, "{peak} bytes");
}

#[test]
fn a_crate_larger_than_the_setting_allows_is_refused_with_its_name_and_an_endless_one_is_cut() {
    let upstream = FakeUpstream::start();
    for name in ["endless", "larger"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(2_200_000));
    }
    upstream.fault(&crate_path("endless", "1.0.0"), Fault::Endless);
    let site = site(&upstream);
    let larder = site.serve(&["--max-crate", "2"]);
    let reply = larder.get(&download("larger", "1.0.0"));
    assert_eq!(reply.status, 424, "{}", reply.text());
    let words = "sent more than 2097152 bytes (setting `max-crate`)";
    assert!(reply.text().contains(words), "{}", reply.text());
    let reply = larder.get(&download("endless", "1.0.0"));
    assert!(!reply.complete && reply.body.len() <= 2 << 20);
    larder.wait_for_log("(setting `max-crate`)");
    assert_eq!(blobs(&site).len(), 0);
    assert_eq!(upstream.requests_for(&crate_path("endless", "1.0.0")), 1);
    let larder = larder.restart(&["--max-crate", "3"]);
    assert!(larder.get(&download("larger", "1.0.0")).complete);
}

#[test]
fn all_endless_entries_at_once_stay_within_the_memory_for_arriving_bodies() {
    const AT_ONCE: usize = 24;
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("small", "1.0.0"));
    let names: Vec<_> = (0..AT_ONCE).map(|n| format!("endless{n}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0"));
        upstream.set_index(name, upstream.index_body(name).repeat(200));
        upstream.fault(&entry_path(name), Fault::Endless);
    }
    let site = site(&upstream);
    let larder = site.serve(&[]);
    thread::scope(|scope| {
        for name in &names {
            let larder = &larder;
            scope.spawn(move || {
                let reply = larder.get(&entry(name));
                let text = reply.text();
                assert!([424, 503, 504].contains(&reply.status), "{name}: {text}");
                if reply.status == 424 {
                    assert!(text.contains("more than"), "{text}");
                    assert!(text.contains("`max-entry`"), "{text}");
                }
            });
        }
    });
    let peak = peak_memory(&larder);
    // Far below the 24 bodies of up to 32 MB each; 198 MiB were seen on a busy machine.
    assert!(peak < 300 << 20, "{peak} bytes");
    assert_eq!(
        larder.get(&entry("small")).body,
        upstream.index_body("small")
    );
}

#[test]
fn an_entry_as_large_as_the_setting_allows_is_stored_and_a_larger_one_names_the_setting() {
    let upstream = FakeUpstream::start();
    for (name, lines) in [("large", 7_000), ("larger", 8_000)] {
        upstream.publish(Crate::new(name, "1.0.0"));
        upstream.set_index(name, upstream.index_body(name).repeat(lines));
    }
    let (large, larger) = (upstream.index_body("large"), upstream.index_body("larger"));
    assert!(
        large.len() < 1 << 20 && larger.len() > 1 << 20,
        "{}, {}",
        large.len(),
        larger.len()
    );
    let site = site(&upstream).variable("LARDER_MEMORY", "1");
    let larder = site.serve(&["--max-entry", "1"]);
    assert!(larder.get(&entry("large")).body == large);
    let reply = larder.get(&entry("larger"));
    assert_eq!(reply.status, 424, "{}", reply.text());
    assert!(reply.text().contains("`max-entry`"), "{}", reply.text());
}

/// See docs/client-behaviour.md H-05.
#[test]
fn decompression_bombs_are_refused_within_bounded_memory() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.fault(&entry_path("left"), Fault::EndlessZip);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let reply = larder.get(&entry("left"));
    assert_eq!(reply.status, 424, "{}", reply.text());
    assert!(!entry_file(&site, "left").exists());
    let peak = peak_memory(&larder);
    assert!(peak < 100 << 20, "{peak} bytes");
    upstream.clear_faults();
    assert_eq!(larder.get(&entry("left")).body, upstream.index_body("left"));
}

/// Larder's own rule: docs/decisions/0011-local-files.md.
#[test]
fn symbolic_links_in_the_store_are_not_followed() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    upstream.publish(Crate::new("right", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    for name in ["left", "right"] {
        assert!(larder.get(&download(name, "1.0.0")).complete);
    }
    larder.wait_until_idle();
    larder.stop();

    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary");
    let sum = upstream.checksum("left", "1.0.0");
    // The right bytes at another place: only a program that follows the link can serve them.
    let linked = [
        (blob_path(&site, &sum), outside.path().join("blob")),
        (entry_file(&site, "left"), outside.path().join("entry")),
    ];
    for (inside, target) in &linked {
        fs::rename(inside, target).unwrap();
        symlink(target, inside).unwrap();
    }
    for absent in [
        site.store().join("CACHEDIR.TAG"),
        blob_path(&site, &upstream.checksum("right", "1.0.0")),
    ] {
        fs::remove_file(&absent).unwrap();
        symlink(&canary, &absent).unwrap();
    }
    let before = files(outside.path());
    upstream.forget_requests();
    let larder = site.serve(&[]);
    for name in ["left", "right"] {
        let reply = larder.get(&download(name, "1.0.0"));
        assert!(reply.complete && reply.body == upstream.body(name, "1.0.0"));
    }
    larder.wait_until_idle();
    assert_eq!(
        upstream.requests_for("/dl/"),
        2,
        "a link is no stored blob, so both crates are fetched again"
    );
    assert_eq!(upstream.requests_for(&entry_path("left")), 1);
    assert_eq!(files(outside.path()), before);
    for (inside, _) in &linked {
        assert!(
            !inside.is_symlink(),
            "{} was not replaced",
            inside.display()
        );
    }
}

/// Larder's own rule: docs/decisions/0011-local-files.md.
#[test]
fn store_files_are_private_to_their_owner_with_any_umask() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream).shell_prelude("umask 0");
    let larder = site.serve(&[]);
    assert!(larder.get(&download("left", "1.0.0")).complete);
    larder.wait_until_idle();
    upstream.publish(Crate::new("right", "1.0.0").padding(400_000));
    upstream.fault("/dl/right", Fault::StallBodyAfter(300_000));
    // Includes a file that is still arriving.
    let mut arriving = larder.http().connect().unwrap();
    arriving
        .send("GET", &download("right", "1.0.0"), &[])
        .unwrap();
    arriving.wait_for_answer().unwrap();
    let mut seen = 0;
    for found in walkdir::WalkDir::new(site.store()) {
        let found = found.unwrap();
        let mode = found.metadata().unwrap().permissions().mode() & 0o7777;
        let expected = if found.file_type().is_dir() {
            0o700
        } else {
            0o600
        };
        assert_eq!(mode, expected, "{}: {mode:o}", found.path().display());
        seen += 1;
    }
    assert!(seen > 12, "{seen}");
    assert_eq!(
        fs::metadata(site.store()).unwrap().uid(),
        owner(Path::new("/proc/self"))
    );
}

fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}

#[test]
fn store_replaced_by_a_link_to_an_open_folder_is_not_written_to() {
    let upstream = FakeUpstream::start();
    for name in ["left", "right", "third"] {
        upstream.publish(Crate::new(name, "1.0.0").padding(100_000));
    }
    let site = site(&upstream);
    let larder = site.serve(&["--max-age", "0s"]);
    assert_eq!(larder.get(&entry("left")).status, 200);
    assert!(larder.get(&download("left", "1.0.0")).complete);
    larder.wait_until_idle();

    let parent = site.store().parent().unwrap().to_owned();
    let (away, other) = (parent.join("away"), parent.join("other"));
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o777)).unwrap();
    fs::rename(site.store(), &away).unwrap();
    symlink(&other, site.store()).unwrap();
    for name in ["left", "right"] {
        assert_eq!(larder.get(&entry(name)).status, 200);
        let reply = larder.get(&download(name, "1.0.0"));
        assert!(reply.complete && reply.body == upstream.body(name, "1.0.0"));
    }
    larder.wait_until_idle();
    let found: Vec<_> = fs::read_dir(&other).unwrap().collect();
    assert!(found.is_empty(), "{found:?}");
    larder.wait_for_log("was replaced by a link to another folder");
    let problem = larder.status()["store_problem"].to_string();
    assert!(problem.contains("was replaced by a link"), "{problem}");

    // Back in its place, it is used again.
    fs::remove_file(site.store()).unwrap();
    fs::rename(&away, site.store()).unwrap();
    assert!(larder.get(&download("third", "1.0.0")).complete);
    larder.wait_until_idle();
    assert_eq!(larder.status()["store_problem"], serde_json::Value::Null);
    let sum = upstream.checksum("third", "1.0.0");
    assert!(blob_path(&site, &sum).exists());
    larder.stop();
    let found: Vec<_> = fs::read_dir(&other).unwrap().collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn cachedir_tag_is_made_again_when_it_is_gone() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let tag = site.store().join("CACHEDIR.TAG");
    let before = fs::read(&tag).unwrap();
    fs::remove_file(&tag).unwrap();
    assert!(larder.get(&download("left", "1.0.0")).complete);
    larder.wait_until_idle();
    assert_eq!(fs::read(&tag).unwrap(), before);
}
