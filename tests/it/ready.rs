//! `check`'s verdict on projects, judged by real cargo with an empty home behind an offline larder.

use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};

use crate::fixture::site;

/// A larder's site with cargo in `PATH`, and the compiler that cargo asks about targets.
fn site_with_cargo(upstream: &FakeUpstream) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
}

fn manifest(more: &str) -> String {
    format!(
        "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n\n{more}"
    )
}

/// Runs a command with `--json` on a project; returns the document and the exit code.
#[track_caller]
fn run_json(site: &Site, command: &[&str], project: &Project) -> (Value, i32) {
    let folder = project.folder().display().to_string();
    let mut all = command.to_vec();
    all.extend([folder.as_str(), "--json"]);
    let output = site.command(&all);
    let document = serde_json::from_slice(&output.stdout);
    let document = document.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (document, output.status.code().unwrap_or(-1))
}

/// The verdict of `check`, and the proof of `cargo fetch --locked`.
#[track_caller]
fn verdict_and_truth(site: &Site, offline: &Larder<'_>, project: &Project) -> (bool, bool, String) {
    let (verdict, code) = run_json(site, &["check"], project);
    let is_ready = verdict["ready"] == true;
    assert_eq!(code == 0, is_ready, "{verdict:#}");
    let fetch = CargoHome::empty().run(project, &["fetch", "--locked"], offline.url());
    let text = format!("{verdict:#}\n{fetch:?}");
    (is_ready, fetch.status.success(), text)
}

#[test]
fn project_outside_the_home_folder_uses_the_registries_of_the_user_s_cargo_home() {
    let (upstream, corp) = (FakeUpstream::start(), FakeUpstream::start());
    corp.publish(Crate::new("inner", "1.0.0"));
    let user = TempDir::new().unwrap();
    let settings = user.path().join("larder.toml");
    let text = format!("[registry.corp]\nindex = \"sparse+{}\"\n", corp.url());
    fs::write(&settings, text).unwrap();
    let cargo_home = user.path().join("cargo");
    fs::create_dir(&cargo_home).unwrap();
    let write_settings = |address: &str| {
        let text = format!(
            "[registries.corp]\nindex = \"sparse+{0}\"\n[source.corp]\nregistry = \"sparse+{0}\"\n\
             replace-with = \"larder-corp\"\n[registries.larder-corp]\nindex = \"sparse+{address}registry/corp/\"\n",
            corp.url()
        );
        fs::write(cargo_home.join("config.toml"), text).unwrap();
    };
    let site = site_with_cargo(&upstream).variable("CARGO_HOME", &cargo_home.display().to_string());
    let project = Project::empty().dep_line("inner = { version = \"1\", registry = \"corp\" }");
    let with_settings = ["--config", &settings.display().to_string()];
    let larder = site.serve(&with_settings);
    write_settings(larder.url());
    let (report, code) = run_json(&site, &[&["warm"], &with_settings[..]].concat(), &project);
    assert_eq!(code, 0, "{report:#}");
    larder.stop();
    corp.stop();
    let offline = site.serve(&[&with_settings[..], &["--offline"]].concat());
    write_settings(offline.url());
    let (verdict, code) = run_json(&site, &[&["check"], &with_settings[..]].concat(), &project);
    assert_eq!(code, 0, "{verdict:#}");
}

