//! Faults of the disk, by table: each fault for each kind of stored file, while larder runs.
//!
//! | fault | begins |
//! |---|---|
//! | full disk, failed sync of a file or folder, failed rename | before a file is fetched |
//! | failed read, rot | after a file is stored |
//!
//! `testkit::faults` makes system calls fail. Faults that need no help are in `disk` and `integrity`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use fake_upstream::{Crate, FakeUpstream, HOST, Toolchain};

use crate::dist::serve;
use crate::fixture::site;
use testkit::faults::{Faults, Operation};
use testkit::larder::{Larder, Site};
use testkit::paths::{download, entry};
use testkit::process::wait_until;
use testkit::store::files;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// A kind of stored file and the requests for two of them: one before the fault and one during it.
struct Kind {
    name: &'static str,
    paths: [String; 2],
}

fn upstream() -> FakeUpstream {
    let upstream = FakeUpstream::start();
    for time in ["before", "during"] {
        upstream.publish(Crate::new(time, "1.0.0").padding(2_000));
        // Larger than what stays in memory during a download.
        upstream.publish(Crate::new(&format!("{time}-large"), "1.0.0").padding(600_000));
    }
    for (channel, version) in [("stable", "1.95.0"), ("beta", "1.96.0-beta.1")] {
        upstream.release(&Toolchain::new(channel, version).date("2026-04-16"));
    }
    upstream
}

fn kinds() -> [Kind; 5] {
    let archive = |channel, version| {
        let release = Toolchain::new(channel, version).date("2026-04-16");
        format!("{}.xz", release.archive_path("rustc", HOST))
    };
    let manifest = |channel| format!("/dist/channel-rust-{channel}.toml");
    [
        Kind {
            name: "index entry",
            paths: ["before", "during"].map(entry),
        },
        Kind {
            name: "small crate",
            paths: ["before", "during"].map(|name| download(name, "1.0.0")),
        },
        Kind {
            name: "large crate",
            paths: ["before-large", "during-large"].map(|name| download(name, "1.0.0")),
        },
        Kind {
            name: "manifest",
            paths: ["stable", "beta"].map(manifest),
        },
        Kind {
            name: "archive",
            paths: [
                archive("stable", "1.95.0"),
                archive("beta", "1.96.0-beta.1"),
            ],
        },
    ]
}

/// The body that upstream has at a path of larder.
fn truth(upstream: &FakeUpstream, path: &str) -> Vec<u8> {
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("crates"), Some(name)) => upstream.body(name, "1.0.0").to_vec(),
        (Some("dist"), _) => testkit::http::Http::to(upstream.base_url()).get(path).body,
        _ => upstream
            .index_body(path.rsplit('/').next().unwrap_or_default())
            .to_vec(),
    }
}

/// Requests `path`. The answer is right, or an error in a line of text that says what failed. Returns whether it is
/// right.
#[track_caller]
fn ask(larder: &Larder<'_>, upstream: &FakeUpstream, path: &str, fault: &str) -> bool {
    let reply = larder.get(path);
    if reply.status == 200 {
        let is_right = reply.complete && reply.body == truth(upstream, path);
        assert!(is_right, "{fault}: {path}");
        return true;
    }
    let text = reply.text();
    assert!(
        [424, 503].contains(&reply.status),
        "{fault}: {path}: {text}"
    );
    assert_eq!(text.lines().count(), 1, "{fault}: {path}: {text}");
    assert!(text.len() > 40, "{fault}: {path}: {text}");
    false
}

/// The files in staging, besides the two that each process has.
fn leftovers(site: &Site) -> Vec<PathBuf> {
    let staged = files(&site.store().join("v1/staging"));
    let paths = staged.into_iter().map(|(path, _)| path);
    let is_left = |path: &PathBuf| !path.ends_with("lock") && !path.ends_with("daemon.json");
    paths.filter(is_left).collect()
}

/// The entries and blobs with their contents.
fn stored(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = ["v1/entries", "v1/blobs"];
    folders
        .iter()
        .flat_map(|folder| files(&site.store().join(folder)))
        .collect()
}

