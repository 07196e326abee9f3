//! `larder service` with a `systemctl` that records its calls, and the units by systemd's own judgement.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use tempfile::TempDir;
use testkit::larder::Site;
use testkit::process::free_address;

use crate::fixture::{said, site_at};
use crate::units::judge;

/// A larder whose `systemctl` is a script, in an empty home.
struct Desk {
    tools: TempDir,
    site: Site,
    address: String,
}

impl Desk {
    /// `script` is the end of `systemctl`, after it has recorded its arguments.
    fn new(script: &str) -> Self {
        let tools = TempDir::new().unwrap();
        let program = tools.path().join("systemctl");
        let calls = tools.path().join("calls").display().to_string();
        fs::write(
            &program,
            format!("#!/bin/sh\necho \"$*\" >>{calls}\n{script}\n"),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let address = free_address().to_string();
        let path = format!("{}:/usr/bin:/bin", tools.path().display());
        let site = site_at("http://127.0.0.1:9/").variable("PATH", &path);
        let desk = Self {
            tools,
            site,
            address,
        };
        desk.listen_at(&desk.address);
        desk
    }

    /// Writes the setting `listen`.
    fn listen_at(&self, address: &str) {
        let folder = self.home().join(".config/larder");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("config.toml"),
            format!("listen = \"{address}\"\n"),
        )
        .unwrap();
    }

    fn home(&self) -> PathBuf {
        self.site.store().parent().unwrap().join("home")
    }

    fn calls(&self) -> Vec<String> {
        let path = self.tools.path().join("calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.site.command(&[&["service"], arguments].concat())
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.home().join(".config/systemd/user").join(name)
    }
}

/// As systemd answers while the socket listens and no daemon runs.
const WAITING: &str = "case \"$*\" in *is-enabled*) echo enabled;; *is-active*socket) echo active;; *is-active*) echo \
                       inactive; exit 3;; esac";
/// As before an installation.
const ABSENT: &str = "case \"$*\" in *is-*) echo inactive; exit 3;; esac";

#[test]
fn install_writes_valid_units_and_starts_the_socket_and_uninstall_removes_all() {
    let desk = Desk::new(ABSENT);
    let folder = desk.unit("");
    let plan = desk.run(&["install", "--dry-run"]);
    said(
        &plan,
        0,
        &[
            "ListenStream=",
            "nothing was changed",
            "enable --now larder.socket",
        ],
    );
    assert!(!folder.exists() && desk.calls().is_empty());

    let installed = desk.run(&["install"]);
    let answers = format!("larder answers at http://{}/", desk.address);
    said(
        &installed,
        0,
        &[
            "wrote ",
            "larder.service",
            "ran systemctl --user enable --now larder.socket",
            &answers,
        ],
    );
    let orders = ["--user daemon-reload", "--user enable --now larder.socket"];
    assert_eq!(desk.calls()[2..], orders);
    let service = fs::read_to_string(desk.unit("larder.service")).unwrap();
    let line = format!(
        "\nExecStart={} serve --store ",
        env!("CARGO_BIN_EXE_larder")
    );
    assert!(service.contains(&line), "{service}");
    let socket = fs::read_to_string(desk.unit("larder.socket")).unwrap();
    assert!(
        socket.contains(&format!("\nListenStream={}\n", desk.address)),
        "{socket}"
    );
    judge(&folder, true);
    let printed = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        printed.contains(&service) && printed.contains(&socket),
        "{printed}"
    );

    said(
        &desk.run(&["uninstall"]),
        0,
        &[
            "removed ",
            "disable --now larder.socket",
            "larder client undo",
        ],
    );
    let orders = [
        "--user show-environment",
        "--user disable --now larder.socket",
        "--user stop larder.service",
        "--user daemon-reload",
    ];
    assert_eq!(desk.calls(), orders);
    assert!(!folder.exists(), "its folder was made by larder");
    said(&desk.run(&["uninstall"]), 0, &["nothing to uninstall"]);
    said(&desk.run(&["status"]), 1, &["installed  no"]);
}

