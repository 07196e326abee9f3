//! Reasons for which the built daemon refuses to start: the exit code, and one line that names the object and the
//! cause.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::fixture::site_at;
use testkit::larder::Site;

/// No server listens there; the daemon exits before it sends a request.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// Runs `larder serve` with these arguments. Checks the exit code, and that stderr is one line that contains `parts`.
#[track_caller]
fn check_refused(site: Site, arguments: &[&str], code: i32, parts: &[&str]) {
    let arguments: Vec<String> = ["serve"]
        .iter()
        .chain(arguments)
        .map(|&argument| argument.to_owned())
        .collect();
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || ended.send(site.command(&arguments)));
    let output = wait
        .recv_timeout(Duration::from_secs(20))
        .expect("larder should have ended at once");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(output.stdout, b"");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: "), "{said}");
    for part in parts {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
}

fn site() -> Site {
    site_at(NOWHERE)
}

/// Valid arguments.
const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn port_in_use_is_named_with_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let parts = [
        &*format!("cannot listen on {address} ("),
        "in use",
        "`--listen`",
    ];
    check_refused(site(), &["--listen", &address], 1, &parts);
}

#[test]
fn store_writable_by_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o720, 0o702, 0o777] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let store = folder.path().display();
        let parts = [
            &*format!("cannot use {store} as the store: "),
            "other users may write to it",
        ];
        check_refused(site().store_in(folder.path()), &LISTEN, 1, &parts);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn store_of_another_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other_user = Some(65_534);
    // Only root can change the owner. For other users, the root folder belongs to another user.
    let given = std::os::unix::fs::chown(folder.path(), other_user, other_user).is_ok();
    let store = if given { folder.path() } else { Path::new("/") };
    let parts = [
        "cannot use ",
        "as the store: ",
        "it belongs to user ",
        "larder ...`), take it over with `chown -R ",
    ];
    check_refused(site().store_in(store), &LISTEN, 1, &parts);
}

#[test]
fn store_below_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = file.path().join("store");
    let parts = [&*format!("cannot use {} as the store: ", store.display())];
    check_refused(site().store_in(&store), &LISTEN, 1, &parts);
}

#[test]
fn unusable_root_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let rubbish = folder.path().join("rubbish.pem");
    std::fs::write(&rubbish, "no certificate").unwrap();
    let broken = folder.path().join("broken.pem");
    std::fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for name in ["missing.pem", "rubbish.pem", "broken.pem", ""] {
        let path = folder.path().join(name);
        let path = path.to_str().unwrap();
        check_refused(
            site(),
            &[&LISTEN[..], &["--ca-file", path]].concat(),
            1,
            &[path],
        );
    }
}

#[test]
fn invalid_settings_file_is_a_usage_error_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let path = path.to_str().unwrap();
    for (text, parts) in [
        ("offline = false\nmax-aeg = \"5m\"\n", ["line 2", "max-aeg"]),
        (
            "[registry.corp]\nindex = \"http://127.0.0.1:9/\"\ntoken = \"x\"\n",
            ["line 3", "token"],
        ),
        ("max-age = \"soon\"\n", ["max-age", "soon"]),
        ("h2c = \"maybe\"\n", ["line 1", "expected one of"]),
        ("offline = \n", ["line 1", "config.toml"]),
    ] {
        std::fs::write(path, text).unwrap();
        let arguments = [&LISTEN[..], &["--config", path]].concat();
        check_refused(
            site(),
            &arguments,
            2,
            &[&["config.toml"], &parts[..]].concat(),
        );
    }
    let arguments = [&LISTEN[..], &["--config", "/nowhere/config.toml"]].concat();
    check_refused(site(), &arguments, 2, &["/nowhere/config.toml"]);
}

#[test]
fn index_that_is_no_http_url_is_a_usage_error() {
    for index in [
        "ftp://127.0.0.1/",
        "127.0.0.1",
        "file:///tmp/index",
        "http://127.0.0.1:9/?a=b",
    ] {
        let site = site_at(index);
        check_refused(
            site,
            &LISTEN,
            2,
            &[&format!("flag --index: cannot use `{index}`: ")],
        );
    }
}
