//! The program: parses the command line, runs one command, turns its result into an exit code.
//!
//! ```text
//!   arguments ──> cli ──> config ──> commands ──> exit code
//!                                        └─ app: store, upstream, cache, server
//! ```
//!
//! Exit codes: 0 done, 1 failed or incomplete, 2 wrong usage. Everything else is in the library: start at `lib.rs`.

use std::process::ExitCode;

use clap::Parser as _;
use larder::{
    app,
    cli::{Cli, Command, Serve},
    commands::{self, CommandError},
    config,
    log::{self, LogWriter, Verbosity},
};

/// The system's allocator keeps what a burst allocated: 70 MB after a cold fetch of 860 packages, five times what is
/// in use.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            commands::print_error(&error);
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    let Cli { shared, command } = cli;
    let is_daemon = matches!(command, Command::Serve(_));
    let (serve, jobs) = match &command {
        Command::Completions { shell } => return commands::completions::run(*shell),
        Command::Man => return commands::man::run(),
        Command::Serve(flags) => (flags.clone(), None),
        Command::Warm(flags) => (Serve::default(), flags.jobs),
        Command::Check(_) => (Serve::default(), None),
        // These are about the daemon: they look for it where the `LARDER_*` variables let it listen.
        Command::Status | Command::Client(_) => (Serve::from_variables()?, None),
    };
    let settings = config::settings(&shared, &serve, jobs)?;
    let verbosity = Verbosity {
        is_daemon,
        steps: i16::from(shared.verbose) - i16::from(shared.quiet),
    };
    // Dropped last: writes the lines that are still buffered.
    let _log: Option<LogWriter> = log::start(verbosity, settings.may_colour);
    app::block_on(async {
        match command {
            Command::Serve(_) => commands::serve::run(&settings).await,
            Command::Warm(flags) => commands::warm::run(&settings, &shared, flags).await,
            Command::Check(flags) => commands::check::run(&settings, &shared, flags).await,
            Command::Status => commands::status::run(&settings, &shared).await,
            Command::Client(flags) => commands::client::run(&settings, &shared, flags).await,
            Command::Completions { .. } | Command::Man => Ok(ExitCode::SUCCESS),
        }
    })?
}
