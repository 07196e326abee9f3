//! Files from which packages are built, and workflows for CI systems.
//!
//! Where a program is missing, its test says so and ends. Not checked here: the packages themselves, which take a
//! release build. contrib/package/README.md says how each was checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_upstream::FakeUpstream;
use tempfile::TempDir;

use crate::fixture::{project_on_left, publish_pair, site};
use crate::guides::User;
use crate::shells::output;
use testkit::cargo::CargoHome;
use testkit::process::run;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.map(|entry| {
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path())
        } else {
            vec![entry.path()]
        }
    });
    files.collect::<Vec<_>>().concat()
}

/// Fails the test if the program finds a fault in one of the files below `folder` that `is_meant` chooses.
#[track_caller]
fn judge(program: &str, arguments: &[&str], folders: &[&str], is_meant: impl Fn(&Path) -> bool) {
    let files = folders
        .iter()
        .flat_map(|folder| files_below(&root().join(folder)));
    let files: Vec<_> = files.filter(|file| is_meant(file)).collect();
    assert!(!files.is_empty(), "{folders:?}");
    for file in files {
        let mut command = Command::new(program);
        command.args(arguments).arg(&file);
        let Some(output) = output(&mut command) else {
            return;
        };
        assert!(output.status.success(), "{}: {output:?}", file.display());
    }
}

#[test]
fn scripts_are_clean_under_shellcheck() {
    let is_script = |file: &Path| {
        let text = fs::read(file).unwrap();
        text.starts_with(b"#!/bin/sh") || text.starts_with(b"#!/usr/bin/env bash")
    };
    judge("shellcheck", &[], &[".ci", "contrib"], is_script);
}

#[test]
fn homebrew_formula_is_ruby() {
    let folder = "contrib/package/homebrew";
    judge("ruby", &["-c"], &[folder], |_| true);
}

#[test]
fn nix_files_can_be_parsed() {
    let folder = "contrib/package/nix";
    judge("nix-instantiate", &["--parse"], &[folder], |_| true);
}

/// Runs a script of `contrib/package` with the built larder as its first argument.
#[track_caller]
fn package(script: &str, arguments: &[&str]) {
    let mut command = Command::new(root().join("contrib/package").join(script));
    command.arg(env!("CARGO_BIN_EXE_larder")).args(arguments);
    run(command).assert_success();
}

#[test]
fn debian_package_names_files_that_exist() {
    let folder = TempDir::new().unwrap();
    package("files", &[&folder.path().display().to_string()]);
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    assert!(assets.len() > 8, "{assets:?}");
    let sources = assets.iter().map(|asset| asset[0].as_str().unwrap());
    for source in sources.filter(|source| *source != "target/release/larder") {
        let path = match source.strip_prefix("target/package/") {
            Some(made) => folder.path().join(made),
            None => root().join(source),
        };
        let exists = match source.split_once("/*") {
            None => path.is_file(),
            Some((_, extension)) => files_below(path.parent().unwrap())
                .iter()
                .any(|file| file.to_string_lossy().ends_with(extension)),
        };
        assert!(exists, "{source}");
    }
    let scripts = deb["maintainer-scripts"].as_str().unwrap();
    assert!(read(&format!("{scripts}/postinst")).contains("\n#DEBHELPER#\n"));
    let units = deb["systemd-units"]["unit-scripts"].as_str().unwrap();
    assert!(root().join(units).join("larder.socket").exists());
}

#[test]
fn archive_has_the_layout_that_cargo_binstall_is_told() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let binstall = &manifest["package"]["metadata"]["binstall"];
    let (version, target) = (env!("CARGO_PKG_VERSION"), "x86_64-unknown-linux-gnu");
    let filled = |key: &str| {
        let text = binstall[key].as_str().unwrap();
        let values = [
            ("{ name }", "larder"),
            ("{ bin }", "larder"),
            ("{ binary-ext }", ""),
            ("{ version }", version),
            ("{ target }", target),
        ];
        values.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    package("archive", &[target, &path]);
    let address = filled("pkg-url");
    let (_, name) = address.rsplit_once('/').unwrap();
    let mut tar = Command::new("tar");
    tar.current_dir(folder.path()).args(["-xzf", name]);
    run(tar).assert_success();
    let program = folder.path().join(filled("bin-dir"));
    let mut larder = Command::new(&program);
    larder.arg("--version");
    let said = run(larder);
    assert_eq!(said.stdout, format!("larder {version}\n"));
    for file in ["man/larder-warm.1", "completions/_larder", "LICENSE-MIT"] {
        assert!(program.with_file_name(file).exists(), "{file}");
    }
}

#[test]
fn dev_container_feature_makes_cargo_and_rustup_use_larder() {
    let folder = root().join("contrib/container/devcontainer/larder");
    let text = fs::read_to_string(folder.join("devcontainer-feature.json")).unwrap();
    let feature: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(feature["id"], "larder");
    assert!(feature["options"]["url"]["default"].is_string());
    let upstream = FakeUpstream::start();
    publish_pair(&upstream);
    let site = site(&upstream);
    let larder = site.serve(&[]);
    let (project, home) = (project_on_left(), CargoHome::empty());
    let root = TempDir::new().unwrap();
    let install = |url: &str| {
        let mut command = Command::new(folder.join("install.sh"));
        command
            .env("URL", url)
            .env("CARGO_HOME", home.path())
            .env("DESTDIR", root.path());
        run(command)
    };
    install("larder")
        .assert_failure()
        .assert_says("must be an address");
    install(larder.url()).assert_success();
    install(larder.url())
        .assert_failure()
        .assert_says("replaces crates.io already");
    home.run_plain(&project, &["build"]).assert_success();
    assert_eq!(upstream.requests_for("/dl/"), 2);
    let profile = fs::read_to_string(root.path().join("etc/profile.d/larder.sh")).unwrap();
    let printed = site.command(&["client", "print", "rustup"]);
    let printed = String::from_utf8_lossy(&printed.stdout).replace('\'', "");
    assert_eq!(profile, printed);
}

/// The command lines of a workflow.
fn script(text: &str) -> String {
    let lines = text.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("run: ").or_else(|| {
            let command = line.strip_prefix("- ")?;
            (!command.starts_with("name: ") && !command.starts_with("uses: ")).then_some(command)
        })
    });
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// Runs a workflow in an empty cache, then once more while upstream is down.
#[track_caller]
fn run_workflow(file: &str, variables: &str) {
    let script = script(&read(file));
    assert!(script.contains("larder run --offline"), "{script}");
    let mut user = User::new();
    user.run_lines(&format!("{variables}{script}"));
    user.run_lines(&format!("# without a network\n{variables}{script}"));
    assert!(user.lines_run() >= 6, "{script}");
}

#[test]
fn github_workflow_builds_also_while_upstream_is_down() {
    run_workflow("contrib/ci/github-actions.yml", "");
}

#[test]
fn gitlab_workflow_builds_also_while_upstream_is_down() {
    let file = "contrib/ci/gitlab-ci.yml";
    let store = "$CI_PROJECT_DIR/.larder/store";
    assert!(read(file).contains(&format!("LARDER_STORE: {store}\n")));
    let variables = format!("export CI_PROJECT_DIR=$PWD\nexport LARDER_STORE={store}\n");
    run_workflow(file, &variables);
}
