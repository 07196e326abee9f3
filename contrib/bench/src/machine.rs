//! Describes the machine, its tools and the commit of a run, for the record.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value, json};

/// The machine, its tools and the commit of the sources.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) cargo: String,
    /// The file system of larder's stores.
    pub(crate) stores_on: String,
    /// Abbreviated hash, with a `+` if the tree had changes.
    pub(crate) commit: String,
    date: String,
}

/// Describes this machine. Properties that cannot be determined are `unknown`.
pub(crate) fn describe() -> Machine {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let commit = first_line("git", &["rev-parse", "--short=10", "HEAD"]);
    // Records of runs do not change the program that was measured.
    let changes = first_line(
        "git",
        &["status", "--porcelain", "--", ".", ":!contrib/bench/runs"],
    );
    let mark = if changes == "unknown" { "" } else { "+" };
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Machine {
        cpu: cpu.to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        rustc: first_line("rustc", &["--version"]),
        cargo: first_line("cargo", &["--version"]),
        stores_on: file_system(&std::env::temp_dir()),
        commit: format!("{commit}{mark}"),
        date: now[..10].to_owned(),
    }
}

impl Machine {
    pub(crate) fn json(&self) -> Value {
        json!({
            "date": self.date, "cpu": self.cpu, "cores": self.cores, "kernel": self.kernel,
            "rustc": self.rustc, "cargo": self.cargo, "stores_on": self.stores_on, "commit": self.commit,
        })
    }

    /// `DATE-MACHINE`, usable as the name of a folder.
    pub(crate) fn run_name(&self) -> String {
        let words: Vec<_> = self
            .cpu
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        format!("{}-{}-{}-cores", self.date, words.join("-"), self.cores)
    }
}

/// The type of the file system, by the numbers in `linux/magic.h`.
fn file_system(folder: &Path) -> String {
    match rustix::fs::statfs(folder).map(|found| found.f_type) {
        Ok(0xef53) => "ext4".to_owned(),
        Ok(0x5846_5342) => "xfs".to_owned(),
        Ok(0x9123_683e) => "btrfs".to_owned(),
        Ok(0x0102_1994) => "tmpfs".to_owned(),
        Ok(other) => format!("{other:#x}"),
        Err(_) => "unknown".to_owned(),
    }
}

/// The first line of a command's output.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let line = output.ok().and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(str::to_owned)
    });
    line.unwrap_or_else(|| "unknown".to_owned())
}
