//! `larder completions`: prints a completion script for a shell.

use std::process::ExitCode;

use clap_complete::Shell;

use super::{CommandError, render::print};
use crate::cli;

/// Runs the command.
///
/// # Errors
/// stdout cannot be written to.
pub fn run(shell: Shell) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "larder", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
