//! Real cargo and rustup as clients, with empty homes for each run.

use testkit::cargo::{CargoHome, Project};
use testkit::process::Run;
use testkit::rustup::Rustup;

use crate::truth::Truth;

/// Cargo's messages when a registry gave it wrong bytes. All else that fails is a refusal.
const CARGO_SAYS_WRONG: [&str; 4] = [
    "failed to verify the checksum",
    "checksum for",
    "failed to unpack",
    "failed to parse",
];

/// A project for cargo with some random crates as dependencies.
pub(crate) fn random_project(truth: &Truth, rng: &mut fastrand::Rng) -> Project {
    let names: Vec<_> = truth.crates().into_keys().collect();
    let mut chosen: Vec<_> = (0..rng.usize(2..8))
        .map(|_| rng.usize(0..names.len()))
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    let empty = Project::empty();
    chosen
        .into_iter()
        .fold(empty, |project, number| project.dep(&names[number], "1"))
}

/// Runs `cargo fetch` with an empty home.
///
/// # Errors
/// A finding: cargo met wrong bytes, or has a file that differs from the truth.
pub(crate) fn cargo_fetch(
    truth: &Truth,
    project: &Project,
    index_url: &str,
) -> Result<Run, String> {
    let home = CargoHome::empty()
        .variable("CARGO_NET_RETRY", "8")
        .variable("CARGO_HTTP_TIMEOUT", "15");
    let run = home.run(project, &["fetch"], index_url);
    if let Some(text) = first_of(&CARGO_SAYS_WRONG, &run.stderr) {
        return Err(format!("cargo said `{text}`: {}", run.stderr));
    }
    for found in walkdir::WalkDir::new(home.path().join("registry/cache"))
        .into_iter()
        .flatten()
        .filter(|found| found.file_type().is_file())
    {
        let content = std::fs::read(found.path()).unwrap_or_default();
        let name = found.file_name().to_string_lossy();
        // Cargo writes under the final name, so a run that failed may leave a part.
        if run.status.success() && !truth.is_known(&fake_upstream::sha256(&content)) {
            return Err(format!("cargo has a wrong {name}"));
        }
    }
    Ok(run)
}

/// The first of these texts that a client said.
fn first_of(texts: &[&'static str], said: &str) -> Option<&'static str> {
    texts.iter().copied().find(|text| said.contains(text))
}

/// rustup's messages when a server gave it wrong bytes.
const RUSTUP_SAYS_WRONG: [&str; 3] = ["checksum failed", "checksum mismatch", "corrupt"];

/// Returns whether rustup is installed.
pub(crate) fn has_rustup() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("rustup").is_file())
}

/// Installs the newest stable toolchain with empty homes.
///
/// # Errors
/// A finding: rustup met wrong bytes, or the installed programs do not run.
pub(crate) fn rustup_install(server: &str) -> Result<Run, String> {
    let rustup = Rustup::without_toolchain();
    let arguments = ["toolchain", "install", "stable", "--profile", "minimal"];
    let arguments = [&arguments[..], &["--no-self-update"]].concat();
    let root = format!("{server}/rustup");
    let run = rustup.run(&arguments, server, &root);
    if let Some(text) = first_of(&RUSTUP_SAYS_WRONG, &run.stderr) {
        return Err(format!("rustup said `{text}`: {}", run.stderr));
    }
    if run.status.success() {
        let version = rustup.run(&["run", "stable", "rustc", "--version"], server, &root);
        if !version.stdout.contains("1.95.") {
            return Err(format!("the installed rustc says {}", version.stdout));
        }
    }
    Ok(run)
}
