//! Runs one of the long runs and prints its figures.
//!
//! ```text
//!   contrib/soak/run kills --rounds 200 --seed 1
//! ```

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use soak::{Report, answers, disk, kills, load};

#[derive(Debug, clap::Parser)]
#[command(
    about = "Long and rough runs for larder, in which every answered byte is compared with the truth"
)]
struct Arguments {
    /// The built larder
    #[arg(long, value_name = "FILE")]
    larder: PathBuf,
    /// Chooses load, faults and moments; timing still differs between runs
    #[arg(long, value_name = "N", default_value_t = 1, global = true)]
    seed: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Command {
    /// SIGKILL under mixed load with eviction running, round after round on one store
    Kills {
        /// Number of rounds, about two seconds each
        #[arg(long, value_name = "N", default_value_t = 200)]
        rounds: u32,
    },
    /// Real cargo and rustup and raw clients, while upstream, clock, disk space and the daemon itself fail at random
    Load {
        /// Length of the run
        #[arg(long, value_name = "N", default_value_t = 600)]
        seconds: u64,
        /// The daemon's max-size
        #[arg(long, value_name = "MB", default_value_t = 40)]
        max_size: u64,
        /// One daemon for the whole run
        #[arg(long)]
        no_restarts: bool,
    },
    /// Prints an address for each kind of answer, and serves them until standard input ends
    Answers,
    /// A small file system that is filled and freed under load; needs the right to mount
    Disk {
        /// Times that it is filled and freed
        #[arg(long, value_name = "N", default_value_t = 10)]
        rounds: u32,
        /// ext4 in a file, in place of tmpfs
        #[arg(long)]
        ext4: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Ok(larder) = std::path::absolute(&arguments.larder) else {
        return ExitCode::from(2);
    };
    if !larder.is_file() {
        let _ = writeln!(io::stderr(), "error: no larder at {}", larder.display());
        return ExitCode::from(2);
    }
    let report = match run(&larder, &arguments) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
    };
    let mut text = report.table;
    for finding in &report.findings {
        text.push_str(&format!("FINDING {finding}\n"));
    }
    let _ = writeln!(io::stdout(), "{text}{} findings", report.findings.len());
    if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(larder: &Path, arguments: &Arguments) -> Result<Report, String> {
    let seed = arguments.seed;
    Ok(match arguments.command {
        Command::Kills { rounds } => kills::run(larder, &kills::Options { rounds, seed }),
        Command::Load {
            seconds,
            max_size,
            no_restarts,
        } => load::run(
            larder,
            &load::Options {
                seconds,
                seed,
                max_size,
                has_restarts: !no_restarts,
            },
        ),
        Command::Answers => {
            answers::serve(larder, &mut |line| {
                let _ = writeln!(io::stdout(), "{line}");
            });
            Report {
                table: String::new(),
                findings: Vec::new(),
            }
        }
        Command::Disk { rounds, ext4 } => {
            let file_system = match ext4 {
                true => disk::FileSystem::Ext4,
                false => disk::FileSystem::Tmpfs,
            };
            let options = disk::Options {
                rounds,
                seed,
                file_system,
            };
            disk::run(larder, &options)?
        }
    })
}