#[test]
fn files_that_are_foreign_or_edited_stay_unless_forced() {
    let desk = Desk::new(ABSENT);
    let socket = desk.unit("larder.socket");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    fs::write(&socket, "# mine\n").unwrap();
    said(&desk.run(&["install"]), 1, &["did not write it", "--force"]);
    said(&desk.run(&["uninstall"]), 1, &["did not write it"]);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "# mine\n");
    assert!(!desk.unit("larder.service").exists() && desk.calls().is_empty());
    said(&desk.run(&["install", "--force"]), 0, &["wrote "]);

    let edited = fs::read_to_string(&socket).unwrap() + "# mine\n";
    fs::write(&socket, &edited).unwrap();
    for command in ["install", "uninstall"] {
        said(
            &desk.run(&[command]),
            1,
            &[
                "was edited after `larder service install` (line ",
                "--force",
            ],
        );
    }
    assert_eq!(fs::read_to_string(&socket).unwrap(), edited);
    said(&desk.run(&["uninstall", "--force"]), 0, &["removed "]);
    assert!(!socket.exists());
}

#[test]
fn a_second_install_takes_a_new_address_over_and_status_names_the_difference() {
    let desk = Desk::new(WAITING);
    said(&desk.run(&["install"]), 0, &["wrote "]);
    let state = [
        "installed  yes",
        "enabled    enabled",
        "socket     active",
        "daemon     inactive",
        &desk.address,
    ];
    said(&desk.run(&["status"]), 0, &state);
    assert_eq!(
        desk.calls()[..2],
        ["--user show-environment", "--user is-active larder.socket"]
    );
    let other = free_address().to_string();
    desk.listen_at(&other);
    let note = format!("the setting `listen` is {other}; `larder service install` takes it over");
    said(&desk.run(&["status"]), 0, &[&desk.address, &note]);
    desk.calls();
    said(&desk.run(&["install"]), 0, &[&other]);
    // A socket gets its address when it starts.
    let orders = [
        "--user daemon-reload",
        "--user stop larder.socket larder.service",
        "--user enable --now larder.socket",
    ];
    assert_eq!(desk.calls()[2..], orders);
    said(&desk.run(&["status"]), 0, &[&format!("address    {other}")]);
    said(&desk.run(&["uninstall"]), 0, &["removed "]);
    assert!(!desk.unit("larder.socket").exists());
}

#[test]
fn socket_of_the_intercepting_proxy_is_part_of_the_service() {
    let desk = Desk::new(WAITING);
    let proxy = free_address().to_string();
    let file = desk.home().join(".config/larder/config.toml");
    let settings = fs::read_to_string(&file).unwrap();
    said(&desk.run(&["install"]), 0, &["wrote "]);
    fs::write(&file, format!("{settings}intercept = \"{proxy}\"\n")).unwrap();
    let both = format!("{}, {proxy}", desk.address);
    let note = format!("the setting `listen` with `intercept` is {both};");
    said(&desk.run(&["status"]), 0, &[&note]);
    said(&desk.run(&["install"]), 0, &["wrote "]);
    let address = format!("address    {both}");
    said(&desk.run(&["status"]), 0, &[&address]);
    judge(&desk.unit(""), true);
    fs::write(&file, format!("{settings}intercept = \"127.0.0.1:0\"\n")).unwrap();
    said(&desk.run(&["install"]), 1, &["127.0.0.1:0"]);
}

#[test]
fn without_a_service_manager_nothing_is_written_and_the_alternative_is_named() {
    let desk = Desk::new("echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let parts = [
        "no service manager",
        "Failed to connect to bus: No medium found",
        "`larder serve`",
    ];
    said(&desk.run(&["install"]), 1, &parts);
    assert!(!desk.unit("larder.service").exists());
    let absent = site_at("http://127.0.0.1:9/").variable("PATH", "/nowhere");
    said(
        &absent.command(&["service", "install"]),
        1,
        &["no service manager", "systemctl --user"],
    );
    said(
        &absent.command(&["service", "install", "--dry-run"]),
        0,
        &["ExecStart="],
    );
    said(
        &absent.command(&["service", "status"]),
        1,
        &["installed  no"],
    );
}

#[test]
fn a_daemon_that_is_no_service_is_named_before_anything_is_written() {
    let desk = Desk::new(ABSENT);
    let larder = desk.site.serve_at(&desk.address, &[]);
    let kill = format!("(`kill {}`)", larder.process_id());
    said(
        &desk.run(&["install"]),
        1,
        &["runs already at", &desk.address, &kill],
    );
    assert!(!desk.unit("larder.service").exists());
}

#[test]
fn a_failing_order_is_named_with_systemds_reason() {
    let desk = Desk::new(
        "case \"$*\" in *enable*) echo 'Job failed.' >&2; exit 1;; *is-active*) exit 3;; esac",
    );
    let parts = ["`systemctl --user enable --now larder.socket` failed: Job failed."];
    said(&desk.run(&["install"]), 1, &parts);
    // `uninstall` can remove the files that were written.
    said(&desk.run(&["uninstall"]), 0, &["removed "]);
}
