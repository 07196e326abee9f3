//! The program: parses the command line, runs one command, turns its result into an exit code.
//!
//! ```text
//!   arguments ──> cli ──> config ──> commands ──> exit code
//!                                        └─ app: store, upstream, cache, server
//! ```
//!
//! Exit codes: 0 done, 1 failed or incomplete, 2 wrong usage. Everything else is in the library: start at `lib.rs`.

use std::{ffi::OsString, process::ExitCode};

use clap::FromArgMatches as _;
use larder::{
    app,
    cli::{self, Cli, Command, Gc, Run, Serve},
    commands::{self, CommandError},
    config,
    log::{self, LineWriter, Verbosity},
};

/// The system's allocator keeps what a burst allocated: 70 MB after a cold fetch of 860 packages, five times what is
/// in use.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let (result, json) = match parse(&arguments) {
        Ok(cli) => {
            let json = cli.shared.json;
            (run(cli), json)
        }
        // Help and version go to stdout, as clap prints them.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => (
            Err(error.into()),
            arguments.iter().any(|word| word == "--json"),
        ),
    };
    result.unwrap_or_else(|error| {
        commands::print_error(&error, json);
        error.exit_code()
    })
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = cli::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    let Cli { shared, command } = cli;
    let is_daemon = matches!(command, Command::Serve(_));
    let (name, serve, jobs) = match &command {
        Command::Completions { shell } => return commands::completions::run(*shell),
        Command::Man { command, folder } => {
            return commands::man::run(command, folder.as_deref());
        }
        Command::Serve(flags) => ("serve", flags.clone(), None),
        Command::Run(flags) => ("run", run_settings(flags), None),
        Command::Warm(flags) => ("warm", Serve::default(), flags.jobs),
        Command::Check(_) => ("check", Serve::default(), None),
        Command::Verify(_) => ("verify", Serve::default(), None),
        Command::Gc(flags) => ("gc", gc_settings(flags), None),
        Command::Forget(_) => ("forget", Serve::default(), None),
        Command::List(_) => ("list", Serve::default(), None),
        Command::Import(_) => ("import", Serve::default(), None),
        Command::Status(_) => ("status", Serve::default(), None),
        Command::Advisories(_) => ("advisories", Serve::default(), None),
        Command::Client(_) => ("client", Serve::default(), None),
        Command::Service(_) => ("service", Serve::default(), None),
    };
    let settings = config::settings(&shared, &serve, jobs, cli::settings_of(name))?;
    let sockets = if is_daemon {
        commands::serve::take_sockets(&settings)?
    } else {
        Vec::new()
    };
    let verbosity = Verbosity {
        is_daemon,
        steps: i16::from(shared.verbose) - i16::from(shared.quiet),
    };
    // Dropped last: writes the lines that are still buffered.
    let _log: Option<LineWriter> = log::start(verbosity, settings.log_format, settings.may_colour);
    app::block_on(async {
        match command {
            Command::Serve(_) => commands::serve::run(&settings, sockets).await,
            Command::Run(flags) => commands::run::run(&settings, &shared, flags).await,
            Command::Warm(flags) => commands::warm::run(&settings, &shared, flags).await,
            Command::Check(flags) => commands::check::run(&settings, &shared, flags).await,
            Command::Verify(flags) => commands::verify::run(&settings, &shared, flags).await,
            Command::Gc(flags) => commands::gc::run(&settings, &shared, flags).await,
            Command::List(flags) => commands::list::run(&settings, &shared, flags).await,
            Command::Import(flags) => commands::import::run(&settings, &shared, flags).await,
            Command::Forget(flags) => commands::forget::run(&settings, &shared, flags).await,
            Command::Status(flags) => commands::status::run(&settings, &shared, flags).await,
            Command::Advisories(flags) => {
                commands::advisories::run(&settings, &shared, flags).await
            }
            Command::Client(flags) => commands::client::run(&settings, &shared, flags).await,
            Command::Service(flags) => commands::service::run(&settings, &shared, flags).await,
            Command::Completions { .. } | Command::Man { .. } => Ok(ExitCode::SUCCESS),
        }
    })?
}

/// The flags of `run` that are settings.
fn run_settings(flags: &Run) -> Serve {
    Serve {
        offline: flags.offline,
        ..Serve::default()
    }
}

/// The flags of `gc` that are settings.
fn gc_settings(flags: &Gc) -> Serve {
    Serve {
        max_size: flags.max_size,
        forget_after: flags.forget_after,
        ..Serve::default()
    }
}
