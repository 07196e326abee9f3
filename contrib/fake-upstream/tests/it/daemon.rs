//! The testkit's daemon handling, tested with a shell script instead of larder: readiness, log, shutdown.

use testkit::larder::Site;

const SCRIPT: &str = r#"
trap 'echo bye >&2; exit 0' TERM
echo "asked: $*" >&2
echo "home: $HOME, path of the tests: ${CARGO_MANIFEST_DIR-none}" >&2
echo "preparing"
echo "listening on http://127.0.0.1:1/"
while :; do sleep 0.02; done
"#;

/// The shell runs the file whose name is the command.
fn site(script: &str) -> Site {
    let site = Site::new("/bin/sh", "http://upstream.example/index/");
    let folder = site
        .store()
        .parent()
        .expect("the store is in the site's folder");
    for command in ["serve", "warm"] {
        std::fs::write(folder.join(command), script).expect("the temporary folder is writable");
    }
    site
}

#[test]
fn daemon_is_ready_after_its_announcement_and_stops_orderly() {
    let site = site(SCRIPT);
    let larder = site.serve(&["--offline"]);
    assert_eq!(larder.url(), "http://127.0.0.1:1/");
    larder.wait_for_log("path of the tests: none");
    let larder = larder.restart_on_same_port(&["--offline"]);
    larder.wait_for_log("--listen 127.0.0.1:1 --offline");
    let log = larder.stop();
    assert!(
        log.contains("asked: --store") && log.ends_with("bye\n"),
        "{log}"
    );
    site.serve(&[]).kill();
}

#[test]
#[should_panic(expected = "no such address")]
fn daemon_that_exits_early_fails_the_test_with_its_stderr() {
    let _ = site("echo no such address >&2; exit 1").serve(&[]);
}

#[test]
fn one_shot_command_gets_store_and_index() {
    let output = site("echo $*").command(&["warm", "some/path"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.ends_with("/store --index http://upstream.example/index/ some/path\n"),
        "{said}"
    );
}
