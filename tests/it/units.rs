//! The units of contrib/systemd, by `systemd-analyze verify` where systemd is installed.

use std::path::Path;
use std::process::Command;

/// Verifies the units of a folder, with `program` replaced by the built larder: the unit of a missing program is faulty.
#[track_caller]
#[expect(clippy::print_stderr, reason = "says that nothing was tested")]
fn verify(folder: &str, program: &str, of_user: bool) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let units = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    if of_user {
        command.arg("--user").env("XDG_RUNTIME_DIR", units.path());
    }
    for name in ["larder.service", "larder.socket"] {
        let text = std::fs::read_to_string(source.join(name)).unwrap();
        assert_eq!(text.contains(program), name.ends_with("service"));
        let path = units.path().join(name);
        std::fs::write(&path, text.replace(program, env!("CARGO_BIN_EXE_larder"))).unwrap();
        command.arg(path);
    }
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.is_empty(),
                "{folder}: {said}"
            );
        }
        Err(error) => eprintln!("not tested: systemd-analyze cannot be run: {error}"),
    }
}

#[test]
fn units_of_one_user_are_valid() {
    verify("contrib/systemd", "%h/.cargo/bin/larder", true);
}

#[test]
fn units_of_a_machine_are_valid() {
    verify("contrib/systemd/system", "/usr/local/bin/larder", false);
}
