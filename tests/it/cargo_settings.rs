//! `check`'s verdict on projects whose cargo settings decide if cargo can use larder, judged by real cargo.

use std::fs;
use std::path::Path;

use fake_upstream::{Crate, FakeUpstream};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cargo::{CargoHome, Project};
use testkit::larder::{Larder, Site};

use crate::fixture::site;

/// A larder's site whose cargo has this home.
fn site_with_home(upstream: &FakeUpstream, home: &CargoHome) -> Site {
    let folder = Path::new(env!("CARGO")).parent().unwrap();
    site(upstream)
        .variable("CARGO", env!("CARGO"))
        .variable("PATH", &folder.display().to_string())
        .variable("CARGO_HOME", &home.path().display().to_string())
}

/// Runs `warm` or `check` on a folder.
#[track_caller]
fn run(site: &Site, command: &str, folder: &Path) -> Value {
    let output = site.command(&[command, &folder.display().to_string(), "--json"]);
    let document = serde_json::from_slice(&output.stdout);
    document.unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Makes larder the source of crates.io in cargo's home.
fn use_larder(home: &CargoHome, larder: &Larder<'_>) {
    let settings = format!(
        "[source.crates-io]\nreplace-with = \"larder\"\n[source.larder]\nregistry = \"sparse+{}\"\n",
        larder.url()
    );
    fs::create_dir_all(home.path()).unwrap();
    fs::write(home.path().join("config.toml"), settings).unwrap();
}

#[test]
fn sources_that_cargo_refuses_make_a_project_unready() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let home = CargoHome::empty().variable("CARGO_NET_RETRY", "0");
    let site = site_with_home(&upstream, &home);
    let project = Project::empty().dep("left", "1");
    CargoHome::empty()
        .run(&project, &["generate-lockfile"], &upstream.url())
        .assert_success();
    run(&site, "warm", project.folder());
    let larder = site.serve(&["--offline"]);
    use_larder(&home, &larder);
    let again = format!("[source.again]\nregistry = \"sparse+{}\"\n", larder.url());
    for (settings, reason) in [
        (
            "[source.other]\nregistry = \"sparse+http://other.invalid/\"\n",
            None,
        ),
        (
            "[source.crates-io]\nreplace-with = \"crates-io\"\n",
            Some("by itself"),
        ),
        (
            &again,
            Some("`[source.larder]`, which is the source of `again` again"),
        ),
        (
            "[source.a]\nregistry = \"https://github.com/rust-lang/crates.io-index\"\n",
            Some("`[source.a]`, which is the source of `crates-io` again"),
        ),
        (
            "[source.a]\ndirectory = \"v\"\n[source.b]\ndirectory = \"v\"\n",
            Some("of `a` again"),
        ),
        (
            "[source.a]\nreplace-with = \"larder\"\n",
            Some("without `registry`"),
        ),
        (
            "[source.a]\ndirectory = \"v\"\nregistry = \"sparse+http://other.invalid/\"\n",
            Some("with `registry` and `directory`"),
        ),
    ] {
        project.write(".cargo/config.toml", settings);
        let verdict = run(&site, "check", project.folder());
        assert_eq!(
            verdict["ready"],
            reason.is_none(),
            "{settings}: {verdict:#}"
        );
        let said = verdict["projects"][0]["unknown"].to_string();
        assert!(said.contains(reason.unwrap_or("[]")), "{settings}: {said}");
        let _ = fs::remove_dir_all(home.path().join("registry"));
        let fetch = home.run_plain(&project, &["fetch", "--locked"]);
        assert_eq!(
            fetch.status.success(),
            reason.is_none(),
            "{settings}: {fetch:?}"
        );
    }
    project.write(".cargo/config.toml", "");
    let address = format!("\"sparse+{}", larder.url());
    let settings = fs::read_to_string(home.path().join("config.toml")).unwrap();
    for wrong in [
        settings.replace(&address, address.trim_end_matches('/')),
        settings.replace("sparse+", ""),
    ] {
        fs::write(home.path().join("config.toml"), &wrong).unwrap();
        assert_eq!(
            run(&site, "check", project.folder())["ready"],
            false,
            "{wrong}"
        );
        let fetch = home.run_plain(&project, &["fetch", "--locked"]);
        assert!(!fetch.status.success(), "{wrong}: {fetch:?}");
    }
    // Without a name of its own, another registry may also take the place of crates.io.
    let moved = "[source.crates-io]\nregistry = \"sparse+http://other.invalid/\"\n";
    fs::write(home.path().join("config.toml"), moved).unwrap();
    assert_eq!(run(&site, "check", project.folder())["ready"], false);
    let fetch = home.run_plain(&project, &["fetch", "--locked"]);
    assert!(!fetch.status.success(), "{fetch:?}");
}

