//! `larder client doctor` against faults made on purpose: real cargo and rustup fail, the doctor names the cause, and
//! its remedy makes them work. Also the hint at the end of `warm` and `check`, which names the next step.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use fake_upstream::{Crate, FakeUpstream, HOST, Installer, Toolchain};
use serde_json::Value;
use testkit::{
    cargo::{CargoHome, Project},
    larder::{Larder, Site},
    process::{Run, free_address, run},
    rustup::Rustup,
};

use crate::dist::MINIMAL;
use crate::fixture::{project_on_left, publish_pair, site};

/// A proxy at which nothing listens.
const DEAD_PROXY: &str = "http://127.0.0.1:9";
const NO_PROXY: (&str, &str) = ("no_proxy", "127.0.0.1,localhost");

/// Variables of a client, besides those of an empty home.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// A cargo home and a project on two crates, with larder in between.
struct World {
    upstream: FakeUpstream,
    site: Site,
    home: CargoHome,
    project: Project,
}

impl World {
    fn new() -> Self {
        let upstream = FakeUpstream::start();
        publish_pair(&upstream);
        Self {
            site: site(&upstream),
            upstream,
            home: CargoHome::empty().variable("CARGO_NET_RETRY", "0"),
            project: project_on_left(),
        }
    }

    /// A world whose cargo uses this daemon.
    fn use_larder(&self, larder: &Larder<'_>) {
        self.write_index(&format!("sparse+{}", larder.url()));
    }

    fn write_index(&self, index: &str) {
        let settings = format!(
            "[source.crates-io]\nreplace-with = \"larder\"\n\n[registries.larder]\nindex = \"{index}\"\n"
        );
        fs::create_dir_all(self.home.path()).unwrap();
        fs::write(self.home.path().join("config.toml"), settings).unwrap();
    }

    fn cargo(&self, variables: Variables<'_>, arguments: &[&str]) -> Run {
        let mut cargo = self.home.command(&self.project);
        cargo.envs(variables.iter().copied()).args(arguments);
        run(cargo)
    }

    /// larder in the environment of cargo and in its place.
    fn larder(&self, variables: Variables<'_>, arguments: &[&str]) -> Output {
        let cargo = self.home.command(&self.project);
        larder_like(&cargo, &self.site, variables, arguments)
    }

    /// The doctor's findings about cargo that are problems. Its exit code must agree.
    #[track_caller]
    fn problems(&self, variables: Variables<'_>) -> Vec<(String, String)> {
        let output = self.larder(variables, &["client", "doctor", "cargo", "--json"]);
        problems(&output)
    }

    /// Fails unless cargo fails with `error`, and the doctor finds `check`, said with `part`.
    #[track_caller]
    fn fails(&self, variables: Variables<'_>, error: &str, check: &str, part: &str) {
        let cargo = self.cargo(variables, &["update"]);
        cargo.assert_failure().assert_says(error);
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
        let guide = fs::read_to_string(guide).unwrap();
        assert!(
            guide.contains(error),
            "docs/troubleshooting.md has no {error}"
        );
        let problems = self.problems(variables);
        let [(found, text)] = problems.as_slice() else {
            panic!("{variables:?}: {problems:?}");
        };
        assert_eq!(found, check, "{text}");
        assert!(text.contains(part), "no `{part}` in {text}");
    }

    #[track_caller]
    fn works(&self, variables: Variables<'_>) {
        self.cargo(variables, &["update"]).assert_success();
        assert_eq!(self.problems(variables), []);
    }
}

/// larder in the environment of a client and in its place, with the store and the upstream of a site.
fn larder_like(
    client: &Command,
    site: &Site,
    variables: Variables<'_>,
    arguments: &[&str],
) -> Output {
    let mut larder = Command::new(env!("CARGO_BIN_EXE_larder"));
    larder.env_clear();
    for (name, value) in client.get_envs() {
        larder.env(name, value.unwrap_or_default());
    }
    larder
        .current_dir(client.get_current_dir().unwrap())
        .env("LARDER_STORE", site.store())
        .env("LARDER_INDEX", site.index())
        // A port without a listener, so that no larder of this machine is found.
        .env("LARDER_LISTEN", "127.0.0.1:1")
        .envs(variables.iter().copied())
        .args(arguments);
    larder.output().unwrap()
}