#[test]
fn dependency_that_moves_to_another_registry_is_not_ready() {
    let (upstream, corp) = (FakeUpstream::start(), FakeUpstream::start());
    for registry in [&upstream, &corp] {
        registry.publish(Crate::new("left", "1.2.0"));
    }
    let user = TempDir::new().unwrap();
    let settings = user.path().join("larder.toml");
    let index = format!("sparse+{}", corp.url());
    fs::write(&settings, format!("[registry.corp]\nindex = \"{index}\"\n")).unwrap();
    let site =
        site_with_cargo(&upstream).variable("LARDER_CONFIG", &settings.display().to_string());
    let project = Project::empty();
    let named = format!("[registries.corp]\nindex = \"{index}\"\n");
    project.write(".cargo/config.toml", &named);
    let write = |dependencies: &str| project.write("Cargo.toml", &manifest(dependencies));
    let lock = || {
        CargoHome::empty()
            .run(&project, &["generate-lockfile"], &upstream.url())
            .assert_success();
        let (report, code) = run_json(&site, &["warm"], &project);
        assert_eq!(code, 0, "{report:#}");
    };
    let of_crates_io = "[dependencies]\nleft = \"1.2\"\n";
    let of_corp = "[dependencies]\nleft = { version = \"1.2\", registry = \"corp\" }\n";
    let by_index =
        format!("[dependencies]\nleft = {{ version = \"1.2\", registry-index = \"{index}\" }}\n");
    let inherited = format!(
        "[dependencies]\nleft.workspace = true\n[workspace.{}",
        &of_corp[1..]
    );
    write(of_crates_io);
    lock();
    let offline = site.serve(&["--offline"]);
    let judge = |what: &str, expected: bool| {
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!((is_ready, is_true), (expected, expected), "{what}: {text}");
    };
    judge("as locked", true);
    for moved in [of_corp, &by_index, &inherited] {
        write(moved);
        judge(moved, false);
    }
    project.write(".cargo/config.toml", "");
    write(of_corp);
    judge("no settings name the registry", false);
}

/// Changes of a manifest that has `left = "1"` locked, each with whether the lock file still fits.
const CHANGES: [(&str, bool, &str); 16] = [
    ("nothing", true, "[dependencies]\nleft = \"1\"\n"),
    (
        "another spelling",
        true,
        "[dependencies]\nleft = \">=1, <2\"\n",
    ),
    (
        "another name",
        true,
        "[dependencies]\nother = { package = \"left\", version = \"1\" }\n",
    ),
    (
        "no default features",
        true,
        "[dependencies]\nleft = { version = \"1\", default-features = false }\n",
    ),
    (
        "added",
        false,
        "[dependencies]\nleft = \"1\"\nstored = \"1\"\n",
    ),
    (
        "added and not stored",
        false,
        "[dependencies]\nleft = \"1\"\nfar = \"1\"\n",
    ),
    (
        "added for tests",
        false,
        "[dependencies]\nleft = \"1\"\n[dev-dependencies]\nstored = \"1\"\n",
    ),
    (
        "added for another target",
        false,
        "[dependencies]\nleft = \"1\"\n[target.'cfg(windows)'.dependencies]\nstored = \"1\"\n",
    ),
    (
        "added and optional",
        false,
        "[dependencies]\nleft = \"1\"\nstored = { version = \"1\", optional = true }\n",
    ),
    ("removed", false, ""),
    ("newer", false, "[dependencies]\nleft = \"1.1\"\n"),
    (
        "a feature without needs",
        true,
        "[dependencies]\nleft = { version = \"1\", features = [\"plain\"] }\n",
    ),
    (
        "a feature with needs",
        false,
        "[dependencies]\nleft = { version = \"1\", features = [\"more\"] }\n",
    ),
    (
        "a feature that is weak",
        false,
        "[dependencies]\nleft = { version = \"1\", features = [\"weak\"] }\n",
    ),
    (
        "a feature of its own with needs",
        false,
        "[dependencies]\nleft = \"1\"\n[features]\nall = [\"left/more\"]\n",
    ),
    (
        "a feature of its own without needs",
        true,
        "[dependencies]\nleft = \"1\"\n[features]\nall = [\"left/plain\"]\n",
    ),
];