/// A workspace whose member `mem` depends on `left`, with its lock file.
fn workspace(upstream: &FakeUpstream) -> Project {
    let workspace = Project::empty();
    fs::remove_dir_all(workspace.folder().join("src")).unwrap();
    workspace.write(
        "Cargo.toml",
        "[workspace]\nmembers = [\"crates/mem\"]\nresolver = \"2\"\n",
    );
    workspace.write(
        "crates/mem/Cargo.toml",
        "[package]\nname = \"mem\"\nversion = \"0.1.0\"\n[dependencies]\nleft = \"1\"\n",
    );
    workspace.write("crates/mem/src/lib.rs", "");
    CargoHome::empty()
        .run(&workspace, &["generate-lockfile"], &upstream.url())
        .assert_success();
    workspace
}

#[test]
fn settings_in_the_folder_of_a_member_count() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let home = CargoHome::empty().variable("CARGO_NET_RETRY", "0");
    let site = site_with_home(&upstream, &home);
    let workspace = workspace(&upstream);
    let lock = workspace.lock();
    workspace.write(
        "patch/Cargo.toml",
        "[package]\nname = \"left\"\nversion = \"1.0.0\"\n[dependencies]\nunstored = \"1\"\n[workspace]\n",
    );
    workspace.write("patch/src/lib.rs", "");
    run(&site, "warm", workspace.folder());
    let larder = site.serve(&["--offline"]);
    use_larder(&home, &larder);
    let member = workspace.folder().join("crates/mem");
    let settings_of_larder = fs::read_to_string(home.path().join("config.toml")).unwrap();
    let vendored = "[source.crates-io]\nreplace-with = \"v\"\n[source.v]\ndirectory = \"empty\"\n";
    fs::create_dir_all(member.join("empty")).unwrap();
    fs::create_dir_all(workspace.folder().join("crates/empty")).unwrap();
    let patch = format!(
        "[patch.crates-io]\nleft = {{ path = \"{}\" }}\n",
        workspace.folder().join("patch").display()
    );
    for (folder, settings, expected) in [
        ("crates/mem", "[build]\njobs = 1\n", true),
        ("crates/mem", &settings_of_larder, true),
        ("crates/mem", vendored, false),
        ("crates", vendored, false),
        ("crates/mem", &patch, false),
        ("crates/mem", "[net]\noffline = true\n", false),
        ("crates/mem", "not TOML", false),
    ] {
        let file = format!("{folder}/.cargo/config.toml");
        workspace.write(&file, settings);
        let lock_file = workspace.folder().join("Cargo.lock");
        for path in [workspace.folder(), &member, &lock_file] {
            let verdict = run(&site, "check", path);
            let case = format!("{} {folder} {settings}: {verdict:#}", path.display());
            assert_eq!(verdict["ready"], expected, "{case}");
        }
        let list = site.command(&["list", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        let is_ready = list["items"][0]["state"] == "ready";
        assert_eq!(is_ready, expected, "{folder} {settings}: {list:#}");
        let _ = fs::remove_dir_all(home.path().join("registry"));
        let fetch = home.run_plain(&Project::at(&member), &["fetch"]);
        assert_eq!(
            fetch.status.success(),
            expected,
            "{folder} {settings}: {fetch:?}"
        );
        workspace.write("Cargo.lock", &lock);
        fs::remove_file(workspace.folder().join(file)).unwrap();
    }
}

#[test]
fn override_of_rustup_for_the_folder_of_a_member_counts() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let (home, rustup) = (CargoHome::empty(), TempDir::new().unwrap());
    let site = site_with_home(&upstream, &home)
        .variable("RUSTUP_HOME", &rustup.path().display().to_string());
    let workspace = workspace(&upstream);
    let programs = rustup.path().join("toolchains/mine/bin");
    fs::create_dir_all(&programs).unwrap();
    for program in ["cargo", "rustc"] {
        fs::write(programs.join(program), "").unwrap();
    }
    let member = workspace.folder().join("crates/mem");
    let write = |overridden: &Path, name: &str| {
        let overridden = overridden.canonicalize().unwrap();
        let settings = format!(
            "version = \"12\"\ndefault_toolchain = \"mine\"\n[overrides]\n\"{}\" = \"{name}\"\n",
            overridden.display()
        );
        fs::write(rustup.path().join("settings.toml"), settings).unwrap();
    };
    write(&member, "mine");
    run(&site, "warm", workspace.folder());
    for (overridden, name, expected) in [
        (member.as_path(), "mine", true),
        (&member, "1.80.0", false),
        (&workspace.folder().join("crates"), "1.80.0", false),
        (rustup.path(), "1.80.0", true),
    ] {
        write(overridden, name);
        for path in [workspace.folder(), &member] {
            let verdict = run(&site, "check", path);
            let case = format!("{} {}: {verdict:#}", overridden.display(), path.display());
            assert_eq!(verdict["ready"], expected, "{case}");
            let missing = verdict["projects"][0]["missing"].to_string();
            assert_eq!(missing.contains("1.80.0"), !expected, "{case}");
        }
    }
}