#[track_caller]
fn findings(output: &Output) -> Vec<Value> {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let healthy = document["healthy"].as_bool().unwrap();
    assert_eq!(
        output.status.code(),
        Some(i32::from(!healthy)),
        "{output:?}"
    );
    document["findings"].as_array().unwrap().clone()
}

/// The problems with their texts and remedies.
#[track_caller]
fn problems(output: &Output) -> Vec<(String, String)> {
    let findings = findings(output).into_iter();
    let problems = findings.filter(|finding| finding["verdict"] == "problem");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    problems
        .map(|finding| {
            let said = text(&finding["what"]) + "\n" + &text(&finding["remedy"]);
            (text(&finding["check"]), said)
        })
        .collect()
}

/// The verdict of the first finding of this name.
#[track_caller]
fn verdict(output: &Output, check: &str) -> String {
    let findings = findings(output);
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} in {findings:?}"));
    found["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn doctor_finds_a_missing_daemon_and_a_changed_address_and_apply_mends_it() {
    let world = World::new();
    let free = free_address().to_string();
    world.write_index(&format!("sparse+http://{free}/"));
    let start = format!("`larder serve --listen {free}` starts the daemon");
    world.fails(&[], "Could not connect to server", "daemon", &start);

    let larder = world.site.serve_at(&free, &[]);
    world.works(&[]);
    world.cargo(&[], &["build"]).assert_success();
    larder.stop();
    let larder = world.site.serve(&[]);
    let runs = format!("larder runs at {}", larder.url());
    world.fails(&[], "Could not connect to server", "address", &runs);
    let apply = world.larder(&[], &["client", "apply", "cargo"]);
    assert!(apply.status.success(), "{apply:?}");
    world.works(&[]);
    // The cost that the doctor names.
    let rebuilt = world.cargo(&[], &["build"]);
    rebuilt.assert_success().assert_says("Compiling left");
}

#[test]
fn doctor_corrects_addresses_that_cargo_refuses() {
    let world = World::new();
    let larder = world.site.serve(&[]);
    let right = format!("sparse+{}", larder.url());
    let remedy = format!("write it as `{right}`");
    for (wrong, error) in [
        (right.trim_end_matches('/').to_owned(), "end in a slash"),
        (larder.url().to_owned(), "http status code: 400"),
        (right.replace("http", "https"), "SSL connect error"),
    ] {
        world.write_index(&wrong);
        world.fails(&[], error, "address", &remedy);
    }
    let name = "CARGO_REGISTRIES_LARDER_INDEX";
    world.works(&[(name, &right)]);
    world.write_index(&right);
    let wrong = format!("sparse+http://{}/", free_address());
    world.fails(
        &[(name, &wrong)],
        "Could not connect",
        "address",
        &format!("`unset {name}`"),
    );
    world.works(&[]);
    let settings = world.home.path().join("config.toml");
    fs::write(&settings, "[source.crates-io]\nreplace-with = 'larder'\n").unwrap();
    let error = "could not find a configured source with the name";
    world.fails(&[], error, "settings", "`larder client apply cargo`");
    fs::write(&settings, "[source.crates-io\n").unwrap();
    world.cargo(&[], &["update"]).assert_failure();
    let problems = world.problems(&[]);
    assert!(
        problems[0].1.contains("config.toml is not valid TOML"),
        "{problems:?}"
    );
}

