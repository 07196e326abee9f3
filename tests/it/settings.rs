//! Settings as users write them: forgiving values, and errors that name the place.

use std::fs;
use std::process::Output;

use fake_upstream::FakeUpstream;
use tempfile::TempDir;

use crate::fixture::{site, site_at};
use testkit::process::free_address;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn offline_variable_takes_a_one() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream).variable("LARDER_OFFLINE", "1");
    let larder = site.serve(&[]);
    assert_eq!(larder.status()["offline"], true);
}

#[test]
fn empty_variables_count_as_not_set() {
    let upstream = FakeUpstream::start();
    let mut site = site_at(&upstream.url());
    for name in [
        "STORE", "OFFLINE", "MAX_AGE", "INDEX", "LISTEN", "JOBS", "CONFIG", "H2C", "CA_FILE",
    ] {
        site = site.variable(&format!("LARDER_{name}"), "");
    }
    let larder = site.serve(&[]);
    assert_eq!(larder.status()["offline"], false);
    let output = site.command(&["status"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn tilde_in_a_path_is_the_home_folder() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream);
    let output = site.command(&["check", "--config=~/larder.toml"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("/home/larder.toml"), "{output:?}");
}

#[test]
fn fault_in_a_variable_names_it_and_only_commands_that_use_it_fail() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream)
        .variable("LARDER_MAX_AGE", "soon")
        .variable("LARDER_CA_FILE", "/nowhere/ca.pem");
    let output = site.command(&["warm"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let expected = "error: variable LARDER_MAX_AGE: cannot use `soon`: ";
    assert!(stderr(&output).starts_with(expected), "{output:?}");
    let output = site.command(&["status"]);
    assert!(output.status.success(), "{output:?}");
    let empty = TempDir::new().unwrap();
    let output = site.command(&["check", &empty.path().display().to_string()]);
    assert!(!stderr(&output).contains("ca.pem"), "{output:?}");
}

#[test]
fn missing_certificates_do_not_stop_an_offline_daemon() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream).variable("LARDER_CA_FILE", "/nowhere/ca.pem");
    let output = site.command(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let larder = site.serve(&["--offline"]);
    assert_eq!(larder.status()["offline"], true);
}

#[test]
fn misspelt_key_is_answered_with_the_right_one_and_its_line() {
    let upstream = FakeUpstream::start();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("larder.toml");
    fs::write(&config, "offline = true\nmax-aeg = \"5m\"\n").unwrap();
    let config = config.display().to_string();
    let output = site(&upstream).command(&["status", "--config", &config]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let expected = format!("{config}, line 2: unknown key `max-aeg`; did you mean `max-age`?");
    assert!(stderr(&output).contains(&expected), "{output:?}");
}

#[test]
fn durations_need_no_unit_and_addresses_no_port() {
    let upstream = FakeUpstream::start();
    let site = site(&upstream)
        .variable("LARDER_MAX_AGE", "90")
        .variable("LARDER_LISTEN", "127.0.0.1");
    let output = site.command(&["client", "print"]);
    assert!(output.status.success(), "{output:?}");
    let larder = site.serve(&["--upstream-timeout", "3"]);
    larder.stop();
}

#[test]
fn index_that_is_larders_own_address_is_refused() {
    let listen = free_address().to_string();
    let site = site_at(&format!("http://{listen}/"));
    let output = site.command(&["serve", "--listen", &listen]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        stderr(&output).contains("is larder's own address"),
        "{output:?}"
    );
}
