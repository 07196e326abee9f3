//! `larder client apply` and `larder client undo` with real files and real cargo.

use std::{fs, path::Path};

use fake_upstream::{Crate, FakeUpstream, crate_path};
use testkit::{
    cargo::{CargoHome, Project},
    larder::Site,
    process::free_address,
};

use crate::fixture::{said, site};

fn site_with(upstream: &FakeUpstream, cargo_home: &Path) -> Site {
    site(upstream).variable("CARGO_HOME", &cargo_home.display().to_string())
}

#[test]
fn cargo_fetches_through_larder_after_apply_and_its_settings_are_restored_by_undo() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let home = CargoHome::empty();
    let settings = home.path().join("config.toml");
    fs::create_dir_all(home.path()).unwrap();
    let before = "# mine\r\n[net]\r\nretry = 0 # at once";
    fs::write(&settings, before).unwrap();
    let site = site_with(&upstream, &home.path());
    let larder = site.serve(&[]);
    let apply = site.command(&["client", "apply"]);
    said(&apply, 0, &["edited ", "larder client undo", "backup in "]);
    let written = fs::read_to_string(&settings).unwrap();
    assert!(written.starts_with(before), "{written}");
    let project = Project::empty().dep("left", "1");
    home.run_plain(&project, &["fetch"]).assert_success();
    assert_eq!(upstream.requests_for(&crate_path("left", "1.0.0")), 1);
    assert_eq!(larder.get("/config.json").status, 200);
    let again = site.command(&["client", "apply"]);
    said(&again, 0, &["has larder's settings already"]);
    assert_eq!(fs::read_to_string(&settings).unwrap(), written);
    said(&site.command(&["client", "undo"]), 0, &["restored "]);
    assert_eq!(fs::read_to_string(&settings).unwrap(), before);
    let none = site.command(&["client", "undo"]);
    said(&none, 0, &["nothing to undo"]);
}

#[test]
fn settings_that_were_edited_after_apply_or_lead_elsewhere_are_left_alone() {
    let upstream = FakeUpstream::start();
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("config.toml");
    // Another daemon of this user may listen at the default address.
    let address = free_address().to_string();
    let site = site_with(&upstream, home.path()).variable("LARDER_LISTEN", &address);
    said(
        &site.command(&["client", "apply"]),
        0,
        &["start `larder serve`"],
    );
    let edited = fs::read_to_string(&settings).unwrap() + "[net]\noffline = true\n";
    fs::write(&settings, &edited).unwrap();
    let refused = site.command(&["client", "undo"]);
    said(
        &refused,
        1,
        &["lines 6, 7 are new or changed", "replace-with = \"larder\""],
    );
    assert_eq!(fs::read_to_string(&settings).unwrap(), edited);
    let moved = site
        .command(&["client", "apply", "--json"])
        .status
        .success();
    assert!(moved, "the settings are there, so nothing is to be done");
    fs::write(&settings, "[net]\noffline = true\n").unwrap();
    said(&site.command(&["client", "undo"]), 0, &["nothing to undo"]);

    let other = "[source.crates-io]\nreplace-with = 'corp'\n";
    fs::write(&settings, other).unwrap();
    let refused = site.command(&["client", "apply"]);
    said(&refused, 1, &["source.crates-io.replace-with = \"corp\""]);
    assert_eq!(fs::read_to_string(&settings).unwrap(), other);

    let by_hand = "[source.crates-io]\nreplace-with = 'larder'\n";
    let fresh = tempfile::tempdir().unwrap();
    fs::write(fresh.path().join("config.toml"), by_hand).unwrap();
    let site = site_with(&upstream, fresh.path());
    said(&site.command(&["client", "undo"]), 1, &["did not write"]);
}

#[test]
fn a_changed_address_is_taken_over_and_undo_still_restores_the_first_bytes() {
    let upstream = FakeUpstream::start();
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("config.toml");
    fs::write(&settings, "# first\n").unwrap();
    let site = site_with(&upstream, home.path());
    said(&site.command(&["client", "apply"]), 0, &["edited"]);
    let larder = site.serve(&[]);
    let moved = site.command(&["client", "apply"]);
    let index = format!("sparse+{}", larder.url());
    said(
        &moved,
        0,
        &["(was \"sparse+http://127.0.0.1:3263/\")", &index],
    );
    assert!(fs::read_to_string(&settings).unwrap().contains(&index));
    said(&site.command(&["client", "undo"]), 0, &["restored"]);
    assert_eq!(fs::read_to_string(&settings).unwrap(), "# first\n");
}