#[test]
fn doctor_names_each_proxy_that_catches_loopback() {
    let world = World::new();
    let larder = world.site.serve(&[]);
    world.use_larder(&larder);
    let error = "Could not connect to server";
    for name in ["http_proxy", "ALL_PROXY", "all_proxy", "CARGO_HTTP_PROXY"] {
        let place = format!("(the variable {name}), which does not answer");
        world.fails(&[(name, DEAD_PROXY)], error, "proxy", &place);
        world.works(&[(name, DEAD_PROXY), NO_PROXY]);
    }
    // Neither has any effect on an http address.
    for name in ["HTTP_PROXY", "https_proxy"] {
        world.works(&[(name, DEAD_PROXY)]);
    }
    world.project.write(
        ".cargo/config.toml",
        &format!("[http]\nproxy = \"{DEAD_PROXY}\"\n"),
    );
    world.fails(&[], error, "proxy", "`http.proxy` in ");
    world.works(&[NO_PROXY]);
    // Of no proxy.
    world.works(&[("CARGO_HTTP_PROXY", "")]);
    fs::remove_dir_all(world.project.folder().join(".cargo")).unwrap();
    let user = world.home.path().parent().unwrap().join("home/.gitconfig");
    fs::write(&user, format!("[http]\n\tproxy = {DEAD_PROXY}\n")).unwrap();
    world.fails(&[], error, "proxy", "git's `http.proxy` in ");
    world.works(&[NO_PROXY]);
}

#[test]
fn doctor_finds_an_old_config_json_in_the_cache_of_cargo() {
    let world = World::new();
    let larder = world.site.serve(&[]);
    world.use_larder(&larder);
    world.works(&[]);
    let registry = world.home.path().join("registry");
    let folders = fs::read_dir(registry.join("index")).unwrap();
    let mut configs = folders.map(|folder| folder.unwrap().path().join("config.json"));
    let config = configs.next().unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let other = format!("http://{}/", free_address());
    fs::write(&config, text.replace(larder.url(), &other)).unwrap();
    let fetch = || world.cargo(&[], &["fetch", "--locked"]);
    fetch()
        .assert_failure()
        .assert_says(&format!("failed to download from `{other}"));
    let problems = world.problems(&[]);
    let [(check, said)] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert_eq!(check, "stale-config", "{said}");
    let remedy = format!("`rm '{}'`", config.display());
    assert!(said.contains(&remedy), "{said}");
    fs::remove_file(&config).unwrap();
    fetch().assert_success();
    assert_eq!(world.problems(&[]), []);
}

#[test]
fn doctor_names_the_commands_of_cargo_that_need_a_registry() {
    let world = World::new();
    let larder = world.site.serve(&[]);
    world.use_larder(&larder);
    let output = world.larder(&[], &["client", "doctor"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.contains("--registry crates-io"));
    let line = line.unwrap();
    let refused: [&[&str]; 7] = [
        &["publish", "--dry-run", "--allow-dirty"],
        &["search", "left"],
        &["info", "left"],
        &["login", "token"],
        &["logout"],
        &["owner", "--list", "left"],
        &["yank", "left@1.0.0"],
    ];
    for arguments in refused {
        assert!(line.contains(arguments[0]), "{arguments:?}: {line}");
        let cargo = world.cargo(&[], arguments);
        cargo.assert_failure().assert_says("crates-io is replaced");
    }
    assert_eq!(line.matches('`').count(), 2 * (refused.len() + 1), "{line}");
    world.cargo(&[], &["add", "right"]).assert_success();
}

#[test]
fn doctor_reports_an_outage_an_order_to_stay_offline_and_an_unusable_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let larder = world.site.serve(&[]);
    world.use_larder(&larder);
    world.works(&[]);
    world.upstream.stop();
    assert_eq!(larder.get("/ab/se/absent").status, 503);
    let problems = world.problems(&[]);
    let [(check, said)] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert!(
        check == "upstream" && said.contains(" is down since "),
        "{said}"
    );
    let larder = larder.restart_on_same_port(&["--offline"]);
    let doctor = ["client", "doctor", "cargo", "--json"];
    assert_eq!(verdict(&world.larder(&[], &doctor), "offline"), "note");

    let other = tempfile::tempdir().unwrap();
    let other_store = [("LARDER_STORE", other.path().to_str().unwrap())];
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let listen = larder
        .url()
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let elsewhere = [other_store[0], ("LARDER_LISTEN", listen)];
    assert_eq!(
        verdict(&world.larder(&elsewhere, &doctor), "other-store"),
        "note"
    );
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let problems = world.problems(&other_store);
    assert!(
        problems[0].1.contains("other users may write to it"),
        "{problems:?}"
    );
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o700)).unwrap();
    // Only root can give a folder away.
    if std::os::unix::fs::chown(other.path(), Some(65_534), None).is_ok() {
        let problems = world.problems(&other_store);
        assert_eq!(problems[0].0, "store", "{problems:?}");
    }
}

