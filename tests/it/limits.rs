//! Limits of the system and of larder, reached under the built daemon (docs/limits.md).

#![allow(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use tempfile::TempDir;

use testkit::larder::Site;
use testkit::paths::{download, entry};

/// A larder whose user may have `threads` threads. It lives in `folder`. The system counts the threads of all processes
/// of `user`, so each test has a user that runs nothing else.
fn site_with_threads(upstream: &FakeUpstream, folder: &Path, user: u32, threads: usize) -> Site {
    let (program, store) = (folder.join("larder"), folder.join("store"));
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_larder"), &program).unwrap();
        fs::create_dir(&store).unwrap();
    }
    let limited = format!("prlimit --nproc={threads} \"$0\" \"$@\"");
    let prelude = if is_root() {
        chown(folder, Some(user), None).unwrap();
        chown(&store, Some(user), None).unwrap();
        format!("exec setpriv --reuid={user} --clear-groups {limited}")
    } else {
        // The threads of a new user namespace are counted by themselves.
        format!("exec unshare --user {limited}")
    };
    Site::new(program.to_str().unwrap(), &upstream.url())
        .store_in(&store)
        .shell_prelude(&prelude)
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

#[test]
fn daemon_with_few_threads_answers_every_request_and_survives() {
    let upstream = FakeUpstream::start();
    let names: Vec<_> = (0..8).map(|n| format!("left{n}")).collect();
    for name in &names {
        upstream.publish(Crate::new(name, "1.0.0").padding(300_000));
    }
    let folder = TempDir::new().unwrap();
    for threads in [7, 8, 9, 10, 12] {
        let site = site_with_threads(&upstream, folder.path(), 54_321, threads);
        let larder = site.serve(&[]);
        std::thread::scope(|scope| {
            for name in &names {
                let (larder, upstream) = (&larder, &upstream);
                scope.spawn(move || {
                    let reply = larder.get(&entry(name));
                    assert!(reply.body == upstream.index_body(name), "{}", reply.text());
                    let reply = larder.get(&download(name, "1.0.0"));
                    assert!(reply.complete && reply.body == upstream.body(name, "1.0.0"));
                });
            }
        });
        larder.wait_until_idle();
        let log = larder.stop();
        assert!(!log.contains("panicked"), "{threads} threads: {log}");
    }
}

#[test]
fn daemon_without_threads_says_so_and_ends() {
    let upstream = FakeUpstream::start();
    let folder = TempDir::new().unwrap();
    for threads in [1, 2] {
        let site = site_with_threads(&upstream, folder.path(), 54_322, threads);
        let output = site.command(&["serve", "--listen", "127.0.0.1:0"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{threads} threads: {text}");
        assert!(
            text.contains("threads") && text.contains("ulimit -u"),
            "{text}"
        );
        assert!(!text.contains("panicked"), "{text}");
    }
}