/// Features that the locked version of `left` or the project lacks.
const UNKNOWN_FEATURES: [&str; 6] = [
    "[dependencies]\nleft = { version = \"1\", features = [\"nope\"] }\n",
    "[dependencies]\nleft = \"1\"\n[features]\nall = [\"left/nope\"]\n",
    "[dependencies]\nleft = { version = \"1\", optional = true }\n[features]\nall = [\"left?/nope\"]\n",
    "[dependencies]\nleft = \"1\"\n[features]\nall = [\"nope\"]\n",
    "[dependencies]\nleft = \"1\"\n[features]\nall = [\"nope/plain\"]\n",
    // `dep:stored` hides the feature of this name.
    "[dependencies]\nleft = { version = \"1\", features = [\"stored\"] }\n",
];

fn publish(upstream: &FakeUpstream) {
    upstream.publish(Crate::new("stored", "1.0.0").feature("extra", &[]));
    upstream.publish(Crate::new("needed", "1.0.0"));
    upstream.publish(Crate::new("far", "1.0.0"));
    upstream.publish(
        Crate::new("left", "1.0.0")
            .dep("needed", "^1")
            .optional_dep("stored", "^1")
            .feature("plain", &[])
            .feature("more", &["dep:stored"])
            .feature("weak", &["stored?/extra"]),
    );
}

#[test]
fn lock_file_that_no_longer_fits_its_manifest_is_not_ready() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site_with_cargo(&upstream);
    let lock = Project::empty().dep("left", "1").dep("stored", "1");
    let index = upstream.url();
    CargoHome::empty()
        .run(&lock, &["generate-lockfile"], &index)
        .assert_success();
    run_json(&site, &["warm"], &lock);
    let locked = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&locked, &["generate-lockfile"], &index)
        .assert_success();
    upstream.publish(Crate::new("left", "1.1.0"));
    let offline = site.serve(&["--offline"]);
    for (what, fits, dependencies) in CHANGES {
        let project = Project::empty();
        project.write("Cargo.toml", &manifest(dependencies));
        project.write("Cargo.lock", &locked.lock());
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!(is_true, fits, "cargo on {what}: {text}");
        assert_eq!(is_ready, fits, "{what}: {text}");
        if !fits {
            assert!(
                text.contains("Cargo.lock does not fit Cargo.toml"),
                "{text}"
            );
            let (report, code) = run_json(&site, &["warm"], &project);
            assert_eq!(code, 1, "{what}: {report:#}");
            assert!(
                report["not_ready"].to_string().contains("does not fit"),
                "{report:#}"
            );
        }
    }
}

#[test]
fn feature_that_the_locked_version_lacks_is_not_ready() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site_with_cargo(&upstream);
    let locked = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&locked, &["generate-lockfile"], &upstream.url())
        .assert_success();
    run_json(&site, &["warm"], &locked);
    let offline = site.serve(&["--offline"]);
    for dependencies in UNKNOWN_FEATURES {
        let project = Project::empty();
        project.write("Cargo.toml", &manifest(dependencies));
        project.write("Cargo.lock", &locked.lock());
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!((is_ready, is_true), (false, false), "{dependencies}{text}");
    }
}