/// A fault of writing: what is fetched meanwhile is right for the client and may not be stored; the rest stays.
fn check_fault_of_writing(name: &str, operation: Operation, error: i32, below: &str, words: &str) {
    let upstream = upstream();
    let (faults, site) = Faults::of(site(&upstream));
    let larder = serve(&site, &upstream, &[]);
    for Kind {
        paths: [before, _], ..
    } in kinds()
    {
        assert!(ask(&larder, &upstream, &before, name), "{before}");
    }
    larder.wait_until_idle();
    let kept = stored(&site);

    faults.begin(operation, error, below);
    for Kind { name: kind, paths } in kinds() {
        for path in &paths {
            assert!(
                ask(&larder, &upstream, path, name),
                "{name}: {kind} is not served"
            );
        }
        larder.wait_until_idle();
        assert_eq!(leftovers(&site), Vec::<PathBuf>::new(), "{name}: {kind}");
    }
    larder.wait_for_log("served but not stored");
    larder.wait_for_log(words);
    let now = stored(&site);
    for file in &kept {
        assert!(now.contains(file), "{name}: {} is lost", file.0.display());
    }

    faults.end();
    for Kind { paths, .. } in kinds() {
        for path in &paths {
            assert!(ask(&larder, &upstream, path, name), "after {name}: {path}");
        }
    }
    larder.wait_until_idle();
    larder.stop();
    let larder = serve(&site, &upstream, &["--offline"]);
    for Kind { name: kind, paths } in kinds() {
        for path in &paths {
            assert!(
                ask(&larder, &upstream, path, name),
                "{kind} is not stored after {name}"
            );
        }
    }
    let verified = site.command(&["verify"]);
    assert!(verified.status.success(), "{name}: {verified:?}");
}

#[test]
fn a_full_disk_stops_storing_and_neither_serving_nor_what_is_stored() {
    check_fault_of_writing(
        "full disk",
        Operation::Write,
        ENOSPC,
        "v1/staging",
        "no space left",
    );
}

#[test]
fn a_failed_sync_of_a_file_publishes_nothing() {
    check_fault_of_writing(
        "failed sync of files",
        Operation::Sync,
        EIO,
        "v1/staging",
        "os error 5",
    );
}

#[test]
fn a_failed_rename_publishes_nothing() {
    check_fault_of_writing("failed rename", Operation::Rename, EIO, "v1/", "os error 5");
}

#[test]
fn a_failed_sync_of_a_folder_counts_as_not_stored() {
    for below in ["v1/entries", "v1/blobs"] {
        check_fault_of_writing(
            "failed sync of folders",
            Operation::Sync,
            EIO,
            below,
            "os error 5",
        );
    }
}

