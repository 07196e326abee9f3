//! Real cargo on projects that must not be changed: making lock files, and listing the packages of a target.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use larder::lockfile;
use larder::scratch::{Scratch, ScratchError};
use tempfile::TempDir;

use crate::tiny_registry::{SilentServer, TinyRegistry, wait_for_end};

const LINUX: &str = "x86_64-unknown-linux-gnu";
const WINDOWS: &str = "x86_64-pc-windows-msvc";

/// Files below a temporary folder, and a scratch folder beside them.
struct World {
    home: TempDir,
    scratch_folder: TempDir,
    address: String,
    before: BTreeMap<PathBuf, (SystemTime, Vec<u8>)>,
}

impl World {
    fn new(address: String, files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let before = listing(home.path());
        Self {
            home,
            scratch_folder: tempfile::tempdir().unwrap(),
            address,
            before,
        }
    }

    fn scratch(&self) -> Scratch {
        Scratch {
            cargo: PathBuf::from(env!("CARGO")),
            cargo_home: None,
            registry_address: self.address.clone(),
            registries: Vec::new(),
            closed_proxy: None,
            folder: self.scratch_folder.path().to_owned(),
            no_proxy: OsString::new(),
        }
    }

    async fn make_lock(&self, project: &str) -> Result<String, ScratchError> {
        self.scratch()
            .make_lock(self.home.path().join(project).as_path().into())
            .await
    }

    async fn needed_for(
        &self,
        project: &str,
        lock: &str,
        target: &str,
    ) -> Result<BTreeSet<(String, String)>, ScratchError> {
        self.scratch()
            .needed_for(
                self.home.path().join(project).as_path().into(),
                lock,
                target,
            )
            .await
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(
            listing(self.home.path()),
            self.before,
            "the user's files changed"
        );
        let left = fs::read_dir(self.scratch_folder.path()).unwrap().count();
        assert_eq!(left, 0, "something was left in the scratch folder");
    }
}

/// Every file and folder with its modification time and content.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let time = fs::symlink_metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(listing(&path));
            found.insert(path, (time, Vec::new()));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, (time, content));
        }
    }
    found
}

fn registry() -> String {
    TinyRegistry::new()
        .with("left", "1.0.0", &[("right", None)])
        .with(
            "left",
            "1.2.0",
            &[("right", None), ("winonly", Some("cfg(windows)"))],
        )
        .with("right", "1.0.0+build.5", &[])
        .with("winonly", "1.0.0", &[])
        .start()
}

fn package(name: &str, more: &str) -> String {
    format!("[package]\nname = '{name}'\nversion = '0.1.0'\nedition = '2021'\n{more}")
}

fn names(lock: &str) -> Vec<String> {
    let lockfile = lockfile::parse(lock).unwrap();
    assert_eq!(lockfile.invalid, []);
    lockfile
        .packages
        .iter()
        .map(|package| format!("{} {}", package.name, package.version))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected
        .iter()
        .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
        .collect()
}

/// The packages of a lock file of `app`, which depends on `left`.
const APP_PACKAGES: [&str; 4] = [
    "app 0.1.0",
    "left 1.2.0",
    "right 1.0.0+build.5",
    "winonly 1.0.0",
];

#[tokio::test]
async fn lock_file_is_made_for_a_project_that_stays_unchanged() {
    let manifest = package("app", "[dependencies]\nleft = '1'\n");
    let world = World::new(
        registry(),
        &[
            ("app/Cargo.toml", &manifest),
            ("app/src/main.rs", "fn main() {}"),
            ("app/target/old", ""),
        ],
    );
    let lock = world.make_lock("app").await.unwrap();
    assert_eq!(names(&lock), APP_PACKAGES);
    let lockfile = lockfile::parse(&lock).unwrap();
    let left = &lockfile.packages[1];
    assert_eq!(
        left.source,
        lockfile::PackageSource::CratesIo,
        "the lock file must not know where it was made"
    );
    assert!(left.checksum.is_some());
    world.assert_untouched();
}