#[test]
fn apply_to_a_project_and_to_rustup_makes_files_that_undo_removes() {
    let upstream = FakeUpstream::start();
    let home = tempfile::tempdir().unwrap();
    let site = site_with(&upstream, home.path());
    let project = Project::empty();
    let flag = format!("--project={}", project.folder().display());
    let apply = site.command(&["client", "apply", &flag]);
    said(&apply, 0, &["edited", &format!("client undo {flag}")]);
    assert!(project.folder().join(".cargo/config.toml").is_file());
    said(&site.command(&["client", "undo", &flag]), 0, &["removed"]);
    assert!(!project.folder().join(".cargo").exists());
    assert!(!home.path().join("config.toml").exists());

    let apply = site.command(&["client", "apply", "rustup"]);
    said(&apply, 0, &["RUSTUP_DIST_SERVER", "put this line into"]);
    let text = String::from_utf8(apply.stdout).unwrap();
    let file = text
        .lines()
        .next()
        .unwrap()
        .strip_prefix("edited ")
        .unwrap();
    assert!(
        fs::read_to_string(file)
            .unwrap()
            .contains("export RUSTUP_UPDATE_ROOT=")
    );
    let undo = site.command(&["client", "undo", "rustup"]);
    said(&undo, 0, &["removed", "unset RUSTUP_DIST_SERVER"]);
    assert!(!Path::new(file).exists());
    let refused = site.command(&["client", "apply", "rustup", "--project"]);
    said(&refused, 1, &["rustup has no settings of a project"]);
}

#[test]
fn apply_with_an_address_points_cargo_at_the_daemon_of_another_machine() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let shared = site(&upstream);
    let shared_daemon = shared.serve_at("127.0.0.2:0", &[]);
    // A machine of the fleet has a store and a daemon of its own, neither of which cargo shall use.
    let home = CargoHome::empty();
    let fleet = site_with(&upstream, &home.path());
    let own_daemon = fleet.serve(&[]);
    let settings = home.path().join("config.toml");
    fs::create_dir_all(home.path()).unwrap();
    let before = "[net]\nretry = 0\n";
    fs::write(&settings, before).unwrap();

    let address = shared_daemon.url().trim_end_matches('/');
    let apply = fleet.command(&["client", "apply", "--address", address]);
    let index = format!("registries.larder.index = \"sparse+{address}/\"");
    said(&apply, 0, &["edited ", &index, "larder client undo`"]);
    let text = String::from_utf8_lossy(&apply.stderr).into_owned();
    assert!(!text.contains("no larder"), "{text}");
    let project = Project::empty().dep("left", "1");
    home.run_plain(&project, &["fetch"]).assert_success();
    let misses = [&shared_daemon, &own_daemon].map(|daemon| daemon.request_count("miss"));
    assert!(misses[0] > 0 && misses[1] == 0, "{misses:?}");
    let doctor = || fleet.command(&["client", "doctor", "cargo"]);
    let reached = format!("packages from larder at {address}");
    said(&doctor(), 0, &[&reached]);
    drop(own_daemon);
    shared_daemon.stop();
    said(
        &doctor(),
        1,
        &["cargo looks for larder at http://127.0.0.2:"],
    );
    said(&fleet.command(&["client", "undo"]), 0, &["restored "]);
    assert_eq!(fs::read_to_string(&settings).unwrap(), before);

    let gone = format!("http://{}/", free_address());
    let apply = fleet.command(&["client", "apply", "--address", &gone]);
    let warning = format!("no larder answers at {gone} now");
    said(&apply, 0, &["edited ", &warning, "larder client doctor"]);
    let wrong = fleet.command(&["client", "apply", "--address", "builder:1"]);
    said(&wrong, 2, &["an address such as http://"]);
}

#[test]
fn apply_of_rustup_with_an_address_names_the_other_machine_in_both_variables() {
    let site = site(&FakeUpstream::start());
    let address = ["--address", "http://builder.example:3263"];
    let apply = site.command(&[&["client", "apply", "rustup"], &address[..]].concat());
    said(
        &apply,
        0,
        &[
            "RUSTUP_DIST_SERVER = \"http://builder.example:3263\"",
            "RUSTUP_UPDATE_ROOT = \"http://builder.example:3263/rustup\"",
        ],
    );
    said(
        &site.command(&["client", "undo", "rustup"]),
        0,
        &["removed"],
    );
}
