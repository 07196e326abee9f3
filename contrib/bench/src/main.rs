//! Measures larder against going direct, against nginx and other caches: reads the arguments, runs the scenes in order, prints the table, records the run.
//!
//! What is measured is `scene`'s matter, how numbers become a verdict `row`'s.

mod goods;
mod hits;
mod instructions;
mod load;
mod machine;
mod million;
mod nginx;
mod others;
mod process;
mod row;
mod scene;
mod stage;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;

use row::{Row, table};

#[derive(Debug, clap::Parser)]
#[command(
    about = "Measures larder against going direct, with real cargo and a fake upstream, and against other caches",
    after_help = "`hits` needs nginx and wrk, `instructions` needs valgrind and strace (all of them Debian packages). Without them \
                  their rows say so. `others` compares with crates-io-proxy and panamax if these are on the search path."
)]
struct Arguments {
    /// The built larder
    #[arg(long, value_name = "FILE")]
    larder: PathBuf,
    /// The lock file whose shape upstream takes
    #[arg(long, value_name = "FILE", default_value = "Cargo.lock")]
    lock: PathBuf,
    /// Where cargo's homes are made, which are thousands of small files; larder's stores are made in TMPDIR
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    cargo_in: PathBuf,
    /// Repetitions of every comparison
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only the scenes whose name contains this; repeatable. `instructions` and `million` are played only when they are named
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Keep the raw numbers in `contrib/bench/runs`
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

/// Whether every first claim holds.
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
    let mut absent = None;
    for scene in scene::ALL {
        let is_named = arguments.only.iter().any(|part| scene.name.contains(part));
        let is_wanted = is_named || (arguments.only.is_empty() && !scene.opt_in);
        if !is_wanted {
            continue;
        }
        note(&format!("{} ..", scene.name));
        let measured = (scene.play)(&scene::Play {
            larder: &larder,
            lock: &lock,
            cargo_in: &arguments.cargo_in,
            rounds: arguments.rounds,
        });
        for row in &measured {
            note(&format!("   {}", row.line()));
        }
        rows.extend(measured);
        if scene.name == others::SCENE {
            absent = others::absent();
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
    let mut text = format!("{head}\n\n{}", table(&rows));
    if let Some(absent) = absent {
        text += &format!("\n{absent}\n");
    }
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

/// Tells the person who waits.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
