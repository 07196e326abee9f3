//! Short forms of the long runs in contrib/soak, where the README says what they check.

use std::path::Path;

use soak::{Report, disk, kills, load};

const LARDER: &str = env!("CARGO_BIN_EXE_larder");

#[track_caller]
fn assert_clean(report: &Report) {
    assert!(
        report.findings.is_empty(),
        "{}\n{}",
        report.findings.join("\n"),
        report.table
    );
}

#[test]
fn some_rounds_of_sigkill_under_load_with_eviction_leave_no_wrong_byte_and_no_leftover() {
    let options = kills::Options { rounds: 6, seed: 1 };
    assert_clean(&kills::run(Path::new(LARDER), &options));
}

#[test]
fn a_few_seconds_of_faults_restarts_and_evictions_give_no_wrong_byte() {
    let options = load::Options {
        seconds: 10,
        seed: 1,
        max_size: 10,
        has_restarts: true,
    };
    assert_clean(&load::run(Path::new(LARDER), &options));
}

#[test]
#[expect(
    clippy::print_stderr,
    reason = "says that this machine cannot run the test"
)]
fn a_disk_that_is_filled_and_freed_under_load_refuses_no_client() {
    let options = disk::Options {
        rounds: 1,
        seed: 1,
        file_system: disk::FileSystem::Tmpfs,
    };
    match disk::run(Path::new(LARDER), &options) {
        Ok(report) => assert_clean(&report),
        Err(error) => eprintln!("SKIPPED: no file system can be mounted here: {error}"),
    }
}