#[test]
fn workspaces_and_path_dependencies_are_compared_with_their_lock_file() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site_with_cargo(&upstream);
    let index = upstream.url();
    let project = Project::empty();
    project.write(
        "Cargo.toml",
        "[workspace]\nresolver = \"2\"\nmembers = [\"crates/*\"]\n[workspace.package]\nversion = \"0.3.0\"\n\
         [workspace.dependencies]\nleft = { version = \"1\", default-features = false }\n",
    );
    let member = |name: &str, more: &str| {
        let text = format!(
            "[package]\nname = \"{name}\"\nversion.workspace = true\nedition = \"2021\"\n{more}"
        );
        project.write(&format!("crates/{name}/Cargo.toml"), &text);
        project.write(&format!("crates/{name}/src/lib.rs"), "");
    };
    let outside = "[package]\nname = \"outside\"\nversion = \"0.2.0\"\nedition = \"2021\"\n\
        [dependencies]\nneeded = \"1\"\nstored = { version = \"1\", optional = true }\n[dev-dependencies]\nfar = \"1\"\n[workspace]\n";
    project.write("beside/outside/Cargo.toml", outside);
    project.write("beside/outside/src/lib.rs", "");
    project.write("beside/outside/Cargo.lock", "");
    fs::remove_file(project.folder().join("beside/outside/Cargo.lock")).unwrap();
    member(
        "one",
        "[dependencies]\nleft = { workspace = true, features = [\"plain\"] }\n",
    );
    member(
        "two",
        "[dependencies]\none = { path = \"../one\" }\n[dev-dependencies]\ntwo = { path = \".\" }\n",
    );
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &index)
        .assert_success();
    let offline = site.serve(&["--offline"]);
    let compare = |what: &str, fits: bool| {
        run_json(&site, &["warm"], &project);
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!((is_ready, is_true), (fits, fits), "{what}: {text}");
    };
    compare("as locked", true);
    member(
        "one",
        "[dependencies]\nleft = { workspace = true, features = [\"more\"] }\n",
    );
    compare("a feature in a member", false);
    member("one", "[dependencies]\nleft.workspace = true\n");
    compare("no feature in a member", true);
    member("three", "");
    compare("another member", false);
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &index)
        .assert_success();
    compare("locked again", true);
    // A patch in the manifest is for cargo to judge.
    project.write(
        "Cargo.toml",
        "[workspace]\nresolver = \"2\"\nmembers = [\"crates/*\"]\n[workspace.package]\nversion = \"0.3.0\"\n\
         [workspace.dependencies]\nleft = \"1\"\n[patch.crates-io]\nneeded = { path = \"patched\" }\n",
    );
    project.write(
        "patched/Cargo.toml",
        "[package]\nname = \"needed\"\nversion = \"1.0.5\"\n",
    );
    project.write("patched/src/lib.rs", "");
    compare("a patch that is not locked", false);
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &index)
        .assert_success();
    compare("a patch that is locked", true);
}

/// Manifests after the lock file was written: what changed, whether the lock file still fits, the dependencies of
/// `project`, and those of `one`.
const AFTER_A_REMOVAL: [(&str, bool, &str, &str); 6] = [
    (
        "nothing leads to `two`",
        true,
        "one = { path = \"one\" }",
        "",
    ),
    (
        "only a dev-dependency of `one` leads to `two`",
        false,
        "one = { path = \"one\" }",
        "[dev-dependencies]\ntwo = { path = \"../two\" }",
    ),
    (
        "only an optional dependency of `one` leads to `two`",
        false,
        "one = { path = \"one\" }",
        "[dependencies]\ntwo = { path = \"../two\", optional = true }",
    ),
    (
        "a dev-dependency of `one` leads to another version of `two`",
        false,
        "one = { path = \"one\" }",
        "[dev-dependencies]\ntwo = { path = \"../newer\" }",
    ),
    (
        "a dev-dependency of `one` leads nowhere",
        true,
        "one = { path = \"one\" }",
        "[dev-dependencies]\nfour = { path = \"../four\" }",
    ),
    (
        "nothing leads to `one` and what it needs",
        false,
        "two = { path = \"two\" }",
        "",
    ),
];

/// See docs/client-behaviour.md C-40.
#[test]
fn lock_file_may_name_local_packages_that_no_manifest_leads_to() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site_with_cargo(&upstream);
    let project = Project::empty();
    let package = |folder: &str, name: &str, version: &str, more: &str| {
        let text = format!(
            "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n\n{more}\n"
        );
        project.write(&format!("{folder}/Cargo.toml"), &text);
        project.write(&format!("{folder}/src/lib.rs"), "");
    };
    let root = |needs: &str| {
        let text = format!("[dependencies]\n{needs}\n");
        project.write("Cargo.toml", &manifest(&text).replace("[workspace]\n", ""));
    };
    package("one", "one", "0.1.0", "[dependencies]\nleft = \"1\"");
    package("two", "two", "0.1.0", "");
    package("newer", "two", "0.2.0", "");
    root("one = { path = \"one\" }\ntwo = { path = \"two\" }");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    run_json(&site, &["warm"], &project);
    let offline = site.serve(&["--offline"]);
    for (what, fits, of_root, of_one) in AFTER_A_REMOVAL {
        root(of_root);
        package(
            "one",
            "one",
            "0.1.0",
            &format!("{of_one}\n[dependencies.left]\nversion = \"1\""),
        );
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!(is_true, fits, "cargo if {what}: {text}");
        assert_eq!(is_ready, fits, "{what}: {text}");
    }
}