#[tokio::test]
async fn path_dependencies_outside_the_project_are_found() {
    let app = package(
        "app",
        "[dependencies]\nother = { path = '../other' }\nfar = { path = '../../far/away' }\n",
    );
    let other = package("other", "[dependencies]\nleft = '=1.0.0'\n");
    let world = World::new(
        registry(),
        &[
            ("work/app/Cargo.toml", &app),
            ("work/app/src/lib.rs", ""),
            ("work/other/Cargo.toml", &other),
            ("work/other/src/lib.rs", ""),
            ("far/away/Cargo.toml", &package("far", "")),
            ("far/away/src/lib.rs", ""),
        ],
    );
    let lock = world.make_lock("work/app").await.unwrap();
    assert_eq!(
        names(&lock),
        [
            "app 0.1.0",
            "far 0.1.0",
            "left 1.0.0",
            "other 0.1.0",
            "right 1.0.0+build.5"
        ]
    );
    let needed = world.needed_for("work/app", &lock, LINUX).await.unwrap();
    assert_eq!(
        needed,
        pairs(&[("left", "1.0.0"), ("right", "1.0.0+build.5")])
    );
    world.assert_untouched();
}

#[tokio::test]
async fn workspace_and_its_member_get_the_lock_file_of_the_workspace() {
    let world = World::new(
        registry(),
        &[
            (
                "ws/Cargo.toml",
                "[workspace]\nresolver = '2'\nmembers = ['crates/*']\n[workspace.dependencies]\nleft = '1'\n",
            ),
            // Differs from the file that cargo would write: it must be neither used nor replaced.
            ("ws/Cargo.lock", "version = 4\n"),
            (
                "ws/crates/one/Cargo.toml",
                &package("one", "[dependencies]\nleft.workspace = true\n"),
            ),
            ("ws/crates/one/src/lib.rs", ""),
            (
                "ws/crates/two/Cargo.toml",
                &package("two", "[dependencies]\none = { path = '../one' }\n"),
            ),
            ("ws/crates/two/src/lib.rs", ""),
        ],
    );
    let expected = [
        "left 1.2.0",
        "one 0.1.0",
        "right 1.0.0+build.5",
        "two 0.1.0",
        "winonly 1.0.0",
    ];
    assert_eq!(names(&world.make_lock("ws").await.unwrap()), expected);
    assert_eq!(
        names(&world.make_lock("ws/crates/two").await.unwrap()),
        expected
    );
    world.assert_untouched();
}

#[tokio::test]
async fn target_needs_only_its_own_packages() {
    let manifest = package(
        "app",
        "[features]\nmore = ['dep:right']\n[dependencies]\nright = { version = '1', optional = true }\n\
         [target.'cfg(windows)'.dependencies]\nleft = '1'\n",
    );
    let world = World::new(
        registry(),
        &[
            ("app/Cargo.toml", &manifest),
            ("app/src/lib.rs", ""),
            ("app/Cargo.lock", "version = 4\n"),
        ],
    );
    let lock = world.make_lock("app").await.unwrap();
    assert_eq!(names(&lock), APP_PACKAGES);
    let linux = world.needed_for("app", &lock, LINUX).await.unwrap();
    assert_eq!(
        linux,
        pairs(&[("right", "1.0.0+build.5")]),
        "optional, but a feature away"
    );
    let windows = world.needed_for("app", &lock, WINDOWS).await.unwrap();
    assert_eq!(
        windows,
        pairs(&[
            ("left", "1.2.0"),
            ("right", "1.0.0+build.5"),
            ("winonly", "1.0.0")
        ])
    );
    world.assert_untouched();
}

#[tokio::test]
async fn project_settings_do_not_override_the_given_larder() {
    // No server listens on port 1.
    let settings = "[net]\noffline = true\n[source.crates-io]\nreplace-with = 'larder'\n\
         [source.larder]\nregistry = 'sparse+http://127.0.0.1:1/'\n";
    let world = World::new(
        registry(),
        &[
            (
                "app/Cargo.toml",
                &package("app", "[dependencies]\nright = '1'\n"),
            ),
            ("app/src/lib.rs", ""),
            ("app/.cargo/config.toml", settings),
        ],
    );
    assert_eq!(
        names(&world.make_lock("app").await.unwrap()),
        ["app 0.1.0", "right 1.0.0+build.5"]
    );
    world.assert_untouched();
}

