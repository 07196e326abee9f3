//! Measures larder against a direct connection to upstream, against nginx, and against other caches.
//!
//! ```text
//!   main ──> benchmarks (the list) ──> benchmarks/NAME ──> fixture, payload, load, server, .. ──> row
//! ```
//!
//! `main` parses the arguments, runs the benchmarks in order, prints the table and records the run.

mod benchmark;
mod benchmarks;
mod compare;
mod fixture;
mod load;
mod machine;
mod nginx;
mod observers;
mod payload;
mod process;
mod row;
mod server;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;

use benchmark::Context;
use row::{Row, table};

#[derive(Debug, clap::Parser)]
#[command(
    about = "Measures larder against a direct connection to upstream, with real cargo and a fake upstream, and against other caches",
    after_help = "`hits` needs nginx and wrk, `instructions` needs valgrind and strace (all of them Debian packages). Rows whose \
                  programs are missing say so. `others` compares with crates-io-proxy and panamax if they are in PATH."
)]
struct Arguments {
    /// The built larder
    #[arg(long, value_name = "FILE")]
    larder: PathBuf,
    /// The lock file whose packages upstream has
    #[arg(long, value_name = "FILE", default_value = "Cargo.lock")]
    lock: PathBuf,
    /// The folder for cargo's homes, which are thousands of small files; larder's stores are in TMPDIR
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    cargo_in: PathBuf,
    /// Repetitions of every comparison
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Run only benchmarks whose name contains this; repeatable. `slow-empty`, `slow-filled`, `instructions`,
    /// `million`, `eviction` and `observed` run only when they are named
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Write the numbers into `contrib/bench/runs`
    #[arg(long)]
    record: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the benchmarks. Returns whether every first claim holds.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let lock = std::fs::read_to_string(&arguments.lock).map_err(|cause| {
        format!(
            "cannot read the lock file {}: {cause}",
            arguments.lock.display()
        )
    })?;
    let larder = std::path::absolute(&arguments.larder)
        .ok()
        .and_then(|larder| larder.to_str().map(str::to_owned))
        .filter(|larder| Path::new(larder).is_file())
        .ok_or_else(|| format!("no larder at {}", arguments.larder.display()))?;

    let mut rows: Vec<Row> = Vec::new();
    let mut footnotes = String::new();
    for benchmark in benchmarks::ALL {
        let is_named = arguments
            .only
            .iter()
            .any(|part| benchmark.name.contains(part));
        let is_wanted = is_named || (arguments.only.is_empty() && !benchmark.opt_in);
        if !is_wanted {
            continue;
        }
        note(&format!("{} ..", benchmark.name));
        let measured = (benchmark.run)(&Context {
            larder: &larder,
            lock: &lock,
            cargo_in: &arguments.cargo_in,
            rounds: arguments.rounds,
        });
        for row in &measured {
            note(&format!("   {}", row.line()));
        }
        rows.extend(measured);
        if let Some(footnote) = (benchmark.footnote)() {
            footnotes += &format!("\n{footnote}\n");
        }
    }

    let machine = machine::describe();
    let head = format!(
        "{}, {} cores, Linux {}, {}, {}; stores on {}; larder at {}; {} rounds",
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.rustc,
        machine.cargo,
        machine.stores_on,
        machine.commit,
        arguments.rounds
    );
    let text = format!("{head}\n\n{}{footnotes}", table(&rows));
    write!(io::stdout(), "{text}").map_err(|cause| format!("cannot write to stdout: {cause}"))?;

    if arguments.record {
        let lock_name = arguments
            .lock
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let document = json!({
            "machine": machine.json(),
            "lock": lock_name,
            "lock_packages": lock.matches("\n[[package]]\n").count(),
            "rounds": arguments.rounds,
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        let folder = Path::new("contrib/bench/runs").join(machine.run_name());
        let write = || {
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("numbers.json"), format!("{document:#}\n"))?;
            std::fs::write(folder.join("table.txt"), &text)
        };
        write()
            .map_err(|cause| format!("cannot record the run in {}: {cause}", folder.display()))?;
        note(&format!("recorded in {}", folder.display()));
    }
    Ok(rows.iter().all(Row::holds))
}

/// Writes a line of progress.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