#[test]
fn project_whose_own_settings_name_a_mirror_of_crates_io_is_not_ready() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let home = CargoHome::empty();
    let site =
        site_with_cargo(&upstream).variable("CARGO_HOME", &home.path().display().to_string());
    run_json(&site, &["warm"], &project);
    let offline = site.serve(&["--offline"]);
    let larder = format!(
        "[source.crates-io]\nreplace-with = \"larder\"\n[registries.larder]\nindex = \"sparse+{}\"\n",
        offline.url()
    );
    fs::create_dir_all(home.path()).unwrap();
    fs::write(home.path().join("config.toml"), &larder).unwrap();
    let mirror = "[source.crates-io]\nreplace-with = \"mirror\"\n\
        [source.mirror]\nregistry = \"sparse+http://mirror.invalid/index/\"\n";
    for (what, settings, expected) in [
        ("none", "", true),
        ("a mirror", mirror, false),
        ("larder", &larder, true),
    ] {
        project.write(".cargo/config.toml", settings);
        let (verdict, _) = run_json(&site, &["check"], &project);
        assert_eq!(verdict["ready"], expected, "{what}: {verdict:#}");
        let reason = verdict["projects"][0]["unknown"].to_string();
        assert_eq!(
            reason.contains("replace crates.io by `mirror`"),
            !expected,
            "{reason}"
        );
        let _ = fs::remove_dir_all(home.path().join("registry"));
        let fetch = home.run_plain(&project, &["fetch", "--locked"]);
        assert_eq!(fetch.status.success(), expected, "{what}: {fetch:?}");
    }
}

#[test]
fn settings_in_a_cargo_home_count_that_does_not_lie_above_the_project() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let home = CargoHome::empty();
    let top = home.path().parent().unwrap().to_owned();
    let patch = |name: &str, dependencies: &str| {
        let folder = top.join(name);
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("src/lib.rs"), "").unwrap();
        let manifest = "[package]\nname = \"left\"\nversion = \"1.0.0\"\n[workspace]\n";
        fs::write(
            folder.join("Cargo.toml"),
            format!("{manifest}{dependencies}"),
        )
        .unwrap();
    };
    patch("plain", "");
    patch("with-dependency", "[dependencies]\nunstored = \"1\"\n");
    fs::create_dir_all(top.join("empty")).unwrap();
    let project = Project::empty().dep("left", "1");
    let site =
        site_with_cargo(&upstream).variable("CARGO_HOME", &home.path().display().to_string());
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    let lock = project.lock();
    run_json(&site, &["warm"], &project);
    let offline = site.serve(&["--offline"]);
    let replaced = |name: &str, source: &str| {
        format!("[source.crates-io]\nreplace-with = \"{name}\"\n[source.{name}]\n{source}\n")
    };
    let larder = replaced(
        "larder",
        &format!("registry = \"sparse+{}\"", offline.url()),
    );
    let patched =
        |folder: &str| format!("{larder}[patch.crates-io]\nleft = {{ path = \"{folder}\" }}\n");
    for (settings, expected) in [
        (larder.clone(), true),
        (patched("with-dependency"), false),
        (replaced("vendored", "directory = \"empty\""), false),
        (
            replaced(
                "mirror",
                "registry = \"sparse+http://mirror.invalid/index/\"",
            ),
            false,
        ),
        (
            "[source.crates-io]\nreplace-with = \"nix\"\n".to_owned(),
            false,
        ),
        ("not TOML".to_owned(), false),
    ] {
        fs::create_dir_all(home.path()).unwrap();
        fs::write(home.path().join("config.toml"), &settings).unwrap();
        let (verdict, _) = run_json(&site, &["check"], &project);
        assert_eq!(verdict["ready"], expected, "{settings}: {verdict:#}");
        let _ = fs::remove_dir_all(home.path().join("registry"));
        let fetch = home.run_plain(&project, &["fetch"]);
        assert_eq!(fetch.status.success(), expected, "{settings}: {fetch:?}");
        project.write("Cargo.lock", &lock);
    }
    // A path in these settings starts from the folder with cargo's home.
    fs::write(home.path().join("config.toml"), patched("plain")).unwrap();
    home.run_plain(&project, &["fetch"]).assert_success();
    let (verdict, _) = run_json(&site, &["check"], &project);
    assert_eq!(verdict["ready"], true, "{verdict:#}");
    project.write("Cargo.lock", &lock);
    let (verdict, _) = run_json(&site, &["check"], &project);
    let missing = verdict["projects"][0]["missing"].to_string();
    assert!(missing.contains("does not fit"), "{verdict:#}");
}

