//! `larder completions`: prints a completion script for a shell.

use std::{fmt::Write as _, process::ExitCode};

use clap_complete::Shell;

use super::{CommandError, render::print};
use crate::cli;

/// Runs the command.
///
/// # Errors
/// stdout cannot be written to.
pub fn run(shell: Shell) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    let mut command = cli::command();
    clap_complete::generate(shell, &mut command, "larder", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Fish {
        add_positional_values(&command, &mut Vec::new(), &mut script);
    }
    print(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Completes the values of arguments that are no flags, which clap_complete leaves out for fish. `names` lead to the
/// command.
fn add_positional_values<'a>(
    command: &'a clap::Command,
    names: &mut Vec<&'a str>,
    script: &mut String,
) {
    let values = command
        .get_positionals()
        .flat_map(clap::Arg::get_possible_values);
    let values: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
    if let Some((first, others)) = names.split_first()
        && !values.is_empty()
    {
        let mut condition = format!("__fish_larder_using_subcommand {first}");
        for name in others {
            let _ = write!(condition, "; and __fish_seen_subcommand_from {name}");
        }
        let values = values.join(" ");
        let _ = writeln!(
            script,
            "complete -c larder -n \"{condition}\" -f -a \"{values}\""
        );
    }
    for inner in command.get_subcommands() {
        names.push(inner.get_name());
        add_positional_values(inner, names, script);
        names.pop();
    }
}