#[test]
fn doctor_finds_another_mirror_and_packages_of_another_registry() {
    let world = World::new();
    let larder = world.site.serve(&[]);
    world.use_larder(&larder);
    let doctor = ["client", "doctor", "--json"];
    let other = "sparse+https://corp.example/index/";
    world.project.write(
        "Cargo.lock",
        &format!(
            "version = 4\n\n[[package]]\nname = \"one\"\nversion = \"1.0.0\"\nsource = \"{other}\"\n\
             checksum = \"{}\"\n",
            "0".repeat(64)
        ),
    );
    assert_eq!(
        verdict(&world.larder(&[], &doctor), "other-registry"),
        "note"
    );
    let settings = "[source.crates-io]\nreplace-with = 'corp'\n[source.corp]\nregistry = '";
    world
        .project
        .write(".cargo/config.toml", &format!("{settings}{other}'\n"));
    let problems = world.problems(&[]);
    let [(check, said)] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert_eq!(check, "mirror", "{said}");
    assert!(said.contains("wins over larder's settings in "), "{said}");
    fs::remove_file(world.home.path().join("config.toml")).unwrap();
    assert_eq!(verdict(&world.larder(&[], &doctor), "mirror"), "note");
}

#[test]
fn clients_that_do_without_larder_are_no_problem_unless_they_are_named() {
    let world = World::new();
    let _ = world.home.command(&world.project);
    let doctor =
        |arguments: &[&str]| world.larder(&[], &[&["client", "doctor"], arguments].concat());
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let notes: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("note "))
        .collect();
    assert_eq!(
        notes,
        [
            "note     no larder is running",
            "note     cargo does not use larder",
            "note     rustup does not use larder"
        ],
        "{text}"
    );
    for client in ["cargo", "rustup"] {
        let output = doctor(&[client]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let remedy = format!("`larder client apply {client}`");
        assert!(text.contains(&remedy), "{text}");
    }
    let quiet = doctor(&["--quiet"]);
    assert!(quiet.stdout.is_empty(), "{quiet:?}");
    let proxy = [("CARGO_HTTP_PROXY", "http://larder:password@127.0.0.1:9")];
    let problems = world.problems(&proxy);
    assert!(
        problems[0]
            .1
            .contains("nothing listens at http://127.0.0.1:9"),
        "{problems:?}"
    );
    let inside = world.larder(
        &[],
        &[
            "run",
            "--",
            env!("CARGO_BIN_EXE_larder"),
            "client",
            "doctor",
            "cargo",
        ],
    );
    let text = String::from_utf8_lossy(&inside.stdout).into_owned();
    assert!(
        inside.status.success() && text.starts_with("ok       cargo goes through larder's proxy"),
        "{inside:?}"
    );
}