#[test]
fn a_project_that_cargo_refuses_is_not_said_to_have_an_outdated_lock_file() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let site = site_with_cargo(&upstream);
    let project = Project::empty();
    let dependencies = "[dependencies]\nleft = \"1\"\n";
    project.write("Cargo.toml", &manifest(dependencies));
    let index = upstream.url();
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &index)
        .assert_success();
    run_json(&site, &["warm"], &project);
    let folder = project.folder().display().to_string();
    let offline = site.serve(&["--offline"]);
    let refused = |patch: &str| {
        let text = format!("{dependencies}[patch.crates-io]\n{patch}\n");
        project.write("Cargo.toml", &manifest(&text));
        let (is_ready, is_true, text) = verdict_and_truth(&site, &offline, &project);
        assert_eq!((is_ready, is_true), (false, false), "{text}");
        let output = site.command(&["check", &folder]);
        String::from_utf8(output.stdout).unwrap()
    };
    let said = refused("needed = { path = \"absent\" }");
    let problem = "problem: cargo cannot read the project: failed to ";
    assert!(said.contains(problem), "{said}");
    for wrong in ["does not fit", "cargo fetch", "larder warm"] {
        assert!(!said.contains(wrong), "{wrong} in {said}");
    }
    // Cargo's message has several lines.
    let details = said.lines().filter(|line| line.starts_with("           "));
    assert!(details.count() > 2, "{said}");
    assert!(!said.contains("\nCaused by"), "{said}");

    // Cargo looks for an entry that is not stored; `larder warm` alone would not fetch it.
    let said = refused(
        "other = { package = \"far\", version = \"1\", registry-index = \"sparse+http://127.0.0.1:9/\" }",
    );
    assert!(said.contains("cargo cannot "), "{said}");
    assert!(!said.contains("does not fit"), "{said}");
}