#[tokio::test]
async fn manifest_above_the_scratch_folder_is_no_workspace() {
    let mut world = World::new(
        registry(),
        &[
            ("app/Cargo.toml", &package("app", "")),
            ("app/src/lib.rs", ""),
        ],
    );
    fs::write(
        world.scratch_folder.path().join("Cargo.toml"),
        "[workspace]\nmembers = []\n",
    )
    .unwrap();
    let inner = tempfile::tempdir_in(world.scratch_folder.path()).unwrap();
    let outer = std::mem::replace(&mut world.scratch_folder, inner);
    assert_eq!(names(&world.make_lock("app").await.unwrap()), ["app 0.1.0"]);
    world.assert_untouched();
    drop(world);
    drop(outer);
}

#[tokio::test]
async fn cargo_errors_are_reported_with_its_text_and_the_users_paths() {
    let world = World::new(
        registry(),
        &[
            (
                "app/Cargo.toml",
                &package("app", "[dependencies]\nnowhere = '1'\n"),
            ),
            ("app/src/lib.rs", ""),
        ],
    );
    let error = world.make_lock("app").await.unwrap_err();
    let text = error.to_string();
    let project = world.home.path().join("app");
    assert!(text.starts_with(&format!("cannot make a lock file for project `{}`: cargo ended with exit status: 101 and said:\nerror: ", project.display())), "{text}");
    assert!(
        text.contains("no matching package named `nowhere` found"),
        "{text}"
    );
    let real = project.canonicalize().unwrap();
    assert!(text.contains(&format!("({})", real.display())), "{text}");
    world.assert_untouched();
}

#[tokio::test]
async fn outdated_lock_file_and_unknown_target_are_failures() {
    let world = World::new(
        registry(),
        &[
            (
                "app/Cargo.toml",
                &package("app", "[dependencies]\nright = '1'\n"),
            ),
            ("app/src/lib.rs", ""),
        ],
    );
    let stale = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n";
    let text = world
        .needed_for("app", stale, LINUX)
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("--locked"), "{text}");

    let lock = world.make_lock("app").await.unwrap();
    let text = world
        .needed_for("app", &lock, "no-such-target")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("cannot list what a target needs of project `"),
        "{text}"
    );
    assert!(text.contains("no-such-target"), "{text}");
    world.assert_untouched();
}

#[tokio::test]
async fn missing_cargo_and_missing_project_have_different_errors() {
    let world = World::new(
        registry(),
        &[
            ("app/Cargo.toml", &package("app", "")),
            ("app/src/lib.rs", ""),
        ],
    );
    let error = world.make_lock("missing").await.unwrap_err();
    assert!(matches!(error, ScratchError::Overlay { .. }), "{error}");

    let scratch = Scratch {
        cargo: world.home.path().join("no-cargo"),
        ..world.scratch()
    };
    let error = scratch
        .make_lock(world.home.path().join("app").as_path().into())
        .await
        .unwrap_err();
    assert!(matches!(error, ScratchError::Start { .. }), "{error}");
    world.assert_untouched();
}

#[tokio::test]
async fn cargo_reaches_larder_and_hosts_in_no_proxy_without_the_proxy() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new(registry(), &[("app/Cargo.toml", &package("app", ""))]);
    let tools = tempfile::tempdir().unwrap();
    let cargo = tools.path().join("cargo");
    fs::write(
        &cargo,
        "#!/bin/sh\necho \"exempt: $no_proxy.\" >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    for (named, exempt) in [
        ("", "exempt: 127.0.0.1."),
        ("corp.example", "exempt: corp.example,127.0.0.1."),
    ] {
        let scratch = Scratch {
            cargo: cargo.clone(),
            no_proxy: named.into(),
            ..world.scratch()
        };
        let project = world.home.path().join("app");
        let error = scratch
            .make_lock(project.as_path().into())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(exempt), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_future_stops_cargo() {
    let server = SilentServer::new();
    let world = World::new(
        server.address(),
        &[
            (
                "app/Cargo.toml",
                &package("app", "[dependencies]\nright = '1'\n"),
            ),
            ("app/src/lib.rs", ""),
        ],
    );
    let project = world.home.path().join("app");
    let scratch = world.scratch();
    let request = tokio::spawn(async move { scratch.make_lock(project.as_path().into()).await });
    let cargo = tokio::task::spawn_blocking(move || server.accept())
        .await
        .unwrap();
    cargo
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    request.abort();
    // Cargo alone would wait for half a minute and then retry.
    let ended = tokio::task::spawn_blocking(move || wait_for_end(cargo));
    ended.await.unwrap();
}