#[test]
fn doctor_finds_the_variables_with_which_rustup_fails() {
    let upstream = FakeUpstream::start();
    let toolchain = Toolchain::new("stable", "1.95.0").host(HOST);
    upstream.release(&toolchain);
    upstream.release_rustup(&Installer::new("1.29.0").host(HOST).program("a program"));
    let site = site(&upstream).variable("LARDER_DIST_SERVER", upstream.base_url());
    let larder = site.serve(&[]);
    let base = larder.url().trim_end_matches('/');
    let root = format!("{base}/rustup");
    let problems_of = |variables: Variables<'_>| {
        let mut client = Command::new("rustup");
        Rustup::without_toolchain().scrub(&mut client);
        let folder = tempfile::tempdir().unwrap();
        client.current_dir(folder.path());
        client.env_remove("all_proxy").env_remove("no_proxy");
        let doctor = ["client", "doctor", "rustup", "--json"];
        problems(&larder_like(&client, &site, variables, &doctor))
    };
    let install = |server: &str| {
        let rustup = Rustup::without_toolchain();
        rustup.run(&MINIMAL, server, &root)
    };
    let with = |server: &str| {
        problems_of(&[
            ("RUSTUP_DIST_SERVER", server),
            ("RUSTUP_UPDATE_ROOT", &root),
        ])
    };
    install(base).assert_success();
    assert_eq!(with(base), []);
    assert_eq!(with(&format!("{base}/")), []);
    for wrong in [
        format!("{base}/dist"),
        base.replace("http", "https"),
        base.replace("http://", ""),
    ] {
        install(&wrong).assert_failure();
        let problems = with(&wrong);
        let [(check, said)] = problems.as_slice() else {
            panic!("{wrong}: {problems:?}");
        };
        let remedy = format!("`export RUSTUP_DIST_SERVER={base}`");
        assert!(check == "address" && said.contains(&remedy), "{said}");
    }
    let alone = problems_of(&[("RUSTUP_DIST_SERVER", base)]);
    assert!(
        alone[0].1.contains("RUSTUP_UPDATE_ROOT is not set"),
        "{alone:?}"
    );
    let variables = [
        ("RUSTUP_DIST_SERVER", base),
        ("RUSTUP_UPDATE_ROOT", root.as_str()),
        ("http_proxy", DEAD_PROXY),
    ];
    let proxied = problems_of(&variables);
    assert_eq!(proxied.len(), 1, "{proxied:?}");
    assert_eq!(proxied[0].0, "proxy", "{proxied:?}");
    let excluded = [variables[0], variables[1], variables[2], NO_PROXY];
    assert_eq!(problems_of(&excluded), []);
}

#[test]
fn settings_of_rustup_that_no_shell_has_read_are_found() {
    let world = World::new();
    let apply = world.larder(&[], &["client", "apply", "rustup"]);
    assert!(apply.status.success(), "{apply:?}");
    let output = world.larder(&[], &["client", "doctor", "--json"]);
    let problems = problems(&output);
    assert!(
        problems[0].1.contains("this shell has not read it"),
        "{problems:?}"
    );
}

#[test]
fn warm_and_check_name_the_next_step_once_and_only_if_cargo_goes_past_larder() {
    let world = World::new();
    let folder = world.project.folder().display().to_string();
    let stderr = |variables: Variables<'_>, arguments: &[&str]| {
        let output = world.larder(variables, arguments);
        String::from_utf8(output.stderr).unwrap()
    };
    let hints = |text: &str| text.matches("hint: cargo does not use larder yet").count();
    world.cargo(&[], &["--version"]).assert_success();
    let lock = world.home.run(
        &world.project,
        &["generate-lockfile"],
        &world.upstream.url(),
    );
    lock.assert_success();
    let not_ready = stderr(&[], &["check", &folder]);
    assert_eq!(hints(&not_ready), 0, "{not_ready}");
    for command in ["warm", "check"] {
        let text = stderr(&[], &[command, &folder]);
        assert_eq!(hints(&text), 1, "{text}");
        for flag in ["--quiet", "--json"] {
            let text = stderr(&[], &[command, flag, &folder]);
            assert_eq!(hints(&text), 0, "{command} {flag}: {text}");
        }
        let inside = [("CARGO_HTTP_PROXY", "http://larder:password@127.0.0.1:9")];
        assert_eq!(hints(&stderr(&inside, &[command, &folder])), 0);
    }
    let dry = stderr(&[], &["warm", "--dry-run", &folder]);
    assert_eq!(hints(&dry), 0, "{dry}");
    world.write_index("sparse+http://127.0.0.1:3263/");
    for command in ["warm", "check"] {
        let text = stderr(&[], &[command, &folder]);
        assert_eq!(hints(&text), 0, "{text}");
    }
    world.write_index("sparse+http://builder.example:3263/");
    let text = stderr(&[], &["check", &folder]);
    let hint = "hint: cargo asks the larder at http://builder.example:3263/, not the store of this machine";
    assert!(text.contains(hint), "{text}");
}