#[test]
fn project_is_not_ready_while_cargo_is_told_to_ask_no_registry() {
    let upstream = FakeUpstream::start();
    publish(&upstream);
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    for (in_home, in_project, variable, expected) in [
        ("", "", None, true),
        ("true", "", None, false),
        ("true", "false", None, true),
        ("", "true", None, false),
        ("", "\"yes\"", None, false),
        ("", "true", Some("false"), true),
        ("", "", Some("true"), false),
        ("", "", Some("1"), false),
    ] {
        let (mut home, mut site) = (CargoHome::empty(), site_with_cargo(&upstream));
        if let Some(value) = variable {
            home = home.variable("CARGO_NET_OFFLINE", value);
            site = site.variable("CARGO_NET_OFFLINE", value);
        }
        site = site.variable("CARGO_HOME", &home.path().display().to_string());
        let case = format!("home {in_home}, project {in_project}, variable {variable:?}");
        run_json(&site, &["warm"], &project);
        let offline = site.serve(&["--offline"]);
        let larder = format!(
            "[source.crates-io]\nreplace-with = \"larder\"\n[source.larder]\nregistry = \"sparse+{}\"\n",
            offline.url()
        );
        let setting = |value: &str| match value {
            "" => String::new(),
            value => format!("[net]\noffline = {value}\n"),
        };
        fs::create_dir_all(home.path()).unwrap();
        let settings = format!("{larder}{}", setting(in_home));
        fs::write(home.path().join("config.toml"), settings).unwrap();
        project.write(".cargo/config.toml", &setting(in_project));
        let (verdict, _) = run_json(&site, &["check"], &project);
        assert_eq!(verdict["ready"], expected, "{case}: {verdict:#}");
        let reason = verdict["projects"][0]["unknown"].to_string();
        let has_remedy = reason.contains("unset CARGO_NET_OFFLINE")
            || reason.contains("remove `net.offline` from ");
        assert_eq!(has_remedy, !expected, "{case}: {reason}");
        let fetch = home.run_plain(&project, &["fetch", "--locked"]);
        assert_eq!(fetch.status.success(), expected, "{case}: {fetch:?}");
    }
}

/// Two registries, larder's settings for the second one, and a project that knows both.
struct Corp {
    upstream: FakeUpstream,
    corp: FakeUpstream,
    folder: TempDir,
    project: Project,
}

impl Corp {
    fn new(dependencies: &str) -> Self {
        let (upstream, corp) = (FakeUpstream::start(), FakeUpstream::start());
        publish(&upstream);
        corp.publish(Crate::new("inner", "1.0.0"));
        let folder = TempDir::new().unwrap();
        let settings = format!("[registry.corp]\nindex = \"sparse+{}\"\n", corp.url());
        fs::write(folder.path().join("larder.toml"), settings).unwrap();
        let project = Project::empty();
        project.write("Cargo.toml", &manifest(dependencies));
        let world = Self {
            upstream,
            corp,
            folder,
            project,
        };
        world.write_settings("");
        world
    }

    /// The project's own settings for cargo.
    fn write_settings(&self, more: &str) {
        let index = self.corp.url();
        let text = format!("[registries.corp]\nindex = \"sparse+{index}\"\n{more}");
        self.project.write(".cargo/config.toml", &text);
    }

    fn site(&self) -> Site {
        let settings = self.folder.path().join("larder.toml");
        site_with_cargo(&self.upstream).variable("LARDER_CONFIG", &settings.display().to_string())
    }

    /// Lets cargo fetch everything through this larder.
    fn fetch(&self, offline: &Larder<'_>) {
        let (index, larder) = (self.corp.url(), offline.url());
        self.write_settings(&format!(
            "[source.corp-itself]\nregistry = \"sparse+{index}\"\nreplace-with = \"larder-corp\"\n\
             [source.larder-corp]\nregistry = \"sparse+{larder}registry/corp/\"\n"
        ));
        CargoHome::empty()
            .run(&self.project, &["fetch"], larder)
            .assert_success();
    }
}

#[test]
fn check_asks_no_registry_but_larder() {
    let world = Corp::new("[dependencies]\ninner = { version = \"1\", registry = \"corp\" }\n");
    let site = world.site();
    let (report, code) = run_json(&site, &["warm"], &world.project);
    assert_eq!(code, 0, "{report:#}");
    for is_online in [true, false] {
        world.corp.forget_requests();
        let (verdict, _) = run_json(&site, &["check"], &world.project);
        assert_eq!(verdict["ready"], true, "online: {is_online}: {verdict:#}");
        assert_eq!(
            world.corp.requests().len(),
            0,
            "{:?}",
            world.corp.requests()
        );
        world.corp.stop();
    }
    let offline = site.serve(&["--offline"]);
    world.fetch(&offline);
    // Cargo's settings have a name for that registry now.
    fs::remove_file(world.project.folder().join("Cargo.lock")).unwrap();
    let (verdict, _) = run_json(&site, &["check"], &world.project);
    assert_eq!(verdict["ready"], true, "{verdict:#}");
}

