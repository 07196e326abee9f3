//! Finds the cargo projects, and the toolchain files, at and below the paths that a user names.
//!
//! ```text
//!  path ─┬─ folder ───────── walk: every Cargo.lock, Cargo.toml and toolchain file below it ─┐
//!        ├─ Cargo.toml ───── its folder ─────────────────────────────────────────────────────┤
//!        ├─ toolchain file ──────────────────────────────────────────────────────────────────┤
//!        ├─ cargo script ────────────────────────────────────────────────────────────────────┤
//!        └─ any other file ─ a lock file ────────────────────────────────────────────────────┴─> FoundProjects
//! ```
//!
//! A folder with a `Cargo.toml` and no lock file may be a project of its own or a member of a workspace elsewhere;
//! [`find`] lists the rules. For that question alone, manifests are read. Reading lock files and making missing ones
//! belong to `plan`.
mod found;
mod paths;
mod search;
mod workspace;

use std::path::PathBuf;

pub use found::{FoundProjects, Member, Project, SearchError, SearchProblem};
pub(crate) use paths::{is_toolchain_file, nearest_toolchain_file, plain};
use search::Search;

/// Finds the projects at and below `paths`, each a folder, a `Cargo.toml`, a toolchain file, a cargo script or a lock
/// file of any name.
///
/// A folder is searched to the bottom. The search leaves out symbolic links, hidden folders, folders tagged as a cache
/// (`CACHEDIR.TAG`, as cargo's `target` is), copies made by `cargo vendor` or `cargo package`, and the folders that
/// cargo's settings name as sources. A path that the user gives is searched even if it is one of these.
///
/// Every `Cargo.lock` is a project, unless a `Cargo.toml` beside it makes its folder a member of a workspace elsewhere
/// (rule 2): cargo does not read it then. A folder with only a `Cargo.toml`, and such a member, is
///
/// 1. covered by a folder above it, within the path being walked, that has both files and does not exclude it. That is
///    so if the upper manifest has `[workspace]` and the lower one has none, or if a path dependency in the upper
///    project leads to it. Otherwise cargo would make a lock file for it, and the lower one is only named
///    ([`FoundProjects::not_covered`]): such packages are fuzz targets, but also fixtures and templates. The path
///    itself is never decided this way.
/// 2. otherwise what cargo says (`find_workspace_root` in `src/cargo/core/workspace.rs`): its own `[workspace]`,
///    the workspace that `package.workspace` points to, or the nearest `[workspace]` above it, up to the root of the
///    file system, that does not exclude it. It then stands for that workspace, so that `warm` works in a member's
///    folder. Whether the workspace lists it as a member is not asked.
/// 3. otherwise a project without lock file.
///
/// A member of a workspace is noted with the project if the user named its folder, or if it has settings of cargo or a
/// toolchain file of its own, because cargo may do something else there.
///
/// Blocking. The walk lists folders, looks for cache tags and the mark of `cargo vendor`, and opens no other file but
/// cargo's settings.
pub fn find(paths: &[PathBuf]) -> FoundProjects {
    let mut search = Search::default();
    for path in paths {
        search.path(path);
    }
    search.finish()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const PACKAGE: &str = "[package]\nname = 'p'\n";
    const WORKSPACE: &str = "[workspace]\nmembers = ['crates/*']\nexclude = ['out', 'both']\n";
    const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# by cargo\n";

    /// Files by relative path, in a temporary folder that no manifest lies above.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        top
    }

    /// Searches `paths` below the tree and compares with `FOLDER` or `FOLDER: LOCK`, all relative to the tree.
    #[track_caller]
    fn check(files: &[(&str, &str)], paths: &[&str], expected: &[&str]) {
        let top = tree(files);
        let paths: Vec<PathBuf> = paths.iter().map(|path| top.path().join(path)).collect();
        let found = find(&paths);
        assert_eq!(texts(&found), [""; 0]);
        assert_eq!(shown(&found, top.path()), expected);
    }

    fn texts(found: &FoundProjects) -> Vec<String> {
        let problems = found.problems.iter();
        problems
            .map(|problem| format!("{}: {}", problem.path.display(), problem.error))
            .collect()
    }

    fn shown(found: &FoundProjects, top: &Path) -> Vec<String> {
        let real = top.canonicalize().unwrap();
        let short = |path: &Path| {
            let path = path
                .strip_prefix(top)
                .or_else(|_| path.strip_prefix(&real))
                .unwrap_or(path);
            path.display().to_string()
        };
        let line = |project: &Project| match (&project.lock, &project.script) {
            (Some(lock), _) => format!("{}: {}", short(&project.folder), short(lock)),
            (None, Some(script)) => format!("script {}", short(script)),
            (None, None) => short(&project.folder),
        };
        found.projects.iter().map(line).collect()
    }

    #[test]
    fn every_lock_file_below_a_folder_is_a_project() {
        check(
            &[
                ("src/b/Cargo.toml", PACKAGE),
                ("src/b/Cargo.lock", ""),
                ("src/a/deep/down/Cargo.lock", ""),
                ("src/b/tools/Cargo.toml", PACKAGE),
                ("src/b/tools/Cargo.lock", ""),
                ("src/readme", ""),
                ("elsewhere/Cargo.lock", ""),
            ],
            &["src"],
            &[
                "src/a/deep/down: src/a/deep/down/Cargo.lock",
                "src/b: src/b/Cargo.lock",
                "src/b/tools: src/b/tools/Cargo.lock",
            ],
        );
    }

    #[test]
    fn a_manifest_alone_is_a_project_without_lock_file() {
        check(
            &[("a/Cargo.toml", PACKAGE), ("b/c/Cargo.toml", "not toml")],
            &[""],
            &["a", "b/c"],
        );
    }

    #[test]
    fn search_within_a_project_names_the_project() {
        let top = tree(&[("app/Cargo.toml", PACKAGE), ("app/src/deep/x.rs", "")]);
        let found = find(&[top.path().join("app/src")]);
        let app = top.path().canonicalize().unwrap().join("app");
        let end = format!("below it; it is part of the project {}", app.display());
        assert!(texts(&found)[0].ends_with(&end), "{:?}", texts(&found));
    }

    #[test]
    fn folder_in_place_of_a_lock_file_is_taken_for_one_since_cargo_fails_on_it() {
        check(
            &[
                ("a/Cargo.toml", PACKAGE),
                ("a/Cargo.lock/x", ""),
                ("b/Cargo.toml", WORKSPACE),
                ("b/Cargo.lock/x", ""),
                ("b/crates/c/Cargo.toml", PACKAGE),
            ],
            &["a", "b/crates/c"],
            &["a: a/Cargo.lock", "b: b/Cargo.lock"],
        );
    }

    #[test]
    fn a_lock_file_of_any_name_and_a_manifest_may_be_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("a/Cargo.lock.msrv", ""),
            ("b/Cargo.toml", PACKAGE),
            ("b/below/Cargo.lock", ""),
        ];
        check(&files, &["a/Cargo.lock.msrv"], &["a: a/Cargo.lock.msrv"]);
        check(&files, &["a/Cargo.toml"], &["a: a/Cargo.lock"]);
        check(&files, &["b/Cargo.toml"], &["b"]);
        check(
            &files,
            &["b/Cargo.toml", "a/Cargo.lock", "a/Cargo.lock.msrv"],
            &["a: a/Cargo.lock", "a: a/Cargo.lock.msrv", "b"],
        );
    }

    #[test]
    fn a_script_is_a_project_if_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/tool.rs", "---\n---\n"),
            ("a/run", "#!/usr/bin/env -S cargo -Zscript\n"),
        ];
        check(&files, &[""], &["a"]);
        check(
            &files,
            &["a/tool.rs", "a/run", "a/../a/tool.rs"],
            &["script a/run", "script a/tool.rs"],
        );
    }

    #[test]
    fn a_project_reached_twice_counts_once() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("b/Cargo.toml", PACKAGE),
        ];
        check(
            &files,
            &["", "a", "a/../a/Cargo.lock", "b", "b/Cargo.toml", "./b"],
            &["a: a/Cargo.lock", "b"],
        );
    }

    #[test]
    fn skips_hidden_folders_and_caches_unless_named() {
        let files = [
            (".hidden/Cargo.lock", ""),
            ("out/CACHEDIR.TAG", TAG),
            ("out/deep/Cargo.lock", ""),
            ("fake/CACHEDIR.TAG", "Signature: none"),
            ("fake/Cargo.lock", ""),
        ];
        check(&files, &[""], &["fake: fake/Cargo.lock"]);
        check(
            &files,
            &[".hidden", "out"],
            &[
                ".hidden: .hidden/Cargo.lock",
                "out/deep: out/deep/Cargo.lock",
            ],
        );
    }

    #[test]
    fn vendored_and_packaged_copies_are_no_projects_unless_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            (
                "a/vendor/left/Cargo.toml",
                "[package]\nname = 'left'\n[workspace]\n",
            ),
            ("a/vendor/left/Cargo.lock", ""),
            ("a/vendor/left/.cargo-checksum.json", "{}"),
            ("a/vendor/left/fuzz/Cargo.lock", ""),
            ("a/vendor/left/fuzz/Cargo.toml", PACKAGE),
            ("a/target/package/a-0.1.0/Cargo.toml", PACKAGE),
            ("a/target/package/a-0.1.0/Cargo.lock", ""),
        ];
        check(&files, &[""], &["a: a/Cargo.lock"]);
        check(
            &files,
            &["a/vendor/left", "a/target/package"],
            &[
                "a/target/package/a-0.1.0: a/target/package/a-0.1.0/Cargo.lock",
                "a/vendor/left: a/vendor/left/Cargo.lock",
            ],
        );
    }

    #[test]
    fn source_folders_of_the_settings_are_no_projects_unless_named() {
        let settings =
            "[source.crates-io]\nreplace-with = 'v'\n[source.v]\ndirectory = '../third-party'\n";
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("a/.cargo/config.toml", settings),
            // Without the mark of `cargo vendor`, and outside of the project that uses it.
            ("third-party/left/Cargo.toml", PACKAGE),
            ("third-party/left/Cargo.lock", ""),
            ("third-party/left/rust-toolchain.toml", ""),
            ("third-party-tools/Cargo.lock", ""),
        ];
        check(
            &files,
            &[""],
            &[
                "a: a/Cargo.lock",
                "third-party-tools: third-party-tools/Cargo.lock",
            ],
        );
        let top = tree(&files);
        let found = find(&[top.path().to_owned()]);
        assert!(found.toolchain_files.is_empty(), "{found:?}");
        check(
            &files,
            &["third-party/left"],
            &["third-party/left: third-party/left/Cargo.lock"],
        );
    }

    #[test]
    fn lock_file_of_a_workspace_member_is_not_a_project() {
        let unlocked = [
            ("ws/Cargo.toml", WORKSPACE),
            ("ws/crates/a/Cargo.toml", PACKAGE),
            ("ws/crates/a/Cargo.lock", ""),
            ("ws/out/Cargo.toml", PACKAGE),
            ("ws/out/Cargo.lock", ""),
        ];
        let mut locked = unlocked.to_vec();
        locked.push(("ws/Cargo.lock", ""));
        for path in ["", "ws", "ws/crates/a", "ws/crates/a/Cargo.toml"] {
            let mut with_workspace = vec!["ws"];
            let mut with_lock = vec!["ws: ws/Cargo.lock"];
            if path.len() <= 2 {
                with_workspace.push("ws/out: ws/out/Cargo.lock");
                with_lock.push("ws/out: ws/out/Cargo.lock");
            }
            check(&unlocked, &[path], &with_workspace);
            check(&locked, &[path], &with_lock);
        }
    }

    #[test]
    fn a_member_selects_its_workspace() {
        let unlocked = [
            ("ws/Cargo.toml", WORKSPACE),
            ("ws/crates/a/Cargo.toml", PACKAGE),
            ("ws/crates/b/Cargo.toml", PACKAGE),
        ];
        let mut locked = unlocked.to_vec();
        locked.push(("ws/Cargo.lock", ""));
        for path in [
            "",
            "ws",
            "ws/crates",
            "ws/crates/a",
            "ws/crates/b/Cargo.toml",
        ] {
            check(&unlocked, &[path], &["ws"]);
            check(&locked, &[path], &["ws: ws/Cargo.lock"]);
        }
    }

    #[test]
    fn a_member_that_a_workspace_excludes_is_a_project_of_its_own() {
        let manifest =
            "[workspace]\nmembers = ['crates/*', 'both/in']\nexclude = ['out', 'both']\n";
        let unlocked = [
            ("ws/Cargo.toml", manifest),
            ("ws/out/x/Cargo.toml", PACKAGE),
            ("ws/outside/Cargo.toml", PACKAGE),
            ("ws/both/in/Cargo.toml", PACKAGE),
            ("ws/both/not/Cargo.toml", PACKAGE),
        ];
        check(&unlocked, &[""], &["ws", "ws/both/not", "ws/out/x"]);
        let mut locked = unlocked.to_vec();
        locked.push(("ws/Cargo.lock", ""));
        check(
            &locked,
            &[""],
            &["ws: ws/Cargo.lock", "ws/both/not", "ws/out/x"],
        );
    }

    #[test]
    fn the_workspace_key_points_to_the_root() {
        check(
            &[
                (
                    "ws/root/Cargo.toml",
                    "[workspace]\nmembers = ['../member']\n",
                ),
                (
                    "ws/member/Cargo.toml",
                    "[package]\nname = 'm'\nworkspace = '../root'\n",
                ),
            ],
            &["ws/member"],
            &["ws/root"],
        );
    }

    #[test]
    fn an_unlocked_workspace_inside_an_unlocked_one_is_its_own() {
        check(
            &[
                ("ws/Cargo.toml", WORKSPACE),
                ("ws/fuzz/Cargo.toml", "[package]\nname = 'f'\n[workspace]\n"),
            ],
            &[""],
            &["ws", "ws/fuzz"],
        );
    }

    #[test]
    fn a_locked_project_covers_folders_below_unless_named() {
        let files = [
            ("a/Cargo.toml", PACKAGE),
            ("a/Cargo.lock", ""),
            ("a/vendor/x/Cargo.toml", PACKAGE),
            ("a/fuzz/Cargo.toml", "[workspace]\n[package]\nname = 'f'\n"),
            // Without a manifest beside it, a lock file covers nothing.
            ("b/Cargo.lock", ""),
            ("b/x/Cargo.toml", PACKAGE),
        ];
        check(
            &files,
            &[""],
            &["a: a/Cargo.lock", "b: b/Cargo.lock", "b/x"],
        );
        check(&files, &["a/fuzz"], &["a/fuzz"]);
        check(
            &files,
            &["", "a/fuzz/Cargo.toml"],
            &["a: a/Cargo.lock", "a/fuzz", "b: b/Cargo.lock", "b/x"],
        );
    }

    #[cfg(unix)]
    #[test]
    fn follows_links_only_if_named() {
        let top = tree(&[
            ("real/a/Cargo.lock", ""),
            ("real/a/Cargo.toml", PACKAGE),
            ("walked/b/Cargo.toml", PACKAGE),
        ]);
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(top.path().join(target), top.path().join(name)).unwrap();
        };
        link("real/a", "walked/linked");
        link("walked", "walked/b/loop");
        link("real/a/Cargo.lock", "walked/b/Cargo.lock");

        let found = find(&[top.path().join("walked")]);
        assert_eq!(shown(&found, top.path()), ["walked/b: walked/b/Cargo.lock"]);

        // The given name stays; the lock file behind it counts once.
        let found = find(&[top.path().join("walked/linked"), top.path().join("real")]);
        assert_eq!(
            shown(&found, top.path()),
            ["walked/linked: walked/linked/Cargo.lock"]
        );
        assert_eq!(texts(&found), [""; 0]);
    }

    #[test]
    fn a_path_that_cannot_be_searched_is_a_problem_and_others_are_searched() {
        let top = tree(&[("empty/readme", ""), ("a/Cargo.lock", "")]);
        let paths = ["missing", "empty", "a"].map(|path| top.path().join(path));
        let found = find(&paths);
        assert_eq!(shown(&found, top.path()), ["a: a/Cargo.lock"]);
        let expected = [
            (&paths[0], "no such file or folder"),
            (
                &paths[1],
                "no Cargo.lock, Cargo.toml or toolchain file below it",
            ),
        ]
        .map(|(path, text)| format!("{}: {text}", path.display()));
        assert_eq!(texts(&found), expected);
    }

    #[cfg(unix)]
    #[test]
    fn an_unreadable_folder_is_a_problem_and_others_are_searched() {
        use std::os::unix::fs::PermissionsExt;

        let top = tree(&[("a/Cargo.lock", ""), ("shut/Cargo.lock", "")]);
        let shut = top.path().join("shut");
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
        // The super-user may read it anyway.
        let is_readable = fs::read_dir(&shut).is_ok();
        let found = find(&[top.path().to_owned()]);
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();

        if is_readable {
            assert_eq!(
                shown(&found, top.path()),
                ["a: a/Cargo.lock", "shut: shut/Cargo.lock"]
            );
        } else {
            assert_eq!(shown(&found, top.path()), ["a: a/Cargo.lock"]);
            assert_eq!(found.problems.len(), 1);
            assert_eq!(found.problems[0].path, shut);
            let text = found.problems[0].error.to_string();
            assert!(text.starts_with("cannot read folder: "), "{text}");
        }
    }

    #[test]
    fn members_that_are_named_or_have_settings_of_their_own_are_noted() {
        let top = tree(&[
            ("ws/Cargo.toml", "[workspace]\nmembers = ['*', 'deep/*']\n"),
            ("ws/Cargo.lock", ""),
            ("ws/plain/Cargo.toml", PACKAGE),
            ("ws/set/Cargo.toml", PACKAGE),
            ("ws/set/.cargo/config.toml", ""),
            ("ws/pinned/Cargo.toml", PACKAGE),
            ("ws/pinned/rust-toolchain", ""),
            ("ws/deep/.cargo/config", ""),
            ("ws/deep/member/Cargo.toml", PACKAGE),
            ("ws/own/Cargo.toml", "[workspace]\n"),
            ("ws/own/.cargo/config.toml", ""),
        ]);
        let members = |path: &str| -> Vec<_> {
            let found = find(&[top.path().join(path)]);
            let [project] = found.projects.as_slice() else {
                panic!("{:?}", found.projects);
            };
            let members = project.members.iter();
            let short = |path: &Path| path.strip_prefix(top.path()).unwrap().to_owned();
            let shown = members.map(|member| {
                let file = member.toolchain_file.as_deref().map(short);
                (short(&member.folder), file)
            });
            shown.collect()
        };
        let plain = |folder: &str| (PathBuf::from(folder), None);
        let pinned = PathBuf::from("ws/pinned/rust-toolchain");
        let special = [
            plain("ws/deep/member"),
            (PathBuf::from("ws/pinned"), Some(pinned)),
            plain("ws/set"),
        ];
        assert_eq!(members("ws"), special);
        assert_eq!(members("ws/plain"), [plain("ws/plain")]);
        assert_eq!(members("ws/deep"), [plain("ws/deep/member")]);
        assert_eq!(members("ws/Cargo.lock"), special);
        fs::remove_file(top.path().join("ws/Cargo.lock")).unwrap();
        fs::remove_dir_all(top.path().join("ws/own")).unwrap();
        assert_eq!(members("ws"), special);
    }

    #[test]
    fn a_relative_path_stays_relative() {
        // Tests run in the package's own folder.
        let found = find(&[PathBuf::from("."), PathBuf::from("Cargo.toml")]);
        assert_eq!(texts(&found), [""; 0]);
        let here = Project {
            folder: PathBuf::from("."),
            lock: Some(PathBuf::from("Cargo.lock")),
            script: None,
            toolchain_file: found.projects[0].toolchain_file.clone(),
            members: Vec::new(),
        };
        assert!(found.projects.contains(&here), "{:?}", found.projects);
    }

    #[test]
    fn a_project_has_the_nearest_toolchain_file_and_the_older_name_wins() {
        let top = tree(&[
            ("rust-toolchain.toml", ""),
            ("ws/Cargo.lock", ""),
            ("ws/rust-toolchain", ""),
            ("ws/rust-toolchain.toml", ""),
            ("ws/member/rust-toolchain.toml", ""),
            ("deep/er/Cargo.lock", ""),
            ("ci/image/rust-toolchain.toml", ""),
            ("ci/.hidden/rust-toolchain.toml", ""),
        ]);
        let check = |paths: &[&str], projects: &[&str], files: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| top.path().join(path)).collect();
            let found = find(&paths);
            assert_eq!(texts(&found), [""; 0]);
            let real = top.path().canonicalize().unwrap();
            let short = |path: &Path| {
                let path = path
                    .strip_prefix(top.path())
                    .or_else(|_| path.strip_prefix(&real));
                path.unwrap().display().to_string()
            };
            let nearest: Vec<String> = found
                .projects
                .iter()
                .map(|project| {
                    let file = project.toolchain_file.as_deref().map(short);
                    format!("{}: {}", short(&project.folder), file.unwrap_or_default())
                })
                .collect();
            let all: Vec<_> = found
                .toolchain_files
                .iter()
                .map(|file| short(file))
                .collect();
            assert_eq!(
                (nearest, all),
                (
                    projects.iter().map(ToString::to_string).collect(),
                    files.iter().map(ToString::to_string).collect(),
                )
            );
        };
        check(
            &[""],
            &["deep/er: rust-toolchain.toml", "ws: ws/rust-toolchain"],
            &[
                "ci/image/rust-toolchain.toml",
                "rust-toolchain.toml",
                "ws/member/rust-toolchain.toml",
                "ws/rust-toolchain",
            ],
        );
        check(
            &["deep"],
            &["deep/er: rust-toolchain.toml"],
            &["rust-toolchain.toml"],
        );
        check(&["ci"], &[], &["ci/image/rust-toolchain.toml"]);
        check(
            &["ws/member/rust-toolchain.toml"],
            &[],
            &["ws/member/rust-toolchain.toml"],
        );
    }
}