#[test]
fn client_print_names_an_address_that_others_can_use() {
    let upstream = FakeUpstream::start();
    upstream.publish(Crate::new("left", "1.0.0"));
    let site = site(&upstream);
    let print = |arguments: &[&str]| {
        let output = site.command(&[&["client", "print", "--json"], arguments].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let named = print(&["--address", "http://builder.example:80/larder"]);
    let base = "http://builder.example/larder/";
    assert_eq!(named["address"], base);
    let index = format!("sparse+{base}");
    assert!(named["cargo"].as_str().unwrap().contains(&index), "{named}");
    assert_eq!(named["build"]["CARGO_MIRROR"], base);
    let wrong = site.command(&["client", "print", "--address", "builder:1"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");

    let larder = site.serve_at("0.0.0.0:0", &[]);
    let port = larder.url().rsplit(':').next().unwrap();
    let printed = print(&[]);
    let address = printed["address"].as_str().unwrap();
    assert!(
        address.ends_with(port) && !address.contains("0.0.0.0"),
        "{address}"
    );
    let host = address.trim_start_matches("http://").trim_end_matches('/');
    // The address is one of this machine, and larder answers to it.
    let reply = larder
        .http()
        .request("GET", "/config.json", &[("host", host)]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let build = printed["build"]["CARGO_MIRROR"].as_str().unwrap();
    assert_eq!(build, format!("http://127.0.0.1:{port}"));
    assert!(Path::new(&site.store()).exists());
}

/// See docs/client-behaviour.md.
#[test]
fn doctor_names_the_toolchain_that_rustup_lacks_in_this_folder() {
    let upstream = FakeUpstream::start();
    let rustup = Rustup::without_toolchain();
    let home = rustup.home().display().to_string();
    let findings = |variable: &str, code: i32| {
        let site = site(&upstream)
            .variable("RUSTUP_HOME", &home)
            .variable("RUSTUP_TOOLCHAIN", variable);
        let output = site.command(&["client", "doctor", "--json"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = document["findings"].as_array().unwrap().iter();
        let found = findings.filter(|finding| finding["check"] == "toolchain");
        let found = found.map(|finding| format!("{} {}", finding["verdict"], finding["what"]));
        found.collect::<Vec<_>>().join(", ")
    };
    let server = upstream.base_url();
    let server = server.trim_end_matches('/');
    let client = |variable: &str| {
        let mut command = rustup.command("cargo", server, server);
        command.env("RUSTUP_TOOLCHAIN", variable).arg("--version");
        run(command)
    };
    let found = findings("", 1);
    assert!(
        found.contains("rustup runs no cargo in this folder"),
        "{found}"
    );
    client("").assert_failure();
    let found = findings("nosuch", 1);
    assert!(found.contains("RUSTUP_TOOLCHAIN, `nosuch`"), "{found}");
    client("nosuch").assert_failure();
    let found = findings("1.80.0", 0);
    assert!(
        found.contains("note") && found.contains("1.80.0-"),
        "{found}"
    );
    upstream.release(&Toolchain::new("stable", "1.80.0").date("2024-07-25"));
    client("1.80.0").assert_success();
    assert_eq!(findings("1.80.0", 0), "");
}