#[test]
fn a_patch_that_replaces_nothing_is_looked_up_offline() {
    let world = Corp::new(
        "[dependencies]\nleft = \"1\"\n[patch.crates-io]\ninner = { version = \"1\", registry = \"corp\" }\n",
    );
    let site = world.site();
    CargoHome::empty()
        .run(
            &world.project,
            &["generate-lockfile"],
            &world.upstream.url(),
        )
        .assert_success();
    assert!(world.project.lock().contains("[[patch.unused]]"));
    let (verdict, code) = run_json(&site, &["check"], &world.project);
    assert_eq!(code, 1, "{verdict:#}");
    let (report, code) = run_json(&site, &["warm"], &world.project);
    assert_eq!(code, 0, "{report:#}");
    world.corp.stop();
    let (verdict, code) = run_json(&site, &["check"], &world.project);
    assert_eq!(code, 0, "{verdict:#}");
    world.fetch(&site.serve(&["--offline"]));
}

#[test]
fn check_uses_no_proxy_of_the_user() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let project = Project::empty().dep_line("inner = { version = \"1\", registry = \"far\" }");
    project.write(
        ".cargo/config.toml",
        &format!(
            "[registries.far]\nindex = \"sparse+http://far.invalid/\"\n[http]\nproxy = \"http://{}\"\n",
            proxy.local_addr().unwrap()
        ),
    );
    let (verdict, code) = run_json(&site, &["check"], &project);
    assert_eq!(code, 1, "{verdict:#}");
    let asked = proxy.accept().map_err(|error| error.kind());
    assert_eq!(
        asked.err(),
        Some(std::io::ErrorKind::WouldBlock),
        "{verdict:#}"
    );
}

#[test]
fn a_report_has_cargo_s_message_without_log_lines() {
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let project = Project::empty().dep("absent", "1");
    let folder = project.folder().display().to_string();
    let checked = site.command(&["check", &folder]);
    upstream.stop();
    let warmed = site.command(&["warm", &folder]);
    for output in [checked, warmed] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let said = format!("{stdout}{stderr}");
        assert!(said.contains("index entry of `absent`"), "{said}");
        assert!(!said.contains("WARN cannot"), "{said}");
    }
}

/// Other systems refuse such a name.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_name_that_is_not_utf8_is_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let upstream = FakeUpstream::start();
    let site = site_with_cargo(&upstream);
    let top = TempDir::new().unwrap();
    let folder = top.path().join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("src/lib.rs"), "").unwrap();
    let text = manifest("[dependencies]\nleft = \"1\"\n");
    fs::write(folder.join("Cargo.toml"), &text).unwrap();
    publish(&upstream);
    let project = Project::empty();
    project.write("Cargo.toml", &text);
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    fs::write(folder.join("Cargo.lock"), project.lock()).unwrap();
    let top = top.path().display().to_string();
    let run = |command: &str| {
        let output = site.command(&[command, &top, "--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (document, output.status.code())
    };
    let (report, code) = run("warm");
    assert_eq!(code, Some(1), "{report:#}");
    let failed = report["failed"].to_string();
    assert!(
        failed.contains("not UTF-8; rename that folder"),
        "{report:#}"
    );
    assert!(!failed.contains("projects/"), "{report:#}");
    let (verdict, code) = run("check");
    assert_eq!(code, Some(0), "{verdict:#}");
    let path = verdict["projects"][0]["path"].as_str().unwrap();
    assert!(path.ends_with("odd-\u{fffd}"), "{path}");
}
