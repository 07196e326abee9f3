//! The units of contrib/systemd, by `systemd-analyze verify` where systemd is installed.

use std::path::Path;
use std::process::Command;

/// Lets systemd judge the units in a folder.
#[track_caller]
#[expect(clippy::print_stderr, reason = "says that nothing was tested")]
pub(crate) fn judge(units: &Path, of_user: bool) {
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    let runtime = tempfile::tempdir().unwrap();
    if of_user {
        command.arg("--user").env("XDG_RUNTIME_DIR", runtime.path());
    }
    let files = std::fs::read_dir(units).unwrap();
    command.args(files.map(|file| file.unwrap().path()));
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => eprintln!("NOT TESTED: systemd-analyze cannot be run: {error}"),
    }
}

/// Judges the units of a folder, with `program` replaced by the built larder: the unit of a missing program is faulty.
#[track_caller]
fn verify(folder: &str, program: &str, of_user: bool) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let units = tempfile::tempdir().unwrap();
    for name in ["larder.service", "larder.socket", "larder-proxy.socket"] {
        if !source.join(name).exists() {
            // The one beside the units of a user serves both.
            let proxy = source.parent().unwrap().join(name);
            std::fs::copy(proxy, units.path().join(name)).unwrap();
            continue;
        }
        let text = std::fs::read_to_string(source.join(name)).unwrap();
        assert_eq!(text.contains(program), name.ends_with("service"));
        let text = text.replace(program, env!("CARGO_BIN_EXE_larder"));
        std::fs::write(units.path().join(name), text).unwrap();
    }
    judge(units.path(), of_user);
}

#[test]
fn units_of_one_user_are_valid() {
    verify("contrib/systemd", "%h/.cargo/bin/larder", true);
}

#[test]
fn units_of_a_machine_are_valid() {
    verify("contrib/systemd/system", "/usr/local/bin/larder", false);
}