#[test]
fn serve_on_a_full_disk_serves_what_is_stored_and_stores_again_once_there_is_space() {
    let upstream = upstream();
    let (faults, site) = Faults::of(site(&upstream));
    store_one_of_each_kind(serve(&site, &upstream, &[]), &upstream);
    let kept = stored(&site);

    for operation in [Operation::Create, Operation::Write] {
        faults.begin(operation, ENOSPC, "");
        let larder = serve(&site, &upstream, &[]);
        for Kind { name: kind, paths } in kinds() {
            for path in &paths {
                let is_right = ask(&larder, &upstream, path, "full disk");
                assert!(is_right, "{operation:?}: {kind} is not served");
            }
        }
        larder.wait_until_idle();
        let log = larder.stop();
        assert_eq!(stored(&site), kept, "{operation:?}");
        let first = log.lines().next().unwrap_or_default();
        let is_told = operation == Operation::Write
            || (first.contains("the disk of the store is full") && first.contains("free some"));
        assert!(is_told, "{log}");
    }

    faults.begin(Operation::Create, ENOSPC, "");
    let larder = serve(&site, &upstream, &[]);
    assert!(ask(&larder, &upstream, &entry("during"), "full disk"));
    faults.end();
    larder.wait_for_log("the disk of the store has space again");
    wait_until("other commands find the daemon", || {
        let status = site.command(&["status", "--json"]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        status.contains(larder.url())
    });
    for Kind { paths, .. } in kinds() {
        assert!(ask(&larder, &upstream, &paths[1], "after a full disk"));
    }
    larder.wait_until_idle();
    larder.stop();
    let larder = serve(&site, &upstream, &["--offline"]);
    for Kind { name: kind, paths } in kinds() {
        let is_stored = ask(&larder, &upstream, &paths[1], "after a full disk");
        assert!(is_stored, "{kind} is not stored");
    }
}

/// A file system without free blocks cannot create the folder of a process.
#[test]
fn gc_and_forget_make_space_on_a_full_disk() {
    let upstream = upstream();
    let (faults, site) = Faults::of(site(&upstream));
    store_one_of_each_kind(serve(&site, &upstream, &[]), &upstream);
    let kept = stored(&site).len();
    faults.begin(Operation::Create, ENOSPC, "v1/staging");
    let forget = site.command(&["forget", "before", "1.0.0"]);
    assert!(forget.status.success(), "{forget:?}");
    let left = stored(&site).len();
    assert!(left < kept, "{forget:?}");
    let gc = site.command(&["gc", "--max-size", "0"]);
    assert!(gc.status.success(), "{gc:?}");
    assert!(stored(&site).len() < left, "{gc:?}");
}

/// A stored file that cannot be read is fetched again. Offline, the client is told why, and the file stays: the next
/// read may succeed.
#[test]
fn a_failed_read_is_answered_from_upstream_or_named_and_loses_nothing() {
    let upstream = upstream();
    let (faults, site) = Faults::of(site(&upstream));
    let larder = serve(&site, &upstream, &[]);
    for kind in kinds() {
        assert!(ask(&larder, &upstream, &kind.paths[0], "no fault"));
    }
    larder.wait_until_idle();
    larder.stop();
    let kept = stored(&site);
    for is_offline in [true, false] {
        for folder in ["v1/entries", "v1/blobs"] {
            // Nothing is in memory yet.
            let larder = serve(
                &site,
                &upstream,
                if is_offline { &["--offline"] } else { &[] },
            );
            faults.begin(Operation::Read, EIO, folder);
            let mut failed = 0;
            for kind in kinds() {
                let path = &kind.paths[0];
                if ask(&larder, &upstream, path, "failed read") {
                    continue;
                }
                failed += 1;
                assert!(is_offline, "{}: upstream has it", kind.name);
                let text = larder.get(path).text();
                let is_named = text.contains("os error 5") && text.contains("check the disk");
                let is_missing = text.contains("run `larder warm`");
                assert!(is_named || is_missing, "{}: {text}", kind.name);
            }
            assert_eq!(failed > 0, is_offline, "{folder}");
            larder.wait_for_log("cannot read the stored copy");
            larder.wait_for_log("os error 5");
            larder.wait_until_idle();
            assert_eq!(leftovers(&site), Vec::<PathBuf>::new());
            faults.end();
            for kind in kinds() {
                let is_right = ask(&larder, &upstream, &kind.paths[0], "after a failed read");
                assert!(is_right, "{}", kind.name);
            }
            larder.wait_until_idle();
            let now: BTreeMap<_, _> = stored(&site).into_iter().collect();
            for (path, content) in &kept {
                let is_blob = path.starts_with(site.store().join("v1/blobs"));
                let is_kept = now.get(path).is_some_and(|now| now == content || !is_blob);
                assert!(is_kept, "{} is lost", path.display());
            }
            larder.stop();
        }
    }
}

/// Requests one file of each kind, and stops the daemon once they are stored.
fn store_one_of_each_kind(larder: Larder<'_>, upstream: &FakeUpstream) {
    for Kind {
        paths: [path, _], ..
    } in kinds()
    {
        assert!(ask(&larder, upstream, &path, "no fault"), "{path}");
    }
    larder.wait_until_idle();
    larder.stop();
}

/// Each byte of a small file in turn would take long: the first, the last and some in between.
#[test]
fn rot_of_any_kind_of_file_is_fetched_again_and_refused_offline() {
    let upstream = upstream();
    let site = site(&upstream);
    let larder = serve(&site, &upstream, &[]);
    store_one_of_each_kind(larder, &upstream);
    let kept = stored(&site);
    for part in [0, 1, 37, 50, 99, 100] {
        for (path, content) in &kept {
            let mut rotten = content.clone();
            let at = (content.len() - 1) * part / 100;
            rotten[at] ^= 1 << (part % 8);
            fs::write(path, rotten).unwrap();
        }
        for (flags, is_served) in [
            (&["--offline"][..], false),
            (&[], true),
            (&["--offline"], true),
        ] {
            let larder = serve(&site, &upstream, flags);
            for Kind {
                name: kind,
                paths: [before, _],
            } in kinds()
            {
                let answered = ask(&larder, &upstream, &before, "rot");
                assert_eq!(answered, is_served, "{kind}, larder serve {flags:?}");
            }
            larder.wait_until_idle();
            larder.stop();
        }
        assert_eq!(leftovers(&site), Vec::<PathBuf>::new());
    }
}

/// The place of the last operation of this name on a path that begins so.
#[track_caller]
fn last(operations: &[(String, String)], name: &str, path: &str) -> usize {
    let is_it = |(known, at): &(String, String)| known == name && at.starts_with(path);
    let found = operations.iter().rposition(is_it);
    found.unwrap_or_else(|| panic!("no {name} of {path} in {operations:#?}"))
}

/// See `store/staging.rs`.
#[test]
fn a_file_is_written_and_synced_before_its_rename_and_its_folder_after_it() {
    let upstream = upstream();
    let (faults, site) = Faults::of(site(&upstream));
    let larder = serve(&site, &upstream, &[]);
    for Kind {
        name: kind,
        paths: [path, _],
    } in kinds()
    {
        let start = faults.operations().len();
        assert!(ask(&larder, &upstream, &path, "no fault"), "{path}");
        larder.wait_until_idle();
        let operations = faults.operations().split_off(start);
        let published: Vec<_> = operations
            .iter()
            .filter(|(name, _)| name == "rename")
            .collect();
        assert!(!published.is_empty(), "{kind}");
        for (_, place) in published {
            let (folder, _) = place.rsplit_once('/').unwrap();
            let rename = last(&operations, "rename", place);
            let synced = operations[..rename]
                .iter()
                .filter(|(name, at)| name == "sync" && at.starts_with("v1/staging"));
            assert!(synced.count() > 0, "{kind}: {place} was renamed unsynced");
            // Written by its staged name only.
            let written = operations
                .iter()
                .any(|(name, at)| name == "write" && at == place);
            assert!(!written, "{kind}: {place} was written in place");
            let sync = operations
                .iter()
                .rposition(|(name, at)| name == "sync" && at == folder);
            assert!(
                sync.is_some_and(|sync| sync > rename),
                "{kind}: {folder} was not synced"
            );
        }
    }
}

/// A daemon's start lists only staging, and reads no stored file, however many there are.
#[test]
fn a_start_lists_and_reads_nothing_that_is_stored() {
    let upstream = upstream();
    let (faults, site) = Faults::of(site(&upstream));
    let larder = serve(&site, &upstream, &[]);
    store_one_of_each_kind(larder, &upstream);
    let start = faults.operations().len();
    let larder = serve(
        &site,
        &upstream,
        &["--scrub-rate", "0", "--keep-warm", "false"],
    );
    // `/-/ready` looks into the folders.
    assert_eq!(larder.get("/-/health").status, 200);
    for (name, path) in faults.operations().split_off(start) {
        let is_content = path.starts_with("v1/entries") || path.starts_with("v1/blobs");
        assert!(!is_content, "{name} {path}");
    }
}
