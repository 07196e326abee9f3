//! `larder man`: prints the manual page in roff.

use std::process::ExitCode;

use clap::CommandFactory as _;

use super::{CommandError, render::print};
use crate::cli::Cli;

/// Runs the command.
///
/// # Errors
/// stdout cannot be written to.
pub fn run() -> Result<ExitCode, CommandError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
